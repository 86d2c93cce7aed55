"""Sockets: opened, counted, and gone."""

from __future__ import annotations

from typing import Any, cast

import pytest
import pytest_twisted
from twisted.internet import error
from twisted.internet.error import ConnectError, DNSLookupError
from twisted.internet.protocol import Factory, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from tests.gateway.servers import CLOCK
from tests.wire import Listener, Peer, soon
from twisted_etcd.gateway.connections import Connections
from twisted_etcd.gateway.endpoints import parse_endpoint
from twisted_etcd.gateway.tls import TLSSettings, TLSTrust


def new_connections(connect_timeout: float = 3.0) -> Connections:
    return Connections(CLOCK, TLSTrust(TLSSettings()), connect_timeout)


async def connect(connections: Connections, url: str) -> Peer:
    connecting = connections.to(parse_endpoint(url)).connect(cast("Any", Factory.forProtocol(Peer)))
    return cast("Peer", await soon(connecting))


@pytest_twisted.ensureDeferred
async def test_every_socket_counts_until_it_has_gone() -> None:
    listener, connections = Listener(), new_connections()
    one = await connect(connections, f"http://{listener.authority}")
    other = await connect(connections, f"http://{listener.authority}")
    assert connections.count == 2
    one.socket.loseConnection()
    await one.until_lost()
    await deferLater(CLOCK, 0)
    assert connections.count == 1
    (await listener.peer(1)).socket.abortConnection()
    await other.until_lost()
    await soon(connections.all_gone())
    assert connections.count == 0
    await listener.close()


@pytest_twisted.ensureDeferred
async def test_what_is_written_before_a_close_still_goes_out() -> None:
    listener, connections = Listener(), new_connections()
    peer = await connect(connections, f"http://{listener.authority}")
    peer.socket.write(b"farewell")
    peer.socket.loseConnection()
    there = await listener.peer()
    await there.until_received(b"farewell")
    await there.until_lost()
    await listener.close()


@pytest_twisted.ensureDeferred
async def test_aborting_closes_all_and_waiting_tells_when_they_have_gone() -> None:
    listener, connections = Listener(), new_connections()
    await connections.all_gone()
    peers = [await connect(connections, f"http://{listener.authority}") for _ in range(3)]
    waiting = [connections.all_gone(), connections.all_gone()]
    assert not any(deferred.called for deferred in waiting)
    connections.abort()
    for deferred in waiting:
        await soon(deferred)
    assert connections.count == 0
    assert all(peer.lost is not None for peer in peers)
    await listener.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@pytest_twisted.ensureDeferred
async def test_an_address_and_a_name_both_lead_there(host: str) -> None:
    listener, connections = Listener(), new_connections()
    await connect(connections, f"http://{host}:{listener.port}")
    await listener.peer()
    connections.abort()
    await soon(connections.all_gone())
    await listener.close()


@pytest_twisted.ensureDeferred
async def test_failures_to_connect_leave_no_socket() -> None:
    listener, connections = Listener(), new_connections()
    await listener.close()
    with pytest.raises(error.ConnectionRefusedError):
        await connect(connections, f"http://{listener.authority}")
    with pytest.raises(ConnectError, match="refused"):
        await connect(connections, f"https://{listener.authority}")
    with pytest.raises(DNSLookupError):
        await connect(connections, "http://no-such-host.invalid")
    assert connections.count == 0


@pytest_twisted.ensureDeferred
async def test_cancelling_a_tls_handshake_closes_its_socket() -> None:
    listener, connections = Listener(), new_connections()
    connecting = connections.to(parse_endpoint(f"https://{listener.authority}")).connect(Factory.forProtocol(Peer))
    there = await listener.peer()
    await there.until(lambda: bool(there.data))
    assert connections.count == 1
    connecting.cancel()
    await there.until_lost()
    await soon(connections.all_gone())
    connecting.addErrback(lambda _: None)
    await listener.close()


@pytest_twisted.ensureDeferred
async def test_a_tls_handshake_is_bounded_and_tells_its_protocol_nothing() -> None:
    listener, connections = Listener(), new_connections(0.1)
    made: list[Peer] = []

    class Watched(Peer):
        def connectionMade(self) -> None:
            made.append(self)

        def connectionLost(self, reason: Failure = connectionDone) -> None:
            made.append(self)

    endpoint = connections.to(parse_endpoint(f"https://{listener.authority}"))
    with pytest.raises(ConnectError, match=r"no TLS handshake within 0\.1 s"):
        await soon(endpoint.connect(Factory.forProtocol(Watched)))
    await soon(connections.all_gone())
    await listener.close()
    assert made == []
