"""Real sockets for tests: peers that speak bytes, and wait for events in place of sleeping."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.interfaces import IDelayedCall, IHalfCloseableProtocol, IListeningPort, ITCPTransport
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

T = TypeVar("T")

LOOPBACK = "127.0.0.1"
#: Seconds after which an event that a test waits for counts as missing.
PATIENCE = 20.0


def soon(deferred: Deferred[T]) -> Deferred[T]:
    """The same, failing where nothing comes."""
    return deferred.addTimeout(PATIENCE, cast("Any", reactor))


class Event:
    """Something that tests wait for: fires everyone who waits, each time that it happens."""

    def __init__(self) -> None:
        self._waiting: list[Deferred[None]] = []

    def happened(self) -> None:
        waiting, self._waiting = self._waiting, []
        for deferred in waiting:
            deferred.callback(None)

    async def until(self, condition: Callable[[], bool], patience: float = PATIENCE) -> None:
        """
        Wait until something is so after it happened, or is so already.

        :raises twisted.internet.defer.TimeoutError: where it is not so in that many seconds.
        """
        await Deferred.fromCoroutine(self._until(condition)).addTimeout(patience, cast("Any", reactor))

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            deferred: Deferred[None] = Deferred()
            self._waiting.append(deferred)
            await deferred


class Peer(Protocol):
    """One end of a connection."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.lost: Failure | None = None
        self.finished = False
        self.made: Callable[[], None] | None = None
        self._event = Event()

    @property
    def socket(self) -> ITCPTransport:
        return cast("ITCPTransport", self.transport)

    def connectionMade(self) -> None:
        if self.made is not None:
            self.made()

    def dataReceived(self, data: bytes) -> None:
        self.data += data
        self._event.happened()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = reason
        self._event.happened()

    async def until(self, condition: Callable[[], bool]) -> None:
        await self._event.until(condition)

    async def until_received(self, part: bytes) -> None:
        await self.until(lambda: part in self.data)

    async def end(self) -> None:
        """Close it, unless it has gone already."""
        if self.lost is None:
            self.socket.abortConnection()
        await self.until_lost()

    async def until_lost(self) -> Failure:
        await self.until(lambda: self.lost is not None)
        assert self.lost is not None
        return self.lost


@implementer(IHalfCloseableProtocol)
class HalfClosingPeer(Peer):
    """Is told when the other side has finished, and may go on."""

    def readConnectionLost(self) -> None:
        self.finished = True
        self._event.happened()

    def writeConnectionLost(self) -> None:
        """Nothing to note: it was this side that finished."""

    async def until_finished(self) -> None:
        await self.until(lambda: self.finished)


class Listener:
    """Listens on loopback and keeps what connects."""

    def __init__(self, make: Callable[[], Peer] = Peer) -> None:
        self.peers: list[Peer] = []
        self._make = make
        self._event = Event()
        port: IListeningPort = cast("Any", reactor).listenTCP(0, _Peers(self._connecting), interface=LOOPBACK)
        self._listening: IListeningPort | None = port
        self.port: int = cast("Any", port.getHost()).port

    @property
    def authority(self) -> str:
        return f"{LOOPBACK}:{self.port}"

    @property
    def endpoint(self) -> TCP4ClientEndpoint:
        return TCP4ClientEndpoint(cast("Any", reactor), LOOPBACK, self.port)

    def _connecting(self) -> Peer:
        peer = self._make()
        peer.made = lambda: self._connected(peer)
        return peer

    def _connected(self, peer: Peer) -> None:
        self.peers.append(peer)
        self._event.happened()

    async def peer(self, number: int = 0) -> Peer:
        """The peer of that number, counted from 0, once it has connected."""
        await self._event.until(lambda: len(self.peers) > number)
        return self.peers[number]

    async def close(self) -> None:
        """Stop listening, and close what has connected. May be called again."""
        if self._listening is not None:
            await cast("Any", self._listening).stopListening()
            self._listening = None
        for peer in self.peers:
            await peer.end()


class _Peers(Factory):
    noisy = False

    def __init__(self, make: Callable[[], Peer]) -> None:
        self._make = make

    def buildProtocol(self, _addr: object) -> Peer:
        return self._make()


async def connect(port: int, peer: Peer) -> None:
    """Connect a peer to a port of this machine."""
    await soon(TCP4ClientEndpoint(cast("Any", reactor), LOOPBACK, port).connect(cast("Any", _Peers(lambda: peer))))


class ClockedReactor(Clock):
    """The sockets of the real reactor with the time of a ``Clock``."""

    def __init__(self) -> None:
        super().__init__()
        self._event = Event()
        real = cast("Any", reactor)
        self.listenTCP = real.listenTCP
        self.connectTCP = real.connectTCP

    def callLater(self, delay: float, callable: Callable[..., object], *args: object, **kw: object) -> IDelayedCall:  # noqa: A002
        # Told later: whoever asks for a call does not expect it before it knows of it.
        cast("Any", reactor).callLater(0, self._event.happened)
        return super().callLater(delay, callable, *args, **kw)

    async def until_waiting(self, count: int = 1) -> None:
        """Until so many calls wait for the time to pass."""
        await self._event.until(lambda: len(self.getDelayedCalls()) >= count)

    async def until_waiting_for(self, seconds: float) -> None:
        """Until a call waits that is to come after so many seconds."""
        due = self.seconds() + seconds
        await self._event.until(lambda: any(call.getTime() == due for call in self.getDelayedCalls()))
