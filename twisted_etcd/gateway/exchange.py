"""
One HTTP exchange with one member: a POST goes out whole, its answer comes back whole, or it is known how far it got.

This is the only module that knows how the HTTP client below treq names its failures.
"""

from __future__ import annotations

import enum
from functools import cached_property, lru_cache
from http.cookiejar import CookieJar
from typing import Any, ClassVar, cast

from hyperlink import EncodedURL
from treq.client import HTTPClient
from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectionDone, DNSLookupError
from twisted.internet.interfaces import IProtocol, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone, ResponseFailed, ResponseNeverReceived
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IResponse

from twisted_etcd.discreet import Discreet
from twisted_etcd.errors import NotEtcd, TLSFailed
from twisted_etcd.gateway.body import WholeBody
from twisted_etcd.gateway.httpreader import BrokenAnswer, NotHTTP
from twisted_etcd.gateway.tls_errors import TLS_ERRORS, tls_obstacle, tls_words

#: How many URLs are remembered as treq wants them.
_KNOWN_URLS = 256

#: What no repetition mends, as the error that the caller gets for it.
Obstacle = type[TLSFailed] | type[NotEtcd]


class Reach(enum.Enum):
    """How far a request certainly got, at the most."""

    #: The end of its body never left this process, so that no server can have acted on it, now or later.
    NOT_SENT = "not sent"
    #: It may have arrived and been acted on.
    MAYBE_SENT = "maybe sent"


class ExchangeFailed(Exception):
    """
    No whole answer came.

    :ivar reach: how far the request got.
    :ivar obstacle: what stays so however often it is tried: TLS does not come about, or no HTTP is spoken there. None
        where it may pass.
    """

    def __init__(self, why: str, reach: Reach, obstacle: Obstacle | None = None) -> None:
        super().__init__(why)
        self.why = why
        self.reach = reach
        self.obstacle = obstacle


class Reply(Discreet, frozen=True):
    """
    A whole HTTP answer.

    :ivar server: what the server calls itself; etcd calls itself nothing.
    :ivar whole: False where the connection's end was the only sign that the body had ended.
    """

    # It holds values and tokens.
    secret_fields: ClassVar[frozenset[str]] = frozenset({"body"})

    status: int
    content_type: str
    server: str
    body: bytes
    whole: bool


class _BodyFailed(Exception):
    """The answer began, and did not come whole."""


class _BodyCollector(Protocol):
    """Puts a body together, up to a bound; fires with it and with whether its end was certain."""

    def __init__(self, max_length: int) -> None:
        self.done: Deferred[tuple[bytes, bool]] = Deferred(self._cancelled)
        self._parts: list[bytes] = []
        self._length = 0
        self._max_length = max_length
        self._why: Failure | None = None

    def dataReceived(self, data: bytes) -> None:
        self._parts.append(data)
        self._length += len(data)
        if self._length > self._max_length and self._why is None:
            self._why = Failure(_BodyFailed(f"the answer is longer than {self._max_length} bytes"))
            self._close()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
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
            cut = _BodyFailed("the answer was cut short")
            cut.__cause__ = reason.value
            done.errback(Failure(cut))

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
        if reason.check(*TLS_ERRORS):
            return reason
    return _root(reasons[0])


def explain(failure: Failure) -> tuple[str, Obstacle | None]:
    """
    What went wrong on the way, in words, and as what the caller gets it where no repetition mends it.

    Where none does, etcd has read no request.
    """
    root = _root(failure)
    value = root.value
    if isinstance(value, TLS_ERRORS):
        obstacle = tls_obstacle(value)
        return f"TLS: {obstacle or tls_words(value)}", TLSFailed if obstacle else None
    if isinstance(value, NotHTTP):
        return f"what came is not HTTP: {value}", NotEtcd
    if isinstance(value, BrokenAnswer):
        return f"the answer cannot be read: {value}", None
    if isinstance(value, DNSLookupError):
        return f"no such host name ({value})", None
    if isinstance(value, ConnectionDone) and failure.check(ResponseNeverReceived):
        return "the connection was closed without an answer; if etcd speaks TLS there, write https://", None
    text = (root.getErrorMessage() or type(value).__name__).strip()
    return text.rstrip("."), None


class _NoCookies(CookieJar):
    """Takes none and has none: etcd sets none, and a cookie of a proxy would bind requests to one member."""

    def add_cookie_header(self, request: object) -> None:
        """Add none."""

    def extract_cookies(self, response: object, request: object) -> None:
        """Take none."""


class _KnownURL(EncodedURL):
    """A URL that is asked for again and again: what treq makes of it is made once."""

    @classmethod
    def of(cls, text: str) -> EncodedURL:
        """The URL of a text."""
        return cls.from_text(EncodedURL.from_text(text).to_uri().to_text())

    @cached_property
    def _text(self) -> str:
        return super().to_text()

    def to_uri(self) -> EncodedURL:
        """It is one already."""
        return self

    def to_text(self, with_password: bool = False) -> str:  # noqa: ARG002, FBT001, FBT002 - as hyperlink has it
        """As it was given; it has no password."""
        return self._text


class Exchange:
    """
    Sends POST requests through treq.

    :param agent: makes the connections.
    :param clock: given on to treq, so that it asks for no reactor of its own.
    :param max_length: the longest answer that is taken, in bytes.
    """

    def __init__(self, agent: IAgent, clock: IReactorTime, max_length: int) -> None:
        self._cookies = _NoCookies()
        self._http = HTTPClient(agent, cast("Any", self._cookies))
        self._clock = clock
        self._max_length = max_length
        self._url = lru_cache(_KNOWN_URLS)(_KnownURL.of)

    def post(self, url: str, headers: Headers, body: bytes) -> Deferred[Reply]:
        """
        One attempt, without a time limit of its own: whoever calls cancels it, which closes its connection.

        :return: fails with :class:`ExchangeFailed` where no whole answer came.
        """
        producer = WholeBody(body)
        try:
            asking = self._ask(url, headers, producer)
        except Exception:  # noqa: BLE001 such as a name that no host can have; it fails what is asked for
            asking = fail(Failure())

        def failed(failure: Failure) -> Reply:
            why, obstacle = explain(failure)
            sent = producer.left and obstacle is None
            raise ExchangeFailed(why, Reach.MAYBE_SENT if sent else Reach.NOT_SENT, obstacle) from failure.value

        return asking.addCallback(self._read).addErrback(failed)

    def _ask(self, url: str, headers: Headers, body: WholeBody) -> Deferred[IResponse]:
        asking = self._http.post(
            self._url(url),
            headers=headers,
            data=cast("Any", body),
            cookies=self._cookies,
            allow_redirects=False,
            unbuffered=True,
            reactor=cast("Any", self._clock),
        )
        return cast("Deferred[IResponse]", asking)

    def _read(self, response: IResponse) -> Deferred[Reply]:
        collector = _BodyCollector(self._max_length)
        response.deliverBody(cast("IProtocol", collector))

        def whole(body: tuple[bytes, bool]) -> Reply:
            headers = response.headers
            return Reply(
                status=response.code,
                content_type=_header(headers, b"content-type"),
                server=_header(headers, b"server"),
                body=body[0],
                whole=body[1],
            )

        return collector.done.addCallback(whole)


def _header(headers: Headers, name: bytes) -> str:
    values = headers.getRawHeaders(name)
    return values[0].decode("latin-1") if values else ""
