"""What the types say of a client; read by mypy alone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from typing_extensions import assert_type

from twisted_etcd.client import compare, op
from twisted_etcd.client.client import EtcdClient
from twisted_etcd.client.lease import Lease
from twisted_etcd.client.position import WatchBatch
from twisted_etcd.client.scan import Scan
from twisted_etcd.client.snapshot import Snapshot
from twisted_etcd.client.watch import Watch
from twisted_etcd.errors import LeaseLost
from twisted_etcd.gateway.endpointset import EndpointStatus
from twisted_etcd.gateway.gateway import IGatewayReactor
from twisted_etcd.schema import rpcs
from twisted_etcd.schema.auth import AuthUserAddResponse, Permission
from twisted_etcd.schema.cluster import Member
from twisted_etcd.schema.kv import (
    CompactionResponse,
    Compare,
    DeleteRangeResponse,
    Event,
    KeyValue,
    PutResponse,
    RangeRequest,
    RangeResponse,
    RequestOp,
    SortOrder,
    SortTarget,
    TxnResponse,
)
from twisted_etcd.schema.lease import (
    LeaseGrantResponse,
    LeaseLeasesResponse,
    LeaseRevokeResponse,
    LeaseTimeToLiveResponse,
)
from twisted_etcd.schema.maintenance import StatusRequest, StatusResponse
from twisted_etcd.schema.watch import FilterType


def clients(reactor: IGatewayReactor) -> None:
    EtcdClient(reactor)
    EtcdClient(reactor, "http://a,http://b", username="u", password="p", request_timeout=1)
    EtcdClient(reactor, ["http://a"], random=lambda: 0.5)
    EtcdClient(reactor, timeout=5)  # type: ignore[call-arg]
    EtcdClient(reactor, 2379)  # type: ignore[arg-type]


async def key_values(client: EtcdClient) -> None:
    assert_type(client.get("k"), Deferred[RangeResponse])
    got = await client.get(
        b"k",
        prefix=True,
        limit=1,
        revision=2,
        sort_order=SortOrder.DESCEND,
        sort_target=SortTarget.MOD,
        serializable=True,
        keys_only=True,
        count_only=True,
        min_mod_revision=1,
        max_mod_revision=2,
        min_create_revision=3,
        max_create_revision=4,
        timeout=0.5,
    )
    assert_type(got.kvs, tuple[KeyValue, ...])
    assert_type(got.kvs[0].value, bytes)
    assert_type(got.kvs[0].mod_revision, int)
    assert_type(got.header.revision, int)
    assert_type(client.put("k", b"v", lease=1, prev_kv=True), Deferred[PutResponse])
    put = await client.put("k", "", ignore_value=True, ignore_lease=True)
    assert_type(put.prev_kv, "KeyValue | None")
    assert_type(client.delete("k", from_key=True, prev_kv=True), Deferred[DeleteRangeResponse])
    assert_type(client.compact(5, physical=True), Deferred[CompactionResponse])

    client.get(5)  # type: ignore[arg-type]
    client.get("k", limt=5)  # type: ignore[call-arg]
    client.get("k", limit="5")  # type: ignore[arg-type]
    client.put("k")  # type: ignore[call-arg]
    client.put("k", 5)  # type: ignore[arg-type]
    client.put("k", "v", prefix=True)  # type: ignore[call-arg]
    client.delete("k", limit=1)  # type: ignore[call-arg]


async def transactions(client: EtcdClient) -> None:
    assert_type(compare.value("k", "=", "v", prefix=True), Compare)
    assert_type(compare.version("k", ">", 0, range_end=b"z"), Compare)
    assert_type(op.get("k", prefix=True, limit=1), RequestOp)
    assert_type(op.txn([compare.lease("k", "!=", 5)], [op.put("k", "v", lease=5)], [op.delete("k")]), RequestOp)
    done = await client.txn([compare.mod_revision("k", "<", 5)], (op.get("k"),), failure=[op.put("k", "v")])
    assert_type(done, TxnResponse)
    assert_type(done.succeeded, bool)
    assert_type(done.responses[0].response_range, "RangeResponse | None")

    compare.value("k", "==", "v")  # type: ignore[arg-type]
    compare.value("k", "=", 5)  # type: ignore[arg-type]
    compare.version("k", "=", "5")  # type: ignore[arg-type]
    op.put("k", "v", prefix=True)  # type: ignore[call-arg]


async def scans(client: EtcdClient) -> None:
    scan = client.scan("k", prefix=True, page=5, revision=7, keys_only=True, serializable=True, timeout=1)
    assert_type(scan, Scan)
    assert_type(scan.next(), Deferred[tuple[KeyValue, ...]])
    async for kv in scan:
        assert_type(kv, KeyValue)
    iterator: AsyncIterator[KeyValue] = scan
    del iterator
    client.scan("k", sort_order=SortOrder.DESCEND)  # type: ignore[call-arg]


async def leases(client: EtcdClient) -> None:
    lease = await client.lease(5, lease_id=7, timeout=1)
    assert_type(lease, Lease)
    assert_type(lease.id, int)
    assert_type(lease.ttl, int)
    assert_type(lease.alive, bool)
    assert_type(lease.seconds_left, float)
    assert_type(lease.lost, Deferred[LeaseLost])
    assert_type(lease.keepalive_once(), Deferred[int])
    assert_type(lease.revoke(), Deferred[None])
    assert_type(client.lease_grant(5), Deferred[LeaseGrantResponse])
    assert_type(client.lease_revoke(5), Deferred[LeaseRevokeResponse])
    assert_type(client.lease_time_to_live(5, keys=True), Deferred[LeaseTimeToLiveResponse])
    assert_type(client.leases(), Deferred[LeaseLeasesResponse])

    client.lease("5")  # type: ignore[arg-type]
    client.put("k", "v", lease=lease)  # type: ignore[arg-type]


async def watches(client: EtcdClient) -> None:
    watch = client.watch(
        "k",
        prefix=True,
        start_revision=5,
        prev_kv=True,
        filters=[FilterType.NOPUT],
        progress_notify=True,
        max_backlog=5,
    )
    assert_type(watch, Watch)
    assert_type(watch.ready, Deferred[int])
    assert_type(watch.ended, Deferred[None])
    assert_type(watch.stop(), Deferred[None])
    assert_type(watch.next(), Deferred[WatchBatch])
    async for batch in watch:
        assert_type(batch, WatchBatch)
        assert_type(batch.events, tuple[Event, ...])
    async with client.watch("k") as entered:
        assert_type(entered, Watch)

    def plain(batch: WatchBatch) -> None: ...
    def deferred(batch: WatchBatch) -> Deferred[int]:
        return client.watch("k").ready

    async def coroutine(batch: WatchBatch) -> None: ...
    def wrong(batch: int) -> None: ...

    client.watch("k", callback=plain)
    client.watch("k", callback=deferred)
    client.watch("k", callback=coroutine)
    client.watch("k", callback=wrong)  # type: ignore[arg-type]
    client.watch("k", limit=5)  # type: ignore[call-arg]


async def upkeep(client: EtcdClient) -> None:
    assert_type(client.auth.user_add("u", "p"), Deferred[AuthUserAddResponse])
    assert_type((await client.auth.role_get("r")).perm, tuple[Permission, ...])
    client.auth.role_grant_permission("r", b"k", "read", prefix=True)
    client.auth.role_grant_permission("r", b"k", "all")  # type: ignore[arg-type]
    client.auth.user_add(b"u", "p")  # type: ignore[arg-type]
    assert_type((await client.cluster.members(linearizable=False)).members, tuple[Member, ...])
    client.cluster.member_add("http://h:1", learner=True)
    client.cluster.member_remove("5")  # type: ignore[arg-type]
    assert_type(client.maintenance.status("http://h:1"), Deferred[StatusResponse])
    assert_type(client.maintenance.snapshot(Path("p")), Deferred[Snapshot])
    client.maintenance.snapshot("p", progress=lambda done, total: done / total)
    client.maintenance.snapshot("p", progress=lambda done: None)  # type: ignore[arg-type,misc]
    client.maintenance.defragment()  # type: ignore[call-arg]
    client.maintenance.alarm_disarm(5, "FULL")  # type: ignore[arg-type]
    client.maintenance.downgrade("begin", "3.5.0")  # type: ignore[arg-type]


async def anything(client: EtcdClient) -> None:
    assert_type(client.call(rpcs.RANGE, RangeRequest(key=b"k")), Deferred[RangeResponse])
    assert_type(await client.call(rpcs.STATUS, StatusRequest(), timeout=5), StatusResponse)
    client.call(rpcs.STATUS, RangeRequest())  # type: ignore[misc]
    assert_type(client.endpoints, tuple[EndpointStatus, ...])
    assert_type(client.connection_count, int)
    assert_type(client.stopService(), Deferred[None])
    async with client as entered:
        assert_type(entered, EtcdClient)


def unused(*_: Any) -> None:  # noqa: ANN401
    """Names that only types are checked for."""


unused(clients, key_values, transactions, scans, leases, watches, upkeep, anything)
