"""Services found by messages."""

from __future__ import annotations

import math
from typing import Any

import pytest
from pytest_twisted import ensureDeferred

from tests.services.world import Caller, MakeWorld, World, a_turn, fails
from tests.wire import soon
from twisted_etcd.embedded.process import EmbeddedEtcd
from twisted_etcd.errors import InvalidSettings, ServiceStopped, Unavailable
from twisted_etcd.registry.instance import Instance, Status, encode_instance
from twisted_etcd.registry.protection import Protection
from twisted_etcd.services.api import EtcdApi
from twisted_etcd.services.messages import (
    ETCD_SERVICE,
    EtcdServiceChangedMsg,
    EtcdServiceDiscoverReq,
    EtcdServiceDiscoverResp,
    EtcdServiceRegisterReq,
    EtcdServiceWatchReq,
    EtcdUnwatchReq,
    EtcdWatchEndedMsg,
)
from twisted_etcd.testing.proxy import FaultProxy

PATIENT: dict[str, Any] = {"request_timeout": 0.2, "random": lambda: 0.0}


def at(number: int, *tags: str, **fields: Any) -> Instance:  # noqa: ANN401 - as Instance has them
    return Instance(address="10.0.0.1", port=number, tags=tags, **fields)


async def put(world: World, *instances: Instance) -> None:
    for each in instances:
        await world.client.put(world.service_key("shop", each.endpoint), encode_instance(each))


async def delete(world: World, *instances: Instance) -> None:
    for each in instances:
        await world.client.delete(world.service_key("shop", each.endpoint))


def found(*instances: Instance, stale: bool = False) -> EtcdServiceDiscoverResp:
    return EtcdServiceDiscoverResp(tuple(each.endpoint for each in instances), instances, stale)


# --- asked for ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fresh", [True, False])
@ensureDeferred
async def test_what_is_asked_for_is_found_and_critical_ones_are_asked_for(world: World, fresh: bool) -> None:  # noqa: FBT001
    plain, eu = at(1), at(2, "eu", metadata={"zone": "a"})
    critical = at(3, "eu", status=Status.CRITICAL)
    await put(world, plain, eu, critical)

    async def ask(**options: Any) -> EtcdServiceDiscoverResp:  # noqa: ANN401
        return await world.caller.ask(EtcdServiceDiscoverReq("shop", fresh=fresh, **options))

    assert await ask() == found(plain, eu)
    assert await ask(tags=("eu",)) == found(eu)
    assert await ask(metadata={"zone": "a"}) == found(eu)
    assert await ask(metadata={"zone": "b"}) == found()
    assert await ask(status=tuple(Status)) == found(plain, eu, critical)
    api = EtcdApi(world.caller)
    assert await soon(api.discover_service("shop", tags=("eu",), fresh=fresh)) == (eu,)
    assert await soon(api.discover_service("shop", metadata={"zone": "a"}, fresh=fresh)) == (eu,)


@pytest.mark.parametrize("request_", [EtcdServiceDiscoverReq, EtcdServiceWatchReq])
@pytest.mark.parametrize(
    ("bad", "words"),
    [({"tags": "eu"}, "tags must be several texts"), ({"status": ("fine",)}, "Invalid enum value 'fine'")],
)
@ensureDeferred
async def test_a_filter_that_cannot_be_used_is_refused(world: World, request_: Any, bad: Any, words: str) -> None:  # noqa: ANN401
    error = await fails(InvalidSettings, world.caller.call(ETCD_SERVICE, request_("shop", **bad)))
    assert words in str(error)
    assert world.etcd.watch_count == 0


@ensureDeferred
async def test_a_registration_that_was_answered_is_found_at_once_whoever_made_it(
    make_world: MakeWorld, etcd_server: EmbeddedEtcd
) -> None:
    worlds = [await make_world(etcd_server.endpoint) for _ in range(2)]
    for number in range(20):
        address = f"10.0.0.1:{number + 1}"
        await worlds[number % 2].caller.ask(EtcdServiceRegisterReq(service_name="shop", service_address=address))
        for world in worlds:
            answer = await world.caller.ask(EtcdServiceDiscoverReq("shop"))
            assert len(answer.instances) == number + 1
            assert address in answer.service_addresses


@ensureDeferred
async def test_while_etcd_is_away_the_last_answer_is_given_as_stale(make_world: MakeWorld, proxy: FaultProxy) -> None:
    world = await make_world(proxy.endpoint, client=PATIENT)
    await put(world, at(1), at(2, "eu"))
    assert await world.caller.ask(EtcdServiceDiscoverReq("shop")) == found(at(1), at(2, "eu"))
    await soon(world.etcd.registry.view("shop").when_loaded())
    await proxy.refuse()
    proxy.reset()
    assert await world.caller.ask(EtcdServiceDiscoverReq("shop")) == found(at(1), at(2, "eu"), stale=True)
    by_view = await world.caller.ask(EtcdServiceDiscoverReq("shop", tags=("eu",), fresh=False))
    assert by_view == found(at(2, "eu"), stale=True)
    # Of what it was never asked for it knows nothing.
    await fails(Unavailable, world.caller.call(ETCD_SERVICE, EtcdServiceDiscoverReq("other")))
    await proxy.heal()
    await put(world, at(3))
    assert await world.caller.ask(EtcdServiceDiscoverReq("shop")) == found(at(1), at(2, "eu"), at(3))


# --- followed -------------------------------------------------------------------------------------------------------


@ensureDeferred
async def test_only_changes_of_what_was_asked_for_are_told(world: World) -> None:
    await put(world, at(1, "eu"), at(2))
    answer = await world.caller.ask(EtcdServiceWatchReq("shop", tags=("eu",)))
    assert answer.instances == (at(1, "eu"),)
    assert not answer.stale
    await put(world, at(3), at(2, "us"), at(4, "eu"))
    told = await world.caller.next(EtcdServiceChangedMsg)
    assert (told.instances, told.added, told.removed) == ((at(1, "eu"), at(4, "eu")), (at(4, "eu"),), ())
    await put(world, at(1, "us"))
    told = await world.caller.next(EtcdServiceChangedMsg)
    assert (told.instances, told.added, told.removed) == ((at(4, "eu"),), (), (at(1, "eu"),))
    assert world.caller.got == []


@ensureDeferred
async def test_many_who_follow_a_service_share_one_view_and_end_alone(world: World) -> None:
    await put(world, at(1))
    callers = [world.add(Caller(f"caller-{number}")) for number in range(5)]
    await a_turn()
    watches = [await caller.ask(EtcdServiceWatchReq("shop")) for caller in callers]
    assert len(world.etcd.registry.views) == 1
    await callers[0].ask(EtcdUnwatchReq(watches[0].watch_id))
    await put(world, at(2))
    for caller in callers[1:]:
        assert (await caller.next(EtcdServiceChangedMsg)).added == (at(2),)
    assert callers[0].got == []
    assert world.etcd.watch_count == 4


@ensureDeferred
async def test_stale_and_fresh_are_told_without_a_change(make_world: MakeWorld, proxy: FaultProxy) -> None:
    world = await make_world(proxy.endpoint, client=PATIENT)
    await put(world, at(1))
    await world.caller.ask(EtcdServiceWatchReq("shop"))
    await proxy.refuse()
    proxy.reset()
    assert await world.caller.next(EtcdServiceChangedMsg) == EtcdServiceChangedMsg("shop", (at(1),), (), (), stale=True)
    late = await world.caller.ask(EtcdServiceWatchReq("shop"))
    assert (late.instances, late.stale) == ((at(1),), True)
    await proxy.heal()
    for _ in range(2):
        assert await world.caller.next(EtcdServiceChangedMsg) == EtcdServiceChangedMsg("shop", (at(1),), (), ())


@ensureDeferred
async def test_one_that_is_not_patient_fails_and_leaves_nothing_to_tell(
    make_world: MakeWorld, proxy: FaultProxy
) -> None:
    await proxy.refuse()
    world = await make_world(proxy.endpoint, client=PATIENT)
    await fails(Unavailable, world.caller.call(ETCD_SERVICE, EtcdServiceWatchReq("shop")))
    patient = world.caller.call(ETCD_SERVICE, EtcdServiceWatchReq("shop", patient=True), math.inf)
    given_up = world.caller.call(ETCD_SERVICE, EtcdServiceWatchReq("shop", patient=True), math.inf)
    given_up.addErrback(lambda _: None)
    given_up.cancel()
    await proxy.heal()
    await soon(patient)
    await put(world, at(1))
    assert (await world.caller.next(EtcdServiceChangedMsg)).added == (at(1),)
    await soon(world.etcd.registry.view("shop").stop())
    assert type((await world.caller.next(EtcdWatchEndedMsg)).error) is ServiceStopped


@ensureDeferred
async def test_what_is_held_back_is_told(make_world: MakeWorld, etcd_server: EmbeddedEtcd) -> None:
    world = await make_world(etcd_server.endpoint, protection=Protection(share=0.5))
    both = (at(1), at(2))
    await put(world, *both)
    await world.caller.ask(EtcdServiceWatchReq("shop"))
    await world.client.delete(world.service_key("shop", ""), prefix=True)
    assert await world.caller.next(EtcdServiceChangedMsg) == EtcdServiceChangedMsg("shop", both, (), (), held_back=both)


@ensureDeferred
async def test_a_stop_ends_those_who_wait_for_the_first_reading(make_world: MakeWorld, proxy: FaultProxy) -> None:
    await proxy.refuse()
    world = await make_world(proxy.endpoint, client=PATIENT)
    waiting = world.caller.call(ETCD_SERVICE, EtcdServiceWatchReq("shop", patient=True), math.inf)
    by_view = world.caller.call(ETCD_SERVICE, EtcdServiceDiscoverReq("shop", fresh=False), math.inf)
    for each in (waiting, by_view):
        # Looked at once the other one is.
        each.addErrback(lambda failure: failure)
    await a_turn()
    await soon(world.etcd.stopService())
    for each in (waiting, by_view):
        await fails(ServiceStopped, each)
    assert len(world.etcd.registry.views) == 0
