"""A wait until something that comes in a rush has come to rest."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime


class Lull:
    """
    Tells once of many changes, when they have come to rest.

    :param least: seconds without a change after which it tells; 0 to tell at once.
    :param most: seconds after the first change after which it tells in any case.
    :param tell: called once for all changes, never while it is on hold.
    """

    def __init__(self, clock: IReactorTime, least: float, most: float, tell: Callable[[], None]) -> None:
        self._clock = clock
        self._least = least
        self._most = most
        self._tell = tell
        #: When it tells in any case; None where there was no change that it has not told.
        self._latest: float | None = None
        self._timer: IDelayedCall | None = None
        self._due = False
        self._held = False

    @property
    def waits(self) -> bool:
        """Whether there was a change that is not told yet."""
        return self._latest is not None

    def changed(self) -> None:
        """There was a change."""
        now = self._clock.seconds()
        if self._latest is None:
            self._latest = now + self._most
        seconds = min(self._least, self._latest - now)
        self._due = False
        if seconds <= 0:
            self._rest()
        elif self._timer is None:
            self._timer = self._clock.callLater(seconds, self._elapsed)
        else:
            self._timer.reset(seconds)

    def hold(self) -> None:
        """Tell nothing, until :meth:`release`."""
        self._held = True

    def release(self) -> None:
        """Hold no longer; what is due is told now."""
        self._held = False
        if self._due:
            self._rest()

    def cancel(self) -> None:
        """Tell nothing of what has changed so far."""
        self._latest = None
        self._due = False
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _elapsed(self) -> None:
        self._timer = None
        self._rest()

    def _rest(self) -> None:
        self._due = True
        if not self._held:
            self.cancel()
            self._tell()
