"""
Clusters of real etcd members as pytest fixtures, for tests under pytest-twisted.

In the ``conftest.py`` at the top of your tests::

    pytest_plugins = ["twisted_etcd.testing.fixtures"]

and in a test::

    @pytest_twisted.ensureDeferred
    async def test_my_service_survives_a_new_leader(etcd_cluster):
        service = MyService(EtcdClient(reactor, etcd_cluster.endpoints))
        ...
        leader = await etcd_cluster.leader()
        await leader.kill()

``pip install 'twisted-etcd[testing]'`` brings what this module needs, an etcd among it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any, cast

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, gatherResults

from twisted_etcd.testing.cluster import EtcdCluster
from twisted_etcd.testing.member import ILabReactor
from twisted_etcd.testing.shared import SharedCluster

#: What ``new_etcd_cluster`` is: takes what :class:`~twisted_etcd.testing.cluster.EtcdCluster` takes but the reactor.
NewEtcdCluster = Callable[..., "Deferred[EtcdCluster]"]


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
def new_etcd_cluster(etcd_cluster_options: Mapping[str, Any]) -> Generator[NewEtcdCluster, None, None]:
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
    pytest_twisted.blockon(gatherResults([cluster.stopService() for cluster in clusters]))


def _new_cluster(options: Mapping[str, Any]) -> EtcdCluster:
    # As late as this, so that pytest-twisted can install the reactor that is wanted.
    from twisted.internet import reactor  # noqa: PLC0415

    return EtcdCluster(cast("ILabReactor", reactor), **options)


def _wait(work: Callable[[], Any]) -> Any:  # noqa: ANN401 - what the work gives
    return pytest_twisted.blockon(Deferred.fromCoroutine(work()))
