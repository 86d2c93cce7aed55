"""What becomes of locks when networks and members fail: no two hold one at once, and no key is left behind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from tests.client.conftest import MakeClient
from tests.etcds import ONE_VERSION
from tests.recipes.lines import lease_ids, line_of, pending, until_line
from tests.wire import Event, soon
from twisted_etcd.client.client import EtcdClient
from twisted_etcd.errors import OutcomeUnknown, Unavailable, WaitTimedOut
from twisted_etcd.recipes.lock import Lock
from twisted_etcd.recipes.session import Session
from twisted_etcd.testing.cluster import EtcdCluster
from twisted_etcd.testing.proxy import FaultProxy

#: With a session that is shared, whose keys have to be deleted one by one, and with one of the lock's own.
SESSIONS = pytest.mark.parametrize("shared", [True, False], ids=["a shared session", "one of its own"])


async def holder_of(client: EtcdClient, *, shared: bool) -> Session | EtcdClient:
    return await Session(client).open() if shared else client


def until_empty(client: EtcdClient, prefix: str) -> Deferred[None]:
    return Deferred.fromCoroutine(until_line(client, prefix, lambda count: count == 0))


# --- asking for it ---------------------------------------------------------------------------------------------------


@SESSIONS
@ensureDeferred
async def test_a_put_whose_answer_is_cut_off_is_found_again(
    proxy: FaultProxy, make_client: MakeClient, client: EtcdClient, prefix: str, *, shared: bool
) -> None:
    proxied = make_client(endpoints=proxy.endpoint)
    holder = await holder_of(proxied, shared=shared)
    lock = Lock(holder, prefix + "lock")
    if not shared:
        # The answer to the grant passes, the one to the put does not.
        await lock.acquire()
        await lock.release()
    cut = Cut(proxied, proxy)
    cut.next("txn")
    token = await soon(lock.acquire())
    assert cut.done
    [kv] = await line_of(client, prefix)
    assert kv.create_revision == token
    await soon(lock.release())
    assert await line_of(client, prefix) == []


class Cut:
    """Breaks the connections as soon as etcd has done what a client asks for, and before it has its answer."""

    def __init__(self, client: Any, proxy: FaultProxy) -> None:  # noqa: ANN401 - its methods are replaced
        self.done = False
        self._client = client
        self._proxy = proxy

    def next(self, method: str) -> None:
        original = getattr(self._client, method)

        def ask(*args: Any, **options: Any) -> Any:  # noqa: ANN401
            setattr(self._client, method, original)
            self._proxy.cut_after(0, "answers")
            asked = original(*args, **options)
            return asked.addBoth(self._heal)

        setattr(self._client, method, ask)

    def _heal(self, result: Any) -> Any:  # noqa: ANN401
        self.done = True
        return self._proxy.heal().addCallback(lambda _: result)


@SESSIONS
@pytest.mark.parametrize("given_up", ["cancelled", "out of time"])
@ensureDeferred
async def test_a_put_that_nobody_waits_for_any_more_leaves_no_key(
    proxy: FaultProxy, make_client: MakeClient, client: EtcdClient, prefix: str, given_up: str, *, shared: bool
) -> None:
    before = await lease_ids(client)
    proxied = make_client(endpoints=proxy.endpoint)
    lock = Lock(await holder_of(proxied, shared=shared), prefix + "lock")
    if not shared:
        await lock.acquire()
        await lock.release()
    swallow = Swallow(proxied, proxy)
    acquiring = lock.acquire(timeout=0.3 if given_up == "out of time" else None)
    await soon(swallow.asked)
    # etcd has done it, and its answer does not come.
    await until_line(client, prefix, lambda count: count == 1)
    if given_up == "cancelled":
        acquiring.cancel()
    with pytest.raises(CancelledError if given_up == "cancelled" else WaitTimedOut):
        await soon(acquiring)
    await proxy.heal()
    await soon(until_empty(client, prefix))
    # The same session can have it again at once.
    await soon(lock.acquire())
    await soon(lock.release())
    if not shared:
        assert await lease_ids(client) <= before
    assert await line_of(client, prefix) == []


class Swallow:
    """
    Lets no answer through from the next transaction on.

    :ivar asked: fires when it was asked for.
    """

    def __init__(self, client: Any, proxy: FaultProxy) -> None:  # noqa: ANN401 - its method is replaced
        self.asked: Deferred[None] = Deferred()
        original = client.txn

        def ask(*args: Any, **options: Any) -> Any:  # noqa: ANN401
            client.txn = original
            proxy.swallow("answers")
            self.asked.callback(None)
            return original(*args, **options)

        client.txn = ask


@ensureDeferred
async def test_a_put_that_reaches_etcd_after_it_was_given_up_and_deleted_is_deleted_when_it_comes(
    proxy: FaultProxy, make_client: MakeClient, client: EtcdClient, prefix: str
) -> None:
    slow = make_client(endpoints=proxy.endpoint, request_timeout=0.2)
    async with Session(slow) as session:
        lock = Lock(session, prefix + "lock")
        proxy.delay(1.0, "requests")
        acquiring = lock.acquire(timeout=0.3)
        with pytest.raises(WaitTimedOut):
            await soon(acquiring)
        # From here on the others overtake what is on its way.
        proxy.delay(0.0, "requests")
        async with client.watch(prefix, prefix=True) as watch:
            events = [event for _ in range(2) for event in (await soon(watch.next())).events]
        assert [event.type.value for event in events] == ["PUT", "DELETE"]
        # And it can be had all the same.
        await soon(lock.acquire())
        await soon(lock.release())
    assert await line_of(client, prefix) == []


@ensureDeferred
async def test_without_etcd_to_begin_with_it_fails_and_nothing_is_left(
    proxy: FaultProxy, make_client: MakeClient, client: EtcdClient, prefix: str
) -> None:
    proxied = make_client(endpoints=proxy.endpoint, request_timeout=0.5)
    session = await Session(proxied).open()
    await proxy.refuse()
    await proxy.reset()
    for holder in (session, proxied):
        lock = Lock(holder, prefix + "lock")
        with pytest.raises(Unavailable):
            await soon(lock.acquire())
        assert not lock.locked
    await proxy.heal()
    await soon(lock.acquire())
    await soon(lock.release())
    assert await line_of(client, prefix) == []


# --- waiting for it --------------------------------------------------------------------------------------------------


@SESSIONS
@ensureDeferred
async def test_who_waits_goes_on_waiting_while_etcd_is_away_and_its_past_is_compacted(
    proxy: FaultProxy, make_client: MakeClient, client: EtcdClient, prefix: str, *, shared: bool
) -> None:
    holder = Lock(client, prefix + "lock")
    await holder.acquire()
    proxied = make_client(endpoints=proxy.endpoint, request_timeout=0.5)
    waiter = Lock(await holder_of(proxied, shared=shared), prefix + "lock")
    waiting = waiter.acquire()
    await until_line(client, prefix, lambda count: count == 2)
    await proxy.refuse()
    await proxy.reset()
    await holder.release()
    for number in range(3):
        revision = (await client.put(prefix + "other", str(number))).header.revision
    await client.compact(revision)
    assert pending(waiting)
    await proxy.heal()
    await soon(waiting)
    await waiter.release()
    assert await line_of(client, prefix + "lock") == []


@pytest.mark.parametrize("asked", range(7))
@pytest.mark.parametrize("when", ["as it is asked", "with its answer"])
@SESSIONS
@ensureDeferred
async def test_who_gives_up_in_whatever_phase_leaves_nothing_behind(
    make_client: MakeClient, client: EtcdClient, prefix: str, asked: int, when: str, *, shared: bool
) -> None:
    before = await lease_ids(client)
    holder = Lock(client, prefix + "lock")
    await holder.acquire()
    giving_up = make_client()
    session = Session(giving_up)
    lock = Lock(session if shared else giving_up, prefix + "lock")
    counting = CancelAt(giving_up, asked, when)
    acquiring = lock.acquire()
    counting.begin(acquiring)
    # It waits, then looks again, and has it, where nothing cancels it.
    await soon(gatherResults([Deferred.fromCoroutine(release_when_waited_for(client, holder, prefix, acquiring))]))
    try:
        await soon(acquiring)
    except CancelledError:
        pass
    else:
        await lock.release()
    await soon(until_empty(client, prefix))
    counting.end()
    assert not lock.locked
    assert session.places == {}
    if shared:
        await session.close()
    await soon(giving_up.stopService())
    assert await lease_ids(client) <= before


async def release_when_waited_for(client: EtcdClient, lock: Lock, prefix: str, acquiring: Deferred[int]) -> None:
    async with client.watch(prefix, prefix=True, start_revision=lock.token + 1) as watch:
        ended: Deferred[None] = Deferred()

        def end(result: int | Failure) -> int | Failure:
            ended.callback(None)
            return result

        acquiring.addBoth(end)
        waiting = watch.next()
        waiting.addErrback(lambda failure: failure.trap(CancelledError))
        ended.addCallback(lambda _: waiting.cancel())
        await waiting
    await lock.release()


class CancelAt:
    """Cancels a Deferred at the so manyth thing that a client is asked for."""

    METHODS = ("lease", "txn", "get", "watch")

    def __init__(self, client: Any, number: int, when: str) -> None:  # noqa: ANN401 - its methods are replaced
        self._client = client
        self._left = number
        self._at_once = when == "as it is asked"
        self._target: Deferred[Any] | None = None
        self._due = False
        for method in self.METHODS:
            setattr(client, method, self._counted(getattr(client, method)))

    def begin(self, target: Deferred[Any]) -> None:
        self._target = target
        if self._due:
            target.cancel()

    def end(self) -> None:
        for method in self.METHODS:
            delattr(self._client, method)

    def _counted(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def ask(*args: Any, **options: Any) -> Any:  # noqa: ANN401
            asked = original(*args, **options)
            self._left -= 1
            if self._left == -1:
                if self._at_once:
                    # In the turn after: what is asked for is on its way by then.
                    deferLater(self._client.reactor, 0).addCallback(self._cancel)
                else:
                    answer = asked if isinstance(asked, Deferred) else asked.ready
                    answer.addBoth(self._cancel)
            return asked

        return ask

    def _cancel(self, result: Any) -> Any:  # noqa: ANN401
        if self._target is None:
            self._due = True
        else:
            self._target.cancel()
        return result


# --- giving it back --------------------------------------------------------------------------------------------------


@SESSIONS
@ensureDeferred
async def test_a_release_while_etcd_is_away_fails_and_is_made_up_for(
    proxy: FaultProxy, make_client: MakeClient, client: EtcdClient, prefix: str, *, shared: bool
) -> None:
    proxied = make_client(endpoints=proxy.endpoint, request_timeout=0.5)
    lock = Lock(await holder_of(proxied, shared=shared), prefix + "lock")
    await lock.acquire()
    await proxy.refuse()
    await proxy.reset()
    with pytest.raises((Unavailable, OutcomeUnknown)):
        await soon(lock.release())
    assert not lock.locked
    # Its own session would keep it for a minute.
    assert len(await line_of(client, prefix)) == 1
    await proxy.heal()
    await soon(until_empty(client, prefix))


@SESSIONS
@ensureDeferred
async def test_a_block_that_cannot_give_it_back_at_once_does_not_fail_for_that(
    proxy: FaultProxy, make_client: MakeClient, client: EtcdClient, prefix: str, *, shared: bool
) -> None:
    proxied = make_client(endpoints=proxy.endpoint, request_timeout=0.5)
    lock = Lock(await holder_of(proxied, shared=shared), prefix + "lock")
    async with lock:
        await proxy.refuse()
        await proxy.reset()
    await proxy.heal()
    await soon(until_empty(client, prefix))


@ensureDeferred
async def test_a_release_whose_answer_is_cut_off_harms_nobody_who_comes_after(
    proxy: FaultProxy, make_client: MakeClient, client: EtcdClient, prefix: str
) -> None:
    proxied = make_client(endpoints=proxy.endpoint)
    async with Session(proxied) as session:
        lock = Lock(session, prefix + "lock")
        await lock.acquire()
        Cut(proxied, proxy).next("txn")
        releasing = lock.release()
        # The same session asks for it again at once, and waits for that.
        token = await soon(lock.acquire())
        with pytest.raises(OutcomeUnknown):
            await soon(releasing)
        [kv] = await line_of(client, prefix)
        assert kv.create_revision == token
        await lock.release()


@ensureDeferred
async def test_a_release_that_is_late_does_not_take_what_the_same_session_asks_for_next(
    proxy: FaultProxy, make_client: MakeClient, client: EtcdClient, prefix: str
) -> None:
    proxied = make_client(endpoints=proxy.endpoint)
    async with Session(proxied) as session:
        lock = Lock(session, prefix + "lock")
        await lock.acquire()
        proxy.delay(0.3, "requests")
        releasing = lock.release()
        # It is in the proxy now, and what comes after it is faster.
        await client.get("one round trip")
        proxy.delay(0.0, "requests")
        token = await soon(lock.acquire())
        await soon(releasing)
        [kv] = await line_of(client, prefix)
        assert kv.create_revision == token
        assert (await client.txn([lock.is_owner])).succeeded
        await lock.release()


@ensureDeferred
async def test_a_stop_while_a_release_goes_on_in_the_background_ends_clean(
    proxy: FaultProxy, make_client: MakeClient, client: EtcdClient, prefix: str
) -> None:
    proxied = make_client(endpoints=proxy.endpoint, request_timeout=0.3, stop_timeout=0.3)
    for shared in (True, False):
        lock = Lock(await holder_of(proxied, shared=shared), f"{prefix}{shared}")
        await lock.acquire()
        await proxy.refuse()
        await proxy.reset()
        with pytest.raises((Unavailable, OutcomeUnknown)):
            await soon(lock.release())
        if shared:
            await proxy.heal()
    await soon(proxied.stopService())
    for kv in await line_of(client, prefix):
        await client.lease_revoke(kv.lease)


# --- members ---------------------------------------------------------------------------------------------------------


class Contention:
    """
    Several who want one lock again and again, each with a client of its own.

    :ivar turns: how many there were.
    """

    def __init__(self, cluster: EtcdCluster, name: str) -> None:
        self.turns = 0
        self._name = name
        endpoints = cluster.endpoints
        self._clients = [EtcdClient(reactor, endpoints[n % 3 :] + endpoints[: n % 3]) for n in range(6)]
        self._inside: list[int] = []
        self._tokens: list[int] = []
        self._over = False
        self._turn = Event()

    def begin(self) -> Deferred[Any]:
        return gatherResults([Deferred.fromCoroutine(self._contend(n)) for n in range(len(self._clients))])

    async def until_turns(self, more: int) -> None:
        """So many more."""
        wanted = self.turns + more
        await self._turn.until(lambda: self.turns >= wanted)

    async def end(self, contending: Deferred[Any]) -> None:
        self._over = True
        await soon(contending)
        await gatherResults([client.stopService() for client in self._clients])
        assert self._tokens == sorted(set(self._tokens))

    async def _contend(self, number: int) -> None:
        client = self._clients[number]
        while not self._over:
            lock = Lock(client, self._name, ttl=20)
            try:
                async with lock as token:
                    assert self._inside == []
                    self._inside.append(number)
                    self._tokens.append(token)
                    await client.get(self._name)
                    self.turns += 1
                    self._inside.remove(number)
                    self._turn.happened()
            except (Unavailable, OutcomeUnknown):
                # No session was to be had just then.
                continue


@ONE_VERSION
@pytest.mark.parametrize("fault", ["leader killed", "follower killed", "leader paused", "follower paused"])
@ensureDeferred
async def test_a_member_that_goes_while_many_want_the_lock_lets_no_two_in(
    etcd_cluster: EtcdCluster, prefix: str, fault: str
) -> None:
    who, _, what = fault.partition(" ")
    contention = Contention(etcd_cluster, prefix + "lock")
    contending = contention.begin()
    await contention.until_turns(20)
    leader = await soon(etcd_cluster.leader())
    victim = next(member for member in etcd_cluster.members if (member is leader) is (who == "leader"))
    if what == "killed":
        await victim.kill()
    else:
        victim.pause()
    await contention.until_turns(20)
    if what == "killed":
        await victim.restart()
    else:
        victim.resume()
    await contention.until_turns(20)
    await contention.end(contending)
    async with EtcdClient(reactor, etcd_cluster.endpoints) as client:
        assert await line_of(client, prefix) == []
