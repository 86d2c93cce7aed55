"""One POST to servers of all kinds, and how far it got."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from typing import cast

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent

from tests.gateway.conftest import MakeProxy, MakeScripted
from tests.gateway.servers import CLOCK, EMPTY_ANSWER, Asked, always, always_and_close, http_answer, silent
from tests.wire import Listener, soon
from twisted_etcd.errors import NotEtcd, TLSFailed
from twisted_etcd.gateway.agent import PooledAgent
from twisted_etcd.gateway.connections import Connections
from twisted_etcd.gateway.exchange import Exchange, ExchangeFailed, Reach, Reply
from twisted_etcd.gateway.httpreader import MAX_HEAD, MAX_HEADERS
from twisted_etcd.gateway.tls import TLSSettings, TLSTrust

Post = Callable[..., Deferred[Reply]]
Answer = Callable[[Asked, int], None]
BODY = b'{"key":"YQ=="}'
HEADERS = Headers({"Content-Type": ["application/json"], "Authorization": ["a-token"]})
CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n"


@pytest.fixture
def post() -> Iterator[Post]:
    """Posts to a URL."""
    connections = Connections(CLOCK, TLSTrust(TLSSettings()), 3.0)
    agent = PooledAgent(connections.to, CLOCK)

    def start(url: str, body: bytes = BODY, max_length: int = 1 << 20) -> Deferred[Reply]:
        exchange = Exchange(cast("IAgent", agent), CLOCK, max_length)
        return soon(exchange.post(f"{url}/v3/kv/range", HEADERS, body))

    yield start
    agent.close()
    pytest_twisted.blockon(soon(connections.all_gone()))


async def broken(posting: Deferred[Reply]) -> ExchangeFailed:
    with pytest.raises(ExchangeFailed) as caught:
        await posting
    return caught.value


@pytest_twisted.ensureDeferred
async def test_the_request_goes_out_as_it_was_given(post: Post, make_scripted: MakeScripted) -> None:
    server = make_scripted(always(http_answer(headers=["Server: a stranger"])))
    reply = await post(server.url)
    assert (reply.status, reply.content_type, reply.server) == (200, "application/json", "a stranger")
    assert (reply.body, reply.whole) == (EMPTY_ANSWER, True)
    (request,) = server.requests
    head, _, body = request.partition(b"\r\n\r\n")
    assert body == BODY
    assert head.startswith(b"POST /v3/kv/range HTTP/1.1\r\n")
    assert b"\r\nContent-Type: application/json\r\n" in head + b"\r\n"
    assert b"\r\nAuthorization: a-token\r\n" in head + b"\r\n"
    assert b"accept-encoding" not in head.lower()
    assert sorted(name for name, _ in HEADERS.getAllRawHeaders()) == [b"Authorization", b"Content-Type"]


@pytest.mark.parametrize(
    ("answer", "whole"),
    [
        (CHUNKED + b"%x\r\n%s\r\n0\r\n\r\n" % (len(EMPTY_ANSWER), EMPTY_ANSWER), True),
        (CHUNKED + b"".join(b"1\r\n%c\r\n" % byte for byte in EMPTY_ANSWER) + b"0\r\n\r\n", True),
        (UNTIL_CLOSE + EMPTY_ANSWER, False),
        (http_answer(gzip.compress(EMPTY_ANSWER), headers=["Content-Encoding: gzip"]), True),
    ],
    ids=["chunked", "in chunks of a byte", "until the close", "packed"],
)
@pytest_twisted.ensureDeferred
async def test_a_body_comes_whole_however_it_is_sent(
    *, post: Post, make_scripted: MakeScripted, answer: bytes, whole: bool
) -> None:
    reply = await post(make_scripted(always_and_close(answer)).url)
    assert (reply.body, reply.whole) == (EMPTY_ANSWER, whole)


@pytest_twisted.ensureDeferred
async def test_redirects_are_not_followed(post: Post, make_scripted: MakeScripted) -> None:
    elsewhere = make_scripted(silent)
    server = make_scripted(always(http_answer(b"", status=307, headers=[f"Location: {elsewhere.url}/v3/kv/range"])))
    reply = await post(server.url)
    assert reply.status == 307
    assert elsewhere.requests == []


@pytest_twisted.ensureDeferred
async def test_cookies_are_neither_kept_nor_sent(post: Post, make_scripted: MakeScripted) -> None:
    server = make_scripted(always(http_answer(headers=["Set-Cookie: member=1; Path=/"])))
    for _ in range(2):
        await post(server.url)
    assert len(server.requests) == 2
    assert not any(b"\r\ncookie:" in request.lower() for request in server.requests)


# --- what certainly was not sent ------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_a_refused_connection_sends_nothing(
    post: Post, make_scripted: MakeScripted, make_proxy: MakeProxy
) -> None:
    proxy = make_proxy(make_scripted(silent).url)
    await proxy.refuse()
    error = await broken(post(proxy.endpoint))
    assert (error.reach, error.obstacle) == (Reach.NOT_SENT, None)
    assert "refused" in error.why


@pytest_twisted.ensureDeferred
async def test_a_name_that_does_not_exist_sends_nothing(post: Post) -> None:
    error = await broken(post("http://no-such-host.invalid:2379"))
    assert (error.reach, error.obstacle) == (Reach.NOT_SENT, None)
    assert "no such host name" in error.why


@pytest.mark.parametrize("host", ["xn--a", "a" * 64])
@pytest_twisted.ensureDeferred
async def test_a_name_that_no_host_can_have_sends_nothing(post: Post, host: str) -> None:
    error = await broken(post(f"http://{host}.invalid:2379"))
    assert error.reach is Reach.NOT_SENT


# --- what may have been sent ----------------------------------------------------------------------------------------


def reset(peer: Asked, _number: int) -> None:
    peer.reset()


def finish(peer: Asked, _number: int) -> None:
    peer.finish()


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (reset, "Connection to the other side was lost"),
        (finish, "closed without an answer; if etcd speaks TLS there, write https://"),
        (always_and_close(b"HTTP/1.1 200 O"), "closed"),
        (always_and_close(b"HTTP/1.1 200 OK\r\nContent-Type: appl"), "closed"),
        (always_and_close(http_answer()[:-1]), "the answer was cut short"),
        (always_and_close(http_answer()[: -len(EMPTY_ANSWER)]), "the answer was cut short"),
        (always_and_close(CHUNKED), "the answer was cut short"),
        (always_and_close(CHUNKED + b"%x\r\n%s" % (len(EMPTY_ANSWER), EMPTY_ANSWER[:10])), "the answer was cut short"),
        (always_and_close(CHUNKED + b"%x\r\n%s\r\n" % (len(EMPTY_ANSWER), EMPTY_ANSWER)), "the answer was cut short"),
        (always_and_close(CHUNKED + b"no number\r\n"), "the answer was cut short"),
        (always(http_answer(headers=["Content-Encoding: gzip"])), "the answer was cut short"),
    ],
    ids=[
        "reset",
        "closed",
        "cut in the status",
        "cut in the headers",
        "cut in the body",
        "cut before the body",
        "cut before the first chunk",
        "cut in a chunk",
        "cut before the last chunk",
        "a chunk without a length",
        "said to be packed",
    ],
)
@pytest_twisted.ensureDeferred
async def test_an_answer_that_does_not_come_whole_leaves_open_what_was_done(
    post: Post, make_scripted: MakeScripted, answer: Answer, why: str
) -> None:
    error = await broken(post(make_scripted(answer).url))
    assert (error.reach, error.obstacle) == (Reach.MAYBE_SENT, None)
    assert why in error.why


@pytest_twisted.ensureDeferred
async def test_an_answer_over_the_bound_is_given_up(post: Post, make_scripted: MakeScripted) -> None:
    server = make_scripted(always(http_answer(b"x" * 3000)))
    error = await broken(post(server.url, max_length=2999))
    assert error.why == "the answer is longer than 2999 bytes"
    assert error.reach is Reach.MAYBE_SENT
    await (await server.connection()).until_lost()
    assert len((await post(server.url, max_length=3000)).body) == 3000


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (http_answer(headers=[f"X-Long: {'x' * MAX_HEAD}"]), f"the head of the answer is longer than {MAX_HEAD} bytes"),
        (http_answer(headers=["A: 1"] * MAX_HEADERS), f"the answer has more than {MAX_HEADERS} headers"),
        (http_answer(headers=["no colon"]), "Invalid header token"),
        (http_answer().replace(b"HTTP/1.1 200", b"HTTP/2.0 200"), "the server speaks HTTP/2.0"),
        (http_answer(status=101, headers=["Connection: upgrade", "Upgrade: h2c"]), "switches to another protocol"),
        (http_answer(headers=["Transfer-Encoding: chunked"]), "Transfer-Encoding"),
    ],
    ids=["a long head", "many headers", "no header", "another version", "another protocol", "two lengths"],
)
@pytest_twisted.ensureDeferred
async def test_an_answer_that_cannot_be_read_leaves_open_what_was_done(
    post: Post, make_scripted: MakeScripted, answer: bytes, why: str
) -> None:
    server = make_scripted(always(answer))
    error = await broken(post(server.url))
    # It may be etcd's own, spoiled on the way.
    assert (error.reach, error.obstacle) == (Reach.MAYBE_SENT, None)
    assert error.why.startswith("the answer cannot be read: ")
    assert why in error.why
    await (await server.connection()).until_lost()


@pytest_twisted.ensureDeferred
async def test_what_is_not_http_is_found_out(post: Post, make_scripted: MakeScripted) -> None:
    server = make_scripted(always(b"SSH-2.0-OpenSSH_9.2\r\n"))
    error = await broken(post(server.url))
    assert "what came is not HTTP" in error.why
    assert (error.reach, error.obstacle) == (Reach.NOT_SENT, NotEtcd)


# --- cancelling -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        silent,
        always(b"HTTP/1.1 200 OK\r\nContent-"),
        always(http_answer()[: -len(EMPTY_ANSWER)]),
        always(http_answer()[:-1]),
        always(CHUNKED + b"5\r\n{"),
        always(UNTIL_CLOSE + EMPTY_ANSWER),
    ],
    ids=["before the head", "in the head", "before the body", "in the body", "in a chunk", "before the close"],
)
@pytest_twisted.ensureDeferred
async def test_cancelling_closes_the_connection_wherever_the_answer_hangs(
    post: Post, make_scripted: MakeScripted, answer: Answer
) -> None:
    server = make_scripted(answer)
    posting = post(server.url)
    await server.until_requested()
    peer = await server.connection()
    posting.cancel()
    error = await broken(posting)
    assert error.reach is Reach.MAYBE_SENT
    await peer.until_lost()


@pytest_twisted.ensureDeferred
async def test_cancelling_while_connecting_sends_nothing(post: Post) -> None:
    listener = Listener()
    posting = post(f"http://{listener.authority}")
    posting.cancel()
    error = await broken(posting)
    assert error.reach is Reach.NOT_SENT
    await listener.close()
    assert all(not peer.data for peer in listener.peers)


# --- TLS ------------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_tls_with_a_server_that_speaks_none_is_the_obstacle(post: Post) -> None:
    listener = Listener()
    posting = post(f"https://{listener.authority}")
    peer = await listener.peer()
    await peer.until(lambda: bool(peer.data))
    peer.socket.write(b"HTTP/1.0 400 Bad Request\r\n\r\n")
    error = await broken(posting)
    await listener.close()
    assert (error.reach, error.obstacle) == (Reach.NOT_SENT, TLSFailed)
    assert "write the endpoint with http://" in error.why
