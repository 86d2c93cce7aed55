"""
What twisted-etcd gives to pytest: fixtures, which are there wherever the package is installed.

It asks for the reactor, and for pytest-twisted, no earlier than a test asks for a fixture that needs them: it is that
plugin that installs the reactor that is wanted, and pytest may load it after this one.

``pip install 'twisted-etcd[testing]'`` brings what the fixtures need, an etcd among it.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator, Iterator, Mapping
from typing import Any

import pytest
from twisted.internet.defer import Deferred, gatherResults

from twisted_etcd.client.client import EtcdClient
from twisted_etcd.embedded.process import EmbeddedEtcd
from twisted_etcd.testing.cluster import EtcdCluster
from twisted_etcd.testing.memory.etcd import MemoryEtcd
from twisted_etcd.testing.servers import new_server
from twisted_etcd.testing.shared import SharedCluster

# --- one real etcd --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def etcd_server_options() -> Mapping[str, Any]:
    """
    How the servers of ``etcd_server`` and ``new_etcd_server`` are made: override it to say otherwise.

    A mapping of the keyword arguments of :class:`~twisted_etcd.embedded.process.EmbeddedEtcd`: ``binary``,
    ``extra_args``, ….
    """
    return {}


@pytest.fixture(scope="session")
def etcd_server(etcd_server_options: Mapping[str, Any]) -> Iterator[EmbeddedEtcd]:
    """
    A running etcd on loopback, at its ``endpoint``, shared by all tests.

    Keep to keys under ``etcd_prefix``, and change no settings of it.
    """
    server = _new_server(etcd_server_options)
    server.startService()
    try:
        _block_on(server.when_ready())
        yield server
    finally:
        _block_on(server.stopService())


@pytest.fixture
def new_etcd_server(
    etcd_server_options: Mapping[str, Any],
) -> Generator[Callable[..., Deferred[EmbeddedEtcd]], None, None]:
    """
    Makes etcds for one test alone.

    Call it as in ``server = await new_etcd_server(extra_args=["--max-txn-ops=8"])``: the Deferred fires when the server
    answers. It takes the keyword arguments of :class:`~twisted_etcd.embedded.process.EmbeddedEtcd`, and stops the
    server at the end of the test.
    """
    servers: list[EmbeddedEtcd] = []

    def start(**options: Any) -> Deferred[EmbeddedEtcd]:  # noqa: ANN401 - as EmbeddedEtcd has them
        server = _new_server({**etcd_server_options, **options})
        servers.append(server)
        server.startService()
        return server.when_ready().addCallback(lambda _: server)

    yield start
    for server in servers:
        _block_on(server.stopService())


@pytest.fixture
def etcd_client(etcd_server: EmbeddedEtcd) -> Iterator[EtcdClient]:
    """A client of ``etcd_server``, stopped at the end of the test."""
    client = EtcdClient(_reactor(), etcd_server.endpoint)
    client.startService()
    yield client
    _block_on(client.stopService())


@pytest.fixture
def etcd_prefix(etcd_client: EtcdClient, request: pytest.FixtureRequest) -> Iterator[str]:
    """A key prefix in ``etcd_server`` that is this test's alone, and empty; its keys are deleted afterwards."""
    prefix = f"/{request.node.nodeid}/{id(request.node):x}/"
    yield prefix
    _block_on(etcd_client.delete(prefix, prefix=True))


# --- an etcd in memory ----------------------------------------------------------------------------------------------


@pytest.fixture
def memory_etcd() -> Iterator[MemoryEtcd]:
    """
    An etcd in memory, for one test under pytest-twisted: it lives in the reactor, in real time.

    Clients must be given its ``reactor`` and ``endpoint``; those that its ``client()`` makes are stopped at the end.
    """
    memory = MemoryEtcd(_reactor())
    yield memory
    for client in memory.clients:
        _block_on(client.stopService())


@pytest.fixture
def clocked_etcd() -> Iterator[MemoryEtcd]:
    """
    An etcd in memory with a time of its own, for one test that needs no reactor: ``advance`` and ``wait`` let it pass.

    The clients that its ``client()`` makes are stopped at the end.
    """
    memory = MemoryEtcd()
    yield memory
    for client in memory.clients:
        memory.wait(client.stopService())


# --- clusters -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def etcd_cluster_options() -> Mapping[str, Any]:
    """
    How the clusters of ``etcd_cluster`` and ``new_etcd_cluster`` are made: override it to say otherwise.

    A mapping of the keyword arguments of :class:`~twisted_etcd.testing.cluster.EtcdCluster`: ``binary``, ``size``,
    ``extra_args``, ….
    """
    return {}


@pytest.fixture(scope="session")
def shared_etcd_cluster(etcd_cluster_options: Mapping[str, Any]) -> Iterator[SharedCluster]:
    """What ``etcd_cluster`` takes its cluster from; started once, when the first test asks for it."""
    shared = SharedCluster(lambda: _new_cluster(etcd_cluster_options))
    try:
        _wait(shared.whole)
        yield shared
    finally:
        _wait(shared.stop)


@pytest.fixture
def etcd_cluster(shared_etcd_cluster: SharedCluster) -> Iterator[EtcdCluster]:
    """
    A running cluster of three members, shared by all tests and healed after each.

    What a test writes stays: use keys of its own in each test. Where a test has added or removed members, the next one
    gets a new cluster; ``new_etcd_cluster`` says more clearly that it is about that.
    """
    yield _wait(shared_etcd_cluster.whole)
    _wait(shared_etcd_cluster.whole)


@pytest.fixture
def new_etcd_cluster(
    etcd_cluster_options: Mapping[str, Any],
) -> Generator[Callable[..., Deferred[EtcdCluster]], None, None]:
    """
    Makes clusters for one test alone.

    Call it as in ``cluster = await new_etcd_cluster(size=5)``: the Deferred fires when the cluster is ready. It takes
    the keyword arguments of :class:`~twisted_etcd.testing.cluster.EtcdCluster`, and stops the cluster at the end of the
    test.
    """
    clusters: list[EtcdCluster] = []

    def start(**options: Any) -> Deferred[EtcdCluster]:  # noqa: ANN401 - as EtcdCluster has them
        cluster = _new_cluster({**etcd_cluster_options, **options})
        clusters.append(cluster)
        cluster.startService()
        return cluster.when_ready().addCallback(lambda _: cluster)

    yield start
    _block_on(gatherResults([cluster.stopService() for cluster in clusters]))


# --- the reactor ----------------------------------------------------------------------------------------------------


def _reactor() -> Any:  # noqa: ANN401 - no interface of Twisted's names it whole
    # As late as this, so that pytest-twisted can install the one that is wanted.
    from twisted.internet import reactor  # noqa: PLC0415

    return reactor


def _new_server(options: Mapping[str, Any]) -> EmbeddedEtcd:
    return new_server(_reactor(), **options)


def _new_cluster(options: Mapping[str, Any]) -> EtcdCluster:
    return EtcdCluster(_reactor(), **options)


def _block_on(deferred: Deferred[Any]) -> Any:  # noqa: ANN401 - what it fires with
    import pytest_twisted  # noqa: PLC0415

    return pytest_twisted.blockon(deferred)


def _wait(work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:  # noqa: ANN401 - what the work gives
    return _block_on(Deferred.fromCoroutine(work()))
