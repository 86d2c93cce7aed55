"""Endpoints of a test's own, with an etcd behind them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import gatherResults

from twisted_etcd.client.client import EtcdClient
from twisted_etcd.embedded.process import EmbeddedEtcd
from twisted_etcd.endpoints.strings import Strings
from twisted_etcd.registry.registry import Registry
from twisted_etcd.testing.proxy import FaultProxy

#: Makes a client of an etcd at that URL.
MakeClient = Callable[[str], EtcdClient]


@pytest.fixture
def make_client() -> Iterator[MakeClient]:
    """Clients that are stopped at the end."""
    clients: list[EtcdClient] = []

    def make(endpoint: str) -> EtcdClient:
        client = EtcdClient(cast("Any", reactor), endpoint)
        clients.append(client)
        return client

    yield make
    pytest_twisted.blockon(gatherResults([client.stopService() for client in clients]))


@pytest.fixture
def client(etcd_server: EmbeddedEtcd, make_client: MakeClient) -> EtcdClient:
    return make_client(etcd_server.endpoint)


@pytest.fixture
def registry(client: EtcdClient, prefix: str) -> Registry:
    """A registry of the test's own."""
    return Registry(client, cast("Any", reactor), prefix)


@pytest.fixture
def strings() -> Strings:
    """As in a process of its own, without anything in the environment."""
    return Strings({})


@pytest.fixture
def proxy(etcd_server: EmbeddedEtcd) -> Iterator[FaultProxy]:
    """Between a server and its etcd."""
    at = urlsplit(etcd_server.endpoint)
    proxy = FaultProxy(cast("Any", reactor), str(at.hostname), at.port or 0)
    proxy.startService()
    yield proxy
    pytest_twisted.blockon(proxy.stopService())


@pytest.fixture
def quick(tmp_path: Path, proxy: FaultProxy) -> dict[str, str]:
    """Arguments that lead through the proxy, and for whom an etcd that does not answer is soon one that is away."""
    (tmp_path / "quick.yaml").write_text(f"etcd: {{endpoints: '{proxy.endpoint}', request_timeout: 200}}\n")
    return {"config": str(tmp_path / "quick.yaml"), "endpoints": proxy.endpoint}
