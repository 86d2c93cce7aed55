"""Users and passwords, on each carrier."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred, gatherResults
from twisted.logger import capturedLogs

from tests.client.conftest import MakeClient, proxy_before
from tests.client.users import CHEAP, ROOT, USER, change_password, grant_role, revoke_role, set_up
from tests.etcds import new_etcd
from tests.wire import soon
from twisted_etcd.client.client import EtcdClient
from twisted_etcd.client.watch import Watch
from twisted_etcd.embedded.process import EmbeddedEtcd
from twisted_etcd.errors import AuthenticationFailed, PermissionDenied, UserEmpty
from twisted_etcd.testing.proxy import FaultProxy

CARRIERS = pytest.mark.parametrize("own_streams", [16, 0], ids=["own-streams", "shared"])


@pytest.fixture(scope="module")
def guarded(etcd_binary: Path) -> Iterator[EmbeddedEtcd]:
    """An etcd of each version with authentication on."""
    server = new_etcd(etcd_binary, extra_args=(CHEAP,))
    server.startService()
    try:
        pytest_twisted.blockon(Deferred.fromCoroutine(set_up(server)))
        yield server
    finally:
        pytest_twisted.blockon(server.stopService())


@pytest.fixture
def guarded_proxy(guarded: EmbeddedEtcd) -> Iterator[FaultProxy]:
    proxy = proxy_before(guarded)
    yield proxy
    pytest_twisted.blockon(proxy.stopService())


@pytest.fixture
def as_root(guarded: EmbeddedEtcd, make_client: MakeClient) -> EtcdClient:
    return make_client(endpoints=guarded.endpoint, **ROOT)


def reads_tokens_from_websockets(server: EmbeddedEtcd) -> bool:
    version = tuple(int(number) for number in re.findall(r"\d+", server.version)[:3])
    return version >= (3, 7) or (3, 6, 13) <= version < (3, 7) or (3, 5, 32) <= version < (3, 6)


async def values_of(watch: Watch, count: int) -> list[bytes]:
    seen: list[bytes] = []
    while len(seen) < count:
        seen += [event.kv.value for event in (await soon(watch.next())).events]
    return seen


def warnings(logs: Any) -> list[str]:  # noqa: ANN401
    return [event["why"] for event in logs if "WebSocket is refused" in event["log_format"]]


@CARRIERS
@ensureDeferred
async def test_with_user_and_password_all_works(
    guarded: EmbeddedEtcd, make_client: MakeClient, prefix: str, own_streams: int
) -> None:
    client = make_client(endpoints=guarded.endpoint, own_streams=own_streams, **USER)
    with capturedLogs() as logs:
        watches = [client.watch(prefix, prefix=True) for _ in range(5)]
        await soon(gatherResults([watch.ready for watch in watches]))
        lease = await client.lease(60)
        await client.put(prefix + "k", "v", lease=lease.id)
        assert await lease.keepalive_once() == 60
        await lease.revoke()
        for watch in watches:
            assert await values_of(watch, 2) == [b"v", b""]
        later = client.watch(prefix, prefix=True)
        await soon(later.ready)
    shared = own_streams == 0 and reads_tokens_from_websockets(guarded)
    falls_back = own_streams == 0 and not shared
    assert len(warnings(logs)) == falls_back
    for why in warnings(logs):
        assert "no token is read from a WebSocket" in why
    # One for requests, and one for all watches or for each.
    assert client.connection_count == 1 + (1 if shared else 6)


@CARRIERS
@ensureDeferred
async def test_a_token_that_goes_stale_under_an_open_watch_is_renewed(
    guarded_proxy: FaultProxy, as_root: EtcdClient, make_client: MakeClient, prefix: str, own_streams: int
) -> None:
    client = make_client(endpoints=guarded_proxy.endpoint, own_streams=own_streams, **USER)
    watch = client.watch(prefix, prefix=True)
    await soon(watch.ready)
    for value in ("1", "2"):
        # The same password again: etcd forgets all tokens of the user.
        await change_password(as_root, USER["password"])
        guarded_proxy.reset()
        await as_root.put(prefix + "k", value)
        assert await values_of(watch, 1) == [value.encode()]
        # And for requests.
        await change_password(as_root, USER["password"])
        await client.put(prefix + "k", value)
        assert await values_of(watch, 1) == [value.encode()]


@CARRIERS
@ensureDeferred
async def test_what_was_taken_from_the_user_ends_its_watch_when_it_comes_back(
    guarded_proxy: FaultProxy, as_root: EtcdClient, make_client: MakeClient, prefix: str, own_streams: int
) -> None:
    client = make_client(endpoints=guarded_proxy.endpoint, own_streams=own_streams, **USER)
    watch = client.watch(prefix, prefix=True)
    await soon(watch.ready)
    ended = watch.ended
    await revoke_role(as_root)
    try:
        guarded_proxy.reset()
        with pytest.raises(PermissionDenied):
            await soon(ended)
    finally:
        await grant_role(as_root)
    watch = client.watch(prefix, prefix=True)
    await soon(watch.ready)
    ended = watch.ended
    await change_password(as_root, "another")
    try:
        guarded_proxy.reset()
        with pytest.raises(AuthenticationFailed):
            await soon(ended)
    finally:
        await change_password(as_root, USER["password"])


@CARRIERS
@ensureDeferred
async def test_a_wrong_password_is_told_by_everything(
    guarded: EmbeddedEtcd, make_client: MakeClient, prefix: str, own_streams: int
) -> None:
    client = make_client(endpoints=guarded.endpoint, own_streams=own_streams, username="user", password="wrong secret")
    with capturedLogs() as logs:
        watches = [client.watch(prefix), client.watch(prefix)]
        askings: list[Deferred[Any]] = [watch.ready for watch in watches]
        askings += [watch.next() for watch in watches]
        askings += [client.get(prefix), client.put(prefix, "v"), client.lease(60)]
        for asking in askings:
            with pytest.raises(AuthenticationFailed, match="check the username and the password") as raised:
                await soon(asking)
            assert "secret" not in str(raised.value)
    assert warnings(logs) == []
    assert "wrong secret" not in str(logs)


@CARRIERS
@ensureDeferred
async def test_a_watch_without_permission_ends_and_the_others_go_on(
    guarded: EmbeddedEtcd, make_client: MakeClient, prefix: str, own_streams: int
) -> None:
    client = make_client(endpoints=guarded.endpoint, own_streams=own_streams, **USER)
    mine, others, all_keys = client.watch(prefix), client.watch("/secret"), client.watch("", prefix=True)
    for watch in (others, all_keys):
        with pytest.raises(PermissionDenied, match="grant the user a role with permission on these keys"):
            await soon(watch.ready)
        with pytest.raises(PermissionDenied):
            await watch.next()
    await soon(mine.ready)
    await client.put(prefix, "v")
    assert await values_of(mine, 1) == [b"v"]
    with pytest.raises(PermissionDenied):
        await client.get("/secret")
    with pytest.raises(PermissionDenied):
        await client.put("/secret", "v")


@CARRIERS
@ensureDeferred
async def test_without_a_user_everything_says_so_once(
    guarded_proxy: FaultProxy, make_client: MakeClient, prefix: str, own_streams: int
) -> None:
    client = make_client(endpoints=guarded_proxy.endpoint, own_streams=own_streams)
    watch = client.watch(prefix)
    askings: list[Deferred[Any]] = [watch.ready, watch.next(), client.get(prefix), client.put(prefix, "v")]
    for asking in askings[:2]:
        # etcd 3.5.1 says so of a watch that has no user.
        with pytest.raises((UserEmpty, PermissionDenied)):
            await soon(asking)
    for asking in askings[2:]:
        with pytest.raises(UserEmpty, match="give the client a username and a password"):
            await soon(asking)
    # Two requests, and one attempt on each of the watch's carriers.
    assert guarded_proxy.connections_made == (3 if own_streams else 4)


@ensureDeferred
async def test_a_user_at_a_server_that_asks_for_none_goes_unused_with_a_warning(
    make_client: MakeClient, prefix: str
) -> None:
    client = make_client(own_streams=0, **USER)
    with capturedLogs() as logs:
        watch = client.watch(prefix)
        await soon(watch.ready)
        await client.put(prefix, "v")
        assert await values_of(watch, 1) == [b"v"]
    assert len([event for event in logs if "has authentication off" in event["log_format"]]) == 1
    assert "password" not in str([event["log_format"].format_map(event) for event in logs])
