"""Instances, and what stands for them in etcd."""

from __future__ import annotations

import json

import pytest

from twisted_etcd.errors import InvalidSettings
from twisted_etcd.registry.instance import Instance, decode_instance, encode_instance, make_instance, split_address

FULL = Instance(address="10.0.0.7", port=80, tags=("eu", "new"), metadata={"v": "7"}, weight=3, id="shop-1")


def test_the_repr_of_an_instance_names_its_metadata_and_shows_none_of_it() -> None:
    instance = Instance(address="h", port=1, metadata={"password": "open-sesame"})
    assert repr(instance) == "Instance(address='h', port=1, metadata={'password': <hidden>}, id='h:1')"
    assert "sesame" not in repr(instance.__rich_repr__())


def test_our_json_has_the_fields_that_the_layout_names() -> None:
    assert json.loads(encode_instance(FULL)) == {
        "address": "10.0.0.7",
        "port": 80,
        "tags": ["eu", "new"],
        "metadata": {"v": "7"},
        "weight": 3,
        "id": "shop-1",
    }


def test_our_json_comes_back_as_it_was() -> None:
    assert decode_instance(encode_instance(FULL)) == FULL


def test_fields_that_are_missing_have_their_defaults_and_unknown_ones_are_passed_over() -> None:
    assert decode_instance(b' {"address": "h", "port": 1, "zone": "a"}') == Instance(address="h", port=1)


def test_what_has_no_id_is_told_from_the_others_by_its_address() -> None:
    assert Instance(address="h", port=1).id == "h:1"
    assert Instance(address="::1", port=1).id == "[::1]:1"
    assert decode_instance(b'{"address": "h", "port": 1}').id == "h:1"


@pytest.mark.parametrize(
    ("value", "address", "port"),
    [
        (b"10.0.0.7:80", "10.0.0.7", 80),
        (b" shop.example:65535\n", "shop.example", 65535),
        (b"[::1]:443", "::1", 443),
    ],
)
def test_a_bare_address_is_an_instance(value: bytes, address: str, port: int) -> None:
    instance = decode_instance(value)
    assert instance == Instance(address=address, port=port, id=value.decode().strip())
    assert instance.endpoint == value.decode().strip()


@pytest.mark.parametrize(
    ("metadata", "texts"),
    [
        ("null", {}),
        ('{"zone": "a"}', {"zone": "a"}),
        ('{"weight": 3, "canary": true, "more": {"a": [1]}}', {"weight": "3", "canary": "true", "more": '{"a":[1]}'}),
        ('"words"', {}),
    ],
)
def test_what_gos_naming_writes_is_an_instance(metadata: str, texts: dict[str, str]) -> None:
    value = f'{{"Op":0,"Addr":"10.0.0.1:80","Metadata":{metadata}}}'
    expected = Instance(address="10.0.0.1", port=80, metadata=texts, id="10.0.0.1:80")
    assert decode_instance(value.encode()) == expected


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"a-secret",
        b"a-secret:0",
        b"a-secret:70000",
        b"\xff\xfea-secret:80",
        b"{a-secret",
        b'{"address": "a-secret"}',
        b'{"address": "a-secret", "port": "80"}',
        b'{"address": "a-secret", "port": 70000}',
        b'{"address": "", "port": 80}',
        b'{"address": "h", "port": 80, "metadata": {"a": 1}}',
        b'{"address": "a-\xff\xfesecret", "port": 80}',
        b'{"Op":0,"Addr":"a-secret","Metadata":null}',
        b'{"Op":0,"Addr":7}',
        b"[1]",
        b"null",
    ],
)
def test_anything_else_is_refused_without_being_shown(value: bytes) -> None:
    with pytest.raises(InvalidSettings, match=r"^the value is no instance: ") as refused:
        decode_instance(value)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("h:1", ("h", 1)),
        ("10.0.0.7:65535", ("10.0.0.7", 65535)),
        ("[fd00::1]:443", ("fd00::1", 443)),
    ],
)
def test_an_address_is_a_host_and_a_port(text: str, parts: tuple[str, int]) -> None:
    assert split_address(text) == parts


@pytest.mark.parametrize(
    "text",
    ["", "h", ":80", "h:", "h:0", "h:65536", "h:-1", "h:٣", "h:8 0", "::1:80", "[h]:80", "[::1:80", "a b:80", "a/b:80"],
)
def test_what_is_no_address_is_named(text: str) -> None:
    with pytest.raises(InvalidSettings) as refused:
        split_address(text)
    assert str(refused.value).startswith(f"service address {text!r} ")


def test_an_instance_is_known_by_its_address_and_ipv6_stands_in_brackets() -> None:
    instance = make_instance("[::1]:80", ["a"], {"b": "c"})
    assert instance == Instance(address="::1", port=80, tags=("a",), metadata={"b": "c"}, id="[::1]:80")
    assert instance.endpoint == "[::1]:80"
