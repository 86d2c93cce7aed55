"""Futures of ``concurrent.futures`` and of asyncio, waited for in a session."""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_etcd.messaging.addresses import ServiceHandle
from twisted_etcd.messaging.exchange import Exchange
from twisted_etcd.messaging.sessions import Session, SessionTable

_log = Logger()

AnyFuture: TypeAlias = concurrent.futures.Future[Any] | asyncio.Future[Any]


class FutureWait(Session):
    """
    A future that is waited for.

    :ivar cancel_future: cancels it, in whatever thread that has to be done.
    """

    __slots__ = ("cancel_future", "kind")

    def __init__(
        self,
        table: SessionTable,
        owner: ServiceHandle | None,
        kind: type,
        cancel_future: Callable[[], object],
    ) -> None:
        super().__init__(table, owner)
        self.kind = kind
        self.cancel_future = cancel_future

    def finished(self, future: AnyFuture) -> None:
        """Take what the future came to."""
        cancelled = future.cancelled()
        error = CancelledError() if cancelled else future.exception()
        if self.waiting is not None:
            if error is None:
                self.succeed(future.result())
            else:
                self.fail(Failure(error))
        elif error is None:
            self.late()
        elif not cancelled:
            what = self.describe()
            _log.failure("{what} failed, and nobody waits for it any more", Failure(error), what=what)

    def cancel_work(self) -> None:
        """Cancel the future."""
        self.cancel_future()

    def describe(self) -> str:
        """The kind of future."""
        return f"await_future({self.kind.__module__}.{self.kind.__qualname__})"


def await_future(
    exchange: Exchange,
    owner: ServiceHandle | None,
    future: AnyFuture | Coroutine[Any, Any, Any],
    seconds: float,
) -> Deferred[Any]:
    """Wait for a future in a session of the owner's, so many seconds at most."""
    if isinstance(future, concurrent.futures.Future):
        reactor = IReactorFromThreads(exchange.reactor)
        session = FutureWait(exchange.sessions, owner, type(future), future.cancel)
        waiting = session.open(seconds)
        future.add_done_callback(lambda done: reactor.callFromThread(session.finished, done))
        return waiting
    if inspect.iscoroutine(future):
        return _await_coroutine(exchange, owner, future, seconds)
    if not asyncio.isfuture(future):
        msg = (
            "await_future takes a future of concurrent.futures or asyncio, or an asyncio coroutine, "
            f"not {type(future).__qualname__}"
        )
        raise TypeError(msg)
    if future.get_loop() is _running_loop():
        return _await_here(exchange, owner, future, seconds)
    return _await_foreign(exchange, owner, future, seconds)


def _await_here(
    exchange: Exchange, owner: ServiceHandle | None, future: asyncio.Future[Any], seconds: float
) -> Deferred[Any]:
    """Wait for a future of the loop that the reactor runs on."""
    session = FutureWait(exchange.sessions, owner, type(future), future.cancel)
    waiting = session.open(seconds)
    future.add_done_callback(session.finished)
    return waiting


def _await_coroutine(
    exchange: Exchange, owner: ServiceHandle | None, coroutine: Coroutine[Any, Any, Any], seconds: float
) -> Deferred[Any]:
    """Run a coroutine on the loop that the reactor runs on."""
    loop = _running_loop()
    if loop is not None:
        return _await_here(exchange, owner, loop.create_task(coroutine), seconds)

    # A service may be started before the reactor runs: in its first turn the loop is there, if it has one.
    def start() -> None:
        loop = _running_loop()
        if loop is None:
            coroutine.close()
            msg = (
                "an asyncio coroutine needs an asyncio loop in the reactor's thread: use the asyncioreactor, "
                "or give the future of asyncio.run_coroutine_threadsafe(coroutine, loop)"
            )
            session.fail(Failure(RuntimeError(msg)))
        else:
            task = loop.create_task(coroutine)
            session.cancel_future = task.cancel
            task.add_done_callback(session.finished)

    def forget() -> None:
        starting.cancel()
        coroutine.close()

    session = FutureWait(exchange.sessions, owner, type(coroutine), forget)
    waiting = session.open(seconds)
    starting = exchange.reactor.callLater(0, start)
    return waiting


def _await_foreign(
    exchange: Exchange,
    owner: ServiceHandle | None,
    future: asyncio.Future[Any],
    seconds: float,
) -> Deferred[Any]:
    """Wait for a future of a loop in another thread, which alone may touch it."""
    loop = future.get_loop()
    reactor = IReactorFromThreads(exchange.reactor)

    def cancel() -> None:
        # A loop that is closed will not run the future, and takes no calls.
        if not loop.is_closed():
            loop.call_soon_threadsafe(future.cancel)

    session = FutureWait(exchange.sessions, owner, type(future), cancel)

    def tell(done: asyncio.Future[Any]) -> None:
        reactor.callFromThread(session.finished, done)

    # Before the session is opened: a closed loop raises here.
    loop.call_soon_threadsafe(future.add_done_callback, tell)
    return session.open(seconds)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
