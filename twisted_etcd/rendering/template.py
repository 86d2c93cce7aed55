"""A template, and what it says over what is in etcd."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Protocol

import msgspec

from twisted_etcd.discreet import Discreet
from twisted_etcd.errors import InvalidSettings, RenderError
from twisted_etcd.registry.instance import Instance

#: What the package needs to be installed with for its templates.
EXTRA = "twisted-etcd[render]"


class Kind(str, enum.Enum):
    """What a template can ask for: a value of the configuration, all below a path, the instances of a service."""

    VALUE = "configuration"
    TREE = "configuration below"
    SERVICE = "service"


class Want(msgspec.Struct, frozen=True, order=True):
    """
    Something that a template asks for.

    :ivar name: the path of the configuration, without slashes around it, or the name of the service.
    """

    kind: Kind
    name: str

    def __str__(self) -> str:
        return f"the {self.kind.value} {self.name or '/'}"


class Source(Protocol):
    """Where templates find what they ask for, by what has been loaded so far."""

    def has(self, want: Want) -> bool:
        """Whether it was loaded, were it empty; the other methods are for what was."""

    def value(self, key: str) -> bytes | None:
        """A value of the configuration; None where it is not set."""

    def tree(self, path: str) -> Mapping[str, bytes]:
        """The values below a path, by their paths below it, in order."""

    def instances(self, name: str) -> Sequence[Instance]:
        """The instances of a service."""


class Rendering(Discreet, frozen=True, kw_only=True):
    """
    What became of a template.

    :ivar text: None where something that was asked for is not loaded yet, and where it is wrong.
    :ivar wants: all that it asked for. Where something was not loaded, what it says of further ones is a guess.
    :ivar error: what is wrong, where all that it asked for was loaded: a value that is not set, a name that is not
        defined, …; it has the file, the line, and no value.
    """

    secret_fields: ClassVar[frozenset[str]] = frozenset({"text"})

    text: str | None
    wants: frozenset[Want]
    error: RenderError | None = None


class Template(Protocol):
    """
    A template as it stood in its file when it was loaded, and what that file includes.

    :ivar path: of the file.
    """

    path: Path

    def render(self, source: Source) -> Rendering:
        """
        Say it over what there is.

        It asks for more where something is not loaded yet: what that may be is in the rendering's wants, and it is
        rendered again once that is there.
        """


def load_template(path: Path, environ: Mapping[str, str]) -> Template:
    """
    Read a template from a file.

    :param environ: the environment that it may look into.
    :raises InvalidSettings: where the file cannot be read, is no template, or Jinja2 is not installed.
    """
    try:
        from twisted_etcd.rendering.jinja import JinjaTemplate  # noqa: PLC0415 - Jinja2 is an extra
    except ModuleNotFoundError as error:
        if error.name not in ("jinja2", "markupsafe"):
            raise
        msg = f"{path}: templates need Jinja2, which is not installed: pip install '{EXTRA}'"
        raise InvalidSettings(msg) from error
    return JinjaTemplate(path, environ)


def check_templates(paths: Iterable[Path], environ: Mapping[str, str]) -> None:
    """
    Read templates, to see whether they can be.

    :raises InvalidSettings: where one cannot, with a line for each.
    """
    wrong = [problem for path in paths if (problem := _problem(path, environ))]
    if wrong:
        raise InvalidSettings("\n".join(wrong))


def _problem(path: Path, environ: Mapping[str, str]) -> str:
    try:
        load_template(path, environ)
    except InvalidSettings as error:
        return str(error)
    return ""
