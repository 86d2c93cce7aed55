"""Configuration as it was at one revision."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from twisted_etcd.config.paths import checked_key, is_below, tree
from twisted_etcd.errors import BadValue
from twisted_etcd.schema.kv import KeyValue


class ConfigSource(str, enum.Enum):
    """Where configuration comes from."""

    ETCD = "etcd"
    CACHE = "cache"
    DEFAULTS = "defaults"


class Entry(msgspec.Struct, frozen=True):
    """
    One value.

    :ivar value: as it was written.
    :ivar revision: etcd's revision of its last change; 0 for a default.
    """

    value: bytes
    revision: int = 0

    def __repr__(self) -> str:
        return f"Entry(<{len(self.value)} bytes>, {self.revision})"

    def __rich_repr__(self) -> list[Any]:
        # msgspec's own would show the value.
        return [f"<{len(self.value)} bytes>", self.revision]


def entry_of(kv: KeyValue) -> Entry:
    """What of a key-value of etcd's is kept."""
    return Entry(kv.value, kv.mod_revision)


class ConfigSnapshot(Mapping[str, Any]):
    """
    All values below a prefix as they were at one revision: what code reads that needs several of them together.

    It does not change. Values are decoded as those of the :class:`~twisted_etcd.config.config.Config` that it is of.

    :param entries: what is written, by path; nobody changes it afterwards.
    :param decoded: what is read there; a :exc:`~twisted_etcd.errors.BadValue` where nothing can be.
    :ivar revision: etcd's revision; 0 where etcd was not reached yet, and there is no cache.
    :ivar source: where it comes from.
    """

    def __init__(
        self, entries: Mapping[str, Entry], decoded: Mapping[str, Any], revision: int, source: ConfigSource
    ) -> None:
        self._entries = entries
        self._decoded = decoded
        self.revision = revision
        self.source = source

    def __repr__(self) -> str:
        return f"<ConfigSnapshot of {len(self)} values at revision {self.revision}, from {self.source.value}>"

    def __getitem__(self, key: str) -> Any:  # noqa: ANN401 - what the value is decoded into
        value = self._decoded[checked_key(key)]
        if isinstance(value, BadValue):
            raise value
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and key.strip("/") in self._entries

    def raw(self, key: str) -> bytes:
        """
        The value as it was written.

        :raises KeyError: where it is not set.
        """
        return self._entries[checked_key(key)].value

    def revision_of(self, key: str) -> int:
        """Etcd's revision of the last change of a value; 0 where etcd does not have it."""
        entry = self._entries.get(checked_key(key))
        return 0 if entry is None else entry.revision

    def tree(self, root: str = "") -> dict[str, Any]:
        """
        The values below a path as nested mappings.

        A value at a path that has others below it stands among them with the empty name.

        :raises BadValue: where one of them cannot be decoded.
        """
        root = root.strip("/")
        start = len(root) + 1 if root else 0
        return tree((key[start:], self[key]) for key in self if is_below(key, root) and key != root)
