"""How long to wait before the next attempt."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

#: Seconds: the longest wait after the first failure, doubled with each further one.
FIRST_BACKOFF = 0.05
#: Seconds: the longest wait there is.
LONGEST_BACKOFF = 1.0


class Backoff(msgspec.Struct):
    """
    The waits between attempts that failed: doubling, with full jitter.

    :ivar random: gives numbers from 0 up to 1.
    """

    random: Callable[[], float]
    first: float = FIRST_BACKOFF
    longest: float = LONGEST_BACKOFF
    rounds: int = 0

    def next(self) -> float:
        """Seconds to wait before the next attempt."""
        bound = min(self.longest, self.first * 2.0 ** min(self.rounds, 30))
        self.rounds += 1
        return self.random() * bound

    def reset(self) -> None:
        """Begin anew, after a success."""
        self.rounds = 0
