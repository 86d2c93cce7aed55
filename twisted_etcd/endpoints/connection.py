"""One connection to an instance: when it has come about, and when it has gone again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.error import NoProtocol
from twisted.internet.interfaces import (
    IAddress,
    IHalfCloseableProtocol,
    IHandshakeListener,
    ILoggingContext,
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
    ITCPTransport,
    ITransport,
)
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import alsoProvides, implementer


@implementer(IProtocolFactory)
class Connecting:
    """
    An attempt at a connection, for a factory of somebody's own.

    With TLS the factory is asked for its protocol when the handshake is over: a server whose certificate is refused is
    a connection that failed, and the protocol never hears of it.

    :param secure: whether TLS is spoken.
    :param lost: called once a connection that came about has gone.
    :ivar factory_fails: whether it is the factory that failed, and not the connection.
    """

    def __init__(self, factory: IProtocolFactory, *, secure: bool, lost: Callable[[], None]) -> None:
        self._factory = factory
        self._secure = secure
        self._lost = lost
        self._connected: Deferred[IProtocol] = Deferred(self._given_up)
        self._attempt: Deferred[Any] | None = None
        self._line: _Line | None = None
        self._is_given_up = False
        self.factory_fails = False

    def connect(self, endpoint: IStreamClientEndpoint) -> Deferred[IProtocol]:
        """
        Connect.

        :return: fires with the factory's protocol; it can be cancelled.
        """
        self._attempt = endpoint.connect(self)
        self._attempt.addErrback(self.failed)
        return self._connected

    def _given_up(self, _: Deferred[IProtocol]) -> None:
        # It fails as cancelled, and not with what the attempt says to that.
        self._is_given_up = True
        if self._line is not None:
            self._line.transport.abortConnection()
        elif self._attempt is not None:
            self._attempt.cancel()

    def failed(self, failure: Failure) -> None:
        """It will not come about."""
        if not self.is_over:
            self._connected.errback(failure)

    def came_about(self, protocol: IProtocol) -> None:
        """It has."""
        self._connected.callback(protocol)

    @property
    def is_over(self) -> bool:
        """Whether it has come about, or failed, or was given up."""
        return self._connected.called or self._is_given_up

    def new_protocol(self, address: IAddress) -> IProtocol:
        """
        The factory's protocol for it.

        :raises NoProtocol: it has none.
        """
        self.factory_fails = True
        protocol = self._factory.buildProtocol(address)
        if protocol is None:
            raise NoProtocol
        self.factory_fails = False
        return protocol

    def lost(self) -> None:
        """What had come about has gone."""
        self._lost()

    # --- IProtocolFactory -------------------------------------------------------------------------------------------

    def doStart(self) -> None:
        """See ``IProtocolFactory``."""
        self._factory.doStart()

    def doStop(self) -> None:
        """See ``IProtocolFactory``."""
        self._factory.doStop()

    def buildProtocol(self, addr: IAddress) -> IProtocol | None:
        """What stands between the transport and the factory's protocol."""
        if self._secure:
            self._line = _Line(self, addr, None)
            return self._line
        self._line = _Line(self, addr, self.new_protocol(addr))
        return self._line


@implementer(IProtocol, ILoggingContext)
class _Line:
    """
    Stands between the transport and the protocol of somebody's own.

    :param protocol: None where it is asked for when the handshake is over.
    """

    transport: ITCPTransport

    def __init__(self, connecting: Connecting, address: IAddress, protocol: IProtocol | None) -> None:
        self._connecting = connecting
        self._address = address
        self._protocol = protocol
        self._waits = protocol is None
        self._is_made = False
        # Nothing more than is needed: of two of these, Twisted's own wrapper keeps the last one.
        if IHalfCloseableProtocol.providedBy(protocol):
            alsoProvides(self, IHalfCloseableProtocol)
        if self._waits or IHandshakeListener.providedBy(protocol):
            alsoProvides(self, IHandshakeListener)

    def logPrefix(self) -> str:
        context = ILoggingContext(self._protocol or self, None)
        return type(self._protocol).__name__ if context is None or context is self else str(context.logPrefix())

    def makeConnection(self, transport: ITransport) -> None:
        self.transport = cast("ITCPTransport", transport)
        if self._protocol is not None:
            self._make(self._protocol)

    def handshakeCompleted(self) -> None:
        if self._waits:
            self._waits = False
            if not self._connecting.is_over:
                self._protocol = self._new_protocol()
            if self._protocol is not None:
                self._make(self._protocol)
        if self._is_made and IHandshakeListener.providedBy(self._protocol):
            cast("IHandshakeListener", self._protocol).handshakeCompleted()

    def _new_protocol(self) -> IProtocol | None:
        try:
            return self._connecting.new_protocol(self._address)
        except Exception:  # noqa: BLE001 - the factory is somebody else's
            self._connecting.failed(Failure())
            self.transport.abortConnection()
            return None

    def _make(self, protocol: IProtocol) -> None:
        if self._connecting.is_over:
            # Of two addresses of a name the other one was faster.
            self.transport.abortConnection()
            return
        self._is_made = True
        protocol.makeConnection(self.transport)
        self._connecting.came_about(protocol)

    def connectionMade(self) -> None:
        """Nothing to do: ``makeConnection`` did it."""

    def dataReceived(self, data: bytes) -> None:
        if self._is_made and self._protocol is not None:
            self._protocol.dataReceived(data)

    def readConnectionLost(self) -> None:
        cast("IHalfCloseableProtocol", self._protocol).readConnectionLost()

    def writeConnectionLost(self) -> None:
        cast("IHalfCloseableProtocol", self._protocol).writeConnectionLost()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not self._is_made:
            self._connecting.failed(reason)
            return
        # First: the protocol may well connect anew at once.
        self._connecting.lost()
        cast("IProtocol", self._protocol).connectionLost(reason)
