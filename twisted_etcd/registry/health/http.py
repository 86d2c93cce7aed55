"""A check that asks by HTTP."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, cast
from urllib.parse import urlsplit

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import URI, Agent, RedirectAgent, ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgentEndpointFactory, IResponse
from zope.interface import implementer

from twisted_etcd.errors import InvalidSettings
from twisted_etcd.gateway.connections import Connections
from twisted_etcd.gateway.endpoints import Endpoint
from twisted_etcd.gateway.tls import TLSSettings, TLSTrust
from twisted_etcd.registry.health.result import CheckResult, failing, passing, shortened
from twisted_etcd.registry.health.tcp import CONNECT_TIMEOUT, NetworkReactor
from twisted_etcd.registry.health.words import problem

#: How much of a body is read, and looked through.
MOST_READ = 256 * 1024
#: Statuses that are expected unless told otherwise.
SUCCESS = (range(200, 300),)

_USER_AGENT = "twisted-etcd health check"
_METHOD = re.compile(r"[A-Z]+").fullmatch
_VISIBLE = re.compile(r"[!-~]+").fullmatch
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+").fullmatch
_STATUSES = range(100, 600)


def checked_url(url: str) -> str:
    """
    A URL that can be asked.

    :raises InvalidSettings: where it cannot be. The error shows no user that is in it, and no query.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        msg = f"the URL of a check is none: {error}; write it as http://HOST:PORT/PATH"
        raise InvalidSettings(msg) from None
    if "@" in parts.netloc:
        msg = f"the URL of a check at {host} has a user in it; send it as the header Authorization"
        raise InvalidSettings(msg)
    if parts.scheme not in ("http", "https") or not host or port == 0:
        msg = f"the URL of a check is {shown_url(url)!r}; write it as http://HOST:PORT/PATH, or with https://"
        raise InvalidSettings(msg)
    if _VISIBLE(url) is None:
        msg = f"the URL {shown_url(url)!r} of a check has characters that no URL has; write them as %20 and the like"
        raise InvalidSettings(msg)
    return url


def shown_url(url: str) -> str:
    """The same without what may be secret: its query and its fragment."""
    address, query, _ = url.partition("?")
    return address.partition("#")[0] + ("?…" if query else "")


def checked_method(method: str) -> str:
    """
    A method of HTTP.

    :raises InvalidSettings: where it is none.
    """
    if _METHOD(method) is None:
        msg = f"expected a method such as GET or HEAD, got {method!r}"
        raise InvalidSettings(msg)
    return method


def checked_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """
    Headers that can be sent.

    :raises InvalidSettings: where they cannot be; the error names the header, and does not show what it says.
    """
    for name, value in headers.items():
        if not isinstance(name, str) or _HEADER_NAME(name) is None:
            msg = f"{name!r} cannot be the name of a header"
            raise InvalidSettings(msg)
        if not isinstance(value, str) or not value.isascii() or not value.isprintable():
            msg = f"what the header {name} says must be a text of printable ASCII characters, in one line"
            raise InvalidSettings(msg)
    return dict(headers)


def checked_statuses(expected: Iterable[int | range]) -> tuple[range, ...]:
    """
    Statuses of HTTP, as ranges.

    :raises InvalidSettings: where one is none, or there are none.
    """
    ranges = tuple(each if isinstance(each, range) else range(each, each + 1) for each in expected)
    for each in ranges:
        if not len(each) or each.step != 1 or each[0] not in _STATUSES or each[-1] not in _STATUSES:
            msg = f"expected statuses of HTTP, from 100 to 599, got {shown_statuses((each,))}"
            raise InvalidSettings(msg)
    if not ranges:
        msg = "no status is expected; give at least one, such as 200"
        raise InvalidSettings(msg)
    return ranges


def shown_statuses(ranges: Iterable[range]) -> str:
    """Such as ``200-299, 404``."""
    return ", ".join(str(each.start) if len(each) == 1 else f"{each.start}-{each.stop - 1}" for each in ranges)


class HTTPCheck:
    """
    Passes where an HTTP request is answered with an expected status, on a connection of its own.

    Of the body it reads up to 256 KiB, and lets the rest go; an answer that is cut off before that fails.

    :param url: ``http://`` or ``https://``. Its query is not shown anywhere.
    :param method: such as ``HEAD``.
    :param expected: statuses, and ranges of them: ``[range(200, 300), 404]``.
    :param headers: sent along. Not shown anywhere.
    :param contains: what must be in the body.
    :param redirects: how many are followed; without any, a redirect is an answer like others. Only those of ``GET`` and
        ``HEAD`` are followed, and what a header such as Authorization says goes to no other host.
    :param tls: which servers are believed, and which certificate is shown to them.
    :raises InvalidSettings: where one of them cannot be used.
    """

    def __init__(
        self,
        reactor: NetworkReactor,
        url: str,
        *,
        method: str = "GET",
        expected: Iterable[int | range] = SUCCESS,
        headers: Mapping[str, str] | None = None,
        contains: str | bytes = b"",
        redirects: int = 0,
        tls: TLSSettings | None = None,
    ) -> None:
        self._url = checked_url(url)
        self._method = checked_method(method)
        self._expected = checked_statuses(expected)
        self._headers = checked_headers(headers or {})
        self._contains = contains.encode() if isinstance(contains, str) else contains
        self._redirects = redirects
        self._trust = TLSTrust(tls or TLSSettings())
        self._reactor = reactor

    def __repr__(self) -> str:
        return f"<HTTPCheck {self._method} {shown_url(self._url)}>"

    def check(self) -> Deferred[CheckResult]:
        """Look once, see :class:`~twisted_etcd.registry.health.result.Check`."""
        return Deferred.fromCoroutine(self._check())

    async def _check(self) -> CheckResult:
        connections = Connections(self._reactor, self._trust, CONNECT_TIMEOUT)
        try:
            return await self._ask(connections)
        except CancelledError:
            raise
        except _Cut as cut:
            return failing(str(cut))
        except Exception as error:  # noqa: BLE001 - whatever it is, no answer came
            return failing(_no_answer(error))
        finally:
            # Nothing is kept open between two looks, and a body that goes on and on is not waited for.
            connections.abort()
            await connections.all_gone()

    async def _ask(self, connections: Connections) -> CheckResult:
        agent: Any = Agent.usingEndpointFactory(cast("Any", self._reactor), _Endpoints(connections))
        if self._redirects:
            agent = RedirectAgent(agent, redirectLimit=self._redirects)
        headers = Headers({"User-Agent": [_USER_AGENT]})
        for name, value in self._headers.items():
            headers.setRawHeaders(name, [value])
        asking: Deferred[Any] = agent.request(self._method.encode(), self._url.encode(), headers)
        response = await asking
        body = await _Body.of(response)
        said = shortened(f"answered {response.code} {response.phrase.decode('ascii', 'replace')}")
        if not any(response.code in each for each in self._expected):
            return failing(f"{said}; expected is {shown_statuses(self._expected)}")
        if self._contains not in body:
            return failing(f"{said}, and what the body should contain is not in its first {len(body)} bytes")
        return passing(said)


def _no_answer(error: Exception) -> str:
    # What RedirectAgent refuses comes with the answer that it refuses.
    response = getattr(error, "response", None)
    reasons = getattr(error, "reasons", None)
    if response is not None and response.code in range(300, 400) and reasons:
        return f"answered {response.code}, and is not followed: {shortened(str(reasons[0].value))}"
    return f"no answer: {problem(error)}"


@implementer(IAgentEndpointFactory)
class _Endpoints:
    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        return _Quiet(self._connections.to(Endpoint(uri.scheme.decode(), uri.host.decode(), uri.port)))


@implementer(IStreamClientEndpoint)
class _Quiet:
    """Connects without a word in the log about each connection."""

    def __init__(self, endpoint: IStreamClientEndpoint) -> None:
        self._endpoint = endpoint

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:  # noqa: N803 - as IStreamClientEndpoint has it
        cast("Any", protocolFactory).noisy = False
        return self._endpoint.connect(protocolFactory)


class _Cut(Exception):
    """The answer began, and did not come whole."""


class _Body(Protocol):
    """Collects a body up to a bound."""

    def __init__(self) -> None:
        self._parts = bytearray()
        self._done: Deferred[bytes] = Deferred()

    @classmethod
    def of(cls, response: IResponse) -> Deferred[bytes]:
        body = cls()
        response.deliverBody(body)
        return body._done

    def dataReceived(self, data: bytes) -> None:
        self._parts += data[: MOST_READ - len(self._parts)]
        if len(self._parts) == MOST_READ and not self._done.called:
            self._done.callback(bytes(self._parts))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._done.called:
            return
        if reason.check(ResponseDone, cast("Any", PotentialDataLoss)):
            self._done.callback(bytes(self._parts))
        else:
            cut = _Cut(f"the answer was cut off after {len(self._parts)} bytes of its body")
            self._done.errback(Failure(cut))
