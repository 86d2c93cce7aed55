"""The faults that come, each made in the cluster and taken back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from random import Random

from twisted.internet.defer import FirstError, gatherResults

from twisted_etcd.client.client import EtcdClient
from twisted_etcd.testing.cluster import EtcdCluster
from twisted_etcd.testing.member import ClusterMember

#: What a fault does: it may wait, and it has happened when it is done.
Fault = Callable[[], Awaitable[str]]


class Faults:
    """
    Makes one fault at a time.

    :param random: of the seed, so that the same faults come again in the same order.
    :param compact: compacts as much as the rest of the run can bear.
    """

    def __init__(
        self,
        cluster: EtcdCluster,
        random: Random,
        compact: Callable[[], Awaitable[int]],
        clients: tuple[EtcdClient, ...],
    ) -> None:
        self._cluster = cluster
        self._random = random
        self._compact = compact
        self._clients = clients
        self.kinds: dict[str, Fault] = {
            "kill the leader": lambda: self._to_leader(ClusterMember.kill),
            "kill a follower": lambda: self._to_follower(ClusterMember.kill),
            "terminate the leader": lambda: self._to_leader(ClusterMember.terminate),
            "terminate a follower": lambda: self._to_follower(ClusterMember.terminate),
            "pause the leader": lambda: self._to_leader(ClusterMember.pause),
            "pause a follower": lambda: self._to_follower(ClusterMember.pause),
            "isolate the leader": lambda: self._to_leader(ClusterMember.isolate),
            "isolate a follower": lambda: self._to_follower(ClusterMember.isolate),
            "pause two members": self._no_quorum,
            "move the leader": self._move,
            "replace a member": self._replace,
            "compact": self._compacted,
            "reset connections": lambda: self._to_proxies(lambda member: member.proxy.reset()),
            "reset new connections": lambda: self._to_one_proxy(lambda member: member.proxy.reset(on_accept=True)),
            "refuse connections": lambda: self._to_one_proxy(lambda member: member.proxy.refuse()),
            "swallow": lambda: self._to_one_proxy(lambda member: member.proxy.swallow()),
            "swallow answers": lambda: self._to_one_proxy(lambda member: member.proxy.swallow("answers")),
            "delay": lambda: self._to_proxies(lambda member: member.proxy.delay(self._random.uniform(0.02, 0.3))),
            "limit": lambda: self._to_proxies(lambda member: member.proxy.limit(self._random.randint(20_000, 200_000))),
            "cut requests": lambda: self._cut("requests"),
            "cut answers": lambda: self._cut("answers"),
            "cut everything off": lambda: self._to_proxies(lambda member: member.proxy.reset(on_accept=True)),
        }

    async def heal(self) -> None:
        """Take everything back; the cluster is whole again."""
        await self._cluster.heal()

    async def _to_leader(self, do: Callable[[ClusterMember], object]) -> str:
        return await _done(do, await self._cluster.leader())

    async def _to_follower(self, do: Callable[[ClusterMember], object]) -> str:
        return await _done(do, await self._follower())

    async def _follower(self) -> ClusterMember:
        leader = await self._cluster.leader()
        return self._random.choice([member for member in self._cluster.members if member is not leader])

    async def _no_quorum(self) -> str:
        members = self._random.sample(self._cluster.members, 2)
        for member in members:
            member.pause()
        return ", ".join(member.name for member in members)

    async def _move(self) -> str:
        return (await self._cluster.move_leader()).name

    async def _replace(self) -> str:
        member = await self._follower()
        await self._cluster.remove_member(member)
        newcomer = await self._cluster.add_member()
        try:
            await gatherResults([client.sync() for client in self._clients])
        except FirstError as error:
            return f"{member.name} by {newcomer.name}; not everybody knows yet: {error.subFailure.value}"
        return f"{member.name} by {newcomer.name}"

    async def _compacted(self) -> str:
        return f"to revision {await self._compact()}"

    async def _to_proxies(self, do: Callable[[ClusterMember], object]) -> str:
        for member in self._cluster.members:
            await _done(do, member)
        return "all"

    async def _to_one_proxy(self, do: Callable[[ClusterMember], object]) -> str:
        return await _done(do, self._random.choice(self._cluster.members))

    async def _cut(self, direction: str) -> str:
        count = self._random.randint(0, 3000)
        for member in self._cluster.members:
            member.proxy.cut_after(count, "requests" if direction == "requests" else "answers")
        return f"after {count} bytes"


async def _done(do: Callable[[ClusterMember], object], member: ClusterMember) -> str:
    result = do(member)
    if isinstance(result, Awaitable):
        await result
    return member.name
