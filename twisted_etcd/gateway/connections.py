"""The sockets of one gateway: how they are opened, and when the last of them has gone."""

from __future__ import annotations

import socket
from typing import Any, cast

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import HostnameEndpoint, TCP4ClientEndpoint, TCP6ClientEndpoint, wrapClientTLS
from twisted.internet.error import ConnectError, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IHandshakeListener,
    IProtocol,
    IProtocolFactory,
    IReactorCore,
    IReactorTCP,
    IReactorTime,
    IStreamClientEndpoint,
    ISystemHandle,
    ITCPTransport,
    ITransport,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import directlyProvides, implementer, providedBy

from twisted_etcd.gateway.endpoints import Endpoint
from twisted_etcd.gateway.tls import TLSTrust

_CUT_HANDSHAKE = "the connection was closed during the TLS handshake; if plain HTTP is spoken there, write http://"

#: A peer that has gone without a word, as where a router on the way forgot the connection, is noticed within 10 seconds
#: by the kernel: nothing comes from it, and nothing that is sent there fails. What a system does not have is left out.
_LIVENESS = {
    name: value
    for name, value in (("TCP_KEEPIDLE", 5), ("TCP_KEEPINTVL", 1), ("TCP_KEEPCNT", 4), ("TCP_USER_TIMEOUT", 9000))
    if hasattr(socket, name)
}


def _watch_over(transport: ITransport) -> None:
    if isinstance(transport, TLSMemoryBIOProtocol):
        transport = cast("ITransport", transport.transport)
    if ISystemHandle.providedBy(transport) and ITCPTransport.providedBy(transport):
        transport.setTcpKeepAlive(True)
        # What is written is whole: there is nothing to wait for that it could travel with.
        transport.setTcpNoDelay(True)
        handle: socket.socket = cast("ISystemHandle", transport).getHandle()
        for name, value in _LIVENESS.items():
            handle.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


@implementer(IHandshakeListener)
class _Socket(ProtocolWrapper):
    """
    Stands between a socket and its protocol, to know when the socket has gone, and to keep the protocol from it until
    the TLS handshake is over: what fails before that was certainly not sent.

    :ivar ready: fires with the protocol once it can send.
    """

    def __init__(self, factory: _Sockets, wrapped: IProtocol) -> None:
        super().__init__(cast("Any", factory), wrapped)
        self.ready: Deferred[IProtocol] = Deferred(lambda _: self._abort())
        self._sockets = factory
        self._begun = False

    def makeConnection(self, transport: ITransport) -> None:
        # As ProtocolWrapper does it, but for telling the protocol.
        directlyProvides(self, providedBy(transport))
        Protocol.makeConnection(self, transport)
        _watch_over(transport)
        self._sockets.registerProtocol(self)
        if not self._sockets.secure:
            self._begin()

    def handshakeCompleted(self) -> None:
        # It is completed also with a server that is not the one that was meant; then it is being aborted already.
        if not cast("Any", self.transport).disconnecting:
            self._begin()

    def _begin(self) -> None:
        self._begun = True
        self.wrappedProtocol.makeConnection(cast("ITransport", self))
        self.ready.callback(self.wrappedProtocol)

    def abortConnection(self) -> None:
        self._abort()

    def _abort(self) -> None:
        # Twisted's TLS breaks when it is told so after its end.
        if cast("Any", self.transport).connected:
            cast("ITCPTransport", self.transport).abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        # Whoever waits for the last socket waits for what its protocol makes of the end, too.
        try:
            self._tell(reason)
        finally:
            self._sockets.unregisterProtocol(self)
            # Each refers to the other.
            self.wrappedProtocol = cast("Any", None)

    def _tell(self, reason: Failure) -> None:
        if self._begun:
            self.wrappedProtocol.connectionLost(reason)
        elif not self.ready.called:
            # Where it was cancelled it was closed from here.
            cut = reason.check(ConnectionDone, ConnectionLost)
            self.ready.errback(Failure(ConnectError(string=_CUT_HANDSHAKE)) if cut else reason)


class _Sockets(WrappingFactory):
    """
    Makes the :class:`_Socket` of a connection.

    :ivar secure: whether TLS is spoken, so that there is a handshake to wait for.
    """

    protocol = _Socket
    noisy = False

    def __init__(self, wrapped: IProtocolFactory, open_sockets: _OpenSockets, *, secure: bool) -> None:
        super().__init__(wrapped)  # type: ignore[no-untyped-call]
        self.secure = secure
        self._open_sockets = open_sockets

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
    """
    Connects, with TLS where it is to be spoken.

    :param handshake_timeout: seconds that TLS may take to come about.
    """

    def __init__(
        self,
        endpoint: IStreamClientEndpoint,
        open_sockets: _OpenSockets,
        clock: IReactorTime,
        handshake_timeout: float,
        *,
        secure: bool,
    ) -> None:
        self._endpoint = endpoint
        self._open_sockets = open_sockets
        self._clock = clock
        self._handshake_timeout = handshake_timeout
        self._secure = secure

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:  # noqa: N803
        sockets = _Sockets(protocolFactory, self._open_sockets, secure=self._secure)
        connecting: Deferred[Any] = self._endpoint.connect(sockets)
        return connecting.addCallback(self._connected)

    def _connected(self, socket: _Socket) -> Deferred[IProtocol]:
        if socket.ready.called:
            return socket.ready
        return socket.ready.addTimeout(self._handshake_timeout, self._clock, onTimeoutCancel=_no_handshake)


def _no_handshake(_result: object, seconds: float) -> IProtocol:
    raise ConnectError(string=f"no TLS handshake within {seconds:g} s")


class Connections:
    """
    Opens connections to etcd members, counts them, and waits for their end.

    :param connect_timeout: seconds that a TCP connection may take to come about, and TLS on it again.
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

    def to(self, endpoint: Endpoint) -> IStreamClientEndpoint:
        """What connects to a member. A TLS connection is handed over after its handshake."""
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
        return _CountedEndpoint(
            plain,
            self._open_sockets,
            cast("IReactorTime", self._reactor),
            timeout,
            secure=endpoint.secure,
        )

    def abort(self) -> None:
        """Close every socket at once, whatever is under way on it."""
        self._open_sockets.abort()

    def all_gone(self) -> Deferred[None]:
        """Fires when no socket is open."""
        return self._open_sockets.all_gone()
