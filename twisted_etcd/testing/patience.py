"""Waiting for what comes about in other processes, with an end to it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from twisted_etcd.backoff import Backoff
from twisted_etcd.errors import ServiceStopped

AnyT = TypeVar("AnyT")

#: Seconds between two questions: the longest after the first one, and the longest there is.
_DELAYS = (0.05, 0.5)


class Patience:
    """
    How long the parts of a cluster are waited for, and all that waits.

    :param clock: tells the time.
    :param random: gives numbers from 0 up to 1; for the waits between questions.
    :ivar timeout: seconds that anything may take.
    """

    def __init__(self, clock: IReactorTime, timeout: float, random: Callable[[], float]) -> None:
        self.timeout = timeout
        self._clock = clock
        self._random = random
        self._working: set[Deferred[Any]] = set()
        self._over = True

    def begin(self) -> None:
        """Take on work, until :meth:`end`."""
        self._over = False

    def end(self) -> None:
        """End all that is under way with ``ServiceStopped``."""
        self._over = True
        for working in tuple(self._working):
            working.cancel()

    @property
    def over(self) -> bool:
        """Whether it has ended, or not begun."""
        return self._over

    def run(self, work: Callable[[], Coroutine[Deferred[Any], Any, AnyT]]) -> Deferred[AnyT]:
        """
        Do something that waits.

        :raises RuntimeError: where nothing is to be done any more, or yet.
        """
        if self._over:
            msg = "the cluster is not running: start it, and wait for when_ready()"
            raise RuntimeError(msg)
        working = Deferred.fromCoroutine(work())
        self._working.add(working)

        def done(result: AnyT | Failure) -> AnyT | Failure:
            self._working.discard(working)
            if self._over and isinstance(result, Failure):
                return Failure(ServiceStopped("the cluster was stopped"))
            return result

        return working.addBoth(done)

    async def until(
        self, ask: Callable[[], Coroutine[Deferred[Any], Any, AnyT | None]], problem: Callable[[], str]
    ) -> AnyT:
        """
        Ask until there is an answer, with growing waits between the questions.

        :param ask: gives None where there is none yet.
        :param problem: what to say where there is none in time.
        :raises TimeoutError: where there is none within ``timeout``.
        """
        deadline = self._clock.seconds() + self.timeout
        waits = Backoff(self._random, *_DELAYS)
        while True:
            answer = await ask()
            if answer is not None:
                return answer
            if self._clock.seconds() >= deadline:
                msg = f"not within {self.timeout:g} seconds: {problem()}"
                raise TimeoutError(msg)
            await deferLater(self._clock, waits.next())
