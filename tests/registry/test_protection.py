"""What is held back where many instances vanish at once."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from twisted_etcd.errors import InvalidSettings
from twisted_etcd.registry.protection import HoldBack, Protection


class Service:
    """Instances that come and go, by numbers."""

    def __init__(self, protection: Protection, count: int) -> None:
        self.hold_back: HoldBack[int] = HoldBack(protection)
        self.present = {b"%d" % number: number for number in range(count)}
        self.now = 0.0

    def go(self, *numbers: int) -> None:
        gone = {key: self.present.pop(key) for key in (b"%d" % number for number in numbers)}
        self.hold_back.changed(self.now, self.present, gone)

    def come(self, *numbers: int) -> None:
        self.present.update((b"%d" % number, number) for number in numbers)
        self.hold_back.changed(self.now, self.present, {})

    @property
    def held(self) -> set[int]:
        return set(self.hold_back.held.values())

    @property
    def seen(self) -> set[int]:
        return self.held | set(self.present.values())


@pytest.fixture
def service() -> Service:
    return Service(Protection(share=0.5, window=10, hold=60), 10)


def test_a_share_that_goes_is_let_go(service: Service) -> None:
    service.go(0, 1, 2, 3, 4)
    assert service.held == set()
    assert service.hold_back.until is None


def test_more_than_that_stays(service: Service) -> None:
    service.now = 5
    service.go(0, 1, 2, 3, 4, 5)
    assert service.held == {0, 1, 2, 3, 4, 5}
    assert service.hold_back.until == 65


def test_those_that_went_one_by_one_within_the_window_come_back_with_the_last(service: Service) -> None:
    for number in range(5):
        service.go(number)
        service.now += 2
    assert service.held == set()
    service.go(5)
    assert service.held == {0, 1, 2, 3, 4, 5}


def test_those_that_went_before_the_window_do_not_count() -> None:
    service = Service(Protection(share=0.5, window=10, hold=60), 10)
    for number in range(9):
        service.go(number)
        service.now += 11
    assert service.held == set()
    # The last one is more than half of all there are.
    service.go(9)
    assert service.held == {9}


def test_while_something_is_held_back_all_that_vanishes_is(service: Service) -> None:
    service.go(0, 1, 2, 3, 4, 5)
    service.now = 50
    service.go(6)
    assert service.held == {0, 1, 2, 3, 4, 5, 6}
    assert service.hold_back.until == 60


def test_who_comes_back_is_held_no_longer_and_when_enough_are_there_the_others_go(service: Service) -> None:
    service.go(*range(10))
    service.come(0, 1)
    assert service.held == set(range(2, 10))
    service.come(2, 3)
    assert service.held == set(range(4, 10))
    service.come(4)
    assert service.held == set()
    assert service.seen == {0, 1, 2, 3, 4}
    # Those that went count no more.
    service.go(0)
    assert service.held == set()


def test_others_that_come_are_enough_as_well(service: Service) -> None:
    service.go(*range(10))
    service.come(*range(20, 29))
    assert len(service.held) == 10
    service.come(29)
    assert service.held == set()


def test_after_its_time_it_ends_and_begins_anew(service: Service) -> None:
    service.go(*range(10))
    service.now = 60
    service.come(20)
    assert service.held == set()
    service.go(20)
    assert service.held == {20}


def test_a_share_of_nothing_holds_back_each_one_and_a_whole_share_none() -> None:
    service = Service(Protection(share=0), 10)
    service.go(0)
    assert service.held == {0}
    service = Service(Protection(share=1), 10)
    service.go(*range(10))
    assert service.held == set()


@pytest.mark.parametrize(
    ("given_", "error", "words"),
    [
        ({"share": 1.5}, InvalidSettings, "share of a Protection is from 0 to 1, 0.5 for a half, not 1.5"),
        ({"share": -0.1}, InvalidSettings, "share of a Protection must not be negative"),
        ({"window": math.inf}, InvalidSettings, "window of a Protection must not be negative or without end"),
        ({"hold": math.nan}, InvalidSettings, "hold of a Protection must not be negative or without end"),
        ({"hold": "60"}, TypeError, "hold of a Protection must be a number, not str"),
        ({"share": True}, TypeError, "share of a Protection must be a number, not bool"),
    ],
)
def test_what_cannot_be_used_is_refused_in_words(given_: Any, error: type[Exception], words: str) -> None:  # noqa: ANN401
    with pytest.raises(error, match=words):
        Protection(**given_)


@given(st.floats(0, 1), st.integers(1, 30), st.integers(0, 30))
def test_at_once_it_is_held_back_exactly_where_it_is_more_than_the_share(share: float, count: int, go: int) -> None:
    service = Service(Protection(share=share), count)
    service.go(*range(min(go, count)))
    assert bool(service.held) is (min(go, count) > share * count)


class AnyOrder(RuleBasedStateMachine):
    """Whatever happens, in any order."""

    @initialize(share=st.sampled_from([0.0, 0.3, 0.5, 0.9, 1.0]), count=st.integers(0, 12))
    def begin(self, share: float, count: int) -> None:
        self.share = share
        self.service = Service(Protection(share=share, window=10, hold=60), count)
        self.ever = set(self.service.present.values())

    @rule(data=st.data())
    def some_go(self, data: st.DataObject) -> None:
        present = sorted(self.service.present.values())
        self.service.go(*data.draw(st.sets(st.sampled_from(present)) if present else st.just(set())))

    @rule(numbers=st.sets(st.integers(0, 15)))
    def some_come(self, numbers: set[int]) -> None:
        self.ever |= numbers
        self.service.come(*numbers)

    @rule(seconds=st.sampled_from([0.5, 5.0, 11.0, 59.0, 61.0]))
    def time_passes(self, seconds: float) -> None:
        self.service.now += seconds
        until = self.service.hold_back.until
        if until is not None and self.service.now >= until:
            # As the view does in time.
            self.service.hold_back.release()

    @invariant()
    def what_is_there_is_not_held_and_what_is_held_was_there(self) -> None:
        assert not self.service.held & set(self.service.present.values())
        assert self.service.seen <= self.ever

    @invariant()
    def something_is_held_exactly_until_a_time_that_comes(self) -> None:
        until = self.service.hold_back.until
        assert bool(self.service.held) is (until is not None)
        assert until is None or self.service.now < until <= self.service.now + 60

    @invariant()
    def no_more_is_missing_than_the_share(self) -> None:
        held, present = len(self.service.held), len(self.service.present)
        assert held == 0 or held > self.share * (held + present)


TestAnyOrder = AnyOrder.TestCase
