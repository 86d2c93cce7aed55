"""Whether anything is heard from etcd, when real ones and what is before them fail."""

from __future__ import annotations

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import gatherResults

from tests.client.conftest import MakeClient
from tests.client.test_faults import CARRIERS
from tests.etcds import ONE_VERSION
from tests.wire import Event, soon
from twisted_etcd.client.client import EtcdClient
from twisted_etcd.client.watch import Watch
from twisted_etcd.testing.fixtures import NewEtcdCluster
from twisted_etcd.testing.proxy import FaultProxy


class Heard:
    """What a watch told of being interrupted."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self.told: list[bool] = []
        self._event = Event()
        watch.on_interruption(self._changed)

    def _changed(self, interrupted: bool) -> None:  # noqa: FBT001
        self.told.append(interrupted)
        self._event.happened()

    async def until(self, *told: bool) -> None:
        """Until exactly this was told since the last time."""
        await self._event.until(lambda: len(self.told) >= len(told))
        assert tuple(self.told) == told
        assert self.watch.interrupted is told[-1]
        self.told.clear()


@CARRIERS
@ensureDeferred
async def test_a_connection_that_is_cut_interrupts_until_there_is_another(
    proxy: FaultProxy, make_client: MakeClient, client: EtcdClient, prefix: str, own_streams: int
) -> None:
    watcher = make_client(endpoints=proxy.endpoint, own_streams=own_streams, random=lambda: 0.0)
    heard = [Heard(watcher.watch(prefix + name)) for name in "abc"]
    await soon(gatherResults([each.watch.ready for each in heard]))
    for _ in range(3):
        proxy.reset()
        for each in heard:
            await each.until(True, False)
    await client.put(prefix + "a", "1")
    assert len((await soon(heard[0].watch.next())).events) == 1
    assert heard[0].told == []


@CARRIERS
@ensureDeferred
async def test_an_etcd_that_is_away_interrupts_until_it_is_back(
    proxy: FaultProxy, make_client: MakeClient, prefix: str, own_streams: int
) -> None:
    watcher = make_client(endpoints=proxy.endpoint, own_streams=own_streams, random=lambda: 0.0)
    heard = Heard(watcher.watch(prefix))
    await soon(heard.watch.ready)
    await proxy.refuse()
    proxy.reset()
    await heard.until(True)
    later = Heard(watcher.watch(prefix + "later"))
    await later.until(True)
    assert heard.told == []
    await proxy.heal()
    for each in (heard, later):
        await each.until(False)


@ONE_VERSION
@CARRIERS
@ensureDeferred
async def test_an_etcd_that_hangs_is_noticed_though_nothing_breaks(
    new_etcd_cluster: NewEtcdCluster, make_client: MakeClient, own_streams: int
) -> None:
    cluster = await new_etcd_cluster(size=1)
    watcher = make_client(endpoints=cluster.endpoints, own_streams=own_streams)
    heard = Heard(watcher.watch("k"))
    await soon(heard.watch.ready)
    cluster.members[0].pause()
    await heard.until(True)
    cluster.members[0].resume()
    await heard.until(False)
    assert heard.told == []


@ONE_VERSION
@CARRIERS
@ensureDeferred
async def test_a_watch_whose_member_dies_goes_on_at_another(
    new_etcd_cluster: NewEtcdCluster, make_client: MakeClient, own_streams: int
) -> None:
    cluster = await new_etcd_cluster()
    watcher = make_client(endpoints=cluster.endpoints, own_streams=own_streams)
    heard = Heard(watcher.watch("k"))
    await soon(heard.watch.ready)
    for member in cluster.members:
        member.proxy.reset()
    await heard.until(True, False)


@ONE_VERSION
@CARRIERS
@ensureDeferred
async def test_a_cluster_without_a_leader_interrupts_until_it_has_one(
    new_etcd_cluster: NewEtcdCluster, make_client: MakeClient, own_streams: int
) -> None:
    cluster = await new_etcd_cluster()
    left, *others = cluster.members
    watcher = make_client(endpoints=left.endpoint, own_streams=own_streams)
    heard = Heard(watcher.watch("k"))
    await soon(heard.watch.ready)
    for member in others:
        await member.kill()
    # Nothing of its own breaks: it is asked how it is.
    await heard.until(True)
    await soon(gatherResults([member.restart() for member in others]))
    await heard.until(False)


@pytest.mark.parametrize("own_streams", [16, 0], ids=["own-streams", "shared"])
@ensureDeferred
async def test_a_slow_consumer_is_no_interruption(
    make_client: MakeClient, client: EtcdClient, prefix: str, own_streams: int
) -> None:
    watcher = make_client(own_streams=own_streams)
    heard = Heard(watcher.watch(prefix, prefix=True, max_backlog=3))
    await soon(heard.watch.ready)
    for number in range(20):
        await client.put(f"{prefix}{number}", "")
    seen = 0
    while seen < 20:
        seen += len((await soon(heard.watch.next())).events)
    assert heard.told == []
