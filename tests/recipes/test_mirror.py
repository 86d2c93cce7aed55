"""Mirrors, between real etcds and inside one: what arrives, in which order, and what becomes of it in trouble."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any, Protocol, cast

import pytest
import pytest_twisted
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater

from tests.client.conftest import MakeClient, proxy_before
from tests.etcds import ONE_VERSION, FreshEtcd
from tests.messaging.common import failure_of, result_of
from tests.said import Said
from tests.scripted import ScriptedClient
from tests.wire import soon
from twisted_etcd.client import op
from twisted_etcd.client.client import EtcdClient
from twisted_etcd.client.namespace import Namespace
from twisted_etcd.errors import DeadlineExceeded, InvalidSettings, ServiceStopped, Unavailable
from twisted_etcd.recipes.mirror import Mirror
from twisted_etcd.recipes.mirrorplan import Progress
from twisted_etcd.schema.kv import Event as KeyEvent
from twisted_etcd.testing.cluster import EtcdCluster
from twisted_etcd.testing.proxy import FaultProxy

CLOCK = cast("Any", reactor)


class MakeMirror(Protocol):
    """Makes and starts mirrors, which end with the test."""

    def __call__(self, source: EtcdClient, target: EtcdClient, prefix: str, **options: Any) -> Mirror: ...  # noqa: ANN401


@pytest.fixture
def mirrors(make_client: MakeClient) -> Iterator[MakeMirror]:
    made: list[Mirror] = []

    def make(source: EtcdClient, target: EtcdClient, prefix: str, **options: Any) -> Mirror:  # noqa: ANN401
        mirror = Mirror(source, target, prefix, random=random.Random(4).random, **options)
        mirror.startService()
        made.append(mirror)
        return mirror

    # They end before their clients.
    assert make_client
    yield make
    pytest_twisted.blockon(gatherResults([soon(mirror.stopService()) for mirror in made]))


async def contents(client: EtcdClient, prefix: str) -> dict[str, bytes]:
    kvs = (await client.get(prefix, prefix=True)).kvs
    return {kv.key.decode().removeprefix(prefix): kv.value for kv in kvs}


def value_of(event: KeyEvent) -> str:
    return f"{event.type} {event.kv.key.decode().rpartition('/')[2]} {event.kv.value.decode()}"


# --- copying and following ------------------------------------------------------------------------------------------


@ensureDeferred
async def test_what_is_there_is_copied_and_what_changes_follows(
    client: EtcdClient, mirrors: MakeMirror, prefix: str
) -> None:
    here, there = f"{prefix}a/", f"{prefix}b/"
    lease = await client.lease(60)
    for number in range(300):
        await client.put(f"{here}{number:03}", str(number), lease=lease.id if number == 7 else 0)
    await client.put(f"{there}extra", "not the source's")
    await client.put(f"{there}001", "something else")
    mirror = mirrors(client, client, here, dest_prefix=there)
    await soon(mirror.when_copied())
    assert mirror.revision > 0
    found = await contents(client, there)
    assert found.pop("extra") == b"not the source's"
    assert found == await contents(client, here)
    assert (await client.get(f"{there}007")).kvs[0].lease == 0
    watch = client.watch(there, prefix=True)
    await soon(watch.ready)
    await client.put(f"{here}new", "1")
    await client.txn(success=[op.put(f"{here}new", "2"), op.delete(f"{here}000"), op.put(f"{here}newer", "2")])
    last = await client.delete(f"{here}00", prefix=True)
    # What one revision did is done by one; several can come in one batch.
    done: dict[int, list[str]] = {}
    while len(done) < 3:
        for each in (await soon(watch.next())).events:
            done.setdefault(each.kv.mod_revision, []).append(value_of(each))
    first, second, third = done.values()
    assert first == ["PUT new 1"]
    assert sorted(second) == ["DELETE 000 ", "PUT new 2", "PUT newer 2"]
    assert third == [f"DELETE 00{number} " for number in range(1, 10)]
    await soon(watch.stop())
    assert await soon(mirror.at_least(last.header.revision)) == last.header.revision
    assert (mirror.behind, mirror.trouble) == (0, None)
    with pytest.raises(DeadlineExceeded, match="did not come to revision"):
        await soon(mirror.at_least(mirror.revision + 1000, timeout=0.05))
    found = await contents(client, there)
    assert found.pop("extra") == b"not the source's"
    assert found == await contents(client, here)


@ensureDeferred
async def test_to_another_cluster_and_without_a_prefix(
    make_client: MakeClient, mirrors: MakeMirror, fresh_etcd: FreshEtcd
) -> None:
    here, there = [make_client(endpoints=(await fresh_etcd()).endpoint) for _ in range(2)]
    for key in (b"a", b"\x00", b"\xff\xff"):
        await here.put(key, key)
    await there.put("extra", "")
    await there.put("zone/progress", "not a mirror's")
    mirror = mirrors(here, there, "", progress_key="zone/progress", delete_extra=True)
    await soon(mirror.when_copied())
    found = (await there.get("", prefix=True)).kvs
    assert [kv.key for kv in found] == [b"\x00", b"a", b"zone/progress", b"\xff\xff"]
    progress = Progress.decode(found[2].value)
    assert progress is not None
    assert (progress.revision, progress.part) == (mirror.revision, 0)
    # A key that would fall on the progress is not copied.
    await here.put("zone/progress", "")
    await here.put("b", "1")
    await until_there(there, "b")
    assert Progress.decode((await there.get("zone/progress")).kvs[0].value) is not None
    assert repr(mirror) == f"<Mirror of all keys, at revision {mirror.revision}>"


async def until_there(client: EtcdClient, key: str) -> None:
    watch = client.watch(key)
    await soon(watch.ready)
    while not (await client.get(key)).count:
        await soon(watch.next())
    await soon(watch.stop())


@ensureDeferred
async def test_it_can_begin_at_a_revision(client: EtcdClient, mirrors: MakeMirror, prefix: str) -> None:
    here, there = f"{prefix}a/", f"{prefix}b/"
    await client.put(f"{here}old", "1")
    second = await client.put(f"{here}k", "1")
    await client.put(f"{here}k", "2")
    mirrors(client, client, here, dest_prefix=there, start_revision=second.header.revision)
    await client.put(f"{here}last", "")
    await until_there(client, f"{there}last")
    assert await contents(client, there) == {"k": b"2", "last": b""}
    assert (await client.get(f"{there}k")).kvs[0].version == 2


@ensureDeferred
async def test_what_is_not_the_sources_goes_where_it_was_asked_for(
    client: EtcdClient, mirrors: MakeMirror, prefix: str
) -> None:
    here, there = f"{prefix}a/", f"{prefix}b/"
    for key in "bdf":
        await client.put(here + key, key)
        await client.put(there + key, key)
    before = {kv.key: kv.mod_revision for kv in (await client.get(there, prefix=True)).kvs}
    for key in "aceg":
        await client.put(there + key, "extra")
    mirror = mirrors(client, client, here, dest_prefix=there, delete_extra=True)
    await soon(mirror.when_copied())
    # What was right already was not put again.
    assert {kv.key: kv.mod_revision for kv in (await client.get(there, prefix=True)).kvs} == before


# --- where it was ---------------------------------------------------------------------------------------------------


@ensureDeferred
async def test_the_next_mirror_goes_on_where_the_last_one_was(
    client: EtcdClient, mirrors: MakeMirror, prefix: str
) -> None:
    here, there, progress = f"{prefix}a/", f"{prefix}b/", f"{prefix}progress"
    await client.put(f"{here}k", "1")
    first = mirrors(client, client, here, dest_prefix=there, progress_key=progress)
    await soon(first.when_copied())
    await soon(first.stopService())
    # A comparison of both sides would mend this.
    await client.put(f"{there}k", "changed")
    await client.put(f"{here}l", "1")
    await client.put(f"{here}l", "2")
    second = mirrors(client, client, here, dest_prefix=there, progress_key=progress)
    await client.delete(f"{here}l")
    await client.put(f"{here}m", "1")
    await until_there(client, f"{there}m")
    assert await contents(client, there) == {"k": b"changed", "m": b"1"}
    assert second.revision >= first.revision


@ensureDeferred
async def test_a_progress_of_another_cluster_or_of_the_future_is_none(
    client: EtcdClient, mirrors: MakeMirror, prefix: str
) -> None:
    cluster_id = (await client.get(prefix)).header.cluster_id
    for number, progress in enumerate(
        (
            Progress(cluster_id=cluster_id, revision=2**40).encode(),
            Progress(cluster_id=5, revision=1).encode(),
            Progress(cluster_id=cluster_id, revision=0, part=3).encode(),
            b"5",
        )
    ):
        here, there, key = f"{prefix}{number}/a/", f"{prefix}{number}/b/", f"{prefix}{number}/progress"
        await client.put(f"{here}k", "1")
        await client.put(key, progress)
        await soon(mirrors(client, client, here, dest_prefix=there, progress_key=key).when_copied())
        assert await contents(client, there) == {"k": b"1"}


@pytest.mark.parametrize("progress", [True, False])
@ensureDeferred
async def test_what_was_compacted_before_it_came_is_found_by_comparison(
    client: EtcdClient,
    make_client: MakeClient,
    proxy: FaultProxy,
    mirrors: MakeMirror,
    prefix: str,
    *,
    progress: bool,
) -> None:
    here, there = f"{prefix}a/", f"{prefix}b/"
    for key in "abc":
        await client.put(here + key, "1")
    await client.put(f"{there}extra", "stays")
    source = make_client(endpoints=proxy.endpoint, random=lambda: 0.0)
    options = {"progress_key": f"{prefix}progress"} if progress else {}
    mirror = mirrors(source, client, here, dest_prefix=there, **options)
    await soon(mirror.when_copied())
    proxy.reset(on_accept=True)
    await soon(proxy.next_connection())
    await client.delete(f"{here}a")
    await client.put(f"{here}b", "2")
    await client.put(f"{here}d", "1")
    last = await client.put("/elsewhere", "")
    await client.compact(last.header.revision)
    await soon(proxy.heal())
    await client.put(f"{here}e", "1")
    await until_there(client, f"{there}e")
    assert await contents(client, there) == {"b": b"2", "c": b"1", "d": b"1", "e": b"1", "extra": b"stays"}


@ensureDeferred
async def test_two_that_share_a_progress_do_not_come_into_each_others_way(
    client: EtcdClient, make_client: MakeClient, mirrors: MakeMirror, prefix: str
) -> None:
    here, there, progress = f"{prefix}a/", f"{prefix}b/", f"{prefix}progress"
    for number in range(200):
        await client.put(f"{here}{number}", "0")
    watch = client.watch(f"{there}k", start_revision=(await client.put("/elsewhere", "")).header.revision)
    both = [mirrors(make_client(), client, here, dest_prefix=there, progress_key=progress) for _ in range(2)]
    await gatherResults([soon(mirror.when_copied()) for mirror in both])
    for number in range(50):
        await client.put(f"{here}k", str(number))
    seen: list[int] = []
    while not seen or seen[-1] != 49:
        seen += [int(each.kv.value) for each in (await soon(watch.next())).events]
    # Each change once, and in order.
    assert seen == list(range(50))
    await soon(watch.stop())
    assert await contents(client, there) == await contents(client, here)


# --- in trouble -----------------------------------------------------------------------------------------------------


@pytest.fixture
def proxies(etcd_server: Any) -> Iterator[list[FaultProxy]]:  # noqa: ANN401
    """One for each side."""
    both = [proxy_before(etcd_server) for _ in range(2)]
    yield both
    pytest_twisted.blockon(gatherResults([proxy.stopService() for proxy in both]))


async def trouble(client: EtcdClient, chance: random.Random, proxy: FaultProxy) -> None:
    what = chance.random()
    if what < 0.15:
        await soon(proxy.reset())
    elif what < 0.3:
        proxy.cut_after(chance.randint(0, 400))
    elif what < 0.4:
        await soon(proxy.heal())
    elif what < 0.45:
        last = await client.put("/elsewhere", "")
        await client.compact(last.header.revision)


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("progress", [True, False])
@ensureDeferred
async def test_through_all_faults_the_copy_becomes_what_the_source_is(
    client: EtcdClient,
    proxies: list[FaultProxy],
    make_client: MakeClient,
    mirrors: MakeMirror,
    prefix: str,
    *,
    progress: bool,
    seed: int,
) -> None:
    chance = random.Random(seed)
    here, there = f"{prefix}a/", f"{prefix}b/"
    await client.put(f"{here}pair/1", "0")
    await client.put(f"{here}pair/2", "0")
    source, target = (make_client(endpoints=proxy.endpoint, random=chance.random) for proxy in proxies)
    options = {"progress_key": f"{prefix}progress"} if progress else {}
    mirror = mirrors(source, target, here, dest_prefix=there, **options)
    await soon(mirror.when_copied())
    watch = client.watch(there, prefix=True, start_revision=1 + (await client.put("/elsewhere", "")).header.revision)
    # What is compacted later it has seen, or is told of at once.
    await soon(watch.ready)
    for number in range(1, 60):
        await trouble(client, chance, chance.choice(proxies))
        keys = ("pair/1", "pair/2", f"k{number % 5}")
        await client.txn(success=[op.put(here + key, str(number)) for key in keys])
    await gatherResults([soon(proxy.heal()) for proxy in proxies])
    pairs: dict[int, list[tuple[bytes, int]]] = {}
    last_seen = 0
    while last_seen != 59:
        for each in (await soon(watch.next())).events:
            if b"pair/" in each.kv.key:
                last_seen = int(each.kv.value)
                pairs.setdefault(each.kv.mod_revision, []).append((each.kv.key, last_seen))
    await soon(watch.stop())
    values = []
    for revision, pair in sorted(pairs.items()):
        # Both at once, or by a comparison one after the other where they are not in one transaction.
        assert len({value for _, value in pair}) == 1, (revision, pair)
        assert len(pair) == 2
        values.append(pair[0][1])
    if progress:
        # Nothing comes late, and nothing twice.
        assert values == sorted(set(values))
    assert await contents(client, there) == await contents(client, here)


@ensureDeferred
async def test_what_is_in_its_way_is_said_and_how_far_it_is_behind(
    client: EtcdClient,
    make_client: MakeClient,
    proxy: FaultProxy,
    mirrors: MakeMirror,
    prefix: str,
    *,
    said: Said,
) -> None:
    here, there = f"{prefix}a/", f"{prefix}b/"
    target = make_client(endpoints=proxy.endpoint, request_timeout=0.3)
    mirror = mirrors(client, target, here, dest_prefix=there, progress_key=f"{prefix}progress")
    await soon(mirror.when_copied())
    assert (mirror.behind, mirror.trouble) == (0, None)
    await soon(proxy.refuse())
    await soon(proxy.reset())
    last = [await client.put(f"{here}k", str(number)) for number in range(5)][-1]
    while not isinstance(mirror.trouble, Unavailable) or mirror.revision + mirror.behind < last.header.revision:
        await deferLater(CLOCK, 0.01)
    assert mirror.behind >= 5
    await soon(proxy.heal())
    await soon(mirror.at_least(last.header.revision))
    quiet: tuple[int, Exception | None] = (mirror.behind, mirror.trouble)
    assert quiet == (0, None)


@ensureDeferred
async def test_a_write_that_was_not_confirmed_is_made_once(
    client: EtcdClient,
    make_client: MakeClient,
    proxy: FaultProxy,
    mirrors: MakeMirror,
    prefix: str,
    *,
    said: Said,
) -> None:
    here, there = f"{prefix}a/", f"{prefix}b/"
    target = make_client(endpoints=proxy.endpoint, request_timeout=0.3)
    mirror = mirrors(client, target, here, dest_prefix=there, progress_key=f"{prefix}progress")
    await soon(mirror.when_copied())
    proxy.swallow("answers")
    await client.put(f"{here}k", "1")
    await until_there(client, f"{there}k")
    await said.until("tries again")
    assert mirror.trouble is not None
    await soon(proxy.heal())
    last = await client.put(f"{here}k", "2")
    await soon(mirror.at_least(last.header.revision))
    [kv] = (await client.get(f"{there}k")).kvs
    assert (kv.value, kv.version) == (b"2", 2)


@ensureDeferred
async def test_a_revision_that_is_too_large_for_the_target_comes_in_parts(
    client: EtcdClient, make_client: MakeClient, mirrors: MakeMirror, fresh_etcd: FreshEtcd, prefix: str
) -> None:
    # Its limit is lower than what the mirror was told.
    target = make_client(endpoints=(await fresh_etcd(extra_args=("--max-txn-ops=5",))).endpoint)
    for number in range(20):
        await client.put(f"{prefix}{number:02}", "0")
    mirror = mirrors(client, target, prefix, progress_key="progress")
    await soon(mirror.when_copied())
    assert await contents(target, prefix) == await contents(client, prefix)
    await client.txn(success=[op.put(f"{prefix}{number:02}", "1") for number in range(20)])
    await client.put(f"{prefix}last", "")
    await until_there(target, f"{prefix}last")
    found = await target.get(prefix, prefix=True)
    assert {kv.value for kv in found.kvs} == {b"1", b""}
    assert 4 < len({kv.mod_revision for kv in found.kvs}) < 12


@ONE_VERSION
@ensureDeferred
async def test_it_outlives_the_leaders_of_both_sides(
    etcd_cluster: EtcdCluster, mirrors: MakeMirror, prefix: str
) -> None:
    here, there = f"{prefix}a/", f"{prefix}b/"
    async with EtcdClient(CLOCK, etcd_cluster.endpoints) as client:
        await client.put(f"{here}0", "0")
        mirror = mirrors(client, client, here, dest_prefix=there, progress_key=f"{prefix}progress")
        await soon(mirror.when_copied())
        leader = await soon(etcd_cluster.leader())
        await leader.kill()
        await client.get(here, timeout=15.0)
        for number in range(5):
            await client.put(f"{here}{number}", str(number))
        await until_there(client, f"{there}4")
        assert await contents(client, there) == await contents(client, here)
        await soon(mirror.stopService())


# --- what cannot be -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prefix", "dest_prefix"), [("a/", None), ("a/", "a/b/"), ("a/b/", "a/"), ("", "b/"), ("a/", "")]
)
def test_a_mirror_that_would_copy_its_own_copies_is_refused(
    client: EtcdClient, prefix: str, dest_prefix: str | None
) -> None:
    for source, target in ((client, client), (Namespace(client, "n/"), Namespace(client, "n/"))):
        with pytest.raises(InvalidSettings, match="overlap, so that it would copy its own copies without an end: give"):
            Mirror(source, target, prefix, dest_prefix=dest_prefix)


def test_places_are_compared_as_the_cluster_has_them(client: EtcdClient) -> None:
    Mirror(Namespace(client, "a/"), Namespace(client, "b/"), "k/")
    Mirror(client, Namespace(client, "b/"), "a/")
    with pytest.raises(InvalidSettings, match="the source b'b/' and the target b'b/c/' of a mirror are in one cluster"):
        Mirror(client, Namespace(client, "b/"), "b/", dest_prefix="c/")
    with pytest.raises(InvalidSettings, match="the progress key b'a/p' of a mirror is below its source b'a/'"):
        Mirror(client, client, "a/", dest_prefix="b/", progress_key="a/p")


@ensureDeferred
async def test_two_clients_of_one_cluster_are_found_out_when_they_answer(
    client: EtcdClient, make_client: MakeClient, prefix: str
) -> None:
    mirror = Mirror(client, make_client(), prefix)
    ended, copied = mirror.ended, mirror.when_copied()
    mirror.startService()
    for waiting in (ended, copied):
        with pytest.raises(InvalidSettings, match="are in one cluster and overlap"):
            await soon(waiting)
    await soon(mirror.stopService())


def test_what_cannot_be_meant_is_named(client: EtcdClient) -> None:
    for error, words, options in (
        (ValueError, "start_revision must be at least 0, not -1", {"start_revision": -1}),
        (ValueError, "max_txn_ops must be at least 2, not 1", {"max_txn_ops": 1}),
        (ValueError, "progress_key is empty; give a key, or None", {"progress_key": ""}),
        (TypeError, "dest_prefix must be str or bytes, not int", {"dest_prefix": 5}),
    ):
        with pytest.raises(error, match=words):
            cast("Any", Mirror)(client, client, "a/", **{"dest_prefix": "b/", **options})


# --- its end --------------------------------------------------------------------------------------------------------


def test_it_can_be_stopped_before_it_was_started_and_not_started_then() -> None:
    mirror = Mirror(ScriptedClient().client, ScriptedClient().client, "a/")
    assert result_of(mirror.stopService()) is None
    assert result_of(mirror.ended) is None
    failure_of(mirror.when_copied(), ServiceStopped)
    with pytest.raises(ServiceStopped, match="cannot be started again: make a new one"):
        mirror.startService()


@pytest.mark.parametrize("answers", range(6))
@ensureDeferred
async def test_it_can_be_stopped_in_every_phase(
    client: EtcdClient, make_client: MakeClient, proxies: list[FaultProxy], prefix: str, answers: int
) -> None:
    here, there = f"{prefix}a/", f"{prefix}b/"
    await client.put(f"{here}k", "1")
    source, target = (make_client(endpoints=proxy.endpoint) for proxy in proxies)
    mirror = Mirror(source, target, here, dest_prefix=there, progress_key=f"{prefix}p")
    # After so many bytes one of the two says nothing more.
    proxies[answers % 2].limit(1_000_000)
    mirror.startService()
    while proxies[0].answers + proxies[1].answers < 300 * answers:
        await deferLater(CLOCK, 0.001)
        if mirror.revision:
            break
    for proxy in proxies:
        proxy.swallow()
    copied = mirror.when_copied()
    copied.addErrback(lambda failure: failure.trap(ServiceStopped) and None)
    await soon(mirror.stopService())
    await soon(mirror.ended)
    await soon(copied)
    await gatherResults([soon(proxy.heal()) for proxy in proxies])


@ensureDeferred
async def test_it_can_be_stopped_while_it_waits_for_its_next_attempt(
    client: EtcdClient,
    make_client: MakeClient,
    proxy: FaultProxy,
    prefix: str,
    said: Said,
) -> None:
    target = make_client(endpoints=proxy.endpoint, request_timeout=0.2)
    await soon(proxy.refuse())
    mirror = Mirror(client, target, f"{prefix}a/", dest_prefix=f"{prefix}b/")
    mirror.startService()
    await said.until("tries again")
    assert mirror.trouble is not None
    await soon(mirror.stopService())
    await soon(proxy.heal())


@ensureDeferred
async def test_a_client_that_is_stopped_before_it_ends_it(
    client: EtcdClient, make_client: MakeClient, prefix: str
) -> None:
    source = make_client()
    mirror = Mirror(source, client, f"{prefix}a/", dest_prefix=f"{prefix}b/")
    mirror.startService()
    await soon(mirror.when_copied())
    ended: Deferred[None] = mirror.ended
    await soon(source.stopService())
    with pytest.raises(ServiceStopped):
        await soon(ended)
    await soon(mirror.stopService())
