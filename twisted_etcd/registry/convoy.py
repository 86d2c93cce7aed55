"""Operations on many keys, in few transactions."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Sequence
from typing import cast

import msgspec
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from twisted_etcd.client.client import EtcdClient
from twisted_etcd.errors import (
    AuthenticationFailed,
    CertificateNamesUser,
    EtcdError,
    LeaseNotFound,
    OldAuthRevision,
    OutcomeUnknown,
    ServiceStopped,
    TwistedEtcdError,
    Unauthenticated,
    UserEmpty,
)
from twisted_etcd.schema.kv import RequestOp, ResponseOp, TxnResponse

#: Operations in one transaction; etcd takes 128 unless it is set to less.
MOST_OPERATIONS = 100
#: Bytes of keys and values in one transaction; etcd takes three times as much.
MOST_BYTES = 512 * 1024
#: Transactions that are under way at a time.
LANES = 2
#: Refusals that are about the client, and not about any of the operations.
_ABOUT_ALL = (AuthenticationFailed, CertificateNamesUser, OldAuthRevision, Unauthenticated, UserEmpty)


class Done(msgspec.Struct, frozen=True):
    """
    What an operation came to.

    :ivar revision: of the transaction that it was in.
    """

    response: ResponseOp
    revision: int


class _Member(msgspec.Struct, eq=False):
    path: str
    operation: RequestOp
    #: That it needs; 0 for none.
    lease: int
    size: int
    answer: Deferred[Done]
    #: Whether nobody waits for it any longer.
    given_up: bool = False


class Convoy:
    """
    Sends operations on keys: those that come while others are under way travel together, at most 100 in a transaction
    and two transactions at a time. So a thousand keys take a dozen requests, and never come as a burst of a thousand.
    No timer holds anything back.

    Operations on one key are done in the order in which they were asked for. Where etcd refuses a transaction because
    of one of its operations, nothing of it was done; it is divided, and the parts are sent, until each operation has an
    answer of its own: by leases where one of these is gone, else into halves.
    """

    def __init__(self, client: EtcdClient) -> None:
        self._client = client
        self._waiting: deque[_Member] = deque()
        #: Parts of what was refused, to be sent before all else.
        self._parts: deque[list[_Member]] = deque()
        #: The keys of what was sent and has no answer yet, parts among it.
        self._busy: set[str] = set()
        self._under_way: dict[Deferred[TxnResponse], list[_Member]] = {}
        #: Whether answers are being handed on: what they lead to travels together.
        self._held_back = False
        self._stopped = False

    def do(self, path: str, operation: RequestOp, *, lease: int = 0, size: int = 0) -> Deferred[Done]:
        """
        Do one operation on one key. Cancelled before it is sent, it is not done.

        :param lease: that it needs: where that is gone, so are all operations with it.
        :param size: bytes of key and value.
        :raises EtcdError: etcd refused it.
        :raises RequestFailed: it did not reach etcd, or was not answered.
        :raises ServiceStopped: :meth:`stop` came first, or the client was stopped.
        """
        member = _Member(path, operation, lease, size, Deferred(lambda _: self._give_up(member)))
        if self._stopped:
            member.answer.errback(_stopped())
            return member.answer
        self._waiting.append(member)
        self._send()
        return member.answer

    def _give_up(self, member: _Member) -> None:
        member.given_up = True
        if member in self._waiting:
            self._waiting.remove(member)

    # --- sending ----------------------------------------------------------------------------------------------------

    def _send(self) -> None:
        while len(self._under_way) < LANES and not self._stopped and not self._held_back:
            members = self._parts.popleft() if self._parts else self._next()
            if not members:
                break
            self._go(members)

    def _next(self) -> list[_Member]:
        """Those that can travel now. What is for a key that is under way waits, with all that comes after it."""
        members: list[_Member] = []
        passed_over: list[_Member] = []
        held = set(self._busy)
        size = 0
        while self._waiting and len(members) < MOST_OPERATIONS:
            member = self._waiting[0]
            if members and size + member.size > MOST_BYTES:
                break
            self._waiting.popleft()
            if member.path in held:
                passed_over.append(member)
            else:
                members.append(member)
                size += member.size
            held.add(member.path)
        self._waiting.extendleft(reversed(passed_over))
        self._busy.update(member.path for member in members)
        return members

    def _go(self, members: list[_Member]) -> None:
        sending = self._client.txn(success=[member.operation for member in members])
        self._under_way[sending] = members
        sending.addCallbacks(self._answered, self._failed, callbackArgs=(sending,), errbackArgs=(sending,))

    def _answered(self, answer: TxnResponse, sending: Deferred[TxnResponse]) -> None:
        members = self._under_way.pop(sending)
        if len(answer.responses) != len(members):
            text = f"{len(members)} operations together were answered with {len(answer.responses)} results"
            self._fail(members, OutcomeUnknown(f"{text}; they may have been done"))
            return

        def hand_on() -> None:
            for member, response in zip(members, answer.responses, strict=True):
                if not member.given_up:
                    member.answer.callback(Done(response, answer.header.revision))

        self._over(members, hand_on)

    def _failed(self, failure: Failure, sending: Deferred[TxnResponse]) -> None:
        members = self._under_way.pop(sending)
        error = failure.value
        if self._stopped and isinstance(error, CancelledError):
            error = _stopped()
        if not isinstance(error, Exception):
            failure.raiseException()
        parts = _parts(error, members) if isinstance(error, EtcdError) else []
        if len(parts) > 1:
            self._parts.extend(parts)
            self._send()
        else:
            self._fail(members, error)

    def _fail(self, members: Sequence[_Member], error: Exception) -> None:
        def hand_on() -> None:
            for member in members:
                if not member.given_up:
                    member.answer.errback(Failure(_again(error)))

        self._over(members, hand_on)

    def _over(self, members: Sequence[_Member], hand_on: Callable[[], None]) -> None:
        self._busy.difference_update(member.path for member in members)
        held_back, self._held_back = self._held_back, True
        try:
            hand_on()
        finally:
            self._held_back = held_back
        self._send()

    # --- the end ----------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Send nothing more, and wait for nothing: all that is asked fails with ``ServiceStopped``."""
        self._stopped = True
        for sending in tuple(self._under_way):
            sending.cancel()
        left = [member for members in self._parts for member in members] + list(self._waiting)
        self._parts.clear()
        self._waiting.clear()
        self._fail(left, _stopped())


def _parts(error: EtcdError, members: Sequence[_Member]) -> list[list[_Member]]:
    """Those that can be done, or refused, without each other; one part where the refusal is about all of them."""
    if isinstance(error, LeaseNotFound):
        by_lease: dict[int, list[_Member]] = {}
        for member in members:
            by_lease.setdefault(member.lease, []).append(member)
        return list(by_lease.values())
    if len(members) == 1 or isinstance(error, _ABOUT_ALL):
        return [list(members)]
    half = (len(members) + 1) // 2
    return [list(members[:half]), list(members[half:])]


def _again(error: Exception) -> Exception:
    """The same error, for one more who gets it."""
    if not isinstance(error, TwistedEtcdError):
        return error
    another = cast("Exception", copy.copy(error))
    another.__cause__ = error.__cause__
    return another


def _stopped() -> ServiceStopped:
    return ServiceStopped("the registry was stopped")
