"""One lease on its way to be granted: attempts with one id, until etcd is known to have it or the time is over."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from twisted_etcd.backoff import Backoff
from twisted_etcd.errors import EtcdError, LeaseExists, NotEtcd, OutcomeUnknown, RequestFailed, TLSFailed, Unavailable
from twisted_etcd.gateway.gateway import Gateway
from twisted_etcd.gateway.unary import Abandoned
from twisted_etcd.schema import rpcs
from twisted_etcd.schema.common import ResponseHeader
from twisted_etcd.schema.lease import LeaseGrantRequest, LeaseKeepAliveRequest

_HALF_ID = 1 << 32
_MAX_ID = (1 << 63) - 1
#: Seconds: an attempt gets half of the time that is left, and no less than this while there is as much.
_SHORTEST_ATTEMPT = 1.0


class Granted(msgspec.Struct, frozen=True):
    """
    A lease that etcd has.

    :ivar header: of the answer that said so.
    :ivar lease_id: its id.
    :ivar ttl: seconds that etcd granted.
    :ivar asked_at: when the request was sent whose answer said so: the TTL runs from then at the earliest.
    """

    header: ResponseHeader
    lease_id: int
    ttl: int
    asked_at: float


class Granting:
    """
    A grant under way.

    :param lease_id: the id that it is to have; 0 for one of our choice.
    :ivar lease_id: the id that it is tried with now.
    :ivar maybe_there: whether etcd may have granted it without our knowing.
    """

    def __init__(self, gateway: Gateway, clock: IReactorTime, ttl: int, lease_id: int = 0) -> None:
        self.lease_id = lease_id or new_id(gateway.random)
        self.maybe_there = False
        self._gateway = gateway
        self._clock = clock
        self._ttl = ttl
        self._tried: dict[str, str] = {}

    async def run(self, timeout: float) -> Granted:
        """
        Try until an answer stands, within ``timeout`` seconds.

        Only for an id of our choice: a lease that is there after an attempt without an answer is taken for the one that
        this attempt made.

        :raises OutcomeUnknown: it may have been granted; so it may whatever is raised, where :attr:`maybe_there` says
            so.
        """
        deadline = self._clock.seconds() + timeout
        backoff = Backoff(self._gateway.random)
        while True:
            granted = await self._try(deadline - self._clock.seconds())
            if granted is not None:
                return granted
            wait = backoff.next()
            if self._clock.seconds() + wait >= deadline:
                raise self._unconfirmed(timeout)
            await deferLater(self._clock, wait)

    async def _try(self, left: float) -> Granted | None:
        """Within ``left`` seconds; None where it is to be tried again."""
        began = self._clock.seconds()
        try:
            return await self.once(max(left / 2, min(left, _SHORTEST_ATTEMPT)))
        except LeaseExists:
            if not self.maybe_there:
                # Somebody else's. Counted on, lest numbers that repeat themselves lead nowhere.
                self.lease_id = self.lease_id % _MAX_ID + 1
                return None
        except RequestFailed as failed:
            self._failed(failed)
            return None
        try:
            return await self._find(left - (self._clock.seconds() - began))
        except RequestFailed as failed:
            self._failed(failed)
            return None

    async def once(self, timeout: float) -> Granted:
        """
        One attempt, within ``timeout`` seconds.

        :raises LeaseExists: a lease with that id is there already.
        """
        asked_at = self._clock.seconds()
        request = LeaseGrantRequest(TTL=self._ttl, ID=self.lease_id)
        try:
            response = await self._gateway.unary(rpcs.LEASE_GRANT, request, timeout=timeout)
        except OutcomeUnknown:
            self.maybe_there = True
            raise
        except CancelledError as cancelled:
            self.maybe_there |= not isinstance(cancelled, Abandoned) or cancelled.maybe_sent
            raise
        return Granted(response.header, response.ID, response.TTL, asked_at)

    async def _find(self, timeout: float) -> Granted | None:
        """The lease that an earlier attempt made, with its whole TTL; None where it has gone since."""
        asked_at = self._clock.seconds()
        requests = [LeaseKeepAliveRequest(ID=self.lease_id)]
        responses = await self._gateway.batch(rpcs.LEASE_KEEP_ALIVE, requests, timeout=max(timeout, 0.0))
        for response in responses:
            if response.TTL > 0:
                return Granted(response.header, response.ID, response.TTL, asked_at)
        return None

    def _failed(self, failed: RequestFailed) -> None:
        self._tried.update(failed.tried)
        answer = failed.__cause__
        lasts = not answer.concerns_member if isinstance(answer, EtcdError) else isinstance(failed, NotEtcd | TLSFailed)
        if lasts:
            raise failed

    def _unconfirmed(self, timeout: float) -> RequestFailed:
        text = f"{rpcs.LEASE_GRANT.name} was not confirmed within {timeout:g} s"
        if self.maybe_there:
            return OutcomeUnknown(f"{text}; what it may have granted is revoked", self._tried)
        return Unavailable(f"{text}, and was not sent", self._tried)


def new_id(random: Callable[[], float]) -> int:
    """
    An id for a lease, of 63 bits and not 0.

    :param random: gives numbers from 0 up to 1. It is asked twice, because one number has 53 bits.
    """
    high, low = int(random() * _HALF_ID), int(random() * _HALF_ID)
    return ((high * _HALF_ID + low) & _MAX_ID) or 1
