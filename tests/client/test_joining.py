"""Answers that came together."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.client.script import Scene, events, header, outcome
from twisted_etcd.client.joining import WatchFrame, joined
from twisted_etcd.client.position import Delivered, WatchBatch, WatchPosition
from twisted_etcd.schema import rpcs
from twisted_etcd.schema.common import ResponseHeader
from twisted_etcd.schema.kv import Event
from twisted_etcd.schema.watch import WatchResponse


def text(response: WatchResponse) -> bytes:
    return msgspec.json.encode({"result": msgspec.to_builtins(response)})


def told(*revisions: int, watch_id: int = 1, fragment: bool = False) -> WatchResponse:
    return WatchResponse(header=header(revisions[-1]), watch_id=watch_id, events=events(*revisions), fragment=fragment)


def results(*responses: WatchResponse) -> list[WatchResponse | None]:
    return [frame.result for frame in joined([text(response) for response in responses])]


def test_events_that_follow_each_other_are_one_answer() -> None:
    assert results(told(11), told(12, 12), told(15)) == [told(11, 12, 12, 15)]


OTHER_CLUSTER = WatchResponse(
    header=ResponseHeader(cluster_id=9, member_id=1, revision=12), watch_id=1, events=events(12)
)
APART = {
    "of another watch": told(12, watch_id=2),
    "of the same revision": told(11),
    "of an earlier revision": told(9, 12),
    "of another cluster": OTHER_CLUSTER,
    "of a revision that is not whole": told(12, fragment=True),
    "a confirmation": WatchResponse(header=header(12), watch_id=1, created=True),
    "an end": WatchResponse(header=header(12), watch_id=1, canceled=True),
    "a compaction": WatchResponse(watch_id=1, canceled=True, compact_revision=12),
    "progress": WatchResponse(header=header(12), watch_id=1),
}


@pytest.mark.parametrize("other", APART.values(), ids=APART)
def test_all_else_is_left_as_it_came(other: WatchResponse) -> None:
    assert results(told(11), other, told(13)) in (
        [told(11), other, told(13)],
        # What follows the other one may be one with that.
        [told(11), told(*(event.kv.mod_revision for event in other.events), 13)] if other.events else [],
    )


def test_an_error_stays_where_it_was() -> None:
    error = b'{"error":{"grpc_code":14,"message":"etcdserver: no leader"}}'
    frames = list(joined([text(told(11)), text(told(12)), error, text(told(13))]))
    assert [frame.result for frame in frames] == [told(11, 12), None, told(13)]
    assert frames[1].failure() is not None


@pytest.mark.parametrize("bad", [b"<html>", b'{"result":5}', b'{"result":{"cancel_reason":"\xff"}}', b"[" * 100_000])
def test_what_came_before_a_text_that_is_none_of_etcds_is_told_first(bad: bytes) -> None:
    found: list[WatchFrame] = []

    def read() -> None:
        found.extend(joined([]))
        for frame in joined([text(told(11)), text(told(12)), bad, text(told(13))]):
            found.append(frame)  # noqa: PERF402 it ends with an error

    with pytest.raises(msgspec.DecodeError):
        read()
    assert [frame.result for frame in found] == [told(11, 12)]


# --- what it does to a watch ----------------------------------------------------------------------------------------

numbers = st.integers(1, 6)
some_response = st.one_of(
    st.builds(
        lambda first, more, watch_id, fragment: told(
            *range(10 + first, 10 + first + more), watch_id=watch_id, fragment=fragment
        ),
        numbers,
        numbers,
        st.integers(1, 2),
        st.sampled_from([False, False, False, True]),
    ),
    st.builds(
        lambda number, created: WatchResponse(header=header(10 + number), created=created), numbers, st.booleans()
    ),
    st.just(OTHER_CLUSTER),
)


def delivered(position: WatchPosition, responses: list[WatchResponse | None]) -> tuple[list[Event], list[object]]:
    """All events, and all else in its order."""
    found: list[Event] = []
    others: list[object] = []
    for response in responses:
        step = position.received(response) if response is not None else None
        if isinstance(step, Delivered) and step.batch.events:
            found += step.batch.events
        elif step is not None:
            others.append((len(found), step))
    return found, [str(other) for other in others]


@given(st.lists(some_response, max_size=12))
def test_a_watch_is_told_the_same_as_if_all_had_come_one_by_one(responses: list[WatchResponse]) -> None:
    created = WatchResponse(header=header(10), created=True)
    alone, together = WatchPosition(0), WatchPosition(0)
    decoded: list[WatchResponse | None] = [rpcs.WATCH.decode_frame(text(response)).result for response in responses]
    assert delivered(alone, [created, *decoded]) == delivered(together, [created, *results(*responses)])
    assert (alone.next_revision, alone.told) == (together.next_revision, together.told)


@pytest.mark.parametrize("own_streams", [0, 9])
def test_what_one_read_brought_is_one_batch_and_a_stop_inside_it_is_the_last_of_it(own_streams: int) -> None:
    scene = Scene(own_streams=own_streams)
    seen: list[WatchBatch] = []

    def stop_at_the_first(batch: WatchBatch) -> None:
        seen.append(batch)
        watch.stop()

    watch = scene.watch(callback=stop_at_the_first)
    stream = scene.open_next()
    watch_id = 1 - min(own_streams, 1)
    stream.confirm(watch_id)
    fragment = told(13, watch_id=watch_id, fragment=True)
    stream.arrive_bytes(
        *(text(told(revision, watch_id=watch_id)) for revision in (11, 12)),
        text(fragment),
        text(told(13, 14, watch_id=watch_id)),
    )
    assert [[event.kv.mod_revision for event in batch.events] for batch in seen] == [[11, 12]]
    assert outcome(watch.ended) is None


def test_a_stream_that_is_given_up_in_the_midst_of_a_read_hears_nothing_more() -> None:
    scene = Scene(own_streams=0)
    watches = [scene.watch(b"%d" % number) for number in (1, 2)]
    stream = scene.open_next()
    for watch_id in (1, 2):
        stream.confirm(watch_id)
    error = b'{"error":{"grpc_code":14,"message":"etcdserver: no leader"}}'
    stream.arrive_bytes(text(told(11, watch_id=1)), error, text(told(12, watch_id=2)), b"<html>")
    assert outcome(watches[0].next()).revision == 11
    assert stream.closed_from_here
    again = scene.open_next()
    # Each asks for the revision before the one that it needs next.
    assert [request.start_revision for request in again.created] == [11, 10]
