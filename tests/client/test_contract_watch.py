"""Watches, on each of their carriers: what every server and every stand-in for one must do."""

from __future__ import annotations

from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import CancelledError, Deferred, gatherResults

from tests.client.conftest import MakeClient
from tests.guards import LoggedErrors
from tests.wire import soon
from twisted_etcd.client import op
from twisted_etcd.client.client import EtcdClient
from twisted_etcd.client.position import WatchBatch
from twisted_etcd.client.watch import Watch
from twisted_etcd.errors import Compacted, EmptyKey, ServiceStopped, WatchStopped
from twisted_etcd.schema.kv import Event, EventType
from twisted_etcd.schema.watch import FilterType


@pytest.fixture(params=[16, 0], ids=["own-streams", "shared"])
def watcher(request: pytest.FixtureRequest, make_client: MakeClient) -> EtcdClient:
    """A client whose watches have streams of their own, or share one."""
    return make_client(own_streams=request.param)


async def events_of(watch: Watch, count: int) -> list[Event]:
    """The next so many events, whatever batches they come in."""
    events: list[Event] = []
    while len(events) < count:
        events += (await soon(watch.next())).events
    return events


def shown(events: list[Event], prefix: str) -> list[str]:
    return [f"{event.type} {event.kv.key.decode().removeprefix(prefix)} {event.kv.value.decode()}" for event in events]


# --- what is watched ------------------------------------------------------------------------------------------------


@ensureDeferred
async def test_a_key_is_followed_from_ready_on(watcher: EtcdClient, prefix: str) -> None:
    before = await watcher.put(prefix + "k", "before")
    watch = watcher.watch(prefix + "k")
    assert await soon(watch.ready) >= before.header.revision
    put = await watcher.put(prefix + "k", "1")
    await watcher.put(prefix + "kk", "somebody else's")
    deleted = await watcher.delete(prefix + "k")
    batch = await soon(watch.next())
    assert batch.revision == put.header.revision
    [event] = batch.events
    assert (event.type, event.kv.key, event.kv.value) == (EventType.PUT, (prefix + "k").encode(), b"1")
    assert (event.kv.mod_revision, event.kv.version, event.prev_kv) == (put.header.revision, 2, None)
    [event] = (await soon(watch.next())).events
    assert (event.type, event.kv.mod_revision) == (EventType.DELETE, deleted.header.revision)


@pytest.mark.parametrize(
    ("keys", "options", "seen"),
    [
        ("", {"prefix": True}, "abcd"),
        ("b", {"range_end": "d"}, "bc"),
        ("c", {"from_key": True}, "cd"),
        ("b", {}, "b"),
    ],
    ids=["prefix", "range", "from_key", "key"],
)
@ensureDeferred
async def test_the_keys_that_were_asked_for_are_followed(
    watcher: EtcdClient, prefix: str, keys: str, options: dict[str, Any], seen: str
) -> None:
    if "range_end" in options:
        options = {"range_end": prefix + options["range_end"]}
    watch = watcher.watch(prefix + keys, **options)
    await soon(watch.ready)
    for key in "abcd":
        await watcher.put(prefix + key, "")
    assert shown(await events_of(watch, len(seen)), prefix) == [f"PUT {key} " for key in seen]


@ensureDeferred
async def test_a_prefix_end_is_exact_here_too(watcher: EtcdClient, prefix: str) -> None:
    base = prefix.encode()
    watch = watcher.watch(base + b"a\xff", prefix=True)
    await soon(watch.ready)
    for key in (b"a\xfe", b"a\xff", b"b", b"a\xff\xff"):
        await watcher.put(base + key, key)
    assert [event.kv.value for event in await events_of(watch, 2)] == [b"a\xff", b"a\xff\xff"]


@ensureDeferred
async def test_a_start_revision_brings_the_past_first(watcher: EtcdClient, prefix: str) -> None:
    first = await watcher.put(prefix + "a", "0")
    for value in "123":
        await watcher.put(prefix + "a", value)
    await watcher.delete(prefix + "a")
    watch = watcher.watch(prefix, prefix=True, start_revision=first.header.revision + 1)
    await soon(watch.ready)
    await watcher.put(prefix + "a", "4")
    assert shown(await events_of(watch, 5), prefix) == ["PUT a 1", "PUT a 2", "PUT a 3", "DELETE a ", "PUT a 4"]


@ensureDeferred
async def test_prev_kv_brings_what_was_there_before(watcher: EtcdClient, prefix: str) -> None:
    watch = watcher.watch(prefix + "k", prev_kv=True)
    await soon(watch.ready)
    await watcher.put(prefix + "k", "1")
    await watcher.put(prefix + "k", "2")
    await watcher.delete(prefix + "k")
    before = [event.prev_kv and event.prev_kv.value for event in await events_of(watch, 3)]
    assert before == [None, b"1", b"2"]


@pytest.mark.parametrize(
    ("filters", "seen"),
    [
        ([FilterType.NOPUT], ["DELETE k ", "DELETE k "]),
        ([FilterType.NODELETE], ["PUT k 0", "PUT k 1"]),
    ],
    ids=str,
)
@ensureDeferred
async def test_a_filter_leaves_events_out(
    watcher: EtcdClient, prefix: str, filters: list[FilterType], seen: list[str]
) -> None:
    watch = watcher.watch(prefix, prefix=True, filters=iter(filters), progress_notify=True)
    await soon(watch.ready)
    for value in "01":
        await watcher.put(prefix + "k", value)
        await watcher.delete(prefix + "k")
    assert shown(await events_of(watch, 2), prefix) == seen


@ensureDeferred
async def test_events_of_one_transaction_come_in_one_batch(watcher: EtcdClient, prefix: str) -> None:
    await watcher.put(prefix + "z", "")
    watch = watcher.watch(prefix, prefix=True)
    await soon(watch.ready)
    done = await watcher.txn(
        success=[*(op.put(f"{prefix}{n:03}", str(n)) for n in range(100)), op.delete(prefix + "z")]
    )
    batch = await soon(watch.next())
    assert batch.revision == done.header.revision
    assert {event.kv.mod_revision for event in batch.events} == {done.header.revision}
    assert shown(list(batch.events), prefix) == [*(f"PUT {n:03} {n}" for n in range(100)), "DELETE z "]


@ensureDeferred
async def test_many_events_come_in_order_live_and_from_the_past(watcher: EtcdClient, prefix: str) -> None:
    live = watcher.watch(prefix, prefix=True)
    await soon(live.ready)
    revisions = [(await watcher.put(f"{prefix}{n % 7}", str(n))).header.revision for n in range(120)]
    await gatherResults([watcher.put(f"{prefix}{n}", str(n), batch=False) for n in range(100)])
    past = watcher.watch(prefix, prefix=True, start_revision=revisions[0])
    seen = [event.kv.mod_revision for event in await events_of(live, 220)]
    assert seen == list(range(revisions[0], revisions[0] + 220))
    assert [event.kv.mod_revision for event in await events_of(past, 220)] == seen


# --- the ways to take it --------------------------------------------------------------------------------------------


@ensureDeferred
async def test_async_for_gives_batches_until_it_is_stopped(watcher: EtcdClient, prefix: str) -> None:
    watch = watcher.watch(prefix, prefix=True)
    await soon(watch.ready)
    for value in "abc":
        await watcher.put(prefix + "k", value)
    seen = []
    async for batch in watch:
        seen += [event.kv.value for event in batch.events]
        if len(seen) == 3:
            # Not waited for: the loop ends all the same.
            stopping = watch.stop()
    assert seen == [b"a", b"b", b"c"]
    await soon(stopping)


@ensureDeferred
async def test_async_with_stops_it(watcher: EtcdClient, prefix: str) -> None:
    async with watcher.watch(prefix, prefix=True) as watch:
        await soon(watch.ready)
        await watcher.put(prefix + "k", "v")
        assert len((await soon(watch.next())).events) == 1
    await soon(watch.ended)
    with pytest.raises(WatchStopped):
        await watch.next()


@ensureDeferred
async def test_next_can_be_asked_for_ahead_and_given_up(watcher: EtcdClient, prefix: str) -> None:
    watch = watcher.watch(prefix + "k")
    first, given_up, second = watch.next(), watch.next(), watch.next()
    given_up.cancel()
    with pytest.raises(CancelledError):
        await given_up
    await soon(watch.ready)
    for value, asked in (("1", first), ("2", second)):
        await watcher.put(prefix + "k", value)
        assert (await soon(asked)).events[0].kv.value == value.encode()


class Collected:
    """Collects the values that a callback is given, and fires when there are enough."""

    def __init__(self, enough: int) -> None:
        self.values: list[bytes] = []
        self.done: Deferred[None] = Deferred()
        self._enough = enough

    def take(self, batch: WatchBatch) -> None:
        self.values += [event.kv.value for event in batch.events]
        if len(self.values) == self._enough:
            self.done.callback(None)


@ensureDeferred
async def test_a_callback_gets_each_batch(watcher: EtcdClient, prefix: str) -> None:
    collected = Collected(5)
    watch = watcher.watch(prefix, prefix=True, callback=collected.take)
    await soon(watch.ready)
    for value in "abcde":
        await watcher.put(prefix + "k", value)
    await soon(collected.done)
    assert collected.values == [b"a", b"b", b"c", b"d", b"e"]
    with pytest.raises(RuntimeError, match="hands its batches to a callback"):
        watch.next()


@ensureDeferred
async def test_a_callback_that_returns_a_deferred_or_a_coroutine_gets_one_batch_at_a_time(
    watcher: EtcdClient, prefix: str
) -> None:
    collected, under_way = Collected(5), 0

    async def slow(batch: WatchBatch) -> None:
        nonlocal under_way
        under_way += 1
        assert under_way == 1
        await watcher.get(prefix + "k")
        under_way -= 1
        collected.take(batch)

    def deferred(batch: WatchBatch) -> Deferred[None]:
        return Deferred.fromCoroutine(slow(batch))

    for callback in (slow, deferred):
        collected, under_way = Collected(5), 0
        watch = watcher.watch(prefix, prefix=True, callback=callback)
        await soon(watch.ready)
        await gatherResults([watcher.put(prefix + "k", value) for value in "abcde"])
        await soon(collected.done)
        assert sorted(collected.values) == [b"a", b"b", b"c", b"d", b"e"]
        await watch.stop()


@ensureDeferred
async def test_a_callback_that_fails_ends_the_watch_with_its_error(
    watcher: EtcdClient, prefix: str, logged_errors: LoggedErrors
) -> None:
    def plain(batch: WatchBatch) -> None:
        raise ZeroDivisionError(batch.revision)

    async def coroutine(batch: WatchBatch) -> None:
        plain(batch)

    for callback in (plain, coroutine):
        watch = watcher.watch(prefix, prefix=True, callback=callback)
        await soon(watch.ready)
        ended = watch.ended
        put = await watcher.put(prefix + "k", "v")
        with pytest.raises(ZeroDivisionError, match=str(put.header.revision)):
            await soon(ended)
        assert len(logged_errors.flush(ZeroDivisionError)) == 1
        await watch.stop()


# --- its end --------------------------------------------------------------------------------------------------------


@ensureDeferred
async def test_nothing_comes_after_stop(watcher: EtcdClient, prefix: str) -> None:
    watch, other = watcher.watch(prefix, prefix=True), watcher.watch(prefix, prefix=True)
    await soon(gatherResults([watch.ready, other.ready]))
    ended = watch.ended
    await watcher.put(prefix + "k", "1")
    await events_of(other, 1)
    waiting = [watch.next(), watch.next()]
    assert await soon(waiting[0])
    await soon(watch.stop())
    with pytest.raises(WatchStopped, match="the watch was stopped"):
        await waiting[1]
    await watcher.put(prefix + "k", "2")
    assert shown(await events_of(other, 1), prefix) == ["PUT k 2"]
    with pytest.raises(WatchStopped):
        await watch.next()
    await soon(ended)
    await soon(watch.stop())
    assert repr(watch).endswith("ended>")


@ensureDeferred
async def test_stop_drops_what_was_not_taken(watcher: EtcdClient, prefix: str) -> None:
    watch, other = watcher.watch(prefix, prefix=True), watcher.watch(prefix, prefix=True)
    await soon(gatherResults([watch.ready, other.ready]))
    await gatherResults([watcher.put(prefix + "k", "v") for _ in range(5)])
    await events_of(other, 5)
    await soon(watch.stop())
    with pytest.raises(WatchStopped):
        await watch.next()


@ensureDeferred
async def test_a_watch_can_be_stopped_before_it_is_confirmed(watcher: EtcdClient, prefix: str) -> None:
    watch = watcher.watch(prefix, prefix=True)
    ready = watch.ready
    await soon(watch.stop())
    with pytest.raises(WatchStopped):
        await ready
    await soon(watch.ended)


@ensureDeferred
async def test_a_watch_can_be_stopped_from_its_own_callback(watcher: EtcdClient, prefix: str) -> None:
    seen: list[WatchBatch] = []

    def once(batch: WatchBatch) -> Deferred[None]:
        seen.append(batch)
        # Waits for its own end, which must not wait for it.
        return watch.stop()

    watch = watcher.watch(prefix, prefix=True, callback=once)
    await soon(watch.ready)
    await watcher.put(prefix + "k", "1")
    await soon(watch.ended)
    other = watcher.watch(prefix, prefix=True)
    await soon(other.ready)
    await watcher.put(prefix + "k", "2")
    await events_of(other, 1)
    assert len(seen) == 1


@ensureDeferred
async def test_a_compacted_start_revision_is_told_with_what_can_be_had(watcher: EtcdClient, prefix: str) -> None:
    first = (await watcher.put(prefix + "k", "1")).header.revision
    await watcher.put(prefix + "k", "2")
    await watcher.compact(first + 1)
    watch = watcher.watch(prefix, prefix=True, start_revision=first)
    ended = watch.ended
    with pytest.raises(Compacted, match="read the current state and go on") as raised:
        await soon(watch.next())
    assert raised.value.compact_revision == first + 1
    with pytest.raises(Compacted):
        await soon(ended)
    with pytest.raises(Compacted):
        await watch.next()
    # From the revision that was named it goes.
    again = watcher.watch(prefix, prefix=True, start_revision=raised.value.compact_revision)
    assert shown(await events_of(again, 1), prefix) == ["PUT k 2"]


@ensureDeferred
async def test_a_client_that_stops_ends_its_watches(watcher: EtcdClient, prefix: str) -> None:
    watch = watcher.watch(prefix, prefix=True)
    await soon(watch.ready)
    ended, waiting = watch.ended, watch.next()

    async def loop() -> None:
        with pytest.raises(ServiceStopped):
            await anext(watch)

    looping = Deferred.fromCoroutine(loop())
    await soon(watcher.stopService())
    with pytest.raises(ServiceStopped, match="the client was stopped"):
        await waiting
    with pytest.raises(ServiceStopped, match="the client was stopped"):
        await ended
    await looping


@ensureDeferred
async def test_a_watch_after_the_stop_ends_at_once(watcher: EtcdClient, prefix: str) -> None:
    await watcher.stopService()
    watch = watcher.watch(prefix, prefix=True)
    for each in (watch.ready, watch.ended, watch.next()):
        with pytest.raises(ServiceStopped):
            await each
    await watch.stop()


@ensureDeferred
async def test_an_empty_key_is_refused(watcher: EtcdClient, prefix: str) -> None:
    # etcd itself would take it for the key \x00, and say nothing, ever.
    watch = watcher.watch("")
    for each in (watch.ready, watch.ended, watch.next()):
        with pytest.raises(EmptyKey, match="give a key that is not empty, or prefix=True for all keys"):
            await each
    everything = watcher.watch("", prefix=True)
    await soon(everything.ready)
    await watcher.put(prefix + "k", "v")
    assert shown(await events_of(everything, 1), prefix) == ["PUT k v"]


# --- slow consumers, many watches -----------------------------------------------------------------------------------


@ensureDeferred
async def test_a_slow_consumer_loses_nothing_and_holds_up_nobody(watcher: EtcdClient, prefix: str) -> None:
    slow = watcher.watch(prefix, prefix=True, max_backlog=10)
    quick = watcher.watch(prefix, prefix=True)
    await soon(gatherResults([slow.ready, quick.ready]))
    seen: list[list[int]] = [[], []]
    for _ in range(3):
        for n in range(30):
            await watcher.put(prefix + "k", str(n))
        for number, watch in enumerate((quick, slow)):
            seen[number] += [event.kv.mod_revision for event in await events_of(watch, 30)]
    assert seen[0] == seen[1] == list(range(seen[0][0], seen[0][0] + 90))


@ensureDeferred
async def test_a_slow_callback_loses_nothing(watcher: EtcdClient, prefix: str) -> None:
    collected, gate = Collected(100), Deferred[None]()

    async def callback(batch: WatchBatch) -> None:
        if not collected.values:
            await gate
        collected.take(batch)

    watch = watcher.watch(prefix, prefix=True, callback=callback, max_backlog=5)
    await soon(watch.ready)
    for n in range(100):
        await watcher.put(prefix + "k", str(n))
    gate.callback(None)
    await soon(collected.done)
    assert collected.values == [str(n).encode() for n in range(100)]


@ensureDeferred
async def test_some_watches_with_streams_of_their_own_and_some_that_share(make_client: MakeClient, prefix: str) -> None:
    client = make_client(own_streams=2)
    watches = [client.watch(f"{prefix}{n}") for n in range(6)]
    await soon(gatherResults([watch.ready for watch in watches]))
    await client.txn(success=[op.put(f"{prefix}{n}", str(n)) for n in range(6)])
    batches = await soon(gatherResults([watch.next() for watch in watches]))
    assert [batch.events[0].kv.value for batch in batches] == [str(n).encode() for n in range(6)]
    # Two of their own, one that is shared, and one for requests.
    assert client.connection_count == 4
    await soon(gatherResults([watch.stop() for watch in watches]))
    again = [client.watch(f"{prefix}{n}", start_revision=batches[0].revision) for n in range(6)]
    batches = await soon(gatherResults([watch.next() for watch in again]))
    assert [batch.events[0].kv.value for batch in batches] == [str(n).encode() for n in range(6)]


@ensureDeferred
async def test_a_thousand_watches_share_one_connection(make_client: MakeClient, prefix: str) -> None:
    client = make_client(own_streams=0)
    watches = [client.watch(f"{prefix}{n:04}") for n in range(1000)]
    await soon(gatherResults([watch.ready for watch in watches]))
    assert client.connection_count == 1
    for start in range(0, 1000, 100):
        await client.txn(success=[op.put(f"{prefix}{n:04}", str(n)) for n in range(start, start + 100)])
    batches = await soon(gatherResults([watch.next() for watch in watches]))
    assert [batch.events[0].kv.value for batch in batches] == [str(n).encode() for n in range(1000)]
    await soon(gatherResults([watch.stop() for watch in watches]))
    await soon(client.stopService())
