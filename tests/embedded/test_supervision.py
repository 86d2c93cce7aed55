from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twisted_etcd.embedded.supervision import TABLE, Action, Event, State, after

#: States in which a process runs.
ALIVE = {State.STARTING, State.RUNNING, State.GIVING_UP, State.RESTARTING, State.STOPPING}


@pytest.mark.parametrize("state", State)
def test_a_stop_is_possible_in_every_state(state: State) -> None:
    assert after(state, Event.STOP)[0] in (State.IDLE, State.STOPPING)


@pytest.mark.parametrize("state", [state for state in State if state in ALIVE])
def test_the_process_may_end_in_every_state_in_which_it_runs(state: State) -> None:
    after(state, Event.EXITED)


@pytest.mark.parametrize("state", State)
def test_every_state_can_be_reached(state: State) -> None:
    assert state in {target for target, _ in TABLE.values()}


def test_an_event_that_cannot_happen_is_an_error() -> None:
    with pytest.raises(RuntimeError, match=r"^ANSWERED cannot happen while the process is not running$"):
        after(State.IDLE, Event.ANSWERED)


@given(st.data())
def test_in_every_order_of_events_there_is_one_process_at_most_and_every_waiter_hears(data: st.DataObject) -> None:
    state, processes, stopping = State.IDLE, 0, False
    for _ in range(30):
        possible = [event for event in Event if (state, event) in TABLE]
        if state not in ALIVE:
            assert processes == 0
        event = data.draw(st.sampled_from(possible))
        stopping = stopping or event is Event.STOP
        processes -= event in (Event.EXITED, Event.EXITED_FOR_GOOD, Event.PORTS_TAKEN)
        state, actions = after(state, event)
        processes += actions.count(Action.SPAWN)
        assert processes == (state in ALIVE)
        if Action.TELL_STOPPED in actions:
            assert processes == 0
            stopping = False
        assert not (stopping and state not in ALIVE), "a stop was asked for and nobody was told of its end"


def test_what_is_started_leaves_nothing_behind() -> None:
    for (state, event), (target, actions) in TABLE.items():
        # one that is down has its data still
        down = target in (State.IDLE, State.FAILED) and state not in (State.IDLE, State.FAILED)
        assert (Action.CLEAN_UP in actions) == down, (state, event)


def test_a_start_that_was_answered_is_never_given_up() -> None:
    reached, front = {State.RUNNING}, {State.RUNNING}
    while front:
        front = {
            after(state, event)[0]
            for state, event in itertools.product(front, Event)
            if (state, event) in TABLE and event not in (Event.STOP, Event.EXITED_FOR_GOOD)
        } - reached
        reached |= front
    assert reached == {State.RUNNING, State.WAITING, State.RESTARTING}


def test_what_is_to_stay_down_comes_back_by_a_start_alone() -> None:
    state, actions = after(State.RUNNING, Event.EXITED_FOR_GOOD)
    assert actions == (Action.TELL_DOWN,)
    assert {event for (before, event) in TABLE if before is state} == {Event.START, Event.STOP}
