"""
Stands between the members of a cluster, in a process of its own, and cuts some of them off from the others.

Each member's peer port has a proxy before it, whose address is the one that the others know. Isolating a member closes
its own proxy, and the other proxies to what it opens itself. Much of what members ask each other does not say who asks,
keep-alives of leases for example, so a connection is known by the process that holds its other end.

A program that tests etcd may hold up its reactor for longer than members wait for each other; that is why the proxies
are not in it. :class:`twisted_etcd.testing.peerlinks.PeerLinks` runs this process: a line of JSON comes in with all
that is to be so, and a line goes out when it is.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from typing import Any, cast

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.protocol import connectionDone
from twisted.logger import (
    FilteringLogObserver,
    LogLevel,
    LogLevelFilterPredicate,
    globalLogBeginner,
    textFileLogObserver,
)
from twisted.protocols.basic import LineOnlyReceiver
from twisted.python.failure import Failure

from twisted_etcd.testing.connections import ProxiedConnection
from twisted_etcd.testing.proxy import FaultProxy, IProxyReactor
from twisted_etcd.testing.sockets import held_by

_LOOPBACK = "127.0.0.1"


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """
    How one member is linked to the others.

    :ivar name: the member's.
    :ivar port: where it listens for the others; 0 while it does not.
    :ivar pid: its process; 0 while there is none.
    :ivar isolated: whether it is cut off from the others.
    """

    name: str
    port: int = 0
    pid: int = 0
    isolated: bool = False


class PeerProxy(FaultProxy):
    """
    Stands before the peer port of one member.

    A connection that may not pass hangs, as it would behind a wire that is cut: one that was refused would be tried
    again at once, for as long as the isolation lasts.

    :param lets_in: says of each connection whether it may pass.
    """

    def __init__(self, reactor: IProxyReactor, lets_in: Callable[[ProxiedConnection], bool]) -> None:
        super().__init__(reactor, _LOOPBACK, 0)
        self._lets_in = lets_in
        self._hanging: set[ProxiedConnection] = set()

    def accepted(self, connection: ProxiedConnection) -> bool:
        """A member has connected; False where it is kept waiting."""
        if self._lets_in(connection):
            return super().accepted(connection)
        self._hanging.add(connection)
        connection.hold()
        return False

    def lost(self, connection: ProxiedConnection) -> None:
        """Both sockets of a connection have gone."""
        self._hanging.discard(connection)
        super().lost(connection)

    def judge_anew(self) -> None:
        """Reset the connections that may not pass any more, and those that hang: they are tried again if wanted."""
        for connection in tuple(self.connections):
            if connection in self._hanging or not self._lets_in(connection):
                connection.reset()


class PeerProxies:
    """The proxies of all members of a cluster."""

    def __init__(self, reactor: IProxyReactor) -> None:
        self._reactor = reactor
        self._links: dict[str, Link] = {}
        self._proxies: dict[str, PeerProxy] = {}

    def become(self, links: Sequence[Link]) -> dict[str, int]:
        """
        Link the members in this way from now on.

        :param links: one for each member.
        :return: the port of each member's proxy, by the member's name; it stays the same.
        """
        self._links = {link.name: link for link in links}
        for name in self._proxies.keys() - self._links.keys():
            self._proxies.pop(name).stopService()
        for link in links:
            if link.name not in self._proxies:
                self._proxies[link.name] = PeerProxy(self._reactor, self._gate_of(link.name))
                self._proxies[link.name].startService()
            self._proxies[link.name].target_port = link.port
        for proxy in self._proxies.values():
            proxy.judge_anew()
        return {name: proxy.port for name, proxy in self._proxies.items()}

    def _gate_of(self, name: str) -> Callable[[ProxiedConnection], bool]:
        return lambda connection: self._may_pass(name, connection)

    def _may_pass(self, name: str, connection: ProxiedConnection) -> bool:
        link = self._links.get(name)
        if link is None or not link.port or link.isolated:
            return False
        if not any(each.isolated for each in self._links.values()):
            return True
        # Not a list of those who may not: of a member that was started a moment ago the process is not known yet.
        connected = [each.pid for each in self._links.values() if each.pid and not each.isolated]
        return held_by((connection.client_port, self._proxies[name].port), connected)


class Orders(LineOnlyReceiver):
    """
    Standard input and output of the process.

    :ivar ended: fires when nobody gives orders any more.
    """

    delimiter = b"\n"
    MAX_LENGTH = 1024 * 1024

    def __init__(self, proxies: PeerProxies) -> None:
        self.ended: Deferred[None] = Deferred()
        self._proxies = proxies

    def lineReceived(self, line: bytes) -> None:
        """Do what is asked for, and say that it is done."""
        ports = self._proxies.become(msgspec.json.decode(line, type=list[Link]))
        self.sendLine(msgspec.json.encode(ports))

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: ARG002
        """Whoever started this process has ended, or wants it to end."""
        self.ended.callback(None)


def main() -> None:
    """Run until standard input ends."""
    from twisted.internet import reactor  # noqa: PLC0415 - only here is this a program
    from twisted.internet.stdio import StandardIO  # noqa: PLC0415 - likewise

    # Ctrl-C in a terminal is for the program that runs the cluster.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings = LogLevelFilterPredicate(defaultLogLevel=LogLevel.warn)
    observer = FilteringLogObserver(textFileLogObserver(_stderr()), [warnings])
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False, discardBuffer=True)
    orders = Orders(PeerProxies(cast("IProxyReactor", reactor)))
    orders.ended.addCallback(lambda _: cast("Any", reactor).stop())
    StandardIO(orders, reactor=cast("Any", reactor))
    cast("Any", reactor).run(installSignalHandlers=False)


def _stderr() -> Any:  # noqa: ANN401 - a text file, as Twisted does not say
    import sys  # noqa: PLC0415

    return sys.stderr


if __name__ == "__main__":
    main()
