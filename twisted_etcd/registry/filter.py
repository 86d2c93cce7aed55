"""Which instances of a service are meant."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar

import msgspec

from twisted_etcd.discreet import Discreet
from twisted_etcd.errors import InvalidSettings
from twisted_etcd.registry.instance import Instance, Status

#: Those that can be called: what shows no status is taken to be well.
CALLABLE = (Status.PASSING, Status.WARNING)


class InstanceFilter(Discreet, frozen=True, kw_only=True):
    """
    Picks the instances that have all of this.

    :ivar tags: an instance has every one of them.
    :ivar metadata: an instance has each of these names, with the same text.
    :ivar status: an instance has one of these; one that shows none counts as passing. Critical ones are left out
        unless they are asked for.
    """

    secret_fields: ClassVar[frozenset[str]] = frozenset({"metadata"})

    tags: tuple[str, ...] = ()
    metadata: dict[str, str] = msgspec.field(default_factory=dict)
    status: tuple[Status, ...] = CALLABLE

    def accepts(self, instance: Instance) -> bool:
        """Whether it is one of those."""
        if (instance.status or Status.PASSING) not in self.status:
            return False
        if self.tags and not set(self.tags).issubset(instance.tags):
            return False
        return not self.metadata or self.metadata.items() <= instance.metadata.items()

    def of(self, instances: Iterable[Instance]) -> tuple[Instance, ...]:
        """Those of them that it picks, in their order."""
        return tuple(instance for instance in instances if self.accepts(instance))


#: Every instance that is registered, the critical ones too.
EVERY_INSTANCE = InstanceFilter(status=tuple(Status))


def make_filter(
    tags: Iterable[str] = (), metadata: Mapping[str, str] | None = None, status: Iterable[Status | str] = CALLABLE
) -> InstanceFilter:
    """
    Build a filter from what users give.

    :raises InvalidSettings: where tags and metadata are not texts, or a status is none.
    """
    for what, given in (("tags", tags), ("status", status)):
        if isinstance(given, str):
            msg = f"{what} must be several texts, as in {what}=({given!r},), not the text {given!r}"
            raise InvalidSettings(msg)
    try:
        fields = {"tags": tuple(tags), "metadata": dict(metadata or {}), "status": tuple(status)}
        return msgspec.convert(fields, InstanceFilter)
    except (msgspec.ValidationError, TypeError, ValueError) as error:
        known = ", ".join(each.value for each in Status)
        msg = f"the filter cannot be used; its tags and metadata are texts, and a status is one of {known}: {error}"
        raise InvalidSettings(msg) from error
