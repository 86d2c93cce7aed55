"""Classes for the daemon to host."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from twisted_etcd.messaging.service import MessageService


class Plain(MessageService):
    """Takes no settings."""


class Free(MessageService):
    """Takes what the file has."""

    def __init__(self, name: str | None = None, settings: Mapping[str, object] | None = None) -> None:
        super().__init__(name)
        self.settings = settings


class Server(msgspec.Struct, frozen=True):
    host: str
    port: int


class Typed(MessageService):
    """Says what it takes."""

    class Settings(msgspec.Struct, frozen=True):
        width: int
        servers: list[Server] = []
        labels: dict[str, int] = {}

    def __init__(self, name: str | None = None, *, settings: Settings) -> None:
        super().__init__(name)
        self.settings = settings


class Mistyped(MessageService):
    Settings = dict

    def __init__(self, name: str | None = None, *, settings: object) -> None:
        super().__init__(name)
        self.settings = settings


class Outer:
    class Inner(MessageService):
        """Stands within another class."""


class Picky(MessageService):
    def __init__(self, name: str | None = None) -> None:
        super().__init__(name)
        msg = "not today"
        raise RuntimeError(msg)


class Nameless(MessageService):
    def __init__(self) -> None:
        super().__init__()


class NotAService:
    """Something else."""


NOT_A_CLASS = 1
