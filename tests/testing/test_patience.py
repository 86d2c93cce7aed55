from __future__ import annotations

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from twisted_etcd.errors import ServiceStopped
from twisted_etcd.testing.patience import Patience


class World:
    """Somebody who asks, and the answers."""

    def __init__(self, timeout: float = 10.0) -> None:
        self.clock = Clock()
        self.asked: list[float] = []
        self.answer: str | None = None
        self.patience = Patience(self.clock, timeout, lambda: 1.0)
        self.patience.begin()

    async def _ask(self) -> str | None:
        self.asked.append(self.clock.seconds())
        return self.answer

    def waits(self) -> Deferred[str]:
        return self.patience.run(lambda: self.patience.until(self._ask, lambda: f"{len(self.asked)} questions"))


def failure_of(deferred: Deferred[str]) -> Exception:
    heard: list[Failure] = []
    deferred.addErrback(heard.append)
    assert heard, "it has not failed"
    error = heard[0].value
    assert isinstance(error, Exception)
    return error


def test_it_asks_with_growing_waits_until_there_is_an_answer() -> None:
    world = World()
    waiting = world.waits()
    world.clock.pump([0.05] * 40)
    assert world.asked[:5] == pytest.approx([0.0, 0.05, 0.15, 0.35, 0.75], abs=0.051)
    assert world.asked[-1] - world.asked[-2] == pytest.approx(0.5, abs=0.051)
    assert not waiting.called
    world.answer = "yes"
    world.clock.advance(0.5)
    assert waiting.result == "yes"
    assert world.clock.getDelayedCalls() == []


def test_an_answer_that_is_there_costs_no_time() -> None:
    world = World()
    world.answer = "at once"
    assert world.waits().result == "at once"


def test_without_an_answer_in_time_the_error_says_what_was_waited_for() -> None:
    world = World(timeout=2.0)
    waiting = world.waits()
    world.clock.pump([0.1] * 40)
    error = failure_of(waiting)
    assert isinstance(error, TimeoutError)
    assert str(error) == f"not within 2 seconds: {len(world.asked)} questions"
    assert 2.0 <= world.asked[-1] <= 2.6, "it is asked once more when the time is over"


def test_the_end_ends_what_is_under_way() -> None:
    world = World()
    waiting = world.waits()
    world.patience.end()
    assert str(failure_of(waiting)) == "the cluster was stopped"
    assert world.clock.getDelayedCalls() == []
    assert world.patience.over


def test_a_failure_that_comes_of_the_end_is_told_as_the_end() -> None:
    world = World()
    gone: Deferred[str] = Deferred(lambda deferred: deferred.errback(OSError("connection lost")))

    async def work() -> str:
        return await gone

    waiting = world.patience.run(work)
    world.patience.end()
    assert isinstance(failure_of(waiting), ServiceStopped)


def test_before_the_beginning_and_after_the_end_nothing_is_begun() -> None:
    world = World()
    world.patience.end()
    with pytest.raises(RuntimeError, match=r"^the cluster is not running: start it, and wait for when_ready\(\)$"):
        world.waits()
    assert world.asked == []
