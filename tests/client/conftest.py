"""How the tests of this room get their client."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any, Protocol, cast

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import gatherResults

from tests.etcds import MEMORY, binaries
from tests.wire import LOOPBACK
from twisted_etcd.client.client import EtcdClient
from twisted_etcd.embedded.process import EmbeddedEtcd
from twisted_etcd.gateway.endpoints import parse_endpoint
from twisted_etcd.testing.memory.etcd import MemoryEtcd
from twisted_etcd.testing.proxy import FaultProxy, IProxyReactor

#: What no etcd in memory has: processes to stop, sockets to put a proxy before, a version.
PROCESSES = frozenset({"proxy", "fresh_etcd", "etcd_cluster", "new_etcd_cluster"})


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """The contract suites run against the etcd in memory too, but for what is about processes and sockets."""
    if not metafunc.module.__name__.rpartition(".")[2].startswith("test_contract_"):
        return
    asks = {"etcd_binary"} & set(inspect.signature(metafunc.function).parameters)
    named = [mark.args[0] for mark in metafunc.definition.iter_markers("parametrize")]
    if (
        "etcd_binary" not in metafunc.fixturenames
        or "etcd_binary" in named
        or asks
        or PROCESSES & set(metafunc.fixturenames)
    ):
        return
    servers = [*binaries(), ("memory", MEMORY)]
    # As a mark, which takes the place of the fixture's own parameters.
    everywhere = pytest.mark.parametrize(
        "etcd_binary", [path for _, path in servers], ids=[name for name, _ in servers], indirect=True
    )
    metafunc.definition.add_marker(everywhere)


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


@pytest.fixture
def make_client(etcd_server: EmbeddedEtcd | MemoryEtcd) -> Iterator[MakeClient]:
    """The contract suite knows no more of its server than what the clients of this fixture show."""
    clients: list[EtcdClient] = []

    used: Any = etcd_server.reactor if isinstance(etcd_server, MemoryEtcd) else reactor

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
