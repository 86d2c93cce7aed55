"""The gateway in front of real etcds: requests, etcd's errors, and the end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.task import deferLater

from tests.gateway.conftest import MakeGateway, MakeProxy, MakeScripted
from tests.gateway.servers import BOTH, CLOCK, EMPTY_ANSWER, always, credentials, http_answer, silent, until_closed
from tests.wire import Listener, soon
from twisted_etcd import errors
from twisted_etcd.embedded.process import EmbeddedEtcd
from twisted_etcd.errors import DeadlineExceeded, NotEtcd, ServiceStopped, Unavailable
from twisted_etcd.gateway.endpoints import parse_endpoint
from twisted_etcd.gateway.gateway import Gateway
from twisted_etcd.schema import rpcs
from twisted_etcd.schema.auth import AuthenticateRequest, AuthUserDeleteRequest
from twisted_etcd.schema.cluster import MemberRemoveRequest
from twisted_etcd.schema.common import Message
from twisted_etcd.schema.kv import (
    CompactionRequest,
    DeleteRangeRequest,
    PutRequest,
    RangeRequest,
    RequestOp,
    TxnRequest,
)
from twisted_etcd.schema.lease import LeaseGrantRequest, LeaseKeepAliveRequest, LeaseRevokeRequest
from twisted_etcd.schema.rpcs import RPC

RANGE = RangeRequest(key=b"a")


@pytest.fixture
def gateway(etcd_server: EmbeddedEtcd, make_gateway: MakeGateway) -> Gateway:
    return make_gateway(etcd_server.endpoint)


# --- requests -------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_requests_are_answered_by_etcd(gateway: Gateway, prefix: str) -> None:
    key = prefix.encode() + b"\x00\xff"
    put = await gateway.unary(rpcs.PUT, PutRequest(key=key, value=b"\x00\x01\xfe"))
    found = await gateway.unary(rpcs.RANGE, RangeRequest(key=key))
    assert (found.kvs[0].key, found.kvs[0].value) == (key, b"\x00\x01\xfe")
    assert found.kvs[0].mod_revision == put.header.revision
    gone = await gateway.unary(rpcs.DELETE_RANGE, DeleteRangeRequest(key=key))
    assert gone.deleted == 1


@pytest_twisted.ensureDeferred
async def test_one_after_the_other_shares_a_connection_and_together_take_no_more_than_allowed(
    etcd_server: EmbeddedEtcd, make_gateway: MakeGateway, make_proxy: MakeProxy
) -> None:
    proxy = make_proxy(etcd_server.endpoint)
    gateway = make_gateway(proxy.endpoint, max_connections=3)
    for _ in range(5):
        await gateway.unary(rpcs.RANGE, RANGE)
    assert proxy.connections_made == 1
    await gatherResults([gateway.unary(rpcs.RANGE, RANGE) for _ in range(50)])
    assert (proxy.connections_made, gateway.connection_count) == (3, 3)


@pytest_twisted.ensureDeferred
async def test_an_answer_of_many_megabytes_comes_whole(gateway: Gateway, prefix: str) -> None:
    value = bytes(range(256)) * 4096
    await gateway.unary(rpcs.PUT, PutRequest(key=prefix.encode(), value=value))
    same = RequestOp(request_range=RangeRequest(key=prefix.encode()))
    answer = await gateway.unary(rpcs.TXN, TxnRequest(success=(same,) * 3))
    found = [response.response_range for response in answer.responses]
    assert [each is not None and each.kvs[0].value == value for each in found] == [True] * 3


@pytest_twisted.ensureDeferred
async def test_several_requests_of_a_streaming_call_go_in_one_post(gateway: Gateway) -> None:
    leases = [(await gateway.unary(rpcs.LEASE_GRANT, LeaseGrantRequest(TTL=100))).ID for _ in range(3)]
    await gateway.unary(rpcs.LEASE_REVOKE, LeaseRevokeRequest(ID=leases[1]))
    answers = await gateway.batch(rpcs.LEASE_KEEP_ALIVE, [LeaseKeepAliveRequest(ID=lease) for lease in leases])
    assert [(answer.ID, answer.TTL) for answer in answers] == [(leases[0], 100), (leases[1], 0), (leases[2], 100)]
    await gatherResults([gateway.unary(rpcs.LEASE_REVOKE, LeaseRevokeRequest(ID=leases[each])) for each in (0, 2)])


# --- etcd's errors --------------------------------------------------------------------------------------------------

PUT_A = RequestOp(request_put=PutRequest(key=b"a", value=b"1"))


@pytest.mark.parametrize(
    ("rpc", "request_", "cls", "code"),
    [
        (rpcs.RANGE, RangeRequest(), errors.EmptyKey, 3),
        (rpcs.PUT, PutRequest(value=b"x"), errors.EmptyKey, 3),
        (rpcs.PUT, PutRequest(key=b"a", value=b"x", ignore_value=True), errors.ValueProvided, 3),
        (rpcs.PUT, PutRequest(key=b"a", lease=1, ignore_lease=True), errors.LeaseProvided, 3),
        (rpcs.PUT, PutRequest(key=b"a", lease=12345), errors.LeaseNotFound, 5),
        (rpcs.PUT, PutRequest(key=b"a", value=b"x" * 1_600_000), errors.RequestTooLarge, 3),
        (rpcs.PUT, PutRequest(key=b"a", value=b"x" * 3_000_000), errors.RequestTooLarge, 3),
        (rpcs.TXN, TxnRequest(success=(PUT_A,) * 129), errors.TooManyOperations, 3),
        (rpcs.TXN, TxnRequest(success=(PUT_A, PUT_A)), errors.DuplicateKey, 3),
        (rpcs.RANGE, RangeRequest(key=b"a", revision=1 << 40), errors.FutureRevision, 11),
        (rpcs.COMPACT, CompactionRequest(revision=1 << 40), errors.FutureRevision, 11),
        (rpcs.LEASE_REVOKE, LeaseRevokeRequest(ID=12345), errors.LeaseNotFound, 5),
        (rpcs.LEASE_GRANT, LeaseGrantRequest(TTL=10_000_000_000), errors.LeaseTTLTooLarge, 11),
        (rpcs.AUTHENTICATE, AuthenticateRequest(name="root", password="x"), errors.AuthNotEnabled, 9),
        (rpcs.USER_DELETE, AuthUserDeleteRequest(name="nobody"), errors.UserNotFound, 9),
        (rpcs.MEMBER_REMOVE, MemberRemoveRequest(ID=12345), errors.MemberNotFound, 5),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
@pytest_twisted.ensureDeferred
async def test_etcds_errors_have_their_own_classes(
    gateway: Gateway, rpc: RPC[Any, Any], request_: Message, cls: type[errors.EtcdError], code: int
) -> None:
    with pytest.raises(errors.EtcdError) as caught:
        await gateway.unary(rpc, request_)
    assert (type(caught.value), caught.value.code) == (cls, code)
    assert caught.value.message
    assert "x" * 20 not in str(caught.value)


@pytest_twisted.ensureDeferred
async def test_a_lease_id_is_given_once(gateway: Gateway) -> None:
    grant = LeaseGrantRequest(ID=987_654_321, TTL=100)
    await gateway.unary(rpcs.LEASE_GRANT, grant)
    with pytest.raises(errors.LeaseExists):
        await gateway.unary(rpcs.LEASE_GRANT, grant)
    await gateway.unary(rpcs.LEASE_REVOKE, LeaseRevokeRequest(ID=grant.ID))


@pytest_twisted.ensureDeferred
async def test_a_compacted_revision_is_told(gateway: Gateway, prefix: str) -> None:
    revisions = [
        (await gateway.unary(rpcs.PUT, PutRequest(key=prefix.encode(), value=b"%d" % each))).header.revision
        for each in range(3)
    ]
    await gateway.unary(rpcs.COMPACT, CompactionRequest(revision=revisions[1]))
    with pytest.raises(errors.Compacted):
        await gateway.unary(rpcs.RANGE, RangeRequest(key=prefix.encode(), revision=revisions[0]))
    with pytest.raises(errors.Compacted):
        await gateway.unary(rpcs.COMPACT, CompactionRequest(revision=revisions[1]))


# --- what is not the etcd that was meant ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (http_answer(b"{}"), "answered 200 application/json, which is not etcd's v3 gateway"),
        (http_answer(b'{"status":"ok"}'), "answered 200 application/json, which is not etcd's v3 gateway"),
        (http_answer(b"<html>hello</html>", content_type="text/html", headers=["Server: nginx"]), "(it is 'nginx')"),
        (http_answer(b"404 page not found\n", status=404, content_type="text/plain"), "answered 404 text/plain"),
        (http_answer(b"", status=301, headers=["Location: https://127.0.0.1/"]), "a redirect"),
        (http_answer(b"", status=307, headers=["Location: /v3/kv/range"]), "a redirect"),
        (http_answer(b"", status=421, content_type="text/plain"), "--host-whitelist"),
        (b"220 mail.example ESMTP\r\n", "what came is not HTTP"),
    ],
    ids=["empty", "health", "web", "404", "301", "307", "421", "smtp"],
)
@pytest_twisted.ensureDeferred
async def test_a_stranger_is_told_at_once_for_reads_and_writes_and_is_passed_over_for_a_real_etcd(
    make_scripted: MakeScripted, make_gateway: MakeGateway, answer: bytes, words: str
) -> None:
    server = make_scripted(always(answer))
    etcd = make_scripted(always(http_answer(EMPTY_ANSWER)))
    gateway = make_gateway(server.url)
    for rpc, request in BOTH:
        with pytest.raises(NotEtcd) as caught:
            await soon(gateway.unary(rpc, request))
        assert words in caught.value.tried[server.url]
        await soon(make_gateway(server.url, etcd.url).unary(rpc, request))


# --- the end --------------------------------------------------------------------------------------------------------


MakePhase = Callable[[MakeScripted, MakeGateway], Awaitable[Gateway]]


async def waiting_for_a_turn(make_scripted: MakeScripted, make_gateway: MakeGateway) -> Gateway:
    server = make_scripted(silent)
    gateway = make_gateway(server.url, max_connections=1)
    gateway.unary(rpcs.RANGE, RANGE).addErrback(lambda failure: failure.trap(ServiceStopped))
    await server.until_requested()
    return gateway


async def connecting(make_scripted: MakeScripted, make_gateway: MakeGateway) -> Gateway:
    return make_gateway(make_scripted(silent).url)


async def looking_up_the_name(make_scripted: MakeScripted, make_gateway: MakeGateway) -> Gateway:
    return make_gateway(f"http://localhost:{make_scripted(silent).port}")


async def between_two_attempts(make_scripted: MakeScripted, make_gateway: MakeGateway) -> Gateway:
    listener = Listener()
    await listener.close()
    return make_gateway(f"http://{listener.authority}", random=lambda: 1.0)


async def waiting_for_a_token(make_scripted: MakeScripted, make_gateway: MakeGateway) -> Gateway:
    return make_gateway(make_scripted(silent).url, credentials=credentials())


async def in_the_handshake(make_scripted: MakeScripted, make_gateway: MakeGateway) -> Gateway:
    return make_gateway(make_scripted(silent).url.replace("http:", "https:"))


def answered_with(data: bytes) -> MakePhase:
    async def make(make_scripted: MakeScripted, make_gateway: MakeGateway) -> Gateway:
        return make_gateway(make_scripted(always(data)).url)

    return make


@pytest.mark.parametrize(
    "make",
    [
        waiting_for_a_turn,
        connecting,
        looking_up_the_name,
        between_two_attempts,
        waiting_for_a_token,
        in_the_handshake,
        answered_with(b""),
        answered_with(b"HTTP/1.1 200 OK\r\n"),
        answered_with(http_answer()[:-1]),
    ],
    ids=[
        "waiting for a turn",
        "connecting",
        "looking up the name",
        "between two attempts",
        "waiting for a token",
        "in the handshake",
        "waiting for the head",
        "in the head",
        "in the body",
    ],
)
@pytest.mark.parametrize("turns", [0, 1, 2, 20])
@pytest_twisted.ensureDeferred
async def test_stopping_ends_calls_in_every_phase(
    make_scripted: MakeScripted, make_gateway: MakeGateway, make: MakePhase, turns: int
) -> None:
    gateway = await make(make_scripted, make_gateway)
    outcomes: list[Any] = []
    for rpc, request in BOTH:
        gateway.unary(rpc, request).addBoth(outcomes.append)
    for _ in range(turns):
        await turn()
    assert outcomes == []
    await soon(gateway.stop())
    assert [type(failure.value) for failure in outcomes] == [ServiceStopped, ServiceStopped]
    assert gateway.connection_count == 0


async def turn() -> None:
    """One turn of the reactor."""
    await deferLater(CLOCK, 0)


@pytest_twisted.ensureDeferred
async def test_stopping_closes_idle_connections_and_may_be_done_twice(gateway: Gateway) -> None:
    await gatherResults([gateway.unary(rpcs.RANGE, RANGE) for _ in range(5)])
    assert gateway.connection_count > 0
    await gatherResults([gateway.stop(), gateway.stop()])
    assert gateway.connection_count == 0
    await gateway.stop()


@pytest_twisted.ensureDeferred
async def test_after_the_end_nothing_is_sent(make_scripted: MakeScripted, make_gateway: MakeGateway) -> None:
    server = make_scripted(silent)
    gateway = make_gateway(server.url)
    await gateway.stop()
    with pytest.raises(ServiceStopped, match=r"the client was stopped before KV\.Range"):
        await gateway.unary(rpcs.RANGE, RANGE)
    with pytest.raises(ServiceStopped):
        await gateway.batch(rpcs.LEASE_KEEP_ALIVE, [LeaseKeepAliveRequest(ID=1)])
    assert server.connections == []


@pytest_twisted.ensureDeferred
async def test_a_stream_that_is_being_opened_ends_with_the_gateway_too(
    make_scripted: MakeScripted, make_gateway: MakeGateway
) -> None:
    server = make_scripted(silent)
    gateway = make_gateway(server.url)
    receiver: Any = object()
    endpoint = gateway.choose()
    openings: list[Deferred[Any]] = [
        gateway.open_post_stream(rpcs.WATCH, b"{}", receiver, endpoint=endpoint),
        gateway.open_websocket(rpcs.WATCH, receiver, endpoint=endpoint),
    ]
    await server.connection(1)
    stopping = gateway.stop()
    for opening in openings:
        with pytest.raises(ServiceStopped, match=r"the client was stopped while Watch\.Watch was being opened"):
            await opening
    await soon(stopping)


# --- cancelling, and time -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 200 OK\r\n", http_answer()[:-1]], ids=["", "in the head", "in the body"]
)
@pytest_twisted.ensureDeferred
async def test_cancelling_closes_the_connection(
    make_scripted: MakeScripted, make_gateway: MakeGateway, answer: bytes
) -> None:
    server = make_scripted(always(answer))
    gateway = make_gateway(server.url)
    call = gateway.unary(rpcs.PUT, PutRequest(key=b"a"))
    await server.until_requested()
    call.cancel()
    with pytest.raises(CancelledError):
        await call
    await (await server.connection()).until_lost()
    await until_closed(gateway)


@pytest_twisted.ensureDeferred
async def test_one_that_is_cancelled_while_it_waits_takes_no_turn(
    make_scripted: MakeScripted, make_gateway: MakeGateway
) -> None:
    held: list[Any] = []
    server = make_scripted(lambda peer, _number: held.append(peer))
    gateway = make_gateway(server.url, max_connections=1)
    first, second, third = (gateway.unary(rpcs.RANGE, RANGE) for _ in range(3))
    await server.until_requested()
    second.cancel()
    with pytest.raises(CancelledError):
        await second
    held[0].say(http_answer())
    await first
    await server.until_requested(2)
    held[1].say(http_answer())
    await third
    assert len(server.requests) == 2


@pytest_twisted.ensureDeferred
async def test_the_deadline_covers_the_wait_for_a_turn(make_scripted: MakeScripted, make_gateway: MakeGateway) -> None:
    server = make_scripted(silent)
    gateway = make_gateway(server.url, max_connections=1)
    first = gateway.unary(rpcs.RANGE, RANGE)
    with pytest.raises(Unavailable, match="and was not sent"):
        await gateway.unary(rpcs.PUT, PutRequest(key=b"a"), timeout=0.05)
    with pytest.raises(DeadlineExceeded):
        await gateway.unary(rpcs.RANGE, RANGE, timeout=0.05)
    assert sum(b"/v3/kv/" in request for request in server.requests) == 1
    first.cancel()
    with pytest.raises(CancelledError):
        await first


def test_a_password_is_shown_nowhere() -> None:
    shown = credentials()
    assert "sesame" not in f"{shown!r} {shown} {AuthenticateRequest(name='root', password='open-sesame')!r}"


# --- one endpoint ---------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_what_is_for_one_endpoint_goes_nowhere_else_and_says_nothing_of_the_others(
    etcd_server: EmbeddedEtcd, make_gateway: MakeGateway, make_scripted: MakeScripted
) -> None:
    stranger = make_scripted(always(http_answer(b"hello", content_type="text/html")))
    gateway = make_gateway(etcd_server.endpoint)
    (known,) = gateway.endpoints
    there = parse_endpoint(stranger.url)
    with pytest.raises(NotEtcd) as raised:
        await soon(gateway.unary(rpcs.RANGE, RANGE, endpoint=there))
    assert list(raised.value.tried) == [stranger.url]
    assert gateway.endpoints == (known,)
    assert gateway.endpoint_statuses[0].failures == 0
    await soon(gateway.unary(rpcs.RANGE, RANGE, endpoint=known))
    assert len(stranger.requests) == 1
    assert gateway.choose_besides(()) == known
    assert gateway.choose_besides((known,)) is None
