"""Elections: what every server and every stand-in for one must do with them."""

from __future__ import annotations

from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred

from tests.client.conftest import MakeClient
from tests.recipes.lines import line_of, pending, until_line
from tests.wire import soon
from twisted_etcd.client.client import EtcdClient
from twisted_etcd.errors import (
    AlreadyHeld,
    InvalidSettings,
    LeaseLost,
    NotElected,
    NotHeld,
    ServiceStopped,
    WaitTimedOut,
    WatchStopped,
)
from twisted_etcd.recipes.election import Election
from twisted_etcd.recipes.session import Session
from twisted_etcd.testing.proxy import FaultProxy

IN_MEMORY_TOO = True


@ensureDeferred
async def test_the_first_leads_with_the_key_that_go_writes_and_the_next_one_follows(
    client: EtcdClient, prefix: str
) -> None:
    async with Session(client) as one, Session(client) as two:
        first, second = Election(one, prefix + "e"), Election(two, prefix + "e")
        assert await first.leader() is None
        token = await first.campaign("one")
        [kv] = await line_of(client, prefix)
        assert (kv.key.decode(), kv.value, kv.lease) == (f"{prefix}e/{one.lease_id:x}", b"one", one.lease_id)
        assert (first.key, first.token, token) == (kv.key, kv.create_revision, kv.create_revision)
        assert first.leading
        assert repr(first) == f"<Election {(prefix + 'e').encode()!r}, led by this one>"
        assert await second.leader() == kv
        winning = second.campaign("two")
        await until_line(client, prefix, lambda count: count == 2)
        assert pending(winning)
        assert await second.leader() == kv
        lost = first.lost
        await first.resign()
        assert await soon(lost) is None
        assert not first.leading
        assert await soon(winning) > token
        leader = await first.leader()
        assert leader is not None
        assert leader.value == b"two"
        await second.resign()
        assert await second.leader() is None


@ensureDeferred
async def test_only_the_leader_proclaims(client: EtcdClient, prefix: str) -> None:
    election, other = Election(client, prefix + "e", ttl=2), Election(client, prefix + "e")
    with pytest.raises(NotElected, match="is not led by this one"):
        await election.proclaim("mine")
    await election.campaign("first")
    await election.proclaim("second")
    leader = await other.leader()
    assert leader is not None
    assert leader.value == b"second"
    assert leader.create_revision == election.token
    with pytest.raises(AlreadyHeld):
        await election.campaign("third")
    # Somebody took it away, and this one does not know yet.
    await client.delete(election.key)
    with pytest.raises(NotElected):
        await election.proclaim("fourth")
    await election.resign()
    with pytest.raises(NotHeld):
        await election.resign()


@ensureDeferred
async def test_who_does_not_win_in_time_leaves_the_line(client: EtcdClient, prefix: str) -> None:
    election = Election(client, prefix + "e")
    await election.campaign("first")
    with pytest.raises(WaitTimedOut, match=r"the election b'.*e' was not to be had within"):
        await soon(Election(client, prefix + "e").campaign("second", timeout=0.05))
    await until_line(client, prefix, lambda count: count == 1)
    await election.resign()


@ensureDeferred
async def test_the_work_of_a_leader_is_cancelled_when_the_leadership_is_lost(client: EtcdClient, prefix: str) -> None:
    election = Election(client, prefix + "e", ttl=2)
    assert await election.run("me", lambda: "done") == "done"
    cancelled: list[Deferred[None]] = []
    leading = election.run("me", lambda: Deferred(cancelled.append))
    await until_line(client, prefix, lambda count: count == 1)
    await client.lease_revoke((await line_of(client, prefix))[0].lease)
    with pytest.raises(LeaseLost):
        await soon(leading)
    assert len(cancelled) == 1


@ensureDeferred
async def test_observers_see_each_leader_and_each_value_in_order(client: EtcdClient, prefix: str) -> None:
    first, second = Election(client, prefix + "e"), Election(client, prefix + "e")
    async with Election(client, prefix + "e").observe() as leaders:
        waiting = leaders.next()
        await first.campaign("1")
        assert (await soon(waiting)).value == b"1"
        await first.proclaim("2")
        await first.proclaim("3")
        assert [(await soon(leaders.next())).value for _ in range(2)] == [b"2", b"3"]
        winning = second.campaign("4")
        await until_line(client, prefix, lambda count: count == 2)
        await first.resign()
        await soon(winning)
        assert (await soon(leaders.next())).value == b"4"
        await second.resign()
        nobody = leaders.next()
        await first.campaign("5")
        assert (await soon(nobody)).value == b"5"
        # Who gives up one has missed nothing.
        leaders.next().addErrback(lambda _: None).cancel()
        await first.proclaim("6")
        assert (await soon(leaders.next())).value == b"6"
        # A late one begins with the one that there is.
        async with second.observe() as late:
            assert (await soon(late.next())).value == b"6"
    with pytest.raises(WatchStopped):
        await soon(leaders.next())
    await first.resign()


@ensureDeferred
async def test_a_loop_over_the_leaders_ends_when_it_is_stopped(client: EtcdClient, prefix: str) -> None:
    election = Election(client, prefix + "e")
    seen: list[bytes] = []
    await election.campaign("1")
    async with election.observe() as leaders:
        async for leader in leaders:
            seen.append(leader.value)
            if leader.value == b"1":
                await election.proclaim("2")
            else:
                leaders.stop()
    assert seen == [b"1", b"2"]
    await election.resign()


@ensureDeferred
async def test_observers_go_on_after_an_outage_in_which_the_past_was_compacted(
    proxy: FaultProxy, make_client: MakeClient, client: EtcdClient, prefix: str
) -> None:
    election = Election(client, prefix + "e")
    await election.campaign("1")
    async with Election(make_client(endpoints=proxy.endpoint, request_timeout=0.5), prefix + "e").observe() as leaders:
        assert (await soon(leaders.next())).value == b"1"
        await proxy.refuse()
        await proxy.reset()
        waiting = leaders.next()
        await election.resign()
        await election.campaign("2")
        revision = (await client.put(prefix + "other", "")).header.revision
        await client.compact(revision)
        assert pending(waiting)
        await proxy.heal()
        assert (await soon(waiting)).value == b"2"
    await election.resign()


@ensureDeferred
async def test_the_stop_of_a_client_ends_campaigns_and_observers(
    client: EtcdClient, make_client: MakeClient, prefix: str
) -> None:
    election = Election(client, prefix + "e")
    await election.campaign("1")
    other = make_client()
    campaigning = Election(other, prefix + "e").campaign("2")
    leaders = Election(other, prefix + "e").observe()
    assert (await soon(leaders.next())).value == b"1"
    observing = leaders.next()
    await until_line(client, prefix, lambda count: count == 2)
    await soon(other.stopService())
    ended: list[Deferred[Any]] = [campaigning, observing, leaders.next()]
    for each in ended:
        with pytest.raises(ServiceStopped):
            await soon(each)
    await election.resign()


def test_what_cannot_be_meant_is_refused(client: EtcdClient) -> None:
    with pytest.raises(InvalidSettings, match="the name of an election is empty"):
        Election(client, "")
    with pytest.raises(TypeError, match="value must be str or bytes, not int"):
        Election(client, "e").campaign(7)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="timeout must be more than 0"):
        Election(client, "e").campaign("me", timeout=-1)
