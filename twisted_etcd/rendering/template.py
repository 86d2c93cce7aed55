"""A template, and what it says over what is in etcd."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Protocol

import msgspec

from twisted_etcd.discreet import Discreet
from twisted_etcd.errors import RenderError
from twisted_etcd.registry.instance import Instance


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
