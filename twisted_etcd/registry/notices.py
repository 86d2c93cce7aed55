"""What many keys come to at once, said in one line."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

#: Keys that a line of the log names.
_NAMED = 5


def named(paths: Sequence[str]) -> str:
    """Keys, for a line that must not become too long."""
    if len(paths) <= _NAMED:
        return ", ".join(paths)
    return f"{', '.join(paths[:_NAMED])} and {len(paths) - _NAMED} more"


class Notices:
    """Warnings about keys: those of one turn of the reactor that say the same are one line of the log."""

    _log = Logger()

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._said: dict[tuple[str, str], list[str]] = {}
        self._turn: IDelayedCall | None = None

    def warn(self, text: str, path: str, why: Exception | None = None) -> None:
        """
        Say something of a key.

        :param text: a format with ``{keys}``, and ``{why}`` where there is a reason.
        """
        self._said.setdefault((text, "" if why is None else str(why)), []).append(path)
        if self._turn is None:
            self._turn = self._clock.callLater(0, self.flush)

    def flush(self) -> None:
        """Say now what was to be said at the end of the turn."""
        if self._turn is not None and self._turn.active():
            self._turn.cancel()
        self._turn = None
        said, self._said = self._said, {}
        for (text, why), paths in said.items():
            self._log.warn(text, keys=named(paths), why=why, paths=tuple(paths))
