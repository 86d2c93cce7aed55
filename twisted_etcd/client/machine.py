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
from twisted_etcd.errors import Compacted, EtcdError, FutureRevision, HistoryReplaced, WatchEnded
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
    """Find out which revision the cluster has."""


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


class WatchMachine:
    """
    :param request: what the user asked for.
    :param resync: whether the keys are read again where etcd has compacted what comes next.
    :ivar confirmed: whether etcd has ever created it.
    """

    def __init__(self, request: WatchCreateRequest, *, resync: bool) -> None:
        self.state = WatchState.NEW
        self.confirmed = False
        # Progress is a bookmark: it lets a watch without events survive a compaction, whoever asked for it.
        self._request = replace(request, progress_notify=True)
        self._shows_progress = request.progress_notify
        self._resync = resync
        self._position = WatchPosition(request.start_revision)
        #: The keys that are there by what was read and delivered, where they may have to be read again.
        self._keys: set[bytes] = set()
        #: Whether the next reading is to be told as a difference.
        self._rereads = False

    # --- what its stream is asked for -------------------------------------------------------------------------------

    def request(self, watch_id: int) -> WatchCreateRequest:
        """What etcd is asked for now, under this id."""
        return replace(self._request, watch_id=watch_id, start_revision=self._position.next_revision)

    # --- what happened ----------------------------------------------------------------------------------------------

    def begin(self) -> Actions:
        """The watch is wanted."""
        if self._resync:
            self.state = WatchState.READING
            # What was there before the first wanted revision tells what its deletion is.
            return (Read(max(0, self._position.next_revision - 1), keys_only=True),)
        self.state = WatchState.CARRIED
        return (Carry(),)

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
            return (Confirm(step.revision), Doubt()) if step.behind else (Confirm(step.revision),)
        if isinstance(step, Interrupted):
            return (Reopen(step.error),)
        return (Refused(step.error),)

    def _delivered(self, batch: WatchBatch) -> Actions:
        if self._resync:
            for event in batch.events:
                if event.type is EventType.DELETE:
                    self._keys.discard(event.kv.key)
                else:
                    self._keys.add(event.kv.key)
        return (Deliver(batch),) if batch.events or self._shows_progress else ()

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
        self.state = WatchState.READING
        self._rereads = True
        return (Read(0, keys_only=False),)

    def _over(self, error: Exception) -> Actions:
        self.state = WatchState.OVER
        return (Finish(error),)

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

    def stopped(self) -> Actions:
        """The watch is wanted no longer."""
        if self.state is WatchState.OVER:
            return ()
        self.state = WatchState.OVER
        return (Leave(),)

    # --- what was read ----------------------------------------------------------------------------------------------

    def read(self, found: Iterable[KeyValue], revision: int) -> Actions:
        """Its keys are these at this revision."""
        if self.state is not WatchState.READING:
            return ()
        if revision < self._position.told:
            return self._over(HistoryReplaced(self._position.told, revision))
        present = tuple(found)
        before, self._keys = self._keys, {kv.key for kv in present}
        self.state = WatchState.CARRIED
        if not self._rereads:
            if self._position.next_revision == 0:
                self._position.reread(revision)
            return (Carry(),)
        self._rereads = False
        batch = WatchBatch(self._difference(before, present, revision), revision, resync=True)
        self._position.reread(revision)
        # Last, since what the consumer does with it can pause or stop the watch.
        return (Carry(), Deliver(batch))

    def _difference(self, before: set[bytes], present: tuple[KeyValue, ...], revision: int) -> tuple[Event, ...]:
        events: list[Event] = []
        if FilterType.NOPUT not in self._request.filters:
            events += [Event(kv=kv) for kv in present if kv.mod_revision >= self._position.next_revision]
        if FilterType.NODELETE not in self._request.filters:
            gone = before - self._keys
            events += [Event(type=EventType.DELETE, kv=KeyValue(key=key, mod_revision=revision)) for key in gone]
        return tuple(sorted(events, key=lambda event: (event.kv.mod_revision, event.kv.key)))

    def unreadable(self, error: Exception) -> Actions:
        """Its keys cannot be read, and reading them again gives the same."""
        if self.state is not WatchState.READING:
            return ()
        if isinstance(error, Compacted):
            # What was there before is not to be known, or no longer: what is there now is told.
            return self._reread()
        if isinstance(error, FutureRevision) and not self._rereads:
            return (Read(0, keys_only=True),)
        # Reading it was the beginning of all; it is as if etcd had refused the watch.
        return self._over(error)

    def cluster_is_at(self, revision: int) -> Actions:
        """The cluster as a whole, and not one member, has this revision."""
        if self.state is not WatchState.CARRIED or revision >= self._position.told:
            return ()
        return (Leave(), *self._over(HistoryReplaced(self._position.told, revision)))
