"""Reads a whole range for a watch, however long etcd is away."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from twisted_etcd.backoff import Backoff
from twisted_etcd.client.scan import PAGE, Scan
from twisted_etcd.errors import EtcdError, RequestFailed
from twisted_etcd.schema.kv import KeyValue, RangeRequest, RangeResponse

AnswerT = TypeVar("AnswerT")


class RangeReader:
    """
    Tries again, with growing waits, what another try can mend.

    :param read: sends a range request.
    :param random: gives numbers from 0 up to 1, for the waits.
    """

    _log = Logger()

    def __init__(
        self,
        read: Callable[[RangeRequest], Deferred[RangeResponse]],
        clock: IReactorTime,
        random: Callable[[], float],
    ) -> None:
        self._read = read
        self._clock = clock
        self._random = random

    async def whole(
        self, key: bytes, range_end: bytes, revision: int, *, keys_only: bool
    ) -> tuple[list[KeyValue], int]:
        """
        All key-values of a range, page by page, and their revision.

        :param revision: the one to read; 0 for the present one.
        :raises EtcdError: what no other try mends, such as ``Compacted`` or ``PermissionDenied``.
        """
        request = RangeRequest(key=key, range_end=range_end, limit=PAGE, revision=revision, keys_only=keys_only)
        scan = Scan(self._read, request)
        found: list[KeyValue] = []
        while page := await self._patiently(scan.next, key):
            found.extend(page)
        return found, scan.revision

    async def present_revision(self, key: bytes) -> int:
        """The revision of the cluster as a whole, by a linearizable read of this key."""
        request = RangeRequest(key=key, count_only=True)
        response = await self._patiently(lambda: self._read(request), key)
        return response.header.revision

    async def _patiently(self, ask: Callable[[], Deferred[AnswerT]], key: bytes) -> AnswerT:
        backoff = Backoff(self._random)
        while True:
            try:
                return await ask()
            except (RequestFailed, EtcdError) as error:
                if isinstance(error, EtcdError) and not (error.concerns_member or error.may_be_applied):
                    raise
                if not backoff.rounds:
                    self._log.warn("{key!r} cannot be read, and is tried again: {why}", key=key, why=str(error))
            await deferLater(self._clock, backoff.next())
