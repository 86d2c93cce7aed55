"""What has arrived for a consumer that has not taken it yet, and whether that is too much."""

from __future__ import annotations

from collections import deque

from twisted_etcd.client.position import WatchBatch

#: Events that may wait for their consumer before the watch lets etcd wait, unless told otherwise.
MAX_BACKLOG = 10_000
#: Bytes of keys and values that may wait likewise.
MAX_BACKLOG_BYTES = 64 * 1024 * 1024


class Backlog:
    """
    Batches in the order in which they came.

    :param max_events: how many events may wait; a batch without any counts as one.
    :param max_bytes: how many bytes of keys and values, those before each event included.
    """

    __slots__ = ("_batches", "_bytes", "_events", "_max_bytes", "_max_events")

    def __init__(self, max_events: int, max_bytes: int = MAX_BACKLOG_BYTES) -> None:
        self._max_events = max_events
        self._max_bytes = max_bytes
        #: None while nothing waits, as in most of a client's many watches at most times: an empty deque is not small.
        self._batches: deque[tuple[WatchBatch, int]] | None = None
        self._events = 0
        self._bytes = 0

    def __len__(self) -> int:
        """How many batches wait."""
        return len(self._batches or ())

    @property
    def is_too_long(self) -> bool:
        """Whether more waits than may."""
        return self._events > self._max_events or self._bytes > self._max_bytes

    def append(self, batch: WatchBatch) -> None:
        """Something arrived."""
        size = _size(batch)
        if self._batches is None:
            self._batches = deque()
        self._batches.append((batch, size))
        self._events += max(1, len(batch.events))
        self._bytes += size

    def take(self) -> WatchBatch:
        """
        The oldest batch.

        :raises IndexError: where there is none.
        """
        batch, size = (self._batches or deque()).popleft()
        if not self._batches:
            self._batches = None
        self._events -= max(1, len(batch.events))
        self._bytes -= size
        return batch

    def clear(self) -> None:
        """Drop all of it."""
        self._batches = None
        self._events = self._bytes = 0


def _size(batch: WatchBatch) -> int:
    size = 0
    for event in batch.events:
        size += len(event.kv.key) + len(event.kv.value)
        if event.prev_kv is not None:
            size += len(event.prev_kv.value)
    return size
