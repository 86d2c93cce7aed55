"""Key-values: the messages of etcd's KV service, and the key-value and event that other services use too."""

from __future__ import annotations

from twisted_etcd.schema.common import Message, OpenProtoEnum, ProtoEnum, Response

# --- what is stored -------------------------------------------------------------------------------------------------


class KeyValue(Message, frozen=True, kw_only=True):
    """
    A key as it was at one revision.

    :ivar key: the key.
    :ivar create_revision: the revision of the put that brought the key into being, after its last deletion.
    :ivar mod_revision: the revision of its last change; for a deleted key, of the deletion.
    :ivar version: how many puts the key has had since it was created; 0 for a deleted one.
    :ivar value: the value; empty for a deleted key, and where only keys were asked for.
    :ivar lease: the id of the lease that the key is attached to; 0 for none.
    """

    key: bytes = b""
    create_revision: int = 0
    mod_revision: int = 0
    version: int = 0
    value: bytes = b""
    lease: int = 0


class EventType(OpenProtoEnum):
    """What happened to a key. A lease that ends deletes its keys."""

    PUT = "PUT"
    DELETE = "DELETE"


class Event(Message, frozen=True):
    """
    One change of one key.

    :ivar type: put or deletion.
    :ivar kv: the key-value after the change; for a deletion only its key and ``mod_revision``.
    :ivar prev_kv: the key-value before it, if the watch asked for it, the key was there, and it is not yet compacted.
    """

    type: EventType = EventType.PUT
    kv: KeyValue = KeyValue()
    prev_kv: KeyValue | None = None


# --- range ----------------------------------------------------------------------------------------------------------


class SortOrder(ProtoEnum):
    """Which way a range is sorted; NONE is the order of the keys, and the cheapest."""

    NONE = "NONE"
    ASCEND = "ASCEND"
    DESCEND = "DESCEND"


class SortTarget(ProtoEnum):
    """By what a range is sorted."""

    KEY = "KEY"
    VERSION = "VERSION"
    CREATE = "CREATE"
    MOD = "MOD"
    VALUE = "VALUE"


class RangeRequest(Message, frozen=True, kw_only=True):
    r"""
    Read a key or a range of keys.

    :ivar key: the key, or the first of the range.
    :ivar range_end: the first key after the range; empty for one key, ``b"\x00"`` for all from ``key`` on.
    :ivar limit: at most so many key-values; 0 for no limit.
    :ivar revision: read as of this revision; 0 for the newest. A compacted one is an error.
    :ivar sort_order: which way to sort.
    :ivar sort_target: by what to sort.
    :ivar serializable: let the member answer from what it has, without asking the others: faster, maybe stale.
    :ivar keys_only: leave the values out.
    :ivar count_only: answer with the count alone.
    :ivar min_mod_revision: leave out what was last changed before this revision.
    :ivar max_mod_revision: leave out what was last changed after it; 0 for no bound.
    :ivar min_create_revision: leave out what was created before this revision.
    :ivar max_create_revision: leave out what was created after it; 0 for no bound.
    """

    key: bytes = b""
    range_end: bytes = b""
    limit: int = 0
    revision: int = 0
    sort_order: SortOrder = SortOrder.NONE
    sort_target: SortTarget = SortTarget.KEY
    serializable: bool = False
    keys_only: bool = False
    count_only: bool = False
    min_mod_revision: int = 0
    max_mod_revision: int = 0
    min_create_revision: int = 0
    max_create_revision: int = 0


class RangeResponse(Response, frozen=True, kw_only=True):
    """
    What a range holds.

    :ivar kvs: the key-values; empty where only the count was asked for.
    :ivar more: True where the limit cut some off.
    :ivar count: how many keys the range has, those cut off by the limit included.
    """

    kvs: tuple[KeyValue, ...] = ()
    more: bool = False
    count: int = 0


# --- put and delete -------------------------------------------------------------------------------------------------


class PutRequest(Message, frozen=True, kw_only=True):
    """
    Write one key.

    :ivar key: the key; empty is an error.
    :ivar value: the new value.
    :ivar lease: attach the key to this lease; 0 attaches it to none and takes it off the one it had.
    :ivar prev_kv: answer with the key-value that was there before.
    :ivar ignore_value: keep the value that is there; an error where the key is not, or with a value.
    :ivar ignore_lease: keep the lease that it has; an error where the key is not, or with a lease.
    """

    key: bytes = b""
    value: bytes = b""
    lease: int = 0
    prev_kv: bool = False
    ignore_value: bool = False
    ignore_lease: bool = False


class PutResponse(Response, frozen=True):
    """
    The put was applied, at ``header.revision``.

    :ivar prev_kv: what was there before, if it was asked for and the key existed.
    """

    prev_kv: KeyValue | None = None


class DeleteRangeRequest(Message, frozen=True):
    r"""
    Delete a key or a range of keys, all in one revision.

    :ivar key: the key, or the first of the range.
    :ivar range_end: the first key after the range; empty for one key, ``b"\x00"`` for all from ``key`` on.
    :ivar prev_kv: answer with the key-values that are deleted.
    """

    key: bytes = b""
    range_end: bytes = b""
    prev_kv: bool = False


class DeleteRangeResponse(Response, frozen=True):
    """
    The deletion was applied.

    :ivar deleted: how many keys were there.
    :ivar prev_kvs: those keys with their values, if asked for.
    """

    deleted: int = 0
    prev_kvs: tuple[KeyValue, ...] = ()


# --- transactions ---------------------------------------------------------------------------------------------------


class CompareResult(ProtoEnum):
    """How what the store has must relate to what the comparison names."""

    EQUAL = "EQUAL"
    GREATER = "GREATER"
    LESS = "LESS"
    NOT_EQUAL = "NOT_EQUAL"


class CompareTarget(ProtoEnum):
    """Which field of the key-value is compared."""

    VERSION = "VERSION"
    CREATE = "CREATE"
    MOD = "MOD"
    VALUE = "VALUE"
    LEASE = "LEASE"


class Compare(Message, frozen=True, kw_only=True):
    """
    One condition of a transaction.

    Of ``version``, ``create_revision``, ``mod_revision``, ``value`` and ``lease`` the one that ``target`` names is
    set, the others are None. A zero that is set is sent; the servers (3.4 and 3.5, all five targets) treat one that
    is not set as zero. A key that is not there has zero revisions and version, and meets no condition on its value.

    :ivar result: how the two must relate.
    :ivar target: which field is compared.
    :ivar key: the key.
    :ivar version: to compare with the key's version; 0 where it does not exist.
    :ivar create_revision: to compare with its ``create_revision``; 0 where it does not exist.
    :ivar mod_revision: to compare with its ``mod_revision``; 0 where it does not exist.
    :ivar value: to compare with its value, byte by byte.
    :ivar lease: to compare with the id of its lease.
    :ivar range_end: the condition must hold for all keys from ``key`` to before this one.
    """

    result: CompareResult = CompareResult.EQUAL
    target: CompareTarget = CompareTarget.VERSION
    key: bytes = b""
    version: int | None = None
    create_revision: int | None = None
    mod_revision: int | None = None
    value: bytes | None = None
    lease: int | None = None
    range_end: bytes = b""


class RequestOp(Message, frozen=True, kw_only=True):
    """
    One operation of a transaction: exactly one of its fields is set.

    :ivar request_range: read.
    :ivar request_put: write.
    :ivar request_delete_range: delete.
    :ivar request_txn: a transaction within the transaction.
    """

    request_range: RangeRequest | None = None
    request_put: PutRequest | None = None
    request_delete_range: DeleteRangeRequest | None = None
    request_txn: TxnRequest | None = None


class ResponseOp(Message, frozen=True, kw_only=True):
    """
    The answer to one operation of a transaction: exactly one of its fields is set.

    Of their headers only the revision is filled in, and not even that one in a nested transaction's own.

    :ivar response_range: what was read.
    :ivar response_put: what the put answers.
    :ivar response_delete_range: what was deleted.
    :ivar response_txn: what the nested transaction answers.
    """

    response_range: RangeResponse | None = None
    response_put: PutResponse | None = None
    response_delete_range: DeleteRangeResponse | None = None
    response_txn: TxnResponse | None = None


class TxnRequest(Message, frozen=True):
    """
    Several operations in one revision, depending on conditions. No key may be put twice.

    :ivar compare: the conditions; they hold if each of them does, also where there are none.
    :ivar success: what to do if they hold.
    :ivar failure: what to do if they do not.
    """

    compare: tuple[Compare, ...] = ()
    success: tuple[RequestOp, ...] = ()
    failure: tuple[RequestOp, ...] = ()


class TxnResponse(Response, frozen=True):
    """
    What a transaction did.

    :ivar succeeded: whether the conditions held.
    :ivar responses: one for each operation that was done, in their order.
    """

    succeeded: bool = False
    responses: tuple[ResponseOp, ...] = ()


# --- compaction -----------------------------------------------------------------------------------------------------


class CompactionRequest(Message, frozen=True):
    """
    Forget the history before a revision.

    :ivar revision: the lowest revision that can still be read afterwards.
    :ivar physical: answer only when the data is gone from the database too.
    """

    revision: int = 0
    physical: bool = False


class CompactionResponse(Response, frozen=True):
    """The compaction was applied."""


class RangeStreamResponse(Message, frozen=True):
    """
    A part of a range's answer (etcd 3.7). No call of the gateway carries it: it is gRPC's alone.

    :ivar range_response: key-values of this part; header, more and count in the last one only.
    """

    range_response: RangeResponse | None = None
