"""Configuration: values under a prefix, loaded, set and followed by their path below it."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import ClassVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from twisted_etcd.client.client import EtcdClient
from twisted_etcd.discreet import Discreet
from twisted_etcd.errors import InvalidSettings
from twisted_etcd.recipes.follower import Change, RangeFollower
from twisted_etcd.schema.kv import KeyValue, PutResponse, RangeResponse

#: Where configuration is kept, unless told otherwise.
CONFIG_PREFIX = "/config"


class ChangeType(str, enum.Enum):
    """How a configuration value changed."""

    CREATED = "created"
    MODIFIED = "modified"
    DELETED = "deleted"


class ConfigChange(Discreet, frozen=True, kw_only=True):
    """
    One change of one configuration value.

    :ivar key: its path, without the prefix.
    :ivar revision: etcd's revision of the change.
    """

    secret_fields: ClassVar[frozenset[str]] = frozenset({"new_value", "old_value"})

    key: str
    new_value: bytes | None
    old_value: bytes | None
    change_type: ChangeType
    revision: int


class ConfigFollower(RangeFollower):
    """Follows one configuration value."""

    def __init__(
        self,
        client: EtcdClient,
        clock: IReactorTime,
        path: str,
        key: str,
        changed: Callable[[ConfigChange], None],
        *,
        patient: bool,
    ) -> None:
        super().__init__(client, clock, path, self._told, patient=patient)
        self._path = path.encode()
        self._config_key = key
        self._config_changed = changed

    @property
    def value(self) -> bytes | None:
        """What it is now, by what was read and followed so far; None where it is not set."""
        return _value(self.current.get(self._path))

    def _told(self, changes: tuple[Change, ...]) -> None:
        for change in changes:
            self._config_changed(
                ConfigChange(
                    key=self._config_key,
                    new_value=_value(change.new),
                    old_value=_value(change.old),
                    change_type=_change_type(change),
                    revision=change.revision,
                )
            )


def _value(kv: KeyValue | None) -> bytes | None:
    return None if kv is None else kv.value


def _change_type(change: Change) -> ChangeType:
    if change.new is None:
        return ChangeType.DELETED
    return ChangeType.CREATED if change.old is None else ChangeType.MODIFIED


def checked_key(key: str) -> str:
    """
    A configuration key without the slashes around it, which mean nothing.

    :raises InvalidSettings: where nothing is left.
    :raises TypeError: for anything but ``str``.
    """
    if not isinstance(key, str):
        msg = f"a configuration key must be str, not {type(key).__name__}"
        raise TypeError(msg)
    stripped = key.strip("/")
    if not stripped:
        msg = f"configuration key {key!r} is empty; give a path such as 'app/database'"
        raise InvalidSettings(msg)
    return stripped


class Configuration:
    """
    The configuration below a prefix.

    :param prefix: where it is kept; ``/config`` and the path ``app/database`` are the key ``/config/app/database``.
    """

    def __init__(self, client: EtcdClient, clock: IReactorTime, prefix: str = CONFIG_PREFIX) -> None:
        self._client = client
        self._clock = clock
        self._prefix = prefix.rstrip("/")

    def path(self, key: str) -> str:
        """
        The etcd key of a configuration key.

        :raises InvalidSettings: where it is empty.
        """
        return f"{self._prefix}/{checked_key(key)}"

    def load(self, key: str) -> Deferred[bytes | None]:
        """The value now; None where it is not set."""

        def value(response: RangeResponse) -> bytes | None:
            return response.kvs[0].value if response.kvs else None

        return self._client.get(self.path(key)).addCallback(value)

    def set(self, key: str, value: str | bytes) -> Deferred[int]:
        """Set it; fires with etcd's revision of the change."""

        def revision(response: PutResponse) -> int:
            return response.header.revision

        return self._client.put(self.path(key), value).addCallback(revision)

    def follow(self, key: str, changed: Callable[[ConfigChange], None], *, patient: bool = False) -> ConfigFollower:
        """
        Follow a value, once the follower is started.

        :param changed: told every change, with the old and the new value.
        :param patient: go on trying where the first reading fails.
        """
        return ConfigFollower(self._client, self._clock, self.path(key), key, changed, patient=patient)
