"""The states of a service as a table."""

from __future__ import annotations

import enum
from collections.abc import Mapping


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
