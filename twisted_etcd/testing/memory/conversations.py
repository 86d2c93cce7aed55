"""Connections as the gateway serves them: HTTP/1.1, and WebSockets for streams."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, cast

import httptools
import msgspec
from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime, ITCPTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, CloseConnection, Ping, Request, TextMessage
from wsproto.utilities import RemoteProtocolError

from twisted_etcd.errors import EtcdError
from twisted_etcd.testing.memory.gate import Gate
from twisted_etcd.testing.memory.requests import Answering, Asked, Outlet

_HEAD_END = b"\r\n\r\n"


class Conversation(Protocol):
    """
    The server's side of one connection.

    :param clock: for what is to happen later.
    :param make: makes what answers a request.
    """

    def __init__(self, gate: Gate, clock: IReactorTime, make: Callable[[Conversation, Asked], Answering]) -> None:
        self._gate = gate
        self._clock = clock
        self._make = make
        self._calls: set[IDelayedCall] = set()
        self._answering: Answering | None = None
        #: What was read of a request whose kind is not known yet.
        self._beginning: bytes | None = b""
        self._feed: Callable[[bytes], None] | None = None
        self._paused = False
        self._unsent: list[bytes] = []
        self._gone = False

    # --- the socket -------------------------------------------------------------------------------------------------

    @property
    def _socket(self) -> ITCPTransport:
        return cast("ITCPTransport", self.transport)

    def connectionMade(self) -> None:
        """Come in."""
        self._gate.enter(self)

    def dataReceived(self, data: bytes) -> None:
        """Find out what is spoken, and read that."""
        if self._feed is None:
            self._beginning = (self._beginning or b"") + data
            if _HEAD_END not in self._beginning:
                return
            data, self._beginning = self._beginning, None
            upgrade = b"upgrade: websocket" in data.split(_HEAD_END)[0].lower()
            self._feed = _WebSocket(self).feed if upgrade else _HTTP(self).feed
        self._feed(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: ARG002
        """Go."""
        self._gone = True
        for call in self._calls:
            call.cancel()
        self._calls.clear()
        if self._answering is not None:
            self._answering.give_up()
        self._gate.leave(self)

    def write(self, data: bytes) -> None:
        """Send, unless it hangs."""
        if self._paused:
            self._unsent.append(data)
        else:
            self._socket.write(data)

    def finish(self) -> None:
        """Close it once all was sent."""
        self._socket.loseConnection()

    # --- requests ---------------------------------------------------------------------------------------------------

    def begin(self, outlet: Outlet, asked: Asked) -> Answering:
        """Answer a request."""
        if self._answering is not None:
            self._answering.give_up()
        self._answering = self._make(self, asked)
        self._answering.begin(outlet)
        return self._answering

    # --- what the gate asks for -------------------------------------------------------------------------------------

    @property
    def streams(self) -> bool:
        """Whether it carries a stream."""
        return self._answering is not None and self._answering.streams

    @property
    def wants_leader(self) -> bool:
        """Whether it carries a stream that is to end where there is no leader."""
        return self._answering is not None and self._answering.wants_leader

    def later(self, seconds: float, call: Callable[[], None]) -> Callable[[], None]:
        """Do something after some time if it is still there; what is returned takes that back."""

        def due() -> None:
            self._calls.discard(delayed)
            call()

        def take_back() -> None:
            if delayed in self._calls:
                self._calls.discard(delayed)
                delayed.cancel()

        delayed = self._clock.callLater(seconds, due)
        self._calls.add(delayed)
        return take_back

    def fail(self, error: EtcdError) -> None:
        """End its stream with an error."""
        if self._answering is not None:
            self._answering.fail(error)

    def pause(self) -> None:
        """Read and write nothing."""
        self._paused = True
        cast("IPushProducer", self.transport).pauseProducing()

    def resume(self) -> None:
        """Go on."""
        self._paused = False
        unsent, self._unsent = self._unsent, []
        for data in unsent:
            self._socket.write(data)
        cast("IPushProducer", self.transport).resumeProducing()

    def cut(self) -> None:
        """Break the connection."""
        if not self._gone:
            self._socket.abortConnection()


# --- HTTP -----------------------------------------------------------------------------------------------------------


class _HTTP:
    """Reads requests, one after the other, and writes their answers."""

    def __init__(self, conversation: Conversation) -> None:
        self._conversation = conversation
        self._parser = httptools.HttpRequestParser(self)
        self._target = b""
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []
        self._streaming = False

    def feed(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.answer(HTTPStatus.BAD_REQUEST, b"400 Bad Request", "text/plain; charset=utf-8")
            self._conversation.finish()

    # --- what the parser calls --------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._target = b""
        self._headers = {}
        self._body = []
        self._streaming = False

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        method = self._parser.get_method().decode("latin-1")
        path = self._target.decode("latin-1").partition("?")[0]
        self._conversation.begin(self, Asked(method, path, self._headers, b"".join(self._body)))

    # --- what answers call ------------------------------------------------------------------------------------------

    @property
    def two_way(self) -> bool:
        return False

    def answer(self, status: HTTPStatus, body: bytes, kind: str = "application/json") -> None:
        head = [
            f"HTTP/1.1 {status.value} {status.phrase}",
            f"Content-Type: {kind}",
            f"Content-Length: {len(body)}",
        ]
        self._write_head(head, body)

    def send(self, message: Mapping[str, Any]) -> None:
        data = msgspec.json.encode(message) + b"\n"
        if self._streaming:
            self._conversation.write(_chunk(data))
        else:
            self._streaming = True
            head = ["HTTP/1.1 200 OK", "Content-Type: application/json", "Transfer-Encoding: chunked"]
            self._write_head(head, _chunk(data))

    def end(self) -> None:
        self._conversation.write(_chunk(b""))

    def fail(self, status: HTTPStatus, message: Mapping[str, Any]) -> None:
        """End a stream with an error: with a status of its own where nothing was sent yet."""
        if self._streaming:
            self.send(message)
            self.end()
        else:
            self.answer(status, msgspec.json.encode(message))

    def _write_head(self, head: list[str], data: bytes) -> None:
        lines = [*head, "Grpc-Metadata-Content-Type: application/grpc", "", ""]
        self._conversation.write("\r\n".join(lines).encode("latin-1") + data)


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


# --- WebSocket ------------------------------------------------------------------------------------------------------


class _WebSocket:
    """Takes the messages of a WebSocket, and sends others."""

    def __init__(self, conversation: Conversation) -> None:
        self._conversation = conversation
        self._engine = WSConnection(ConnectionType.SERVER)
        self._answering: Answering | None = None
        self._parts: list[str] = []
        self._ended = False

    def feed(self, data: bytes) -> None:
        try:
            self._engine.receive_data(data)
            for event in self._engine.events():
                self._handle(event)
        except RemoteProtocolError:
            self._conversation.cut()

    def _handle(self, event: object) -> None:
        if isinstance(event, Request):
            self._open(event)
        elif isinstance(event, TextMessage) and self._answering is not None:
            self._parts.append(event.data)
            if event.message_finished:
                message, self._parts = "".join(self._parts), []
                self._answering.more(message.encode())
        elif isinstance(event, Ping):
            self._conversation.write(self._engine.send(event.response()))
        elif isinstance(event, CloseConnection):
            if not self._ended:
                self._ended = True
                self._conversation.write(self._engine.send(event.response()))
            self._conversation.finish()

    def _open(self, event: Request) -> None:
        self._conversation.write(self._engine.send(AcceptConnection()))
        scheme, *rest = event.subprotocols or [""]
        token = rest[0] if scheme == "Bearer" and rest else ""
        headers = {"sec-websocket-protocol": token} if token else {}
        path = event.target.partition("?")[0]
        self._answering = self._conversation.begin(self, Asked("POST", path, headers, b""))

    @property
    def two_way(self) -> bool:
        return True

    def answer(self, _status: HTTPStatus, body: bytes, _kind: str = "application/json") -> None:
        self._write(body.decode())
        self.end()

    def send(self, message: Mapping[str, Any]) -> None:
        self._write(msgspec.json.encode(message).decode())

    def end(self) -> None:
        self._ended = True
        self._conversation.finish()

    def fail(self, _status: HTTPStatus, message: Mapping[str, Any]) -> None:
        self.send(message)
        self.end()

    def _write(self, text: str) -> None:
        if not self._ended:
            self._conversation.write(self._engine.send(TextMessage(text)))
