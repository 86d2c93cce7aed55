"""Connections that are no sockets: what one end writes, the other one reads in a later turn of the reactor."""

from __future__ import annotations

from typing import cast

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IDelayedCall,
    IProtocol,
    IPushProducer,
    IReactorTime,
    ITCPTransport,
)
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer


@implementer(ITCPTransport, IPushProducer)
class PipeEnd:
    """
    One end of a connection, as the transport of its protocol.

    All that was written arrives, in order, before the end of the connection does, whichever way that comes about.

    :param clock: in whose later turns things arrive.
    :ivar connected: whether the protocol has not been told of its end yet.
    :ivar disconnecting: whether its end has begun.
    """

    _log = Logger()

    def __init__(self, clock: IReactorTime, host: IPv4Address, peer: IPv4Address) -> None:
        self.connected = True
        self.disconnecting = False
        self._clock = clock
        self._host = host
        self._peer = peer
        self._protocol: IProtocol | None = None
        self._other: PipeEnd | None = None
        self._arrived: list[bytes] = []
        self._end: Failure | None = None
        self._paused = False
        self._turn: IDelayedCall | None = None

    def attach(self, protocol: IProtocol, other: PipeEnd) -> None:
        """Say whose transport it is, and what is at the other end; for :func:`connect`."""
        self._protocol = protocol
        self._other = other

    # --- writing ----------------------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Send."""
        if data and self.connected and not self.disconnecting and self._other is not None:
            self._other.arrive(data)

    def writeSequence(self, data: list[bytes]) -> None:  # type: ignore[override]  # zope has no types
        """Send all of these."""
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        """End it in good order."""
        self._close(ConnectionDone(), ConnectionDone())

    def abortConnection(self) -> None:
        """End it at once."""
        self._close(ConnectionAborted(), ConnectionLost())

    def loseWriteConnection(self) -> None:
        """Like :meth:`loseConnection`: nobody here goes on reading afterwards."""
        self.loseConnection()

    def _close(self, here: Exception, there: Exception) -> None:
        if self.disconnecting or not self.connected:
            return
        self.disconnecting = True
        # What nobody has read yet, nobody will.
        self._arrived.clear()
        self._paused = False
        self.ended(here)
        if self._other is not None:
            self._other.ended(there)

    # --- reading ----------------------------------------------------------------------------------------------------

    def arrive(self, data: bytes) -> None:
        """What the other end wrote."""
        if self._end is None:
            self._arrived.append(data)
            self._soon()

    def ended(self, reason: Exception) -> None:
        """Nothing comes after this."""
        if self._end is None:
            self._end = Failure(reason)
        self._soon()

    def pauseProducing(self) -> None:
        """Keep what arrives."""
        self._paused = not self.disconnecting

    def resumeProducing(self) -> None:
        """Read on."""
        self._paused = False
        self._soon()

    def stopProducing(self) -> None:
        """End it."""
        self.loseConnection()

    def _soon(self) -> None:
        waiting = self._arrived or self._end is not None
        if waiting and self._turn is None and self.connected and not self._paused:
            self._turn = self._clock.callLater(0, self._deliver)

    def _deliver(self) -> None:
        self._turn = None
        protocol = cast("IProtocol", self._protocol)
        if self._arrived and not self._paused:
            data = b"".join(self._arrived)
            self._arrived.clear()
            try:
                protocol.dataReceived(data)
            except Exception:  # noqa: BLE001 - as a reactor does it
                self._log.failure("a protocol failed")
                self.abortConnection()
            # The end, if it has come meanwhile, is for another turn.
            self._soon()
        elif self._end is not None and not self._paused:
            self.connected = False
            self.disconnecting = True
            protocol.connectionLost(self._end)

    # --- addresses and options --------------------------------------------------------------------------------------

    def getHost(self) -> IPv4Address:
        """Where it is."""
        return self._host

    def getPeer(self) -> IPv4Address:
        """Where the other end is."""
        return self._peer

    def getTcpNoDelay(self) -> bool:
        """Nothing is ever held back."""
        return True

    def setTcpNoDelay(self, enabled: bool) -> None:  # noqa: FBT001 - as the interface has it
        """Nothing is ever held back."""

    def getTcpKeepAlive(self) -> bool:
        """Neither end can vanish."""
        return True

    def setTcpKeepAlive(self, enabled: bool) -> None:  # noqa: FBT001 - as the interface has it
        """Neither end can vanish."""


def connect(
    clock: IReactorTime, client: IProtocol, server: IProtocol, client_address: IPv4Address, server_address: IPv4Address
) -> PipeEnd:
    """
    Connect two protocols, the server's first.

    :return: the client's end.
    """
    near = PipeEnd(clock, client_address, server_address)
    far = PipeEnd(clock, server_address, client_address)
    near.attach(client, far)
    far.attach(server, near)
    server.makeConnection(far)
    client.makeConnection(near)
    return near
