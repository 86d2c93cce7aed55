"""A range of keys, read once and followed from there on."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING

import msgspec
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_etcd.backoff import Backoff
from twisted_etcd.client.client import EtcdClient
from twisted_etcd.errors import ClusterChanged, Compacted, EtcdError, RequestFailed, ServiceStopped, WatchEnded
from twisted_etcd.listeners import Listeners
from twisted_etcd.moment import Moment
from twisted_etcd.schema.kv import EventType, KeyValue

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from twisted_etcd.client.kv import KeyOptions
    from twisted_etcd.client.watch import Watch


#: Seconds: the longest wait before what etcd ended is read and followed again.
_LONGEST_BETWEEN = 5.0


class Change(msgspec.Struct, frozen=True):
    """
    What happened to one key.

    :ivar old: what was there before; None where nothing was.
    :ivar new: what is there now; None where it was deleted.
    :ivar revision: etcd's revision of the change. Of a deletion that was found by reading again, the revision of
        that reading.
    """

    key: bytes
    old: KeyValue | None
    new: KeyValue | None
    revision: int


#: Told the changes that came together. Where it raises, the follower ends with its error.
ChangesCallback = Callable[["tuple[Change, ...]"], None]


class RangeFollower:
    """
    Knows what is at a key or in a range, and tells what changes there, in order and without a gap.

    Where etcd has compacted what it had not seen yet, it reads the range again and tells the difference. While etcd is
    away, what it knows stays, and is :attr:`stale`.

    :param changed: called with the changes that came together, after :attr:`current` has them.
    :param patient: go on trying where the first reading fails; without it :meth:`start` fails with its error.
    :param lasting: go on trying, too, where etcd ends the watch, as one does that takes a permission away; without it
        that ends the follower.
    :param options: which keys, as for ``EtcdClient.get``.
    """

    _log = Logger()

    def __init__(
        self,
        client: EtcdClient,
        clock: IReactorTime,
        key: str | bytes,
        changed: ChangesCallback,
        *,
        patient: bool = False,
        lasting: bool = False,
        random: Callable[[], float] = random.random,
        **options: Unpack[KeyOptions],
    ) -> None:
        self._client = client
        self._clock = clock
        self._key = key
        self._options = options
        self._changed = changed
        self._patient = patient
        self._lasting = lasting
        self._backoff = Backoff(random)
        #: Between watches that etcd ended.
        self._between = Backoff(random, longest=_LONGEST_BETWEEN)
        self._current: dict[bytes, KeyValue] = {}
        #: Whether somebody has :attr:`current` who counts on its staying as it is.
        self._lent = False
        self._revision = self._cluster_id = 0
        self._loaded: Moment[None] = Moment()
        #: How the next attempt to read it for the first time comes out.
        self._reading: Moment[None] = Moment()
        self._stale_since: float | None = None
        self._stale_told: Listeners[bool] = Listeners(f"what is known of {key!r} being stale")
        self._ended: Moment[None] = Moment()
        #: Nothing is under way any more, whatever ended it.
        self._over: Moment[None] = Moment()
        self._running: Deferred[None] | None = None
        self._stopped = False
        self._loaded_well = False
        self._failed_telling = False
        #: Whether somebody else's code is being called, so that nothing is waited for.
        self._telling = False

    @property
    def current(self) -> Mapping[bytes, KeyValue]:
        """What is there, by what was read and followed so far."""
        return MappingProxyType(self._current)

    @property
    def loaded(self) -> bool:
        """Whether it has been read."""
        return self._loaded_well

    @property
    def stopped(self) -> bool:
        """Whether :meth:`stop` was called."""
        return self._stopped

    @property
    def stale(self) -> bool:
        """
        Whether :attr:`current` may be behind what is in etcd: nothing is heard from etcd any more, or it has to be read
        again, or what followed it has ended by itself. It is not before it has been read, when there is nothing yet.

        It is so as soon as a stream breaks, at times for a moment only; of a member that hangs it is known within 10
        seconds. Once it is fresh again, what had happened meanwhile follows at once.
        """
        return self._stale_since is not None

    @property
    def stale_since(self) -> float | None:
        """When it became stale, in the reactor's seconds; None where it is fresh."""
        return self._stale_since

    def on_stale(self, callback: Callable[[bool], object]) -> Callable[[], None]:
        """
        Have :attr:`stale` told when it changes; what the callback raises is logged and ends nothing.

        :return: call it to be told no longer.
        """
        return self._stale_told.add(callback)

    def when_loaded(self) -> Deferred[None]:
        """
        A new Deferred that fires when it has been read, however long that takes.

        :raises ServiceStopped: it was stopped first.
        """
        return self._loaded.wait()

    def next_reading(self) -> Deferred[None]:
        """
        A new Deferred that fires when it has been read, and fails as the next attempt to read it does, though a patient
        one goes on trying after that.
        """
        return self._reading.wait()

    @property
    def revision(self) -> int:
        """:attr:`current` is what was there at this revision of the store; 0 before it was read."""
        return self._revision

    @property
    def cluster_id(self) -> int:
        """The cluster that it was last read from; 0 before it was read."""
        return self._cluster_id

    def keep(self) -> Mapping[bytes, KeyValue]:
        """What is there now, and stays as it is whatever comes."""
        self._lent = True
        return MappingProxyType(self._current)

    @property
    def ended(self) -> Deferred[None]:
        """A new Deferred that fires with None after :meth:`stop`, and fails with anything else that ended it."""
        return self._ended.wait()

    def start(self) -> Deferred[None]:
        """
        Read the range and begin to follow it, once.

        :return: fires when it has been read. Changes are told from then on.
        :raises ServiceStopped: it was stopped before it was read.
        """
        if not self._stopped:
            self._running = Deferred.fromCoroutine(self._run())
            self._running.addErrback(self._finished)
        return self._loaded.wait()

    def stop(self) -> Deferred[None]:
        """Follow it no longer: nothing more is told. Fires when nothing is under way."""
        if not self._stopped:
            self._stopped = True
            if self._running is None:
                self._finished(Failure(CancelledError()))
            elif not self._telling:
                self._running.cancel()
        return self._over.wait()

    def _finished(self, failure: Failure) -> None:
        if self._stopped:
            stopped = Failure(ServiceStopped(f"following {self._key!r} was stopped before it was read"))
            self._loaded.fail(stopped)
            self._reading.fail(stopped)
            self._ended.fire(None)
        else:
            if self._loaded.happened and not failure.check(ServiceStopped):
                self._log.warn("{key!r} can be followed no longer: {why}", key=self._key, why=str(failure.value))
            self._loaded.fail(failure)
            self._reading.fail(failure)
            self._mark(True)
            self._ended.fail(failure)
        self._over.fire(None)

    async def _run(self) -> None:
        while True:
            revision = await self._read()
            # From what is known on: an etcd that has compacted exactly to the next one may have forgotten what was
            # deleted in it (3.4.23 and 3.5.1 do), and says so of this one.
            watch = self._watch(revision)
            watch.on_interruption(self._mark)
            try:
                self._call_out(partial(self._mark, watch.interrupted))
                await self._follow(watch)
            except (EtcdError, WatchEnded, RequestFailed) as error:
                await watch.stop()
                if not self._lasting or self._failed_telling:
                    raise
                delay = self._between.next()
                self._log.warn(
                    "{key!r} is read and followed again in {delay:.1f} s: {why}",
                    key=self._key,
                    delay=delay,
                    why=str(error),
                )
                self._call_out(lambda: self._mark(True))
                await deferLater(self._clock, delay)
            except Exception:
                await watch.stop()
                raise

    def _watch(self, revision: int) -> Watch:
        return self._client.watch(self._key, start_revision=revision, **self._options)

    async def _read(self) -> int:
        if self._loaded.happened:
            # Nothing follows it until then.
            self._call_out(lambda: self._mark(True))
        while True:
            try:
                response = await self._client.get(self._key, **self._options)
            except (RequestFailed, EtcdError) as error:
                if not self._patient and not self._loaded.happened:
                    raise
                if not self._backoff.rounds:
                    self._log.warn("{key!r} cannot be read, and is tried again: {why}", key=self._key, why=str(error))
                self._call_out(partial(self._could_not_read, Failure(error)))
                await deferLater(self._clock, self._backoff.next())
                continue
            self._backoff.reset()
            self._revision, self._cluster_id = response.header.revision, response.header.cluster_id
            self._replace({kv.key: kv for kv in response.kvs}, response.header.revision)
            self._call_out(self._reached)
            return response.header.revision

    def _could_not_read(self, failure: Failure) -> None:
        if not self._loaded.happened:
            reading, self._reading = self._reading, Moment()
            reading.fail(failure)

    def _replace(self, found: dict[bytes, KeyValue], revision: int) -> None:
        before, self._current = self._current, found
        self._lent = False
        was_stale, self._stale_since = self.stale, None
        if not self._loaded.happened:
            self._loaded_well = True
            self._loaded_first(found)
            self._call_out(lambda: self._loaded.fire(None))
            self._call_out(lambda: self._reading.fire(None))
            return
        self._tell(
            tuple(
                Change(key, before.get(key), found.get(key), found[key].mod_revision if key in found else revision)
                for key in sorted(before.keys() | found.keys())
                if before.get(key) != found.get(key)
            )
        )
        if was_stale:
            # After what is told: who hears that it is fresh again finds it so.
            self._call_out(lambda: self._stale_told.tell(self.stale))

    def _loaded_first(self, found: Mapping[bytes, KeyValue]) -> None:
        """For a subclass: it was read for the first time, and nobody has heard of it yet."""

    def _mark(self, stale: bool) -> None:  # noqa: FBT001
        if self._loaded_well and stale is not self.stale:
            self._stale_since = self._clock.seconds() if stale else None
            self._stale_told.tell(stale)

    def _reached(self) -> None:
        """For a subclass: :attr:`revision` may be another one, and what changed with it was told."""

    async def _follow(self, watch: Watch) -> None:
        """Tell what comes after what is known, until the range has to be read again."""
        while True:
            try:
                batch = await watch.next()
            except (Compacted, ClusterChanged) as error:
                self._log.info("{key!r} is read again: {why}", key=self._key, why=str(error))
                return
            self._between.reset()
            changes: list[Change] = []
            if self._lent and batch.events:
                self._current = dict(self._current)
                self._lent = False
            for event in batch.events:
                if event.kv.mod_revision <= self._revision:
                    continue
                old = self._current.pop(event.kv.key, None)
                new = None if event.type is EventType.DELETE else event.kv
                if new is not None:
                    self._current[new.key] = new
                changes.append(Change(event.kv.key, old, new, event.kv.mod_revision))
            self._revision = max(self._revision, batch.revision)
            self._tell(tuple(changes))
            self._call_out(self._reached)

    def _tell(self, changes: tuple[Change, ...]) -> None:
        if changes:
            self._call_out(lambda: self._tell_changed(changes))

    def _tell_changed(self, changes: tuple[Change, ...]) -> None:
        try:
            self._changed(changes)
        except Exception:
            self._failed_telling = True
            self._log.failure("Who is told what changes at {key!r} failed, which ends it.", key=self._key)
            raise

    def _call_out(self, call: Callable[[], None]) -> None:
        """Call what may call :meth:`stop`, which cannot cancel what is not waiting."""
        self._telling = True
        try:
            call()
        finally:
            self._telling = False
        if self._stopped:
            raise CancelledError
