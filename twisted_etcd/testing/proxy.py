"""
A TCP proxy that does to connections what networks do, for tests.

Put it between a client and a server, and switch its faults while they talk::

    proxy = FaultProxy(reactor, "127.0.0.1", 2379)
    proxy.startService()
    client = EtcdClient(reactor, [proxy.endpoint])
    ...
    proxy.delay(0.2)  # answers come late, in order, however many are under way
    proxy.swallow()  # both sides stay connected and hear nothing
    await proxy.heal()
    await proxy.stopService()

It knows nothing of what it carries, so TLS goes through it as well. *Requests* are the bytes that the client sends,
*answers* those that the server sends.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any, cast

from twisted.application.service import Service
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, DeferredLock, maybeDeferred, succeed
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.interfaces import IAddress, IListeningPort, IReactorTCP, IReactorTime
from twisted.internet.protocol import Factory, Protocol

from twisted_etcd.errors import ServiceStopped
from twisted_etcd.testing.connections import Direction, Faults, ProxiedConnection

_LOOPBACK = "127.0.0.1"
#: Seconds that the connection to the server may take.
_CONNECT_TIMEOUT = 10.0


class IProxyReactor(IReactorTCP, IReactorTime):
    """What a :class:`FaultProxy` uses of the reactor."""


class _Accepting(Factory):
    noisy = False

    def __init__(self, proxy: FaultProxy) -> None:
        self._proxy = proxy

    def buildProtocol(self, addr: IAddress | None) -> Protocol:  # noqa: ARG002
        return self._proxy.new_connection().client_side()


class _Connecting(Factory):
    noisy = False

    def __init__(self, side: Protocol) -> None:
        self._side = side

    def buildProtocol(self, addr: IAddress | None) -> Protocol:  # noqa: ARG002
        return self._side


class FaultProxy(Service):
    """
    Listens on loopback and passes on what comes to a server, with the faults that it is told to make.

    A fault is done to the connections there are and to those to come, until :meth:`heal`; faults can be combined.
    ``direction`` is ``"requests"``, ``"answers"`` or ``"both"``.

    :param reactor: also the clock for delays and rates.
    :param target_host: where the server is.
    :param target_port: its port. Both may be changed later, for the connections to come.
    :param scheme: of the URL that :attr:`endpoint` is.
    :ivar connections: the connections that are open, oldest first.
    :ivar connections_made: how many clients have connected so far.
    """

    def __init__(self, reactor: IProxyReactor, target_host: str, target_port: int, *, scheme: str = "http") -> None:
        self.target_host = target_host
        self.target_port = target_port
        self.connections: list[ProxiedConnection] = []
        self.connections_made = 0
        self._reactor = reactor
        self._scheme = scheme
        self._requests = Faults()
        self._answers = Faults()
        self._reset_on_accept = False
        self._passed_before = (0, 0)
        self._number = 0
        self._listening: IListeningPort | None = None
        self._held: socket.socket | None = None
        self._listening_changes = DeferredLock()
        self._next: list[Deferred[ProxiedConnection]] = []
        self._empty: list[Deferred[None]] = []
        self._going: list[tuple[set[ProxiedConnection], Deferred[None]]] = []

    @property
    def port(self) -> int:
        """The port that clients connect to; known from ``startService`` on, and kept from then."""
        if not self._number:
            msg = "the proxy has no port before startService"
            raise RuntimeError(msg)
        return self._number

    @property
    def endpoint(self) -> str:
        """What a client connects to, as a URL."""
        return f"{self._scheme}://{_LOOPBACK}:{self.port}"

    @property
    def requests(self) -> int:
        """Bytes that have been passed on to the server, on all connections so far."""
        return self._passed_before[0] + sum(connection.requests for connection in self.connections)

    @property
    def answers(self) -> int:
        """Bytes that have been passed on to clients, on all connections so far."""
        return self._passed_before[1] + sum(connection.answers for connection in self.connections)

    def next_connection(self) -> Deferred[ProxiedConnection]:
        """Fires when the next client has connected; fails with ``ServiceStopped`` if that is the end before."""
        deferred: Deferred[ProxiedConnection] = Deferred(self._next.remove)
        self._next.append(deferred)
        return deferred

    # --- its life ---------------------------------------------------------------------------------------------------

    def startService(self) -> None:
        """Listen, at the port it had before if it was stopped."""
        super().startService()  # type: ignore[no-untyped-call]
        self._listen()

    def stopService(self) -> Deferred[None]:
        """
        Stop listening and reset all connections.

        :return: fires when none is left.
        """
        super().stopService()  # type: ignore[no-untyped-call]
        waiting, self._next = self._next, []
        while waiting:
            waiting.pop(0).errback(ServiceStopped("the proxy was stopped before a client connected"))
        return self._listening_changes.run(self._stop_listening).addCallback(self._stopped)

    # --- faults -----------------------------------------------------------------------------------------------------

    def delay(self, seconds: float, direction: Direction = "answers") -> None:
        """
        Pass everything on this much later than it came.

        A delay, and no limit: what comes together leaves together, so a hundred requests under way take it once. What
        is waiting already keeps its time.
        """
        _not_negative("delay", seconds)
        for faults in self._faults(direction):
            faults.delay = seconds

    def limit(self, bytes_per_second: float, direction: Direction = "answers") -> None:
        """Pass on no more than this, on each connection; a sender that is faster has to wait."""
        if bytes_per_second <= 0:
            msg = f"limit is {bytes_per_second}, which must be over 0; use swallow() to let nothing pass"
            raise ValueError(msg)
        for faults in self._faults(direction):
            faults.bytes_per_second = bytes_per_second

    def cut_after(self, count: int, direction: Direction = "answers") -> None:
        """
        Close a connection behind the given number of bytes: they arrive, and then its end.

        An open connection counts from now, a new one from its beginning. With 0 the connection is closed as soon as a
        byte would pass.
        """
        _not_negative("cut_after", count)
        for faults in self._faults(direction):
            faults.cut_after = count
        for connection in self.connections:
            connection.cut_after(count, direction)

    def spoil(self, after: int, direction: Direction = "answers") -> None:
        """
        Change one byte of each connection: the one behind the given number of bytes.

        An open connection counts from now, a new one from its beginning. A letter becomes small or capital, so that
        text stays text, and base64 stays base64.
        """
        _not_negative("spoil", after)
        for faults in self._faults(direction):
            faults.spoil_at = after
        for connection in self.connections:
            connection.spoil(after, direction)

    def swallow(self, direction: Direction = "both") -> None:
        """
        Accept and read, and pass nothing on, the end of a connection neither: a peer that hangs.

        What was swallowed is lost, so :meth:`heal` resets the connections that it was taken from.
        """
        for faults in self._faults(direction):
            faults.swallow = True

    def reset(self, *, on_accept: bool = False) -> Deferred[None]:
        """
        Reset all connections.

        :param on_accept: and reset those to come as soon as they are there, until :meth:`heal`.
        :return: fires when they have gone. A request that is made before may still be sent on one of them.
        """
        self._reset_on_accept = on_accept
        going = set(self.connections)
        for connection in tuple(self.connections):
            connection.reset()
        if not going.intersection(self.connections):
            return succeed(None)
        deferred: Deferred[None] = Deferred()
        self._going.append((going, deferred))
        return deferred

    def refuse(self) -> Deferred[None]:
        """
        Refuse new connections, and leave the others alone. The port number stays taken.

        :return: fires when the next one will be refused.
        """
        return self._listening_changes.run(self._refuse)

    def accept(self) -> Deferred[None]:
        """
        Take new connections again after :meth:`refuse`, at the same port.

        :return: fires when the next one will be taken.
        """
        return self._listening_changes.run(self._accept)

    def heal(self) -> Deferred[None]:
        """
        Make no faults any more. What was held back goes on at once.

        :return: fires when new connections are taken, which they are at once unless they were refused.
        """
        self._reset_on_accept = False
        for faults in self._faults("both"):
            faults.heal()
        for connection in tuple(self.connections):
            connection.heal()
        return self.accept()

    # --- for connections --------------------------------------------------------------------------------------------

    def new_connection(self) -> ProxiedConnection:
        """A client is connecting."""
        connection = ProxiedConnection(self, self._reactor, self._requests, self._answers)
        self.connections.append(connection)
        self.connections_made += 1
        return connection

    def accepted(self, connection: ProxiedConnection) -> bool:
        """A client has connected; False where it was turned away."""
        refused = self._reset_on_accept or not self.running
        if refused:
            connection.reset()
        waiting, self._next = self._next, []
        while waiting:
            waiting.pop(0).callback(connection)
        return not refused

    def connect(self, side: Protocol) -> Deferred[Any]:
        """Connect a connection's other side to the server."""
        endpoint = TCP4ClientEndpoint(self._reactor, self.target_host, self.target_port, _CONNECT_TIMEOUT)
        connecting: Deferred[Any] = endpoint.connect(cast("Any", _Connecting(side)))
        return connecting

    def lost(self, connection: ProxiedConnection) -> None:
        """Both sockets of a connection have gone."""
        if connection not in self.connections:
            return
        self.connections.remove(connection)
        requests, answers = self._passed_before
        self._passed_before = (requests + connection.requests, answers + connection.answers)
        for each in tuple(self._going):
            if not each[0].intersection(self.connections):
                self._going.remove(each)
                each[1].callback(None)
        if not self.connections:
            waiting, self._empty = self._empty, []
            for deferred in waiting:
                deferred.callback(None)

    # --- listening --------------------------------------------------------------------------------------------------

    def _listen(self) -> None:
        self._release_port()
        listening = self._reactor.listenTCP(self._number, cast("Any", _Accepting(self)), interface=_LOOPBACK)
        self._listening = listening
        self._number = cast("IPv4Address", listening.getHost()).port

    def _stop_listening(self) -> Deferred[None]:
        self._release_port()
        listening, self._listening = self._listening, None
        if listening is None:
            return succeed(None)
        return maybeDeferred(listening.stopListening).addCallback(lambda _: None)

    def _refuse(self) -> Deferred[None]:
        if self._listening is None:
            return succeed(None)
        return self._stop_listening().addCallback(self._hold_port)

    def _hold_port(self, _: None) -> None:
        # Bound and not listening: connections are refused, and nobody else gets the number.
        held = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind((_LOOPBACK, self.port))
        self._held = held

    def _release_port(self) -> None:
        if self._held is not None:
            self._held.close()
            self._held = None

    def _accept(self) -> Deferred[None]:
        if self.running and self._listening is None:
            self._listen()
        return succeed(None)

    def _stopped(self, _: None) -> Deferred[None]:
        for connection in tuple(self.connections):
            connection.reset()
        if not self.connections:
            return succeed(None)
        deferred: Deferred[None] = Deferred()
        self._empty.append(deferred)
        return deferred

    def _faults(self, direction: Direction) -> Iterator[Faults]:
        if direction not in {"requests", "answers", "both"}:
            msg = f"direction is {direction!r}, which must be 'requests', 'answers' or 'both'"
            raise ValueError(msg)
        if direction != "answers":
            yield self._requests
        if direction != "requests":
            yield self._answers


def _not_negative(what: str, number: float) -> None:
    if number < 0:
        msg = f"{what} is {number}, which must not be under 0"
        raise ValueError(msg)
