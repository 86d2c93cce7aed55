"""The fault proxy between real sockets, with the time of a Clock."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.error import ConnectError, ConnectionDone, ConnectionLost

from tests.wire import ClockedReactor, HalfClosingPeer, Listener, Peer, connect, soon
from twisted_etcd.errors import ServiceStopped
from twisted_etcd.testing.proxy import FaultProxy


class Bench:
    """A proxy in front of a listener, and the clients that connect through it."""

    def __init__(self) -> None:
        self.clock = ClockedReactor()
        self.server = Listener(HalfClosingPeer)
        self.proxy = FaultProxy(cast("Any", self.clock), "127.0.0.1", self.server.port)
        self.proxy.startService()
        self.clients: list[Peer] = []

    async def client(self) -> HalfClosingPeer:
        """A client that has connected."""
        client = HalfClosingPeer()
        await connect(self.proxy.port, client)
        self.clients.append(client)
        return client

    async def pair(self) -> tuple[HalfClosingPeer, HalfClosingPeer]:
        """A client and the server's side of its connection."""
        number = len(self.server.peers)
        client = await self.client()
        return client, cast("HalfClosingPeer", await self.server.peer(number))

    async def end(self) -> None:
        await self.proxy.stopService()
        assert self.proxy.connections == []
        assert self.clock.getDelayedCalls() == []
        for client in self.clients:
            await client.end()
        await self.server.close()


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    pytest_twisted.blockon(Deferred.fromCoroutine(cast("Any", bench.end())))


@pytest_twisted.ensureDeferred
async def test_bytes_pass_both_ways_unchanged(bench: Bench) -> None:
    client, server = await bench.pair()
    client.socket.write(b"question")
    await server.until_received(b"question")
    server.socket.write(b"answer!")
    await client.until_received(b"answer!")
    (connection,) = bench.proxy.connections
    assert (connection.requests, connection.answers) == (8, 7)
    assert (bench.proxy.requests, bench.proxy.answers) == (8, 7)
    assert bench.proxy.connections_made == 1
    assert bench.proxy.endpoint == f"http://127.0.0.1:{bench.proxy.port}"


@pytest_twisted.ensureDeferred
async def test_much_passes_whole_and_the_counts_outlive_the_connection(bench: Bench) -> None:
    client, server = await bench.pair()
    much = bytes(range(256)) * 40_000
    server.socket.write(much)
    server.socket.loseConnection()
    await client.until(lambda: client.finished)
    assert client.data == much
    client.socket.loseConnection()
    await client.until_lost()
    await server.until_lost()
    assert bench.proxy.answers == len(much)


@pytest_twisted.ensureDeferred
async def test_a_side_that_has_finished_still_gets_its_answer(bench: Bench) -> None:
    client, server = await bench.pair()
    client.socket.write(b"all there is")
    client.socket.loseWriteConnection()
    await server.until_finished()
    assert server.data == b"all there is"
    server.socket.write(b"thank you")
    server.socket.loseConnection()
    await client.until_finished()
    assert client.data == b"thank you"


@pytest_twisted.ensureDeferred
async def test_the_end_of_one_side_reaches_the_other(bench: Bench) -> None:
    client, server = await bench.pair()
    server.socket.loseConnection()
    await client.until_finished()
    client, server = await bench.pair()
    client.socket.abortConnection()
    assert (await server.until_lost()).check(ConnectionLost)
    client, server = await bench.pair()
    server.socket.abortConnection()
    assert (await client.until_lost()).check(ConnectionLost)


@pytest_twisted.ensureDeferred
async def test_next_connection_fires_with_the_connection(bench: Bench) -> None:
    next_connection = bench.proxy.next_connection()
    await bench.client()
    connection = await soon(next_connection)
    assert connection in bench.proxy.connections
    connection.reset()
    assert (await bench.clients[0].until_lost()).check(ConnectionLost)


@pytest_twisted.ensureDeferred
async def test_next_connection_can_be_cancelled_and_ends_with_the_proxy(bench: Bench) -> None:
    cancelled, left = bench.proxy.next_connection(), bench.proxy.next_connection()
    results = DeferredList([cancelled, left], consumeErrors=True)
    cancelled.cancel()
    await bench.proxy.stopService()
    (_, first), (_, second) = cast("Any", await results)
    assert first.check("twisted.internet.defer.CancelledError")
    assert second.check(ServiceStopped)


# --- delay ----------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_a_delay_is_the_same_for_all_that_is_under_way(bench: Bench) -> None:
    bench.proxy.delay(5.0)
    pairs = [await bench.pair() for _ in range(20)]
    for number, (client, server) in enumerate(pairs):
        client.socket.write(b"?")
        await server.until_received(b"?")
        server.socket.write(b"answer %d." % number)
    await bench.clock.until_waiting(20)
    bench.clock.advance(4.9)
    assert all(client.data == b"" for client, _ in pairs)
    bench.clock.advance(0.2)
    for number, (client, _) in enumerate(pairs):
        await client.until_received(b"answer %d." % number)


@pytest_twisted.ensureDeferred
async def test_a_delay_keeps_the_order_when_it_is_shortened(bench: Bench) -> None:
    client, server = await bench.pair()
    bench.proxy.delay(10.0)
    server.socket.write(b"first")
    await bench.clock.until_waiting()
    bench.proxy.delay(0.0)
    server.socket.write(b"second")
    server.socket.loseWriteConnection()
    bench.proxy.delay(0.0, "requests")
    client.socket.write(b"meanwhile")
    await server.until_received(b"meanwhile")
    assert client.data == b""
    bench.clock.advance(10.0)
    await client.until_finished()
    assert client.data == b"firstsecond"


@pytest_twisted.ensureDeferred
async def test_a_delay_of_requests_leaves_answers_alone(bench: Bench) -> None:
    client, server = await bench.pair()
    bench.proxy.delay(5.0, "requests")
    client.socket.write(b"late")
    await bench.clock.until_waiting()
    server.socket.write(b"at once")
    await client.until_received(b"at once")
    assert server.data == b""
    bench.clock.advance(5.0)
    await server.until_received(b"late")


@pytest_twisted.ensureDeferred
async def test_healing_passes_on_at_once_what_was_delayed(bench: Bench) -> None:
    client, server = await bench.pair()
    bench.proxy.delay(3600.0)
    server.socket.write(b"held")
    await bench.clock.until_waiting()
    await bench.proxy.heal()
    await client.until_received(b"held")
    server.socket.write(b" free")
    await client.until_received(b"held free")


# --- limit ----------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_a_limit_spreads_bytes_over_time(bench: Bench) -> None:
    client, server = await bench.pair()
    bench.proxy.limit(1000)
    server.socket.write(b"x" * 3000)
    await bench.clock.until_waiting()
    bench.clock.pump([0.02] * 50)
    await client.until(lambda: len(client.data) >= 1000)
    assert 1000 <= bench.proxy.answers <= 1040
    bench.clock.pump([0.02] * 110)
    await client.until(lambda: len(client.data) == 3000)


@pytest_twisted.ensureDeferred
async def test_a_sender_that_is_over_the_limit_has_to_wait(bench: Bench) -> None:
    client, server = await bench.pair()
    bench.proxy.limit(1000)
    sent = 16 * 1024 * 1024
    server.socket.write(b"x" * sent)
    (connection,) = bench.proxy.connections
    await bench.clock.until_waiting()
    client.socket.write(b"the other direction is free")
    await server.until_received(b"free")
    bench.clock.pump([0.02] * 10)
    assert connection.answers < 1000
    # The server's own buffers cannot take all of it, and neither does the proxy.
    assert cast("Any", server.transport).dataBuffer or cast("Any", server.transport)._tempDataBuffer  # noqa: SLF001
    await bench.proxy.heal()
    await client.until(lambda: len(client.data) == sent)


# --- cut ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 5, 10])
@pytest_twisted.ensureDeferred
async def test_an_answer_is_cut_at_the_byte(bench: Bench, count: int) -> None:
    bench.proxy.cut_after(count)
    client, server = await bench.pair()
    client.socket.write(b"question")
    await server.until_received(b"question")
    server.socket.write(b"0123456789abcdef")
    await client.until(lambda: client.finished or client.lost is not None)
    assert client.data == b"0123456789abcdef"[:count]
    await server.until_lost()


@pytest_twisted.ensureDeferred
async def test_a_request_is_cut_at_the_byte(bench: Bench) -> None:
    bench.proxy.cut_after(3, "requests")
    client, server = await bench.pair()
    client.socket.write(b"question")
    await server.until(lambda: server.finished or server.lost is not None)
    assert server.data == b"que"
    assert (await client.until_lost()).check(ConnectionLost)


@pytest_twisted.ensureDeferred
async def test_an_open_connection_is_cut_after_so_many_bytes_from_now(bench: Bench) -> None:
    client, server = await bench.pair()
    server.socket.write(b"before")
    await client.until_received(b"before")
    bench.proxy.cut_after(2)
    server.socket.write(b"after")
    await client.until_finished()
    assert client.data == b"beforeaf"
    await bench.proxy.heal()
    client, server = await bench.pair()
    server.socket.write(b"whole again")
    await client.until_received(b"whole again")


# --- swallow, reset, refuse -----------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_what_is_swallowed_arrives_nowhere_and_its_connection_is_reset_by_healing(bench: Bench) -> None:
    client, server = await bench.pair()
    bench.proxy.swallow("requests")
    client.socket.write(b"lost")
    server.socket.write(b"answers still pass")
    await client.until_received(b"answers still pass")
    untouched, other = await bench.pair()
    other.socket.write(b"hello")
    await untouched.until_received(b"hello")
    assert server.data == b""
    await bench.proxy.heal()
    assert (await client.until_lost()).check(ConnectionLost)
    assert (await server.until_lost()).check(ConnectionLost)
    untouched.socket.write(b"goes on")
    await other.until_received(b"goes on")


@pytest_twisted.ensureDeferred
async def test_the_end_of_a_connection_is_swallowed_too(bench: Bench) -> None:
    client, server = await bench.pair()
    bench.proxy.swallow("answers")
    server.socket.abortConnection()
    await server.until_lost()
    client.socket.write(b"nobody there")
    assert client.lost is None
    await bench.proxy.heal()
    assert (await client.until_lost()).check(ConnectionLost)


@pytest_twisted.ensureDeferred
async def test_reset_ends_all_that_is_open_and_nothing_more(bench: Bench) -> None:
    pairs = [await bench.pair() for _ in range(3)]
    for client, server in pairs:
        server.socket.write(b"hello")
        await client.until_received(b"hello")
    gone = bench.proxy.reset()
    assert not gone.called
    await soon(gone)
    assert bench.proxy.connections == []
    for pair in pairs:
        for peer in pair:
            assert (await peer.until_lost()).check(ConnectionLost)
    assert bench.proxy.reset().called
    client, server = await bench.pair()
    client.socket.write(b"fine")
    await server.until_received(b"fine")


@pytest_twisted.ensureDeferred
async def test_reset_on_accept_ends_new_connections_until_healed(bench: Bench) -> None:
    bench.proxy.reset(on_accept=True)
    client = await bench.client()
    assert (await client.until_lost()).check(ConnectionLost)
    assert bench.server.peers == []
    await bench.proxy.heal()
    client, server = await bench.pair()
    client.socket.write(b"fine")
    await server.until_received(b"fine")


@pytest_twisted.ensureDeferred
async def test_refusing_leaves_open_connections_alone_and_keeps_the_port(bench: Bench) -> None:
    client, server = await bench.pair()
    port = bench.proxy.port
    await bench.proxy.refuse()
    await bench.proxy.refuse()
    with pytest.raises(ConnectError):
        await bench.client()
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind(("127.0.0.1", port))
    client.socket.write(b"still here")
    await server.until_received(b"still here")
    await bench.proxy.accept()
    assert bench.proxy.port == port
    await bench.pair()


@pytest_twisted.ensureDeferred
async def test_refusing_and_accepting_can_follow_each_other_at_once(bench: Bench) -> None:
    changes = [bench.proxy.refuse(), bench.proxy.accept(), bench.proxy.refuse(), bench.proxy.heal()]
    for change in changes:
        await soon(change)
    await bench.pair()


@pytest_twisted.ensureDeferred
async def test_a_client_of_a_server_that_is_down_is_turned_away(bench: Bench) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        bench.proxy.target_port = unused.getsockname()[1]
        client = await bench.client()
        assert (await client.until_lost()).check(ConnectionLost)


# --- its life -------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_it_can_be_started_again_at_the_same_port(bench: Bench) -> None:
    client, _ = await bench.pair()
    port = bench.proxy.port
    await bench.proxy.stopService()
    assert (await client.until_lost()).check(ConnectionLost, ConnectionDone)
    with pytest.raises(ConnectError):
        await bench.client()
    bench.proxy.startService()
    assert bench.proxy.port == port
    await bench.pair()


@pytest_twisted.ensureDeferred
async def test_stopping_while_it_refuses_and_while_faults_hold_bytes_leaves_nothing(bench: Bench) -> None:
    _client, server = await bench.pair()
    bench.proxy.delay(100.0, "both")
    server.socket.write(b"never arrives")
    await bench.clock.until_waiting()
    refusing, stopping = bench.proxy.refuse(), bench.proxy.stopService()
    await soon(refusing)
    await soon(stopping)
    assert bench.proxy.connections == []
    assert bench.clock.getDelayedCalls() == []


def test_before_it_was_started_it_has_no_port() -> None:
    proxy = FaultProxy(cast("Any", reactor), "127.0.0.1", 1)
    with pytest.raises(RuntimeError, match="startService"):
        proxy.endpoint  # noqa: B018


@pytest.mark.parametrize(
    "wrong",
    [
        lambda proxy: proxy.delay(-1),
        lambda proxy: proxy.limit(0),
        lambda proxy: proxy.cut_after(-1),
        lambda proxy: proxy.swallow("upwards"),
    ],
)
def test_faults_that_mean_nothing_are_refused(wrong: Callable[[FaultProxy], None]) -> None:
    with pytest.raises(ValueError, match="must"):
        wrong(FaultProxy(cast("Any", reactor), "127.0.0.1", 1))


@pytest_twisted.ensureDeferred
async def test_a_spoiled_byte_is_the_one_behind_the_count_on_open_and_on_new_connections(bench: Bench) -> None:
    client, server = await bench.pair()
    server.socket.write(b"abc")
    await client.until_received(b"abc")
    bench.proxy.spoil(2)
    server.socket.write(b"def")
    server.socket.write(b"ghi")
    await client.until_received(b"ghi")
    assert bytes(client.data) == b"abcdeFghi"
    another, its_server = await bench.pair()
    its_server.socket.write(b"abcd")
    await another.until_received(b"d")
    assert bytes(another.data) == b"abCd"
    another.socket.write(b"requests are left alone")
    await its_server.until_received(b"requests are left alone")
    await bench.proxy.heal()
    third, third_server = await bench.pair()
    third_server.socket.write(b"abcd")
    await third.until_received(b"abcd")
    with pytest.raises(ValueError, match="spoil is -1, which must not be under 0"):
        bench.proxy.spoil(-1)
