"""One HTTP connection: a request goes out, its answer comes back, and then the next."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IAddress, IPullProducer, ISystemHandle, IWriteDescriptor
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone, ResponseFailed, ResponseNeverReceived
from twisted.web.http import PotentialDataLoss
from twisted.web.iweb import IResponse
from zope.interface import implementer

from twisted_etcd.gateway.body import WholeBody
from twisted_etcd.gateway.httpreader import AnswerReader
from twisted_etcd.gateway.httpresponse import Body, Response, SentRequest

_perhaps_whole = cast("type[Exception]", PotentialDataLoss)
_DONE = Failure(ResponseDone("the answer is whole"))


@implementer(IPullProducer)
class HTTPConnection(Protocol):
    """
    Makes one request at a time.

    It closes itself as soon as no further request can be made on it, at once and without a farewell, for which a peer
    that hangs would never leave.

    :param free: called when a further request can be made; without it none is, and the connection closes itself after
        its answer.
    :param gone: called when the socket has gone.
    """

    def __init__(
        self,
        free: Callable[[HTTPConnection], None] | None = None,
        gone: Callable[[HTTPConnection, Failure], None] | None = None,
    ) -> None:
        self._free = free
        self._gone = gone
        self._reader = AnswerReader()
        self._answering: Deferred[IResponse] | None = None
        self._request: SentRequest | None = None
        self._sending: WholeBody | None = None
        self._receiving: Body | None = None
        #: Whether all that was written has left this process, as far as that can be known.
        self._left = True
        self._closing = False
        #: The socket, where nothing stands between it and what is written.
        self._socket: socket.socket | None = None

    def connectionMade(self) -> None:
        """Find out what the transport can tell."""
        transport = self.transport
        if not (ISystemHandle.providedBy(transport) and IWriteDescriptor.providedBy(transport)):
            return
        handle: object = transport.getHandle()
        # TLS has the interfaces of the socket under it, and not its ways: it cannot tell what has left.
        if isinstance(handle, socket.socket):
            self._socket = handle
            # For good: such a producer is asked for more whenever all that was written is with the operating system.
            cast("Any", self.transport).registerProducer(self, False)

    # --- requests ---------------------------------------------------------------------------------------------------

    @property
    def quiet(self) -> bool:
        """
        Whether nothing has come that the reactor has not read yet: no end, and no answer that nobody asked for.

        Where TLS hides that it is taken to be so.
        """
        if self._closing:
            return False
        if self._socket is None:
            return True
        try:
            self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def request(
        self, request: SentRequest, head: bytes, body: WholeBody | None, *, at_once: bool = False
    ) -> Deferred[IResponse]:
        """
        Ask.

        :param head: all that goes before the body.
        :param at_once: do not wait for the reactor to write, which would see first what has come meanwhile; for a
            connection that is :attr:`quiet`.
        :return: fires when the head of the answer has come. Cancelling it closes the connection.
        """
        answering: Deferred[IResponse] = Deferred(self._cancelled)
        self._answering = answering
        self._request = request
        self._sending = body
        self._left = False
        self._reader.expect()
        data = head if body is None else head + body.take()
        if at_once and self._socket is not None:
            data = data[_send(self._socket, data) :]
        if data:
            cast("Any", self.transport).write(data)
        if not data or self._socket is None:
            self._departed()
        return answering

    def _departed(self) -> None:
        self._left = True
        if self._sending is not None:
            self._sending.left = True
            self._sending = None

    def resumeProducing(self) -> None:
        """All that was written is with the operating system."""
        self._departed()

    def stopProducing(self) -> None:
        """The transport has ended, as it tells by ``connectionLost``."""

    def _cancelled(self, _answering: Deferred[IResponse]) -> None:
        self._answering = None
        self.abort()

    # --- answers ----------------------------------------------------------------------------------------------------

    def dataReceived(self, data: bytes) -> None:
        """Some of an answer, or what nobody asked for."""
        if self._closing:
            return
        if self._answering is None and self._receiving is None:
            self.abort()
            return
        reader = self._reader
        part = reader.read(data)
        body, answering = self._receiving, self._answering
        if answering is not None and reader.head is not None and self._request is not None:
            body = self._receiving = Body(self)
            self._answering = None
            response = Response(reader.head, self._request, body)
            self._took(body, part)
            answering.callback(cast("IResponse", response))
            if not body.wanted and not reader.whole:
                self.pause()
        elif body is not None:
            self._took(body, part)
        elif answering is not None and reader.trouble is not None:
            self._answering = None
            self.abort()
            answering.errback(Failure(ResponseFailed([Failure(reader.trouble)])))

    def _took(self, body: Body, part: bytes) -> None:
        reader = self._reader
        if part:
            body.add(part)
        if reader.whole:
            body.end(_DONE)
        elif reader.trouble is not None:
            self.abort()
            body.end(Failure(ResponseFailed([Failure(reader.trouble)])))

    def delivered(self) -> None:
        """The body was handed over; the next request may come."""
        self._receiving = None
        if self._free is not None and self._left and self._reader.whole and self._reader.lasting and not self._closing:
            self._free(self)
        else:
            self.abort()

    # --- the socket -------------------------------------------------------------------------------------------------

    def pause(self) -> None:
        """Read nothing more for now."""
        if not self._closing:
            cast("Any", self.transport).pauseProducing()

    def resume(self) -> None:
        """Read on."""
        if not self._closing:
            cast("Any", self.transport).resumeProducing()

    def abort(self) -> None:
        """Close it at once; may be done again."""
        if not self._closing:
            self._closing = True
            cast("Any", self.transport).abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The socket has gone, and with it whatever has not come yet."""
        self._closing = True
        reader, answering, body = self._reader, self._answering, self._receiving
        self._answering = self._receiving = None
        if answering is not None:
            if reader.begun:
                answering.errback(Failure(ResponseFailed([reason])))
            else:
                answering.errback(Failure(ResponseNeverReceived([reason])))
        elif body is not None:
            open_ended = reader.head is not None and reader.head.open_ended
            if open_ended and reason.check(ConnectionDone):
                body.end(Failure(_perhaps_whole()))
            else:
                body.end(Failure(ResponseFailed([reason])))
        self._sending = self._request = None
        reader.close()
        if self._gone is not None:
            self._gone(self, reason)


def _send(handle: socket.socket, data: bytes) -> int:
    """How much of it the operating system has taken; what is wrong with the socket is the reactor's to find."""
    try:
        return handle.send(data)
    except OSError:
        return 0


class HTTPConnections(Factory):
    """For what connects: gives each socket a connection of its own."""

    noisy = False

    def __init__(self, make: Callable[[], HTTPConnection]) -> None:
        self._make = make

    def buildProtocol(self, addr: IAddress | None) -> HTTPConnection:  # noqa: ARG002
        """The connection of a socket."""
        return self._make()
