"""twisted-etcd, by its public names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from benchmarks.clients.client import OnEvents
from benchmarks.clients.reactor_loop import ReactorLoop
from benchmarks.clients.scenarios import Figures, Ready
from twisted_etcd import EtcdClient, EtcdService, Lease, MessageService, WatchBatch, compare, op
from twisted_etcd.client.carriers import OWN_STREAMS


class Ours:
    """An ``EtcdClient`` as it comes."""

    keeps_leases = True
    own_streams = OWN_STREAMS

    def __init__(self, reactor: Any, endpoint: str) -> None:  # noqa: ANN401 - any of Twisted's
        self.loop = ReactorLoop(reactor)
        self.port = urlsplit(endpoint).port or 0
        self.client = EtcdClient(reactor, endpoint, revoke_leases=False, own_streams=self.own_streams)

    def get(self, key: bytes) -> Any:  # noqa: ANN401 - awaited, and of no interest
        """See the protocol."""
        return self.client.get(key)

    def put(self, key: bytes, value: bytes) -> Any:  # noqa: ANN401 - awaited, and of no interest
        """See the protocol."""
        return self.client.put(key, value)

    async def read_range(self, prefix: bytes) -> int:
        """See the protocol."""
        answer = await self.client.get(prefix, prefix=True, timeout=60)
        return sum(1 for kv in answer.kvs if kv.key and kv.value)

    async def scan(self, prefix: bytes) -> int:
        """See the protocol."""
        count = 0
        pages = self.client.scan(prefix, prefix=True, timeout=60)
        while page := await pages.next():
            count += sum(1 for kv in page if kv.key and kv.value)
        return count

    async def put_all(self, keys: Sequence[bytes], value: bytes) -> object:
        """See the protocol."""
        return await self.client.txn(
            compare=[compare.version(keys[0], ">", -1)], success=[op.put(key, value) for key in keys], timeout=60
        )

    async def watch(self, key: bytes, on_events: OnEvents, *, prefix: bool = False, start_revision: int = 0) -> None:
        """See the protocol."""

        def came(batch: WatchBatch) -> None:
            on_events(len(batch.events))

        await self.client.watch(key, prefix=prefix, start_revision=start_revision, callback=came).ready

    async def grant(self, ttl: int) -> Lease:
        """See the protocol."""
        return await self.client.lease(ttl, timeout=60)

    async def keep(self, lease: Lease) -> None:
        """
        See the protocol: it was kept, or this fails.

        :raises RuntimeError: where it is lost.
        """
        if not lease.alive:
            msg = f"{lease!r} was lost"
            raise RuntimeError(msg)

    async def revoke(self, lease: Lease) -> None:
        """See the protocol."""
        await lease.revoke(timeout=60)

    def service(self) -> MessageService:
        """For a node: what answers ``EtcdGetReq``."""
        return EtcdService(self.client, self.loop.reactor)

    async def close(self) -> None:
        """See the protocol."""
        await self.client.stopService()


class OursOnOneWebSocket(Ours):
    """One whose watches all share a connection from the first one on."""

    own_streams = 0


async def revision(client: Ours, _: Ready) -> Figures:
    """The store's, as it is now."""
    answer = await client.client.get("revision", count_only=True)
    return {"revision": float(answer.header.revision)}


#: By name, beside those of :mod:`benchmarks.clients.scenarios`: what the process that writes is asked for.
WRITER_SCENARIOS = {"revision": revision}
