"""Locks: what every server and every stand-in for one must do with them."""

from __future__ import annotations

from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import CancelledError, Deferred, gatherResults

from tests.client.conftest import MakeClient
from tests.recipes.lines import lease_ids, line_of, pending, until_line
from tests.wire import soon
from twisted_etcd.client import op
from twisted_etcd.client.client import EtcdClient
from twisted_etcd.errors import AlreadyHeld, InvalidSettings, LeaseLost, NotHeld, ServiceStopped, WaitTimedOut
from twisted_etcd.recipes.lock import Lock, RWLock
from twisted_etcd.recipes.session import Session

IN_MEMORY_TOO = True


@ensureDeferred
async def test_a_lock_is_the_key_that_go_writes(client: EtcdClient, prefix: str) -> None:
    async with Session(client, 30) as session:
        lock = Lock(session, prefix + "lock")
        assert repr(lock) == f"<Lock {(prefix + 'lock').encode()!r}, not held here>"
        token = await lock.acquire()
        [kv] = await line_of(client, prefix)
        assert (kv.key.decode(), kv.value, kv.lease) == (f"{prefix}lock/{session.lease_id:x}", b"", session.lease_id)
        assert (lock.key, lock.token, token) == (kv.key, kv.create_revision, kv.create_revision)
        assert lock.locked
        assert repr(lock) == f"<Lock {(prefix + 'lock').encode()!r}, held here>"
        await lock.release()
        assert not lock.locked
        assert await line_of(client, prefix) == []


@ensureDeferred
async def test_who_comes_second_waits_and_has_the_greater_token(client: EtcdClient, prefix: str) -> None:
    async with Session(client) as one, Session(client) as two:
        first, second = Lock(one, prefix + "lock"), Lock(two, prefix + "lock")
        token = await first.acquire()
        acquiring = second.acquire()
        await until_line(client, prefix, lambda count: count == 2)
        assert pending(acquiring)
        assert not second.locked
        await first.release()
        assert await soon(acquiring) > token
        await second.release()


@ensureDeferred
async def test_fifty_get_it_in_the_order_in_which_they_came(
    client: EtcdClient, make_client: MakeClient, prefix: str
) -> None:
    clients = [make_client() for _ in range(5)]
    got: list[int] = []
    inside: list[int] = []

    async def contend(number: int) -> int:
        lock = Lock(clients[number % 5], prefix + "lock")
        async with lock as token:
            inside.append(number)
            assert inside == [number]
            got.append(token)
            # A round trip, in which another one could come in.
            await client.get(prefix)
            inside.remove(number)
        return token

    tokens = await soon(gatherResults([Deferred.fromCoroutine(contend(number)) for number in range(50)]))
    assert got == sorted(tokens)
    assert len(set(got)) == 50
    assert await line_of(client, prefix) == []


@ensureDeferred
async def test_try_lock_leaves_no_key_where_it_is_held(client: EtcdClient, prefix: str) -> None:
    before = await lease_ids(client)
    holder, other = Lock(client, prefix + "lock"), Lock(client, prefix + "lock")
    assert await holder.try_lock()
    assert not await other.try_lock()
    assert not await holder.try_lock()
    async with Session(client) as session:
        assert not await Lock(session, prefix + "lock").try_lock()
        assert len(await line_of(client, prefix)) == 1
    await holder.release()
    assert await other.try_lock()
    await other.release()
    assert await lease_ids(client) <= before


@ensureDeferred
async def test_a_session_that_holds_it_does_not_wait_for_itself(client: EtcdClient, prefix: str) -> None:
    async with Session(client) as session:
        lock, same = Lock(session, prefix + "lock"), Lock(session, prefix + "lock")
        await lock.acquire()
        for each in (lock, same):
            with pytest.raises(AlreadyHeld, match=r"by this session already: give it back first, or wait with another"):
                await soon(each.acquire())
        assert not await same.try_lock()
        assert lock.locked
        await lock.release()
        await same.acquire()
        await same.release()


@ensureDeferred
async def test_a_lock_of_a_client_has_a_lease_while_it_is_wanted_and_not_longer(
    client: EtcdClient, prefix: str
) -> None:
    before = await lease_ids(client)
    lock = Lock(client, prefix + "lock", ttl=20)
    for _ in range(3):
        await lock.acquire()
        [lease_id] = await lease_ids(client) - before
        assert (await client.lease_time_to_live(lease_id)).grantedTTL == 20
        await lock.release()
        assert await lease_ids(client) <= before
    async with lock:
        waiting = Lock(client, prefix + "lock")
        with pytest.raises(WaitTimedOut, match=r"the lock b'.*lock' was not to be had within 0\.05 s") as raised:
            await soon(waiting.acquire(timeout=0.05))
        assert raised.value.seconds == 0.05
        await until_line(client, prefix, lambda count: count == 1)
    assert await lease_ids(client) <= before


@ensureDeferred
async def test_what_is_not_held_cannot_be_given_back_or_asked_about(client: EtcdClient, prefix: str) -> None:
    lock = Lock(client, prefix + "lock")
    with pytest.raises(NotHeld, match="is not held here"):
        await lock.release()
    for what in ("token", "key", "is_owner", "lost"):
        with pytest.raises(NotHeld):
            getattr(lock, what)


@ensureDeferred
async def test_is_owner_holds_in_transactions_while_it_is_held(client: EtcdClient, prefix: str) -> None:
    lock = Lock(client, prefix + "lock")
    await lock.acquire()
    owner = lock.is_owner
    assert (await client.txn([owner], [op.put(prefix + "fenced", "1")])).succeeded
    await lock.release()
    await lock.acquire()
    assert not (await client.txn([owner], [op.put(prefix + "fenced", "2")])).succeeded
    await lock.release()


@ensureDeferred
async def test_lost_tells_how_it_ended(client: EtcdClient, prefix: str) -> None:
    async with Session(client) as session:
        lock = Lock(session, prefix + "lock")
        await lock.acquire()
        lost = lock.lost
        await lock.release()
        assert await soon(lost) is None
        await lock.acquire()
        lost = lock.lost
        session.orphan()
        reason = await soon(lost)
        assert isinstance(reason, LeaseLost)
        assert not lock.locked
        assert await soon(lock.lost) is reason
        # It is gone for this one; that is no error.
        await lock.release()
        with pytest.raises(LeaseLost, match="left to its TTL"):
            await lock.acquire()


@ensureDeferred
async def test_a_lease_that_somebody_revokes_ends_the_work_and_the_wait(client: EtcdClient, prefix: str) -> None:
    async with Session(client, 2) as holder, Session(client, 2) as waiter:
        cancelled: list[Deferred[None]] = []
        working: Deferred[None] = Deferred(cancelled.append)
        running = Lock(holder, prefix + "lock").run(lambda: working)
        await until_line(client, prefix, lambda count: count == 1)
        waiting = Lock(waiter, prefix + "lock").acquire()
        await until_line(client, prefix, lambda count: count == 2)
        await client.lease_revoke(waiter.lease_id)
        with pytest.raises(LeaseLost):
            await soon(waiting)
        await client.lease_revoke(holder.lease_id)
        with pytest.raises(LeaseLost):
            await soon(running)
        assert cancelled == [working]
        assert await line_of(client, prefix) == []


@ensureDeferred
async def test_a_lock_of_its_own_session_can_be_taken_again_after_it_was_lost(client: EtcdClient, prefix: str) -> None:
    lock = Lock(client, prefix + "lock", ttl=2)
    await lock.acquire()
    lost = lock.lost
    await client.lease_revoke((await line_of(client, prefix))[0].lease)
    assert await soon(lost) is not None
    await lock.acquire()
    assert lock.locked
    await lock.release()


@ensureDeferred
async def test_run_gives_what_the_work_gives_and_releases_whatever_it_does(client: EtcdClient, prefix: str) -> None:
    lock = Lock(client, prefix + "lock")

    async def work(*args: int) -> int:
        assert lock.locked
        await client.get(prefix)
        return sum(args)

    assert await lock.run(work, 1, 2) == 3
    assert await lock.run(sum, [3, 4]) == 7

    def fails() -> None:
        raise LookupError

    with pytest.raises(LookupError):
        await lock.run(fails)
    running = lock.run(Deferred)
    await until_line(client, prefix, lambda count: count == 1)
    running.cancel()
    with pytest.raises(CancelledError):
        await soon(running)
    assert await line_of(client, prefix) == []
    assert not lock.locked


@ensureDeferred
async def test_a_block_ends_with_the_loss_that_came_in_it(client: EtcdClient, prefix: str) -> None:
    lock = Lock(client, prefix + "lock", ttl=2)

    async def lose() -> None:
        async with lock:
            lost = lock.lost
            await client.lease_revoke((await line_of(client, prefix))[0].lease)
            await soon(lost)

    with pytest.raises(LeaseLost):
        await lose()
    with pytest.raises(LookupError):
        async with lock:
            raise LookupError
    assert not lock.locked


@ensureDeferred
async def test_a_key_that_somebody_deletes_is_put_again_at_the_end(client: EtcdClient, prefix: str) -> None:
    holder, waiter, last = (Lock(client, prefix + "lock") for _ in range(3))
    await holder.acquire()
    waiting = waiter.acquire()
    await until_line(client, prefix, lambda count: count == 2)
    key = (await line_of(client, prefix))[1].key
    behind = last.acquire()
    await until_line(client, prefix, lambda count: count == 3)
    await client.delete(key)
    await holder.release()
    await soon(behind)
    assert pending(waiting)
    await last.release()
    await soon(waiting)
    await waiter.release()


@ensureDeferred
async def test_the_stop_of_a_client_ends_all_waiting(client: EtcdClient, make_client: MakeClient, prefix: str) -> None:
    holder = Lock(client, prefix + "lock")
    await holder.acquire()
    other = make_client()
    waiting = [Lock(other, prefix + "lock").acquire() for _ in range(20)]
    shared = Session(other)
    await shared.open()
    waiting.append(Lock(shared, prefix + "lock").acquire(timeout=60))
    await until_line(client, prefix, lambda count: count == 22)
    held = Lock(shared, prefix + "other")
    running = held.run(Deferred)
    await until_line(client, prefix, lambda count: count == 23)
    await soon(other.stopService())
    for each in [*waiting, running]:
        with pytest.raises(ServiceStopped):
            await soon(each)
    assert [kv.key for kv in await line_of(client, prefix)] == [holder.key]
    assert await soon(shared.lost) is not None
    with pytest.raises(ServiceStopped):
        await soon(Lock(other, prefix + "lock").acquire())
    await holder.release()


@pytest.mark.parametrize("shared", [True, False], ids=["a shared session", "one of its own"])
@ensureDeferred
async def test_a_client_that_leaves_its_leases_leaves_what_is_held_by_them(
    client: EtcdClient, make_client: MakeClient, prefix: str, *, shared: bool
) -> None:
    other = make_client(revoke_leases=False)
    running = Lock(Session(other) if shared else other, prefix + "lock").run(Deferred)
    await until_line(client, prefix, lambda count: count == 1)
    waiting = Lock(Session(other) if shared else other, prefix + "lock").acquire()
    await until_line(client, prefix, lambda count: count == 2)
    await soon(other.stopService())
    ended: list[Deferred[Any]] = [running, waiting]
    for each in ended:
        with pytest.raises(ServiceStopped):
            await soon(each)
    left = await line_of(client, prefix)
    assert len(left) == 2
    for kv in left:
        await client.lease_revoke(kv.lease)


@ensureDeferred
async def test_a_client_that_stops_while_one_gives_up_ends_clean(
    client: EtcdClient, make_client: MakeClient, prefix: str
) -> None:
    other = make_client()
    session = Session(other)
    await session.open()
    acquiring = Lock(session, prefix + "lock").acquire()
    acquiring.cancel()
    with pytest.raises(CancelledError):
        await soon(acquiring)
    await soon(other.stopService())
    assert await line_of(client, prefix) == []


# --- for reading and for writing ------------------------------------------------------------------------------------


@ensureDeferred
async def test_readers_share_it_and_writers_do_not(client: EtcdClient, prefix: str) -> None:
    async with Session(client) as session:
        rwlock = RWLock(session, prefix + "rw")
        readers = [rwlock.read_lock() for _ in range(3)]
        await gatherResults([reader.acquire() for reader in readers])
        keys = [kv.key.decode() for kv in await line_of(client, prefix)]
        assert [key.rpartition("/")[0] for key in keys] == [prefix + "rw/read"] * 3
        assert all(key.rpartition("/")[2].isdigit() for key in keys)
        writer, late_reader = rwlock.write_lock(), rwlock.read_lock()
        writing = writer.acquire()
        await until_line(client, prefix, lambda count: count == 4)
        assert not await rwlock.write_lock().try_lock()
        assert not await rwlock.read_lock().try_lock()
        reading = late_reader.acquire()
        await until_line(client, prefix, lambda count: count == 5)
        for reader in readers:
            assert pending(writing)
            await reader.release()
        await soon(writing)
        assert pending(reading)
        assert writer.locked
        assert b"/write/" in writer.key
        await writer.release()
        await soon(reading)
        assert await rwlock.read_lock().try_lock()
        await late_reader.release()
    assert await line_of(client, prefix) == []


# --- what is given ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda client: Lock(client, ""), InvalidSettings, "the name of a lock is empty"),
        (lambda client: RWLock(client, b""), InvalidSettings, "the name of a lock is empty"),
        (lambda client: Lock(client, 7), TypeError, "name must be str or bytes, not int"),  # type: ignore[arg-type]
        (lambda _: Lock("client", "a"), TypeError, "the first argument must be an EtcdClient, not str"),  # type: ignore[arg-type]
        (lambda client: Lock(client, "a", ttl=0), InvalidSettings, "ttl must be at least 1 second, not 0"),
        (lambda client: Lock(client, "a", ttl="1"), TypeError, "ttl must be an int, not str"),  # type: ignore[arg-type]
        (lambda client: Lock(Session(client), "a", ttl=9), InvalidSettings, "ttl is 9, and the session has its own"),
        (lambda client: Lock(client, "a").acquire(timeout=0), ValueError, "timeout must be more than 0 seconds"),
        (lambda client: Lock(client, "a").acquire(timeout="1"), TypeError, "timeout must be a number of seconds"),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_be_meant_is_refused_at_once(client: EtcdClient, make: Any, error: Any, words: str) -> None:  # noqa: ANN401
    with pytest.raises(error, match=words):
        make(client)
