"""A sleep that can be ended."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime


class Bell:
    """Wakes who sleeps, or who sleeps next: one that was rung is not forgotten. One sleeps at a time."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._rung = False
        self._sleeper: Deferred[None] | None = None
        self._timer: IDelayedCall | None = None

    def ring(self) -> None:
        """Wake who sleeps."""
        self._rung = True
        self._wake()

    def sleep(self, seconds: float | None = None) -> Deferred[None]:
        """Fires when it is rung, at once where it was; or after so many seconds."""
        sleeper: Deferred[None] = Deferred()
        self._sleeper = sleeper
        if self._rung:
            self._wake()
        elif seconds is not None:
            self._timer = self._clock.callLater(seconds, self._wake)
        return sleeper

    def _wake(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()
        sleeper, self._sleeper = self._sleeper, None
        if sleeper is not None:
            self._rung = False
            sleeper.callback(None)
