"""Those who wait until something has come to a revision."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from twisted_etcd.client.kv import is_time
from twisted_etcd.errors import DeadlineExceeded


class Reaching:
    """
    Waiters, each with a revision.

    :param who: says what is to get there, for the error.
    :param nobody_waits: called whenever the last one has left.
    """

    def __init__(self, clock: IReactorTime, who: Callable[[], str], nobody_waits: Callable[[], None]) -> None:
        self._clock = clock
        self._who = who
        self._nobody_waits = nobody_waits
        self._waiting: list[tuple[int, Deferred[int]]] = []
        self._end: Failure | None = None

    def __bool__(self) -> bool:
        return bool(self._waiting)

    @staticmethod
    def check_timeout(timeout: float | None) -> None:
        """
        None is fine, and so are finite seconds over 0.

        :raises ValueError: for other numbers.
        """
        if timeout is not None and (not is_time(timeout, "timeout") or timeout == 0):
            msg = f"timeout must be more than 0 seconds, and finite, or None for any time, not {timeout!r}"
            raise ValueError(msg)

    def wait(self, revision: int, timeout: float | None) -> Deferred[int]:
        """
        Fires with the revision that was reached, once it is this one or a later one.

        :raises DeadlineExceeded: the time was over.
        """
        if self._end is not None:
            return fail(Failure(self._end.value))
        waiting: Deferred[int] = Deferred(lambda _: self._leave(entry))
        entry = (revision, waiting)
        self._waiting.append(entry)
        if timeout is None:
            return waiting

        def late(result: int | Failure, seconds: float) -> int | Failure:
            if isinstance(result, Failure) and result.check(CancelledError):
                msg = f"{self._who()} did not come to revision {revision} within {seconds:g} s"
                raise DeadlineExceeded(msg)
            return result

        return waiting.addTimeout(timeout, self._clock, late)

    def _leave(self, entry: tuple[int, Deferred[int]]) -> None:
        self._waiting.remove(entry)
        if not self._waiting:
            self._nobody_waits()

    def reached(self, revision: int) -> None:
        """It is there."""
        for entry in [each for each in self._waiting if each[0] <= revision]:
            # One that fires can cancel others.
            if entry in self._waiting:
                self._waiting.remove(entry)
                entry[1].callback(revision)
        if not self._waiting:
            self._nobody_waits()

    def end(self, failure: Failure) -> None:
        """It will come to none any more; the first reason counts."""
        if self._end is None:
            self._end = failure
            waiting, self._waiting = self._waiting, []
            self._nobody_waits()
            for _, each in waiting:
                each.errback(Failure(failure.value))
