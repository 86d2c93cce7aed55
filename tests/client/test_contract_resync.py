"""Watches that read their keys again where etcd has compacted what they had not seen, on each of their carriers."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults

from tests.client.conftest import MakeClient
from tests.client.test_faults import CARRIERS, revisions_of
from tests.etcds import ONE_VERSION, FreshEtcd
from tests.wire import soon
from twisted_etcd.client import op, rangereader
from twisted_etcd.client.client import EtcdClient
from twisted_etcd.client.position import WatchBatch
from twisted_etcd.client.watch import Watch
from twisted_etcd.errors import Compacted, HistoryReplaced
from twisted_etcd.recipes.follower import Change, RangeFollower
from twisted_etcd.schema.watch import FilterType
from twisted_etcd.testing.proxy import FaultProxy


class Gap:
    """Time in which a watcher hears nothing."""

    def __init__(self, proxy: FaultProxy, client: EtcdClient) -> None:
        self._proxy = proxy
        self._client = client

    async def __aenter__(self) -> None:
        self._proxy.reset(on_accept=True)
        await soon(self._proxy.next_connection())

    async def __aexit__(self, *_: object) -> None:
        """Etcd has forgotten it."""
        last = await self._client.put("/elsewhere", "")
        await self._client.compact(last.header.revision)
        await self._proxy.heal()


@pytest.fixture
def gap(proxy: FaultProxy, client: EtcdClient) -> Gap:
    return Gap(proxy, client)


@pytest.fixture(params=[16, 0], ids=["own-streams", "shared"])
def watcher(request: pytest.FixtureRequest, proxy: FaultProxy, make_client: MakeClient) -> EtcdClient:
    return make_client(endpoints=proxy.endpoint, own_streams=request.param, random=lambda: 0.0)


def shown(batch: WatchBatch, prefix: str) -> list[str]:
    return [
        f"{event.type} {event.kv.key.decode().removeprefix(prefix)} {event.kv.value.decode()}" for event in batch.events
    ]


async def next_resync(watch: Watch) -> WatchBatch:
    batch = await soon(watch.next())
    assert batch.resync
    return batch


@ensureDeferred
async def test_what_happened_in_a_gap_comes_as_one_difference(
    watcher: EtcdClient, client: EtcdClient, gap: Gap, prefix: str
) -> None:
    for key in ("before", "changed", "gone", "again"):
        await client.put(prefix + key, "old")
    watch = watcher.watch(prefix, prefix=True, on_compacted="resync")
    await soon(watch.ready)
    live = await client.put(prefix + "live", "old")
    assert not (await soon(watch.next())).resync
    async with gap:
        await client.put(prefix + "changed", "once")
        await client.put(prefix + "changed", "new")
        deleted = await client.delete(prefix + "gone")
        await client.delete(prefix + "live")
        await client.delete(prefix + "again")
        await client.put(prefix + "again", "new")
        # Came and went: nobody heard of it.
        await client.put(prefix + "short", "")
        await client.delete(prefix + "short")
        await client.put(prefix + "new", "new")
    batch = await next_resync(watch)
    assert shown(batch, prefix) == ["PUT changed new", "PUT again new", "PUT new new", "DELETE gone ", "DELETE live "]
    revisions = [event.kv.mod_revision for event in batch.events]
    assert revisions == sorted(revisions)
    # etcd has forgotten when they were deleted.
    assert {event.kv.mod_revision for event in batch.events[-2:]} == {batch.revision}
    assert batch.revision > deleted.header.revision > live.header.revision
    after = await client.put(prefix + "changed", "after")
    batch = await soon(watch.next())
    assert (batch.resync, batch.revision, shown(batch, prefix)) == (False, after.header.revision, ["PUT changed after"])


@ensureDeferred
async def test_where_nothing_happened_in_a_gap_the_watch_goes_on_all_the_same(
    watcher: EtcdClient, client: EtcdClient, gap: Gap, prefix: str
) -> None:
    watch = watcher.watch(prefix, prefix=True, on_compacted="resync")
    await soon(watch.ready)
    async with gap:
        pass
    assert (await next_resync(watch)).events == ()
    put = await client.put(prefix + "k", "v")
    assert await revisions_of(watch, 1) == [put.header.revision]


@ensureDeferred
async def test_two_gaps_are_two_differences(watcher: EtcdClient, client: EtcdClient, gap: Gap, prefix: str) -> None:
    watch = watcher.watch(prefix, prefix=True, on_compacted="resync")
    await soon(watch.ready)
    for value in ("1", "2"):
        async with gap:
            await client.put(prefix + "k", value)
        assert shown(await next_resync(watch), prefix) == [f"PUT k {value}"]
    async with gap:
        await client.delete(prefix + "k")
    assert shown(await next_resync(watch), prefix) == ["DELETE k "]


@ensureDeferred
async def test_a_start_that_is_compacted_already_brings_what_is_there(
    watcher: EtcdClient, client: EtcdClient, prefix: str
) -> None:
    first = (await client.put(prefix + "old", "1")).header.revision
    await client.put(prefix + "k", "1")
    await client.delete(prefix + "k")
    last = await client.put(prefix + "new", "1")
    await client.compact(last.header.revision)
    watch = watcher.watch(prefix, prefix=True, start_revision=first + 1, on_compacted="resync")
    # What was there before the start and still is did not happen after it.
    batch = await next_resync(watch)
    assert (shown(batch, prefix), batch.revision) == (["PUT new 1"], last.header.revision)


@ensureDeferred
async def test_a_start_that_is_the_last_one_kept_needs_no_reading(
    watcher: EtcdClient, client: EtcdClient, prefix: str
) -> None:
    first = (await client.put(prefix + "k", "1")).header.revision
    await client.put(prefix + "k", "2")
    await client.compact(first)
    watch = watcher.watch(prefix, prefix=True, start_revision=first, on_compacted="resync")
    assert await revisions_of(watch, 2) == [first, first + 1]


@ensureDeferred
async def test_a_start_in_the_future_is_waited_for(watcher: EtcdClient, client: EtcdClient, prefix: str) -> None:
    now = (await client.put(prefix + "k", "now")).header.revision
    watch = watcher.watch(prefix, prefix=True, start_revision=now + 3, on_compacted="resync")
    await soon(watch.ready)
    for value in "1234":
        await client.put(prefix + "k", value)
    assert await revisions_of(watch, 2) == [now + 3, now + 4]


SEEN = {FilterType.NOPUT: ["DELETE gone ", "DELETE made "], FilterType.NODELETE: ["PUT k new"]}


@pytest.mark.parametrize("unwanted", SEEN, ids=str)
@ensureDeferred
async def test_a_filter_holds_for_the_difference_too(
    watcher: EtcdClient, client: EtcdClient, gap: Gap, prefix: str, unwanted: FilterType
) -> None:
    await client.put(prefix + "gone", "")
    watch = watcher.watch(prefix, prefix=True, filters=[unwanted], on_compacted="resync")
    await soon(watch.ready)
    # A put that is not wanted makes a key whose deletion is.
    await client.put(prefix + "made", "")
    await client.put(prefix + "mark", "")
    await client.delete(prefix + "mark")
    heard = await soon(watch.next())
    while unwanted is FilterType.NODELETE and heard.events[-1].kv.key != (prefix + "mark").encode():
        heard = await soon(watch.next())
    async with gap:
        await client.delete(prefix, prefix=True)
        await client.put(prefix + "k", "new")
    assert shown(await next_resync(watch), prefix) == SEEN[unwanted]


@ensureDeferred
async def test_a_range_of_many_pages_is_read_as_one(
    watcher: EtcdClient, client: EtcdClient, gap: Gap, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rangereader, "PAGE", 7)
    await client.txn(success=[op.put(f"{prefix}{number:03}", "old") for number in range(100)])
    watch = watcher.watch(prefix, prefix=True, on_compacted="resync")
    await soon(watch.ready)
    async with gap:
        await client.delete(prefix + "000", range_end=prefix + "050")
        await client.txn(success=[op.put(f"{prefix}{number:03}", "new") for number in range(75, 125)])
    assert shown(await next_resync(watch), prefix) == [
        *(f"PUT {number:03} new" for number in range(75, 125)),
        *(f"DELETE {number:03} " for number in range(50)),
    ]


@ensureDeferred
async def test_who_is_too_slow_for_a_compaction_gets_the_difference(
    watcher: EtcdClient, client: EtcdClient, prefix: str
) -> None:
    slow = watcher.watch(prefix, prefix=True, max_backlog=2, on_compacted="resync")
    quick = watcher.watch(prefix, prefix=True)
    await soon(gatherResults([slow.ready, quick.ready]))
    written = [(await client.put(prefix + "k", str(number))).header.revision for number in range(20)]
    assert await revisions_of(quick, 20) == written
    await client.compact(written[-1])
    seen = [await soon(slow.next())]
    while not seen[-1].resync:
        seen.append(await soon(slow.next()))
    delivered = [event.kv.mod_revision for batch in seen[:-1] for event in batch.events]
    assert delivered == written[: len(delivered)]
    assert shown(seen[-1], prefix) == ["PUT k 19"]


@CARRIERS
@ensureDeferred
async def test_a_deletion_in_the_very_revision_that_is_compacted_to_is_not_passed_over(
    proxy: FaultProxy, make_client: MakeClient, client: EtcdClient, prefix: str, own_streams: int
) -> None:
    # etcd 3.4.23 and 3.5.1 take a watch from that revision on, and have forgotten the deletion.
    watcher = make_client(endpoints=proxy.endpoint, own_streams=own_streams, random=lambda: 0.0)
    failing = watcher.watch(prefix, prefix=True)
    resyncing = watcher.watch(prefix, prefix=True, on_compacted="resync")
    await soon(gatherResults([failing.ready, resyncing.ready]))
    await client.put(prefix + "k", "v")
    for watch in (failing, resyncing):
        assert len((await soon(watch.next())).events) == 1
    proxy.reset(on_accept=True)
    await soon(proxy.next_connection())
    deleted = await client.delete(prefix + "k")
    await client.put(prefix + "other", "v")
    await client.compact(deleted.header.revision, physical=True)
    await proxy.heal()
    with pytest.raises(Compacted):
        await soon(failing.next())
    assert shown(await next_resync(resyncing), prefix) == ["DELETE k ", "PUT other v"]


# --- another history ------------------------------------------------------------------------------------------------


@ONE_VERSION
@ensureDeferred
async def test_a_cluster_restored_from_a_backup_ends_watches_and_is_read_again_by_followers(
    fresh_etcd: FreshEtcd, make_client: MakeClient, tmp_path: Path
) -> None:
    data, backup = tmp_path / "data", tmp_path / "backup"
    server = await fresh_etcd(data_dir=data)
    clients = [make_client(endpoints=server.endpoint, own_streams=own_streams) for own_streams in (16, 0)]
    await clients[0].put("kept", "old")
    await soon(server.stopService())
    shutil.copytree(data, backup)
    server.startService()
    await soon(server.when_ready())
    watches = [
        client.watch("k", prefix=True, on_compacted=on_compacted)
        for client in clients
        for on_compacted in ("fail", "resync")
    ]
    told: list[Change] = []
    read_again: Deferred[None] = Deferred()

    def changed(changes: tuple[Change, ...]) -> None:
        told.extend(changes)
        if told[-1].new is None:
            read_again.callback(None)

    follower = RangeFollower(clients[0], reactor, "k", changed, prefix=True)
    await soon(follower.start())
    await soon(gatherResults([watch.ready for watch in watches]))
    lost = [await clients[0].put("klost", str(number)) for number in range(3)]
    for watch in watches:
        assert await revisions_of(watch, 3) == [each.header.revision for each in lost]
    await soon(server.stopService())
    shutil.rmtree(data)
    shutil.copytree(backup, data)
    server.startService()
    for watch in watches:
        with pytest.raises(HistoryReplaced, match="as if it was restored from a backup: read again, then watch") as e:
            await soon(watch.next())
        assert e.value.before == lost[-1].header.revision > e.value.now
    await soon(read_again)
    assert list(follower.current) == [b"kept"]
    await clients[0].put("kafter", "")
    assert (await soon(clients[0].get("kafter"))).count == 1
    await soon(follower.stop())
