"""Transactions as functions, on real etcds: what each isolation promises, and what becomes of them in trouble."""

from __future__ import annotations

import random
from collections.abc import Generator
from typing import Any, cast

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, gatherResults, inlineCallbacks
from twisted.internet.task import Clock

from tests.client.conftest import MakeClient
from tests.messaging.common import failure_of, result_of
from tests.scripted import ScriptedClient, found, header, kv
from tests.wire import soon
from twisted_etcd.client import op
from twisted_etcd.client.client import EtcdClient
from twisted_etcd.errors import (
    Compacted,
    DeadlineExceeded,
    FutureRevision,
    OutcomeUnknown,
    TooManyConflicts,
    TooManyOperations,
)
from twisted_etcd.recipes.footprint import Isolation
from twisted_etcd.recipes.stm import Committed, Transaction, stm
from twisted_etcd.schema.kv import CompareResult, CompareTarget, ResponseOp, TxnResponse
from twisted_etcd.testing.proxy import FaultProxy

IN_MEMORY_TOO = True
CLOCK = cast("Any", reactor)
STRICT = [Isolation.SERIALIZABLE_SNAPSHOT, Isolation.SERIALIZABLE]


async def value_of(client: EtcdClient, key: str) -> bytes | None:
    kvs = (await client.get(key)).kvs
    return kvs[0].value if kvs else None


# --- the functions --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("isolation", Isolation)
@ensureDeferred
async def test_what_a_function_writes_is_applied_at_one_revision(
    client: EtcdClient, prefix: str, isolation: Isolation
) -> None:
    await client.put(prefix + "a", "1")
    await client.put(prefix + "gone", "x")

    async def function(transaction: Transaction) -> str:
        assert await transaction.get(prefix + "a") == b"1"
        assert await transaction.get(prefix + "absent") is None
        transaction.put(prefix + "a", "2")
        transaction.put(prefix + "b", "3")
        transaction.delete(prefix + "gone")
        assert await transaction.get_many([prefix + "a", prefix + "gone", prefix + "absent"]) == {
            (prefix + "a").encode(): b"2",
            (prefix + "gone").encode(): None,
            (prefix + "absent").encode(): None,
        }
        return "done"

    committed = await stm(client, function, isolation=isolation)
    assert (committed.result, committed.attempts) == ("done", 1)
    # It may be a value of a key.
    assert repr(committed) == f"Committed(result=<hidden>, revision={committed.revision}, attempts=1)"
    kvs = (await client.get(prefix, prefix=True)).kvs
    assert [(each.value, each.mod_revision) for each in kvs] == [
        (b"2", committed.revision),
        (b"3", committed.revision),
    ]


@ensureDeferred
async def test_a_function_may_be_plain_or_of_inline_callbacks_or_give_a_deferred(
    client: EtcdClient, prefix: str
) -> None:
    def plain(transaction: Transaction) -> int:
        transaction.put(prefix + "plain", "1")
        return 5

    @inlineCallbacks
    def inline(transaction: Transaction) -> Generator[Deferred[Any], Any, bytes]:
        value: bytes = yield transaction.get(prefix + "plain")
        transaction.put(prefix + "inline", value + b"!")
        return value

    def chained(transaction: Transaction) -> Deferred[bytes | None]:
        return transaction.get(prefix + "inline")

    assert (await stm(client, plain)).result == 5
    assert (await stm(client, inline)).result == b"1"
    assert (await stm(client, chained)).result == b"1!"


@ensureDeferred
async def test_a_function_that_raises_ends_it_and_nothing_is_applied(client: EtcdClient, prefix: str) -> None:
    async def function(transaction: Transaction) -> None:
        transaction.put(prefix + "k", "never")
        await transaction.get(prefix + "k")
        raise LookupError(prefix)

    with pytest.raises(LookupError, match=prefix):
        await stm(client, function)
    assert await value_of(client, prefix + "k") is None


@ensureDeferred
async def test_a_transaction_is_of_no_use_after_its_function(client: EtcdClient, prefix: str) -> None:
    kept: list[Transaction] = []
    await stm(client, kept.append)
    for use in (
        lambda: kept[0].get(prefix),
        lambda: kept[0].rev(prefix),
        lambda: kept[0].put(prefix, ""),
        lambda: kept[0].delete(prefix),
    ):
        with pytest.raises(RuntimeError, match="only inside the function"):
            cast("Any", use)()


@ensureDeferred
async def test_rev_is_that_of_the_last_change_and_is_read_too(client: EtcdClient, prefix: str) -> None:
    put = await client.put(prefix + "k", "1")

    async def function(transaction: Transaction) -> tuple[int, int]:
        transaction.put(prefix + "k", "2")
        return await transaction.rev(prefix + "k"), await transaction.rev(prefix + "absent")

    assert (await stm(client, function)).result == (put.header.revision, 0)


@ensureDeferred
async def test_a_put_takes_a_lease_or_keeps_the_one_there_is(client: EtcdClient, prefix: str) -> None:
    lease = await client.lease(60)
    await stm(client, lambda transaction: transaction.put(prefix + "k", "1", lease=lease.id))
    await stm(client, lambda transaction: transaction.put(prefix + "k", "2", ignore_lease=True))
    [each] = (await client.get(prefix + "k")).kvs
    assert (each.value, each.lease) == (b"2", lease.id)


@ensureDeferred
async def test_more_than_etcd_takes_is_its_own_error(client: EtcdClient, prefix: str) -> None:
    def function(transaction: Transaction) -> None:
        for number in range(129):
            transaction.put(f"{prefix}{number}", "")

    with pytest.raises(TooManyOperations, match="--max-txn-ops"):
        await stm(client, function)
    assert (await client.get(prefix, prefix=True)).count == 0


@ensureDeferred
async def test_what_cannot_be_meant_is_named(client: EtcdClient) -> None:
    function: Any = lambda _: None  # noqa: E731
    for error, words, arguments in (
        (TypeError, "function must be a function that takes a Transaction, not str", {"function": "f"}),
        (TypeError, "isolation must be one of Isolation, not str", {"isolation": "serializable"}),
        (ValueError, "attempts must be at least 1, or None for any number, not 0", {"attempts": 0}),
        (ValueError, "timeout must be more than 0 seconds, and finite, or None for any time, not 0", {"timeout": 0}),
        (TypeError, "prefetch must be a list of keys, not str", {"prefetch": "k"}),
        (TypeError, "a key of prefetch must be str or bytes, not int", {"prefetch": [5]}),
    ):
        with pytest.raises(error, match=words):
            cast("Any", stm)(client, **{"function": function, **arguments})


# --- isolation ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("isolation", [*STRICT, Isolation.REPEATABLE_READS])
@ensureDeferred
async def test_money_that_is_moved_by_many_stays_the_same_in_all(
    make_client: MakeClient, proxy: FaultProxy, prefix: str, isolation: Isolation
) -> None:
    accounts = [f"{prefix}{number}" for number in range(5)]
    clients = [make_client(endpoints=proxy.endpoint, random=lambda: 0.0) for _ in range(4)]
    chance = random.Random(7)
    for account in accounts:
        await clients[0].put(account, "100")
    proxy.delay(0.002)

    async def move(client: EtcdClient) -> int:
        unknown = 0
        for _ in range(12):
            giver, taker = chance.sample(accounts, 2)
            amount = chance.randint(1, 150)

            async def function(
                transaction: Transaction, giver: str = giver, taker: str = taker, amount: int = amount
            ) -> None:
                has = int(await transaction.get(giver) or b"")
                if has >= amount:
                    transaction.put(giver, str(has - amount))
                    transaction.put(taker, str(int(await transaction.get(taker) or b"") + amount))

            try:
                await stm(client, function, isolation=isolation, random=chance.random)
            except OutcomeUnknown as error:
                assert "read what it writes before you run it again" in str(error)  # noqa: PT017
                unknown += 1
        return unknown

    def cut(_: object = None) -> None:
        # In the midst of it, connections break.
        proxy.reset()

    moving = gatherResults([Deferred.fromCoroutine(move(each)) for each in clients])
    cuts = [CLOCK.callLater(0.1 * number, cut) for number in range(1, 4)]
    await soon(moving)
    for each in cuts:
        if each.active():
            each.cancel()
    await proxy.heal()
    values = [int(await value_of(clients[0], account) or b"") for account in accounts]
    assert sum(values) == 500
    assert min(values) >= 0


async def skew(first: EtcdClient, second: EtcdClient, prefix: str, isolation: Isolation) -> int:
    """Two doctors go off duty, each since the other is on: how many are left."""
    for doctor in "ab":
        await first.put(prefix + doctor, "on")
    both_have_read: list[Deferred[None]] = [Deferred(), Deferred()]

    async def leave(client: EtcdClient, me: str, number: int) -> None:
        async def function(transaction: Transaction) -> None:
            on = [doctor for doctor in "ab" if await transaction.get(prefix + doctor) == b"on"]
            if not both_have_read[number].called:
                both_have_read[number].callback(None)
            await gatherResults([_again(each) for each in both_have_read])
            if len(on) == 2:
                transaction.put(prefix + me, "off")

        await stm(client, function, isolation=isolation)

    await soon(
        gatherResults([Deferred.fromCoroutine(leave(first, "a", 0)), Deferred.fromCoroutine(leave(second, "b", 1))])
    )
    return [await value_of(first, prefix + doctor) for doctor in "ab"].count(b"on")


def _again(deferred: Deferred[None]) -> Deferred[None]:
    again: Deferred[None] = Deferred()
    deferred.addCallback(again.callback)
    return again


@pytest.mark.parametrize(
    ("isolation", "left"),
    [
        (Isolation.SERIALIZABLE_SNAPSHOT, 1),
        (Isolation.SERIALIZABLE, 1),
        (Isolation.REPEATABLE_READS, 1),
        (Isolation.READ_COMMITTED, 0),
    ],
)
@ensureDeferred
async def test_only_where_nothing_is_compared_do_writes_skew(
    make_client: MakeClient, prefix: str, isolation: Isolation, left: int
) -> None:
    assert await skew(make_client(), make_client(), prefix, isolation) == left


@pytest.mark.parametrize("isolation", Isolation)
@ensureDeferred
async def test_what_is_written_without_reading_is_compared_by_the_strictest_alone(
    client: EtcdClient, prefix: str, isolation: Isolation
) -> None:
    runs = 0

    async def function(transaction: Transaction) -> None:
        nonlocal runs
        runs += 1
        await transaction.get(prefix + "read")
        if runs == 1:
            await client.put(prefix + "written", "by somebody else")
        transaction.put(prefix + "written", "by it")

    await stm(client, function, isolation=isolation)
    assert runs == (2 if isolation is Isolation.SERIALIZABLE_SNAPSHOT else 1)
    assert await value_of(client, prefix + "written") == b"by it"


@pytest.mark.parametrize(
    ("isolation", "torn"),
    [
        (Isolation.SERIALIZABLE_SNAPSHOT, False),
        (Isolation.SERIALIZABLE, False),
        (Isolation.REPEATABLE_READS, True),
        (Isolation.READ_COMMITTED, True),
    ],
)
@ensureDeferred
async def test_an_attempt_sees_one_revision_where_it_is_said_so(
    client: EtcdClient, prefix: str, isolation: Isolation, *, torn: bool
) -> None:
    seen: list[tuple[bytes | None, bytes | None]] = []

    async def change(value: str) -> None:
        await client.txn(success=[op.put(prefix + "a", value), op.put(prefix + "b", value)])

    async def function(transaction: Transaction) -> None:
        before = await transaction.get(prefix + "a")
        if not seen:
            await change("2")
        seen.append((before, await transaction.get(prefix + "b")))

    await change("1")
    await stm(client, function, isolation=isolation)
    assert seen[0] == (b"1", b"2" if torn else b"1")
    # What was read together is compared, but where nothing is.
    assert seen[1:] == ([] if isolation is Isolation.READ_COMMITTED else [(b"2", b"2")])


@pytest.mark.parametrize("isolation", Isolation)
@ensureDeferred
async def test_a_key_is_read_once(client: EtcdClient, prefix: str, isolation: Isolation) -> None:
    await client.put(prefix + "k", "1")
    seen: list[bytes | None] = []

    async def function(transaction: Transaction) -> None:
        seen.append(await transaction.get(prefix + "k"))
        await client.put(prefix + "k", "2")
        seen.append(await transaction.get(prefix + "k"))

    with pytest.raises(TooManyConflicts) if isolation is not Isolation.READ_COMMITTED else _nothing():
        await stm(client, function, isolation=isolation, attempts=1)
    assert seen == [b"1", b"1"]


class _nothing:  # noqa: N801 - as pytest.raises
    def __enter__(self) -> None:
        """Nothing is raised."""

    def __exit__(self, *_: object) -> None:
        """Nothing was."""


@ensureDeferred
async def test_reads_at_a_time_see_one_revision(client: EtcdClient, prefix: str) -> None:
    async def write() -> None:
        for number in range(30):
            await client.txn(success=[op.put(prefix + key, str(number)) for key in "abcd"])

    async def function(transaction: Transaction) -> list[bytes | None]:
        return await gatherResults([transaction.get(prefix + key) for key in "abcd"])

    writing = Deferred.fromCoroutine(write())
    while not writing.called:
        assert len(set((await stm(client, function)).result)) == 1
    await writing


# --- again and again ------------------------------------------------------------------------------------------------


@ensureDeferred
async def test_attempts_that_are_in_conflict_each_time_end_with_an_error(client: EtcdClient, prefix: str) -> None:
    async def function(transaction: Transaction) -> None:
        await transaction.get(prefix + "k")
        await client.put(prefix + "k", "somebody else's")
        transaction.put(prefix + "k", "its")

    with pytest.raises(TooManyConflicts, match="not applied: others came between in 3 attempts; allow") as raised:
        await stm(client, function, attempts=3)
    assert raised.value.attempts == 3
    assert await value_of(client, prefix + "k") == b"somebody else's"


@ensureDeferred
async def test_the_time_is_bounded(client: EtcdClient, prefix: str) -> None:
    async def function(transaction: Transaction) -> None:
        await transaction.get(prefix + "k")
        await client.put(prefix + "k", "somebody else's")

    with pytest.raises(DeadlineExceeded, match=r"not applied within 0.2 s, in \d+ attempts, of which others came"):
        await soon(stm(client, function, timeout=0.2))

    def waits(_: Transaction) -> Deferred[None]:
        return waiting

    cancelled: list[Deferred[None]] = []
    waiting: Deferred[None] = Deferred(cancelled.append)
    with pytest.raises(DeadlineExceeded, match="in 1 attempt, of which others came between 0"):
        await soon(stm(client, waits, timeout=0.05))
    assert cancelled == [waiting]


@ensureDeferred
async def test_a_compaction_between_its_reads_makes_it_begin_anew(client: EtcdClient, prefix: str) -> None:
    await client.put(prefix + "a", "1")
    runs = 0

    async def function(transaction: Transaction) -> bytes | None:
        nonlocal runs
        runs += 1
        await transaction.get(prefix + "a")
        if runs == 1:
            last = await client.put(prefix + "a", "2")
            await client.compact(last.header.revision)
        await transaction.get(prefix + "b")
        return await transaction.get(prefix + "a")

    committed = await stm(client, function)
    assert (committed.result, committed.attempts) == (b"2", 2)


@ensureDeferred
async def test_it_is_not_run_again_where_nobody_knows_whether_it_was_applied(
    make_client: MakeClient, proxy: FaultProxy, prefix: str
) -> None:
    client = make_client(endpoints=proxy.endpoint, request_timeout=0.5)
    runs = 0

    async def function(transaction: Transaction) -> None:
        nonlocal runs
        runs += 1
        transaction.put(prefix + "k", await transaction.get(prefix + "k") or b"1")
        proxy.swallow("answers")

    with pytest.raises(OutcomeUnknown, match="may have been applied, or may yet be: read what it writes before"):
        await soon(stm(client, function))
    await proxy.heal()
    assert runs == 1
    runs = 0
    with pytest.raises(OutcomeUnknown, match=r"not confirmed within 0.2 s; it may have been applied"):
        await soon(stm(client, function, timeout=0.2))
    await proxy.heal()
    assert runs == 1


@ensureDeferred
async def test_one_that_only_reads_is_repeated_through_a_break(
    make_client: MakeClient, proxy: FaultProxy, prefix: str
) -> None:
    client = make_client(endpoints=proxy.endpoint)
    await client.put(prefix + "k", "1")

    async def function(transaction: Transaction) -> bytes | None:
        value = await transaction.get(prefix + "k")
        await proxy.reset()
        return value

    assert (await soon(stm(client, function))).result == b"1"


# --- what is asked of etcd ------------------------------------------------------------------------------------------


def conflict(revision: int, *kvs: tuple[str, str, int]) -> TxnResponse:
    return TxnResponse(
        header=header(revision),
        responses=tuple(ResponseOp(response_range=found(revision, kv(*each))) for each in kvs),
    )


def test_what_is_compared_is_what_was_read_and_for_the_strictest_what_is_written() -> None:
    etcd = ScriptedClient()

    async def function(transaction: Transaction) -> None:
        await transaction.get("a")
        await transaction.get("b")
        transaction.put("w", "1")
        transaction.put("a", "2")

    for isolation in Isolation:
        running = stm(etcd.client, function, isolation=isolation)
        for key, answer in (("a", found(7, kv("a", "", 5))), ("b", found(9))):
            asked = etcd.take("get")
            assert asked.args == (key.encode(),)
            strict = isolation in STRICT
            assert asked.options == {
                "revision": 7 if strict and key == "b" else 0,
                "serializable": key == "b" or not strict,
            }
            asked.answer.callback(answer)
        asked = etcd.take("txn")
        conditions, operations, rereads = (asked.options[each] for each in ("compare", "success", "failure"))
        assert all(each.target is CompareTarget.MOD for each in conditions)
        read = [(b"a", CompareResult.EQUAL, 5), (b"b", CompareResult.EQUAL, 0)]
        written = [(b"w", CompareResult.LESS, 8), (b"a", CompareResult.LESS, 8)]
        assert [(each.key, each.result, each.mod_revision) for each in conditions] == {
            Isolation.SERIALIZABLE_SNAPSHOT: read + written,
            Isolation.SERIALIZABLE: read,
            Isolation.REPEATABLE_READS: read,
            Isolation.READ_COMMITTED: [],
        }[isolation]
        assert operations == [op.put("w", "1"), op.put("a", "2")]
        assert rereads == ([op.get("a"), op.get("b")] if strict else [])
        asked.answer.callback(TxnResponse(header=header(12), succeeded=True))
        assert result_of(running) == Committed(None, 12, 1)


def test_the_second_attempt_reads_what_came_with_the_conflict_and_the_third_waits_and_asks_anew() -> None:
    clock = Clock()
    etcd = ScriptedClient(clock)
    seen: list[bytes | None] = []

    async def function(transaction: Transaction) -> None:
        seen.append(await transaction.get("a"))
        transaction.put("a", "mine")

    running = stm(etcd.client, function, random=lambda: 1.0, timeout=None)
    etcd.take("get").answer.callback(found(7, kv("a", "1", 5)))
    etcd.take("txn").answer.callback(conflict(9, ("a", "2", 8)))
    # At once, and without a further read.
    second = etcd.take("txn")
    assert [each.mod_revision for each in second.options["compare"]] == [8, 10]
    second.answer.callback(conflict(11, ("a", "3", 10)))
    assert etcd.asked == []
    clock.advance(0.02)
    etcd.take("get").answer.callback(found(15, kv("a", "4", 14)))
    third = etcd.take("txn")
    assert [each.mod_revision for each in third.options["compare"]] == [14, 16]
    third.answer.callback(TxnResponse(header=header(16), succeeded=True))
    assert result_of(running) == Committed(None, 16, 3)
    assert seen == [b"1", b"2", b"4"]


def test_what_is_read_in_any_case_is_read_in_one_request() -> None:
    etcd = ScriptedClient()

    async def function(transaction: Transaction) -> list[bytes | None]:
        return [await transaction.get(key) for key in ("a", "b")]

    running = stm(etcd.client, function, prefetch=["a", b"b"])
    asked = etcd.take("txn")
    assert asked.options == {"success": [op.get("a"), op.get("b")]}
    asked.answer.callback(
        TxnResponse(
            header=header(5),
            succeeded=True,
            responses=(
                ResponseOp(response_range=found(5, kv("a", "1", 2))),
                ResponseOp(response_range=found(5, kv("b", "2", 3))),
            ),
        )
    )
    etcd.take("txn").answer.callback(TxnResponse(header=header(5), succeeded=True))
    assert cast("Committed[Any]", result_of(running)).result == [b"1", b"2"]


def test_a_member_that_is_behind_is_not_believed_and_not_an_error() -> None:
    etcd = ScriptedClient()

    async def function(transaction: Transaction) -> bytes | None:
        await transaction.get("a")
        return await transaction.get("b")

    running = stm(etcd.client, function)
    etcd.take("get").answer.callback(found(7, kv("a", "1", 5)))
    etcd.take("get").fails(FutureRevision(11, "mvcc: required revision is a future revision"))
    asked = etcd.take("get")
    assert asked.options == {"revision": 7, "serializable": False}
    asked.answer.callback(found(8, kv("b", "2", 6)))
    etcd.take("txn").answer.callback(TxnResponse(header=header(8), succeeded=True))
    assert cast("Committed[Any]", result_of(running)).result == b"2"


def test_what_a_function_makes_of_a_compaction_does_not_matter() -> None:
    etcd = ScriptedClient()
    runs = 0

    async def function(transaction: Transaction) -> None:
        nonlocal runs
        runs += 1
        await transaction.get("a")
        try:
            await transaction.get("b")
        except Compacted:
            transaction.put("b", "it was not there")

    running = stm(etcd.client, function, timeout=None)
    etcd.take("get").answer.callback(found(7))
    etcd.take("get").fails(Compacted(11, "mvcc: required revision has been compacted", 9))
    assert etcd.take("get").options["revision"] == 0
    running.addErrback(lambda failure: failure.trap(CancelledError) and None)
    running.cancel()
    assert runs == 2


def test_one_that_is_cancelled_asks_no_more() -> None:
    clock = Clock()
    etcd = ScriptedClient(clock)

    async def function(transaction: Transaction) -> None:
        await transaction.get("a")

    running = stm(etcd.client, function)
    asked = etcd.take("get")
    running.cancel()
    assert asked.cancelled
    failure_of(running, CancelledError)
    assert (clock.getDelayedCalls(), etcd.asked) == ([], [])
