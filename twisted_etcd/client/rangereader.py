"""Reads a whole range for a watch, however long etcd is away."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from twisted_etcd.backoff import Backoff
from twisted_etcd.client.scan import PAGE, Scan
from twisted_etcd.errors import Compacted, EtcdError, NotEtcd, RequestFailed, TLSFailed
from twisted_etcd.schema.common import ResponseHeader
from twisted_etcd.schema.kv import KeyValue, RangeRequest, RangeResponse

AnswerT = TypeVar("AnswerT")


class Reading(msgspec.Struct, frozen=True):
    """
    A range as it was.

    :ivar found: its key-values.
    :ivar revision: the revision of all of them.
    :ivar cluster_id: whose they are.
    """

    found: list[KeyValue]
    revision: int
    cluster_id: int


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
        self, key: bytes, range_end: bytes, revision: int, *, keys_only: bool, worked: bool = True
    ) -> Reading:
        """
        All key-values of a range, page by page. Where the present revision is compacted before the last page has
        come, all of it is read again.

        :param revision: the one to read; 0 for the present one.
        :param worked: whether there was an etcd at these endpoints ever; else what is none there is no outage.
        :raises EtcdError: what no other try mends, such as ``PermissionDenied``, or ``Compacted`` for a revision that
            was asked for.
        :raises NotEtcd: where it never worked.
        :raises TLSFailed: likewise.
        """
        request = RangeRequest(key=key, range_end=range_end, limit=PAGE, revision=revision, keys_only=keys_only)
        backoff = Backoff(self._random)
        while True:
            try:
                return await self._pages(request, worked=worked)
            except Compacted as error:
                if revision:
                    raise
                self._log.info("{key!r} is read once more: {why}", key=key, why=str(error))
            await deferLater(self._clock, backoff.next())

    async def _pages(self, request: RangeRequest, *, worked: bool) -> Reading:
        cluster_id = 0

        def read(page: RangeRequest) -> Deferred[RangeResponse]:
            return self._read(page).addCallback(came)

        def came(response: RangeResponse) -> RangeResponse:
            nonlocal cluster_id
            cluster_id = response.header.cluster_id
            return response

        scan = Scan(read, request)
        found: list[KeyValue] = []
        while page := await self._patiently(scan.next, request.key, worked=worked):
            found.extend(page)
        return Reading(found, scan.revision, cluster_id)

    async def present(self, key: bytes) -> ResponseHeader:
        """The cluster as a whole, by a linearizable read of this key: its id, and its revision."""
        request = RangeRequest(key=key, count_only=True)
        response = await self._patiently(lambda: self._read(request), key, worked=True)
        return response.header

    async def _patiently(self, ask: Callable[[], Deferred[AnswerT]], key: bytes, *, worked: bool) -> AnswerT:
        backoff = Backoff(self._random)
        while True:
            try:
                return await ask()
            except (RequestFailed, EtcdError) as error:
                if _is_final(error, worked=worked):
                    raise
                if not backoff.rounds:
                    self._log.warn("{key!r} cannot be read, and is tried again: {why}", key=key, why=str(error))
            await deferLater(self._clock, backoff.next())


def _is_final(error: RequestFailed | EtcdError, *, worked: bool) -> bool:
    if isinstance(error, EtcdError):
        return not (error.concerns_member or error.may_be_applied)
    # More likely a wrong address or certificate than an outage.
    return isinstance(error, NotEtcd | TLSFailed) and not worked
