"""The keys with their history: what etcd calls its multi-version store."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple, Protocol

from twisted_etcd.errors import Compacted, FutureRevision
from twisted_etcd.keys import TO_THE_END
from twisted_etcd.schema.kv import Event, EventType, KeyValue
from twisted_etcd.testing.memory.refusals import refusal


class Attachments(Protocol):
    """Who is told which keys hang on which lease."""

    def attach(self, lease: int, key: bytes) -> None:
        """The key ends with the lease from now on."""

    def detach(self, lease: int, key: bytes) -> None:
        """It does not any more."""


class Version(NamedTuple):
    """
    What became of a key.

    :ivar revision: when.
    :ivar kv: the key-value; None where the key was deleted.
    """

    revision: int
    kv: KeyValue | None


#: Told of each revision, with its events in their order.
Listener = Callable[[int, Sequence[Event]], None]


def includes(key: bytes, range_end: bytes, candidate: bytes) -> bool:
    """Whether a key is in a range, as the ``key`` and ``range_end`` of etcd's requests say it."""
    if not range_end:
        return candidate == key
    return candidate >= key and (range_end == TO_THE_END or candidate < range_end)


class Store:
    """
    All keys, at all revisions since the last compaction.

    :param leases: told of the keys that are attached to leases.
    :ivar revision: the newest one; a store begins with 1.
    :ivar old: whether it does as etcd 3.5.1 did: a compaction takes the deletions of its own revision as well.
    :ivar compacted: the lowest revision that can still be read; -1 before the first compaction.
    """

    def __init__(self, leases: Attachments) -> None:
        self.revision = 1
        self.compacted = -1
        self.old = False
        self._leases = leases
        self._keys: list[bytes] = []
        self._versions: dict[bytes, list[Version]] = {}
        self._events: list[Event] = []
        self._listeners: list[Listener] = []

    # --- reading ----------------------------------------------------------------------------------------------------

    def revision_to_read(self, wanted: int, newest: int) -> int:
        """
        The revision at which a request reads.

        :param wanted: as the request says it; 0 for the newest.
        :param newest: the newest that it may see.
        :raises Compacted: where it is no longer there.
        :raises FutureRevision: where it is not there yet.
        """
        if wanted <= 0:
            return newest
        if wanted > newest:
            raise refusal(FutureRevision)
        if wanted < self.compacted:
            raise refusal(Compacted)
        return wanted

    def at(self, key: bytes, revision: int) -> KeyValue | None:
        """The key as it was then; None where it was not there."""
        for version in reversed(self._versions.get(key, ())):
            if version.revision <= revision:
                return version.kv
        return None

    def read(self, key: bytes, range_end: bytes, revision: int) -> list[KeyValue]:
        """The keys of a range as they were then, in their order."""
        found = (self.at(each, revision) for each in self._known(key, range_end))
        return [kv for kv in found if kv is not None]

    def _known(self, key: bytes, range_end: bytes) -> Sequence[bytes]:
        if not range_end:
            return [key] if key in self._versions else []
        start = bisect_left(self._keys, key)
        stop = len(self._keys) if range_end == TO_THE_END else bisect_left(self._keys, range_end)
        return self._keys[start:stop]

    def events_from(self, revision: int) -> list[Event]:
        """What happened from a revision on, it included, as far as it is not forgotten."""
        start = bisect_left(self._events, revision, key=lambda event: event.kv.mod_revision)
        return self._events[start:]

    # --- writing ----------------------------------------------------------------------------------------------------

    @contextmanager
    def write(self) -> Iterator[Write]:
        """Changes that share a revision: the next one, where there are any."""
        write = Write(self, self._leases)
        yield write
        if write.events:
            self.revision += 1
            self._events += write.events
            for listener in tuple(self._listeners):
                listener(self.revision, write.events)

    def add_version(self, key: bytes, version: Version) -> None:
        """For :class:`Write` alone."""
        versions = self._versions.get(key)
        if versions is None:
            versions = self._versions[key] = []
            insort(self._keys, key)
        versions.append(version)

    def compact(self, revision: int) -> None:
        """
        Forget what can only be read before a revision.

        A deletion in that very revision can still be watched, unless :attr:`old` is set.

        :raises Compacted: where that was done already.
        :raises FutureRevision: where that revision is not there yet.
        """
        if revision <= self.compacted:
            raise refusal(Compacted)
        if revision > self.revision:
            raise refusal(FutureRevision)
        self.compacted = revision
        self._events = [
            event
            for event in self.events_from(revision)
            if event.kv.mod_revision > revision or event.type is not EventType.DELETE or not self.old
        ]
        for key in tuple(self._keys):
            self._compact_key(key, revision)

    def _compact_key(self, key: bytes, revision: int) -> None:
        versions = self._versions[key]
        old = [version for version in versions if version.revision <= revision]
        kept = [version for version in old[-1:] if version.kv is not None] + versions[len(old) :]
        if kept:
            self._versions[key] = kept
        else:
            del self._versions[key]
            del self._keys[bisect_left(self._keys, key)]

    # --- listening --------------------------------------------------------------------------------------------------

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Tell somebody of each new revision; what is returned ends it."""
        self._listeners.append(listener)

        def end() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)

        return end


class Write:
    """
    Changes under way.

    :ivar events: those that were made.
    """

    def __init__(self, store: Store, leases: Attachments) -> None:
        self.events: list[Event] = []
        self._store = store
        self._leases = leases
        self._next = store.revision + 1

    @property
    def revision(self) -> int:
        """The newest revision that reading sees: that of the changes, once there are any."""
        return self._next if self.events else self._store.revision

    def put(self, key: bytes, value: bytes, lease: int) -> int:
        """Write one key; the revision of that."""
        before = self._store.at(key, self._next)
        kv = KeyValue(
            key=key,
            value=value,
            lease=lease,
            create_revision=before.create_revision if before else self._next,
            mod_revision=self._next,
            version=before.version + 1 if before else 1,
        )
        if before and before.lease:
            self._leases.detach(before.lease, key)
        if lease:
            self._leases.attach(lease, key)
        self._add(EventType.PUT, kv, kv)
        return self._next

    def delete(self, key: bytes, range_end: bytes = b"") -> list[KeyValue]:
        """Delete a range; what was there."""
        gone = self._store.read(key, range_end, self._next)
        for kv in gone:
            if kv.lease:
                self._leases.detach(kv.lease, kv.key)
            self._add(EventType.DELETE, KeyValue(key=kv.key, mod_revision=self._next), None)
        return gone

    def _add(self, kind: EventType, shown: KeyValue, kept: KeyValue | None) -> None:
        self.events.append(Event(type=kind, kv=shown))
        self._store.add_version(shown.key, Version(self._next, kept))
