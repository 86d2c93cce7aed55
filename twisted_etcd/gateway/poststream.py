"""Streams as the answer of a POST: what etcd answers to ``/v3/watch`` until one side closes the connection."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast
from urllib.parse import urlsplit

import msgspec
from treq.client import HTTPClient
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IReactorTime, IStreamClientEndpoint
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http import OK, PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from zope.interface import implementer

from twisted_etcd.gateway.body import WholeBody
from twisted_etcd.gateway.framing import LineFramer, LineTooLong
from twisted_etcd.gateway.httpconnection import HTTPConnection, HTTPConnections
from twisted_etcd.gateway.httprequest import SentHeaders, request_head, target
from twisted_etcd.gateway.httpresponse import SentRequest
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


@implementer(IAgent)
class _OneConnection:
    """
    Makes one request, on a connection of its own to one endpoint, whatever its URL says.

    :ivar gone: called when the connection has gone.
    """

    def __init__(self, endpoint: IStreamClientEndpoint) -> None:
        self.gone: Callable[[Failure], None] | None = None
        self._endpoint = endpoint
        self._connection: HTTPConnection | None = None

    @property
    def connection(self) -> HTTPConnection:
        if self._connection is None:
            msg = "the HTTP client answered without a connection"
            raise RuntimeError(msg)
        return self._connection

    def request(
        self, method: bytes, uri: bytes, headers: Headers | None = None, bodyProducer: IBodyProducer | None = None
    ) -> Deferred[IResponse]:
        body = cast("WholeBody | None", bodyProducer)
        head = request_head(target(method, uri).opening, headers, body)

        def connected(connection: HTTPConnection) -> Deferred[IResponse]:
            self._connection = connection
            return connection.request(SentRequest(method, uri, headers), head, body)

        factory = HTTPConnections(lambda: HTTPConnection(gone=self._gone))
        connecting: Deferred[Any] = self._endpoint.connect(cast("IProtocolFactory", factory))
        return connecting.addCallback(connected)

    def _gone(self, _connection: HTTPConnection, reason: Failure) -> None:
        if self.gone is not None:
            self.gone(lost(reason))


class _StreamBody(Protocol):
    """
    Cuts the answer's body into messages, those of one read of the socket at a time.

    :param deliver: gets them.
    :param ended: told once why no more can come.
    """

    def __init__(
        self, deliver: Callable[[Sequence[bytes]], None], ended: Callable[[Failure], None], max_message: int
    ) -> None:
        self._deliver = deliver
        self._ended = ended
        self._framer = LineFramer(max_message)
        self._max_message = max_message
        self._too_long = False

    def dataReceived(self, data: bytes) -> None:
        if self._too_long:
            return
        try:
            lines = self._framer.feed(data)
        except LineTooLong as error:
            lines = error.lines
            self._too_long = True
        if lines:
            self._deliver(lines)
        if self._too_long:
            self._ended(Failure(MessageTooLong(self._max_message)))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        whole = reason.check(ResponseDone) is not None
        rest = self._framer.finish()
        if rest is not None and (whole or _is_json(rest)):
            self._deliver([rest])
        if whole or reason.check(PotentialDataLoss):
            self._ended(Failure(StreamLost("the server ended the stream")))
        else:
            self._ended(lost(reason))


class PostStream(Stream):
    """
    The answer of one POST. Half duplex: the watches of its body are all that it ever carries.

    Closing it resets the connection, which is how etcd is told that its watches are no longer wanted.
    """

    def __init__(self, endpoint: str, receiver: StreamReceiver, agent: _OneConnection) -> None:
        super().__init__(endpoint, receiver)
        self._connection = agent.connection
        self._paused = False
        agent.gone = self._socket_gone

    def begin(self, response: IResponse, max_message: int) -> None:
        """Take the messages from here; for :func:`open_post_stream`, once whoever asked has the stream."""
        response.deliverBody(cast("IProtocol", _StreamBody(self._deliver, self._body_ended, max_message)))
        if self._paused:
            # Whoever paused before has been overruled by deliverBody.
            self.pause()

    def pause(self) -> None:
        """Stop reading."""
        self._paused = True
        self._connection.pause()

    def resume(self) -> None:
        """Read on."""
        self._paused = False
        self._connection.resume()

    def _start_closing(self) -> None:
        self._abort()

    def _abort(self) -> None:
        self._connection.abort()

    def _body_ended(self, reason: Failure) -> None:
        if not self._closing:
            self._end(reason)
        self._abort()


class _Refusal(Protocol):
    """Collects the beginning of a body that is no stream."""

    def __init__(self, connection: HTTPConnection) -> None:
        self.body: Deferred[bytes] = Deferred(lambda _deferred: connection.abort())
        self._connection = connection
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
        self._connection.abort()
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
    agent = _OneConnection(endpoint)
    kind = "application/json"
    asking = cast(
        "Deferred[IResponse]",
        HTTPClient(cast("IAgent", agent)).post(
            url,
            headers=SentHeaders({**headers, "Accept": kind, "Content-Type": kind}),
            data=cast("Any", WholeBody(body)),
            allow_redirects=False,
            unbuffered=True,
            reactor=cast("Any", clock),
        ),
    )

    def answered(response: IResponse) -> IResponse | Deferred[IResponse]:
        if response.code == OK:
            return response
        refusal = _Refusal(agent.connection)
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
        stream = PostStream(urlsplit(url).netloc, receiver, agent)
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
