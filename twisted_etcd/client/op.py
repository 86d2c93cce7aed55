"""
The operations of a transaction: ``op.get``, ``op.put``, ``op.delete``, and ``op.txn`` for one inside another.

They take what the client's methods of the same names take.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, TypeVar

from twisted_etcd.client.kv import DeleteOptions, PutOptions, RangeOptions, delete_request, put_request, range_request
from twisted_etcd.schema.kv import Compare, RequestOp, TxnRequest

if TYPE_CHECKING:
    from typing_extensions import Unpack

PartT = TypeVar("PartT", Compare, RequestOp)


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
    """
    The ``TxnRequest`` for these comparisons and operations.

    :raises TypeError: where one of the three is no list, or has something else in it.
    """
    return TxnRequest(
        compare=_parts(compare, "compare", Compare, "comparisons such as compare.version(key, '=', 0)"),
        success=_parts(success, "success", RequestOp, "operations such as op.put(key, value)"),
        failure=_parts(failure, "failure", RequestOp, "operations such as op.put(key, value)"),
    )


def _parts(given: Iterable[PartT], what: str, kind: type[PartT], such_as: str) -> tuple[PartT, ...]:
    if not isinstance(given, Iterable):
        msg = f"{what} must be a list of {such_as}, not {type(given).__name__}"
        raise TypeError(msg)
    parts = tuple(given)
    for part in parts:
        if not isinstance(part, kind):
            msg = f"{what} must be a list of {such_as}, and has one {type(part).__name__} in it"
            raise TypeError(msg)
    return parts
