"""EtcdApi: the catalogue as methods."""

from __future__ import annotations

from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred

from tests.guards import LoggedErrors
from tests.messaging.common import Ask
from tests.services.world import MakeWorld, World, a_turn, fails
from tests.wire import Event, soon
from twisted_etcd.config.changes import ChangeType
from twisted_etcd.embedded.process import EmbeddedEtcd
from twisted_etcd.errors import (
    Conflict,
    EmptyKey,
    InvalidSettings,
    ServiceStopped,
    ServiceUnavailable,
    UnhandledMessage,
)
from twisted_etcd.messaging.lifecycle import State
from twisted_etcd.messaging.service import MessageService
from twisted_etcd.registry.instance import Instance
from twisted_etcd.services.api import ConfigWatch, EtcdApi
from twisted_etcd.services.messages import EtcdConfigChangedMsg
from twisted_etcd.testing.proxy import FaultProxy

AT = "10.0.0.7:80"


class Changes:
    """A callback that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[EtcdConfigChangedMsg] = []
        self._event = Event()

    def __call__(self, message: EtcdConfigChangedMsg) -> None:
        self.told.append(message)
        self._event.happened()

    async def values(self, count: int) -> list[bytes | None]:
        await self._event.until(lambda: len(self.told) >= count)
        return [message.new_value for message in self.told]


@pytest.fixture(params=["service", "node"])
def api(request: pytest.FixtureRequest, world: World) -> EtcdApi:
    return EtcdApi(world.caller if request.param == "service" else world.node)


@ensureDeferred
async def test_what_cannot_be_called_or_call_is_named(world: World) -> None:
    loose: Any = EtcdApi
    with pytest.raises(TypeError, match="on behalf of a Node or a MessageService, not of EtcdClient"):
        loose(world.client)
    with pytest.raises(TypeError, match="on behalf of a Node or a MessageService, not of FromThread"):
        loose(world.node.from_thread)
    with pytest.raises(TypeError, match="callback must be a function that takes an EtcdConfigChangedMsg, not NoneType"):
        loose(world.node).watch_config("app/db", None)


# --- every method ---------------------------------------------------------------------------------------------------


@ensureDeferred
async def test_configuration_by_revision_and_its_history(api: EtcdApi) -> None:
    first = await soon(api.set_config("app/db", "one", if_revision=0))
    await soon(api.set_config("app/db", "two", if_revision=first))
    conflict = await fails(Conflict, api.set_config("app/db", "three", if_revision=first))
    assert (conflict.key, conflict.wanted, conflict.revision > first) == ("app/db", first, True)
    history = await soon(api.config_history("app/db"))
    assert [entry.value for entry in history.entries] == [b"two", b"one"]


@ensureDeferred
async def test_all_configuration_below_a_path_is_followed(api: EtcdApi, world: World) -> None:
    await soon(api.set_config("app/db", "1"))
    changes = Changes()
    watch = await soon(api.watch_config("app", changes, prefix=True, quiet_min=0.01))
    assert (watch.value, watch.values) == (None, {"app/db": b"1"})
    await soon(api.set_config("app/cache", "2"))
    await soon(api.delete(world.config_key("app/db")))
    await changes.values(2)
    assert watch.values == {"app/cache": b"2"}
    await soon(watch.stop())


@ensureDeferred
async def test_key_values_go_in_as_text_and_come_out_as_bytes(api: EtcdApi, world: World, prefix: str) -> None:
    assert await soon(api.get(prefix + "k")) is None
    revision = await soon(api.set(prefix + "k", "v"))
    assert await soon(api.get(prefix + "k")) == b"v"
    assert (await world.client.get(prefix + "k")).kvs[0].mod_revision == revision
    await soon(api.set(prefix + "l", b""))
    assert await soon(api.get_all(prefix)) == {(prefix + "k").encode(): b"v", (prefix + "l").encode(): b""}
    assert await soon(api.delete(prefix + "k")) is True
    assert await soon(api.delete(prefix + "k")) is False


@ensureDeferred
async def test_a_lease_can_be_given(api: EtcdApi, world: World, prefix: str) -> None:
    lease = await world.client.lease_grant(60)
    await soon(api.set(prefix + "k", "v", lease.ID))
    await world.client.lease_revoke(lease.ID)
    assert await soon(api.get(prefix + "k")) is None


@ensureDeferred
async def test_configuration_is_loaded_and_set(api: EtcdApi, world: World) -> None:
    assert await soon(api.load_config("app/db")) is None
    revision = await soon(api.set_config("app/db", "one"))
    assert await soon(api.load_config("app/db")) == b"one"
    assert (await world.client.get(world.config_key("app/db"))).kvs[0].mod_revision == revision


@ensureDeferred
async def test_services_are_registered_discovered_and_unregistered(api: EtcdApi) -> None:
    lease_id = await soon(api.register_service("shop", AT, 60, ("eu",), {"v": "7"}))
    assert lease_id > 0
    instance = Instance(address="10.0.0.7", port=80, tags=("eu",), metadata={"v": "7"}, id=AT)
    assert await soon(api.discover_service("shop")) == (instance,)
    assert await soon(api.unregister_service("shop", AT)) is True
    assert await soon(api.unregister_service("shop", AT)) is False
    assert await soon(api.discover_service("shop")) == ()


@ensureDeferred
async def test_what_fails_fails_as_the_message_does(api: EtcdApi, world: World) -> None:
    await fails(EmptyKey, api.get(""))
    await fails(InvalidSettings, api.register_service("shop", "nowhere"))
    await fails(InvalidSettings, api.watch_config("", Changes()))
    assert world.etcd.watch_count == 0
    assert len(world.node.services) == 3


@ensureDeferred
async def test_another_etcd_service_can_be_the_target(
    make_world: MakeWorld, etcd_server: EmbeddedEtcd, prefix: str
) -> None:
    world = await make_world(etcd_server.endpoint, name="second")
    api = EtcdApi(world.caller, "second")
    await soon(api.set(prefix + "k", "v"))
    assert await soon(api.get(prefix + "k")) == b"v"


# --- configuration watches ------------------------------------------------------------------------------------------


@ensureDeferred
async def test_a_watch_has_the_value_and_calls_back_with_each_change(api: EtcdApi, world: World) -> None:
    changes = Changes()
    await soon(api.set_config("app", "1"))
    watch = await soon(api.watch_config("app", changes))
    assert watch.value == b"1"
    await soon(api.set_config("app", "2"))
    await world.client.delete(world.config_key("app"))
    assert await changes.values(2) == [b"2", None]
    assert [(change.change_type, change.old_value) for change in changes.told] == [
        (ChangeType.MODIFIED, b"1"),
        (ChangeType.DELETED, b"2"),
    ]
    assert watch.value is None
    await soon(watch.stop())
    assert await soon(watch.ended) is None
    await soon(watch.stop())
    assert world.etcd.watch_count == 0
    assert len(world.node.services) == 3
    await soon(api.set_config("app", "3"))
    assert len(changes.told) == 2


@ensureDeferred
async def test_a_callback_that_waits_makes_the_next_change_wait(world: World) -> None:
    api = EtcdApi(world.caller)
    begun = Changes()
    waiting: list[Deferred[None]] = []

    async def slow(message: EtcdConfigChangedMsg) -> None:
        deferred: Deferred[None] = Deferred()
        waiting.append(deferred)
        begun(message)
        await deferred

    watch = await soon(api.watch_config("app", slow))
    for value in (b"1", b"2"):
        change = EtcdConfigChangedMsg(
            key="app", new_value=value, old_value=None, change_type=ChangeType.MODIFIED, revision=1
        )
        world.node.send(watch.handle, change)
    # It is delivered after those two.
    await fails(UnhandledMessage, world.node.call(watch.handle, Ask()))
    assert [message.new_value for message in begun.told] == [b"1"]
    # The value is what it is, whoever waits.
    assert watch.value == b"2"
    waiting[0].callback(None)
    assert await begun.values(2) == [b"1", b"2"]
    # The second one is still waiting, and is cancelled.
    await soon(watch.stop())


@pytest.mark.parametrize("kind", ["plain", "Deferred", "async def"])
@ensureDeferred
async def test_a_callback_that_fails_is_logged_and_called_again(
    world: World, logged_errors: LoggedErrors, kind: str
) -> None:
    api = EtcdApi(world.caller)
    changes = Changes()

    def plain(message: EtcdConfigChangedMsg) -> None:
        changes(message)
        raise ZeroDivisionError

    async def coroutine(message: EtcdConfigChangedMsg) -> None:
        await a_turn()
        plain(message)

    def deferring(message: EtcdConfigChangedMsg) -> Deferred[None]:
        return a_turn().addCallback(lambda _: plain(message))

    callback: Any = {"plain": plain, "Deferred": deferring, "async def": coroutine}[kind]
    await soon(api.watch_config("app", callback))
    await soon(api.set_config("app", "1"))
    await soon(api.set_config("app", "2"))
    assert await changes.values(2) == [b"1", b"2"]
    await a_turn()
    assert len(logged_errors.flush(ZeroDivisionError)) == 2


@ensureDeferred
async def test_a_callback_may_end_its_own_watch(world: World) -> None:
    api = EtcdApi(world.caller)
    watches: list[ConfigWatch] = []

    async def once(_message: EtcdConfigChangedMsg) -> None:
        await watches[0].stop()

    watches.append(await soon(api.watch_config("app", once)))
    await soon(api.set_config("app", "1"))
    await soon(watches[0].ended)
    assert world.etcd.watch_count == 0


@ensureDeferred
async def test_several_watches_of_one_key_stand_side_by_side(world: World) -> None:
    api = EtcdApi(world.caller)
    first, second = Changes(), Changes()
    watch = await soon(api.watch_config("app", first))
    await soon(api.watch_config("app", second))
    await soon(api.set_config("app", "1"))
    assert await first.values(1) == await second.values(1) == [b"1"]
    await soon(watch.stop())
    await soon(api.set_config("app", "2"))
    assert await second.values(2) == [b"1", b"2"]
    assert len(first.told) == 1


@ensureDeferred
async def test_a_watch_ends_with_the_service_that_asked_for_it(world: World) -> None:
    watch = await soon(EtcdApi(world.caller).watch_config("app", Changes()))
    outsiders = await soon(EtcdApi(world.node).watch_config("app", Changes()))
    await soon(world.caller.stopService())
    await soon(watch.ended)
    assert watch.parent is None
    assert world.etcd.watch_count == 1
    await soon(outsiders.stop())


@ensureDeferred
async def test_it_ends_quietly_when_its_callback_takes_its_time_to_end(world: World) -> None:
    tidying: Deferred[None] = Deferred()
    changes = Changes()

    async def callback(message: EtcdConfigChangedMsg) -> None:
        changes(message)
        try:
            await Deferred()
        finally:
            await tidying

    api = EtcdApi(world.caller)
    watch = await soon(api.watch_config("app", callback))
    await soon(api.set_config("app", "1"))
    await changes.values(1)
    await soon(world.caller.stopService())
    assert watch.state is State.STOPPING
    tidying.callback(None)
    await soon(watch.ended)


@ensureDeferred
async def test_a_watch_that_ends_by_itself_says_so_and_is_gone(world: World, logged_errors: LoggedErrors) -> None:
    watch = await soon(EtcdApi(world.caller).watch_config("app", Changes()))
    ended = watch.ended
    await soon(world.client.stopService())
    await fails(ServiceStopped, ended)
    [line] = logged_errors.flush_messages("has ended")
    assert line.startswith("watch-1-of-config-app has ended: ")
    await a_turn()
    assert watch.parent is None


@ensureDeferred
async def test_who_is_not_running_can_watch_nothing(world: World) -> None:
    api = EtcdApi(world.caller)
    await soon(world.caller.stopService())
    await fails(ServiceUnavailable, api.watch_config("app", Changes()))
    await fails(ServiceUnavailable, api.get("k"))
    assert len(world.node.services) == 3


@ensureDeferred
async def test_a_watch_can_be_waited_for_while_the_service_starts(world: World) -> None:
    class Configured(MessageService):
        value: bytes | None = b"not asked for"

        async def on_start(self) -> None:
            watch = await EtcdApi(self).watch_config("app", Changes())
            self.value = watch.value

    service = world.add(Configured())
    await soon(service.when_started())
    assert service.value is None
    assert world.etcd.watch_count == 1


@ensureDeferred
async def test_a_patient_watch_waits_for_etcd_and_ends_with_its_caller(
    make_world: MakeWorld, proxy: FaultProxy
) -> None:
    await proxy.refuse()
    world = await make_world(proxy.endpoint, client={"request_timeout": 0.1})
    api = EtcdApi(world.caller)
    abandoned = api.watch_config("other", Changes(), patient=True)
    patient = EtcdApi(world.node).watch_config("app", Changes(), patient=True)
    await soon(world.caller.stopService())
    await fails(ServiceStopped, abandoned)
    await proxy.heal()
    watch = await soon(patient)
    assert watch.value is None
    assert world.etcd.watch_count == 1
