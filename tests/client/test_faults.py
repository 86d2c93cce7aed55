"""What networks and servers do to a client of a real etcd."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.logger import capturedLogs

from tests.client.conftest import MakeClient
from tests.etcds import ONE_VERSION, FreshEtcd
from tests.wire import LOOPBACK, Listener, Peer, soon
from twisted_etcd.client.client import EtcdClient
from twisted_etcd.client.watch import Watch
from twisted_etcd.embedded.ports import free_ports
from twisted_etcd.errors import ClusterChanged, Compacted, LeaseLost, NotEtcd
from twisted_etcd.gateway.endpoints import parse_endpoint
from twisted_etcd.testing.proxy import FaultProxy

CARRIERS = pytest.mark.parametrize("own_streams", [16, 0], ids=["own-streams", "shared"])


async def revisions_of(watch: Watch, count: int) -> list[int]:
    seen: list[int] = []
    while len(seen) < count:
        seen += [event.kv.mod_revision for event in (await soon(watch.next())).events]
    return seen


async def write_until(happened: Deferred[Any], client: EtcdClient, key: str) -> list[int]:
    """Puts a key over and over; the revisions."""
    written = []
    while not happened.called:
        written.append((await client.put(key, "some value")).header.revision)
    await soon(happened)
    return written


# --- watches --------------------------------------------------------------------------------------------------------


@CARRIERS
@ensureDeferred
async def test_a_watch_loses_and_repeats_nothing_wherever_its_stream_is_cut(
    proxy: FaultProxy, make_client: MakeClient, client: EtcdClient, prefix: str, own_streams: int
) -> None:
    watcher = make_client(endpoints=proxy.endpoint, own_streams=own_streams, random=lambda: 0.0)
    watch = watcher.watch(prefix, prefix=True)
    await soon(watch.ready)
    # One offset takes a tenth of a second, etcd's own time to bring a watch up to date.
    for offset in range(0 if own_streams else 19, 700, 57):
        # Somewhere in the events, of one message or another.
        back = proxy.next_connection()
        proxy.cut_after(offset)
        written = await write_until(back, client, prefix + "k")
        await proxy.heal()
        written.append((await client.put(prefix + "k", "after it")).header.revision)
        assert await revisions_of(watch, len(written)) == written, offset


@CARRIERS
@ensureDeferred
async def test_a_watch_comes_back_wherever_its_new_stream_is_cut(
    proxy: FaultProxy, make_client: MakeClient, client: EtcdClient, prefix: str, own_streams: int
) -> None:
    watcher = make_client(endpoints=proxy.endpoint, own_streams=own_streams, random=lambda: 0.0)
    watch = watcher.watch(prefix, prefix=True)
    await soon(watch.ready)
    for offset in range(0 if own_streams else 11, 420, 37):
        back = proxy.next_connection()
        proxy.cut_after(offset)
        proxy.reset()
        await soon(back)
        # The second one to come is told that the first was cut: in its head, in its confirmation, or in an event.
        again = proxy.next_connection()
        written = await write_until(again, client, prefix + "k")
        await proxy.heal()
        written.append((await client.put(prefix + "k", "after it")).header.revision)
        assert await revisions_of(watch, len(written)) == written, offset


@CARRIERS
@ensureDeferred
async def test_a_first_stream_that_is_cut_is_no_refusal(
    proxy: FaultProxy, make_client: MakeClient, prefix: str, own_streams: int
) -> None:
    for offset in range(0, 150, 13):
        watcher = make_client(endpoints=proxy.endpoint, own_streams=own_streams, random=lambda: 0.0)
        proxy.cut_after(offset)
        first = proxy.next_connection()
        with capturedLogs() as logs:
            watches = [watcher.watch(prefix, prefix=True) for _ in range(3)]
            await soon(first)
            await soon(proxy.next_connection())
            await proxy.heal()
            await soon(gatherResults([watch.ready for watch in watches]))
        assert [event for event in logs if "refused" in event["log_format"]] == [], offset
        assert watcher.connection_count == (3 if own_streams else 1), offset
        await watcher.stopService()


@CARRIERS
@ensureDeferred
async def test_a_watch_whose_revision_was_compacted_during_a_break_says_so(
    proxy: FaultProxy, make_client: MakeClient, client: EtcdClient, prefix: str, own_streams: int
) -> None:
    watcher = make_client(endpoints=proxy.endpoint, own_streams=own_streams, random=lambda: 0.0)
    watch = watcher.watch(prefix, prefix=True)
    await soon(watch.ready)
    ended = watch.ended
    first = await client.put(prefix + "k", "seen")
    assert await revisions_of(watch, 1) == [first.header.revision]
    proxy.reset(on_accept=True)
    await soon(proxy.next_connection())
    await client.put(prefix + "k", "never seen")
    last = await client.put(prefix + "k", "not seen either")
    await client.compact(last.header.revision)
    await proxy.heal()
    with pytest.raises(Compacted) as raised:
        await soon(watch.next())
    assert raised.value.compact_revision == last.header.revision
    with pytest.raises(Compacted):
        await soon(ended)


@ONE_VERSION
@CARRIERS
@ensureDeferred
async def test_another_cluster_at_the_same_address_ends_a_watch(
    fresh_etcd: FreshEtcd, proxy: FaultProxy, make_client: MakeClient, prefix: str, own_streams: int
) -> None:
    watcher = make_client(endpoints=proxy.endpoint, own_streams=own_streams)
    watch = watcher.watch(prefix, prefix=True)
    await soon(watch.ready)
    # The id of a cluster comes from the addresses of its members.
    other = await fresh_etcd()
    proxy.target_port = parse_endpoint(other.endpoint).port
    proxy.reset()
    with pytest.raises(ClusterChanged, match="read again, then watch"):
        await soon(watch.next())


@ONE_VERSION
@ensureDeferred
async def test_a_slow_connection_delivers_all(
    proxy: FaultProxy, make_client: MakeClient, client: EtcdClient, prefix: str
) -> None:
    watchers = [make_client(endpoints=proxy.endpoint, own_streams=own_streams) for own_streams in (16, 0)]
    watches = [watcher.watch(prefix, prefix=True) for watcher in watchers]
    await soon(gatherResults([watch.ready for watch in watches]))
    proxy.limit(200_000)
    written = [(await client.put(prefix + "k", "x" * 5000)).header.revision for _ in range(5)]
    for watch in watches:
        assert await revisions_of(watch, 5) == written
    await proxy.heal()


@ensureDeferred
async def test_watches_and_leases_outlive_their_server(
    fresh_etcd: FreshEtcd, make_client: MakeClient, prefix: str, tmp_path: Path
) -> None:
    server = await fresh_etcd(data_dir=tmp_path / "data")
    clients = [make_client(endpoints=server.endpoint, own_streams=own_streams) for own_streams in (16, 0)]
    watches = [client.watch(prefix, prefix=True) for client in clients]
    await soon(gatherResults([watch.ready for watch in watches]))
    lease = await clients[0].lease(60)
    await clients[0].put(prefix + "lease", "", lease=lease.id)

    async def killed() -> None:
        exited = server.when_exited()
        server.kill("KILL")
        await soon(exited)

    async def stopped() -> None:
        await soon(server.stopService())
        server.startService()

    written = [(await clients[0].get(prefix + "lease")).kvs[0].mod_revision]
    for end in (killed, stopped):
        await end()
        # Asked for while it is away: answered when it is back.
        count = await soon(clients[1].get(prefix, prefix=True, count_only=True, timeout=15))
        assert count.count >= 1
        await soon(server.when_ready())
        written += [(await clients[0].put(prefix + "k", str(n))).header.revision for n in range(3)]
    for watch in watches:
        assert await revisions_of(watch, 7) == written
    assert await lease.keepalive_once() == 60
    assert lease.alive


@ensureDeferred
async def test_with_the_first_of_two_endpoints_dead_all_goes_to_the_second(
    make_client: MakeClient, prefix: str, client: EtcdClient
) -> None:
    [dead] = free_ports(1)
    for own_streams in (16, 0):
        other = make_client(endpoints=[f"http://{LOOPBACK}:{dead}", client.endpoints[0].url], own_streams=own_streams)
        watch = other.watch(prefix, prefix=True)
        await soon(watch.ready)
        lease = await other.lease(60)
        put = await other.put(prefix + "k", "v", lease=lease.id)
        assert await revisions_of(watch, 1) == [put.header.revision]
        assert (await other.get(prefix + "k")).count == 1
        await lease.revoke()
        await watch.stop()


# --- leases ---------------------------------------------------------------------------------------------------------


@ONE_VERSION
@ensureDeferred
async def test_a_lease_survives_a_short_break_and_is_lost_in_a_long_one(
    proxy: FaultProxy, make_client: MakeClient, client: EtcdClient, prefix: str
) -> None:
    holder = make_client(endpoints=proxy.endpoint)
    lease = await holder.lease(1)
    # Ends when the first TTL of the other one has passed.
    mark = await client.lease_grant(1)
    await client.put(prefix + "mark", "", lease=mark.ID)
    watch = client.watch(prefix, prefix=True)
    await soon(watch.ready)
    proxy.reset(on_accept=True)
    for _ in range(2):
        await soon(proxy.next_connection())
    await proxy.heal()
    await soon(watch.next())
    assert lease.alive
    assert (await client.lease_time_to_live(lease.id)).TTL >= 0
    proxy.swallow()
    lost = await soon(lease.lost)
    assert isinstance(lost, LeaseLost)
    assert str(lost) == f"lease {lease.id:x} is lost: etcd did not confirm it for as long as its TTL"
    await proxy.heal()


# --- strangers ------------------------------------------------------------------------------------------------------


class Printer(Peer):
    """Something that answers everything, and is no etcd."""

    answer = b""

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)
        self.socket.write(self.answer)
        self.socket.loseConnection()


class WebPrinter(Printer):
    answer = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 13\r\n\r\n<html></html>"


class JSONPrinter(Printer):
    answer = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 15\r\n\r\n{"paper": true}'


class TextPrinter(Printer):
    answer = b"PRINTER READY\r\n\r\n"


@CARRIERS
@pytest.mark.parametrize("kind", [WebPrinter, JSONPrinter, TextPrinter])
@ensureDeferred
async def test_a_watch_of_something_that_is_no_etcd_says_so(kind: type[Printer], own_streams: int) -> None:
    listener = Listener(kind)
    client = EtcdClient(reactor, listener.authority, own_streams=own_streams)
    watches = [client.watch(key) for key in "ab"]
    for watch in watches:
        with pytest.raises(NotEtcd) as raised:
            await soon(watch.ready)
        assert f"http://{listener.authority}" in str(raised.value)
    await client.stopService()
    await listener.close()
