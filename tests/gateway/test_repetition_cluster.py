"""What etcd's own errors are worth: writes and what became of them while the cluster cannot, or will not, take them."""

from __future__ import annotations

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, gatherResults

from tests.etcds import FreshEtcd
from tests.gateway.conftest import MakeGateway
from tests.gateway.witnesses import Writer, read_until
from tests.wire import PATIENCE, soon
from twisted_etcd.errors import OutcomeUnknown
from twisted_etcd.schema import rpcs
from twisted_etcd.schema.kv import PutRequest, RangeRequest
from twisted_etcd.testing.cluster import EtcdCluster

#: Seconds for a write that nobody can confirm.
BRIEFLY = 1.0


@pytest_twisted.ensureDeferred
async def test_a_write_without_a_quorum_is_of_unknown_outcome_and_can_be_applied_much_later(
    etcd_cluster: EtcdCluster, make_gateway: MakeGateway, prefix: str
) -> None:
    key = prefix.encode()
    leader = await etcd_cluster.leader()
    one, other = (member for member in etcd_cluster.members if member is not leader)
    gateway = make_gateway(leader.direct_endpoint, request_timeout=PATIENCE)
    # A leader that has just come may still be about to move: it leads now.
    await soon(gateway.unary(rpcs.PUT, PutRequest(key=key + b"before")))
    await gatherResults([one.kill(), other.kill()])
    with pytest.raises(OutcomeUnknown):
        await soon(gateway.unary(rpcs.PUT, PutRequest(key=key), timeout=BRIEFLY))
    # It stands in the log of a member that the other one cannot outvote.
    await soon(one.restart())
    found = await soon(gateway.unary(rpcs.RANGE, RangeRequest(key=key), timeout=PATIENCE))
    assert [pair.version for pair in found.kvs] == [1]


@pytest_twisted.ensureDeferred
async def test_while_the_leader_moves_no_read_fails_and_every_write_is_told_truly(
    etcd_cluster: EtcdCluster, make_gateway: MakeGateway, prefix: str
) -> None:
    orders = [(*etcd_cluster.endpoints[start:], *etcd_cluster.endpoints[:start]) for start in range(3)]
    gateways = [make_gateway(*endpoints, request_timeout=PATIENCE) for endpoints in orders]
    # A write that one member sends to another is lost where that one is just ceasing to lead.
    impatient = [make_gateway(*endpoints, request_timeout=BRIEFLY) for endpoints in orders]
    writers = [Writer(impatient[number % 3], b"%s%d" % (prefix.encode(), number)) for number in range(6)]
    over: list[bool] = []
    working = [Deferred.fromCoroutine(writer.write_until(lambda: bool(over))) for writer in writers]
    working += [Deferred.fromCoroutine(read_until(gateway, lambda: bool(over))) for gateway in gateways]
    for _ in range(4):
        await etcd_cluster.move_leader()
    over.append(True)
    await soon(gatherResults(working))
    for writer in writers:
        await soon(Deferred.fromCoroutine(writer.check(gateways[0])))


@pytest_twisted.ensureDeferred
async def test_when_the_database_is_full_what_was_answered_so_and_applied_all_the_same_is_of_unknown_outcome(
    fresh_etcd: FreshEtcd, make_gateway: MakeGateway
) -> None:
    etcd = await fresh_etcd(extra_args=("--quota-backend-bytes=8388608",))
    gateway = make_gateway(etcd.endpoint, request_timeout=PATIENCE)
    writers = [Writer(gateway, b"w%d" % number, b"v" * 500_000) for number in range(24)]
    for _ in range(2):
        await soon(gatherResults([Deferred.fromCoroutine(writer.write()) for writer in writers]))
    for writer in writers:
        await writer.check(gateway)
    assert OutcomeUnknown in {what for writer in writers for what in writer.told.values()}
