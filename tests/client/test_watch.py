"""A watch and its consumer; the feed is the test."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import Deferred, succeed
from twisted.logger import capturedLogs, formatEvent
from twisted.python.failure import Failure

from tests.client.script import events, outcome, revisions
from tests.guards import LoggedErrors
from twisted_etcd.client.position import WatchBatch
from twisted_etcd.client.watch import Watch
from twisted_etcd.errors import Compacted, ServiceStopped, WatchStopped


class Feed:
    """
    :ivar asked: what the watch has asked for, in order.
    """

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.stopped: Deferred[None] = succeed(None)

    def pause(self) -> None:
        self.asked.append("pause")

    def resume(self) -> None:
        self.asked.append("resume")

    def stop(self) -> Deferred[None]:
        self.asked.append("stop")
        return self.stopped


def batch(*numbers: int) -> WatchBatch:
    return WatchBatch(events(*numbers), numbers[-1])


def new_watch(callback: Any = None, max_backlog: int = 3) -> tuple[Watch, Feed]:  # noqa: ANN401
    watch, feed = Watch("b'k'", callback, max_backlog), Feed()
    watch.begin(feed)
    return watch, feed


COMPACTED = Compacted(11, "mvcc: required revision has been compacted", 9)

# --- order ----------------------------------------------------------------------------------------------------------


def test_what_waits_and_what_comes_is_handed_on_in_order() -> None:
    watch, _ = new_watch(max_backlog=100)
    watch.deliver(batch(1))
    watch.deliver(batch(2, 3))
    assert revisions(watch) == [1, 2, 3]
    ahead = [watch.next(), watch.next()]
    watch.deliver(batch(4))
    watch.deliver(batch(5))
    watch.deliver(batch(6))
    assert [outcome(each).revision for each in (*ahead, watch.next())] == [4, 5, 6]


def test_one_who_asks_again_as_soon_as_there_is_something_gets_all_in_order() -> None:
    watch, _ = new_watch()
    seen: list[int] = []

    def ask(_: object = None) -> None:
        watch.next().addCallback(lambda got: seen.append(got.revision)).addCallback(ask)

    ask()
    for number in range(1, 6):
        watch.deliver(batch(number))
    assert seen == [1, 2, 3, 4, 5]


def test_a_next_that_was_given_up_takes_nothing_with_it() -> None:
    watch, _ = new_watch()
    given_up, waits = watch.next(), watch.next()
    given_up.addErrback(lambda _: None)
    given_up.cancel()
    watch.deliver(batch(1))
    assert outcome(waits).revision == 1


def test_the_states_show() -> None:
    watch, _ = new_watch()
    assert repr(watch) == "<Watch of b'k', not confirmed yet>"
    watch.confirmed(10)
    watch.confirmed(99)
    assert outcome(watch.ready) == 10
    assert repr(watch) == "<Watch of b'k', ready>"
    watch.stop()
    assert repr(watch) == "<Watch of b'k', ended>"


# --- the bound ------------------------------------------------------------------------------------------------------


def test_beyond_its_bound_the_feed_is_paused_until_all_is_consumed() -> None:
    watch, feed = new_watch(max_backlog=3)
    watch.deliver(batch(1, 2))
    watch.deliver(batch(3))
    assert feed.asked == []
    watch.deliver(batch(4))
    assert feed.asked == ["pause"]
    # What was on its way still counts, and asks for nothing again.
    watch.deliver(batch(5))
    assert feed.asked == ["pause"]
    for number in (2, 3, 4):
        assert outcome(watch.next()).revision == number
    assert feed.asked == ["pause"]
    assert outcome(watch.next()).revision == 5
    assert feed.asked == ["pause", "resume"]
    watch.deliver(batch(6, 7, 8, 9))
    assert feed.asked == ["pause", "resume", "pause"]


def test_batches_without_events_count_as_one() -> None:
    watch, feed = new_watch(max_backlog=3)
    for revision in range(4):
        watch.deliver(WatchBatch((), revision))
    assert feed.asked == ["pause"]


def test_a_slow_callback_pauses_the_feed_and_a_quick_one_never() -> None:
    gates: list[Deferred[None]] = []
    seen: list[int] = []

    def slow(got: WatchBatch) -> Deferred[None]:
        seen.append(got.revision)
        gates.append(Deferred())
        return gates[-1]

    watch, feed = new_watch(slow, max_backlog=2)
    for number in range(1, 5):
        watch.deliver(batch(number))
    assert (seen, feed.asked) == ([1], ["pause"])
    for gate in gates:
        gate.callback(None)
    assert (seen, feed.asked) == ([1, 2, 3, 4], ["pause", "resume"])

    quick, feed = new_watch(lambda got: seen.append(got.revision), max_backlog=2)
    for number in range(5, 50):
        quick.deliver(batch(number))
    assert (seen[4:], feed.asked) == (list(range(5, 50)), [])


# --- callbacks ------------------------------------------------------------------------------------------------------


def test_what_comes_while_a_callback_runs_waits_for_its_turn() -> None:
    seen: list[str] = []

    def callback(got: WatchBatch) -> None:
        seen.append(f"in {got.revision}")
        if got.revision < 3:
            watch.deliver(batch(got.revision + 1))
        seen.append(f"out {got.revision}")

    watch, _ = new_watch(callback)
    watch.deliver(batch(1))
    assert seen == ["in 1", "out 1", "in 2", "out 2", "in 3", "out 3"]


def test_a_callback_that_fails_later_ends_the_watch_and_gets_nothing_more(logged_errors: LoggedErrors) -> None:
    seen: list[int] = []
    gate: Deferred[None] = Deferred()

    def callback(got: WatchBatch) -> Deferred[None]:
        seen.append(got.revision)
        return gate

    watch, feed = new_watch(callback)
    ended = watch.ended
    watch.deliver(batch(1))
    watch.deliver(batch(2))
    error = ValueError("mine")
    gate.errback(error)
    assert outcome(ended) is error
    assert outcome(watch.ready) is error
    assert (seen, feed.asked) == ([1], ["stop"])
    watch.deliver(batch(3))
    assert seen == [1]
    assert [failure.value for failure in logged_errors.flush(ValueError)] == [error]


def test_what_ends_a_watch_with_a_callback_is_logged_and_its_stop_is_not() -> None:
    for reason, lines in (
        (COMPACTED, ["<Watch of b'k', ended> has ended: mvcc: required revision has been compacted"]),
        (ServiceStopped("the client was stopped"), []),
    ):
        watch, _ = new_watch(lambda _: None)
        with capturedLogs() as logs:
            watch.finished(Failure(reason))
        said = [(event["log_level"].name, formatEvent(event).partition(" (etcd")[0]) for event in logs]
        assert said == [("warn", line) for line in lines]
    watch, _ = new_watch(lambda _: None)
    with capturedLogs() as logs:
        watch.stop()
    assert logs == []


# --- ends -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("take", [lambda watch: watch.next(), lambda watch: watch.__anext__()], ids=["next", "for"])
def test_what_has_arrived_is_handed_on_before_the_reason_of_the_end(take: Callable[[Watch], Any]) -> None:
    watch, _ = new_watch()
    watch.deliver(batch(1))
    watch.finished(Failure(COMPACTED))
    ended = watch.ended
    assert outcome(ended) == "nothing yet"
    ended = watch.ended
    assert outcome(_deferred(take(watch))).revision == 1
    assert outcome(ended) is COMPACTED
    assert outcome(_deferred(take(watch))) is COMPACTED


def _deferred(taking: Any) -> Deferred[WatchBatch]:  # noqa: ANN401
    return taking if isinstance(taking, Deferred) else Deferred.fromCoroutine(taking)


def test_the_end_comes_after_the_last_batch_was_dealt_with() -> None:
    gates: list[Deferred[None]] = []

    def callback(_: WatchBatch) -> Deferred[None]:
        gates.append(Deferred())
        return gates[-1]

    watch, _ = new_watch(callback)
    ended: list[object] = []
    watch.ended.addBoth(ended.append)
    watch.deliver(batch(1))
    watch.deliver(batch(2))
    watch.finished(Failure(COMPACTED))
    assert ended == []
    gates[0].callback(None)
    assert ended == []
    gates[1].callback(None)
    [failure] = ended
    assert isinstance(failure, Failure)
    assert failure.value is COMPACTED


def test_the_end_waits_for_a_callback_that_has_the_last_batch_already() -> None:
    gate: Deferred[None] = Deferred()
    watch, _ = new_watch(lambda _: gate)
    ended: list[object] = []
    watch.ended.addErrback(lambda failure: ended.append(failure.value))
    watch.deliver(batch(1))
    watch.finished(Failure(COMPACTED))
    assert ended == []
    gate.callback(None)
    assert ended == [COMPACTED]


def test_the_first_reason_stays() -> None:
    watch, _ = new_watch()
    watch.deliver(batch(1))
    watch.finished(Failure(COMPACTED))
    watch.finished(Failure(ServiceStopped("later")))
    ended = watch.ended
    # Stopped with something still waiting: nothing more is handed on, and what had ended it is told.
    watch.stop()
    assert outcome(ended) is COMPACTED
    assert outcome(watch.next()) is COMPACTED


def test_stop_does_not_wait_for_a_callback_that_never_ends() -> None:
    watch, feed = new_watch(lambda _: Deferred())
    watch.deliver(batch(1))
    watch.deliver(batch(2))
    ended, stopping = watch.ended, watch.stop()
    assert outcome(ended) is None
    assert outcome(stopping) is None
    assert feed.asked == ["stop"]


def test_stop_fires_when_the_feed_has_stopped() -> None:
    watch, feed = new_watch()
    feed.stopped = Deferred()
    stopping = watch.stop()
    results: list[object] = []
    stopping.addBoth(results.append)
    assert results == []
    feed.stopped.callback(None)
    assert results == [None]


def test_one_listener_can_stop_everything_while_others_are_told() -> None:
    watch, _ = new_watch()
    first, second, third = watch.next(), watch.next(), watch.next()
    first.addErrback(lambda _: third.cancel())
    watch.stop()
    assert isinstance(outcome(second), WatchStopped)
    assert outcome(first) is None
    assert outcome(third) is not None
