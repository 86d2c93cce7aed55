"""Idle watches and compaction: what etcd says of its progress, and when it can be believed."""

from __future__ import annotations

from pathlib import Path

import pytest
from pytest_twisted import ensureDeferred

from tests.client.conftest import MakeClient, proxy_before
from tests.client.test_faults import CARRIERS, revisions_of
from tests.etcds import FreshEtcd, version
from tests.gateway.servers import new_gateway
from tests.gateway.streams import Recorder
from tests.wire import soon
from twisted_etcd.client import bookmarks, vigil
from twisted_etcd.client.bookmarks import is_progress_of_all, orders_progress
from twisted_etcd.client.client import EtcdClient
from twisted_etcd.client.watch import Watch
from twisted_etcd.errors import Compacted
from twisted_etcd.schema import rpcs
from twisted_etcd.schema.watch import (
    WatchCreateRequest,
    WatchProgressRequest,
    WatchRequest,
    WatchResponse,
)
from twisted_etcd.testing.proxy import FaultProxy


async def until_told(watch: Watch, revision: int) -> None:
    """Until the watch knows that nothing happened to its keys up to a revision."""
    while (batch := await soon(watch.next())).revision < revision:
        assert batch.events == ()


async def forgotten(proxy: FaultProxy, client: EtcdClient, revision: int) -> None:
    """The watches behind the proxy are cut off, and the history up to a revision goes."""
    proxy.reset(on_accept=True)
    await soon(proxy.next_connection())
    await client.compact(revision)
    await proxy.heal()


@CARRIERS
@ensureDeferred
async def test_an_idle_watch_survives_a_compaction_by_what_etcd_says_from_time_to_time(
    fresh_etcd: FreshEtcd, make_client: MakeClient, prefix: str, own_streams: int
) -> None:
    # In place of every ten minutes.
    server = await fresh_etcd(extra_args=["--experimental-watch-progress-notify-interval=100ms"])
    client = make_client(endpoints=server.endpoint)
    proxy = proxy_before(server)
    watcher = make_client(endpoints=proxy.endpoint, own_streams=own_streams, random=lambda: 0.0)
    watch = watcher.watch(prefix, prefix=True, progress_notify=True)
    await soon(watch.ready)
    elsewhere = [await client.put("/elsewhere", str(number)) for number in range(3)][-1].header.revision
    await until_told(watch, elsewhere)
    await forgotten(proxy, client, elsewhere)
    put = await client.put(prefix + "k", "v")
    while not (batch := await soon(watch.next())).events:
        pass
    assert batch.revision == put.header.revision
    await watcher.stopService()
    await proxy.stopService()


@pytest.fixture
def asked_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Members and their WebSockets are asked so often that a test need not wait for a minute."""
    monkeypatch.setattr(vigil, "INTERVAL", 0.1)
    monkeypatch.setattr(bookmarks, "INTERVAL", 0.1)


@pytest.mark.usefixtures("asked_often")
@ensureDeferred
async def test_an_idle_watch_on_a_websocket_survives_a_compaction_where_etcd_can_be_asked(
    etcd_binary: Path, proxy: FaultProxy, make_client: MakeClient, client: EtcdClient, prefix: str
) -> None:
    watcher = make_client(endpoints=proxy.endpoint, own_streams=0, random=lambda: 0.0)
    watch = watcher.watch(prefix, prefix=True, progress_notify=True)
    await soon(watch.ready)
    elsewhere = [await client.put("/elsewhere", str(number)) for number in range(3)][-1].header.revision
    if not orders_progress(version(etcd_binary)):
        # Its answer could be ahead of events: it is not asked, and the compaction is told.
        await forgotten(proxy, client, elsewhere)
        with pytest.raises(Compacted):
            await soon(watch.next())
        return
    await until_told(watch, elsewhere)
    await forgotten(proxy, client, elsewhere)
    put = await client.put(prefix + "k", "v")
    assert await revisions_of(watch, 1) == [put.header.revision]


async def answers(client: EtcdClient, prefix: str) -> list[WatchResponse]:
    """What a watch of the past is sent whose progress is asked for at once, up to its last event."""
    first = (await client.put(prefix, "first")).header.revision
    last = (await client.put(prefix, "last")).header.revision
    gateway, recorder = new_gateway([client.endpoints[0].url]), Recorder()
    stream = await soon(gateway.open_websocket(rpcs.WATCH, recorder, endpoint=gateway.choose()))
    create = WatchCreateRequest(key=prefix.encode(), start_revision=first)
    stream.send(rpcs.WATCH.encode(WatchRequest(create_request=create)))
    stream.send(rpcs.WATCH.encode(WatchRequest(progress_request=WatchProgressRequest())))
    came: list[WatchResponse] = []
    while not came or not came[-1].events or came[-1].events[-1].kv.mod_revision < last:
        result = rpcs.WATCH.decode_frame((await recorder.until(len(came) + 1))[len(came)]).result
        assert result is not None
        came.append(result)
    await soon(stream.close())
    await soon(gateway.stop())
    return came


@ensureDeferred
async def test_an_older_etcd_says_that_a_watch_has_come_further_than_its_events_and_a_newer_one_does_not(
    etcd_binary: Path, client: EtcdClient, prefix: str
) -> None:
    # Why orders_progress is there. The answer is ahead of the events unless these come first by chance.
    tries = [await answers(client, f"{prefix}{number}") for number in range(5)]
    overtaken = [any(is_progress_of_all(each) for each in came) for came in tries]
    assert any(overtaken) is not orders_progress(version(etcd_binary))
