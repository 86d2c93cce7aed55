"""What the cases ask of a client, whatever it waits with."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from typing import Any, Protocol

#: Told how many events have come.
OnEvents = Callable[[int], None]


class Signal(Protocol):
    """Something that happens once."""

    def fire(self) -> None:
        """It has happened; may be called again, and where the client has threads, from those."""

    def wait(self) -> Awaitable[object]:
        """Until it has happened."""


class Loop(Protocol):
    """How a client waits: in Twisted's reactor, in asyncio, or by blocking."""

    def signal(self) -> Signal:
        """A new signal."""

    def sleep(self, seconds: float) -> Awaitable[object]:
        """Let time pass."""

    def gather(self, coroutines: Iterable[Coroutine[Any, Any, object]]) -> Awaitable[object]:
        """Run all of them side by side, until the last has ended or one has failed."""


class Client(Protocol):
    """A client that is measured. What it cannot do it is not asked for: the table of cases says who can do what."""

    @property
    def loop(self) -> Loop:
        """How it waits."""
        ...

    @property
    def port(self) -> int:
        """That of etcd."""
        ...

    @property
    def keeps_leases(self) -> bool:
        """Whether it keeps its leases alive by itself; otherwise :meth:`keep` is called for each in time."""
        ...

    def get(self, key: bytes) -> Awaitable[object]:
        """Read a key."""

    def put(self, key: bytes, value: bytes) -> Awaitable[object]:
        """Write a key."""

    async def read_range(self, prefix: bytes) -> int:
        """Read all keys below a prefix in one request, look at each, and count them."""
        ...

    async def scan(self, prefix: bytes) -> int:
        """The same for more keys than one answer should have: by pages, where the client can."""
        ...

    async def put_all(self, keys: Sequence[bytes], value: bytes) -> object:
        """Write keys in one transaction, with one comparison that holds."""

    async def watch(self, key: bytes, on_events: OnEvents, *, prefix: bool = False, start_revision: int = 0) -> None:
        """Watch until the client is closed; returns when etcd has confirmed the watch."""

    async def grant(self, ttl: int) -> Any:  # noqa: ANN401 - each has its own kind of lease
        """Grant a lease."""

    async def keep(self, lease: Any) -> object:  # noqa: ANN401 - what grant() gave
        """Keep a lease alive once more."""

    async def revoke(self, lease: Any) -> object:  # noqa: ANN401 - what grant() gave
        """Give a lease back."""

    async def close(self) -> object:
        """End its watches and connections."""


class Connect(Protocol):
    """Makes a client that is connected."""

    def __call__(self, endpoint: str) -> Coroutine[Any, Any, Client]:
        """
        Connect.

        :param endpoint: etcd's URL.
        """
        ...
