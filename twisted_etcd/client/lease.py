"""Leases that are kept alive, and say so when they are lost."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred, DeferredList, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_etcd.client.granting import Granted
from twisted_etcd.client.grants import Grants, Left, tell_of
from twisted_etcd.client.keepalive import KeepaliveSchedule
from twisted_etcd.client.kv import to_int
from twisted_etcd.errors import LeaseLost, LeaseNotFound, TwistedEtcdError, Unavailable
from twisted_etcd.gateway.gateway import Gateway
from twisted_etcd.moment import Moment
from twisted_etcd.schema import rpcs
from twisted_etcd.schema.lease import (
    LeaseGrantResponse,
    LeaseKeepAliveRequest,
    LeaseKeepAliveResponse,
    LeaseRevokeRequest,
    LeaseRevokeResponse,
)

#: Leases in one keepalive request. The gateway answers only what it has read before its first answer, so a body
#: must stay small; what it leaves out is asked for again.
_BATCH = 200
#: Keepalive requests that wait for the one before have all been sent when this share has passed of the time that the
#: first of their leases has left, also where none is answered.
_PATIENCE_SHARE = 1 / 8
#: Leases that are revoked at a time when a client stops: more of them take no less time.
_REVOCATIONS = 32
_GONE = "etcd no longer has it"
_NO_TIME = "there was no time left to revoke it"


class Lease:
    """
    A lease that etcd granted and that is kept alive until it is revoked or lost.

    :ivar id: etcd's id of it, for ``put(…, lease=…)``.
    :ivar ttl: seconds that etcd granted, which can be more than was asked for.
    """

    def __init__(self, lease_id: int, ttl: int, keeper: LeaseKeeper) -> None:
        self.id = lease_id
        self.ttl = ttl
        self._keeper = keeper
        self._end: Moment[LeaseLost] = Moment()

    def __repr__(self) -> str:
        state = "gone" if self._end.happened else "alive"
        return f"<Lease {self.id:x}, {self.ttl} s, {state}>"

    @property
    def lost(self) -> Deferred[LeaseLost]:
        """
        A new Deferred that fires, with the reason, once the lease is gone, and its keys with it: etcd said so, or did
        not confirm it for as long as its TTL, or it was revoked.
        """
        return self._end.wait()

    @property
    def alive(self) -> bool:
        """False once ``lost`` has fired."""
        return not self._end.happened

    @property
    def seconds_left(self) -> float:
        """How long etcd keeps it at least, by what it last confirmed, if it hears nothing more."""
        return self._keeper.seconds_left(self)

    def keepalive_once(self) -> Deferred[int]:
        """
        Ask etcd now (``LeaseKeepAlive``), beside the keepalives that come by themselves.

        :return: fires with the seconds that etcd keeps it for.
        :raises LeaseNotFound: where etcd no longer has it; ``lost`` has fired then.
        """
        return self._keeper.keepalive_once(self)

    def revoke(self, *, timeout: float | None = None) -> Deferred[None]:
        """
        Give it back (``LeaseRevoke``), so that etcd deletes all keys that live by it.

        A lease that is gone already is no error. Where etcd could not be told, this fails, and the lease is kept alive
        no longer: ``lost`` fires, and it ends by its TTL.
        """
        return self._keeper.revoke(self, timeout)

    def orphan(self) -> None:
        """
        Keep it alive no longer, and leave it to its TTL, with its keys: neither this nor the client's ``stopService``
        revokes it. ``lost`` fires, as nobody here looks after it any more.
        """
        self._keeper.orphan(self)

    def ended(self, why: str) -> None:
        """For the keeper: the lease is gone."""
        self._end.fire(LeaseLost(self.id, why))


class _Batch(NamedTuple):
    """
    Leases that share a keepalive request.

    :ivar begin_by: when it is sent, if no answer to another one comes before.
    """

    begin_by: float
    lease_ids: Sequence[int]


class LeaseKeeper:
    """
    Keeps all leases of a client alive: those that are due share a request, and there is one timer for all.

    Where one request does not hold them all, the next one is sent when the one before was answered, so that one
    connection does for thousands of leases. One without an answer holds the others up for a short time only.
    """

    _log = Logger()

    def __init__(self, gateway: Gateway, clock: IReactorTime) -> None:
        self._gateway = gateway
        self._clock = clock
        self._grants = Grants(gateway, clock)
        self._schedule = KeepaliveSchedule()
        self._leases: dict[int, Lease] = {}
        self._timer: IDelayedCall | None = None
        #: Requests that are to be sent: a heap.
        self._waiting: list[_Batch] = []
        #: How many were sent, and not answered yet.
        self._under_way = 0
        #: Sends the next one, where the one before is not answered first.
        self._patience: IDelayedCall | None = None
        self._stopped = False

    def grant(self, ttl: int, lease_id: int = 0, timeout: float | None = None) -> Deferred[Lease]:
        """
        Grant a lease and keep it alive.

        :raises TypeError: where the TTL or the id is no number, before anything is sent.
        """
        granting = self._grants.grant(to_int(ttl, "ttl"), to_int(lease_id, "lease_id"), timeout)
        return granting.addCallback(self._keep)

    def grant_unkept(self, ttl: int, lease_id: int = 0, timeout: float | None = None) -> Deferred[LeaseGrantResponse]:
        """
        Grant a lease that ends by its TTL.

        :raises TypeError: as for :meth:`grant`.
        """
        granting = self._grants.grant(to_int(ttl, "ttl"), to_int(lease_id, "lease_id"), timeout)
        return granting.addCallback(
            lambda granted: LeaseGrantResponse(header=granted.header, ID=granted.lease_id, TTL=granted.ttl)
        )

    def _keep(self, granted: Granted) -> Lease:
        lease = Lease(granted.lease_id, granted.ttl, self)
        self._leases[lease.id] = lease
        self._schedule.add(lease.id, lease.ttl, granted.asked_at)
        self._wind()
        return lease

    def seconds_left(self, lease: Lease) -> float:
        """See :attr:`Lease.seconds_left`."""
        return self._schedule.seconds_left(lease.id, self._clock.seconds())

    def _wind(self) -> None:
        """Set the one timer to the next thing that is due."""
        due = self._schedule.next_due()
        if self._timer is not None and self._timer.active():
            if due is not None and self._timer.getTime() == due:
                return
            self._timer.cancel()
        self._timer = None
        if due is not None:
            self._timer = self._clock.callLater(max(0.0, due - self._clock.seconds()), self._tick)

    def _tick(self) -> None:
        self._timer = None
        ask, lost = self._schedule.take_due(self._clock.seconds())
        for lease_id in lost:
            self._lose(lease_id, "etcd did not confirm it for as long as its TTL")
        if ask:
            self._ask_in_turn(ask)
        self._wind()

    def _ask_in_turn(self, ask: Sequence[int]) -> None:
        now = self._clock.seconds()
        left = min(self._schedule.seconds_left(lease_id, now) for lease_id in ask)
        for start in range(0, len(ask), _BATCH):
            begin_by = now + left * _PATIENCE_SHARE * start / len(ask)
            heapq.heappush(self._waiting, _Batch(begin_by, ask[start : start + _BATCH]))
        if self._under_way:
            self._be_patient()
        else:
            self._ask_next()

    def _ask_next(self) -> None:
        """Send the next request, if there is one."""
        while self._waiting:
            batch = heapq.heappop(self._waiting)
            # Some may have been revoked, or lost, while they waited.
            lease_ids = [lease_id for lease_id in batch.lease_ids if lease_id in self._schedule]
            if lease_ids:
                self._under_way += 1
                self._ask(lease_ids)
                break
        self._be_patient()

    def _be_patient(self) -> None:
        """Wait for an answer, but not so long that the leases that wait for it are lost."""
        self._end_patience()
        if self._waiting:
            wait = max(0.0, self._waiting[0].begin_by - self._clock.seconds())
            self._patience = self._clock.callLater(wait, self._ask_next)

    def _end_patience(self) -> None:
        if self._patience is not None and self._patience.active():
            self._patience.cancel()
        self._patience = None

    def _ask(self, lease_ids: Sequence[int]) -> None:
        asked_at = self._clock.seconds()
        requests = [LeaseKeepAliveRequest(ID=lease_id) for lease_id in lease_ids]
        # It must be over before the first of them would be lost, so that there is time to ask again.
        limit = min(self._schedule.seconds_left(lease_id, asked_at) for lease_id in lease_ids) / 2
        asking = self._gateway.batch(
            rpcs.LEASE_KEEP_ALIVE, requests, timeout=max(min(limit, self._gateway.request_timeout), 0.1)
        )

        def answered(responses: Sequence[LeaseKeepAliveResponse]) -> None:
            missing = set(lease_ids)
            for response in responses:
                missing.discard(response.ID)
                self._confirmed(response, asked_at)
            self._unanswered(missing)

        def failed(failure: Failure) -> None:
            failure.trap(TwistedEtcdError)
            if self._stopped:
                # None of these leases is kept any longer.
                return
            self._log.warn(
                "{count} leases could not be kept alive, and will be tried again: {why}",
                count=len(lease_ids),
                why=str(failure.value),
            )
            self._unanswered(lease_ids)

        def done(result: object) -> object:
            self._under_way -= 1
            self._ask_next()
            self._wind()
            return result

        asking.addCallbacks(answered, failed).addBoth(done)

    def _confirmed(self, response: LeaseKeepAliveResponse, asked_at: float) -> None:
        if response.TTL > 0:
            self._schedule.confirmed(response.ID, response.TTL, asked_at)
        else:
            self._lose(response.ID, _GONE)

    def _unanswered(self, lease_ids: Sequence[int] | set[int]) -> None:
        now = self._clock.seconds()
        for lease_id in lease_ids:
            self._schedule.unanswered(lease_id, now)

    def _lose(self, lease_id: int, why: str) -> None:
        self._schedule.remove(lease_id)
        lease = self._leases.pop(lease_id, None)
        if lease is not None:
            lease.ended(why)
            self._wind()

    def keepalive_once(self, lease: Lease) -> Deferred[int]:
        """See :meth:`Lease.keepalive_once`."""
        asked_at = self._clock.seconds()
        asking = self._gateway.batch(rpcs.LEASE_KEEP_ALIVE, [LeaseKeepAliveRequest(ID=lease.id)])

        def answered(responses: Sequence[LeaseKeepAliveResponse]) -> int:
            if not responses:
                msg = f"etcd said nothing to the keepalive of lease {lease.id:x}; ask again"
                raise Unavailable(msg)
            response = responses[0]
            self._confirmed(response, asked_at)
            self._wind()
            if response.TTL <= 0:
                raise LeaseNotFound(LeaseNotFound.grpc_code, "requested lease not found")
            return response.TTL

        return asking.addCallback(answered)

    def orphan(self, lease: Lease) -> None:
        """See :meth:`Lease.orphan`."""
        self._lose(lease.id, "it is kept alive no longer, and left to its TTL")
        self._wind()

    def revoke(self, lease: Lease, timeout: float | None) -> Deferred[None]:
        """See :meth:`Lease.revoke`."""
        if not lease.alive:
            return succeed(None)
        # No keepalive may bring back what is given up.
        self._schedule.remove(lease.id)
        self._wind()
        revoking = self._gateway.unary(rpcs.LEASE_REVOKE, LeaseRevokeRequest(ID=lease.id), timeout=timeout)

        def revoked(_: LeaseRevokeResponse) -> None:
            self._lose(lease.id, "it was revoked")

        def not_revoked(failure: Failure) -> Failure | None:
            if failure.check(LeaseNotFound):
                self._lose(lease.id, _GONE)
                return None
            self._lose(lease.id, "it could not be revoked, and is left to its TTL")
            return failure

        return revoking.addCallbacks(revoked, not_revoked)

    def stop(self, *, revoke: bool, timeout: float) -> Deferred[None]:
        """
        Keep nothing alive any longer, and take back what is being granted.

        :param revoke: give all leases back, within ``timeout`` seconds; those that cannot be given back end by their
            TTL, and are named in the log.
        """
        self._stopped = True
        leases = list(self._leases.values())
        for lease in leases:
            self._schedule.remove(lease.id)
        self._waiting.clear()
        self._end_patience()
        self._wind()
        left: list[Left] = []
        until = self._clock.seconds() + timeout

        def not_revoked(failure: Failure, lease: Lease) -> None:
            failure.trap(TwistedEtcdError)
            left.append(Left(lease.id, lease.ttl, str(failure.value)))

        async def revoke_in_turn(waiting: Iterator[Lease]) -> None:
            for lease in waiting:
                seconds = until - self._clock.seconds()
                if seconds > 0:
                    await self.revoke(lease, seconds).addErrback(not_revoked, lease)
                else:
                    self._lose(lease.id, _NO_TIME)
                    left.append(Left(lease.id, lease.ttl, _NO_TIME))

        ending: list[Deferred[Any]] = [self._grants.stop(timeout).addCallback(left.extend)]
        if revoke:
            waiting = iter(leases)
            ending += [Deferred.fromCoroutine(revoke_in_turn(waiting)) for _ in leases[:_REVOCATIONS]]
        else:
            for lease in leases:
                self._lose(lease.id, "the client stopped and left it to its TTL")
        return DeferredList(ending).addCallback(lambda _: tell_of(self._log, left))
