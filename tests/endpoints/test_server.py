"""Ports that are registered for as long as they listen, with a real etcd."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
import pytest_twisted
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IStreamServerEndpoint
from zope.interface import implementer
from zope.interface.verify import verifyObject

from tests.endpoints.conftest import MakeClient
from tests.endpoints.peers import Greeters
from tests.endpoints.test_outward import Names
from tests.guards import LoggedErrors
from tests.said import Said
from tests.wire import ClockedReactor, Peer, connect, soon
from twisted_etcd.client.client import EtcdClient
from twisted_etcd.embedded.process import EmbeddedEtcd
from twisted_etcd.endpoints.server import EtcdServerEndpoint, RegisteredPort
from twisted_etcd.endpoints.strings import Strings
from twisted_etcd.errors import InvalidSettings
from twisted_etcd.registry.registry import Registry
from twisted_etcd.testing.proxy import FaultProxy

REACTOR = cast("Any", reactor)


class Server:
    """A server of a string, which is stopped at the end of the test."""

    def __init__(self, strings: Strings, client: EtcdClient, said: Said, prefix: str) -> None:
        self.strings = strings
        self.said = said
        self.ports: list[RegisteredPort] = []
        self._client = client
        self._prefix = prefix
        self._given = {"name": "shop", "endpoints": client.endpoints[0].url, "prefix": prefix}

    async def registered(self, times: int = 1) -> None:
        """Until it is said so often that it is registered."""
        await self.said.until("shop is registered as", times)

    async def values(self) -> dict[str, bytes]:
        """What is in etcd, by what is behind the prefix."""
        return await values(self._client, self._prefix)

    async def listen(self, *args: str, **kwargs: str) -> RegisteredPort:
        endpoint = self.strings.server(REACTOR, args, {**self._given, **kwargs})
        port = cast("RegisteredPort", await soon(endpoint.listen(cast("Any", Greeters(b"hello")))))
        self.ports.append(port)
        return port


@pytest.fixture
def server(strings: Strings, client: EtcdClient, said: Said, prefix: str) -> Iterator[Server]:
    server = Server(strings, client, said, prefix)
    yield server
    for port in server.ports:
        pytest_twisted.blockon(port.stopListening())


def port_of(port: RegisteredPort) -> int:
    return int(cast("Any", port.getHost()).port)


async def values(client: EtcdClient, prefix: str) -> dict[str, bytes]:
    return {kv.key.decode().removeprefix(prefix): kv.value for kv in (await client.get(prefix, prefix=True)).kvs}


@ensureDeferred
async def test_all_that_the_string_says_is_in_etcd(server: Server) -> None:
    port = await server.listen(
        "tcp", "0", interface="127.0.0.1", tags="a,b", metadata="zone=west", weight="3", id="shop-1"
    )
    verifyObject(IListeningPort, port)
    await server.registered()
    [(key, value)] = (await server.values()).items()
    assert key == f"shop/127.0.0.1:{port_of(port)}"
    assert msgspec.json.decode(value) == {
        "address": "127.0.0.1",
        "port": port_of(port),
        "tags": ["a", "b"],
        "metadata": {"zone": "west"},
        "weight": 3,
        "id": "shop-1",
    }


@pytest.mark.parametrize(("form", "value"), [("go", '{{"Op":0,"Addr":"{0}","Metadata":null}}'), ("address", "{0}")])
@ensureDeferred
async def test_other_forms_are_written(server: Server, form: str, value: str) -> None:
    port = await server.listen("tcp", "0", interface="127.0.0.1", format=form)
    await server.registered()
    address = f"127.0.0.1:{port_of(port)}"
    assert await server.values() == {f"shop/{address}": value.format(address).encode()}


@pytest.mark.parametrize(
    ("arguments", "named", "registered"),
    [
        # On all interfaces, it is the address by which etcd is reached.
        (("tcp", "0"), {}, "127.0.0.1:{0}"),
        (("tcp", "0"), {"address": "shop.example"}, "shop.example:{0}"),
        (("tcp", "0"), {"address": "shop.example:80"}, "shop.example:80"),
        (("tcp", "0"), {"address": "fd00::7"}, "[fd00::7]:{0}"),
    ],
)
@ensureDeferred
async def test_the_address_is_one_that_others_can_reach(
    server: Server, arguments: tuple[str, ...], named: dict[str, str], registered: str
) -> None:
    port = await server.listen(*arguments, **named)
    await server.registered()
    assert list(await server.values()) == [f"shop/{registered.format(port_of(port))}"]


@implementer(IStreamServerEndpoint)
class Elsewhere:
    """Listens at an address that this machine need not have."""

    def __init__(self, address: object) -> None:
        self.address = address

    def listen(self, _factory: object) -> Deferred[Any]:
        return succeed(self)

    def getHost(self) -> object:
        return self.address

    def stopListening(self) -> None:
        """It did not."""


@pytest.mark.parametrize(
    ("host", "registered"), [("::", "127.0.0.1:80"), ("::1", "[::1]:80"), ("fd00::7", "[fd00::7]:80")]
)
@ensureDeferred
async def test_with_ipv6_too(server: Server, registry: Registry, host: str, registered: str) -> None:
    endpoint = EtcdServerEndpoint(REACTOR, registry, cast("Any", Elsewhere(IPv6Address("TCP", host, 80))), "shop")
    port = await soon(endpoint.listen(cast("Any", Greeters(b""))))
    await server.registered()
    assert list(await server.values()) == [f"shop/{registered}"]
    await soon(cast("Any", port).stopListening())


@ensureDeferred
async def test_a_unix_socket_is_registered_where_it_is_said_how_others_reach_it(server: Server, tmp_path: Path) -> None:
    socket = tmp_path / "socket"
    with pytest.raises(InvalidSettings, match="which is no TCP port; give address=HOST:PORT"):
        await server.listen("unix", str(socket))
    assert not socket.exists()
    await server.listen("unix", str(socket), address="10.0.0.1:80")
    await server.registered()
    assert list(await server.values()) == ["shop/10.0.0.1:80"]


@ensureDeferred
async def test_loopback_is_not_registered_in_an_etcd_elsewhere(server: Server, strings: Strings) -> None:
    with pytest.raises(InvalidSettings) as refused:
        await server.listen("tcp", "0", interface="127.0.0.1", endpoints="http://192.0.2.1:1,http://etcd.example:2379")
    assert str(refused.value) == (
        "service 'shop' listens on 127.0.0.1, where only this machine reaches it, and etcd is elsewhere, at "
        "http://192.0.2.1:1, http://etcd.example:2379; listen on another interface, or give address="
    )
    assert len(server.strings.sharing) == 0


@ensureDeferred
async def test_where_it_cannot_listen_nothing_is_registered(server: Server, strings: Strings, said: Said) -> None:
    port = await server.listen("tcp", "0", interface="127.0.0.1")
    await server.registered()
    with pytest.raises(CannotListenError):
        await server.listen("tcp", str(port_of(port)), interface="127.0.0.1")
    assert server.said.count("shop is registered as") == 1
    assert len(server.strings.sharing) == 1


@ensureDeferred
async def test_while_etcd_is_away_it_serves_and_is_registered_afterwards(
    proxy: FaultProxy, quick: dict[str, str], server: Server, said: Said
) -> None:
    await proxy.refuse()
    port = await server.listen("tcp", "0", interface="127.0.0.1", **quick)
    peer = Peer()
    await connect(port_of(port), peer)
    await peer.until_received(b"hello")
    await peer.end()
    await server.said.until("cannot be registered, which is tried again")
    assert await server.values() == {}
    await proxy.heal()
    await server.registered()
    assert list(await server.values()) == [f"shop/127.0.0.1:{port_of(port)}"]


@ensureDeferred
async def test_while_etcd_is_away_it_stops_all_the_same(
    server: Server, proxy: FaultProxy, quick: dict[str, str], client: EtcdClient, prefix: str
) -> None:
    port = await server.listen("tcp", "0", interface="127.0.0.1", ttl="600", **quick)
    await server.registered()
    never = await server.listen("tcp", "0", interface="127.0.0.1", **quick)
    await proxy.refuse()
    await proxy.reset()
    await soon(never.stopListening())
    await soon(port.stopListening())
    assert server.said.count("is left to its TTL: ") >= 1
    assert len(server.strings.sharing) == 0
    await client.delete(prefix, prefix=True)


@ensureDeferred
async def test_stopped_it_is_taken_back_first_and_serves_while_it_drains(
    registry: Registry, client: EtcdClient, prefix: str, said: Said
) -> None:
    clock = ClockedReactor()
    listens = TCP4ServerEndpoint(REACTOR, 0, interface="127.0.0.1")
    endpoint = EtcdServerEndpoint(cast("Any", clock), registry, listens, "shop", drain=3.0)
    port = cast("RegisteredPort", await soon(endpoint.listen(cast("Any", Greeters(b"hello")))))
    await said.until("shop is registered as")
    number = port_of(port)
    ended: list[object] = []
    port.stopListening().addCallback(ended.append)
    again = port.stopListening()
    await clock.until_waiting()
    assert await values(client, prefix) == {}
    peer = Peer()
    await connect(number, peer)
    await peer.until_received(b"hello")
    await peer.end()
    assert ended == []
    clock.advance(3.0)
    await soon(again)
    assert ended == [None]
    with pytest.raises(Exception, match="refused"):
        await connect(number, Peer())


@ensureDeferred
async def test_what_was_never_registered_is_not_drained(
    make_client: MakeClient, proxy: FaultProxy, prefix: str
) -> None:
    await proxy.refuse()
    registry = Registry(make_client(proxy.endpoint), REACTOR, prefix)
    listens = TCP4ServerEndpoint(REACTOR, 0, interface="127.0.0.1")
    endpoint = EtcdServerEndpoint(REACTOR, registry, listens, "shop", drain=1000.0)
    port = await soon(endpoint.listen(cast("Any", Greeters(b"hello"))))
    await soon(cast("Any", port).stopListening())


@ensureDeferred
async def test_it_can_listen_again(server: Server) -> None:
    port = await server.listen("tcp", "0", interface="127.0.0.1")
    await server.registered()
    await soon(port.stopListening())
    assert await server.values() == {}
    port.startListening()
    await server.registered(2)
    assert list(await server.values()) == [f"shop/127.0.0.1:{port_of(port)}"]


@ensureDeferred
async def test_metadata_are_in_no_line_of_the_log(server: Server, said: Said) -> None:
    port = await server.listen("tcp", "0", interface="127.0.0.1", metadata="token=secret")
    await server.registered()
    await soon(port.stopListening())
    assert not [line for line in server.said.lines if "secret" in line]
    assert "secret" not in repr(port)


class NamedReactor(ClockedReactor):
    """Its time, and the names that it knows, are the test's."""

    def __init__(self) -> None:
        super().__init__()
        self.nameResolver = self.names = Names()


@pytest.fixture
def by_name(etcd_server: EmbeddedEtcd, make_client: MakeClient, prefix: str) -> Registry:
    """A registry of an etcd that is known by a name."""
    client = make_client(etcd_server.endpoint.replace("127.0.0.1", "localhost"))
    return Registry(client, REACTOR, prefix)


@ensureDeferred
async def test_while_the_name_of_etcd_is_not_known_it_is_asked_for_again(server: Server, by_name: Registry) -> None:
    machine = NamedReactor()
    listens = TCP4ServerEndpoint(REACTOR, 0)
    endpoint = EtcdServerEndpoint(cast("Any", machine), by_name, listens, "shop", random=lambda: 1.0)
    port = cast("RegisteredPort", await soon(endpoint.listen(cast("Any", Greeters(b"")))))
    server.ports.append(port)
    machine.names.answer()
    await server.said.until("shop: the address that others reach cannot be told yet, since the names of etcd's")
    machine.advance(0.1)
    assert port.registration is None
    machine.names.answer(IPv4Address("TCP", "127.0.0.1", 0))
    await server.registered()
    assert list(await server.values()) == [f"shop/127.0.0.1:{port_of(port)}"]


@ensureDeferred
async def test_where_it_turns_out_later_that_it_has_no_address_that_is_said(
    server: Server, by_name: Registry, monkeypatch: pytest.MonkeyPatch, logged_errors: LoggedErrors
) -> None:
    monkeypatch.setattr("twisted_etcd.endpoints.outward._local_towards", lambda *_: "fd00::7")
    machine = NamedReactor()
    endpoint = EtcdServerEndpoint(cast("Any", machine), by_name, TCP4ServerEndpoint(REACTOR, 0), "shop")
    server.ports.append(cast("RegisteredPort", await soon(endpoint.listen(cast("Any", Greeters(b""))))))
    machine.names.answer(IPv6Address("TCP", "fd00::9", 0))
    line = await server.said.until("shop listens and is not registered: ")
    assert "etcd is reached from fd00::7, and this listens with another version of IP; give address=" in line
    assert len(logged_errors.flush_messages("listens and is not registered")) == 1
    assert await server.values() == {}


@ensureDeferred
async def test_stopped_while_the_name_is_asked_for_nothing_is_left(by_name: Registry) -> None:
    machine = NamedReactor()
    endpoint = EtcdServerEndpoint(cast("Any", machine), by_name, TCP4ServerEndpoint(REACTOR, 0), "shop", drain=9.0)
    port = cast("RegisteredPort", await soon(endpoint.listen(cast("Any", Greeters(b"")))))
    await soon(port.stopListening())
    machine.names.answer(IPv4Address("TCP", "127.0.0.1", 0))
    assert port.registration is None
    assert machine.getDelayedCalls() == []
