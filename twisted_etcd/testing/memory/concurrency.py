"""Locks and elections that the server holds for its clients."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted_etcd.errors import NoElectionLeader
from twisted_etcd.keys import prefix_end
from twisted_etcd.schema.election import LeaderKey
from twisted_etcd.schema.kv import Event, KeyValue
from twisted_etcd.testing.memory.leases import Leases
from twisted_etcd.testing.memory.refusals import refusal, unknown
from twisted_etcd.testing.memory.store import Store

#: The time to live of the lease that is made for somebody who brings none, in seconds.
_OWN_LEASE = 60
#: etcd's words.
_NOT_LEADER = "election: not leader"
_NO_LEADER_KEY = '"leader" field must be provided'


class Place:
    """
    A place in a line of keys, of which the one that was created first is its head.

    :param done: called once, when there is nobody before it.
    :ivar key: holds the place.
    :ivar revision: the revision at which that was created.
    :ivar taken_at: the revision that was seen when the place was taken, or found to be had already.
    :ivar lease: what it is held by.
    """

    def __init__(self, store: Store, leases: Leases, name: bytes, lease_id: int, done: Callable[[], None]) -> None:
        self.name = name
        self._store = store
        self._lease = leases.get(lease_id) if lease_id else leases.grant(_OWN_LEASE, 0)
        self._done: Callable[[], None] | None = done
        self._unlisten: Callable[[], None] | None = None
        self.lease = self._lease.id
        self.key = name + b"/%x" % self.lease
        self.revision = self.taken_at = 0

    @property
    def is_there(self) -> bool:
        """Whether its key is there: somebody can have deleted it meanwhile."""
        return self._store.at(self.key, self._store.revision) is not None

    def take(self, value: bytes, *, keep_value: bool) -> None:
        """
        Stand in line, or go on standing there.

        :param keep_value: leave the value that a place of the same lease has.
        """
        there = self._store.at(self.key, self._store.revision)
        self.taken_at = self._store.revision
        if there is None or (not keep_value and there.value != value):
            with self._store.write() as write:
                written = write.put(self.key, value, self.lease)
        if there is None:
            self.revision = self.taken_at = written
        else:
            self.revision = there.create_revision
        if self._is_head():
            self._finish()
        else:
            self._lease.waiting += 1
            self._unlisten = self._store.listen(self._changed)

    def leave(self) -> None:
        """Whoever wanted it has gone: the place is free again, unless it was at the head already."""
        if self._done is None:
            return
        self._done = None
        self._stop_waiting()
        with self._store.write() as write:
            write.delete(self.key)

    def _is_head(self) -> bool:
        prefix = self.name + b"/"
        others = self._store.read(prefix, prefix_end(prefix), self._store.revision)
        return all(kv.create_revision >= self.revision for kv in others)

    def _changed(self, _revision: int, _events: Sequence[Event]) -> None:
        if self._is_head():
            self._finish()

    def _finish(self) -> None:
        self._stop_waiting()
        done, self._done = self._done, None
        if done is not None:
            done()

    def _stop_waiting(self) -> None:
        if self._unlisten is not None:
            self._unlisten()
            self._unlisten = None
            self._lease.waiting -= 1


class Elections:
    """What can be done in an election beside standing for it."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def leader(self, name: bytes) -> KeyValue:
        """
        Who leads, and what it proclaims.

        :raises NoElectionLeader: where nobody leads.
        """
        prefix = name + b"/"
        kvs = self._store.read(prefix, prefix_end(prefix), self._store.revision)
        if not kvs:
            raise refusal(NoElectionLeader)
        return min(kvs, key=lambda kv: kv.create_revision)

    def proclaim(self, leader: LeaderKey | None, value: bytes) -> None:
        """
        Change what the leader proclaims.

        :raises EtcdError: where it does not lead.
        """
        if not self._holds(leader):
            raise unknown(_NOT_LEADER)
        with self._store.write() as write:
            write.put(self._named(leader).key, value, self._named(leader).lease)

    def resign(self, leader: LeaderKey | None) -> None:
        """
        Step down; nothing where somebody does not lead.

        :raises EtcdError: where the request does not say who.
        """
        if self._holds(leader):
            with self._store.write() as write:
                write.delete(self._named(leader).key)

    def _holds(self, leader: LeaderKey | None) -> bool:
        named = self._named(leader)
        there = self._store.at(named.key, self._store.revision)
        return there is not None and there.create_revision == named.rev

    def _named(self, leader: LeaderKey | None) -> LeaderKey:
        if leader is None:
            raise unknown(_NO_LEADER_KEY)
        return leader

    def observe(self, name: bytes, send: Callable[[KeyValue], None]) -> Callable[[], None]:
        """Tell of each leader and of each thing that it proclaims; what is returned ends it."""
        told: KeyValue | None = None

        def look(_revision: int, _events: Sequence[Event]) -> None:
            nonlocal told
            try:
                now = self.leader(name)
            except NoElectionLeader:
                return
            if told != now:
                told = now
                send(now)

        end = self._store.listen(look)
        look(0, ())
        return end
