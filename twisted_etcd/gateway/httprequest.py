"""Requests as they go out: where to, and in which bytes."""

from __future__ import annotations

import re
from typing import NamedTuple

from twisted.web.client import URI
from twisted.web.http_headers import Headers

from twisted_etcd.gateway.body import WholeBody
from twisted_etcd.gateway.endpoints import Endpoint

#: Those whose answers are as long as they say.
_METHODS = frozenset({b"GET", b"POST", b"PUT", b"DELETE", b"PATCH", b"OPTIONS"})
_VISIBLE = re.compile(rb"[!-~]+").fullmatch
#: What is not taken from whoever asks: the first two are this side's to say, and etcd packs nothing, while a packed
#: body of a proxy that cannot be unpacked would be taken for an empty one.
_OWN = frozenset({b"Host", b"Content-Length", b"Accept-Encoding"})


class Target(NamedTuple):
    """
    What a request is for.

    :ivar opening: the first lines of the request.
    """

    endpoint: Endpoint
    opening: bytes


def target(method: bytes, uri: bytes) -> Target:
    """
    Where a request goes.

    :raises ValueError: for a method or a URI that no request can have.
    """
    if method not in _METHODS:
        msg = f"the method must be one of {b', '.join(sorted(_METHODS)).decode()}, not {method!r}"
        raise ValueError(msg)
    if _VISIBLE(uri) is None:
        msg = "a URI must be of visible ASCII characters"
        raise ValueError(msg)
    parts = URI.fromBytes(uri)
    endpoint = Endpoint(parts.scheme.decode(), parts.host.decode().strip("[]"), parts.port)
    opening = b"%b %b HTTP/1.1\r\nHost: %b\r\n" % (method, parts.originForm, endpoint.authority.encode())
    return Target(endpoint, opening)


def request_head(opening: bytes, headers: Headers, body: WholeBody | None) -> bytes:
    """All that goes before the body."""
    lines = [opening]
    for name, values in headers.getAllRawHeaders():
        if name not in _OWN:
            lines += [b"%b: %b\r\n" % (name, value) for value in values]
    if body is not None:
        lines.append(b"Content-Length: %d\r\n" % body.length)
    lines.append(b"\r\n")
    return b"".join(lines)
