"""Who failed is left alone for a while."""

from __future__ import annotations

from twisted.internet.task import Clock

from twisted_etcd.endpoints.avoidance import FIRST_AVOIDANCE, LONGEST_AVOIDANCE, Avoided


def avoided_for(clock: Clock, avoided: Avoided, address: str) -> float:
    """Seconds until it is avoided no longer."""
    began = clock.seconds()
    while address in avoided:
        clock.advance(0.5)
    return clock.seconds() - began


def test_who_failed_is_avoided_longer_each_time_up_to_a_bound() -> None:
    clock = Clock()
    avoided = Avoided(clock)
    times = []
    for _ in range(8):
        avoided.failed("a:1")
        assert "b:1" not in avoided
        times.append(avoided_for(clock, avoided, "a:1"))
    assert times == [1, 2, 4, 8, 16, 30, 30, 30]
    assert (times[0], times[-1]) == (FIRST_AVOIDANCE, LONGEST_AVOIDANCE)


def test_a_success_forgets_it() -> None:
    clock = Clock()
    avoided = Avoided(clock)
    for _ in range(3):
        avoided.failed("a:1")
    avoided.succeeded("a:1")
    avoided.succeeded("b:1")
    assert "a:1" not in avoided
    avoided.failed("a:1")
    assert avoided_for(clock, avoided, "a:1") == FIRST_AVOIDANCE


def test_so_does_a_long_time() -> None:
    clock = Clock()
    avoided = Avoided(clock)
    for _ in range(5):
        avoided.failed("a:1")
    clock.advance(16 + 2 * LONGEST_AVOIDANCE + 1)
    avoided.failed("b:1")
    avoided.failed("a:1")
    assert avoided_for(clock, avoided, "a:1") == FIRST_AVOIDANCE
