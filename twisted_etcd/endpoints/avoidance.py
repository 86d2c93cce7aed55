"""Instances that failed, which are left alone for a while."""

from __future__ import annotations

import msgspec
from twisted.internet.interfaces import IReactorTime

#: Seconds that an instance is avoided after its first failure, doubled with each further one.
FIRST_AVOIDANCE = 1.0
#: Seconds: the longest that an instance is avoided.
LONGEST_AVOIDANCE = 30.0


class _Failures(msgspec.Struct):
    count: int
    until: float


class Avoided:
    """
    Remembers failures by address. A success forgets them; so does a time without any, twice the longest avoidance.

    :param clock: gives the time.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._failures: dict[str, _Failures] = {}

    def failed(self, address: str) -> None:
        """It could not be connected to."""
        now = self._clock.seconds()
        self._forget(now)
        failures = self._failures.setdefault(address, _Failures(0, 0.0))
        failures.until = now + min(LONGEST_AVOIDANCE, FIRST_AVOIDANCE * 2.0 ** min(failures.count, 30))
        failures.count += 1

    def succeeded(self, address: str) -> None:
        """It could."""
        self._failures.pop(address, None)

    def __contains__(self, address: str) -> bool:
        failures = self._failures.get(address)
        return failures is not None and failures.until > self._clock.seconds()

    def _forget(self, now: float) -> None:
        old = [each for each, failures in self._failures.items() if failures.until + 2 * LONGEST_AVOIDANCE < now]
        for each in old:
            del self._failures[each]
