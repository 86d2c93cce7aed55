"""Watches on a cluster whose members fail."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred, gatherResults

from tests.client.conftest import MakeClient
from tests.client.test_faults import CARRIERS, revisions_of
from tests.wire import soon
from twisted_etcd.client import op, vigil
from twisted_etcd.client.client import EtcdClient
from twisted_etcd.testing.cluster import EtcdCluster
from twisted_etcd.testing.member import ClusterMember

#: Operations in one transaction.
_AT_ONCE = 100


def others(cluster: EtcdCluster, member: ClusterMember) -> list[str]:
    return [each.endpoint for each in cluster.members if each is not member]


@pytest.fixture
def quick_vigil(monkeypatch: pytest.MonkeyPatch) -> None:
    """Members are asked so often that a test need not wait for seconds."""
    monkeypatch.setattr(vigil, "INTERVAL", 0.3)


@pytest.mark.usefixtures("quick_vigil")
@pytest.mark.parametrize(
    ("fault", "words"),
    [(ClusterMember.pause, "it did not answer within"), (ClusterMember.isolate, "no leader")],
    ids=["hangs", "has-no-leader"],
)
@ensureDeferred
async def test_watches_leave_a_member_that_says_nothing_by_itself(
    etcd_cluster: EtcdCluster,
    make_client: MakeClient,
    prefix: str,
    fault: Callable[[ClusterMember], Any],
    words: str,
) -> None:
    victim = etcd_cluster.members[0]
    clients = [make_client(endpoints=etcd_cluster.endpoints, own_streams=own_streams) for own_streams in (16, 0)]
    writer = make_client(endpoints=others(etcd_cluster, victim))
    watches = [client.watch(prefix, prefix=True) for client in clients]
    await soon(gatherResults([watch.ready for watch in watches]))
    fault(victim)
    await soon(etcd_cluster.leader())
    written = [(await soon(writer.put(prefix + "k", str(n), timeout=15))).header.revision for n in range(3)]
    for client, watch in zip(clients, watches, strict=True):
        assert await revisions_of(watch, 3) == written
        assert words in client.endpoints[0].why


@CARRIERS
@ensureDeferred
async def test_a_watch_goes_on_through_changes_of_the_leader(
    etcd_cluster: EtcdCluster, make_client: MakeClient, prefix: str, own_streams: int
) -> None:
    client = make_client(endpoints=etcd_cluster.endpoints, own_streams=own_streams)
    watch = client.watch(prefix, prefix=True)
    await soon(watch.ready)

    async def write(count: int) -> list[int]:
        return [(await soon(client.put(prefix + "k", str(n), timeout=15))).header.revision for n in range(count)]

    written = await write(5)
    await soon(etcd_cluster.move_leader())
    written += await write(5)
    leader = await soon(etcd_cluster.leader())
    await soon(leader.kill())
    await soon(etcd_cluster.leader())
    written += await write(5)
    await soon(leader.restart())
    written += await write(5)
    assert await revisions_of(watch, 20) == written


@ensureDeferred
async def test_thousands_of_watches_are_made_again_and_each_gets_its_event_once(
    etcd_cluster: EtcdCluster, make_client: MakeClient, prefix: str
) -> None:
    victim = etcd_cluster.members[0]
    client = make_client(endpoints=etcd_cluster.endpoints)
    writer = make_client(endpoints=others(etcd_cluster, victim))
    keys = [f"{prefix}{number}" for number in range(3000)]
    watches = [client.watch(key) for key in keys]
    await soon(gatherResults([watch.ready for watch in watches]))
    await soon(victim.kill())
    await soon(etcd_cluster.leader())
    for start in range(0, len(keys), _AT_ONCE):
        puts = [op.put(key, "v") for key in keys[start : start + _AT_ONCE]]
        await soon(writer.txn(success=puts, timeout=15))
    seen = await soon(gatherResults([watch.next() for watch in watches]))
    assert [[event.kv.key.decode() for event in batch.events] for batch in seen] == [[key] for key in keys]
    waiting = [watch.next() for watch in watches]
    last = await put_everywhere(writer, keys)
    again = await soon(gatherResults(waiting))
    assert {batch.revision for batch in again} == last
    assert client.connection_count <= 16 + 1 + 64


async def put_everywhere(writer: EtcdClient, keys: list[str]) -> set[int]:
    """One put for each key; the revisions."""
    revisions = set()
    for start in range(0, len(keys), _AT_ONCE):
        puts = [op.put(key, "w") for key in keys[start : start + _AT_ONCE]]
        revisions.add((await soon(writer.txn(success=puts, timeout=15))).header.revision)
    return revisions


@ensureDeferred
async def test_a_watch_leaves_a_member_that_is_removed(
    new_etcd_cluster: Callable[..., Deferred[EtcdCluster]], make_client: MakeClient, prefix: str
) -> None:
    cluster = await new_etcd_cluster()
    victim = cluster.members[0]
    clients = [make_client(endpoints=cluster.endpoints, own_streams=own_streams) for own_streams in (16, 0)]
    watches = [client.watch(prefix, prefix=True) for client in clients]
    await soon(gatherResults([watch.ready for watch in watches]))
    await soon(cluster.remove_member(victim))
    put = await soon(clients[0].put(prefix + "k", "v", timeout=15))
    for watch in watches:
        assert await revisions_of(watch, 1) == [put.header.revision]
