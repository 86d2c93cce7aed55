"""Lease grants that leave nothing behind: what nobody learnt of is taken back."""

from __future__ import annotations

import contextlib
from typing import Any

import msgspec
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from twisted_etcd.backoff import Backoff
from twisted_etcd.client.granting import Granted, Granting
from twisted_etcd.errors import EtcdError, LeaseNotFound, RequestFailed, ServiceStopped, TwistedEtcdError
from twisted_etcd.gateway.gateway import Gateway
from twisted_etcd.moment import Moment
from twisted_etcd.schema import rpcs
from twisted_etcd.schema.lease import LeaseRevokeRequest

#: Seconds for which taking back is tried, or the TTL where that is shorter.
_PERSISTENCE = 600.0
#: Seconds: the longest wait between two attempts at it.
_LONGEST_WAIT = 5.0
#: Seconds after one look, and before the next one, for a grant that was given up and arrived late. Longer than etcd
#: itself keeps a request that its cluster does not decide.
_LOOKS = (1.0, 2.0, 4.0, 8.0)
#: Ids that a log line names in its text; its event has them all.
_NAMED = 20


class Left(msgspec.Struct, frozen=True):
    """
    A lease that was to be revoked, and could not be.

    :ivar ttl: seconds after which it ends by itself.
    """

    lease_id: int
    ttl: int
    why: str


def tell_of(log: Logger, left: list[Left]) -> None:
    """Name the leases that could not be revoked, in one line."""
    if not left:
        return
    names = ", ".join(f"{each.lease_id:x}" for each in left[:_NAMED])
    log.warn(
        "leases that could not be revoked, and end by their TTL of at most {ttl} s: {count}, namely {names}: {why}",
        count=len(left),
        ttl=max(each.ttl for each in left),
        names=names if len(left) <= _NAMED else f"{names}, …",
        why=left[-1].why,
        lease_ids=[each.lease_id for each in left],
    )


class Grants:
    """
    Grants leases, and takes back those that their caller never learns of.

    The id is chosen here, where the caller chose none, so that a grant without an answer can be repeated: what is
    there already then is the lease that it made. Where the caller no longer waits and etcd may have got the grant, it
    is repeated in the background until etcd is known to have the lease, and then revoked. A revocation alone could
    come too early, and find nothing, while the grant is still on its way. One that a hung member kept can come later
    still, so it is looked for a few times more.

    A lease with an id of the caller's may be somebody else's, so that it is neither granted twice nor revoked here.
    """

    _log = Logger()

    def __init__(self, gateway: Gateway, clock: IReactorTime) -> None:
        self._gateway = gateway
        self._clock = clock
        self._under_way: set[Deferred[Any]] = set()
        self._taking_back: set[Deferred[None]] = set()
        self._stopped = False
        self._left: list[Left] = []
        self._pauses: set[Deferred[None]] = set()
        self._idle: Moment[None] = Moment()

    def grant(self, ttl: int, lease_id: int, timeout: float | None) -> Deferred[Granted]:
        """
        Grant a lease.

        :param lease_id: the id that it is to have; 0 for one of our choice.
        :param timeout: seconds for all of it; the gateway's ``request_timeout`` where it is None.
        :raises OutcomeUnknown: etcd did not confirm it in time; where the id is of our choice, it is taken back.
        :raises ServiceStopped: :meth:`stop` came first; likewise.
        """
        granting = Granting(self._gateway, self._clock, ttl, lease_id)
        limit = self._gateway.request_timeout if timeout is None else timeout
        deferred = Deferred.fromCoroutine(self._grant(granting, ttl, limit, chosen_here=not lease_id))
        self._under_way.add(deferred)

        def done(result: Granted) -> Granted:
            self._under_way.discard(deferred)
            return result

        return deferred.addBoth(done)

    async def _grant(self, granting: Granting, ttl: int, timeout: float, *, chosen_here: bool) -> Granted:
        try:
            return await (granting.run(timeout) if chosen_here else granting.once(timeout))
        except BaseException as error:
            given_up = isinstance(error, CancelledError)
            if granting.maybe_there and chosen_here:
                self._take_back(granting, ttl)
            elif granting.maybe_there and given_up:
                self._leave(Left(granting.lease_id, ttl, "its grant was given up, and its id is the caller's own"))
            if given_up and self._stopped:
                msg = f"the client was stopped while {rpcs.LEASE_GRANT.name} was under way"
                raise ServiceStopped(msg) from error
            raise

    # --- taking back ------------------------------------------------------------------------------------------------

    def _take_back(self, granting: Granting, ttl: int) -> None:
        taking = Deferred.fromCoroutine(self._settle(granting, ttl))
        self._taking_back.add(taking)

        def done(_: None) -> None:
            self._taking_back.discard(taking)
            if self._stopped and not self._taking_back:
                self._idle.fire(None)

        taking.addCallback(done)

    async def _settle(self, granting: Granting, ttl: int) -> None:
        until = self._clock.seconds() + min(ttl, _PERSISTENCE)
        backoff = Backoff(self._gateway.random, longest=_LONGEST_WAIT)
        why = "there was no time left for it"
        try:
            while True:
                try:
                    await self._grant_and_revoke(granting)
                    return await self._look_again(granting, until)
                except RequestFailed as failed:
                    why = str(failed)
                wait = backoff.next()
                if self._clock.seconds() + wait >= until:
                    break
                await deferLater(self._clock, wait)
        except CancelledError:
            # There is no time left; what went wrong before says more.
            pass
        except TwistedEtcdError as error:
            why = str(error)
        self._leave(Left(granting.lease_id, ttl, why))
        return None

    async def _grant_and_revoke(self, granting: Granting) -> None:
        # It is there then, or refused this time; the first one can have been granted all the same.
        with contextlib.suppress(EtcdError):
            await granting.once(self._gateway.request_timeout)
        await self._revoke(granting)

    async def _look_again(self, granting: Granting, until: float) -> None:
        for seconds in _LOOKS:
            if self._stopped or self._clock.seconds() + seconds >= until:
                return
            pause: Deferred[None] = deferLater(self._clock, seconds)
            self._pauses.add(pause)
            # The stop ends it, and this is the last look.
            with contextlib.suppress(CancelledError):
                await pause
            self._pauses.discard(pause)
            await self._revoke(granting)

    async def _revoke(self, granting: Granting) -> None:
        with contextlib.suppress(LeaseNotFound):
            await self._gateway.unary(rpcs.LEASE_REVOKE, LeaseRevokeRequest(ID=granting.lease_id))

    def _leave(self, left: Left) -> None:
        if self._stopped:
            # They are told of together.
            self._left.append(left)
        else:
            tell_of(self._log, [left])

    # --- the end ----------------------------------------------------------------------------------------------------

    def stop(self, timeout: float) -> Deferred[list[Left]]:
        """
        Grant no more, and take back what is under way.

        :return: fires, within ``timeout`` seconds, with the leases that may be there and could not be taken back.
        """
        self._stopped = True
        for waiting in (*self._under_way, *self._pauses):
            waiting.cancel()
        if not self._taking_back:
            return succeed(self._left)
        bound = self._clock.callLater(timeout, self._give_up)

        def idle(_: None) -> list[Left]:
            if bound.active():
                bound.cancel()
            return self._left

        return self._idle.wait().addCallback(idle)

    def _give_up(self) -> None:
        for taking in tuple(self._taking_back):
            taking.cancel()
