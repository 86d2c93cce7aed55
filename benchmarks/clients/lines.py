"""A worker's input in the reactor."""

from __future__ import annotations

from twisted.internet.defer import Deferred, DeferredQueue
from twisted.internet.protocol import connectionDone
from twisted.protocols.basic import LineReceiver
from twisted.python.failure import Failure


class Lines(LineReceiver):
    """Lines as they are asked for; an empty one is the end."""

    delimiter = b"\n"

    def __init__(self) -> None:
        self._lines: DeferredQueue[str] = DeferredQueue()

    def next(self) -> Deferred[str]:
        """The next one."""
        return self._lines.get()

    def lineReceived(self, line: bytes) -> None:
        """One has come."""
        self._lines.put(line.decode())

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: ARG002
        """None comes any more."""
        self._lines.put("")
