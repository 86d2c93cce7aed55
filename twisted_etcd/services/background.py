"""What goes on while nobody waits for it, until the service ends."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_etcd.errors import TwistedEtcdError


class Background:
    """Work of a service that no caller waits for. What fails is named in the log."""

    _log = Logger()

    def __init__(self) -> None:
        self._under_way: set[Deferred[Any]] = set()

    def add(self, work: Deferred[Any], what: str) -> None:
        """
        Let it go on.

        :param what: it in words, for the log: "a watch could not be ended" says what failed.
        """

        def failed(failure: Failure) -> None:
            if failure.check(TwistedEtcdError):
                self._log.warn("{what}: {why}", what=what, why=str(failure.value))
            elif not failure.check(CancelledError):
                self._log.failure("{what}", failure, what=what)

        def over(_: object) -> None:
            self._under_way.discard(work)

        self._under_way.add(work)
        work.addErrback(failed).addCallback(over)

    def wait(self) -> Deferred[None]:
        """Fires when all that is under way has ended, whatever came of it."""
        return DeferredList(list(self._under_way)).addCallback(lambda _: None)
