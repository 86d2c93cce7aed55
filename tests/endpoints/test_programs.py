"""Programs that know nothing of etcd but an endpoint string: Twisted's own, as they come."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import pytest_twisted
from pytest_twisted import ensureDeferred
from twisted.application.internet import ClientService
from twisted.internet import reactor
from twisted.internet.defer import gatherResults
from twisted.internet.endpoints import clientFromString, quoteStringArgument

from tests.endpoints.peers import Peers
from tests.gateway.authorities import Papers
from tests.programs import TWISTD, Program, Run
from tests.wire import Event, Peer, soon
from twisted_etcd.client.client import EtcdClient
from twisted_etcd.embedded.process import EmbeddedEtcd
from twisted_etcd.testing.proxy import FaultProxy

#: Unless told otherwise it writes JSON where nobody looks on.
TWIST = ("-m", "twisted", "--log-format=text")
#: So long that no key goes by itself in a test.
LONG = "ttl=600"
LISTENS = """\
import sys
from twisted.internet import protocol, task
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.logger import globalLogBeginner, textFileLogObserver

globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stdout)], redirectStandardIO=False)

def main(reactor):
    endpoint = serverFromString(reactor, sys.argv[1])
    return endpoint.listen(protocol.Factory.forProtocol(protocol.Protocol)).addCallback(lambda port: Deferred())

task.react(main)
"""


class Stage:
    """Programs at one etcd, and those who connect to them."""

    def __init__(self, run: Run, etcd: EmbeddedEtcd, client: EtcdClient, prefix: str) -> None:
        self._run = run
        self.etcd = etcd
        self._client = client
        self._prefix = prefix

    def start(self, *arguments: str) -> Program:
        """A program that finds its etcd as etcdctl does."""
        return self._run(*arguments, ETCDCTL_ENDPOINTS=self.etcd.endpoint)

    def string(self, rest: str) -> str:
        """An endpoint string with this test's prefix."""
        return f"etcd:prefix={quoteStringArgument(self._prefix)}:{rest}"

    async def registered(self, program: Program, times: int = 1) -> int:
        """The port that it is registered with, once it is."""
        found = re.search(r"is registered as \S+:(\d+)$", await program.until("is registered as", times))
        assert found is not None, program.text
        return int(found[1])

    def connecting(self, name: str, rest: str = "idle=0") -> Any:  # noqa: ANN401 - what Twisted makes of it
        return clientFromString(
            reactor, self.string(f"endpoints={quoteStringArgument(self.etcd.endpoint)}:name={name}:{rest}")
        )

    async def keys(self) -> list[str]:
        found = await self._client.get(self._prefix, prefix=True, keys_only=True)
        return [kv.key.decode().removeprefix(self._prefix) for kv in found.kvs]


@pytest.fixture
def stage(run: Run, etcd_server: EmbeddedEtcd, client: EtcdClient, prefix: str) -> Stage:
    return Stage(run, etcd_server, client, prefix)


async def got(stage: Stage, name: str, path: str) -> bytes:
    """What a server of the web answers."""
    peers = Peers()
    await soon(stage.connecting(name).connect(cast("Any", peers)))
    [peer] = peers.peers
    peer.socket.write(f"GET {path} HTTP/1.0\r\n\r\n".encode())
    await peer.until_lost()
    return bytes(peer.data).partition(b"\r\n\r\n")[2]


@pytest.mark.parametrize("program", [TWIST, (*TWISTD, "-n", "--pidfile=")], ids=["twist", "twistd"])
@ensureDeferred
async def test_the_server_of_the_web_is_registered_found_and_gone_at_once_with_sigterm(
    stage: Stage, tmp_path: Path, program: tuple[str, ...]
) -> None:
    (tmp_path / "hello.txt").write_text("hello")
    listens = stage.string(f"name=web:{LONG}:tcp:0:interface=127.0.0.1")
    web = stage.start(*program, "web", "--listen", listens, "--path", str(tmp_path))
    port = await stage.registered(web)
    assert await stage.keys() == [f"web/127.0.0.1:{port}"]
    assert await got(stage, "web", "/hello.txt") == b"hello"
    await web.stop_well()
    assert await stage.keys() == []


@ensureDeferred
async def test_a_stock_plugin_that_takes_an_endpoint_string(stage: Stage) -> None:
    listens = stage.string(f"name=xmpp:{LONG}:tcp\\:0\\:interface=127.0.0.1")
    router = stage.start(*TWISTD, "-n", "xmpp-router", "--port", listens, "--secret", "abc")
    port = await stage.registered(router)
    peers = Peers()
    await soon(stage.connecting("xmpp").connect(cast("Any", peers)))
    assert cast("Any", peers.peers[0].socket).getPeer().port == port
    peers.peers[0].socket.write(b"<stream:stream xmlns='jabber:component:accept' ")
    peers.peers[0].socket.write(b"xmlns:stream='http://etherx.jabber.org/streams' to='a'>")
    await peers.peers[0].until_received(b"<stream:stream")
    await peers.peers[0].end()
    await router.stop_well()
    assert await stage.keys() == []


@ensureDeferred
async def test_with_tls_around_what_is_found_and_inside_what_is_registered(stage: Stage, tmp_path: Path) -> None:
    papers = Papers(tmp_path / "papers")
    certificate, key = papers.pair("web", "web.example")
    (tmp_path / "trusted").mkdir()
    (tmp_path / "trusted" / "ca.pem").write_bytes(Path(papers.ca_file).read_bytes())
    (tmp_path / "hello.txt").write_text("hello")
    listens = stage.string(f"name=web:{LONG}:ssl:0:interface=127.0.0.1:privateKey={key}:certKey={certificate}")
    web = stage.start(*TWIST, "web", "--listen", listens, "--path", str(tmp_path))
    await stage.registered(web)
    for endpoint in (
        stage.connecting("web", f"idle=0:tls=yes:tlsHostname=web.example:tlsCA={papers.ca_file}"),
        # Twisted's own, of which the one client string takes another.
        clientFromString(
            reactor,
            f"tls:web.example:443:trustRoots={tmp_path}/trusted:endpoint="
            + quoteStringArgument(
                stage.string(f"endpoints={quoteStringArgument(stage.etcd.endpoint)}:name=web:idle=0")
            ),
        ),
    ):
        peers = Peers()
        await soon(endpoint.connect(cast("Any", peers)))
        peers.peers[0].socket.write(b"GET /hello.txt HTTP/1.0\r\n\r\n")
        await peers.peers[0].until_lost()
        assert peers.peers[0].data.endswith(b"hello")
    await web.stop_well()


@pytest.mark.parametrize("drain", ["", ":drain=0.2"])
@ensureDeferred
async def test_a_port_that_nobody_stops_is_taken_back_when_the_reactor_ends(
    stage: Stage, tmp_path: Path, drain: str
) -> None:
    (tmp_path / "listens.py").write_text(LISTENS)
    program = stage.start("listens.py", stage.string(f"name=shop:{LONG}{drain}:tcp:0:interface=127.0.0.1"))
    port = await stage.registered(program)
    assert await stage.keys() == [f"shop/127.0.0.1:{port}"]
    program.send(signal.SIGTERM)
    await program.ended()
    assert program.errors == []
    assert await stage.keys() == []


@ensureDeferred
async def test_with_sigterm_while_etcd_is_away_it_ends_all_the_same(
    stage: Stage, proxy: FaultProxy, quick: dict[str, str], tmp_path: Path
) -> None:
    listens = stage.string(f"name=web:{LONG}:config={quick['config']}:tcp:0:interface=127.0.0.1")
    web = stage.start(*TWIST, "web", "--listen", listens, "--path", str(tmp_path))
    await stage.registered(web)
    await proxy.refuse()
    await proxy.reset()
    await web.stop_well()
    assert "is left to its TTL: " in web.text, web.story("ended")
    # Nobody could be told; the key ends by its TTL.
    assert len(await stage.keys()) == 1


@ensureDeferred
async def test_a_wrong_string_ends_the_program_and_names_what_is_wrong(stage: Stage) -> None:
    web = stage.start(*TWISTD, "-n", "--pidfile=", "web", "--listen", "etcd:name=web:ttl=abc:tcp:0")
    assert await web.ended() != 0
    assert "etcd endpoint: ttl='abc' is not a whole number of seconds" in web.text


class Followed:
    """A ClientService, and where it is connected to."""

    def __init__(self, endpoint: Any) -> None:  # noqa: ANN401 - what Twisted makes of a string
        self._peers = Peers()
        self._event = Event()
        self.service = ClientService(
            endpoint, cast("Any", self._peers), retryPolicy=lambda _: 0.05, prepareConnection=self._connected
        )

    def _connected(self, _: object) -> None:
        # Later: a service that is told to stop while it tells this is none that knows of its connection.
        cast("Any", reactor).callLater(0, self._event.happened)

    @property
    def peer(self) -> Peer:
        return self._peers.peers[-1]

    @property
    def port(self) -> int:
        return int(cast("Any", self.peer.socket).getPeer().port)

    async def until_connected(self, condition: Callable[[int], bool]) -> int:
        """The port that it is connected to, once that is one that is wanted."""
        await self._event.until(lambda: bool(self._peers.peers) and condition(self.port))
        return self.port


@pytest.fixture
def follow() -> Iterator[Callable[[Any], Followed]]:
    """Services that are stopped at the end."""
    followed: list[Followed] = []

    def start(endpoint: Any) -> Followed:  # noqa: ANN401 - what Twisted makes of a string
        followed.append(Followed(endpoint))
        followed[-1].service.startService()
        return followed[-1]

    yield start
    pytest_twisted.blockon(gatherResults([each.service.stopService() for each in followed]))


@ensureDeferred
async def test_a_client_service_goes_to_whichever_instance_lives(
    stage: Stage, follow: Callable[[Any], Followed]
) -> None:
    web = (*TWIST, "web", "--listen", stage.string(f"name=web:{LONG}:tcp:0:interface=127.0.0.1"))
    programs = [stage.start(*web) for _ in range(2)]
    by_port = {await stage.registered(program): program for program in programs}
    service = follow(stage.connecting("web"))
    first = await service.until_connected(lambda port: port in by_port)
    # Its key stays, as long as its TTL: who connects finds nobody there, and goes to the other one.
    await by_port.pop(first).kill()
    second = await service.until_connected(lambda port: port != first)
    assert second in by_port
    assert f"web/127.0.0.1:{first}" in await stage.keys()
    # With both gone, one that comes elsewhere is found.
    await by_port.pop(second).kill()
    third = await stage.registered(stage.start(*web))
    assert await service.until_connected(lambda port: port == third) == third
