"""Leases: what every server and every stand-in for one must do."""

from __future__ import annotations

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import gatherResults

from tests.client.conftest import MakeClient
from tests.wire import soon
from twisted_etcd.client.client import EtcdClient
from twisted_etcd.errors import LeaseExists, LeaseLost, LeaseNotFound, LeaseTTLTooLarge
from twisted_etcd.schema.kv import EventType

#: The shortest lease that servers grant is 2 s, whatever is asked for.
SHORT = 1


@ensureDeferred
async def test_a_lease_has_the_ttl_that_was_granted(client: EtcdClient) -> None:
    lease = await client.lease(60)
    assert lease.ttl == 60
    assert lease.id > 0
    assert lease.alive
    assert 50 < lease.seconds_left <= 60
    short = await client.lease(SHORT)
    assert short.ttl >= SHORT
    assert repr(short) == f"<Lease {short.id:x}, {short.ttl} s, alive>"


@ensureDeferred
async def test_leases_that_are_kept_alive_outlive_one_that_is_not(client: EtcdClient, prefix: str) -> None:
    # More than go into one keepalive request.
    kept = await gatherResults([client.lease(SHORT) for _ in range(250)])
    await client.put(prefix + "kept", "", lease=kept[-1].id)
    left = await client.lease_grant(SHORT)
    await client.put(prefix + "left", "", lease=left.ID)
    watch = client.watch(prefix, prefix=True)
    await soon(watch.ready)
    [gone] = (await soon(watch.next())).events
    assert (gone.type, gone.kv.key) == (EventType.DELETE, (prefix + "left").encode())
    assert all(lease.alive for lease in kept)
    there = {lease.ID for lease in (await client.leases()).leases}
    assert left.ID not in there
    assert {lease.id for lease in kept} <= there
    assert (await client.get(prefix + "kept")).count == 1
    await watch.stop()


@ensureDeferred
async def test_revoking_deletes_the_keys_at_one_revision(client: EtcdClient, prefix: str) -> None:
    lease = await client.lease(60)
    for key in "abc":
        await client.put(prefix + key, key, lease=lease.id)
    await client.put(prefix + "d", "without a lease")
    watch = client.watch(prefix, prefix=True)
    await soon(watch.ready)
    lost = lease.lost
    await lease.revoke()
    events = (await soon(watch.next())).events
    assert [(event.type, event.kv.key.decode().removeprefix(prefix)) for event in events] == [
        (EventType.DELETE, "a"),
        (EventType.DELETE, "b"),
        (EventType.DELETE, "c"),
    ]
    assert (await client.get(prefix, prefix=True)).count == 1
    reason = await soon(lost)
    assert isinstance(reason, LeaseLost)
    assert str(reason) == f"lease {lease.id:x} is lost: it was revoked"
    assert reason.lease_id == lease.id
    assert not lease.alive
    assert lease.seconds_left == 0
    assert repr(lease) == f"<Lease {lease.id:x}, 60 s, gone>"
    assert await soon(lease.lost) is reason
    await watch.stop()


@ensureDeferred
async def test_revoking_what_is_gone_is_no_error(client: EtcdClient) -> None:
    lease = await client.lease(60)
    await client.lease_revoke(lease.id)
    assert lease.alive
    await lease.revoke()
    await lease.revoke()
    assert not lease.alive
    # Whoever revoked it.
    assert str(await soon(lease.lost)) == f"lease {lease.id:x} is lost: etcd no longer has it"


@ensureDeferred
async def test_lost_fires_when_somebody_else_revokes_it(client: EtcdClient, make_client: MakeClient) -> None:
    lease = await client.lease(SHORT)
    listeners = [lease.lost, lease.lost]
    await make_client().lease_revoke(lease.id)
    for reason in await soon(gatherResults(listeners)):
        assert str(reason) == f"lease {lease.id:x} is lost: etcd no longer has it"
    assert not lease.alive


@ensureDeferred
async def test_keepalive_once_says_how_long_it_lives(client: EtcdClient) -> None:
    lease = await client.lease(60)
    assert await lease.keepalive_once() == 60
    assert lease.seconds_left > 59


@ensureDeferred
async def test_keepalive_once_finds_out_that_it_is_gone(client: EtcdClient) -> None:
    lease = await client.lease(60)
    lost = lease.lost
    await client.lease_revoke(lease.id)
    for _ in range(2):
        with pytest.raises(LeaseNotFound, match="grant a new lease"):
            await lease.keepalive_once()
        assert not lease.alive
    reason = await soon(lost)
    assert "etcd no longer has it" in str(reason)


@ensureDeferred
async def test_time_to_live_says_what_is_left_and_names_the_keys(client: EtcdClient, prefix: str) -> None:
    lease = await client.lease(60)
    await client.put(prefix + "b", "", lease=lease.id)
    await client.put(prefix + "a", "", lease=lease.id)
    bare = await client.lease_time_to_live(lease.id)
    assert (bare.ID, bare.grantedTTL, bare.keys) == (lease.id, 60, ())
    assert 50 < bare.TTL <= 60
    with_keys = await client.lease_time_to_live(lease.id, keys=True)
    assert sorted(with_keys.keys) == [(prefix + "a").encode(), (prefix + "b").encode()]


@ensureDeferred
async def test_time_to_live_of_no_lease_is_minus_one(client: EtcdClient) -> None:
    assert (await client.lease_time_to_live(12345)).TTL == -1


@ensureDeferred
async def test_leases_lists_them_all(client: EtcdClient) -> None:
    leases = await gatherResults([client.lease(60) for _ in range(3)])
    there = {lease.ID for lease in (await client.leases()).leases}
    assert {lease.id for lease in leases} <= there


@ensureDeferred
async def test_a_lease_can_have_an_id_of_ones_own_once(client: EtcdClient) -> None:
    lease = await client.lease(60, lease_id=77_001)
    assert lease.id == 77_001
    with pytest.raises(LeaseExists):
        await client.lease(60, lease_id=77_001)
    with pytest.raises(LeaseExists):
        await client.lease_grant(60, lease_id=77_001)
    # The second attempts took nothing from the first.
    assert lease.alive
    await lease.revoke()
    assert (await client.lease(60, lease_id=77_001)).alive


@ensureDeferred
async def test_a_lease_that_does_not_exist_cannot_be_revoked_by_its_id(client: EtcdClient) -> None:
    with pytest.raises(LeaseNotFound) as raised:
        await client.lease_revoke(12345)
    assert raised.value.code == 5
    assert str(raised.value) == "etcdserver: requested lease not found (etcd, code 5); grant a new lease"


@ensureDeferred
async def test_a_ttl_beyond_all_bounds_is_refused(client: EtcdClient) -> None:
    with pytest.raises(LeaseTTLTooLarge):
        await client.lease(9_000_000_001)


@ensureDeferred
async def test_a_client_that_stops_revokes_its_leases(client: EtcdClient, make_client: MakeClient, prefix: str) -> None:
    other = make_client()
    leases = await gatherResults([other.lease(60) for _ in range(20)])
    for number, lease in enumerate(leases):
        await other.put(f"{prefix}{number}", "", lease=lease.id)
    lost = gatherResults([lease.lost for lease in leases])
    await other.stopService()
    assert (await client.get(prefix, prefix=True)).count == 0
    assert {str(reason).partition(": ")[2] for reason in await soon(lost)} == {"it was revoked"}


@ensureDeferred
async def test_a_client_that_stops_leaves_its_leases_where_it_was_told_so(
    client: EtcdClient, make_client: MakeClient, prefix: str
) -> None:
    other = make_client(revoke_leases=False)
    lease = await other.lease(60)
    await other.put(prefix + "k", "", lease=lease.id)
    await other.stopService()
    reason = await soon(lease.lost)
    assert "left it to its TTL" in str(reason)
    assert (await client.get(prefix + "k")).count == 1
    await client.lease_revoke(lease.id)


@ensureDeferred
async def test_an_orphan_is_kept_and_revoked_by_nobody(
    client: EtcdClient, make_client: MakeClient, prefix: str
) -> None:
    other = make_client()
    lease, kept = await other.lease(SHORT), await other.lease(SHORT)
    await other.put(prefix + "orphan", "", lease=lease.id)
    watch = client.watch(prefix, prefix=True)
    await soon(watch.ready)
    lease.orphan()
    assert not lease.alive
    reason = await soon(lease.lost)
    assert "left to its TTL" in str(reason)
    # It has ended already, here.
    await lease.revoke()
    assert (await client.get(prefix + "orphan")).count == 1
    await soon(watch.next())
    assert kept.alive
    last = await other.lease(60)
    last.orphan()
    await other.stopService()
    assert last.id in {each.ID for each in (await client.leases()).leases}
    await client.lease_revoke(last.id)
    await watch.stop()
