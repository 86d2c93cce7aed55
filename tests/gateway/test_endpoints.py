"""What a client may write for an endpoint, and which endpoint comes next."""

from __future__ import annotations

from typing import Any

import pytest

from twisted_etcd.errors import InvalidSettings
from twisted_etcd.gateway.endpoints import Endpoint, parse_endpoint, parse_endpoints

A, B, C = (Endpoint("http", host, 2379) for host in "abc")


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("http://etcd.example:1234", "http://etcd.example:1234"),
        ("https://etcd.example", "https://etcd.example:2379"),
        ("etcd.example:1234", "http://etcd.example:1234"),
        ("etcd.example", "http://etcd.example:2379"),
        ("  http://127.0.0.1:2379/  ", "http://127.0.0.1:2379"),
        ("HTTP://Etcd.Example", "http://etcd.example:2379"),
        ("[::1]:1234", "http://[::1]:1234"),
        ("https://[fe80::1]", "https://[fe80::1]:2379"),
    ],
)
def test_an_endpoint_is_read_from_what_people_write(text: str, meant: str) -> None:
    assert str(parse_endpoint(text)) == meant


def test_the_scheme_can_default_to_https() -> None:
    endpoint = parse_endpoint("etcd.example", default_scheme="https")
    assert endpoint.secure
    assert str(endpoint) == "https://etcd.example:2379"


def test_an_ipv6_address_is_kept_without_its_brackets_and_sent_with_them() -> None:
    endpoint = parse_endpoint("http://[::1]:1234")
    assert endpoint.host == "::1"
    assert endpoint.authority == "[::1]:1234"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("ftp://etcd.example", "the scheme 'ftp'"),
        ("unix:///run/etcd.sock", "the scheme 'unix'"),
        ("http://", "names no host"),
        (":2379", "names no host"),
        ("http://etcd example", "names no host"),
        ("http://etcd.example:port", "is no URL"),
        ("http://etcd.example:70000", "is no URL"),
        ("http://[::1:2379", "put an IPv6 address in brackets"),
        ("::1:2379", "put an IPv6 address in brackets"),
        ("http://etcd.example:0", "the port 0"),
        ("http://etcd.example:2379/v3", "something behind HOST:PORT"),
        ("http://etcd.example?x=1", "something behind HOST:PORT"),
        ("http://etcd.example#x", "something behind HOST:PORT"),
    ],
)
def test_an_endpoint_that_cannot_be_used_is_named_with_what_is_wrong(text: str, what: str) -> None:
    with pytest.raises(InvalidSettings, match=what) as caught:
        parse_endpoint(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "http://root:secret@etcd.example:2379",
        "root:secret@etcd.example",
        "http://root:secret@etcd.example:port",
        "http://root:sec/secret@etcd.example",
        "ftp://root:secret@etcd.example",
        "http://:secret@",
    ],
)
def test_a_password_in_an_endpoint_is_refused_and_not_shown(text: str) -> None:
    with pytest.raises(InvalidSettings, match="give username and password apart from it") as caught:
        parse_endpoint(text)
    error = caught.value
    assert "sec" not in str(error)
    assert error.__cause__ is None
    assert error.__suppress_context__ or error.__context__ is None


@pytest.mark.parametrize(
    "given",
    ["http://a:2379,b", "a, b:2379 ,", ["a", "b"], ("a,b",), ["http://a:2379", "b", "a"]],
    ids=repr,
)
def test_endpoints_come_as_a_string_a_comma_list_or_a_list_and_each_counts_once(given: str | list[str]) -> None:
    assert parse_endpoints(given) == (A, B)


@pytest.mark.parametrize(("given", "kind"), [(None, "NoneType"), (5, "int"), (["http://a", 5], "int")], ids=repr)
def test_an_endpoint_that_is_no_text_is_refused_by_its_type(given: Any, kind: str) -> None:  # noqa: ANN401
    with pytest.raises(InvalidSettings, match=rf"^an endpoint must be a text such as .*, not {kind}$"):
        parse_endpoints(given)


@pytest.mark.parametrize("given", ["", " , ", [], ["", " "]], ids=repr)
def test_no_endpoint_at_all_is_refused(given: str | list[str]) -> None:
    with pytest.raises(InvalidSettings, match="no endpoint is given"):
        parse_endpoints(given)
