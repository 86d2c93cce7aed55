"""Services: registered, discovered and followed by their names."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from twisted_etcd.client.client import EtcdClient
from twisted_etcd.client.kv import to_int
from twisted_etcd.errors import InvalidSettings, ServiceStopped
from twisted_etcd.moment import Moment
from twisted_etcd.registry.choice import ROUND_ROBIN, Choice
from twisted_etcd.registry.filter import CALLABLE, make_filter
from twisted_etcd.registry.health.health import Health, initial_status
from twisted_etcd.registry.health.monitor import StatusCallback
from twisted_etcd.registry.instance import Instance, InstanceFormat, Status, make_instance, split_address
from twisted_etcd.registry.lens import ServiceChange
from twisted_etcd.registry.monitors import Monitors, healths_of
from twisted_etcd.registry.protection import Protection
from twisted_etcd.registry.registration import Registration, StateCallback, checked_drain
from twisted_etcd.registry.registrations import Registrations
from twisted_etcd.registry.view import ServiceView, instances_of
from twisted_etcd.registry.views import Views
from twisted_etcd.schema.kv import RangeResponse

#: Where services are kept, unless told otherwise.
SERVICE_PREFIX = "/services"
#: Seconds that a registration stays when nothing is heard of its process any more, unless told otherwise.
TTL = 10


def checked_name(name: str) -> str:
    """
    The name of a service.

    :raises InvalidSettings: where it cannot be used.
    """
    if not isinstance(name, str):
        msg = f"the name of a service must be a str, not {type(name).__name__}"
        raise TypeError(msg)
    if not name or "/" in name or any(character.isspace() for character in name):
        msg = f"service name {name!r} cannot be used; give one without '/' and white space"
        raise InvalidSettings(msg)
    return name


def checked_form(form: str) -> InstanceFormat:
    """
    How an instance is written, by its name.

    :raises InvalidSettings: for a name that is none.
    """
    try:
        return InstanceFormat(form)
    except ValueError:
        known = ", ".join(each.value for each in InstanceFormat)
        msg = f"the form of an instance must be one of {known}, not {form!r}"
        raise InvalidSettings(msg) from None


class Registry(Service):
    """
    The services below a prefix: the instance at ``10.0.0.7:80`` of ``shop`` has the key
    ``/services/shop/10.0.0.7:80``.

    It can be used as soon as it is made. End it with ``stopService``, before its client: give it a parent service that
    stops it first, or use it as ``async with Registry(…) as registry``.

    Its registrations share a lease for each TTL, and travel together: a thousand of them are put, and put back after
    etcd has lost them, with one grant and some ten transactions.

    :param client: that it uses. It is not stopped with this.
    :param reactor: gives the time.
    :param prefix: where services are kept.
    :param random: gives numbers from 0 up to 1; for the waits between attempts.
    :param drain: seconds that :meth:`stopService` waits when the keys are gone, at the least; more where a registration
        says so, none where nothing was registered.
    :raises InvalidSettings: where the drain cannot be used.
    :param protection: what views hold back where much vanishes at once; nothing unless given.
    :ivar views: the views that :meth:`view` and :meth:`instances` share.
    """

    def __init__(
        self,
        client: EtcdClient,
        reactor: IReactorTime,
        prefix: str = SERVICE_PREFIX,
        random: Callable[[], float] = random.random,
        *,
        drain: float = 0.0,
        protection: Protection | None = None,
    ) -> None:
        self._client = client
        self._clock = reactor
        self._prefix = prefix.rstrip("/")
        self._random = random
        self._protection = protection
        self._drain = checked_drain(drain)
        self._registrations = Registrations(client, reactor, random)
        self._monitors = Monitors(reactor, random)
        self.views = Views(self._make_view, reactor)
        self._taking_back: Moment[None] | None = None

    def __repr__(self) -> str:
        return f"<Registry of {len(self.registrations)} registrations below {self._prefix}>"

    @property
    def client(self) -> EtcdClient:
        """The client that it asks etcd with."""
        return self._client

    def _service(self, name: str) -> str:
        return f"{self._prefix}/{checked_name(name)}/"

    def path(self, name: str, service_address: str) -> str:
        """
        The key of an instance.

        :raises InvalidSettings: where the name or the address cannot be used.
        """
        split_address(service_address)
        return self._service(name) + service_address

    # --- registering ------------------------------------------------------------------------------------------------

    @property
    def registrations(self) -> tuple[Registration, ...]:
        """Those that are to hold, and those that are being taken back."""
        return self._registrations.all

    def register(
        self,
        name: str,
        service_address: str,
        *,
        ttl: int = TTL,
        tags: Sequence[str] = (),
        metadata: Mapping[str, str] | None = None,
        weight: int = 1,
        id: str = "",  # noqa: A002 - as the instance has it
        form: InstanceFormat = InstanceFormat.JSON,
        own_lease: bool = False,
        drain: float = 0.0,
        patient: bool = True,
        withheld: bool = False,
        health: Health | Iterable[Health] | None = None,
        changed: StateCallback | None = None,
        status_changed: StatusCallback | None = None,
    ) -> Registration:
        """
        Register an instance of a service, from now until it is taken back, or this stops.

        Where the same address is registered already, that is replaced, without a moment in which it is not there; if
        the new one fails or is taken back before it is there, the earlier one stays.

        :param service_address: ``host:port`` where others reach it.
        :param ttl: seconds that it stays when nothing is heard of this process any more.
        :param weight: its share of the calls, against the other instances' weights.
        :param id: what tells it from the others; the address unless given.
        :param form: how it is written in etcd.
        :param own_lease: with a lease of its own, and not the one that all with its TTL share.
        :param drain: seconds that taking it back waits when the key is gone.
        :param patient: go on trying where the first attempt fails; without it, ``registered`` fails and it has ended.
        :param withheld: begin with the key not there, until ``offer()``.
        :param health: one, or several: the key is there while all their checks pass, and not before they did, unless
            ``initial`` says so. It withholds and offers the registration, and takes it back where there is no hope.
        :param changed: called with the registration after each change of its state.
        :param status_changed: called with ``registration.health`` after each change of its status.
        :raises InvalidSettings: where something cannot be used; the error names it.
        :raises TypeError: where something is of the wrong type; likewise.
        :raises ServiceStopped: this was stopped.
        """
        if self.stopped:
            msg = f"{name} at {service_address} cannot be registered: the registry was stopped"
            raise ServiceStopped(msg)
        if to_int(ttl, "ttl") < 1:
            msg = f"ttl of service {name!r} must be at least 1 second, not {ttl!r}"
            raise InvalidSettings(msg)
        form = checked_form(form)
        healths = healths_of(health, form)
        if withheld and healths:
            msg = f"{name} at {service_address} is to be withheld, which its health decides: leave one of them out"
            raise InvalidSettings(msg)
        instance = make_instance(service_address, tags, metadata or {}, weight=weight, instance_id=id)
        registration = self._registrations.register(
            self._service(name),
            self.path(name, service_address),
            instance,
            ttl=ttl,
            form=form,
            own_lease=own_lease,
            drain=checked_drain(drain),
            patient=patient,
            withheld=withheld or initial_status(healths) is Status.CRITICAL,
            changed=changed,
        )
        if healths:
            self._monitors.look_after(registration, healths, f"{name} at {service_address}", status_changed)
        return registration

    # --- finding ----------------------------------------------------------------------------------------------------

    def discover(self, name: str, *, timeout: float | None = None) -> Deferred[tuple[Instance, ...]]:
        """
        Read from etcd the instances that are registered now, critical ones too, in the order of their keys.

        :param timeout: seconds; the client's where it is None.
        """

        def instances(response: RangeResponse) -> tuple[Instance, ...]:
            return instances_of(response.kvs)

        reading = self._client.get(self._service(name), prefix=True, timeout=timeout)
        return reading.addCallback(instances)

    # --- the local view ---------------------------------------------------------------------------------------------

    def _make_view(self, name: str) -> ServiceView:
        return ServiceView(
            self._client,
            self._clock,
            self._service(name),
            patient=True,
            lasting=True,
            protection=self._protection,
            random=self._random,
        )

    def view(self, name: str, *, protection: Protection | None = None) -> ServiceView:
        """
        The view of a service's instances: loaded once and followed, through every outage, until the registry stops.

        All who ask for it in this process share it, so that its ``stop()`` ends it for all of them; the next one who
        asks gets another. ``when_loaded()`` fires when it has been read.

        :param protection: what it holds back where much vanishes at once; what it was told before unless given.
        :raises InvalidSettings: where the name cannot be used.
        :raises ServiceStopped: the registry was stopped.
        """
        view = self.views.view(name)
        if protection is not None:
            view.protect(protection)
        return view

    def instances(
        self,
        name: str,
        *,
        tags: Iterable[str] = (),
        metadata: Mapping[str, str] | None = None,
        status: Iterable[Status | str] = CALLABLE,
        timeout: float | None = None,
    ) -> Deferred[tuple[Instance, ...]]:
        """
        The instances of a service, by the view of it in this process: at once, but for the first one who asks.

        While etcd is away they are the last ones known: ``view(name).stale`` says so. Where the first reading does not
        succeed in time it is gone on with, for those who ask later.

        :param tags: an instance has all of them.
        :param metadata: an instance has all of it.
        :param status: an instance has one of them; critical ones are left out unless they are asked for.
        :param timeout: seconds for the first reading; 5 where it is None.
        :raises InvalidSettings: where the name or the filter cannot be used.
        :raises RequestFailed: etcd could not be reached in time: ``Unavailable`` or ``DeadlineExceeded``.
        :raises EtcdError: etcd refuses, as where a permission is missing.
        """
        return self.views.instances(name, make_filter(tags, metadata, status), timeout)

    def choose(
        self,
        name: str,
        choice: Choice | str = ROUND_ROBIN,
        *,
        key: str | bytes | None = None,
        tags: Iterable[str] = (),
        metadata: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> Deferred[Instance | None]:
        """
        One of :meth:`instances`; None where there is none.

        :param choice: a way to choose, or its name; see :meth:`ServiceView.choose`.
        :param key: what is to stay with one instance, for a choice that is sticky.
        """
        where = make_filter(tags, metadata)
        loading = self.views.loaded(name, timeout)
        return loading.addCallback(lambda view: view.choose(choice, key=key, where=where))

    def follow(self, name: str, changed: Callable[[ServiceChange], None], *, patient: bool = False) -> ServiceView:
        """
        The instances of a service, to be started.

        :param changed: told each change.
        :param patient: go on trying where the first reading fails.
        """
        return ServiceView(self._client, self._clock, self._service(name), changed, patient=patient)

    # --- the beginning and the end ----------------------------------------------------------------------------------

    @property
    def stopped(self) -> bool:
        """Whether it was stopped, or its registrations taken back: it registers nothing any more."""
        return self._taking_back is not None

    def startService(self) -> None:
        """
        Note that its parent has started; it can be used before that.

        :raises ServiceStopped: it was stopped, and cannot be used again.
        """
        if self.stopped:
            msg = f"{self!r} was stopped and cannot be started again: make a new one"
            raise ServiceStopped(msg)
        super().startService()  # type: ignore[no-untyped-call]

    def take_all_back(self) -> Deferred[None]:
        """
        Take all registrations back, and register nothing any more; services can still be found.

        Their keys are removed at once, with their leases; then the longest of their times to drain is waited for.

        :return: fires when nothing of them is left: no delayed call, and no watch. With etcd away that takes at most
            the client's ``stop_timeout``, or its ``request_timeout`` where that is less. Cancelling it ends the wait
            for what drains.
        """
        if self._taking_back is None:
            self._taking_back = Moment()
            timeout = min(self._client.stop_timeout, self._client.request_timeout)
            looking = self._monitors.stop()
            taking_back = self._registrations.stop(self._drain, timeout).addCallback(lambda _: looking)
            taking_back.addCallbacks(self._taking_back.fire, self._taking_back.fail)
        if self._taking_back.happened:
            return self._taking_back.wait()
        taken_back: Deferred[None] = Deferred(lambda _: self._registrations.hurry())
        self._taking_back.wait().addBoth(taken_back.callback)
        return taken_back

    def stopService(self) -> Deferred[None]:
        """
        Take all registrations back, see :meth:`take_all_back`, and follow no service any more. It cannot be used again.

        :return: fires when nothing is left. Cancelling it ends the wait for what drains.
        """
        super().stopService()  # type: ignore[no-untyped-call]
        taking_back = self.take_all_back()
        following = self.views.stop()
        return taking_back.addCallback(lambda _: following)

    async def __aenter__(self) -> Registry:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # A coroutine that is thrown away, as at the end of a program that was interrupted, can wait for nothing.
        if exc_type is not GeneratorExit:
            await self.stopService()
