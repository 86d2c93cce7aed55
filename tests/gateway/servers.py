"""Servers that speak whatever bytes a test wants, and gateways to talk to them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, cast

from twisted.internet import reactor
from twisted.internet.task import deferLater

from tests.wire import Event, Listener, Peer
from twisted_etcd.gateway.endpoints import parse_endpoints
from twisted_etcd.gateway.gateway import Credentials, Gateway
from twisted_etcd.gateway.tls import TLSSettings
from twisted_etcd.schema import rpcs
from twisted_etcd.schema.common import Message
from twisted_etcd.schema.kv import PutRequest, RangeRequest
from twisted_etcd.schema.rpcs import RPC

CLOCK = cast("Any", reactor)

#: A read and a write.
BOTH: tuple[tuple[RPC[Any, Any], Message], ...] = (
    (rpcs.RANGE, RangeRequest(key=b"a")),
    (rpcs.PUT, PutRequest(key=b"a")),
)
HEADER = '"header":{"cluster_id":"1","member_id":"2","revision":"3","raft_term":"4"}'
#: What etcd answers to a range that finds nothing; also a good answer to a put.
EMPTY_ANSWER = b"{" + HEADER.encode() + b"}"
JSON = "application/json"


def http_answer(
    body: bytes = EMPTY_ANSWER,
    *,
    status: int = 200,
    content_type: str = JSON,
    headers: Iterable[str] = (),
) -> bytes:
    """A whole HTTP answer with a Content-Length."""
    lines = [f"HTTP/1.1 {status} Whatever", f"Content-Type: {content_type}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


class Asked(Peer):
    """The server's side of a connection: finds the requests in what comes."""

    def __init__(self, server: Scripted) -> None:
        super().__init__()
        self._server = server
        self._read = 0

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)
        while True:
            rest = self.data[self._read :]
            head, found, body = rest.partition(b"\r\n\r\n")
            length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
            if not found or length is None or len(body) < int(length[1]):
                return
            self._read += len(head) + 4 + int(length[1])
            self._server.requested(self, bytes(head + found + body[: int(length[1])]))

    def say(self, data: bytes) -> None:
        self.socket.write(data)

    def finish(self) -> None:
        """Say no more, and close."""
        self.socket.loseConnection()

    def reset(self) -> None:
        self.socket.abortConnection()


class Scripted:
    """
    Listens on loopback, and does what a function says with each request.

    :ivar requests: the requests that came whole, heads and bodies.
    """

    def __init__(self, answer: Callable[[Asked, int], object]) -> None:
        self.requests: list[bytes] = []
        self._answer = answer
        self._event = Event()
        self._listener = Listener(lambda: Asked(self))

    @property
    def url(self) -> str:
        return f"http://{self._listener.authority}"

    @property
    def port(self) -> int:
        return self._listener.port

    @property
    def connections(self) -> list[Peer]:
        return self._listener.peers

    async def connection(self, number: int = 0) -> Peer:
        return await self._listener.peer(number)

    def requested(self, peer: Asked, request: bytes) -> None:
        self.requests.append(request)
        self._answer(peer, len(self.requests))
        self._event.happened()

    async def until_requested(self, count: int = 1) -> None:
        await self._event.until(lambda: len(self.requests) >= count)

    async def close(self) -> None:
        await self._listener.close()


def silent(_peer: Asked, _number: int) -> None:
    """Answer nothing."""


def always(data: bytes) -> Callable[[Asked, int], None]:
    """Answer every request with the same bytes, and leave the connection open."""
    return lambda peer, _number: peer.say(data)


def always_and_close(data: bytes) -> Callable[[Asked, int], None]:
    """Answer every request with the same bytes, and close."""

    def answer(peer: Asked, _number: int) -> None:
        peer.say(data)
        peer.finish()

    return answer


def new_gateway(endpoints: str | Iterable[str], **options: object) -> Gateway:
    """A gateway with short waits between attempts."""
    return Gateway(
        **cast(
            "Any",
            {
                "reactor": reactor,
                "endpoints": parse_endpoints(endpoints),
                "tls": TLSSettings(),
                "credentials": None,
                "connect_timeout": 3.0,
                "request_timeout": 10.0,
                "max_connections": 256,
                "random": lambda: 0.1,
                **options,
            },
        )
    )


async def until_closed(gateway: Gateway, *, but: int = 0) -> None:
    """
    Until the gateway has no socket: the question to a member that says nothing can outlive the request.

    :param but: how many it may keep, where that question was answered.
    """
    for _ in range(1000):
        if gateway.connection_count <= but:
            return
        await deferLater(CLOCK, 0.01)
    msg = f"{gateway.connection_count} sockets are still open"
    raise AssertionError(msg)


def credentials(username: str = "root", password: str = "open-sesame") -> Credentials:
    return Credentials(username, password)
