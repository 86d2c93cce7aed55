"""Many changes, told once."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime


class Quiet:
    """
    Waits until changes have come to rest.

    :param least: seconds without a change after which it tells.
    :param most: seconds after the first change after which it tells in any case.
    :param tell: called once for all changes.
    """

    def __init__(self, clock: IReactorTime, least: float, most: float, tell: Callable[[], None]) -> None:
        self._clock = clock
        self._least = least
        self._most = most
        self._tell = tell
        self._latest = 0.0
        self._timer: IDelayedCall | None = None

    @property
    def waits(self) -> bool:
        """Whether there was a change that is not told yet."""
        return self._timer is not None

    def changed(self) -> None:
        """There was a change."""
        now = self._clock.seconds()
        if self._timer is None:
            self._latest = now + self._most
        else:
            self._timer.cancel()
        self._timer = self._clock.callLater(max(0.0, min(self._least, self._latest - now)), self._rest)

    def cancel(self) -> None:
        """Tell nothing of what has changed so far."""
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _rest(self) -> None:
        self._timer = None
        self._tell()
