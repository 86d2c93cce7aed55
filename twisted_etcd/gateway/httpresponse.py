"""The answer to a request, as treq takes it, and the way of its body to whoever wants it."""

from __future__ import annotations

from typing import Protocol

from twisted.internet.interfaces import IProtocol, IPushProducer
from twisted.python.failure import Failure
from twisted.web.client import ResponseFailed
from twisted.web.http_headers import Headers
from twisted.web.iweb import IClientRequest, IResponse
from zope.interface import implementer

from twisted_etcd.gateway.httpreader import Head


@implementer(IClientRequest)
class SentRequest:
    """What was asked for."""

    def __init__(self, method: bytes, uri: bytes, headers: Headers | None) -> None:
        self.method = method
        self.absoluteURI = uri
        self.headers = Headers() if headers is None else headers


class BodySource(Protocol):
    """Where a body comes from."""

    def pause(self) -> None:
        """Read nothing more for now."""

    def resume(self) -> None:
        """Read on."""

    def abort(self) -> None:
        """Close it at once, whatever it still has."""

    def delivered(self) -> None:
        """The body has come to its end, and all of it was handed over."""


@implementer(IPushProducer)
class Body:
    """
    A body on its way, which waits until somebody wants it.

    It is also the transport of the protocol that gets it: one that can pause, go on, and close.
    """

    disconnecting = False

    def __init__(self, source: BodySource) -> None:
        self._source: BodySource | None = source
        self._parts: list[bytes] = []
        self._taker: IProtocol | None = None
        self._end: Failure | None = None
        self._paused = False

    @property
    def wanted(self) -> bool:
        """Whether somebody has asked for it."""
        return self._taker is not None or self._source is None

    # --- for the connection -----------------------------------------------------------------------------------------

    def add(self, data: bytes) -> None:
        """More of it has come."""
        if self._taker is None:
            self._parts.append(data)
        elif self._end is None:
            self._hand_over(self._taker, data)

    def end(self, reason: Failure) -> None:
        """No more of it comes."""
        if self._end is None:
            self._end = reason
            self._finish()

    # --- for who takes it -------------------------------------------------------------------------------------------

    def deliver_to(self, protocol: IProtocol) -> None:
        """Hand over what has come, and then what comes."""
        if self.wanted:
            msg = "the body of an answer is delivered once"
            raise RuntimeError(msg)
        self._taker = protocol
        protocol.makeConnection(self)  # type: ignore[arg-type]
        if self._parts:
            parts, self._parts = self._parts, []
            self._hand_over(protocol, parts[0] if len(parts) == 1 else b"".join(parts))
        if self._end is not None:
            self._finish()
        elif self._source is not None and not self._paused:
            self._source.resume()

    def _hand_over(self, taker: IProtocol, data: bytes) -> None:
        try:
            taker.dataReceived(data)
        except Exception:  # noqa: BLE001 such as a body that says that it is packed and is not; whoever takes it is told
            self._end = Failure(ResponseFailed([Failure()]))
            if self._source is not None:
                self._source.abort()
            self._finish()

    def _finish(self) -> None:
        taker, source, end = self._taker, self._source, self._end
        if taker is None or source is None or end is None:
            return
        self._taker = self._source = None
        # First, so that a request that is made because of it finds the connection free.
        source.delivered()
        taker.connectionLost(end)

    def pauseProducing(self) -> None:
        """Read nothing more from the server for now."""
        self._paused = True
        if self._source is not None:
            self._source.pause()

    def resumeProducing(self) -> None:
        """Read on."""
        self._paused = False
        if self._source is not None:
            self._source.resume()

    def loseConnection(self) -> None:
        """Close the connection at once; the rest of the body is not wanted."""
        if self._source is not None:
            self.disconnecting = True
            self._source.abort()

    stopProducing = abortConnection = loseConnection


@implementer(IResponse)
class Response:
    """An answer whose head has come."""

    def __init__(self, head: Head, request: SentRequest, body: Body) -> None:
        self.version = head.version
        self.code = head.code
        self.phrase = head.phrase
        self.headers = head.headers
        self.length = head.length
        self.request = request
        self.previousResponse: IResponse | None = None
        self._body = body

    def deliverBody(self, protocol: IProtocol) -> None:
        """
        Hand the body to a protocol, whose ``connectionLost`` tells how it ended.

        With ``ResponseDone``: it is whole. With ``PotentialDataLoss``: the connection has ended, and nothing says
        whether it is. With ``ResponseFailed``: it is not.
        """
        self._body.deliver_to(protocol)

    def setPreviousResponse(self, response: IResponse) -> None:
        """Remember the answer that led here."""
        self.previousResponse = response
