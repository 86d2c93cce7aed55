"""Connections of real sockets, plain and with TLS."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import pytest_twisted
from pytest_twisted import ensureDeferred
from twisted.internet import reactor, ssl
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.endpoints import connectProtocol
from twisted.internet.interfaces import IHandshakeListener, IListeningPort
from twisted.internet.protocol import Factory
from zope.interface import implementer

from tests.endpoints.known import Known
from tests.endpoints.peers import Counted, Greeters, Peers
from tests.gateway.authorities import Papers
from tests.wire import Event, HalfClosingPeer, Listener, Peer, soon
from twisted_etcd.endpoints.client import EtcdClientEndpoint
from twisted_etcd.endpoints.failures import ConnectFailed
from twisted_etcd.endpoints.strings import Strings
from twisted_etcd.gateway.tls import TLSSettings, TLSTrust
from twisted_etcd.registry.instance import Instance


class Servers:
    """Servers of this machine, each at a port of its own."""

    def __init__(self) -> None:
        self.ports: list[IListeningPort] = []

    def plain(self, word: bytes) -> Instance:
        return self._listening(cast("Any", reactor).listenTCP(0, Greeters(word), interface="127.0.0.1"))

    def secure(self, word: bytes, pair: tuple[str, str]) -> Instance:
        certificate, key = pair
        options = ssl.DefaultOpenSSLContextFactory(key, certificate)
        return self._listening(cast("Any", reactor).listenSSL(0, Greeters(word), options, interface="127.0.0.1"))

    def _listening(self, port: IListeningPort) -> Instance:
        self.ports.append(port)
        return Instance(address="127.0.0.1", port=cast("Any", port.getHost()).port)

    def stop(self) -> Deferred[Any]:
        return gatherResults([maybeDeferred(cast("Any", port).stopListening) for port in self.ports])


@pytest.fixture
def servers() -> Iterator[Servers]:
    servers = Servers()
    yield servers
    pytest_twisted.blockon(servers.stop())


def calling(known: Known, **options: Any) -> EtcdClientEndpoint:  # noqa: ANN401 - as the endpoint has them
    return EtcdClientEndpoint(cast("Any", reactor), known, "shop", **options)


def trusting(papers: Papers, host: str = "shop.example") -> dict[str, Any]:
    trust = TLSTrust(TLSSettings(ca_file=papers.ca_file))
    return {"secure": lambda _: trust.connections_to(host)}


@ensureDeferred
async def test_a_refused_connection_goes_on_to_the_next_instance(servers: Servers) -> None:
    # Nobody listens at port 1.
    dead = Instance(address="127.0.0.1", port=1)
    peers = Peers()
    await soon(calling(Known(dead, servers.plain(b"hello"))).connect(cast("Any", peers)))
    await peers.peers[0].until_received(b"hello")
    await peers.peers[0].end()


@ensureDeferred
async def test_an_instance_may_be_named(servers: Servers) -> None:
    there = servers.plain(b"hello")
    known = Known(Instance(address="localhost", port=there.port))
    peers = Peers()
    await soon(calling(known).connect(cast("Any", peers)))
    await peers.peers[0].until_received(b"hello")
    await peers.peers[0].end()
    assert known.held == 0


@ensureDeferred
async def test_who_is_half_closed_hears_of_it() -> None:
    listener = Listener(HalfClosingPeer)
    known = Known(Instance(address="127.0.0.1", port=listener.port))
    peer = HalfClosingPeer()
    await soon(connectProtocol(cast("Any", calling(known)), cast("Any", peer)))
    server = await listener.peer()
    cast("Any", server.socket).loseWriteConnection()
    await peer.until_finished()
    peer.socket.write(b"more")
    await server.until_received(b"more")
    await peer.end()
    await listener.close()


@ensureDeferred
async def test_where_a_certificate_is_refused_the_next_instance_is_taken_and_the_protocol_never_hears_of_it(
    servers: Servers, tmp_path: Path
) -> None:
    papers, strangers = Papers(tmp_path / "ours"), Papers(tmp_path / "theirs")
    wrong = servers.secure(b"wrong", strangers.pair("a", "shop.example"))
    other = servers.secure(b"other", papers.pair("b", "other.example"))
    right = servers.secure(b"right", papers.pair("c", "shop.example"))
    plain = servers.plain(b"plain, and no TLS at all")
    known = Known(wrong, other, plain, right)
    endpoint = calling(known, **trusting(papers))
    for _ in range(4):
        peer = Peer()
        # One that can be connected once.
        await soon(connectProtocol(cast("Any", endpoint), cast("Any", peer)))
        await peer.until_received(b"right")
        await peer.end()
    assert known.held == 0
    await cast("Any", servers.ports[2]).stopListening()
    counted = Counted()
    with pytest.raises(ConnectFailed) as failed:
        await soon(connectProtocol(cast("Any", endpoint), cast("Any", counted)))
    assert (counted.made, counted.lost) == (0, 0)
    tried = failed.value.tried
    assert "certificate verify failed" in tried[wrong.endpoint]
    assert tried[other.endpoint] == "TLS: VerificationError"
    assert "TLS: " in tried[plain.endpoint]
    assert "refused" in tried[right.endpoint]


@ensureDeferred
async def test_a_server_that_never_ends_the_handshake_is_left(servers: Servers, tmp_path: Path) -> None:
    papers = Papers(tmp_path)
    silent = Listener()
    right = servers.secure(b"right", papers.pair("a", "shop.example"))
    known = Known(Instance(address="127.0.0.1", port=silent.port), right)
    peers = Peers()
    connecting = calling(known, timeout=1.0, **trusting(papers)).connect(cast("Any", peers))
    await soon(connecting)
    await peers.peers[0].until_received(b"right")
    await (await silent.peer()).until_lost()
    await peers.peers[0].end()
    await silent.close()


@ensureDeferred
async def test_a_protocol_that_listens_for_the_handshake_is_told(servers: Servers, tmp_path: Path) -> None:
    @implementer(IHandshakeListener)
    class Told(Peer):
        events: list[str]

        def __init__(self) -> None:
            super().__init__()
            self.events = []

        def connectionMade(self) -> None:
            self.events.append("made")

        def handshakeCompleted(self) -> None:
            self.events.append("handshake")

    papers = Papers(tmp_path)
    known = Known(servers.secure(b"right", papers.pair("a", "shop.example")))
    peer = Told()
    await soon(connectProtocol(cast("Any", calling(known, **trusting(papers))), cast("Any", peer)))
    await peer.until_received(b"right")
    assert peer.events == ["made", "handshake"]
    await peer.end()


@pytest.mark.parametrize("secure", [False, True])
@ensureDeferred
async def test_a_factory_that_fails_leaves_no_connection(
    servers: Servers,
    tmp_path: Path,
    secure: bool,  # noqa: FBT001 - pytest's
) -> None:
    class Broken(Factory):
        noisy = False

        def buildProtocol(self, _addr: object) -> None:
            msg = "not today"
            raise RuntimeError(msg)

    papers = Papers(tmp_path)
    there = servers.secure(b"", papers.pair("a", "shop.example")) if secure else servers.plain(b"")
    known = Known(there)
    with pytest.raises(RuntimeError, match="not today"):
        await soon(calling(known, **(trusting(papers) if secure else {})).connect(cast("Any", Broken())))
    assert known.held == 0


@ensureDeferred
async def test_the_string_says_whose_certificate_is_wanted(servers: Servers, tmp_path: Path, strings: Strings) -> None:
    papers = Papers(tmp_path)
    right = servers.secure(b"right", papers.pair("a", "shop", "www.example", "127.0.0.1"))
    for given in ({"tls": "yes"}, {"tls": "yes", "tlsHostname": "www.example"}, {"tls": "address"}):
        endpoint = strings.client(cast("Any", reactor), ["shop"], {"tlsCA": papers.ca_file, **given})
        endpoint.source = Known(right)
        peers = Peers()
        await soon(endpoint.connect(cast("Any", peers)))
        await peers.peers[0].until_received(b"right")
        await peers.peers[0].end()
    endpoint = strings.client(cast("Any", reactor), ["till"], {"tlsCA": papers.ca_file, "tls": "yes"})
    endpoint.source = Known(right)
    with pytest.raises(ConnectFailed, match="VerificationError"):
        await soon(endpoint.connect(cast("Any", Peers())))


@ensureDeferred
async def test_cancelled_in_the_handshake_it_closes_the_connection(tmp_path: Path) -> None:
    silent = Listener()
    known = Known(Instance(address="127.0.0.1", port=silent.port))
    gone = Event()
    ended: list[object] = []

    def end(result: object) -> None:
        ended.append(result)
        gone.happened()

    connecting = calling(known, **trusting(Papers(tmp_path))).connect(cast("Any", Peers()))
    connecting.addBoth(end)
    peer = await silent.peer()
    await peer.until(lambda: bool(peer.data))
    connecting.cancel()
    await gone.until(lambda: bool(ended))
    await peer.until_lost()
    assert known.held == 0
    await silent.close()
