"""Changes that come in a rush, gathered until it is over. Pure but for the clock that it is given."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec
from twisted.internet.interfaces import IReactorTime

from twisted_etcd.client.kv import is_time
from twisted_etcd.config.changes import ConfigChange, ConfigChanges, config_change
from twisted_etcd.errors import InvalidSettings
from twisted_etcd.lull import Lull

#: How many times the shortest wait the longest is, unless it is given.
LONGEST_PER_SHORTEST = 4.0


class Quiet(msgspec.Struct, frozen=True):
    """
    How long changes are gathered.

    :ivar shortest: seconds without a further change after which they are told; 0 to tell each at once.
    :ivar longest: seconds after the first change after which they are told in any case.
    """

    shortest: float = 0.0
    longest: float = 0.0


def checked_quiet(quiet_min: float, quiet_max: float | None) -> Quiet:
    """
    Both times, as a caller gave them.

    :param quiet_max: None for four times the other.
    :raises InvalidSettings: where one of them cannot be used; the error names it.
    :raises TypeError: where one of them is no number.
    """
    if not is_time(quiet_min, "quiet_min"):
        msg = f"quiet_min must be at least 0 seconds, and finite, not {quiet_min!r}"
        raise InvalidSettings(msg)
    if quiet_max is None:
        return Quiet(quiet_min, quiet_min * LONGEST_PER_SHORTEST)
    if not is_time(quiet_max, "quiet_max") or quiet_max < quiet_min:
        msg = f"quiet_max must be finite, and at least quiet_min, which is {quiet_min!r}, not {quiet_max!r}"
        raise InvalidSettings(msg)
    return Quiet(quiet_min, quiet_max)


class Quiescence:
    """
    Gathers changes until it has been quiet for long enough, and tells of each key what came of it all.

    No change is lost and none told twice: the old value of a key is always the new value that was last told of it.

    :param tell: told what was gathered, never while it is on hold.
    """

    def __init__(self, clock: IReactorTime, quiet: Quiet, tell: Callable[[ConfigChanges], None]) -> None:
        self._lull = Lull(clock, quiet.shortest, quiet.longest, self._tell_gathered)
        self._tell = tell
        self._gathered: dict[str, ConfigChange] = {}
        self._first_revision = self._last_revision = 0
        self._stopped = False

    def add(self, changes: Iterable[ConfigChange]) -> None:
        """Take changes in, in their order."""
        if self._stopped:
            return
        some = False
        for change in changes:
            some = True
            before = self._gathered.get(change.key)
            if not self._gathered:
                self._first_revision = change.revision
            self._gathered[change.key] = change if before is None else _joined(before, change)
            self._last_revision = change.revision
        if some:
            self._lull.changed()

    def hold(self) -> None:
        """Tell nothing, and go on gathering."""
        self._lull.hold()

    def release(self) -> None:
        """Hold no longer; what is due is told now."""
        self._lull.release()

    def stop(self) -> None:
        """Tell nothing more; what was gathered is dropped."""
        self._stopped = True
        self._gathered.clear()
        self._lull.cancel()

    def _tell_gathered(self) -> None:
        gathered, self._gathered = self._gathered, {}
        changes = tuple(gathered[key] for key in sorted(gathered) if gathered[key].old_value != gathered[key].new_value)
        if changes:
            self._tell(
                ConfigChanges(changes=changes, first_revision=self._first_revision, revision=self._last_revision)
            )


def _joined(first: ConfigChange, last: ConfigChange) -> ConfigChange:
    return config_change(first.key, first.old_value, last.new_value, last.revision)
