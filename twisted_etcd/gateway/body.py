"""The body of a request that is known whole before it is sent."""

from __future__ import annotations

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IConsumer
from twisted.web.iweb import IBodyProducer
from zope.interface import implementer


@implementer(IBodyProducer)
class WholeBody:
    """
    A body in one piece, and whether its end can have left this process.

    :ivar left: whether the last byte may have left this process. Without that byte no server can act on the request.
        Whoever takes the body says so.
    """

    def __init__(self, body: bytes) -> None:
        self.length = len(body)
        self.left = False
        self._body = body

    def take(self) -> bytes:
        """All of it, once."""
        # A connection that is kept open may keep this until its next request.
        body, self._body = self._body, b""
        return body

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        """Write all of it, to one who says nothing of where it is."""
        consumer.write(self.take())
        self.left = True
        return succeed(None)

    def pauseProducing(self) -> None:
        """Nothing can be held back: all was written at once."""

    resumeProducing = stopProducing = pauseProducing
