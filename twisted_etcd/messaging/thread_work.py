"""Blocking code in the reactor's thread pool."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorFromThreads, IReactorThreads
from twisted.logger import Logger

from twisted_etcd.messaging.addresses import ServiceHandle
from twisted_etcd.messaging.exchange import Exchange
from twisted_etcd.messaging.sessions import Session, SessionTable

_log = Logger()


class ThreadWork(Session):
    """A function that runs in a thread, or waits for one."""

    __slots__ = ("name",)

    def __init__(self, table: SessionTable, owner: ServiceHandle | None, name: str) -> None:
        super().__init__(table, owner)
        self.name = name

    def finished(self, succeeded: bool, result: Any) -> None:  # noqa: ANN401, FBT001 - as the thread pool gives it
        """Take what the function returned, or the Failure of what it raised."""
        if self.waiting is None:
            if succeeded:
                self.late()
            elif not result.check(CancelledError):
                _log.failure("{what} failed, and nobody waits for it any more", result, what=self.describe())
        elif succeeded:
            self.succeed(result)
        else:
            self.fail(result)

    def cancel_work(self) -> None:
        """Leave the thread alone: it cannot be stopped."""

    def describe(self) -> str:
        """The function's name."""
        return f"execute_async({self.name})"


def execute_async(
    exchange: Exchange,
    owner: ServiceHandle | None,
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> Deferred[Any]:
    """Run a function in the thread pool of the reactor, in a session of the owner's."""
    pool = IReactorThreads(exchange.reactor).getThreadPool()
    reactor = IReactorFromThreads(exchange.reactor)
    work = ThreadWork(exchange.sessions, owner, getattr(function, "__qualname__", type(function).__qualname__))

    def run() -> Any:  # noqa: ANN401 - what the function returns
        if work.given_up:
            raise CancelledError
        return function(*args, **kwargs)

    def tell(succeeded: bool, result: Any) -> None:  # noqa: ANN401, FBT001 - as the thread pool gives it
        reactor.callFromThread(work.finished, succeeded, result)

    waiting = work.open(math.inf)
    pool.callInThreadWithCallback(tell, run)
    return waiting
