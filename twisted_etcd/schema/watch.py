"""Watching: the messages of etcd's Watch service."""

from __future__ import annotations

from twisted_etcd.schema.common import Message, ProtoEnum, Response
from twisted_etcd.schema.kv import Event


class FilterType(ProtoEnum):
    """Events that a watch does not want."""

    NOPUT = "NOPUT"
    NODELETE = "NODELETE"


class WatchCreateRequest(Message, frozen=True, kw_only=True):
    r"""
    Begin a watch on a key or a range of keys.

    :ivar key: the key, or the first of the range.
    :ivar range_end: the first key after the range; empty for one key, ``b"\x00"`` for all from ``key`` on.
    :ivar start_revision: deliver events from this revision on, it included; 0 for those after the creation.
    :ivar progress_notify: send an answer without events every ten minutes or so when nothing happens.
    :ivar filters: events to leave out.
    :ivar prev_kv: deliver the key-value before each change too.
    :ivar watch_id: the id that the watch shall have in its stream, not in use there; 0 lets the server choose, which
        counts up from 0.
    :ivar fragment: let a large set of events be split over several answers.
    """

    key: bytes = b""
    range_end: bytes = b""
    start_revision: int = 0
    progress_notify: bool = False
    filters: tuple[FilterType, ...] = ()
    prev_kv: bool = False
    watch_id: int = 0
    fragment: bool = False


class WatchCancelRequest(Message, frozen=True):
    """
    End a watch of this stream.

    :ivar watch_id: which one. An id that the stream does not have is not answered at all.
    """

    watch_id: int = 0


class WatchProgressRequest(Message, frozen=True):
    """
    Ask how far the watches of this stream have come; answered with ``watch_id`` -1 once all of them are in sync.

    The answer can overtake the one to a creation that was asked for just before (seen on 3.5.16).
    """


class WatchRequest(Message, frozen=True):
    """
    What is sent on a watch stream: exactly one of its fields is set.

    :ivar create_request: begin a watch.
    :ivar cancel_request: end one.
    :ivar progress_request: ask for progress.
    """

    create_request: WatchCreateRequest | None = None
    cancel_request: WatchCancelRequest | None = None
    progress_request: WatchProgressRequest | None = None


class WatchResponse(Response, frozen=True, kw_only=True):
    """
    What arrives on a watch stream.

    :ivar watch_id: whose it is; -1 for a progress answer to all watches of the stream, and for a creation that was
        refused by most servers (3.5.1 answers 0 to one that lacks permission, with ``created`` and ``canceled``).
    :ivar created: the answer to a creation, before any event.
    :ivar canceled: the watch has ended; nothing comes after this.
    :ivar compact_revision: where not 0, the watch ended because its start is compacted: the lowest revision that can
        still be watched.
    :ivar cancel_reason: why the server ended it, where it says so; empty if it was asked to.
    :ivar fragment: more events of the same revision follow in the next answer.
    :ivar events: the changes, in the order of their revisions.
    """

    watch_id: int = 0
    created: bool = False
    canceled: bool = False
    compact_revision: int = 0
    cancel_reason: str = ""
    fragment: bool = False
    events: tuple[Event, ...] = ()
