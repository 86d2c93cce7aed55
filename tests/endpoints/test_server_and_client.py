"""Both ends by their strings, as a program has them, with a real etcd between them."""

from __future__ import annotations

from typing import Any, cast

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ServerEndpoint, clientFromString, quoteStringArgument, serverFromString

from tests.endpoints.peers import Greeters, Peers
from tests.said import Said
from tests.wire import soon
from twisted_etcd.client.client import EtcdClient
from twisted_etcd.embedded.process import EmbeddedEtcd
from twisted_etcd.endpoints.client import EtcdClientEndpoint
from twisted_etcd.endpoints.failures import NoInstance
from twisted_etcd.endpoints.server import EtcdServerEndpoint
from twisted_etcd.endpoints.strings import Strings
from twisted_etcd.registry.registry import Registry
from twisted_etcd.testing.proxy import FaultProxy


def where(etcd: EmbeddedEtcd, prefix: str) -> str:
    """The arguments that say which etcd."""
    return f"endpoints={quoteStringArgument(etcd.endpoint)}:prefix={quoteStringArgument(prefix)}"


@ensureDeferred
async def test_a_port_that_was_chosen_by_the_machine_is_registered_found_and_taken_back(
    etcd_server: EmbeddedEtcd, prefix: str, client: EtcdClient, said: Said
) -> None:
    there = where(etcd_server, prefix)
    server = serverFromString(reactor, f"etcd:name=greeter:{there}:tcp:0:interface=127.0.0.1")
    port = await soon(server.listen(Greeters(b"hello")))
    address = port.getHost()
    await said.until(f"greeter is registered as {prefix}greeter/127.0.0.1:{address.port}")
    peers = Peers()
    peer = await soon(clientFromString(reactor, f"etcd:greeter:{there}:idle=0").connect(cast("Any", peers)))
    assert peer is peers.peers[0]
    await peers.peers[0].until_received(b"hello")
    await peers.peers[0].end()
    await soon(port.stopListening())
    assert (await client.get(prefix, prefix=True)).kvs == ()


@ensureDeferred
async def test_those_of_one_process_share_a_client(
    etcd_server: EmbeddedEtcd, prefix: str, strings: Strings, said: Said
) -> None:
    given = {"endpoints": etcd_server.endpoint, "prefix": prefix}
    here = cast("Any", reactor)
    ports = []
    for name in ("one", "two"):
        server = strings.server(here, ["tcp", "0"], {"name": name, "interface": "127.0.0.1", **given})
        ports.append(await soon(server.listen(cast("Any", Greeters(name.encode())))))
    await said.until("two is registered")
    peers = Peers()
    connecting = strings.client(here, ["two"], {**given, "idle": "0"})
    await soon(connecting.connect(cast("Any", peers)))
    await peers.peers[0].until_received(b"two")
    assert len(strings.sharing) == 1
    for port in ports:
        await soon(cast("Any", port).stopListening())
    assert len(strings.sharing) == 1
    # The last one; the reactor must be found clean then.
    await peers.peers[0].end()


async def connected(endpoint: EtcdClientEndpoint, word: bytes) -> None:
    """It is connected to the one who says this word; then the connection is closed."""
    peers = Peers()
    await soon(endpoint.connect(cast("Any", peers)))
    await peers.peers[0].until_received(word)
    await peers.peers[0].end()


@ensureDeferred
async def test_while_etcd_is_away_who_was_known_is_found(
    proxy: FaultProxy, quick: dict[str, str], strings: Strings, registry: Registry, prefix: str
) -> None:
    listens = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
    server = EtcdServerEndpoint(cast("Any", reactor), registry, cast("Any", listens), "greeter")
    port = cast("Any", await soon(server.listen(cast("Any", Greeters(b"hello")))))
    given = {**quick, "prefix": prefix, "wait": "10"}
    followed = strings.client(cast("Any", reactor), ["greeter"], {**given, "idle": "1000"})
    let_go = strings.client(cast("Any", reactor), ["greeter"], {**given, "idle": "0"})
    await connected(followed, b"hello")
    await connected(let_go, b"hello")
    await proxy.refuse()
    await proxy.reset()
    # One of them follows it yet; that of the other has been let go, and cannot be read any more.
    await connected(followed, b"hello")
    await connected(let_go, b"hello")
    never = strings.client(cast("Any", reactor), ["greeter"], {**quick, "prefix": f"{prefix}other", "idle": "0"})
    with pytest.raises(NoInstance, match=r"its instances are not known: .*refused"):
        await soon(never.connect(cast("Any", Peers())))
    await proxy.heal()
    await soon(port.stopListening())
    await strings.stop()


@ensureDeferred
async def test_an_instance_that_is_registered_while_it_is_waited_for_is_found(
    strings: Strings, registry: Registry, prefix: str, etcd_server: EmbeddedEtcd
) -> None:
    given = {"endpoints": etcd_server.endpoint, "prefix": prefix, "wait": "15", "idle": "0"}
    peers = Peers()
    connecting = strings.client(cast("Any", reactor), ["greeter"], given).connect(cast("Any", peers))
    listens = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
    server = EtcdServerEndpoint(cast("Any", reactor), registry, cast("Any", listens), "greeter")
    port = cast("Any", await soon(server.listen(cast("Any", Greeters(b"hello")))))
    await soon(connecting)
    await peers.peers[0].until_received(b"hello")
    await peers.peers[0].end()
    await soon(port.stopListening())
