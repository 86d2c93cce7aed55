"""
What really happened, by etcd's own history: read by the plainest of means, with none of the library's own machinery.

One request after the other asks one member after the other for the events since the last one seen. Nothing is compacted
before it has been seen here.
"""

from __future__ import annotations

import base64
import json
from collections import deque
from collections.abc import Callable
from typing import Any, cast

import msgspec
from treq.client import HTTPClient
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.web.client import Agent, HTTPConnectionPool
from twisted.web.http_headers import Headers

#: Seconds without anything new after which another member is asked.
_SILENCE = 2.0
#: Seconds before the next attempt.
_PAUSE = 0.1


class Fact(msgspec.Struct, frozen=True):
    """One event: a put, or a deletion where ``value`` is None."""

    key: str
    value: str | None


class _Lines(Protocol):
    """Takes the lines of a stream."""

    def __init__(self, take: Callable[[dict[str, Any]], None], ended: Deferred[None]) -> None:
        self._take = take
        self._ended = ended
        self._rest = b""

    def dataReceived(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if line.strip():
                self._take(json.loads(line))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not self._ended.called:
            self._ended.callback(None)


class Truth:
    """
    The events below a prefix, revision by revision.

    :param endpoints: the addresses of the members, around all proxies.
    :ivar revision: all that happened up to this one is known.
    :ivar told: called with each revision and its events, in order.
    """

    def __init__(self, reactor: Any, endpoints: Callable[[], list[str]], prefix: str) -> None:  # noqa: ANN401
        self.revision = 0
        self.told: list[Callable[[int, tuple[Fact, ...]], None]] = []
        self._reactor = reactor
        self._endpoints = endpoints
        self._prefix = prefix
        self._http = HTTPClient(Agent(reactor, connectTimeout=2, pool=HTTPConnectionPool(reactor, persistent=False)))
        self._waiting: deque[tuple[int, Deferred[None]]] = deque()
        self._running: Deferred[None] | None = None
        self._silence: IDelayedCall | None = None

    def start(self, revision: int) -> None:
        """Begin behind this revision."""
        self.revision = revision
        self._running = Deferred.fromCoroutine(self._follow())

    async def stop(self) -> None:
        """Ask no more."""
        running, self._running = self._running, None
        if running is not None:
            running.cancel()
            try:
                await running
            except CancelledError:
                return

    async def until(self, revision: int) -> None:
        """Wait until all up to this revision of the prefix is known, which must have had an event."""
        if self.revision < revision:
            deferred: Deferred[None] = Deferred()
            self._waiting.append((revision, deferred))
            await deferred

    async def _follow(self) -> None:
        turn = 0
        while True:
            endpoints = self._endpoints()
            try:
                await self._ask(endpoints[turn % len(endpoints)])
            except CancelledError:
                raise
            except Exception:  # noqa: BLE001 - whatever it is, another member is asked
                turn += 1
            else:
                turn += 1
            await deferLater(self._reactor, _PAUSE)

    async def _ask(self, endpoint: str) -> None:
        key = base64.b64encode(self._prefix.encode()).decode()
        end = base64.b64encode((self._prefix[:-1] + chr(ord(self._prefix[-1]) + 1)).encode()).decode()
        create = {"key": key, "range_end": end, "start_revision": self.revision + 1}
        asking = self._http.post(
            f"{endpoint}/v3/watch",
            data=json.dumps({"create_request": create}).encode(),
            headers=Headers({"Content-Type": ["application/json"]}),
            unbuffered=True,
            reactor=self._reactor,
        )
        response = await asking.addTimeout(_SILENCE, self._reactor)
        ended: Deferred[None] = Deferred()
        lines = _Lines(self._take, ended)
        response.deliverBody(cast("IProtocol", lines))
        self._silence = self._reactor.callLater(_SILENCE, lambda: _close(lines))
        try:
            await ended
        finally:
            if self._silence.active():
                self._silence.cancel()
            _close(lines)

    def _take(self, frame: dict[str, Any]) -> None:
        result = frame.get("result", {})
        events = result.get("events", ())
        if not events:
            return
        if self._silence is not None and self._silence.active():
            self._silence.reset(_SILENCE)
        revisions: dict[int, list[Fact]] = {}
        for event in events:
            kv = event["kv"]
            value = None if event.get("type") == "DELETE" else base64.b64decode(kv.get("value", "")).decode()
            fact = Fact(base64.b64decode(kv["key"]).decode(), value)
            revisions.setdefault(int(kv["mod_revision"]), []).append(fact)
        for revision, facts in sorted(revisions.items()):
            if revision > self.revision:
                self.revision = revision
                for tell in self.told:
                    tell(revision, tuple(facts))
        while self._waiting and self._waiting[0][0] <= self.revision:
            self._waiting.popleft()[1].callback(None)


def _close(protocol: Protocol) -> None:
    transport: Any = protocol.transport
    if transport is not None:
        transport.loseConnection()
