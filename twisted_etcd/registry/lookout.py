"""One watch on keys of ours, for as long as it is wanted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol

import msgspec
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_etcd.backoff import Backoff
from twisted_etcd.client.client import EtcdClient
from twisted_etcd.client.watch import Watch
from twisted_etcd.errors import (
    ClusterChanged,
    Compacted,
    EtcdError,
    RequestFailed,
    ServiceStopped,
    TwistedEtcdError,
    WatchEnded,
)
from twisted_etcd.registry.machine import Found
from twisted_etcd.schema.kv import Event, EventType, KeyValue

#: Seconds: the longest wait before a watch that ended is begun again.
_LONGEST_BACKOFF = 30.0


class Watched(Protocol):
    """Whose key it is."""

    @property
    def path(self) -> str:
        """The key."""

    @property
    def writes(self) -> int:
        """How many writes of it there were."""

    def key_seen(self, found: Found) -> None:
        """It changed."""

    def key_read(self, found: Found, writes: int) -> None:
        """It was read, which was asked for when there were so many writes."""

    def history_gone(self) -> None:
        """What was seen before says nothing any more. The key is read next."""


class Reading(msgspec.Struct, frozen=True):
    """
    What was read: the revision, and what is there, without the values.

    :ivar revision: that it was read at.
    :ivar kvs: by the keys.
    """

    revision: int
    kvs: Mapping[str, KeyValue]


def found_in(kv: KeyValue | None, revision: int) -> Found:
    """
    What a reading without values found.

    :param revision: of the reading.
    """
    if kv is None:
        return Found(revision=revision)
    return Found(revision=kv.mod_revision, there=True, lease=kv.lease)


def _seen_in(event: Event) -> Found:
    kv = event.kv
    if event.type is EventType.DELETE:
        return Found(revision=kv.mod_revision)
    return Found(revision=kv.mod_revision, there=True, lease=kv.lease, value=kv.value)


class Lookout:
    """
    Watches a key, or all keys of a service, and tells those whose keys they are. It begins again, after waits, for as
    long as it is not stopped; where etcd has forgotten what came next, or another history is there, it reads first.

    :param whose: those whose keys it sees, by the keys, as they are now.
    :param read: reads these keys.
    :param trouble: told what keeps it from seeing anything, and None when it sees again.
    :param random: gives numbers from 0 up to 1; for the waits between attempts.
    """

    _log = Logger()

    def __init__(
        self,
        client: EtcdClient,
        clock: IReactorTime,
        key: str,
        *,
        prefix: bool,
        whose: Callable[[], Mapping[str, Watched]],
        read: Callable[[], Deferred[Reading]],
        trouble: Callable[[Exception | None], None],
        random: Callable[[], float],
    ) -> None:
        self._client = client
        self._clock = clock
        self._key = key
        self._prefix = prefix
        self._whose = whose
        self._read_keys = read
        self._trouble = trouble
        self._backoff = Backoff(random, longest=_LONGEST_BACKOFF)
        self._running: Deferred[None] | None = None
        self._stopped = False
        #: Whether somebody else's code is being called, so that nothing is waited for.
        self._telling = False

    def start(self, revision: int) -> None:
        """
        Begin, once.

        :param revision: from which on changes matter; 0 to read first.
        """
        self._running = Deferred.fromCoroutine(self._run(revision)).addErrback(self._finished)

    def stop(self) -> Deferred[None]:
        """Tell nothing any more; fires when nothing is under way. Cancelled, it does not wait for etcd to know."""
        self._stopped = True
        running = self._running
        if running is None:
            return succeed(None)
        over: Deferred[None] = Deferred(lambda _: running.cancel())

        def ended(result: None) -> None:
            over.callback(result)

        running.addCallback(ended)
        if not self._telling:
            running.cancel()
        return over

    def _finished(self, failure: Failure) -> None:
        if not failure.check(CancelledError, ServiceStopped):
            self._log.failure("The watch on {key} has ended; the heartbeat check goes on.", failure, key=self._key)

    async def _run(self, revision: int) -> None:
        while True:
            if revision == 0:
                revision = await self._read()
            watch = self._client.watch(self._key, start_revision=revision, prefix=self._prefix)
            revision = 0
            try:
                await self._follow(watch)
            except (Compacted, ClusterChanged) as error:
                self._log.info("{key} is read again: {why}", key=self._key, why=str(error))
                self._call_out(self._history_is_gone)
            except (EtcdError, RequestFailed, WatchEnded) as error:
                await self._wait(error)
            except Exception:
                await watch.stop()
                raise

    async def _follow(self, watch: Watch) -> None:
        while True:
            batch = await watch.next()
            self._backoff.reset()
            self._call_out(partial(self._tell, batch.events))

    def _tell(self, events: tuple[Event, ...]) -> None:
        self._trouble(None)
        for event in events:
            watched = self._whose().get(event.kv.key.decode("utf-8", "replace"))
            if watched is not None:
                watched.key_seen(_seen_in(event))

    def _history_is_gone(self) -> None:
        for watched in tuple(self._whose().values()):
            watched.history_gone()

    async def _read(self) -> int:
        while True:
            writes = {path: watched.writes for path, watched in self._whose().items()}
            try:
                reading = await self._read_keys()
            except (EtcdError, RequestFailed) as error:
                await self._wait(error)
                continue
            self._call_out(partial(self._tell_read, reading, writes))
            return reading.revision

    def _tell_read(self, reading: Reading, writes: Mapping[str, int]) -> None:
        for path, watched in tuple(self._whose().items()):
            if path in writes:
                watched.key_read(found_in(reading.kvs.get(path), reading.revision), writes[path])

    async def _wait(self, error: TwistedEtcdError) -> None:
        self._call_out(partial(self._trouble, error))
        await deferLater(self._clock, self._backoff.next())

    def _call_out(self, call: Callable[[], None]) -> None:
        """Call what may call :meth:`stop`, which cannot cancel what is not waiting."""
        self._telling = True
        try:
            call()
        finally:
            self._telling = False
        if self._stopped:
            raise CancelledError
