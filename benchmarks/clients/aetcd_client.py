"""aetcd: gRPC in asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import aetcd

from benchmarks.clients.client import OnEvents
from benchmarks.clients.loops import AsyncioLoop


class Aetcd:
    """An ``aetcd.Client`` that may receive answers of any size."""

    keeps_leases = False

    def __init__(self, endpoint: str) -> None:
        at = urlsplit(endpoint)
        self.loop = AsyncioLoop()
        self.port = urlsplit(endpoint).port or 0
        self.client: Any = aetcd.Client(host=at.hostname, port=at.port, options={"grpc.max_receive_message_length": -1})
        self._watching: list[Any] = []

    def get(self, key: bytes) -> Any:  # noqa: ANN401 - awaited, and of no interest
        """See the protocol."""
        return self.client.get(key)

    def put(self, key: bytes, value: bytes) -> Any:  # noqa: ANN401 - awaited, and of no interest
        """See the protocol."""
        return self.client.put(key, value)

    async def read_range(self, prefix: bytes) -> int:
        """See the protocol."""
        # Its own documentation calls the raw key-values the quickest way.
        return sum(1 for kv in (await self.client.get_prefix(prefix)).kvs if kv.key and kv.value)

    async def scan(self, prefix: bytes) -> int:
        """See the protocol: it takes no limit, so all in one answer."""
        return await self.read_range(prefix)

    async def put_all(self, keys: Sequence[bytes], value: bytes) -> object:
        """See the protocol."""
        make = self.client.transactions
        return await self.client.transaction(
            compare=[make.version(keys[0]) > -1], success=[make.put(key, value) for key in keys], failure=[]
        )

    async def watch(self, key: bytes, on_events: OnEvents, *, prefix: bool = False, start_revision: int = 0) -> None:
        """See the protocol."""
        begin = self.client.watch_prefix if prefix else self.client.watch
        watch = await begin(key, start_revision=start_revision or None)

        async def follow() -> None:
            async for _ in watch:
                on_events(1)

        self._watching.append(asyncio.get_running_loop().create_task(follow()))

    async def grant(self, ttl: int) -> Any:  # noqa: ANN401 - a lease of aetcd's
        """See the protocol."""
        return await self.client.lease(ttl)

    async def keep(self, lease: Any) -> None:  # noqa: ANN401 - a lease of aetcd's
        """See the protocol."""
        await lease.refresh()

    async def revoke(self, lease: Any) -> None:  # noqa: ANN401 - a lease of aetcd's
        """See the protocol."""
        await lease.revoke()

    async def close(self) -> None:
        """See the protocol."""
        for task in self._watching:
            task.cancel()
        await asyncio.gather(*self._watching, return_exceptions=True)
        await self.client.close()


async def connect(endpoint: str) -> Aetcd:
    """See :class:`~benchmarks.clients.client.Connect`."""
    client = Aetcd(endpoint)
    await client.client.connect()
    return client
