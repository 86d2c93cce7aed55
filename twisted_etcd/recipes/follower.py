"""A range of keys, read once and followed from there on."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
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
from twisted_etcd.errors import ClusterChanged, Compacted, EtcdError, RequestFailed, ServiceStopped
from twisted_etcd.moment import Moment
from twisted_etcd.schema.kv import EventType, KeyValue

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from twisted_etcd.client.kv import KeyOptions
    from twisted_etcd.client.watch import Watch


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

    Where etcd has compacted what it had not seen yet, it reads the range again and tells the difference.

    :param changed: called with the changes that came together, after :attr:`current` has them.
    :param patient: go on trying where the first reading fails; without it :meth:`start` fails with its error.
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
        random: Callable[[], float] = random.random,
        **options: Unpack[KeyOptions],
    ) -> None:
        self._client = client
        self._clock = clock
        self._key = key
        self._options = options
        self._changed = changed
        self._patient = patient
        self._backoff = Backoff(random)
        self._current: dict[bytes, KeyValue] = {}
        #: Whether somebody has it who counts on its staying as it is.
        self._lent = False
        self._revision = 0
        self._loaded: Moment[None] = Moment()
        self._ended: Moment[None] = Moment()
        #: Nothing is under way any more, whatever ended it.
        self._over: Moment[None] = Moment()
        self._running: Deferred[None] | None = None
        self._stopped = False
        #: Whether somebody else's code is being called, so that nothing is waited for.
        self._telling = False

    @property
    def current(self) -> Mapping[bytes, KeyValue]:
        """What is there, by what was read and followed so far."""
        return MappingProxyType(self._current)

    @property
    def revision(self) -> int:
        """:attr:`current` is what was there at this revision of the store; 0 before it was read."""
        return self._revision

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
            self._loaded.fail(Failure(ServiceStopped(f"following {self._key!r} was stopped before it was read")))
            self._ended.fire(None)
        else:
            if self._loaded.happened and not failure.check(ServiceStopped):
                self._log.warn("{key!r} can be followed no longer: {why}", key=self._key, why=str(failure.value))
            self._loaded.fail(failure)
            self._ended.fail(failure)
        self._over.fire(None)

    async def _run(self) -> None:
        while True:
            revision = await self._read()
            # From what is known on: an etcd that has compacted exactly to the next one may have forgotten what was
            # deleted in it (3.4.23 and 3.5.1 do), and says so of this one.
            watch = self._watch(revision)
            try:
                await self._follow(watch)
            except Exception:
                await watch.stop()
                raise

    def _watch(self, revision: int) -> Watch:
        return self._client.watch(self._key, start_revision=revision, **self._options)

    async def _read(self) -> int:
        while True:
            try:
                response = await self._client.get(self._key, **self._options)
            except (RequestFailed, EtcdError) as error:
                if not self._patient and not self._loaded.happened:
                    raise
                if not self._backoff.rounds:
                    self._log.warn("{key!r} cannot be read, and is tried again: {why}", key=self._key, why=str(error))
                await deferLater(self._clock, self._backoff.next())
                continue
            self._backoff.reset()
            self._replace({kv.key: kv for kv in response.kvs}, response.header.revision)
            self._call_out(self._reached)
            return response.header.revision

    def _replace(self, found: dict[bytes, KeyValue], revision: int) -> None:
        before, self._current = self._current, found
        self._lent = False
        self._revision = revision
        if not self._loaded.happened:
            self._call_out(lambda: self._loaded.fire(None))
            return
        self._tell(
            tuple(
                Change(key, before.get(key), found.get(key), found[key].mod_revision if key in found else revision)
                for key in sorted(before.keys() | found.keys())
                if before.get(key) != found.get(key)
            )
        )

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
