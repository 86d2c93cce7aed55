"""A check that connects."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IProtocolFactory, IReactorCore, IReactorTime, ITransport
from twisted.internet.protocol import Factory, Protocol

from twisted_etcd.gateway.connections import Connections
from twisted_etcd.gateway.endpoints import Endpoint
from twisted_etcd.gateway.tls import TLSSettings, TLSTrust
from twisted_etcd.registry.health.result import CheckResult, failing, passing
from twisted_etcd.registry.health.words import problem
from twisted_etcd.registry.instance import join_address, split_address

#: Seconds after which connecting is given up on by itself; the monitor's time is shorter, unless set otherwise.
CONNECT_TIMEOUT = 60.0


class NetworkReactor(IReactorCore, IReactorTime):
    """What is used of the reactor: it tells the time and connects."""


def address_of(host: str, port: int) -> str:
    """
    ``host:port``, an IPv6 address in brackets.

    :raises InvalidSettings: where it is none.
    """
    if not isinstance(host, str) or not isinstance(port, int) or isinstance(port, bool):
        msg = f"a host is a text and a port a number, not {type(host).__name__} and {type(port).__name__}"
        raise TypeError(msg)
    address = join_address(host, port)
    split_address(address)
    return address


class TCPCheck:
    """
    Passes where a TCP connection comes about; it is closed at once.

    :param host: a name, or an IPv4 or IPv6 address.
    :raises InvalidSettings: where host and port are none.
    """

    def __init__(self, reactor: NetworkReactor, host: str, port: int) -> None:
        self._address = address_of(host, port)
        self._reactor = reactor
        self._trust = TLSTrust(TLSSettings())
        self._endpoint = Endpoint("http", host, port)

    def __repr__(self) -> str:
        return f"<TCPCheck {self._address}>"

    def check(self) -> Deferred[CheckResult]:
        """Look once, see :class:`~twisted_etcd.registry.health.result.Check`."""
        return Deferred.fromCoroutine(self._check())

    async def _check(self) -> CheckResult:
        connections = Connections(self._reactor, self._trust, CONNECT_TIMEOUT)
        factory = Factory.forProtocol(Protocol)
        factory.noisy = False
        connecting: Deferred[Any] = connections.to(self._endpoint).connect(cast("IProtocolFactory", factory))
        try:
            protocol = await connecting
        except CancelledError:
            await connections.all_gone()
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, no connection came about
            await connections.all_gone()
            return failing(f"no connection: {problem(error)}")
        cast("ITransport", protocol.transport).loseConnection()
        await connections.all_gone()
        return passing("a connection came about")
