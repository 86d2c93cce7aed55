"""Services below a prefix."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from tests.messaging.common import PENDING, peek, result_of
from tests.scripted import Asked, ScriptedClient, done, found, kv, removed_by
from twisted_etcd.errors import InvalidSettings, ServiceStopped, Unavailable
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
        lambda: made.register(name, AT),
        lambda: made.discover(name),
        lambda: made.follow(name, ignore),
    ]
    for attempt in attempts:
        with pytest.raises(InvalidSettings) as refused:
            attempt()
        assert str(refused.value) == words


def test_a_ttl_that_is_no_number_is_named() -> None:
    with pytest.raises(TypeError, match="ttl must be an int, not str"):
        registry().register("shop", AT, ttl="10")  # type: ignore[arg-type]


@pytest.mark.parametrize("ttl", [0, -1])
def test_a_ttl_of_nothing_is_refused(ttl: int) -> None:
    with pytest.raises(InvalidSettings, match=f"ttl of service 'shop' must be at least 1 second, not {ttl}"):
        registry().register("shop", AT, ttl=ttl)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"weight": -1}, InvalidSettings, "the weight of the instance at 10.0.0.7:80 must be a whole number from 0 on"),
        ({"weight": 1.5}, InvalidSettings, "must be a whole number from 0 on, not 1.5"),
        ({"id": 7}, InvalidSettings, "the id of the instance at 10.0.0.7:80 must be a text, not int"),
        ({"form": "xml"}, InvalidSettings, "the form of an instance must be one of json, go, address, not 'xml'"),
        ({"drain": -1}, InvalidSettings, "drain must be at least 0 seconds, and finite, not -1"),
        ({"drain": "5"}, TypeError, "drain must be"),
        ({"changed": 7}, TypeError, "callback must be a function that takes a Registration, not int"),
        ({"tags": (1,)}, InvalidSettings, "must be texts"),
    ],
)
def test_what_cannot_be_registered_is_named_and_nothing_is_begun(
    options: dict[str, Any], error: type[Exception], words: str
) -> None:
    etcd = ScriptedClient()
    made = registry(etcd)
    with pytest.raises(error, match=words):
        made.register("shop", AT, **options)
    assert etcd.asked == []
    assert made.registrations == ()


def test_a_name_that_is_no_text_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="the name of a service must be a str, not int"):
        registry().register(7, AT)  # type: ignore[arg-type]


def test_a_registration_is_started_and_knows_what_it_registers() -> None:
    etcd = ScriptedClient()
    made = registry(etcd)
    registration = made.register("shop", AT, tags=["eu"], metadata={"v": "7"}, weight=3, id="shop-1", form="json")  # type: ignore[arg-type]
    assert (registration.path, registration.ttl) == ("/services/shop/10.0.0.7:80", 10)
    assert registration.instance == Instance(
        address="10.0.0.7", port=80, tags=("eu",), metadata={"v": "7"}, weight=3, id="shop-1"
    )
    assert registration.state is RegistrationState.WANTED
    assert made.registrations == (registration,)
    assert repr(made) == "<Registry of 1 registrations below /services>"
    etcd.take("lease")


# --- the end --------------------------------------------------------------------------------------------------------


class Stopping:
    """A registry with two registrations that are there, one of them withheld; all by one lease."""

    def __init__(self, **options: Any) -> None:  # noqa: ANN401 - as Registry has them
        self.etcd, self.clock = ScriptedClient(), Clock()
        self.registry = Registry(self.etcd.client, self.clock, random=lambda: 1.0, **options)
        self.there = self.registry.register("shop", AT, drain=3.0)
        self.withheld = self.registry.register("shop", "10.0.0.8:80", withheld=True)
        self.lease = self.etcd.new_lease()
        self.etcd.take("lease").answer.callback(self.lease)
        done(self.etcd.take("txn"), 10)
        self.clock.advance(0)

    def revoked(self) -> Asked:
        asked = self.etcd.take("revoke")
        assert asked.args == (self.lease.id,)
        return asked

    def nothing_is_left(self) -> None:
        assert [asked for asked in self.etcd.asked if not asked.cancelled] == []
        assert self.clock.getDelayedCalls() == []
        assert self.registry.registrations == ()


@pytest.mark.parametrize(("drain", "seconds"), [(0.0, 3.0), (7.0, 7.0)])
def test_its_stop_revokes_the_lease_at_once_and_waits_for_the_longest_drain(drain: float, seconds: float) -> None:
    scene = Stopping(drain=drain)
    stopping, again = scene.registry.stopService(), scene.registry.stopService()
    scene.revoked().answer.callback(None)
    scene.etcd.take("stop of a watch").answer.callback(None)
    scene.clock.advance(seconds - 0.1)
    assert peek(stopping) is PENDING
    scene.clock.advance(0.1)
    assert result_of(stopping) is None
    assert result_of(again) is None
    assert result_of(scene.registry.stopService()) is None
    scene.nothing_is_left()


def test_cancelling_the_stop_ends_the_wait_for_what_drains() -> None:
    scene = Stopping()
    stopping = scene.registry.stopService()
    scene.revoked().answer.callback(None)
    scene.etcd.take("stop of a watch").answer.callback(None)
    assert peek(stopping) is PENDING
    stopping.cancel()
    assert result_of(stopping) is None
    scene.nothing_is_left()


def test_where_etcd_could_not_be_told_nothing_is_waited_for_and_all_keys_are_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    scene = Stopping()
    stopping = scene.registry.stopService()
    scene.revoked().fails(Unavailable("etcd is away"))
    scene.etcd.take("stop of a watch").answer.callback(None)
    assert result_of(stopping) is None
    assert f"left to its TTL: /services/shop/{AT}, /services/shop/10.0.0.8:80: etcd is away" in caplog.text
    scene.nothing_is_left()


def test_a_watch_that_cannot_be_ended_is_waited_for_no_longer_than_the_clients_stop_takes() -> None:
    scene = Stopping()
    stopping = scene.registry.stopService()
    scene.revoked().answer.callback(None)
    scene.clock.pump([1.0] * 5)
    assert result_of(stopping) is None
    scene.nothing_is_left()


def test_what_a_user_lets_drain_is_waited_for_too() -> None:
    scene = Stopping()
    draining = scene.there.take_back(drain=60)
    removal = scene.etcd.take("txn")
    assert removed_by(removal) == ([scene.there.path], {scene.lease.id})
    done(removal, 20)
    stopping = scene.registry.stopService()
    scene.etcd.take("stop of a watch").answer.callback(None)
    scene.revoked().answer.callback(None)
    scene.clock.advance(59)
    assert peek(stopping) is PENDING
    scene.clock.advance(1)
    assert result_of(draining) is None
    assert result_of(stopping) is None
    scene.nothing_is_left()


def test_it_can_be_used_no_more_after_its_stop() -> None:
    stopped = registry()
    assert result_of(stopped.stopService()) is None
    with pytest.raises(ServiceStopped, match=r"shop at 10\.0\.0\.7:80 cannot be registered: the registry was stopped"):
        stopped.register("shop", AT)
    with pytest.raises(ServiceStopped, match="was stopped and cannot be started again: make a new one"):
        stopped.startService()


def test_it_stops_at_the_end_of_its_block() -> None:
    async def block() -> Registry:
        async with registry() as inside:
            inside.startService()
        return inside

    left = result_of(Deferred.fromCoroutine(block()))
    assert not left.running
    with pytest.raises(ServiceStopped):
        left.register("shop", AT)


# --- finding --------------------------------------------------------------------------------------------------------


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
