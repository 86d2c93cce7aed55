"""The writing side of a mirror: each write once, in order, with how far it has come."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from twisted_etcd.client import compare, op
from twisted_etcd.client.client import EtcdClient
from twisted_etcd.errors import EtcdError, RequestFailed, RequestTooLarge, TooManyOperations
from twisted_etcd.recipes.mirrorplan import Filling, Progress, parts
from twisted_etcd.schema.kv import Compare, RequestOp, TxnResponse

#: etcd takes it in smaller pieces.
_TOO_MUCH = (TooManyOperations, RequestTooLarge)


class Overtaken(Exception):
    """Somebody else has written the progress: go on from what is there."""


class MirrorTarget:
    """
    Writes until it is done, however long that takes.

    :param progress_key: where it notes how far it is, in each transaction; None for nowhere.
    :param limit: operations in one transaction, the note included.
    :param writer: its mark in what it notes.
    :param failed: called with what went wrong; the next attempt waits for it.
    :param worked: called after each success.
    """

    def __init__(
        self,
        client: EtcdClient,
        *,
        progress_key: bytes | None,
        limit: int,
        writer: str,
        failed: Callable[[Exception], Awaitable[None]],
        worked: Callable[[], None],
    ) -> None:
        self._client = client
        self._progress_key = progress_key
        self._limit = limit - (progress_key is not None)
        self._writer = writer
        self._failed = failed
        self._worked = worked
        #: The target's revision when the progress was last written.
        self._written_at = 0
        self._notes = 0
        self._filling = Filling(self._limit)

    async def read(self) -> Progress | None:
        """How far a mirror has come, where that was kept; what was gathered is forgotten."""
        self._filling = Filling(self._limit)
        if self._progress_key is None:
            return None
        kvs = (await self._client.get(self._progress_key)).kvs
        self._written_at = kvs[0].mod_revision if kvs else 0
        return Progress.decode(kvs[0].value) if kvs else None

    async def fill(self, operation: RequestOp, cluster_id: int) -> None:
        """Add one operation to a copy that is not whole yet; written once there are many."""
        if self._filling.add(operation):
            await self.apply(self._filling.take(), cluster_id, 0, 0)

    async def filled(self, cluster_id: int, revision: int) -> None:
        """The copy is whole, at this revision of the source, once what is left of it was written."""
        operations = self._filling.take()
        if operations or self._progress_key is not None:
            await self.apply(operations, cluster_id, 0, revision)

    async def apply(self, operations: Sequence[RequestOp], cluster_id: int, before: int, after: int) -> None:
        """
        Write what leads from one revision of the source to another, in one transaction where etcd takes it so.

        :raises Overtaken: somebody else has written meanwhile.
        """
        if not operations and self._progress_key is None:
            return
        limit = self._limit
        while (error := await self._attempt(operations, limit, cluster_id, before, after)) is not None:
            if limit == 1 or len(operations) <= 1:
                # Only who runs the target can help.
                await self._failed(error)
            else:
                # What was written of it is written again.
                limit = (min(limit, len(operations)) + 1) // 2

    async def _attempt(
        self, operations: Sequence[RequestOp], limit: int, cluster_id: int, before: int, after: int
    ) -> EtcdError | None:
        """What is wrong, where etcd takes only less at a time."""
        try:
            await self._parts(parts(operations, limit), cluster_id, before, after)
        except _TOO_MUCH as error:
            return error
        return None

    async def _parts(
        self, operations: Sequence[tuple[RequestOp, ...]], cluster_id: int, before: int, after: int
    ) -> None:
        for part, each in enumerate(operations, 1):
            is_last = part == len(operations)
            # No two notes are the same, so that it knows its own.
            self._notes += 1
            note = Progress(
                cluster_id=cluster_id,
                revision=after if is_last else before,
                part=0 if is_last else part,
                writer=f"{self._writer}/{self._notes}",
            )
            await self._transaction(each, note.encode())

    async def _transaction(self, operations: tuple[RequestOp, ...], note: bytes) -> None:
        conditions: list[Compare] = []
        otherwise: list[RequestOp] = []
        if self._progress_key is not None:
            conditions = [compare.mod_revision(self._progress_key, "=", self._written_at)]
            operations = (*operations, op.put(self._progress_key, note))
            otherwise = [op.get(self._progress_key)]
        while True:
            try:
                done = await self._client.txn(compare=conditions, success=operations, failure=otherwise)
            except _TOO_MUCH:
                raise
            except (RequestFailed, EtcdError) as error:
                await self._failed(error)
                continue
            self._worked()
            self._written_at = done.header.revision if done.succeeded else self._found(done, note)
            return

    @staticmethod
    def _found(done: TxnResponse, note: bytes) -> int:
        """When the progress was written, where that was an attempt before this one, which was not confirmed."""
        found = done.responses[0].response_range
        if found is None or not found.kvs or found.kvs[0].value != note:
            raise Overtaken
        return found.kvs[0].mod_revision
