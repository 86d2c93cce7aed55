"""Sessions: what is waited for, each with its number and its deadline."""

from __future__ import annotations

import heapq
import itertools
import math
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_etcd.errors import SessionTimeout
from twisted_etcd.messaging.addresses import ServiceHandle
from twisted_etcd.messaging.statistics import Statistics

_log = Logger()

#: The deadlines that may be kept of sessions that are over, before they are swept out.
_SPARE_DEADLINES = 64


class Session:
    """
    One thing that is waited for: the answer to a call, a future, work in a thread.

    :ivar session_id: its number, from 1 on and used once in a node.
    :ivar owner: the service that waits; ``None`` for one from outside.
    :ivar waiting: the Deferred that somebody holds; ``None`` once it has fired.
    :ivar given_up: whether nobody wants the answer any more: out of time, cancelled, or the service has stopped.
    :ivar seconds: how long is waited at most.
    """

    __slots__ = ("given_up", "owner", "seconds", "session_id", "table", "waiting")

    def __init__(self, table: SessionTable, owner: ServiceHandle | None) -> None:
        self.table = table
        self.owner = owner
        self.session_id = next(table.numbers)
        self.waiting: Deferred[Any] | None = None
        self.given_up = False
        self.seconds = math.inf

    def open(self, seconds: float) -> Deferred[Any]:
        """Begin to wait, for so many seconds at most; ``math.inf`` for as long as it takes."""
        self.seconds = seconds
        waiting: Deferred[Any] = Deferred(self._cancelled)
        self.waiting = waiting
        self.table.add(self)
        return waiting

    def succeed(self, answer: object) -> None:
        """Hand the answer to who waits for it."""
        waiting = self._closed()
        waiting.callback(answer)

    def fail(self, failure: Failure) -> None:
        """Hand a failure to who waits."""
        waiting = self._closed()
        waiting.errback(failure)

    def give_up(self, failure: Failure) -> None:
        """Stop what works on the answer, then fail who waits."""
        waiting = self._closed()
        self.given_up = True
        self.withdraw()
        waiting.errback(failure)

    def cancel_work(self) -> None:
        """Stop what works on the answer, if anything does."""
        raise NotImplementedError

    def describe(self) -> str:
        """What is waited for, without any value of a field."""
        raise NotImplementedError

    def late(self) -> None:
        """Count an answer that nobody waits for."""
        self.table.statistics.late_answers += 1
        _log.debug("dropped a late answer to {what} (session {id})", what=self.describe(), id=self.session_id)

    def _closed(self) -> Deferred[Any]:
        waiting = self.waiting
        if waiting is None:
            msg = f"session {self.session_id} is over: ask its waiting attribute first"
            raise RuntimeError(msg)
        self.waiting = None
        self.table.remove(self.session_id)
        return waiting

    def _cancelled(self, _: Deferred[Any]) -> None:
        """The canceller of the Deferred, which then fails with CancelledError by itself."""
        self._closed()
        self.given_up = True
        self.withdraw()

    def withdraw(self) -> None:
        """Stop what works on the answer; it never raises."""
        # This runs foreign cancellers, for many sessions in a row: a bad one must not keep the others waiting.
        try:
            self.cancel_work()
        except Exception:  # noqa: BLE001 - logged, with its traceback
            _log.failure("cancelling {what} (session {id}) failed", what=self.describe(), id=self.session_id)


class SessionTable:
    """
    The open sessions of a node, under one timer.

    The deadlines are a heap; one of a session that is over stays there until its time comes or a sweep takes it, and
    the timer until it fires: both are cheaper than taking them back for each call.

    :ivar numbers: gives the next session its number.
    """

    def __init__(self, reactor: IReactorTime, statistics: Statistics) -> None:
        self.numbers = itertools.count(1)
        self.statistics = statistics
        self._reactor = reactor
        self._open: dict[int, Session] = {}
        self._deadlines: list[tuple[float, int]] = []
        self._timer: IDelayedCall | None = None
        self._timer_at = math.inf

    def __len__(self) -> int:
        return len(self._open)

    def get(self, session_id: int) -> Session | None:
        """The open session of that number."""
        return self._open.get(session_id)

    def all(self) -> list[Session]:
        """The open sessions, as a list that stays as it is."""
        return list(self._open.values())

    def add(self, session: Session) -> None:
        """Wait for a session, until its time is up."""
        self._open[session.session_id] = session
        if session.seconds == math.inf:
            return
        deadlines = self._deadlines
        if len(deadlines) > 2 * len(self._open) + _SPARE_DEADLINES:
            self._sweep()
            deadlines = self._deadlines
        deadline = self._reactor.seconds() + session.seconds
        heapq.heappush(deadlines, (deadline, session.session_id))
        if deadline < self._timer_at:
            self._set_timer(deadline)

    def remove(self, session_id: int) -> None:
        """Wait no more for a session."""
        del self._open[session_id]

    def stop_timer(self) -> None:
        """Leave no delayed call behind. Deadlines that are left are forgotten."""
        self._deadlines.clear()
        self._timer_at = math.inf
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set_timer(self, deadline: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = deadline
        self._timer = self._reactor.callLater(max(0.0, deadline - self._reactor.seconds()), self._time_is_up)

    def _time_is_up(self) -> None:
        self._timer = None
        now = self._reactor.seconds()
        deadlines = self._deadlines
        overdue: list[Session] = []
        while deadlines and (deadlines[0][0] <= now or deadlines[0][1] not in self._open):
            session = self._open.get(heapq.heappop(deadlines)[1])
            if session is not None:
                overdue.append(session)
        self._timer_at = math.inf
        if deadlines:
            self._set_timer(deadlines[0][0])
        for session in overdue:
            # Giving up one may end others.
            if session.waiting is not None:
                self.statistics.timeouts += 1
                session.give_up(Failure(_timeout(session)))

    def _sweep(self) -> None:
        self._deadlines = [entry for entry in self._deadlines if entry[1] in self._open]
        heapq.heapify(self._deadlines)


def _timeout(session: Session) -> SessionTimeout:
    return SessionTimeout(
        f"{session.describe()} was not answered within {session.seconds:g} s (session {session.session_id}); "
        "it was cancelled there"
    )
