"""Templates in the language of Jinja2. Needs the extra ``render``; loaded by ``loading.load_template`` alone."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, cast

import jinja2
import jinja2.nodes
import jinja2.runtime
import jinja2.utils

from twisted_etcd.config.paths import checked_key
from twisted_etcd.errors import InvalidSettings, RenderError
from twisted_etcd.registry.instance import Instance
from twisted_etcd.registry.registry import checked_name
from twisted_etcd.rendering.filters import FILTERS, Mistake, NotJSON, from_json
from twisted_etcd.rendering.template import Kind, Rendering, Source, Want
from twisted_etcd.rendering.texts import Texts
from twisted_etcd.rendering.undefined import NotDefined, Pending, Undefined

_REFERENCES = (jinja2.nodes.Include, jinja2.nodes.Extends, jinja2.nodes.Import, jinja2.nodes.FromImport)
_NOTHING: Any = object()
#: Characters of a template's line that an error shows.
_MOST_SHOWN = 100


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
        self._texts = Texts(path.parent)
        self._asked: _Asked | None = None
        self._jinja = _Environment(
            # Files are no web pages: what stands in etcd stands in the file.
            autoescape=False,
            undefined=Undefined,
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
        self._jinja.filters.update(FILTERS)
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
        # It is there for as long as something can ask.
        asked = cast("_Asked", self._asked)
        return asked.source if asked.asks(Want(kind, name)) else None

    def _config(self, key: object, default: Any = _NOTHING) -> Any:  # noqa: ANN401 - whatever the template gives
        name = _checked(checked_key, key, "config")
        source = self._wanted(Kind.VALUE, name)
        if source is None:
            return Pending(name=name)
        value = source.value(name)
        if value is None:
            if default is _NOTHING:
                msg = (
                    f"the configuration {name!r} is not set; set it, or give a default: "
                    f"""config("{name}", default="…")"""
                )
                raise Mistake(msg)
            return default
        return _text(value, name)

    def _config_json(self, key: object, default: Any = _NOTHING) -> Any:  # noqa: ANN401 - whatever JSON has
        name = _checked(checked_key, key, "config_json")
        source = self._wanted(Kind.VALUE, name)
        if source is None:
            return Pending(name=name)
        if source.value(name) is None and default is not _NOTHING:
            return default
        try:
            return from_json(self._config(name))
        except NotJSON as error:
            msg = f"the configuration {name!r} is no JSON: {error}"
            raise Mistake(msg) from None

    def _config_tree(self, path: object = "") -> Any:  # noqa: ANN401 - a mapping, or what stands for it
        name = "" if path in ("", "/") else _checked(checked_key, path, "config_tree")
        source = self._wanted(Kind.TREE, name)
        if source is None:
            return Pending(name=name)
        return {below: _text(value, f"{name}/{below}".lstrip("/")) for below, value in source.tree(name).items()}

    def _instances(self, name: object, tags: Iterable[str] = ()) -> Any:  # noqa: ANN401 - a list, or what stands for it
        service = _checked(checked_name, name, "instances")
        if isinstance(tags, str) or not all(isinstance(tag, str) for tag in tags):
            msg = 'the tags of instances() are a list of texts: instances("shop", tags=["http"])'
            raise Mistake(msg)
        source = self._wanted(Kind.SERVICE, service)
        if source is None:
            return Pending(name=service)
        found = [instance for instance in source.instances(service) if set(tags) <= set(instance.tags)]
        return sorted(found, key=_place)

    def _env(self, name: object, default: Any = _NOTHING) -> Any:  # noqa: ANN401 - whatever the template gives
        if not isinstance(name, str):
            msg = f"env() takes the name of a variable, not {type(name).__name__}"
            raise Mistake(msg)
        value = self._environ.get(name, default)
        if value is _NOTHING:
            msg = f'the environment variable {name} is not set; set it, or give a default: env("{name}", default="…")'
            raise Mistake(msg)
        return value

    # --- what goes wrong ----------------------------------------------------------------------------------------------

    def _explained(self, error: Exception) -> str:
        """
        What was wrong, and where: the file and line of the template in which it went wrong last.

        What other people's errors say may have values in it, and is left out; the line in the template is shown
        instead.
        """
        where, row = self._place_of(error)
        if isinstance(error, Mistake):
            return f"{where}: {error}"
        if isinstance(error, jinja2.TemplateSyntaxError):
            return f"{self._texts.file(error.name or self.path.name)}:{error.lineno}: {error.message}"
        if isinstance(error, jinja2.TemplateNotFound):
            # Another name came from a value.
            if str(error.name) in row:
                return f"{where}: {self._texts.why_not(str(error.name))}"
            return f"{where}: the template that a value names is not there: {row}"
        if isinstance(error, NotDefined):
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


def _checked(check: Callable[[str], str], name: object, function: str) -> str:
    if not isinstance(name, str):
        kind = "something that is not there" if isinstance(name, jinja2.Undefined) else type(name).__name__
        msg = f"{function}() takes a text, not {kind}"
        raise Mistake(msg)
    try:
        return check(name)
    except InvalidSettings:
        # The error would show the name, which can be a value.
        msg = f"{function}() cannot be asked for this name: it is empty, or has characters that names do not have"
        raise Mistake(msg) from None


def _text(value: bytes, key: str) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        msg = f"the configuration {key!r} is not text in UTF-8"
        raise Mistake(msg) from None


def _place(instance: Instance) -> tuple[str, int, str]:
    return instance.address, instance.port, instance.id
