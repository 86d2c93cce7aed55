"""Requests on connections that are kept: which one is used, how many there are, and when they go."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from io import BytesIO
from typing import Any, cast

import pytest
import pytest_twisted
import treq
from treq.client import HTTPClient
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.error import ConnectError, ConnectingCancelledError
from twisted.internet.task import deferLater
from twisted.web.client import FileBodyProducer, ResponseDone, ResponseNeverReceived
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from zope.interface.verify import verifyClass, verifyObject

from tests.gateway.conftest import MakeScripted
from tests.gateway.servers import CLOCK, Asked, Scripted, always, always_and_close, http_answer, silent
from tests.gateway.test_httpconnection import Collector
from tests.wire import ClockedReactor, Event, Listener, soon
from twisted_etcd.embedded.process import EmbeddedEtcd
from twisted_etcd.gateway.agent import IDLE_TIMEOUT, KEPT_CONNECTIONS, PooledAgent
from twisted_etcd.gateway.body import WholeBody
from twisted_etcd.gateway.connections import Connections
from twisted_etcd.gateway.tls import TLSSettings, TLSTrust

ANSWER = http_answer(b"hello")


class Scene:
    """An agent whose time is the test's, and its sockets, counted apart from it."""

    def __init__(self, **options: int) -> None:
        self.clock = ClockedReactor()
        self.connections = Connections(cast("Any", self.clock), TLSTrust(TLSSettings()), 3.0)
        self.agent = PooledAgent(self.connections.to, cast("Any", self.clock), **options)

    def ask(self, url: str, body: bytes = b"{}") -> Deferred[IResponse]:
        return soon(self.agent.request(b"POST", f"{url}/v3".encode(), Headers({"A": ["1"]}), WholeBody(body)))

    async def post(self, url: str, body: bytes = b"{}") -> bytes:
        return await collected(await self.ask(url, body))

    async def until_open(self, count: int) -> None:
        """Until so many sockets are open on this side."""
        await until(lambda: self.connections.count == count)

    async def close(self) -> None:
        self.agent.close()
        self.connections.abort()
        await soon(self.connections.all_gone())
        assert self.clock.getDelayedCalls() == []
        assert self.agent.idle_count == 0


async def until(condition: Callable[[], bool]) -> None:
    """Until something is so that nothing tells of."""
    for _ in range(2000):
        if condition():
            return
        await deferLater(CLOCK, 0.001)
    msg = "it did not come about"
    raise AssertionError(msg)


async def collected(response: IResponse) -> bytes:
    ended = Event()

    class Ends(Collector):
        def connectionLost(self, *reason: Any) -> None:  # noqa: ANN401 - as in Protocol
            super().connectionLost(*reason)
            ended.happened()

    collector = Ends()
    response.deliverBody(cast("Any", collector))
    await ended.until(lambda: collector.end is not None)
    assert collector.end is not None
    assert collector.end.check(ResponseDone)
    return collector.data


@pytest.fixture
def scene() -> Iterator[Scene]:
    scene = Scene()
    yield scene
    pytest_twisted.blockon(Deferred.fromCoroutine(cast("Any", scene.close())))


class Held(Scripted):
    """Answers when it is told to, and knows how many requests it held at a time."""

    def __init__(self) -> None:
        super().__init__(lambda peer, _: self.waiting.append(peer))
        self.waiting: list[Asked] = []

    def answer(self, count: int) -> None:
        for _ in range(count):
            self.waiting.pop(0).say(ANSWER)


@pytest.fixture
def held() -> Iterator[Held]:
    server = Held()
    yield server
    pytest_twisted.blockon(Deferred.fromCoroutine(cast("Any", server.close())))


async def together(scene: Scene, server: Held, count: int) -> None:
    """So many requests that are under way at a time."""
    before = len(server.requests)
    asking = [Deferred.fromCoroutine(scene.post(server.url)) for _ in range(count)]
    await server.until_requested(before + count)
    server.answer(count)
    assert await soon(gatherResults(asking)) == [b"hello"] * count


def test_it_is_an_agent_and_its_bodies_are_bodies(scene: Scene) -> None:
    verifyClass(IAgent, PooledAgent)
    verifyObject(IAgent, scene.agent)
    verifyObject(IBodyProducer, WholeBody(b""))


# --- requests -------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_a_request_goes_out_as_it_was_given_and_its_answer_says_what_it_answers(
    scene: Scene, make_scripted: MakeScripted
) -> None:
    server = make_scripted(always(ANSWER))
    response = await scene.ask(server.url)
    verifyObject(IResponse, response)
    assert await collected(response) == b"hello"
    assert (response.code, response.length) == (200, 5)
    assert response.request.absoluteURI == f"{server.url}/v3".encode()
    (request,) = server.requests
    authority = server.url.removeprefix("http://")
    assert request == f"POST /v3 HTTP/1.1\r\nHost: {authority}\r\nA: 1\r\nContent-Length: 2\r\n\r\n{{}}".encode()


@pytest_twisted.ensureDeferred
async def test_treq_asks_through_it(scene: Scene, etcd_server: EmbeddedEtcd) -> None:
    client = HTTPClient(cast("Any", scene.agent))
    for _ in range(2):
        response = await soon(client.get(f"{etcd_server.endpoint}/version"))
        assert "etcdserver" in await soon(treq.json_content(response))
    assert scene.connections.count == 1


@pytest_twisted.ensureDeferred
async def test_a_body_that_is_not_known_whole_is_refused(scene: Scene) -> None:
    body: Any = FileBodyProducer(BytesIO(b"{}"))
    with pytest.raises(TypeError, match="must be a WholeBody, not a FileBodyProducer"):
        await scene.agent.request(b"POST", b"http://127.0.0.1:1/", None, body)


@pytest.mark.parametrize(
    ("method", "uri"), [(b"HEAD", b"http://h/"), (b"GET", b"http://h/ x"), (b"GET", b"http://u:p@h/")]
)
@pytest_twisted.ensureDeferred
async def test_a_request_that_cannot_be_made_fails_and_opens_nothing(scene: Scene, method: bytes, uri: bytes) -> None:
    with pytest.raises(ValueError, match=r"method|visible|no user"):
        await scene.agent.request(method, uri)
    assert scene.connections.count == 0


@pytest_twisted.ensureDeferred
async def test_a_connection_that_is_refused_fails_as_such(scene: Scene) -> None:
    listener = Listener()
    await listener.close()
    with pytest.raises(ConnectError):
        await scene.ask(f"http://{listener.authority}")
    assert scene.connections.count == 0


# --- which connection -----------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_requests_one_after_the_other_share_a_connection(scene: Scene, make_scripted: MakeScripted) -> None:
    server = make_scripted(always(ANSWER))
    for _ in range(20):
        assert await scene.post(server.url) == b"hello"
    assert (len(server.connections), scene.agent.idle_count) == (1, 1)


@pytest_twisted.ensureDeferred
async def test_the_connection_that_was_used_last_is_used_next(scene: Scene, held: Held) -> None:
    await together(scene, held, 3)
    used: list[Asked] = []
    for _ in range(5):
        asking = Deferred.fromCoroutine(scene.post(held.url))
        await held.until_requested(4 + len(used))
        used += held.waiting
        held.answer(1)
        await soon(asking)
    assert len(held.connections) == 3
    assert used == [held.connections[2]] * 5


@pytest_twisted.ensureDeferred
async def test_each_member_has_connections_of_its_own(scene: Scene, make_scripted: MakeScripted) -> None:
    servers = [make_scripted(always(ANSWER)) for _ in range(3)]
    for _ in range(2):
        for server in servers:
            await scene.post(server.url)
    assert [len(server.connections) for server in servers] == [1, 1, 1]
    assert scene.agent.idle_count == 3


@pytest.mark.parametrize("ends", [1, 2, 3])
@pytest_twisted.ensureDeferred
async def test_connections_that_ended_unseen_are_passed_over(scene: Scene, held: Held, ends: int) -> None:
    await together(scene, held, 3)
    # No turn of the reactor lies between these and the request.
    for peer in held.connections[3 - ends :]:
        cast("Any", peer.socket).getHandle().shutdown(socket.SHUT_WR)
    asking = Deferred.fromCoroutine(scene.post(held.url))
    await held.until_requested(4)
    (used,) = held.waiting
    held.answer(1)
    await soon(asking)
    assert held.connections.index(used) == 2 - ends if ends < 3 else 3
    await scene.until_open(4 - ends if ends == 3 else 3 - ends)


@pytest_twisted.ensureDeferred
async def test_a_connection_that_ends_while_it_waits_is_forgotten(scene: Scene, make_scripted: MakeScripted) -> None:
    server = make_scripted(always(ANSWER))
    await scene.post(server.url)
    cast("Asked", server.connections[0]).finish()
    await scene.until_open(0)
    assert scene.agent.idle_count == 0
    assert await scene.post(server.url) == b"hello"
    assert len(server.connections) == 2


@pytest_twisted.ensureDeferred
async def test_so_is_one_that_says_something_unasked(scene: Scene, make_scripted: MakeScripted) -> None:
    server = make_scripted(always(ANSWER))
    await scene.post(server.url)
    # It has arrived, and no turn of the reactor lies between it and the request.
    cast("Any", server.connections[0].socket).getHandle().send(ANSWER.replace(b"hello", b"wrong"))
    assert await scene.post(server.url) == b"hello"
    await server.connections[0].until_lost()
    await scene.until_open(1)


@pytest.mark.parametrize(
    "answer",
    [
        http_answer(b"hello", headers=["Connection: close"]),
        ANSWER.replace(b"HTTP/1.1", b"HTTP/1.0"),
        ANSWER + ANSWER,
    ],
    ids=["told to close", "HTTP/1.0", "another answer behind it"],
)
@pytest_twisted.ensureDeferred
async def test_a_connection_of_no_further_use_is_closed(
    scene: Scene, make_scripted: MakeScripted, answer: bytes
) -> None:
    server = make_scripted(always(answer))
    for count in (1, 2):
        assert await scene.post(server.url) == b"hello"
        await server.connections[count - 1].until_lost()
    assert scene.agent.idle_count == 0


@pytest_twisted.ensureDeferred
async def test_an_end_right_behind_an_answer_costs_the_next_request_nothing(
    scene: Scene, make_scripted: MakeScripted
) -> None:
    server = make_scripted(always_and_close(ANSWER))
    for _ in range(10):
        assert await scene.post(server.url) == b"hello"
        await scene.until_open(0)
    assert len(server.connections) == 10


# --- how many, and for how long -------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_so_many_connections_are_kept_and_the_rest_closed(scene: Scene, held: Held) -> None:
    await together(scene, held, KEPT_CONNECTIONS + 6)
    assert scene.agent.idle_count == KEPT_CONNECTIONS
    await scene.until_open(KEPT_CONNECTIONS)
    # The server sees the same.
    await until(lambda: sum(peer.lost is not None for peer in held.connections) == 6)
    await together(scene, held, KEPT_CONNECTIONS)
    assert len(held.connections) == KEPT_CONNECTIONS + 6


@pytest_twisted.ensureDeferred
async def test_where_none_is_to_be_kept_none_is(make_scripted: MakeScripted) -> None:
    scene, server = Scene(keep=0), make_scripted(always(ANSWER))
    for count in (1, 2):
        await scene.post(server.url)
        await server.connections[count - 1].until_lost()
    assert scene.clock.getDelayedCalls() == []
    await scene.close()


@pytest_twisted.ensureDeferred
async def test_one_timer_serves_all_and_each_connection_waits_its_time(scene: Scene, held: Held) -> None:
    await together(scene, held, 3)
    scene.clock.advance(IDLE_TIMEOUT / 2)
    # The last of them is used once more.
    await together(scene, held, 1)
    assert len(scene.clock.getDelayedCalls()) == 1
    scene.clock.advance(IDLE_TIMEOUT / 2 - 0.1)
    assert scene.agent.idle_count == 3
    scene.clock.advance(0.1)
    assert scene.agent.idle_count == 1
    await held.connections[0].until_lost()
    await held.connections[1].until_lost()
    assert held.connections[2].lost is None
    assert len(scene.clock.getDelayedCalls()) == 1
    scene.clock.advance(IDLE_TIMEOUT / 2 - 0.1)
    assert scene.agent.idle_count == 1
    scene.clock.advance(0.1)
    assert scene.agent.idle_count == 0
    await held.connections[2].until_lost()
    assert scene.clock.getDelayedCalls() == []


@pytest_twisted.ensureDeferred
async def test_a_connection_in_use_is_not_timed(scene: Scene, held: Held) -> None:
    await together(scene, held, 1)
    asking = Deferred.fromCoroutine(scene.post(held.url))
    await held.until_requested(2)
    scene.clock.advance(10 * IDLE_TIMEOUT)
    assert scene.clock.getDelayedCalls() == []
    held.answer(1)
    assert await soon(asking) == b"hello"
    assert len(held.connections) == 1


@pytest_twisted.ensureDeferred
async def test_the_time_is_that_of_each_endpoint_s_oldest(scene: Scene, make_scripted: MakeScripted) -> None:
    servers = [make_scripted(always(ANSWER)) for _ in range(2)]
    for server in servers:
        await scene.post(server.url)
        scene.clock.advance(IDLE_TIMEOUT / 3)
    await scene.post(servers[0].url)
    scene.clock.advance(IDLE_TIMEOUT * 2 / 3)
    assert servers[0].connections[0].lost is None
    await servers[1].connections[0].until_lost()
    assert scene.agent.idle_count == 1


# --- the end --------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_closing_ends_what_waits_and_keeps_nothing_afterwards(scene: Scene, held: Held) -> None:
    await together(scene, held, 2)
    asking = Deferred.fromCoroutine(scene.post(held.url))
    await held.until_requested(3)
    scene.agent.close()
    scene.agent.close()
    await held.connections[0].until_lost()
    assert scene.clock.getDelayedCalls() == []
    # One under way goes on to its end.
    held.answer(1)
    assert await soon(asking) == b"hello"
    await held.connections[1].until_lost()
    assert scene.agent.idle_count == 0


@pytest_twisted.ensureDeferred
async def test_cancelling_at_each_stage_leaves_no_socket(scene: Scene, make_scripted: MakeScripted) -> None:
    server = make_scripted(silent)
    connecting = scene.ask(server.url)
    connecting.cancel()
    with pytest.raises(ConnectingCancelledError):
        await connecting
    await scene.until_open(0)
    waiting = scene.ask(server.url)
    await server.until_requested()
    waiting.cancel()
    with pytest.raises(CancelledError):
        await waiting
    await scene.until_open(0)
    for peer in server.connections:
        await peer.until_lost()


@pytest_twisted.ensureDeferred
async def test_sockets_that_are_closed_under_it_fail_what_is_under_way(scene: Scene, held: Held) -> None:
    await together(scene, held, 2)
    asking = scene.ask(held.url)
    await held.until_requested(3)
    scene.connections.abort()
    with pytest.raises(ResponseNeverReceived):
        await asking
    await scene.until_open(0)
    assert scene.agent.idle_count == 0


@pytest_twisted.ensureDeferred
async def test_thousands_of_requests_at_once_leave_as_many_connections_as_are_kept(scene: Scene, held: Held) -> None:
    for _ in range(20):
        await together(scene, held, 100)
        await scene.until_open(KEPT_CONNECTIONS)
    # Each time those that were closed before are opened anew.
    assert len(held.connections) == KEPT_CONNECTIONS + 20 * (100 - KEPT_CONNECTIONS)
