"""Where requests go, and in which bytes."""

from __future__ import annotations

import pytest
from twisted.web.http_headers import Headers

from twisted_etcd.gateway.body import WholeBody
from twisted_etcd.gateway.endpoints import Endpoint
from twisted_etcd.gateway.httprequest import SentHeaders, request_head, target

OPENING = b"POST / HTTP/1.1\r\nHost: h\r\n"


@pytest.mark.parametrize(
    ("uri", "endpoint", "opening"),
    [
        (b"http://127.0.0.1:1234/v3/x", Endpoint("http", "127.0.0.1", 1234), (b"/v3/x", b"127.0.0.1:1234")),
        (b"https://etcd.example:2379/", Endpoint("https", "etcd.example", 2379), (b"/", b"etcd.example:2379")),
        (b"http://[::1]:2379/v3?a=1", Endpoint("http", "::1", 2379), (b"/v3?a=1", b"[::1]:2379")),
        (b"https://etcd.example", Endpoint("https", "etcd.example", 443), (b"/", b"etcd.example")),
    ],
)
def test_a_uri_says_where_a_request_goes_and_how_it_begins(
    uri: bytes, endpoint: Endpoint, opening: tuple[bytes, bytes]
) -> None:
    assert target(b"POST", uri) == (endpoint, b"POST %b HTTP/1.1\r\nHost: %b\r\n" % opening)


@pytest.mark.parametrize("uri", [b"", b"http://h/a b", b"http://h/\r\nX: 1", b"http://h/\x00", b"http://h/\xe4"])
def test_a_uri_that_could_say_more_than_a_uri_is_refused(uri: bytes) -> None:
    with pytest.raises(ValueError, match="visible ASCII"):
        target(b"GET", uri)


def test_a_user_in_a_uri_is_refused_and_not_shown() -> None:
    with pytest.raises(ValueError, match="must name no user") as caught:
        target(b"GET", b"http://user:secret@h:1/")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("method", [b"HEAD", b"CONNECT", b"post", b"GET /\r\n"])
def test_a_method_whose_answers_are_not_as_long_as_they_say_is_refused(method: bytes) -> None:
    with pytest.raises(ValueError, match="the method must be one of DELETE, GET"):
        target(method, b"http://h/")


def test_a_head_has_the_headers_and_the_length_of_the_body() -> None:
    headers = Headers({"x-two": ["1", "2"], "Host": ["x"], "content-length": ["9"], "Accept-Encoding": ["gzip"]})
    assert request_head(OPENING, headers, WholeBody(b"{}")) == (
        OPENING + b"X-Two: 1\r\nX-Two: 2\r\nContent-Length: 2\r\n\r\n"
    )
    assert request_head(OPENING, None, None) == OPENING + b"\r\n"
    assert request_head(OPENING, Headers(), WholeBody(b"")) == OPENING + b"Content-Length: 0\r\n\r\n"


def test_headers_that_are_shared_go_out_the_same_and_stay_as_they_are() -> None:
    headers = SentHeaders({"Accept": "application/json", "Authorization": "a-token"})
    copy = headers.copy()
    copy.addRawHeader(b"Accept-Encoding", b"gzip")
    for each in (headers, copy):
        head = request_head(OPENING, each, None)
        assert head == OPENING + b"Accept: application/json\r\nAuthorization: a-token\r\n\r\n"
        assert len(list(each.getAllRawHeaders())) == 2
    assert repr(headers) == "SentHeaders(Accept, Authorization)"


def test_a_value_cannot_bring_a_header_of_its_own() -> None:
    assert SentHeaders({"Authorization": "a\r\nX-Other: 1"}).lines == b"Authorization: a X-Other: 1\r\n"
