"""
When the watches of a WebSocket are asked how far they have come, and which of them may believe the answer. Pure.

A watch that knows that nothing happened up to a revision can go on from there, also where etcd has compacted it
meanwhile. etcd says so by itself every ten minutes, on every kind of stream; on a WebSocket it can be asked.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from twisted_etcd.gateway.checkups import Condition
from twisted_etcd.schema.watch import WatchResponse

#: Seconds between two questions.
INTERVAL = 60.0
#: The first patch release of each series whose answer never overtakes an event that comes before it.
_ORDERED = {(3, 4): 25, (3, 5): 8}
_VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)")
#: From this series on all do so.
_ALL_ORDERED = (3, 6)


def orders_progress(version: str) -> bool:
    """
    Whether an etcd of this version answers a progress request behind all events that it speaks of.

    An older one can answer while events of earlier revisions are still to come; a watch that believed it would go on
    behind them after a break, and lose them.
    """
    parts = _VERSION.match(version)
    if parts is None:
        return False
    major, minor, patch = map(int, parts.groups())
    return (major, minor) >= _ALL_ORDERED or patch >= _ORDERED.get((major, minor), patch + 1)


def is_progress_of_all(response: WatchResponse) -> bool:
    """Whether it answers a progress request. A creation that was refused bears the same id."""
    return response.watch_id == -1 and not response.created and not response.canceled


class Bookmarks:
    """
    The progress requests of one stream at a time.

    :ivar member_id: the member at the other end, by what it last sent.
    """

    def __init__(self) -> None:
        self.member_id = 0
        self._asked_at = 0.0
        self._asked: Sequence[int] | None = None

    def due(self, condition: Condition, now: float) -> bool:
        """
        Whether to ask now.

        :param condition: of the member that its address led to, which need not be the one at the other end.
        """
        return (
            now - self._asked_at >= INTERVAL
            and condition.member_id == self.member_id
            and orders_progress(condition.version)
        )

    def asked(self, now: float, watch_ids: Sequence[int]) -> None:
        """
        It was asked, when these watches were confirmed: the answer can overtake the confirmation of others.

        Where it was asked before and has not answered, as it does not while a watch is behind, the next answer may
        still be to the first question.
        """
        self._asked_at = now
        if self._asked is not None:
            asked_before = set(self._asked)
            watch_ids = [each for each in watch_ids if each in asked_before]
        self._asked = watch_ids

    def answered(self) -> Sequence[int]:
        """The answer has come, or cannot come any more: those whom it is for."""
        watch_ids, self._asked = self._asked, None
        return watch_ids or ()
