"""How clients wait that are not of Twisted: in asyncio, and by blocking."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar, cast

ResultT = TypeVar("ResultT")


class AsyncioSignal:
    """See :class:`~benchmarks.clients.client.Signal`."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def fire(self) -> None:
        """See the protocol."""
        self._event.set()

    async def wait(self) -> None:
        """See the protocol."""
        await self._event.wait()


class AsyncioLoop:
    """Waits in asyncio."""

    def signal(self) -> AsyncioSignal:
        """See the protocol."""
        return AsyncioSignal()

    async def sleep(self, seconds: float) -> None:
        """See the protocol."""
        await asyncio.sleep(seconds)

    async def gather(self, coroutines: Iterable[Coroutine[Any, Any, object]]) -> None:
        """See the protocol."""
        await asyncio.gather(*coroutines)


class BlockingSignal:
    """See :class:`~benchmarks.clients.client.Signal`."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def fire(self) -> None:
        """See the protocol."""
        self._event.set()

    async def wait(self) -> None:
        """See the protocol."""
        self._event.wait()


class BlockingLoop:
    """Waits by blocking its thread, so that no coroutine is ever suspended: one caller at a time."""

    def signal(self) -> BlockingSignal:
        """See the protocol."""
        return BlockingSignal()

    async def sleep(self, seconds: float) -> None:
        """See the protocol."""
        time.sleep(seconds)  # noqa: ASYNC251 - that is what it is for

    async def gather(self, coroutines: Iterable[Coroutine[Any, Any, object]]) -> None:
        """See the protocol; one after the other."""
        for each in coroutines:
            await each


def run_blocking(coroutine: Coroutine[Any, Any, ResultT]) -> ResultT:
    """
    The result of a coroutine that blocks where others would wait.

    :raises RuntimeError: where it waits.
    """
    try:
        coroutine.send(None)
    except StopIteration as end:
        return cast("ResultT", end.value)
    coroutine.close()
    msg = "a coroutine of a blocking client has waited"
    raise RuntimeError(msg)
