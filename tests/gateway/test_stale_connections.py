"""Connections that were kept and have ended: what certainly did not leave goes again, and no other write does."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from tests.etcds import FreshEtcd
from tests.gateway.conftest import MakeGateway, MakeProxy, MakeScripted
from tests.gateway.servers import BOTH, EMPTY_ANSWER, Asked, always, http_answer
from tests.gateway.witnesses import Writer, read_until
from tests.wire import PATIENCE, soon
from twisted_etcd.embedded.process import EmbeddedEtcd
from twisted_etcd.errors import OutcomeUnknown, RequestFailed, Unavailable
from twisted_etcd.schema import rpcs
from twisted_etcd.schema.common import Message
from twisted_etcd.schema.kv import PutRequest, RangeRequest
from twisted_etcd.schema.rpcs import RPC
from twisted_etcd.testing.proxy import FaultProxy

#: More than the buffers of a connection hold on their way.
HUGE = 16 << 20
SHORT = 0.3

EACH = pytest.mark.parametrize(("rpc", "request_"), BOTH, ids=["read", "write"])


class Blocking:
    """
    A server that acts at once when it is told to, and not in the reactor.

    So what it does has arrived before the reactor looks, which is how a busy program finds its connections.
    """

    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._listening.settimeout(PATIENCE)
        self._connections: list[socket.socket] = []

    @property
    def url(self) -> str:
        host, port = self._listening.getsockname()
        return f"http://{host}:{port}"

    def accept(self) -> socket.socket:
        """The next connection."""
        connection, _ = self._listening.accept()
        connection.settimeout(PATIENCE)
        self._connections.append(connection)
        return connection

    def serve(self) -> socket.socket:
        """Answer the first request of the next connection, whatever it is."""
        connection = self.accept()
        while not connection.recv(1 << 20).endswith(b"}"):
            pass
        connection.sendall(http_answer())
        return connection

    def close(self) -> None:
        for each in (self._listening, *self._connections):
            each.close()


def finish(connection: socket.socket) -> None:
    connection.shutdown(socket.SHUT_WR)


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


@pytest.fixture
def blocking() -> Iterator[Blocking]:
    server = Blocking()
    yield server
    server.close()


@pytest.fixture
def elsewhere() -> Iterator[Blocking]:
    server = Blocking()
    yield server
    server.close()


async def failure(deferred: Deferred[Any]) -> RequestFailed:
    with pytest.raises(RequestFailed) as caught:
        await soon(deferred)
    return caught.value


# --- ended before the request ---------------------------------------------------------------------------------------


@EACH
@pytest.mark.parametrize("end", [finish, reset])
@pytest_twisted.ensureDeferred
async def test_what_was_put_on_a_connection_that_had_ended_unnoticed_goes_on_a_new_one(
    blocking: Blocking,
    make_gateway: MakeGateway,
    end: Callable[[socket.socket], None],
    rpc: RPC[Any, Any],
    request_: Message,
) -> None:
    gateway = make_gateway(blocking.url)
    serving = deferToThread(blocking.serve)
    await soon(gateway.unary(rpcs.RANGE, RangeRequest(key=b"a")))
    kept = await soon(serving)
    assert gateway.connection_count == 1
    # No turn of the reactor lies between these two.
    end(kept)
    calling = gateway.unary(rpc, request_)
    await soon(deferToThread(blocking.serve))
    await soon(calling)
    if end is finish:
        assert kept.recv(1) == b"", "some of the request left on a connection that had ended"


@EACH
@pytest_twisted.ensureDeferred
async def test_a_connection_that_is_still_good_is_used_again(
    make_scripted: MakeScripted, make_gateway: MakeGateway, rpc: RPC[Any, Any], request_: Message
) -> None:
    server = make_scripted(always(http_answer()))
    gateway = make_gateway(server.url)
    for _ in range(3):
        await soon(gateway.unary(rpc, request_))
    assert (len(server.connections), len(server.requests)) == (1, 3)


@EACH
@pytest.mark.parametrize("how", [Asked.finish, Asked.reset])
@pytest_twisted.ensureDeferred
async def test_an_end_that_crosses_the_request_repeats_reads_and_no_writes(
    make_scripted: MakeScripted,
    make_gateway: MakeGateway,
    how: Callable[[Asked], None],
    rpc: RPC[Any, Any],
    request_: Message,
) -> None:
    server = make_scripted(lambda peer, number: how(peer) if number == 2 else peer.say(http_answer()))
    gateway = make_gateway(server.url)
    await soon(gateway.unary(rpcs.RANGE, RangeRequest(key=b"a")))
    calling = gateway.unary(rpc, request_)
    if rpcs.repeatable(rpc, request_):
        await soon(calling)
        assert len(server.requests) == 3
    else:
        assert type(await failure(calling)) is OutcomeUnknown
        assert len(server.requests) == 2


# --- a request that does not fit ------------------------------------------------------------------------------------


def drained(connection: socket.socket) -> bytes:
    """All that ever comes."""
    parts = []
    try:
        while part := connection.recv(1 << 20):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


@pytest_twisted.ensureDeferred
async def test_a_write_that_never_left_whole_is_unavailable_and_its_end_never_comes(
    blocking: Blocking, make_gateway: MakeGateway
) -> None:
    gateway = make_gateway(blocking.url)
    calling = gateway.unary(rpcs.PUT, PutRequest(key=b"a", value=b"v" * HUGE), timeout=SHORT)
    connection = await soon(deferToThread(blocking.accept))
    assert type(await failure(calling)) is Unavailable
    head, _, body = (await soon(deferToThread(drained, connection))).partition(b"\r\n\r\n")
    assert head.startswith(b"POST /v3/kv/put ")
    assert 0 < len(body) < HUGE


@pytest_twisted.ensureDeferred
async def test_a_write_that_was_reset_before_it_left_whole_goes_elsewhere(
    blocking: Blocking, elsewhere: Blocking, make_gateway: MakeGateway
) -> None:
    gateway = make_gateway(blocking.url, elsewhere.url)
    calling = gateway.unary(rpcs.PUT, PutRequest(key=b"a", value=b"v" * HUGE))

    def take_a_little() -> None:
        connection = blocking.accept()
        assert connection.recv(1000)
        reset(connection)

    await soon(deferToThread(take_a_little))
    await soon(deferToThread(elsewhere.serve))
    await soon(calling)


@pytest_twisted.ensureDeferred
async def test_a_write_that_left_whole_and_was_not_read_is_of_unknown_outcome(
    blocking: Blocking, make_gateway: MakeGateway
) -> None:
    gateway = make_gateway(blocking.url)
    calling = gateway.unary(rpcs.PUT, PutRequest(key=b"a"), timeout=SHORT)
    connection = await soon(deferToThread(blocking.accept))
    assert type(await failure(calling)) is OutcomeUnknown
    # It was there to be read, and so to be acted on.
    assert (await soon(deferToThread(drained, connection))).endswith(b"}")


@pytest_twisted.ensureDeferred
async def test_an_answer_that_comes_before_the_request_has_left_is_taken(
    blocking: Blocking, make_gateway: MakeGateway
) -> None:
    gateway = make_gateway(blocking.url)
    calling = gateway.unary(rpcs.PUT, PutRequest(key=b"a", value=b"v" * HUGE))

    def answer_early() -> None:
        connection = blocking.accept()
        connection.recv(1000)
        connection.sendall(http_answer(EMPTY_ANSWER))

    await soon(deferToThread(answer_early))
    await soon(calling)


# --- a connection that leads nowhere --------------------------------------------------------------------------------


@pytest.fixture
def way(etcd_server: EmbeddedEtcd, make_proxy: MakeProxy) -> FaultProxy:
    return make_proxy(etcd_server.endpoint)


@pytest_twisted.ensureDeferred
async def test_a_write_into_a_connection_that_leads_nowhere_is_of_unknown_outcome_and_does_not_come_later(
    etcd_server: EmbeddedEtcd, make_gateway: MakeGateway, way: FaultProxy, prefix: str
) -> None:
    key = prefix.encode()
    gateway, direct = make_gateway(way.endpoint), make_gateway(etcd_server.endpoint)
    await soon(gateway.unary(rpcs.RANGE, RangeRequest(key=key)))
    way.swallow()
    assert type(await failure(gateway.unary(rpcs.PUT, PutRequest(key=key), timeout=SHORT))) is OutcomeUnknown
    await way.heal()
    await soon(gateway.unary(rpcs.PUT, PutRequest(key=key + b"after")))
    assert (await direct.unary(rpcs.RANGE, RangeRequest(key=key))).kvs == ()


@pytest_twisted.ensureDeferred
async def test_a_read_on_a_connection_that_leads_nowhere_is_answered_by_another_endpoint(
    etcd_server: EmbeddedEtcd, make_gateway: MakeGateway, way: FaultProxy
) -> None:
    gateway = make_gateway(way.endpoint, etcd_server.endpoint, request_timeout=4)
    await soon(gateway.unary(rpcs.RANGE, RangeRequest(key=b"a")))
    way.swallow()
    await soon(gateway.unary(rpcs.RANGE, RangeRequest(key=b"a")))


# --- a member that is killed, or stopped, and comes back ------------------------------------------------------------


@pytest.mark.parametrize("signal", ["KILL", "TERM"])
@pytest_twisted.ensureDeferred
async def test_a_member_that_is_restarted_fails_no_read_and_every_write_is_told_truly(
    fresh_etcd: FreshEtcd, make_gateway: MakeGateway, signal: str
) -> None:
    etcd = await fresh_etcd()
    gateway = make_gateway(etcd.endpoint, request_timeout=PATIENCE)
    writers = [Writer(gateway, b"w%d" % number) for number in range(8)]
    back: list[str] = []
    working = [Deferred.fromCoroutine(writer.write_until(lambda: bool(back))) for writer in writers]
    working += [Deferred.fromCoroutine(read_until(gateway, lambda: bool(back))) for _ in range(8)]
    await soon(gateway.unary(rpcs.PUT, PutRequest(key=b"before")))
    exited = etcd.when_exited()
    etcd.kill(signal)
    back.append(await soon(exited))
    for each in working:
        await soon(each)
    for writer in writers:
        await writer.check(gateway)
        assert None in writer.told.values()


@pytest_twisted.ensureDeferred
async def test_a_write_goes_through_after_its_member_was_killed_and_has_come_back(
    fresh_etcd: FreshEtcd, make_gateway: MakeGateway
) -> None:
    etcd = await fresh_etcd()
    gateway = make_gateway(etcd.endpoint, request_timeout=PATIENCE)
    for signal in ("KILL", "TERM"):
        await soon(gateway.unary(rpcs.PUT, PutRequest(key=b"a")))
        exited = etcd.when_exited()
        etcd.kill(signal)
        await soon(exited)
    await soon(gateway.unary(rpcs.PUT, PutRequest(key=b"a")))
    assert (await soon(gateway.unary(rpcs.RANGE, RangeRequest(key=b"a")))).kvs[0].version == 3
