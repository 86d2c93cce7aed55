"""Streams as the answer of a POST: what etcd answers to ``/v3/watch`` until one side closes the connection."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast
from urllib.parse import urlsplit

import msgspec
from treq.client import HTTPClient
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    IStreamClientEndpoint,
    ITCPTransport,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from twisted.web.client import URI, Agent, ResponseDone
from twisted.web.http import OK, PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgentEndpointFactory, IResponse
from zope.interface import implementer

from twisted_etcd.gateway.body import WholeBody
from twisted_etcd.gateway.framing import LineFramer, LineTooLong
from twisted_etcd.gateway.stream import (
    MAX_MESSAGE,
    MAX_REFUSAL,
    MessageTooLong,
    Stream,
    StreamLost,
    StreamReceiver,
    StreamRefused,
    StreamTimeout,
    lost,
    not_opened,
)


class _Socket(ProtocolWrapper):
    """
    Stands between the socket and the HTTP client, which tells neither of a socket's end nor how to abort it.

    :ivar read: called after each read of the socket, when the HTTP client is through with it.
    :ivar gone: called when the socket has gone.
    """

    read: Callable[[], None] | None = None
    gone: Callable[[Failure], None] | None = None

    def dataReceived(self, data: bytes) -> None:
        ProtocolWrapper.dataReceived(self, data)
        if self.read is not None:
            self.read()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        # The HTTP client first: it hands on the last bytes and knows best why they were the last.
        ProtocolWrapper.connectionLost(self, reason)
        if self.gone is not None:
            self.gone(lost(reason))

    def abort(self) -> None:
        transport = cast("ITCPTransport | None", self.transport)
        if transport is not None:
            transport.abortConnection()


class _Sockets(WrappingFactory):
    protocol = _Socket
    noisy = False

    def __init__(self, wrapped: IProtocolFactory) -> None:
        super().__init__(wrapped)  # type: ignore[no-untyped-call]


@implementer(IStreamClientEndpoint, IAgentEndpointFactory)
class _OneSocket:
    """Lets an ``Agent`` connect to one endpoint, whatever its URL says, and remembers the socket."""

    def __init__(self, endpoint: IStreamClientEndpoint) -> None:
        self._endpoint = endpoint
        self._socket: _Socket | None = None

    @property
    def socket(self) -> _Socket:
        if self._socket is None:
            msg = "the HTTP client answered without a connection"
            raise RuntimeError(msg)
        return self._socket

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:  # noqa: ARG002, N802
        return cast("IStreamClientEndpoint", self)

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:  # noqa: N803
        # Twisted's HTTP client would log two lines for each connection.
        cast("Any", protocolFactory).noisy = False
        connecting: Deferred[Any] = self._endpoint.connect(_Sockets(protocolFactory))
        return connecting.addCallback(self._connected)

    def _connected(self, socket: _Socket) -> IProtocol:
        self._socket = socket
        return socket.wrappedProtocol


class _StreamBody(Protocol):
    """
    Cuts the answer's body into messages.

    The body comes in pieces as small as the server wrote them, however many of them one read of the socket brought;
    the messages are gathered until :meth:`hand_on`.

    :param deliver: gets them.
    :param ended: told why no more can come.
    """

    def __init__(
        self, deliver: Callable[[Sequence[bytes]], None], ended: Callable[[Failure], None], max_message: int
    ) -> None:
        self._deliver = deliver
        self._ended = ended
        self._framer = LineFramer(max_message)
        self._messages: list[bytes] = []
        self._max_message = max_message
        self._too_long = False

    def dataReceived(self, data: bytes) -> None:
        if self._too_long:
            return
        try:
            self._messages += self._framer.feed(data)
        except LineTooLong as error:
            self._messages += error.lines
            self._too_long = True

    def hand_on(self) -> None:
        """Deliver what has come."""
        messages, self._messages = self._messages, []
        if messages:
            self._deliver(messages)
        if self._too_long:
            self._ended(Failure(MessageTooLong(self._max_message)))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        whole = reason.check(ResponseDone) is not None
        rest = self._framer.finish()
        if rest is not None and (whole or _is_json(rest)):
            self._messages.append(rest)
        self.hand_on()
        if whole or reason.check(PotentialDataLoss):
            self._ended(Failure(StreamLost("the server ended the stream")))
        else:
            self._ended(lost(reason))


class PostStream(Stream):
    """
    The answer of one POST. Half duplex: the watches of its body are all that it ever carries.

    Closing it resets the connection, which is how etcd is told that its watches are no longer wanted.
    """

    def __init__(self, endpoint: str, receiver: StreamReceiver, socket: _Socket) -> None:
        super().__init__(endpoint, receiver)
        self._socket = socket
        self._paused = False
        socket.gone = self._socket_gone

    def begin(self, response: IResponse, max_message: int) -> None:
        """Take the messages from here; for :func:`open_post_stream`, once whoever asked has the stream."""
        body = _StreamBody(self._deliver, self._body_ended, max_message)
        self._socket.read = body.hand_on
        response.deliverBody(cast("IProtocol", body))
        # What had come with the head.
        body.hand_on()
        if self._paused:
            # Whoever paused before has been overruled by deliverBody.
            self.pause()

    def pause(self) -> None:
        """Stop reading."""
        self._paused = True
        if not self._gone.happened:
            self._socket.pauseProducing()

    def resume(self) -> None:
        """Read on."""
        self._paused = False
        if not self._gone.happened:
            self._socket.resumeProducing()

    def _start_closing(self) -> None:
        self._abort()

    def _abort(self) -> None:
        self._socket.abort()

    def _body_ended(self, reason: Failure) -> None:
        if not self._closing:
            self._end(reason)
        # The HTTP client would close in good order, for which over TLS it waits for a peer that may be gone.
        self._abort()


class _Refusal(Protocol):
    """Collects the beginning of a body that is no stream."""

    def __init__(self, socket: _Socket) -> None:
        self.body: Deferred[bytes] = Deferred(lambda _deferred: socket.abort())
        self._socket = socket
        self._parts: list[bytes] = []
        self._length = 0

    def dataReceived(self, data: bytes) -> None:
        self._parts.append(data[: MAX_REFUSAL - self._length])
        self._length += len(self._parts[-1])
        if self._length >= MAX_REFUSAL:
            self._finish()

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: ARG002
        self._finish()

    def _finish(self) -> None:
        self._socket.abort()
        if not self.body.called:
            self.body.callback(b"".join(self._parts))


def open_post_stream(
    endpoint: IStreamClientEndpoint,
    url: str,
    headers: Mapping[str, str],
    body: bytes,
    receiver: StreamReceiver,
    *,
    clock: IReactorTime,
    head_timeout: float,
    max_message: int = MAX_MESSAGE,
) -> Deferred[PostStream]:
    """
    Ask for a stream with a POST, through treq, on a connection of its own.

    :param endpoint: where the connection goes.
    :param url: what is asked for, ``http://host:port/v3/watch``; it names the host to the server. Redirects are not
        followed.
    :param headers: further headers of the request. None of them appears in an error or a log.
    :param body: the JSON of the request, the whole of it.
    :param head_timeout: seconds for the connection and the head of the answer. etcd sends the head with its first
        message: for a watch that is ``created``.
    :param max_message: the longest message that is taken, in bytes.
    :return: fires when the server has answered 200; the messages follow. Cancelling it closes the connection. See
        :mod:`twisted_etcd.gateway.stream` for what it fails with.
    """
    one_socket = _OneSocket(endpoint)
    agent: Any = Agent.usingEndpointFactory(clock, one_socket)
    request_headers = Headers({name: [value] for name, value in headers.items()})
    request_headers.setRawHeaders("Accept", ["application/json"])
    request_headers.setRawHeaders("Content-Type", ["application/json"])
    asking = cast(
        "Deferred[IResponse]",
        HTTPClient(agent).post(
            url,
            headers=request_headers,
            data=cast("Any", WholeBody(body)),
            allow_redirects=False,
            unbuffered=True,
            reactor=cast("Any", clock),
        ),
    )

    def answered(response: IResponse) -> IResponse | Deferred[IResponse]:
        if response.code == OK:
            return response
        refusal = _Refusal(one_socket.socket)
        response.deliverBody(cast("IProtocol", refusal))

        def refused(content: bytes) -> IResponse:
            raise StreamRefused(response.code, content)

        return refusal.body.addCallback(refused)

    def timed_out(_result: object, seconds: float) -> IResponse:
        msg = f"no stream within {seconds:g} s; a proxy on the way may hold it back (nginx: see proxy_buffering)"
        raise StreamTimeout(msg)

    asking.addCallback(answered)
    asking.addErrback(not_opened)
    asking.addTimeout(head_timeout, clock, onTimeoutCancel=timed_out)

    opened: Deferred[PostStream] = Deferred(lambda _deferred: asking.cancel())

    def begin(response: IResponse) -> None:
        stream = PostStream(urlsplit(url).netloc, receiver, one_socket.socket)
        # In this order, so that whoever asked has the stream before its first message comes.
        opened.callback(stream)
        stream.begin(response, max_message)

    asking.addCallbacks(begin, opened.errback)
    return opened


def _is_json(text: bytes) -> bool:
    """Whether a last line without its newline is whole: where the connection broke it may be a part."""
    try:
        msgspec.json.decode(text, type=msgspec.Raw)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True
