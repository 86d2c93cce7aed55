"""One HTTP connection, on a transport without a socket and on real ones."""

from __future__ import annotations

import gc
import socket
import struct
import weakref
from typing import Any, cast

import pytest
import pytest_twisted
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IPullProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone, ResponseFailed, ResponseNeverReceived
from twisted.web.http import PotentialDataLoss
from twisted.web.iweb import IResponse
from zope.interface.verify import verifyObject

from tests.gateway.servers import CLOCK, http_answer
from tests.wire import Listener, soon
from twisted_etcd.gateway.body import WholeBody
from twisted_etcd.gateway.httpconnection import HTTPConnection, HTTPConnections
from twisted_etcd.gateway.httpreader import BrokenAnswer, NotHTTP
from twisted_etcd.gateway.httpresponse import SentRequest

REQUEST = SentRequest(b"POST", b"http://h/", None)
HEAD = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
OPEN_ENDED = b"HTTP/1.1 200 OK\r\n\r\n"
ANSWER = http_answer(b"hello")


class Collector(Protocol):
    """Gets a body and keeps it."""

    def __init__(self) -> None:
        self.data = b""
        self.end: Failure | None = None

    def dataReceived(self, data: bytes) -> None:
        self.data += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        assert self.end is None
        self.end = reason


class Wire(StringTransport):
    """What a connection writes to; an abort is noted, and is the test's to carry out."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.aborted = 0

    def sent(self) -> bytes:
        """What was written since the last time."""
        data: bytes = self.value()  # type: ignore[no-untyped-call]
        self.clear()  # type: ignore[no-untyped-call]
        return data

    def abortConnection(self) -> None:
        self.aborted += 1


class Scene:
    """A connection on a wire, with what it told."""

    def __init__(self) -> None:
        self.freed = 0
        self.gone: list[Failure] = []
        self.wire = Wire()
        self.connection = HTTPConnection(lambda _: self._free(), lambda _, reason: self.gone.append(reason))
        self.connection.makeConnection(self.wire)
        self.collector = Collector()
        self.heads = 0
        self.failure: Failure | None = None

    def _free(self) -> None:
        self.freed += 1

    def ask(self, *, deliver: bool = True) -> Deferred[IResponse]:
        asking = self.connection.request(REQUEST, HEAD, WholeBody(b"{}"))

        def answered(response: IResponse) -> IResponse:
            self.heads += 1
            if deliver:
                self.collector = Collector()
                response.deliverBody(cast("Any", self.collector))
            return response

        return asking.addCallback(answered)

    def ask_and_note(self) -> Deferred[IResponse | None]:
        def failed(failure: Failure) -> None:
            self.failure = failure

        return self.ask().addErrback(failed)

    def end(self) -> BaseException:
        assert self.collector.end is not None
        assert self.collector.end.value is not None
        return self.collector.end.value

    def lose(self, error: Exception) -> None:
        self.connection.connectionLost(Failure(error))


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_it_is_a_pull_producer_for_its_socket(scene: Scene) -> None:
    verifyObject(IPullProducer, scene.connection)


def test_the_request_goes_out_in_one_piece_and_the_next_after_its_answer(scene: Scene) -> None:
    for count in (1, 2, 3):
        scene.ask()
        assert scene.wire.sent() == HEAD + b"{}"
        scene.connection.dataReceived(ANSWER)
        assert (scene.collector.data, type(scene.end())) == (b"hello", ResponseDone)
        assert (scene.freed, scene.wire.aborted) == (count, 0)


@given(st.lists(st.integers(1, len(ANSWER) - 1), max_size=10))
def test_an_answer_is_the_same_wherever_it_was_cut(cuts: list[int]) -> None:
    scene = Scene()
    scene.ask()
    for start, stop in zip([0, *sorted(cuts)], [*sorted(cuts), len(ANSWER)], strict=True):
        assert scene.freed == 0
        if start < stop:
            scene.connection.dataReceived(ANSWER[start:stop])
    assert (scene.heads, scene.collector.data, scene.freed) == (1, b"hello", 1)


def test_the_connection_is_free_before_its_body_is_told_to_have_ended(scene: Scene) -> None:
    free: list[int] = []

    class Ends(Collector):
        def connectionLost(self, reason: Failure = connectionDone) -> None:
            free.append(scene.freed)
            if scene.freed < 3:
                asked()

    def asked() -> None:
        scene.ask(deliver=False).addCallback(lambda response: response.deliverBody(cast("Any", Ends())))

    asked()
    for _ in range(3):
        scene.connection.dataReceived(ANSWER)
    assert free == [1, 2, 3]


def test_a_head_that_nobody_wants_the_body_of_stops_the_reading_until_somebody_does(scene: Scene) -> None:
    got: list[IResponse] = []
    scene.ask(deliver=False).addCallback(got.append)
    scene.connection.dataReceived(CHUNKED + b"2\r\nhi\r\n")
    assert scene.wire.producerState == "paused"
    got[0].deliverBody(cast("Any", scene.collector))
    assert scene.wire.producerState == "producing"
    assert scene.collector.data == b"hi"
    scene.connection.dataReceived(b"0\r\n\r\n")
    assert scene.freed == 1


def test_an_answer_that_nobody_takes_keeps_its_connection(scene: Scene) -> None:
    scene.ask(deliver=False)
    scene.connection.dataReceived(ANSWER)
    assert (scene.freed, scene.wire.aborted) == (0, 0)


# --- connections that are of no further use -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        http_answer(b"hello", headers=["Connection: close"]),
        ANSWER.replace(b"HTTP/1.1", b"HTTP/1.0"),
        ANSWER + ANSWER,
        ANSWER + b"H",
        CHUNKED + b"5\r\nhello\r\n0\r\nConnection: close\r\n\r\n",
    ],
    ids=["told to close", "HTTP/1.0", "another answer behind it", "a byte behind it", "told so behind the body"],
)
def test_an_answer_that_is_the_last_is_whole_and_closes_the_connection(scene: Scene, answer: bytes) -> None:
    scene.ask()
    scene.connection.dataReceived(answer)
    assert (scene.collector.data, type(scene.end())) == (b"hello", ResponseDone)
    assert (scene.freed, scene.wire.aborted, scene.heads) == (0, 1, 1)
    assert not scene.connection.quiet


@pytest.mark.parametrize("asked", [False, True], ids=["before the first request", "after an answer"])
@pytest.mark.parametrize("data", [ANSWER, b"\r\n", b"H"])
def test_what_comes_without_a_request_closes_the_connection(*, scene: Scene, asked: bool, data: bytes) -> None:
    if asked:
        scene.ask()
        scene.connection.dataReceived(ANSWER)
    scene.connection.dataReceived(data)
    scene.connection.dataReceived(data)
    assert scene.wire.aborted == 1


def test_without_anybody_to_take_it_back_it_closes_after_its_answer() -> None:
    connection, wire, collector = HTTPConnection(), Wire(), Collector()
    connection.makeConnection(wire)
    connection.request(REQUEST, HEAD, None).addCallback(lambda response: response.deliverBody(cast("Any", collector)))
    connection.dataReceived(ANSWER)
    assert (collector.data, wire.aborted) == (b"hello", 1)
    connection.connectionLost()


# --- what breaks ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "kind"),
    [(b"", ResponseNeverReceived), (ANSWER[:9], ResponseFailed), (b"HTTP/1.1 100 Continue\r\n\r\n", ResponseFailed)],
)
@pytest.mark.parametrize("error", [ConnectionDone(), ConnectionLost()])
def test_an_end_before_the_head_fails_the_request(
    scene: Scene, sent: bytes, kind: type[Exception], error: Exception
) -> None:
    scene.ask_and_note()
    if sent:
        scene.connection.dataReceived(sent)
    scene.lose(error)
    assert scene.failure is not None
    assert type(scene.failure.value) is kind
    assert [reason.value for reason in cast("ResponseFailed", scene.failure.value).reasons] == [error]
    assert len(scene.gone) == 1


@pytest.mark.parametrize("answer", [ANSWER, CHUNKED + b"5\r\nhello\r\n0\r\n\r\n"])
def test_an_end_inside_a_body_is_told_with_its_reason(answer: bytes) -> None:
    for count in range(answer.index(b"\r\n\r\n") + 4, len(answer)):
        scene = Scene()
        scene.ask()
        scene.connection.dataReceived(answer[:count])
        scene.lose(ConnectionDone())
        end = scene.end()
        assert isinstance(end, ResponseFailed)
        assert end.reasons[0].check(ConnectionDone)
        assert scene.freed == 0


@pytest.mark.parametrize(
    ("error", "kind"),
    [(ConnectionDone(), PotentialDataLoss), (ConnectionLost(), ResponseFailed), (ConnectionAborted(), ResponseFailed)],
)
def test_a_body_without_a_length_ends_with_its_connection_if_that_ends_well(
    scene: Scene, error: Exception, kind: type[Exception]
) -> None:
    scene.ask()
    scene.connection.dataReceived(OPEN_ENDED + b"hello")
    scene.lose(error)
    assert (scene.collector.data, type(scene.end())) == (b"hello", kind)


@pytest.mark.parametrize(("data", "kind"), [(b"SSH-2.0\r\n", NotHTTP), (b"HTTP/1.1 200 OK\r\n:\r\n", BrokenAnswer)])
def test_what_cannot_be_read_fails_the_request_and_closes_the_connection(
    scene: Scene, data: bytes, kind: type[Exception]
) -> None:
    scene.ask_and_note()
    scene.connection.dataReceived(data)
    assert scene.failure is not None
    assert [type(reason.value) for reason in cast("ResponseFailed", scene.failure.value).reasons] == [kind]
    assert scene.wire.aborted == 1
    scene.lose(ConnectionAborted())


def test_a_body_that_cannot_be_read_on_gives_what_came_before(scene: Scene) -> None:
    scene.ask()
    scene.connection.dataReceived(CHUNKED + b"2\r\nhi\r\nno number\r\n")
    end = scene.end()
    assert isinstance(end, ResponseFailed)
    assert end.reasons[0].check(BrokenAnswer)
    assert (scene.collector.data, scene.freed, scene.wire.aborted) == (b"hi", 0, 1)
    scene.lose(ConnectionAborted())


@pytest.mark.parametrize("sent", [b"", ANSWER[:9]])
def test_cancelling_closes_the_connection_and_what_comes_later_is_nothing(scene: Scene, sent: bytes) -> None:
    asking = scene.ask_and_note()
    if sent:
        scene.connection.dataReceived(sent)
    asking.cancel()
    assert scene.failure is not None
    assert scene.failure.check(CancelledError)
    scene.connection.dataReceived(ANSWER)
    scene.lose(ConnectionAborted())
    assert (scene.heads, scene.wire.aborted, len(scene.gone)) == (0, 1, 1)


def test_closing_it_while_a_body_comes_ends_that_body_with_it(scene: Scene) -> None:
    scene.ask()
    scene.connection.dataReceived(CHUNKED + b"2\r\nhi\r\n")
    cast("Any", scene.collector.transport).loseConnection()
    scene.connection.dataReceived(b"2\r\nho\r\n0\r\n\r\n")
    assert scene.collector.end is None
    scene.lose(ConnectionAborted())
    assert isinstance(scene.end(), ResponseFailed)
    assert (scene.collector.data, scene.wire.aborted, scene.freed) == (b"hi", 1, 0)


def test_after_its_end_nothing_reaches_the_transport(scene: Scene) -> None:
    scene.lose(ConnectionDone())
    scene.connection.abort()
    scene.connection.pause()
    scene.connection.resume()
    assert (scene.wire.aborted, scene.wire.producerState) == (0, "producing")
    assert not scene.connection.quiet


def test_a_connection_that_has_gone_is_gone_from_memory_at_once() -> None:
    gc.collect()
    gc.disable()
    try:
        connection = HTTPConnection()
        connection.makeConnection(Wire())
        connection.request(REQUEST, HEAD, None).addErrback(lambda _: None)
        connection.connectionLost(Failure(ConnectionDone()))
        last = weakref.ref(connection._reader)  # noqa: SLF001 the part that the parser refers to
        del connection
        assert last() is None
    finally:
        gc.enable()


# --- on a socket ----------------------------------------------------------------------------------------------------

#: More than the buffers of a connection hold on their way.
HUGE = 16 << 20


async def connected(listener: Listener, *, free: list[HTTPConnection]) -> HTTPConnection:
    factory: Any = HTTPConnections(lambda: HTTPConnection(free.append))
    return cast("HTTPConnection", await soon(listener.endpoint.connect(factory)))


@pytest.mark.parametrize("at_once", [False, True])
@pytest_twisted.ensureDeferred
async def test_a_body_has_left_once_the_operating_system_has_all_of_it(*, at_once: bool) -> None:
    listener, free = Listener(), list[HTTPConnection]()
    connection = await connected(listener, free=free)
    body, collector = WholeBody(b"{}"), Collector()
    asking = connection.request(REQUEST, HEAD, body, at_once=at_once)
    # The reactor writes later.
    assert body.left is at_once
    peer = await listener.peer()
    await peer.until_received(HEAD + b"{}")
    assert body.left
    peer.socket.write(ANSWER)
    (await soon(asking)).deliverBody(cast("Any", collector))
    assert free == [connection]
    connection.abort()
    await listener.close()


@pytest.mark.parametrize("at_once", [False, True])
@pytest_twisted.ensureDeferred
async def test_a_body_that_does_not_fit_has_not_left_until_its_end_has(*, at_once: bool) -> None:
    listener, free = Listener(), list[HTTPConnection]()
    connection = await connected(listener, free=free)
    peer = await listener.peer()
    cast("Any", peer.socket).pauseProducing()
    body = WholeBody(b"x" * HUGE + b"}")
    asking = connection.request(REQUEST, b"HEAD", body, at_once=at_once)
    for _ in range(10):
        await deferLater(CLOCK, 0)
    assert not body.left
    cast("Any", peer.socket).resumeProducing()
    await peer.until(lambda: peer.data.endswith(b"}"))
    assert (len(peer.data), body.left) == (HUGE + 5, True)
    asking.cancel()
    asking.addErrback(lambda _: None)
    await peer.until_lost()
    await listener.close()


@pytest_twisted.ensureDeferred
async def test_an_answer_before_the_request_has_left_is_taken_and_is_the_last() -> None:
    listener, free = Listener(), list[HTTPConnection]()
    connection = await connected(listener, free=free)
    peer = await listener.peer()
    cast("Any", peer.socket).pauseProducing()
    body, collector = WholeBody(b"x" * HUGE), Collector()
    asking = connection.request(REQUEST, HEAD, body)
    peer.socket.write(ANSWER)
    (await soon(asking)).deliverBody(cast("Any", collector))
    assert (collector.data, free, body.left) == (b"hello", [], False)
    cast("Any", peer.socket).resumeProducing()
    await peer.until_lost()
    await listener.close()


@pytest.mark.parametrize("what", ["nothing", "bytes", "an end", "a reset"])
@pytest_twisted.ensureDeferred
async def test_it_is_quiet_until_something_has_come_that_the_reactor_has_not_seen(what: str) -> None:
    listener, free = Listener(), list[HTTPConnection]()
    connection = await connected(listener, free=free)
    peer = await listener.peer()
    handle = cast("Any", peer.socket).getHandle()
    assert connection.quiet
    if what == "bytes":
        handle.send(b"H")
    elif what == "an end":
        handle.shutdown(socket.SHUT_WR)
    elif what == "a reset":
        handle.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.socket.loseConnection()
        await peer.until_lost()
    if what == "nothing":
        connection.abort()
    else:
        assert not connection.quiet
    await peer.end()
    await listener.close()
