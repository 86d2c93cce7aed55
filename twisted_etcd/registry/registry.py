"""Services: registered, discovered and followed by their names."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from twisted_etcd.client.client import EtcdClient
from twisted_etcd.client.kv import to_int
from twisted_etcd.errors import InvalidSettings
from twisted_etcd.registry.choice import ROUND_ROBIN, Choice
from twisted_etcd.registry.filter import CALLABLE, make_filter
from twisted_etcd.registry.instance import Instance, InstanceFormat, Status, make_instance, split_address
from twisted_etcd.registry.protection import Protection
from twisted_etcd.registry.registration import Registration
from twisted_etcd.registry.view import ServiceChange, ServiceView, instances_of
from twisted_etcd.registry.views import Views
from twisted_etcd.schema.kv import RangeResponse

#: Where services are kept, unless told otherwise.
SERVICE_PREFIX = "/services"


def checked_name(name: str) -> str:
    """
    The name of a service.

    :raises InvalidSettings: where it cannot be used.
    """
    if not name or "/" in name or any(character.isspace() for character in name):
        msg = f"service name {name!r} cannot be used; give one without '/' and white space"
        raise InvalidSettings(msg)
    return name


class Registry:
    """
    The services below a prefix: the instance at ``10.0.0.7:80`` of ``shop`` has the key
    ``/services/shop/10.0.0.7:80``.

    :param random: gives numbers from 0 up to 1; for the waits between attempts.
    :param protection: what views hold back where much vanishes at once; nothing unless given.
    :ivar views: the views that :meth:`view` and :meth:`instances` share.
    """

    def __init__(
        self,
        client: EtcdClient,
        clock: IReactorTime,
        prefix: str = SERVICE_PREFIX,
        random: Callable[[], float] = random.random,
        *,
        protection: Protection | None = None,
    ) -> None:
        self._client = client
        self._clock = clock
        self._prefix = prefix.rstrip("/")
        self._random = random
        self._protection = protection
        self.views = Views(self._make_view, clock)

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

    def registration(
        self,
        name: str,
        service_address: str,
        *,
        ttl: int,
        tags: tuple[str, ...] = (),
        metadata: dict[str, str] | None = None,
        patient: bool = False,
        changed: Callable[[Registration], None],
    ) -> Registration:
        """
        A registration, to be started.

        :param service_address: ``host:port`` where others reach it.
        :param ttl: seconds that it stays when nothing is heard of this process any more.
        :param patient: go on trying where the first attempt fails.
        :param changed: called with it after each change of its state.
        :raises InvalidSettings: where the name, the address or the TTL cannot be used.
        """
        if to_int(ttl, "ttl") < 1:
            msg = f"ttl of service {name!r} must be at least 1 second, not {ttl!r}"
            raise InvalidSettings(msg)
        instance = make_instance(service_address, tags, metadata or {})
        return self._registration(self.path(name, service_address), instance, ttl, patient=patient, changed=changed)

    def registration_of(
        self,
        name: str,
        instance: Instance,
        *,
        ttl: int,
        form: InstanceFormat = InstanceFormat.JSON,
        patient: bool = False,
        changed: Callable[[Registration], None],
    ) -> Registration:
        """
        The same for an instance that is made already.

        :param form: how it is written.
        """
        path = self.path(name, instance.endpoint)
        return self._registration(path, instance, ttl, form=form, patient=patient, changed=changed)

    def _registration(
        self,
        path: str,
        instance: Instance,
        ttl: int,
        *,
        form: InstanceFormat = InstanceFormat.JSON,
        patient: bool,
        changed: Callable[[Registration], None],
    ) -> Registration:
        return Registration(
            self._client,
            self._clock,
            path,
            instance,
            ttl=ttl,
            form=form,
            patient=patient,
            changed=changed,
            random=self._random,
        )

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
