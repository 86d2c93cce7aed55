"""The client through an nginx, with its ways of handing on streams and of ending idle ones."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import gatherResults
from twisted.logger import LogEvent, capturedLogs, formatEvent

from tests.client.conftest import MakeClient
from tests.client.test_faults import CARRIERS, revisions_of
from tests.etcds import ONE_VERSION
from tests.nginx import NO_UPGRADE, STREAMS, StartNginx, nginx
from tests.wire import soon
from twisted_etcd.client import vigil
from twisted_etcd.embedded.process import EmbeddedEtcd

__all__ = ["nginx"]


def said(logs: Sequence[LogEvent], words: str) -> list[str]:
    texts = [formatEvent(event) for event in logs]
    return [text for text in texts if words in text]


@CARRIERS
@ensureDeferred
async def test_requests_watches_and_leases_go_through_nginx(
    nginx: StartNginx,
    etcd_server: EmbeddedEtcd,
    make_client: MakeClient,
    prefix: str,
    own_streams: int,
) -> None:
    proxy = await nginx(etcd_server.endpoint, STREAMS)
    through = make_client(endpoints=proxy.url, own_streams=own_streams)
    watches = [through.watch(prefix, prefix=True) for _ in range(3)]
    await soon(gatherResults([watch.ready for watch in watches]))
    lease = await through.lease(60)
    written = [(await through.put(prefix + "k", "x" * 5000, lease=lease.id)).header.revision for _ in range(20)]
    for watch in watches:
        assert await revisions_of(watch, 20) == written
    assert await lease.keepalive_once() == 60
    await soon(watches.pop().stop())
    await lease.revoke()
    assert (await through.get(prefix, prefix=True)).count == 0
    assert len((await soon(watches[0].next())).events) == 1


@ensureDeferred
async def test_where_nginx_hands_on_no_websocket_each_watch_has_a_stream_of_its_own(
    nginx: StartNginx, etcd_server: EmbeddedEtcd, make_client: MakeClient, prefix: str
) -> None:
    proxy = await nginx(etcd_server.endpoint, NO_UPGRADE)
    through = make_client(endpoints=proxy.url, own_streams=1)
    with capturedLogs() as logs:
        watches = [through.watch(prefix, prefix=True) for _ in range(5)]
        await soon(gatherResults([watch.ready for watch in watches]))
    assert len(said(logs, "WebSocket is refused")) == 1
    put = await through.put(prefix + "k", "v")
    for watch in watches:
        assert await revisions_of(watch, 1) == [put.header.revision]


@ONE_VERSION
@CARRIERS
@ensureDeferred
async def test_a_watch_whose_idle_stream_nginx_ends_loses_and_repeats_nothing(
    nginx: StartNginx,
    etcd_server: EmbeddedEtcd,
    make_client: MakeClient,
    prefix: str,
    own_streams: int,
) -> None:
    proxy = await nginx(etcd_server.endpoint, STREAMS + "proxy_read_timeout 300ms;")
    client = make_client()
    through = make_client(endpoints=proxy.url, own_streams=own_streams, random=lambda: 0.0)
    watch = through.watch(prefix, prefix=True)
    await soon(watch.ready)
    for times in (1, 2, 3):
        await proxy.timed_out(times)
        written = [(await client.put(prefix + "k", str(n))).header.revision for n in range(3)]
        assert await revisions_of(watch, 3) == written


@ONE_VERSION
@ensureDeferred
async def test_a_websocket_without_events_is_kept_alive(
    nginx: StartNginx,
    etcd_server: EmbeddedEtcd,
    make_client: MakeClient,
    prefix: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(vigil, "INTERVAL", 0.2)
    proxy = await nginx(etcd_server.endpoint, STREAMS + "proxy_read_timeout 1500ms;")
    shared = make_client(endpoints=proxy.url, own_streams=0)
    own = make_client(endpoints=proxy.url, own_streams=1)
    watches = [each.watch(prefix, prefix=True) for each in (shared, own)]
    await soon(gatherResults([watch.ready for watch in watches]))
    # It ends the POST stream, on which nothing can be asked, again and again.
    await proxy.timed_out(2)
    assert not any("GET /v3/watch" in line for line in proxy.time_outs)
    put = await shared.put(prefix + "k", "v")
    for watch in watches:
        assert await revisions_of(watch, 1) == [put.header.revision]
