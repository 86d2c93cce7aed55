"""etcd3gw: the JSON gateway, blocking."""

from __future__ import annotations

import base64
import threading
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import etcd3gw

from benchmarks.clients.client import OnEvents
from benchmarks.clients.loops import BlockingLoop

_PAGE = 1000


class Etcd3gw:
    """An ``Etcd3Client``."""

    keeps_leases = False

    def __init__(self, endpoint: str) -> None:
        at = urlsplit(endpoint)
        self.loop = BlockingLoop()
        self.port = urlsplit(endpoint).port or 0
        self.client: Any = etcd3gw.Etcd3Client(host=at.hostname or "", port=at.port or 0, timeout=60)
        self._cancels: list[Any] = []

    async def get(self, key: bytes) -> object:
        """See the protocol."""
        return self.client.get(key)

    async def put(self, key: bytes, value: bytes) -> object:
        """See the protocol."""
        return self.client.put(key, value)

    async def read_range(self, prefix: bytes) -> int:
        """See the protocol."""
        return sum(1 for value, kv in self.client.get_prefix(prefix) if value and kv["key"])

    async def scan(self, prefix: bytes) -> int:
        """See the protocol."""
        count = 0
        end = (prefix[:-1] + bytes([prefix[-1] + 1])).decode()
        key: bytes = prefix
        while page := self.client.get(key, metadata=True, range_end=end, limit=_PAGE):
            count += sum(1 for value, kv in page if value and kv["key"])
            key = page[-1][1]["key"] + b"\0"
        return count

    async def put_all(self, keys: Sequence[bytes], value: bytes) -> object:
        """See the protocol."""
        puts = [{"request_put": {"key": _base64(key), "value": _base64(value)}} for key in keys]
        holds = {"key": _base64(keys[0]), "result": "GREATER", "target": "VERSION", "version": -1}
        return self.client.transaction({"compare": [holds], "success": puts, "failure": []})

    async def watch(self, key: bytes, on_events: OnEvents, *, prefix: bool = False, start_revision: int = 0) -> None:
        """See the protocol; in a thread."""
        begin = self.client.watch_prefix if prefix else self.client.watch
        events, cancel = begin(key, start_revision=start_revision or None)
        self._cancels.append(cancel)

        def follow() -> None:
            for _ in events:
                on_events(1)

        threading.Thread(target=follow, daemon=True).start()

    async def grant(self, ttl: int) -> Any:  # noqa: ANN401 - a lease of etcd3gw's
        """See the protocol."""
        return self.client.lease(ttl)

    async def keep(self, lease: Any) -> None:  # noqa: ANN401 - a lease of etcd3gw's
        """See the protocol."""
        lease.refresh()

    async def revoke(self, lease: Any) -> None:  # noqa: ANN401 - a lease of etcd3gw's
        """See the protocol."""
        lease.revoke()

    async def close(self) -> None:
        """See the protocol."""
        for cancel in self._cancels:
            cancel()
        self.client.session.close()


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


async def connect(endpoint: str) -> Etcd3gw:
    """See :class:`~benchmarks.clients.client.Connect`."""
    return Etcd3gw(endpoint)
