"""The end of a client, whatever is under way: in time, with every Deferred fired and nothing left."""

from __future__ import annotations

from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredList, gatherResults
from twisted.internet.task import deferLater

from tests.client.conftest import MakeClient
from tests.etcds import ONE_VERSION
from tests.wire import LOOPBACK, ClockedReactor, Listener, soon
from twisted_etcd.client.client import EtcdClient
from twisted_etcd.client.lease import Lease
from twisted_etcd.client.position import WatchBatch
from twisted_etcd.client.watch import Watch
from twisted_etcd.embedded.ports import free_ports
from twisted_etcd.errors import ServiceStopped
from twisted_etcd.testing.proxy import FaultProxy

CARRIERS = pytest.mark.parametrize("own_streams", [300, 0], ids=["own-streams", "shared"])


def start_everything(client: EtcdClient, prefix: str) -> list[Deferred[Any]]:
    """Requests of every kind, and watches with somebody who waits for them."""
    watch = client.watch(prefix, prefix=True)
    return [
        client.get(prefix),
        client.put(prefix, "v"),
        client.txn(),
        client.scan(prefix, prefix=True).next(),
        client.lease(60),
        client.leases(),
        watch.ready,
        watch.next(),
        watch.ended,
    ]


async def ends_of(deferreds: list[Deferred[Any]]) -> list[type[BaseException]]:
    results = await DeferredList(deferreds, consumeErrors=True)
    return [type(result.value) for succeeded, result in results if not succeeded]


@pytest.fixture
def dead_end() -> str:
    """Where nobody listens."""
    [port] = free_ports(1)
    return f"http://{LOOPBACK}:{port}"


@CARRIERS
@ensureDeferred
async def test_while_etcd_is_down(dead_end: str, prefix: str, own_streams: int) -> None:
    client = EtcdClient(reactor, dead_end, own_streams=own_streams)
    under_way = start_everything(client, prefix)
    # Some attempts have failed by now.
    await deferLater(reactor, 0.05)
    began = reactor.seconds()
    await soon(client.stopService())
    assert reactor.seconds() - began < 0.5
    assert set(await ends_of(under_way)) == {ServiceStopped}
    assert client.connection_count == 0


@CARRIERS
@ensureDeferred
async def test_during_the_first_connection(prefix: str, own_streams: int) -> None:
    listener = Listener()
    client = EtcdClient(reactor, listener.authority, own_streams=own_streams)
    under_way = start_everything(client, prefix)
    await soon(client.stopService())
    assert set(await ends_of(under_way)) == {ServiceStopped}
    await listener.close()


@CARRIERS
@ensureDeferred
async def test_while_the_server_takes_and_says_nothing(prefix: str, own_streams: int) -> None:
    listener = Listener()
    # A lease that may have been granted is to be revoked, for which this is the time.
    client = EtcdClient(reactor, listener.authority, own_streams=own_streams, stop_timeout=0.1)
    under_way = start_everything(client, prefix)
    await (await listener.peer(3)).until_received(b"HTTP/1.1")
    began = reactor.seconds()
    await soon(client.stopService())
    assert reactor.seconds() - began < 0.5
    assert set(await ends_of(under_way)) == {ServiceStopped}
    await listener.close()


@ONE_VERSION
@CARRIERS
@ensureDeferred
async def test_with_200_watches_and_100_requests_under_way(
    proxy: FaultProxy, make_client: MakeClient, prefix: str, own_streams: int
) -> None:
    client = make_client(endpoints=proxy.endpoint, own_streams=own_streams)
    watches = [client.watch(f"{prefix}{n}") for n in range(200)]
    waiting: list[Deferred[Any]] = []
    for watch in watches:
        waiting += [watch.next(), watch.ended]
    await soon(gatherResults([watch.ready for watch in watches]))
    leases = await soon(gatherResults([client.lease(60) for _ in range(20)]))
    proxy.delay(0.1)
    requests: list[Deferred[Any]] = [client.put(f"{prefix}x{n}", "v") for n in range(50)]
    requests += [client.get(f"{prefix}x{n}") for n in range(50)]
    began = reactor.seconds()
    await soon(client.stopService())
    assert reactor.seconds() - began < 4
    assert set(await ends_of(waiting)) == {ServiceStopped}
    # They had the time that the leases took.
    assert set(await ends_of(requests)) <= {ServiceStopped}
    assert {str(await lease.lost).partition(": ")[2] for lease in leases} == {"it was revoked"}
    assert client.connection_count == 0


@ONE_VERSION
@ensureDeferred
async def test_under_load(make_client: MakeClient, prefix: str) -> None:
    client = make_client(own_streams=1)
    seen: list[int] = []

    async def load(number: int) -> None:
        while True:
            await client.put(f"{prefix}{number}", "v")

    def count(batch: WatchBatch) -> None:
        seen.append(batch.revision)

    watches = [client.watch(prefix, prefix=True, callback=count) for _ in range(3)]
    await soon(gatherResults([watch.ready for watch in watches]))
    loads: list[Deferred[Any]] = [Deferred.fromCoroutine(load(number)) for number in range(10)]
    while len(seen) < 300:
        await client.get(prefix)
    await soon(client.stopService())
    at_the_stop = len(seen)
    assert await ends_of(loads) == [ServiceStopped] * 10
    assert len(seen) == at_the_stop


@ONE_VERSION
@ensureDeferred
async def test_a_server_that_hangs_holds_the_stop_up_no_longer_than_its_bound(
    proxy: FaultProxy, prefix: str, client: EtcdClient
) -> None:
    clock = ClockedReactor()
    hanging = EtcdClient(clock, proxy.endpoint, own_streams=1, stop_timeout=2.0)
    watches = [hanging.watch(f"{prefix}{n}") for n in range(3)]
    await soon(gatherResults([watch.ready for watch in watches]))
    lease = await soon(hanging.lease(60))
    proxy.swallow()
    stopping = hanging.stopService()
    asking = hanging.get(prefix)
    assert set(await ends_of([asking])) == {ServiceStopped}
    clock.advance(1.99)
    await client.get(prefix)
    assert not stopping.called
    clock.advance(0.01)
    await soon(stopping)
    assert "could not be revoked" in str(await lease.lost)
    assert clock.getDelayedCalls() == []
    assert hanging.connection_count == 0
    await client.lease_revoke(lease.id)
    await proxy.heal()


@ensureDeferred
async def test_everyone_who_stops_it_is_told_when_it_has_stopped(client: EtcdClient, prefix: str) -> None:
    watch = client.watch(prefix)
    again: list[Any] = []

    def begin_anew(_: object) -> None:
        # It is stopping already, whoever is told first.
        again.extend([client.stopService(), client.watch(prefix), client.get(prefix), client.lease(60)])

    watch.ended.addErrback(begin_anew)
    await soon(watch.ready)
    await soon(gatherResults([client.stopService(), client.stopService()]))
    stopping, late_watch, getting, granting = again
    await soon(stopping)
    assert isinstance(late_watch, Watch)
    for each in (late_watch.ready, getting, granting):
        with pytest.raises(ServiceStopped):
            await each
    await soon(client.stopService())


@ensureDeferred
async def test_a_client_is_a_context_of_its_own(make_client: MakeClient, prefix: str) -> None:
    async with make_client() as client:
        lease = await client.lease(60)
        await client.put(prefix, "v", lease=lease.id)
        assert isinstance(lease, Lease)
    assert client.connection_count == 0
    assert not lease.alive
    assert not client.running


@ensureDeferred
async def test_who_listens_is_told_of_the_stop_before_anything_ends(make_client: MakeClient, prefix: str) -> None:
    client = make_client()
    assert client.reactor is reactor
    under_way = client.watch(prefix).next()
    told: list[bool] = []
    early = client.stopping.addCallback(lambda _: told.append(under_way.called))
    stopping = client.stopService()
    assert early.called
    assert told == [False]
    with pytest.raises(ServiceStopped):
        await soon(under_way)
    await soon(stopping)
    assert client.stopping.called
