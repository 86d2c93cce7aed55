"""All that endpoints ask of the registry."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import msgspec

from twisted_etcd.discreet import Discreet
from twisted_etcd.gateway.endpoints import Endpoint, parse_endpoint
from twisted_etcd.registry.instance import InstanceFormat, check_form, make_instance
from twisted_etcd.registry.registration import Registration
from twisted_etcd.registry.registry import TTL, Registry, checked_name
from twisted_etcd.registry.view import ServiceView


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
    instance = make_instance("host:1", wanted.tags, wanted.metadata, weight=wanted.weight, instance_id=wanted.id)
    check_form(f"service {wanted.name!r}", instance, wanted.form)


def register(registry: Registry, wanted: Wanted, address: str, changed: Callable[[Registration], None]) -> Registration:
    """
    Register an instance, for as long as it takes and until it is taken back.

    :param address: ``host:port``.
    :param changed: called after each change of its state.
    """
    return registry.register(
        wanted.name,
        address,
        ttl=wanted.ttl,
        tags=wanted.tags,
        metadata=wanted.metadata,
        weight=wanted.weight,
        id=wanted.id,
        form=wanted.form,
        changed=changed,
    )


def follow(registry: Registry, name: str, changed: Callable[[], None]) -> ServiceView:
    """The instances of a service, to be started."""
    return registry.follow(name, lambda _: changed())


def etcd_endpoints(registry: Registry) -> tuple[Endpoint, ...]:
    """Where the registry's etcd is."""
    return tuple(parse_endpoint(each.url) for each in registry.client.endpoints)
