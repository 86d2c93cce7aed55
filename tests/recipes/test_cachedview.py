"""A view of a prefix: what it shows was so at one revision, in every trouble that it can be in."""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Mapping
from typing import Any, cast

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from tests.client.conftest import MakeClient
from tests.etcds import ONE_VERSION
from tests.guards import LoggedErrors
from tests.messaging.common import PENDING, failure_of, peek, result_of
from tests.scripted import ScriptedClient, batch, delete_event, found, kv, put_event
from tests.wire import Event, soon
from twisted_etcd.client import op
from twisted_etcd.client.client import EtcdClient
from twisted_etcd.client.namespace import Namespace
from twisted_etcd.client.position import WatchBatch
from twisted_etcd.errors import Compacted, DeadlineExceeded, PermissionDenied, ServiceStopped, Unavailable
from twisted_etcd.recipes.cachedview import CachedView, ViewSnapshot
from twisted_etcd.recipes.follower import Change
from twisted_etcd.schema.kv import RangeResponse
from twisted_etcd.testing.cluster import EtcdCluster
from twisted_etcd.testing.proxy import FaultProxy

IN_MEMORY_TOO = True
CLOCK = cast("Any", reactor)
COMPACTED = Compacted(11, "mvcc: required revision has been compacted", 20)


class Viewed:
    """A view whose etcd is the test."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.etcd = ScriptedClient(self.clock)
        self.view = CachedView(self.etcd.client, "p/", random=lambda: 1.0)
        self.told: list[tuple[Change, ...]] = []
        self.view.on_change(self.told.append)
        self.view.startService()

    def loads(self, revision: int, *kvs: Any) -> None:  # noqa: ANN401
        self.etcd.take("get").answer.callback(found(revision, *kvs))

    def comes(self, *events: Any) -> None:  # noqa: ANN401
        self.etcd.watches[-1][0].deliver(batch(*events))

    def progress(self, revision: int) -> None:
        self.etcd.watches[-1][0].deliver(WatchBatch((), revision))

    @property
    def values(self) -> dict[bytes, bytes]:
        return values_of(self.view.snapshot())

    def stop(self) -> Deferred[None]:
        stopping = self.view.stopService()
        for asked in self.etcd.asked:
            if asked.what == "stop of a watch" and not asked.answer.called:
                asked.answer.callback(None)
        return stopping


def values_of(snapshot: Mapping[bytes, Any]) -> dict[bytes, bytes]:
    return {key: each.value for key, each in snapshot.items()}


@pytest.fixture
def viewed() -> Viewed:
    return Viewed()


# --- what it shows --------------------------------------------------------------------------------------------------


def test_it_shows_nothing_before_it_was_read(viewed: Viewed) -> None:
    loaded = viewed.view.when_loaded()
    for read in (
        lambda: viewed.view["p/a"],
        lambda: viewed.view.get("p/a"),
        lambda: "p/a" in viewed.view,
        lambda: list(viewed.view),
        lambda: len(viewed.view),
        viewed.view.snapshot,
    ):
        with pytest.raises(RuntimeError, match="has nothing to show: start it, and wait for when_loaded"):
            cast("Any", read)()
    assert peek(loaded) is PENDING
    assert repr(viewed.view) == "<CachedView of all keys that begin with b'p/', not read yet>"
    viewed.loads(7)
    assert result_of(loaded) is None
    assert len(viewed.view) == 0
    assert repr(viewed.view) == "<CachedView of all keys that begin with b'p/', at revision 7>"


def test_it_is_a_map(viewed: Viewed) -> None:
    viewed.loads(7, kv("p/b", "2", 3), kv("p/a", "1", 5))
    view = viewed.view
    assert (view["p/a"].value, view[b"p/b"].value) == (b"1", b"2")
    assert view.get("p/c") is None
    with pytest.raises(KeyError, match="p/c"):
        _ = view["p/c"]
    assert ("p/a" in view, b"p/c" in view) == (True, False)
    assert (list(view), len(view), view.revision) == ([b"p/a", b"p/b"], 2, 7)
    snapshot = view.snapshot()
    names = cast("Any", snapshot)
    assert (snapshot["p/a"].value, b"p/b" in snapshot, "p/b" in names, 5 in names) == (b"1", True, True, False)
    assert repr(snapshot) == "<ViewSnapshot of 2 keys at revision 7>"


def test_a_snapshot_stays_as_it_is_and_so_do_keys_that_are_walked(viewed: Viewed) -> None:
    viewed.loads(7, kv("p/a", "1", 3), kv("p/b", "2", 4))
    before, again = viewed.view.snapshot(), viewed.view.snapshot()
    walk = iter(viewed.view)
    assert next(walk) == b"p/a"
    viewed.comes(put_event("p/c", "3", 8), delete_event("p/b", 8))
    assert list(walk) == [b"p/b"]
    assert values_of(before) == values_of(again) == {b"p/a": b"1", b"p/b": b"2"}
    assert before.revision == 7
    assert viewed.values == {b"p/a": b"1", b"p/c": b"3"}
    later = viewed.view.snapshot()
    viewed.etcd.watches[-1][0].finished(Failure(COMPACTED))
    viewed.loads(30)
    assert (values_of(later), later.revision) == ({b"p/a": b"1", b"p/c": b"3"}, 8)
    assert (viewed.values, viewed.view.revision) == ({}, 30)


def test_who_is_told_finds_all_of_it_and_may_fail_or_leave(viewed: Viewed, logged_errors: LoggedErrors) -> None:
    seen: list[ViewSnapshot] = []

    def fails(_: object) -> None:
        raise LookupError

    viewed.view.on_change(fails)
    leave = viewed.view.on_change(lambda _: seen.append(viewed.view.snapshot()))
    viewed.loads(7, kv("p/a", "1", 3))
    viewed.comes(put_event("p/a", "2", 8), put_event("p/b", "2", 8))
    assert [(each.revision, values_of(each)) for each in seen] == [(8, {b"p/a": b"2", b"p/b": b"2"})]
    leave()
    leave()
    viewed.comes(delete_event("p/a", 9))
    assert len(seen) == 1
    assert [[(c.key, c.revision) for c in told] for told in viewed.told] == [[(b"p/a", 8), (b"p/b", 8)], [(b"p/a", 9)]]
    assert len(logged_errors.flush(LookupError)) == 2
    with pytest.raises(TypeError, match="must be a function that takes a tuple of Change, not str"):
        viewed.view.on_change(cast("Any", "f"))


# --- at least -------------------------------------------------------------------------------------------------------


def test_it_waits_for_a_revision_by_events_and_by_progress(viewed: Viewed) -> None:
    early = viewed.view.at_least(7)
    assert peek(early) is PENDING
    viewed.loads(7)
    assert result_of(early) == 7
    assert result_of(viewed.view.at_least(7)) == 7
    waiting = [viewed.view.at_least(revision) for revision in (8, 9, 10)]
    viewed.comes(put_event("p/a", "1", 9))
    assert [result_of(each) for each in waiting[:2]] == [9, 9]
    assert peek(waiting[2]) is PENDING
    viewed.progress(12)
    assert result_of(waiting[2]) == 12
    assert viewed.clock.getDelayedCalls() == []


def test_where_nothing_happens_etcd_is_asked_how_far_that_holds(viewed: Viewed) -> None:
    viewed.loads(7, kv("p/a", "1", 3))
    waiting = viewed.view.at_least(20)
    viewed.clock.advance(0.1)
    asked = viewed.etcd.take("get")
    assert asked.args == (b"p/",)
    assert asked.options == {"prefix": True, "min_mod_revision": 8, "limit": 1, "keys_only": True}
    asked.answer.callback(RangeResponse(header=found(15).header, count=1))
    # Not enough yet.
    assert (viewed.view.revision, peek(waiting)) == (15, PENDING)
    viewed.clock.advance(0.2)
    viewed.etcd.take("get").answer.callback(RangeResponse(header=found(21).header, count=1))
    assert result_of(waiting) == 21
    assert viewed.clock.getDelayedCalls() == []
    # What came and went meanwhile comes late, and changes nothing.
    viewed.comes(put_event("p/b", "x", 16), put_event("p/c", "x", 17))
    viewed.comes(delete_event("p/b", 18), delete_event("p/c", 18))
    assert (viewed.values, viewed.told, viewed.view.revision) == ({b"p/a": b"1"}, [], 21)
    viewed.comes(put_event("p/b", "y", 22))
    assert viewed.values == {b"p/a": b"1", b"p/b": b"y"}


@pytest.mark.parametrize(
    "answer",
    [
        RangeResponse(header=found(21).header, count=0),
        RangeResponse(header=found(21).header, count=2),
        RangeResponse(header=found(21).header, kvs=(kv("p/a", "", 19),), count=1),
    ],
    ids=["deleted", "more", "changed"],
)
def test_where_something_did_happen_it_waits_for_that(viewed: Viewed, answer: RangeResponse) -> None:
    viewed.loads(7, kv("p/a", "1", 3))
    waiting = viewed.view.at_least(20)
    viewed.clock.advance(0.1)
    viewed.etcd.take("get").answer.callback(answer)
    assert (viewed.view.revision, peek(waiting)) == (7, PENDING)
    viewed.comes(put_event("p/a", "2", 19))
    viewed.clock.advance(0.2)
    asked = viewed.etcd.take("get")
    # What is known changed while it was asked.
    viewed.comes(put_event("p/b", "2", 20))
    assert asked.cancelled
    assert result_of(waiting) == 20


def test_an_etcd_that_is_away_is_asked_again(viewed: Viewed) -> None:
    viewed.loads(7)
    waiting = viewed.view.at_least(9, timeout=None)
    viewed.clock.advance(0.1)
    viewed.etcd.take("get").fails(Unavailable("away"))
    viewed.clock.advance(0.2)
    viewed.etcd.take("get").answer.callback(found(9))
    assert result_of(waiting) == 9


def test_the_wait_is_bounded_and_can_be_given_up(viewed: Viewed) -> None:
    viewed.loads(7)
    late, gone = viewed.view.at_least(9, timeout=2), viewed.view.at_least(10, timeout=None)
    gone.addErrback(lambda _: None)
    gone.cancel()
    for _ in range(20):
        viewed.clock.advance(0.1)
    assert "did not come to revision 9 within 2 s" in str(failure_of(late, DeadlineExceeded))
    assert viewed.clock.getDelayedCalls() == []
    for timeout in (0, -1, float("inf")):
        with pytest.raises(ValueError, match="timeout must be more than 0 seconds, and finite, or None"):
            viewed.view.at_least(9, timeout=timeout)
    with pytest.raises(TypeError, match="revision must be an int, not str"):
        viewed.view.at_least(cast("Any", "9"))


def test_who_hears_of_a_revision_can_wait_for_the_next(viewed: Viewed) -> None:
    viewed.loads(7)
    reached: list[int] = []

    def on(revision: int) -> Deferred[int]:
        reached.append(revision)
        return viewed.view.at_least(revision + 1)

    waiting = viewed.view.at_least(8).addCallback(on)
    viewed.clock.advance(0.1)
    viewed.etcd.take("get").answer.callback(found(8))
    assert (reached, peek(waiting)) == ([8], PENDING)
    viewed.clock.advance(0.1)
    viewed.etcd.take("get").answer.callback(found(9))
    assert result_of(waiting) == 9
    assert viewed.clock.getDelayedCalls() == []


# --- its end --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", ["made", "reading", "following", "waiting", "asking"])
def test_it_can_be_stopped_in_every_phase(phase: str) -> None:
    if phase == "made":
        view = CachedView(ScriptedClient().client, "p/")
        waiting = view.at_least(3)
        assert result_of(view.stopService()) is None
        failure_of(waiting, ServiceStopped)
        failure_of(view.when_loaded(), ServiceStopped)
        return
    viewed = Viewed()
    waiting = viewed.view.at_least(9, timeout=None)
    if phase != "reading":
        viewed.loads(7)
    if phase in ("waiting", "asking"):
        viewed.clock.advance(0.05 if phase == "waiting" else 0.1)
    ended = viewed.view.ended
    stopping = viewed.stop()
    assert result_of(stopping) is None
    failure_of(waiting, ServiceStopped)
    assert result_of(ended) is None
    assert viewed.clock.getDelayedCalls() == []
    assert all(asked.cancelled or asked.answer.called for asked in viewed.etcd.asked)
    failure_of(viewed.view.at_least(9), ServiceStopped)
    with pytest.raises(ServiceStopped, match="cannot be started again: make a new one"):
        viewed.view.startService()
    assert "stopped" in repr(viewed.view)


def test_it_can_be_stopped_by_who_is_told(viewed: Viewed) -> None:
    stopping: list[Deferred[None]] = []
    viewed.view.on_change(lambda _: stopping.append(viewed.view.stopService()))
    viewed.loads(7)
    viewed.comes(put_event("p/a", "1", 8))
    viewed.etcd.take("stop of a watch").answer.callback(None)
    assert result_of(stopping[0]) is None
    assert viewed.view["p/a"].value == b"1"


def test_what_ends_it_is_told_to_all_who_wait(viewed: Viewed) -> None:
    viewed.loads(7)
    waiting, ended = viewed.view.at_least(9), viewed.view.ended
    # As where its client is stopped before it.
    viewed.etcd.watches[-1][0].finished(Failure(ServiceStopped("the client was stopped")))
    viewed.etcd.take("stop of a watch").answer.callback(None)
    failure_of(waiting, ServiceStopped)
    failure_of(ended, ServiceStopped)
    failure_of(viewed.view.at_least(9), ServiceStopped)
    assert viewed.view.stale
    assert viewed.clock.getDelayedCalls() == []


# --- what may be behind ---------------------------------------------------------------------------------------------


def test_it_is_stale_while_nothing_is_heard_of_etcd(viewed: Viewed) -> None:
    told: list[tuple[bool, float | None]] = []
    leave = viewed.view.on_stale(lambda stale: told.append((stale, viewed.view.stale_since)))
    assert not viewed.view.stale
    viewed.loads(7)
    viewed.clock.advance(3)
    viewed.etcd.watches[-1][0].broke()
    assert viewed.view.stale
    assert told == [(True, 3.0)]
    viewed.etcd.watches[-1][0].confirmed(7)
    assert not viewed.view.stale
    leave()
    viewed.etcd.watches[-1][0].broke()
    assert told == [(True, 3.0), (False, None)]


def test_a_permission_that_is_taken_away_makes_it_stale_until_it_is_given_again(viewed: Viewed) -> None:
    viewed.loads(7, kv("p/a", "1", 3))
    viewed.etcd.watches[-1][0].finished(Failure(PermissionDenied(7, "etcdserver: permission denied")))
    viewed.etcd.take("stop of a watch").answer.callback(None)
    assert viewed.view.stale
    assert viewed.values == {b"p/a": b"1"}
    waiting = viewed.view.at_least(30)
    viewed.clock.advance(1)
    asked = [each for each in viewed.etcd.asked if each.options == {"prefix": True}]
    asked[0].answer.callback(found(30, kv("p/a", "2", 29)))
    assert (viewed.values, viewed.view.stale, result_of(waiting)) == ({b"p/a": b"2"}, False, 30)
    assert [[change.key for change in changes] for changes in viewed.told] == [[b"p/a"]]


# --- with real etcds ------------------------------------------------------------------------------------------------


@pytest.fixture
def quick() -> Any:  # noqa: ANN401
    """Nobody waits long between attempts."""
    return random.Random(3).random


async def started(view: CachedView) -> CachedView:
    view.startService()
    await soon(view.when_loaded())
    return view


@ensureDeferred
async def test_what_was_put_is_there(client: EtcdClient, make_client: MakeClient, prefix: str) -> None:
    view = await started(CachedView(client, prefix))
    for number in range(5):
        await soon(view.put(prefix + "k", str(number)))
        assert view[prefix + "k"].value == str(number).encode()
    other = make_client()
    gone = await other.delete(prefix + "k")
    await soon(view.at_least(gone.header.revision))
    assert view.get(prefix + "k") is None
    await other.put(prefix + "l", "1")
    read = await soon(view.read(prefix + "l"))
    assert read == view[prefix + "l"]
    assert await soon(view.read(prefix + "absent")) is None
    for use in (lambda: view.put("elsewhere", ""), lambda: view.read("elsewhere")):
        with pytest.raises(ValueError, match="b'elsewhere' does not begin with"):
            cast("Any", use)()
    await soon(view.stopService())


@ensureDeferred
async def test_a_revision_that_is_none_of_its_prefix_is_reached_as_well(client: EtcdClient, prefix: str) -> None:
    await client.put(prefix + "k", "1")
    await client.put(prefix + "l", "2")
    view = await started(CachedView(client, prefix))
    for _ in range(3):
        last = await client.put("/elsewhere", "")
        assert await soon(view.at_least(last.header.revision)) >= last.header.revision
    # And a change of it comes all the same.
    await soon(view.put(prefix + "k", "3"))
    assert view[prefix + "k"].value == b"3"
    with pytest.raises(DeadlineExceeded, match="did not come to revision"):
        await soon(view.at_least(view.revision + 1000, timeout=0.3))
    await soon(view.stopService())


@ensureDeferred
async def test_all_keys_and_those_of_a_namespace(client: EtcdClient, prefix: str) -> None:
    everything = await started(CachedView(client, ""))
    inside = await started(CachedView(Namespace(client, prefix), ""))
    await soon(inside.put("k", "1"))
    await soon(everything.at_least(inside.revision))
    assert list(inside) == [b"k"]
    assert everything[prefix + "k"].value == b"1"
    await gatherResults([everything.stopService(), inside.stopService()])


class Truth:
    """Writes, one transaction after the other, and knows what was there at each revision."""

    def __init__(self, client: EtcdClient, prefix: str, chance: random.Random) -> None:
        self._client = client
        self._prefix = prefix
        self._chance = chance
        self._state: dict[bytes, bytes] = {}
        self._revisions = [0]
        self._states: list[dict[bytes, bytes]] = [{}]
        self.compacted = 0

    async def write(self) -> int:
        chance = self._chance
        names = chance.sample("abcdefgh", chance.randint(1, 5))
        keys = [f"{self._prefix}{name}" for name in names]
        puts = {key: str(chance.random()) for key in keys if chance.random() < 0.6}
        elsewhere = [op.put("/elsewhere", "")] if chance.random() < 0.3 else []
        operations = [op.put(key, puts[key]) if key in puts else op.delete(key) for key in keys]
        done = await self._client.txn(success=operations + elsewhere)
        for key in keys:
            if key in puts:
                self._state[key.encode()] = puts[key].encode()
            else:
                self._state.pop(key.encode(), None)
        self._revisions.append(done.header.revision)
        self._states.append(dict(self._state))
        return done.header.revision

    async def compact(self) -> None:
        last = await self._client.put("/elsewhere", "")
        await self._client.compact(last.header.revision)
        self.compacted = last.header.revision

    def at(self, revision: int) -> dict[bytes, bytes]:
        return self._states[bisect_right(self._revisions, revision) - 1]


async def check_all(truth: Truth, snapshots: list[ViewSnapshot], client: EtcdClient, prefix: str) -> None:
    assert [each.revision for each in snapshots] == sorted({each.revision for each in snapshots})
    for snapshot in snapshots:
        assert values_of(snapshot) == truth.at(snapshot.revision), snapshot
        if snapshot.revision >= truth.compacted:
            there = await client.get(prefix, prefix=True, revision=snapshot.revision)
            assert {each.key: each for each in there.kvs} == dict(snapshot)


@pytest.mark.parametrize("own_streams", [16, 0], ids=["own-streams", "shared"])
@pytest.mark.parametrize("seed", [1, 2])
@ensureDeferred
async def test_every_snapshot_is_what_etcd_had_at_its_revision(
    make_client: MakeClient,
    client: EtcdClient,
    proxy: FaultProxy,
    prefix: str,
    *,
    own_streams: int,
    seed: int,
) -> None:
    chance = random.Random(seed)
    truth = Truth(client, prefix, chance)
    await truth.write()
    behind_proxy = make_client(endpoints=proxy.endpoint, own_streams=own_streams, random=lambda: 0.0)
    view = await started(CachedView(behind_proxy, prefix, random=chance.random))
    snapshots = [view.snapshot()]
    view.on_change(lambda _: snapshots.append(view.snapshot()))
    for _ in range(60):
        what = chance.random()
        if what < 0.1:
            await soon(proxy.reset())
        elif what < 0.15:
            proxy.reset(on_accept=True)
            await soon(proxy.next_connection())
            await truth.write()
            await truth.compact()
            await soon(proxy.heal())
        elif what < 0.25:
            proxy.cut_after(chance.randint(0, 300))
            await truth.write()
            await soon(proxy.heal())
        elif what < 0.4:
            revision = await truth.write()
            await soon(view.at_least(revision))
            assert values_of(view.snapshot()) == truth.at(revision)
        elif what < 0.5:
            last = await client.put("/elsewhere", "")
            reached = await soon(view.at_least(last.header.revision))
            assert values_of(view.snapshot()) == truth.at(reached)
        else:
            await truth.write()
    await soon(view.at_least(await truth.write()))
    await check_all(truth, snapshots, client, prefix)
    await soon(view.stopService())


@ONE_VERSION
@ensureDeferred
async def test_it_outlives_the_member_that_it_follows(etcd_cluster: EtcdCluster, prefix: str) -> None:
    async with EtcdClient(CLOCK, etcd_cluster.endpoints) as client:
        chance = random.Random(5)
        truth = Truth(client, prefix, chance)
        await truth.write()
        view = await started(CachedView(client, prefix))
        snapshots = [view.snapshot()]
        changed = Event()

        def note(_: object) -> None:
            snapshots.append(view.snapshot())
            changed.happened()

        view.on_change(note)
        await soon(view.at_least(await truth.write()))
        leader = await soon(etcd_cluster.leader())
        await leader.kill()
        # Once it is read there is a leader again, so that the next write is confirmed.
        await soon(client.get("/elsewhere", timeout=15.0))
        revision = await truth.write()
        await soon(view.at_least(revision, timeout=None))
        assert values_of(view.snapshot()) == truth.at(view.revision)
        await check_all(truth, snapshots, client, prefix)
        await soon(view.stopService())
