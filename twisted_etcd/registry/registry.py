"""Services: registered, discovered and followed by their names."""

from __future__ import annotations

import random
from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from twisted_etcd.client.client import EtcdClient
from twisted_etcd.client.kv import to_int
from twisted_etcd.errors import InvalidSettings
from twisted_etcd.registry.instance import Instance, InstanceFormat, make_instance, split_address
from twisted_etcd.registry.registration import Registration
from twisted_etcd.registry.view import ServiceChange, ServiceView, instances_of
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
    """

    def __init__(
        self,
        client: EtcdClient,
        clock: IReactorTime,
        prefix: str = SERVICE_PREFIX,
        random: Callable[[], float] = random.random,
    ) -> None:
        self._client = client
        self._clock = clock
        self._prefix = prefix.rstrip("/")
        self._random = random

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

    def discover(self, name: str) -> Deferred[tuple[Instance, ...]]:
        """The instances that are registered now, in the order of their keys."""

        def instances(response: RangeResponse) -> tuple[Instance, ...]:
            return instances_of(response.kvs)

        return self._client.get(self._service(name), prefix=True).addCallback(instances)

    def follow(self, name: str, changed: Callable[[ServiceChange], None], *, patient: bool = False) -> ServiceView:
        """
        The instances of a service, to be started.

        :param changed: told each change.
        :param patient: go on trying where the first reading fails.
        """
        return ServiceView(self._client, self._clock, self._service(name), changed, patient=patient)
