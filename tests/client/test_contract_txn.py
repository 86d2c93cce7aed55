"""Transactions: what every server and every stand-in for one must do."""

from __future__ import annotations

from typing import Any

import pytest
from pytest_twisted import ensureDeferred

from twisted_etcd.client import compare, op
from twisted_etcd.client.client import EtcdClient
from twisted_etcd.errors import DuplicateKey, EmptyKey, LeaseNotFound, TooManyOperations
from twisted_etcd.schema.kv import Compare, ResponseOp, SortOrder, TxnResponse

OPERATORS: tuple[Any, ...] = ("=", "!=", "<", ">")


def holds(operator: str, found: Any, wanted: Any) -> bool:  # noqa: ANN401
    return bool({"=": found == wanted, "!=": found != wanted, "<": found < wanted, ">": found > wanted}[operator])


def values_of(response: ResponseOp) -> list[bytes]:
    assert response.response_range is not None
    return [kv.value for kv in response.response_range.kvs]


async def is_true(client: EtcdClient, *comparisons: Compare) -> bool:
    return (await client.txn(comparisons)).succeeded


@ensureDeferred
async def test_where_all_comparisons_hold_the_first_operations_are_done(client: EtcdClient, prefix: str) -> None:
    await client.put(prefix + "k", "v")
    done = await client.txn(
        [compare.value(prefix + "k", "=", "v"), compare.version(prefix + "k", ">", 0)],
        [op.get(prefix + "k"), op.put(prefix + "k", "w", prev_kv=True), op.delete(prefix + "absent")],
        [op.put(prefix + "k", "failed")],
    )
    assert done.succeeded
    got, put, deleted = done.responses
    assert values_of(got) == [b"v"]
    assert put.response_put is not None
    assert put.response_put.prev_kv is not None
    assert put.response_put.prev_kv.value == b"v"
    assert deleted.response_delete_range is not None
    assert deleted.response_delete_range.deleted == 0
    [kv] = (await client.get(prefix + "k")).kvs
    assert (kv.value, kv.mod_revision) == (b"w", done.header.revision)


@ensureDeferred
async def test_where_one_comparison_fails_the_other_operations_are_done(client: EtcdClient, prefix: str) -> None:
    await client.put(prefix + "k", "v")
    done = await client.txn(
        [compare.value(prefix + "k", "=", "v"), compare.value(prefix + "k", "=", "w")],
        [op.put(prefix + "k", "succeeded")],
        [op.get(prefix + "k")],
    )
    assert not done.succeeded
    assert [values_of(response) for response in done.responses] == [[b"v"]]
    assert (await client.get(prefix + "k")).kvs[0].value == b"v"


@ensureDeferred
async def test_without_comparisons_the_first_operations_are_done_at_one_revision(
    client: EtcdClient, prefix: str
) -> None:
    done = await client.txn(success=[op.put(f"{prefix}{n}", str(n)) for n in range(5)])
    assert done.succeeded
    kvs = (await client.get(prefix, prefix=True)).kvs
    assert {kv.mod_revision for kv in kvs} == {done.header.revision}
    assert len(kvs) == 5


@ensureDeferred
async def test_an_empty_transaction_succeeds(client: EtcdClient) -> None:
    assert await client.txn() == TxnResponse(header=(await client.txn()).header, succeeded=True)


@ensureDeferred
async def test_each_target_is_compared_with_each_operator(client: EtcdClient, prefix: str) -> None:
    lease = await client.lease(60)
    created = (await client.put(prefix + "k", "m")).header.revision
    changed = (await client.put(prefix + "k", "m", lease=lease.id)).header.revision
    key = prefix + "k"
    for operator in OPERATORS:
        for step in (-1, 0, 1):
            for make, found in (
                (compare.version, 2),
                (compare.create_revision, created),
                (compare.mod_revision, changed),
                (compare.lease, lease.id),
            ):
                comparison = make(key, operator, found + step)
                assert await is_true(client, comparison) is holds(operator, 0, step), comparison
        for value in (b"", b"l\xff", b"m", b"m\x00", b"n"):
            assert await is_true(client, compare.value(key, operator, value)) is holds(operator, b"m", value), value


@ensureDeferred
async def test_a_key_that_is_not_there_compares_as_zero(client: EtcdClient, prefix: str) -> None:
    key = prefix + "absent"
    for make in (compare.version, compare.create_revision, compare.mod_revision, compare.lease):
        assert await is_true(client, make(key, "=", 0)), make
        assert not await is_true(client, make(key, ">", 0)), make
    # And no comparison of its value holds.
    for operator in OPERATORS:
        assert not await is_true(client, compare.value(key, operator, ""))


@ensureDeferred
async def test_a_comparison_of_a_range_must_hold_for_every_key_of_it(client: EtcdClient, prefix: str) -> None:
    for key, value in (("a", "1"), ("b", "2"), ("c", "3")):
        await client.put(prefix + key, value)
    assert await is_true(client, compare.value(prefix, ">", "0", prefix=True))
    assert not await is_true(client, compare.value(prefix, ">", "1", prefix=True))
    assert await is_true(client, compare.value(prefix + "b", ">", "1", range_end=prefix + "d"))
    assert await is_true(client, compare.version(prefix + "a", "=", 1, range_end=prefix + "d"))
    assert not await is_true(client, compare.create_revision(prefix + "c", "=", 1, from_key=True))


@ensureDeferred
async def test_a_key_is_made_only_where_it_is_not_there(client: EtcdClient, prefix: str) -> None:
    async def make(value: str) -> bool:
        absent = compare.create_revision(prefix + "k", "=", 0)
        return (await client.txn([absent], [op.put(prefix + "k", value)])).succeeded

    assert await make("first")
    assert not await make("second")
    assert (await client.get(prefix + "k")).kvs[0].value == b"first"


@ensureDeferred
async def test_transactions_nest(client: EtcdClient, prefix: str) -> None:
    await client.put(prefix + "k", "v")
    done = await client.txn(
        success=[
            op.txn(
                [compare.value(prefix + "k", "=", "other")],
                [op.put(prefix + "then", "")],
                [
                    op.put(prefix + "else", "1"),
                    op.txn(success=[op.get(prefix + "k"), op.put(prefix + "deep", "2")]),
                ],
            ),
            op.get(prefix + "k", count_only=True),
        ]
    )
    outer, counted = done.responses
    assert counted.response_range is not None
    assert counted.response_range.count == 1
    nested = outer.response_txn
    assert nested is not None
    assert not nested.succeeded
    deep = nested.responses[1].response_txn
    assert deep is not None
    assert deep.succeeded
    assert values_of(deep.responses[0]) == [b"v"]
    kvs = (await client.get(prefix, prefix=True)).kvs
    assert [(kv.key.decode().removeprefix(prefix), kv.mod_revision) for kv in kvs if kv.value != b"v"] == [
        ("deep", done.header.revision),
        ("else", done.header.revision),
    ]


@ensureDeferred
async def test_operations_take_the_options_of_the_clients_methods(client: EtcdClient, prefix: str) -> None:
    lease = await client.lease(60)
    for key in "abc":
        await client.put(prefix + key, key)
    done = await client.txn(
        success=[
            op.get(prefix, prefix=True, sort_order=SortOrder.DESCEND, limit=2),
            op.put(prefix + "d", "d", lease=lease.id),
            op.delete(prefix + "a", range_end=prefix + "c", prev_kv=True),
        ]
    )
    got, _, deleted = done.responses
    assert values_of(got) == [b"c", b"b"]
    assert deleted.response_delete_range is not None
    assert [kv.value for kv in deleted.response_delete_range.prev_kvs] == [b"a", b"b"]
    assert (await client.get(prefix + "d")).kvs[0].lease == lease.id


@ensureDeferred
async def test_a_transaction_that_cannot_be_done_changes_nothing(client: EtcdClient, prefix: str) -> None:
    with pytest.raises(DuplicateKey):
        await client.txn(success=[op.put(prefix + "k", "1"), op.put(prefix + "k", "2")])
    with pytest.raises(TooManyOperations) as raised:
        await client.txn(success=[op.put(f"{prefix}{n}", "") for n in range(129)])
    assert "--max-txn-ops" in str(raised.value)
    with pytest.raises(LeaseNotFound):
        await client.txn(success=[op.put(prefix + "a", ""), op.put(prefix + "b", "", lease=12345)])
    with pytest.raises(EmptyKey):
        await client.txn(success=[op.get("")])
    with pytest.raises(EmptyKey):
        await client.txn([compare.version("", "=", 0)])
    assert (await client.get(prefix, prefix=True)).count == 0
