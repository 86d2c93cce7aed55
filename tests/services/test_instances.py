"""Registration and discovery by messages."""

from __future__ import annotations

import math
from typing import Any
from urllib.parse import urlsplit

import pytest
from pytest_twisted import ensureDeferred

from tests.etcds import FreshEtcd
from tests.registry.health.looked_at import SteadyCheck
from tests.services.world import Caller, MakeWorld, World, a_turn, fails
from tests.wire import ClockedReactor, soon
from twisted_etcd.embedded.process import EmbeddedEtcd
from twisted_etcd.errors import (
    DeadlineExceeded,
    InvalidSettings,
    LeaseTTLTooLarge,
    ServiceNotFound,
    ServiceStopped,
    SessionTimeout,
    Unavailable,
)
from twisted_etcd.registry.health.health import Health
from twisted_etcd.registry.instance import Instance, Status
from twisted_etcd.registry.registration import RegistrationState
from twisted_etcd.schema.kv import EventType, KeyValue
from twisted_etcd.services.api import EtcdApi
from twisted_etcd.services.messages import (
    ETCD_SERVICE,
    EtcdHeartbeatMsg,
    EtcdServiceChangedMsg,
    EtcdServiceDiscoverReq,
    EtcdServiceHeartbeatReq,
    EtcdServiceHeartbeatResp,
    EtcdServiceRegisterReq,
    EtcdServiceUnregisterReq,
    EtcdServiceWatchReq,
    EtcdWatchEvent,
    EtcdWatchReq,
)
from twisted_etcd.testing.proxy import FaultProxy

AT = "10.0.0.7:80"
INTERVAL = 30.0


def register(**changed: Any) -> EtcdServiceRegisterReq:  # noqa: ANN401 - as the message has them
    wanted: dict[str, Any] = {"service_name": "shop", "service_address": AT, "ttl": 60, "heartbeat_to": "Caller"}
    return EtcdServiceRegisterReq(**{**wanted, **changed})


async def key_of(world: World) -> KeyValue | None:
    kvs = (await world.client.get(world.service_key("shop", AT))).kvs
    return kvs[0] if kvs else None


async def reports(world: World, count: int) -> list[tuple[bool, RegistrationState]]:
    messages = [await world.caller.next(EtcdHeartbeatMsg) for _ in range(count)]
    return [(message.healthy, message.state) for message in messages]


@pytest.fixture
def clock() -> ClockedReactor:
    return ClockedReactor()


async def interval_passes(clock: ClockedReactor) -> None:
    """Let the next check come, once the last one is over."""
    await clock.until_waiting_for(INTERVAL)
    clock.advance(INTERVAL)


# --- registering ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"service_name": ""}, "service name '' cannot be used"),
        ({"service_name": "a/b"}, "service name 'a/b' cannot be used; give one without '/' and white space"),
        ({"service_name": "a b"}, "service name 'a b' cannot be used"),
        ({"service_address": "nowhere"}, "service address 'nowhere' is not HOST:PORT"),
        ({"service_address": "host:70000"}, "service address 'host:70000' is not HOST:PORT"),
        ({"service_address": "::1:80"}, "an IPv6 address stands in brackets"),
        ({"service_address": "a/b:80"}, "has a character that no host name has"),
        ({"ttl": 0}, "ttl of service 'shop' must be at least 1 second, not 0"),
        ({"metadata": {"a": 1}}, "must be texts: Expected `str`, got `int`"),
        ({"tags": "eu"}, "must be texts: Expected `array`, got `str`"),
    ],
)
@ensureDeferred
async def test_what_cannot_be_registered_is_refused_in_words(world: World, changed: dict[str, Any], words: str) -> None:
    error = await fails(InvalidSettings, world.caller.call(ETCD_SERVICE, register(**changed)))
    assert words in str(error)
    assert world.etcd.registration_count == 0


@pytest.mark.parametrize(
    "request_",
    [
        EtcdServiceUnregisterReq("a/b", AT),
        EtcdServiceUnregisterReq("shop", "nowhere"),
        EtcdServiceHeartbeatReq("", AT),
        EtcdServiceDiscoverReq("a b"),
        EtcdServiceWatchReq("a/b"),
    ],
)
@ensureDeferred
async def test_no_other_request_takes_a_bad_name_or_address(world: World, request_: Any) -> None:  # noqa: ANN401
    await fails(InvalidSettings, world.caller.call(ETCD_SERVICE, request_))
    assert world.etcd.watch_count == 0


@ensureDeferred
async def test_the_key_and_its_value_are_where_others_look_for_them(world: World) -> None:
    answer = await world.caller.ask(register(tags=("eu",), metadata={"v": "7"}))
    kv = await key_of(world)
    assert kv is not None
    assert kv.lease == answer.lease_id
    assert kv.value == (
        b'{"address":"10.0.0.7","port":80,"tags":["eu"],"metadata":{"v":"7"},"weight":1,"id":"10.0.0.7:80"}'
    )


@ensureDeferred
async def test_registered_once_more_it_is_replaced_and_never_gone(world: World) -> None:
    await world.caller.ask(EtcdWatchReq(key=world.service_key("shop", ""), prefix=True))
    first = await world.caller.ask(register(tags=("old",)))
    second = await world.caller.ask(register(tags=("new",)))
    assert world.etcd.registration_count == 1
    assert (await world.caller.ask(EtcdServiceDiscoverReq("shop"))).instances[0].tags == ("new",)
    kv = await key_of(world)
    assert kv is not None
    # They share the lease of their TTL.
    assert kv.lease == second.lease_id == first.lease_id
    assert (await world.caller.ask(EtcdServiceUnregisterReq("shop", AT))).success
    events = [await world.caller.next(EtcdWatchEvent) for _ in range(3)]
    assert [event.event_type for event in events] == [EventType.PUT, EventType.PUT, EventType.DELETE]
    # The last one has left it.
    assert first.lease_id not in [lease.ID for lease in (await world.client.leases()).leases]


@ensureDeferred
async def test_where_the_replacement_fails_the_earlier_registration_stays(world: World) -> None:
    first = await world.caller.ask(register())
    await fails(LeaseTTLTooLarge, world.caller.call(ETCD_SERVICE, register(ttl=9_000_000_001)))
    assert world.etcd.registration_count == 1
    kv = await key_of(world)
    assert kv is not None
    assert kv.lease == first.lease_id
    assert (await world.caller.ask(EtcdServiceHeartbeatReq("shop", AT))).success
    assert (await world.caller.ask(EtcdServiceUnregisterReq("shop", AT))).success
    assert await key_of(world) is None


@ensureDeferred
async def test_of_two_registrations_at_once_the_later_one_holds(world: World) -> None:
    earlier = world.caller.call(ETCD_SERVICE, register(tags=("first",)))
    later = world.caller.call(ETCD_SERVICE, register(tags=("second",)))
    for each in (earlier, later):
        each.addErrback(lambda failure: failure.trap(ServiceStopped))
    await soon(earlier)
    answer: Any = await soon(later)
    assert world.etcd.registration_count == 1
    await soon(world.caller.call(ETCD_SERVICE, EtcdServiceHeartbeatReq("shop", AT)))
    kv = await key_of(world)
    assert kv is not None
    assert kv.lease == answer.lease_id
    assert b"second" in kv.value
    assert (await world.caller.ask(EtcdServiceUnregisterReq("shop", AT))).success
    assert await key_of(world) is None


@ensureDeferred
async def test_unregistering_what_is_being_registered_fails_the_registration(world: World) -> None:
    registering = world.caller.call(ETCD_SERVICE, register())
    unregistering = world.caller.call(ETCD_SERVICE, EtcdServiceUnregisterReq("shop", AT))
    assert (await soon(unregistering)).success
    await fails(ServiceStopped, registering)
    assert world.etcd.registration_count == 0
    assert await key_of(world) is None


@ensureDeferred
async def test_unregistering_what_is_being_replaced_ends_both(world: World) -> None:
    await world.caller.ask(register())
    replacing = world.caller.call(ETCD_SERVICE, register(tags=("new",)))
    unregistering = world.caller.call(ETCD_SERVICE, EtcdServiceUnregisterReq("shop", AT))
    assert (await soon(unregistering)).success
    await fails(ServiceStopped, replacing)
    await soon(world.etcd.stopService())
    assert await key_of(world) is None


@ensureDeferred
async def test_a_registration_while_etcd_is_away_fails_and_leaves_nothing(
    make_world: MakeWorld, proxy: FaultProxy
) -> None:
    await proxy.refuse()
    world = await make_world(proxy.endpoint, client={"request_timeout": 0.1})
    await fails(Unavailable, world.caller.call(ETCD_SERVICE, register()))
    assert world.etcd.registration_count == 0
    await proxy.heal()
    assert await key_of(world) is None


@ensureDeferred
async def test_what_is_asked_for_with_patience_waits_for_etcd(make_world: MakeWorld, proxy: FaultProxy) -> None:
    await proxy.refuse()
    world = await make_world(proxy.endpoint, client={"request_timeout": 0.1})
    call = world.caller.call
    watching = call(ETCD_SERVICE, EtcdServiceWatchReq("shop", patient=True), math.inf)
    registering = call(ETCD_SERVICE, register(patient=True), math.inf)
    by_api = EtcdApi(world.caller).register_service("shop", "10.0.0.8:80", patient=True)
    # One without patience has seen that etcd is away.
    await fails(Unavailable, call(ETCD_SERVICE, EtcdServiceWatchReq("shop")))
    await proxy.heal()
    await soon(watching)
    assert (await soon(registering)).success
    assert await soon(by_api) > 0
    found = await world.caller.ask(EtcdServiceDiscoverReq("shop"))
    assert found.service_addresses == (AT, "10.0.0.8:80")


@ensureDeferred
async def test_a_registration_whose_call_ran_out_of_time_is_not_left_behind(
    make_world: MakeWorld, silent_endpoint: str
) -> None:
    world = await make_world(silent_endpoint)
    await fails(SessionTimeout, world.caller.call(ETCD_SERVICE, register(), timeout=0.05))
    assert world.etcd.registration_count == 0


@ensureDeferred
async def test_unregistering_while_etcd_is_away_fails_and_the_key_ends_by_its_ttl(
    make_world: MakeWorld, proxy: FaultProxy, world: World
) -> None:
    cut_off = await make_world(proxy.endpoint, client={"request_timeout": 0.1})
    answer = await cut_off.caller.ask(register())
    proxy.swallow()
    unregistering = cut_off.caller.call(ETCD_SERVICE, EtcdServiceUnregisterReq("shop", AT))
    await fails(DeadlineExceeded, unregistering)
    assert cut_off.etcd.registration_count == 0
    await proxy.heal()
    # Nobody keeps it alive any longer, though it can be reached again: its time runs from the last keepalive.
    left = (await world.client.lease_time_to_live(answer.lease_id)).TTL
    assert left <= 60
    assert not (await cut_off.caller.ask(EtcdServiceHeartbeatReq("shop", AT))).success
    await world.client.lease_revoke(answer.lease_id)


# --- finding --------------------------------------------------------------------------------------------------------


@ensureDeferred
async def test_a_watch_tells_who_came_who_went_and_who_changed(world: World) -> None:
    await world.caller.ask(register())
    watch = await world.caller.ask(EtcdServiceWatchReq("shop"))
    first = Instance(address="10.0.0.7", port=80, id=AT)
    assert watch.instances == (first,)
    await world.caller.ask(register(service_address="[fd00::1]:443"))
    second = Instance(address="fd00::1", port=443, id="[fd00::1]:443")
    assert await world.caller.next(EtcdServiceChangedMsg) == EtcdServiceChangedMsg(
        "shop", (first, second), (second,), ()
    )
    await world.caller.ask(register(tags=("new",)))
    changed = Instance(address="10.0.0.7", port=80, id=AT, tags=("new",))
    assert await world.caller.next(EtcdServiceChangedMsg) == EtcdServiceChangedMsg(
        "shop", (changed, second), (changed,), (first,), ((first, changed),)
    )
    await world.caller.ask(EtcdServiceUnregisterReq("shop", "[fd00::1]:443"))
    assert await world.caller.next(EtcdServiceChangedMsg) == EtcdServiceChangedMsg("shop", (changed,), (), (second,))
    found = await world.caller.ask(EtcdServiceDiscoverReq("shop"))
    assert found.service_addresses == (AT,)


@ensureDeferred
async def test_services_whose_names_begin_alike_are_told_apart(world: World) -> None:
    await world.caller.ask(register(service_name="shopping"))
    assert (await world.caller.ask(EtcdServiceDiscoverReq("shop"))).instances == ()


@ensureDeferred
async def test_what_others_registered_is_found_and_what_is_no_instance_is_left_out_and_named(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    await world.client.put(world.service_key("shop", "a"), '{"Op":0,"Addr":"10.0.0.1:80","Metadata":{"zone":"a"}}')
    await world.client.put(world.service_key("shop", "b"), "10.0.0.2:80")
    await world.client.put(world.service_key("shop", "c"), "a secret")
    found = await world.caller.ask(EtcdServiceDiscoverReq("shop"))
    assert found.service_addresses == ("10.0.0.1:80", "10.0.0.2:80")
    assert found.instances[0].metadata == {"zone": "a"}
    [line] = [record.getMessage() for record in caplog.records if "is left out" in record.getMessage()]
    assert line.startswith(world.service_key("shop", "c") + " is left out: the value is no instance")
    assert "secret" not in line


# --- the heartbeat check --------------------------------------------------------------------------------------------


@ensureDeferred
async def test_every_interval_the_registration_is_reported(
    make_world: MakeWorld, etcd_server: EmbeddedEtcd, clock: ClockedReactor
) -> None:
    world = await make_world(etcd_server.endpoint, clock=clock, heartbeat_check_interval=INTERVAL)
    await world.caller.ask(register())
    await world.caller.ask(register(service_address="10.0.0.8:80", heartbeat_to=None))
    assert await reports(world, 1) == [(True, RegistrationState.ALIVE)]
    for _ in range(3):
        await interval_passes(clock)
        report = await world.caller.next(EtcdHeartbeatMsg)
        assert (report.service_name, report.service_address, report.healthy) == ("shop", AT, True)
        assert 0 < report.seconds_left <= 60
    await clock.until_waiting()
    clock.advance(INTERVAL / 2)
    await a_turn()
    assert world.caller.got == []


@ensureDeferred
async def test_a_key_that_somebody_deleted_is_put_back(
    make_world: MakeWorld, etcd_server: EmbeddedEtcd, clock: ClockedReactor
) -> None:
    world = await make_world(etcd_server.endpoint, clock=clock, heartbeat_check_interval=INTERVAL)
    answer = await world.caller.ask(register())
    assert await reports(world, 1) == [(True, RegistrationState.ALIVE)]
    await world.client.delete(world.service_key("shop", AT))
    await interval_passes(clock)
    assert await reports(world, 3) == [
        (False, RegistrationState.LOST),
        (True, RegistrationState.ALIVE),
        (True, RegistrationState.ALIVE),
    ]
    kv = await key_of(world)
    assert kv is not None
    assert kv.lease == answer.lease_id


@ensureDeferred
async def test_a_key_that_somebody_took_over_is_taken_back(
    make_world: MakeWorld, etcd_server: EmbeddedEtcd, clock: ClockedReactor
) -> None:
    world = await make_world(etcd_server.endpoint, clock=clock, heartbeat_check_interval=INTERVAL)
    answer = await world.caller.ask(register())
    await world.client.put(world.service_key("shop", AT), "10.0.0.9:1")
    await interval_passes(clock)
    await reports(world, 4)
    kv = await key_of(world)
    assert kv is not None
    assert (kv.lease, kv.value[:1]) == (answer.lease_id, b"{")


@ensureDeferred
async def test_a_heartbeat_that_is_asked_for_puts_a_deleted_key_back(world: World) -> None:
    await world.caller.ask(register())
    await world.client.delete(world.service_key("shop", AT))
    beaten = await world.caller.ask(EtcdServiceHeartbeatReq("shop", AT))
    assert beaten == EtcdServiceHeartbeatResp(success=True, ttl=60)
    assert await key_of(world) is not None


@ensureDeferred
async def test_a_lease_that_somebody_revoked_is_replaced_by_a_new_one(
    make_world: MakeWorld, etcd_server: EmbeddedEtcd, clock: ClockedReactor
) -> None:
    world = await make_world(etcd_server.endpoint, clock=clock, heartbeat_check_interval=INTERVAL)
    answer = await world.caller.ask(register())
    await world.client.lease_revoke(answer.lease_id)
    await interval_passes(clock)
    healthy = await world.caller.next(EtcdHeartbeatMsg)
    assert healthy.healthy
    await world.caller.next(EtcdHeartbeatMsg, lambda report: report.state is RegistrationState.LOST)
    await world.caller.next(EtcdHeartbeatMsg, lambda report: report.healthy)
    kv = await key_of(world)
    assert kv is not None
    assert kv.lease not in (0, answer.lease_id)


@ensureDeferred
async def test_an_etcd_that_comes_back_without_its_data_gets_the_registration_again(
    make_world: MakeWorld, fresh_etcd: FreshEtcd, clock: ClockedReactor
) -> None:
    first = await fresh_etcd()
    world = await make_world(
        first.endpoint, clock=clock, heartbeat_check_interval=INTERVAL, client={"request_timeout": 0.5}
    )
    await world.caller.ask(register())
    assert await reports(world, 1) == [(True, RegistrationState.ALIVE)]
    await soon(first.stopService())
    # A check that does not reach etcd reports what is known, and the next one comes all the same.
    await interval_passes(clock)
    assert await reports(world, 1) == [(True, RegistrationState.ALIVE)]
    await fresh_etcd(client_port=urlsplit(first.endpoint).port)
    assert await key_of(world) is None
    await interval_passes(clock)
    await world.caller.next(EtcdHeartbeatMsg, lambda report: not report.healthy)
    await world.caller.next(EtcdHeartbeatMsg, lambda report: report.healthy)
    assert await key_of(world) is not None


@ensureDeferred
async def test_a_registration_stays_when_who_is_told_of_it_stops(
    make_world: MakeWorld, etcd_server: EmbeddedEtcd, clock: ClockedReactor
) -> None:
    world = await make_world(etcd_server.endpoint, clock=clock, heartbeat_check_interval=INTERVAL)
    other = world.add(Caller("Other"))
    await soon(other.when_started())
    await world.caller.ask(register(heartbeat_to=other.handle))
    await world.caller.ask(register(service_address="10.0.0.8:80"))
    await other.next(EtcdHeartbeatMsg)
    await world.caller.next(EtcdHeartbeatMsg)
    await soon(other.stopService())
    for _ in range(2):
        await interval_passes(clock)
        # The others are told as before.
        await world.caller.next(EtcdHeartbeatMsg)
    assert await key_of(world) is not None
    assert other.got == []


@ensureDeferred
async def test_reports_for_nobody_are_refused_before_anything_is_registered(world: World) -> None:
    await fails(ServiceNotFound, world.caller.call(ETCD_SERVICE, register(heartbeat_to="Nobody")))
    assert world.etcd.registration_count == 0
    await a_turn()
    assert await key_of(world) is None


@ensureDeferred
async def test_what_its_health_withholds_is_registered_and_reported_as_that(
    world: World, clock: ClockedReactor
) -> None:
    check = SteadyCheck(Status.CRITICAL)
    health = Health([check], interval=1.0, timeout=2.0, rise=1, fall=1)
    answer = await world.caller.ask(register(health=(health,), heartbeat_to="Caller"))
    assert (answer.success, answer.lease_id) == (True, 0)
    assert await key_of(world) is None
    check.status = Status.PASSING
    clock.advance(2)
    told = await world.caller.next(EtcdHeartbeatMsg, lambda message: message.healthy)
    assert (told.state, told.status) == (RegistrationState.ALIVE, Status.PASSING)
    assert "look" in told.why
    assert await key_of(world) is not None
    check.status = Status.CRITICAL
    clock.advance(2)
    told = await world.caller.next(EtcdHeartbeatMsg, lambda message: message.state is RegistrationState.WITHHELD)
    assert told.status is Status.CRITICAL
