"""Values as bytes, text, JSON and YAML, and as objects of a class. Pure."""

from __future__ import annotations

import enum
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
import yaml

from twisted_etcd.errors import BadValue, InvalidSettings


class ConfigFormat(str, enum.Enum):
    """
    How a value is written.

    With a class, text is taken for whatever the class has in its place: ``8080`` for a number, ``true`` for a flag.
    """

    BYTES = "bytes"
    TEXT = "text"
    JSON = "json"
    YAML = "yaml"


class Mistake(NamedTuple):
    """What is wrong with a value: where in it, empty for the whole of it, and what."""

    place: str
    why: str


#: What msgspec says that is of the class alone. Anything else may be of the value, such as what a class of the user's
#: says in its ``__post_init__``.
_OF_THE_CLASS = re.compile(
    r"Expected `[^`]*`|Object missing required field `[^`]*`|Object contains unknown field `[^`]*`"
)
_PLACE = re.compile(r" - at `(?:key in )?\$\.?([^`]*)`$")
#: In what PyYAML says: what it quotes of the value.
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")
#: YAML can say in few bytes what takes all memory, by aliases of aliases.
_MOST_VALUES = 100_000
#: How deep YAML may be nested.
_DEEPEST = 100


def checked_format(given: ConfigFormat | str | None, kind: Any) -> ConfigFormat:  # noqa: ANN401 - any type
    """
    The format to decode with.

    :param given: None for what is usual for that class: bytes and text as they are, everything else as JSON.
    :raises InvalidSettings: for a format that there is not.
    """
    if given is None:
        return {bytes: ConfigFormat.BYTES, str: ConfigFormat.TEXT}.get(kind, ConfigFormat.JSON)
    try:
        return ConfigFormat(given)
    except ValueError:
        known = ", ".join(each.value for each in ConfigFormat)
        msg = f"{given!r} is no format of configuration values; use one of {known}"
        raise InvalidSettings(msg) from None


class Codec:
    """
    Values of one class, in one format.

    :param kind: a class, as a msgspec Struct, one of attrs or a dataclass, or any other type that msgspec knows;
        ``Any`` for what the format itself gives.
    :raises InvalidSettings: for a format that there is not, or a class that nothing can be decoded into.
    """

    def __init__(self, kind: Any = Any, format: ConfigFormat | str | None = None) -> None:  # noqa: A002, ANN401 - any type
        self.format = checked_format(format, kind)
        if self.format is ConfigFormat.BYTES and kind not in (bytes, Any):
            msg = f"the format 'bytes' gives bytes alone, and no {_name(kind)}: give another format"
            raise InvalidSettings(msg)
        try:
            msgspec.json.Decoder(kind)
        except (TypeError, NameError) as error:
            msg = f"nothing can be decoded into {_name(kind)}: {error}"
            raise InvalidSettings(msg) from error
        self.kind = kind

    def decode(self, value: bytes) -> Any | Mistake:  # noqa: ANN401 - of the kind
        """The object in a value, or what is wrong with it."""
        if self.format is ConfigFormat.BYTES:
            return value
        if self.format is ConfigFormat.JSON:
            return _refused(self.kind, lambda: msgspec.json.decode(value, type=self.kind))
        try:
            text = value.decode()
        except UnicodeDecodeError as error:
            return Mistake("", f"it is not text in UTF-8, at byte {error.start}")
        if self.format is ConfigFormat.TEXT:
            return convert(text, self.kind, strict=False)
        loaded = _yaml(text)
        return loaded if isinstance(loaded, Mistake) else convert(loaded, self.kind)

    def encode(self, value: Any) -> bytes:  # noqa: ANN401 - what the user has
        """
        A value as it is written. Bytes are written as they are; anything else in the format.

        :raises TypeError: for an object that cannot be written in that format.
        """
        if isinstance(value, bytes):
            return value
        if self.format in (ConfigFormat.BYTES, ConfigFormat.TEXT):
            if isinstance(value, str):
                return value.encode()
            if self.format is ConfigFormat.BYTES or not isinstance(value, bool | int | float):
                msg = (
                    f"a configuration value in the format {self.format.value!r} is given as str or bytes, not as "
                    f"{type(value).__name__}: name its class or format in types=, or give format="
                )
                raise TypeError(msg)
        if self.format is ConfigFormat.YAML:
            return yaml.safe_dump(msgspec.to_builtins(value), sort_keys=False, allow_unicode=True).encode()
        return msgspec.json.encode(value)


def convert(loaded: Any, kind: Any, *, strict: bool = True) -> Any | Mistake:  # noqa: ANN401 - any type
    """
    Plain data as an object of a class, or what is wrong with it.

    :param strict: without it, text is taken for numbers and flags where the class has those.
    """
    return loaded if kind is Any else _refused(kind, lambda: msgspec.convert(loaded, kind, strict=strict))


def _refused(kind: Any, decode: Callable[[], Any]) -> Any | Mistake:  # noqa: ANN401 - any type
    try:
        return decode()
    except msgspec.ValidationError as error:
        return _of_class(str(error), kind)
    except msgspec.DecodeError as error:
        # It names positions alone.
        return Mistake("", str(error))
    except UnicodeDecodeError:
        return Mistake("", "it is not text in UTF-8")
    except RecursionError:
        return Mistake("", "it is nested too deeply")
    except Exception as error:  # noqa: BLE001 - whatever the user's class says
        return Mistake("", f"{_name(kind)} refuses it with {type(error).__name__}")


def _of_class(said: str, kind: Any) -> Mistake:  # noqa: ANN401 - any type
    found = _PLACE.search(said)
    words = said[: found.start()] if found else said
    if words.startswith("Invalid enum value"):
        words = "it is none of the values that there are"
    elif not _OF_THE_CLASS.match(words):
        words = f"{_name(kind)} refuses it"
    return Mistake(found[1] if found else "", words)


class _Loader(yaml.SafeLoader):
    """Gives up what is nested too deeply before it takes long."""

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise RecursionError
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


def _yaml(text: str) -> Any | Mistake:  # noqa: ANN401 - what YAML gives
    try:
        return _loaded(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""
        return Mistake(place, f"it is no YAML: {_QUOTED.sub('…', error.problem or 'it ends too early')}")
    except yaml.YAMLError:
        return Mistake("", "it has characters that YAML does not allow")
    except RecursionError:
        return Mistake("", "it is nested too deeply")
    except ValueError:
        return Mistake("", "a date or a number in it is none: put it in quotes")


def _loaded(text: str) -> Any | Mistake:  # noqa: ANN401 - what YAML gives
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is not None and _weight(node, {}) > _MOST_VALUES:
            return Mistake("", f"it has more than {_MOST_VALUES:,} values, with its aliases written out")
        return None if node is None else loader.construct_document(node)
    finally:
        loader.dispose()


def _weight(node: yaml.Node, known: dict[int, int]) -> int:
    """How many values it would be with every alias written out; too many for one that contains itself."""
    if id(node) not in known:
        known[id(node)] = _MOST_VALUES + 1
        children: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            children = [each for pair in node.value for each in pair]
        elif isinstance(node, yaml.SequenceNode):
            children = node.value
        known[id(node)] = 1 + sum(_weight(child, known) for child in children)
    return known[id(node)]


def bad_value(key: str, revision: int, mistake: Mistake) -> BadValue:
    """The error for a mistake."""
    return BadValue(key, revision, *mistake)


def _name(kind: Any) -> str:  # noqa: ANN401 - any type
    return getattr(kind, "__name__", None) or str(kind)
