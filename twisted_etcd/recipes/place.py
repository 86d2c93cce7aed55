"""
A place in a line of keys: who came first has it, the others wait for the one before them.

The keys, the comparisons and the order are those of Go's ``concurrency`` and its recipes, so that its programs stand
in the same line.
"""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_etcd.client import compare, op
from twisted_etcd.client.watch import Watch
from twisted_etcd.errors import (
    EtcdError,
    LeaseLost,
    LeaseNotFound,
    OutcomeUnknown,
    RequestFailed,
    ServiceStopped,
    TwistedEtcdError,
)
from twisted_etcd.moment import Moment
from twisted_etcd.recipes.session import Session
from twisted_etcd.recipes.waiting import kvs_of
from twisted_etcd.schema.kv import EventType, KeyValue, SortOrder, SortTarget, TxnResponse
from twisted_etcd.schema.watch import FilterType


class Place:
    """
    One key of a session in a line.

    Once it has asked to join, :meth:`leave` must be called, whatever came of that: a key that nobody takes back holds
    up all who come later for as long as the session lives.

    :ivar session: as it was given.
    :param line: what the keys begin with of those that it waits for.
    :ivar revision: at which its key was made, by which the line is ordered; 0 while it is not in it.
    """

    def __init__(self, session: Session, key: bytes, line: bytes, value: bytes = b"") -> None:
        self.key = key
        self.revision = 0
        self.session = session
        self._line = line
        self._value = value
        self._persistence = session.persistence()
        #: The last transaction that puts the key, which goes on where nobody waits for it any more.
        self._asked: Moment[TxnResponse] | None = None
        #: Whether one can still be on its way.
        self._doubtful = False
        self._departure: Departure | None = None

    @property
    def is_taken(self) -> bool:
        """Whether its session has its key in the line already, or is about to."""
        return self.key in self.session.places

    async def join(self) -> bool:
        """
        Put the key, at the end of the line.

        :return: whether nobody is before it.
        :raises Unavailable: etcd could not be asked; nothing was put.
        """
        self.session.places[self.key] = self
        departure = self.session.departures.get(self.key)
        if departure is not None and await departure.end():
            self._doubtful = True
        return await self._join()

    async def wait(self) -> None:
        """Wait until nobody is before it, however often etcd is away meanwhile."""
        while True:
            answer = await self._persistence.ask(self._look)
            own, before = (kvs_of(each) for each in answer.responses)
            if not own or own[0].create_revision != self.revision:
                # Somebody has deleted it: to the end of the line.
                if await self._join():
                    return
            elif not before:
                return
            else:
                watch = self.session.client.watch(
                    before[0].key, start_revision=answer.header.revision, filters=(FilterType.NOPUT,)
                )
                await self._persistence.event(watch, lambda event: event.type is EventType.DELETE)

    async def put(self, value: bytes) -> bool:
        """Change the value of the key; False where it is no longer this one."""
        answer = await self.session.client.txn(
            compare=[compare.create_revision(self.key, "=", self.revision)],
            success=[op.put(self.key, value, lease=self.session.lease_id)],
        )
        if answer.succeeded:
            self._value = value
        return answer.succeeded

    def leave(self) -> Deferred[None]:
        """
        Take the key back, once. Where etcd cannot be told now, this goes on until it can be, or the session has ended.

        :return: fires when the key is gone; fails with what etcd, or the network, said to the first attempt.
        """
        session = self.session
        if session.places.get(self.key) is self:
            del session.places[self.key]
        if self._asked is None:
            return succeed(None)
        if self._departure is None:
            self._departure = Departure(session, self.key, self.revision, self._asked, doubtful=self._doubtful)
            self._departure.begin()
        return self._departure.tried

    # --- asking -----------------------------------------------------------------------------------------------------

    async def _join(self) -> bool:
        while True:
            try:
                answer = await self._ask_to_join()
            except OutcomeUnknown:
                self._doubtful = True
            except RequestFailed:
                if not self._doubtful:
                    raise
            except LeaseNotFound as error:
                raise self.session.gone() from error
            else:
                break
            # It may be there. Asked again, etcd says so.
            await self._persistence.pause()
        self._persistence.reset()
        own = own_of(answer)
        self.revision = answer.header.revision if own is None else own.create_revision
        if own is not None and own.value != self._value and not await self._persistence.ask(self._put_value):
            return await self._join()
        first = kvs_of(answer.responses[1])
        return not first or first[0].create_revision >= self.revision

    async def _put_value(self) -> bool:
        return await self.put(self._value)

    async def _ask_to_join(self) -> TxnResponse:
        first = op.get(self._line, prefix=True, limit=1, sort_target=SortTarget.CREATE, sort_order=SortOrder.ASCEND)
        asking = self.session.client.txn(
            compare=[compare.create_revision(self.key, "=", 0)],
            success=[op.put(self.key, self._value, lease=self.session.lease_id), first],
            failure=[op.get(self.key), first],
        )
        # Apart from who waits for it: one that is cut off in the middle leaves nothing but doubts.
        self._asked = Moment()
        asking.addCallbacks(self._asked.fire, self._asked.fail)
        return await self._asked.wait()

    def _look(self) -> Deferred[TxnResponse]:
        """At its own key, and at the last one before it."""
        before = op.get(
            self._line,
            prefix=True,
            limit=1,
            sort_target=SortTarget.CREATE,
            sort_order=SortOrder.DESCEND,
            max_create_revision=self.revision - 1,
        )
        return self.session.client.txn(success=[op.get(self.key), before])


class Departure:
    """
    Takes a key back for good, in the background.

    Only the key of a known revision is deleted, so that an attempt that arrives late does no harm to a key that was
    put later. Where a put may still be on its way, it stays and waits for that one, as long as the session lives.
    """

    _log = Logger()

    def __init__(
        self, session: Session, key: bytes, revision: int, asked: Moment[TxnResponse] | None, *, doubtful: bool
    ) -> None:
        self._session = session
        self._key = key
        self._revision = revision
        self._asked = asked
        self._doubtful = doubtful
        self._persistence = session.persistence()
        self._ending = False
        self._watch: Watch | None = None
        #: What became of the first attempt.
        self._tried: Moment[None] = Moment()
        self._over: Moment[None] = Moment()

    def begin(self) -> None:
        """Go, and be known to those who come to the same place."""
        self._session.departures[self._key] = self
        self._session.run(self._run()).addCallbacks(self._tried.fire, self._cut_off).addBoth(self._end)

    @property
    def tried(self) -> Deferred[None]:
        """A new Deferred for what :meth:`Place.leave` tells."""
        return self._tried.wait()

    async def end(self) -> bool:
        """
        Wait until no deletion is under way, and end.

        :return: whether a put may still be on its way.
        """
        self._ending = True
        if self._watch is not None:
            self._watch.stop()
        try:
            await self._over.wait()
        except CancelledError:
            # It has to look after the key itself again.
            self._ending = False
            raise
        return self._doubtful

    def _end(self, _: None) -> None:
        if self._session.departures.get(self._key) is self:
            del self._session.departures[self._key]
        self._over.fire(None)

    def _cut_off(self, failure: Failure) -> None:
        failure.trap(LeaseLost, ServiceStopped, EtcdError)
        if failure.check(LeaseLost):
            # The key has gone with its lease, or will.
            self._tried.fire(None)
        else:
            self._tried.fail(failure)

    async def _run(self) -> None:
        if self._asked is not None:
            await self._learn_outcome(self._asked)
        if self._revision:
            await self._delete(self._revision)
        while self._doubtful:
            found = await self._persistence.ask(lambda: self._session.client.get(self._key))
            if found.kvs:
                await self._delete(found.kvs[0].create_revision)
                continue
            self._tried.fire(None)
            if self._ending:
                return
            self._watch = self._session.client.watch(
                self._key, start_revision=found.header.revision, filters=(FilterType.NODELETE,)
            )
            await self._persistence.event(self._watch, lambda event: event.type is EventType.PUT)
            self._watch = None

    async def _learn_outcome(self, asked: Moment[TxnResponse]) -> None:
        try:
            answer = await asked.wait()
        except OutcomeUnknown:
            self._doubtful = True
        except CancelledError:
            raise
        except TwistedEtcdError:
            # It was not put by that one.
            return
        else:
            own = own_of(answer)
            self._revision = answer.header.revision if own is None else own.create_revision

    async def _delete(self, revision: int) -> None:
        while not await self._deleted(revision):
            await self._persistence.pause()
        self._persistence.reset()

    async def _deleted(self, revision: int) -> bool:
        try:
            await self._session.client.txn(
                compare=[compare.create_revision(self._key, "=", revision)], success=[op.delete(self._key)]
            )
        except (RequestFailed, EtcdError) as error:
            if not self._tried.happened:
                self._log.warn("{key!r} could not be deleted, and is tried again: {why}", key=self._key, why=str(error))
            self._tried.fail(Failure(error))
            return False
        return True


def own_of(answer: TxnResponse) -> KeyValue | None:
    """The key that asking to join has found, where it was there before."""
    return None if answer.succeeded else kvs_of(answer.responses[0])[0]
