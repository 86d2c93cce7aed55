"""The body of a request that is known whole before it is sent."""

from __future__ import annotations

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IConsumer
from twisted.web.iweb import IBodyProducer
from zope.interface import implementer


@implementer(IBodyProducer)
class WholeBody:
    """
    Writes a body in one piece.

    :ivar written: whether it was handed to the connection, so that some of it may have left this machine.
    """

    def __init__(self, body: bytes) -> None:
        self.length = len(body)
        self.written = False
        self._body = body

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        """Write all of it."""
        self.written = True
        consumer.write(self._body)
        return succeed(None)

    def stopProducing(self) -> None:
        """There is nothing left to stop: all was written at once."""

    pauseProducing = resumeProducing = stopProducing
