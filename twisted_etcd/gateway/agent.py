"""Requests to etcd members, on connections that are kept open between them."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, cast

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import (
    IDelayedCall,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    IStreamClientEndpoint,
)
from twisted.python.failure import Failure
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from zope.interface import implementer

from twisted_etcd.gateway.body import WholeBody
from twisted_etcd.gateway.endpoints import Endpoint
from twisted_etcd.gateway.httpconnection import HTTPConnection, HTTPConnections
from twisted_etcd.gateway.httprequest import request_head, target
from twisted_etcd.gateway.httpresponse import SentRequest

#: Connections kept open between requests, for each endpoint.
KEPT_CONNECTIONS = 64
#: Seconds after which a connection that nobody uses is closed.
IDLE_TIMEOUT = 60.0
#: How many requests are remembered in the form in which they begin.
_REMEMBERED = 256


class _Way:
    """
    The way to one endpoint, and the connections to it that wait for a request.

    :ivar kept: the one that was used last is the last, with the time since when it waits.
    """

    def __init__(self, agent: PooledAgent, endpoint: IStreamClientEndpoint) -> None:
        self.kept: list[tuple[float, HTTPConnection]] = []
        self._agent = agent
        self._endpoint = endpoint
        self._factory = cast("IProtocolFactory", HTTPConnections(lambda: HTTPConnection(self._free, self._gone)))

    def request(self, request: SentRequest, head: bytes, body: WholeBody | None) -> Deferred[IResponse]:
        while self.kept:
            _, connection = self.kept.pop()
            # Else it has ended, or is about to be closed: the reactor sees to that when it reads.
            if connection.quiet:
                return connection.request(request, head, body, at_once=True)
        connecting: Deferred[Any] = self._endpoint.connect(self._factory)

        def connected(protocol: IProtocol) -> Deferred[IResponse]:
            return cast("HTTPConnection", protocol).request(request, head, body)

        return connecting.addCallback(connected)

    def _free(self, connection: HTTPConnection) -> None:
        if not self._agent.keep(self, connection):
            connection.abort()

    def _gone(self, connection: HTTPConnection, _reason: Failure) -> None:
        self.kept[:] = [kept for kept in self.kept if kept[1] is not connection]


@implementer(IAgent)
class PooledAgent:
    """
    Makes HTTP requests, each on the connection to its endpoint that was used last, or on a new one.

    It is one for this room: bodies are :class:`~twisted_etcd.gateway.body.WholeBody`, no redirect is followed, and
    nothing is repeated.

    :param to: what connects to an endpoint.
    :param keep: how many connections to one endpoint may wait for a request; further ones are closed.
    :param idle_timeout: seconds that a connection may wait.
    """

    def __init__(
        self,
        to: Callable[[Endpoint], IStreamClientEndpoint],
        clock: IReactorTime,
        *,
        keep: int = KEPT_CONNECTIONS,
        idle_timeout: float = IDLE_TIMEOUT,
    ) -> None:
        self._to = to
        self._clock = clock
        self._keep = keep
        self._idle_timeout = idle_timeout
        self._ways: dict[Endpoint, _Way] = {}
        self._found = lru_cache(_REMEMBERED)(self._find)
        #: One for all: the connections that have waited for long are looked for when the first of them may have.
        self._timer: IDelayedCall | None = None
        self._closed = False

    @property
    def idle_count(self) -> int:
        """How many connections wait for a request."""
        return sum(len(way.kept) for way in self._ways.values())

    def request(
        self, method: bytes, uri: bytes, headers: Headers | None = None, bodyProducer: IBodyProducer | None = None
    ) -> Deferred[IResponse]:
        """
        Send a request.

        :return: fires when the head of the answer has come. Cancelling it closes its connection.
        """
        if bodyProducer is not None and not isinstance(bodyProducer, WholeBody):
            return fail(TypeError(f"a body must be a WholeBody, not a {type(bodyProducer).__name__}"))
        try:
            way, opening = self._found(method, uri)
        except Exception:  # noqa: BLE001 such as a name that no certificate can have; it fails what is asked for
            return fail(Failure())
        head = request_head(opening, headers, bodyProducer)
        return way.request(SentRequest(method, uri, headers), head, bodyProducer)

    def _find(self, method: bytes, uri: bytes) -> tuple[_Way, bytes]:
        endpoint, opening = target(method, uri)
        way = self._ways.get(endpoint)
        if way is None:
            way = self._ways[endpoint] = _Way(self, self._to(endpoint))
        return way, opening

    # --- connections that wait --------------------------------------------------------------------------------------

    def keep(self, way: _Way, connection: HTTPConnection) -> bool:
        """Let a connection wait for a request; False where it is one too many."""
        if self._closed or len(way.kept) >= self._keep:
            return False
        way.kept.append((self._clock.seconds(), connection))
        if self._timer is None:
            self._timer = self._clock.callLater(self._idle_timeout, self._sweep)
        return True

    def _sweep(self) -> None:
        self._timer = None
        now = self._clock.seconds()
        oldest: list[float] = []
        for way in self._ways.values():
            for since, connection in tuple(way.kept):
                if since + self._idle_timeout <= now:
                    way.kept.remove((since, connection))
                    connection.abort()
            oldest += [since for since, _ in way.kept[:1]]
        if oldest:
            self._timer = self._clock.callLater(min(oldest) + self._idle_timeout - now, self._sweep)

    def close(self) -> None:
        """Close the connections that wait, and keep none from now on; may be done again."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for way in self._ways.values():
            kept, way.kept[:] = tuple(way.kept), []
            for _, connection in kept:
                connection.abort()
