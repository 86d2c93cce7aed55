"""Reading a range for a watch, with the test in the place of etcd."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from twisted_etcd.client.rangereader import RangeReader, Reading
from twisted_etcd.client.scan import PAGE
from twisted_etcd.errors import (
    Compacted,
    DeadlineExceeded,
    NoLeader,
    NotEtcd,
    PermissionDenied,
    ServiceStopped,
    TLSFailed,
    Unavailable,
)
from twisted_etcd.schema.common import ResponseHeader
from twisted_etcd.schema.kv import KeyValue, RangeRequest, RangeResponse

COMPACTED = Compacted(11, "mvcc: required revision has been compacted")
DENIED = PermissionDenied(7, "etcdserver: permission denied")


class Desk:
    """
    :ivar asked: the requests, oldest first.
    """

    def __init__(self) -> None:
        self.clock = Clock()
        self.asked: list[RangeRequest] = []
        self._answer: Deferred[RangeResponse] = Deferred()
        self.reader = RangeReader(self._read, self.clock, lambda: 1.0)
        self.results: list[Any] = []

    def _read(self, request: RangeRequest) -> Deferred[RangeResponse]:
        self.asked.append(request)
        self._answer = Deferred()
        return self._answer

    def run(self, reading: Coroutine[Deferred[Any], Any, Any]) -> Deferred[Any]:
        running = Deferred.fromCoroutine(reading)
        running.addBoth(self.results.append)
        return running

    def found(self, *keys: bytes, revision: int = 20, more: bool = False) -> None:
        header = ResponseHeader(cluster_id=5, revision=revision)
        kvs = tuple(KeyValue(key=key, mod_revision=1) for key in keys)
        self._answer.callback(RangeResponse(header=header, kvs=kvs, more=more))

    def fails(self, error: Exception) -> None:
        self._answer.errback(error)

    @property
    def result(self) -> Any:  # noqa: ANN401
        [result] = self.results
        return result.value if isinstance(result, Failure) else result


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_all_pages_are_of_the_revision_of_the_first(desk: Desk) -> None:
    desk.run(desk.reader.whole(b"a", b"b", 0, keys_only=True))
    desk.found(b"a1", b"a2", more=True)
    # The store has gone on.
    desk.found(b"a3", revision=25)
    assert desk.result == Reading([KeyValue(key=key, mod_revision=1) for key in (b"a1", b"a2", b"a3")], 20, 5)
    assert [(each.key, each.range_end, each.revision) for each in desk.asked] == [
        (b"a", b"b", 0),
        (b"a2\x00", b"b", 20),
    ]
    assert all(each.keys_only and each.limit == PAGE and not each.serializable for each in desk.asked)


def test_a_range_without_keys_has_a_revision_too(desk: Desk) -> None:
    desk.run(desk.reader.whole(b"a", b"b", 0, keys_only=False))
    desk.found()
    assert desk.result == Reading([], 20, 5)


def test_where_the_revision_goes_between_two_pages_all_is_read_again(desk: Desk) -> None:
    desk.run(desk.reader.whole(b"a", b"b", 0, keys_only=True))
    desk.found(b"a1", more=True)
    desk.fails(COMPACTED)
    desk.clock.advance(0.05)
    desk.found(b"a2", revision=30)
    assert desk.result == Reading([KeyValue(key=b"a2", mod_revision=1)], 30, 5)
    assert [each.revision for each in desk.asked] == [0, 20, 0]


def test_a_revision_that_was_asked_for_and_is_gone_is_told(desk: Desk) -> None:
    desk.run(desk.reader.whole(b"a", b"b", 7, keys_only=True))
    desk.fails(COMPACTED)
    assert desk.result is COMPACTED


@pytest.mark.parametrize(
    "error",
    [
        Unavailable("away"),
        DeadlineExceeded("slow"),
        NoLeader(14, "etcdserver: no leader"),
        NotEtcd("?"),
        TLSFailed("?"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_outage_is_waited_for_with_growing_waits_and_told_once(
    desk: Desk, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    desk.run(desk.reader.whole(b"a", b"b", 0, keys_only=True))
    waits = []
    for _ in range(7):
        desk.fails(error)
        [timer] = desk.clock.getDelayedCalls()
        waits.append(timer.getTime() - desk.clock.seconds())
        desk.clock.advance(waits[-1])
    assert waits == pytest.approx([0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0])
    assert len([record for record in caplog.records if "is tried again" in record.getMessage()]) == 1
    desk.found(b"a1")
    assert desk.result.revision == 20


@pytest.mark.parametrize("error", [NotEtcd("no etcd"), TLSFailed("no certificate")])
def test_where_there_never_was_an_etcd_its_absence_is_told(desk: Desk, error: Exception) -> None:
    desk.run(desk.reader.whole(b"a", b"b", 0, keys_only=True, worked=False))
    desk.fails(Unavailable("away"))
    desk.clock.advance(0.05)
    desk.fails(error)
    assert desk.result is error


@pytest.mark.parametrize("error", [DENIED, ServiceStopped("the client was stopped")])
def test_what_another_try_does_not_mend_is_told_at_once(desk: Desk, error: Exception) -> None:
    desk.run(desk.reader.whole(b"a", b"b", 0, keys_only=True))
    desk.fails(error)
    assert desk.result is error
    desk.results.clear()
    desk.run(desk.reader.present(b"a"))
    desk.fails(error)
    assert desk.result is error
    assert desk.clock.getDelayedCalls() == []


def test_the_present_revision_is_that_of_a_linearizable_answer(desk: Desk) -> None:
    desk.run(desk.reader.present(b"a"))
    desk.fails(Unavailable("away"))
    desk.clock.advance(0.05)
    desk.found(revision=31)
    assert (desk.result.cluster_id, desk.result.revision) == (5, 31)
    assert [(each.key, each.range_end, each.serializable) for each in desk.asked] == [(b"a", b"", False)] * 2


def test_a_reading_that_is_given_up_leaves_no_request_and_no_timer(desk: Desk) -> None:
    running = desk.run(desk.reader.whole(b"a", b"b", 0, keys_only=True))
    running.cancel()
    assert isinstance(desk.result, CancelledError)
    desk.results.clear()
    running = desk.run(desk.reader.whole(b"a", b"b", 0, keys_only=True))
    desk.fails(Unavailable("away"))
    running.cancel()
    assert isinstance(desk.result, CancelledError)
    assert desk.clock.getDelayedCalls() == []
