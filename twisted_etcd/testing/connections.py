"""One connection through a fault proxy: two sockets, and the bytes that flow between them both ways."""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple, cast
from typing import Protocol as TypingProtocol

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IConsumer,
    IDelayedCall,
    IHalfCloseableProtocol,
    IPushProducer,
    IReactorTime,
    ITCPTransport,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

#: What a fault is done to.
Direction = Literal["requests", "answers", "both"]

#: Bytes that wait for a limited or slow way on before reading stops.
_MAX_WAITING = 256 * 1024
#: A limited direction writes this many times a second.
_SLICES_PER_SECOND = 50
#: What a spoiled byte is changed by: a letter becomes small or capital, so that text stays text.
_CHANGE = 0x20


class Proxy(TypingProtocol):
    """What a connection needs of the proxy that it belongs to."""

    def accepted(self, connection: ProxiedConnection) -> bool:
        """A client has connected; False where it was turned away."""

    def connect(self, side: Protocol) -> Deferred[Any]:
        """Connect a connection's other side to the server."""

    def lost(self, connection: ProxiedConnection) -> None:
        """Both sockets of a connection have gone."""


class _End(enum.Enum):
    """How a direction ends."""

    #: In good order: the other side may still send.
    FINISHED = "finished"
    #: Abruptly, and both directions with it.
    RESET = "reset"


class _Queued(NamedTuple):
    due: float
    what: bytes | _End


class Faults:
    """
    What is done to one direction of all connections.

    :ivar delay: seconds between arriving and passing on.
    :ivar swallow: whether nothing is passed on.
    :ivar cut_after: how many bytes a new connection passes on.
    :ivar bytes_per_second: what each connection passes on at the most.
    :ivar spoil_at: behind how many bytes of a new connection one is changed.
    """

    def __init__(self) -> None:
        self.heal()

    def heal(self) -> None:
        """Do nothing to it."""
        self.delay = 0.0
        self.swallow = False
        self.cut_after: int | None = None
        self.bytes_per_second: float | None = None
        self.spoil_at: int | None = None


@implementer(IPushProducer)
class _Flow:
    """
    One direction of one connection: bytes come in, wait as long as the faults say, and go out in their order.

    :ivar passed: bytes that went out.
    """

    def __init__(self, clock: IReactorTime, faults: Faults, connection: ProxiedConnection) -> None:
        self.passed = 0
        self._clock = clock
        self._faults = faults
        self._connection = connection
        self._source: _Side | None = None
        self._sink: _Side | None = None
        self._queue: deque[_Queued] = deque()
        self._waiting = 0
        self._sink_full = False
        self._source_paused = False
        self._source_done = False
        self._next_write = 0.0
        self._timer: IDelayedCall | None = None
        self._cut_at: int | None = faults.cut_after
        self._spoil_at: int | None = faults.spoil_at
        self._hole = False
        self._stopped = False

    def joins(self, source: _Side, sink: _Side) -> None:
        self._source, self._sink = source, sink
        sink.consumer.registerProducer(cast("Any", self), True)

    # --- what comes in ----------------------------------------------------------------------------------------------

    def arrived(self, what: bytes | _End) -> None:
        if self._stopped or self._source_done:
            return
        self._source_done = isinstance(what, _End)
        if self._faults.swallow:
            self._hole = True
            return
        due = self._clock.seconds() + self._faults.delay
        if self._queue:
            # A delay that was made shorter lets nothing overtake what came before.
            due = max(due, self._queue[-1].due)
        self._queue.append(_Queued(due, what))
        if isinstance(what, bytes):
            self._waiting += len(what)
        self.run()

    # --- what the proxy asks for ------------------------------------------------------------------------------------

    def cut_from_here(self, count: int) -> None:
        """Cut after so many further bytes."""
        self._cut_at = self.passed + count

    def spoil_from_here(self, count: int) -> None:
        """Change the byte behind so many further ones."""
        self._spoil_at = self.passed + count

    def heal(self) -> None:
        self._cut_at = None
        self._spoil_at = None
        self._next_write = 0.0
        self._queue = deque(_Queued(0.0, queued.what) for queued in self._queue)
        if self._hole:
            # What was swallowed cannot be given back, and nothing may pass with a hole in it.
            self._connection.reset()
        else:
            self.run()

    def stop(self) -> None:
        self._stopped = True
        self._queue.clear()
        self._stop_timer()

    # --- what goes out ----------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Send what may go now, and set the timer for the rest."""
        self._stop_timer()
        while self._queue and self._sink is not None and not self._stopped:
            now = self._clock.seconds()
            due, what = self._queue[0]
            wait = max(due, self._next_write) - now
            if wait > 0:
                self._timer = self._clock.callLater(wait, self._timer_fired)
                break
            if isinstance(what, _End):
                self._queue.popleft()
                self._connection.ended(self, what)
            elif self._sink_full:
                break
            else:
                self._write(what, due, now)
        self._hold_source(self._sink_full or (bool(self._faults.bytes_per_second) and self._waiting > _MAX_WAITING))

    def _timer_fired(self) -> None:
        self._timer = None
        self.run()

    def _write(self, data: bytes, due: float, now: float) -> None:
        room = len(data)
        rate = self._faults.bytes_per_second
        if rate:
            room = min(room, max(1, int(rate / _SLICES_PER_SECOND)))
            self._next_write = now + room / rate
        if self._cut_at is not None:
            room = min(room, self._cut_at - self.passed)
        self._queue.popleft()
        if room < len(data):
            self._queue.appendleft(_Queued(due, data[room:]))
        self._waiting -= room
        self.passed += room
        if room:
            self.sink.socket.write(self._spoiled(data[:room]))
        if self._cut_at is not None and self.passed >= self._cut_at:
            self._connection.cut(self)

    def _spoiled(self, data: bytes) -> bytes:
        """What has just passed, with its change where there is one in it."""
        if self._spoil_at is None or self.passed <= self._spoil_at:
            return data
        place = len(data) - (self.passed - self._spoil_at)
        self._spoil_at = None
        return data[:place] + bytes((data[place] ^ _CHANGE,)) + data[place + 1 :]

    @property
    def sink(self) -> _Side:
        if self._sink is None:
            msg = "the connection has no other side yet"
            raise RuntimeError(msg)
        return self._sink

    def _hold_source(self, hold: bool) -> None:  # noqa: FBT001
        if self._source is None or self._source_done or self._stopped or hold is self._source_paused:
            return
        self._source_paused = hold
        if hold:
            self._source.producer.pauseProducing()
        else:
            self._source.producer.resumeProducing()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # --- IPushProducer, for the sink's transport ---------------------------------------------------------------------

    def pauseProducing(self) -> None:
        self._sink_full = True
        self.run()

    def resumeProducing(self) -> None:
        self._sink_full = False
        self.run()

    def stopProducing(self) -> None:
        """The sink has gone, which its own side is told as well."""


@implementer(IHalfCloseableProtocol)
class _Side(Protocol):
    """The socket at one end of a connection."""

    def __init__(self, connection: ProxiedConnection, flow: _Flow) -> None:
        self._connection = connection
        self.flow = flow
        self.ended = False

    @property
    def socket(self) -> ITCPTransport:
        return cast("ITCPTransport", self.transport)

    @property
    def consumer(self) -> IConsumer:
        return cast("IConsumer", self.transport)

    @property
    def producer(self) -> IPushProducer:
        return cast("IPushProducer", self.transport)

    def connectionMade(self) -> None:
        self.socket.setTcpNoDelay(True)
        self._connection.side_made(self)

    def dataReceived(self, data: bytes) -> None:
        self.flow.arrived(data)

    def readConnectionLost(self) -> None:
        self.flow.arrived(_End.FINISHED)

    def writeConnectionLost(self) -> None:
        """What could not be written any more is told by the reading side."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.ended = True
        if not reason.check(ConnectionDone):
            self.flow.arrived(_End.RESET)
        self._connection.side_lost()


class ProxiedConnection:
    """One connection of a client through a fault proxy, as its ``connections`` has it."""

    def __init__(self, proxy: Proxy, clock: IReactorTime, requests: Faults, answers: Faults) -> None:
        self._proxy = proxy
        self._requests = _Flow(clock, requests, self)
        self._answers = _Flow(clock, answers, self)
        self._client = _Side(self, self._requests)
        self._server = _Side(self, self._answers)
        self._connecting: Deferred[Any] | None = None
        self._finished = 0

    @property
    def requests(self) -> int:
        """Bytes that have been passed on to the server."""
        return self._requests.passed

    @property
    def answers(self) -> int:
        """Bytes that have been passed on to the client."""
        return self._answers.passed

    @property
    def client_port(self) -> int:
        """The port that the client connects from."""
        return cast("IPv4Address", self._client.socket.getPeer()).port

    def reset(self) -> None:
        """End it on both sides with a TCP reset."""
        for side in self._sides():
            side.flow.stop()
            if side.transport is not None and not side.ended:
                side.socket.abortConnection()
        if self._connecting is not None:
            self._connecting.cancel()

    def hold(self) -> None:
        """Read nothing more from its client, and pass nothing on, until it ends."""
        self._client.producer.pauseProducing()

    def cut_after(self, count: int, direction: Direction = "answers") -> None:
        """Close it behind so many bytes from now."""
        for flow in self._flows(direction):
            flow.cut_from_here(count)

    def spoil(self, after: int, direction: Direction = "answers") -> None:
        """Change the byte behind so many from now."""
        for flow in self._flows(direction):
            flow.spoil_from_here(after)

    # --- for the proxy ----------------------------------------------------------------------------------------------

    def client_side(self) -> Protocol:
        """The protocol for the client's socket."""
        return self._client

    def heal(self) -> None:
        """Pass on what waits, all of it and at once."""
        for flow in self._flows("both"):
            flow.heal()

    # --- for its sides and flows ------------------------------------------------------------------------------------

    def side_made(self, side: _Side) -> None:
        """A side has its socket."""
        if side is self._server:
            self._requests.joins(self._client, self._server)
            self._answers.joins(self._server, self._client)
            if not self._client.ended:
                self._client.producer.resumeProducing()
            self._requests.run()
        elif self._proxy.accepted(self):
            # Not before there is somewhere to put it.
            side.producer.pauseProducing()
            self._connecting = self._proxy.connect(self._server)
            self._connecting.addCallbacks(self._connected, self._not_connected)

    def ended(self, flow: _Flow, how: _End) -> None:
        """A flow has passed on all that its source sent."""
        if how is _End.RESET:
            self.reset()
            return
        self._finished += 1
        if self._finished == len(self._sides()):
            self._close()
        elif not flow.sink.ended:
            # A socket with a producer waits for it before it closes.
            flow.sink.consumer.unregisterProducer()
            flow.sink.socket.loseWriteConnection()

    def cut(self, flow: _Flow) -> None:
        """What has passed still arrives, and then nothing more, either way."""
        for side in self._sides():
            side.flow.stop()
        sink = flow.sink
        for side in self._sides():
            if side.ended:
                continue
            if side is sink:
                self._lose(side)
            else:
                side.socket.abortConnection()

    def side_lost(self) -> None:
        """One of the sockets has gone."""
        if all(side.ended or side.transport is None for side in self._sides()) and self._connecting is None:
            for side in self._sides():
                side.flow.stop()
            self._proxy.lost(self)

    def _flows(self, direction: Direction) -> Iterator[_Flow]:
        if direction != "answers":
            yield self._requests
        if direction != "requests":
            yield self._answers

    def _connected(self, _server: object) -> None:
        self._connecting = None

    def _not_connected(self, _failure: Failure) -> None:
        # As if the proxy were not there: a client of a server that is down is turned away.
        self._connecting = None
        self.reset()
        self.side_lost()

    def _close(self) -> None:
        for side in self._sides():
            if not side.ended:
                self._lose(side)

    def _lose(self, side: _Side) -> None:
        side.consumer.unregisterProducer()
        side.socket.loseConnection()

    def _sides(self) -> tuple[_Side, _Side]:
        return self._client, self._server
