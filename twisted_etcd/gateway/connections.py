"""The sockets of one gateway: how they are opened, and when the last of them has gone."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import HostnameEndpoint, TCP4ClientEndpoint, TCP6ClientEndpoint, wrapClientTLS
from twisted.internet.interfaces import (
    IProtocol,
    IProtocolFactory,
    IReactorCore,
    IReactorTCP,
    IStreamClientEndpoint,
    ITCPTransport,
)
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.web.client import URI
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

from twisted_etcd.gateway.endpoints import Endpoint
from twisted_etcd.gateway.tls import TLSTrust


class _Counting(WrappingFactory):
    """Stands between a socket and its protocol, to know when the socket has gone."""

    def __init__(self, wrapped: IProtocolFactory, open_sockets: _OpenSockets) -> None:
        super().__init__(wrapped)  # type: ignore[no-untyped-call]
        self._open_sockets = open_sockets
        self.noisy = False

    def registerProtocol(self, p: ProtocolWrapper) -> None:  # noqa: N802
        super().registerProtocol(p)  # type: ignore[no-untyped-call]
        self._open_sockets.add(p)

    def unregisterProtocol(self, p: ProtocolWrapper) -> None:  # noqa: N802
        super().unregisterProtocol(p)  # type: ignore[no-untyped-call]
        self._open_sockets.remove(p)


class _OpenSockets:
    def __init__(self) -> None:
        self._protocols: set[ProtocolWrapper] = set()
        self._waiting: list[Deferred[None]] = []

    def add(self, protocol: ProtocolWrapper) -> None:
        self._protocols.add(protocol)

    def remove(self, protocol: ProtocolWrapper) -> None:
        self._protocols.discard(protocol)
        if not self._protocols:
            waiting, self._waiting = self._waiting, []
            for deferred in waiting:
                deferred.callback(None)

    def __len__(self) -> int:
        return len(self._protocols)

    def all_gone(self) -> Deferred[None]:
        if not self._protocols:
            return succeed(None)
        deferred: Deferred[None] = Deferred()
        self._waiting.append(deferred)
        return deferred

    def abort(self) -> None:
        for protocol in tuple(self._protocols):
            cast("ITCPTransport", protocol.transport).abortConnection()


@implementer(IStreamClientEndpoint)
class _CountedEndpoint:
    def __init__(self, endpoint: IStreamClientEndpoint, open_sockets: _OpenSockets) -> None:
        self._endpoint = endpoint
        self._open_sockets = open_sockets

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:  # noqa: N803
        # Twisted's HTTP client would log two lines for each connection.
        cast("Any", protocolFactory).noisy = False
        connecting: Deferred[Any] = self._endpoint.connect(_Counting(protocolFactory, self._open_sockets))
        # The caller expects its own protocol, not what stands before it.
        return connecting.addCallback(lambda wrapper: cast("IProtocol", wrapper.wrappedProtocol))


@implementer(IAgentEndpointFactory)
class Connections:
    """
    Opens connections to etcd members, counts them, and waits for their end.

    :param connect_timeout: seconds that a TCP connection may take to come about.
    :param trust: how TLS is spoken with ``https`` endpoints.
    """

    def __init__(self, reactor: IReactorCore, trust: TLSTrust, connect_timeout: float) -> None:
        self._reactor = reactor
        self._trust = trust
        self._connect_timeout = connect_timeout
        self._open_sockets = _OpenSockets()

    @property
    def count(self) -> int:
        """How many sockets are open now."""
        return len(self._open_sockets)

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:  # noqa: N802
        """For Twisted's ``Agent``: where a URI's connection goes."""
        return self.to(Endpoint(uri.scheme.decode(), uri.host.decode().strip("[]"), uri.port))

    def to(self, endpoint: Endpoint) -> IStreamClientEndpoint:
        """What connects to a member."""
        reactor, timeout = cast("IReactorTCP", self._reactor), self._connect_timeout
        plain: IStreamClientEndpoint
        # An address needs no look-up, and so no thread.
        if isIPAddress(endpoint.host):
            plain = TCP4ClientEndpoint(reactor, endpoint.host, endpoint.port, timeout)
        elif isIPv6Address(endpoint.host):
            plain = TCP6ClientEndpoint(reactor, endpoint.host, endpoint.port, timeout)
        else:
            plain = HostnameEndpoint(reactor, endpoint.host, endpoint.port, timeout)
        if endpoint.secure:
            plain = wrapClientTLS(self._trust.connections_to(endpoint.host), plain)
        return _CountedEndpoint(plain, self._open_sockets)

    def abort(self) -> None:
        """Close every socket at once, whatever is under way on it."""
        self._open_sockets.abort()

    def all_gone(self) -> Deferred[None]:
        """Fires when no socket is open."""
        return self._open_sockets.all_gone()
