"""A copy of a part of etcd's keys, in another place or another cluster, that is kept up to date."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_etcd.backoff import Backoff
from twisted_etcd.client import op
from twisted_etcd.client.client import EtcdClient
from twisted_etcd.client.kv import to_int
from twisted_etcd.client.namespace import place_of
from twisted_etcd.client.scan import Scan
from twisted_etcd.errors import ClusterChanged, Compacted, EtcdError, RequestFailed, ServiceStopped, WatchEnded
from twisted_etcd.keys import FIRST_KEY, KeyRange, to_bytes
from twisted_etcd.moment import Moment
from twisted_etcd.recipes.mirrorplan import MAX_TXN_OPS, Renaming, check_apart, revisions, same
from twisted_etcd.recipes.mirrorsource import Arrivals, Keys
from twisted_etcd.recipes.mirrortarget import MirrorTarget, Overtaken
from twisted_etcd.recipes.reaching import Reaching
from twisted_etcd.schema.kv import Event, EventType, KeyValue

AnswerT = TypeVar("AnswerT")

#: Seconds that ``at_least`` waits, unless told otherwise.
TIMEOUT = 10.0
#: What another attempt may mend: all that etcd or the way to it can have against a request.
_TROUBLE = (RequestFailed, EtcdError)


class Mirror(Service):
    """
    Copies what is below a prefix to another prefix or another cluster, and follows what changes there (as ``etcdctl
    make-mirror``, which ends at the first error).

    First all keys are read at one revision and what differs is put. Then each change follows, in the order of the
    source's revisions, and what one revision changed there is changed in one transaction here, as long as etcd takes
    so many operations at once. Values are copied; leases, revisions and versions are not.

    Errors of both sides are tried again with growing waits, for ever; :attr:`trouble` names the present one. Where
    the source was compacted before the mirror got there, it compares both sides again.

    A write that was not confirmed is made again. With a ``progress_key`` none can come late: each is applied only
    where the one before it was the last. Without, one that the network held back for long can come after its successor,
    and put an old value until the key changes next; use one where that matters.

    It begins with ``startService``. Stop it before its clients; it cannot be started again then.

    :param source: the client to read with.
    :param target: the client to write with, which may be the same.
    :param prefix: of the keys to copy; all keys where it is empty.
    :param dest_prefix: what the copies have in its place; the same where it is None.
    :param start_revision: copy what changed from this revision of the source on, and nothing that was there before; 0
        for all that is there. A progress that was kept goes before it.
    :param progress_key: a key in the target at which it is kept how far the mirror has come, with each write: a mirror
        that starts goes on from there, and two that share one do not come into each other's way.
    :param delete_extra: delete what is below ``dest_prefix`` and not in the source, whenever both sides are compared.
        Without it, a key that was deleted in the source while no mirror ran, and that is known no more since the source
        was compacted, stays.
    :param max_txn_ops: how many operations the target takes in one transaction (its ``--max-txn-ops``).
    :param random: gives numbers from 0 up to 1, for the waits between attempts and its mark on what it writes.
    :raises InvalidSettings: where source and target overlap in one cluster. Where that shows only once both have
        answered, :attr:`ended` and :meth:`when_copied` fail with it.
    """

    _log = Logger()

    def __init__(
        self,
        source: EtcdClient,
        target: EtcdClient,
        prefix: str | bytes,
        *,
        dest_prefix: str | bytes | None = None,
        start_revision: int = 0,
        progress_key: str | bytes | None = None,
        delete_extra: bool = False,
        max_txn_ops: int = MAX_TXN_OPS,
        random: Callable[[], float] = random.random,
    ) -> None:
        self.prefix = to_bytes(prefix, "prefix")
        self.dest_prefix = self.prefix if dest_prefix is None else to_bytes(dest_prefix, "dest_prefix")
        if to_int(start_revision, "start_revision") < 0:
            msg = f"start_revision must be at least 0, not {start_revision!r}"
            raise ValueError(msg)
        if to_int(max_txn_ops, "max_txn_ops") < 2:  # noqa: PLR2004 - one of them may be the progress
            msg = f"max_txn_ops must be at least 2, not {max_txn_ops!r}"
            raise ValueError(msg)
        self._progress_key = None if progress_key is None else to_bytes(progress_key, "progress_key")
        if self._progress_key == b"":
            msg = "progress_key is empty; give a key, or None to keep no progress"
            raise ValueError(msg)
        self._source = source
        self._target = target
        if place_of(source)[0] is place_of(target)[0]:
            self._check_apart()
        self._clock = source.reactor
        self._start_revision = start_revision
        self._delete_extra = delete_extra
        self._backoff = Backoff(random)
        self._writing = MirrorTarget(
            target,
            progress_key=self._progress_key,
            limit=max_txn_ops,
            writer=f"{int(random() * 2**48):012x}",
            failed=self._wait,
            worked=self._well,
        )
        self._renaming = Renaming(self.prefix, self.dest_prefix, self._progress_key or b"")
        self._cluster_id = 0
        #: The source's revision when it was met.
        self._met_at = 0
        self._revision = 0
        #: Whether what happened since the last revision can be known no more.
        self._lost = False
        #: The keys of the source that may be in the target by this mirror; None where a former one left some.
        self._copied: set[bytes] | None = set()
        self._arrivals: Arrivals | None = None
        self._trouble: Exception | None = None
        self._waiting = Reaching(source.reactor, self.__repr__, lambda: None)
        self._whole: Moment[None] = Moment()
        self._ended: Moment[None] = Moment()
        self._over: Moment[None] = Moment()
        self._running: Deferred[None] | None = None
        self._stopped = False
        #: Whether somebody else's code is being called, so that nothing is waited for.
        self._telling = False

    def __repr__(self) -> str:
        return f"<Mirror of {KeyRange.of(self.prefix, prefix=True)}, at revision {self._revision}>"

    # --- how it is --------------------------------------------------------------------------------------------------

    @property
    def revision(self) -> int:
        """The source's revision up to which all is in the target; 0 before the first copy is whole."""
        return self._revision

    @property
    def behind(self) -> int:
        """
        How many of the source's revisions are known here and not in the target yet: 0 where it is up to date. What the
        source has not told yet, as while it is away, is not counted.
        """
        return 0 if self._arrivals is None else max(0, self._arrivals.revision - self._revision)

    @property
    def trouble(self) -> Exception | None:
        """What is in its way now; None where nothing is."""
        return self._trouble

    def when_copied(self) -> Deferred[None]:
        """
        A new Deferred that fires when all that was there at one revision is in the target.

        :raises ServiceStopped: it was stopped before that.
        """
        return self._whole.wait()

    def at_least(self, revision: int, *, timeout: float | None = TIMEOUT) -> Deferred[int]:
        """
        Wait until the target has what the source had at a revision that changed something of it.

        :param timeout: seconds; None for any time.
        :return: fires with the mirror's revision.
        :raises DeadlineExceeded: it is not there yet; the mirror goes on.
        :raises ServiceStopped: it was stopped.
        """
        self._waiting.check_timeout(timeout)
        if to_int(revision, "revision") <= self._revision and self._revision:
            return succeed(self._revision)
        return self._waiting.wait(revision, timeout)

    @property
    def ended(self) -> Deferred[None]:
        """
        A new Deferred that fires with None after ``stopService``, and fails with anything else that ended it: its
        settings, or a client that was stopped.
        """
        return self._ended.wait()

    # --- its life ---------------------------------------------------------------------------------------------------

    def startService(self) -> None:
        """
        Begin to copy.

        :raises ServiceStopped: it was stopped.
        """
        if self._stopped:
            msg = f"{self!r} was stopped and cannot be started again: make a new one"
            raise ServiceStopped(msg)
        super().startService()  # type: ignore[no-untyped-call]
        if self._running is None:
            self._running = Deferred.fromCoroutine(self._run())
            self._running.addErrback(self._finished)

    def stopService(self) -> Deferred[None]:
        """
        Copy no further; what was being written may be applied.

        :return: fires when nothing is under way.
        """
        super().stopService()  # type: ignore[no-untyped-call]
        if not self._stopped:
            self._stopped = True
            if self._running is None:
                self._finished(Failure(CancelledError()))
            elif not self._telling:
                self._running.cancel()
        return self._over.wait()

    def _finished(self, failure: Failure) -> None:
        if self._stopped:
            stopped = Failure(ServiceStopped(f"{self!r} was stopped"))
            self._whole.fail(stopped)
            self._waiting.end(stopped)
            self._ended.fire(None)
        else:
            self._log.warn("{mirror!r} has ended: {why}", mirror=self, why=str(failure.value))
            self._whole.fail(failure)
            self._waiting.end(failure)
            self._ended.fail(failure)
        self._over.fire(None)

    # --- what it does -----------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        await self._meet()
        while True:
            await self._go_on()

    async def _go_on(self) -> None:
        """Until something comes between."""
        try:
            if self._revision == 0:
                await self._begin()
            await self._follow()
        except (Compacted, ClusterChanged) as error:
            self._log.info("{mirror!r} compares both sides: {why}", mirror=self, why=str(error))
            await self._lose(error)
        except Overtaken:
            self._log.info("{mirror!r} goes on behind another one.", mirror=self)
            self._revision = 0
            self._lost = False
            await deferLater(self._clock, self._backoff.next())
        except (*_TROUBLE, WatchEnded) as error:
            await self._wait(error)

    async def _meet(self) -> None:
        """Learn which clusters these are."""
        there = await self._patiently(lambda: self._target.get(self.dest_prefix or FIRST_KEY, count_only=True))
        here = await self._patiently(lambda: self._source.get(self.prefix or FIRST_KEY, count_only=True))
        self._cluster_id, self._met_at = here.header.cluster_id, here.header.revision
        if self._cluster_id == there.header.cluster_id:
            self._check_apart()

    def _check_apart(self) -> None:
        here, there = place_of(self._source)[1], place_of(self._target)[1]
        check_apart(
            here + self.prefix,
            there + self.dest_prefix,
            None if self._progress_key is None else there + self._progress_key,
        )

    async def _lose(self, why: Exception) -> None:
        """What happened since the last revision is not to be had."""
        await deferLater(self._clock, self._backoff.next())
        if isinstance(why, ClusterChanged):
            await self._meet()
        self._revision = 0
        self._lost = True

    async def _begin(self) -> None:
        """Go on where a mirror was, or copy all there is."""
        progress = await self._patiently(self._writing.read)
        known = progress is not None and progress.cluster_id == self._cluster_id
        if progress is not None and known and not self._lost and 0 < progress.revision <= self._met_at:
            self._copied = None
            self._revision = progress.revision
        elif self._start_revision and not self._lost:
            # Revision 1 is that of an empty store.
            self._revision = max(1, self._start_revision - 1)
        else:
            await self._copy()
        self._tell()

    async def _copy(self) -> None:
        """Make the target what the source is at one revision."""
        if self._copied is None and not self._delete_extra:
            self._log.warn("{mirror!r} cannot know what was deleted while no mirror ran.", mirror=self)
        here = Keys(self._source.scan(self.prefix, prefix=True), self._page)
        there = Keys(self._target.scan(self.dest_prefix, prefix=True), self._page)
        copied = set() if self._copied is None else self._copied
        found: set[bytes] = set()
        # What the target has is compared as it comes: both are in order.
        theirs = await there.next()
        while (kv := await here.next()) is not None:
            name = self._renaming.key(kv.key)
            if not name:
                continue
            while theirs is not None and theirs.key < name:
                await self._delete_if_extra(theirs.key)
                theirs = await there.next()
            if not self._delete_extra:
                found.add(kv.key)
                copied.add(kv.key)
            if theirs is None or theirs.key != name or not same(kv, theirs):
                await self._writing.fill(op.put(name, kv.value), self._cluster_id)
            if theirs is not None and theirs.key == name:
                theirs = await there.next()
        while theirs is not None:
            await self._delete_if_extra(theirs.key)
            theirs = await there.next()
        for key in sorted(copied - found):
            await self._writing.fill(op.delete(self._renaming.key(key)), self._cluster_id)
        await self._writing.filled(self._cluster_id, here.scan.revision)
        self._revision = here.scan.revision
        self._copied = found
        self._lost = False

    async def _delete_if_extra(self, key: bytes) -> None:
        if self._delete_extra and key != self._progress_key:
            await self._writing.fill(op.delete(key), self._cluster_id)

    async def _follow(self) -> None:
        self._arrivals = arrivals = Arrivals(self._revision)
        watch = self._source.watch(
            self.prefix,
            prefix=True,
            # The one that is known: an etcd that has compacted exactly to the next one may have forgotten deletions.
            start_revision=self._revision,
            progress_notify=True,
            callback=arrivals.came,
        )
        watch.ended.addErrback(arrivals.ended)
        try:
            while True:
                batch = await arrivals.next()
                for revision, events in revisions(batch.events, self._revision):
                    operations = [each for event in events if (each := self._renaming.operation(event)) is not None]
                    await self._writing.apply(operations, self._cluster_id, self._revision, revision)
                    self._revision = revision
                    self._note(events)
                self._revision = max(self._revision, batch.revision)
                self._tell()
        finally:
            arrivals.end()
            await watch.stop()

    def _tell(self) -> None:
        """Tell those who wait, who may call :meth:`stopService`."""
        self._telling = True
        try:
            self._whole.fire(None)
            self._waiting.reached(self._revision)
        finally:
            self._telling = False
        if self._stopped:
            raise CancelledError

    def _note(self, events: Iterable[Event]) -> None:
        if self._copied is None or self._delete_extra:
            return
        for event in events:
            if event.type is EventType.DELETE:
                self._copied.discard(event.kv.key)
            else:
                self._copied.add(event.kv.key)

    # --- in trouble -------------------------------------------------------------------------------------------------

    def _page(self, scan: Scan) -> Awaitable[tuple[KeyValue, ...]]:
        return self._patiently(scan.next)

    async def _patiently(self, ask: Callable[[], Awaitable[AnswerT]]) -> AnswerT:
        while True:
            try:
                answer = await ask()
            except Compacted:
                raise
            except _TROUBLE as error:
                await self._wait(error)
                continue
            self._well()
            return answer

    async def _wait(self, error: Exception) -> None:
        if not self._backoff.rounds:
            self._log.warn("{mirror!r} tries again: {why}", mirror=self, why=str(error))
        self._trouble = error
        await deferLater(self._clock, self._backoff.next())

    def _well(self) -> None:
        self._trouble = None
        self._backoff.reset()
