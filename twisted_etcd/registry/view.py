"""The instances of one service, followed."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from twisted_etcd.client.client import EtcdClient
from twisted_etcd.errors import InvalidSettings
from twisted_etcd.recipes.follower import Change, RangeFollower
from twisted_etcd.registry.instance import Instance, decode_instance
from twisted_etcd.schema.kv import KeyValue

_log = Logger()


class ServiceChange(msgspec.Struct, frozen=True):
    """
    How the instances of a service changed.

    :ivar instances: all that there are now, in the order of their keys.
    :ivar added: those that are new, or changed.
    :ivar removed: those that are gone, or were changed, as they were.
    """

    instances: tuple[Instance, ...]
    added: tuple[Instance, ...]
    removed: tuple[Instance, ...]


def instances_of(kvs: Iterable[KeyValue]) -> tuple[Instance, ...]:
    """The instances in what was read; a value that is none is left out, and named in the log."""
    return tuple(instance for kv in kvs if (instance := _instance(kv)) is not None)


def _instance(kv: KeyValue) -> Instance | None:
    try:
        return decode_instance(kv.value)
    except InvalidSettings as error:
        _log.warn("{key} is left out: {why}", key=kv.key.decode("utf-8", "replace"), why=error)
        return None


class ServiceView(RangeFollower):
    """
    The instances of one service, by their keys below a prefix.

    :param prefix: the prefix of the service's keys.
    :param changed: told each change, once the view is started.
    """

    def __init__(
        self,
        client: EtcdClient,
        clock: IReactorTime,
        prefix: str,
        changed: Callable[[ServiceChange], None],
        *,
        patient: bool = False,
    ) -> None:
        super().__init__(client, clock, prefix, self._told, patient=patient, prefix=True)
        self._service_changed = changed
        #: What each key-value was found to be, so that each is decoded, and complained about, once.
        self._decoded: dict[bytes, tuple[KeyValue, Instance | None]] = {}

    @property
    def instances(self) -> tuple[Instance, ...]:
        """All that there are, by what was read and followed so far, in the order of their keys."""
        found = (self._instance(kv) for _, kv in sorted(self.current.items()))
        return tuple(instance for instance in found if instance is not None)

    def _instance(self, kv: KeyValue | None) -> Instance | None:
        if kv is None:
            return None
        known = self._decoded.get(kv.key)
        if known is not None and known[0] is kv:
            return known[1]
        instance = _instance(kv)
        self._decoded[kv.key] = kv, instance
        return instance

    def _told(self, changes: tuple[Change, ...]) -> None:
        before: dict[bytes, Instance | None] = {}
        for change in changes:
            # Of several changes to one key what stood before the first of them counts, and what is there now.
            if change.key not in before:
                before[change.key] = self._instance(change.old)
        added: list[Instance] = []
        removed: list[Instance] = []
        for key, old in before.items():
            new = self._instance(self.current.get(key))
            if key not in self.current:
                self._decoded.pop(key, None)
            # A key that is put again as it was is no change of the service.
            if old != new:
                added.extend([new] if new is not None else [])
                removed.extend([old] if old is not None else [])
        if added or removed:
            self._service_changed(ServiceChange(self.instances, tuple(added), tuple(removed)))
