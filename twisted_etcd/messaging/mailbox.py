"""Where messages wait for the next turn of the reactor."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from twisted.internet.interfaces import IDelayedCall, IReactorTime

ItemT = TypeVar("ItemT")

#: The messages that one mailbox hands over in one turn, before sockets and the other mailboxes get theirs.
PER_TURN = 100


class Mailbox(Generic[ItemT]):
    """
    A queue that is handed over in a later turn of the reactor, in order, under one delayed call for all of it.

    It holds what is put in until it is opened. What is put in while it hands over waits for the turn after.

    :param deliver: gets each item; it must not raise.
    """

    def __init__(self, reactor: IReactorTime, deliver: Callable[[ItemT], None]) -> None:
        self._reactor = reactor
        self._deliver = deliver
        self._queue: deque[ItemT] = deque()
        self._turn: IDelayedCall | None = None
        self._opened = False

    def put(self, item: ItemT) -> None:
        """Add an item; it is handed over in a later turn, never in this call."""
        self._queue.append(item)
        if self._turn is None and self._opened:
            self._turn = self._reactor.callLater(0, self._hand_over)

    def open(self) -> None:
        """Hand over, from the next turn on, what is there and what will come."""
        self._opened = True
        if self._queue:
            self._turn = self._reactor.callLater(0, self._hand_over)

    def close(self) -> list[ItemT]:
        """
        Hand over no more.

        :returns: what was not handed over.
        """
        self._opened = False
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None
        left = list(self._queue)
        self._queue.clear()
        return left

    def _hand_over(self) -> None:
        self._turn = None
        queue, deliver = self._queue, self._deliver
        for _ in range(min(len(queue), PER_TURN)):
            if not queue:
                return  # closed by what was delivered
            deliver(queue.popleft())
        if queue and self._turn is None:
            self._turn = self._reactor.callLater(0, self._hand_over)
