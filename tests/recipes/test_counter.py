"""Counters on real etcds: exact among many, honest in trouble."""

from __future__ import annotations

from typing import Any, cast

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.task import Clock

from tests.client.conftest import MakeClient
from tests.messaging.common import failure_of, result_of
from tests.scripted import ScriptedClient, found, header, kv
from tests.wire import soon
from twisted_etcd.client.client import EtcdClient
from twisted_etcd.errors import DeadlineExceeded, NotACounter, OutcomeUnknown, ServiceStopped
from twisted_etcd.recipes.counter import Counter
from twisted_etcd.schema.kv import ResponseOp, TxnResponse
from twisted_etcd.testing.proxy import FaultProxy

IN_MEMORY_TOO = True
CLOCK = cast("Any", reactor)


def put_at(revision: int) -> TxnResponse:
    return TxnResponse(header=header(revision), succeeded=True)


def there_is(value: str, revision: int) -> TxnResponse:
    answer = found(revision, kv("n", value, revision))
    return TxnResponse(header=header(revision), responses=(ResponseOp(response_range=answer),))


@ensureDeferred
async def test_a_number_that_is_not_there_is_zero_and_is_written_as_text(client: EtcdClient, prefix: str) -> None:
    counter = Counter(client, prefix)
    assert await counter.value() == 0
    assert await counter.add() == 1
    assert await counter.add(41) == 42
    assert (await client.get(prefix)).kvs[0].value == b"42"
    assert await counter.add(-43) == -1
    assert await counter.value() == -1
    await counter.set(7)
    assert await counter.add() == 8
    await counter.reset()
    assert await counter.value() == 0
    await client.put(prefix, "+0012")
    assert await counter.add() == 13


@ensureDeferred
async def test_what_many_add_at_a_time_is_all_there(make_client: MakeClient, prefix: str) -> None:
    counters = [Counter(make_client(), prefix) for _ in range(4)]
    given = await soon(gatherResults([counter.add(1) for _ in range(50) for counter in counters]))
    # Each got a number of its own.
    assert sorted(given) == list(range(1, 201))
    assert await counters[0].value() == 200


@ensureDeferred
async def test_what_is_no_number_is_left_as_it_is(client: EtcdClient, prefix: str) -> None:
    await client.put(prefix, "secret")
    counter = Counter(client, prefix)
    for asking in (counter.value(), counter.add(), counter.add()):
        with pytest.raises(NotACounter, match="holds 6 bytes that are no whole number in decimal") as raised:
            await asking
        assert "secret" not in str(raised.value)
    assert (await client.get(prefix)).kvs[0].value == b"secret"
    await counter.set(5)
    assert await counter.add() == 6


@ensureDeferred
async def test_an_addition_that_was_not_confirmed_is_unknown_and_the_next_ones_are_exact(
    make_client: MakeClient, client: EtcdClient, proxy: FaultProxy, prefix: str
) -> None:
    counter = Counter(make_client(endpoints=proxy.endpoint), prefix)
    assert await counter.add() == 1
    proxy.cut_after(0)
    adding = counter.add(10)
    with pytest.raises(OutcomeUnknown, match="may have been added to, or may yet be: look before you add again"):
        await soon(adding)
    await proxy.heal()
    before = int((await client.get(prefix)).kvs[0].value)
    assert before in (1, 11)
    assert await soon(counter.add()) == before + 1


@ensureDeferred
async def test_a_client_that_stops_ends_its_additions(make_client: MakeClient, proxy: FaultProxy, prefix: str) -> None:
    client = make_client(endpoints=proxy.endpoint)
    counter = Counter(client, prefix)
    proxy.swallow()
    adding = gatherResults([counter.add(), counter.add()], consumeErrors=True)
    await soon(client.stopService())
    with pytest.raises(Exception, match="stopped") as raised:
        await soon(adding)
    assert isinstance(cast("Any", raised.value).subFailure.value, ServiceStopped)
    await proxy.heal()


def test_what_comes_while_others_are_under_way_travels_together() -> None:
    clock = Clock()
    etcd = ScriptedClient(clock)
    counter = Counter(etcd.client, "n")
    first = counter.add(1)
    etcd.take("get").answer.callback(found(5, kv("n", "10", 4)))
    under_way = etcd.take("txn")
    later = [counter.add(2), counter.add(3)]
    under_way.answer.callback(put_at(6))
    assert result_of(first) == 11
    together = etcd.take("txn")
    [operation] = together.options["success"]
    assert operation.request_put.value == b"16"
    assert [each.mod_revision for each in together.options["compare"]] == [6]
    together.answer.callback(put_at(7))
    assert [result_of(each) for each in later] == [13, 16]
    assert (etcd.asked, clock.getDelayedCalls()) == ([], [])


def test_after_a_conflict_it_adds_to_what_came_with_it_and_after_the_next_it_waits() -> None:
    clock = Clock()
    etcd = ScriptedClient(clock)
    adding = Counter(etcd.client, "n", random=lambda: 1.0).add(1)
    etcd.take("get").answer.callback(found(5))
    first = etcd.take("txn")
    assert [each.mod_revision for each in first.options["compare"]] == [0]
    first.answer.callback(there_is("7", 6))
    second = etcd.take("txn")
    assert second.options["success"][0].request_put.value == b"8"
    second.answer.callback(there_is("9", 8))
    assert etcd.asked == []
    clock.advance(0.01)
    etcd.take("get").answer.callback(found(8, kv("n", "9", 8)))
    etcd.take("txn").answer.callback(put_at(9))
    assert result_of(adding) == 10
    assert clock.getDelayedCalls() == []


def test_the_time_of_an_addition_is_bounded_and_it_says_whether_it_was_sent() -> None:
    clock = Clock()
    etcd = ScriptedClient(clock)
    counter = Counter(etcd.client, "n", timeout=3)
    unsent = counter.add()
    clock.advance(3)
    assert "was not added to within 3 s, and will not be" in str(failure_of(unsent, DeadlineExceeded))
    etcd.take("get").answer.callback(found(5))
    sent = counter.add()
    etcd.take("get").answer.callback(found(5))
    under_way = etcd.take("txn")
    late = counter.add()
    clock.advance(3)
    assert "may have been, or may yet be: look before" in str(failure_of(sent, OutcomeUnknown))
    failure_of(late, DeadlineExceeded)
    under_way.answer.callback(put_at(6))
    assert (etcd.asked, clock.getDelayedCalls()) == ([], [])


def test_one_that_is_cancelled_before_it_was_sent_is_not_made() -> None:
    clock = Clock()
    etcd = ScriptedClient(clock)
    counter = Counter(etcd.client, "n")
    gone, kept = counter.add(100), counter.add(1)
    gone.cancel()
    failure_of(gone, CancelledError)
    etcd.take("get").answer.callback(found(5))
    sent = etcd.take("txn")
    assert sent.options["success"][0].request_put.value == b"1"
    kept.cancel()
    failure_of(kept, CancelledError)
    # It may be applied, and what comes next counts on that only when it is so.
    sent.answer.callback(there_is("5", 6))
    assert (etcd.asked, clock.getDelayedCalls()) == ([], [])
    again: Deferred[int] = counter.add(1)
    etcd.take("txn").answer.callback(put_at(7))
    assert result_of(again) == 6


def test_what_cannot_be_counted_is_named() -> None:
    counter = Counter(ScriptedClient().client, "n")
    assert repr(counter) == "<Counter b'n'>"
    for use in (counter.add, counter.set):
        with pytest.raises(TypeError, match="must be an int, not float"):
            use(cast("Any", 1.5))
    with pytest.raises(ValueError, match="timeout must be more than 0 seconds, and finite, not -1"):
        Counter(ScriptedClient().client, "n", timeout=-1)
