"""Queues that Go's ``recipe.Queue`` and ``recipe.PriorityQueue`` put to and take from."""

from __future__ import annotations

import random
from collections.abc import Callable

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_etcd.client import compare, op
from twisted_etcd.client.client import EtcdClient
from twisted_etcd.client.kv import to_int
from twisted_etcd.errors import (
    InvalidSettings,
    OutcomeUnknown,
    RecipeError,
    RequestFailed,
    TwistedEtcdError,
    Unavailable,
)
from twisted_etcd.keys import to_bytes
from twisted_etcd.moment import Moment
from twisted_etcd.recipes.session import check_client
from twisted_etcd.recipes.waiting import Persistence, check_wait, kvs_of, name_of, run_while_running, within
from twisted_etcd.schema.kv import EventType, KeyValue, RangeResponse, SortOrder, SortTarget, TxnResponse
from twisted_etcd.schema.watch import FilterType

#: Go's priorities are of 16 bits.
_LAST_PRIORITY = 65535


class _Items:
    """What both kinds of queues have in common: whoever deletes the first key has the item."""

    _log = Logger()
    #: By what the keys are ordered.
    _order = SortTarget.MOD

    def __init__(self, client: EtcdClient, name: str | bytes, *, random: Callable[[], float] = random.random) -> None:
        check_client(client)
        self.name = name_of(name, "a queue")
        self._client = client
        self._random = random
        self._prefix = self.name + b"/"
        self._last_number = 0

    def size(self) -> Deferred[int]:
        """How many items are in it."""

        def counted(answer: RangeResponse) -> int:
            return answer.count

        return self._client.get(self._prefix, prefix=True, count_only=True).addCallback(counted)

    def dequeue(self, timeout: float | None = None) -> Deferred[bytes]:
        """
        Take the first item; where there is none, wait for one, however often etcd is away meanwhile.

        Each item is taken once, by one of those who wait. It is out of the queue as this fires: where a program dies
        before it has done with it, the item is lost. Who gives up waiting takes nothing: an item that was just being
        taken is put back.

        :param timeout: seconds; None for as long as it takes.
        :raises WaitTimedOut: there was no item within ``timeout`` seconds.
        :raises OutcomeUnknown: etcd did not say whether an item was taken, and it is gone: it was taken by this one,
            and is lost, or by another one.
        :raises ServiceStopped: the client was stopped.
        """
        check_wait(timeout)
        taking = run_while_running(self._client, self._dequeue())
        return within(timeout, self._client.reactor, taking, f"nothing was in the queue {self.name!r}")

    async def _dequeue(self) -> bytes:
        persistence = Persistence(self._client, self._random)
        while True:
            answer = await persistence.ask(self._read_first)
            kvs = answer.kvs
            while kvs:
                taken = await self._take(kvs[0], persistence)
                if taken.succeeded:
                    return kvs[0].value
                # Somebody else was first. What came behind it was read with that.
                kvs = kvs_of(taken.responses[0])
            if not answer.kvs:
                watch = self._client.watch(
                    self._prefix,
                    prefix=True,
                    start_revision=answer.header.revision,
                    filters=(FilterType.NODELETE,),
                )
                await persistence.event(watch, lambda event: event.type is EventType.PUT)

    def _read_first(self) -> Deferred[RangeResponse]:
        return self._client.get(
            self._prefix, prefix=True, limit=1, sort_target=self._order, sort_order=SortOrder.ASCEND
        )

    async def _take(self, item: KeyValue, persistence: Persistence) -> TxnResponse:
        """Delete it, where it is still there; else the answer has what is the first now."""
        doubtful: OutcomeUnknown | None = None
        while True:
            deleting: Moment[TxnResponse] = Moment()
            first = op.get(self._prefix, prefix=True, limit=1, sort_target=self._order, sort_order=SortOrder.ASCEND)
            asking = self._client.txn(
                compare=[compare.mod_revision(item.key, "=", item.mod_revision)],
                success=[op.delete(item.key)],
                failure=[first],
            )
            # Apart from who waits for it, so that it is known what became of it.
            asking.addCallbacks(deleting.fire, deleting.fail)
            try:
                answer = await deleting.wait()
            except OutcomeUnknown as error:
                doubtful = error
            except RequestFailed:
                # It was not applied.
                pass
            except CancelledError:
                deleting.wait().addCallback(self._taken_by_nobody, item).addErrback(self._not_put_back)
                raise
            else:
                if doubtful is not None and not answer.succeeded:
                    raise doubtful
                return answer
            await persistence.pause()

    def _taken_by_nobody(self, answer: TxnResponse, item: KeyValue) -> Deferred[None] | None:
        return Deferred.fromCoroutine(self._put_back(item)) if answer.succeeded else None

    def _not_put_back(self, failure: Failure) -> None:
        failure.trap(TwistedEtcdError)
        if failure.check(Unavailable):
            # Nothing was taken.
            return
        self._log.warn(
            "an item of the queue {name!r} may be lost: who took it gave up, and it could not be put back: {why}",
            name=self.name,
            why=str(failure.value),
        )

    async def _put_back(self, item: KeyValue) -> None:
        raise NotImplementedError

    async def _put_new(self, key: bytes, value: bytes) -> bool:
        answer = await self._client.txn(compare=[compare.version(key, "=", 0)], success=[op.put(key, value)])
        return answer.succeeded


class Queue(_Items):
    """
    What is put in first is taken first, by any number of programs; Go's ``recipe.Queue``.

    Each item is taken at most once: one whose taker dies is lost. Let the work be such that this does no harm, or keep
    a list of what is to be done elsewhere.

    :param name: Go's ``keyPrefix``. Go takes items of all queues whose names begin so: let no name of a queue be the
        beginning of another one's.
    :param random: gives numbers from 0 up to 1; for the waits between attempts.
    :raises TypeError: where one of these is of the wrong type.
    :raises InvalidSettings: for an empty name.
    """

    def enqueue(self, value: str | bytes) -> Deferred[None]:
        """
        Put an item at the end.

        :raises OutcomeUnknown: it may be in the queue, or may have been taken already.
        """
        return Deferred.fromCoroutine(self._enqueue(to_bytes(value, "value")))

    async def _enqueue(self, value: bytes) -> None:
        while not await self._put_new(self._new_key(), value):
            # Somebody else's item has this time for its name.
            pass

    def _new_key(self) -> bytes:
        self._last_number = max(int(self._client.reactor.seconds() * 1e9), self._last_number + 1)
        return self._prefix + b"%d" % self._last_number

    async def _put_back(self, item: KeyValue) -> None:
        # The order is that of the revisions: to the end, then.
        await self._enqueue(item.value)


class PriorityQueue(_Items):
    """
    The items of the lowest number are taken first, and among them the one that was put in first; Go's
    ``recipe.PriorityQueue``.

    As with :class:`Queue`, each item is taken at most once.

    :param name: Go's ``key``.
    :param random: gives numbers from 0 up to 1; for the waits between attempts.
    :raises TypeError: where one of these is of the wrong type.
    :raises InvalidSettings: for an empty name.
    """

    _order = SortTarget.KEY

    def enqueue(self, value: str | bytes, priority: int) -> Deferred[None]:
        """
        Put an item behind those of its priority.

        :param priority: 0 to 65535; the lowest is taken first.
        :raises InvalidSettings: for a priority that is none.
        :raises OutcomeUnknown: it may be in the queue, or may have been taken already.
        """
        if not 0 <= to_int(priority, "priority") <= _LAST_PRIORITY:
            msg = f"priority must be from 0 to {_LAST_PRIORITY}, not {priority!r}"
            raise InvalidSettings(msg)
        return Deferred.fromCoroutine(self._enqueue(to_bytes(value, "value"), self._prefix + b"%05d" % priority))

    async def _enqueue(self, value: bytes, line: bytes) -> None:
        # Go's mark of this line's last number, so that two never take the same one.
        mark = b"__" + line
        while True:
            last = await self._client.get(
                line + b"/", prefix=True, limit=1, sort_target=SortTarget.KEY, sort_order=SortOrder.DESCEND
            )
            number = self._number_of(last.kvs[0].key) + 1 if last.kvs else 0
            answer = await self._client.txn(
                compare=[compare.mod_revision(mark, "<", last.header.revision + 1)],
                success=[op.put(mark, b""), op.put(b"%s/%016d" % (line, number), value)],
            )
            if answer.succeeded:
                return

    def _number_of(self, key: bytes) -> int:
        number = key.rpartition(b"/")[2]
        if not number.isdigit():
            msg = f"the key {key!r} in the queue {self.name!r} ends in no number, as items do: delete it"
            raise RecipeError(msg)
        return int(number)

    async def _put_back(self, item: KeyValue) -> None:
        if not await self._put_new(item.key, item.value):
            # Its number was given to a new one meanwhile.
            await self._enqueue(item.value, item.key.rpartition(b"/")[0])
