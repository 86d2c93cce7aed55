"""The body of a request that is known whole before it is sent."""

from __future__ import annotations

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IConsumer, IPullProducer
from twisted.web.iweb import IBodyProducer
from zope.interface import implementer


@implementer(IBodyProducer, IPullProducer)
class WholeBody:
    """
    Writes a body in one piece, and knows whether its end can have left this process.

    A connection that takes it as a pull producer asks it for more when it begins, and again once all that was written
    is with the operating system. One that takes it as a push producer says nothing of that.

    :ivar left: whether the last byte may have left this process. Without that byte no server can act on the request.
    """

    def __init__(self, body: bytes) -> None:
        self.length = len(body)
        self.left = False
        self._body = body
        self._pulled = False
        self._written = False

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        """Write all of it."""
        # A connection that is kept open keeps this until its next request.
        body, self._body = self._body, b""
        consumer.write(body)
        self._written = True
        self.left = not self._pulled
        return succeed(None)

    def resumeProducing(self) -> None:
        """There is no more to write; but now it is known where that is which was written."""
        self._pulled = True
        self.left = self._written

    def pauseProducing(self) -> None:
        """Nothing can be held back: all was written at once."""

    stopProducing = pauseProducing
