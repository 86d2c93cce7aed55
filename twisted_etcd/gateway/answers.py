"""What an HTTP answer means: the response that was asked for, etcd's error, or something that is not etcd's."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from twisted_etcd.errors import CertificateNamesUser, EtcdError, NotEtcd, Unimplemented, etcd_error
from twisted_etcd.gateway.exchange import ExchangeFailed, Reach, Reply
from twisted_etcd.schema import rpcs
from twisted_etcd.schema.answers import decode, decode_error
from twisted_etcd.schema.common import Message, ResponseHeader
from twisted_etcd.schema.rpcs import RPC

RequestT = TypeVar("RequestT", bound=Message)
ResponseT = TypeVar("ResponseT", bound=Message)

_OK = 200
_BAD_REQUEST = 400
_NOT_FOUND = 404
_SERVER_ERRORS = 500
_REDIRECTS = range(300, 400)
_MISDIRECTED = 421
_JSON = "application/json"
_CUT_SHORT = "the answer was cut short"
#: Calls that etcd, at least on some versions, answers without a header.
_HEADLESS = (rpcs.ALARM, rpcs.DEFRAGMENT, rpcs.MOVE_LEADER)
#: The paths that some servers do not have, and what a server with an older gateway says of a path that it does not
#: have. Many other servers say just that, so of a path that every etcd has it proves that this is none.
_NOT_EVERYWHERE = (rpcs.AUTH_STATUS.path, rpcs.DOWNGRADE.path, rpcs.HASH_KV.path)
_OLDER_NOT_FOUND = b"Not Found\n"
#: How etcd begins to refuse a client whose certificate has a name, which is the one error that it gives in plain text.
_CERTIFICATE_NAMES_USER = b"CommonName of client"
#: How much of a stranger's name an error shows.
_EXCERPT = 60


def read_error(status: int, body: bytes, path: str) -> EtcdError | None:
    """
    The error that etcd answered to a call, or None where the answer is not etcd's.

    :param path: the path of the call.
    """
    missing = Unimplemented(Unimplemented.grpc_code, f"the server has no {path}")
    if status == _NOT_FOUND and body == _OLDER_NOT_FOUND and path in _NOT_EVERYWHERE:
        return missing
    if status == _BAD_REQUEST and body.startswith(_CERTIFICATE_NAMES_USER):
        return etcd_error(CertificateNamesUser.grpc_code, body.decode("utf-8", "replace").strip())
    try:
        error = decode_error(body)
    except msgspec.DecodeError:
        return None
    return missing if status == _NOT_FOUND and error.message == "Not Found" else error


def stranger(status: int, content_type: str, server: str, body: bytes) -> str:
    """
    What to say of an answer that is not etcd's. Its body is not shown: strangers repeat what they were sent.

    :param server: what it calls itself.
    """
    if status == _MISDIRECTED:
        return "421: etcd does not serve this host name; add it to etcd's --host-whitelist"
    if b"HTTP request to an HTTPS server" in body:
        return "it speaks TLS; write the endpoint with https://"
    if status in _REDIRECTS:
        return f"answered {status}, a redirect, which etcd never does; write the endpoint that it leads to"
    name = f" (it is {server[:_EXCERPT]!r})" if server else ""
    kind = content_type[:_EXCERPT] or "without a content type"
    return f"answered {status} {kind}, which is not etcd's v3 gateway{name}"


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
    if getattr(response, "header", None) == ResponseHeader() and not _headless(rpc, response, reply):
        raise _not_etcd(rpc, reply, endpoint)
    return response


def _headless(rpc: RPC[RequestT, ResponseT], response: ResponseT, reply: Reply) -> bool:
    """Whether etcd answers the call without a header, and this could be such an answer."""
    return rpc in _HEADLESS and (response != rpc.response() or reply.body.strip() == b"{}")


def _not_ok(rpc: RPC[Any, Any], reply: Reply, endpoint: str) -> Exception:
    answered = read_error(reply.status, reply.body, rpc.path)
    if answered is not None:
        return answered
    if reply.status >= _SERVER_ERRORS:
        # A proxy between us and etcd: etcd may have had the request.
        return ExchangeFailed(f"answered {reply.status} without saying why", Reach.MAYBE_SENT)
    if not reply.whole and reply.content_type.startswith(_JSON):
        return ExchangeFailed(_CUT_SHORT, Reach.MAYBE_SENT)
    return _not_etcd(rpc, reply, endpoint)


class _Trace(msgspec.Struct):
    """What etcd leaves in each of its answers, and others do not, whatever else is in it."""

    header: ResponseHeader = ResponseHeader()
    result: _Trace | None = None


_TRACES = msgspec.json.Decoder(_Trace, strict=False)


def _is_etcds(body: bytes) -> bool:
    try:
        trace = decode(_TRACES, body.split(b"\n", 1)[0])
    except msgspec.DecodeError:
        return False
    return any(part is not None and part.header != ResponseHeader() for part in (trace, trace.result))


def _unreadable(rpc: RPC[Any, Any], reply: Reply, endpoint: str, error: msgspec.DecodeError) -> Exception:
    if not reply.whole:
        return ExchangeFailed(_CUT_SHORT, Reach.MAYBE_SENT)
    if _is_etcds(reply.body):
        return ExchangeFailed(f"the answer to {rpc.name} cannot be read: {error}", Reach.MAYBE_SENT)
    return _not_etcd(rpc, reply, endpoint)


def _not_etcd(rpc: RPC[Any, Any], reply: Reply, endpoint: str) -> NotEtcd:
    why = stranger(reply.status, reply.content_type, reply.server, reply.body)
    return NotEtcd(f"{rpc.name} did not reach etcd", {endpoint: why})
