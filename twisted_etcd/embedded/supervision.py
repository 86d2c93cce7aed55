"""
The life of a supervised process, as a table: what happened, in which state, leads to which state and actions.

It does nothing by itself: :class:`twisted_etcd.embedded.process.EmbeddedEtcd` tells it what happened and carries out
what it answers.
"""

from __future__ import annotations

import enum


class State(enum.Enum):
    """Where the process stands."""

    IDLE = "not running"
    STARTING = "starting"
    RUNNING = "running"
    GIVING_UP = "being killed because it did not come up"
    FAILED = "did not come up"
    WAITING = "waiting to be started again"
    RESTARTING = "starting again"
    DOWN = "dead and left so"
    STOPPING = "stopping"


class Event(enum.Enum):
    """What can happen to it."""

    START = "start was asked for"
    ANSWERED = "it answers requests"
    PORTS_TAKEN = "it ended because somebody else has its ports, and others can be tried"
    EXITED = "it ended"
    EXITED_FOR_GOOD = "it ended after it had answered, and is to stay so until it is asked for"
    OVERDUE = "it should answer by now"
    WAITED = "the time before the next start is over"
    STOP = "stop was asked for"
    GRACE_OVER = "it should have ended by now"


class Action(enum.Enum):
    """What is to be done about it."""

    SPAWN = "start the process"
    CHOOSE_PORTS = "take other ports"
    TELL_READY = "tell who waits that it answers"
    TELL_BACK = "tell that it answers again"
    TELL_FAILED = "tell who waits that it did not come up"
    TELL_DEATH = "tell that it died"
    TELL_DOWN = "tell that it died and stays so"
    WAIT = "let time pass before the next start"
    TERMINATE = "ask the process to end"
    KILL = "end the process"
    CLEAN_UP = "remove what it leaves behind"
    TELL_STOPPED = "tell who waits that it has stopped"


_S, _E, _A = State, Event, Action

TABLE: dict[tuple[State, Event], tuple[State, tuple[Action, ...]]] = {
    (_S.IDLE, _E.START): (_S.STARTING, (_A.SPAWN,)),
    (_S.FAILED, _E.START): (_S.STARTING, (_A.SPAWN,)),
    # the first start: a death is the answer to whoever waits, unless only the ports were to blame
    (_S.STARTING, _E.ANSWERED): (_S.RUNNING, (_A.TELL_READY,)),
    (_S.STARTING, _E.PORTS_TAKEN): (_S.STARTING, (_A.CHOOSE_PORTS, _A.SPAWN)),
    (_S.STARTING, _E.EXITED): (_S.FAILED, (_A.CLEAN_UP, _A.TELL_FAILED)),
    (_S.STARTING, _E.OVERDUE): (_S.GIVING_UP, (_A.KILL,)),
    (_S.GIVING_UP, _E.EXITED): (_S.FAILED, (_A.CLEAN_UP, _A.TELL_FAILED)),
    # it has answered once: from here on it is started again for ever
    (_S.RUNNING, _E.EXITED): (_S.WAITING, (_A.TELL_DEATH, _A.WAIT)),
    (_S.WAITING, _E.WAITED): (_S.RESTARTING, (_A.SPAWN,)),
    (_S.RESTARTING, _E.ANSWERED): (_S.RUNNING, (_A.TELL_BACK,)),
    (_S.RESTARTING, _E.OVERDUE): (_S.RESTARTING, (_A.KILL,)),
    (_S.RESTARTING, _E.EXITED): (_S.WAITING, (_A.TELL_DEATH, _A.WAIT)),
    # unless whoever runs it does that
    (_S.RUNNING, _E.EXITED_FOR_GOOD): (_S.DOWN, (_A.TELL_DOWN,)),
    (_S.DOWN, _E.START): (_S.STARTING, (_A.SPAWN,)),
    # the end
    (_S.STARTING, _E.STOP): (_S.STOPPING, (_A.TERMINATE,)),
    (_S.RUNNING, _E.STOP): (_S.STOPPING, (_A.TERMINATE,)),
    (_S.RESTARTING, _E.STOP): (_S.STOPPING, (_A.TERMINATE,)),
    (_S.GIVING_UP, _E.STOP): (_S.STOPPING, (_A.KILL,)),
    (_S.STOPPING, _E.GRACE_OVER): (_S.STOPPING, (_A.KILL,)),
    (_S.STOPPING, _E.EXITED): (_S.IDLE, (_A.CLEAN_UP, _A.TELL_STOPPED)),
    (_S.WAITING, _E.STOP): (_S.IDLE, (_A.CLEAN_UP, _A.TELL_STOPPED)),
    (_S.DOWN, _E.STOP): (_S.IDLE, (_A.CLEAN_UP, _A.TELL_STOPPED)),
    (_S.IDLE, _E.STOP): (_S.IDLE, (_A.TELL_STOPPED,)),
    (_S.FAILED, _E.STOP): (_S.IDLE, (_A.TELL_STOPPED,)),
    (_S.STOPPING, _E.STOP): (_S.STOPPING, ()),
}


def after(state: State, event: Event) -> tuple[State, tuple[Action, ...]]:
    """
    What an event leads to.

    :raises RuntimeError: for an event that cannot happen in that state.
    """
    try:
        return TABLE[state, event]
    except KeyError:
        msg = f"{event.name} cannot happen while the process is {state.value}"
        raise RuntimeError(msg) from None
