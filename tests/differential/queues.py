"""The locks and elections that the servers hold."""

from __future__ import annotations

from typing import Any, cast

from hypothesis import strategies as st
from hypothesis.stateful import rule

from tests.differential.both import Both
from tests.differential.strategies import LEASES, NO_LEASE, rarely, values
from twisted_etcd.errors import EtcdError
from twisted_etcd.keys import prefix_end
from twisted_etcd.schema import election, lock, rpcs
from twisted_etcd.schema.common import Message
from twisted_etcd.schema.kv import KeyValue, RangeRequest, SortOrder, SortTarget
from twisted_etcd.schema.lease import LeaseGrantRequest

LOCK, ELECTION = b"lock", b"vote"
names = st.sampled_from((LOCK, ELECTION))
holders = st.sampled_from((*LEASES, NO_LEASE))


class Queues(Both):
    """
    Who waits for a lock or an election is at its head at once, but where it is told to stand behind another.
    """

    def __init__(self) -> None:
        super().__init__()
        self._leaders: list[election.LeaderKey] = []

    def _line(self, name: bytes) -> tuple[KeyValue, ...]:
        """Who stands in line, the head of it first."""
        prefix = name + b"/"
        found: Any = self._ask(
            rpcs.RANGE,
            RangeRequest(
                key=prefix,
                range_end=prefix_end(prefix),
                sort_order=SortOrder.ASCEND,
                sort_target=SortTarget.CREATE,
            ),
        )
        return cast("tuple[KeyValue, ...]", found.kvs)

    def _wanting(self, name: bytes, lease: int, value: bytes) -> tuple[rpcs.RPC[Any, Any], Message]:
        if name == LOCK:
            return rpcs.LOCK, lock.LockRequest(name=name, lease=lease)
        return rpcs.CAMPAIGN, election.CampaignRequest(name=name, lease=lease, value=value)

    def _has(self, answer: Message | EtcdError) -> None:
        if isinstance(answer, election.CampaignResponse):
            self._leaders.append(answer.leader)

    @rule(name=names, lease=holders, value=values)
    def want(self, name: bytes, lease: int, value: bytes) -> None:
        line = self._line(name)
        if not line or line[0].lease == lease or lease == NO_LEASE:
            self._has(self._ask(*self._wanting(name, lease, value)))

    @rule(name=names, value=values, loses_its_key=rarely)
    def stand_behind_another(self, name: bytes, value: bytes, loses_its_key: bool) -> None:  # noqa: FBT001
        line = self._line(name)
        if len(line) != 1 or not line[0].lease:
            return
        other = next(each for each in LEASES if each != line[0].lease)
        self._ask(rpcs.LEASE_GRANT, LeaseGrantRequest(TTL=600, ID=other))
        rpc, request = self._wanting(name, other, value)
        leaving = [line[0].key]
        if loses_its_key:
            leaving.insert(0, b"%b/%x" % (name, other))
        answer = self.run(self._pair.ask_and_meanwhile(rpc, request, lambda: self._leave(name, leaving)))
        self._did(answer)
        self._has(answer)

    async def _leave(self, name: bytes, keys: list[bytes]) -> None:
        await self._pair.until_at(name + b"/", 2)
        for key in keys:
            await self._pair.ask(rpcs.UNLOCK, lock.UnlockRequest(key=key))

    @rule(name=names, number=st.integers(0, 3))
    def unlock(self, name: bytes, number: int) -> None:
        line = self._line(name)
        key = line[number % len(line)].key if line else b"lock/7b"
        self._ask(rpcs.UNLOCK, lock.UnlockRequest(key=key))

    @rule(value=values, number=st.integers(0, 3), wrong=rarely)
    def proclaim(self, value: bytes, number: int, wrong: bool) -> None:  # noqa: FBT001
        if self._leaders:
            leader = None if wrong else self._leaders[-1 - number % len(self._leaders)]
            self._ask(rpcs.PROCLAIM, election.ProclaimRequest(leader=leader, value=value))

    @rule(number=st.integers(0, 3))
    def resign(self, number: int) -> None:
        if self._leaders:
            leader = self._leaders[-1 - number % len(self._leaders)]
            self._ask(rpcs.RESIGN, election.ResignRequest(leader=leader))

    @rule(name=names)
    def leader(self, name: bytes) -> None:
        self._ask(rpcs.LEADER, election.LeaderRequest(name=name))
