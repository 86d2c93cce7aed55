"""Functions as checks, and programs that say themselves how they are."""

from __future__ import annotations

from typing import Any, cast

import pytest
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.task import Clock

from tests.messaging.common import PENDING, failure_of, peek, result_of
from twisted_etcd.errors import InvalidSettings
from twisted_etcd.registry.health.function import CallableCheck, TTLCheck
from twisted_etcd.registry.health.result import CheckResult
from twisted_etcd.registry.instance import Status

PASSING, WARNING, CRITICAL = Status


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (None, CheckResult(PASSING)),
        (True, CheckResult(PASSING)),
        (False, CheckResult(CRITICAL, "it said False")),
        (WARNING, CheckResult(WARNING, "it said so")),
        (CheckResult(WARNING, "nearly full"), CheckResult(WARNING, "nearly full")),
        (1, CheckResult(CRITICAL, "it returned a int; return a bool, None, a Status or a CheckResult")),
    ],
)
def test_what_it_returns_says_how_it_is(answer: object, expected: CheckResult) -> None:
    async def coroutine() -> object:
        return await succeed(answer)

    for function in (lambda: answer, lambda: succeed(answer), coroutine):
        assert result_of(CallableCheck(function).check()) == expected


def test_an_exception_fails() -> None:
    async def coroutine() -> None:
        await fail(ValueError("no\nstock"))

    for function in (lambda: 1 // 0, lambda: fail(ZeroDivisionError("no"))):
        assert result_of(CallableCheck(function).check()).why.startswith("ZeroDivisionError: ")
    assert result_of(CallableCheck(coroutine).check()) == CheckResult(CRITICAL, "ValueError: no stock")


def test_cancelling_cancels_what_it_waits_for() -> None:
    waiting: Deferred[None] = Deferred()
    looking = CallableCheck(lambda: waiting).check()
    assert peek(looking) is PENDING
    looking.cancel()
    failure_of(looking, CancelledError)
    assert waiting.called


def test_its_name_is_the_functions_own_unless_given() -> None:
    assert repr(CallableCheck(print)) == "<CallableCheck print>"
    assert repr(CallableCheck(lambda: None, name="stock")) == "<CallableCheck stock>"


def test_what_cannot_be_called_is_refused() -> None:
    with pytest.raises(TypeError, match="a function is needed that takes no argument, not int"):
        CallableCheck(cast("Any", 1))


# --- TTL ------------------------------------------------------------------------------------------------------------


def test_what_is_said_holds_for_its_time() -> None:
    clock = Clock()
    check = TTLCheck(clock, 30)
    assert repr(check) == "<TTLCheck 30 s>"
    assert result_of(check.check()) == CheckResult(CRITICAL, "nothing was said yet")
    check.tell()
    clock.advance(30)
    assert result_of(check.check()) == CheckResult(PASSING)
    clock.advance(1)
    assert result_of(check.check()) == CheckResult(CRITICAL, "nothing was said for 31 seconds")
    check.tell(WARNING, "slow\nqueries")
    assert result_of(check.check()) == CheckResult(WARNING, "slow queries")


@pytest.mark.parametrize("ttl", [0, -1.0, float("nan")])
def test_a_ttl_is_more_than_nothing(ttl: float) -> None:
    with pytest.raises(InvalidSettings, match="a TTL is a number of seconds greater than 0"):
        TTLCheck(Clock(), ttl)
