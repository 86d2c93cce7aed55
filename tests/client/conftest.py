"""How the tests of this room get their client."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol, cast

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import gatherResults

from tests.wire import LOOPBACK
from twisted_etcd.client.client import EtcdClient
from twisted_etcd.embedded.process import EmbeddedEtcd
from twisted_etcd.gateway.endpoints import parse_endpoint
from twisted_etcd.testing.memory.etcd import MemoryEtcd
from twisted_etcd.testing.proxy import FaultProxy, IProxyReactor


class MakeClient(Protocol):
    """Makes a client of the server under test, or of ``endpoints``; it is stopped at the end of the test."""

    def __call__(self, **options: Any) -> EtcdClient: ...  # noqa: ANN401


@pytest.fixture
def proxy(etcd_server: EmbeddedEtcd) -> Iterator[FaultProxy]:
    """A proxy before the server under test. Name it before ``make_client``, so that clients are stopped first."""
    proxy = proxy_before(etcd_server)
    yield proxy
    pytest_twisted.blockon(proxy.stopService())


def proxy_before(server: EmbeddedEtcd) -> FaultProxy:
    """A proxy that is running."""
    port = parse_endpoint(server.endpoint).port
    proxy = FaultProxy(cast("IProxyReactor", reactor), LOOPBACK, port)
    proxy.startService()
    return proxy


def reactor_of(server: EmbeddedEtcd | MemoryEtcd) -> Any:  # noqa: ANN401 - no interface of Twisted's names it whole
    """What its clients must be given."""
    return server.reactor if isinstance(server, MemoryEtcd) else reactor


@pytest.fixture
def make_client(etcd_server: EmbeddedEtcd | MemoryEtcd) -> Iterator[MakeClient]:
    """The contract suite knows no more of its server than what the clients of this fixture show."""
    clients: list[EtcdClient] = []

    used = reactor_of(etcd_server)

    def make(**options: Any) -> EtcdClient:  # noqa: ANN401
        client = EtcdClient(**{"reactor": used, "endpoints": etcd_server.endpoint, **options})
        client.startService()
        clients.append(client)
        return client

    yield make
    pytest_twisted.blockon(gatherResults([client.stopService() for client in clients]))
    assert [client.connection_count for client in clients] == [0] * len(clients)


@pytest.fixture
def client(make_client: MakeClient) -> EtcdClient:
    """A client of the server under test."""
    return make_client()
