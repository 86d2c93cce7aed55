"""All registrations of a process below one prefix, and what they share."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from twisted_etcd.client.client import EtcdClient
from twisted_etcd.errors import TwistedEtcdError
from twisted_etcd.moment import Moment
from twisted_etcd.registry.convoy import Convoy
from twisted_etcd.registry.instance import Instance, InstanceFormat
from twisted_etcd.registry.lookouts import Lookouts
from twisted_etcd.registry.machine import RegistrationState
from twisted_etcd.registry.notices import Notices
from twisted_etcd.registry.registration import Registration, StateCallback
from twisted_etcd.registry.straggler import Straggler
from twisted_etcd.registry.tenancy import Tenancy
from twisted_etcd.registry.ticks import Ticks

ResultT = TypeVar("ResultT")

#: Seconds that giving the leases back has at the end, at the least.
_SHORTEST_STOP = 0.01


class Registrations:
    """
    What the registrations of a registry share: a lease for each TTL, the transactions that they travel in, the watches
    on their keys, the waits between attempts. It is what :class:`~twisted_etcd.registry.registration.Home` says.

    :param random: gives numbers from 0 up to 1; for the waits between attempts.
    """

    def __init__(self, client: EtcdClient, clock: IReactorTime, random: Callable[[], float]) -> None:
        self.clock = clock
        self.convoy = Convoy(client)
        self.ticks = Ticks(clock, random())
        self.notices = Notices(clock)
        self.lookouts = Lookouts(client, clock, self.convoy, random)
        self.leave_timeout: float | None = None
        self._client = client
        self._random = random
        #: By the key: what is wanted there, last, and before it what that is to replace and did not yet.
        self._at: dict[str, list[Registration]] = {}
        #: By the TTL: the lease that registrations share.
        self._shared: dict[int, Tenancy] = {}
        self._stragglers: set[Straggler] = set()
        #: Registrations that were taken back, until their time to drain is over.
        self._draining: dict[Deferred[None], Moment[None]] = {}

    @property
    def all(self) -> tuple[Registration, ...]:
        """Those that are to hold, and those that are being taken back."""
        return tuple(registration for at in self._at.values() for registration in at)

    def register(
        self,
        service: str,
        path: str,
        instance: Instance,
        *,
        ttl: int,
        form: InstanceFormat,
        own_lease: bool,
        drain: float,
        patient: bool,
        withheld: bool,
        changed: StateCallback | None,
    ) -> Registration:
        """
        Make a registration, and start it.

        :param service: the prefix of the service's keys.
        """
        registration = Registration(
            self,
            self._tenancy(ttl, own=own_lease),
            service,
            path,
            instance,
            form=form,
            drain=drain,
            patient=patient,
            withheld=withheld,
            random=self._random,
        )
        if changed is not None:
            registration.on_change(changed)
        at = self._at.setdefault(path, [])
        at.append(registration)
        registration.start()
        for earlier in at[:-1]:
            if withheld:
                earlier.give_way(remove=True)
            else:
                earlier.pause()
        return registration

    def _tenancy(self, ttl: int, *, own: bool) -> Tenancy:
        if own:
            return Tenancy(self._client, self.clock, ttl, self._random)
        if ttl not in self._shared:
            self._shared[ttl] = Tenancy(self._client, self.clock, ttl, self._random)
        return self._shared[ttl]

    # --- for the registrations --------------------------------------------------------------------------------------

    def is_current(self, registration: Registration) -> bool:
        """See :class:`~twisted_etcd.registry.registration.Home`."""
        return self._at.get(registration.path, [])[-1:] == [registration]

    def has_others(self, registration: Registration) -> bool:
        """Likewise."""
        return any(each is not registration for each in self._at.get(registration.path, ()))

    def changed(self, registration: Registration) -> None:
        """Likewise."""
        state = registration.state
        if state in (RegistrationState.ALIVE, RegistrationState.WITHHELD):
            at = self._at.get(registration.path, [])
            if registration in at:
                for earlier in at[: at.index(registration)]:
                    earlier.give_way(remove=state is RegistrationState.WITHHELD)

    def ended(self, registration: Registration) -> None:
        """Likewise."""
        at = self._at.get(registration.path, [])
        if registration in at:
            was_current = at[-1] is registration
            at.remove(registration)
            if not at:
                del self._at[registration.path]
            elif was_current:
                # It may have left anything there.
                at[-1].resume()

    def linger(self, registration: Registration, lease: int) -> None:
        """Likewise."""
        if self.leave_timeout is None:
            service = registration.service

            def over(straggler: Straggler) -> None:
                self._stragglers.discard(straggler)
                self.lookouts.remove(service, straggler)

            straggler = Straggler(self.clock, self.convoy, registration.path, lease, over)
            self._stragglers.add(straggler)
            self.lookouts.add(service, straggler, 0)

    def drains(self, draining: Deferred[None]) -> None:
        """Likewise."""
        over: Moment[None] = Moment()
        self._draining[draining] = over

        def done(result: ResultT) -> ResultT:
            del self._draining[draining]
            over.fire(None)
            return result

        draining.addBoth(done)

    # --- the end ----------------------------------------------------------------------------------------------------

    def stop(self, drain: float, timeout: float) -> Deferred[None]:
        """
        Take all back, at once, with their leases.

        :param drain: seconds to wait then, at the least, where something was there.
        :param timeout: seconds that it may take while etcd is away.
        :return: fires when nothing is left, and all that drains has had its time.
        """
        return Deferred.fromCoroutine(self._stop(drain, max(timeout, _SHORTEST_STOP)))

    async def _stop(self, drain: float, timeout: float) -> None:
        self.leave_timeout = timeout
        for straggler in tuple(self._stragglers):
            straggler.stop()
        for registration in self.all:
            # What went wrong is in the log by then.
            registration.leave(drain).addErrback(_ended)
        # What etcd was asked meanwhile is of no use any more.
        self.convoy.stop()
        seeing = self.lookouts.stop()
        bound = self.clock.callLater(timeout, seeing.cancel)
        draining = [over.wait() for over in self._draining.values()]
        await DeferredList([seeing, *draining], consumeErrors=True)
        if bound.active():
            bound.cancel()
        self.ticks.stop()
        self.notices.flush()

    def hurry(self) -> None:
        """Wait no longer for what drains."""
        for draining in tuple(self._draining):
            draining.cancel()


def _ended(failure: Failure) -> None:
    failure.trap(TwistedEtcdError, CancelledError)
