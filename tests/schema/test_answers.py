from __future__ import annotations

import contextlib
import traceback
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.schema.strategies import PROFILE
from twisted_etcd import errors
from twisted_etcd.schema import rpcs
from twisted_etcd.schema.answers import StreamError, StreamFrame, decode_error
from twisted_etcd.schema.watch import WatchResponse

NO_LEADER = "etcdserver: no leader"

#: All shapes that an error was seen in, of a unary call and of a stream, of the older and the newer gateway.
SHAPES = {
    "unary, 3.4": b'{"error":"etcdserver: no leader","message":"etcdserver: no leader","code":14}',
    "unary, 3.5": b'{"error":"etcdserver: no leader","code":14,"message":"etcdserver: no leader"}',
    "unary, newer": b'{"code":14, "message":"etcdserver: no leader", "details":[]}',
    "stream, older": (
        b'{"error":{"grpc_code":14,"http_code":503,"message":"etcdserver: no leader",'
        b'"http_status":"Service Unavailable"}}'
    ),
    "stream, newer": b'{"error":{"code":14,"message":"etcdserver: no leader"}}\n',
}

#: What proxies and other servers answer, and what is no answer at all.
FOREIGN = [
    b"",
    b"Not Found\n",
    b"<html><body>502 Bad Gateway</body></html>",
    b"{}",
    b"[]",
    b"null",
    b'"error"',
    b'{"code":502,"message":"Bad Gateway"}',
    b'{"error":"upstream"}',
    b'{"error":{}}',
    b'{"error":{"message":"no code"}}',
    b'{"error":{"code":404,"message":"Not Found"}}',
    b'{"result":null}',
    b'{"code":14,"message":',
    b'{"code":14,"message":"\xff"}',
    b'{"code":14,"message":"\\ud800"}',
    b'{"x":' * 100_000,
]


@pytest.mark.parametrize("body", SHAPES.values(), ids=SHAPES)
def test_an_error_is_read_in_every_shape(body: bytes) -> None:
    for failure in (decode_error(body), rpcs.WATCH.decode_frame(body).failure()):
        assert type(failure) is errors.NoLeader
        assert (failure.code, failure.message) == (14, NO_LEADER)


@pytest.mark.parametrize("body", FOREIGN, ids=lambda body: repr(body[:40]))
def test_what_is_no_answer_of_the_gateway_does_not_decode(body: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode_error(body)
    with pytest.raises(msgspec.DecodeError):
        rpcs.WATCH.decode_frame(body)


@PROFILE
@given(st.binary() | st.text().map(str.encode))
def test_whatever_arrives_it_decodes_or_fails_with_a_decode_error(body: bytes) -> None:
    for decode in (decode_error, rpcs.RANGE.decode, rpcs.WATCH.decode_frame):
        # Any other error fails the test.
        with contextlib.suppress(msgspec.DecodeError):
            decode(body)


def test_a_result_is_no_error() -> None:
    with pytest.raises(msgspec.DecodeError, match="where an error was expected"):
        decode_error(b'{"result":{"created":true}}')


def test_a_frame_with_a_result_has_no_failure() -> None:
    frame = rpcs.WATCH.decode_frame(b'{"result":{"created":true}}\n')
    assert frame.result == WatchResponse(created=True)
    assert frame.failure() is None


def test_an_error_that_nobody_knows_keeps_its_code_and_its_words() -> None:
    failure = decode_error(b'{"code":2, "message":"something new"}')
    assert type(failure) is errors.UnknownError
    assert (failure.code, failure.message) == (2, "something new")


def test_a_value_that_is_not_text_does_not_reach_the_traceback() -> None:
    secret = b"sesame"
    with pytest.raises(msgspec.DecodeError) as caught:
        rpcs.AUTHENTICATE.decode(b'{"token":"' + secret + b'\xff"}')
    assert "sesame" in repr(caught.value.__context__)
    shown = "".join(traceback.format_exception(caught.value))
    assert "not valid UTF-8" in shown
    assert "sesame" not in shown


def test_errors_can_be_written_in_every_shape() -> None:
    frame: StreamFrame[Any]
    # What a server that speaks for etcd in tests needs.
    for frame in (
        StreamFrame(code=14, message=NO_LEADER),
        StreamFrame(code=14, message=NO_LEADER, error=NO_LEADER),
        StreamFrame(error=StreamError(code=14, message=NO_LEADER)),
        StreamFrame(error=StreamError(grpc_code=14, message=NO_LEADER)),
    ):
        assert type(decode_error(msgspec.json.encode(frame))) is errors.NoLeader
    assert msgspec.json.encode(StreamFrame(code=14, message="m")) == b'{"code":14,"message":"m"}'
