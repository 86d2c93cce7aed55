"""Registrations against real etcds, and what can happen to them."""

from __future__ import annotations

import re
import time
from typing import Any, cast
from urllib.parse import urlsplit

import pytest
import treq
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater

from tests.client import users
from tests.etcds import FreshEtcd, http_client
from tests.registry.conftest import MakeTown, Town
from tests.wire import soon
from twisted_etcd.client.client import EtcdClient
from twisted_etcd.embedded.process import EmbeddedEtcd
from twisted_etcd.errors import RequestTooLarge, ServiceStopped, Unavailable
from twisted_etcd.registry.instance import Instance
from twisted_etcd.registry.machine import RegistrationState
from twisted_etcd.testing.proxy import FaultProxy

AT = "10.0.0.7:80"
WANTED, ALIVE, LOST, CONTESTED, WITHHELD, ENDED = RegistrationState
#: For outages: a request is not waited for long.
QUICK = {"request_timeout": 0.5, "stop_timeout": 0.5}


async def requests_of(server: EmbeddedEtcd) -> dict[str, int]:
    """How many calls an etcd has answered, by their names."""
    response = await http_client().get(f"{server.endpoint}/metrics")
    found = re.findall(
        r'^grpc_server_handled_total\{.*grpc_method="(\w+)".*\} (\d+)$', await treq.text_content(response), re.MULTILINE
    )
    counts: dict[str, int] = {}
    for name, count in found:
        counts[name] = counts.get(name, 0) + int(count)
    return counts


def proxy_before(server: EmbeddedEtcd) -> FaultProxy:
    at = urlsplit(server.endpoint)
    proxy = FaultProxy(cast("Any", reactor), str(at.hostname), at.port or 0)
    proxy.startService()
    return proxy


# --- what others do to it -------------------------------------------------------------------------------------------


@ensureDeferred
async def test_a_lease_that_somebody_revokes_is_replaced_and_all_keys_come_back(town: Town) -> None:
    first, second = town.register(AT), town.register("10.0.0.8:80")
    lease_id = await soon(first.registered)
    assert await soon(second.registered) == lease_id
    await town.client.lease_revoke(lease_id)
    await town.until_all(ALIVE, [first, second])
    await town.until(first, LOST, ALIVE)
    await town.until_all(ALIVE, [first, second])
    for each in (first, second):
        kv = await town.at(each)
        assert kv is not None
        assert kv.lease == first.lease_id == second.lease_id != lease_id


@ensureDeferred
async def test_a_key_that_somebody_deletes_is_back_as_soon_as_the_event_comes(town: Town) -> None:
    registration = town.register(AT)
    lease_id = await soon(registration.registered)
    # Until the watch stands, which begins at the revision of the put.
    await town.client.delete(registration.path)
    await town.until(registration, LOST, ALIVE)
    kv = await town.at(registration)
    assert kv is not None
    assert kv.lease == lease_id


@ensureDeferred
async def test_a_key_that_somebody_overwrites_is_taken_back(town: Town) -> None:
    registration = town.register(AT, tags=("mine",))
    lease_id = await soon(registration.registered)
    await town.client.put(registration.path, "10.0.0.9:80")
    await town.until(registration, CONTESTED, ALIVE)
    kv = await town.at(registration)
    assert kv is not None
    assert kv.lease == lease_id
    assert b"mine" in kv.value


@ensureDeferred
async def test_two_registries_that_claim_one_key_take_turns_and_wait_between_them(
    make_town: MakeTown, caplog: pytest.LogCaptureFixture
) -> None:
    one, other = make_town(), make_town()
    first, second = one.register(AT), other.register(AT)
    await soon(gatherResults([first.registered, second.registered]))
    await one.until(first, CONTESTED, ALIVE, CONTESTED, ALIVE)
    began = first.writes + second.writes
    await deferLater(cast("Any", reactor), 1.0)
    # With waits up to 0.8 s by then; a tight loop would be hundreds.
    assert first.writes + second.writes - began < 20
    assert caplog.text.count("again and again by somebody else") <= 2
    await soon(second.take_back())
    await one.until_all(ALIVE, [first])
    kv = await one.at(first)
    assert kv is not None
    assert kv.lease == first.lease_id


@ensureDeferred
async def test_a_history_that_is_compacted_is_read_again(proxy: FaultProxy, make_town: MakeTown) -> None:
    town, direct = make_town(proxy.endpoint), make_town()
    registration = town.register(AT)
    await soon(registration.registered)
    await direct.client.get(registration.path)
    await proxy.refuse()
    await proxy.reset()
    await direct.client.delete(registration.path)
    last = await direct.client.put(registration.path + "-beside", "something else")
    await direct.client.compact(last.header.revision)
    await proxy.heal()
    await town.until(registration, LOST, ALIVE)
    assert await direct.at(registration) is not None


# --- outages --------------------------------------------------------------------------------------------------------


@ensureDeferred
async def test_an_etcd_that_is_killed_and_comes_back_with_its_data_has_it(
    fresh_etcd: FreshEtcd, make_town: MakeTown
) -> None:
    server = await fresh_etcd()
    town = make_town(server.endpoint, client=QUICK)
    registration = town.register(AT)
    lease_id = await soon(registration.registered)
    exited = server.when_exited()
    server.kill("KILL")
    await soon(exited)
    await soon(server.when_ready())
    kv = await town.at(registration)
    assert kv is not None
    assert kv.lease == lease_id
    # And the watch goes on.
    await town.client.delete(registration.path)
    await town.until(registration, LOST, ALIVE)


@ensureDeferred
async def test_a_thousand_registrations_come_back_to_an_etcd_without_data_in_seconds_and_in_few_requests(
    fresh_etcd: FreshEtcd, make_town: MakeTown, caplog: pytest.LogCaptureFixture
) -> None:
    server = await fresh_etcd()
    proxy = proxy_before(server)
    town = make_town(proxy.endpoint, client=QUICK)
    before = await requests_of(server)
    registrations = [town.register(f"10.0.{number // 250}.{number % 250}:80", ttl=10) for number in range(1000)]
    await soon(gatherResults([each.registered for each in registrations]))
    first = await requests_of(server)
    assert first["LeaseGrant"] - before.get("LeaseGrant", 0) == 1
    assert first["Txn"] - before.get("Txn", 0) <= 15
    assert proxy.connections_made <= 6

    server.kill("KILL")
    empty = await fresh_etcd()
    proxy.target_port = urlsplit(empty.endpoint).port or 0
    made_before = proxy.connections_made
    before = await requests_of(empty)
    began = time.monotonic()
    await proxy.reset()
    await town.until(registrations[0], LOST, ALIVE)
    await town.until_all(ALIVE, registrations)
    took = time.monotonic() - began
    after = await requests_of(empty)
    there = await town.client.get(registrations[0].service, prefix=True, count_only=True)
    assert there.count == 1000
    asked = {name: count - before.get(name, 0) for name, count in after.items()}
    assert asked["LeaseGrant"] == 1
    # Some may have been tried with the lease that is gone.
    assert asked["Txn"] <= 40
    assert sum(asked.values()) <= 80
    assert proxy.connections_made - made_before <= 20
    assert took < 10
    assert len([record for record in caplog.records if "services/shop" in record.getMessage()]) < 50
    await town.end()
    await soon(proxy.stopService())


@ensureDeferred
async def test_a_grant_that_is_answered_late_or_never_is_made_again(proxy: FaultProxy, make_town: MakeTown) -> None:
    town, direct = make_town(proxy.endpoint, client=QUICK), make_town()
    proxy.swallow("answers")
    registration = town.register(AT)
    connection = await soon(proxy.next_connection())
    assert connection is not None
    await deferLater(cast("Any", reactor), 0.7)
    assert registration.state is WANTED
    await proxy.heal()
    lease_id = await soon(registration.registered)
    kv = await direct.at(registration)
    assert kv is not None
    assert kv.lease == lease_id


@ensureDeferred
async def test_a_put_whose_answer_is_lost_comes_about(proxy: FaultProxy, make_town: MakeTown) -> None:
    town, direct = make_town(proxy.endpoint, client=QUICK), make_town()
    first = town.register("10.0.0.8:80")
    lease_id = await soon(first.registered)
    proxy.swallow("answers")
    registration = town.register(AT)
    while registration.last_error is None:
        await deferLater(cast("Any", reactor), 0.02)
    await proxy.heal()
    assert await soon(registration.registered) == lease_id
    kv = await direct.at(registration)
    assert kv is not None
    assert kv.lease == lease_id


@ensureDeferred
async def test_what_begins_while_etcd_is_away_is_there_when_it_comes_back(
    proxy: FaultProxy, make_town: MakeTown
) -> None:
    await proxy.refuse()
    town = make_town(proxy.endpoint, client=QUICK)
    registration = town.register(AT)
    impatient = town.register("10.0.0.8:80", own_lease=True, patient=False)
    with pytest.raises(Unavailable):
        await soon(impatient.registered)
    assert (registration.state, impatient.state) == (WANTED, ENDED)
    await proxy.heal()
    await soon(registration.registered)


# --- permissions ----------------------------------------------------------------------------------------------------


@ensureDeferred
async def test_a_permission_that_is_taken_away_and_given_back(fresh_etcd: FreshEtcd, make_town: MakeTown) -> None:
    server = await fresh_etcd(extra_args=(users.CHEAP,))
    await users.set_up(server)
    root = EtcdClient(cast("Any", reactor), server.endpoint, **cast("dict[str, Any]", users.ROOT))
    town = make_town(server.endpoint, client=dict(users.USER), random=lambda: 0.1)
    registration = town.register(AT)
    lease_id = await soon(registration.registered)
    await users.revoke_role(root)
    updating = registration.update(tags=("new",))
    while registration.last_error is None:
        await deferLater(cast("Any", reactor), 0.02)
    assert "permission denied" in registration.describe()
    # It is there as it was.
    assert registration.state is ALIVE
    await root.delete(registration.path)
    await users.grant_role(root)
    assert await soon(updating) is True
    await town.until_all(ALIVE, [registration])
    kv = (await root.get(registration.path)).kvs[0]
    assert kv.lease == lease_id
    assert b"new" in kv.value
    await town.end()
    await root.stopService()


@ensureDeferred
async def test_one_that_is_refused_does_not_keep_the_others_away(town: Town) -> None:
    large = {"text": "x" * 2_000_000}
    registrations = [town.register(f"10.0.0.{number}:80") for number in range(1, 60)]
    refused = town.register(AT, name="other", metadata=large, patient=False)
    more = [town.register(f"10.0.1.{number}:80") for number in range(1, 60)]
    await soon(gatherResults([each.registered for each in registrations + more]))
    with pytest.raises(RequestTooLarge):
        await soon(refused.registered)
    assert town.registry.registrations == (*registrations, *more)


# --- what can be asked of it ----------------------------------------------------------------------------------------


@ensureDeferred
async def test_withheld_and_offered_and_updated(town: Town) -> None:
    registration = town.register(AT)
    await soon(registration.registered)
    await soon(registration.withhold())
    assert await town.at(registration) is None
    await town.client.lease_revoke(registration.lease_id)
    await soon(registration.update(weight=5))
    assert registration.state is WITHHELD
    assert await town.at(registration) is None
    await soon(registration.offer())
    assert await soon(town.registry.discover("shop")) == (Instance(address="10.0.0.7", port=80, weight=5, id=AT),)


@ensureDeferred
async def test_its_key_goes_at_once_and_its_drain_passes_before_it_is_over(town: Town) -> None:
    registration, stays = town.register(AT, drain=0.3), town.register("10.0.0.8:80")
    await soon(gatherResults([registration.registered, stays.registered]))
    watch = town.client.watch(registration.path)
    await soon(watch.ready)
    began = time.monotonic()
    taking_back = registration.take_back()
    await soon(watch.next())
    assert not taking_back.called
    await soon(taking_back)
    assert time.monotonic() - began >= 0.3
    assert await town.at(stays) is not None
    await soon(watch.stop())


@ensureDeferred
async def test_the_stop_takes_all_back_and_leaves_no_lease(make_town: MakeTown) -> None:
    town, other = make_town(drain=0.2), make_town()
    registrations = [
        town.register(f"10.0.0.{number}:80", own_lease=number % 10 == 0, ttl=60 + number % 2) for number in range(1, 40)
    ]
    await soon(gatherResults([each.registered for each in registrations]))
    leases = {each.lease_id for each in registrations}
    assert len(leases) == 5
    stopping = town.registry.stopService()
    began = time.monotonic()
    while (await other.client.get(registrations[0].service, prefix=True, count_only=True)).count:
        assert time.monotonic() - began < 5
    assert not stopping.called
    await soon(stopping)
    assert leases.isdisjoint(lease.ID for lease in (await other.client.leases()).leases)
    with pytest.raises(ServiceStopped):
        town.register(AT)


@pytest.mark.parametrize("how", ["refuses", "hangs"])
@ensureDeferred
async def test_a_stop_while_etcd_is_away_ends_within_its_timeout(
    proxy: FaultProxy, make_town: MakeTown, how: str
) -> None:
    town, direct = make_town(proxy.endpoint, client=QUICK, drain=60.0), make_town()
    registrations = [town.register(f"10.0.0.{number}:80") for number in range(1, 40)]
    await soon(gatherResults([each.registered for each in registrations]))
    lease_id = registrations[0].lease_id
    if how == "refuses":
        await proxy.refuse()
        await proxy.reset()
    else:
        proxy.swallow()
    began = time.monotonic()
    stopping: Deferred[None] = town.registry.stopService()
    await soon(stopping)
    assert time.monotonic() - began < 2.0
    await proxy.heal()
    await direct.client.lease_revoke(lease_id)
