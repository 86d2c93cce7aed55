"""What a client that has stopped leaves on the server, by the server's own count."""

from __future__ import annotations

import re
from typing import Any, NamedTuple, cast

import pytest
from pytest_twisted import ensureDeferred
from treq.content import text_content
from twisted.internet import reactor
from twisted.internet.defer import gatherResults
from twisted.internet.task import deferLater

from tests.client.conftest import MakeClient
from tests.etcds import FreshEtcd, http_client
from tests.wire import soon
from twisted_etcd.embedded.process import EmbeddedEtcd

#: Seconds between two looks at the server's counts, and how many looks there are.
LOOK_EVERY, LOOKS = 0.05, 200


class Counts(NamedTuple):
    """How many watchers and watch streams a server has."""

    watchers: int
    streams: int


async def metrics(server: EmbeddedEtcd) -> dict[str, float]:
    response = await http_client().get(f"{server.endpoint}/metrics", reactor=cast("Any", reactor))
    text = await text_content(response)
    return {name: float(value) for name, value in re.findall(r"^(\w+) (\S+)$", text, re.MULTILINE)}


async def counts(server: EmbeddedEtcd) -> Counts:
    found = await metrics(server)
    return Counts(int(found["etcd_debugging_mvcc_watcher_total"]), int(found["etcd_debugging_mvcc_watch_stream_total"]))


async def settled(server: EmbeddedEtcd, expected: Counts) -> Counts:
    """The counts, once they are as expected, or what they are after a long wait."""
    for _ in range(LOOKS):
        if await counts(server) == expected:
            break
        await deferLater(reactor, LOOK_EVERY)
    return await counts(server)


def keeps_idle_websockets(server: EmbeddedEtcd) -> bool:
    """Whether this etcd does not notice that a WebSocket has gone before something happens on it."""
    series = tuple(int(part) for part in server.version.split("."))
    return series >= (3, 5, 2)


@ensureDeferred
async def test_a_client_that_stops_leaves_no_watcher_behind(fresh_etcd: FreshEtcd, make_client: MakeClient) -> None:
    server = await fresh_etcd()
    nothing = await counts(server)
    client = make_client(endpoints=server.endpoint, own_streams=10)
    watches = [client.watch(f"k{number}") for number in range(300)]
    await soon(gatherResults([watch.ready for watch in watches]))
    assert await counts(server) == Counts(nothing.watchers + 300, nothing.streams + 11)
    await client.stopService()
    # Of a WebSocket these etcds keep the stream itself, until they end; nothing that a client can send changes that.
    kept = int(keeps_idle_websockets(server))
    assert await settled(server, Counts(nothing.watchers, nothing.streams + kept)) == Counts(
        nothing.watchers, nothing.streams + kept
    )


@ensureDeferred
async def test_a_client_of_few_watches_leaves_nothing_behind(fresh_etcd: FreshEtcd, make_client: MakeClient) -> None:
    server = await fresh_etcd()
    nothing = await counts(server)
    for _ in range(5):
        client = make_client(endpoints=server.endpoint)
        watches = [client.watch(f"k{number}") for number in range(16)]
        lease = await client.lease(60)
        await soon(gatherResults([watch.ready for watch in watches]))
        assert (await counts(server)).watchers == nothing.watchers + 16
        await client.stopService()
        assert await settled(server, nothing) == nothing
        assert lease.id not in [each.ID for each in (await leases(make_client, server))]


async def leases(make_client: MakeClient, server: EmbeddedEtcd) -> Any:  # noqa: ANN401
    client = make_client(endpoints=server.endpoint)
    return (await client.leases()).leases


@ensureDeferred
@pytest.mark.parametrize("own_streams", [16, 0], ids=["own-streams", "shared"])
async def test_a_watch_that_stops_leaves_no_watcher_behind(
    fresh_etcd: FreshEtcd, make_client: MakeClient, own_streams: int
) -> None:
    server = await fresh_etcd()
    nothing = await counts(server)
    client = make_client(endpoints=server.endpoint, own_streams=own_streams)
    kept = client.watch("kept")
    await soon(kept.ready)
    one = await counts(server)
    for _ in range(10):
        watch = client.watch("k")
        await soon(watch.ready)
        await soon(watch.stop())
    assert await settled(server, one) == one
    assert one == Counts(nothing.watchers + 1, nothing.streams + 1)
