"""A configuration value, or all below a path, followed for one who is told each change."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from twisted_etcd.client.client import EtcdClient
from twisted_etcd.config.changes import ConfigChange, ConfigChanges, config_change
from twisted_etcd.config.paths import Paths
from twisted_etcd.config.quiescence import Quiescence, Quiet
from twisted_etcd.config.snapshot import Entry, entry_of
from twisted_etcd.recipes.follower import Change, RangeFollower
from twisted_etcd.schema.kv import KeyValue


class ConfigFollower(RangeFollower):
    """
    Follows one value, or all that are below a path, from :meth:`start` on.

    :param key: a configuration key; with ``prefix``, a path, empty for everything.
    :param changed: told each change, with the old and the new value; with ``quiet``, what came of several.
    :param prefix: follow what is below the path.
    :param quiet: how long changes are gathered; not at all where its shortest time is 0.
    :param patient: go on trying where the first reading fails.
    """

    def __init__(
        self,
        client: EtcdClient,
        clock: IReactorTime,
        paths: Paths,
        key: str,
        changed: Callable[[ConfigChange], Any],
        *,
        prefix: bool = False,
        quiet: Quiet | None = None,
        patient: bool = False,
    ) -> None:
        self._paths = paths
        etcd_key = paths.root(key) if prefix else paths.etcd_key(key)
        super().__init__(client, clock, etcd_key, self._happened, patient=patient, prefix=prefix)
        self._at = etcd_key.encode()
        self._config_changed = changed
        self._quiescence = None
        if quiet is not None and quiet.shortest > 0:
            self._quiescence = Quiescence(clock, quiet, self._gathered)

    @property
    def entry(self) -> Entry | None:
        """The one value that is followed, by what was read and told so far; None where it is not set."""
        kv = self.current.get(self._at)
        return None if kv is None else entry_of(kv)

    @property
    def value(self) -> bytes | None:
        """The same without its revision."""
        return None if self.entry is None else self.entry.value

    @property
    def values(self) -> dict[str, bytes]:
        """All that is followed, by path."""
        found = ((self._paths.path(key), kv.value) for key, kv in sorted(self.current.items()))
        return {path: value for path, value in found if path is not None}

    def stop(self) -> Deferred[None]:
        """Follow it no longer: nothing more is told. Fires when nothing is under way."""
        if self._quiescence is not None:
            self._quiescence.stop()
        return super().stop()

    def _happened(self, changes: tuple[Change, ...]) -> None:
        told = [
            config_change(path, _value(change.old), _value(change.new), change.revision)
            for change in changes
            if (path := self._paths.path(change.key)) is not None
        ]
        if self._quiescence is not None:
            self._quiescence.add(told)
            return
        for change in told:
            self._config_changed(change)

    def _gathered(self, changes: ConfigChanges) -> None:
        for change in changes:
            self._config_changed(change)


def _value(kv: KeyValue | None) -> bytes | None:
    return None if kv is None else kv.value
