"""What the types say of recipes; read by mypy alone."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.interfaces import IReactorTime
from typing_extensions import assert_type

from twisted_etcd.client.client import EtcdClient
from twisted_etcd.client.namespace import Namespace
from twisted_etcd.recipes.cachedview import CachedView, ViewSnapshot
from twisted_etcd.recipes.counter import Counter
from twisted_etcd.recipes.stm import Committed, Transaction, stm
from twisted_etcd.schema.kv import KeyValue, PutResponse, RangeResponse


async def transactions(client: EtcdClient, clock: IReactorTime) -> None:
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

    assert_type(stm(client, clock, awaits), Deferred[Committed[bytes | None]])
    assert_type(stm(client, clock, yields, attempts=3), Deferred[Committed[int]])
    assert_type(stm(client, clock, plain, prefetch=["k"]), Deferred[Committed[str]])
    assert_type((await stm(client, clock, plain)).result, str)


async def views(client: EtcdClient, clock: IReactorTime) -> None:
    namespace = Namespace(client, "p/")
    assert_type(namespace.get("k"), Deferred[RangeResponse])
    assert_type(Counter(namespace, clock, "n").add(), Deferred[int])
    view = CachedView(namespace, clock, "")
    assert_type(view["k"], KeyValue)
    assert_type(view.get("k"), KeyValue | None)
    assert_type(view.snapshot(), ViewSnapshot)
    assert_type(view.at_least(5), Deferred[int])
    assert_type(await view.put("k", "v", lease=1), PutResponse)
