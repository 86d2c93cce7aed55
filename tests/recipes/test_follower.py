"""A followed range, with a test in the place of etcd."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from tests.guards import LoggedErrors
from tests.messaging.common import PENDING, failure_of, peek, result_of
from tests.scripted import ScriptedClient, batch, delete_event, found, kv, put_event
from twisted_etcd.client.position import WatchBatch
from twisted_etcd.client.watch import Watch
from twisted_etcd.errors import (
    ClusterChanged,
    Compacted,
    HistoryReplaced,
    PermissionDenied,
    ServiceStopped,
    TwistedEtcdError,
    Unavailable,
    WatchCancelled,
)
from twisted_etcd.recipes.follower import Change, RangeFollower
from twisted_etcd.schema.kv import KeyValue

AWAY = Unavailable("etcd is away")
COMPACTED = Compacted(11, "mvcc: required revision has been compacted", 20)


class Followed:
    """A follower and all that it told."""

    def __init__(self, *, patient: bool = False) -> None:
        self.etcd = ScriptedClient()
        self.clock = Clock()
        self.told: list[tuple[Change, ...]] = []
        self.follower = RangeFollower(
            self.etcd.client, self.clock, "p/", self._changed, patient=patient, random=lambda: 1.0, prefix=True
        )
        self.during_changed: Any = lambda: None
        self.loaded = self.follower.start()
        self.loaded.addErrback(lambda failure: failure)

    def _changed(self, changes: tuple[Change, ...]) -> None:
        self.told.append(changes)
        self.during_changed()

    @property
    def values(self) -> dict[bytes, bytes]:
        return {key: each.value for key, each in self.follower.current.items()}

    def loads(self, revision: int, *kvs: KeyValue) -> None:
        self.etcd.take("get").answer.callback(found(revision, *kvs))

    @property
    def watch(self) -> Watch:
        return self.etcd.watches[-1][0]

    def watch_ends(self, error: TwistedEtcdError) -> None:
        self.watch.finished(Failure(error))


@pytest.fixture
def followed() -> Followed:
    return Followed()


# --- following ------------------------------------------------------------------------------------------------------


def test_it_watches_from_the_revision_that_it_read_and_tells_what_comes_after_it(followed: Followed) -> None:
    assert peek(followed.loaded) is PENDING
    asked = followed.etcd.asked[0]
    assert (asked.args, asked.options) == (("p/",), {"prefix": True})
    followed.loads(7, kv("p/a", "1", 3))
    assert result_of(followed.loaded) is None
    [(_, options, _)] = followed.etcd.watches
    # An etcd that has compacted exactly to the next one can have forgotten what was deleted in it.
    assert options == {"start_revision": 7, "prefix": True}
    followed.watch.deliver(batch(put_event("p/a", "1", 7)))
    assert followed.values == {b"p/a": b"1"}
    assert followed.told == []
    followed.watch.deliver(batch(delete_event("p/a", 8)))
    assert followed.values == {}
    assert len(followed.told) == 1


def test_it_knows_the_revision_that_it_is_of_and_whose_it_is(followed: Followed) -> None:
    assert (followed.follower.revision, followed.follower.cluster_id) == (0, 0)
    followed.loads(7, kv("p/a", "1", 3))
    assert (followed.follower.revision, followed.follower.cluster_id) == (7, 1)
    seen: list[int] = []
    followed.during_changed = lambda: seen.append(followed.follower.revision)
    followed.watch.deliver(batch(put_event("p/a", "2", 8), put_event("p/a", "3", 9)))
    followed.watch.deliver(WatchBatch((), 12))
    assert (seen, followed.follower.revision) == ([9], 12)
    followed.watch_ends(HistoryReplaced(12, 5))
    followed.loads(5, kv("p/a", "0", 3))
    assert followed.follower.revision == 5


def test_what_comes_is_there_before_it_is_told_and_has_its_old_and_new_value(followed: Followed) -> None:
    followed.loads(7, kv("p/a", "1", 3))
    seen: list[dict[bytes, bytes]] = []
    followed.during_changed = lambda: seen.append(followed.values)
    followed.watch.deliver(batch(put_event("p/a", "2", 8), put_event("p/b", "x", 8)))
    followed.watch.deliver(batch(delete_event("p/a", 9)))
    followed.watch.deliver(batch(put_event("p/a", "3", 10)))
    assert seen == [{b"p/a": b"2", b"p/b": b"x"}, {b"p/b": b"x"}, {b"p/b": b"x", b"p/a": b"3"}]
    changes = [[(c.old and c.old.value, c.new and c.new.value, c.revision) for c in told] for told in followed.told]
    assert changes == [[(b"1", b"2", 8), (None, b"x", 8)], [(b"2", None, 9)], [(None, b"3", 10)]]


def test_progress_without_events_tells_nothing(followed: Followed) -> None:
    followed.loads(7)
    followed.watch.deliver(WatchBatch((), 12))
    assert followed.told == []


@pytest.mark.parametrize("error", [COMPACTED, ClusterChanged(1, 2), HistoryReplaced(30, 20)])
def test_where_the_past_is_gone_it_reads_again_and_tells_the_difference(
    followed: Followed, error: TwistedEtcdError
) -> None:
    followed.loads(7, kv("p/a", "1", 3), kv("p/b", "2", 4), kv("p/c", "3", 5))
    followed.watch_ends(error)
    followed.loads(20, kv("p/a", "1", 3), kv("p/c", "new", 18), kv("p/d", "4", 19))
    assert len(followed.etcd.watches) == 2
    assert followed.etcd.watches[1][1]["start_revision"] == 20
    [told] = followed.told
    assert [(c.key, c.old and c.old.value, c.new and c.new.value, c.revision) for c in told] == [
        (b"p/b", b"2", None, 20),
        (b"p/c", b"3", b"new", 18),
        (b"p/d", None, b"4", 19),
    ]
    followed.watch.deliver(batch(put_event("p/d", "5", 21)))
    assert followed.told[1][0].old == kv("p/d", "4", 19)


def test_an_error_of_who_is_told_ends_it_whatever_it_is(followed: Followed, logged_errors: LoggedErrors) -> None:
    followed.loads(7)

    def fails() -> None:
        raise COMPACTED

    followed.during_changed = fails
    followed.watch.deliver(batch(put_event("p/a", "1", 8)))
    followed.etcd.take("stop of a watch").answer.callback(None)
    assert failure_of(followed.follower.ended, Compacted) is COMPACTED
    assert followed.etcd.asked == []
    logged_errors.flush(Compacted)


def test_a_second_reading_that_shows_no_difference_tells_nothing(followed: Followed) -> None:
    followed.loads(7, kv("p/a", "1", 3))
    followed.watch_ends(COMPACTED)
    followed.loads(20, kv("p/a", "1", 3))
    assert followed.told == []


# --- where it fails -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [AWAY, PermissionDenied(7, "permission denied")])
def test_a_first_reading_that_fails_fails_the_start(followed: Followed, error: TwistedEtcdError) -> None:
    followed.etcd.take("get").fails(error)
    assert failure_of(followed.loaded, type(error)) is error
    assert failure_of(followed.follower.ended, type(error)) is error
    assert followed.clock.getDelayedCalls() == []
    assert result_of(followed.follower.stop()) is None


def test_a_patient_one_tries_again_with_growing_waits_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    followed = Followed(patient=True)
    waits = []
    for _ in range(8):
        followed.etcd.take("get").fails(AWAY)
        [waiting] = followed.clock.getDelayedCalls()
        waits.append(round(waiting.getTime() - followed.clock.seconds(), 6))
        followed.clock.advance(waits[-1])
    assert waits == [0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0]
    assert len([record for record in caplog.records if "is tried again" in record.getMessage()]) == 1
    followed.loads(7)
    assert result_of(followed.loaded) is None


def test_a_later_reading_is_tried_again_in_any_case(followed: Followed) -> None:
    followed.loads(7, kv("p/a", "1", 3))
    followed.watch_ends(COMPACTED)
    followed.etcd.take("get").fails(AWAY)
    # What was there is there still.
    assert followed.values == {b"p/a": b"1"}
    followed.clock.advance(0.05)
    followed.loads(20)
    assert followed.told[0][0].new is None


@pytest.mark.parametrize("error", [WatchCancelled("why not"), PermissionDenied(7, "permission denied")])
def test_a_watch_that_ends_otherwise_ends_it_with_that_error(followed: Followed, error: TwistedEtcdError) -> None:
    followed.loads(7)
    ended = followed.follower.ended
    followed.watch_ends(error)
    followed.etcd.take("stop of a watch").answer.callback(None)
    assert failure_of(ended, type(error)) is error
    assert followed.etcd.asked == []


def test_who_is_told_and_fails_ends_it_with_that_error(followed: Followed, logged_errors: LoggedErrors) -> None:
    followed.loads(7)

    def fail() -> None:
        raise ZeroDivisionError

    followed.during_changed = fail
    followed.watch.deliver(batch(put_event("p/a", "1", 8)))
    followed.etcd.take("stop of a watch").answer.callback(None)
    failure_of(followed.follower.ended, ZeroDivisionError)
    assert len(logged_errors.flush(ZeroDivisionError)) == 1
    followed.watch.deliver(batch(put_event("p/a", "2", 9)))
    assert len(followed.told) == 1


# --- stopping, in every phase ---------------------------------------------------------------------------------------


def test_stopped_while_it_reads_the_reading_is_cancelled(followed: Followed) -> None:
    ended = followed.follower.ended
    assert result_of(followed.follower.stop()) is None
    assert followed.etcd.take("get").cancelled
    assert result_of(ended) is None
    assert "stopped before it was read" in str(failure_of(followed.loaded, ServiceStopped))
    assert followed.etcd.watches == []


def test_stopped_while_it_waits_it_waits_no_longer() -> None:
    followed = Followed(patient=True)
    followed.etcd.take("get").fails(AWAY)
    assert result_of(followed.follower.stop()) is None
    assert followed.clock.getDelayedCalls() == []
    failure_of(followed.loaded, ServiceStopped)


def test_stopped_while_it_follows_it_tells_nothing_more_and_waits_for_the_watch(followed: Followed) -> None:
    followed.loads(7)
    stopping = followed.follower.stop()
    followed.watch.deliver(batch(put_event("p/a", "1", 8)))
    again = followed.follower.stop()
    assert (peek(stopping), peek(again)) == (PENDING, PENDING)
    followed.etcd.take("stop of a watch").answer.callback(None)
    assert result_of(stopping) is result_of(again) is result_of(followed.follower.ended) is None
    assert followed.told == []
    assert followed.etcd.asked == []


def test_stopped_while_it_reads_again(followed: Followed) -> None:
    followed.loads(7)
    followed.watch_ends(COMPACTED)
    assert result_of(followed.follower.stop()) is None
    assert followed.etcd.take("get").cancelled
    assert len(followed.etcd.watches) == 1


def test_stopped_by_who_is_told_of_an_event(followed: Followed) -> None:
    followed.loads(7)
    followed.during_changed = followed.follower.stop
    followed.watch.deliver(batch(put_event("p/a", "1", 8)))
    followed.etcd.take("stop of a watch").answer.callback(None)
    assert result_of(followed.follower.ended) is None
    followed.watch.deliver(batch(put_event("p/a", "2", 9)))
    assert len(followed.told) == 1


def test_stopped_by_who_is_told_of_a_difference(followed: Followed) -> None:
    followed.loads(7)
    followed.watch_ends(COMPACTED)
    followed.during_changed = followed.follower.stop
    followed.loads(20, kv("p/a", "1", 19))
    assert result_of(followed.follower.ended) is None
    assert len(followed.etcd.watches) == 1
    assert followed.etcd.asked == []


def test_stopped_by_who_waited_for_the_first_reading(followed: Followed) -> None:
    followed.loaded.addCallback(lambda _: followed.follower.stop())
    followed.loads(7)
    assert result_of(followed.loaded) is None
    assert result_of(followed.follower.ended) is None
    assert followed.etcd.watches == []


def test_stopped_before_it_was_started_it_reads_nothing() -> None:
    etcd = ScriptedClient()
    follower = RangeFollower(etcd.client, Clock(), "k", lambda _: None)
    assert result_of(follower.stop()) is None
    failure_of(follower.start(), ServiceStopped)
    assert result_of(follower.ended) is None
    assert etcd.asked == []


def test_stopped_when_it_has_failed_it_is_over_at_once(followed: Followed) -> None:
    followed.loads(7)
    followed.watch_ends(WatchCancelled("why not"))
    followed.etcd.take("stop of a watch").answer.callback(None)
    assert result_of(followed.follower.stop()) is None
