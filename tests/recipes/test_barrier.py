"""Barriers: what every server and every stand-in for one must do with them."""

from __future__ import annotations

from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred, gatherResults

from tests.client.conftest import MakeClient
from tests.recipes.lines import lease_ids, line_of, pending, until_line
from tests.wire import soon
from twisted_etcd.client.client import EtcdClient
from twisted_etcd.errors import (
    AlreadyHeld,
    BarrierFull,
    InvalidSettings,
    LeaseLost,
    NotHeld,
    ServiceStopped,
    WaitTimedOut,
)
from twisted_etcd.recipes.barrier import Barrier, DoubleBarrier
from twisted_etcd.recipes.session import Session
from twisted_etcd.testing.proxy import FaultProxy

IN_MEMORY_TOO = True


# --- one that is lifted ----------------------------------------------------------------------------------------------


@ensureDeferred
async def test_it_holds_up_everybody_until_it_is_lifted(
    client: EtcdClient, make_client: MakeClient, prefix: str
) -> None:
    barrier = Barrier(client, prefix + "b")
    await soon(barrier.wait())
    await barrier.hold()
    [kv] = await line_of(client, prefix)
    assert (kv.key.decode(), kv.value, kv.lease) == (prefix + "b", b"", 0)
    with pytest.raises(AlreadyHeld, match="is held already"):
        await barrier.hold()
    other = Barrier(make_client(), prefix + "b")
    waiting = [other.wait() for _ in range(5)]
    with pytest.raises(WaitTimedOut, match=r"the barrier b'.*b' was not lifted within 0\.05 s"):
        await soon(other.wait(timeout=0.05))
    assert all(pending(each) for each in waiting)
    assert await barrier.release()
    await soon(gatherResults(waiting))
    assert not await barrier.release()


@ensureDeferred
async def test_it_can_end_with_a_lease(client: EtcdClient, prefix: str) -> None:
    barrier = Barrier(client, prefix + "b")
    lease = await client.lease(60)
    await barrier.hold(lease=lease.id)
    waiting = barrier.wait()
    await client.get(prefix)
    await lease.revoke()
    await soon(waiting)


@ensureDeferred
async def test_who_waits_is_let_go_also_where_it_is_held_again_while_etcd_was_away(
    proxy: FaultProxy, make_client: MakeClient, client: EtcdClient, prefix: str
) -> None:
    barrier = Barrier(client, prefix + "b")
    await barrier.hold()
    proxied = make_client(endpoints=proxy.endpoint, request_timeout=0.5)
    watched = WatchedFor(proxied)
    waiting = Barrier(proxied, prefix + "b").wait()
    await soon(watched.confirmed)
    await proxy.refuse()
    await proxy.reset()
    await barrier.release()
    await barrier.hold()
    revision = (await client.put(prefix + "other", "")).header.revision
    await client.compact(revision)
    assert pending(waiting)
    await proxy.heal()
    await soon(waiting)
    await barrier.release()


class WatchedFor:
    """
    Knows when a client's first watch is there.

    :ivar confirmed: fires then.
    """

    def __init__(self, client: Any) -> None:  # noqa: ANN401 - its method is replaced
        self.confirmed: Deferred[int] = Deferred()
        original = client.watch

        def watch(*args: Any, **options: Any) -> Any:  # noqa: ANN401
            client.watch = original
            watch = original(*args, **options)
            watch.ready.chainDeferred(self.confirmed)
            return watch

        client.watch = watch


@ensureDeferred
async def test_the_stop_of_a_client_ends_the_waiting(client: EtcdClient, make_client: MakeClient, prefix: str) -> None:
    barrier = Barrier(client, prefix + "b")
    await barrier.hold()
    other = make_client()
    double = DoubleBarrier(other, prefix + "d", 2)
    waiting = [Barrier(other, prefix + "b").wait(), double.enter()]
    await until_line(client, prefix + "d", lambda count: count == 1)
    await soon(other.stopService())
    for each in waiting:
        with pytest.raises(ServiceStopped):
            await soon(each)
    assert not double.entered
    await barrier.release()


# --- one that is passed together -------------------------------------------------------------------------------------


@ensureDeferred
async def test_all_enter_together_and_leave_together_again_and_again(
    client: EtcdClient, make_client: MakeClient, prefix: str
) -> None:
    before = await lease_ids(client)
    barriers = [DoubleBarrier(make_client(), prefix + "d", 4) for _ in range(4)]
    for _ in range(2):
        entering = [barrier.enter() for barrier in barriers[:3]]
        await until_line(client, prefix, lambda count: count == 3)
        keys = [kv.key.decode() for kv in await line_of(client, prefix)]
        assert [key.rpartition("/")[0] for key in keys] == [prefix + "d/waiters"] * 3
        assert all(pending(each) for each in entering)
        await soon(barriers[3].enter())
        await soon(gatherResults(entering))
        assert all(barrier.entered for barrier in barriers)
        assert (await client.get(prefix + "d/ready")).count == 1
        leaving = [barrier.leave() for barrier in barriers[:3]]
        # The first that entered stays in the line until the others have left.
        await until_line(client, prefix + "d/waiters", lambda count: count == 2)
        assert all(pending(each) for each in leaving)
        await soon(barriers[3].leave())
        await soon(gatherResults(leaving))
        assert await line_of(client, prefix) == []
    await until_leases(client, before)


async def until_leases(client: EtcdClient, before: set[int]) -> None:
    """Until those of sessions that end in the background have gone."""

    async def gone() -> None:
        while not await lease_ids(client) <= before:
            pass

    await soon(Deferred.fromCoroutine(gone()))


@ensureDeferred
async def test_one_too_many_is_refused_and_leaves_no_key(client: EtcdClient, prefix: str) -> None:
    async with Session(client) as session:
        barriers = [DoubleBarrier(session, prefix + "d", 2) for _ in range(3)]
        await soon(gatherResults([barrier.enter() for barrier in barriers[:2]]))
        with pytest.raises(BarrierFull, match="is for 2, and they have entered already"):
            await soon(barriers[2].enter())
        assert (await client.get(prefix + "d/waiters", prefix=True)).count == 2
        with pytest.raises(AlreadyHeld):
            await barriers[0].enter()
        with pytest.raises(NotHeld):
            await barriers[2].leave()
        await soon(gatherResults([barrier.leave() for barrier in barriers[:2]]))
    assert await line_of(client, prefix) == []


@ensureDeferred
async def test_five_that_want_in_at_once_where_three_may_are_three_that_pass(client: EtcdClient, prefix: str) -> None:
    async with Session(client) as session:
        barriers = [DoubleBarrier(session, prefix + "d", 3) for _ in range(5)]

        async def enter(barrier: DoubleBarrier) -> bool:
            try:
                await barrier.enter()
            except BarrierFull:
                return False
            return True

        passed = await soon(gatherResults([Deferred.fromCoroutine(enter(barrier)) for barrier in barriers]))
        assert passed.count(True) == 3
        assert [barrier.entered for barrier in barriers] == passed
        await soon(gatherResults([barrier.leave() for barrier in barriers if barrier.entered]))


@ensureDeferred
async def test_who_gives_up_entering_makes_room(client: EtcdClient, prefix: str) -> None:
    async with Session(client) as session:
        one, two, three = (DoubleBarrier(session, prefix + "d", 2) for _ in range(3))
        with pytest.raises(WaitTimedOut, match="2 have not entered the barrier"):
            await soon(one.enter(timeout=0.05))
        await until_line(client, prefix, lambda count: count == 0)
        await soon(gatherResults([two.enter(), three.enter()]))
        with pytest.raises(WaitTimedOut, match="not all have left the barrier"):
            await soon(two.leave(timeout=0.05))
        await soon(three.leave())
        assert not two.entered
    assert await line_of(client, prefix + "d/waiters") == []


@ensureDeferred
async def test_who_dies_leaves_with_its_lease(client: EtcdClient, prefix: str) -> None:
    async with Session(client) as living, Session(client, 2) as dying:
        one, two = DoubleBarrier(living, prefix + "d", 2), DoubleBarrier(dying, prefix + "d", 2)
        await soon(gatherResults([one.enter(), two.enter()]))
        leaving = one.leave()
        await client.lease_revoke(dying.lease_id)
        await soon(leaving)
        await soon(dying.lost)
        with pytest.raises(LeaseLost):
            await soon(two.leave())


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda client: Barrier(client, ""), InvalidSettings, "the name of a barrier is empty"),
        (lambda _: Barrier("client", "a"), TypeError, "the first argument must be an EtcdClient, not str"),  # type: ignore[arg-type]
        (lambda client: DoubleBarrier(client, "", 2), InvalidSettings, "the name of a barrier is empty"),
        (lambda client: DoubleBarrier(client, "a", 0), InvalidSettings, "count must be at least 1, not 0"),
        (lambda client: DoubleBarrier(client, "a", "2"), TypeError, "count must be an int, not str"),  # type: ignore[arg-type]
        (lambda client: Barrier(client, "a").hold(lease="2"), TypeError, "lease must be an int, not str"),  # type: ignore[arg-type]
        (lambda client: Barrier(client, "a").wait(timeout=0), ValueError, "timeout must be more than 0"),
    ],
)
def test_what_cannot_be_meant_is_refused_at_once(client: EtcdClient, make: Any, error: Any, words: str) -> None:  # noqa: ANN401
    with pytest.raises(error, match=words):
        make(client)
