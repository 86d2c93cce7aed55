"""The rounds of one check, with a test in the place of time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock

from tests.messaging.common import PENDING, peek, result_of
from tests.registry.health.looked_at import CRITICAL, PASSING, ScriptedCheck, SteadyCheck
from twisted_etcd.registry.health.result import Check, CheckResult
from twisted_etcd.registry.health.rounds import Rounds


class Looked:
    """Rounds every 10 seconds, of 4 seconds at the most, and what they found."""

    def __init__(self, check: Check, numbers: Iterator[float] | None = None) -> None:
        self.clock = Clock()
        self.found: list[CheckResult] = []
        self.rounds = Rounds(
            self.clock,
            check,
            interval=10.0,
            timeout=4.0,
            random=lambda: 0.5 if numbers is None else next(numbers),
            found=self.found.append,
        )

    @property
    def whys(self) -> list[str]:
        return [each.why for each in self.found]


@pytest.fixture
def check() -> ScriptedCheck:
    return ScriptedCheck()


@pytest.fixture
def looked(check: ScriptedCheck) -> Looked:
    looked = Looked(check)
    looked.rounds.start()
    return looked


def test_the_first_look_comes_within_a_second_and_the_others_every_interval() -> None:
    check = SteadyCheck()
    looked = Looked(check)
    looked.rounds.start()
    looked.clock.advance(0.49)
    assert check.looks == 0
    looked.clock.advance(0.01)
    assert check.looks == 1
    looked.clock.advance(9.99)
    assert check.looks == 1
    looked.clock.advance(0.01)
    assert check.looks == 2
    assert looked.found == [CheckResult(PASSING, "look 1"), CheckResult(PASSING, "look 2")]


@pytest.mark.parametrize(("number", "seconds"), [(0.0, 9.0), (0.999, 10.998)])
def test_the_interval_is_more_or_less_a_tenth(number: float, seconds: float) -> None:
    check = SteadyCheck()
    looked = Looked(check, iter([0.0, number, 0.5]))
    looked.rounds.start()
    looked.clock.advance(0)
    looked.clock.advance(seconds - 0.001)
    assert check.looks == 1
    looked.clock.advance(0.002)
    assert check.looks == 2


def test_no_look_begins_before_the_one_before_has_ended(looked: Looked, check: ScriptedCheck) -> None:
    check.holds_on = True
    looked.clock.advance(0.5)
    for _ in range(30):
        looked.clock.advance(1)
    assert len(check.looks) == 1
    check.ends()
    assert len(check.looks) == 1
    looked.clock.advance(0)
    assert len(check.looks) == 2


def test_a_look_that_takes_too_long_is_cancelled_and_has_failed(looked: Looked, check: ScriptedCheck) -> None:
    looked.clock.advance(0.5)
    looked.clock.advance(3.99)
    assert looked.found == []
    looked.clock.advance(0.01)
    assert looked.found == [CheckResult(CRITICAL, "no result within 4 s")]
    assert check.cancelled == 1
    looked.clock.advance(6)
    assert len(check.looks) == 2
    check.ends(why="again")
    assert looked.whys == ["no result within 4 s", "again"]


def test_what_a_cancelled_look_still_finds_does_not_count(looked: Looked, check: ScriptedCheck) -> None:
    check.holds_on = True
    looked.clock.advance(0.5)
    looked.clock.advance(4)
    check.ends()
    assert looked.whys == ["no result within 4 s"]


def test_a_look_that_does_not_end_fails_again_and_again(looked: Looked, check: ScriptedCheck) -> None:
    check.holds_on = True
    looked.clock.advance(0.5)
    looked.clock.advance(4)
    looked.clock.advance(10)
    looked.clock.advance(10)
    assert looked.whys == ["no result within 4 s", *["the last look was cancelled and has not ended"] * 2]
    assert check.cancelled == 1
    stopped = looked.rounds.stop()
    assert peek(stopped) is PENDING
    check.ends()
    assert result_of(stopped) is None
    assert looked.clock.getDelayedCalls() == []


def test_a_check_that_breaks_its_promise_has_failed() -> None:
    class Broken:
        answers: list[Any] = [fail(ValueError("no")), ZeroDivisionError("no"), "yes"]  # noqa: RUF012 - one use

        def check(self) -> Deferred[CheckResult]:
            answer = self.answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            found: Deferred[CheckResult] = answer
            return found

    looked = Looked(Broken())
    looked.rounds.start()
    looked.clock.pump([0.5, 10, 10])
    assert {each.status for each in looked.found} == {CRITICAL}
    assert looked.whys == ["ValueError: no", "ZeroDivisionError: no", "the check gave a str in place of a CheckResult"]
    looked.rounds.stop()


# --- the end --------------------------------------------------------------------------------------------------------


def test_stopped_before_it_was_started(check: ScriptedCheck) -> None:
    assert result_of(Looked(check).rounds.stop()) is None


def test_stopped_between_two_looks(looked: Looked, check: ScriptedCheck) -> None:
    looked.clock.advance(0.5)
    check.ends()
    assert result_of(looked.rounds.stop()) is None
    assert looked.clock.getDelayedCalls() == []


def test_stopped_while_it_looks(looked: Looked, check: ScriptedCheck) -> None:
    looked.clock.advance(0.5)
    assert result_of(looked.rounds.stop()) is None
    assert check.cancelled == 1
    assert (looked.found, looked.clock.getDelayedCalls()) == ([], [])


def test_a_look_that_is_cancelled_is_waited_for(looked: Looked, check: ScriptedCheck) -> None:
    check.holds_on = True
    looked.clock.advance(0.5)
    stopped, again = looked.rounds.stop(), looked.rounds.stop()
    assert peek(stopped) is peek(again) is PENDING
    assert looked.clock.getDelayedCalls() == []
    check.ends()
    assert result_of(stopped) is result_of(again) is None
    assert (check.cancelled, looked.found) == (1, [])


def test_stopped_by_the_check_itself(looked: Looked, check: ScriptedCheck) -> None:
    stops: list[Deferred[None]] = []
    check.during = lambda: stops.append(looked.rounds.stop())
    looked.clock.advance(0.5)
    assert result_of(stops[0]) is None
    assert (check.cancelled, looked.found, looked.clock.getDelayedCalls()) == (1, [], [])


def test_stopped_by_who_hears_of_a_result(check: ScriptedCheck) -> None:
    looked = Looked(check)
    stops: list[Deferred[None]] = []
    looked.rounds._found = lambda _: stops.append(looked.rounds.stop())  # noqa: SLF001 - its own parameter
    looked.rounds.start()
    looked.clock.advance(0.5)
    looked.clock.advance(4)
    assert result_of(stops[0]) is None
    assert looked.clock.getDelayedCalls() == []
