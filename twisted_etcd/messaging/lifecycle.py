"""The states of a service as a table, and what can be waited for on the way."""

from __future__ import annotations

import enum
from collections.abc import Mapping

from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure


class State(enum.Enum):
    """Where a service stands."""

    CREATED = "created, and not started yet"
    INITIALISING = "in on_init"
    STARTING = "waiting for on_start, or in it"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    REFUSED = "not running, because it refused to start"


_S = State

#: Which state may follow which. All ways to an end lead through STOPPING, where what was begun is taken down.
SUCCESSORS: Mapping[State, frozenset[State]] = {
    _S.CREATED: frozenset({_S.INITIALISING}),
    _S.INITIALISING: frozenset({_S.STARTING, _S.STOPPING}),
    _S.STARTING: frozenset({_S.RUNNING, _S.STOPPING}),
    _S.RUNNING: frozenset({_S.STOPPING}),
    _S.STOPPING: frozenset({_S.STOPPED, _S.REFUSED}),
    _S.STOPPED: frozenset({_S.INITIALISING}),
    _S.REFUSED: frozenset({_S.INITIALISING}),
}
#: The states in which nothing of a service is left, so that it can be started.
AT_REST = frozenset({_S.CREATED, _S.STOPPED, _S.REFUSED})


def successor(state: State, wanted: State) -> State:
    """
    The wanted state.

    :raises RuntimeError: where it may not follow the present one.
    """
    if wanted not in SUCCESSORS[state]:
        msg = f"a service that is {state.value} cannot become {wanted.name}"
        raise RuntimeError(msg)
    return wanted


class Occasion:
    """
    Something that happens once, well or badly, and that any number of callers wait for.

    :ivar happened: whether it has.
    """

    def __init__(self) -> None:
        self.happened = False
        self._failure: Failure | None = None
        self._waiting: list[Deferred[None]] = []

    def when(self) -> Deferred[None]:
        """
        Fires when it happens, at once if it has.

        Each caller gets a Deferred of its own; cancelling it ends that caller's wait and nothing else.
        """
        if not self.happened:
            waiting: Deferred[None] = Deferred(self._waiting.remove)
            self._waiting.append(waiting)
            return waiting
        return succeed(None) if self._failure is None else fail(self._failure)

    def happen(self, failure: Failure | None = None) -> None:
        """Let it happen: with a failure, all who wait and will ask get that."""
        self.happened = True
        self._failure = failure
        # One at a time: what is waiting may be cancelled by those who were told first.
        while self._waiting:
            waiting = self._waiting.pop(0)
            if failure is None:
                waiting.callback(None)
            else:
                waiting.errback(failure)
