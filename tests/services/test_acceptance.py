"""The acceptance list of what this was modelled on, message by message, from handlers of every style."""

from __future__ import annotations

from typing import Any, cast

import pytest
import pytest_twisted
from pytest_twisted import ensureDeferred

from tests.services.world import Caller, CoroutineCaller, Forward, InlineCaller, PlainCaller, World
from tests.wire import soon
from twisted_etcd.config.changes import ChangeType
from twisted_etcd.messaging.messages import AnswerT, Request
from twisted_etcd.registry.instance import Instance
from twisted_etcd.registry.registration import RegistrationState
from twisted_etcd.schema.kv import EventType
from twisted_etcd.services.messages import (
    EtcdBatchGetReq,
    EtcdBatchGetResp,
    EtcdConfigChangedMsg,
    EtcdConfigLoadReq,
    EtcdConfigLoadResp,
    EtcdConfigSetReq,
    EtcdConfigWatchReq,
    EtcdDelReq,
    EtcdDelResp,
    EtcdGetAllReq,
    EtcdGetAllResp,
    EtcdGetReq,
    EtcdGetResp,
    EtcdHeartbeatMsg,
    EtcdKeyExistReq,
    EtcdKeyExistResp,
    EtcdLeaseGrantReq,
    EtcdLeaseRevokeReq,
    EtcdLeaseRevokeResp,
    EtcdListKeysReq,
    EtcdListKeysResp,
    EtcdServiceChangedMsg,
    EtcdServiceDiscoverReq,
    EtcdServiceDiscoverResp,
    EtcdServiceHeartbeatReq,
    EtcdServiceHeartbeatResp,
    EtcdServiceRegisterReq,
    EtcdServiceUnregisterReq,
    EtcdServiceUnregisterResp,
    EtcdServiceWatchReq,
    EtcdSetReq,
    EtcdUnwatchReq,
    EtcdUnwatchResp,
    EtcdWatchEvent,
    EtcdWatchReq,
)


class Styled:
    """A caller whose handlers are of one style, and which the test asks through messages alone."""

    def __init__(self, world: World, caller: Caller) -> None:
        self._node = world.node
        self.caller = caller

    async def ask(self, request: Request[AnswerT]) -> AnswerT:
        forwarded = await soon(self._node.call(self.caller.handle, Forward(request)))
        return cast("AnswerT", forwarded.answer)


@pytest.fixture(params=[PlainCaller, InlineCaller, CoroutineCaller])
def styled(request: pytest.FixtureRequest, world: World) -> Styled:
    caller = world.add(request.param("Styled"))
    pytest_twisted.blockon(caller.when_started())
    return Styled(world, caller)


@ensureDeferred
async def test_set_get_delete_and_get_after_delete(styled: Styled, prefix: str) -> None:
    key = prefix + "k"
    put = await styled.ask(EtcdSetReq(key, "v"))
    assert put.success
    assert await styled.ask(EtcdGetReq(key)) == EtcdGetResp(b"v", put.revision)
    assert await styled.ask(EtcdKeyExistReq(key)) == EtcdKeyExistResp(exist=True)
    assert await styled.ask(EtcdDelReq(key)) == EtcdDelResp(success=True, deleted=1)
    assert await styled.ask(EtcdGetReq(key)) == EtcdGetResp(None)
    assert await styled.ask(EtcdKeyExistReq(key)) == EtcdKeyExistResp(exist=False)
    assert await styled.ask(EtcdDelReq(key)) == EtcdDelResp(success=False, deleted=0)


@ensureDeferred
async def test_watch_change_event_and_unwatch(styled: Styled, prefix: str) -> None:
    key = prefix + "k"
    before = await styled.ask(EtcdSetReq(key, "before"))
    watch = await styled.ask(EtcdWatchReq(key=key))
    assert watch.revision >= before.revision
    changed = await styled.ask(EtcdSetReq(key, "after"))
    assert await styled.caller.next(EtcdWatchEvent) == EtcdWatchEvent(
        watch_id=watch.watch_id,
        key=key.encode(),
        event_type=EventType.PUT,
        value=b"after",
        prev_value=b"before",
        revision=changed.revision,
    )
    await styled.ask(EtcdDelReq(key))
    deleted = await styled.caller.next(EtcdWatchEvent)
    assert (deleted.event_type, deleted.value, deleted.prev_value) == (EventType.DELETE, None, b"after")

    # A second watch shows when a later change has come through.
    other = await styled.ask(EtcdWatchReq(key=key))
    assert await styled.ask(EtcdUnwatchReq(watch.watch_id)) == EtcdUnwatchResp(success=True)
    await styled.ask(EtcdSetReq(key, "unseen"))
    assert (await styled.caller.next(EtcdWatchEvent)).watch_id == other.watch_id
    assert styled.caller.got == []


@ensureDeferred
async def test_batch_get_and_list_by_prefix(styled: Styled, prefix: str) -> None:
    for name in ("a", "b", "c"):
        await styled.ask(EtcdSetReq(prefix + name, name.upper()))
    a, b, c, none = ((prefix + name).encode() for name in ("a", "b", "c", "none"))
    assert await styled.ask(EtcdBatchGetReq((a, none, c))) == EtcdBatchGetResp({a: b"A", none: None, c: b"C"})
    assert await styled.ask(EtcdGetAllReq(prefix)) == EtcdGetAllResp({a: b"A", b: b"B", c: b"C"})
    assert await styled.ask(EtcdListKeysReq(prefix)) == EtcdListKeysResp((a, b, c))


@ensureDeferred
async def test_lease_grant_key_with_lease_revoke_and_key_gone(styled: Styled, prefix: str) -> None:
    lease = await styled.ask(EtcdLeaseGrantReq(60))
    assert lease.ttl == 60
    await styled.ask(EtcdSetReq(prefix + "k", "v", lease.lease_id))
    assert (await styled.ask(EtcdGetReq(prefix + "k"))).value == b"v"
    assert await styled.ask(EtcdLeaseRevokeReq(lease.lease_id)) == EtcdLeaseRevokeResp(success=True)
    assert (await styled.ask(EtcdGetReq(prefix + "k"))).value is None
    assert await styled.ask(EtcdLeaseRevokeReq(lease.lease_id)) == EtcdLeaseRevokeResp(success=False)


@ensureDeferred
async def test_config_set_get_watch_change_and_event_with_old_and_new_value(styled: Styled) -> None:
    first = await styled.ask(EtcdConfigSetReq("app/db", "one"))
    assert first.success
    assert await styled.ask(EtcdConfigLoadReq("app/db")) == EtcdConfigLoadResp(b"one", first.revision)
    watch = await styled.ask(EtcdConfigWatchReq("app/db"))
    assert watch.config_value == b"one"
    changed = await styled.ask(EtcdConfigSetReq("app/db", "two"))
    assert await styled.caller.next(EtcdConfigChangedMsg) == EtcdConfigChangedMsg(
        key="app/db",
        new_value=b"two",
        old_value=b"one",
        change_type=ChangeType.MODIFIED,
        revision=changed.revision,
    )
    assert await styled.ask(EtcdUnwatchReq(watch.watch_id)) == EtcdUnwatchResp(success=True)


@ensureDeferred
async def test_register_discover_heartbeat_and_unregister(styled: Styled) -> None:
    at = "10.0.0.7:80"
    watch = await styled.ask(EtcdServiceWatchReq("shop"))
    assert watch.instances == ()
    request = EtcdServiceRegisterReq(
        service_name="shop",
        service_address=at,
        ttl=30,
        tags=("eu",),
        metadata={"version": "7"},
        heartbeat_to=styled.caller.handle,
    )
    registered = await styled.ask(request)
    assert registered.success
    assert registered.lease_id > 0
    report = await styled.caller.next(EtcdHeartbeatMsg)
    assert (report.service_name, report.service_address, report.healthy) == ("shop", at, True)
    assert report.state is RegistrationState.ALIVE
    assert 0 < report.seconds_left <= 30

    instance = Instance(address="10.0.0.7", port=80, tags=("eu",), metadata={"version": "7"}, id=at)
    discovered = await styled.ask(EtcdServiceDiscoverReq("shop"))
    assert discovered == EtcdServiceDiscoverResp((at,), (instance,))
    appeared = await styled.caller.next(EtcdServiceChangedMsg)
    assert appeared == EtcdServiceChangedMsg("shop", (instance,), (instance,), ())

    beaten = await styled.ask(EtcdServiceHeartbeatReq("shop", at))
    assert beaten == EtcdServiceHeartbeatResp(success=True, ttl=30)

    unregister: Any = EtcdServiceUnregisterReq("shop", at)
    assert await styled.ask(unregister) == EtcdServiceUnregisterResp(success=True)
    assert (await styled.ask(EtcdServiceDiscoverReq("shop"))).instances == ()
    assert await styled.caller.next(EtcdServiceChangedMsg) == EtcdServiceChangedMsg("shop", (), (), (instance,))
    assert await styled.ask(unregister) == EtcdServiceUnregisterResp(success=False)
    assert await styled.ask(EtcdServiceHeartbeatReq("shop", at)) == EtcdServiceHeartbeatResp(success=False, ttl=0)
