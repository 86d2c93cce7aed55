"""How the tests of this room get their nodes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast
from urllib.parse import urlsplit

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from tests.services.world import MakeWorld, World
from tests.wire import Listener
from twisted_etcd.embedded.process import EmbeddedEtcd
from twisted_etcd.testing.proxy import FaultProxy


@pytest.fixture
def make_world(prefix: str) -> Iterator[MakeWorld]:
    """See :class:`MakeWorld`."""
    worlds: list[World] = []

    def make(
        endpoint: str,
        *,
        client: dict[str, Any] | None = None,
        clock: IReactorTime | None = None,
        **options: Any,  # noqa: ANN401 - as EtcdService has them
    ) -> Deferred[World]:
        world = World(prefix, endpoint, client=client or {}, clock=clock, **options)
        worlds.append(world)
        return Deferred.fromCoroutine(world.started())

    yield make
    for world in worlds:
        pytest_twisted.blockon(Deferred.fromCoroutine(world.ended()))


@pytest.fixture
def world(etcd_server: EmbeddedEtcd, make_world: MakeWorld) -> World:
    """A node against the etcd under test."""
    made: World = pytest_twisted.blockon(make_world(etcd_server.endpoint))
    return made


@pytest.fixture
def silent_endpoint() -> Iterator[str]:
    """Where somebody listens and never answers."""
    listener = Listener()
    yield f"http://{listener.authority}"
    pytest_twisted.blockon(Deferred.fromCoroutine(listener.close()))


@pytest.fixture
def proxy(etcd_server: EmbeddedEtcd) -> Iterator[FaultProxy]:
    """A proxy before the etcd under test."""
    at = urlsplit(etcd_server.endpoint)
    made = FaultProxy(cast("Any", reactor), str(at.hostname), at.port or 0)
    made.startService()
    yield made
    pytest_twisted.blockon(made.stopService())
