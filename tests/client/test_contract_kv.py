"""Key-values: what every server and every stand-in for one must do."""

from __future__ import annotations

from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import gatherResults

from twisted_etcd.client.client import EtcdClient
from twisted_etcd.errors import (
    Compacted,
    EmptyKey,
    EtcdError,
    FutureRevision,
    LeaseNotFound,
    LeaseProvided,
    RequestTooLarge,
    ValueProvided,
)
from twisted_etcd.schema.kv import KeyValue, RangeResponse, SortOrder, SortTarget


def keys_of(response: RangeResponse) -> list[bytes]:
    return [kv.key for kv in response.kvs]


def short_keys(response: RangeResponse, prefix: str) -> str:
    return "".join(kv.key.decode().removeprefix(prefix) for kv in response.kvs)


async def fill(client: EtcdClient, prefix: str, keys: str = "abcde") -> list[int]:
    """Puts one-letter keys with their letters as values; their revisions."""
    return [(await client.put(prefix + key, key)).header.revision for key in keys]


# --- put and get ----------------------------------------------------------------------------------------------------


@ensureDeferred
async def test_what_was_put_comes_back_as_bytes_and_numbers(client: EtcdClient, prefix: str) -> None:
    put = await client.put(prefix + "k", "grüße")
    got = await client.get(prefix + "k")
    [kv] = got.kvs
    assert kv == KeyValue(
        key=(prefix + "k").encode(),
        value="grüße".encode(),
        create_revision=put.header.revision,
        mod_revision=put.header.revision,
        version=1,
    )
    assert (got.count, got.more) == (1, False)
    assert got.header.revision == put.header.revision
    assert got.header.cluster_id != 0


@ensureDeferred
async def test_a_key_that_is_not_there_is_an_empty_answer(client: EtcdClient, prefix: str) -> None:
    got = await client.get(prefix + "absent")
    assert (got.kvs, got.count, got.more) == ((), 0, False)


@ensureDeferred
async def test_an_empty_value_is_a_value(client: EtcdClient, prefix: str) -> None:
    await client.put(prefix + "k", "")
    got = await client.get(prefix + "k")
    assert got.count == 1
    assert got.kvs[0].value == b""


@ensureDeferred
async def test_every_byte_is_kept_in_keys_and_values(client: EtcdClient, prefix: str) -> None:
    key = prefix.encode() + bytes(range(256))
    value = bytes(reversed(range(256))) * 3
    await client.put(key, value)
    [kv] = (await client.get(key)).kvs
    assert (kv.key, kv.value) == (key, value)


@ensureDeferred
async def test_bytearrays_and_memoryviews_are_bytes(client: EtcdClient, prefix: str) -> None:
    key: Any = bytearray((prefix + "k").encode())
    value: Any = memoryview(b"v")
    await client.put(key, value)
    assert (await client.get(prefix + "k")).kvs[0].value == b"v"


@ensureDeferred
async def test_each_put_counts_the_version_and_keeps_the_creation(client: EtcdClient, prefix: str) -> None:
    first = await client.put(prefix + "k", "1")
    second = await client.put(prefix + "k", "2")
    [kv] = (await client.get(prefix + "k")).kvs
    assert kv.version == 2
    assert kv.create_revision == first.header.revision
    assert kv.mod_revision == second.header.revision


@ensureDeferred
async def test_prev_kv_of_a_put_is_what_was_there_before(client: EtcdClient, prefix: str) -> None:
    assert (await client.put(prefix + "k", "1", prev_kv=True)).prev_kv is None
    before = (await client.put(prefix + "k", "2", prev_kv=True)).prev_kv
    assert before is not None
    assert before.value == b"1"
    assert (await client.put(prefix + "k", "3")).prev_kv is None


@ensureDeferred
async def test_a_put_attaches_a_lease_and_the_next_one_takes_it_off(client: EtcdClient, prefix: str) -> None:
    lease = await client.lease(60)
    await client.put(prefix + "k", "1", lease=lease.id)
    assert (await client.get(prefix + "k")).kvs[0].lease == lease.id
    await client.put(prefix + "k", "2")
    assert (await client.get(prefix + "k")).kvs[0].lease == 0


@ensureDeferred
async def test_ignore_lease_keeps_the_lease_and_changes_the_value(client: EtcdClient, prefix: str) -> None:
    lease = await client.lease(60)
    await client.put(prefix + "k", "1", lease=lease.id)
    await client.put(prefix + "k", "2", ignore_lease=True)
    [kv] = (await client.get(prefix + "k")).kvs
    assert (kv.value, kv.lease) == (b"2", lease.id)
    with pytest.raises(LeaseProvided):
        await client.put(prefix + "k", "3", ignore_lease=True, lease=lease.id)


@ensureDeferred
async def test_ignore_value_keeps_the_value_and_changes_the_lease(client: EtcdClient, prefix: str) -> None:
    lease = await client.lease(60)
    await client.put(prefix + "k", "1")
    await client.put(prefix + "k", b"", ignore_value=True, lease=lease.id)
    [kv] = (await client.get(prefix + "k")).kvs
    assert (kv.value, kv.lease) == (b"1", lease.id)
    with pytest.raises(ValueProvided):
        await client.put(prefix + "k", "2", ignore_value=True)


@ensureDeferred
async def test_a_hundred_puts_and_gets_at_a_time_each_get_their_own_answer(client: EtcdClient, prefix: str) -> None:
    await gatherResults([client.put(f"{prefix}{n}", str(n)) for n in range(100)])
    got = await gatherResults([client.get(f"{prefix}{n}") for n in range(100)])
    assert [response.kvs[0].value for response in got] == [str(n).encode() for n in range(100)]


# --- which keys -----------------------------------------------------------------------------------------------------


@ensureDeferred
async def test_a_prefix_reads_all_keys_that_begin_with_it(client: EtcdClient, prefix: str) -> None:
    await fill(client, prefix)
    got = await client.get(prefix, prefix=True)
    assert short_keys(got, prefix) == "abcde"
    assert got.count == 5


@pytest.mark.parametrize(
    ("start", "inside", "outside"),
    [
        (b"a\xff", [b"a\xff", b"a\xff\x00", b"a\xff\xff"], [b"a", b"a\xfe", b"b", b"b\xff"]),
        (b"a", [b"a", b"a\x00", b"a\xff\xff"], [b"b", b"`\xff"]),
        (b"\xff\xff", [b"\xff\xff", b"\xff\xff\xff"], [b"\xff", b"\xff\xfe\xff"]),
        (b"\x00", [b"\x00", b"\x00\x00", b"\x00\xff"], [b"\x01"]),
    ],
    ids=["a-ff", "a", "ff-ff", "00"],
)
@ensureDeferred
async def test_a_prefix_end_is_exact_for_every_byte(
    client: EtcdClient, prefix: str, start: bytes, inside: list[bytes], outside: list[bytes]
) -> None:
    # What is nothing but \xff can have nothing before it: those keys stand at the end of the key space.
    base = b"" if start.startswith(b"\xff") else prefix.encode()
    for key in inside + outside:
        await client.put(base + key, "v")
    try:
        assert keys_of(await client.get(base + start, prefix=True)) == sorted(base + key for key in inside)
        deleted = await client.delete(base + start, prefix=True)
        assert deleted.deleted == len(inside)
        for key in outside:
            assert (await client.get(base + key, count_only=True)).count == 1
    finally:
        for key in outside:
            await client.delete(base + key)


@ensureDeferred
async def test_an_empty_prefix_means_all_keys(client: EtcdClient, prefix: str) -> None:
    await fill(client, prefix)
    await client.put(b"\x00", "the first key there can be")
    everything = await client.get("", prefix=True, keys_only=True)
    assert keys_of(everything)[0] == b"\x00"
    assert set(keys_of(everything)) >= {(prefix + key).encode() for key in "abcde"}
    assert keys_of(await client.get("", from_key=True, keys_only=True)) == keys_of(everything)
    await client.delete(b"\x00")


@ensureDeferred
async def test_from_key_reads_the_key_and_all_behind_it(client: EtcdClient, prefix: str) -> None:
    await fill(client, prefix)
    got = await client.get(prefix + "c", from_key=True)
    keys = keys_of(got)
    assert keys[:3] == [(prefix + key).encode() for key in "cde"]
    assert keys == sorted(keys)


@ensureDeferred
async def test_range_end_is_not_in_the_range(client: EtcdClient, prefix: str) -> None:
    await fill(client, prefix)
    assert short_keys(await client.get(prefix + "b", range_end=prefix + "d"), prefix) == "bc"
    assert short_keys(await client.get(prefix + "b", range_end=(prefix + "d").encode()), prefix) == "bc"
    assert (await client.get(prefix + "d", range_end=prefix + "b")).count == 0


# --- how a range is read --------------------------------------------------------------------------------------------


@ensureDeferred
async def test_a_limit_says_how_much_there_is_beyond_it(client: EtcdClient, prefix: str) -> None:
    await fill(client, prefix)
    got = await client.get(prefix, prefix=True, limit=2)
    assert (short_keys(got, prefix), got.more, got.count) == ("ab", True, 5)
    got = await client.get(prefix, prefix=True, limit=5)
    assert (short_keys(got, prefix), got.more, got.count) == ("abcde", False, 5)


@ensureDeferred
async def test_a_range_is_sorted_by_each_target_both_ways(client: EtcdClient, prefix: str) -> None:
    # Made in the order b, c, a; changed in the order c, a, b; most often changed is a; the lowest value is b's.
    for key, value in [("b", "0"), ("c", "0"), ("a", "0"), ("a", "1"), ("c", "3"), ("a", "2"), ("b", "1")]:
        await client.put(prefix + key, value)
    orders = {
        SortTarget.KEY: "abc",
        SortTarget.CREATE: "bca",
        SortTarget.MOD: "cab",
        SortTarget.VALUE: "bac",
    }
    for target, order in orders.items():
        up = await client.get(prefix, prefix=True, sort_target=target, sort_order=SortOrder.ASCEND)
        down = await client.get(prefix, prefix=True, sort_target=target, sort_order=SortOrder.DESCEND)
        assert (short_keys(up, prefix), short_keys(down, prefix)) == (order, order[::-1]), target
    up = await client.get(prefix, prefix=True, sort_target=SortTarget.VERSION, sort_order=SortOrder.ASCEND)
    down = await client.get(prefix, prefix=True, sort_target=SortTarget.VERSION, sort_order=SortOrder.DESCEND)
    assert [kv.version for kv in up.kvs] == [2, 2, 3]
    assert [kv.version for kv in down.kvs] == [3, 2, 2]
    newest = await client.get(prefix, prefix=True, sort_target=SortTarget.MOD, sort_order=SortOrder.DESCEND, limit=1)
    assert short_keys(newest, prefix) == "b"


@ensureDeferred
async def test_a_revision_reads_what_was_there_then(client: EtcdClient, prefix: str) -> None:
    first, *_ = await fill(client, prefix, "a")
    await client.put(prefix + "a", "later")
    await client.delete(prefix + "a")
    assert (await client.get(prefix + "a", revision=first)).kvs[0].value == b"a"
    assert (await client.get(prefix + "a", revision=first + 1)).kvs[0].value == b"later"
    assert (await client.get(prefix + "a", revision=first + 2)).count == 0
    with pytest.raises(FutureRevision) as raised:
        await client.get(prefix + "a", revision=first + 1_000_000)
    assert "is a future revision" in str(raised.value)


@ensureDeferred
async def test_a_serializable_read_answers_too(client: EtcdClient, prefix: str) -> None:
    await fill(client, prefix)
    assert short_keys(await client.get(prefix, prefix=True, serializable=True), prefix) == "abcde"


@ensureDeferred
async def test_keys_only_leaves_the_values_out(client: EtcdClient, prefix: str) -> None:
    await fill(client, prefix)
    got = await client.get(prefix, prefix=True, keys_only=True)
    assert short_keys(got, prefix) == "abcde"
    assert {kv.value for kv in got.kvs} == {b""}
    assert all(kv.mod_revision for kv in got.kvs)


@ensureDeferred
async def test_count_only_leaves_all_else_out(client: EtcdClient, prefix: str) -> None:
    await fill(client, prefix)
    got = await client.get(prefix, prefix=True, count_only=True)
    assert (got.count, got.kvs) == (5, ())


@ensureDeferred
async def test_each_revision_bound_leaves_out_what_is_beyond_it(client: EtcdClient, prefix: str) -> None:
    revisions = await fill(client, prefix)
    changed = (await client.put(prefix + "a", "again")).header.revision

    async def read(**bounds: Any) -> str:  # noqa: ANN401
        return short_keys(await client.get(prefix, prefix=True, **bounds), prefix)

    assert await read(min_create_revision=revisions[3]) == "de"
    assert await read(max_create_revision=revisions[1]) == "ab"
    assert await read(min_mod_revision=revisions[3]) == "ade"
    assert await read(min_mod_revision=changed) == "a"
    assert await read(max_mod_revision=revisions[2]) == "bc"
    assert await read(min_create_revision=revisions[1], max_create_revision=revisions[3]) == "bcd"
    assert await read(min_mod_revision=revisions[2], max_mod_revision=revisions[3], max_create_revision=1) == ""


# --- delete ---------------------------------------------------------------------------------------------------------


@ensureDeferred
async def test_delete_says_how_many_keys_there_were(client: EtcdClient, prefix: str) -> None:
    await fill(client, prefix)
    assert (await client.delete(prefix + "a")).deleted == 1
    assert (await client.delete(prefix + "a")).deleted == 0
    assert (await client.delete(prefix + "b", range_end=prefix + "d")).deleted == 2
    assert short_keys(await client.get(prefix, prefix=True), prefix) == "de"
    assert (await client.delete(prefix, prefix=True)).deleted == 2
    assert (await client.get(prefix, prefix=True)).count == 0


@ensureDeferred
async def test_delete_of_a_range_brings_what_was_there(client: EtcdClient, prefix: str) -> None:
    await fill(client, prefix)
    gone = await client.delete(prefix, prefix=True, prev_kv=True)
    assert [(kv.key.decode().removeprefix(prefix), kv.value) for kv in gone.prev_kvs] == [
        (key, key.encode()) for key in "abcde"
    ]


@ensureDeferred
async def test_delete_from_a_key_takes_all_behind_it(client: EtcdClient) -> None:
    # At the end of the key space, so that nothing of anybody else's is behind it.
    for key in (b"\xff", b"\xff\x01", b"\xff\xff"):
        await client.put(key, "v")
    assert (await client.delete(b"\xff\x01", from_key=True)).deleted == 2
    assert (await client.delete(b"\xff", from_key=True, prev_kv=True)).prev_kvs[0].key == b"\xff"


@ensureDeferred
async def test_get_after_delete_finds_nothing_and_a_new_put_begins_anew(client: EtcdClient, prefix: str) -> None:
    await client.put(prefix + "k", "1")
    await client.put(prefix + "k", "2")
    await client.delete(prefix + "k")
    assert (await client.get(prefix + "k")).count == 0
    again = await client.put(prefix + "k", "3")
    [kv] = (await client.get(prefix + "k")).kvs
    assert (kv.version, kv.create_revision) == (1, again.header.revision)


# --- compaction -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("physical", [False, True])
@ensureDeferred
async def test_what_was_compacted_can_be_read_no_more(client: EtcdClient, prefix: str, physical: bool) -> None:  # noqa: FBT001
    first, second, third = await fill(client, prefix, "aaa")
    compacted = await client.compact(second, physical=physical)
    assert compacted.header.revision == third
    with pytest.raises(Compacted) as raised:
        await client.get(prefix + "a", revision=first)
    assert "required revision has been compacted" in str(raised.value)
    assert (await client.get(prefix + "a", revision=second)).kvs[0].version == 2
    with pytest.raises(Compacted):
        await client.compact(first)
    with pytest.raises(FutureRevision):
        await client.compact(third + 1_000_000)


# --- bad input ------------------------------------------------------------------------------------------------------


@ensureDeferred
async def test_an_empty_key_is_named_with_what_to_do(client: EtcdClient) -> None:
    for asking in (client.get(""), client.put("", "v"), client.delete(b"")):
        with pytest.raises(EmptyKey) as raised:
            await asking
        assert raised.value.code == 3
        assert "key is not provided" in str(raised.value)
        assert "give a key that is not empty" in str(raised.value)


@ensureDeferred
async def test_a_value_over_the_servers_limit_is_refused_and_the_client_goes_on(
    client: EtcdClient, prefix: str
) -> None:
    with pytest.raises(RequestTooLarge) as raised:
        await client.put(prefix + "k", b"x" * (1536 * 1024 + 100))
    assert "raise the server's --max-request-bytes" in str(raised.value)
    # Far beyond it, what refuses is in front of etcd, and has other words.
    with pytest.raises(RequestTooLarge) as raised:
        await client.put(prefix + "k", b"x" * (3 * 1024 * 1024))
    assert "raise the server's --max-request-bytes" in str(raised.value)
    assert (await client.get(prefix + "k")).count == 0


@ensureDeferred
async def test_a_put_with_an_unknown_lease_is_refused(client: EtcdClient, prefix: str) -> None:
    with pytest.raises(LeaseNotFound) as raised:
        await client.put(prefix + "k", "v", lease=12345)
    assert "grant a new lease" in str(raised.value)


@ensureDeferred
async def test_ignore_options_need_the_key_to_be_there(client: EtcdClient, prefix: str) -> None:
    for putting in (
        client.put(prefix + "absent", b"", ignore_value=True),
        client.put(prefix + "absent", b"v", ignore_lease=True),
    ):
        with pytest.raises(EtcdError, match="key not found"):
            await putting
