"""A cluster that tests share."""

from __future__ import annotations

from collections.abc import Callable

from twisted_etcd.testing.cluster import EtcdCluster


class SharedCluster:
    """
    One cluster for many tests, one after the other.

    :param make: makes one that is not started yet.
    """

    def __init__(self, make: Callable[[], EtcdCluster]) -> None:
        self._make = make
        self._cluster: EtcdCluster | None = None
        self._names: list[str] = []

    @property
    def pids(self) -> frozenset[int]:
        """The processes that stay between tests; none while there is no cluster."""
        return frozenset() if self._cluster is None else self._cluster.pids

    @property
    def ports(self) -> frozenset[int]:
        """The ports on which this process listens for it between tests."""
        return frozenset() if self._cluster is None else self._cluster.ports

    async def whole(self) -> EtcdCluster:
        """
        The cluster without any fault: healed, or a new one where its members have changed.

        :raises TwistedEtcdError: where it cannot be healed; the next one who asks gets a new one then.
        :raises TimeoutError: likewise.
        """
        if self._cluster is not None and [member.name for member in self._cluster.members] == self._names:
            try:
                await self._cluster.heal()
            except Exception:
                await self.stop()
                raise
            return self._cluster
        await self.stop()
        self._cluster = self._make()
        self._cluster.startService()
        await self._cluster.when_ready()
        self._names = [member.name for member in self._cluster.members]
        return self._cluster

    async def stop(self) -> None:
        """End it; the next one who asks gets a new one."""
        cluster, self._cluster = self._cluster, None
        if cluster is not None:
            await cluster.stopService()
