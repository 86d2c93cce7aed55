"""Sessions: a lease that several things are held by."""

from __future__ import annotations

from typing import Any, cast

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import CancelledError, gatherResults

from tests.client.conftest import MakeClient
from tests.recipes.lines import lease_ids, line_of
from tests.wire import soon
from twisted_etcd.client.client import EtcdClient
from twisted_etcd.errors import InvalidSettings, LeaseLost, OutcomeUnknown, ServiceStopped, Unavailable
from twisted_etcd.recipes.election import Election
from twisted_etcd.recipes.lock import Lock, RWLock
from twisted_etcd.recipes.session import Session
from twisted_etcd.testing.proxy import FaultProxy

IN_MEMORY_TOO = True


@ensureDeferred
async def test_a_session_is_one_lease_for_all_that_is_held_by_it(client: EtcdClient, prefix: str) -> None:
    before = await lease_ids(client)
    async with Session(client) as session:
        assert repr(session) == f"<Session of lease {session.lease_id:x}, alive>"
        assert (await client.lease_time_to_live(session.lease_id)).grantedTTL == 60
        await Lock(session, prefix + "a").acquire()
        await RWLock(session, prefix + "b").read_lock().acquire()
        await Election(session, prefix + "c").campaign("me")
        assert {kv.lease for kv in await line_of(client, prefix)} == {session.lease_id}
        assert await lease_ids(client) - before == {session.lease_id}
        lost = session.lost
    assert str(await soon(lost)) == f"lease {session.lease_id:x} is lost: its session was closed"  # type: ignore[arg-type]
    assert not session.alive
    assert repr(session).endswith(", over>")
    assert await line_of(client, prefix) == []
    assert await lease_ids(client) <= before


@ensureDeferred
async def test_it_is_opened_once_however_many_ask(client: EtcdClient, prefix: str) -> None:
    before = await lease_ids(client)
    session = Session(client, ttl=30)
    assert repr(session) == "<Session, not open>"
    assert not session.alive
    with pytest.raises(RuntimeError, match=r"no lease before open\(\)"):
        _ = session.lease_id
    locks = [Lock(session, f"{prefix}{number}") for number in range(5)]
    await gatherResults([session.open(), *(lock.acquire() for lock in locks)])  # type: ignore[arg-type]
    assert await session.open() is session
    assert await lease_ids(client) - before == {session.lease_id}
    await session.close()
    await session.close()


@ensureDeferred
async def test_an_orphan_stays_until_its_ttl_is_over(client: EtcdClient, make_client: MakeClient, prefix: str) -> None:
    other = make_client()
    session = Session(other, 2)
    lock = Lock(session, prefix + "lock")
    await lock.acquire()
    watch = client.watch(prefix, prefix=True)
    await watch.ready
    session.orphan()
    assert not session.alive
    assert "left to its TTL" in str(await soon(session.lost))  # type: ignore[arg-type]
    await soon(other.stopService())
    assert len(await line_of(client, prefix)) == 1
    # Nobody keeps it.
    await soon(watch.next())
    assert await line_of(client, prefix) == []
    await watch.stop()


@ensureDeferred
async def test_it_is_over_when_its_lease_is(client: EtcdClient, prefix: str) -> None:
    session = await Session(client, 2).open()
    lost = session.lost
    await client.lease_revoke(session.lease_id)
    reason = await soon(lost)
    assert isinstance(reason, LeaseLost)
    assert reason.lease_id == session.lease_id
    with pytest.raises(LeaseLost):
        await soon(session.open())
    with pytest.raises(LeaseLost):
        await soon(Lock(session, prefix + "lock").acquire())
    await session.close()


@ensureDeferred
async def test_a_lock_that_finds_the_lease_gone_says_so_and_the_session_learns_of_it(
    client: EtcdClient, prefix: str
) -> None:
    # Long, so that no keepalive tells of it.
    session = await Session(client, 600).open()
    await client.lease_revoke(session.lease_id)
    with pytest.raises(LeaseLost, match="etcd no longer has it"):
        await soon(Lock(session, prefix + "lock").acquire())
    await soon(session.lost)
    assert not session.alive


@pytest.mark.parametrize("end", ["close", "orphan"])
@ensureDeferred
async def test_one_that_ends_while_it_is_opened_leaves_no_lease(
    make_client: MakeClient, client: EtcdClient, end: str
) -> None:
    before = await lease_ids(client)
    other = make_client()
    session = Session(other)
    opening = session.open()
    getattr(session, end)()
    with pytest.raises(LeaseLost):
        await soon(opening)
    with pytest.raises(LeaseLost):
        await soon(session.open())
    await soon(other.stopService())
    assert await lease_ids(client) <= before


@ensureDeferred
async def test_one_that_could_not_be_opened_can_be_tried_again(proxy: FaultProxy, make_client: MakeClient) -> None:
    await proxy.refuse()
    session = Session(make_client(endpoints=proxy.endpoint, request_timeout=0.3))
    with pytest.raises(Unavailable):
        await soon(session.open())
    await proxy.heal()
    assert await soon(session.open()) is session
    await session.close()


@ensureDeferred
async def test_who_no_longer_waits_for_it_to_open_disturbs_nobody(client: EtcdClient) -> None:
    session = Session(client)
    impatient, patient = session.open(), session.open()
    impatient.cancel()
    with pytest.raises(CancelledError):
        await soon(impatient)
    assert await soon(patient) is session
    await session.close()


@ensureDeferred
async def test_closing_without_etcd_fails_and_is_made_up_for(
    proxy: FaultProxy, make_client: MakeClient, client: EtcdClient
) -> None:
    session = await Session(make_client(endpoints=proxy.endpoint, request_timeout=0.3)).open()
    await client.put("of the session", "", lease=session.lease_id)
    watch = client.watch("of the session")
    await watch.ready
    await proxy.refuse()
    await proxy.reset()
    with pytest.raises((Unavailable, OutcomeUnknown)):
        await soon(session.close())
    await proxy.heal()
    await soon(watch.next())
    await watch.stop()


@ensureDeferred
async def test_the_stop_of_its_client_ends_it(make_client: MakeClient) -> None:
    other = make_client()
    session = await Session(other).open()
    await soon(other.stopService())
    assert not session.alive
    await soon(session.close())
    with pytest.raises(ServiceStopped):
        await soon(Session(other).open())


@pytest.mark.parametrize(
    ("client", "ttl", "error", "words"),
    [
        ("http://here", 60, TypeError, "the first argument must be an EtcdClient, not str"),
        (None, 0, InvalidSettings, "ttl must be at least 1 second, not 0"),
        (None, 1.5, TypeError, "ttl must be an int, not float"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    make_client: MakeClient,
    client: Any,  # noqa: ANN401
    ttl: Any,  # noqa: ANN401
    error: type[Exception],
    words: str,
) -> None:
    with pytest.raises(error, match=words):
        Session(cast("EtcdClient", client or make_client()), ttl)
