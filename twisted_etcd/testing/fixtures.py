"""
Real etcds, clusters of them and the one in memory as pytest fixtures, for tests under pytest-twisted.

They are those of :mod:`twisted_etcd.testing.plugin`, which pytest loads by itself where this package is installed. Only
where it is told not to (``PYTEST_DISABLE_PLUGIN_AUTOLOAD``) it must be told in the ``conftest.py`` at the top of your
tests::

    pytest_plugins = ["twisted_etcd.testing.fixtures"]

A test with a cluster::

    @pytest_twisted.ensureDeferred
    async def test_my_service_survives_a_new_leader(etcd_cluster):
        service = MyService(EtcdClient(reactor, etcd_cluster.endpoints))
        ...
        leader = await etcd_cluster.leader()
        await leader.kill()

``pip install 'twisted-etcd[testing]'`` brings what this module needs, an etcd among it.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred

from twisted_etcd.testing.cluster import EtcdCluster

#: Loaded once, whoever names it: its name is that of the entry point, too.
pytest_plugins = ["twisted_etcd.testing.plugin"]

#: What ``new_etcd_cluster`` is: takes what :class:`~twisted_etcd.testing.cluster.EtcdCluster` takes but the reactor.
NewEtcdCluster = Callable[..., Deferred[EtcdCluster]]
