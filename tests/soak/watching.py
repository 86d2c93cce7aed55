"""Whether each watch delivered what really happened: in order, once, whole, and all of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from tests.soak.history import Broken
from tests.soak.truth import Fact
from twisted_etcd.client.client import EtcdClient
from twisted_etcd.client.position import WatchBatch
from twisted_etcd.client.watch import Watch
from twisted_etcd.errors import Compacted, ServiceStopped
from twisted_etcd.schema.kv import Event, EventType


class Expectation:
    """
    Compares what one watch delivers with what happened; either can come first.

    :param first: the first revision that the watch is to deliver.
    :ivar events: how many events were found to be in order.
    """

    def __init__(self, name: str, first: int) -> None:
        self.events = 0
        self._name = name
        self._first = first
        self._delivered: deque[tuple[int, tuple[Fact, ...]]] = deque()
        self._happened: deque[tuple[int, tuple[Fact, ...]]] = deque()

    @property
    def missing(self) -> int:
        """How many revisions have happened and were not delivered yet."""
        return len(self._happened)

    def happened(self, revision: int, facts: tuple[Fact, ...]) -> None:
        """By etcd's own history."""
        if revision >= self._first:
            self._happened.append((revision, facts))
            self._compare()

    def delivered(self, batch: WatchBatch) -> None:
        """
        By the watch.

        :raises Broken: it is not what happened next.
        """
        revisions: dict[int, list[Fact]] = {}
        for event in batch.events:
            revisions.setdefault(event.kv.mod_revision, []).append(_fact(event))
        self._delivered.extend((revision, tuple(facts)) for revision, facts in revisions.items())
        self._compare()

    def skip_to(self, revision: int) -> None:
        """What comes before this revision cannot be had any more, and the watch has said so."""
        self._first = revision
        while self._happened and self._happened[0][0] < revision:
            self._happened.popleft()

    def _compare(self) -> None:
        while self._delivered and self._happened:
            delivered, happened = self._delivered.popleft(), self._happened.popleft()
            if delivered != happened:
                message = f"{self._name} delivered {delivered} where {happened} happened"
                raise Broken(message)
            self.events += len(happened[1])


def _fact(event: Event) -> Fact:
    return Fact(event.kv.key.decode(), None if event.type is EventType.DELETE else event.kv.value.decode())


class Watcher:
    """
    One watch of the whole prefix, followed for as long as it lives, and begun anew where it says ``Compacted``.

    :param slow: seconds that its consumer takes for each batch.
    :param compacted_to: the latest revision that was compacted, or is being.
    :param broken: called with what is wrong.
    :param heard: called with each batch.
    :ivar compacted: how often it ended because etcd had compacted what it needed.
    """

    def __init__(
        self,
        clock: IReactorTime,
        client: EtcdClient,
        name: str,
        prefix: str,
        *,
        slow: float,
        max_backlog: int,
        compacted_to: Callable[[], int],
        broken: Callable[[Exception], None],
        heard: Callable[[], None],
    ) -> None:
        self.compacted = 0
        self._clock = clock
        self._client = client
        self.name = name
        self._prefix = prefix
        self._slow = slow
        self._max_backlog = max_backlog
        self._compacted_to = compacted_to
        self._broken = broken
        self._heard = heard
        self._watch: Watch | None = None
        self.expectation: Expectation | None = None
        self.over: Deferred[None] = succeed(None)

    async def start(self, first: int) -> None:
        """Begin at this revision; fires when etcd has confirmed it."""
        self.expectation = Expectation(self.name, first)
        self._watch = self._make(first)
        self.over = Deferred.fromCoroutine(self._follow(self._watch))
        await self._watch.ready

    def _make(self, first: int) -> Watch:
        return self._client.watch(self._prefix, prefix=True, start_revision=first, max_backlog=self._max_backlog)

    async def stop(self) -> None:
        """Follow it no longer."""
        if self._watch is not None:
            await self._watch.stop()
        await self.over

    async def _follow(self, watch: Watch) -> None:
        try:
            await self._compare(watch)
        except ServiceStopped:
            return
        except Exception as error:  # noqa: BLE001 - it is told
            self._broken(error)

    async def _compare(self, watch: Watch) -> None:
        expectation = self.expectation
        assert expectation is not None
        while True:
            try:
                await self._deliver(watch, expectation)
            except Compacted as error:  # noqa: PERF203 - it is rare
                self.compacted += 1
                if error.compact_revision > self._compacted_to():
                    message = f"{self.name} ended with {error!r}, and only {self._compacted_to()} was compacted"
                    raise Broken(message) from error
                # Of the very revision to which its history is compacted, etcd may have forgotten deletions.
                first = error.compact_revision + 1
                expectation.skip_to(first)
                watch = self._watch = self._make(first)
            else:
                return

    async def _deliver(self, watch: Watch, expectation: Expectation) -> None:
        async for batch in watch:
            self._heard()
            expectation.delivered(batch)
            if self._slow:
                await deferLater(self._clock, self._slow)
