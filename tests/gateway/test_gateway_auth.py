"""Users, passwords and tokens, on etcds with authentication on."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
import treq
from twisted.internet.defer import Deferred, gatherResults
from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent, globalLogPublisher
from zope.interface import implementer

from tests.etcds import FreshEtcd, http_client, new_etcd
from tests.gateway.conftest import MakeGateway, MakeProxy, MakeScripted
from tests.gateway.servers import EMPTY_ANSWER, Asked, always, credentials, http_answer, new_gateway
from tests.wire import Event
from twisted_etcd import errors
from twisted_etcd.embedded.process import EmbeddedEtcd
from twisted_etcd.errors import NotEtcd, Unavailable
from twisted_etcd.gateway.gateway import Gateway
from twisted_etcd.schema import rpcs
from twisted_etcd.schema.auth import (
    AuthDisableRequest,
    AuthEnableRequest,
    AuthRoleAddRequest,
    AuthRoleGrantPermissionRequest,
    AuthUserAddRequest,
    AuthUserGrantRoleRequest,
    Permission,
    PermissionType,
)
from twisted_etcd.schema.common import Message
from twisted_etcd.schema.kv import PutRequest, RangeRequest
from twisted_etcd.schema.lease import LeaseKeepAliveRequest
from twisted_etcd.schema.rpcs import RPC

ROOT = credentials()
ANNA = credentials("anna", "annas-sesame")
RANGE, PUT = RangeRequest(key=b"hers/a"), PutRequest(key=b"hers/a", value=b"b")
HERS: tuple[tuple[RPC[Any, Any], Message], ...] = ((rpcs.RANGE, RANGE), (rpcs.PUT, PUT))
FORBIDDEN: tuple[tuple[RPC[Any, Any], Message], ...] = (
    (rpcs.RANGE, RangeRequest(key=b"other")),
    (rpcs.PUT, PutRequest(key=b"other")),
    (rpcs.ROLE_ADD, AuthRoleAddRequest(name="mine")),
)


async def enable_authentication(gateway: Gateway) -> None:
    """Two users: root, who may do all, and anna, who may read and write below ``hers/``."""
    await gateway.unary(rpcs.USER_ADD, AuthUserAddRequest(name="root", password=ROOT.password))
    await gateway.unary(rpcs.ROLE_ADD, AuthRoleAddRequest(name="root"))
    await gateway.unary(rpcs.USER_GRANT_ROLE, AuthUserGrantRoleRequest(user="root", role="root"))
    await gateway.unary(rpcs.USER_ADD, AuthUserAddRequest(name="anna", password=ANNA.password))
    await gateway.unary(rpcs.ROLE_ADD, AuthRoleAddRequest(name="hers"))
    hers = Permission(PermissionType.READWRITE, b"hers/", b"hers0")
    await gateway.unary(rpcs.ROLE_GRANT_PERMISSION, AuthRoleGrantPermissionRequest(name="hers", perm=hers))
    await gateway.unary(rpcs.USER_GRANT_ROLE, AuthUserGrantRoleRequest(user="anna", role="hers"))
    await gateway.unary(rpcs.AUTH_ENABLE, AuthEnableRequest())


async def old_auth_revision(gateway: Gateway, role: str) -> None:
    """Make every token older than the users and roles."""
    await gateway.unary(rpcs.ROLE_ADD, AuthRoleAddRequest(name=role))


#: bcrypt is slow on purpose.
CHEAP = "--bcrypt-cost=4"


@pytest.fixture(scope="module")
def locked(etcd_binary: Path) -> Iterator[EmbeddedEtcd]:
    """An etcd with authentication on, and one host name."""
    etcd = new_etcd(etcd_binary, extra_args=(CHEAP, "--host-whitelist=127.0.0.1"))
    etcd.startService()
    pytest_twisted.blockon(etcd.when_ready())
    gateway = new_gateway(etcd.endpoint)

    async def prepare() -> None:
        await enable_authentication(gateway)
        await gateway.stop()

    pytest_twisted.blockon(Deferred.fromCoroutine(prepare()))
    yield etcd
    pytest_twisted.blockon(etcd.stopService())


async def authentications(etcd: EmbeddedEtcd) -> int:
    """How many tokens etcd has given out."""
    response = await http_client().get(f"{etcd.endpoint}/metrics")
    metrics = await treq.text_content(response)
    found = re.search(
        r'^grpc_server_handled_total\{grpc_code="OK",grpc_method="Authenticate",.*\} (\d+)$', metrics, re.MULTILINE
    )
    return int(found[1]) if found else 0


@pytest_twisted.ensureDeferred
async def test_a_user_with_the_right_password_is_served(locked: EmbeddedEtcd, make_gateway: MakeGateway) -> None:
    gateway = make_gateway(locked.endpoint, credentials=ANNA)
    await gateway.unary(rpcs.PUT, PUT)
    assert (await gateway.unary(rpcs.RANGE, RANGE)).kvs[0].value == b"b"


@pytest_twisted.ensureDeferred
async def test_many_requests_share_one_token(locked: EmbeddedEtcd, make_gateway: MakeGateway) -> None:
    before = await authentications(locked)
    gateway = make_gateway(locked.endpoint, credentials=ANNA)
    await gatherResults([gateway.unary(rpcs.PUT, PUT) for _ in range(30)])
    await gatherResults([gateway.unary(rpcs.RANGE, RANGE) for _ in range(30)])
    assert await authentications(locked) == before + 1


@pytest_twisted.ensureDeferred
async def test_a_change_of_roles_costs_one_new_token_and_no_request(
    locked: EmbeddedEtcd, make_gateway: MakeGateway
) -> None:
    gateway, root = make_gateway(locked.endpoint, credentials=ANNA), make_gateway(locked.endpoint, credentials=ROOT)
    await gateway.unary(rpcs.PUT, PUT)
    await old_auth_revision(root, "changed")
    before = await authentications(locked)
    await gatherResults([gateway.unary(rpcs.PUT, PUT) for _ in range(20)])
    await gatherResults([gateway.unary(rpcs.RANGE, RANGE) for _ in range(20)])
    assert await authentications(locked) <= before + 1


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (401, 16, "etcdserver: invalid auth token"),
        (400, 3, "etcdserver: revision of auth store is old"),
        (400, 3, "etcdserver: user name is empty"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_whatever_etcd_calls_a_stale_token_a_write_goes_again_with_one_new_token(
    make_gateway: MakeGateway, make_scripted: MakeScripted, status: int, code: int, message: str
) -> None:
    tokens = iter(("first", "second", "third"))

    def answer(peer: Asked, _number: int) -> None:
        request = server.requests[-1].lower()
        if b"auth/authenticate" in request:
            token = f',"token":"{next(tokens)}"' + "}"
            peer.say(http_answer(EMPTY_ANSWER[:-1] + token.encode()))
        elif b"authorization: second" in request:
            peer.say(http_answer())
        else:
            peer.say(http_answer(f'{{"code":{code},"message":"{message}"}}'.encode(), status=status))

    server = make_scripted(answer)
    gateway = make_gateway(server.url, credentials=ANNA)
    await gatherResults([gateway.unary(rpcs.PUT, PUT) for _ in range(100)])
    assert sum(b"auth/authenticate" in request for request in server.requests) == 2
    assert sum(b"kv/put" in request for request in server.requests) == 200


@pytest_twisted.ensureDeferred
async def test_a_wrong_password_and_an_unknown_user_are_refused(
    locked: EmbeddedEtcd, make_gateway: MakeGateway
) -> None:
    for wrong in (credentials("anna", "not-the-sesame"), credentials("nobody", "annas-sesame")):
        gateway = make_gateway(locked.endpoint, credentials=wrong)
        for rpc, request in HERS:
            with pytest.raises(errors.AuthenticationFailed, match="check the username and the password") as caught:
                await gateway.unary(rpc, request)
            assert "sesame" not in f"{caught.value!r} {caught.value}"


@pytest_twisted.ensureDeferred
async def test_without_a_user_the_request_is_refused(locked: EmbeddedEtcd, make_gateway: MakeGateway) -> None:
    gateway = make_gateway(locked.endpoint)
    for rpc, request in HERS:
        with pytest.raises(errors.UserEmpty, match="give the client a username and a password"):
            await gateway.unary(rpc, request)


@pytest_twisted.ensureDeferred
async def test_what_a_user_may_not_do_is_refused_and_costs_no_token(
    locked: EmbeddedEtcd, make_gateway: MakeGateway
) -> None:
    gateway = make_gateway(locked.endpoint, credentials=ANNA)
    await gateway.unary(rpcs.RANGE, RANGE)
    before = await authentications(locked)
    for rpc, request in FORBIDDEN:
        with pytest.raises(errors.PermissionDenied):
            await gateway.unary(rpc, request)
    assert await authentications(locked) == before


@pytest_twisted.ensureDeferred
async def test_a_batch_of_a_streaming_call_carries_the_token(locked: EmbeddedEtcd, make_gateway: MakeGateway) -> None:
    gateway = make_gateway(locked.endpoint, credentials=ANNA)
    (answer,) = await gateway.batch(rpcs.LEASE_KEEP_ALIVE, [LeaseKeepAliveRequest(ID=12345)])
    assert answer.TTL == 0


@pytest_twisted.ensureDeferred
async def test_without_a_way_to_a_token_nothing_was_sent(
    locked: EmbeddedEtcd, make_gateway: MakeGateway, make_proxy: MakeProxy
) -> None:
    proxy = make_proxy(locked.endpoint)
    gateway = make_gateway(proxy.endpoint, credentials=ANNA, request_timeout=0.2)
    proxy.swallow("answers")
    with pytest.raises(Unavailable, match=r"KV\.Put needs a token and got none|and was not sent"):
        await gateway.unary(rpcs.PUT, PutRequest(key=b"hers/never"))
    await proxy.heal()
    assert (await gateway.unary(rpcs.RANGE, RangeRequest(key=b"hers/never"))).kvs == ()


@pytest_twisted.ensureDeferred
async def test_where_no_endpoint_can_serve_at_all_that_is_said_also_with_credentials(
    etcd_server: EmbeddedEtcd, make_gateway: MakeGateway, make_scripted: MakeScripted
) -> None:
    secure = etcd_server.endpoint.replace("http:", "https:")
    with pytest.raises(Unavailable, match=r"KV\.Put needs a token and got none: .* write http://"):
        await make_gateway(secure, credentials=ANNA, request_timeout=0.2).unary(rpcs.PUT, PUT)
    stranger = make_scripted(always(http_answer(b'{"status":"ok"}')))
    with pytest.raises(NotEtcd, match=r"KV\.Put needs a token and got none: .* which is not etcd's v3 gateway"):
        await make_gateway(stranger.url, credentials=ANNA).unary(rpcs.PUT, PUT)


@pytest_twisted.ensureDeferred
async def test_a_host_name_that_etcd_does_not_serve_is_explained(
    locked: EmbeddedEtcd, make_gateway: MakeGateway
) -> None:
    url = locked.endpoint.replace("127.0.0.1", "localhost")
    for options in ({}, {"credentials": ANNA}):
        gateway = make_gateway(url, **options)
        with pytest.raises(NotEtcd, match="421: etcd does not serve this host name; add it to etcd's --host-whitelist"):
            await gateway.unary(rpcs.RANGE, RANGE)


@implementer(ILogObserver)
class Warnings:
    """What the gateway warns of."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def __call__(self, event: LogEvent) -> None:
        if event["log_level"] is LogLevel.warn and event["log_namespace"].startswith("twisted_etcd.gateway"):
            self.texts.append(formatEvent(event))


@pytest.fixture
def warnings() -> Iterator[list[str]]:
    observer = Warnings()
    globalLogPublisher.addObserver(observer)
    yield observer.texts
    globalLogPublisher.removeObserver(observer)


@pytest_twisted.ensureDeferred
async def test_a_user_whom_nobody_asks_for_is_warned_of_once(
    etcd_server: EmbeddedEtcd, make_gateway: MakeGateway, warnings: list[str]
) -> None:
    gateway = make_gateway(etcd_server.endpoint, credentials=ANNA)
    await gatherResults([gateway.unary(rpcs.RANGE, RANGE) for _ in range(5)])
    await gateway.unary(rpcs.PUT, PutRequest(key=b"a"))
    assert warnings == ["etcd has authentication off; the user anna goes unused"]


@implementer(ILogObserver)
class Deletions:
    """Waits for etcd to say that a token has expired."""

    def __init__(self) -> None:
        self.count = 0
        self._event = Event()

    def __call__(self, event: LogEvent) -> None:
        if event.get("log_namespace") == "etcd" and "deleted a simple token" in str(formatEvent(event)):
            self.count += 1
            self._event.happened()

    async def until(self, count: int) -> None:
        await self._event.until(lambda: self.count >= count)


@pytest_twisted.ensureDeferred
async def test_authentication_may_come_and_go_and_tokens_expire_unseen(
    fresh_etcd: FreshEtcd, make_gateway: MakeGateway, warnings: list[str]
) -> None:
    etcd = await fresh_etcd(extra_args=(CHEAP, "--auth-token-ttl=1", "--log-level=debug"))
    gateway, root = make_gateway(etcd.endpoint, credentials=ANNA), make_gateway(etcd.endpoint, credentials=ROOT)
    await gateway.unary(rpcs.PUT, PUT)
    assert await authentications(etcd) == 0
    await enable_authentication(root)
    await gatherResults([gateway.unary(rpcs.PUT, PUT) for _ in range(10)])
    assert await authentications(etcd) == 1
    deletions = Deletions()
    globalLogPublisher.addObserver(deletions)
    try:
        await deletions.until(1)
    finally:
        globalLogPublisher.removeObserver(deletions)
    await gatherResults([gateway.unary(rpcs.PUT, PUT) for _ in range(10)])
    assert await authentications(etcd) == 2
    await root.unary(rpcs.AUTH_DISABLE, AuthDisableRequest())
    await gateway.unary(rpcs.PUT, PUT)
    assert not any("sesame" in text for text in warnings)
