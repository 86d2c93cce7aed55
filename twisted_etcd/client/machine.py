"""
A watch as a machine without I/O: what happened to it goes in, what is to be done about it comes out.

:class:`twisted_etcd.client.feed.WatchFeed` tells it what happened and does what it answers.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable

import msgspec
from msgspec.structs import replace

from twisted_etcd.client.position import (
    Created,
    Delivered,
    Interrupted,
    Step,
    WatchBatch,
    WatchPosition,
)
from twisted_etcd.errors import Compacted, EtcdError, FutureRevision, WatchEnded
from twisted_etcd.schema.kv import Event, EventType, KeyValue
from twisted_etcd.schema.watch import FilterType, WatchCreateRequest, WatchResponse


class WatchState(enum.Enum):
    """``NEW`` → ``READING`` ⇄ ``CARRIED`` ⇄ ``PAUSED``, and from each to ``OVER``."""

    NEW = "not begun"
    READING = "its keys are being read"
    CARRIED = "on a stream"
    PAUSED = "off its stream until its consumer has caught up"
    OVER = "nothing more will come"


class Carry(msgspec.Struct, frozen=True):
    """Put it on a stream, which asks for it what :meth:`WatchMachine.request` says then."""


class Leave(msgspec.Struct, frozen=True):
    """Take it off its stream, or end the reading under way."""


class Confirm(msgspec.Struct, frozen=True):
    """Tell the consumer that etcd has confirmed it."""

    revision: int


class Deliver(msgspec.Struct, frozen=True):
    """Give this to the consumer."""

    batch: WatchBatch


class Read(msgspec.Struct, frozen=True):
    """
    Read its keys, all of one revision.

    :ivar revision: the one to read; 0 for the present one.
    :ivar keys_only: whether the values are not wanted.
    """

    revision: int
    keys_only: bool


class Doubt(msgspec.Struct, frozen=True):
    """
    Find out which revision the cluster has.

    :ivar told: the one that the watch was told of.
    """

    told: int


class Reopen(msgspec.Struct, frozen=True):
    """Its stream is to be opened anew, at another member where there is one."""

    error: EtcdError


class Refused(msgspec.Struct, frozen=True):
    """Etcd serves it no longer on this stream, which knows whether a new token helps."""

    error: EtcdError | WatchEnded


class Finish(msgspec.Struct, frozen=True):
    """Tell the consumer that this ended it."""

    error: Exception


Action = Carry | Leave | Confirm | Deliver | Read | Doubt | Reopen | Refused | Finish
Actions = tuple[Action, ...]

_READ_KEYS = Read(0, keys_only=True)


class WatchMachine:
    """
    :param request: what the user asked for.
    :param resync: whether the keys are read again where etcd has compacted what comes next.
    :ivar confirmed: whether etcd has ever created it.
    """

    __slots__ = (
        "_hides_puts",
        "_keys",
        "_position",
        "_reading",
        "_request",
        "_rereads",
        "_resync",
        "_shows_progress",
        "confirmed",
        "state",
    )

    def __init__(self, request: WatchCreateRequest, *, resync: bool) -> None:
        self.state = WatchState.NEW
        self.confirmed = False
        self._shows_progress = request.progress_notify
        self._resync = resync
        self._hides_puts = FilterType.NOPUT in request.filters
        #: The keys that are there by what was read and delivered; None where nobody will ask for those that are gone.
        self._keys: set[bytes] | None = set() if resync and FilterType.NODELETE not in request.filters else None
        # Whoever is to know the keys sees every put.
        filters = request.filters if self._keys is None else ()
        # Progress is a bookmark: it lets a watch without events survive a compaction, whoever asked for it.
        self._request = replace(request, filters=filters, progress_notify=True)
        self._position = WatchPosition(request.start_revision)
        self._reading = _READ_KEYS
        #: Whether the reading is to be told as a difference.
        self._rereads = False

    @property
    def keys(self) -> tuple[bytes, bytes]:
        """The first key that is watched, and the end of the range."""
        return self._request.key, self._request.range_end

    # --- what its stream is asked for -------------------------------------------------------------------------------

    def request(self, watch_id: int) -> WatchCreateRequest:
        """What etcd is asked for now, under this id."""
        return replace(self._request, watch_id=watch_id, start_revision=self._position.start_revision)

    # --- what happened ----------------------------------------------------------------------------------------------

    def begin(self) -> Actions:
        """The watch is wanted."""
        first = self._position.next_revision
        # Before revision 1 there was nothing.
        if self._keys is None or first == 1:
            self.state = WatchState.CARRIED
            return (Carry(),)
        # What was there before the first wanted revision tells what is gone where a deletion was missed.
        return self._read(max(0, first - 1), keys_only=True)

    def _read(self, revision: int, *, keys_only: bool) -> Actions:
        self.state = WatchState.READING
        self._reading = Read(revision, keys_only=keys_only)
        return (self._reading,)

    def received(self, response: WatchResponse) -> Actions:
        """Its stream brought an answer."""
        if self.state is not WatchState.CARRIED:
            return ()
        step = self._position.received(response)
        return () if step is None else self._stepped(step)

    def _stepped(self, step: Step) -> Actions:
        if isinstance(step, Delivered):
            return self._delivered(step.batch)
        if isinstance(step, Created):
            self.confirmed = True
            # Where the keys were read first, all that came after that is delivered.
            revision = step.revision if self._request.start_revision else self._position.next_revision - 1
            # Last, since who hears of it can stop the watch.
            confirm = Confirm(revision)
            return (Doubt(self._position.told), confirm) if step.behind else (confirm,)
        if isinstance(step, Interrupted):
            return (Reopen(step.error),)
        return (Refused(step.error),)

    def _delivered(self, batch: WatchBatch) -> Actions:
        if not batch.events:
            return (Deliver(batch),) if self._shows_progress else ()
        if self._keys is None:
            return (Deliver(batch),)
        deletions = []
        for event in batch.events:
            if event.type is EventType.DELETE:
                self._keys.discard(event.kv.key)
                deletions.append(event)
            else:
                self._keys.add(event.kv.key)
        if not self._hides_puts:
            return (Deliver(batch),)
        return (Deliver(WatchBatch(tuple(deletions), batch.revision)),) if deletions else ()

    def broke(self) -> None:
        """Its stream is gone; the next answer comes from another."""
        self._position.broke()

    def failed(self, error: Exception) -> Actions:
        """No stream can carry it on."""
        if self.state is not WatchState.CARRIED:
            return ()
        if self._resync and isinstance(error, Compacted):
            return self._reread()
        return self._over(error)

    def _reread(self) -> Actions:
        self._rereads = True
        return self._read(0, keys_only=self._hides_puts)

    def _over(self, error: Exception) -> Actions:
        self.state = WatchState.OVER
        # Also where it has no stream any more: it may still wait for an answer.
        return (Leave(), Finish(error))

    def fell_behind(self) -> Actions:
        """Its consumer has too much to do."""
        if self.state is not WatchState.CARRIED:
            return ()
        self.state = WatchState.PAUSED
        return (Leave(),)

    def caught_up(self) -> Actions:
        """Its consumer has taken everything."""
        if self.state is not WatchState.PAUSED:
            return ()
        self.state = WatchState.CARRIED
        self._position.broke()
        return (Carry(),)

    def stopped(self) -> None:
        """The watch is wanted no longer, and has left its stream."""
        self.state = WatchState.OVER

    # --- what was read ----------------------------------------------------------------------------------------------

    def read(self, found: Iterable[KeyValue], revision: int, cluster_id: int) -> Actions:
        """Its keys are these at this revision."""
        if self.state is not WatchState.READING:
            return ()
        ended = self._position.found(cluster_id, revision, since=self._position.told)
        if ended is not None:
            return self._over(ended)
        present = tuple(found)
        before = self._keys
        if before is not None:
            self._keys = {kv.key for kv in present}
        self.state = WatchState.CARRIED
        if not self._rereads:
            if self._position.next_revision == 0:
                self._position.reread(revision)
            return (Carry(),)
        self._rereads = False
        if revision < self._position.next_revision - 1:
            # etcd was set back to before what is wanted, which is yet to come.
            return (Carry(),)
        events = [] if self._hides_puts else [Event(kv=kv) for kv in present if self._is_news(kv)]
        events += [
            Event(type=EventType.DELETE, kv=KeyValue(key=key, mod_revision=revision))
            for key in (before or set()) - (self._keys or set())
        ]
        events.sort(key=lambda event: (event.kv.mod_revision, event.kv.key))
        self._position.reread(revision)
        # Last, since what the consumer does with it can pause or stop the watch.
        return (Carry(), Deliver(WatchBatch(tuple(events), revision, resync=True)))

    def _is_news(self, kv: KeyValue) -> bool:
        return kv.mod_revision >= self._position.next_revision

    def unreadable(self, error: Exception) -> Actions:
        """Its keys cannot be read, and reading them again gives the same."""
        if self.state is not WatchState.READING:
            return ()
        first = self._position.next_revision
        if not self._rereads and isinstance(error, Compacted):
            if self._reading.revision == first - 1:
                # The watch itself may begin where etcd's history begins now.
                return self._read(first, keys_only=True)
            # What was there before is not to be known: what is there now is told.
            return self._reread()
        if not self._rereads and isinstance(error, FutureRevision):
            return self._read(0, keys_only=True)
        return self._over(error)

    def cluster_is_at(self, cluster_id: int, revision: int, *, doubted: int) -> Actions:
        """
        The cluster as a whole, and not one member, has this revision.

        :param doubted: the one that the watch had been told of when the cluster was asked.
        """
        if self.state is not WatchState.CARRIED:
            return ()
        ended = self._position.found(cluster_id, revision, since=doubted)
        return () if ended is None else self._over(ended)
