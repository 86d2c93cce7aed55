"""What the types say of recipes; read by mypy alone."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from twisted.internet.defer import Deferred, inlineCallbacks
from typing_extensions import assert_type

from twisted_etcd.client.client import EtcdClient
from twisted_etcd.client.namespace import Namespace
from twisted_etcd.errors import LeaseLost
from twisted_etcd.recipes.barrier import Barrier, DoubleBarrier
from twisted_etcd.recipes.cachedview import CachedView, ViewSnapshot
from twisted_etcd.recipes.counter import Counter
from twisted_etcd.recipes.election import Election, Observation
from twisted_etcd.recipes.lock import Lock, ReadLock, RWLock, WriteLock
from twisted_etcd.recipes.queue import PriorityQueue, Queue
from twisted_etcd.recipes.session import Session
from twisted_etcd.recipes.stm import Committed, Transaction, stm
from twisted_etcd.schema.kv import Compare, KeyValue, PutResponse, RangeResponse


async def sessions_and_locks(client: EtcdClient) -> None:
    async with Session(client, ttl=10) as session:
        assert_type(session, Session)
        assert_type(session.lease_id, int)
        assert_type(session.lost, Deferred[LeaseLost])
        lock = Lock(session, b"name")
        assert_type(await lock.acquire(timeout=1.5), int)
        assert_type(await lock.try_lock(), bool)
        assert_type(lock.is_owner, Compare)
        assert_type(lock.lost, Deferred[LeaseLost | None])
        assert_type(RWLock(client, "name", ttl=10).read_lock(), ReadLock)
        assert_type(RWLock(session, "name").write_lock(), WriteLock)
        async with lock as token:
            assert_type(token, int)


async def the_others(client: EtcdClient) -> None:
    election = Election(client, "name")
    assert_type(await election.campaign("me"), int)
    assert_type(await election.leader(), KeyValue | None)
    assert_type(election.observe(), Observation)
    async for leader in election.observe():
        assert_type(leader, KeyValue)
    assert_type(await Barrier(client, "name").release(), bool)
    assert_type(DoubleBarrier(client, "name", 2).enter(), Deferred[None])
    assert_type(await Queue(client, "name").dequeue(), bytes)
    assert_type(await PriorityQueue(client, "name").size(), int)


async def transactions(client: EtcdClient) -> None:
    async def awaits(transaction: Transaction) -> bytes | None:
        return await transaction.get("k")

    @inlineCallbacks
    def yields(transaction: Transaction) -> Generator[Deferred[Any], Any, int]:
        revision: int = yield transaction.rev("k")
        return revision

    def plain(transaction: Transaction) -> str:
        transaction.put("k", "v", lease=1)
        transaction.delete(b"l")
        return "done"

    assert_type(stm(client, awaits), Deferred[Committed[bytes | None]])
    assert_type(stm(client, yields, attempts=3), Deferred[Committed[int]])
    assert_type(stm(client, plain, prefetch=["k"]), Deferred[Committed[str]])
    assert_type((await stm(client, plain)).result, str)


async def views(client: EtcdClient) -> None:
    namespace = Namespace(client, "p/")
    assert_type(namespace.get("k"), Deferred[RangeResponse])
    assert_type(Counter(namespace, "n").add(), Deferred[int])
    view = CachedView(namespace, "")
    assert_type(view["k"], KeyValue)
    assert_type(view.get("k"), KeyValue | None)
    assert_type(view.snapshot(), ViewSnapshot)
    assert_type(view.at_least(5), Deferred[int])
    assert_type(await view.put("k", "v", lease=1), PutResponse)
