from __future__ import annotations

from twisted.internet.task import Clock

from twisted_etcd.lull import Lull


class Told:
    def __init__(self, least: float, most: float) -> None:
        self.clock = Clock()
        self.times: list[float] = []
        self.lull = Lull(self.clock, least, most, lambda: self.times.append(self.clock.seconds()))

    def changes_at(self, *times: float) -> None:
        for time in times:
            self.clock.advance(time - self.clock.seconds())
            self.lull.changed()


def test_changes_are_told_once_they_have_come_to_rest() -> None:
    told = Told(2, 10)
    told.changes_at(1, 2, 3)
    assert told.lull.waits
    told.clock.pump([1] * 10)
    assert not told.lull.waits
    told.changes_at(20)
    told.clock.pump([1] * 10)
    assert told.times == [5, 22]


def test_changes_without_a_rest_are_told_after_the_longest_time() -> None:
    told = Told(2, 5)
    told.changes_at(*range(10))
    assert told.times == [5]
    told.clock.pump([1] * 10)
    assert told.times == [5, 10]


def test_without_times_they_are_told_at_once() -> None:
    told = Told(0, 0)
    told.changes_at(1)
    assert told.times == [1]
    assert told.clock.getDelayedCalls() == []


def test_on_hold_nothing_is_told_until_it_is_released() -> None:
    told = Told(2, 5)
    told.lull.hold()
    told.changes_at(1)
    told.clock.advance(3)
    assert told.lull.waits
    told.lull.release()
    assert told.times == [4]
    told.lull.release()
    assert told.times == [4]


def test_what_is_held_for_longer_than_the_longest_time_is_due_though_it_does_not_rest() -> None:
    told = Told(2, 5)
    told.lull.hold()
    told.changes_at(*range(10))
    told.lull.release()
    assert told.times == [9]


def test_released_before_it_has_come_to_rest_it_waits_for_that() -> None:
    told = Told(2, 50)
    told.lull.hold()
    told.changes_at(0, 4)
    told.lull.release()
    assert told.times == []
    told.clock.advance(2)
    assert told.times == [6]


def test_what_is_cancelled_is_not_told() -> None:
    told = Told(1, 1)
    told.changes_at(0)
    told.lull.cancel()
    told.lull.cancel()
    assert told.clock.getDelayedCalls() == []
