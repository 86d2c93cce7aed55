"""Writes and transactions: what etcd checks beforehand, and what it does."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from twisted_etcd.errors import (
    Compacted,
    DuplicateKey,
    EmptyKey,
    FutureRevision,
    KeyNotFound,
    LeaseNotFound,
    LeaseProvided,
    TooManyOperations,
    ValueProvided,
)
from twisted_etcd.schema.common import ResponseHeader
from twisted_etcd.schema.kv import (
    Compare,
    CompareResult,
    CompareTarget,
    DeleteRangeRequest,
    DeleteRangeResponse,
    KeyValue,
    PutRequest,
    PutResponse,
    RangeRequest,
    RequestOp,
    ResponseOp,
    TxnRequest,
    TxnResponse,
)
from twisted_etcd.testing.memory.ranges import check_range, read_range
from twisted_etcd.testing.memory.refusals import refusal
from twisted_etcd.testing.memory.store import Store, Write

#: Whether there is a lease of that id.
Exists = Callable[[int], bool]

# --- checks of the request alone ------------------------------------------------------------------------------------


def check_put(request: PutRequest) -> None:
    """
    What can be wrong with a put whatever is in the store.

    :raises EtcdError: what is.
    """
    if not request.key:
        raise refusal(EmptyKey)
    if request.ignore_value and request.value:
        raise refusal(ValueProvided)
    if request.ignore_lease and request.lease:
        raise refusal(LeaseProvided)


def check_delete(request: DeleteRangeRequest) -> None:
    """
    What can be wrong with a deletion whatever is in the store.

    :raises EmptyKey: where it names no key.
    """
    if not request.key:
        raise refusal(EmptyKey)


def check_txn(request: TxnRequest, max_operations: int) -> None:
    """
    What can be wrong with a transaction whatever is in the store.

    :raises EtcdError: what is.
    """
    _check_operations(request, max_operations)
    for branch in (request.success, request.failure):
        _written(branch)


def _check_operations(request: TxnRequest, max_operations: int) -> None:
    count = max(len(request.compare), len(request.success), len(request.failure))
    if count > max_operations:
        raise refusal(TooManyOperations)
    if not all(compare.key for compare in request.compare):
        raise refusal(EmptyKey)
    for operation in request.success + request.failure:
        if operation.request_range is not None:
            check_range(operation.request_range)
        elif operation.request_put is not None:
            check_put(operation.request_put)
        elif operation.request_delete_range is not None:
            check_delete(operation.request_delete_range)
        elif operation.request_txn is not None:
            _check_operations(operation.request_txn, max_operations - count)
        else:
            raise refusal(KeyNotFound)


#: A range that is deleted. Unlike elsewhere, etcd takes a range end of ``\x00`` for a key here.
_Span = tuple[bytes, bytes]


def _written(operations: Sequence[RequestOp]) -> tuple[set[bytes], list[_Span]]:
    """The keys and ranges that some operations write; no key may be written twice."""
    deletions = [
        (each.key, each.range_end or each.key + b"\x00")
        for each in (operation.request_delete_range for operation in operations)
        if each is not None
    ]
    puts: set[bytes] = set()
    for operation in operations:
        if operation.request_txn is None:
            continue
        (puts_then, then), (puts_else, otherwise) = map(
            _written, (operation.request_txn.success, operation.request_txn.failure)
        )
        _add_puts(puts_then, puts, deletions)
        # Only one of the two branches is taken.
        _add_puts(puts_else, puts - puts_then, deletions)
        puts |= puts_then | puts_else
        deletions += then + otherwise
    for operation in operations:
        if operation.request_put is not None:
            key = operation.request_put.key
            _add_puts({key}, puts, deletions)
            puts.add(key)
    return puts, deletions


def _add_puts(keys: Iterable[bytes], puts: set[bytes], deletions: Sequence[_Span]) -> None:
    for key in keys:
        if key in puts or any(start <= key < end for start, end in deletions):
            raise refusal(DuplicateKey)


# --- what is done ---------------------------------------------------------------------------------------------------


def put(store: Store, write: Write, request: PutRequest, exists: Exists) -> PutResponse:
    """
    Write one key.

    :raises LeaseNotFound: where there is no such lease.
    :raises KeyNotFound: where something of the key is to be kept and it is not there.
    """
    if request.lease and not exists(request.lease):
        raise refusal(LeaseNotFound)
    before = store.at(request.key, write.revision)
    if before is None and (request.ignore_value or request.ignore_lease):
        raise refusal(KeyNotFound)
    value = before.value if before and request.ignore_value else request.value
    lease = before.lease if before and request.ignore_lease else request.lease
    revision = write.put(request.key, value, lease)
    return PutResponse(header=ResponseHeader(revision=revision), prev_kv=before if request.prev_kv else None)


def delete(write: Write, request: DeleteRangeRequest) -> DeleteRangeResponse:
    """Delete a range."""
    gone = write.delete(request.key, request.range_end)
    return DeleteRangeResponse(
        header=ResponseHeader(revision=write.revision),
        deleted=len(gone),
        prev_kvs=tuple(gone) if request.prev_kv else (),
    )


class Transaction:
    """
    One transaction, from the comparisons to the answer.

    All comparisons are made first, those of transactions within it too.

    :param exists: whether there is a lease of an id.
    """

    def __init__(self, store: Store, request: TxnRequest, exists: Exists) -> None:
        self._store = store
        self._request = request
        self._exists = exists
        self._path: list[bool] = []

    def run(self) -> TxnResponse:
        """
        Do it, wholly or not at all.

        :raises EtcdError: where one of its operations cannot be done.
        """
        self._choose(self._request)
        decided = iter(self._path)
        puts, ranges = self._chosen(self._request, decided)
        for each in puts:
            self._check_put(each)
        for wanted in ranges:
            self._check_range(wanted)
        with self._store.write() as write:
            answer = self._apply(write, self._request, iter(self._path), ResponseHeader())
            revision = write.revision
        return TxnResponse(
            header=ResponseHeader(revision=revision), succeeded=answer.succeeded, responses=answer.responses
        )

    def _choose(self, request: TxnRequest) -> None:
        """Note which branch is taken, of each transaction in the order in which they come."""
        holds = all(self._holds(compare) for compare in request.compare)
        self._path.append(holds)
        for operation in request.success if holds else request.failure:
            if operation.request_txn is not None:
                self._choose(operation.request_txn)

    def _chosen(self, request: TxnRequest, path: Iterator[bool]) -> tuple[list[PutRequest], list[RangeRequest]]:
        puts: list[PutRequest] = []
        ranges: list[RangeRequest] = []
        for operation in request.success if next(path) else request.failure:
            if operation.request_put is not None:
                puts.append(operation.request_put)
            elif operation.request_range is not None:
                ranges.append(operation.request_range)
            elif operation.request_txn is not None:
                more_puts, more_ranges = self._chosen(operation.request_txn, path)
                puts += more_puts
                ranges += more_ranges
        return puts, ranges

    def _check_put(self, request: PutRequest) -> None:
        needs_key = request.ignore_value or request.ignore_lease
        if needs_key and self._store.at(request.key, self._store.revision) is None:
            raise refusal(KeyNotFound)
        if request.lease and not self._exists(request.lease):
            raise refusal(LeaseNotFound)

    def _check_range(self, request: RangeRequest) -> None:
        if request.revision == 0:
            return
        if request.revision > self._store.revision:
            raise refusal(FutureRevision)
        if request.revision < self._store.compacted:
            raise refusal(Compacted)

    def _holds(self, compare: Compare) -> bool:
        kvs = self._store.read(compare.key, compare.range_end, self._store.revision)
        if not kvs:
            # An empty value is not the same as none.
            return compare.target is not CompareTarget.VALUE and _matches(compare, KeyValue())
        return all(_matches(compare, kv) for kv in kvs)

    def _apply(self, write: Write, request: TxnRequest, path: Iterator[bool], header: ResponseHeader) -> TxnResponse:
        succeeded = next(path)
        operations = request.success if succeeded else request.failure
        responses = tuple(self._apply_one(write, operation, path) for operation in operations)
        return TxnResponse(header=header, succeeded=succeeded, responses=responses)

    def _apply_one(self, write: Write, operation: RequestOp, path: Iterator[bool]) -> ResponseOp:
        if operation.request_range is not None:
            return ResponseOp(response_range=read_range(self._store, operation.request_range, write.revision))
        if operation.request_put is not None:
            return ResponseOp(response_put=put(self._store, write, operation.request_put, self._exists))
        if operation.request_delete_range is not None:
            return ResponseOp(response_delete_range=delete(write, operation.request_delete_range))
        inner = operation.request_txn or TxnRequest()
        return ResponseOp(response_txn=self._apply(write, inner, path, ResponseHeader()))


def _matches(compare: Compare, kv: KeyValue) -> bool:
    if compare.target is CompareTarget.VALUE:
        return _relates(compare.result, kv.value, compare.value or b"")
    found, wanted = {
        CompareTarget.VERSION: (kv.version, compare.version),
        CompareTarget.CREATE: (kv.create_revision, compare.create_revision),
        CompareTarget.MOD: (kv.mod_revision, compare.mod_revision),
        CompareTarget.LEASE: (kv.lease, compare.lease),
    }[compare.target]
    return _relates(compare.result, found, wanted or 0)


def _relates(result: CompareResult, found: int | bytes, wanted: int | bytes) -> bool:
    if result is CompareResult.EQUAL:
        return found == wanted
    if result is CompareResult.NOT_EQUAL:
        return found != wanted
    lower, higher = (found, wanted) if result is CompareResult.LESS else (wanted, found)
    return lower < higher  # type: ignore[operator]  # both are of the one kind
