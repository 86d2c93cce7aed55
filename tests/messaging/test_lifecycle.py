"""The table of a service's states, and occasions."""

from __future__ import annotations

import pytest

from twisted_etcd.messaging.lifecycle import AT_REST, SUCCESSORS, State, successor


def test_every_state_has_its_successors_and_can_be_reached() -> None:
    assert set(SUCCESSORS) == set(State)
    assert set().union(*SUCCESSORS.values()) == set(State) - {State.CREATED}


def test_a_state_of_rest_is_left_by_starting_only() -> None:
    assert {SUCCESSORS[state] for state in AT_REST} == {frozenset({State.INITIALISING})}


def test_every_end_leads_through_stopping() -> None:
    for state, followers in SUCCESSORS.items():
        if followers & {State.STOPPED, State.REFUSED}:
            assert state is State.STOPPING


def test_a_state_that_may_not_follow_is_refused() -> None:
    assert successor(State.CREATED, State.INITIALISING) is State.INITIALISING
    with pytest.raises(RuntimeError, match="is running cannot become STOPPED"):
        successor(State.RUNNING, State.STOPPED)
