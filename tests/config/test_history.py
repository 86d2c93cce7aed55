"""The history of a key, with a test in the place of etcd."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from tests.messaging.common import failure_of, result_of
from tests.scripted import ScriptedClient, batch, delete_event, found
from twisted_etcd.config.changes import ChangeType
from twisted_etcd.config.history import ConfigHistory, Older, Past
from twisted_etcd.errors import Compacted, DeadlineExceeded, FutureRevision, InvalidSettings, Unavailable
from twisted_etcd.schema.kv import Event, KeyValue, RangeResponse, ResponseOp, TxnResponse

COMPACTED = Compacted(11, "mvcc: required revision has been compacted")


def value(revision: int, version: int, created: int, text: str = "v") -> KeyValue:
    return KeyValue(key=b"/k", value=text.encode(), mod_revision=revision, version=version, create_revision=created)


class Reading:
    """A history that is being read."""

    def __init__(self, deleted_at: int = 0, **options: Any) -> None:  # noqa: ANN401 - as Past has them
        self.etcd = ScriptedClient()
        self.clock = Clock()
        past = Past(self.etcd.client, self.clock, "/k", **options)
        self.history: Deferred[ConfigHistory] = Deferred.fromCoroutine(past.read("k", deleted_at))

    def got(self, now: int, *kvs: KeyValue, revision: int = 0) -> None:
        asked = self.etcd.take("get")
        assert asked.options.get("revision", 0) == revision
        asked.answer.callback(found(now, *kvs))

    def stops(self) -> None:
        """The watch is told to stop, and has."""
        self.etcd.take("stop of a watch").answer.callback(None)

    def seen(self) -> list[tuple[int, ChangeType]]:
        return [(entry.revision, entry.change_type) for entry in result_of(self.history).entries]


def test_compacted_while_it_is_read_it_ends_there() -> None:
    reading = Reading()
    reading.got(20, value(15, 3, 10))
    reading.etcd.take("get").fails(COMPACTED)
    history = result_of(reading.history)
    assert ([entry.revision for entry in history.entries], history.older) == ([15], Older.COMPACTED)


def test_what_was_before_comes_from_the_earliest_revision_that_there_is() -> None:
    reading = Reading()
    reading.got(20, value(15, 1, 15))
    watch, options, _ = reading.etcd.watches[0]
    assert options == {"start_revision": 1}
    watch.finished(Failure(Compacted(11, "compacted", 7)))
    reading.stops()
    watch, options, _ = reading.etcd.watches[1]
    assert options == {"start_revision": 7}
    watch.deliver(batch(Event(kv=value(8, 4, 2)), delete_event("/k", 9)))
    watch.deliver(batch(Event(kv=value(15, 1, 15)), Event(kv=value(16, 2, 15))))
    reading.stops()
    assert reading.seen() == [(15, ChangeType.CREATED), (9, ChangeType.DELETED), (8, ChangeType.MODIFIED)]


def test_compacted_up_to_the_creation_nothing_is_known_of_before() -> None:
    reading = Reading()
    reading.got(20, value(15, 1, 15))
    reading.etcd.watches[0][0].finished(Failure(Compacted(11, "compacted", 15)))
    reading.stops()
    history = result_of(reading.history)
    assert ([entry.revision for entry in history.entries], history.older) == ([15], Older.COMPACTED)


def test_a_watch_that_says_nothing_is_given_up() -> None:
    reading = Reading(timeout=3.0)
    reading.got(20, value(15, 1, 15))
    reading.clock.advance(3)
    reading.stops()
    assert "was not told within 3.0 s" in str(failure_of(reading.history, DeadlineExceeded))
    assert reading.clock.getDelayedCalls() == []


def test_a_deletion_that_was_seen_is_where_the_reading_begins() -> None:
    reading = Reading(deleted_at=12, limit=1)
    reading.got(20)
    reading.got(20, value(10, 2, 9), revision=11)
    reading.got(20, revision=12)
    history = result_of(reading.history)
    assert ([entry.revision for entry in history.entries], history.older) == ([12], Older.MORE)


def test_a_deletion_that_was_seen_before_the_cluster_was_set_back_is_looked_for_anew() -> None:
    reading = Reading(deleted_at=90)
    reading.got(3)
    reading.etcd.take("get").fails(FutureRevision(11, "mvcc: required revision is a future revision"))
    asked = reading.etcd.take("txn")
    assert [each.request_range.revision for each in asked.options["success"]] == [2, 1]
    nothing = ResponseOp(response_range=RangeResponse())
    asked.answer.callback(TxnResponse(responses=(nothing, nothing)))
    assert result_of(reading.history) == ConfigHistory(key="k", entries=(), older=Older.NOTHING)


def test_what_fails_fails_the_reading() -> None:
    reading = Reading()
    reading.etcd.take("get").fails(Unavailable("etcd is away"))
    failure_of(reading.history, Unavailable)


def test_given_up_it_leaves_nothing() -> None:
    reading = Reading()
    reading.got(20, value(15, 1, 15))
    reading.history.cancel()
    reading.history.addErrback(lambda _: None)
    reading.stops()
    assert reading.clock.getDelayedCalls() == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"limit": -1}, "limit must be at least 0, not -1"),
        ({"search": -1}, "search must be at least 0, not -1"),
        ({"timeout": 0}, "timeout must be more than 0 seconds, and finite, not 0"),
    ],
)
def test_what_cannot_be_is_named(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidSettings) as refused:
        Past(ScriptedClient().client, Clock(), "/k", **options)
    assert str(refused.value) == said
