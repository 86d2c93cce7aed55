"""An etcd without a network: a history of revisions, members that lag behind it, and what a watch of it is sent."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping

from twisted_etcd.client.position import WatchBatch
from twisted_etcd.errors import Compacted, FutureRevision
from twisted_etcd.schema.common import ResponseHeader
from twisted_etcd.schema.kv import Event, EventType, KeyValue
from twisted_etcd.schema.watch import FilterType, WatchCreateRequest, WatchResponse

#: The keys of a range, and one beside it.
INSIDE = (b"k0", b"k1", b"k2")
OUTSIDE = b"z"
RANGE = (b"k", b"l")


class ModelMember:
    """
    :ivar applied: how far it has come in the cluster's history.
    """

    def __init__(self, member_id: int) -> None:
        self.member_id = member_id
        self.applied = 1


class ModelEtcd:
    """
    A cluster.

    :ivar history: what was done to which key in each revision from 2 on: whether it was put.
    """

    def __init__(self, members: int = 2) -> None:
        self.cluster_id = 5
        self.members = [ModelMember(number + 1) for number in range(members)]
        self.history: list[Mapping[bytes, bool]] = []
        #: For each compaction the revision when it was made, and the one that it was made to.
        self._compactions: list[tuple[int, int]] = []

    @property
    def head(self) -> int:
        return 1 + len(self.history)

    @property
    def compacted(self) -> int:
        return max((to for _, to in self._compactions), default=0)

    def compacted_at(self, member: ModelMember) -> int:
        return max((to for made, to in self._compactions if made <= member.applied), default=0)

    # --- what happens to it -----------------------------------------------------------------------------------------

    def write(self, puts: Iterable[bytes], deletes: Iterable[bytes] = ()) -> None:
        """One revision, if anything is changed by it."""
        there = self.state(self.head)
        done = {**{key: False for key in deletes if key in there}, **dict.fromkeys(puts, True)}
        if done:
            self.history.append(done)

    def compact(self, to: int) -> None:
        if self.compacted < to <= self.head:
            self._compactions.append((self.head, to))

    def restore(self, revision: int) -> None:
        """As from a backup of that revision."""
        del self.history[revision - 1 :]
        self._compactions = [(made, to) for made, to in self._compactions if made <= revision]
        for member in self.members:
            member.applied = revision

    # --- what can be known of it ------------------------------------------------------------------------------------

    def state(self, revision: int) -> dict[bytes, int]:
        """The keys that were there, and when each was put."""
        state: dict[bytes, int] = {}
        for number, done in enumerate(self.history[: max(0, revision - 1)], 2):
            for key, put in done.items():
                if put:
                    state[key] = number
                else:
                    del state[key]
        return state

    def events(self, after: int, to: int, filters: Iterable[FilterType] = ()) -> list[Event]:
        """What a watch of the range is to be told of these revisions."""
        unwanted = {EventType.PUT if each is FilterType.NOPUT else EventType.DELETE for each in filters}
        events = [
            Event(type=EventType.PUT if put else EventType.DELETE, kv=KeyValue(key=key, mod_revision=revision))
            for revision in range(max(after + 1, 2), min(to, self.head) + 1)
            for key, put in self.history[revision - 2].items()
            if RANGE[0] <= key < RANGE[1]
        ]
        return [event for event in events if event.type not in unwanted]

    def read(self, revision: int) -> list[KeyValue]:
        """
        The range as a linearizable read finds it.

        :raises Compacted: as etcd does.
        :raises FutureRevision: likewise.
        """
        if revision > self.head:
            raise FutureRevision(FutureRevision.grpc_code, FutureRevision.messages[0])
        if revision and revision < self.compacted:
            raise Compacted(Compacted.grpc_code, Compacted.messages[0], self.compacted)
        state = self.state(revision or self.head)
        return [KeyValue(key=key, mod_revision=put) for key, put in sorted(state.items()) if key != OUTSIDE]

    def header(self, revision: int, member_id: int = 0) -> ResponseHeader:
        return ResponseHeader(cluster_id=self.cluster_id, member_id=member_id, revision=revision)


class ServedWatch:
    """
    A watch on one member, for as long as its stream lasts.

    :param first_revision: what its user asked for. At any other start that is exactly where the history was compacted
        to, a deletion in that revision is forgotten, as older etcds do.
    """

    def __init__(
        self, etcd: ModelEtcd, member: ModelMember, request: WatchCreateRequest, *, first_revision: int = 0
    ) -> None:
        self._etcd = etcd
        self._member = member
        self._request = request
        self._next = request.start_revision or member.applied + 1
        compacted = etcd.compacted_at(member)
        self._forgotten = compacted if compacted == self._next != first_revision else 0
        self._waiting = deque([self._answer(created=True)])
        self.ended = False

    def _answer(self, *, created: bool = False, canceled: bool = False, compact_revision: int = 0) -> WatchResponse:
        return WatchResponse(
            header=self._header,
            watch_id=self._request.watch_id,
            created=created,
            canceled=canceled,
            compact_revision=compact_revision,
        )

    @property
    def _header(self) -> ResponseHeader:
        return self._etcd.header(self._member.applied, self._member.member_id)

    @property
    def is_behind(self) -> bool:
        """Whether it has something to say."""
        return self.has_more or (not self.ended and self._next <= self._member.applied)

    @property
    def has_more(self) -> bool:
        """Whether something waits that was made already."""
        return bool(self._waiting)

    def say(self, revisions: int = 1, parts: int = 1) -> WatchResponse | None:
        """
        Its next answer, if it has one.

        :param revisions: of how many at most.
        :param parts: in how many answers they come.
        """
        if not self._waiting and self.is_behind:
            self._go_on(revisions, parts)
        return self._waiting.popleft() if self._waiting else None

    def _go_on(self, revisions: int, parts: int) -> None:
        compacted = self._etcd.compacted_at(self._member)
        if self._next < compacted:
            self.ended = True
            self._waiting.append(self._answer(canceled=True, compact_revision=compacted))
            return
        to = min(self._member.applied, self._next + revisions - 1)
        events = [
            event
            for event in self._etcd.events(self._next - 1, to, self._request.filters)
            if event.type is not EventType.DELETE or event.kv.mod_revision != self._forgotten
        ]
        self._next = to + 1
        while events:
            size = -(-len(events) // max(parts, 1))
            part, events = events[:size], events[size:]
            parts -= 1
            self._waiting.append(
                WatchResponse(
                    header=self._header, watch_id=self._request.watch_id, events=tuple(part), fragment=bool(events)
                )
            )

    def progress(self, *, watch_id: int | None = None) -> WatchResponse | None:
        """How far it has come, where it has all there is at this member."""
        if self.is_behind or self.ended:
            return None
        return WatchResponse(header=self._header, watch_id=self._request.watch_id if watch_id is None else watch_id)


class ModelConsumer:
    """
    Takes what a watch of the range delivers, and knows what it has to be.

    :ivar position: what has been delivered: everything up to this revision; None as long as the watch decides.
    :ivar blind: whether what was there before the watch began could not be read.
    """

    def __init__(
        self, etcd: ModelEtcd, start_revision: int, filters: Iterable[FilterType] = (), *, resync: bool
    ) -> None:
        self.position = start_revision - 1 if start_revision else None
        self.blind = False
        self._etcd = etcd
        self._filters = tuple(filters)
        self._resync = resync
        #: The keys that it was told of and that are there.
        self._known: set[bytes] = set()

    def begins_after(self, revision: int) -> None:
        """The watch has decided, unless it had."""
        if self.position is None:
            self.position = revision

    def missing(self, to: int) -> list[Event]:
        """What is yet to come of what has happened up to a revision."""
        return [] if self.position is None else self._etcd.events(self.position, to, self._filters)

    def took(self, batch: WatchBatch) -> None:
        assert self.position is not None
        assert batch.revision <= self._etcd.head
        if batch.resync:
            self._check_difference(batch, self.position)
        else:
            assert list(batch.events) == self.missing(batch.revision)
        for event in batch.events:
            (self._known.discard if event.type is EventType.DELETE else self._known.add)(event.kv.key)
        # An answer that the store is quiet still can tell of what was known.
        assert batch.revision > self.position or (batch.revision == self.position and not batch.events)
        self.position = batch.revision

    def _check_difference(self, batch: WatchBatch, position: int) -> None:
        assert self._resync
        before, now = self._etcd.state(position), self._etcd.state(batch.revision)
        for each in (before, now):
            each.pop(OUTSIDE, None)
        revisions = [event.kv.mod_revision for event in batch.events]
        assert revisions == sorted(revisions)
        puts = {event.kv.key: event.kv.mod_revision for event in batch.events if event.type is EventType.PUT}
        gone = {event.kv.key for event in batch.events if event.type is EventType.DELETE}
        new = {key: revision for key, revision in now.items() if revision > position}
        assert puts == ({} if FilterType.NOPUT in self._filters else new)
        if FilterType.NODELETE in self._filters:
            assert gone == set()
            return
        required = (self._known if self.blind else before.keys()) - now.keys()
        assert required <= gone
        assert not gone & now.keys()
        # Without puts the watch may know of a key that came and went since it last delivered something.
        assert gone == required or self.blind or FilterType.NOPUT in self._filters
