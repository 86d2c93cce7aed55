"""
The operations of a transaction: ``op.get``, ``op.put``, ``op.delete``, and ``op.txn`` for one inside another.

They take what the client's methods of the same names take.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from twisted_etcd.client.kv import DeleteOptions, PutOptions, RangeOptions, delete_request, put_request, range_request
from twisted_etcd.schema.kv import Compare, RequestOp, TxnRequest

if TYPE_CHECKING:
    from typing_extensions import Unpack


def get(key: str | bytes, **options: Unpack[RangeOptions]) -> RequestOp:
    """Read a key or a range; takes :class:`~twisted_etcd.client.kv.RangeOptions`."""
    return RequestOp(request_range=range_request(key, **options))


def put(key: str | bytes, value: str | bytes, **options: Unpack[PutOptions]) -> RequestOp:
    """Put a key; takes :class:`~twisted_etcd.client.kv.PutOptions`."""
    return RequestOp(request_put=put_request(key, value, **options))


def delete(key: str | bytes, **options: Unpack[DeleteOptions]) -> RequestOp:
    """Delete a key or a range; takes :class:`~twisted_etcd.client.kv.DeleteOptions`."""
    return RequestOp(request_delete_range=delete_request(key, **options))


def txn(
    compare: Iterable[Compare] = (), success: Iterable[RequestOp] = (), failure: Iterable[RequestOp] = ()
) -> RequestOp:
    """A transaction inside the transaction, with comparisons of its own."""
    return RequestOp(request_txn=txn_request(compare, success, failure))


def txn_request(
    compare: Iterable[Compare] = (), success: Iterable[RequestOp] = (), failure: Iterable[RequestOp] = ()
) -> TxnRequest:
    """The ``TxnRequest`` for these comparisons and operations."""
    return TxnRequest(compare=tuple(compare), success=tuple(success), failure=tuple(failure))
