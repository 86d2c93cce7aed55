"""What an HTTP answer means, whoever gave it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.gateway.servers import EMPTY_ANSWER, HEADER, JSON
from twisted_etcd import errors
from twisted_etcd.errors import EtcdError, NotEtcd, Unimplemented
from twisted_etcd.gateway.answers import read_error, read_replies, read_reply, stranger
from twisted_etcd.gateway.exchange import ExchangeFailed, Reach, Reply
from twisted_etcd.schema import rpcs
from twisted_etcd.schema.rpcs import RPC

URL = "http://127.0.0.1:2379"
TEXT = "text/plain; charset=utf-8"


def reply(body: bytes, status: int = 200, content_type: str = JSON, *, whole: bool = True, server: str = "") -> Reply:
    return Reply(status=status, content_type=content_type, server=server, body=body, whole=whole)


def test_an_answer_of_etcds_is_the_response() -> None:
    body = b"{" + HEADER.encode() + b',"kvs":[{"key":"YQ==","value":"Yg==","mod_revision":"2"}],"count":"1"}'
    response = read_reply(rpcs.RANGE, reply(body), URL)
    assert (response.count, response.kvs[0].key, response.kvs[0].value) == (1, b"a", b"b")


@pytest.mark.parametrize(
    ("status", "body", "cls", "code"),
    [
        (400, b'{"error":"etcdserver: key is not provided","code":3,"message":"etcdserver: key is not provided"}',
         errors.EmptyKey, 3),
        (400, b'{"code":3, "message":"etcdserver: key is not provided"}', errors.EmptyKey, 3),
        (404, b'{"code":5,"message":"etcdserver: requested lease not found"}', errors.LeaseNotFound, 5),
        # Known by its message, whatever the code.
        (500, b'{"code":2,"message":"etcdserver: user name is empty"}', errors.UserEmpty, 3),
        (500, b'{"error":"no leader","code":2,"message":"etcdserver: no leader"}', errors.NoLeader, 14),
        # Unknown words: by the code.
        (403, b'{"code":7,"message":"something new"}', errors.PermissionDenied, 7),
        (429, b'{"error":"x","code":8,"message":"something new"}', errors.ResourceExhausted, 8),
        (503, b'{"code":14,"message":"something new"}', errors.ServerUnavailable, 14),
        # A newer gateway's unknown path.
        (404, b'{"code":5, "message":"Not Found"}', Unimplemented, 12),
    ],
)  # fmt: skip
def test_both_shapes_of_an_error_are_read_by_message_and_then_by_code(
    status: int, body: bytes, cls: type[EtcdError], code: int
) -> None:
    with pytest.raises(EtcdError) as caught:
        read_reply(rpcs.PUT, reply(body, status), URL)
    assert type(caught.value) is cls
    assert caught.value.code == code


@pytest.mark.parametrize("rpc", [rpcs.AUTH_STATUS, rpcs.DOWNGRADE], ids=repr)
def test_the_older_gateways_plain_404_says_that_a_call_is_missing_where_etcds_can_miss_it(rpc: RPC[Any, Any]) -> None:
    with pytest.raises(Unimplemented, match=f"the server has no {rpc.path} .*may be too old"):
        read_reply(rpc, reply(b"Not Found\n", 404, TEXT), URL)


@pytest.mark.parametrize("body", [b"Not Found\n", b"404 page not found\n", b"", b"nope"], ids=repr)
def test_a_plain_404_for_what_every_etcd_has_is_not_etcds(body: bytes) -> None:
    with pytest.raises(NotEtcd, match=r"KV\.Range did not reach etcd: http://127.0.0.1:2379: answered 404 text/plain"):
        read_reply(rpcs.RANGE, reply(body, 404, TEXT), URL)


@pytest.mark.parametrize(
    ("status", "content_type", "body"),
    [
        (200, JSON, b"{}"),
        (200, JSON, b'{"status":"ok"}'),
        (200, JSON, b'{"header":{}}'),
        (200, JSON, b'{"count":"1"}'),
        (200, "text/html", b"<html>Welcome to nginx!</html>"),
        (200, "", b""),
        (200, "text/plain", b"pong"),
        (204, "", b""),
        (400, "text/html", b"<html>Bad Request</html>"),
        (401, JSON, b'{"detail":"Not authenticated"}'),
        (403, "text/plain", b"forbidden"),
        (405, TEXT, b"Method Not Allowed\n"),
        (404, JSON, b'{"code":404,"message":"no such page"}'),
        (404, JSON, b'{"error":"not found"}'),
    ],
)
@pytest.mark.parametrize("rpc", [rpcs.RANGE, rpcs.PUT, rpcs.AUTHENTICATE], ids=repr)
def test_what_another_service_answers_is_not_etcds(
    rpc: RPC[Any, Any], status: int, content_type: str, body: bytes
) -> None:
    with pytest.raises(NotEtcd) as caught:
        read_reply(rpc, reply(body, status, content_type), URL)
    assert caught.value.tried[URL].startswith(f"answered {status} ")


@pytest.mark.parametrize("body", [b'{"status":"ok"}', b"[]", b'"ok"', b"<html>", b'{"errors":[]}'], ids=repr)
@pytest.mark.parametrize("rpc", [rpcs.ALARM, rpcs.DEFRAGMENT, rpcs.MOVE_LEADER], ids=repr)
def test_another_service_is_found_out_by_calls_without_a_header_too(rpc: RPC[Any, Any], body: bytes) -> None:
    with pytest.raises(NotEtcd):
        read_reply(rpc, reply(body, content_type="text/html" if body == b"<html>" else JSON + "-ish"), URL)


@pytest.mark.parametrize(
    ("rpc", "body"),
    [
        (rpcs.ALARM, b"{}"),
        (rpcs.DEFRAGMENT, b"{}\n"),
        (rpcs.MOVE_LEADER, b"{}"),
        (rpcs.ALARM, b'{"alarms":[{"memberID":"1","alarm":"NOSPACE"}]}'),
    ],
)
def test_calls_that_some_etcds_answer_without_a_header_need_none(rpc: RPC[Any, Any], body: bytes) -> None:
    read_reply(rpc, reply(body), URL)


@pytest.mark.parametrize(
    ("status", "content_type", "body", "advice"),
    [
        (421, "text/plain", b"", "--host-whitelist"),
        (400, "text/plain", b"Client sent an HTTP request to an HTTPS server.\n", "write the endpoint with https://"),
        (301, "text/html", b"moved", "a redirect, which etcd never does; write the endpoint that it leads to"),
        (308, "", b"", "a redirect"),
        (404, "text/html", b"<html>", "answered 404 text/html, which is not etcd's v3 gateway"),
        (404, "", b"", "answered 404 without a content type, which"),
    ],
)
def test_what_is_said_of_a_stranger_says_what_to_do(status: int, content_type: str, body: bytes, advice: str) -> None:
    assert advice in stranger(status, content_type, "", body)


def test_a_stranger_is_named_as_it_calls_itself() -> None:
    assert stranger(404, "text/html", "nginx/1.25", b"").endswith("(it is 'nginx/1.25')")
    assert len(stranger(404, "x" * 1000, "y" * 1000, b"")) < 250


@pytest.mark.parametrize("status", [200, 400, 404, 500, 502])
def test_a_stranger_that_repeats_the_request_puts_no_password_into_an_error(status: int) -> None:
    for content_type in (JSON, TEXT):
        echo = reply(b'{"name":"root","password":"open-sesame"}', status, content_type)
        with pytest.raises((NotEtcd, ExchangeFailed)) as caught:
            read_reply(rpcs.AUTHENTICATE, echo, URL)
        assert "sesame" not in f"{caught.value} {caught.value!r} {caught.value.__cause__}"


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_proxys_own_error_leaves_open_what_etcd_did(status: int) -> None:
    with pytest.raises(ExchangeFailed, match=f"answered {status} without saying why") as caught:
        read_reply(rpcs.PUT, reply(b"<html>Bad Gateway</html>", status, "text/html"), URL)
    assert caught.value.reach is Reach.MAYBE_SENT


@pytest.mark.parametrize("status", [200, 400])
def test_an_answer_that_ends_early_is_a_broken_exchange_at_every_byte(status: int) -> None:
    for length in range(len(EMPTY_ANSWER)):
        with pytest.raises(ExchangeFailed, match="the answer was cut short") as caught:
            read_reply(rpcs.PUT, reply(EMPTY_ANSWER[:length], status, whole=False), URL)
        assert caught.value.reach is Reach.MAYBE_SENT


def test_an_answer_whose_end_was_the_connections_end_is_taken_when_it_is_whole_json() -> None:
    read_reply(rpcs.PUT, reply(EMPTY_ANSWER, whole=False), URL)


@pytest.mark.parametrize(
    ("rpc", "body"),
    [
        (rpcs.RANGE, b"{" + HEADER.encode() + b',"kvs":"many"}'),
        (rpcs.TXN, b"{" + HEADER.encode() + b',"succeeded":"perhaps"}'),
    ],
)
def test_an_answer_of_etcds_in_an_unknown_shape_leaves_open_what_it_did(rpc: RPC[Any, Any], body: bytes) -> None:
    for content_type in (JSON, ""):
        with pytest.raises(ExchangeFailed, match=f"the answer to {rpc.name} cannot be read") as caught:
            read_reply(rpc, reply(body, content_type=content_type), URL)
        assert caught.value.reach is Reach.MAYBE_SENT


def test_a_reply_shows_nothing_of_its_body() -> None:
    assert "sesame" not in repr(reply(b'{"token":"open-sesame"}'))


# --- streaming calls that are over at once --------------------------------------------------------------------------


def line(ttl: int) -> bytes:
    return b'{"result":{' + HEADER.encode() + b',"ID":"7","TTL":"%d"}}' % ttl


def test_each_line_is_a_response() -> None:
    responses = read_replies(rpcs.LEASE_KEEP_ALIVE, reply(line(1) + b"\n" + line(2) + b"\n"), URL)
    assert [response.TTL for response in responses] == [1, 2]


def test_no_line_is_no_response() -> None:
    assert read_replies(rpcs.LEASE_KEEP_ALIVE, reply(b""), URL) == []


@pytest.mark.parametrize(
    "error",
    [
        b'{"error":{"grpc_code":14,"http_code":503,"message":"etcdserver: no leader"}}',
        b'{"error":{"code":14,"message":"etcdserver: no leader"}}',
    ],
)
def test_an_error_among_the_lines_is_the_answer(error: bytes) -> None:
    with pytest.raises(errors.NoLeader):
        read_replies(rpcs.LEASE_KEEP_ALIVE, reply(line(1) + b"\n" + error), URL)


def test_an_error_status_of_a_stream_is_read_in_both_shapes() -> None:
    for body in (
        b'{"error":{"grpc_code":16,"http_code":401,"message":"etcdserver: invalid auth token"}}',
        b'{"code":16,"message":"etcdserver: invalid auth token"}',
    ):
        with pytest.raises(errors.InvalidAuthToken):
            read_replies(rpcs.LEASE_KEEP_ALIVE, reply(body, 401), URL)


def test_a_cut_line_is_a_broken_exchange() -> None:
    with pytest.raises(ExchangeFailed, match="cut short"):
        read_replies(rpcs.LEASE_KEEP_ALIVE, reply(line(1) + b"\n" + line(2)[:20], whole=False), URL)


def test_a_line_of_etcds_in_an_unknown_shape_leaves_open_what_it_did() -> None:
    body = b'{"result":{' + HEADER.encode() + b',"TTL":"soon"}}'
    with pytest.raises(ExchangeFailed, match=r"the answer to Lease\.LeaseKeepAlive cannot be read"):
        read_replies(rpcs.LEASE_KEEP_ALIVE, reply(body), URL)


@pytest.mark.parametrize(
    ("content_type", "body"), [("text/html", b"<html></html>"), (JSON, b"{}"), (JSON, b'{"status":"ok"}')]
)
def test_lines_of_a_stranger_are_not_etcds(content_type: str, body: bytes) -> None:
    with pytest.raises(NotEtcd):
        read_replies(rpcs.LEASE_KEEP_ALIVE, reply(body, content_type=content_type), URL)


def test_an_error_of_a_stream_is_read_like_that_of_a_call() -> None:
    assert isinstance(read_error(404, b'{"code":5,"message":"Not Found"}', "/v3/watch"), Unimplemented)
    assert read_error(404, b"Not Found\n", "/v3/watch") is None
    assert read_error(502, b"<html>", "/v3/watch") is None
