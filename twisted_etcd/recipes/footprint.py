"""What a transaction has read and is to write, and what must still be so for it to be applied. Pure."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import ClassVar

import msgspec

from twisted_etcd.client import compare, op
from twisted_etcd.discreet import Discreet
from twisted_etcd.schema.kv import Compare, KeyValue, RangeResponse, RequestOp, ResponseOp

#: Where nothing was read, every revision is before this one: etcd's numbers have 64 bits.
_AFTER_ALL = 2**63 - 1


class Isolation(enum.Enum):
    """
    How far transactions are kept apart, as etcd's Go client has it, strictest first.

    * ``SERIALIZABLE_SNAPSHOT``: all that was read is of one revision and is still so when the transaction is applied,
      and of what is written nothing was changed since that revision: as if each ran alone.
    * ``SERIALIZABLE``: as before, but what is written and was not read may have been changed meanwhile.
    * ``REPEATABLE_READS``: what was read is still so when it is applied; it may be of several revisions, each read
      once, so that a function can see one key before and another key behind somebody else's change.
    * ``READ_COMMITTED``: what was read was so at some time. Nothing is compared, and nothing repeated.
    """

    SERIALIZABLE_SNAPSHOT = "serializable snapshot"
    SERIALIZABLE = "serializable"
    REPEATABLE_READS = "repeatable reads"
    READ_COMMITTED = "read committed"

    @property
    def is_of_one_revision(self) -> bool:
        """Whether all reads of an attempt see the same revision."""
        return self in (Isolation.SERIALIZABLE_SNAPSHOT, Isolation.SERIALIZABLE)


class Reading(msgspec.Struct, frozen=True):
    """
    A key as it was read.

    :ivar kv: None where it was not there.
    :ivar revision: the store's revision when it was read.
    """

    kv: KeyValue | None
    revision: int


class Write(Discreet, frozen=True):
    """
    What is to become of a key.

    :ivar value: None where it is to be deleted.
    """

    secret_fields: ClassVar[frozenset[str]] = frozenset({"value"})

    value: bytes | None
    operation: RequestOp


def readings(keys: Iterable[bytes], responses: Iterable[RangeResponse], revision: int) -> dict[bytes, Reading]:
    """What answers to one request say of single keys."""
    return {
        key: Reading(response.kvs[0] if response.kvs else None, revision)
        for key, response in zip(keys, responses, strict=True)
    }


def ranges(responses: Iterable[ResponseOp]) -> list[RangeResponse]:
    """What a transaction has read."""
    return [each.response_range for each in responses if each.response_range is not None]


class Footprint:
    """
    Of one attempt.

    :ivar reads: what was read, each key once.
    :ivar writes: the last that is to become of each key.
    """

    def __init__(self, isolation: Isolation) -> None:
        self._isolation = isolation
        self.reads: dict[bytes, Reading] = {}
        self.writes: dict[bytes, Write] = {}

    def conditions(self) -> list[Compare]:
        """What must be so when it is applied."""
        if self._isolation is Isolation.READ_COMMITTED:
            return []
        conditions = [
            compare.mod_revision(key, "=", 0 if reading.kv is None else reading.kv.mod_revision)
            for key, reading in self.reads.items()
        ]
        if self._isolation is Isolation.SERIALIZABLE_SNAPSHOT:
            after = min((reading.revision + 1 for reading in self.reads.values()), default=_AFTER_ALL)
            conditions += [compare.mod_revision(key, "<", after) for key in self.writes]
        return conditions

    def operations(self) -> list[RequestOp]:
        """What is done where it is applied."""
        return [write.operation for write in self.writes.values()]

    def rereads(self) -> list[RequestOp]:
        """What is read where it is not, so that the next attempt knows it already."""
        return [op.get(key) for key in self.reads] if self._isolation.is_of_one_revision else []
