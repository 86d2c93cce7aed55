"""Real etcds, and the one in memory, for test cases of ``twisted.trial``: bases to stand before its ``TestCase``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.trial.unittest import SynchronousTestCase, TestCase

from twisted_etcd.client.client import EtcdClient
from twisted_etcd.embedded.process import EmbeddedEtcd
from twisted_etcd.testing.memory.etcd import MemoryEtcd
from twisted_etcd.testing.servers import new_server


def _reactor() -> Any:  # noqa: ANN401 - no interface of Twisted's names it whole
    # As late as this, so that trial can install the one that is wanted.
    from twisted.internet import reactor  # noqa: PLC0415

    return reactor


class EtcdServerMixin:
    """
    A real etcd for each test of a :class:`twisted.trial.unittest.TestCase`.

    It is had so::

        class MyTests(EtcdServerMixin, TestCase):
            async def test_my_service(self):
                client = self.etcd_client()
                ...

    A ``setUp`` of your own returns, or waits for, the Deferred of this one.

    :cvar etcd_options: how the server is made: keyword arguments of
        :func:`~twisted_etcd.testing.servers.new_server`.
    :ivar etcd_server: it answers, and is stopped at the end of the test.
    """

    etcd_options: ClassVar[Mapping[str, Any]] = {}
    etcd_server: EmbeddedEtcd

    def setUp(self) -> Deferred[None]:
        """Start it; the Deferred fires when it answers."""
        case = _case(self)
        own: Callable[[], Any] = super().setUp  # type: ignore[misc]  # the test case's
        before: Deferred[Any] = maybeDeferred(own)
        server = self.etcd_server = new_server(_reactor(), **self.etcd_options)
        server.startService()
        case.addCleanup(server.stopService)
        return before.addCallback(lambda _: server.when_ready()).addCallback(lambda _: None)

    def etcd_client(self, **options: Any) -> EtcdClient:  # noqa: ANN401 - as EtcdClient has them
        """A client of it, stopped at the end of the test."""
        client = EtcdClient(_reactor(), self.etcd_server.endpoint, **options)
        client.startService()
        _case(self).addCleanup(client.stopService)
        return client


class MemoryEtcdMixin:
    """
    An etcd in memory for each test.

    Before a :class:`twisted.trial.unittest.TestCase` it lives in the reactor, in real time. Before a
    :class:`twisted.trial.unittest.SynchronousTestCase` it has a time of its own, which ``advance`` and ``wait`` of
    :attr:`memory_etcd` let pass::

        class MyTests(MemoryEtcdMixin, SynchronousTestCase):
            def test_my_service(self):
                client = self.etcd_client()
                self.memory_etcd.wait(client.put("k", "v"))

    :cvar etcd_options: keyword arguments of :class:`~twisted_etcd.testing.memory.etcd.MemoryEtcd`.
    :ivar memory_etcd: what else uses it must be given its ``reactor`` and ``endpoint``.
    """

    etcd_options: ClassVar[Mapping[str, Any]] = {}
    memory_etcd: MemoryEtcd

    def setUp(self) -> Any:  # noqa: ANN401 - what the test case's own gives; unittest's
        """Make it."""
        reactor = _reactor() if isinstance(self, TestCase) else None
        self.memory_etcd = MemoryEtcd(reactor, **self.etcd_options)
        return super().setUp()  # type: ignore[misc]

    def etcd_client(self, **options: Any) -> EtcdClient:  # noqa: ANN401 - as EtcdClient has them
        """A client of it, stopped at the end of the test."""
        client = self.memory_etcd.client(**options)
        if isinstance(self, TestCase):
            self.addCleanup(client.stopService)
        else:
            _case(self).addCleanup(lambda: self.memory_etcd.wait(client.stopService()))
        return client


def _case(mixin: object) -> SynchronousTestCase:
    if not isinstance(mixin, SynchronousTestCase):
        msg = f"{type(mixin).__name__} must have a test case of twisted.trial.unittest behind the mixin"
        raise TypeError(msg)
    return mixin
