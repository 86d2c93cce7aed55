"""Whether leases and registrations that count as alive are alive, and those that are not have said so."""

from __future__ import annotations

from contextlib import suppress

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IReactorTime

from tests.soak.history import Broken
from twisted_etcd.client.client import EtcdClient
from twisted_etcd.client.lease import Lease
from twisted_etcd.errors import LeaseLost, LeaseNotFound
from twisted_etcd.registry.registration import Registration
from twisted_etcd.registry.registry import Registry

#: Seconds.
LEASE_TTL = 10
_SERVICE = "soak"


class Leases:
    """
    Many leases of one client, each with a key; one that is lost is replaced.

    :ivar lost: how often one was lost, and had said so.
    """

    def __init__(self, client: EtcdClient, prefix: str, count: int) -> None:
        self.lost = 0
        self._client = client
        self._prefix = prefix
        self._count = count
        self._leases: dict[int, Lease] = {}
        self._made = 0

    async def fill_up(self) -> None:
        """Grant what is missing."""
        missing = self._count - len(self._leases)
        await gatherResults([self._client.lease(LEASE_TTL).addCallback(self._keep) for _ in range(missing)])
        await gatherResults([Deferred.fromCoroutine(self._put(lease)) for lease in tuple(self._leases.values())])

    async def _put(self, lease: Lease) -> None:
        try:
            await self._client.put(f"{self._prefix}{lease.id:x}", "here", lease=lease.id)
        except LeaseNotFound:
            # The next keepalive will say so; it is asked for now.
            with suppress(LeaseNotFound):
                await lease.keepalive_once()

    def _keep(self, lease: Lease) -> None:
        self._leases[lease.id] = lease
        lease.lost.addCallback(self._lost)

    def _lost(self, loss: LeaseLost) -> None:
        self.lost += 1
        self._leases.pop(loss.lease_id, None)

    async def check(self, direct: EtcdClient) -> int:
        """
        Compare with what etcd has; called when nothing is wrong with the cluster.

        :return: how many are alive.
        :raises Broken: one that counts as alive is not there, or its key is not.
        """
        before = {lease.id for lease in self._leases.values() if lease.alive}
        there = {lease.ID for lease in (await direct.leases()).leases}
        keys = {kv.key.decode().removeprefix(self._prefix) for kv in (await direct.get(self._prefix, prefix=True)).kvs}
        missing = [
            lease_id
            for lease_id in before - there
            # It may have been lost, and said so, while etcd was asked.
            if lease_id in self._leases and self._leases[lease_id].seconds_left > 0
        ]
        if missing:
            message = f"etcd does not have the leases {[f'{each:x}' for each in missing]}, which count as alive"
            raise Broken(message)
        keyless = [each for each in before & there if f"{each:x}" not in keys and each in self._leases]
        if keyless:
            message = f"the keys of the leases {[f'{each:x}' for each in keyless]} are gone, and the leases are not"
            raise Broken(message)
        return len(before)


class Registrations:
    """Instances of a service that are to stay registered, whatever happens."""

    def __init__(self, client: EtcdClient, clock: IReactorTime, count: int) -> None:
        self._registry = Registry(client, clock)
        # Each second one has a lease of its own; the others share one.
        self._addresses = [f"10.0.0.{number}:80" for number in range(1, count + 1)]
        self._registrations: list[Registration] = []

    async def start(self) -> None:
        """Register all."""
        self._registrations = [
            self._registry.register(_SERVICE, address, ttl=LEASE_TTL, own_lease=bool(number % 2))
            for number, address in enumerate(self._addresses)
        ]
        await gatherResults([each.registered for each in self._registrations])

    async def missing(self) -> list[str]:
        """Those that etcd does not have now."""
        there = {instance.id for instance in await self._registry.discover(_SERVICE)}
        return [address for address in self._addresses if address not in there]

    async def stop(self) -> None:
        """Take all back."""
        await self._registry.stopService()
