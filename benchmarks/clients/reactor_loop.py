"""How Twisted's clients wait; apart from the others, whose processes are to be without Twisted."""

from __future__ import annotations

from collections.abc import Coroutine, Iterable
from typing import Any, cast

from twisted.internet.defer import Deferred, FirstError, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.python.failure import Failure


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
