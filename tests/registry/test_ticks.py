"""Waits that end together."""

from __future__ import annotations

import random

import pytest
from twisted.internet.task import Clock

from twisted_etcd.registry.ticks import Tick, Ticks


@pytest.mark.parametrize("seconds", [0.0, 0.001, 0.05, 0.7, 1.0, 9.99, 30.0])
@pytest.mark.parametrize("phase", [0.0, 0.3, 0.999])
def test_a_wait_is_no_shorter_and_at_most_a_quarter_longer(seconds: float, phase: float) -> None:
    clock = Clock()
    clock.advance(1234.567)
    ended: list[float] = []
    Ticks(clock, phase).after(seconds, lambda: ended.append(clock.seconds()))
    [waiting] = clock.getDelayedCalls()
    due = waiting.getTime() - clock.seconds()
    assert seconds - 1e-6 <= due <= seconds * 1.25 + 1e-6
    clock.advance(due)
    assert len(ended) == 1


def test_a_thousand_waits_end_a_few_at_a_time() -> None:
    clock, seeded = Clock(), random.Random(1)
    ticks = Ticks(clock, 0.5)
    waits = [seeded.random() * 10 for _ in range(1000)]
    ended: list[float] = []
    for wait in waits:
        ticks.after(wait, lambda: ended.append(clock.seconds()))
    assert len(clock.getDelayedCalls()) < 60
    while clock.getDelayedCalls():
        clock.advance(min(call.getTime() for call in clock.getDelayedCalls()) - clock.seconds())
    assert len(ended) == 1000


def test_one_that_is_cancelled_does_nothing_and_the_last_one_leaves_nothing() -> None:
    clock, ended = Clock(), []
    ticks = Ticks(clock, 0.0)
    first, second = ticks.after(1.0, lambda: ended.append(1)), ticks.after(1.0, lambda: ended.append(2))
    first.cancel()
    first.cancel()
    assert len(clock.getDelayedCalls()) == 1
    second.cancel()
    assert clock.getDelayedCalls() == []
    third = ticks.after(1.0, lambda: ended.append(3))
    clock.advance(1.25)
    third.cancel()
    assert ended == [3]


def test_one_can_cancel_another_and_ask_for_a_new_one_as_it_ends() -> None:
    clock, ended = Clock(), []
    ticks = Ticks(clock, 0.0)
    later: list[Tick] = []

    def end() -> None:
        ended.append(1)
        later[0].cancel()
        ticks.after(0.0, lambda: ended.append(3))

    ticks.after(1.0, end)
    later.append(ticks.after(1.0, lambda: ended.append(2)))
    clock.advance(1.25)
    clock.advance(0)
    assert ended == [1, 3]


def test_the_stop_leaves_nothing() -> None:
    clock = Clock()
    ticks = Ticks(clock, 0.0)
    for seconds in (0.0, 0.1, 1.0, 1.0):
        ticks.after(seconds, pytest.fail)
    ticks.stop()
    assert clock.getDelayedCalls() == []
