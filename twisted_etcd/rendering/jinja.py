"""Templates in the language of Jinja2. Needs the extra ``render``; loaded by ``template.load_template`` alone."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn, cast

import jinja2
import jinja2.nodes
import jinja2.runtime
import jinja2.utils
import msgspec
import yaml

from twisted_etcd.config.configuration import checked_key
from twisted_etcd.errors import InvalidSettings, RenderError
from twisted_etcd.registry.instance import Instance
from twisted_etcd.registry.registry import checked_name
from twisted_etcd.rendering.template import Kind, Rendering, Source, Want

_REFERENCES = (jinja2.nodes.Include, jinja2.nodes.Extends, jinja2.nodes.Import, jinja2.nodes.FromImport)
_NOTHING: Any = object()
#: Characters of a template's line that an error shows.
_MOST_SHOWN = 100


class _Mistake(Exception):
    """Something that a function or filter of ours cannot do; its text may be shown."""


class _NotDefined(jinja2.UndefinedError):
    """
    :ivar name: what is not there; it may be a value.
    :ivar owner: the type of what it was looked for in; None for the template itself.
    :ivar hint: Jinja2's own words, in place of both.
    """

    def __init__(self, name: object, owner: str | None, hint: str | None) -> None:
        super().__init__()
        self.name = name
        self.owner = owner
        self.hint = hint

    def explained(self, row: str) -> str:
        """What is not there, without values: a name that does not stand in the line of the template came from one."""
        if self.hint is not None:
            return self.hint
        if self.owner is None:
            return f"{self.name!r} is not defined"
        if str(self.name) in row:
            return f"{self.owner} has no {self.name!r}"
        return f"{self.owner} has nothing under the name that a value gives"


class _Undefined(jinja2.StrictUndefined):
    """Fails wherever it is used."""

    __slots__ = ()

    def __init__(
        self,
        hint: str | None = None,
        obj: Any = jinja2.utils.missing,  # noqa: ANN401 - as Jinja2 has it
        name: str | None = None,
        exc: type[jinja2.TemplateRuntimeError] = jinja2.UndefinedError,
    ) -> None:
        super().__init__(hint, obj, name, exc)
        owner = None if obj is jinja2.utils.missing else type(obj).__name__
        self._undefined_exception = cast("Any", lambda _: _NotDefined(name, owner, hint))


class _Pending(jinja2.ChainableUndefined):
    """Stands for what is not loaded yet: it can be used for much, and nothing of what comes of it is kept."""

    __slots__ = ()

    def _itself(self, *_: object, **__: object) -> _Pending:
        return self

    def _no(self, _: object) -> bool:
        return False

    def __int__(self) -> int:  # type: ignore[override]
        return 0

    def __float__(self) -> float:  # type: ignore[override]
        return 0.0

    __call__ = __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = _itself  # type: ignore[assignment]
    __truediv__ = __rtruediv__ = __floordiv__ = __rfloordiv__ = __mod__ = __rmod__ = _itself  # type: ignore[assignment]
    __pow__ = __rpow__ = __neg__ = __pos__ = _itself  # type: ignore[assignment]
    __lt__ = __le__ = __gt__ = __ge__ = _no  # type: ignore[assignment]


class _Fresh(jinja2.Template):
    """A template whose imports are rendered anew each time, since what they ask for changes."""

    def _get_default_module(self, ctx: jinja2.runtime.Context | None = None) -> Any:  # noqa: ANN401 - as Jinja2 has it
        keys = set() if ctx is None else ctx.globals_keys - self.globals.keys()
        return self.make_module({key: ctx.parent[key] for key in keys if ctx is not None})


class _Environment(jinja2.Environment):
    template_class = _Fresh


class JinjaTemplate:
    """
    A template; see :class:`~twisted_etcd.rendering.template.Template`.

    Includes and imports are looked for beside it, and read together with it: a later change of the files is not seen.

    :raises InvalidSettings: where it cannot be read, or is no template.
    """

    def __init__(self, path: Path, environ: Mapping[str, str]) -> None:
        self.path = path
        self._environ = environ
        self._texts = _Texts(path.parent)
        self._asked: _Asked | None = None
        self._jinja = _Environment(
            # Files are no web pages: what stands in etcd stands in the file.
            autoescape=False,
            undefined=_Undefined,
            keep_trailing_newline=True,
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=["jinja2.ext.do", "jinja2.ext.loopcontrols"],
            loader=jinja2.FunctionLoader(self._texts.load),
            auto_reload=False,
        )
        self._jinja.globals.update(
            config=self._config,
            config_json=self._config_json,
            config_tree=self._config_tree,
            instances=self._instances,
            env=self._env,
        )
        self._jinja.filters.update(
            from_json=_gently(_from_json),
            from_yaml=_gently(_from_yaml),
            to_json=_gently(_to_json),
            to_yaml=_gently(_to_yaml),
        )
        try:
            self._template = self._jinja.get_template(path.name)
            self._load_included(path.name)
        except jinja2.TemplateSyntaxError as error:
            msg = f"{self._texts.file(error.name or path.name)}:{error.lineno}: {error.message}"
            raise InvalidSettings(msg) from None
        except jinja2.TemplateNotFound as error:
            raise InvalidSettings(self._texts.why_not(str(error.name))) from None

    def _load_included(self, name: str) -> None:
        """See to it that what stands in it is known now, and wrong now where it is wrong."""
        waiting, seen = [name], {name}
        while waiting:
            above = waiting.pop()
            text, file, _ = self._texts.load(above)
            for node in self._jinja.parse(text, above, file).find_all(_REFERENCES):
                # What a name that is computed stands for, only the rendering knows; it says what is missing.
                named = cast("Any", node).template
                included = named.value if isinstance(named, jinja2.nodes.Const) else None
                if not isinstance(included, str) or included in seen:
                    continue
                seen.add(included)
                try:
                    self._jinja.get_template(included)
                except jinja2.TemplateNotFound:
                    if getattr(node, "ignore_missing", False):
                        continue
                    msg = f"{file}:{node.lineno}: {self._texts.why_not(included)}"
                    raise InvalidSettings(msg) from None
                waiting.append(included)

    def render(self, source: Source) -> Rendering:
        """See :class:`~twisted_etcd.rendering.template.Template`."""
        asked = self._asked = _Asked(source)
        try:
            text = self._template.render()
        except Exception as error:  # noqa: BLE001 - a template can raise anything, and it is said where
            # While something is not there it may be all right, and nobody knows.
            wrong = RenderError(self._explained(error)) if asked.complete else None
            return Rendering(text=None, wants=frozenset(asked.wants), error=wrong)
        finally:
            self._asked = None
        return Rendering(text=text if asked.complete else None, wants=frozenset(asked.wants))

    # --- what templates call ------------------------------------------------------------------------------------------

    def _wanted(self, kind: Kind, name: str) -> Source | None:
        """Note that something is asked for; None where it is not there yet."""
        asked = self._asked
        if asked is None:
            # In a module-level block of something imported while the template is loaded.
            msg = "etcd can be asked only while a template is rendered"
            raise _Mistake(msg)
        return asked.source if asked.asks(Want(kind, name)) else None

    def _config(self, key: object, default: Any = _NOTHING) -> Any:  # noqa: ANN401 - whatever the template gives
        name = _checked(checked_key, key, "config")
        source = self._wanted(Kind.VALUE, name)
        if source is None:
            return _Pending(name=name)
        value = source.value(name)
        if value is None:
            if default is _NOTHING:
                msg = (
                    f"the configuration {name!r} is not set; set it, or give a default: "
                    f"""config("{name}", default="…")"""
                )
                raise _Mistake(msg)
            return default
        return _text(value, name)

    def _config_json(self, key: object, default: Any = _NOTHING) -> Any:  # noqa: ANN401 - whatever JSON has
        name = _checked(checked_key, key, "config_json")
        source = self._wanted(Kind.VALUE, name)
        if source is None:
            return _Pending(name=name)
        if source.value(name) is None and default is not _NOTHING:
            return default
        try:
            return _from_json(self._config(name))
        except _NotJSON as error:
            msg = f"the configuration {name!r} is no JSON: {error}"
            raise _Mistake(msg) from None

    def _config_tree(self, path: object = "") -> Any:  # noqa: ANN401 - a mapping, or what stands for it
        name = "" if path in ("", "/") else _checked(checked_key, path, "config_tree")
        source = self._wanted(Kind.TREE, name)
        if source is None:
            return _Pending(name=name)
        return {below: _text(value, f"{name}/{below}".lstrip("/")) for below, value in source.tree(name).items()}

    def _instances(self, name: object, tags: Iterable[str] = ()) -> Any:  # noqa: ANN401 - a list, or what stands for it
        service = _checked(checked_name, name, "instances")
        if isinstance(tags, str) or not all(isinstance(tag, str) for tag in tags):
            msg = 'the tags of instances() are a list of texts: instances("shop", tags=["http"])'
            raise _Mistake(msg)
        source = self._wanted(Kind.SERVICE, service)
        if source is None:
            return _Pending(name=service)
        found = [instance for instance in source.instances(service) if set(tags) <= set(instance.tags)]
        return sorted(found, key=_place)

    def _env(self, name: object, default: Any = _NOTHING) -> Any:  # noqa: ANN401 - whatever the template gives
        if not isinstance(name, str):
            msg = f"env() takes the name of a variable, not {type(name).__name__}"
            raise _Mistake(msg)
        value = self._environ.get(name, default)
        if value is _NOTHING:
            msg = f'the environment variable {name} is not set; set it, or give a default: env("{name}", default="…")'
            raise _Mistake(msg)
        return value

    # --- what goes wrong ----------------------------------------------------------------------------------------------

    def _explained(self, error: Exception) -> str:
        """
        What was wrong, and where: the file and line of the template in which it went wrong last.

        What other people's errors say may have values in it, and is left out; the line in the template is shown
        instead.
        """
        where, row = self._place_of(error)
        if isinstance(error, _Mistake):
            return f"{where}: {error}"
        if isinstance(error, jinja2.TemplateSyntaxError):
            return f"{self._texts.file(error.name or self.path.name)}:{error.lineno}: {error.message}"
        if isinstance(error, jinja2.TemplateNotFound):
            # Another name came from a value.
            if str(error.name) in row:
                return f"{where}: {self._texts.why_not(str(error.name))}"
            return f"{where}: the template that a value names is not there: {row}"
        if isinstance(error, _NotDefined):
            return f"{where}: {error.explained(row)}: {row}"
        return f"{where}: {type(error).__name__} in: {row}"

    def _place_of(self, error: Exception) -> tuple[str, str]:
        """File and line, and what stands there."""
        for frame in reversed(traceback.extract_tb(error.__traceback__)):
            text = self._texts.by_file.get(frame.filename)
            if text is None or not frame.lineno:
                continue
            rows = text.splitlines()
            row = rows[frame.lineno - 1].strip() if frame.lineno <= len(rows) else ""
            return f"{frame.filename}:{frame.lineno}", row if len(row) <= _MOST_SHOWN else f"{row[:_MOST_SHOWN]}…"
        return str(self.path), ""


class _Asked:
    """What one rendering asked for."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.wants: set[Want] = set()
        self.complete = True

    def asks(self, want: Want) -> bool:
        self.wants.add(want)
        if self.source.has(want):
            return True
        self.complete = False
        return False


class _Texts:
    """The files of a folder, each read once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._problems: dict[str, str] = {}
        #: By the names of the files.
        self.by_file: dict[str, str] = {}

    def file(self, name: str) -> str:
        return str(self._folder / name)

    def load(self, name: str) -> tuple[str, str, Callable[[], bool]]:
        """As Jinja2 wants it: text, file, and whether that is what is in the file still."""
        file = self.file(name)
        text = self.by_file.get(file)
        if text is None:
            path = self._path(name)
            if path is None:
                self._refuse(name, f"{name!r} is not below the folder of the template")
            try:
                text = path.read_text("utf-8")
            except OSError as error:
                self._refuse(name, f"{file}: cannot be read: {error.strerror}")
            except UnicodeDecodeError as error:
                self._refuse(name, f"{file}: is not text in UTF-8: byte {error.start + 1}")
            self.by_file[file] = text
        return text, file, lambda: True

    def why_not(self, name: str) -> str:
        return self._problems.get(name, f"{self.file(name)}: is not there")

    def _path(self, name: str) -> Path | None:
        parts = name.split("/")
        if ".." in parts or "" in parts:
            return None
        return self._folder / name

    def _refuse(self, name: str, why: str) -> NoReturn:
        self._problems[name] = why
        raise jinja2.TemplateNotFound(name)


# --- functions and filters ------------------------------------------------------------------------------------------


class _NotJSON(Exception):
    """Why."""


def _checked(check: Callable[[str], str], name: object, function: str) -> str:
    if not isinstance(name, str):
        kind = "something that is not there" if isinstance(name, jinja2.Undefined) else type(name).__name__
        msg = f"{function}() takes a text, not {kind}"
        raise _Mistake(msg)
    try:
        return check(name)
    except InvalidSettings:
        # The error would show the name, which can be a value.
        msg = f"{function}() cannot be asked for this name: it is empty, or has characters that names do not have"
        raise _Mistake(msg) from None


def _text(value: bytes, key: str) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        msg = f"the configuration {key!r} is not text in UTF-8"
        raise _Mistake(msg) from None


def _place(instance: Instance) -> tuple[str, int, str]:
    return instance.address, instance.port, instance.id


def _gently(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A filter that leaves alone what is not loaded yet, and says what is wrong with the rest."""

    def apply(value: Any) -> Any:  # noqa: ANN401 - as filters take
        if isinstance(value, _Pending):
            return value
        if isinstance(value, jinja2.Undefined):
            str(value)  # fails, and says what is not defined
        try:
            return function(value)
        except _NotJSON as error:
            msg = f"what {function.__name__.removeprefix('_')} is given is no JSON: {error}"
            raise _Mistake(msg) from None

    return apply


def _from_json(value: Any) -> Any:  # noqa: ANN401 - whatever JSON has
    try:
        return msgspec.json.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, TypeError, RecursionError) as error:
        # msgspec says where, and quotes nothing.
        why = str(error) if isinstance(error, msgspec.DecodeError) else "it is no text, or nested too deeply"
        raise _NotJSON(why) from None


def _from_yaml(value: Any) -> Any:  # noqa: ANN401 - whatever YAML has
    try:
        return yaml.safe_load(value)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""
        msg = f"what from_yaml is given is no YAML{where}"
        raise _Mistake(msg) from None
    except (yaml.YAMLError, AttributeError, ValueError, RecursionError):
        msg = "what from_yaml is given is no YAML"
        raise _Mistake(msg) from None


def _to_json(value: Any) -> str:  # noqa: ANN401 - whatever the template gives
    try:
        return msgspec.json.encode(value).decode()
    except (TypeError, ValueError):
        msg = f"to_json is given what JSON cannot say: {type(value).__name__}"
        raise _Mistake(msg) from None


def _to_yaml(value: Any) -> str:  # noqa: ANN401 - whatever the template gives
    try:
        plain = msgspec.to_builtins(value)
        return str(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True))
    except (TypeError, ValueError, yaml.YAMLError):
        msg = f"to_yaml is given what YAML cannot say: {type(value).__name__}"
        raise _Mistake(msg) from None
