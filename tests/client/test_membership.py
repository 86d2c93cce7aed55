"""Endpoints from etcd's own list of members."""

from __future__ import annotations

from collections.abc import Callable

from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred

from tests.client.conftest import MakeClient
from tests.wire import soon
from twisted_etcd.client.client import EtcdClient
from twisted_etcd.client.membership import client_urls
from twisted_etcd.gateway.endpointset import EndpointState
from twisted_etcd.schema.cluster import Member
from twisted_etcd.testing.cluster import EtcdCluster


def test_members_that_serve_nobody_are_left_out() -> None:
    members = [
        Member(name="a", clientURLs=("http://a:1", "http://a:2")),
        Member(name="", clientURLs=()),
        Member(name="learner", clientURLs=("http://l:1",), isLearner=True),
        Member(name="b", clientURLs=("http://b:1", "http://a:1")),
    ]
    assert client_urls(members) == ("http://a:1", "http://a:2", "http://b:1")


@ensureDeferred
async def test_sync_finds_all_members_by_one(etcd_cluster: EtcdCluster, make_client: MakeClient) -> None:
    client = make_client(endpoints=etcd_cluster.endpoints[1])
    found = await soon(client.sync())
    assert sorted(each.url for each in found) == sorted(etcd_cluster.endpoints)
    assert found == client.endpoints
    [used] = [each for each in found if each.url == etcd_cluster.endpoints[1]]
    assert used.state is EndpointState.SERVING


@ensureDeferred
async def test_sync_follows_members_that_come_and_go(
    new_etcd_cluster: Callable[..., Deferred[EtcdCluster]], make_client: MakeClient, prefix: str
) -> None:
    cluster = await new_etcd_cluster()
    client = make_client(endpoints=cluster.endpoints)
    await soon(client.put(prefix, "v", timeout=15))
    gone = cluster.members[0]
    await soon(cluster.remove_member(gone))
    await soon(cluster.add_member())
    found = await soon(client.sync(timeout=15))
    assert sorted(each.url for each in found) == sorted(cluster.endpoints)
    assert gone.endpoint not in [each.url for each in found]
    assert (await soon(client.get(prefix, timeout=15))).count == 1


@ensureDeferred
async def test_auto_sync_does_so_by_itself(etcd_cluster: EtcdCluster, make_client: MakeClient) -> None:
    client = make_client(endpoints=etcd_cluster.endpoints[0], auto_sync=0.05)
    while len(client.endpoints) < len(etcd_cluster.members):
        await soon(client.get("k"))
    assert sorted(each.url for each in client.endpoints) == sorted(etcd_cluster.endpoints)


@ensureDeferred
async def test_a_client_that_stops_looks_no_more(client: EtcdClient, make_client: MakeClient) -> None:
    synced = make_client(endpoints=client.endpoints[0].url, auto_sync=3600)
    asking = synced.sync()
    asking.addErrback(lambda _: None)
    await soon(synced.stopService())
    await soon(asking)
