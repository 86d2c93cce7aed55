"""Asking an etcd whether it serves."""

from __future__ import annotations

from typing import Any

import msgspec
from treq.client import HTTPClient
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web import http
from twisted.web.client import ResponseDone
from twisted.web.iweb import IResponse

#: Seconds that one question may take.
PROBE_TIMEOUT = 2.0


class _Version(msgspec.Struct):
    etcdserver: str


class NotServing(Exception):
    """It answers, but not as an etcd that can serve requests."""


async def serving_version(clock: IReactorTime, client: HTTPClient, endpoint: str) -> str:
    """
    The version of the etcd there, if it serves.

    It asks ``GET /version``, then ``GET /health``, which reads through the cluster's leader and needs no password.

    :raises NotServing: it answers, and is not ready.
    :raises Exception: whatever the HTTP client says of a request that got no answer.
    """
    version = await _get(clock, client, f"{endpoint}/version")
    try:
        decoded = msgspec.json.decode(version, type=_Version)
    except msgspec.DecodeError:
        msg = "what answers at GET /version is not etcd"
        raise NotServing(msg) from None
    await _get(clock, client, f"{endpoint}/health")
    return decoded.etcdserver


async def _get(clock: IReactorTime, client: HTTPClient, url: str) -> bytes:
    answering: Deferred[Any] = client.get(url, unbuffered=True, allow_redirects=False)
    response = await answering.addTimeout(PROBE_TIMEOUT, clock)
    body = await _Body.of(response).addTimeout(PROBE_TIMEOUT, clock)
    if response.code != http.OK:
        msg = f"GET {url} is answered with {response.code}: {body[:200].decode('utf-8', 'replace')}"
        raise NotServing(msg)
    return body


class _Body(Protocol):
    """Collects a body; giving up on it closes the connection, which treq's own reader does not do."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._done: Deferred[bytes] = Deferred(self._cancelled)

    @classmethod
    def of(cls, response: IResponse) -> Deferred[bytes]:
        body = cls()
        response.deliverBody(body)
        return body._done

    def dataReceived(self, data: bytes) -> None:
        self._parts.append(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._done.called:
            return
        if reason.check(ResponseDone):
            self._done.callback(b"".join(self._parts))
        else:
            self._done.errback(reason)

    def _cancelled(self, _done: Deferred[bytes]) -> None:
        if self.transport is not None:
            self.transport.loseConnection()
