"""All that endpoints ask of the registry."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import msgspec
from twisted.application.service import IService
from twisted.internet.defer import Deferred, maybeDeferred, succeed

from twisted_etcd.discreet import Discreet
from twisted_etcd.errors import InvalidSettings
from twisted_etcd.gateway.endpoints import Endpoint, parse_endpoint
from twisted_etcd.registry.instance import Instance, InstanceFormat, split_address
from twisted_etcd.registry.registration import Registration
from twisted_etcd.registry.registry import Registry, checked_name
from twisted_etcd.registry.view import ServiceView

#: Seconds that a registration stays when nothing is heard of its process any more, unless told otherwise.
TTL = 10


class Wanted(Discreet, frozen=True, kw_only=True):
    """
    How a port is to be registered. Its ``repr`` names the metadata, and shows none of it.

    :ivar ttl: seconds.
    :ivar id: ``address:port`` where it is empty.
    """

    secret_fields: ClassVar[frozenset[str]] = frozenset({"metadata"})

    name: str
    ttl: int = TTL
    tags: tuple[str, ...] = ()
    metadata: dict[str, str] = msgspec.field(default_factory=dict)
    weight: int = 1
    id: str = ""
    form: InstanceFormat = InstanceFormat.JSON


def check(wanted: Wanted) -> None:
    """
    See that it can be registered, once its address is known.

    :raises InvalidSettings: where it cannot.
    """
    checked_name(wanted.name)
    if wanted.form is InstanceFormat.JSON:
        return
    for given, what in ((wanted.tags, "tags"), (wanted.weight != 1, "weight"), (wanted.id, "id")):
        if given:
            msg = f"the format {wanted.form.value} has no room for {what}: leave it out, or take the format json"
            raise InvalidSettings(msg)
    if wanted.form is InstanceFormat.ADDRESS and wanted.metadata:
        msg = "the format address has no room for metadata: leave it out, or take the format json or go"
        raise InvalidSettings(msg)


def register(registry: Registry, wanted: Wanted, address: str, changed: Callable[[Registration], None]) -> Registration:
    """
    Register an instance, for as long as it takes and until it is taken back.

    :param address: ``host:port``.
    :param changed: called after each change of its state.
    """
    host, port = split_address(address)
    instance = Instance(
        address=host,
        port=port,
        tags=wanted.tags,
        metadata=wanted.metadata,
        weight=wanted.weight,
        id=wanted.id or address,
    )
    registration = registry.registration_of(
        wanted.name, instance, ttl=wanted.ttl, form=wanted.form, patient=True, changed=changed
    )
    # It fails only where it was taken back first.
    registration.start().addErrback(lambda _: None)
    return registration


def follow(registry: Registry, name: str, changed: Callable[[], None]) -> ServiceView:
    """The instances of a service, to be started."""
    return registry.follow(name, lambda _: changed())


def end(registry: Registry) -> Deferred[None]:
    """End what the registry has under way, before its client is stopped; it is used no longer."""
    # One that is a service takes back what is registered yet.
    service: Any = registry
    return maybeDeferred(service.stopService) if IService.providedBy(registry) else succeed(None)


def etcd_endpoints(registry: Registry) -> tuple[Endpoint, ...]:
    """Where the registry's etcd is."""
    return tuple(parse_endpoint(each.url) for each in registry.client.endpoints)
