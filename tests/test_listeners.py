"""Callbacks that are told the same thing."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from twisted.internet.defer import Deferred

from tests.guards import LoggedErrors
from twisted_etcd.listeners import Listeners


def test_each_is_told_until_it_is_taken_away() -> None:
    listeners: Listeners[int] = Listeners("a number")
    told: list[tuple[str, int]] = []
    away = listeners.add(lambda number: told.append(("first", number)))
    listeners.add(lambda number: told.append(("second", number)))
    listeners.tell(1)
    away()
    away()
    listeners.tell(2)
    assert told == [("first", 1), ("second", 1), ("second", 2)]
    assert len(listeners) == 1


def test_one_that_fails_now_or_later_is_logged_and_harms_no_other(logged_errors: LoggedErrors) -> None:
    listeners: Listeners[int] = Listeners("a number")
    told: list[int] = []
    later: Deferred[None] = Deferred()

    def fails(_: int) -> None:
        raise ZeroDivisionError

    async def fails_later(_: int) -> None:
        await later
        raise KeyError

    listeners.add(fails)
    listeners.add(fails_later)
    listeners.add(told.append)
    listeners.tell(1)
    assert told == [1]
    assert len(logged_errors.flush(ZeroDivisionError)) == 1
    later.callback(None)
    assert len(logged_errors.flush(KeyError)) == 1


def test_one_can_take_away_another_and_add_one_that_is_told_from_the_next_time_on() -> None:
    listeners: Listeners[int] = Listeners("a number")
    told: list[int] = []
    away: list[Callable[[], None]] = []

    def first(_: int) -> None:
        away[0]()
        listeners.add(told.append)

    listeners.add(first)
    away.append(listeners.add(lambda _: told.append(99)))
    listeners.tell(1)
    assert told == []


def test_what_cannot_be_called_is_refused() -> None:
    listeners: Listeners[int] = Listeners("a number")
    with pytest.raises(TypeError, match="who is told of a number must be a function, not str"):
        listeners.add("x")  # type: ignore[arg-type]
