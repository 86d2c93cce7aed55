"""What an HTTP answer means: the response that was asked for, etcd's error, or something that is not etcd's."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from twisted_etcd.errors import EtcdError, NotEtcd, Unimplemented
from twisted_etcd.gateway.exchange import ExchangeFailed, Reach, Reply
from twisted_etcd.schema import rpcs
from twisted_etcd.schema.answers import decode_error
from twisted_etcd.schema.common import Message, ResponseHeader
from twisted_etcd.schema.rpcs import RPC

RequestT = TypeVar("RequestT", bound=Message)
ResponseT = TypeVar("ResponseT", bound=Message)

_OK = 200
_NOT_FOUND = 404
_SERVER_ERRORS = 500
_MISDIRECTED = 421
_JSON = "application/json"
#: Calls that etcd, at least on some versions, answers without a header.
_HEADLESS = (rpcs.ALARM, rpcs.DEFRAGMENT)
#: How much of a stranger's answer an error shows.
_EXCERPT = 60


def read_error(status: int, body: bytes, path: str) -> EtcdError | None:
    """
    The error that etcd answered to a call, or None where the answer is not etcd's.

    :param path: the path of the call.
    """
    try:
        error = decode_error(body)
    except msgspec.DecodeError:
        return None
    if status == _NOT_FOUND and error.message == "Not Found":
        return Unimplemented(Unimplemented.grpc_code, f"the server has no {path}")
    return error


def stranger(status: int, content_type: str, body: bytes) -> str:
    """What to say of an answer that is not etcd's."""
    if status == _MISDIRECTED:
        return "421: etcd does not serve this host name; add it to etcd's --host-whitelist"
    if b"HTTP request to an HTTPS server" in body:
        return "it speaks TLS; write the endpoint with https://"
    excerpt = body[:_EXCERPT].decode("utf-8", "replace").split("\n", 1)[0].strip()
    return f"answered {status} {content_type or 'without a content type'} {excerpt!r}, which is not etcd's v3 gateway"


def read_replies(rpc: RPC[RequestT, ResponseT], reply: Reply, endpoint: str) -> list[ResponseT]:
    """
    The responses in the answer of a streaming call that was over at once, one a line.

    :raises EtcdError: where etcd answered with an error, be it in the middle.
    :raises NotEtcd: where something else answered.
    :raises ExchangeFailed: where the answer was cut short or cannot be read.
    """
    if reply.status != _OK:
        raise _not_ok(rpc, reply, endpoint)
    responses: list[ResponseT] = []
    try:
        for line in reply.body.splitlines():
            frame = rpc.decode_frame(line)
            error = frame.failure()
            if error is not None:
                raise error
            if frame.result is not None:
                responses.append(frame.result)
    except msgspec.DecodeError as error:
        raise _unreadable(rpc, reply, endpoint, error) from error
    return responses


def read_reply(rpc: RPC[RequestT, ResponseT], reply: Reply, endpoint: str) -> ResponseT:
    """
    The response in a whole HTTP answer.

    :raises EtcdError: where etcd answered with an error.
    :raises NotEtcd: where something else answered.
    :raises ExchangeFailed: where the answer was cut short or cannot be read, so that nobody knows what etcd did.
    """
    if reply.status != _OK:
        raise _not_ok(rpc, reply, endpoint)
    try:
        response = rpc.decode(reply.body)
    except msgspec.DecodeError as error:
        raise _unreadable(rpc, reply, endpoint, error) from error
    # Other JSON services answer 200 as well, and to a decoder that fills in zeros any object is a response.
    if rpc not in _HEADLESS and getattr(response, "header", None) == ResponseHeader():
        raise _not_etcd(rpc, reply, endpoint)
    return response


def _not_ok(rpc: RPC[Any, Any], reply: Reply, endpoint: str) -> Exception:
    answered = read_error(reply.status, reply.body, rpc.path)
    if answered is not None:
        return answered
    if reply.status >= _SERVER_ERRORS:
        # A proxy between us and etcd: etcd may have had the request.
        return ExchangeFailed(f"answered {reply.status} without saying why", Reach.MAYBE_SENT)
    return _not_etcd(rpc, reply, endpoint)


def _unreadable(rpc: RPC[Any, Any], reply: Reply, endpoint: str, error: msgspec.DecodeError) -> Exception:
    if not reply.whole:
        return ExchangeFailed("the answer was cut short", Reach.MAYBE_SENT)
    if reply.content_type.startswith(_JSON):
        return ExchangeFailed(f"the answer to {rpc.name} cannot be read: {error}", Reach.MAYBE_SENT)
    return _not_etcd(rpc, reply, endpoint)


def _not_etcd(rpc: RPC[Any, Any], reply: Reply, endpoint: str) -> NotEtcd:
    why = stranger(reply.status, reply.content_type, reply.body)
    return NotEtcd(f"{rpc.name} did not reach etcd", {endpoint: why})
