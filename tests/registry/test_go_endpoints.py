"""What Go's ``naming/endpoints`` writes and reads, by bytes that it wrote and by what it read of ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from twisted_etcd.errors import InvalidSettings
from twisted_etcd.registry.instance import Instance, InstanceFormat, Status, decode_instance, encode_instance

RECORDED = json.loads(Path(__file__).with_name("go_endpoints.json").read_text("utf-8"))
BY_GO = {each["name"]: each["value"].encode() for each in RECORDED["written"]}
READ = {each["name"]: each for each in RECORDED["read"]}

AT = Instance(address="10.0.0.1", port=80)
TEXT = "<b> & 'c' \"d\" \\ \n\t é \u2028 \U0001f600 \x7f"
MIXED = {"canary": "true", "in": '{"a":"2","b":"1"}', "list": "[1,2]", "none": "null", "weight": "3"}
GOES = {
    "nil": AT,
    "text": AT,
    "map": Instance(address="10.0.0.1", port=80, metadata={"zone": "west", "a": TEXT}),
    "empty map": AT,
    "mixed map": Instance(address="10.0.0.1", port=80, metadata=MIXED),
    "number": AT,
    "list": AT,
    "name": Instance(address="shop.example", port=443),
    "ipv6": Instance(address="fd00::1", port=443),
    "struct": Instance(address="10.0.0.1", port=80, metadata={"zone": "west", "Port": "1"}),
}
OURS = {
    "plain": (Instance(address="10.0.0.7", port=80), InstanceFormat.GO),
    "metadata": (Instance(address="10.0.0.7", port=80, metadata={"zone": "west", "text": TEXT}), InstanceFormat.GO),
    "everything": (
        Instance(
            address="fd00::1",
            port=443,
            tags=("eu", "new"),
            metadata={"zone": "west"},
            weight=3,
            id="shop-1",
            status=Status.WARNING,
        ),
        InstanceFormat.GO,
    ),
    "json": (Instance(address="10.0.0.7", port=80, metadata={"zone": "west"}), InstanceFormat.JSON),
    "address": (Instance(address="10.0.0.7", port=80), InstanceFormat.ADDRESS),
}


@pytest.mark.parametrize("name", GOES)
def test_what_go_wrote_is_read(name: str) -> None:
    assert decode_instance(BY_GO[name]) == GOES[name]


def test_what_go_wrote_is_all_here() -> None:
    assert set(BY_GO) == {*GOES, "no port"}


def test_an_address_without_a_port_is_no_instance_though_go_writes_it() -> None:
    with pytest.raises(InvalidSettings, match="its address is not HOST:PORT"):
        decode_instance(BY_GO["no port"])


@pytest.mark.parametrize("name", ["nil", "map", "name", "ipv6"])
def test_we_write_byte_for_byte_what_go_writes(name: str) -> None:
    assert encode_instance(GOES[name], InstanceFormat.GO) == BY_GO[name]


@pytest.mark.parametrize("name", OURS)
def test_what_go_read_is_what_we_write(name: str) -> None:
    instance, form = OURS[name]
    assert encode_instance(instance, form) == READ[name]["value"].encode()
    assert decode_instance(encode_instance(instance, form)) == instance


def test_go_read_address_and_metadata_of_ours_and_what_it_has_no_place_for_apart() -> None:
    read: dict[str, Any] = {name: each["endpoint"] for name, each in READ.items()}
    assert read["plain"] == {"Addr": "10.0.0.7:80", "Metadata": None}
    assert read["metadata"] == {"Addr": "10.0.0.7:80", "Metadata": {"zone": "west", "text": TEXT}}
    assert read["everything"] == {
        "Addr": "[fd00::1]:443",
        "Metadata": {
            "zone": "west",
            "twisted-etcd": {"tags": ["eu", "new"], "weight": 3, "id": "shop-1", "status": "warning"},
        },
    }


def test_go_finds_no_address_in_our_own_form_and_nothing_in_a_bare_address() -> None:
    assert READ["json"]["endpoint"]["Addr"] == ""
    assert READ["address"]["endpoint"] is None


def test_metadata_of_the_name_that_is_taken_is_refused_and_not_shown() -> None:
    taken = Instance(address="10.0.0.7", port=80, metadata={"twisted-etcd": "a-secret"})
    with pytest.raises(InvalidSettings, match="metadata named 'twisted-etcd'; that name is taken") as refused:
        encode_instance(taken, InstanceFormat.GO)
    assert "secret" not in str(refused.value)


def test_what_stands_under_that_name_and_is_not_ours_is_metadata() -> None:
    value = b'{"Op":0,"Addr":"10.0.0.1:80","Metadata":{"twisted-etcd":{"weight":"heavy"}}}'
    assert decode_instance(value).metadata == {"twisted-etcd": '{"weight":"heavy"}'}


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ({"tags": ("eu",)}, "tags"),
        ({"metadata": {"a": "b"}}, "metadata"),
        ({"weight": 2, "id": "shop-1"}, "weight and id"),
        ({"status": Status.PASSING}, "status"),
    ],
)
def test_what_a_bare_address_has_no_place_for_is_refused_and_named(more: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidSettings, match=f"at 10.0.0.7:80 has {named}, for which a bare address has no place"):
        encode_instance(Instance(address="10.0.0.7", port=80, **more), InstanceFormat.ADDRESS)
