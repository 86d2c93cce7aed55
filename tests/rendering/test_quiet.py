from __future__ import annotations

from twisted.internet.task import Clock

from twisted_etcd.rendering.quiet import Quiet


class Told:
    def __init__(self, least: float, most: float) -> None:
        self.clock = Clock()
        self.times: list[float] = []
        self.quiet = Quiet(self.clock, least, most, lambda: self.times.append(self.clock.seconds()))

    def changes_at(self, *times: float) -> None:
        for time in times:
            self.clock.advance(time - self.clock.seconds())
            self.quiet.changed()


def test_changes_are_told_once_they_have_come_to_rest() -> None:
    told = Told(2, 10)
    told.changes_at(1, 2, 3)
    assert told.quiet.waits
    told.clock.pump([1] * 10)
    assert not told.quiet.waits
    told.changes_at(20)
    told.clock.pump([1] * 10)
    assert told.times == [5, 22]


def test_changes_without_a_rest_are_told_after_the_longest_time() -> None:
    told = Told(2, 5)
    told.changes_at(*range(10))
    assert told.times == [5]
    told.clock.pump([1] * 10)
    assert told.times == [5, 10]


def test_without_times_they_are_told_in_the_next_turn() -> None:
    told = Told(0, 0)
    told.changes_at(1)
    assert told.times == []
    told.clock.advance(0)
    assert told.times == [1]


def test_what_is_cancelled_is_not_told() -> None:
    told = Told(1, 1)
    told.changes_at(0)
    told.quiet.cancel()
    told.quiet.cancel()
    assert told.clock.getDelayedCalls() == []
