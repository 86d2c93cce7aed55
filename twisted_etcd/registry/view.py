"""The instances of one service, followed."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec
from twisted.internet.defer import Deferred
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


def _instance(kv: KeyValue | None) -> Instance | None:
    if kv is None:
        return None
    try:
        return decode_instance(kv.value)
    except InvalidSettings as error:
        _log.warn("{key} is left out: {why}", key=kv.key.decode("utf-8", "replace"), why=error)
        return None


class ServiceView:
    """
    :param prefix: the prefix of the service's keys.
    :param changed: told each change, once the view is started.
    """

    def __init__(
        self, client: EtcdClient, clock: IReactorTime, prefix: str, changed: Callable[[ServiceChange], None]
    ) -> None:
        self._changed = changed
        self._follower = RangeFollower(client, clock, prefix, self._told, prefix=True)

    @property
    def instances(self) -> tuple[Instance, ...]:
        """All that there are, by what was read and followed so far."""
        return instances_of(kv for _, kv in sorted(self._follower.current.items()))

    @property
    def ended(self) -> Deferred[None]:
        """A new Deferred that fires with None after :meth:`stop`, and fails with anything else that ended it."""
        return self._follower.ended

    def start(self) -> Deferred[None]:
        """Fires when the instances have been read; changes are told from then on."""
        return self._follower.start()

    def stop(self) -> Deferred[None]:
        """Follow them no longer."""
        return self._follower.stop()

    def _told(self, changes: tuple[Change, ...]) -> None:
        added: list[Instance] = []
        removed: list[Instance] = []
        for change in changes:
            old, new = _instance(change.old), _instance(change.new)
            # A key that is put again as it was is no change of the service.
            if old != new:
                added.extend([new] if new is not None else [])
                removed.extend([old] if old is not None else [])
        if added or removed:
            self._changed(ServiceChange(self.instances, tuple(added), tuple(removed)))
