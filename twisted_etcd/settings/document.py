"""A YAML file as values that know where they stand, with the environment filled in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, NoReturn

import yaml

from twisted_etcd.discreet import Discreet
from twisted_etcd.errors import InvalidSettings

#: A file with more values than this is refused: aliases of aliases can mean billions.
MOST_VALUES = 100_000

_INTERPOLATION = re.compile(r"\$\$\{|\$\{([^}]*)\}|\$\{")
_REFERENCE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)
_MERGE = "tag:yaml.org,2002:merge"
_COLLECTIONS = {"tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"}
#: What PyYAML quotes from the file: more than one character, and none of its own tokens such as '<stream end>'.
_QUOTED = re.compile(r"""'(?![<\\])[^'\s]{2,}'|"(?![<\\])[^"\s]{2,}["]""")


class Mistakes:
    """
    All that is wrong with one file.

    :ivar file: its name, as the user gave it.
    """

    def __init__(self, file: str) -> None:
        self.file = file
        self._found: list[tuple[int, int, str]] = []

    def __len__(self) -> int:
        return len(self._found)

    def add(self, line: int, path: str, text: str) -> None:
        """
        Note a mistake.

        :param line: where, from 1.
        :param path: of the key, as ``etcd.tls.ca_file``; empty for the file as a whole.
        """
        where = f"{self.file}:{line}: {path}: " if path else f"{self.file}:{line}: "
        self._found.append((line, len(self._found), where + text))

    def raise_if_any(self) -> None:
        """
        End here if there was a mistake.

        :raises InvalidSettings: with one line for each, in the order of the file.
        """
        if self._found:
            raise self._error()

    def fail(self, line: int, path: str, text: str) -> NoReturn:
        """
        Note a mistake after which nothing more can be read.

        :raises InvalidSettings: with this and all mistakes so far.
        """
        self.add(line, path, text)
        raise self._error()

    def _error(self) -> InvalidSettings:
        return InvalidSettings("\n".join(text for _, _, text in sorted(self._found)))


class Value(Discreet, frozen=True, kw_only=True):
    """
    One value of the file.

    :ivar content: a mapping by key, a list, or what YAML makes of a scalar.
    :ivar path: of its key, as ``register[0].name``.
    :ivar line: where it stands, from 1.
    :ivar written: what stands in the file, where the environment changed that; None elsewhere.
    :ivar broken: whether a mistake was noted already, so that there is nothing to read.
    """

    # Passwords are among them.
    secret_fields: ClassVar[frozenset[str]] = frozenset({"content", "written"})

    content: object
    path: str
    line: int
    written: str | None = None
    broken: bool = False

    @property
    def mapping(self) -> dict[str, Value] | None:
        """The entries; None where it is no mapping."""
        return self.content if isinstance(self.content, dict) else None

    @property
    def items(self) -> list[Value] | None:
        """The items; None where it is no list."""
        return self.content if isinstance(self.content, list) else None

    def plain(self) -> object:
        """The value without its places, as ``yaml.safe_load`` has it."""
        if self.mapping is not None:
            return {key: value.plain() for key, value in self.mapping.items()}
        if self.items is not None:
            return [value.plain() for value in self.items]
        return self.content

    def lines(self) -> dict[str, int]:
        """The line of this value and of each below it, by path."""
        below = [*(self.mapping or {}).values(), *(self.items or [])]
        found = {self.path: self.line}
        for value in below:
            found.update(value.lines())
        return found


def read_document(path: Path, environ: Mapping[str, str], mistakes: Mistakes) -> Value:
    """
    Read a YAML file; what it says of the environment is filled in.

    In text, ``${NAME}`` is the value of a variable, ``${NAME:-text}`` has a text for a variable that is unset or
    empty, and ``$${`` stands for ``${`` itself.

    :param mistakes: gets unset variables, keys that stand twice, and keys that are no text.
    :raises InvalidSettings: where the file cannot be read at all, or is no YAML.
    """
    text = _read(path, mistakes)
    loader = yaml.SafeLoader("")
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            return Value(content={}, path="", line=1)
        return _Reader(loader, environ, mistakes).value(node, "", _line(node))
    except yaml.MarkedYAMLError as error:
        line, words = _syntax_error(error, text)
        mistakes.fail(line, "", words)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        mistakes.fail(line, "", f"the character U+{error.character:04X} is not allowed in YAML")
    except RecursionError:
        mistakes.fail(1, "", "the values are nested too deeply")
    finally:
        loader.dispose()


def _read(path: Path, mistakes: Mistakes) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        msg = f"{mistakes.file}: cannot be read: {error.strerror}"
        raise InvalidSettings(msg) from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        msg = f"{mistakes.file}:{line}: is not text in UTF-8: byte 0x{content[error.start]:02x}"
        raise InvalidSettings(msg) from error


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _syntax_error(error: yaml.MarkedYAMLError, text: str) -> tuple[int, str]:
    """
    Line and words.

    PyYAML's own text is not used whole: it quotes lines, tags and anchors, and a password may stand in a line, and
    begin with ``!`` or ``*``.
    """
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line, mark.column) if mark is not None else (0, 0)
    lines = text.splitlines()
    row = lines[line] if line < len(lines) else ""
    hint = ""
    if "${" in row:
        hint = "; within { } and [ ], put a text with ${NAME} in quotes"
    elif row[column : column + 1] in ("*", "!"):
        hint = f"; put a text that begins with {row[column]} in quotes"
    said = _QUOTED.sub("…", ", ".join(part for part in (error.context, error.problem) if part))
    return line + 1, f"column {column + 1}: no YAML: {said}{hint}"


class _Reader:
    """Turns the nodes of one file into values."""

    def __init__(self, loader: yaml.SafeLoader, environ: Mapping[str, str], mistakes: Mistakes) -> None:
        self._loader = loader
        self._environ = environ
        self._mistakes = mistakes
        self._count = 0

    def value(self, node: yaml.Node, path: str, line: int, above: tuple[yaml.Node, ...] = ()) -> Value:
        self._count += 1
        if self._count > MOST_VALUES:
            raise yaml.MarkedYAMLError(problem=f"more than {MOST_VALUES:,} values", problem_mark=node.start_mark)
        if any(node is each for each in above):
            raise yaml.MarkedYAMLError(problem="an alias that contains itself", problem_mark=node.start_mark)
        above = (*above, node)
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path, line)
        if node.tag not in _COLLECTIONS:
            raise yaml.MarkedYAMLError(problem=f"the tag {node.tag!r} is not known", problem_mark=node.start_mark)
        if isinstance(node, yaml.MappingNode):
            return Value(content=self._mapping(node, path, above), path=path, line=line)
        items = [self.value(item, f"{path}[{n}]", _line(item), above) for n, item in enumerate(node.value)]
        return Value(content=items, path=path, line=line)

    def _mapping(self, node: yaml.MappingNode, path: str, above: tuple[yaml.Node, ...]) -> dict[str, Value]:
        found: dict[str, Value] = {}
        for key_node, value_node in node.value:
            line = _line(key_node)
            if key_node.tag == _MERGE:
                self._mistakes.add(line, path, "merging with << is not supported: write the keys out")
                continue
            key = self._loader.construct_object(key_node) if isinstance(key_node, yaml.ScalarNode) else None
            if not isinstance(key, str):
                said = repr(key_node.value) if isinstance(key_node, yaml.ScalarNode) else "a collection"
                self._mistakes.add(line, path, f"the key {said} is not text: put it in quotes")
                continue
            below = f"{path}.{key}" if path else key
            if key in found:
                self._mistakes.add(line, below, f"the key stands twice, first in line {found[key].line}")
                continue
            found[key] = self.value(value_node, below, line, above)
        return found

    def _scalar(self, node: yaml.ScalarNode, path: str, line: int) -> Value:
        try:
            content = self._loader.construct_object(node)
        except ValueError as error:
            # an int or a date that is none: !!int x, 2024-99-99
            problem = f"the value looks like type {node.tag.rpartition(':')[2]} and is none: put it in quotes"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark) from error
        if not isinstance(content, str) or "${" not in content:
            return Value(content=content, path=path, line=line)
        before = len(self._mistakes)
        filled = _INTERPOLATION.sub(lambda found: self._filled_in(found, path, line), content)
        return Value(content=filled, path=path, line=line, written=content, broken=len(self._mistakes) > before)

    def _filled_in(self, found: re.Match[str], path: str, line: int) -> str:
        if found[0] == "$${":
            return "${"
        reference = None if found[1] is None else _REFERENCE.fullmatch(found[1])
        if reference is None:
            self._mistakes.add(line, path, "write ${NAME} or ${NAME:-text}, and $${ where a plain ${ is meant")
            return ""
        name, otherwise = reference.groups()
        value = self._environ.get(name)
        if otherwise is not None:
            return value or str(otherwise)
        if value is None:
            self._mistakes.add(line, path, f"the environment variable {name} is not set")
            return ""
        return value
