"""Key-values, transactions and leases by messages: what the acceptance list leaves out."""

from __future__ import annotations

import pytest
from pytest_twisted import ensureDeferred

from tests.services.world import MakeWorld, World, fails
from tests.wire import soon
from twisted_etcd.client import compare, op
from twisted_etcd.embedded.process import EmbeddedEtcd
from twisted_etcd.errors import EmptyKey, LeaseNotFound, LeaseTTLTooLarge, RequestTooLarge, TooManyOperations
from twisted_etcd.messaging.messages import Request
from twisted_etcd.services.messages import (
    ETCD_SERVICE,
    EtcdBatchGetReq,
    EtcdBatchGetResp,
    EtcdDelReq,
    EtcdGetAllReq,
    EtcdGetAllResp,
    EtcdGetReq,
    EtcdKeyExistReq,
    EtcdLeaseGrantReq,
    EtcdLeaseRevokeReq,
    EtcdListKeysReq,
    EtcdListKeysResp,
    EtcdSetReq,
    EtcdTxnReq,
)

_TOO_LARGE = 1_600_000


@ensureDeferred
async def test_an_empty_value_is_a_value_and_not_a_missing_key(world: World, prefix: str) -> None:
    put = await world.caller.ask(EtcdSetReq(prefix + "k", ""))
    got = await world.caller.ask(EtcdGetReq(prefix + "k"))
    assert (got.value, got.mod_revision) == (b"", put.revision)
    absent = await world.caller.ask(EtcdGetReq(prefix + "none"))
    assert (absent.value, absent.mod_revision) == (None, 0)
    assert (await world.caller.ask(EtcdKeyExistReq(prefix + "k"))).exist
    found = await world.caller.ask(EtcdBatchGetReq((prefix + "k", prefix + "none")))
    assert list(found.kvs.values()) == [b"", None]


@ensureDeferred
async def test_keys_and_values_are_str_or_bytes_and_any_bytes(world: World, prefix: str) -> None:
    key = prefix.encode() + b"\xff\x00\xfe/\xc3"
    value = bytes(range(256))
    await world.caller.ask(EtcdSetReq(key, value))
    assert (await world.caller.ask(EtcdGetReq(key))).value == value
    assert await world.caller.ask(EtcdListKeysReq(prefix)) == EtcdListKeysResp((key,))
    assert await world.caller.ask(EtcdGetAllReq(prefix.encode() + b"\xff")) == EtcdGetAllResp({key: value})
    assert (await world.caller.ask(EtcdDelReq(key))).success

    await world.caller.ask(EtcdSetReq(prefix + "grün", "süß"))
    assert (await world.caller.ask(EtcdGetReq((prefix + "grün").encode()))).value == "süß".encode()


@ensureDeferred
async def test_a_key_that_is_neither_str_nor_bytes_fails_the_call_with_its_type(world: World) -> None:
    error = await fails(TypeError, world.caller.call(ETCD_SERVICE, EtcdGetReq(7)))  # type: ignore[arg-type]
    assert str(error) == "key must be str or bytes, not int"


@ensureDeferred
async def test_a_prefix_has_many_pages_and_nothing_beside_it(world: World, prefix: str) -> None:
    names = [f"{prefix}p{number:05}" for number in range(2500)]
    for start in range(0, len(names), 125):
        await world.client.txn(success=[op.put(name, name[-1]) for name in names[start : start + 125]])
    await world.caller.ask(EtcdSetReq(prefix + "q", "beside it"))
    got = await world.caller.ask(EtcdGetAllReq(prefix + "p"))
    assert list(got.kvs.items()) == [(name.encode(), name[-1].encode()) for name in names]
    listed = await world.caller.ask(EtcdListKeysReq(prefix + "p"))
    assert listed.keys == tuple(name.encode() for name in names)


@ensureDeferred
async def test_nothing_under_a_prefix_and_no_keys_at_all_are_empty_answers(world: World, prefix: str) -> None:
    assert await world.caller.ask(EtcdGetAllReq(prefix)) == EtcdGetAllResp({})
    assert await world.caller.ask(EtcdListKeysReq(prefix)) == EtcdListKeysResp(())
    assert await world.caller.ask(EtcdBatchGetReq(())) == EtcdBatchGetResp({})


@ensureDeferred
async def test_a_batch_names_each_key_once_as_bytes(world: World, prefix: str) -> None:
    await world.caller.ask(EtcdSetReq(prefix + "k", "v"))
    key = (prefix + "k").encode()
    assert await world.caller.ask(EtcdBatchGetReq((prefix + "k", key))) == EtcdBatchGetResp({key: b"v"})


@ensureDeferred
async def test_a_batch_over_etcds_limit_is_refused_as_etcd_refuses_it(world: World, prefix: str) -> None:
    keys = tuple(f"{prefix}{number}" for number in range(129))
    await fails(TooManyOperations, world.caller.call(ETCD_SERVICE, EtcdBatchGetReq(keys)))


# --- transactions ---------------------------------------------------------------------------------------------------


@ensureDeferred
async def test_a_transaction_does_what_its_comparisons_say(world: World, prefix: str) -> None:
    key = prefix + "k"
    create = EtcdTxnReq(
        compare=(compare.create_revision(key, "=", 0),),
        success=(op.put(key, "mine"),),
        failure=(op.get(key),),
    )
    first = await world.caller.ask(create)
    assert first.succeeded
    assert first.revision > 0
    second = await world.caller.ask(create)
    assert not second.succeeded
    [response] = second.responses
    assert response.response_range is not None
    [kv] = response.response_range.kvs
    assert (kv.value, kv.mod_revision) == (b"mine", first.revision)


@ensureDeferred
async def test_a_transaction_within_a_transaction_has_answers_of_its_own(world: World, prefix: str) -> None:
    inner = op.txn(
        [compare.value(prefix + "a", "=", "1")], [op.delete(prefix + "a")], [op.put(prefix + "never", "never")]
    )
    await world.caller.ask(EtcdSetReq(prefix + "a", "1"))
    answer = await world.caller.ask(EtcdTxnReq(success=(op.put(prefix + "b", "2"), inner)))
    assert answer.succeeded
    put, nested = answer.responses
    assert put.response_put is not None
    assert nested.response_txn is not None
    assert nested.response_txn.succeeded
    assert (await world.caller.ask(EtcdListKeysReq(prefix))).keys == ((prefix + "b").encode(),)


# --- leases ---------------------------------------------------------------------------------------------------------


@ensureDeferred
async def test_a_lease_that_is_kept_alive_is_in_the_schedule_until_it_is_revoked(world: World, prefix: str) -> None:
    granted = await world.caller.ask(EtcdLeaseGrantReq(60, keep_alive=True))
    await world.caller.ask(EtcdSetReq(prefix + "k", "v", granted.lease_id))
    assert (await world.caller.ask(EtcdLeaseRevokeReq(granted.lease_id))).success
    assert (await world.caller.ask(EtcdGetReq(prefix + "k"))).value is None
    assert not (await world.caller.ask(EtcdLeaseRevokeReq(granted.lease_id))).success


@ensureDeferred
async def test_leases_that_are_kept_alive_end_with_the_service_and_the_others_do_not(world: World, prefix: str) -> None:
    kept = await world.caller.ask(EtcdLeaseGrantReq(60, keep_alive=True))
    left = await world.caller.ask(EtcdLeaseGrantReq(60))
    await world.caller.ask(EtcdSetReq(prefix + "kept", "", kept.lease_id))
    await world.caller.ask(EtcdSetReq(prefix + "left", "", left.lease_id))
    await soon(world.etcd.stopService())
    keys = [kv.key for kv in (await world.client.get(prefix, prefix=True)).kvs]
    assert keys == [(prefix + "left").encode()]
    await world.client.lease_revoke(left.lease_id)


# --- errors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (EtcdGetReq(""), EmptyKey),
        (EtcdSetReq("", "v"), EmptyKey),
        (EtcdDelReq(b""), EmptyKey),
        (EtcdKeyExistReq(""), EmptyKey),
        (EtcdSetReq("k", "v", 0x5EED), LeaseNotFound),
        (EtcdSetReq("k", b"v" * _TOO_LARGE), RequestTooLarge),
        (EtcdLeaseGrantReq(9_000_000_001), LeaseTTLTooLarge),
    ],
    ids=["get", "set", "delete", "exist", "no such lease", "large value", "long ttl"],
)
@ensureDeferred
async def test_what_etcd_refuses_reaches_the_caller_as_what_it_is(
    world: World, request_: Request[None], error: type[Exception]
) -> None:
    refused = await fails(error, world.caller.call(ETCD_SERVICE, request_))
    assert "vvv" not in str(refused)


@ensureDeferred
async def test_a_service_of_another_name_answers_as_well(
    make_world: MakeWorld, etcd_server: EmbeddedEtcd, prefix: str
) -> None:
    world = await make_world(etcd_server.endpoint, name="second")
    await soon(world.node.call("second", EtcdSetReq(prefix + "k", "v")))
    assert (await soon(world.node.call("second", EtcdGetReq(prefix + "k")))).value == b"v"


@ensureDeferred
async def test_one_key_is_not_taken_for_the_keys_of_its_letters(world: World) -> None:
    error = await fails(TypeError, world.caller.call(ETCD_SERVICE, EtcdBatchGetReq("abc")))  # type: ignore[arg-type]
    assert str(error) == "keys must be a list or a tuple of keys, not str"
