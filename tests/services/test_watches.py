"""Watches by messages: who is told, for how long, and what ends them."""

from __future__ import annotations

from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import gatherResults

from tests.services.world import Caller, MakeWorld, World, a_turn, fails
from tests.wire import soon
from twisted_etcd.embedded.process import EmbeddedEtcd
from twisted_etcd.errors import (
    Compacted,
    EmptyKey,
    ServiceNotFound,
    ServiceStopped,
    ServiceUnavailable,
    SessionTimeout,
)
from twisted_etcd.messaging.messages import Request
from twisted_etcd.schema.kv import EventType
from twisted_etcd.services.messages import (
    ETCD_SERVICE,
    EtcdConfigWatchReq,
    EtcdServiceWatchReq,
    EtcdUnwatchReq,
    EtcdUnwatchResp,
    EtcdWatchEndedMsg,
    EtcdWatchEvent,
    EtcdWatchReq,
)


@ensureDeferred
async def test_a_prefix_watch_sees_all_below_it_in_the_order_of_revisions(world: World, prefix: str) -> None:
    watch = await world.caller.ask(EtcdWatchReq(key=prefix + "p", prefix=True))
    await world.client.put(prefix + "q", "beside it")
    await world.client.put(prefix + "pb", "1")
    await world.client.put(prefix.encode() + b"pa\xff", "")
    await world.client.delete(prefix + "pb")
    events = [await world.caller.next(EtcdWatchEvent) for _ in range(3)]
    assert [(each.key.removeprefix(prefix.encode()), each.event_type, each.value) for each in events] == [
        (b"pb", EventType.PUT, b"1"),
        (b"pa\xff", EventType.PUT, b""),
        (b"pb", EventType.DELETE, None),
    ]
    assert [each.prev_value for each in events] == [None, None, b"1"]
    assert {each.watch_id for each in events} == {watch.watch_id}
    assert watch.revision < events[0].revision < events[1].revision < events[2].revision


@ensureDeferred
async def test_a_start_revision_in_the_past_brings_what_happened_since(world: World, prefix: str) -> None:
    revisions = [(await world.client.put(prefix + "k", str(number))).header.revision for number in range(3)]
    watch = await world.caller.ask(EtcdWatchReq(key=prefix + "k", start_revision=revisions[1]))
    await world.client.put(prefix + "k", "3")
    events = [await world.caller.next(EtcdWatchEvent) for _ in range(3)]
    assert [each.value for each in events] == [b"1", b"2", b"3"]
    assert [each.prev_value for each in events] == [b"0", b"1", b"2"]
    assert {each.watch_id for each in events} == {watch.watch_id}


@ensureDeferred
async def test_nothing_is_told_before_the_answer_with_the_watchs_number(world: World, prefix: str) -> None:
    first = (await world.client.put(prefix + "k", "0")).header.revision
    for number in range(50):
        await world.client.put(prefix + "k", str(number))
    told_before: list[int] = []
    asking = world.caller.call(ETCD_SERVICE, EtcdWatchReq(key=prefix + "k", start_revision=first))
    asking.addCallback(lambda _: told_before.append(len(world.caller.got)))
    await soon(asking)
    assert told_before == [0]
    await world.caller.next(EtcdWatchEvent, lambda event: event.value == b"49")


@ensureDeferred
async def test_a_compacted_start_revision_fails_the_call_and_leaves_no_watch(world: World, prefix: str) -> None:
    first = (await world.client.put(prefix + "k", "0")).header.revision
    last = (await world.client.put(prefix + "k", "1")).header.revision
    await world.client.compact(last)
    request = EtcdWatchReq(key=prefix + "k", start_revision=first)
    error = await fails(Compacted, world.caller.call(ETCD_SERVICE, request))
    assert error.compact_revision == last
    assert world.etcd.watch_count == 0
    assert world.caller.got == []


@ensureDeferred
async def test_an_empty_key_cannot_be_watched_but_an_empty_prefix_can(world: World, prefix: str) -> None:
    await fails(EmptyKey, world.caller.call(ETCD_SERVICE, EtcdWatchReq(key="")))
    assert world.etcd.watch_count == 0
    await world.caller.ask(EtcdWatchReq(key="", prefix=True))
    await world.client.put(prefix + "k", "v")
    await world.caller.next(EtcdWatchEvent, lambda event: event.key == (prefix + "k").encode())


@ensureDeferred
async def test_a_key_that_is_no_key_leaves_no_watch(world: World) -> None:
    await fails(TypeError, world.caller.call(ETCD_SERVICE, EtcdWatchReq(key=7)))  # type: ignore[arg-type]
    assert world.etcd.watch_count == 0


# --- who is told ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by_name", [True, False], ids=["name", "handle"])
@ensureDeferred
async def test_another_service_can_be_the_subscriber(world: World, prefix: str, *, by_name: bool) -> None:
    other = world.add(Caller("Other"))
    await soon(other.when_started())
    request = EtcdWatchReq(key=prefix + "k", subscriber="Other" if by_name else other.handle)
    # Also from outside the node.
    watch = await soon(world.node.call(ETCD_SERVICE, request))
    await world.client.put(prefix + "k", "v")
    assert (await other.next(EtcdWatchEvent)).watch_id == watch.watch_id
    assert world.caller.got == []


def watch_request(kind: str, subscriber: str | None = None) -> Request[Any]:
    """A request for a watch of one of the three kinds."""
    if kind == "key":
        return EtcdWatchReq(key="k", subscriber=subscriber)
    return EtcdConfigWatchReq("k", subscriber) if kind == "config" else EtcdServiceWatchReq("k", subscriber)


every_kind = pytest.mark.parametrize("kind", ["key", "config", "service"])


@every_kind
@ensureDeferred
async def test_a_subscriber_that_is_not_there_is_named(world: World, kind: str) -> None:
    request = watch_request(kind, "Nobody")
    error = await fails(ServiceNotFound, world.caller.call(ETCD_SERVICE, request))
    assert "'Nobody'" in str(error)
    outside = await fails(ServiceNotFound, world.node.call(ETCD_SERVICE, watch_request(kind)))
    assert str(outside) == (
        f"{type(request).__name__} to 'EtcdService' came from outside the node: "
        "name its subscriber, a service of the node"
    )
    assert world.etcd.watch_count == 0


# --- how they end ---------------------------------------------------------------------------------------------------


@ensureDeferred
async def test_an_unknown_watch_cannot_be_ended(world: World) -> None:
    assert await world.caller.ask(EtcdUnwatchReq(7)) == EtcdUnwatchResp(success=False)


@ensureDeferred
async def test_a_watch_that_was_ended_has_no_stream_left(world: World, prefix: str) -> None:
    await world.client.put(prefix + "k", "v")
    idle = world.client.connection_count
    watch = await world.caller.ask(EtcdWatchReq(key=prefix + "k"))
    assert world.client.connection_count == idle + 1
    assert (await world.caller.ask(EtcdUnwatchReq(watch.watch_id))).success
    await a_turn()
    assert (world.etcd.watch_count, world.client.connection_count) == (0, idle)
    assert not (await world.caller.ask(EtcdUnwatchReq(watch.watch_id))).success


@ensureDeferred
async def test_all_watches_end_with_their_subscriber_and_the_others_stay(world: World, prefix: str) -> None:
    other = world.add(Caller("Other"))
    await soon(other.when_started())
    await other.ask(EtcdWatchReq(key=prefix + "k"))
    await other.ask(EtcdConfigWatchReq("app"))
    await other.ask(EtcdServiceWatchReq("shop"))
    mine = await world.caller.ask(EtcdWatchReq(key=prefix + "k"))
    assert world.etcd.watch_count == 4
    await soon(other.stopService())
    assert world.etcd.watch_count == 1
    await world.client.put(prefix + "k", "v")
    assert (await world.caller.next(EtcdWatchEvent)).watch_id == mine.watch_id
    assert other.got == []


@every_kind
@ensureDeferred
async def test_a_watch_that_is_being_made_ends_with_its_subscriber(world: World, kind: str) -> None:
    other = world.add(Caller("Other"))
    await soon(other.when_started())
    asking = world.caller.call(ETCD_SERVICE, watch_request(kind, "Other"))
    # In the next turn the request arrives; it takes several to reach etcd and come back.
    await a_turn()
    assert world.etcd.watch_count == 1
    assert not asking.called
    await soon(other.stopService())
    error = await fails(ServiceUnavailable, asking)
    assert "'Other'" in str(error)
    assert world.etcd.watch_count == 0


@ensureDeferred
async def test_a_subscriber_that_has_stopped_is_refused(world: World, prefix: str) -> None:
    other = world.add(Caller("Other"))
    await soon(other.when_started())
    handle = other.handle
    await soon(other.stopService())
    request = EtcdWatchReq(key=prefix + "k", subscriber=handle)
    await fails(ServiceUnavailable, world.caller.call(ETCD_SERVICE, request))
    assert (world.etcd.watch_count, world.client.connection_count) == (0, 0)


@ensureDeferred
async def test_a_watch_whose_call_ran_out_of_time_is_not_left_behind(
    make_world: MakeWorld, prefix: str, silent_endpoint: str
) -> None:
    world = await make_world(silent_endpoint)
    request = EtcdWatchReq(key=prefix + "k")
    await fails(SessionTimeout, world.caller.call(ETCD_SERVICE, request, timeout=0.05))
    assert world.etcd.watch_count == 0


@ensureDeferred
async def test_a_watch_that_ends_by_itself_says_so_to_its_subscriber(
    make_world: MakeWorld, etcd_server: EmbeddedEtcd
) -> None:
    world = await make_world(etcd_server.endpoint)
    watches = [await world.caller.ask(watch_request(kind)) for kind in ("key", "config", "service")]
    await soon(world.client.stopService())
    ended = [await world.caller.next(EtcdWatchEndedMsg) for _ in watches]
    assert {each.watch_id for each in ended} == {each.watch_id for each in watches}
    assert {type(each.error) for each in ended} == {ServiceStopped}
    assert world.etcd.watch_count == 0


@ensureDeferred
async def test_many_watches_at_once_are_all_told_and_all_ended(world: World, prefix: str) -> None:
    asking = [world.caller.call(ETCD_SERVICE, EtcdWatchReq(key=f"{prefix}{number}")) for number in range(40)]
    watches = await soon(gatherResults(asking))
    for number in range(40):
        await world.client.put(f"{prefix}{number}", "v")
    events = [await world.caller.next(EtcdWatchEvent) for _ in watches]
    assert {event.watch_id for event in events} == {watch.watch_id for watch in watches}
    await soon(world.caller.stopService())
    assert world.etcd.watch_count == 0
