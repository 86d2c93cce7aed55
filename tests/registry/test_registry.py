"""Services below a prefix."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.task import Clock

from tests.messaging.common import result_of
from tests.scripted import ScriptedClient, found, kv
from twisted_etcd.errors import InvalidSettings
from twisted_etcd.registry.instance import Instance
from twisted_etcd.registry.registration import RegistrationState
from twisted_etcd.registry.registry import SERVICE_PREFIX, Registry

AT = "10.0.0.7:80"


def registry(etcd: ScriptedClient | None = None, prefix: str = SERVICE_PREFIX) -> Registry:
    return Registry((etcd or ScriptedClient()).client, Clock(), prefix, random=lambda: 1.0)


def ignore(_: object) -> None:
    """Nobody is to be told."""


@pytest.mark.parametrize("prefix", ["/registry", "/registry/"])
def test_a_key_is_made_of_prefix_name_and_address(prefix: str) -> None:
    assert SERVICE_PREFIX == "/services"
    assert registry().path("shop", AT) == "/services/shop/10.0.0.7:80"
    assert registry(None, prefix).path("shop", "[::1]:80") == "/registry/shop/[::1]:80"


@pytest.mark.parametrize("name", ["", "a/b", "a b", "a\n", "/"])
def test_a_name_that_cannot_be_a_part_of_a_key_is_refused_everywhere(name: str) -> None:
    made = registry()
    words = f"service name {name!r} cannot be used; give one without '/' and white space"
    attempts: list[Any] = [
        lambda: made.path(name, AT),
        lambda: made.registration(name, AT, ttl=10, changed=ignore),
        lambda: made.discover(name),
        lambda: made.follow(name, ignore),
    ]
    for attempt in attempts:
        with pytest.raises(InvalidSettings) as refused:
            attempt()
        assert str(refused.value) == words


def test_a_ttl_that_is_no_number_is_named() -> None:
    with pytest.raises(TypeError, match="ttl must be an int, not str"):
        registry().registration("shop", AT, ttl="10", changed=ignore)  # type: ignore[arg-type]


@pytest.mark.parametrize("ttl", [0, -1])
def test_a_ttl_of_nothing_is_refused(ttl: int) -> None:
    with pytest.raises(InvalidSettings, match=f"ttl of service 'shop' must be at least 1 second, not {ttl}"):
        registry().registration("shop", AT, ttl=ttl, changed=ignore)


def test_a_registration_is_not_started_by_being_made() -> None:
    etcd = ScriptedClient()
    made = registry(etcd).registration("shop", AT, ttl=10, tags=("eu",), metadata={"v": "7"}, changed=ignore)
    assert made.path == "/services/shop/10.0.0.7:80"
    assert made.instance == Instance(address="10.0.0.7", port=80, tags=("eu",), metadata={"v": "7"}, id=AT)
    assert made.state is RegistrationState.WANTED
    assert etcd.asked == []


def test_discovery_reads_what_is_below_the_services_name_and_nothing_beside_it() -> None:
    etcd = ScriptedClient()
    discovering = registry(etcd).discover("shop")
    asked = etcd.take("get")
    assert (asked.args, asked.options) == (("/services/shop/",), {"prefix": True, "timeout": None})
    asked.answer.callback(found(7, kv("/services/shop/a", AT, 3), kv("/services/shop/b", "nonsense", 4)))
    assert result_of(discovering) == (Instance(address="10.0.0.7", port=80, id=AT),)


def test_a_service_is_followed_by_the_same_prefix() -> None:
    etcd = ScriptedClient()
    registry(etcd).follow("shop", ignore).start()
    assert etcd.take("get").args == ("/services/shop/",)
