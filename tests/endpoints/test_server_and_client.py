"""Both ends by their strings, as a program has them, with a real etcd between them."""

from __future__ import annotations

from typing import Any, cast

from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.endpoints import clientFromString, quoteStringArgument, serverFromString

from tests.endpoints.peers import Greeters, Peers
from tests.said import Said
from tests.wire import soon
from twisted_etcd.client.client import EtcdClient
from twisted_etcd.embedded.process import EmbeddedEtcd
from twisted_etcd.endpoints.strings import Strings


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
