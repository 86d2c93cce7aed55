"""Ranges: what etcd reads for each of a request's options."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from twisted_etcd.errors import EmptyKey
from twisted_etcd.schema.common import ResponseHeader
from twisted_etcd.schema.kv import KeyValue, RangeRequest, RangeResponse, SortOrder, SortTarget
from twisted_etcd.testing.memory.refusals import refusal
from twisted_etcd.testing.memory.store import Store

_SORT_KEYS: dict[SortTarget, Callable[[KeyValue], Any]] = {
    SortTarget.KEY: lambda kv: kv.key,
    SortTarget.VERSION: lambda kv: kv.version,
    SortTarget.CREATE: lambda kv: kv.create_revision,
    SortTarget.MOD: lambda kv: kv.mod_revision,
    SortTarget.VALUE: lambda kv: kv.value,
}


def check_range(request: RangeRequest) -> None:
    """
    What can be wrong with a request whatever is in the store.

    :raises EmptyKey: where it names no key.
    """
    if not request.key:
        raise refusal(EmptyKey)


def read_range(store: Store, request: RangeRequest, newest: int) -> RangeResponse:
    """
    Answer a range request.

    :param newest: the newest revision that it may see.
    :raises Compacted: where its revision is no longer there.
    :raises FutureRevision: where it is not there yet.
    """
    at = store.revision_to_read(request.revision, newest)
    kvs = store.read(request.key, request.range_end, at)
    count = len(kvs)
    header = ResponseHeader(revision=newest)
    if request.count_only:
        return RangeResponse(header=header, count=count)
    bounded = _bounds(request)
    if request.limit > 0 and request.sort_order is SortOrder.NONE and not bounded:
        # etcd reads no more than it needs, even where it sorts by something else than the key afterwards.
        del kvs[request.limit + 1 :]
    kvs = [kv for kv in kvs if all(within(kv) for within in bounded)]
    if request.sort_order is not SortOrder.NONE or request.sort_target is not SortTarget.KEY:
        kvs.sort(key=_SORT_KEYS[request.sort_target], reverse=request.sort_order is SortOrder.DESCEND)
    more = 0 < request.limit < len(kvs)
    if more:
        del kvs[request.limit :]
    if request.keys_only:
        kvs = [msgspec.structs.replace(kv, value=b"") for kv in kvs]
    return RangeResponse(header=header, kvs=tuple(kvs), more=more, count=count)


def _bounds(request: RangeRequest) -> list[Callable[[KeyValue], bool]]:
    bounds: list[Callable[[KeyValue], bool]] = []
    if request.max_mod_revision:
        bounds.append(lambda kv: kv.mod_revision <= request.max_mod_revision)
    if request.min_mod_revision:
        bounds.append(lambda kv: kv.mod_revision >= request.min_mod_revision)
    if request.max_create_revision:
        bounds.append(lambda kv: kv.create_revision <= request.max_create_revision)
    if request.min_create_revision:
        bounds.append(lambda kv: kv.create_revision >= request.min_create_revision)
    return bounds
