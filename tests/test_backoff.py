"""The waits between attempts."""

from __future__ import annotations

import pytest

from twisted_etcd.backoff import Backoff


@pytest.mark.parametrize(
    ("random", "waits"),
    [
        (1.0, [0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0]),
        (0.5, [0.025, 0.05, 0.1, 0.2, 0.4, 0.5, 0.5]),
        (0.0, [0.0] * 7),
    ],
)
def test_the_waits_double_up_to_the_longest_with_full_jitter(random: float, waits: list[float]) -> None:
    backoff = Backoff(lambda: random)
    assert [backoff.next() for _ in waits] == pytest.approx(waits)


def test_the_first_and_the_longest_wait_can_be_set() -> None:
    backoff = Backoff(lambda: 1.0, first=2.0, longest=5.0)
    assert [backoff.next() for _ in range(3)] == [2.0, 4.0, 5.0]


def test_after_a_success_it_begins_anew() -> None:
    backoff = Backoff(lambda: 1.0)
    for _ in range(10):
        backoff.next()
    backoff.reset()
    assert backoff.next() == 0.05


def test_years_of_failure_overflow_nothing() -> None:
    backoff = Backoff(lambda: 1.0)
    assert [backoff.next() for _ in range(100_000)][-1] == 1.0
