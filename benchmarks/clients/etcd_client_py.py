"""etcd-client-py: the gRPC client of Rust in asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import etcd_client

from benchmarks.clients.client import OnEvents
from benchmarks.clients.loops import AsyncioLoop


class EtcdClientPy:
    """A communicator of ``etcd_client.Client``."""

    keeps_leases = False

    def __init__(self, endpoint: str) -> None:
        self.loop = AsyncioLoop()
        self.port = urlsplit(endpoint).port or 0
        self._connection: Any = etcd_client.Client([endpoint]).connect()
        self._talk: Any = None
        self._watching: list[Any] = []

    async def connect(self) -> None:
        """Connect."""
        self._talk = await self._connection.__aenter__()

    def get(self, key: bytes) -> Any:  # noqa: ANN401 - awaited, and of no interest
        """See the protocol."""
        return self._talk.get(key)

    def put(self, key: bytes, value: bytes) -> Any:  # noqa: ANN401 - awaited, and of no interest
        """See the protocol."""
        return self._talk.put(key, value)

    async def read_range(self, prefix: bytes) -> int:
        """See the protocol."""
        return sum(1 for key, value in await self._talk.get_prefix(prefix) if key and value)

    async def scan(self, prefix: bytes) -> int:
        """See the protocol: it takes no limit, so all in one answer."""
        return await self.read_range(prefix)

    async def put_all(self, keys: Sequence[bytes], value: bytes) -> object:
        """See the protocol."""
        holds = etcd_client.Compare.version(keys[0], etcd_client.CompareOp.GREATER, -1)
        puts = [etcd_client.TxnOp.put(key, value) for key in keys]
        return await self._talk.txn(etcd_client.Txn().when([holds]).and_then(puts))

    async def watch(self, key: bytes, on_events: OnEvents, *, prefix: bool = False, start_revision: int = 0) -> None:
        """
        See the protocol.

        :raises NotImplementedError: for a past revision.
        """
        if start_revision:
            raise NotImplementedError
        ready = etcd_client.CondVar()
        begin = self._talk.watch_prefix if prefix else self._talk.watch

        async def follow() -> None:
            async for _ in begin(key, ready_event=ready):
                on_events(1)

        waiting = asyncio.ensure_future(ready.wait())
        await asyncio.sleep(0)
        self._watching.append(asyncio.get_running_loop().create_task(follow()))
        await waiting

    async def grant(self, ttl: int) -> Any:  # noqa: ANN401 - as the protocol has it
        """
        See the protocol.

        :raises NotImplementedError: its ``lease_grant`` does not tell the lease's id.
        """
        raise NotImplementedError

    async def keep(self, lease: Any) -> None:  # noqa: ANN401 - as the protocol has it
        """
        See the protocol.

        :raises NotImplementedError: there is none.
        """
        raise NotImplementedError

    async def revoke(self, lease: Any) -> None:  # noqa: ANN401 - as the protocol has it
        """
        See the protocol.

        :raises NotImplementedError: there is none.
        """
        raise NotImplementedError

    async def close(self) -> None:
        """See the protocol."""
        for task in self._watching:
            task.cancel()
        await asyncio.gather(*self._watching, return_exceptions=True)
        await self._connection.__aexit__(None, None, None)


async def connect(endpoint: str) -> EtcdClientPy:
    """See :class:`~benchmarks.clients.client.Connect`."""
    client = EtcdClientPy(endpoint)
    await client.connect()
    return client
