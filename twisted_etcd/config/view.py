"""What configuration is now: etcd's values over defaults, and what they are read as. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from twisted_etcd.config.bindings import ConfigBinding
from twisted_etcd.config.changes import ConfigChange, config_change
from twisted_etcd.config.readings import Readings
from twisted_etcd.config.snapshot import ConfigSnapshot, ConfigSource, Entry
from twisted_etcd.errors import BadValue


class Update(msgspec.Struct, frozen=True):
    """
    What is at a path in etcd from a revision on.

    :ivar entry: None where nothing is.
    """

    path: str
    entry: Entry | None
    revision: int


class View:
    """
    Values by path, their last good readings, and the objects that are bound to them.

    :param defaults: what stands where etcd has nothing.
    :ivar remote: what etcd has.
    :ivar entries: that, over the defaults.
    :ivar bindings: what is bound.
    """

    def __init__(self, readings: Readings, defaults: Mapping[str, Entry]) -> None:
        self.readings = readings
        self.remote: dict[str, Entry] = {}
        self.entries: dict[str, Entry] = {}
        self.bindings: list[ConfigBinding[Any]] = []
        self._defaults = defaults
        self._snapshot: ConfigSnapshot | None = None
        self._begun = False

    def begin(self, found: Mapping[str, Entry], before: Mapping[str, Entry]) -> None:
        """
        Configuration is this, for the first time; nothing has changed thereby.

        :param before: what it was when it was last good, for where it is not now.
        """
        self._begun = True
        self.remote = dict(found)
        self.entries = {**self._defaults, **found}
        for path, entry in self.entries.items():
            if path in before:
                self.readings.recall(path, before[path])
            self.readings.take(path, entry, self._defaults.get(path))
        self._snapshot = None
        for binding in tuple(self.bindings):
            binding.take(self.entries)

    def bind(self, binding: ConfigBinding[Any]) -> None:
        """Keep an object as it should be."""
        self.bindings.append(binding)
        if self._begun:
            binding.take(self.entries)

    @property
    def wanting(self) -> BadValue | None:
        """The error for which a declared or bound value cannot be read and never could."""
        bound = (binding.is_wanting for binding in self.bindings)
        return self.readings.wanting(self.entries) or next((error for error in bound if error is not None), None)

    def differences(self, found: Mapping[str, Entry], revision: int) -> list[Update]:
        """
        What leads from what etcd had to what it has, in the order of revisions.

        :param revision: of what was found: that of deletions, whose own nobody knows.
        """
        updates = [
            Update(path, found.get(path), found[path].revision if path in found else revision)
            for path in self.remote.keys() | found.keys()
            if self.remote.get(path) != found.get(path)
        ]
        return sorted(updates, key=lambda update: (update.revision, update.path))

    def advance(self, updates: Iterable[Update]) -> list[ConfigChange]:
        """Take updates in; returns what changed thereby, which is less where a value was set to what it was."""
        changes: list[ConfigChange] = []
        touched: set[str] = set()
        for update in updates:
            path, entry = update.path, update.entry
            if entry is None:
                self.remote.pop(path, None)
            else:
                self.remote[path] = entry
            default = self._defaults.get(path)
            before, now = self.entries.get(path), entry or default
            if now is None:
                self.entries.pop(path, None)
            else:
                self.entries[path] = now
            touched.add(path)
            old, new = _value(before), _value(now)
            if old != new:
                self.readings.take(path, now, default)
                changes.append(config_change(path, old, new, update.revision))
        self._snapshot = None
        for binding in tuple(self.bindings):
            if any(map(binding.concerns, touched)):
                binding.take(self.entries)
        return changes

    def has_seen(self, written: Mapping[str, bytes | None], revision: int) -> bool:
        """Whether what was written, or deleted, at a revision is what etcd is known to have, or something newer is."""
        for path, value in written.items():
            entry = self.remote.get(path)
            there = 0 if entry is None else entry.revision
            if there < revision and (value is not None or entry is not None):
                return False
        return True

    def snapshot(self, revision: int, source: ConfigSource) -> ConfigSnapshot:
        """All of it, as it is now; the same one as long as nothing changes."""
        snapshot = self._snapshot
        if snapshot is None or snapshot.revision != revision or snapshot.source is not source:
            entries = {path: self.entries[path] for path in sorted(self.entries)}
            decoded = {path: self.readings.values[path] for path in entries}
            snapshot = ConfigSnapshot(MappingProxyType(entries), MappingProxyType(decoded), revision, source)
            self._snapshot = snapshot
        return snapshot

    def past(self, found: Mapping[str, Entry], revision: int) -> ConfigSnapshot:
        """What was found at another revision, over the same defaults."""
        entries = {**self._defaults, **found}
        entries = {path: entries[path] for path in sorted(entries)}
        decoded = {path: self.readings.decode(path, entry) for path, entry in entries.items()}
        return ConfigSnapshot(entries, decoded, revision, ConfigSource.ETCD)


def _value(entry: Entry | None) -> bytes | None:
    return None if entry is None else entry.value
