from __future__ import annotations

from twisted.internet.task import Clock

from tests.messaging.common import PENDING, peek
from twisted_etcd.rendering.bell import Bell


def test_who_sleeps_is_woken_and_leaves_no_timer() -> None:
    clock = Clock()
    bell = Bell(clock)
    sleep = bell.sleep(5)
    assert peek(sleep) is PENDING
    bell.ring()
    assert peek(sleep) is None
    assert clock.getDelayedCalls() == []


def test_who_is_not_woken_wakes_by_itself() -> None:
    clock = Clock()
    bell = Bell(clock)
    sleep = bell.sleep(5)
    clock.advance(4)
    assert peek(sleep) is PENDING
    clock.advance(1)
    assert peek(sleep) is None
    # The time that was over rang nothing.
    assert peek(bell.sleep()) is PENDING


def test_a_bell_that_rang_before_is_not_forgotten_and_wakes_once() -> None:
    bell = Bell(Clock())
    bell.ring()
    bell.ring()
    assert peek(bell.sleep(5)) is None
    assert peek(bell.sleep()) is PENDING
