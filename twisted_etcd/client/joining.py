"""
The answers of a watch stream as they came together, made fewer. Pure.

One read of a socket can bring many answers with an event each. What stands between a stream and the consumer of a
watch is gone through once for all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from twisted_etcd.schema import rpcs
from twisted_etcd.schema.answers import StreamFrame
from twisted_etcd.schema.kv import Event
from twisted_etcd.schema.watch import WatchResponse

#: What arrives on a watch stream: an answer, or an error.
WatchFrame = StreamFrame[WatchResponse]


def joined(messages: Iterable[bytes]) -> Iterator[WatchFrame]:
    """
    What these JSON texts say, with one answer in place of several that follow each other and bring the same watch
    events of later and later revisions. All else is left as it came.

    :raises msgspec.DecodeError: at the first text that is none of etcd's, after what came before it.
    """
    last: WatchFrame | None = None
    events: list[Event] = []
    for message in messages:
        try:
            frame = rpcs.WATCH.decode_frame(message)
        except msgspec.DecodeError:
            if last is not None:
                yield _whole(last, events)
            raise
        if last is not None:
            if _follows(frame, last):
                if not events:
                    events += _events(last)
                events += _events(frame)
                last = frame
                continue
            yield _whole(last, events)
        last, events = frame, []
    if last is not None:
        yield _whole(last, events)


def _whole(last: WatchFrame, events: list[Event]) -> WatchFrame:
    result = last.result
    if not events or result is None:
        return last
    return StreamFrame(
        result=WatchResponse(header=result.header, watch_id=result.watch_id, events=tuple(events)),
    )


def _events(frame: WatchFrame) -> tuple[Event, ...]:
    return () if frame.result is None else frame.result.events


def _follows(frame: WatchFrame, last: WatchFrame) -> bool:
    """Whether both bring nothing but events, of one watch and one cluster, and each revision is in one of them."""
    if not (_is_plain(frame) and _is_plain(last)) or frame.result is None or last.result is None:
        return False
    now, before = frame.result, last.result
    return (
        now.watch_id == before.watch_id
        and now.header.cluster_id == before.header.cluster_id
        and now.events[0].kv.mod_revision > before.events[-1].kv.mod_revision
    )


def _is_plain(frame: WatchFrame) -> bool:
    response = frame.result
    return (
        response is not None
        and bool(response.events)
        and not (response.created or response.canceled or response.fragment or response.compact_revision)
        and frame.error is None
        and frame.code is None
    )
