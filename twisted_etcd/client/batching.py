"""
Group commit: requests that come while others are under way travel together, as one transaction.

There is no timer in it that anything waits for. What finds nothing under way goes at once, alone and as it is; what
comes meanwhile goes together as soon as there is an answer. While requests come many at a time, those of one turn of
the reactor go together at its end.
"""

from __future__ import annotations

import copy
import math
import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, TypeVar, cast

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from twisted_etcd.client.batchqueue import BatchQueue
from twisted_etcd.errors import (
    AuthenticationFailed,
    CertificateNamesUser,
    EtcdError,
    NotEtcd,
    OldAuthRevision,
    OutcomeUnknown,
    RequestTooLarge,
    TooManyOperations,
    Unauthenticated,
    UserEmpty,
)
from twisted_etcd.gateway.gateway import Gateway
from twisted_etcd.gateway.unary import Abandoned, out_of_time
from twisted_etcd.schema import rpcs
from twisted_etcd.schema.common import ResponseHeader
from twisted_etcd.schema.kv import (
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
    RequestOp,
    ResponseOp,
    TxnRequest,
    TxnResponse,
)
from twisted_etcd.schema.rpcs import RPC

RequestT = TypeVar("RequestT", RangeRequest, PutRequest)
ResponseT = TypeVar("ResponseT", RangeResponse, PutResponse)

#: Batches that are under way at a time: while etcd works on one, the answers of the other are handed on.
LANES = 2
#: Operations with which a batch is worth its way beside another one.
WORTHWHILE = 16
#: Seconds after which a batch without an answer holds up nothing any longer: etcd is far away or slow, or hangs.
PATIENCE = 0.02
#: Seconds between two looks for what is out of time, at the least.
_GRAIN = 0.005
#: Refusals that are about all operations of a batch, whichever they are.
_ABOUT_ALL = (AuthenticationFailed, CertificateNamesUser, OldAuthRevision, Unauthenticated, UserEmpty)


class Kind(msgspec.Struct, Generic[RequestT, ResponseT], frozen=True, kw_only=True):
    """
    What travels together.

    :ivar rpc: how one of them goes alone.
    :ivar ordered: whether those on one key keep their order, and so never share a transaction.
    :ivar operation: what one of them is in a transaction.
    :ivar response: what the transaction's answer to it means, with the header of the whole.
    """

    rpc: RPC[RequestT, ResponseT]
    ordered: bool
    operation: Callable[[RequestT], RequestOp]
    response: Callable[[ResponseOp, ResponseHeader], ResponseT | None]


def _read(answer: ResponseOp, header: ResponseHeader) -> RangeResponse | None:
    found = answer.response_range
    return found and RangeResponse(header=header, kvs=found.kvs, more=found.more, count=found.count)


def _written(answer: ResponseOp, header: ResponseHeader) -> PutResponse | None:
    put = answer.response_put
    return put and PutResponse(header=header, prev_kv=put.prev_kv)


READS: Kind[RangeRequest, RangeResponse] = Kind(
    rpc=rpcs.RANGE, ordered=False, operation=lambda request: RequestOp(request_range=request), response=_read
)
PUTS: Kind[PutRequest, PutResponse] = Kind(
    rpc=rpcs.PUT, ordered=True, operation=lambda request: RequestOp(request_put=request), response=_written
)


class _Member(Generic[RequestT, ResponseT]):
    """
    One request, waiting for its batch or in it.

    :ivar batch: the batch that it travels in; None while it waits.
    """

    __slots__ = ("_batcher", "answer", "batch", "deadline", "key", "over", "request", "size", "timeout")

    def __init__(
        self, batcher: Batcher[RequestT, ResponseT], request: RequestT, size: int, timeout: float, deadline: float
    ) -> None:
        self.request: RequestT = request
        self.key = request.key
        self.size = size
        self.timeout = timeout
        self.deadline = deadline
        self.over = False
        self.batch: _Batch[RequestT, ResponseT] | None = None
        self.answer: Deferred[ResponseT] = Deferred(self._cancelled)
        self._batcher: Batcher[RequestT, ResponseT] = batcher

    def _cancelled(self, _: Deferred[ResponseT]) -> None:
        self._batcher.cancelled(self)


class _Batch(Generic[RequestT, ResponseT]):
    """
    A batch that is under way.

    :ivar holds_until: when it holds up others no longer.
    """

    __slots__ = ("call", "deadline", "holds_until", "members")

    def __init__(self, members: list[_Member[RequestT, ResponseT]], deadline: float, now: float) -> None:
        self.members: list[_Member[RequestT, ResponseT]] = members
        self.deadline = deadline
        self.holds_until = now + PATIENCE
        self.call: Deferred[None] | None = None


class Batcher(Generic[RequestT, ResponseT]):
    """
    Sends requests of one kind.

    Where the server refuses a batch because of one of its members, nothing of it was applied; it is halved, and the
    halves are sent, until each member has its own answer.
    """

    def __init__(self, gateway: Gateway, clock: IReactorTime, kind: Kind[RequestT, ResponseT]) -> None:
        self._gateway = gateway
        self._clock = clock
        self._kind: Kind[RequestT, ResponseT] = kind
        self._queue: BatchQueue[_Member[RequestT, ResponseT]] = BatchQueue(ordered=kind.ordered)
        self._under_way: list[_Batch[RequestT, ResponseT]] = []
        self._open: set[_Member[RequestT, ResponseT]] = set()
        #: Whether sending waits for what is going on: the callers that are told of answers may want more.
        self._held_back = False
        #: Whether the last batch was one of several, so that more than one may come in this turn.
        self._in_company = False
        self._end_of_turn: IDelayedCall | None = None
        self._timer: IDelayedCall | None = None
        self._timer_at = math.inf

    def request(self, request: RequestT, size: int, timeout: float) -> Deferred[ResponseT]:
        """
        Send a request, alone or with others.

        :param size: bytes of its key and value.
        :param timeout: seconds for all of it, the wait for its batch included.
        :return: as :meth:`twisted_etcd.gateway.gateway.Gateway.unary` gives it.
        """
        now = self._clock.seconds()
        member: _Member[RequestT, ResponseT] = _Member(self, request, size, timeout, now + timeout)
        self._open.add(member)
        self._queue.put(member)
        if not self._held_back and self._end_of_turn is None:
            if not (self._under_way or self._in_company):
                self._send_what_waits(now)
            elif self._how_many(now):
                self._end_of_turn = self._clock.callLater(0, self._turn_is_over)
        if member.batch is None:
            soon = self._timer_at <= now + PATIENCE
            self._look_again(member.deadline if soon else min(member.deadline, self._next_lane(now)), now)
        return member.answer

    def stop(self) -> None:
        """Leave no delayed call behind. What waits ends with the gateway."""
        for call in (self._timer, self._end_of_turn):
            if call is not None:
                call.cancel()
        self._timer = self._end_of_turn = None

    # --- sending ----------------------------------------------------------------------------------------------------

    def _turn_is_over(self) -> None:
        self._end_of_turn = None
        self._send_what_waits(self._clock.seconds())

    def _send_what_waits(self, now: float) -> None:
        self._held_back = True
        while (count := self._how_many(now)) and (members := self._queue.take(count)):
            in_time = [member for member in members if member.deadline > now]
            if len(in_time) < len(members):
                self._expire(member for member in members if member.deadline <= now)
            if in_time:
                self._send(in_time, now)
        self._held_back = False
        if self._timer_at > now + PATIENCE and len(self._queue):
            self._look_again(self._next_lane(now), now)

    def _how_many(self, now: float) -> int:
        """How many of those that wait go into the next batch; 0 where they go on waiting."""
        waiting = len(self._queue)
        if not waiting:
            return 0
        lanes, operations = LANES, waiting
        for batch in self._under_way:
            if now < batch.holds_until:
                lanes -= 1
                operations += len(batch.members)
        if lanes < LANES and (lanes <= 0 or waiting < WORTHWHILE):
            return 0
        # As many as the other lanes have, so that neither etcd nor this process waits for the other.
        return waiting if operations < LANES * WORTHWHILE else -(-operations // LANES)

    def _send(self, members: list[_Member[RequestT, ResponseT]], now: float) -> None:
        last = max(members, key=_deadline)
        batch = _Batch(members, last.deadline, now)
        for member in members:
            member.batch = batch
        self._under_way.append(batch)
        self._in_company = len(members) > 1
        rpc = self._kind.rpc
        call: Deferred[Any]
        if len(members) == 1:
            call = self._gateway.unary(rpc, last.request, timeout=last.timeout, deadline=last.deadline)
            call.addCallback(self._answered_alone, batch)
        else:
            self._look_again(min(members, key=_deadline).deadline, now)
            request = TxnRequest(success=tuple([self._kind.operation(member.request) for member in members]))
            call = self._gateway.unary(rpcs.TXN, request, timeout=last.timeout, deadline=last.deadline, name=rpc.name)
            call.addCallback(self._answered, batch)
        batch.call = call.addErrback(self._failed, batch)

    # --- answers ----------------------------------------------------------------------------------------------------

    def _answered_alone(self, response: ResponseT, batch: _Batch[RequestT, ResponseT]) -> None:
        self._hand_on(batch, [response])

    def _answered(self, txn: TxnResponse, batch: _Batch[RequestT, ResponseT]) -> None:
        header, read = txn.header, self._kind.response
        responses = [read(answer, header) for answer in txn.responses]
        if len(responses) != len(batch.members) or None in responses:
            raise self._unreadable(len(responses), len(batch.members))
        self._queue.fitted(len(responses))
        self._hand_on(batch, cast("list[ResponseT]", responses))

    def _unreadable(self, got: int, asked: int) -> Exception:
        text = f"{self._kind.rpc.name}, {asked} together, was answered with {got} results, not all of them its own"
        return OutcomeUnknown(f"{text}; it may have been applied") if self._kind.ordered else NotEtcd(text)

    def _hand_on(self, batch: _Batch[RequestT, ResponseT], responses: Sequence[ResponseT]) -> None:
        def hand_on() -> None:
            for member, response in zip(batch.members, responses, strict=True):
                self._queue.release(member)
                if self._close(member):
                    member.answer.callback(response)

        self._over(batch, hand_on)

    def _failed(self, failure: Failure, batch: _Batch[RequestT, ResponseT]) -> None:
        error = cast("Exception", failure.value)
        members = batch.members
        told = members
        if isinstance(error, _ABOUT_ALL):
            # It is about those that wait as well: they asked at the same time, and are told at the same time.
            told = members + [member for member in self._open if member.batch is None]
        elif isinstance(error, EtcdError) and len(members) > 1:
            self._over(batch, lambda: self._split(members, error))
            return

        def hand_on() -> None:
            for member in told:
                self._queue.release(member)
                if self._close(member):
                    member.answer.errback(failure if len(told) == 1 else Failure(_again(error)))

        self._over(batch, hand_on)

    def _split(self, members: list[_Member[RequestT, ResponseT]], error: EtcdError) -> None:
        if isinstance(error, TooManyOperations):
            self._queue.too_many(len(members))
        elif isinstance(error, RequestTooLarge):
            self._queue.too_large(len(members))
        for member in members:
            member.batch = None
            if member.over:
                self._queue.release(member)
        self._queue.split([member for member in members if not member.over])

    def _over(self, batch: _Batch[RequestT, ResponseT], hand_on: Callable[[], None]) -> None:
        """A batch is under way no longer; what its members' callers want next travels together."""
        self._under_way.remove(batch)
        held_back, self._held_back = self._held_back, True
        hand_on()
        if not held_back:
            self._send_what_waits(self._clock.seconds())

    def _close(self, member: _Member[RequestT, ResponseT]) -> bool:
        """Whether somebody still waited for it."""
        if member.over:
            return False
        member.over = True
        self._open.discard(member)
        return True

    # --- what ends before its answer --------------------------------------------------------------------------------

    def cancelled(self, member: _Member[RequestT, ResponseT]) -> None:
        """For a member: its caller waits no longer."""
        self._give_up(member, Abandoned(maybe_sent=member.batch is not None))

    def _give_up(self, member: _Member[RequestT, ResponseT], error: Exception) -> None:
        batch = member.batch
        self._close(member)
        if batch is None:
            self._queue.release(member)
        member.answer.errback(Failure(error))
        if batch is not None and batch.call is not None and all(each.over for each in batch.members):
            batch.call.cancel()

    # --- time -------------------------------------------------------------------------------------------------------

    def _next_lane(self, now: float) -> float:
        """When the next one of the batches under way will hold up others no longer."""
        return min([batch.holds_until for batch in self._under_way if now < batch.holds_until], default=math.inf)

    def _look_again(self, when: float, now: float) -> None:
        """
        See at that time, or before, what is out of time and what can be sent.

        The timer is not taken back for what is over meanwhile, which is cheaper than one for each request.
        """
        if when < self._timer_at:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_at = max(when, now + _GRAIN)
            self._timer = self._clock.callLater(self._timer_at - now, self._tick)

    def _expire(self, members: Iterable[_Member[RequestT, ResponseT]]) -> None:
        name, repeatable = self._kind.rpc.name, not self._kind.ordered
        tried = {each.url: each.why for each in self._gateway.endpoint_statuses if each.why}
        for member in members:
            # Those before it may have ended it.
            if not member.over:
                sent = member.batch is not None
                self._give_up(member, out_of_time(name, member.timeout, sent=sent, repeatable=repeatable, tried=tried))

    def _tick(self) -> None:
        self._timer = None
        self._timer_at = math.inf
        now = self._clock.seconds()
        self._expire([member for member in self._open if member.deadline <= now and _is_ours(member)])
        self._send_what_waits(now)
        due = min((member.deadline for member in self._open if _is_ours(member)), default=math.inf)
        if due < math.inf:
            self._look_again(due, now)


_deadline = operator.attrgetter("deadline")


def _is_ours(member: _Member[Any, Any]) -> bool:
    """Whether its deadline is looked after here: the call that a batch is looks after the latest one of its members."""
    return member.batch is None or member.deadline < member.batch.deadline


def _again(error: Exception) -> Exception:
    """The same error, for one more who gets it: what one of them does with it is not seen by the others."""
    another = copy.copy(error)
    another.__cause__ = error.__cause__
    return another
