"""Asking by HTTP and HTTPS, with servers that do all that servers do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import pytest_twisted
from pytest_twisted import ensureDeferred
from twisted.internet import reactor, ssl
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol

from tests.gateway.authorities import Papers
from tests.wire import LOOPBACK, Listener, Peer, soon
from twisted_etcd.errors import InvalidSettings
from twisted_etcd.gateway.certificates import CertificateFiles
from twisted_etcd.gateway.tls import TLSSettings
from twisted_etcd.registry.health.http import MOST_READ, HTTPCheck, checked_headers
from twisted_etcd.registry.health.result import CheckResult
from twisted_etcd.registry.instance import Status

REACTOR = cast("Any", reactor)
PASSING, _, CRITICAL = Status
SECRET = "hunter2"


class Server:
    """
    Answers each request with the bytes that a function gives for it, and leaves the connection open.

    :ivar answer: gives them, for the head of the request; None where nothing is said.
    :ivar heads: of the requests that came.
    """

    def __init__(self) -> None:
        self.heads: list[str] = []
        self.answer: Callable[[str], bytes | None] = lambda _: answer()
        self.closes = False
        self.listener = Listener(lambda: Asked(self))

    def url(self, path: str = "/health") -> str:
        return f"http://{self.listener.authority}{path}"

    async def all_closed(self) -> None:
        for peer in self.listener.peers:
            await peer.until_lost()


class Asked(Peer):
    def __init__(self, server: Server) -> None:
        super().__init__()
        self._server = server

    def dataReceived(self, data: bytes) -> None:
        head = bytes(self.data + data)
        if b"\r\n\r\n" in head:
            self._server.heads.append(head.decode())
            said = self._server.answer(head.decode())
            if said is not None:
                self.socket.write(said)
                if self._server.closes:
                    self.socket.loseConnection()
        super().dataReceived(data)


def answer(status: str = "200 OK", body: bytes = b"ok", *headers: str, length: int | None = None) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    pytest_twisted.blockon(Deferred.fromCoroutine(server.listener.close()))


async def look(url: str, **options: Any) -> CheckResult:  # noqa: ANN401 - as HTTPCheck has them
    return await soon(HTTPCheck(REACTOR, url, **options).check())


@ensureDeferred
async def test_a_success_passes_and_nothing_is_kept_open(server: Server) -> None:
    assert await look(server.url()) == CheckResult(PASSING, "answered 200 OK")
    await server.all_closed()
    head = server.heads[0]
    assert head.startswith("GET /health HTTP/1.1\r\n")
    assert f"\r\nHost: {server.listener.authority}\r\n" in head
    assert "\r\nConnection: close\r\n" in head


@pytest.mark.parametrize(("status", "expected"), [("204 No Content", PASSING), ("503 Service Unavailable", CRITICAL)])
@ensureDeferred
async def test_a_success_is_expected(server: Server, status: str, expected: Status) -> None:
    server.answer = lambda _: answer(status, b"")
    assert (await look(server.url())).status is expected


@ensureDeferred
async def test_what_is_not_expected_is_named_with_what_is(server: Server) -> None:
    server.answer = lambda _: answer("503 Service Unavailable")
    result = await look(server.url(), expected=[range(200, 205), 404])
    assert result == CheckResult(CRITICAL, "answered 503 Service Unavailable; expected is 200-204, 404")
    server.answer = lambda _: answer("404 Not Found")
    assert (await look(server.url(), expected=[range(200, 205), 404])).status is PASSING


@ensureDeferred
async def test_method_and_headers_are_sent(server: Server) -> None:
    server.answer = lambda _: answer(body=b"", length=2)
    result = await look(
        server.url("/x?y=1"), method="HEAD", headers={"Host": "shop.example", "X-Key": "k", "User-Agent": "us"}
    )
    assert result.status is PASSING
    head = server.heads[0]
    assert head.startswith("HEAD /x?y=1 HTTP/1.1\r\n")
    assert [line for line in head.split("\r\n") if line.lower().startswith(("host", "x-key", "user-agent"))] == [
        "Host: shop.example",
        "X-Key: k",
        "User-Agent: us",
    ] or sorted(line for line in head.split("\r\n") if line.startswith(("Host", "X-Key", "User-Agent"))) == [
        "Host: shop.example",
        "User-Agent: us",
        "X-Key: k",
    ]


@ensureDeferred
async def test_a_post_is_sent_without_a_body(server: Server) -> None:
    assert (await look(server.url(), method="POST")).status is PASSING
    assert "\r\nContent-Length: 0\r\n" in server.heads[0]


@ensureDeferred
async def test_the_body_can_be_looked_through(server: Server) -> None:
    server.answer = lambda _: answer(body='{"state": "größer"}'.encode())
    assert (await look(server.url(), contains='"größer"')).status is PASSING
    result = await look(server.url(), contains="green")
    assert result == CheckResult(
        CRITICAL, "answered 200 OK, and what the body should contain is not in its first 21 bytes"
    )


@ensureDeferred
async def test_of_a_huge_body_the_beginning_is_read(server: Server) -> None:
    server.answer = lambda _: answer(body=b"x" * 2 * MOST_READ, length=10**12)
    assert (await look(server.url())).status is PASSING
    await server.all_closed()


@ensureDeferred
async def test_an_answer_that_is_cut_off_fails(server: Server) -> None:
    server.closes = True
    server.answer = lambda _: answer(body=b"12345", length=100)
    result = await look(server.url())
    assert result == CheckResult(CRITICAL, "the answer was cut off after 5 bytes of its body")


@ensureDeferred
async def test_an_answer_that_ends_with_its_connection_is_whole(server: Server) -> None:
    server.closes = True
    server.answer = lambda _: b"HTTP/1.1 200 OK\r\n\r\nready"
    assert (await look(server.url(), contains="ready")).status is PASSING


@ensureDeferred
async def test_a_connection_that_is_closed_without_an_answer_fails(server: Server) -> None:
    server.closes = True
    server.answer = lambda _: b""
    result = await look(server.url())
    assert result == CheckResult(CRITICAL, "no answer: the connection was closed without an answer")


@ensureDeferred
async def test_what_is_no_http_fails(server: Server) -> None:
    server.answer = lambda _: b"220 mail.example ESMTP\r\n"
    result = await look(server.url())
    assert result.status is CRITICAL
    assert result.why.startswith("no answer: ")


@ensureDeferred
async def test_where_nobody_listens_it_fails(server: Server) -> None:
    await server.listener.close()
    assert await look(server.url()) == CheckResult(CRITICAL, "no answer: refused")


@pytest.mark.parametrize("said", [None, b"HTTP/1.1 200 OK\r\n", answer(body=b"ab", length=100)])
@ensureDeferred
async def test_cancelled_it_closes_its_connection(server: Server, said: bytes | None) -> None:
    server.answer = lambda _: said
    looking = HTTPCheck(REACTOR, server.url()).check()
    peer = await server.listener.peer()
    await peer.until(lambda: bool(server.heads))
    turn: Deferred[None] = Deferred()
    REACTOR.callLater(0.05, turn.callback, None)
    await turn
    assert not looking.called
    looking.cancel()
    await soon(looking.addErrback(lambda _: None))
    await server.all_closed()


@ensureDeferred
async def test_a_redirect_is_an_answer_like_others_unless_it_is_to_be_followed(server: Server) -> None:
    def redirected(head: str) -> bytes:
        return answer() if "/there" in head else answer("302 Found", b"", f"Location: {server.url('/there')}")

    server.answer = redirected
    assert await look(server.url()) == CheckResult(CRITICAL, "answered 302 Found; expected is 200-299")
    assert (await look(server.url(), expected=[302])).status is PASSING
    assert await look(server.url(), redirects=1) == CheckResult(PASSING, "answered 200 OK")


@ensureDeferred
async def test_redirects_without_end_are_left(server: Server) -> None:
    server.answer = lambda _: answer("302 Found", b"", f"Location: {server.url()}")
    result = await look(server.url(), redirects=3)
    assert result.status is CRITICAL
    assert result.why.startswith("answered 302, and is not followed: ")
    assert len(server.heads) == 4
    server.answer = lambda _: answer("302 Found", b"")
    assert (await look(server.url(), redirects=3)).why.startswith("answered 302, and is not followed: ")


# --- TLS ------------------------------------------------------------------------------------------------------------


class Secure(Protocol):
    def dataReceived(self, data: bytes) -> None:
        if data.endswith(b"\r\n\r\n") and self.transport is not None:
            self.transport.write(answer())


@pytest.fixture
def papers(tmp_path: Path) -> Papers:
    return Papers(tmp_path)


@pytest.fixture
def secure(papers: Papers) -> Iterator[Callable[..., str]]:
    """The URL of a server that has a certificate for these names."""
    ports: list[Any] = []

    def listen(*names: str, **options: Any) -> str:  # noqa: ANN401 - as Papers has them
        cert_file, key_file = papers.pair("server", *names, **options)
        files = CertificateFiles(ca_file=None, cert_file=cert_file, key_file=key_file)
        context = ssl.CertificateOptions(**files.certificates(files.read()).options)
        ports.append(REACTOR.listenSSL(0, Factory.forProtocol(Secure), context, interface=LOOPBACK))
        return f"https://localhost:{ports[-1].getHost().port}/"

    yield listen
    for port in ports:
        pytest_twisted.blockon(port.stopListening())


@ensureDeferred
async def test_a_certificate_of_the_authority_is_believed(papers: Papers, secure: Callable[..., str]) -> None:
    assert (await look(secure("localhost"), tls=papers.settings())).status is PASSING
    by_address = secure(LOOPBACK).replace("localhost", LOOPBACK)
    assert (await look(by_address, tls=papers.settings())).status is PASSING


@ensureDeferred
async def test_a_certificate_of_nobody_is_not_believed_unless_told_so(secure: Callable[..., str]) -> None:
    url = secure("localhost")
    result = await look(url)
    assert result.status is CRITICAL
    assert result.why.startswith("no answer: TLS: the server's certificate is not trusted (certificate verify failed")
    assert (await look(url, tls=TLSSettings(insecure=True))).status is PASSING


@ensureDeferred
async def test_a_certificate_for_somebody_else_is_not_believed(papers: Papers, secure: Callable[..., str]) -> None:
    result = await look(secure("elsewhere.example"), tls=papers.settings())
    assert result.status is CRITICAL
    assert "the server's certificate is for another host" in result.why


@ensureDeferred
async def test_an_expired_certificate_is_not_believed(papers: Papers, secure: Callable[..., str]) -> None:
    result = await look(secure("localhost", expired=True), tls=papers.settings())
    assert result.status is CRITICAL
    assert "renew the certificate if it has expired" in result.why


class Refusing(Peer):
    """Speaks plain HTTP, and takes everything else for bad requests."""

    def dataReceived(self, data: bytes) -> None:
        self.socket.write(answer("400 Bad Request"))
        self.socket.loseConnection()


@ensureDeferred
async def test_plain_http_where_tls_is_expected_fails() -> None:
    listener = Listener(Refusing)
    result = await look(f"https://{listener.authority}/")
    assert result.status is CRITICAL
    assert "the server does not speak TLS" in result.why
    await listener.close()


# --- what cannot be asked -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("localhost:80/x", "the URL of a check is 'localhost:80/x'; write it as http://HOST:PORT/PATH, or with https"),
        ("ftp://h/", "the URL of a check is 'ftp://h/'"),
        ("http:///x", "the URL of a check is 'http:///x'"),
        ("http://h:0/", "the URL of a check is 'http://h:0/'"),
        ("http://h:99999/", "the URL of a check is none: Port out of range"),
        ("http://[::1/", "the URL of a check is none: Invalid IPv6 URL"),
        ("http://h/a b", "the URL 'http://h/a b' of a check has characters that no URL has"),
        ("http://h/é", "the URL 'http://h/é' of a check has characters"),
        (f"http://h/é?{SECRET}", "the URL 'http://h/é\\?…' of a check"),
        (f"http://me:{SECRET}@h/", "the URL of a check at h has a user in it; send it as the header Authorization"),
    ],
)
def test_what_is_no_url_is_refused(url: str, expected: str) -> None:
    with pytest.raises(InvalidSettings, match=f"^{expected}") as caught:
        HTTPCheck(REACTOR, url)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"method": "get"}, "expected a method such as GET or HEAD, got 'get'"),
        ({"expected": []}, "no status is expected; give at least one, such as 200"),
        ({"expected": [99]}, "expected statuses of HTTP, from 100 to 599, got 99"),
        ({"expected": [range(200, 601)]}, "expected statuses of HTTP, from 100 to 599, got 200-600"),
        ({"expected": [range(200, 200)]}, "expected statuses of HTTP, from 100 to 599, got 200-199"),
        ({"tls": TLSSettings(ca_file="/no/such.pem")}, "ca_file '/no/such.pem' cannot be read"),
    ],
)
def test_what_cannot_be_used_is_named(options: dict[str, Any], expected: str) -> None:
    with pytest.raises(InvalidSettings, match=f"^{expected}"):
        HTTPCheck(REACTOR, "http://h/", **options)


@pytest.mark.parametrize("headers", [{"X Y": SECRET}, {"X:": SECRET}, {"": SECRET}])
def test_the_name_of_a_header_is_checked(headers: dict[str, str]) -> None:
    with pytest.raises(InvalidSettings, match="cannot be the name of a header") as caught:
        checked_headers(headers)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("value", [f"{SECRET}\r\nX: y", f"é{SECRET}", 1])
def test_what_a_header_says_is_checked_and_not_shown(value: Any) -> None:  # noqa: ANN401 - wrong on purpose
    with pytest.raises(InvalidSettings, match="what the header Authorization says must be a text of printable") as it:
        checked_headers({"Authorization": value})
    assert SECRET not in str(it.value)


def test_its_repr_shows_neither_headers_nor_query() -> None:
    check = HTTPCheck(REACTOR, f"https://h/x?key={SECRET}", method="HEAD", headers={"Authorization": SECRET})
    assert repr(check) == "<HTTPCheck HEAD https://h/x?…>"
