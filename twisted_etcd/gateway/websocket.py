"""
Streams as WebSockets: a thin protocol on wsproto, for what the gateway serves in both directions.

The engine, wsproto's, has the opening handshake, and all frames but the plain ones.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, cast

from h11 import LocalProtocolError as InvalidRequest
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IProtocolFactory,
    IPushProducer,
    IReactorTime,
    IStreamClientEndpoint,
    ITCPTransport,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from wsproto import ConnectionType, WSConnection
from wsproto.connection import ConnectionState
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    RejectConnection,
    RejectData,
    Request,
    TextMessage,
)
from wsproto.frame_protocol import CloseReason
from wsproto.utilities import RemoteProtocolError

from twisted_etcd.gateway.frames import FrameSorter, text_frame
from twisted_etcd.gateway.stream import (
    MAX_MESSAGE,
    MAX_REFUSAL,
    MessageTooLong,
    Stream,
    StreamClosed,
    StreamLost,
    StreamMalformed,
    StreamReceiver,
    StreamRefused,
    StreamTimeout,
    lost,
    not_opened,
)

#: Seconds that a server may take for its part of the closing handshake, unless told otherwise.
CLOSE_TIMEOUT = 2.0

#: What may stand in ``Sec-WebSocket-Protocol`` (RFC 9110, token).
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_FIRST_STATUS_THAT_ANSWERS = 200


class _Listener(NamedTuple):
    """Who is told what comes over a WebSocket that is open."""

    messages: Callable[[Sequence[bytes]], None]
    ended: Callable[[Failure], None]
    gone: Callable[[Failure], None]


class WebSocket(Stream):
    """An open WebSocket. Full duplex: any number of requests can be sent at any time."""

    def __init__(self, endpoint: str, receiver: StreamReceiver, protocol: WebSocketProtocol) -> None:
        super().__init__(endpoint, receiver)
        self._protocol = protocol
        protocol.listener = _Listener(self._deliver, self._end, self._socket_gone)

    def send(self, data: bytes) -> None:
        """
        Send one text message.

        :param data: JSON in UTF-8.
        :raises StreamError: where the stream has ended, or was closed; what is raised says why.
        """
        if self._ended is not None:
            raise self._ended
        if self._closing:
            raise StreamClosed
        self._protocol.send(data)

    def ping(self) -> None:
        """Send a ping, whose answer keeps proxies on the way from taking the connection for an idle one."""
        if self.is_open:
            self._protocol.ping()

    def pause(self) -> None:
        """Stop reading. A closing stream reads on, for the server's part of the closing handshake."""
        if self.is_open:
            self._protocol.pause()

    def resume(self) -> None:
        """Read on."""
        if self.is_open:
            self._protocol.resume()

    def _start_closing(self) -> None:
        self._protocol.close()

    def _abort(self) -> None:
        self._protocol.abort()


class WebSocketProtocol(Protocol):
    """
    The client's side of one WebSocket: opening handshake, messages, pings, closing handshake.

    :param endpoint: ``host:port`` of the server, for the stream that comes of it.
    :param hello: the opening handshake's request, made by the WebSocket engine beside it.
    :param close_timeout: seconds that the server may take for its part of the closing handshake.
    :param max_message: the longest message that is taken.
    :ivar opened: fires with the stream once the server has agreed to it.
    :ivar listener: who is told what comes then.
    """

    def __init__(
        self,
        endpoint: str,
        receiver: StreamReceiver,
        hello: tuple[WSConnection, bytes],
        *,
        clock: IReactorTime,
        close_timeout: float,
        max_message: int,
    ) -> None:
        self.opened: Deferred[WebSocket] = Deferred(lambda _deferred: self.abort())
        self.listener: _Listener | None = None
        self._endpoint = endpoint
        self._receiver = receiver
        self._engine, self._hello = hello
        self._clock = clock
        self._close_timeout = close_timeout
        self._max_message = max_message
        self._sorter = FrameSorter(max_message)
        #: What the engine has had of a message that is not whole yet.
        self._parts = bytearray()
        self._refusal: tuple[int, bytearray] | None = None
        self._finished = False
        self._abort_later: IDelayedCall | None = None

    # --- what the stream asks for -----------------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        """Send one text message."""
        frame = text_frame(data) if self._engine.state is ConnectionState.OPEN else None
        if frame is None:
            self._write(TextMessage(data.decode()))
        else:
            self._socket.write(frame)

    def ping(self) -> None:
        """Send a ping."""
        self._write(Ping())

    def pause(self) -> None:
        """Read nothing more."""
        self._producer.pauseProducing()

    def resume(self) -> None:
        """Read on."""
        self._producer.resumeProducing()

    def close(self) -> None:
        """Begin the closing handshake; what it waits for is bounded."""
        self._write(CloseConnection(CloseReason.NORMAL_CLOSURE))
        self._producer.resumeProducing()
        self._bound_closing()

    def abort(self) -> None:
        """Close the socket at once."""
        self._finished = True
        if self.transport is not None:
            self._socket.abortConnection()

    # --- what the socket tells --------------------------------------------------------------------------------------

    def connectionMade(self) -> None:
        """Send the opening handshake."""
        if ITCPTransport.providedBy(self.transport):
            self._socket.setTcpNoDelay(True)
        self._socket.write(self._hello)

    def dataReceived(self, data: bytes) -> None:
        """Take what the server sends, cut anywhere."""
        if self._finished:
            return
        try:
            if self.listener is None:
                data = self._shake_hands(data)
            for part in self._sorter.feed(data):
                if self._finished:
                    return
                if isinstance(part, bytes):
                    self._feed_engine(part)
                elif self.listener is not None:
                    self.listener.messages(part)
        except (RemoteProtocolError, UnicodeError) as error:
            broken = self._words(error)
        else:
            return
        self._refuse(StreamMalformed(f"what came is no WebSocket: {broken}"))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Tell whoever waits: the stream, or who asked for it."""
        self._finished = True
        self.transport = None
        if self._abort_later is not None:
            self._abort_later.cancel()
            self._abort_later = None
        if self.listener is not None:
            self.listener.gone(lost(reason))
        elif not self.opened.called:
            self.opened.errback(not_opened(reason) if self._refusal is None else Failure(self._refused()))

    def _shake_hands(self, data: bytes) -> bytes:
        """Let the engine have the handshake, and no more; what comes behind it is given back."""
        at = 0
        while at < len(data) and not self._finished and self.listener is None:
            # Line by line, to see where it ends.
            stop = data.find(b"\n", at) + 1 if self._refusal is None else 0
            self._feed_engine(data[at : stop or len(data)])
            at = stop or len(data)
        return data[at:]

    # --- what the engine makes of it --------------------------------------------------------------------------------

    def _feed_engine(self, data: bytes) -> None:
        self._engine.receive_data(data)
        for event in self._engine.events():
            self._handle(event)
            if self._finished:
                return

    def _handle(self, event: Event) -> None:
        if isinstance(event, TextMessage):
            self._part(event.data.encode(), whole=event.message_finished)
        elif isinstance(event, BytesMessage):
            self._part(bytes(event.data), whole=event.message_finished)
        elif isinstance(event, Ping):
            if self._engine.state is ConnectionState.OPEN:
                self._write(event.response())
        elif isinstance(event, CloseConnection):
            self._closed(event)
        elif isinstance(event, AcceptConnection):
            self._hello = b""
            self.opened.callback(WebSocket(self._endpoint, self._receiver, self))
        elif isinstance(event, RejectConnection):
            # A status under 200 announces that the answer is yet to come.
            if event.status_code >= _FIRST_STATUS_THAT_ANSWERS:
                self._refusal = (event.status_code, bytearray())
        elif isinstance(event, RejectData):
            self._refusal_continues(event)

    def _part(self, data: bytes, *, whole: bool) -> None:
        parts = self._parts
        if len(parts) + len(data) > self._max_message:
            parts.clear()
            self._give_up(MessageTooLong(self._max_message), CloseReason.MESSAGE_TOO_BIG)
            return
        if not whole:
            parts += data
            return
        if parts:
            data = bytes(parts + data)
            parts.clear()
        if self.listener is not None:
            self.listener.messages([data])

    def _closed(self, event: CloseConnection) -> None:
        state = self._engine.state
        if state is ConnectionState.OPEN:
            # The engine's own verdict on bytes that are no WebSocket frame.
            self._give_up(StreamMalformed(f"what came is no WebSocket frame: {event.reason}"), CloseReason(event.code))
            return
        if state is ConnectionState.REMOTE_CLOSING:
            words = f": {event.reason}" if event.reason else ""
            self._end(StreamLost(f"the server closed the WebSocket with code {int(event.code)}{words}", event.code))
            self._write(event.response())
        self._finished = True
        self._socket.loseConnection()
        self._bound_closing()

    def _give_up(self, why: StreamMalformed, code: CloseReason) -> None:
        self._end(why)
        if self._engine.state is ConnectionState.OPEN:
            self._write(CloseConnection(code))
        self._finished = True
        self._socket.loseConnection()
        self._bound_closing()

    def _end(self, why: StreamLost | StreamMalformed) -> None:
        if self.listener is not None:
            self.listener.ended(Failure(why))

    def _refusal_continues(self, event: RejectData) -> None:
        if self._refusal is None:
            return
        body = self._refusal[1]
        body += event.data[: MAX_REFUSAL - len(body)]
        if event.body_finished or len(body) >= MAX_REFUSAL:
            self._refuse(self._refused())

    def _refused(self) -> StreamRefused:
        status, body = self._refusal or (0, b"")
        return StreamRefused(status, bytes(body))

    def _refuse(self, why: StreamRefused | StreamMalformed) -> None:
        self.abort()
        if self.listener is None:
            self.opened.errback(Failure(why))
        else:
            self.listener.ended(Failure(why))

    def _words(self, error: Exception) -> str:
        # A server that repeats what was offered as a subprotocol would bring the token into the text.
        return re.sub(r"(?s)subprotocol .*", "subprotocol", str(error))

    # --- the socket -------------------------------------------------------------------------------------------------

    @property
    def _socket(self) -> ITCPTransport:
        return cast("ITCPTransport", self.transport)

    @property
    def _producer(self) -> IPushProducer:
        return cast("IPushProducer", self.transport)

    def _write(self, event: Event) -> None:
        self._socket.write(self._engine.send(event))

    def _bound_closing(self) -> None:
        if self._abort_later is None:
            self._abort_later = self._clock.callLater(self._close_timeout, self._abort_now)

    def _abort_now(self) -> None:
        self._abort_later = None
        self.abort()


class _WebSocketFactory(Factory):
    noisy = False

    def __init__(self, make: Callable[[], WebSocketProtocol]) -> None:
        self._make = make

    def buildProtocol(self, addr: IAddress | None) -> WebSocketProtocol:  # noqa: ARG002
        return self._make()


def _hello(host: str, path: str, subprotocols: Sequence[str], headers: Mapping[str, str]) -> tuple[WSConnection, bytes]:
    """A WebSocket engine, and the request with which it opens."""
    if not all(_TOKEN.fullmatch(subprotocol) for subprotocol in subprotocols):
        # None of them is shown: one may be a token.
        msg = "a subprotocol of a WebSocket holds a character that HTTP does not allow there"
        raise ValueError(msg)
    engine = WSConnection(ConnectionType.CLIENT)
    request = Request(
        host=host,
        target=path,
        subprotocols=list(subprotocols),
        extra_headers=[(name.encode(), value.encode()) for name, value in headers.items()],
    )
    try:
        return engine, engine.send(request)
    except (InvalidRequest, UnicodeError):
        # Not chained, for the same reason.
        msg = f"a WebSocket's host {host!r}, path {path!r} or headers hold a character that HTTP does not allow there"
        raise ValueError(msg) from None


def open_websocket(
    endpoint: IStreamClientEndpoint,
    *,
    host: str,
    path: str,
    receiver: StreamReceiver,
    clock: IReactorTime,
    handshake_timeout: float,
    subprotocols: Sequence[str] = (),
    headers: Mapping[str, str] | None = None,
    close_timeout: float = CLOSE_TIMEOUT,
    max_message: int = MAX_MESSAGE,
) -> Deferred[WebSocket]:
    """
    Open a WebSocket on a connection of its own.

    :param endpoint: where the connection goes, with TLS where it is to be spoken.
    :param host: ``host:port``, what the server is told that it is called.
    :param path: ``/v3/watch`` or another stream of etcd's.
    :param handshake_timeout: seconds for the connection and the opening handshake.
    :param subprotocols: what is offered to the server, which may choose one of it or none. A token goes to etcd as
        ``("Bearer", token)``. Neither these nor the headers appear in an error or a log.
    :param headers: further headers of the handshake. etcd's gateway hands on ``Origin`` and ``Referer`` alone.
    :param close_timeout: seconds that closing waits for the server before it aborts the connection.
    :param max_message: the longest message that is taken, in bytes.
    :return: fires when the server has agreed. Cancelling it closes the connection. See
        :mod:`twisted_etcd.gateway.stream` for what it fails with.
    :raises ValueError: for what HTTP does not allow in a request.
    """

    def hello() -> tuple[WSConnection, bytes]:
        return _hello(host, path, subprotocols, headers or {})

    # Here, so that what cannot be sent is known before there is a connection.
    hello()

    def make() -> WebSocketProtocol:
        return WebSocketProtocol(
            host, receiver, hello(), clock=clock, close_timeout=close_timeout, max_message=max_message
        )

    def timed_out(_result: object, seconds: float) -> WebSocket:
        msg = f"no WebSocket within {seconds:g} seconds"
        raise StreamTimeout(msg)

    connecting: Deferred[Any] = endpoint.connect(cast("IProtocolFactory", _WebSocketFactory(make)))
    opening: Deferred[WebSocket] = connecting.addCallback(lambda protocol: protocol.opened)
    opening.addErrback(not_opened)
    opening.addTimeout(handshake_timeout, clock, onTimeoutCancel=timed_out)
    return opening
