"""Reading a range too large for one answer, page by page, as it was at one revision."""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace
from twisted.internet.defer import Deferred, succeed

from twisted_etcd.keys import TO_THE_END
from twisted_etcd.schema.kv import KeyValue, RangeRequest, RangeResponse

#: Key-values in a page, unless told otherwise.
PAGE = 1000


class Scan:
    """
    The key-values of a range in the order of their keys, all of one revision: that of the first page, or the one that
    was asked for.

    Take the pages with :meth:`next`, or the key-values with ``async for``.

    :param read: sends a range request.
    :param request: the range; its limit is the size of a page.
    :ivar revision: the revision that is read; 0 before the first page, where none was asked for.
    """

    def __init__(self, read: Callable[[RangeRequest], Deferred[RangeResponse]], request: RangeRequest) -> None:
        self.revision = request.revision
        self._read = read
        self._request: RangeRequest | None = request
        self._page: list[KeyValue] = []

    def next(self) -> Deferred[tuple[KeyValue, ...]]:
        """
        The next page; an empty one after the last.

        Ask for one page at a time. A page that failed can be asked for again.

        :raises Compacted: the revision was compacted before the last page was read.
        """
        request = self._request
        if request is None:
            return succeed(())
        return self._read(request).addCallback(self._got, request)

    def _got(self, response: RangeResponse, request: RangeRequest) -> tuple[KeyValue, ...]:
        if self.revision == 0:
            self.revision = response.header.revision
        if response.more and response.kvs:
            after_last = response.kvs[-1].key + TO_THE_END
            self._request = replace(request, key=after_last, revision=self.revision)
        else:
            self._request = None
        return response.kvs

    def __aiter__(self) -> Scan:
        return self

    async def __anext__(self) -> KeyValue:
        if not self._page:
            self._page = list(reversed(await self.next()))
        if not self._page:
            raise StopAsyncIteration
        return self._page.pop()
