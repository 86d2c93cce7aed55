"""The questions to an etcd, against servers that are something else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as Overdue
from twisted.internet.interfaces import IListeningPort, IReactorTime
from twisted.internet.protocol import Protocol, ServerFactory, connectionDone
from twisted.internet.task import Clock, deferLater
from twisted.python.failure import Failure
from twisted.web.client import ResponseFailed

from tests.etcds import http_client
from twisted_etcd.embedded.probe import PROBE_TIMEOUT, NotServing, serving_version


class Server(ServerFactory):
    """Answers every request with the same bytes."""

    def __init__(self, answer: bytes, *, closes: bool) -> None:
        self.answer, self.closes = answer, closes
        self.answered: Deferred[None] = Deferred()
        self.lost: Deferred[None] = Deferred()
        self.port: IListeningPort = reactor.listenTCP(0, self, interface="127.0.0.1")
        host: Any = self.port.getHost()
        self.url = f"http://127.0.0.1:{host.port}"

    def buildProtocol(self, addr: object) -> Protocol:
        return Answering(self)


class Answering(Protocol):
    def __init__(self, server: Server) -> None:
        self._server = server

    def dataReceived(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(self._server.answer)
        if self._server.closes:
            self.transport.loseConnection()
        if not self._server.answered.called:
            self._server.answered.callback(None)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not self._server.lost.called:
            self._server.lost.callback(None)


@pytest.fixture
def serve() -> Iterator[type[Server]]:
    servers: list[Server] = []

    class Kept(Server):
        def __init__(self, answer: bytes, *, closes: bool = True) -> None:
            super().__init__(answer, closes=closes)
            servers.append(self)

    yield Kept
    for server in servers:
        pytest_twisted.blockon(server.port.stopListening())


def question(server: Server, clock: IReactorTime | None = None) -> Deferred[str]:
    return Deferred.fromCoroutine(serving_version(clock or reactor, http_client(), server.url))


@pytest.mark.parametrize("body", [b"It works!", b"{}", b"[]", b'{"version": 1}'])
@pytest_twisted.ensureDeferred
async def test_another_server_is_no_etcd(serve: type[Server], body: bytes) -> None:
    server = serve(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body), closes=True)
    with pytest.raises(NotServing, match=r"^what answers at GET /version is not etcd$"):
        await question(server)


@pytest_twisted.ensureDeferred
async def test_an_error_is_told_with_its_words(serve: type[Server]) -> None:
    server = serve(b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\nnope", closes=True)
    with pytest.raises(NotServing, match=rf"^GET {server.url}/version is answered with 404: nope$"):
        await question(server)


@pytest_twisted.ensureDeferred
async def test_an_answer_that_is_cut_is_no_answer(serve: type[Server]) -> None:
    server = serve(b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"etcdserver":"3.5.1"}', closes=True)
    with pytest.raises(ResponseFailed):
        await question(server)


@pytest_twisted.ensureDeferred
async def test_an_answer_that_does_not_end_is_given_up_and_its_connection_closed(serve: type[Server]) -> None:
    server = serve(b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"etcd', closes=False)
    clock = Clock()
    asked = question(server, clock)
    await server.answered
    # the client reads the headers in a later turn: the time for the body begins now, at 1
    clock.advance(1)
    while [call.getTime() for call in clock.getDelayedCalls()] != [1 + PROBE_TIMEOUT]:
        await deferLater(reactor, 0)
    clock.advance(PROBE_TIMEOUT)
    with pytest.raises(Overdue):
        await asked
    await server.lost
