"""What the tests of the gateway room share: gateways and servers that are gone when their test has ended."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol, cast

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults

from tests.gateway.servers import Asked, Scripted, new_gateway
from twisted_etcd.gateway.gateway import Gateway
from twisted_etcd.testing.proxy import FaultProxy


class MakeGateway(Protocol):
    """Makes a gateway of the named endpoints; it takes what ``Gateway`` takes."""

    def __call__(self, *endpoints: str, **options: object) -> Gateway: ...


MakeScripted = Callable[[Callable[[Asked, int], object]], Scripted]
MakeProxy = Callable[[str], FaultProxy]


@pytest.fixture
def make_gateway() -> Iterator[MakeGateway]:
    """Gateways that are stopped at the end, which must leave no socket."""
    gateways: list[Gateway] = []

    def make(*endpoints: str, **options: object) -> Gateway:
        gateways.append(new_gateway(endpoints, **options))
        return gateways[-1]

    yield make
    pytest_twisted.blockon(gatherResults([gateway.stop() for gateway in gateways]))
    assert [gateway.connection_count for gateway in gateways] == [0] * len(gateways)


@pytest.fixture
def make_scripted() -> Iterator[MakeScripted]:
    """Servers that do what they are told with each request."""
    servers: list[Scripted] = []

    def make(answer: Callable[[Asked, int], object]) -> Scripted:
        servers.append(Scripted(answer))
        return servers[-1]

    yield make
    pytest_twisted.blockon(gatherResults([Deferred.fromCoroutine(server.close()) for server in servers]))


@pytest.fixture
def make_proxy() -> Iterator[MakeProxy]:
    """Fault proxies in front of a server, by its URL."""
    proxies: list[FaultProxy] = []

    def make(url: str) -> FaultProxy:
        scheme, _, authority = url.partition("://")
        host, _, port = authority.rpartition(":")
        proxy = FaultProxy(cast("Any", reactor), host, int(port), scheme=scheme)
        proxy.startService()
        proxies.append(proxy)
        return proxy

    yield make
    pytest_twisted.blockon(gatherResults([proxy.stopService() for proxy in proxies]))
