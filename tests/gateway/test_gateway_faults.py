"""What reads and writes come to when the way to etcd, or etcd itself, fails: told apart, and never told wrongly."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, NamedTuple

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, gatherResults

from tests.etcds import FreshEtcd
from tests.gateway.conftest import MakeGateway, MakeProxy, MakeScripted
from tests.gateway.servers import BOTH, Asked, always, http_answer, until_closed
from tests.wire import Listener, soon
from twisted_etcd.embedded.process import EmbeddedEtcd
from twisted_etcd.errors import DeadlineExceeded, OutcomeUnknown, RequestFailed, Unavailable
from twisted_etcd.gateway.endpointset import EndpointState
from twisted_etcd.gateway.gateway import Gateway
from twisted_etcd.schema import rpcs
from twisted_etcd.schema.kv import PutRequest, RangeRequest
from twisted_etcd.schema.lease import LeaseGrantRequest
from twisted_etcd.testing.connections import Direction
from twisted_etcd.testing.proxy import FaultProxy

#: Seconds for a request that is meant to fail.
SHORT = 0.1


class Way(NamedTuple):
    """A gateway that reaches a real etcd through a proxy, and one that reaches it directly."""

    proxy: FaultProxy
    gateway: Gateway
    direct: Gateway
    key: bytes

    def put(self, timeout: float = 10) -> Deferred[Any]:
        return self.gateway.unary(rpcs.PUT, PutRequest(key=self.key, value=b"written"), timeout=timeout)

    def get(self, timeout: float = 10) -> Deferred[Any]:
        return self.gateway.unary(rpcs.RANGE, RangeRequest(key=self.key), timeout=timeout)

    async def applied(self) -> bool:
        found = await self.direct.unary(rpcs.RANGE, RangeRequest(key=self.key))
        return bool(found.kvs) and found.kvs[0].value == b"written"


@pytest.fixture
def way(etcd_server: EmbeddedEtcd, make_gateway: MakeGateway, make_proxy: MakeProxy, prefix: str) -> Way:
    proxy = make_proxy(etcd_server.endpoint)
    return Way(proxy, make_gateway(proxy.endpoint), make_gateway(etcd_server.endpoint), prefix.encode() + b"key")


async def failure(deferred: Deferred[Any]) -> RequestFailed:
    with pytest.raises(RequestFailed) as caught:
        await soon(deferred)
    return caught.value


@pytest_twisted.ensureDeferred
async def test_refused_is_unavailable_for_both(way: Way) -> None:
    await way.proxy.refuse()
    for error in (await failure(way.put(SHORT)), await failure(way.get(SHORT))):
        assert type(error) is Unavailable
        assert "refused" in error.tried[way.proxy.endpoint]
    assert not await way.applied()


@pytest_twisted.ensureDeferred
async def test_a_name_that_does_not_exist_is_unavailable_for_both(make_gateway: MakeGateway) -> None:
    gateway = make_gateway("http://no-such-host.invalid:2379", request_timeout=SHORT)
    for rpc, request in BOTH:
        error = await failure(gateway.unary(rpc, request))
        assert type(error) is Unavailable
        assert "no such host name" in str(error)


@pytest.fixture
def deaf_url() -> Iterator[str]:
    """A port that answers no SYN: what comes over a full backlog is dropped."""
    deaf = socket.socket()
    deaf.bind(("127.0.0.1", 0))
    deaf.listen(0)
    crowd = [socket.socket() for _ in range(4)]
    for each in crowd:
        each.setblocking(False)
        each.connect_ex(deaf.getsockname())
    yield f"http://127.0.0.1:{deaf.getsockname()[1]}"
    for each in (*crowd, deaf):
        each.close()


@pytest_twisted.ensureDeferred
async def test_a_host_that_never_answers_a_connection_is_left_for_the_next_and_is_unavailable_alone(
    etcd_server: EmbeddedEtcd, make_gateway: MakeGateway, deaf_url: str
) -> None:
    await make_gateway(deaf_url, etcd_server.endpoint, connect_timeout=0.05).unary(rpcs.PUT, PutRequest(key=b"a"))
    alone = make_gateway(deaf_url, connect_timeout=0.05, request_timeout=0.2)
    for rpc, request in BOTH:
        error = await failure(alone.unary(rpc, request))
        assert type(error) is Unavailable
        assert "timeout" in error.tried[deaf_url].lower()
    # Where its own time is up first, a write is known not to have been sent all the same.
    assert type(await failure(alone.unary(rpcs.PUT, PutRequest(key=b"a"), timeout=0.02))) is Unavailable


@pytest_twisted.ensureDeferred
async def test_a_connection_that_is_reset_at_once_is_never_told_wrongly(way: Way) -> None:
    way.proxy.reset(on_accept=True)
    # Whether the request had gone by then is a race, and both answers are true of a request that did not arrive.
    assert type(await failure(way.put(SHORT))) in {Unavailable, OutcomeUnknown}
    assert type(await failure(way.get(SHORT))) in {Unavailable, DeadlineExceeded}
    assert not await way.applied()


@pytest_twisted.ensureDeferred
async def test_a_write_that_was_reset_after_it_arrived_is_of_unknown_outcome(way: Way) -> None:
    way.proxy.swallow("answers")
    putting = way.put()
    while not await way.applied():
        pass
    way.proxy.reset()
    error = await failure(putting)
    assert type(error) is OutcomeUnknown
    assert "KV.Put was sent and not confirmed; it may have been applied" in str(error)


@pytest_twisted.ensureDeferred
async def test_a_read_that_was_reset_is_repeated(way: Way) -> None:
    way.proxy.swallow("answers")
    getting = way.get()
    connection = await soon(way.proxy.next_connection())
    assert connection in way.proxy.connections
    await way.proxy.heal()
    way.proxy.reset()
    await soon(getting)


@pytest.mark.parametrize("count", [0, 20, 400])
@pytest_twisted.ensureDeferred
async def test_an_answer_that_is_cut_off_is_of_unknown_outcome_for_writes_and_repeated_for_reads(
    way: Way, count: int
) -> None:
    await way.get()
    # The answer to a put is about as long.
    count = min(count, way.proxy.answers - 20)
    way.proxy.reset()
    await until_closed(way.gateway)
    way.proxy.cut_after(count)
    assert type(await failure(way.put())) is OutcomeUnknown
    assert await way.applied()
    assert type(await failure(way.get(SHORT))) is DeadlineExceeded
    getting = way.get()
    await soon(way.proxy.next_connection())
    await way.proxy.heal()
    assert (await soon(getting)).kvs[0].value == b"written"


@pytest_twisted.ensureDeferred
async def test_a_request_that_is_cut_off_is_of_unknown_outcome_though_it_was_not_applied(way: Way) -> None:
    way.proxy.cut_after(60, "requests")
    assert type(await failure(way.put())) is OutcomeUnknown
    assert not await way.applied()
    assert type(await failure(way.get(SHORT))) is DeadlineExceeded


@pytest.mark.parametrize("direction", ["requests", "answers", "both"])
@pytest_twisted.ensureDeferred
async def test_a_server_that_hangs_exceeds_the_deadline_and_costs_its_connections(
    way: Way, direction: Direction
) -> None:
    way.proxy.swallow(direction)
    putting = way.put(SHORT)
    assert type(await failure(way.get(SHORT))) is DeadlineExceeded
    assert type(await failure(putting)) is OutcomeUnknown
    await until_closed(way.gateway)
    assert direction == "answers" or not await way.applied()


@pytest_twisted.ensureDeferred
async def test_a_body_that_is_too_slow_exceeds_the_deadline_and_costs_its_connection(way: Way) -> None:
    await way.direct.unary(rpcs.PUT, PutRequest(key=way.key, value=b"x" * 500_000))
    way.proxy.limit(100_000)
    connected = way.proxy.next_connection()
    assert type(await failure(way.get(SHORT))) is DeadlineExceeded
    # The member said that it is well, and the connection on which it did so is kept.
    connection = await connected
    while connection in way.proxy.connections:
        await way.direct.unary(rpcs.RANGE, RangeRequest(key=b"a"))


@pytest_twisted.ensureDeferred
async def test_answers_that_are_late_come_together(way: Way) -> None:
    await gatherResults([way.get() for _ in range(50)])
    made = way.proxy.connections_made
    way.proxy.delay(0.1)
    await gatherResults([way.get() for _ in range(50)])
    assert way.proxy.connections_made == made


# --- members that die ----------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_a_member_that_is_killed_and_comes_back_costs_reads_nothing(
    fresh_etcd: FreshEtcd, make_gateway: MakeGateway
) -> None:
    etcd = await fresh_etcd()
    gateway = make_gateway(etcd.endpoint, request_timeout=20)
    await gatherResults([gateway.unary(rpcs.RANGE, RangeRequest(key=b"a")) for _ in range(5)])
    exited = etcd.when_exited()
    etcd.kill("KILL")
    during = [gateway.unary(rpcs.RANGE, RangeRequest(key=b"a")) for _ in range(20)]
    await exited
    await gatherResults(during)
    # The connections of before are gone, and no write is put on one.
    await gateway.unary(rpcs.PUT, PutRequest(key=b"a", value=b"b"))


# --- connections that were kept, and are closed just as a request goes ----------------------------------------------


def closing_at(*numbers: int, how: Callable[[Asked], None]) -> Callable[[Asked, int], None]:
    """Answers all requests but these, for which it closes the connection as if it had crossed the request."""

    def answer(peer: Asked, number: int) -> None:
        if number in numbers:
            how(peer)
        else:
            peer.say(http_answer())

    return answer


@pytest.mark.parametrize("how", [Asked.finish, Asked.reset])
@pytest_twisted.ensureDeferred
async def test_a_stale_connection_fails_no_read_and_repeats_no_write(
    make_scripted: MakeScripted, make_gateway: MakeGateway, how: Callable[[Asked], None]
) -> None:
    server = make_scripted(closing_at(2, 4, how=how))
    gateway = make_gateway(server.url)
    read, write = RangeRequest(key=b"a"), PutRequest(key=b"a")
    await gateway.unary(rpcs.RANGE, read)
    await gateway.unary(rpcs.RANGE, read)
    assert len(server.requests) == 3
    assert len(server.connections) == 2
    assert type(await failure(gateway.unary(rpcs.PUT, write))) is OutcomeUnknown
    assert len(server.requests) == 4
    # What was closed before a write goes is noticed, so that it goes on a new connection.
    await gateway.unary(rpcs.PUT, write)
    assert len(server.requests) == 5


@pytest_twisted.ensureDeferred
async def test_a_write_goes_on_a_new_connection_where_the_old_one_was_closed_before(
    make_scripted: MakeScripted, make_gateway: MakeGateway
) -> None:
    server = make_scripted(always(http_answer()))
    gateway = make_gateway(server.url)
    write = PutRequest(key=b"a")
    await gateway.unary(rpcs.PUT, write)
    for number in range(3):
        peer = await server.connection(number)
        peer.socket.loseConnection()
        await peer.until_lost()
        await until_closed(gateway)
        await gateway.unary(rpcs.PUT, write)
    assert len(server.requests) == 4


@pytest.mark.parametrize("lease_id", [0, 7])
@pytest_twisted.ensureDeferred
async def test_a_lease_is_not_granted_twice_whoever_chooses_its_id(
    make_scripted: MakeScripted, make_gateway: MakeGateway, lease_id: int
) -> None:
    server = make_scripted(closing_at(1, how=Asked.finish))
    error = await failure(make_gateway(server.url).unary(rpcs.LEASE_GRANT, LeaseGrantRequest(TTL=10, ID=lease_id)))
    assert type(error) is OutcomeUnknown
    assert len(server.requests) == 1


# --- proxies in between ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [500, 502, 503, 504])
@pytest_twisted.ensureDeferred
async def test_a_proxys_own_error_is_repeated_for_reads_and_of_unknown_outcome_for_writes(
    make_scripted: MakeScripted, make_gateway: MakeGateway, status: int
) -> None:
    page = http_answer(b"<html>Bad Gateway</html>", status=status, content_type="text/html")
    server = make_scripted(lambda peer, number: peer.say(page if number < 3 else http_answer()))
    gateway = make_gateway(server.url)
    await gateway.unary(rpcs.RANGE, RangeRequest(key=b"a"))
    assert len(server.requests) == 3
    always_bad = make_scripted(always(page))
    error = await failure(make_gateway(always_bad.url).unary(rpcs.PUT, PutRequest(key=b"a")))
    assert type(error) is OutcomeUnknown
    assert f"answered {status} without saying why" in str(error)
    assert len(always_bad.requests) == 1
    reading = make_gateway(always_bad.url, request_timeout=SHORT).unary(rpcs.RANGE, RangeRequest(key=b"a"))
    assert type(await failure(reading)) is DeadlineExceeded


# --- several endpoints ----------------------------------------------------------------------------------------------


async def that_refuses(_make_scripted: MakeScripted) -> str:
    listener = Listener()
    await listener.close()
    return f"http://{listener.authority}"


async def that_is_another_service(make_scripted: MakeScripted) -> str:
    return make_scripted(always(http_answer(b'{"status":"ok"}'))).url


async def that_has_no_leader(make_scripted: MakeScripted) -> str:
    return make_scripted(always(http_answer(b'{"code":14,"message":"etcdserver: no leader"}', status=503))).url


async def that_does_not_exist(_make_scripted: MakeScripted) -> str:
    return "http://no-such-host.invalid:2379"


async def that_resets(make_scripted: MakeScripted) -> str:
    return make_scripted(lambda peer, _number: peer.reset()).url


@pytest.mark.parametrize(
    "make_first",
    [that_refuses, that_is_another_service, that_has_no_leader, that_does_not_exist],
    ids=lambda f: f.__name__,
)
@pytest_twisted.ensureDeferred
async def test_a_first_endpoint_that_certainly_did_nothing_is_passed_over_by_reads_and_writes(
    etcd_server: EmbeddedEtcd,
    make_gateway: MakeGateway,
    make_scripted: MakeScripted,
    make_first: Callable[[MakeScripted], Awaitable[str]],
    prefix: str,
) -> None:
    first = await make_first(make_scripted)
    key = prefix.encode()
    await make_gateway(first, etcd_server.endpoint).unary(rpcs.PUT, PutRequest(key=key, value=b"b"))
    gateway = make_gateway(first, etcd_server.endpoint)
    assert (await gateway.unary(rpcs.RANGE, RangeRequest(key=key))).kvs[0].value == b"b"
    assert str(gateway.choose()) == etcd_server.endpoint


@pytest_twisted.ensureDeferred
async def test_a_first_endpoint_that_resets_is_passed_over_by_reads_and_not_by_writes(
    etcd_server: EmbeddedEtcd, make_gateway: MakeGateway, make_scripted: MakeScripted, prefix: str
) -> None:
    first = await that_resets(make_scripted)
    await make_gateway(first, etcd_server.endpoint).unary(rpcs.RANGE, RangeRequest(key=b"a"))
    gateway = make_gateway(first, etcd_server.endpoint)
    put = PutRequest(key=prefix.encode(), value=b"b")
    assert type(await failure(gateway.unary(rpcs.PUT, put))) is OutcomeUnknown
    assert (await gateway.unary(rpcs.RANGE, RangeRequest(key=put.key))).kvs == ()
    # The next one begins elsewhere.
    await gateway.unary(rpcs.PUT, put)


@pytest_twisted.ensureDeferred
async def test_what_went_wrong_is_told_for_each_endpoint(
    make_gateway: MakeGateway, make_scripted: MakeScripted
) -> None:
    refusing, absent = await that_refuses(make_scripted), await that_does_not_exist(make_scripted)
    gateway = make_gateway(refusing, absent, request_timeout=SHORT)
    error = await failure(gateway.unary(rpcs.PUT, PutRequest(key=b"a")))
    assert set(error.tried) == {refusing, absent}
    assert str(error).startswith(f"KV.Put got no answer within {SHORT} s, and was not sent: ")


@pytest_twisted.ensureDeferred
async def test_a_hung_endpoint_costs_a_read_its_share_and_is_left_by_what_follows(
    etcd_server: EmbeddedEtcd, make_gateway: MakeGateway, make_proxy: MakeProxy, prefix: str
) -> None:
    proxy = make_proxy(etcd_server.endpoint)
    proxy.swallow()
    gateway = make_gateway(proxy.endpoint, etcd_server.endpoint, request_timeout=1.0)
    await gateway.unary(rpcs.RANGE, RangeRequest(key=b"a"))
    await soon(gateway.checkup(gateway.endpoints[0]))
    left, used = gateway.endpoint_statuses
    assert (left.state, used.state) == (EndpointState.FAILING, EndpointState.SERVING)
    assert "did not answer within" in left.why
    await gateway.unary(rpcs.PUT, PutRequest(key=prefix.encode()))


@pytest_twisted.ensureDeferred
async def test_writes_that_wait_for_a_hung_member_hold_up_nothing_that_goes_to_another(
    etcd_server: EmbeddedEtcd, make_gateway: MakeGateway, make_proxy: MakeProxy, prefix: str
) -> None:
    proxy = make_proxy(etcd_server.endpoint)
    proxy.swallow()
    gateway = make_gateway(proxy.endpoint, etcd_server.endpoint, request_timeout=2.0, max_connections=5)
    put = PutRequest(key=prefix.encode())
    sent: list[Any] = []
    putting = [gateway.unary(rpcs.PUT, put).addErrback(sent.append) for _ in range(5)]
    # These have no turn there, and so may go elsewhere.
    await soon(gatherResults([gateway.unary(rpcs.PUT, put) for _ in range(20)]))
    assert sent == []
    await soon(gatherResults(putting))
    assert [type(failed.value) for failed in sent] == [OutcomeUnknown] * 5
