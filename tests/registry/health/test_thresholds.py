"""The machine of thresholds, held against its whole history."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twisted_etcd.registry.health.thresholds import Thresholds, worst
from twisted_etcd.registry.instance import Status

PASSING, WARNING, CRITICAL = Status
COUNTS = st.integers(min_value=1, max_value=4)
HISTORIES = st.lists(st.sampled_from(list(Status)), max_size=30)


def after(history: str, *, rise: int = 2, fall: int = 3, initial: Status = CRITICAL) -> Status:
    """The status after results such as ``+`` (passed), ``-`` (failed) and ``!`` (warned)."""
    thresholds = Thresholds(rise=rise, fall=fall, initial=initial, since=0.0)
    for at, result in enumerate(history):
        {"+": thresholds.passed, "-": thresholds.failed, "!": thresholds.warned}[result](float(at))
    return thresholds.status


@pytest.mark.parametrize(
    ("history", "expected"),
    [
        ("", CRITICAL),
        ("+", PASSING),
        ("!", WARNING),
        ("-", CRITICAL),
        ("-+", CRITICAL),
        ("-++", PASSING),
        ("+-", WARNING),
        ("+--", WARNING),
        ("+---", CRITICAL),
        ("+--+", WARNING),
        ("+--++", PASSING),
        ("+-+-+-+-+-", WARNING),
        ("+---+", CRITICAL),
        ("+---+-+-+-", CRITICAL),
        ("+---++", PASSING),
        ("+!", WARNING),
        ("+!!!!!!", WARNING),
        ("+!+", PASSING),
        ("+---!", CRITICAL),
        ("+---!!", WARNING),
        ("+---!+", WARNING),
        ("+---+!", WARNING),
        ("+---!++", PASSING),
        ("+--!--", WARNING),
    ],
)
def test_with_rise_2_and_fall_3(history: str, expected: Status) -> None:
    assert after(history) is expected


@pytest.mark.parametrize(
    ("history", "expected"), [("", PASSING), ("-", WARNING), ("--", WARNING), ("---", CRITICAL), ("+", PASSING)]
)
def test_it_may_begin_as_passing(history: str, expected: Status) -> None:
    assert after(history, initial=PASSING) is expected


def test_with_fall_1_there_is_no_warning_before_the_fall() -> None:
    assert after("+-", fall=1) is CRITICAL
    assert after("+-+", fall=1, rise=1) is PASSING


def trailing(history: list[Status], *wanted: Status) -> int:
    """How many of the last results are among those."""
    return sum(1 for _ in itertools.takewhile(lambda each: each in wanted, reversed(history)))


@given(history=HISTORIES, rise=COUNTS, fall=COUNTS, initial=st.sampled_from([PASSING, CRITICAL]))
def test_every_status_has_the_results_that_it_says(
    history: list[Status], rise: int, fall: int, initial: Status
) -> None:
    thresholds = Thresholds(rise=rise, fall=fall, initial=initial, since=-1.0)
    before, since = thresholds.status, thresholds.critical_since
    for at, result in enumerate(history):
        status = thresholds.told(result, float(at))
        assert status is thresholds.status
        so_far = history[: at + 1]
        needed = rise if CRITICAL in so_far else 1
        earned = {
            CRITICAL: trailing(so_far, CRITICAL) >= fall,
            PASSING: trailing(so_far, PASSING) >= needed,
            WARNING: trailing(so_far, PASSING, WARNING) >= needed if before is CRITICAL else result is not PASSING,
        }
        assert status is before or earned[status]
        assert status is CRITICAL or not earned[CRITICAL]
        assert status is PASSING or not earned[PASSING]
        assert (result, status) != (CRITICAL, PASSING)
        # and it knows since when
        if status is not CRITICAL:
            since = None
        elif before is not CRITICAL:
            since = float(at)
        assert thresholds.critical_since == since
        before = status


@given(statuses=st.lists(st.sampled_from(list(Status))))
def test_of_several_the_worst_counts(statuses: list[Status]) -> None:
    expected = next((each for each in (CRITICAL, WARNING) if each in statuses), PASSING)
    assert worst(statuses) is expected
