"""Services by their names, for Twisted's Agent and for treq."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import pytest
import pytest_twisted
from pytest_twisted import ensureDeferred
from treq.client import HTTPClient
from twisted.internet import reactor, ssl
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.error import SSLError
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.web.client import URI, Agent, BrowserLikePolicyForHTTPS, HTTPConnectionPool
from twisted.web.error import SchemeNotSupported
from twisted.web.http import HTTPChannel
from twisted.web.iweb import IAgentEndpointFactory
from twisted.web.resource import Resource
from twisted.web.server import Request, Site
from zope.interface import implementer
from zope.interface.verify import verifyObject

from tests.endpoints.known import Known
from tests.gateway.authorities import Papers
from tests.wire import soon
from twisted_etcd.endpoints.agent import EtcdAgentEndpointFactory
from twisted_etcd.endpoints.client import EtcdClientEndpoint
from twisted_etcd.endpoints.failures import ConnectFailed, NoInstance
from twisted_etcd.errors import InvalidSettings
from twisted_etcd.registry.instance import Instance

REACTOR = cast("Any", reactor)


class Answering(Resource):
    """Says which server it is, and what it was asked."""

    isLeaf = True
    name = ""

    def render(self, request: Request) -> bytes:
        host = cast("bytes", request.getHeader(b"host")).decode()
        return f"{self.name} {host} {request.uri.decode()}".encode()


class KeepingSite(Site):
    """Keeps what connects."""

    noisy = False
    channels: list[HTTPChannel]

    def buildProtocol(self, addr: Any) -> Any:  # noqa: ANN401 - as Twisted has it
        channel = cast("Any", super()).buildProtocol(addr)
        self.channels.append(channel)
        return channel


class WebServer:
    """A server of this machine."""

    def __init__(self, name: str, pair: tuple[str, str] | None = None) -> None:
        self.channels: list[HTTPChannel] = []
        resource: Any = cast("Any", Answering)()
        resource.name = name
        site: Any = cast("Any", KeepingSite)(resource)
        site.channels = self.channels
        site.protocol = HTTPChannel
        if pair is None:
            self.port = REACTOR.listenTCP(0, site, interface="127.0.0.1")
        else:
            options = ssl.DefaultOpenSSLContextFactory(pair[1], pair[0])
            self.port = REACTOR.listenSSL(0, site, options, interface="127.0.0.1")
        self.instance = Instance(address="127.0.0.1", port=self.port.getHost().port)

    def die(self) -> Deferred[Any]:
        """As a process does: nobody listens, and what was open is closed."""
        for channel in self.channels:
            if channel.transport is not None:
                cast("Any", channel.transport).abortConnection()
        return self.stop()

    def stop(self) -> Deferred[Any]:
        return maybeDeferred(self.port.stopListening)


class Web:
    """Servers, and a client of them."""

    def __init__(self) -> None:
        self.servers: list[WebServer] = []
        self.pool = HTTPConnectionPool(REACTOR)
        self.known = Known()

    def serve(self, name: str, pair: tuple[str, str] | None = None) -> WebServer:
        server = WebServer(name, pair)
        self.servers.append(server)
        self.known.becomes(*self.known.instances, server.instance)
        return server

    def factory(self, **options: Any) -> EtcdAgentEndpointFactory:  # noqa: ANN401 - as it has them
        return EtcdAgentEndpointFactory(REACTOR, self.known, **options)

    def client(self, **options: Any) -> HTTPClient:  # noqa: ANN401 - as the factory has them
        return HTTPClient(Agent.usingEndpointFactory(REACTOR, self.factory(**options), self.pool))

    async def stop(self) -> None:
        await self.pool.closeCachedConnections()
        await gatherResults([server.stop() for server in self.servers])


@pytest.fixture
def web() -> Iterator[Web]:
    web = Web()
    yield web
    pytest_twisted.blockon(Deferred.fromCoroutine(web.stop()))


async def got(client: HTTPClient, url: str, **options: Any) -> str:  # noqa: ANN401 - as treq has them
    response = await soon(client.get(url, **options))
    return await soon(response.text())


@ensureDeferred
async def test_treq_calls_a_service_by_its_name_and_the_server_is_told_it(web: Web) -> None:
    web.serve("one")
    client = web.client()
    assert await got(client, "http://shop.etcd/price?of=tea") == "one shop.etcd /price?of=tea"
    # A port in the URL is what the server is told, and not where it is.
    assert await got(client, "http://shop.etcd:8080/") == "one shop.etcd:8080 /"
    assert {name for name, _ in web.known.asked} == {"shop"}


@ensureDeferred
async def test_without_a_pool_that_keeps_connections_the_instances_are_called_in_turn(web: Web) -> None:
    web.pool = HTTPConnectionPool(REACTOR, persistent=False)
    web.serve("one")
    web.serve("two")
    client = web.client()
    answers = [await got(client, "http://shop.etcd/") for _ in range(4)]
    assert [answer.split()[0] for answer in answers] == ["one", "two", "one", "two"]


@ensureDeferred
async def test_a_kept_connection_to_an_instance_that_died_is_no_lasting_failure(web: Web) -> None:
    one, _ = web.serve("one"), web.serve("two")
    client = web.client()
    assert (await got(client, "http://shop.etcd/")).startswith("one ")
    # It is kept: the next call goes where the last one went.
    assert (await got(client, "http://shop.etcd/")).startswith("one ")
    # The death of a process is not known here yet, as the call is made; etcd never says so at all.
    await one.die()
    assert (await got(client, "http://shop.etcd/")).startswith("two ")
    assert (await got(client, "http://shop.etcd/")).startswith("two ")
    response = await soon(client.post("http://shop.etcd/", data=b"some"))
    assert (await soon(response.text())).startswith("two ")


@ensureDeferred
async def test_all_others_go_where_their_names_lead(web: Web) -> None:
    port = web.serve("one").instance.port
    assert await got(web.client(), f"http://localhost:{port}/") == f"one localhost:{port} /"
    assert web.known.asked == []


@ensureDeferred
async def test_https_elsewhere_is_spoken_as_the_policy_says(web: Web, tmp_path: Any) -> None:  # noqa: ANN401 - a Path
    papers = Papers(tmp_path)
    port = web.serve("one", papers.pair("a", "localhost")).instance.port
    client = web.client(policy=trusting(papers))
    assert await got(client, f"https://localhost:{port}/") == f"one localhost:{port} /"


@ensureDeferred
async def test_a_fallback_says_where_all_others_are(web: Web) -> None:
    port = web.serve("one").instance.port
    asked: list[bytes] = []

    @implementer(IAgentEndpointFactory)
    class Elsewhere:
        def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
            asked.append(uri.host)
            return web.factory().endpointForURI(URI.fromBytes(f"http://127.0.0.1:{port}/".encode()))

    client = web.client(fallback=Elsewhere())
    assert await got(client, "http://elsewhere.example/") == "one elsewhere.example /"
    assert asked == [b"elsewhere.example"]


def trusting(papers: Papers) -> BrowserLikePolicyForHTTPS:
    return BrowserLikePolicyForHTTPS(
        cast("Any", ssl.trustRootFromCertificates([ssl.Certificate.loadPEM(papers.authority.cert_pem.bytes())]))
    )


@ensureDeferred
async def test_with_https_the_certificate_must_be_for_the_host_of_the_url(web: Web, tmp_path: Any) -> None:  # noqa: ANN401
    papers, strangers = Papers(tmp_path / "ours"), Papers(tmp_path / "theirs")
    web.serve("stranger", strangers.pair("a", "shop.etcd"))
    web.serve("other", papers.pair("b", "till.etcd"))
    web.serve("right", papers.pair("c", "shop.etcd"))
    client = web.client(policy=trusting(papers))
    for _ in range(3):
        await web.pool.closeCachedConnections()
        assert await got(client, "https://shop.etcd/") == "right shop.etcd /"
    with pytest.raises(ConnectFailed) as failed:
        await got(client, "https://nobody.etcd/")
    assert len(failed.value.tried) == 3
    assert not isinstance(failed.value, SSLError)


@ensureDeferred
async def test_a_service_without_an_instance_fails_the_call(web: Web) -> None:
    with pytest.raises(NoInstance, match="service 'shop': no instance is registered"):
        await got(web.client(), "http://shop.etcd/")


def test_each_service_has_an_endpoint_that_remembers(web: Web) -> None:
    factory = web.factory(suffix=".Service", tags=["a"], timeout=3.0, wait=1.0, idle=5.0)
    verifyObject(IAgentEndpointFactory, factory)
    endpoint = cast("EtcdClientEndpoint", factory.endpointForURI(URI.fromBytes(b"http://shop.service/a")))
    assert endpoint is factory.endpointForURI(URI.fromBytes(b"http://shop.service/b"))
    assert endpoint is not factory.endpointForURI(URI.fromBytes(b"https://shop.service/b"))
    assert endpoint is not factory.endpointForURI(URI.fromBytes(b"http://till.service/b"))
    assert endpoint.service == "shop"
    assert (set(endpoint.tags), endpoint.timeout, endpoint.wait, endpoint.idle) == ({"a"}, 3.0, 1.0, 5.0)


@pytest.mark.parametrize("host", ["shop.etcd", "elsewhere.example"])
def test_other_schemes_are_refused(web: Web, host: str) -> None:
    with pytest.raises(SchemeNotSupported):
        web.factory().endpointForURI(URI.fromBytes(f"ftp://{host}/".encode()))


def test_what_is_no_name_of_a_service_is_refused(web: Web) -> None:
    with pytest.raises(InvalidSettings, match="service name '' cannot be used"):
        web.factory().endpointForURI(URI.fromBytes(b"http://.etcd/"))


@pytest.mark.parametrize("suffix", ["etcd", "", ".", "./etcd"])
def test_what_is_no_suffix_is_refused(web: Web, suffix: str) -> None:
    with pytest.raises(InvalidSettings, match=r"is not one such as '\.etcd'"):
        web.factory(suffix=suffix)
