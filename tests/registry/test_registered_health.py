"""Registrations whose health is looked after, against a real etcd."""

from __future__ import annotations

from typing import Any, cast

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet import reactor

from tests.registry.conftest import MakeTown, Town
from tests.registry.health.looked_at import SteadyCheck
from tests.said import Said
from tests.wire import LOOPBACK, Event, Listener, Peer, soon
from twisted_etcd.errors import InvalidSettings, ServiceStopped
from twisted_etcd.registry.health.health import Health
from twisted_etcd.registry.health.monitor import HealthMonitor
from twisted_etcd.registry.health.tcp import TCPCheck
from twisted_etcd.registry.instance import InstanceFormat, Status, decode_instance
from twisted_etcd.registry.machine import RegistrationState
from twisted_etcd.schema.kv import EventType
from twisted_etcd.testing.proxy import FaultProxy

ALIVE, WITHHELD, ENDED = RegistrationState.ALIVE, RegistrationState.WITHHELD, RegistrationState.ENDED
AT = "10.0.0.7:80"


def health(check: Any, **options: Any) -> Health:  # noqa: ANN401 - as Health has them
    return Health([check], **{"interval": 0.05, "timeout": 2.0, "rise": 1, "fall": 1, **options})


@ensureDeferred
async def test_the_key_is_there_while_the_service_answers(town: Town) -> None:
    listener = Listener(Peer)
    shop = town.register(listener.authority, health=health(TCPCheck(cast("Any", reactor), LOOPBACK, listener.port)))
    assert shop.state is WITHHELD
    await town.until(shop, ALIVE)
    assert await town.at(shop) is not None
    await listener.close()
    await town.until(shop, WITHHELD)
    # That is what is wanted; it is so when this fires.
    assert await soon(shop.withhold())
    assert await town.at(shop) is None
    assert shop.health is not None
    assert "critical" in shop.describe()


@ensureDeferred
async def test_the_status_is_shown_in_the_value(town: Town) -> None:
    check = SteadyCheck(Status.WARNING)
    told = Event()
    statuses: list[Status | None] = []

    def changed(_: HealthMonitor, _old: Status, new: Status | None, _why: str) -> None:
        statuses.append(new)
        told.happened()

    shop = town.register(AT, health=health(check, show_status=True, initial=Status.PASSING), status_changed=changed)
    await told.until(lambda: statuses == [Status.WARNING])
    await soon(shop.registered)
    await soon(shop.update(weight=3))
    found = await town.at(shop)
    assert found is not None
    instance = decode_instance(found.value)
    assert (instance.status, instance.weight) == (Status.WARNING, 3)


@ensureDeferred
async def test_without_hope_it_is_taken_back_for_good(town: Town, said: Said) -> None:
    shop = town.register(AT, health=health(SteadyCheck(Status.CRITICAL), deregister_after=0.2))
    await town.until(shop, ENDED)
    await soon(shop.take_back())
    assert town.registry.registrations == ()
    assert said.count("shop at 10.0.0.7:80 is deregistered: ") == 1


@ensureDeferred
async def test_what_became_unhealthy_while_etcd_was_away_does_not_come_back_with_it(
    proxy: FaultProxy, make_town: MakeTown, town: Town
) -> None:
    away = make_town(proxy.endpoint, client={"request_timeout": 1.0})
    begun = (await town.client.get("any")).header.revision
    check = SteadyCheck()
    looked = Event()
    shop = away.register(AT, ttl=1, health=health(check), status_changed=lambda *_: looked.happened())
    await away.until(shop, ALIVE)
    await proxy.refuse()
    await proxy.reset()
    await away.until(shop, RegistrationState.LOST)
    check.status = Status.CRITICAL
    await looked.until(lambda: shop.health is not None and shop.health.status is Status.CRITICAL)
    changes = town.client.watch(shop.service, prefix=True, start_revision=begun + 1)
    other = away.register("10.0.0.8:80", ttl=1)
    await proxy.heal()
    await soon(other.registered)
    puts: list[str] = []
    while other.path not in puts:
        events = (await soon(changes.next())).events
        puts += [event.kv.key.decode() for event in events if event.type is EventType.PUT]
    assert puts == [shop.path, other.path]
    await soon(changes.stop())
    check.status = Status.PASSING
    await away.until(shop, ALIVE)


@ensureDeferred
async def test_its_end_ends_the_checks(town: Town) -> None:
    check = SteadyCheck()
    shop = town.register(AT, health=health(check))
    await soon(shop.registered)
    assert shop.health is not None
    ended = shop.health.ended
    await soon(shop.take_back())
    await soon(ended)
    looks = check.looks
    again = town.register(AT, health=health(SteadyCheck(Status.CRITICAL)))
    monitor = again.health
    await soon(town.registry.stopService())
    assert monitor is not None
    await soon(monitor.ended)
    with pytest.raises(ServiceStopped):
        await soon(again.registered)
    assert check.looks == looks


def test_what_contradicts_itself_is_refused(town: Town) -> None:
    with pytest.raises(InvalidSettings, match=r"shop at 10\.0\.0\.7:80 is to be withheld, which its health decides"):
        town.register(AT, withheld=True, health=health(SteadyCheck()))
    with pytest.raises(InvalidSettings, match="a bare address has no place for a status"):
        town.register(AT, form=InstanceFormat.ADDRESS, health=health(SteadyCheck(), show_status=True))
    with pytest.raises(TypeError, match="health must be a Health, or several of them, not SteadyCheck"):
        town.register(AT, health=[SteadyCheck()])
    assert town.registry.registrations == ()
