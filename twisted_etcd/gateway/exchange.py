"""
One HTTP exchange with one member: a POST goes out whole, its answer comes back whole, or it is known how far it got.

This is the only module that knows how Twisted's HTTP client names its failures.
"""

from __future__ import annotations

import enum
from typing import Any, cast

import msgspec
from OpenSSL import SSL
from treq.client import HTTPClient
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectError, DNSLookupError
from twisted.internet.interfaces import IConsumer, IProtocol, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone, ResponseFailed
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IBodyProducer, IResponse
from zope.interface import implementer


class Reach(enum.Enum):
    """How far a request certainly got, at the most."""

    #: Not a byte of its body left this side: the server cannot have acted on it.
    NOT_SENT = "not sent"
    #: It may have arrived and been acted on.
    MAYBE_SENT = "maybe sent"


class ExchangeFailed(Exception):
    """
    No whole answer came.

    :ivar reach: how far the request got.
    :ivar tls: whether a certificate, or TLS itself, was the obstacle.
    """

    def __init__(self, why: str, reach: Reach, *, tls: bool = False) -> None:
        super().__init__(why)
        self.why = why
        self.reach = reach
        self.tls = tls


class Reply(msgspec.Struct, frozen=True):
    """
    A whole HTTP answer.

    :ivar whole: False where the connection's end was the only sign that the body had ended.
    """

    status: int
    content_type: str
    body: bytes
    whole: bool


@implementer(IBodyProducer)
class _WholeBody:
    """Writes a body in one piece, and remembers that it did."""

    def __init__(self, body: bytes) -> None:
        self.length = len(body)
        self.written = False
        self._body = body

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:  # noqa: N802
        self.written = True
        consumer.write(self._body)
        return succeed(None)

    def stopProducing(self) -> None:  # noqa: N802
        """There is nothing left to stop: all was written at once."""

    pauseProducing = resumeProducing = stopProducing


class _TooLong(Exception):
    """The answer is over the bound."""


class _BodyCollector(Protocol):
    """Puts a body together, up to a bound; fires with it and with whether its end was certain."""

    def __init__(self, max_length: int) -> None:
        self.done: Deferred[tuple[bytes, bool]] = Deferred(self._cancelled)
        self._parts: list[bytes] = []
        self._length = 0
        self._max_length = max_length
        self._why: Failure | None = None

    def dataReceived(self, data: bytes) -> None:  # noqa: N802
        self._parts.append(data)
        self._length += len(data)
        if self._length > self._max_length and self._why is None:
            self._why = Failure(_TooLong(f"the answer is longer than {self._max_length} bytes"))
            self._close()

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: N802
        done = self.done
        if done.called:
            # Cancelled, and so closed from here.
            return
        if self._why is not None:
            done.errback(self._why)
        elif reason.check(ResponseDone):
            done.callback((b"".join(self._parts), True))
        elif reason.check(PotentialDataLoss):
            done.callback((b"".join(self._parts), False))
        else:
            done.errback(reason)

    def _close(self) -> None:
        transport = self.transport
        if transport is not None:
            transport.loseConnection()

    def _cancelled(self, _deferred: Deferred[tuple[bytes, bool]]) -> None:
        self._close()


def _root(failure: Failure) -> Failure:
    """The failure inside Twisted's wrappings of it, the one that tells most."""
    value = failure.value
    reasons: list[Failure] | None = value.reasons if isinstance(value, ResponseFailed) else None
    if not reasons:
        return failure
    for reason in reasons:
        if reason.check(SSL.Error):
            return reason
    return _root(reasons[0])


def _tls_words(error: SSL.Error) -> str:
    try:
        return "; ".join(str(part[-1]) for part in error.args[0]) or "TLS handshake failed"
    except (IndexError, TypeError):
        return "TLS handshake failed"


def explain(failure: Failure) -> tuple[str, bool]:
    """
    What went wrong on the way, in words, and whether TLS was the obstacle.
    """
    root = _root(failure)
    value = root.value
    if isinstance(value, SSL.Error):
        return f"TLS: {_tls_words(value)}", True
    if isinstance(value, DNSLookupError):
        return f"no such host name ({value})", False
    text = (root.getErrorMessage() or type(value).__name__).strip()
    return text.rstrip("."), False


class Exchange:
    """
    Sends POST requests through treq.

    :param clock: given on to treq, so that it asks for no reactor of its own.
    :param max_length: the longest answer that is taken, in bytes.
    """

    def __init__(self, http: HTTPClient, clock: IReactorTime, max_length: int) -> None:
        self._http = http
        self._clock = clock
        self._max_length = max_length

    async def post(self, url: str, headers: Headers, body: bytes) -> Reply:
        """
        One attempt, without a time limit of its own: whoever calls cancels it, which closes its connection.

        :raises ExchangeFailed: where no whole answer came.
        """
        producer = _WholeBody(body)
        try:
            response = cast(
                "IResponse",
                await self._http.post(
                    url,
                    headers=headers,
                    data=producer,
                    allow_redirects=False,
                    unbuffered=True,
                    reactor=cast("Any", self._clock),
                ),
            )
            collector = _BodyCollector(self._max_length)
            response.deliverBody(cast("IProtocol", collector))
            content, whole = await collector.done
        except Exception as error:
            failure = Failure()
            why, tls = explain(failure)
            # A TLS handshake that fails takes what was written with it: etcd has not seen it.
            sent = producer.written and not tls and not isinstance(error, ConnectError)
            raise ExchangeFailed(why, Reach.MAYBE_SENT if sent else Reach.NOT_SENT, tls=tls) from error
        content_type = (response.headers.getRawHeaders(b"content-type") or [b""])[0].decode("latin-1")
        return Reply(response.code, content_type, content, whole)
