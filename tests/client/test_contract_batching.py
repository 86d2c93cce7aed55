"""Gets and puts that travel together, with a real etcd: what each of them gets, and what etcd has afterwards."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, DeferredList, gatherResults

from tests.client.conftest import MakeClient
from tests.client.users import CHEAP, ROOT, USER, set_up
from tests.etcds import ONE_VERSION, FreshEtcd
from tests.wire import soon
from twisted_etcd.client import op
from twisted_etcd.client.client import EtcdClient
from twisted_etcd.errors import (
    KeyNotFound,
    LeaseNotFound,
    OutcomeUnknown,
    PermissionDenied,
    RequestTooLarge,
    TooManyOperations,
)
from twisted_etcd.gateway.gateway import REQUEST_TIMEOUT
from twisted_etcd.testing.cluster import EtcdCluster
from twisted_etcd.testing.proxy import FaultProxy

MANY = 40


async def outcomes(asking: Sequence[Deferred[Any]]) -> list[Any]:
    """What each was answered, or its error."""
    results = await soon(DeferredList(asking, consumeErrors=True))
    return [result if success else result.value for success, result in results]


def value_of(answer: Any) -> bytes | None:  # noqa: ANN401 - a RangeResponse, or what came in its place
    return answer.kvs[0].value if answer.kvs else None


# --- what they answer -----------------------------------------------------------------------------------------------


@ensureDeferred
async def test_what_travels_together_is_answered_as_if_it_had_travelled_alone(client: EtcdClient, prefix: str) -> None:
    await gatherResults([client.put(f"{prefix}{n}", str(n)) for n in range(MANY)])
    together = await gatherResults([client.get(f"{prefix}{n}") for n in range(MANY + 1)])
    alone = [await client.get(f"{prefix}{n}", batch=False) for n in range(MANY + 1)]
    assert together == alone
    assert [value_of(each) for each in together] == [*[str(n).encode() for n in range(MANY)], None]


@ensureDeferred
async def test_options_hold_for_each_one(client: EtcdClient, prefix: str) -> None:
    lease = await client.lease(60)
    await gatherResults([client.put(f"{prefix}{n}", str(n)) for n in range(3)])
    plain, with_lease, before, ignoring = await gatherResults(
        [
            client.put(prefix + "0", "new"),
            client.put(prefix + "1", "new", lease=lease.id),
            client.put(prefix + "2", "new", prev_kv=True),
            client.put(prefix + "3", "new"),
        ]
    )
    assert before.prev_kv is not None
    assert before.prev_kv.value == b"2"
    assert plain.prev_kv is with_lease.prev_kv is ignoring.prev_kv is None
    read = await gatherResults(
        [
            client.get(prefix + "0", keys_only=True),
            client.get(prefix + "1"),
            client.get(prefix + "2", count_only=True),
            client.get(prefix + "3", min_mod_revision=before.header.revision + 100),
        ]
    )
    assert read[0].kvs[0].value == b""
    assert read[1].kvs[0].lease == lease.id
    assert (read[2].count, read[2].kvs) == (1, ())
    assert read[3].kvs == ()


@ensureDeferred
async def test_puts_that_travelled_together_share_a_revision(client: EtcdClient, prefix: str) -> None:
    answers = await gatherResults([client.put(f"{prefix}{n}", "v") for n in range(MANY)])
    revisions = [answer.header.revision for answer in answers]
    assert len(set(revisions)) < MANY
    found = await client.get(prefix, prefix=True)
    assert {kv.key.decode(): kv.mod_revision for kv in found.kvs} == {
        f"{prefix}{n}": revision for n, revision in enumerate(revisions)
    }


@ensureDeferred
async def test_without_batching_each_put_has_a_revision_of_its_own(make_client: MakeClient, prefix: str) -> None:
    for client, options in ((make_client(batch=False), {}), (make_client(), {"batch": False})):
        answers = await gatherResults([client.put(f"{prefix}{n}", "v", **options) for n in range(MANY)])
        assert len({answer.header.revision for answer in answers}) == MANY
        assert client.connection_count > 10


@ensureDeferred
async def test_few_connections_carry_many_requests(client: EtcdClient, prefix: str) -> None:
    await gatherResults([client.get(f"{prefix}{n}") for n in range(1000)])
    assert client.connection_count < 10


@ensureDeferred
async def test_ranges_and_the_past_are_read_beside_them(client: EtcdClient, prefix: str) -> None:
    first = await client.put(prefix + "k", "1")
    await client.put(prefix + "k", "2")
    now, then, all_of_it = await gatherResults(
        [
            client.get(prefix + "k"),
            client.get(prefix + "k", revision=first.header.revision),
            client.get(prefix, prefix=True),
        ]
    )
    assert [value_of(each) for each in (now, then, all_of_it)] == [b"2", b"1", b"2"]


# --- one key --------------------------------------------------------------------------------------------------------


@ensureDeferred
async def test_of_many_puts_to_one_key_the_last_one_stays(client: EtcdClient, prefix: str) -> None:
    answers = await gatherResults([client.put(prefix + "k", str(n)) for n in range(MANY)])
    revisions = [answer.header.revision for answer in answers]
    assert revisions == sorted(set(revisions))
    [kv] = (await client.get(prefix + "k")).kvs
    assert (kv.value, kv.version) == (str(MANY - 1).encode(), MANY)


@pytest.mark.parametrize("seed", range(8))
@ensureDeferred
async def test_puts_to_each_key_are_applied_in_their_order(client: EtcdClient, prefix: str, seed: int) -> None:
    chance = random.Random(seed)
    keys = [prefix + chance.choice("abcdefgh"[: seed + 1]) for _ in range(200)]
    answers = await soon(gatherResults([client.put(key, str(number)) for number, key in enumerate(keys)]))
    for key in set(keys):
        mine = [number for number, each in enumerate(keys) if each == key]
        revisions = [answers[number].header.revision for number in mine]
        assert revisions == sorted(set(revisions))
        [kv] = (await client.get(key)).kvs
        assert (kv.value, kv.version) == (str(mine[-1]).encode(), len(mine))


# --- refused as a whole ---------------------------------------------------------------------------------------------


@ensureDeferred
async def test_a_dead_lease_fails_the_one_put_that_names_it(client: EtcdClient, prefix: str) -> None:
    answers = await outcomes([client.put(f"{prefix}{n}", "v", lease=0x7777 if n == 17 else 0) for n in range(MANY)])
    assert [n for n, answer in enumerate(answers) if isinstance(answer, LeaseNotFound)] == [17]
    found = await client.get(prefix, prefix=True, keys_only=True)
    assert found.count == MANY - 1


@ensureDeferred
async def test_a_put_that_needs_a_key_fails_alone_where_there_is_none(client: EtcdClient, prefix: str) -> None:
    answers = await outcomes(
        [client.put(f"{prefix}{n}", "" if n == 5 else "v", ignore_value=n == 5) for n in range(MANY)]
    )
    assert [n for n, answer in enumerate(answers) if isinstance(answer, KeyNotFound)] == [5]


@ensureDeferred
async def test_a_value_over_the_servers_limit_fails_alone(client: EtcdClient, prefix: str) -> None:
    answers = await outcomes([client.put(f"{prefix}{n}", "v" * (1_600_000 if n == 11 else 10)) for n in range(MANY)])
    assert [n for n, answer in enumerate(answers) if isinstance(answer, RequestTooLarge)] == [11]
    assert (await client.get(prefix, prefix=True, keys_only=True)).count == MANY - 1


@ensureDeferred
async def test_values_that_are_large_together_are_all_put_and_read(client: EtcdClient, prefix: str) -> None:
    # 12 MB: over what older gateways answer at once, and in several batches for its size.
    large = "v" * 300_000
    await gatherResults([client.put(f"{prefix}{n}", large, timeout=30) for n in range(MANY)])
    answers = await gatherResults([client.get(f"{prefix}{n}", timeout=30) for n in range(MANY)])
    assert {value_of(answer) for answer in answers} == {large.encode()}


@ensureDeferred
async def test_a_server_that_takes_few_operations_gets_few(fresh_etcd: FreshEtcd, make_client: MakeClient) -> None:
    server = await fresh_etcd(extra_args=("--max-txn-ops=8",))
    client = make_client(endpoints=server.endpoint)
    with pytest.raises(TooManyOperations):
        await client.txn(success=[op.get("k")] * 9)
    for _ in range(2):
        await gatherResults([client.put(f"{n}", str(n)) for n in range(3 * MANY)])
        answers = await gatherResults([client.get(f"{n}") for n in range(3 * MANY)])
        assert [value_of(answer) for answer in answers] == [str(n).encode() for n in range(3 * MANY)]


@ensureDeferred
async def test_a_key_without_permission_fails_alone(fresh_etcd: FreshEtcd, make_client: MakeClient) -> None:
    server = await fresh_etcd(extra_args=(CHEAP,))
    await set_up(server)
    client = make_client(endpoints=server.endpoint, **USER)
    keys = [f"/other/{n}" if n in {7, 8, 30} else f"/test/{n}" for n in range(MANY)]
    for asking in ([client.put(key, key) for key in keys], [client.get(key) for key in keys]):
        answers = await outcomes(asking)
        assert [n for n, answer in enumerate(answers) if isinstance(answer, PermissionDenied)] == [7, 8, 30]
    as_root = make_client(endpoints=server.endpoint, **ROOT)
    assert (await as_root.get("/test/", prefix=True)).count == MANY - 3
    assert (await as_root.get("/other/", prefix=True)).count == 0


# --- serializable beside linearizable -------------------------------------------------------------------------------


@ONE_VERSION
@ensureDeferred
async def test_serializable_reads_are_answered_where_linearizable_ones_wait(
    etcd_cluster: EtcdCluster, prefix: str
) -> None:
    first, *others = etcd_cluster.members
    async with EtcdClient(reactor, etcd_cluster.endpoints) as client:
        await gatherResults([client.put(f"{prefix}{n}", "v") for n in range(MANY)])
    # Without most of its members, the cluster answers nothing that must be up to date.
    for member in others:
        member.pause()
    async with EtcdClient(reactor, first.endpoint) as client:
        waiting = [client.get(f"{prefix}{n}", timeout=60) for n in range(MANY)]
        at_once = [client.get(f"{prefix}{n}", timeout=60, serializable=True) for n in range(MANY)]
        answers = await soon(gatherResults(at_once))
        assert [value_of(answer) for answer in answers] == [b"v"] * MANY
        assert not any(each.called for each in waiting)
        for member in others:
            member.resume()
        answers = await gatherResults(waiting)
        assert [value_of(answer) for answer in answers] == [b"v"] * MANY


# --- cancelled, and cut off -----------------------------------------------------------------------------------------


@ensureDeferred
async def test_who_is_cancelled_spoils_nothing_for_the_others(client: EtcdClient, prefix: str) -> None:
    putting = [client.put(f"{prefix}{n}", str(n)) for n in range(MANY)]
    for each in putting[::3]:
        each.cancel()
    answers = await outcomes(putting)
    assert [isinstance(each, CancelledError) for each in answers] == [n % 3 == 0 for n in range(MANY)]
    kept = await gatherResults([client.get(f"{prefix}{n}") for n in range(MANY) if n % 3])
    assert [value_of(each) for each in kept] == [str(n).encode() for n in range(MANY) if n % 3]


@ensureDeferred
async def test_a_batch_whose_answer_is_lost_may_have_been_applied_and_each_is_told(
    proxy: FaultProxy, make_client: MakeClient, client: EtcdClient, prefix: str
) -> None:
    through = make_client(endpoints=proxy.endpoint, request_timeout=60)
    now = (await through.get(prefix)).header.revision
    proxy.swallow("answers")
    first = through.put(prefix + "first", "v")
    putting = [through.put(f"{prefix}{n}", str(n)) for n in range(MANY)]
    following = through.put(prefix + "0", "again")
    # The answers do not come through, so the puts are seen to be applied by somebody else.
    async with client.watch(prefix, prefix=True, start_revision=now + 1) as watch:
        seen: set[bytes] = set()
        while len(seen) < MANY + 1:
            seen |= {event.kv.key for event in (await soon(watch.next())).events}
    assert not following.called
    # An answer may be on its way still.
    proxy.reset()
    await proxy.heal()
    told = await outcomes([first, *putting])
    assert [type(each) for each in told] == [OutcomeUnknown] * (MANY + 1)
    assert len(set(map(id, told))) == MANY + 1
    # What waited for its key goes once it is known that nothing is known.
    assert (await soon(following)).header.revision > 0
    assert value_of(await client.get(prefix + "0")) == b"again"


@ensureDeferred
async def test_reads_whose_answer_is_lost_are_read_again(
    proxy: FaultProxy, make_client: MakeClient, client: EtcdClient, prefix: str
) -> None:
    await gatherResults([client.put(f"{prefix}{n}", str(n)) for n in range(MANY)])
    through = make_client(endpoints=proxy.endpoint, request_timeout=REQUEST_TIMEOUT * 4)
    await through.get(prefix)
    broken = proxy.next_connection()
    proxy.cut_after(500)
    getting = [through.get(f"{prefix}{n}") for n in range(MANY)]
    await soon(broken)
    await proxy.heal()
    answers = await soon(gatherResults(getting))
    assert [value_of(each) for each in answers] == [str(n).encode() for n in range(MANY)]
