"""The three ways to wait."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar, cast

from twisted.internet.defer import Deferred, FirstError, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

ResultT = TypeVar("ResultT")


class ReactorSignal:
    """See :class:`~benchmarks.clients.client.Signal`."""

    def __init__(self) -> None:
        self._happened: Deferred[None] = Deferred()

    def fire(self) -> None:
        """See the protocol."""
        if not self._happened.called:
            self._happened.callback(None)

    def wait(self) -> Deferred[None]:
        """See the protocol; for one that waits."""
        return self._happened


class ReactorLoop:
    """
    Waits in Twisted's reactor.

    :param reactor: gives time.
    """

    def __init__(self, reactor: IReactorTime) -> None:
        self.reactor = reactor

    def signal(self) -> ReactorSignal:
        """See the protocol."""
        return ReactorSignal()

    def sleep(self, seconds: float) -> Deferred[None]:
        """See the protocol."""
        return deferLater(self.reactor, seconds)

    def gather(self, coroutines: Iterable[Coroutine[Any, Any, object]]) -> Deferred[Any]:
        """See the protocol."""
        running = [Deferred.fromCoroutine(each) for each in coroutines]
        return gatherResults(running, consumeErrors=True).addErrback(_first)


def _first(failure: Failure) -> Failure:
    return cast("FirstError", failure.value).subFailure if failure.check(FirstError) else failure


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
