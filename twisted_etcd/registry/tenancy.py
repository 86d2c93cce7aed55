"""A lease that several live by: granted when the first one needs it, again when it is lost, revoked after the last."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_etcd.backoff import Backoff
from twisted_etcd.client.client import EtcdClient
from twisted_etcd.client.lease import Lease
from twisted_etcd.errors import EtcdError, LeaseLost, RequestFailed, ServiceStopped
from twisted_etcd.moment import Moment
from twisted_etcd.registry.notices import named

#: Seconds: the longest wait before a lease is asked for again.
_LONGEST_BACKOFF = 10.0


class Tenant(Protocol):
    """Who lives by a lease."""

    @property
    def path(self) -> str:
        """Its key."""

    def lease_granted(self, lease: Lease) -> None:
        """There is one."""

    def lease_refused(self, error: Exception) -> None:
        """There is none yet, and it is tried again."""

    def lease_lost(self) -> None:
        """It is gone. A new one is asked for by itself."""

    def lease_ended(self, failure: Failure) -> None:
        """There will be none any more."""


class Tenancy:
    """
    Keeps a lease for its tenants: one grant for all of them, also after it was lost, and a new lease each time.

    :param ttl: seconds.
    :param random: gives numbers from 0 up to 1; for the waits between attempts, which go on for ever.
    """

    _log = Logger()

    def __init__(self, client: EtcdClient, clock: IReactorTime, ttl: int, random: Callable[[], float]) -> None:
        self.ttl = ttl
        self._client = client
        self._clock = clock
        self._backoff = Backoff(random, longest=_LONGEST_BACKOFF)
        #: In the order in which they came.
        self._tenants: dict[Tenant, None] = {}
        self._lease: Lease | None = None
        self._asking: Deferred[Lease] | None = None
        self._pause: IDelayedCall | None = None
        self._doubting: Deferred[int] | None = None
        #: All have left.
        self._left: Moment[None] = Moment()

    def __len__(self) -> int:
        return len(self._tenants)

    @property
    def lease(self) -> Lease | None:
        """The lease that there is now."""
        return self._lease

    def is_sole(self, tenant: Tenant) -> bool:
        """Whether the lease goes when that one leaves."""
        return tuple(self._tenants) == (tenant,)

    def join(self, tenant: Tenant) -> None:
        """Live by it from now on; the tenant is told of the lease, at once where there is one."""
        self._tenants[tenant] = None
        if self._lease is not None:
            tenant.lease_granted(self._lease)
        elif self._asking is None:
            # Also where it was waiting to ask: there is one more who wants to know.
            self._ask()

    def leave(self, tenant: Tenant, *, with_all: bool = False, timeout: float | None = None) -> Deferred[None]:
        """
        Need it no longer. After the last one it is revoked, and its keys go with it.

        :param with_all: whether all are leaving, so that the key goes with the lease: wait for that.
        :param timeout: seconds for that.
        :return: fires when it is revoked, or needs not to be.
        :raises RequestFailed: etcd could not be told; it ends by its TTL.
        """
        self._tenants.pop(tenant, None)
        leaving = self._left.wait() if with_all else None
        if self._tenants:
            return succeed(None) if leaving is None else leaving
        self._rest()
        if self._asking is not None:
            self._asking.cancel()
        lease, self._lease = self._lease, None
        left, self._left = self._left, Moment()
        revoking: Deferred[None] = lease.revoke(timeout=timeout) if lease is not None else succeed(None)
        if leaving is None:
            return revoking
        revoking.addCallbacks(left.fire, left.fail)
        return leaving

    def doubt(self, lease_id: int) -> None:
        """etcd said that it does not have it: have it asked, so that the client learns of that too."""
        lease = self._lease
        if lease is None or lease.id != lease_id or self._doubting is not None:
            return
        self._doubting = lease.keepalive_once()

        def asked(result: int | Failure) -> None:
            self._doubting = None
            if isinstance(result, Failure) and not result.check(RequestFailed, EtcdError, ServiceStopped):
                self._log.failure("A lease could not be looked after.", result)

        self._doubting.addBoth(asked)

    # --- having it --------------------------------------------------------------------------------------------------

    def _rest(self) -> None:
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None

    def _ask(self) -> None:
        self._rest()
        asking = self._asking = self._client.lease(self.ttl)
        asking.addCallbacks(self._granted, self._not_granted)

    def _ask_again(self) -> None:
        self._pause = None
        self._ask()

    def _granted(self, lease: Lease) -> None:
        self._asking = None
        self._backoff.reset()
        self._lease = lease
        lease.lost.addCallback(self._lost, lease)
        self._tell(lambda tenant: tenant.lease_granted(lease), while_it_is=lease)

    def _not_granted(self, failure: Failure) -> None:
        self._asking = None
        error = failure.value
        if not self._tenants and failure.check(CancelledError):
            return
        if not isinstance(error, RequestFailed | EtcdError):
            self._tell(lambda tenant: tenant.lease_ended(failure))
            return
        if self._tenants:
            if not self._backoff.rounds:
                self._log.warn(
                    "{whose} cannot be registered, which is tried again, since there is no lease: {why}",
                    whose=self._whose(),
                    why=str(error),
                )
            self._pause = self._clock.callLater(self._backoff.next(), self._ask_again)
        # Those that have no patience leave now, and then nothing is left to be tried.
        self._tell(lambda tenant: tenant.lease_refused(error))

    def _lost(self, why: LeaseLost, lease: Lease) -> None:
        if lease is not self._lease:
            return
        self._lease = None
        self._log.warn("{whose} is registered again, with a new lease: {why}", whose=self._whose(), why=str(why))
        self._tell(lambda tenant: tenant.lease_lost())
        # Whoever was told may have had it asked for already.
        if self._tenants and self._lease is None and self._asking is None and self._pause is None:
            self._ask()

    def _whose(self) -> str:
        return named([tenant.path for tenant in self._tenants])

    def _tell(self, tell: Callable[[Tenant], None], *, while_it_is: Lease | None = None) -> None:
        for tenant in tuple(self._tenants):
            if tenant in self._tenants and self._lease is while_it_is:
                tell(tenant)
