"""Sessions: deadlines under one timer."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from tests.guards import LoggedErrors
from tests.messaging.common import PENDING, failure_of, peek, result_of
from twisted_etcd.errors import SessionTimeout
from twisted_etcd.messaging.sessions import Session, SessionTable
from twisted_etcd.messaging.statistics import Statistics


class Errand(Session):
    withdrawn = 0

    def cancel_work(self) -> None:
        self.withdrawn += 1

    def describe(self) -> str:
        return "an errand"


class Stubborn(Errand):
    def cancel_work(self) -> None:
        raise ValueError


def table_of(clock: Clock) -> SessionTable:
    return SessionTable(clock, Statistics())


def test_a_session_times_out_and_what_it_waits_for_is_withdrawn() -> None:
    clock = Clock()
    table = table_of(clock)
    errand = Errand(table, None)
    waiting = errand.open(5)
    clock.advance(4.9)
    assert peek(waiting) is PENDING
    clock.advance(0.1)
    error = failure_of(waiting, SessionTimeout)
    assert "an errand was not answered within 5 s (session 1)" in str(error)
    assert (errand.withdrawn, errand.given_up, len(table)) == (1, True, 0)
    assert table.statistics.timeouts == 1
    assert clock.getDelayedCalls() == []


def test_a_session_that_is_over_does_not_time_out() -> None:
    clock = Clock()
    table = table_of(clock)
    errand = Errand(table, None)
    waiting = errand.open(5)
    errand.succeed("done")
    assert result_of(waiting) == "done"
    clock.advance(5)
    assert table.statistics.timeouts == 0
    assert clock.getDelayedCalls() == []


def test_a_session_without_a_limit_needs_no_timer() -> None:
    clock = Clock()
    Errand(table_of(clock), None).open(math.inf)
    assert clock.getDelayedCalls() == []


def test_cancelling_withdraws_what_is_waited_for() -> None:
    table = table_of(Clock())
    errand = Errand(table, None)
    waiting = errand.open(math.inf)
    waiting.cancel()
    failure_of(waiting, CancelledError)
    assert (errand.withdrawn, errand.given_up, len(table)) == (1, True, 0)


def test_many_sessions_share_one_timer_which_an_earlier_deadline_moves() -> None:
    clock = Clock()
    table = table_of(clock)
    waiting = [Errand(table, None).open(seconds) for seconds in (9, 3, 6)]
    assert [call.getTime() for call in clock.getDelayedCalls()] == [3]
    clock.advance(3)
    failure_of(waiting[1], SessionTimeout)
    assert [call.getTime() for call in clock.getDelayedCalls()] == [6]
    clock.advance(6)
    failure_of(waiting[0], SessionTimeout)
    failure_of(waiting[2], SessionTimeout)
    assert clock.getDelayedCalls() == []


def test_the_timer_is_not_taken_back_for_each_session_that_ends() -> None:
    clock = Clock()
    table = table_of(clock)
    first = Errand(table, None)
    first.open(5)
    (timer,) = clock.getDelayedCalls()
    first.succeed(None)
    for _ in range(3):
        errand = Errand(table, None)
        errand.open(5)
        errand.succeed(None)
    assert clock.getDelayedCalls() == [timer]


def test_stopping_the_timer_leaves_no_delayed_call() -> None:
    clock = Clock()
    table = table_of(clock)
    errand = Errand(table, None)
    errand.open(5)
    errand.succeed(None)
    table.stop_timer()
    table.stop_timer()
    assert clock.getDelayedCalls() == []
    later = Errand(table, None).open(5)
    clock.advance(5)
    failure_of(later, SessionTimeout)


def test_giving_up_one_may_end_another_that_is_overdue_too() -> None:
    clock = Clock()
    table = table_of(clock)
    first, second = Errand(table, None), Errand(table, None)
    waiting = first.open(5)
    other = second.open(5)
    waiting.addErrback(lambda _: second.succeed("by the first"))
    clock.advance(5)
    assert result_of(other) == "by the first"
    assert table.statistics.timeouts == 1


def test_one_that_cannot_be_withdrawn_is_logged_and_keeps_no_other_waiting(logged_errors: LoggedErrors) -> None:
    clock = Clock()
    table = table_of(clock)
    waiting = [Stubborn(table, None).open(5), Errand(table, None).open(5)]
    clock.advance(5)
    for each in waiting:
        failure_of(each, SessionTimeout)
    assert len(logged_errors.flush(ValueError)) == 1


def test_a_session_is_answered_once() -> None:
    errand = Errand(table_of(Clock()), None)
    errand.open(math.inf)
    errand.succeed(None)
    with pytest.raises(RuntimeError, match="session 1 is over"):
        errand.succeed(None)


def test_deadlines_of_sessions_that_are_over_do_not_pile_up() -> None:
    table = table_of(Clock())
    for _ in range(10_000):
        errand = Errand(table, None)
        errand.open(5)
        errand.succeed(None)
    assert len(vars(table)["_deadlines"]) < 100


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("open"), st.integers(1, 20)),
            st.tuples(st.just("end"), st.integers(0, 30)),
            st.tuples(st.just("pass"), st.integers(0, 10)),
        ),
        max_size=60,
    )
)
def test_every_session_ends_at_its_deadline_or_before(steps: list[tuple[str, int]]) -> None:
    clock = Clock()
    table = table_of(clock)
    opened: list[tuple[Session, float]] = []
    ended: dict[int, float] = {}

    def note(_: object, number: int) -> None:
        ended[number] = clock.seconds()

    for what, number in steps:
        if what == "open":
            errand = Errand(table, None)
            opened.append((errand, clock.seconds() + number))
            waiting: Deferred[object] = errand.open(number)
            waiting.addBoth(note, errand.session_id)
        elif what == "end" and number < len(opened) and opened[number][0].waiting is not None:
            opened[number][0].succeed(None)
        elif what == "pass":
            # As a real reactor would: no deadline is jumped over.
            for _ in range(number):
                clock.advance(1)
    for session, deadline in opened:
        if deadline <= clock.seconds():
            assert ended[session.session_id] <= deadline
        if session.given_up:
            assert ended[session.session_id] == deadline
        assert (session.waiting is None) == (session.session_id in ended)
    assert len(table) == len(opened) - len(ended)
    assert len(clock.getDelayedCalls()) <= 1
