"""Requests as they go out: where to, and in which bytes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from twisted.web.client import URI
from twisted.web.http_headers import Headers

from twisted_etcd.gateway.body import WholeBody
from twisted_etcd.gateway.endpoints import Endpoint

#: Those whose answers are as long as they say.
_METHODS = frozenset({b"GET", b"POST", b"PUT", b"DELETE", b"PATCH", b"OPTIONS"})
_VISIBLE = re.compile(rb"[!-~]+").fullmatch
#: What is not taken from whoever asks: this side says it, or leaves it out as :class:`SentHeaders` does.
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
    if b"@" in parts.netloc:
        msg = "a URI must name no user; what is sent with a request goes into its headers"
        raise ValueError(msg)
    endpoint = Endpoint(parts.scheme.decode(), parts.host.decode().strip("[]"), parts.port)
    opening = b"%b %b HTTP/1.1\r\nHost: %b\r\n" % (method, parts.originForm, parts.netloc)
    return Target(endpoint, opening)


class SentHeaders(Headers):
    """
    Headers that many requests have in common, as they go out. They stay as they are.

    treq adds to a copy of those that it is given that it can unpack gzip, and nothing else. etcd never packs, and a
    packed body that cannot be unpacked, as a proxy may send it, would be taken for an empty one. So it is left out.

    :ivar lines: their bytes.
    """

    def __init__(self, values: Mapping[str, str]) -> None:
        super().__init__({name: [value] for name, value in values.items()})
        self.lines = b"".join(
            b"%b: %b\r\n" % (name, value) for name, values in self.getAllRawHeaders() for value in values
        )

    def __repr__(self) -> str:
        # One of them may be a token.
        return f"SentHeaders({', '.join(name.decode() for name, _ in self.getAllRawHeaders())})"

    def copy(self) -> SentHeaders:
        """The same, which nobody can change."""
        return self

    def addRawHeader(self, name: str | bytes, value: str | bytes) -> None:
        """Nothing is added."""


def request_head(opening: bytes, headers: Headers | None, body: WholeBody | None) -> bytes:
    """All that goes before the body."""
    if isinstance(headers, SentHeaders):
        lines = headers.lines
    elif headers is None:
        lines = b""
    else:
        lines = b"".join(
            b"%b: %b\r\n" % (name, value)
            for name, values in headers.getAllRawHeaders()
            if name not in _OWN
            for value in values
        )
    length = b"" if body is None else b"Content-Length: %d\r\n" % body.length
    return b"%b%b%b\r\n" % (opening, lines, length)
