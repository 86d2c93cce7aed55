"""Leases: what ends when nobody keeps it alive."""

from __future__ import annotations

from collections.abc import Callable

from twisted_etcd.errors import LeaseExists, LeaseNotFound, LeaseTTLTooLarge
from twisted_etcd.testing.memory.refusals import refusal

#: The shortest time to live that etcd grants where its election timeout is what it is by default, in seconds.
SHORTEST = 2
#: The longest that may be asked for, in seconds.
LONGEST = 9_000_000_000
#: Times that are nearer to each other than this are the same, in seconds: sums of them are not exact.
GRAIN = 1e-6


class Lease:
    """
    One lease.

    :ivar ttl: what was granted, in seconds.
    :ivar expires: when it ends, by the clock.
    :ivar keys: what ends with it.
    :ivar waiting: how many of etcd's own sessions keep it alive.
    """

    def __init__(self, lease_id: int, ttl: int, expires: float) -> None:
        self.id = lease_id
        self.ttl = ttl
        self.expires = expires
        self.keys: set[bytes] = set()
        self.waiting = 0


class Leases:
    """
    All leases.

    :param seconds: the time.
    :param shortest: the shortest time to live that is granted, in seconds.
    """

    def __init__(self, seconds: Callable[[], float], shortest: int = SHORTEST) -> None:
        self._seconds = seconds
        self._shortest = shortest
        self._leases: dict[int, Lease] = {}
        #: Where the ids begin that it chooses itself: they look like etcd's own.
        self._next_id = 0x6D656D0000000001

    def grant(self, ttl: int, lease_id: int) -> Lease:
        """
        Make a lease.

        :param lease_id: 0 for one that is chosen here.
        :raises LeaseExists: where the id is in use.
        :raises LeaseTTLTooLarge: where it would live for too long.
        """
        if not lease_id:
            while self._next_id in self._leases:
                self._next_id += 1
            lease_id, self._next_id = self._next_id, self._next_id + 1
        if ttl > LONGEST:
            raise refusal(LeaseTTLTooLarge)
        if lease_id in self._leases:
            raise refusal(LeaseExists)
        ttl = max(ttl, self._shortest)
        lease = self._leases[lease_id] = Lease(lease_id, ttl, self._seconds() + ttl)
        return lease

    def exists(self, lease_id: int) -> bool:
        """Whether there is such a lease."""
        return lease_id in self._leases

    def get(self, lease_id: int) -> Lease:
        """
        One lease.

        :raises LeaseNotFound: where there is none of that id.
        """
        lease = self._leases.get(lease_id)
        if lease is None:
            raise refusal(LeaseNotFound)
        return lease

    def take(self, lease_id: int) -> list[bytes]:
        """
        End a lease.

        :return: the keys that end with it, in their order.
        :raises LeaseNotFound: where there is none of that id.
        """
        lease = self.get(lease_id)
        del self._leases[lease_id]
        return sorted(lease.keys)

    def renew(self, lease_id: int) -> int:
        """Let it live for its whole time again; its time to live, 0 where there is no such lease."""
        lease = self._leases.get(lease_id)
        if lease is None:
            return 0
        lease.expires = self._seconds() + lease.ttl
        return lease.ttl

    def renew_all(self) -> None:
        """What a new leader does."""
        for lease_id in self._leases:
            self.renew(lease_id)

    def seconds_left(self, lease: Lease) -> int:
        """How long a lease has left, in whole seconds."""
        return int(lease.expires - self._seconds())

    def ids(self) -> list[int]:
        """The ids of all leases: the one that ends first is the first."""
        return [lease.id for lease in sorted(self._leases.values(), key=lambda lease: lease.expires)]

    # --- keys -------------------------------------------------------------------------------------------------------

    def attach(self, lease: int, key: bytes) -> None:
        """The key ends with the lease from now on."""
        self._leases[lease].keys.add(key)

    def detach(self, lease: int, key: bytes) -> None:
        """It does not any more."""
        if lease in self._leases:
            self._leases[lease].keys.discard(key)

    # --- time -------------------------------------------------------------------------------------------------------

    def next_end(self) -> float | None:
        """When the next one ends; None where there is none."""
        return min((lease.expires for lease in self._leases.values()), default=None)

    def overdue(self) -> int | None:
        """The id of a lease whose time is over, those of etcd's own sessions apart, which it keeps alive."""
        for lease in sorted(self._leases.values(), key=lambda lease: lease.expires):
            if lease.expires - self._seconds() > GRAIN:
                break
            if not lease.waiting:
                return lease.id
            self.renew(lease.id)
        return None
