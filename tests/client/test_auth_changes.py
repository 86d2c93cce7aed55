"""Users, passwords and tokens that change under clients and watches that run, on each version of etcd."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
import pytest_twisted
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred, gatherResults

from tests.client.conftest import MakeClient, proxy_before
from tests.client.users import (
    CHEAP,
    ROOT,
    USER,
    add_users,
    authentications,
    change_password,
    disable,
    enable,
    grant_role,
    revoke_role,
    set_up,
)
from tests.etcds import FreshEtcd
from tests.said import Said
from tests.wire import soon
from twisted_etcd.client import compare, op
from twisted_etcd.client.client import EtcdClient
from twisted_etcd.client.watch import Watch
from twisted_etcd.embedded.process import EmbeddedEtcd
from twisted_etcd.errors import AuthenticationFailed, PermissionDenied, UserEmpty
from twisted_etcd.schema import rpcs
from twisted_etcd.schema.auth import AuthUserDeleteRequest
from twisted_etcd.testing.proxy import FaultProxy

CARRIERS = pytest.mark.parametrize("own_streams", [16, 0], ids=["own-streams", "shared"])
KEY = "/test/k"


class Guarded(NamedTuple):
    """An etcd of this test's own with authentication on, and a proxy for those who are not root."""

    server: EmbeddedEtcd
    proxy: FaultProxy
    as_root: EtcdClient


@pytest.fixture
def open_etcd(fresh_etcd: FreshEtcd) -> EmbeddedEtcd:
    """An etcd of this test's own with authentication off."""
    server: EmbeddedEtcd = pytest_twisted.blockon(fresh_etcd(extra_args=(CHEAP,)))
    return server


@pytest.fixture
def own_proxy(open_etcd: EmbeddedEtcd) -> Iterator[FaultProxy]:
    proxy = proxy_before(open_etcd)
    yield proxy
    pytest_twisted.blockon(proxy.stopService())


@pytest.fixture
def guarded(open_etcd: EmbeddedEtcd, own_proxy: FaultProxy, make_client: MakeClient) -> Guarded:
    pytest_twisted.blockon(Deferred.fromCoroutine(set_up(open_etcd)))
    return Guarded(open_etcd, own_proxy, make_client(endpoints=open_etcd.endpoint, **ROOT))


async def next_value(watch: Watch) -> bytes:
    (event,) = (await soon(watch.next())).events
    return event.kv.value


# --- permission -----------------------------------------------------------------------------------------------------


@ensureDeferred
async def test_what_is_not_allowed_is_refused_whole_and_nothing_of_it_is_done(
    guarded: Guarded, make_client: MakeClient
) -> None:
    user = make_client(endpoints=guarded.server.endpoint, **USER)
    await guarded.as_root.put("/secret", "s")
    before = (await user.put(KEY, "v")).header.revision
    refused: list[Deferred[Any]] = [
        user.get("/secret"),
        user.get("/tes", prefix=True),
        user.get("", prefix=True),
        user.put("/secret", "mine"),
        user.delete("/secret"),
        user.delete("/tes", prefix=True),
        user.txn(success=[op.put(KEY, "w"), op.put("/secret", "mine")]),
        user.txn(success=[op.put(KEY, "w"), op.get("/secret")]),
        user.txn(success=[op.put(KEY, "w"), op.delete("/secret")]),
        # The branch that is not taken counts as well.
        user.txn(success=[op.put(KEY, "w")], failure=[op.put("/secret", "mine")]),
        user.txn([compare.value("/secret", "=", "s")], success=[op.put(KEY, "w")]),
    ]
    for asking in refused:
        with pytest.raises(PermissionDenied, match="permission denied"):
            await soon(asking)
    after = await guarded.as_root.get("/", prefix=True)
    assert {kv.key: kv.value for kv in after.kvs} == {b"/secret": b"s", KEY.encode(): b"v"}
    assert after.header.revision == before


@ensureDeferred
async def test_a_lease_that_holds_keys_of_others_cannot_be_revoked_or_used(
    guarded: Guarded, make_client: MakeClient
) -> None:
    user = make_client(endpoints=guarded.server.endpoint, **USER)
    lease = await guarded.as_root.lease(60)
    await guarded.as_root.put("/secret", "s", lease=lease.id)
    with pytest.raises(PermissionDenied):
        await soon(user.lease_revoke(lease.id))
    with pytest.raises(PermissionDenied):
        await soon(user.put(KEY, "v", lease=lease.id))
    assert (await guarded.as_root.lease_time_to_live(lease.id, keys=True)).keys == (b"/secret",)


# --- tokens ---------------------------------------------------------------------------------------------------------


@CARRIERS
@ensureDeferred
async def test_tokens_that_expire_cost_requests_watches_and_leases_nothing(
    fresh_etcd: FreshEtcd, make_client: MakeClient, said: Said, own_streams: int
) -> None:
    server = await fresh_etcd(extra_args=(CHEAP, "--auth-token-ttl=1", "--log-level=debug"))
    await set_up(server)
    client = make_client(endpoints=server.endpoint, own_streams=own_streams, **USER)
    watch = client.watch("/test", prefix=True)
    await soon(watch.ready)
    lease = await client.lease(60)
    await said.until("deleted a simple token", said.count("deleted a simple token") + 1)
    before = await authentications(server)
    # All of them find out at the same time.
    later = client.watch("/test", prefix=True)
    askings: list[Deferred[Any]] = [later.ready, client.put(KEY, "v", lease=lease.id), lease.keepalive_once()]
    await soon(gatherResults(askings))
    assert await next_value(watch) == b"v"
    assert await authentications(server) - before in {1, 2}


@CARRIERS
@ensureDeferred
async def test_a_hundred_requests_and_the_watches_beside_them_share_a_new_token(
    guarded: Guarded, make_client: MakeClient, own_streams: int
) -> None:
    client = make_client(endpoints=guarded.proxy.endpoint, own_streams=own_streams, **USER)
    watches = [client.watch("/test", prefix=True) for _ in range(5)]
    await soon(gatherResults([watch.ready for watch in watches]))
    # The same password again: etcd forgets all tokens of the user.
    await change_password(guarded.as_root, USER["password"])
    before = await authentications(guarded.server)
    await soon(gatherResults([client.put(f"{KEY}{number}", "v") for number in range(100)]))
    assert await authentications(guarded.server) == before + 1

    await change_password(guarded.as_root, USER["password"])
    before = await authentications(guarded.server)
    later = [client.watch("/test", prefix=True) for _ in range(5)]
    askings: list[Deferred[Any]] = [client.put(f"{KEY}{number}", "v") for number in range(100)]
    askings += [watch.ready for watch in later]
    await soon(gatherResults(askings))
    # A stream that was refused an older token may ask once more.
    assert await authentications(guarded.server) <= before + 1 + len(later)


@CARRIERS
@ensureDeferred
async def test_a_watch_whose_token_cannot_be_fetched_goes_on_trying(
    guarded: Guarded, make_client: MakeClient, own_streams: int
) -> None:
    client = make_client(endpoints=guarded.proxy.endpoint, own_streams=own_streams, request_timeout=0.2, **USER)
    guarded.proxy.swallow("answers")
    watch = client.watch("/test", prefix=True)
    ready = watch.ready
    # Every one of them is an attempt that hung.
    for _ in range(3):
        await soon(guarded.proxy.next_connection())
        assert not ready.called
    await guarded.proxy.heal()
    await soon(ready)
    await guarded.as_root.put(KEY, "v")
    assert await next_value(watch) == b"v"


# --- passwords ------------------------------------------------------------------------------------------------------


@CARRIERS
@ensureDeferred
async def test_a_password_that_changes_fails_requests_at_once_and_leaves_open_watches_alone(
    guarded: Guarded, make_client: MakeClient, own_streams: int
) -> None:
    client = make_client(endpoints=guarded.proxy.endpoint, own_streams=own_streams, **USER)
    watch = client.watch("/test", prefix=True)
    await soon(watch.ready)
    lease = await client.lease(60)
    await client.put(KEY, "1", lease=lease.id)
    assert await next_value(watch) == b"1"
    await change_password(guarded.as_root, "another password")
    before = await authentications(guarded.server)
    askings: list[Deferred[Any]] = [client.put(KEY, "x") for _ in range(20)]
    for asking in askings:
        with pytest.raises(AuthenticationFailed, match="check the username and the password") as raised:
            await soon(asking)
        assert "password'" not in str(raised.value)
    # Those that asked at a time were told at a time; nobody asks on.
    assert await authentications(guarded.server) - before <= 2
    with pytest.raises(AuthenticationFailed):
        await soon(lease.keepalive_once())
    await guarded.as_root.put(KEY, "2", lease=lease.id)
    assert await next_value(watch) == b"2"
    assert await authentications(guarded.server) - before <= 3

    with_the_new_one = make_client(endpoints=guarded.server.endpoint, username="user", password="another password")
    await with_the_new_one.put(KEY, "3", lease=lease.id)
    assert await next_value(watch) == b"3"
    await change_password(guarded.as_root, USER["password"])
    await client.put(KEY, "4", lease=lease.id)
    assert await next_value(watch) == b"4"
    assert await lease.keepalive_once() == 60


# --- authentication on and off --------------------------------------------------------------------------------------


@CARRIERS
@ensureDeferred
async def test_authentication_that_is_switched_on_and_off_leaves_clients_with_a_user_alone(
    open_etcd: EmbeddedEtcd, own_proxy: FaultProxy, make_client: MakeClient, own_streams: int
) -> None:
    as_root = make_client(endpoints=open_etcd.endpoint, **ROOT)
    client = make_client(endpoints=own_proxy.endpoint, own_streams=own_streams, **USER)
    watch = client.watch("/test", prefix=True)
    await soon(watch.ready)
    lease = await client.lease(60)
    await add_users(as_root)
    values = iter("123456789")
    for switch in (enable, disable, enable):
        await switch(as_root)
        for breaks in (False, True):
            if breaks:
                await soon(own_proxy.reset())
            value = next(values)
            await soon(client.put(KEY, value, lease=lease.id))
            assert await next_value(watch) == value.encode()
            assert await soon(lease.keepalive_once()) == 60


@CARRIERS
@ensureDeferred
async def test_a_watch_without_a_user_outlives_authentication_until_it_has_to_come_back(
    open_etcd: EmbeddedEtcd, own_proxy: FaultProxy, make_client: MakeClient, own_streams: int
) -> None:
    as_root = make_client(endpoints=open_etcd.endpoint, **ROOT)
    client = make_client(endpoints=own_proxy.endpoint, own_streams=own_streams)
    watch = client.watch("/test", prefix=True)
    await soon(watch.ready)
    await add_users(as_root)
    await enable(as_root)
    with pytest.raises(UserEmpty, match="give the client a username and a password"):
        await soon(client.put(KEY, "x"))
    await as_root.put(KEY, "1")
    assert await next_value(watch) == b"1"
    own_proxy.reset()
    # etcd 3.5.1 says of a watch without a user that it has no permission.
    with pytest.raises((UserEmpty, PermissionDenied)):
        await soon(watch.ended)
    await disable(as_root)
    await client.put(KEY, "2")


# --- roles and users ------------------------------------------------------------------------------------------------


@CARRIERS
@ensureDeferred
async def test_a_role_that_is_revoked_stops_requests_at_once_and_no_watch_that_is_open(
    guarded: Guarded, make_client: MakeClient, own_streams: int
) -> None:
    client = make_client(endpoints=guarded.proxy.endpoint, own_streams=own_streams, **USER)
    watch = client.watch("/test", prefix=True)
    await soon(watch.ready)
    await revoke_role(guarded.as_root)
    with pytest.raises(PermissionDenied):
        await soon(client.put(KEY, "x"))
    with pytest.raises(PermissionDenied):
        await soon(client.watch(KEY).ready)
    await guarded.as_root.put(KEY, "1")
    assert await next_value(watch) == b"1"
    await grant_role(guarded.as_root)
    await soon(guarded.proxy.reset())
    await soon(client.put(KEY, "2"))
    assert await next_value(watch) == b"2"


@CARRIERS
@ensureDeferred
async def test_a_user_that_is_deleted_is_refused_and_its_open_watch_ends_when_it_comes_back(
    guarded: Guarded, make_client: MakeClient, own_streams: int
) -> None:
    client = make_client(endpoints=guarded.proxy.endpoint, own_streams=own_streams, **USER)
    watch = client.watch("/test", prefix=True)
    await soon(watch.ready)
    await guarded.as_root.call(rpcs.USER_DELETE, AuthUserDeleteRequest(name="user"))
    with pytest.raises(AuthenticationFailed):
        await soon(client.put(KEY, "x"))
    await guarded.as_root.put(KEY, "1")
    assert await next_value(watch) == b"1"
    guarded.proxy.reset()
    with pytest.raises(AuthenticationFailed):
        await soon(watch.ended)
