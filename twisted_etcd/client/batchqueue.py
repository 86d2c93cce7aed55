"""
What waits to travel in a batch, and what may travel together. Pure.

A batch is one transaction, and etcd takes no transaction that puts a key twice. So of what is ordered by its key only
the first one is ready; the next one becomes so when the first is over. That keeps the order of puts to one key, too.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

#: Operations in one batch at the most: as many as etcd takes in a transaction, unless it is told otherwise.
MAX_OPERATIONS = 128
#: Bytes of keys and values in one batch at the most; a larger operation travels alone.
MAX_BYTES = 512 * 1024


class Item(Protocol):
    """An operation that waits for its batch, or is in one."""

    @property
    def key(self) -> bytes:
        """The key that it is about."""

    @property
    def size(self) -> int:
        """How many bytes it brings."""

    @property
    def over(self) -> bool:
        """Whether nobody waits for it any more."""


ItemT = TypeVar("ItemT", bound=Item)


class BatchQueue(Generic[ItemT]):
    """
    :param ordered: whether operations on one key go one after the other, each in a batch of its own.
    :ivar limit: how many operations the server takes in a transaction, as far as is known.
    :ivar most: how many go into the next batch at the most: fewer than the limit where larger ones were refused.
    """

    def __init__(self, *, ordered: bool) -> None:
        self.limit = MAX_OPERATIONS
        self.most = MAX_OPERATIONS
        self._ordered = ordered
        self._ready: deque[ItemT] = deque()
        #: Batches that were refused as a whole, in parts.
        self._parts: deque[Sequence[ItemT]] = deque()
        #: What is ready or under way, by its key, and what waits for the same key.
        self._first: dict[bytes, ItemT] = {}
        self._followers: dict[bytes, deque[ItemT]] = {}

    def __len__(self) -> int:
        """How many operations and parts could be taken now, counting those that are over meanwhile."""
        return len(self._ready) + len(self._parts)

    def put(self, item: ItemT) -> None:
        """An operation is wanted."""
        if self._ordered and self._first.setdefault(item.key, item) is not item:
            self._followers.setdefault(item.key, deque()).append(item)
        else:
            self._ready.append(item)

    def take(self, count: int) -> list[ItemT]:
        """The next batch, of so many at the most; empty where nothing is ready."""
        while self._parts:
            part = [item for item in self._parts.popleft() if not item.over]
            if part:
                return part
        batch: list[ItemT] = []
        size = 0
        ready, most = self._ready, min(count, self.most)
        while ready and len(batch) < most:
            item = ready[0]
            if not item.over:
                size += item.size
                if batch and size > MAX_BYTES:
                    break
                batch.append(item)
            ready.popleft()
        return batch

    def release(self, item: ItemT) -> None:
        """An operation is not under way any more, or will not be: what waits for its key is ready, if it kept it."""
        if self._first.get(item.key) is not item:
            return
        followers = self._followers.get(item.key)
        while followers:
            follower = followers.popleft()
            if not follower.over:
                self._first[item.key] = follower
                self._ready.append(follower)
                return
        self._followers.pop(item.key, None)
        del self._first[item.key]

    # --- what the server takes --------------------------------------------------------------------------------------

    def split(self, batch: Sequence[ItemT]) -> None:
        """A batch was refused because of one of its operations: it goes again in two parts, before all others."""
        middle = len(batch) // 2
        self._parts.extendleft((batch[middle:], batch[:middle]))

    def too_many(self, count: int) -> None:
        """The server refused so many operations in one transaction, and will do so again."""
        self.limit = max(1, min(self.limit, count // 2))
        self.most = min(self.most, self.limit)

    def too_large(self, count: int) -> None:
        """So many operations were too large together; fewer may do."""
        self.most = max(1, count // 2)

    def fitted(self, count: int) -> None:
        """So many operations were taken: where that is all that was tried, a little more is tried next."""
        if count >= self.most < self.limit:
            self.most += 1
