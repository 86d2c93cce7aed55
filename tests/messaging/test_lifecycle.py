"""The table of a service's states, and occasions."""

from __future__ import annotations

import pytest
from twisted.internet.defer import CancelledError
from twisted.python.failure import Failure

from tests.messaging.common import PENDING, failure_of, peek, result_of
from twisted_etcd.messaging.lifecycle import AT_REST, SUCCESSORS, Occasion, State, successor


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


def test_all_who_wait_for_an_occasion_are_told() -> None:
    occasion = Occasion()
    first, second = occasion.when(), occasion.when()
    assert peek(first) is peek(second) is PENDING
    occasion.happen()
    result_of(first)
    result_of(second)


def test_who_comes_after_an_occasion_is_told_at_once() -> None:
    occasion = Occasion()
    occasion.happen()
    result_of(occasion.when())
    assert occasion.happened


def test_a_failed_occasion_fails_for_those_before_and_after_it() -> None:
    occasion = Occasion()
    before = occasion.when()
    occasion.happen(Failure(ValueError("bad")))
    failure_of(before, ValueError)
    failure_of(occasion.when(), ValueError)


def test_one_who_waits_no_longer_leaves_the_others_waiting() -> None:
    occasion = Occasion()
    first, second = occasion.when(), occasion.when()
    first.cancel()
    failure_of(first, CancelledError)
    occasion.happen()
    result_of(second)


def test_one_who_is_told_may_cancel_the_wait_of_the_next() -> None:
    occasion = Occasion()
    first, second, third = occasion.when(), occasion.when(), occasion.when()
    first.addCallback(lambda _: second.cancel())
    occasion.happen()
    failure_of(second, CancelledError)
    result_of(third)
