"""A namespace: what it reaches, what it does not, and what it shares with its client."""

from __future__ import annotations

from typing import Any, cast

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.defer import Deferred

from tests.wire import Event, soon
from twisted_etcd.client import compare, op
from twisted_etcd.client.client import EtcdClient
from twisted_etcd.client.namespace import Namespace, place_of
from twisted_etcd.client.prefixing import Prefixing
from twisted_etcd.config.configuration import Configuration
from twisted_etcd.errors import EmptyKey, InvalidSettings
from twisted_etcd.keys import TO_THE_END, KeyRange
from twisted_etcd.recipes.follower import Change, RangeFollower
from twisted_etcd.recipes.lock import Lock
from twisted_etcd.recipes.queue import Queue
from twisted_etcd.registry.registry import Registry
from twisted_etcd.schema import rpcs
from twisted_etcd.schema.election import CampaignRequest, LeaderRequest, ProclaimRequest, ResignRequest
from twisted_etcd.schema.kv import RangeResponse
from twisted_etcd.schema.lock import LockRequest, UnlockRequest

#: These ask etcd by ``call`` alone.
THROUGH_CALL = {"compact", "delete", "lease_revoke", "lease_time_to_live", "leases", "scan", "txn"}


def keys_of(response: RangeResponse) -> list[bytes]:
    return [kv.key for kv in response.kvs]


def test_every_method_of_a_client_is_one_of_a_namespace_or_asks_by_call() -> None:
    public = {name for name in vars(EtcdClient) if not name.startswith("_")}
    assert public - vars(Namespace).keys() == THROUGH_CALL


@pytest.mark.parametrize(
    ("keys", "meant"),
    [
        (KeyRange(b"k"), KeyRange(b"p\xffk")),
        (KeyRange.of("k", prefix=True), KeyRange(b"p\xffk", b"p\xffl")),
        (KeyRange.of(b"\xff", prefix=True), KeyRange(b"p\xff\xff", b"q")),
        (KeyRange.of("", prefix=True), KeyRange(b"p\xff\x00", b"q")),
        (KeyRange.of("k", from_key=True), KeyRange(b"p\xffk", b"q")),
        (KeyRange.of("a", range_end="z"), KeyRange(b"p\xffa", b"p\xffz")),
    ],
)
def test_no_range_leads_out_of_it(keys: KeyRange, meant: KeyRange) -> None:
    assert Prefixing(b"p\xff").keys(keys) == meant


def test_behind_a_prefix_at_the_end_of_all_keys_there_is_nothing() -> None:
    assert Prefixing(b"\xff\xff").end(TO_THE_END) == TO_THE_END


@pytest.mark.parametrize("prefix", ["", b""])
def test_an_empty_prefix_is_refused(client: EtcdClient, prefix: str | bytes) -> None:
    with pytest.raises(InvalidSettings, match="is empty, which is the client itself; give a prefix such as"):
        Namespace(client, prefix)


def test_what_is_no_client_and_no_prefix_is_named(client: EtcdClient) -> None:
    with pytest.raises(TypeError, match="must be an EtcdClient, not str"):
        Namespace(cast("Any", "http://127.0.0.1"), "p/")
    with pytest.raises(TypeError, match="prefix must be str or bytes, not int"):
        Namespace(client, cast("Any", 5))


@ensureDeferred
async def test_what_is_beside_it_is_neither_seen_nor_touched(client: EtcdClient, prefix: str) -> None:
    inside = Namespace(client, f"{prefix}in/")
    for key in ("in", "in/", "in/a", "in/b", "in0", "im"):
        await client.put(prefix + key, key)
    everything = [{"prefix": True}, {"from_key": True}]
    for options in everything:
        assert keys_of(await inside.get("", **cast("Any", options))) == [b"a", b"b"]
    assert [kv.key async for kv in inside.scan("", prefix=True, page=1)] == [b"a", b"b"]
    assert (await inside.get("in/a")).count == 0
    assert (await inside.txn([compare.version("", ">", 1, from_key=True)])).succeeded is False
    assert (await inside.txn([compare.version("", "=", 1, from_key=True)])).succeeded is True
    deleted = await inside.delete("", from_key=True, prev_kv=True)
    assert [kv.key for kv in deleted.prev_kvs] == [b"a", b"b"]
    left = await client.get(prefix, prefix=True)
    assert [key.decode().removeprefix(prefix) for key in keys_of(left)] == ["im", "in", "in/", "in0"]


@ensureDeferred
async def test_keys_of_transactions_in_transactions_are_below_the_prefix(client: EtcdClient, prefix: str) -> None:
    inside = Namespace(Namespace(client, prefix), "deep/")
    await inside.put("k", "old")
    done = await inside.txn(
        success=[op.txn([compare.value("k", "=", "old")], [op.put("k", "new", prev_kv=True), op.get("k")])]
    )
    nested = done.responses[0].response_txn
    assert nested is not None
    put, got = nested.responses
    assert put.response_put is not None
    assert put.response_put.prev_kv is not None
    assert put.response_put.prev_kv.key == b"k"
    assert got.response_range is not None
    assert keys_of(got.response_range) == [b"k"]
    assert keys_of(await client.get(prefix, prefix=True)) == [f"{prefix}deep/k".encode()]


@ensureDeferred
async def test_an_empty_key_is_none_of_its_keys_though_etcd_could_have_one_there(
    client: EtcdClient, prefix: str
) -> None:
    inside = Namespace(client, prefix)
    await client.put(prefix, "the prefix itself")
    for asking in (
        lambda: inside.get(""),
        lambda: inside.get("", range_end="z"),
        lambda: inside.put("", "v"),
        lambda: inside.delete(""),
        lambda: inside.txn([compare.version("", "=", 0)]),
        lambda: inside.txn(success=[op.txn(failure=[op.put("", "v")])]),
        lambda: inside.watch("").ended,
    ):
        with pytest.raises(EmptyKey, match="give a key that is not empty"):
            await soon(cast("Deferred[Any]", asking()))
    assert (await client.get(prefix)).kvs[0].version == 1


@ensureDeferred
async def test_a_lease_tells_of_its_keys_that_are_below_the_prefix(client: EtcdClient, prefix: str) -> None:
    inside = Namespace(client, prefix)
    lease = await inside.lease(60)
    await inside.put("mine", "", lease=lease.id)
    await client.put(f"beside{prefix}", "", lease=lease.id)
    assert (await inside.lease_time_to_live(lease.id, keys=True)).keys == (b"mine",)
    assert len((await client.lease_time_to_live(lease.id, keys=True)).keys) == 2
    await lease.revoke()
    assert (await inside.get("mine")).count == 0


@ensureDeferred
async def test_the_servers_locks_and_elections_have_their_keys_below_the_prefix(
    client: EtcdClient, prefix: str
) -> None:
    inside = Namespace(client, prefix)
    lease = await inside.lease(60)
    lock = await inside.call(rpcs.LOCK, LockRequest(name=b"lock", lease=lease.id))
    assert lock.key == f"lock/{lease.id:x}".encode()
    assert (await client.get(f"{prefix}lock/{lease.id:x}")).count == 1
    await inside.call(rpcs.UNLOCK, UnlockRequest(key=lock.key))
    won = (await inside.call(rpcs.CAMPAIGN, CampaignRequest(name=b"all", lease=lease.id, value=b"me"))).leader
    assert (won.name, won.key) == (b"all", f"all/{lease.id:x}".encode())
    await inside.call(rpcs.PROCLAIM, ProclaimRequest(leader=won, value=b"still me"))
    leader = (await inside.call(rpcs.LEADER, LeaderRequest(name=b"all"))).kv
    assert (leader.key, leader.value) == (won.key, b"still me")
    assert keys_of(await client.get(prefix, prefix=True)) == [prefix.encode() + won.key]
    await inside.call(rpcs.RESIGN, ResignRequest(leader=won))
    assert (await inside.get("", prefix=True)).count == 0


@ensureDeferred
async def test_it_ends_with_its_client_and_ends_nothing(client: EtcdClient, prefix: str) -> None:
    async with Namespace(client, prefix) as inside:
        watch = inside.watch("k")
        await soon(watch.ready)
    await inside.put("k", "v")
    assert (await soon(watch.next())).events[0].kv.key == b"k"
    assert inside.connection_count == client.connection_count
    assert inside.endpoints == client.endpoints
    assert await inside.sync() == client.endpoints


def test_it_knows_its_place(client: EtcdClient) -> None:
    inner = Namespace(Namespace(client, "a/"), b"b/")
    assert place_of(inner) == (client, b"a/b/")
    assert place_of(client) == (client, b"")
    assert repr(inner) == f"<Namespace b'b/' of <Namespace b'a/' of {client!r}>>"


@ensureDeferred
async def test_configuration_and_registration_live_in_it(client: EtcdClient, prefix: str) -> None:
    inside = Namespace(client, prefix)
    told: list[Change] = []
    changed = Event()

    def note(changes: tuple[Change, ...]) -> None:
        told.extend(changes)
        changed.happened()

    follower = RangeFollower(inside, cast("Any", reactor), "/config/", note, prefix=True)
    await soon(follower.start())
    configuration = Configuration(inside, cast("Any", reactor))
    await configuration.set("a/b", "1")
    assert await configuration.load("a/b") == b"1"
    await changed.until(lambda: bool(told))
    assert told[0].key == b"/config/a/b"
    await follower.stop()
    registry = Registry(inside, cast("Any", reactor))
    assert await registry.discover("web") == ()
    assert keys_of(await client.get(prefix, prefix=True)) == [f"{prefix}/config/a/b".encode()]


@ensureDeferred
async def test_locks_in_it_queue_with_those_of_the_client(client: EtcdClient, prefix: str) -> None:
    inside = Namespace(client, prefix)
    held, waiting = Lock(client, f"{prefix}name"), Lock(inside, "name")
    await held.acquire()
    assert await waiting.try_lock() is False
    acquiring = waiting.acquire()
    await held.release()
    token = await soon(acquiring)
    assert (await inside.txn([waiting.is_owner], [op.put("fenced", "")])).succeeded
    holder = (await client.get(f"{prefix}name/", prefix=True)).kvs
    assert [kv.create_revision for kv in holder] == [token]
    await waiting.release()
    queue = Queue(inside, "queue")
    await queue.enqueue("first")
    assert await soon(Queue(client, f"{prefix}queue").dequeue()) == b"first"
    assert keys_of(await client.get(prefix, prefix=True)) == [f"{prefix}fenced".encode()]
