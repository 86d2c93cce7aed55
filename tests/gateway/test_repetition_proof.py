"""What each stage at which a request can be cut off comes to: what real etcds saw is read from themselves."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import pytest_twisted
import treq
from twisted.internet.defer import Deferred

from tests.etcds import http_client
from tests.gateway.conftest import MakeGateway, MakeProxy
from tests.wire import soon
from twisted_etcd.embedded.process import EmbeddedEtcd
from twisted_etcd.errors import EtcdError, OutcomeUnknown, RequestFailed
from twisted_etcd.gateway.gateway import Gateway
from twisted_etcd.schema import rpcs
from twisted_etcd.schema.auth import AuthRoleDeleteRequest, AuthUserDeleteRequest, AuthUserListRequest
from twisted_etcd.schema.cluster import MemberListRequest, MemberRemoveRequest
from twisted_etcd.schema.common import Message
from twisted_etcd.schema.kv import (
    CompactionRequest,
    DeleteRangeRequest,
    PutRequest,
    RangeRequest,
    RequestOp,
    TxnRequest,
)
from twisted_etcd.schema.lease import (
    LeaseGrantRequest,
    LeaseLeasesRequest,
    LeaseRevokeRequest,
    LeaseTimeToLiveRequest,
)
from twisted_etcd.schema.maintenance import AlarmAction, AlarmRequest, DefragmentRequest, HashRequest, StatusRequest
from twisted_etcd.schema.rpcs import RPC
from twisted_etcd.testing.connections import Direction, ProxiedConnection
from twisted_etcd.testing.proxy import FaultProxy

#: An id of a lease or a member that is not there; as long as those that the tests give.
NOBODY = 0x7000_0000_0000_0000
#: Bytes of an answer that are certainly in its head, and bytes of its end that are certainly in its body.
IN_HEAD, IN_BODY = 20, 20


class Kind(NamedTuple):
    """A kind of request; ``make`` takes a number of its own, and all that it makes are of one length."""

    name: str
    rpc: RPC[Any, Any]
    make: Callable[[int], Message]

    @property
    def method(self) -> str:
        return self.rpc.name.split(".")[1]


def put(number: int) -> PutRequest:
    return PutRequest(key=b"/proof/%06d" % number, value=b"written")


def get(number: int) -> RangeRequest:
    return RangeRequest(key=b"/proof/%06d" % number)


#: What is done again wherever it was cut off. Those that name somebody who is not there get an error for an answer.
REPEATED = (
    Kind("read", rpcs.RANGE, get),
    Kind("serializable read", rpcs.RANGE, lambda number: RangeRequest(key=b"/proof/%06d" % number, serializable=True)),
    Kind("transaction of reads", rpcs.TXN, lambda n: TxnRequest(success=(RequestOp(request_range=get(n)),))),
    Kind("revocation", rpcs.LEASE_REVOKE, lambda number: LeaseRevokeRequest(ID=NOBODY + number)),
    Kind("time to live", rpcs.LEASE_TIME_TO_LIVE, lambda number: LeaseTimeToLiveRequest(ID=NOBODY + number)),
    Kind("members", rpcs.MEMBER_LIST, lambda _: MemberListRequest()),
    Kind("status", rpcs.STATUS, lambda _: StatusRequest()),
    Kind("hash", rpcs.HASH, lambda _: HashRequest()),
    Kind("alarms", rpcs.ALARM, lambda _: AlarmRequest(action=AlarmAction.GET)),
    Kind("users", rpcs.USER_LIST, lambda _: AuthUserListRequest()),
)
#: What is done once at the most. Those that would change the etcd that all tests share are such as it refuses.
DONE_ONCE = (
    Kind("put", rpcs.PUT, put),
    Kind("deletion", rpcs.DELETE_RANGE, lambda number: DeleteRangeRequest(key=b"/proof/%06d" % number)),
    Kind("transaction with a write", rpcs.TXN, lambda n: TxnRequest(failure=(RequestOp(request_put=put(n)),))),
    Kind("grant of a lease", rpcs.LEASE_GRANT, lambda number: LeaseGrantRequest(TTL=5, ID=NOBODY + number)),
    Kind("compaction", rpcs.COMPACT, lambda number: CompactionRequest(revision=NOBODY + number)),
    Kind("removal of a member", rpcs.MEMBER_REMOVE, lambda number: MemberRemoveRequest(ID=NOBODY + number)),
    Kind("disarming", rpcs.ALARM, lambda _: AlarmRequest(action=AlarmAction.DEACTIVATE)),
    Kind("defragmentation", rpcs.DEFRAGMENT, lambda _: DefragmentRequest()),
    Kind("deletion of a user", rpcs.USER_DELETE, lambda number: AuthUserDeleteRequest(name=f"nobody-{number:06}")),
    Kind("deletion of a role", rpcs.ROLE_DELETE, lambda number: AuthRoleDeleteRequest(role=f"nobody-{number:06}")),
)


class Stage(NamedTuple):
    """
    Where it is cut off.

    :ivar after: after how many bytes, by the lengths of the request and its answer.
    :ivar seen: how often etcd sees what was cut off there: at the least, and at the most.
    """

    name: str
    direction: Direction
    after: Callable[[int, int], int]
    seen: tuple[int, int]


STAGES = (
    Stage("before the request", "requests", lambda _request, _answer: 0, (0, 0)),
    Stage("in its head", "requests", lambda _request, _answer: 40, (0, 0)),
    Stage("before its last byte", "requests", lambda request, _answer: request - 1, (0, 0)),
    # etcd gives up what its client has left, if it notices in time.
    Stage("behind its last byte", "requests", lambda request, _answer: request, (0, 1)),
    Stage("before the answer", "answers", lambda _request, _answer: 0, (1, 1)),
    Stage("in the answer's head", "answers", lambda _request, _answer: IN_HEAD, (1, 1)),
    Stage("in the answer's body", "answers", lambda _request, answer: answer - IN_BODY, (1, 1)),
)


async def seen(etcd: EmbeddedEtcd) -> Counter[str]:
    """How many requests of each method etcd has begun, when it has ended all that it began."""
    while True:
        response = await http_client().get(f"{etcd.endpoint}/metrics")
        text = await treq.text_content(response)
        begun, ended = Counter[str](), Counter[str]()
        for what, method, count in re.findall(
            r'^grpc_server_(started|handled)_total{.*grpc_method="(\w+)".*grpc_type="unary".*} (\S+)$',
            text,
            re.MULTILINE,
        ):
            (begun if what == "started" else ended)[method] += int(float(count))
        if begun == ended:
            return begun


class Proof(NamedTuple):
    """What a proof works with: a real etcd, a proxy before it, and a way to make gateways."""

    etcd: EmbeddedEtcd
    proxy: FaultProxy
    make_gateway: MakeGateway
    numbers: Counter[str]

    def number(self) -> int:
        self.numbers["of requests"] += 1
        return self.numbers["of requests"]

    async def lengths(self, kind: Kind) -> tuple[int, int]:
        """Of a whole request of a kind, and of its answer."""
        gateway = self.make_gateway(self.proxy.endpoint)
        requests, answers = self.proxy.requests, self.proxy.answers
        await answered(gateway.unary(kind.rpc, kind.make(self.number())))
        return self.proxy.requests - requests, self.proxy.answers - answers

    async def cut_off(
        self, kind: Kind, number: int, direction: Direction, count: int, *, kept: bool, endpoints: tuple[str, ...]
    ) -> type[Exception] | None:
        """What becomes of a request whose first connection is cut; ``kept`` if it has served one before."""
        gateway = self.make_gateway(*endpoints)
        connecting = self.proxy.next_connection()
        if kept:
            await answered(gateway.unary(rpcs.LEASE_LEASES, LeaseLeasesRequest()))
            (await soon(connecting)).cut_after(count, direction)
        else:
            connecting.addCallback(ProxiedConnection.cut_after, count, direction)
        before = self.proxy.connections_made
        outcome = await answered(gateway.unary(kind.rpc, kind.make(number)))
        first = 0 if kept else 1
        again = self.proxy.connections_made - before - first
        assert again == (1 if outcome is None and len(endpoints) == 1 else 0), kind.name
        return outcome


@pytest.fixture
def proof(etcd_server: EmbeddedEtcd, make_gateway: MakeGateway, make_proxy: MakeProxy) -> Proof:
    return Proof(etcd_server, make_proxy(etcd_server.endpoint), make_gateway, NUMBERS)


#: Of the requests so far, so that no two of this module are the same.
NUMBERS = Counter[str]()


async def answered(deferred: Deferred[Any]) -> type[Exception] | None:
    """None for an answer of etcd's, be it an error, and else the error's type."""
    try:
        await soon(deferred)
    except EtcdError:
        return None
    except RequestFailed as error:
        return type(error)
    return None


@pytest.mark.parametrize("elsewhere", [False, True], ids=["one endpoint", "another endpoint"])
@pytest.mark.parametrize("kept", [False, True], ids=["fresh", "kept"])
@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
@pytest_twisted.ensureDeferred
async def test_wherever_a_request_is_cut_off_reads_are_answered_and_writes_done_once_at_the_most(
    *, proof: Proof, stage: Stage, kept: bool, elsewhere: bool
) -> None:
    endpoints = (proof.proxy.endpoint, proof.etcd.endpoint) if elsewhere else (proof.proxy.endpoint,)
    lengths = {kind.name: await proof.lengths(kind) for kind in REPEATED + DONE_ONCE}
    before = await seen(proof.etcd)
    least, most = Counter[str](), Counter[str]()
    outcomes: dict[str, type[Exception] | None] = {}
    for kind in REPEATED + DONE_ONCE:
        count = stage.after(*lengths[kind.name])
        outcomes[kind.name] = await proof.cut_off(
            kind, proof.number(), stage.direction, count, kept=kept, endpoints=endpoints
        )
        again = 1 if kind in REPEATED else 0
        least[kind.method] += stage.seen[0] + again
        most[kind.method] += stage.seen[1] + again
    expected: dict[str, type[Exception] | None] = {kind.name: None for kind in REPEATED}
    expected.update({kind.name: OutcomeUnknown for kind in DONE_ONCE})
    assert outcomes == expected
    came = await seen(proof.etcd) - before
    assert {method: came[method] for method in most if not least[method] <= came[method] <= most[method]} == {}


# --- at every byte --------------------------------------------------------------------------------------------------


async def versions(gateway: Gateway, numbers: range) -> list[int]:
    """How often each of these keys has been written."""
    found = await gateway.unary(
        rpcs.RANGE,
        RangeRequest(key=put(numbers.start).key, range_end=put(numbers.stop).key),
    )
    by_key = {pair.key: pair.version for pair in found.kvs}
    return [by_key.get(put(number).key, 0) for number in numbers]


def block(size: int) -> range:
    """Numbers that nobody else has, one behind the other."""
    start = NUMBERS["of requests"] + 1
    NUMBERS["of requests"] += size
    return range(start, start + size)


@pytest.mark.parametrize("kept", [False, True], ids=["fresh", "kept"])
@pytest_twisted.ensureDeferred
async def test_a_write_that_is_cut_off_at_any_byte_of_its_request_is_of_unknown_outcome_and_never_half_done(
    *, proof: Proof, kept: bool
) -> None:
    length, _ = await proof.lengths(DONE_ONCE[0])
    numbers = block(length)
    for count, number in enumerate(numbers):
        outcome = await proof.cut_off(
            DONE_ONCE[0], number, "requests", count, kept=kept, endpoints=(proof.proxy.endpoint, proof.etcd.endpoint)
        )
        assert outcome is OutcomeUnknown, count
    await seen(proof.etcd)
    assert await versions(proof.make_gateway(proof.etcd.endpoint), numbers) == [0] * length


@pytest_twisted.ensureDeferred
async def test_a_write_that_is_cut_off_at_any_byte_of_its_answer_is_of_unknown_outcome_and_done_once(
    proof: Proof,
) -> None:
    _, length = await proof.lengths(DONE_ONCE[0])
    numbers = block(length - 1)
    for count, number in enumerate(numbers):
        outcome = await proof.cut_off(
            DONE_ONCE[0], number, "answers", count, kept=False, endpoints=(proof.proxy.endpoint, proof.etcd.endpoint)
        )
        assert outcome is OutcomeUnknown, count
    assert await versions(proof.make_gateway(proof.etcd.endpoint), numbers) == [1] * len(numbers)


@pytest.mark.parametrize("direction", ["requests", "answers"])
@pytest_twisted.ensureDeferred
async def test_a_read_that_is_cut_off_at_any_byte_is_answered(proof: Proof, direction: Direction) -> None:
    length = (await proof.lengths(REPEATED[0]))[0 if direction == "requests" else 1]
    for count in range(length - 1):
        outcome = await proof.cut_off(
            REPEATED[0], 0, direction, count, kept=False, endpoints=(proof.proxy.endpoint, proof.etcd.endpoint)
        )
        assert outcome is None, count


@pytest_twisted.ensureDeferred
async def test_a_long_answer_that_is_cut_off_anywhere_is_read_again_and_never_taken_for_whole(proof: Proof) -> None:
    direct = proof.make_gateway(proof.etcd.endpoint)
    pair = PutRequest(key=put(proof.number()).key, value=b"v" * 5000)
    await direct.unary(rpcs.PUT, pair)
    # etcd sends it in chunks: the last ones end it.
    read = Kind("long read", rpcs.RANGE, lambda _: RangeRequest(key=pair.key))
    _, length = await proof.lengths(read)
    assert length > len(pair.value)
    for count in (*range(0, length - 50, 100), *range(length - 50, length - 1)):
        gateway = proof.make_gateway(proof.proxy.endpoint, proof.etcd.endpoint)
        proof.proxy.next_connection().addCallback(ProxiedConnection.cut_after, count, "answers")
        (found,) = (await soon(gateway.unary(read.rpc, read.make(0)))).kvs
        assert found.value == pair.value
