"""What is written to a mirror's target, and in which steps. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

import msgspec

from twisted_etcd.client import op
from twisted_etcd.errors import InvalidSettings
from twisted_etcd.schema.kv import Event, EventType, KeyValue, RequestOp

#: Operations that etcd takes in one transaction, unless it was told otherwise.
MAX_TXN_OPS = 128
#: Bytes of keys and values in one transaction that is made of several changes; etcd takes 1.5 MiB.
_MAX_SIZE = 512 * 1024


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """
    How far a mirror has come, as it is kept in its target.

    :ivar cluster_id: of the source.
    :ivar revision: of the source: all up to it is in the target; 0 while the first copy is not whole.
    :ivar part: how much is there of what comes next, where that takes several transactions.
    :ivar writer: who wrote this.
    """

    cluster_id: int
    revision: int
    part: int = 0
    writer: str = ""

    def encode(self) -> bytes:
        """As the value of a key."""
        return msgspec.json.encode(self)

    @classmethod
    def decode(cls, value: bytes) -> Progress | None:
        """What a key holds; None where that is nothing of a mirror's."""
        try:
            return msgspec.json.decode(value, type=cls)
        except msgspec.DecodeError:
            return None


class Renaming:
    """
    From the keys of the source to those of the target.

    :param prefix: what is put off.
    :param dest_prefix: what is put on.
    :param spared: a key of the target that is none of the copy.
    """

    def __init__(self, prefix: bytes, dest_prefix: bytes, spared: bytes = b"") -> None:
        self._prefix = prefix
        self._dest_prefix = dest_prefix
        self._spared = spared

    def key(self, key: bytes) -> bytes:
        """A key's name in the target; empty where it has no place there."""
        there = self._dest_prefix + key[len(self._prefix) :]
        return b"" if there == self._spared else there

    def operation(self, event: Event) -> RequestOp | None:
        """The same change in the target."""
        there = self.key(event.kv.key)
        if not there:
            return None
        return op.delete(there) if event.type is EventType.DELETE else op.put(there, event.kv.value)


def revisions(events: Iterable[Event], after: int) -> Iterator[tuple[int, list[Event]]]:
    """The events of each revision, without those that are known."""
    for revision, of_one in groupby(events, lambda event: event.kv.mod_revision):
        if revision > after:
            yield revision, list(of_one)


def parts(operations: Sequence[RequestOp], limit: int) -> list[tuple[RequestOp, ...]]:
    """What is written in one transaction each; one, where all of it fits."""
    return [tuple(operations[start : start + limit]) for start in range(0, max(len(operations), 1), limit)]


class Filling:
    """Gathers the operations of a copy until they fill a transaction."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._operations: list[RequestOp] = []
        self._size = 0

    def add(self, operation: RequestOp) -> bool:
        """Add one; true where it is time to take them."""
        self._operations.append(operation)
        put = operation.request_put
        self._size += len(put.key) + len(put.value) if put is not None else 0
        return len(self._operations) >= self._limit or self._size >= _MAX_SIZE

    def take(self) -> tuple[RequestOp, ...]:
        """Those that were added since they were last taken."""
        operations, self._operations, self._size = tuple(self._operations), [], 0
        return operations


def same(here: KeyValue, there: KeyValue) -> bool:
    """Whether a key needs no copy. Its lease is none of its content."""
    return here.value == there.value and not there.lease


def check_apart(source: bytes, target: bytes, progress: bytes | None) -> None:
    """
    A mirror inside one cluster must not see what it writes.

    :param source: the prefix that is copied, as the cluster has it.
    :param target: where to.
    :param progress: where it keeps how far it is.
    :raises InvalidSettings: where it would copy its own copies, without an end.
    """
    if source.startswith(target) or target.startswith(source):
        msg = (
            f"the source {source!r} and the target {target!r} of a mirror are in one cluster and overlap, so that it "
            "would copy its own copies without an end: give it a dest_prefix beside the prefix"
        )
        raise InvalidSettings(msg)
    if progress is not None and progress.startswith(source):
        msg = (
            f"the progress key {progress!r} of a mirror is below its source {source!r} in the same cluster, so that it "
            "would copy its own notes without an end: give it a key elsewhere"
        )
        raise InvalidSettings(msg)
