"""EtcdService as a whole: its errors, its time limits, its beginning and its end."""

from __future__ import annotations

from typing import Any, cast

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.defer import gatherResults
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs, formatEvent

from tests.etcds import FreshEtcd
from tests.messaging.common import Note
from tests.services.world import Caller, MakeWorld, World, fails
from tests.wire import Listener, soon
from twisted_etcd.client.client import EtcdClient
from twisted_etcd.embedded.process import EmbeddedEtcd
from twisted_etcd.errors import (
    DeadlineExceeded,
    InvalidSettings,
    OutcomeUnknown,
    PermissionDenied,
    ServiceStopped,
    ServiceUnavailable,
    SessionTimeout,
    Unavailable,
    UnhandledMessage,
)
from twisted_etcd.messaging.messages import Request
from twisted_etcd.messaging.node import Node
from twisted_etcd.messaging.service import MessageService
from twisted_etcd.schema import rpcs
from twisted_etcd.schema.auth import (
    AuthEnableRequest,
    AuthRoleAddRequest,
    AuthUserAddRequest,
    AuthUserGrantRoleRequest,
)
from twisted_etcd.services.etcd import EtcdService
from twisted_etcd.services.messages import (
    ETCD_SERVICE,
    EtcdConfigSetReq,
    EtcdConfigWatchReq,
    EtcdGetReq,
    EtcdHeartbeatMsg,
    EtcdLeaseGrantReq,
    EtcdServiceRegisterReq,
    EtcdServiceWatchReq,
    EtcdSetReq,
    EtcdWatchEndedMsg,
    EtcdWatchReq,
)
from twisted_etcd.testing.proxy import FaultProxy


async def busy(world: World) -> int:
    """Registrations, leases and watches of every kind; gives the id of a lease."""
    await world.caller.ask(EtcdWatchReq(key=world.prefix, prefix=True))
    await world.caller.ask(EtcdConfigWatchReq("app"))
    await world.caller.ask(EtcdServiceWatchReq("shop"))
    for port in (80, 81):
        request = EtcdServiceRegisterReq(service_name="shop", service_address=f"10.0.0.7:{port}", ttl=60)
        await world.caller.ask(request)
    return (await world.caller.ask(EtcdLeaseGrantReq(60, keep_alive=True))).lease_id


# --- errors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("interval", [0, -1.5])
@ensureDeferred
async def test_an_interval_that_cannot_be_used_is_named(interval: float) -> None:
    client = EtcdClient(cast("Any", reactor))
    with pytest.raises(InvalidSettings, match="heartbeat_check_interval must be more than 0 seconds, not "):
        EtcdService(client, Clock(), heartbeat_check_interval=interval)
    await client.stopService()


@ensureDeferred
async def test_arguments_of_the_wrong_type_are_named() -> None:
    loose: Any = EtcdService
    with pytest.raises(TypeError, match="the first argument of EtcdService must be an EtcdClient, not Clock"):
        loose(Clock(), None)
    client = EtcdClient(cast("Any", reactor))
    with pytest.raises(TypeError, match="heartbeat_check_interval must be a number of seconds, not str"):
        loose(client, Clock(), heartbeat_check_interval="30")
    await client.stopService()


@ensureDeferred
async def test_a_subscriber_that_is_neither_name_nor_handle_is_named(world: World) -> None:
    request: Any = EtcdWatchReq(key="k", subscriber=cast("Any", world.caller))
    error = await fails(TypeError, world.node.call(ETCD_SERVICE, request))
    assert str(error) == "who is to be told is named by a service's name, or its handle, not by Caller"


@ensureDeferred
async def test_what_is_not_in_the_catalogue_is_unhandled(world: World) -> None:
    class Strange(Request[None], frozen=True):
        pass

    await fails(UnhandledMessage, world.caller.call(ETCD_SERVICE, Strange()))
    world.caller.send(ETCD_SERVICE, Note())


@ensureDeferred
async def test_with_etcd_away_the_caller_learns_that_nothing_was_applied(
    make_world: MakeWorld, proxy: FaultProxy, prefix: str
) -> None:
    await proxy.refuse()
    world = await make_world(proxy.endpoint, client={"request_timeout": 0.1})
    for request in (EtcdGetReq(prefix + "k"), EtcdSetReq(prefix + "k", "v"), EtcdConfigWatchReq("app")):
        error = await fails(Unavailable, world.caller.call(ETCD_SERVICE, cast("Request[Any]", request)))
        assert proxy.endpoint in str(error)
    assert world.etcd.watch_count == 0


@ensureDeferred
async def test_a_write_that_got_no_answer_is_told_from_a_read(
    make_world: MakeWorld, silent_endpoint: str, prefix: str
) -> None:
    world = await make_world(silent_endpoint, client={"request_timeout": 0.1})
    await fails(OutcomeUnknown, world.caller.call(ETCD_SERVICE, EtcdSetReq(prefix + "k", "v")))
    await fails(DeadlineExceeded, world.caller.call(ETCD_SERVICE, EtcdGetReq(prefix + "k")))


@ensureDeferred
async def test_a_call_that_runs_out_of_time_ends_its_request_to_etcd(make_world: MakeWorld, prefix: str) -> None:
    listener = Listener()
    world = await make_world(f"http://{listener.authority}")
    calling = world.caller.call(ETCD_SERVICE, EtcdGetReq(prefix + "k"), timeout=0.2)
    peer = await listener.peer()
    await peer.until_received(b"/v3/kv/range")
    await fails(SessionTimeout, calling)
    await peer.until_lost()
    assert world.client.connection_count == 0
    assert world.node.statistics.timeouts == 1
    await listener.close()


@ensureDeferred
async def test_a_cancelled_call_ends_its_request_to_etcd(make_world: MakeWorld, prefix: str) -> None:
    listener = Listener()
    world = await make_world(f"http://{listener.authority}")
    calling = world.caller.call(ETCD_SERVICE, EtcdGetReq(prefix + "k"))
    peer = await listener.peer()
    await peer.until_received(b"/v3/kv/range")
    calling.addErrback(lambda _: None)
    calling.cancel()
    await peer.until_lost()
    await listener.close()


@ensureDeferred
async def test_what_a_user_may_not_do_is_denied_for_every_kind_of_request(
    make_world: MakeWorld, fresh_etcd: FreshEtcd, prefix: str
) -> None:
    server = await fresh_etcd()
    root = EtcdClient(cast("Any", reactor), server.endpoint)
    for name in ("root", "guest"):
        await root.call(rpcs.USER_ADD, AuthUserAddRequest(name=name, password="pw"))
    await root.call(rpcs.ROLE_ADD, AuthRoleAddRequest(name="root"))
    await root.call(rpcs.USER_GRANT_ROLE, AuthUserGrantRoleRequest(user="root", role="root"))
    await root.call(rpcs.AUTH_ENABLE, AuthEnableRequest())
    await root.stopService()

    world = await make_world(server.endpoint, client={"username": "guest", "password": "pw"})
    for request in (
        EtcdGetReq(prefix + "k"),
        EtcdSetReq(prefix + "k", "a secret"),
        EtcdWatchReq(key=prefix + "k"),
        EtcdConfigSetReq("app", "a secret"),
        EtcdConfigWatchReq("app"),
        EtcdServiceWatchReq("shop"),
        EtcdServiceRegisterReq(service_name="shop", service_address="10.0.0.7:80"),
    ):
        error = await fails(PermissionDenied, world.caller.call(ETCD_SERVICE, cast("Request[Any]", request)))
        assert "secret" not in str(error)
    assert (world.etcd.watch_count, world.etcd.registration_count) == (0, 0)


# --- the end --------------------------------------------------------------------------------------------------------


@ensureDeferred
async def test_when_it_stops_its_keys_are_gone_at_once_and_its_streams_closed(world: World) -> None:
    lease_id = await busy(world)
    assert (world.etcd.watch_count, world.etcd.registration_count) == (3, 2)
    await soon(world.etcd.stopService())
    assert (world.etcd.watch_count, world.etcd.registration_count) == (0, 0)
    assert (await world.client.get(world.service_key("shop", ""), prefix=True)).kvs == ()
    assert (await world.client.lease_time_to_live(lease_id)).TTL == -1
    assert not [message for message in world.caller.got if isinstance(message, EtcdWatchEndedMsg)]
    await fails(ServiceUnavailable, world.caller.call(ETCD_SERVICE, EtcdGetReq("k")))


@ensureDeferred
async def test_it_can_be_started_again(world: World, prefix: str) -> None:
    await busy(world)
    await soon(world.etcd.stopService())
    world.etcd.startService()
    await soon(world.etcd.when_started())
    await busy(world)
    assert (world.etcd.watch_count, world.etcd.registration_count) == (3, 2)


@ensureDeferred
async def test_it_ends_while_etcd_hangs_and_leaves_its_keys_to_their_ttl(
    make_world: MakeWorld, proxy: FaultProxy, world: World
) -> None:
    hanging = await make_world(proxy.endpoint, client={"request_timeout": 0.2, "stop_timeout": 0.2})
    await busy(hanging)
    proxy.swallow()
    await soon(hanging.node.stopService())
    assert (hanging.etcd.watch_count, hanging.etcd.registration_count) == (0, 0)
    assert hanging.client.connection_count == 0
    kvs = (await world.client.get(world.service_key("shop", ""), prefix=True)).kvs
    assert len(kvs) == 2
    await gatherResults([world.client.lease_revoke(lease) for lease in {kv.lease for kv in kvs}])


@ensureDeferred
async def test_it_ends_while_etcd_is_down(make_world: MakeWorld, proxy: FaultProxy, world: World) -> None:
    down = await make_world(proxy.endpoint, client={"request_timeout": 0.2, "stop_timeout": 0.2})
    await busy(down)
    await proxy.refuse()
    proxy.reset()
    await soon(down.node.stopService())
    assert (down.etcd.watch_count, down.etcd.registration_count) == (0, 0)
    kvs = (await world.client.get(world.service_key("shop", ""), prefix=True)).kvs
    await gatherResults([world.client.lease_revoke(lease) for lease in {kv.lease for kv in kvs}])


@ensureDeferred
async def test_it_ends_in_the_middle_of_everything(make_world: MakeWorld, silent_endpoint: str) -> None:
    world = await make_world(silent_endpoint, heartbeat_check_interval=0.01, client={"stop_timeout": 0.2})
    requests: list[Request[Any]] = [
        EtcdGetReq("k"),
        EtcdWatchReq(key="k"),
        EtcdConfigWatchReq("app", patient=True),
        EtcdServiceWatchReq("shop"),
        EtcdServiceRegisterReq(service_name="shop", service_address="10.0.0.7:80"),
        EtcdLeaseGrantReq(60, keep_alive=True),
    ]
    calling = [world.node.call(ETCD_SERVICE, _for_caller(request)) for request in requests]
    # The last message is delivered after all the others.
    await fails(UnhandledMessage, world.node.call(ETCD_SERVICE, _Unknown()))
    assert world.etcd.watch_count == 3
    await soon(world.etcd.stopService())
    for each in calling:
        with pytest.raises((ServiceUnavailable, ServiceStopped)):
            await soon(each)
    assert (world.etcd.watch_count, world.etcd.registration_count) == (0, 0)


class _Unknown(Request[None], frozen=True):
    pass


def _for_caller(request: Request[Any]) -> Request[Any]:
    """The same with the caller as its subscriber, where it takes one."""
    fields = {name: getattr(request, name) for name in request.__struct_fields__}
    if "subscriber" in fields:
        fields["subscriber"] = "Caller"
    return type(request)(**fields)


@ensureDeferred
async def test_a_client_that_stops_first_leaves_nothing_behind_either(etcd_server: EmbeddedEtcd, prefix: str) -> None:
    node = Node(cast("Any", reactor))
    client = EtcdClient(cast("Any", reactor), etcd_server.endpoint)
    service = EtcdService(client, cast("Any", reactor), service_prefix=prefix + "services")
    caller = Caller()
    services: list[MessageService] = [caller, service]
    for each in services:
        each.setServiceParent(node)
    client.setServiceParent(node)
    with capturedLogs() as logs:
        node.startService()
        await soon(node.when_started())
    warning = f"{client!r} comes after EtcdService in the node, and is stopped before it: set its parent first"
    assert [formatEvent(event) for event in logs if event["log_level"] is LogLevel.warn] == [warning]
    await caller.ask(EtcdWatchReq(key=prefix, prefix=True))
    request = EtcdServiceRegisterReq(service_name="shop", service_address="10.0.0.7:80", heartbeat_to="Caller")
    await caller.ask(request)
    await soon(client.stopService())
    assert type((await caller.next(EtcdWatchEndedMsg)).error) is ServiceStopped
    await caller.next(EtcdHeartbeatMsg, lambda report: not report.healthy)
    await soon(node.stopService())
    assert (service.watch_count, service.registration_count) == (0, 0)
    other = EtcdClient(cast("Any", reactor), etcd_server.endpoint)
    assert (await other.get(prefix + "services", prefix=True)).kvs == ()
    await other.stopService()
