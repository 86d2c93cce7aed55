"""Configuration by messages."""

from __future__ import annotations

import pytest
from pytest_twisted import ensureDeferred

from tests.services.world import Caller, MakeWorld, World, fails
from tests.wire import soon
from twisted_etcd.config.changes import ChangeType
from twisted_etcd.config.history import Older
from twisted_etcd.errors import InvalidSettings, Unavailable
from twisted_etcd.messaging.messages import Request
from twisted_etcd.services.messages import (
    ETCD_SERVICE,
    EtcdConfigChangedMsg,
    EtcdConfigHistoryReq,
    EtcdConfigLoadReq,
    EtcdConfigSetReq,
    EtcdConfigWatchReq,
    EtcdUnwatchReq,
)
from twisted_etcd.testing.proxy import FaultProxy


def _seen(message: EtcdConfigChangedMsg) -> tuple[ChangeType, bytes | None, bytes | None]:
    return message.change_type, message.old_value, message.new_value


@ensureDeferred
async def test_a_watch_sees_creation_modification_and_deletion(world: World) -> None:
    watch = await world.caller.ask(EtcdConfigWatchReq("app"))
    assert watch.config_value is None
    await world.caller.ask(EtcdConfigSetReq("app", "1"))
    await world.caller.ask(EtcdConfigSetReq("app", b"\xff"))
    await world.client.delete(world.config_key("app"))
    await world.caller.ask(EtcdConfigSetReq("app", ""))
    assert [_seen(await world.caller.next(EtcdConfigChangedMsg)) for _ in range(4)] == [
        (ChangeType.CREATED, None, b"1"),
        (ChangeType.MODIFIED, b"1", b"\xff"),
        (ChangeType.DELETED, b"\xff", None),
        (ChangeType.CREATED, None, b""),
    ]


@ensureDeferred
async def test_a_watch_sees_its_own_key_alone(world: World) -> None:
    await world.caller.ask(EtcdConfigWatchReq("app"))
    await world.caller.ask(EtcdConfigSetReq("app/below", "1"))
    await world.caller.ask(EtcdConfigSetReq("apple", "2"))
    await world.caller.ask(EtcdConfigSetReq("app", "3"))
    assert (await world.caller.next(EtcdConfigChangedMsg)).new_value == b"3"


@ensureDeferred
async def test_values_are_kept_below_the_prefix_and_slashes_around_the_key_mean_nothing(world: World) -> None:
    await world.caller.ask(EtcdConfigSetReq("/app/db/", "v"))
    [kv] = (await world.client.get(world.config_key("app/db"))).kvs
    assert kv.value == b"v"
    assert (await world.caller.ask(EtcdConfigLoadReq("app/db"))).config_value == b"v"
    assert (await world.caller.ask(EtcdConfigLoadReq("app"))).config_value is None


@pytest.mark.parametrize("request_", [EtcdConfigLoadReq(""), EtcdConfigSetReq("/", "v"), EtcdConfigWatchReq("//")])
@ensureDeferred
async def test_an_empty_key_is_refused_and_leaves_nothing(world: World, request_: Request[None]) -> None:
    error = await fails(InvalidSettings, world.caller.call(ETCD_SERVICE, request_))
    assert str(error).endswith("is empty; give a path such as 'app/database'")
    assert world.etcd.watch_count == 0


@ensureDeferred
async def test_no_change_is_lost_and_each_goes_on_where_the_last_one_ended(world: World) -> None:
    await world.caller.ask(EtcdConfigWatchReq("app"))
    for number in range(100):
        await world.client.put(world.config_key("app"), str(number))
    changes = [await world.caller.next(EtcdConfigChangedMsg) for _ in range(100)]
    assert [change.new_value for change in changes] == [str(number).encode() for number in range(100)]
    assert [change.old_value for change in changes] == [None, *(change.new_value for change in changes[:-1])]


@ensureDeferred
async def test_a_value_is_set_only_where_it_is_what_it_is_taken_for(world: World) -> None:
    first = await world.caller.ask(EtcdConfigSetReq("app", "1", if_revision=0))
    assert first.success
    refused = await world.caller.ask(EtcdConfigSetReq("app", "2", if_revision=0))
    assert (refused.success, refused.revision) == (False, first.revision)
    loaded = await world.caller.ask(EtcdConfigLoadReq("app"))
    assert (loaded.config_value, loaded.mod_revision) == (b"1", first.revision)
    assert (await world.caller.ask(EtcdConfigSetReq("app", "2", if_revision=loaded.mod_revision))).success
    gone = await world.caller.ask(EtcdConfigSetReq("none", "1", if_revision=5))
    assert (gone.success, gone.revision) == (False, 0)


@ensureDeferred
async def test_all_below_a_path_is_followed_by_one_watch(world: World) -> None:
    await world.caller.ask(EtcdConfigSetReq("app/db", "1"))
    watch = await world.caller.ask(EtcdConfigWatchReq("app/", prefix=True))
    assert (watch.config_value, watch.config_values) == (None, {"app/db": b"1"})
    everything = await world.caller.ask(EtcdConfigWatchReq("", prefix=True))
    assert everything.config_values == {"app/db": b"1"}
    await world.caller.ask(EtcdUnwatchReq(everything.watch_id))
    for key in ("app", "apple", "app/db", "app/x/y"):
        await world.caller.ask(EtcdConfigSetReq(key, "2"))
    changes = [await world.caller.next(EtcdConfigChangedMsg) for _ in range(2)]
    assert [(change.key, change.old_value) for change in changes] == [("app/db", b"1"), ("app/x/y", None)]


@ensureDeferred
async def test_changes_are_told_together_when_it_is_quiet(world: World) -> None:
    watch = await world.caller.ask(EtcdConfigWatchReq("app", quiet_min=0.05))
    assert watch.mod_revision == 0
    for number in range(20):
        await world.client.put(world.config_key("app"), str(number))
    change = await world.caller.next(EtcdConfigChangedMsg, lambda each: each.new_value == b"19")
    assert change.change_type in {ChangeType.CREATED, ChangeType.MODIFIED}
    assert len(world.caller.got) < 5
    error = await fails(InvalidSettings, world.caller.call(ETCD_SERVICE, EtcdConfigWatchReq("app", quiet_min=-1)))
    assert str(error).startswith("quiet_min must be at least 0 seconds")
    await world.caller.ask(EtcdConfigSetReq("app", "not told any more"))
    await world.caller.ask(EtcdUnwatchReq(watch.watch_id))


@ensureDeferred
async def test_the_history_of_a_value(world: World) -> None:
    for value in ("1", "2"):
        await world.caller.ask(EtcdConfigSetReq("app", value))
    history = await world.caller.ask(EtcdConfigHistoryReq("app", limit=1))
    assert [(entry.change_type, entry.value) for entry in history.entries] == [(ChangeType.MODIFIED, b"2")]
    assert history.older is Older.MORE
    history = await world.caller.ask(EtcdConfigHistoryReq("app"))
    assert [entry.value for entry in history.entries] == [b"2", b"1"]


@ensureDeferred
async def test_two_watches_of_one_key_are_told_apart_by_who_asked_and_end_alone(world: World) -> None:
    other = world.add(Caller("Other"))
    await soon(other.when_started())
    mine = await world.caller.ask(EtcdConfigWatchReq("app"))
    theirs = await other.ask(EtcdConfigWatchReq("app"))
    assert mine.watch_id != theirs.watch_id
    await world.caller.ask(EtcdConfigSetReq("app", "1"))
    assert (await world.caller.next(EtcdConfigChangedMsg)).new_value == b"1"
    assert (await other.next(EtcdConfigChangedMsg)).new_value == b"1"
    await world.caller.ask(EtcdUnwatchReq(mine.watch_id))
    await world.caller.ask(EtcdConfigSetReq("app", "2"))
    assert _seen(await other.next(EtcdConfigChangedMsg)) == (ChangeType.MODIFIED, b"1", b"2")
    assert world.caller.got == []


@ensureDeferred
async def test_what_changes_while_the_connection_is_away_is_seen_afterwards(
    make_world: MakeWorld, proxy: FaultProxy, world: World
) -> None:
    cut_off = await make_world(proxy.endpoint)
    await cut_off.caller.ask(EtcdConfigWatchReq("app"))
    await proxy.refuse()
    proxy.reset()
    await world.caller.ask(EtcdConfigSetReq("app", "1"))
    await world.caller.ask(EtcdConfigSetReq("app", "2"))
    await proxy.heal()
    assert _seen(await cut_off.caller.next(EtcdConfigChangedMsg)) == (ChangeType.CREATED, None, b"1")
    assert _seen(await cut_off.caller.next(EtcdConfigChangedMsg)) == (ChangeType.MODIFIED, b"1", b"2")


@ensureDeferred
async def test_a_compaction_meanwhile_leaves_the_difference(
    make_world: MakeWorld, proxy: FaultProxy, world: World
) -> None:
    cut_off = await make_world(proxy.endpoint)
    await world.caller.ask(EtcdConfigSetReq("app", "0"))
    await cut_off.caller.ask(EtcdConfigWatchReq("app"))
    await proxy.refuse()
    proxy.reset()
    await world.caller.ask(EtcdConfigSetReq("app", "1"))
    last = await world.caller.ask(EtcdConfigSetReq("app", "2"))
    await world.client.compact(last.revision)
    await proxy.heal()
    change = await cut_off.caller.next(EtcdConfigChangedMsg)
    assert _seen(change) == (ChangeType.MODIFIED, b"0", b"2")
    assert change.revision == last.revision


@ensureDeferred
async def test_a_patient_watch_waits_for_etcd(make_world: MakeWorld, proxy: FaultProxy) -> None:
    await proxy.refuse()
    world = await make_world(proxy.endpoint, client={"request_timeout": 0.1})
    asking = world.caller.call(ETCD_SERVICE, EtcdConfigWatchReq("app", patient=True))
    impatient = world.caller.call(ETCD_SERVICE, EtcdConfigWatchReq("app"))
    await fails(Unavailable, impatient)
    assert not asking.called
    await proxy.heal()
    assert (await soon(asking)).config_value is None
    assert world.etcd.watch_count == 1
