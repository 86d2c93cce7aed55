"""Views of services while real etcds are away, lose their data, or come back with others."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest
import pytest_twisted
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults

from tests.client.conftest import MakeClient
from tests.etcds import ONE_VERSION, FreshEtcd
from tests.wire import Event, soon
from twisted_etcd.client.client import EtcdClient
from twisted_etcd.embedded.process import EmbeddedEtcd
from twisted_etcd.errors import DeadlineExceeded, RequestFailed, ServiceStopped
from twisted_etcd.gateway.endpoints import parse_endpoint
from twisted_etcd.registry.lens import ServiceChange
from twisted_etcd.registry.protection import Protection
from twisted_etcd.registry.registry import Registry
from twisted_etcd.registry.view import ServiceView
from twisted_etcd.testing.fixtures import NewEtcdCluster
from twisted_etcd.testing.proxy import FaultProxy

CARRIERS = pytest.mark.parametrize("own_streams", [16, 0], ids=["own-streams", "shared"])


class MakeRegistry(Protocol):
    """Makes a registry whose views end with the test."""

    def __call__(self, client: EtcdClient, prefix: str = ..., **options: Any) -> Registry: ...  # noqa: ANN401


@pytest.fixture
def make_registry(make_client: MakeClient) -> Iterator[MakeRegistry]:
    """Named after ``make_client``, so that the views are stopped before the clients."""
    registries: list[Registry] = []

    def make(client: EtcdClient, prefix: str = "/services", **options: Any) -> Registry:  # noqa: ANN401
        registries.append(Registry(client, reactor, prefix, **options))
        return registries[-1]

    yield make
    pytest_twisted.blockon(gatherResults([registry.views.stop() for registry in registries]))
    assert [len(registry.views) for registry in registries] == [0] * len(registries)


class Lab:
    """
    An etcd with a proxy before it.

    :ivar client: past the proxy.
    """

    def __init__(
        self, proxy: FaultProxy, make_client: MakeClient, make_registry: MakeRegistry, client: EtcdClient, prefix: str
    ) -> None:
        self.proxy = proxy
        self.client = client
        self.prefix = prefix
        self._make_client = make_client
        self._make_registry = make_registry

    def registry(self, own_streams: int, **options: Any) -> Registry:  # noqa: ANN401
        """A registry whose client is behind the proxy."""
        client = self._make_client(endpoints=self.proxy.endpoint, own_streams=own_streams, random=lambda: 0.0)
        return self._make_registry(client, self.prefix, **options)


@pytest.fixture
def lab(
    proxy: FaultProxy, make_client: MakeClient, make_registry: MakeRegistry, client: EtcdClient, prefix: str
) -> Lab:
    return Lab(proxy, make_client, make_registry, client, prefix)


class Seen:
    """A view, and what it tells."""

    def __init__(self, view: ServiceView) -> None:
        self.view = view
        self.told: list[ServiceChange] = []
        self._event = Event()
        view.on_change(self._changed)

    def _changed(self, change: ServiceChange) -> None:
        self.told.append(change)
        self._event.happened()

    @property
    def ports(self) -> list[int]:
        return sorted(each.port for each in self.view.instances)

    async def until(self, condition: Callable[[], bool], patience: float = 30) -> None:
        await self._event.until(condition, patience)

    async def until_it_shows(self, *ports: int, stale: bool = False) -> None:
        await self.until(lambda: self.ports == list(ports) and self.view.stale is stale)


async def followed(registry: Registry, name: str = "shop") -> Seen:
    view = registry.view(name)
    await soon(view.when_loaded())
    return Seen(view)


async def put(client: EtcdClient, port: int, prefix: str = "/services", name: str = "shop", **options: Any) -> int:  # noqa: ANN401
    answer = await client.put(f"{prefix.rstrip('/')}/{name}/10.0.0.1:{port}", f"10.0.0.1:{port}", **options)
    return answer.header.revision


# --- etcd is away ---------------------------------------------------------------------------------------------------


@CARRIERS
@ensureDeferred
async def test_a_view_outlives_a_killed_etcd_that_comes_back_with_its_data(
    fresh_etcd: FreshEtcd, make_client: MakeClient, make_registry: MakeRegistry, tmp_path: Path, own_streams: int
) -> None:
    server = await fresh_etcd(data_dir=tmp_path / "data")
    client = make_client(endpoints=server.endpoint, own_streams=own_streams)
    await put(client, 1)
    registry = make_registry(client)
    seen = await followed(registry)
    exited = server.when_exited()
    server.kill("KILL")
    await soon(exited)
    await seen.until_it_shows(1, stale=True)
    assert (await registry.instances("shop", timeout=0))[0].port == 1
    assert seen.view.stale_since is not None
    await soon(server.when_ready())
    await put(client, 2)
    await seen.until_it_shows(1, 2)
    assert [change.stale for change in seen.told][:2] == [True, False]


@ONE_VERSION
@CARRIERS
@ensureDeferred
async def test_a_view_is_stale_while_etcd_hangs(
    new_etcd_cluster: NewEtcdCluster, make_client: MakeClient, make_registry: MakeRegistry, own_streams: int
) -> None:
    cluster = await new_etcd_cluster(size=1)
    client = make_client(endpoints=cluster.endpoints, own_streams=own_streams)
    await put(client, 1)
    seen = await followed(make_registry(client))
    cluster.members[0].pause()
    # Within 10 seconds: five between two questions, a fifth more or less, and the time for an answer.
    await seen.until(lambda: seen.view.stale, patience=10)
    assert seen.ports == [1]
    cluster.members[0].resume()
    await put(client, 2)
    await seen.until_it_shows(1, 2)


@ONE_VERSION
@ensureDeferred
async def test_one_that_could_not_be_loaded_fails_in_time_and_serves_those_who_ask_later(
    proxy: FaultProxy, make_client: MakeClient, make_registry: MakeRegistry, client: EtcdClient, prefix: str
) -> None:
    await put(client, 1, prefix)
    registry = make_registry(make_client(endpoints=proxy.endpoint, random=lambda: 0.0), prefix)
    await proxy.refuse()
    with pytest.raises(RequestFailed):
        await soon(registry.instances("shop", timeout=0.2))
    with pytest.raises(DeadlineExceeded, match="could not be read within 0 s, and are tried again"):
        await soon(registry.instances("shop", timeout=0))
    await proxy.heal()
    await soon(registry.view("shop").when_loaded())
    assert [each.port for each in await soon(registry.instances("shop", timeout=0))] == [1]


# --- its data are others --------------------------------------------------------------------------------------------


@CARRIERS
@ensureDeferred
async def test_a_compaction_during_a_break_loses_neither_who_came_nor_who_went(lab: Lab, own_streams: int) -> None:
    for port in (1, 2):
        await put(lab.client, port, lab.prefix)
    seen = await followed(lab.registry(own_streams))
    changes = seen.view.changes()
    lab.proxy.reset(on_accept=True)
    await seen.until_it_shows(1, 2, stale=True)
    await lab.client.delete(f"{lab.prefix}shop/10.0.0.1:1")
    await lab.client.compact(await put(lab.client, 3, lab.prefix))
    await lab.proxy.heal()
    await seen.until_it_shows(2, 3)
    change = await soon(changes.next())
    assert ([each.port for each in change.added], [each.port for each in change.removed]) == ([3], [1])


@ONE_VERSION
@CARRIERS
@ensureDeferred
async def test_another_etcd_without_data_at_the_same_address_is_what_there_is(
    fresh_etcd: FreshEtcd, lab: Lab, make_client: MakeClient, own_streams: int
) -> None:
    await put(lab.client, 1, lab.prefix)
    seen = await followed(lab.registry(own_streams))
    held = await followed(lab.registry(own_streams, protection=Protection(share=0.5, hold=60)))
    other = await fresh_etcd()
    lab.proxy.target_port = parse_endpoint(other.endpoint).port
    lab.proxy.reset()
    await seen.until_it_shows()
    await held.until(lambda: held.view.protected)
    assert held.ports == [1]
    await put(make_client(endpoints=other.endpoint), 2, lab.prefix)
    await seen.until_it_shows(2)
    # Half of those it knows of are there again.
    await held.until_it_shows(2)


@ONE_VERSION
@CARRIERS
@ensureDeferred
async def test_an_etcd_restored_from_a_backup_is_read_again(
    fresh_etcd: FreshEtcd, make_client: MakeClient, make_registry: MakeRegistry, tmp_path: Path, own_streams: int
) -> None:
    data, backup = tmp_path / "data", tmp_path / "backup"
    server = await fresh_etcd(data_dir=data)
    client = make_client(endpoints=server.endpoint, own_streams=own_streams)
    await put(client, 1)
    await soon(server.stopService())
    shutil.copytree(data, backup)
    server.startService()
    await soon(server.when_ready())
    seen = await followed(make_registry(client))
    for port in (2, 3, 4):
        await put(client, port)
    await seen.until_it_shows(1, 2, 3, 4)
    await soon(server.stopService())
    shutil.rmtree(data)
    shutil.copytree(backup, data)
    server.startService()
    await seen.until_it_shows(1)
    await put(client, 5)
    await seen.until_it_shows(1, 5)


# --- leases that expire all together --------------------------------------------------------------------------------


@ensureDeferred
async def test_what_ends_all_together_is_held_back_and_what_comes_back_is_there(
    make_registry: MakeRegistry, client: EtcdClient, prefix: str
) -> None:
    lease = await client.lease(60)
    for port in range(1, 5):
        await put(client, port, prefix, lease=lease.id)
    seen = await followed(make_registry(client, prefix, protection=Protection(share=0.5)))
    await lease.revoke()
    await seen.until(lambda: seen.view.protected)
    assert seen.ports == [1, 2, 3, 4]
    for port in (1, 2):
        await put(client, port, prefix)
    await seen.until_it_shows(1, 2)
    assert not seen.view.protected


# --- many -----------------------------------------------------------------------------------------------------------


@ONE_VERSION
@ensureDeferred
async def test_fifty_views_follow_fifty_services_through_a_break(
    proxy: FaultProxy, make_client: MakeClient, make_registry: MakeRegistry, client: EtcdClient, prefix: str
) -> None:
    names = [f"service-{number}" for number in range(50)]
    watcher = make_client(endpoints=proxy.endpoint, random=lambda: 0.0)
    registry = make_registry(watcher, prefix)
    await gatherResults([Deferred.fromCoroutine(put(client, 1, prefix, name)) for name in names])
    seen = await gatherResults([Deferred.fromCoroutine(followed(registry, name)) for name in names])
    proxy.reset(on_accept=True)
    for each in seen:
        await each.until_it_shows(1, stale=True)
    await gatherResults([Deferred.fromCoroutine(put(client, 2, prefix, name)) for name in names])
    await proxy.heal()
    for each in seen:
        await each.until_it_shows(1, 2)
    # Sixteen streams and one that the others share, beside those of requests.
    assert watcher.connection_count <= 16 + 1 + 8
    await soon(registry.views.stop())
    assert len(registry.views) == 0
    with pytest.raises(ServiceStopped):
        registry.view(names[0])


# --- the end ---------------------------------------------------------------------------------------------------------


@ensureDeferred
async def test_a_client_that_stops_ends_its_views(
    make_client: MakeClient, etcd_server: EmbeddedEtcd, prefix: str
) -> None:
    client = make_client(endpoints=etcd_server.endpoint)
    registry = Registry(client, reactor, prefix)
    seen = await followed(registry)
    changes = seen.view.changes()
    await soon(client.stopService())
    assert (await soon(changes.next())).stale
    with pytest.raises(ServiceStopped):
        await soon(changes.next())
    assert len(registry.views) == 0
