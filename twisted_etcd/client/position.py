"""
Where a watch stands in the history of its keys, and what each answer of etcd's means for it. Pure.

The next revision to ask for comes only from what the watch's own stream delivered: any other source could be ahead of
events that are still on their way, and those would be lost for good.
"""

from __future__ import annotations

import msgspec

from twisted_etcd.errors import (
    ClusterChanged,
    Compacted,
    EtcdError,
    HistoryReplaced,
    UnknownError,
    WatchCancelled,
    WatchEnded,
    etcd_error,
)
from twisted_etcd.schema.kv import Event
from twisted_etcd.schema.watch import WatchResponse


class WatchBatch(msgspec.Struct, frozen=True):
    """
    What a watch delivers: events in the order of their revisions, each revision whole.

    What came from etcd together is one batch, so that it can hold the events of one revision or of many.

    :ivar events: empty in a progress answer, which says that nothing happened up to ``revision``.
    :ivar revision: all that happened to the watched keys up to this revision has been delivered with this batch.
    :ivar resync: true where etcd had compacted what came before, so that the keys were read again: ``events`` is the
        difference between what was delivered before and what is there at ``revision``, in which a key that changed
        several times appears once, and without what was there before. A deletion in it bears ``revision``, since etcd
        no longer knows its own.
    """

    events: tuple[Event, ...]
    revision: int
    resync: bool = False


class Created(msgspec.Struct, frozen=True):
    """
    etcd confirmed the watch.

    :ivar revision: the store's revision then.
    :ivar behind: whether that is before what the watch has been told already: the member lags, or the cluster's history
        was replaced by an older one.
    """

    revision: int
    behind: bool = False


class Delivered(msgspec.Struct, frozen=True):
    """Something for the consumer."""

    batch: WatchBatch


class Interrupted(msgspec.Struct, frozen=True):
    """The watch has to be created anew, at another member where there is one."""

    error: EtcdError


class Over(msgspec.Struct, frozen=True):
    """Nothing more can come."""

    error: EtcdError | WatchEnded


Step = Created | Delivered | Interrupted | Over


def after_stream_error(error: EtcdError) -> Interrupted | Over:
    """What an error means that ended a watch, or kept it from coming about."""
    if error.concerns_member or error.may_be_applied:
        return Interrupted(error)
    return Over(error)


class WatchPosition:
    """
    :param start_revision: the first revision that is wanted; 0 for all that comes after etcd's confirmation.
    :ivar next_revision: the first one that is still to come; 0 as long as that is not known.
    :ivar told: the latest revision of the store that the watch was told of.
    """

    __slots__ = ("_cluster_id", "_first_revision", "_fragments", "next_revision", "told")

    def __init__(self, start_revision: int) -> None:
        self.next_revision = start_revision
        self.told = 0
        self._first_revision = start_revision
        self._cluster_id = 0
        #: None where no revision is in parts.
        self._fragments: list[Event] | None = None

    @property
    def start_revision(self) -> int:
        """
        The revision to ask etcd for. Where the next one comes after others it is the one before it, of which nothing
        is delivered again.

        An etcd that has compacted its history exactly to the next one may have forgotten what was deleted in it, and
        would go on without a word (3.4.23 and 3.5.1 do). Of the one before it says that it is compacted.
        """
        return self.next_revision - 1 if self.next_revision > self._first_revision else self.next_revision

    def reread(self, revision: int) -> None:
        """All keys of the watch were read, as they are at this revision: what comes after it is wanted next."""
        self._fragments = None
        self.next_revision = revision + 1
        self.told = revision

    def found(self, cluster_id: int, revision: int, *, since: int) -> ClusterChanged | None:
        """
        What is wrong, if anything is, where this cluster as a whole, and not one member, has this revision.

        :param since: what the watch had been told when the cluster was asked.
        """
        if self._is_other(cluster_id):
            return ClusterChanged(self._cluster_id, cluster_id)
        if revision < since:
            return HistoryReplaced(since, revision)
        self._cluster_id = cluster_id
        return None

    def _is_other(self, cluster_id: int) -> bool:
        # What has none was never with a cluster, or says nothing of it.
        return cluster_id not in (0, self._cluster_id) and self._cluster_id != 0

    def broke(self) -> None:
        """The stream ended; what it had not delivered whole will come again."""
        self._fragments = None

    def received(self, response: WatchResponse) -> Step | None:
        """Take one answer for this watch."""
        header = response.header
        if self._is_other(header.cluster_id):
            return Over(ClusterChanged(self._cluster_id, header.cluster_id))
        if response.canceled:
            return self._cancelled(response)
        if response.created:
            self._cluster_id = header.cluster_id
            if self.next_revision == 0:
                self.next_revision = header.revision + 1
            behind = header.revision < self.told
            self.told = max(self.told, header.revision)
            return Created(header.revision, behind)
        if response.events or response.fragment:
            return self._events(response)
        if header.revision + 1 < self.next_revision or self.next_revision == 0 or self._fragments:
            # A start revision in the future; and nothing is progress of what was never confirmed, or is not yet whole.
            return None
        self.next_revision = header.revision + 1
        self.told = max(self.told, header.revision)
        return Delivered(WatchBatch((), header.revision))

    def _events(self, response: WatchResponse) -> Step | None:
        events = response.events
        if response.fragment or self._fragments or not self._are_news(events):
            fragments = self._fragments or []
            fragments += [event for event in events if event.kv.mod_revision >= self.next_revision]
            if response.fragment or not fragments:
                self._fragments = fragments or None
                return None
            events = tuple(fragments)
            self._fragments = None
        revision = events[-1].kv.mod_revision
        self.next_revision = revision + 1
        self.told = max(self.told, revision)
        return Delivered(WatchBatch(events, revision))

    def _are_news(self, events: tuple[Event, ...]) -> bool:
        """Whether none of them was delivered before: they come in the order of their revisions."""
        return bool(events) and events[0].kv.mod_revision >= self.next_revision

    @staticmethod
    def _cancelled(response: WatchResponse) -> Interrupted | Over:
        reason = response.cancel_reason
        if response.compact_revision:
            message = Compacted.messages[0]
            return Over(Compacted(Compacted.grpc_code, message, response.compact_revision))
        # The gateway gives the reason in etcd's words, at times with gRPC's around them.
        error = etcd_error(UnknownError.grpc_code, reason.rpartition("desc = ")[2])
        if type(error) is UnknownError:
            return Over(WatchCancelled(reason))
        return after_stream_error(error)
