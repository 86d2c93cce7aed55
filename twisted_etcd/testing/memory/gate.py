"""What stands between connections and the member: time, faults, and whether anybody gets in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from twisted_etcd.errors import EtcdError, LeaderChanged, NoLeader, RequestTimedOut
from twisted_etcd.schema import rpcs
from twisted_etcd.schema.common import Message
from twisted_etcd.schema.kv import RangeRequest
from twisted_etcd.schema.rpcs import RPC
from twisted_etcd.testing.memory.faults import Faults
from twisted_etcd.testing.memory.leases import GRAIN
from twisted_etcd.testing.memory.member import Member, Reply
from twisted_etcd.testing.memory.refusals import refusal

#: Seconds that etcd lets a request wait for a leader.
_LEADER_PATIENCE = 7.0
#: Seconds after which a stream that wants a leader is ended where there is none.
_STREAM_PATIENCE = 4.0
#: Calls that a member answers by itself.
_LOCAL = frozenset(
    {
        rpcs.WATCH,
        rpcs.OBSERVE,
        rpcs.STATUS,
        rpcs.HASH,
        rpcs.HASH_KV,
        rpcs.DEFRAGMENT,
        rpcs.MEMBER_LIST,
        rpcs.LEASE_TIME_TO_LIVE,
        rpcs.LEASE_LEASES,
    }
)


class Guest(Protocol):
    """A connection as the gate sees it."""

    @property
    def streams(self) -> bool:
        """Whether it carries a stream."""

    @property
    def wants_leader(self) -> bool:
        """Whether it carries a stream that is to end where there is no leader."""

    def later(self, seconds: float, call: Callable[[], None]) -> Callable[[], None]:
        """Do something after some time if it is still there; what is returned takes that back."""

    def fail(self, error: EtcdError) -> None:
        """End its stream with an error."""

    def pause(self) -> None:
        """Read and write nothing."""

    def resume(self) -> None:
        """Go on."""

    def cut(self) -> None:
        """Break the connection."""


class Errand:
    """
    A request on its way to the member, and back.

    :ivar cancel: whoever asked has gone.
    """

    def __init__(self, reply: Reply) -> None:
        self._reply: Reply | None = reply
        self.cancel: Callable[[], None] | None = None

    @property
    def over(self) -> bool:
        """Whether it was answered, or nobody waits for that any more."""
        return self._reply is None

    def finish(self, answer: Message | EtcdError) -> None:
        """Answer it, once."""
        reply, self._reply = self._reply, None
        if reply is not None:
            reply(answer)

    def give_up(self) -> None:
        """Nobody waits for the answer any more."""
        if self._reply is not None:
            self._reply = None
            if self.cancel is not None:
                self.cancel()


class Gate:
    """
    Lets requests in to a member, in its time and with its faults.

    :param clock: its time.
    :ivar open: whether connections are accepted.
    :ivar hanging: whether they are accepted, and nothing more.
    """

    def __init__(self, member: Member, clock: IReactorTime) -> None:
        self.member = member
        self.faults = Faults()
        self.open = True
        self.hanging = False
        self._clock = clock
        self._guests: set[Guest] = set()
        self._waiting: set[Errand] = set()
        self._leader_from = clock.seconds()
        self._timer: IDelayedCall | None = None
        self._due_before: float | None = None

    # --- connections ------------------------------------------------------------------------------------------------

    def enter(self, guest: Guest) -> None:
        """A connection has come about."""
        self._guests.add(guest)
        if self.hanging:
            guest.pause()
        self.look()

    def leave(self, guest: Guest) -> None:
        """It has gone."""
        self._guests.discard(guest)
        self.look()

    @property
    def guest_count(self) -> int:
        """How many connections there are."""
        return len(self._guests)

    def cut(self, *, streams_only: bool = False) -> None:
        """Break connections."""
        for guest in tuple(self._guests):
            if guest.streams or not streams_only:
                guest.cut()

    def close(self) -> None:
        """Break all connections, and accept none."""
        self.open = False
        self.cut()

    def hang(self) -> None:
        """Do nothing for anybody."""
        self.hanging = True
        for guest in self._guests:
            guest.pause()

    def reopen(self) -> None:
        """Accept connections, and go on with those that there are."""
        self.open = True
        self.hanging = False
        for guest in tuple(self._guests):
            guest.resume()

    # --- requests ---------------------------------------------------------------------------------------------------

    def ask(self, guest: Guest, rpc: RPC[Any, Any], request: Message, token: str, reply: Reply) -> Errand:
        """
        Bring a request to the member.

        :param reply: called with the answer.
        """
        self.look()
        plan = self.faults.plan(rpc)
        errand = Errand(guest_lost(guest) if plan.lost else reply)

        def serve() -> None:
            self._waiting.discard(errand)
            if plan.error is not None:
                errand.finish(plan.error)
                return
            self.look()
            errand.cancel = self.member.serve(rpc, request, token, errand.finish)
            self.look()

        def wait_for_leader() -> None:
            patience = 0.0 if _is_local(rpc, request) else self._leader_from - self._clock.seconds()
            if patience > _LEADER_PATIENCE:
                self._wait(guest, errand, _LEADER_PATIENCE, lambda: errand.finish(refusal(RequestTimedOut)))
            elif patience > 0:
                self._wait(guest, errand, patience, serve)
            else:
                serve()

        if plan.delay > 0:
            self._wait(guest, errand, plan.delay, wait_for_leader)
        else:
            wait_for_leader()
        return errand

    def _wait(self, guest: Guest, errand: Errand, seconds: float, call: Callable[[], None]) -> None:
        self._waiting.add(errand)

        def go_on() -> None:
            self._waiting.discard(errand)
            if not errand.over:
                call()

        take_back = guest.later(seconds, go_on)

        def cancel() -> None:
            self._waiting.discard(errand)
            take_back()

        errand.cancel = cancel

    def admit(self, guest: Guest) -> EtcdError | None:
        """Why a stream cannot begin; None where it can."""
        self.look()
        return None if self.member.leads or not guest.wants_leader else refusal(NoLeader)

    # --- the leader -------------------------------------------------------------------------------------------------

    def elect(self, seconds: float) -> None:
        """Have no leader for so many seconds, and then another one than before, in the next term."""
        self.look()
        self._leader_from = self._clock.seconds() + seconds
        self.member.raft_term += 1
        self.member.leases.renew_all()
        waiting, self._waiting = self._waiting, set()
        for errand in waiting:
            if errand.cancel is not None:
                errand.cancel()
            errand.finish(refusal(LeaderChanged))
        self.look()
        for guest in tuple(self._guests):
            if guest.wants_leader and seconds >= _STREAM_PATIENCE:
                guest.later(_STREAM_PATIENCE, lambda guest=guest: self._without_leader(guest))  # type: ignore[misc]

    def _without_leader(self, guest: Guest) -> None:
        self.look()
        if not self.member.leads:
            guest.fail(refusal(NoLeader))

    # --- time -------------------------------------------------------------------------------------------------------

    def look(self) -> None:
        """
        See what time it is.

        Only while somebody is connected it is looked at again by itself: else nobody could tell, and nothing is left
        behind in the reactor.
        """
        self.member.leads = self._leader_from - self._clock.seconds() <= GRAIN
        if self.member.leads:
            self.member.end_leases()
        due = self._due()
        if self._timer is not None and self._due_before != due:
            self._timer.cancel()
            self._timer = None
        self._due_before = due
        if self._timer is None and due is not None:
            self._timer = self._clock.callLater(max(0.0, due - self._clock.seconds()), self._wake)

    def _due(self) -> float | None:
        if not self._guests:
            return None
        end = self.member.leases.next_end()
        if self.member.leads or end is None:
            return end if self.member.leads else self._leader_from
        return max(end, self._leader_from)

    def _wake(self) -> None:
        self._timer = None
        self.look()


def _is_local(rpc: RPC[Any, Any], request: Message) -> bool:
    return rpc in _LOCAL or (isinstance(request, RangeRequest) and request.serializable)


def guest_lost(guest: Guest) -> Reply:
    """What breaks the connection in place of an answer."""

    def lose(_answer: Message | EtcdError) -> None:
        guest.cut()

    return lose
