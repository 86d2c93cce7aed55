"""What a node counts."""

from __future__ import annotations

import msgspec


class Statistics(msgspec.Struct):
    """
    Numbers of a node since it was made.

    :ivar delivered: messages that were handed to a handler.
    :ivar answered: calls that got their answer.
    :ivar failed: messages whose handler failed.
    :ivar unhandled: messages for which the service has no handler.
    :ivar timeouts: calls and futures that were not answered in time.
    :ivar late_answers: answers that came when nobody waited for them any more, and were dropped.
    :ivar undelivered: messages, sent and not called, whose service stopped before they were delivered.
    :ivar sessions_open: what is waited for now: calls, futures and work in threads.
    """

    delivered: int = 0
    answered: int = 0
    failed: int = 0
    unhandled: int = 0
    timeouts: int = 0
    late_answers: int = 0
    undelivered: int = 0
    sessions_open: int = 0
