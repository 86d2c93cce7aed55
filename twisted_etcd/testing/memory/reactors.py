"""Reactors whose connections to some addresses stay in this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.internet.error import UserError
from twisted.internet.interfaces import (
    IAddress,
    IConnector,
    IDelayedCall,
    IHostnameResolver,
    IProtocol,
    IProtocolFactory,
    IReactorPluggableNameResolver,
    IReactorTCP,
    IReactorTime,
    IResolutionReceiver,
)
from twisted.internet.protocol import ClientFactory
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import directlyProvides, implementer, providedBy

from twisted_etcd.testing.memory.pipe import PipeEnd, connect

#: What names of servers in memory resolve to. It is an address for documentation, which nobody has.
_ADDRESS = "192.0.2.1"
_FIRST_PORT = 49152
#: Calls that can be due at one time before it is clear that there is no end of them.
_MOST_CALLS = 100_000

#: Gives the server's side of a connection; None where it is refused.
Accept = Callable[[], "IProtocol | None"]


class Network:
    """The servers that are in memory, by host and port."""

    def __init__(self) -> None:
        self._servers: dict[tuple[str, int], Accept] = {}
        self._names: set[str] = set()
        self._next_port = _FIRST_PORT

    def add(self, host: str, port: int, accept: Accept) -> None:
        """Have a server at an address, or at a name."""
        self._servers[host, port] = accept
        self._servers[_ADDRESS, port] = accept
        self._names.add(host)

    def serves(self, host: str, port: int) -> bool:
        """Whether there is one."""
        return (host, port) in self._servers

    def resolves(self, host: str) -> bool:
        """Whether a server has that name."""
        return host in self._names

    def connect(self, clock: IReactorTime, host: str, port: int, factory: ClientFactory) -> IConnector:
        """Begin a connection, as ``connectTCP`` does it."""
        self._next_port += 1
        accept = self._servers.get((host, port), lambda: None)
        connector = _Connector(
            clock, factory, accept, IPv4Address("TCP", _ADDRESS, self._next_port), IPv4Address("TCP", host, port)
        )
        connector.connect()
        return connector


@implementer(IConnector)
class _Connector:
    """
    One attempt to connect.

    :param here: the client's address.
    :param there: the server's.
    """

    def __init__(
        self, clock: IReactorTime, factory: ClientFactory, accept: Accept, here: IPv4Address, there: IPv4Address
    ) -> None:
        self._clock = clock
        self._factory = factory
        self._accept = accept
        self._here = here
        self._there = there
        self._attempt: IDelayedCall | None = None
        self._pipe: PipeEnd | None = None

    def connect(self) -> None:
        self._factory.doStart()
        self._factory.startedConnecting(self)
        self._attempt = self._clock.callLater(0, self._connect)

    def stopConnecting(self) -> None:
        if self._attempt is None:
            msg = "it is not connecting"
            raise RuntimeError(msg)
        self._attempt.cancel()
        self._attempt = None
        self._failed(UserError())

    def disconnect(self) -> None:
        if self._attempt is not None:
            self.stopConnecting()
        elif self._pipe is not None:
            self._pipe.loseConnection()

    def getDestination(self) -> IAddress:
        return self._there

    def _connect(self) -> None:
        self._attempt = None
        server = self._accept()
        if server is None:
            self._failed(Refused())
            return
        client = self._factory.buildProtocol(self._there)
        if client is None:
            self._failed(UserError())
            return
        self._pipe = connect(self._clock, _Told(client, self._lost), server, self._here, self._there)

    def _failed(self, why: Exception) -> None:
        self._factory.clientConnectionFailed(self, Failure(why))
        self._factory.doStop()

    def _lost(self, reason: Failure) -> None:
        self._factory.clientConnectionLost(self, reason)
        self._factory.doStop()


@implementer(IProtocol)
class _Told:
    """A protocol, whose end somebody else is told of, too."""

    def __init__(self, protocol: IProtocol, lost: Callable[[Failure], None]) -> None:
        self._protocol = protocol
        self._lost = lost
        self.dataReceived = protocol.dataReceived
        self.makeConnection = protocol.makeConnection
        self.connectionMade = protocol.connectionMade

    def connectionLost(self, reason: Failure) -> None:
        self._protocol.connectionLost(reason)
        self._lost(reason)


@implementer(IHostnameResolver)
class _Names:
    """
    Resolves the names of servers in memory.

    :param others: resolves all else; None where there is nothing else.
    """

    def __init__(self, network: Network, others: IHostnameResolver | None) -> None:
        self._network = network
        self._others = others

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Sequence[type[IAddress]] | None = None,
        transportSemantics: str = "TCP",
    ) -> Any:  # noqa: ANN401 - Twisted says one thing and wants another
        if self._others is not None and not self._network.resolves(hostName):
            self._others.resolveHostName(resolutionReceiver, hostName, portNumber, addressTypes, transportSemantics)
            return resolutionReceiver
        resolutionReceiver.resolutionBegan(cast("Any", _Resolution(hostName)))
        if self._network.resolves(hostName):
            resolutionReceiver.addressResolved(IPv4Address("TCP", _ADDRESS, portNumber))
        resolutionReceiver.resolutionComplete()
        return resolutionReceiver


class _Resolution:
    def __init__(self, name: str) -> None:
        self.name = name

    def cancel(self) -> None:
        """It is over already."""


@implementer(IReactorTCP, IReactorPluggableNameResolver)
class MemoryReactor(Clock):
    """
    A clock that connects to servers in memory, and to nothing else.

    Nothing happens in it but within :meth:`advance`.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        self._network = network
        self.nameResolver: IHostnameResolver = _Names(network, None)

    def advance(self, amount: float) -> None:
        """
        Let time pass, from one call that is due to the next one, so that each happens at its time.

        ``advance(0)`` lets everything arrive that is under way.

        :raises RuntimeError: where there is no end of calls that are due at once: something is tried again and again
            without a wait, as by a client whose ``random`` always gives 0.
        """
        until = self.seconds() + amount
        now, count = self.seconds(), 0
        while self.calls and self.calls[0].getTime() <= until:
            call = self.calls.pop(0)
            if call.getTime() > now:
                now, count = call.getTime(), 0
            self.rightNow = now
            count += 1
            if count > _MOST_CALLS:
                msg = f"{_MOST_CALLS} calls at one time of the clock: what repeats {call} does not wait in between"
                raise RuntimeError(msg)
            call.called = 1
            call.func(*call.args, **call.kw)
        self.rightNow = max(until, now)

    def connectTCP(
        self,
        host: str,
        port: int,
        factory: IProtocolFactory,
        timeout: float = 30,  # noqa: ARG002 - it is refused or there at once
        bindAddress: tuple[str, int] | None = None,  # noqa: ARG002 - it has no other address
    ) -> IConnector:
        """Connect to a server in memory; any other one refuses."""
        return self._network.connect(self, host, port, cast("ClientFactory", factory))

    def installNameResolver(self, resolver: IHostnameResolver) -> IHostnameResolver:
        """Resolve names with another one; the one that did it before."""
        before, self.nameResolver = self.nameResolver, resolver
        return before

    def listenTCP(self, port: int, factory: IProtocolFactory, backlog: int = 50, interface: str = "") -> Any:  # noqa: ANN401 - it never returns
        """
        Refuse to.

        :raises NotImplementedError: always: what listens is for processes, and here is none.
        """
        msg = f"port {port} of {interface or 'this machine'}: a MemoryReactor listens nowhere; use the real reactor"
        raise NotImplementedError(msg)


class ReactorBeside:
    """A reactor as it is, but that connections to servers in memory stay in this process."""

    def __init__(self, reactor: IReactorTime, network: Network) -> None:
        self._reactor = reactor
        self._network = network
        directlyProvides(self, providedBy(reactor))

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever it is
        return getattr(self._reactor, name)

    @property
    def nameResolver(self) -> IHostnameResolver:
        """Knows the names of servers in memory, too."""
        others = cast("IReactorPluggableNameResolver", self._reactor).nameResolver
        return cast("IHostnameResolver", _Names(self._network, others))

    def connectTCP(
        self,
        host: str,
        port: int,
        factory: IProtocolFactory,
        timeout: float = 30,
        bindAddress: tuple[str, int] | None = None,
    ) -> IConnector:
        """Connect to a server in memory where there is one at that address, else as the reactor does it."""
        if self._network.serves(host, port):
            return self._network.connect(self._reactor, host, port, cast("ClientFactory", factory))
        reactor = cast("IReactorTCP", self._reactor)
        return reactor.connectTCP(host, port, cast("ClientFactory", factory), timeout, bindAddress)


def wait_for(reactor: MemoryReactor, deferred: Deferred[Any], patience: float) -> Any:  # noqa: ANN401
    """
    Let time pass until a Deferred fires, and no longer.

    :return: what it fires with.
    :raises TimeoutError: where it does not within that many seconds of the clock.
    """
    results: list[Any] = []
    deferred.addBoth(results.append)
    until = reactor.seconds() + patience
    reactor.advance(0)
    while not results:
        due = min((call.getTime() for call in reactor.getDelayedCalls()), default=None)
        if due is None or due > until:
            msg = f"nothing within {patience:g} s of the clock"
            raise TimeoutError(msg)
        reactor.advance(max(0.0, due - reactor.seconds()))
    [result] = results
    if isinstance(result, Failure):
        result.raiseException()
    return result
