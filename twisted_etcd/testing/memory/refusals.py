"""How etcd refuses: its errors, with its own words and codes."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from twisted_etcd.errors import EtcdError, NoElectionLeader, UnknownError

#: The HTTP status of each gRPC code, as the gateway of 3.5 has it.
_STATUSES = {
    1: HTTPStatus.REQUEST_TIMEOUT,
    3: HTTPStatus.BAD_REQUEST,
    4: HTTPStatus.GATEWAY_TIMEOUT,
    5: HTTPStatus.NOT_FOUND,
    6: HTTPStatus.CONFLICT,
    7: HTTPStatus.FORBIDDEN,
    8: HTTPStatus.TOO_MANY_REQUESTS,
    9: HTTPStatus.BAD_REQUEST,
    10: HTTPStatus.CONFLICT,
    11: HTTPStatus.BAD_REQUEST,
    12: HTTPStatus.NOT_IMPLEMENTED,
    14: HTTPStatus.SERVICE_UNAVAILABLE,
    16: HTTPStatus.UNAUTHORIZED,
}
#: How gRPC writes the codes with which a watch can be refused.
_CODE_NAMES = {3: "InvalidArgument", 7: "PermissionDenied", 16: "Unauthenticated"}


def refusal(kind: type[EtcdError]) -> EtcdError:
    """The error of that kind as etcd answers it."""
    prefix = "" if kind is NoElectionLeader else "etcdserver: "
    return kind(kind.grpc_code, prefix + kind.messages[0])


def untranslated(error: EtcdError) -> EtcdError:
    """The same as etcd's own accounts word it, where the server hands that on as it is."""
    return type(error)(UnknownError.grpc_code, error.message.replace("etcdserver: ", "auth: ", 1))


def unknown(words: str) -> EtcdError:
    """An error for which gRPC has no code."""
    return UnknownError(UnknownError.grpc_code, words)


def status_of(error: EtcdError) -> HTTPStatus:
    """The HTTP status with which the gateway answers an error."""
    return _STATUSES.get(error.code, HTTPStatus.INTERNAL_SERVER_ERROR)


def as_answer(error: EtcdError) -> dict[str, Any]:
    """The JSON of an error that answers a single request."""
    return {"error": error.message, "code": error.code, "message": error.message}


def as_frame(error: EtcdError) -> dict[str, Any]:
    """The JSON of an error that ends a stream."""
    status = status_of(error)
    return {
        "error": {
            "grpc_code": error.code,
            "http_code": status.value,
            "message": error.message,
            "http_status": status.phrase,
        }
    }


def as_reason(error: EtcdError) -> str:
    """An error as the reason for which a watch is refused."""
    return f"rpc error: code = {_CODE_NAMES.get(error.code, 'Unknown')} desc = {error.message}"
