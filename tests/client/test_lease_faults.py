"""What becomes of leases when networks and members fail: none is left behind, and none is lost without need."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.logger import capturedLogs

from tests.client.conftest import MakeClient
from tests.etcds import ONE_VERSION
from tests.wire import soon
from twisted_etcd.client.client import EtcdClient
from twisted_etcd.errors import LeaseExists, OutcomeUnknown, ServiceStopped
from twisted_etcd.testing.cluster import EtcdCluster
from twisted_etcd.testing.connections import Direction
from twisted_etcd.testing.proxy import FaultProxy

Grant = Callable[..., Deferred[Any]]

#: With keepalives and without.
METHODS = pytest.mark.parametrize("method", ["lease", "lease_grant"])
#: How far a grant gets: bytes of the request, or of its answer.
STAGES: list[tuple[Direction, int]] = [
    ("requests", 0),
    ("requests", 1),
    ("requests", 150),
    ("answers", 0),
    ("answers", 30),
    ("answers", -2),
]


async def ids(client: EtcdClient) -> set[int]:
    return {lease.ID for lease in (await client.leases()).leases}


async def id_of_the_one_more(client: EtcdClient, before: set[int]) -> int:
    """The id of the lease that is there, once it is."""
    while not (more := await ids(client) - before):
        pass
    [lease_id] = more
    return lease_id


# --- none is left behind --------------------------------------------------------------------------------------------


@METHODS
@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: f"{stage[0]}-{stage[1]}")
@ensureDeferred
async def test_a_grant_that_is_cut_at_any_stage_ends_with_the_one_lease_that_the_caller_gets(
    proxy: FaultProxy, make_client: MakeClient, client: EtcdClient, stage: tuple[Direction, int], method: str
) -> None:
    direction, count = stage
    before = await ids(client)
    holder = make_client(endpoints=proxy.endpoint)
    if count < 0:
        # From the end of an answer like it.
        known = await holder.lease_grant(60)
        count += proxy.answers
        await holder.lease_revoke(known.ID)
    await proxy.reset()
    proxy.cut_after(count, direction)
    connected = [proxy.next_connection()]
    granting: Deferred[Any] = getattr(holder, method)(60)
    for _ in range(3):
        # The last one is cut as well.
        await soon(connected.pop())
        connected.append(proxy.next_connection())
    await proxy.heal()
    lease = await soon(granting)
    connected.pop().addErrback(lambda failure: failure.trap(CancelledError, ServiceStopped)).cancel()
    lease_id = lease.id if method == "lease" else lease.ID
    assert await ids(client) - before == {lease_id}
    await holder.stopService()
    if method == "lease_grant":
        await client.lease_revoke(lease_id)
    assert await ids(client) <= before


@METHODS
@pytest.mark.parametrize("given_up", ["cancelled", "out of time", "client stopped"])
@ensureDeferred
async def test_a_lease_that_was_granted_to_nobody_is_revoked(
    proxy: FaultProxy, make_client: MakeClient, client: EtcdClient, given_up: str, method: str
) -> None:
    before = await ids(client)
    holder = make_client(endpoints=proxy.endpoint)
    await holder.get("warm")
    proxy.swallow("answers")
    granting: Deferred[Any] = getattr(holder, method)(60, timeout=0.4 if given_up == "out of time" else None)
    await soon(Deferred.fromCoroutine(id_of_the_one_more(client, before)))
    stopping: Deferred[None] | None = None
    if given_up == "cancelled":
        granting.cancel()
    elif given_up == "client stopped":
        stopping = holder.stopService()
    expected = {"cancelled": CancelledError, "out of time": OutcomeUnknown, "client stopped": ServiceStopped}
    with pytest.raises(expected[given_up]):
        await soon(granting)
    await proxy.heal()
    await soon(stopping or holder.stopService())
    assert await ids(client) <= before


@METHODS
@ensureDeferred
async def test_a_grant_that_reaches_etcd_late_is_taken_back_all_the_same(
    proxy: FaultProxy, make_client: MakeClient, client: EtcdClient, method: str
) -> None:
    before = await ids(client)
    holder = make_client(endpoints=proxy.endpoint)
    await holder.get("warm")
    proxy.delay(0.2, "requests")
    passed = proxy.requests
    granting: Deferred[Any] = getattr(holder, method)(60)
    # It is in the proxy now, and not yet with etcd.
    await client.get("one round trip")
    granting.cancel()
    assert proxy.requests == passed
    with pytest.raises(CancelledError):
        await granting
    await soon(holder.stopService())
    assert await ids(client) <= before


@ensureDeferred
async def test_a_lease_that_cannot_be_taken_back_before_the_stop_is_named_once(
    proxy: FaultProxy, make_client: MakeClient, client: EtcdClient
) -> None:
    before = await ids(client)
    holder = make_client(endpoints=proxy.endpoint, stop_timeout=0.3)
    await holder.get("warm")
    kept = await holder.lease(60)
    proxy.swallow("answers")
    granting = holder.lease(60)
    unknown = await soon(Deferred.fromCoroutine(id_of_the_one_more(client, before | {kept.id})))
    granting.cancel()
    with pytest.raises(CancelledError):
        await granting
    with capturedLogs() as logs:
        await soon(holder.stopService())
    [named] = [event["lease_ids"] for event in logs if "lease_ids" in event]
    assert sorted(named) == sorted([kept.id, unknown])
    assert "could not be revoked" in str(await kept.lost)
    await proxy.heal()
    for lease_id in await ids(client) - before:
        await client.lease_revoke(lease_id)


@ensureDeferred
async def test_an_id_of_ones_own_is_granted_once_and_revoked_by_nobody_else(
    proxy: FaultProxy, make_client: MakeClient, client: EtcdClient
) -> None:
    holder = make_client(endpoints=proxy.endpoint)
    proxy.cut_after(0)
    with pytest.raises(OutcomeUnknown):
        await soon(holder.lease(60, lease_id=77_002))
    await proxy.heal()
    with pytest.raises(LeaseExists):
        await soon(holder.lease(60, lease_id=77_002))
    await holder.stopService()
    assert 77_002 in await ids(client)
    await client.lease_revoke(77_002)


# --- none is lost without need --------------------------------------------------------------------------------------


async def until_a_ttl_has_passed(client: EtcdClient, ttl: int, prefix: str) -> None:
    """Until the key of a lease that nobody keeps has gone."""
    mark = await client.lease_grant(ttl)
    await client.put(prefix + "mark", "", lease=mark.ID)
    watch = client.watch(prefix + "mark")
    await soon(watch.next())
    await watch.stop()


@ONE_VERSION
@ensureDeferred
async def test_a_thousand_leases_outlive_a_leader_that_moves_and_one_that_is_killed(
    etcd_cluster: EtcdCluster, prefix: str
) -> None:
    async with EtcdClient(reactor, etcd_cluster.endpoints, stop_timeout=20) as client:
        leases = [lease for _ in range(10) for lease in await gatherResults([client.lease(10) for _ in range(100)])]
        await client.put(prefix + "kept", "", lease=leases[-1].id)
        await soon(etcd_cluster.move_leader())
        await (await soon(etcd_cluster.leader())).kill()
        await soon(etcd_cluster.leader())
        await until_a_ttl_has_passed(client, 10, prefix)
        assert [lease for lease in leases if not lease.alive] == []
        assert {lease.id for lease in leases} <= await ids(client)
        assert (await client.get(prefix + "kept")).count == 1
        # Those of the grants are still open.
        assert client.connection_count <= 3 * 64


@ONE_VERSION
@pytest.mark.parametrize("leads", [True, False], ids=["the leader", "a follower"])
@ensureDeferred
async def test_no_lease_is_lost_when_the_member_that_is_talked_to_hangs(
    etcd_cluster: EtcdCluster, prefix: str, *, leads: bool
) -> None:
    leader = await soon(etcd_cluster.leader())
    victim = next(member for member in etcd_cluster.members if (member is leader) is leads)
    others = [member.endpoint for member in etcd_cluster.members if member is not victim]
    async with EtcdClient(reactor, [victim.endpoint, *others]) as client, EtcdClient(reactor, others) as other:
        leases = await gatherResults([client.lease(5) for _ in range(200)])
        victim.pause()
        await soon(etcd_cluster.leader())
        await until_a_ttl_has_passed(other, 5, prefix)
        assert [lease for lease in leases if not lease.alive] == []
        victim.resume()
