"""Readers and writers that go on while things happen to etcd, and what they were told."""

from __future__ import annotations

from collections.abc import Callable

from twisted_etcd.errors import OutcomeUnknown, RequestFailed, Unavailable
from twisted_etcd.gateway.gateway import Gateway
from twisted_etcd.schema import rpcs
from twisted_etcd.schema.kv import PutRequest, RangeRequest


class Writer:
    """
    Writes one key after the other, each once.

    :ivar told: None for each key whose write was confirmed, else the error's type.
    """

    def __init__(self, gateway: Gateway, prefix: bytes, value: bytes = b"written") -> None:
        self.told: dict[bytes, type[Exception] | None] = {}
        self._gateway = gateway
        self._prefix = prefix
        self._value = value

    async def write(self) -> None:
        key = b"%s/%06d" % (self._prefix, len(self.told))
        try:
            await self._gateway.unary(rpcs.PUT, PutRequest(key=key, value=self._value))
            self.told[key] = None
        except RequestFailed as error:
            self.told[key] = type(error)

    async def write_until(self, done: Callable[[], bool]) -> None:
        """Write until it is done, and once more."""
        over = False
        while not over:
            over = done()
            await self.write()

    async def check(self, gateway: Gateway) -> None:
        """What it was told is true: confirmed is there, unavailable is not, and nothing was written twice."""
        found = await gateway.unary(
            rpcs.RANGE, RangeRequest(key=self._prefix + b"/", range_end=self._prefix + b"0", keys_only=True)
        )
        versions = {pair.key: pair.version for pair in found.kvs}
        assert set(versions.values()) <= {1}
        assert {key for key, what in self.told.items() if what is None} <= set(versions)
        assert {key for key, what in self.told.items() if what is Unavailable} & set(versions) == set()
        assert set(self.told.values()) <= {None, OutcomeUnknown, Unavailable}


async def read_until(gateway: Gateway, done: Callable[[], bool]) -> None:
    """Read until it is done, and once more; fails with the first read that does."""
    over = False
    while not over:
        over = done()
        await gateway.unary(rpcs.RANGE, RangeRequest(key=b"whatever"))
