"""The reading side of a mirror: the pages of a scan, and what a watch brings while the target is slow."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from twisted_etcd.client.position import WatchBatch
from twisted_etcd.client.scan import Scan
from twisted_etcd.schema.kv import KeyValue

#: Batches of events that may wait while the target takes those before.
_MAX_WAITING = 100


class Arrivals:
    """
    What a watch has brought and the target has not got yet.

    :ivar revision: of the source, as far as it is known here.
    """

    def __init__(self, revision: int) -> None:
        self.revision = revision
        self._batches: deque[WatchBatch] = deque()
        self._end: Failure | None = None
        self._awaited: Deferred[None] | None = None
        self._full: Deferred[None] | None = None

    def came(self, batch: WatchBatch) -> Deferred[None] | None:
        """For the watch: it waits where there are many."""
        self.revision = max(self.revision, batch.revision)
        self._batches.append(batch)
        self._wake()
        if len(self._batches) < _MAX_WAITING:
            return None
        self._full = Deferred()
        return self._full

    def ended(self, failure: Failure) -> None:
        """Nothing more comes, and this is why."""
        self._end = failure
        self._wake()

    def end(self) -> None:
        """Nobody takes them any more."""
        self._batches.clear()
        self._let_come()

    async def next(self) -> WatchBatch:
        """The next batch; once all are taken, what ended the watch is raised."""
        while not self._batches:
            if self._end is not None:
                self._end.raiseException()
            self._awaited = Deferred()
            await self._awaited
        batch = self._batches.popleft()
        if not self._batches:
            self._let_come()
        return batch

    def _wake(self) -> None:
        if self._awaited is not None and not self._awaited.called:
            self._awaited.callback(None)

    def _let_come(self) -> None:
        full, self._full = self._full, None
        if full is not None:
            full.callback(None)


class Keys:
    """
    The key-values of a scan, one by one.

    :param ask: asks for a page, patiently.
    """

    def __init__(self, scan: Scan, ask: Callable[[Scan], Awaitable[tuple[KeyValue, ...]]]) -> None:
        self.scan = scan
        self._ask = ask
        self._page: deque[KeyValue] = deque()

    async def next(self) -> KeyValue | None:
        """The next one; None behind the last."""
        if not self._page:
            self._page.extend(await self._ask(self.scan))
        return self._page.popleft() if self._page else None
