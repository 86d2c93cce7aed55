"""Watches: one stream, as etcd serves it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import msgspec

from twisted_etcd.errors import EtcdError, PermissionDenied
from twisted_etcd.keys import FIRST_KEY, TO_THE_END
from twisted_etcd.schema.common import ResponseHeader
from twisted_etcd.schema.kv import Event, EventType
from twisted_etcd.schema.watch import FilterType, WatchCreateRequest, WatchRequest, WatchResponse
from twisted_etcd.testing.memory.refusals import as_reason, refusal
from twisted_etcd.testing.memory.sizes import size_of
from twisted_etcd.testing.memory.store import Store, includes

#: How many revisions of the past come in one answer.
_REVISIONS_AT_ONCE = 1000
#: The id of a watch that was refused, and of progress that is about all watches.
_NONE = -1
#: What 3.5.1 says whatever the reason is, with the id that was asked for.
_DENIED = as_reason(refusal(PermissionDenied))
_FILTERED = {FilterType.NOPUT: EventType.PUT, FilterType.NODELETE: EventType.DELETE}

#: Why keys may not be watched; None where they may.
Permit = Callable[[bytes, bytes], "EtcdError | None"]


@dataclass(eq=False)
class _Watch:
    request: WatchCreateRequest
    watch_id: int
    #: Events before this one are not for it.
    start: int
    #: Whether nothing was said since progress was told the last time.
    idle: bool = field(default=True)
    #: Whether it was told that what it wants is compacted.
    over: bool = field(default=False)

    def events(self, events: Sequence[Event]) -> list[Event]:
        unwanted = {_FILTERED[each] for each in self.request.filters}
        return [
            event
            for event in events
            if event.kv.mod_revision >= self.start
            and includes(self.request.key, self.request.range_end, event.kv.key)
            and event.type not in unwanted
        ]


class WatchStream:
    """
    The watches of one connection.

    :param permit: says why keys may not be watched.
    :param header: makes the header of an answer, of its revision.
    :param send: takes the answers.
    :param max_answer: from how many bytes on the events of a watch are split, where it lets them.
    """

    def __init__(
        self,
        store: Store,
        permit: Permit,
        header: Callable[[int], ResponseHeader],
        send: Callable[[WatchResponse], None],
        max_answer: int,
    ) -> None:
        self._store = store
        self._permit = permit
        self._header = header
        self._send = send
        self._max_answer = max_answer
        self._watches: dict[int, _Watch] = {}
        self._next_id = 0
        self._unlisten = store.listen(self._changed)

    @property
    def wants_progress(self) -> bool:
        """Whether a watch wants to be told how far it is when nothing happens."""
        return any(watch.request.progress_notify and not watch.over for watch in self._watches.values())

    def take(self, request: WatchRequest) -> None:
        """What the client sent."""
        if request.create_request is not None:
            self._create(request.create_request)
        elif request.cancel_request is not None:
            watch = self._watches.pop(request.cancel_request.watch_id, None)
            if watch is not None:
                self._answer(watch.watch_id, canceled=True)
        elif request.progress_request is not None and (self._store.old or self._in_step):
            self._answer(_NONE)

    @property
    def _in_step(self) -> bool:
        """Whether there are watches, and none that waits for what is compacted."""
        return bool(self._watches) and not any(watch.over for watch in self._watches.values())

    def tell_progress(self) -> None:
        """Tell the watches that want it how far they are, those apart that had events since this was done last."""
        for watch in self._watches.values():
            if watch.request.progress_notify and watch.idle and not watch.over:
                self._answer(watch.watch_id)
            watch.idle = True

    def close(self) -> None:
        """The connection has gone."""
        self._watches.clear()
        self._unlisten()

    def _answer(self, watch_id: int, *, created: bool = False, canceled: bool = False, why: str = "") -> None:
        self._send(
            WatchResponse(
                header=self._header(self._store.revision),
                watch_id=watch_id,
                created=created,
                canceled=canceled,
                cancel_reason=why,
            )
        )

    # --- creation ---------------------------------------------------------------------------------------------------

    def _create(self, request: WatchCreateRequest) -> None:
        request = msgspec.structs.replace(request, key=request.key or FIRST_KEY)
        why = self._why_not(request)
        if why:
            unnamed = not (self._store.old and why == _DENIED)
            self._answer(_NONE if unnamed else request.watch_id, created=True, canceled=True, why=why)
            return
        start = request.start_revision or self._store.revision + 1
        watch = _Watch(request, self._new_id(request.watch_id), start)
        self._watches[watch.watch_id] = watch
        self._answer(watch.watch_id, created=True)
        if start < self._store.compacted:
            # etcd knows its id until it is cancelled all the same.
            watch.over = True
            self._send(
                WatchResponse(
                    # Without a revision.
                    header=self._header(0),
                    watch_id=watch.watch_id,
                    canceled=True,
                    compact_revision=self._store.compacted,
                )
            )
            return
        for events in _in_portions(self._store.events_from(start)):
            self._deliver(watch, events, self._store.revision)

    def _why_not(self, request: WatchCreateRequest) -> str:
        # As etcd does: of a watch up to the end of all keys it looks at the first key alone.
        forbidden = self._permit(request.key, b"" if request.range_end == TO_THE_END else request.range_end)
        if forbidden is not None:
            return _DENIED if self._store.old else as_reason(forbidden)
        if request.range_end not in {b"", TO_THE_END} and request.range_end <= request.key:
            return "mvcc: watcher range is empty"
        if request.watch_id and request.watch_id in self._watches:
            return "mvcc: duplicate watch ID provided on the WatchStream"
        return ""

    def _new_id(self, wanted: int) -> int:
        if wanted:
            return wanted
        while self._next_id in self._watches:
            self._next_id += 1
        self._next_id += 1
        return self._next_id - 1

    # --- events -----------------------------------------------------------------------------------------------------

    def _changed(self, revision: int, events: Sequence[Event]) -> None:
        for watch in tuple(self._watches.values()):
            self._deliver(watch, events, revision)

    def _deliver(self, watch: _Watch, events: Sequence[Event], revision: int) -> None:
        wanted = watch.events(events)
        if watch.over or not wanted:
            return
        watch.idle = False
        if watch.request.prev_kv:
            wanted = [self._with_previous(event) for event in wanted]
        response = WatchResponse(header=self._header(revision), watch_id=watch.watch_id, events=tuple(wanted))
        if watch.request.fragment:
            for part in _fragments(response, self._max_answer):
                self._send(part)
        else:
            self._send(response)

    def _with_previous(self, event: Event) -> Event:
        before = event.kv.mod_revision - 1
        if before < self._store.compacted:
            return event
        return msgspec.structs.replace(event, prev_kv=self._store.at(event.kv.key, before))


def _in_portions(events: Sequence[Event]) -> Iterator[list[Event]]:
    """The past in portions of so many revisions as etcd sends at once."""
    portion: list[Event] = []
    for number, (_, together) in enumerate(groupby(events, key=lambda event: event.kv.mod_revision), 1):
        portion += together
        if number % _REVISIONS_AT_ONCE == 0:
            yield portion
            portion = []
    if portion:
        yield portion


def _fragments(response: WatchResponse, max_answer: int) -> Iterator[WatchResponse]:
    """A response in parts of which each is small enough, or is one event."""
    parts: list[list[Event]] = [[]]
    size = 0
    for event in response.events:
        length = size_of(event)
        if parts[-1] and size + length >= max_answer:
            parts.append([])
            size = 0
        parts[-1].append(event)
        size += length
    for number, part in enumerate(parts, 1):
        yield msgspec.structs.replace(response, events=tuple(part), fragment=number < len(parts))
