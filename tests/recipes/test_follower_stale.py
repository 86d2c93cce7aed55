"""Whether what is known of a followed range may be behind what is in etcd."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from tests.guards import LoggedErrors
from tests.messaging.common import PENDING, failure_of, peek, result_of
from tests.scripted import ScriptedClient, batch, found, kv, put_event
from twisted_etcd.client.watch import Watch
from twisted_etcd.errors import (
    ClusterChanged,
    Compacted,
    PermissionDenied,
    ServiceStopped,
    TLSFailed,
    TwistedEtcdError,
    Unavailable,
    WatchCancelled,
)
from twisted_etcd.recipes.follower import Change, RangeFollower
from twisted_etcd.schema.kv import KeyValue

AWAY = Unavailable("etcd is away")
DENIED = PermissionDenied(7, "permission denied")
COMPACTED = Compacted(11, "mvcc: required revision has been compacted", 20)


class Followed:
    """A follower, and what it told of being stale."""

    def __init__(self, *, patient: bool = True, lasting: bool = False) -> None:
        self.etcd = ScriptedClient()
        self.clock = Clock()
        self.clock.advance(100)
        self.changes: list[Change] = []
        self.stale: list[bool] = []
        self.follower = RangeFollower(
            self.etcd.client,
            self.clock,
            "p/",
            self.changes.extend,
            patient=patient,
            lasting=lasting,
            random=lambda: 1.0,
            prefix=True,
        )
        self.follower.on_stale(self.stale.append)
        self.loaded = self.follower.start()
        self.loaded.addErrback(lambda failure: failure)

    def loads(self, revision: int = 7, *kvs: KeyValue) -> None:
        self.etcd.take("get").answer.callback(found(revision, *kvs))

    @property
    def watch(self) -> Watch:
        return self.etcd.watches[-1][0]

    def watch_ends(self, error: TwistedEtcdError) -> None:
        self.watch.finished(Failure(error))


@pytest.fixture
def followed() -> Followed:
    return Followed()


def test_before_it_was_read_there_is_nothing_to_be_stale(followed: Followed) -> None:
    assert (followed.follower.loaded, followed.follower.stale, followed.follower.stale_since) == (False, False, None)
    followed.etcd.take("get").fails(AWAY)
    assert not followed.follower.stale
    followed.clock.advance(1)
    followed.loads()
    assert (followed.follower.loaded, followed.follower.stale) == (True, False)
    assert followed.stale == []


def test_it_is_stale_since_its_watch_was_interrupted_until_that_goes_on(followed: Followed) -> None:
    followed.loads(7, kv("p/a", "1", 3))
    followed.clock.advance(5)
    followed.watch.broke()
    followed.clock.advance(5)
    followed.watch.broke()
    assert (followed.follower.stale, followed.follower.stale_since) == (True, 105)
    assert list(followed.follower.current) == [b"p/a"]
    followed.watch.confirmed(9)
    assert (followed.follower.stale, followed.follower.stale_since) == (False, None)
    assert followed.stale == [True, False]


def test_who_is_told_finds_it_so(followed: Followed) -> None:
    followed.loads()
    seen: list[tuple[bool, bool]] = []
    followed.follower.on_stale(lambda stale: seen.append((stale, followed.follower.stale)))
    followed.watch.broke()
    followed.watch.confirmed(9)
    assert seen == [(True, True), (False, False)]


def test_no_longer_told_is_no_longer_told(followed: Followed) -> None:
    followed.loads()
    told: list[bool] = []
    followed.follower.on_stale(told.append)()
    followed.watch.broke()
    assert told == []


@pytest.mark.parametrize("error", [COMPACTED, ClusterChanged(1, 2)])
def test_it_is_stale_until_it_was_read_again(followed: Followed, error: TwistedEtcdError) -> None:
    followed.loads(7, kv("p/a", "1", 3))
    followed.watch.broke()
    followed.watch_ends(error)
    followed.etcd.take("get").fails(AWAY)
    assert followed.follower.stale
    followed.clock.advance(1)
    followed.loads(20, kv("p/a", "2", 18))
    # What changed is told first, and by then it is fresh.
    assert [change.new and change.new.value for change in followed.changes] == [b"2"]
    assert followed.stale == [True, False]
    followed.watch.broke()
    assert followed.stale == [True, False, True]


def test_a_watch_that_is_over_tells_nothing_of_the_next_one(followed: Followed) -> None:
    followed.loads()
    first = followed.watch
    followed.watch_ends(COMPACTED)
    followed.loads(20)
    assert followed.watch is not first
    first.broke()
    assert not followed.follower.stale


def test_what_ended_by_itself_is_stale_for_ever_and_what_was_stopped_is_as_it_was() -> None:
    followed = Followed()
    followed.loads()
    followed.watch_ends(WatchCancelled("why not"))
    followed.etcd.take("stop of a watch").answer.callback(None)
    assert followed.follower.stale
    stopped = Followed()
    stopped.loads()
    stopped.follower.stop()
    assert not stopped.follower.stale


def test_who_is_told_and_fails_ends_nothing(followed: Followed, logged_errors: LoggedErrors) -> None:
    followed.loads()

    def fail(_: bool) -> None:  # noqa: FBT001
        raise ZeroDivisionError

    followed.follower.on_stale(fail)
    followed.watch.broke()
    followed.watch.confirmed(9)
    assert len(logged_errors.flush(ZeroDivisionError)) == 2
    followed.watch.deliver(batch(put_event("p/a", "1", 10)))
    assert len(followed.changes) == 1


@pytest.mark.parametrize("interrupting", ["its watch", "reading again", "being fresh"])
def test_who_is_told_can_stop_it(followed: Followed, interrupting: str) -> None:
    followed.loads()
    if interrupting == "being fresh":
        followed.watch.broke()
        followed.follower.on_stale(lambda _: followed.follower.stop())
        followed.watch_ends(COMPACTED)
        followed.loads(20)
        assert len(followed.etcd.watches) == 1
    else:
        followed.follower.on_stale(lambda _: followed.follower.stop())
        if interrupting == "its watch":
            followed.watch.broke()
            followed.etcd.take("stop of a watch").answer.callback(None)
        else:
            followed.watch_ends(COMPACTED)
    assert followed.etcd.asked == []
    assert result_of(followed.follower.ended) is None
    assert followed.clock.getDelayedCalls() == []


# --- what lasts -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [DENIED, WatchCancelled("why not"), TLSFailed("an old certificate")])
def test_one_that_lasts_is_read_and_followed_again_whatever_etcd_says(error: TwistedEtcdError) -> None:
    followed = Followed(lasting=True)
    followed.loads(7, kv("p/a", "1", 3))
    for wait in (0.05, 0.1, 0.2):
        followed.watch_ends(error)
        followed.etcd.take("stop of a watch").answer.callback(None)
        assert followed.follower.stale
        [waiting] = followed.clock.getDelayedCalls()
        assert round(waiting.getTime() - followed.clock.seconds(), 6) == wait
        followed.clock.advance(wait)
        followed.loads(20, kv("p/a", "1", 3))
        assert not followed.follower.stale
    followed.watch.deliver(batch(put_event("p/a", "2", 21)))
    assert [change.old and change.old.value for change in followed.changes] == [b"1"]
    followed.watch_ends(error)
    followed.etcd.take("stop of a watch").answer.callback(None)
    followed.clock.advance(0.05)
    followed.loads(30)
    assert peek(followed.follower.ended) is PENDING


def test_it_does_not_outlast_its_client_or_its_own_stop() -> None:
    followed = Followed(lasting=True)
    followed.loads()
    followed.watch_ends(ServiceStopped("the client was stopped"))
    followed.etcd.take("stop of a watch").answer.callback(None)
    failure_of(followed.follower.ended, ServiceStopped)
    waiting = Followed(lasting=True)
    waiting.loads()
    waiting.watch_ends(DENIED)
    waiting.etcd.take("stop of a watch").answer.callback(None)
    assert result_of(waiting.follower.stop()) is None
    assert waiting.clock.getDelayedCalls() == []


def test_who_is_told_changes_and_fails_with_an_error_of_etcds_ends_it_all_the_same(logged_errors: LoggedErrors) -> None:
    etcd = ScriptedClient()

    def fail(_: object) -> None:
        raise DENIED

    follower = RangeFollower(etcd.client, Clock(), "p/", fail, lasting=True, prefix=True)
    follower.start()
    etcd.take("get").answer.callback(found(7))
    etcd.watches[-1][0].deliver(batch(put_event("p/a", "1", 8)))
    etcd.take("stop of a watch").answer.callback(None)
    failure_of(follower.ended, PermissionDenied)
    logged_errors.flush(PermissionDenied)


# --- the first reading ----------------------------------------------------------------------------------------------


def test_each_attempt_to_read_it_is_told_to_who_waits_for_the_next_one(followed: Followed) -> None:
    first = followed.follower.next_reading()
    whenever = followed.follower.when_loaded()
    followed.etcd.take("get").fails(AWAY)
    assert failure_of(first, Unavailable) is AWAY
    second = followed.follower.next_reading()
    assert peek(second) is PENDING
    followed.clock.advance(1)
    followed.loads()
    assert result_of(second) is result_of(whenever) is result_of(followed.follower.next_reading()) is None


def test_stopped_first_both_say_so(followed: Followed) -> None:
    waiting = [followed.follower.next_reading(), followed.follower.when_loaded()]
    followed.follower.stop()
    for each in waiting:
        failure_of(each, ServiceStopped)


def test_who_waits_for_an_attempt_can_stop_it(followed: Followed) -> None:
    followed.follower.next_reading().addErrback(lambda _: followed.follower.stop())
    followed.etcd.take("get").fails(AWAY)
    assert result_of(followed.follower.ended) is None
    assert followed.clock.getDelayedCalls() == []
