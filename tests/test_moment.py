from __future__ import annotations

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from twisted_etcd.moment import Moment


def result_of(deferred: Deferred[int]) -> object:
    """What it fired with, or the exception that it failed with; None where it did not fire."""
    results: list[object] = []
    deferred.addBoth(results.append)
    if not results:
        return None
    return results[0].value if isinstance(results[0], Failure) else results[0]


def test_every_listener_is_told_before_and_after() -> None:
    moment: Moment[int] = Moment()
    before = [moment.wait(), moment.wait()]
    assert [result_of(each) for each in before] == [None, None]
    assert not moment.happened
    moment.fire(7)
    assert moment.happened
    assert result_of(moment.wait()) == 7


def test_it_is_awaited_while_somebody_waits() -> None:
    moment: Moment[int] = Moment()
    assert not moment.is_awaited
    first, second = moment.wait(), moment.wait()
    first.addErrback(lambda _: None)
    first.cancel()
    assert moment.is_awaited
    moment.fire(7)
    assert not moment.is_awaited
    assert result_of(second) == 7


def test_what_a_listener_makes_of_it_is_its_own() -> None:
    moment: Moment[int] = Moment()
    first = moment.wait().addCallback(lambda value: value + 1)
    second = moment.wait()
    moment.fire(7)
    assert (result_of(first), result_of(second), result_of(moment.wait())) == (8, 7, 7)


def test_the_second_time_is_ignored() -> None:
    moment: Moment[int] = Moment()
    moment.fire(1)
    moment.fire(2)
    moment.fail(Failure(ValueError()))
    assert result_of(moment.wait()) == 1


def test_a_failure_reaches_everyone_as_one_of_their_own() -> None:
    moment: Moment[int] = Moment()
    before = moment.wait()
    error = ValueError("why")
    moment.fail(Failure(error))
    moment.fire(1)
    assert result_of(before) is error
    assert result_of(moment.wait()) is error


def test_a_failure_that_nobody_listens_for_is_no_unhandled_error() -> None:
    # The guard of all tests would see one in the log.
    Moment[int]().fail(Failure(ValueError("nobody asked")))


@pytest.mark.parametrize("fails", [False, True])
def test_a_listener_can_go_away_and_take_others_with_it(fails: bool) -> None:  # noqa: FBT001
    moment: Moment[int] = Moment()
    gone, first, second = moment.wait(), moment.wait(), moment.wait()
    gone.cancel()
    assert isinstance(result_of(gone), CancelledError)
    first.addBoth(lambda _: second.cancel())
    if fails:
        moment.fail(Failure(ValueError()))
    else:
        moment.fire(1)
    assert isinstance(result_of(second), CancelledError)
