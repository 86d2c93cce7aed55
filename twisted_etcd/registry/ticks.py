"""Waits that end together."""

from __future__ import annotations

import math
from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

#: A wait becomes longer by this share of itself, at the most.
_SHARE = 1 / 4


class Tick:
    """A wait that can be cancelled."""

    __slots__ = ("_ticks", "call", "due")

    def __init__(self, ticks: Ticks, due: float, call: Callable[[], None]) -> None:
        self.due = due
        self.call = call
        self._ticks = ticks

    def cancel(self) -> None:
        """Do nothing when it is over. May be called again, and afterwards."""
        self._ticks.cancelled(self)


class Ticks:
    """
    Makes waits a little longer, so that those that end at about the same time end in the same turn of the reactor: what
    a thousand keys do after them is done together.

    :param phase: from 0 up to 1: what keeps the processes of a company from ending theirs at the same time.
    """

    def __init__(self, clock: IReactorTime, phase: float) -> None:
        self._clock = clock
        self._phase = phase
        #: By when they are over. In the order in which they were asked for.
        self._ticks: dict[float, tuple[IDelayedCall, dict[Tick, None]]] = {}

    def after(self, seconds: float, call: Callable[[], None]) -> Tick:
        """Call after so many seconds, or up to a quarter more."""
        now = self._clock.seconds()
        due = self._on_the_grid(now, seconds)
        if due not in self._ticks:
            self._ticks[due] = (self._clock.callLater(max(0.0, due - now), self._end, due), {})
        tick = Tick(self, due, call)
        self._ticks[due][1][tick] = None
        return tick

    def _on_the_grid(self, now: float, seconds: float) -> float:
        if seconds <= 0:
            return now
        grain = 2.0 ** math.floor(math.log2(seconds * _SHARE))
        return math.ceil((now + seconds - self._phase) / grain) * grain + self._phase

    def _end(self, due: float) -> None:
        _, ticks = self._ticks[due]
        while ticks:
            tick = next(iter(ticks))
            del ticks[tick]
            tick.call()
        del self._ticks[due]

    def cancelled(self, tick: Tick) -> None:
        """For a tick: it is wanted no longer."""
        delayed, ticks = self._ticks.get(tick.due, (None, {}))
        if tick in ticks:
            del ticks[tick]
            if not ticks and delayed is not None and delayed.active():
                delayed.cancel()
                del self._ticks[tick.due]

    def stop(self) -> None:
        """Call nothing any more."""
        for _, ticks in tuple(self._ticks.values()):
            for tick in tuple(ticks):
                tick.cancel()
