"""Lines of keys as tests look at them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred

from tests.wire import soon
from twisted_etcd.client.client import EtcdClient
from twisted_etcd.schema.kv import EventType, KeyValue, SortOrder, SortTarget


async def line_of(client: EtcdClient, prefix: str) -> list[KeyValue]:
    """Who stands in it, in order."""
    found = await client.get(prefix, prefix=True, sort_target=SortTarget.CREATE, sort_order=SortOrder.ASCEND)
    return list(found.kvs)


async def until_line(client: EtcdClient, prefix: str, condition: Callable[[int], bool]) -> None:
    """Until so many stand in it."""
    await soon(Deferred.fromCoroutine(_until_line(client, prefix, condition)))


async def _until_line(client: EtcdClient, prefix: str, condition: Callable[[int], bool]) -> None:
    now = await client.get(prefix, prefix=True)
    keys = {kv.key for kv in now.kvs}
    async with client.watch(prefix, prefix=True, start_revision=now.header.revision) as watch:
        while not condition(len(keys)):
            for event in (await watch.next()).events:
                if event.kv.mod_revision <= now.header.revision:
                    continue
                (keys.add if event.type is EventType.PUT else keys.discard)(event.kv.key)


async def lease_ids(client: EtcdClient) -> set[int]:
    """All leases that there are."""
    return {lease.ID for lease in (await client.leases()).leases}


def pending(deferred: Deferred[Any]) -> bool:
    """Whether it has not fired."""
    return not deferred.called
