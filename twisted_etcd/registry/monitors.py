"""The health monitors of registrations."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from twisted.internet.defer import Deferred, DeferredList, succeed
from twisted.internet.interfaces import IReactorTime

from twisted_etcd.errors import InvalidSettings
from twisted_etcd.registry.health.health import Health
from twisted_etcd.registry.health.monitor import HealthMonitor, StatusCallback
from twisted_etcd.registry.instance import InstanceFormat, Status
from twisted_etcd.registry.machine import RegistrationState
from twisted_etcd.registry.registration import Registration


def healths_of(health: Health | Iterable[Health] | None, form: InstanceFormat) -> tuple[Health, ...]:
    """
    The health of a registration, as a caller gave it; none where it is always there.

    :param form: how the instance is written.
    :raises InvalidSettings: where the form has no place for a status that is to be shown.
    :raises TypeError: for what is none.
    """
    if health is None:
        return ()
    healths = (health,) if isinstance(health, Health) else tuple(health)
    for each in healths:
        if not isinstance(each, Health):
            msg = f"health must be a Health, or several of them, not {type(each).__name__}"
            raise TypeError(msg)
        if each.show_status and form is InstanceFormat.ADDRESS:
            msg = "show_status is asked for, and a bare address has no place for a status: write the instance as 'json'"
            raise InvalidSettings(msg)
    return healths


class _Wishes:
    """
    A registration as its monitor sees it: told what is wanted, it sees to that by itself, for ever.

    Nothing is waited for, so that while etcd is away the last wish counts, and none before it is carried out.
    """

    def __init__(self, registration: Registration) -> None:
        self._registration = registration

    def withhold(self) -> Deferred[None]:
        self._registration.withhold()
        return succeed(None)

    def offer(self) -> Deferred[None]:
        self._registration.offer()
        return succeed(None)

    def update(self, *, status: Status) -> Deferred[None]:
        self._registration.update(status=status)
        return succeed(None)

    def take_back(self) -> Deferred[None]:
        return self._registration.take_back()


class Monitors:
    """
    Looks after the health of registrations, each until it has ended.

    :param random: gives numbers from 0 up to 1; for the moments of the looks.
    """

    def __init__(self, clock: IReactorTime, random: Callable[[], float]) -> None:
        self._clock = clock
        self._random = random
        self._monitors: set[HealthMonitor] = set()

    def look_after(
        self, registration: Registration, healths: tuple[Health, ...], name: str, changed: StatusCallback | None
    ) -> None:
        """
        Begin to look after a registration, which is withheld where it is not to be there at once.

        :param name: what is registered, for the log.
        :param changed: told of each change of the status.
        """
        monitor = HealthMonitor(
            self._clock, _Wishes(registration), healths, name=name, random=self._random, changed=changed
        )
        registration.health = monitor
        self._monitors.add(monitor)
        monitor.ended.addCallback(lambda _: self._monitors.discard(monitor))
        registration.on_change(lambda _: self._look_at_end(registration, monitor))
        monitor.start()

    @staticmethod
    def _look_at_end(registration: Registration, monitor: HealthMonitor) -> None:
        if registration.state is RegistrationState.ENDED:
            monitor.stop()

    def stop(self) -> Deferred[None]:
        """Look after nothing any more; fires when no check is under way."""
        stopping = [monitor.stop() for monitor in tuple(self._monitors)]
        return DeferredList(stopping).addCallback(lambda _: None)
