"""The policy of sending again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from twisted_etcd import errors
from twisted_etcd.errors import EtcdError, etcd_error
from twisted_etcd.gateway.exchange import Reach
from twisted_etcd.gateway.repetition import Next, after_break, after_error
from twisted_etcd.schema import rpcs


def all_errors(root: type[EtcdError] = EtcdError) -> Iterator[type[EtcdError]]:
    for cls in root.__subclasses__():
        yield cls
        yield from all_errors(cls)


#: What another member may answer differently.
OF_THE_MEMBER = {
    errors.Cancelled,
    errors.ServerDeadlineExceeded,
    errors.NotLeader,
    errors.NotSupportedForLearner,
    errors.ServerUnavailable,
    errors.NoLeader,
    errors.NotAccepted,
    errors.LeaderChanged,
    errors.ServerStopped,
    errors.RequestTimedOut,
    errors.UnhealthyCluster,
}
#: After which a write may be applied.
OF_UNKNOWN_OUTCOME = {
    errors.Cancelled,
    errors.UnknownError,
    errors.ServerDeadlineExceeded,
    errors.NoSpace,
    errors.Aborted,
    errors.InternalError,
    errors.ServerUnavailable,
    errors.LeaderChanged,
    errors.ServerStopped,
    errors.RequestTimedOut,
    errors.CorruptCluster,
}


#: What etcd's own Go client repeats wherever it broke.
GO_REPEATS = {
    rpcs.RANGE,
    rpcs.LEASE_GRANT,
    rpcs.LEASE_REVOKE,
    rpcs.LEASE_KEEP_ALIVE,
    rpcs.LEASE_TIME_TO_LIVE,
    rpcs.LEASE_LEASES,
    rpcs.MEMBER_LIST,
    rpcs.ALARM,
    rpcs.STATUS,
    rpcs.HASH,
    rpcs.HASH_KV,
    rpcs.SNAPSHOT,
    rpcs.MOVE_LEADER,
    rpcs.USER_GET,
    rpcs.USER_LIST,
    rpcs.ROLE_GET,
    rpcs.ROLE_LIST,
}
#: What it repeats and this client does not: the client itself grants again, by an id of its own; once a leader has
#: moved, a second request is refused.
LESS = {rpcs.LEASE_GRANT, rpcs.MOVE_LEADER}
#: What this client repeats besides, as it is here without any contents: a transaction that writes nothing, and reads.
MORE = {
    rpcs.TXN,
    rpcs.WATCH,
    rpcs.DOWNGRADE,
    rpcs.AUTH_STATUS,
    rpcs.AUTHENTICATE,
    rpcs.LEADER,
    rpcs.OBSERVE,
}


def test_what_is_repeated_is_what_etcds_own_client_repeats_but_for_what_is_named_here() -> None:
    repeated = {rpc for rpc in rpcs.ALL if rpcs.repeatable(rpc, rpc.request())}
    assert repeated == GO_REPEATS - LESS | MORE


@pytest.mark.parametrize(
    ("reach", "repeatable", "following"),
    [
        (Reach.NOT_SENT, True, Next.AGAIN),
        (Reach.NOT_SENT, False, Next.AGAIN),
        (Reach.MAYBE_SENT, True, Next.AGAIN),
        (Reach.MAYBE_SENT, False, Next.UNKNOWN),
    ],
)
def test_only_a_write_that_may_have_been_sent_is_not_sent_again(
    *, reach: Reach, repeatable: bool, following: Next
) -> None:
    assert after_break(reach, repeatable=repeatable) is following


@pytest.mark.parametrize("cls", list(all_errors()))
def test_what_follows_each_error_that_etcd_answers(cls: type[EtcdError]) -> None:
    error = cls(cls.grpc_code, "as it happens")
    again = Next.AGAIN if cls in OF_THE_MEMBER else Next.FAIL
    assert after_error(error, repeatable=True) is again
    assert after_error(error, repeatable=False) is (Next.UNKNOWN if cls in OF_UNKNOWN_OUTCOME else again)


#: What etcds and their gateways were seen to answer, or answer by their sources; what follows for a read and a write.
ANSWERS = [
    (3, "etcdserver: key is not provided", Next.FAIL, Next.FAIL),
    (5, "etcdserver: requested lease not found", Next.FAIL, Next.FAIL),
    (7, "etcdserver: permission denied", Next.FAIL, Next.FAIL),
    (9, "etcdserver: re-configuration failed due to not enough started members", Next.FAIL, Next.FAIL),
    (11, "etcdserver: mvcc: required revision has been compacted", Next.FAIL, Next.FAIL),
    (8, "etcdserver: too many requests", Next.FAIL, Next.FAIL),
    (2, "etcdserver: too many requests", Next.FAIL, Next.FAIL),
    # Those under way when the quota was reached are applied all the same.
    (8, "etcdserver: mvcc: database space exceeded", Next.FAIL, Next.UNKNOWN),
    # Refused before the cluster heard of it.
    (14, "etcdserver: no leader", Next.AGAIN, Next.AGAIN),
    (14, "etcdserver: unhealthy cluster", Next.AGAIN, Next.AGAIN),
    (9, "etcdserver: not leader", Next.AGAIN, Next.AGAIN),
    (9, "etcdserver: rpc not supported for learner", Next.AGAIN, Next.AGAIN),
    (2, "not a primary lessor", Next.AGAIN, Next.AGAIN),
    (2, "raft proposal dropped", Next.AGAIN, Next.AGAIN),
    # A gateway whose member is stopping or starting: 3.4 first, then 3.5.1, then later ones.
    (1, "grpc: the client connection is closing", Next.AGAIN, Next.AGAIN),
    (
        14,
        'connection error: desc = "transport: Error while dialing dial tcp 127.0.0.1:9: connect: connection refused"',
        Next.AGAIN,
        Next.AGAIN,
    ),
    (
        14,
        'connection error: desc = "transport: Error while dialing: dial tcp 127.0.0.1:9: connect: connection refused"',
        Next.AGAIN,
        Next.AGAIN,
    ),
    # The same with the request under way.
    (14, "transport is closing", Next.AGAIN, Next.UNKNOWN),
    (14, "error reading from server: EOF", Next.AGAIN, Next.UNKNOWN),
    (14, "etcdserver: server stopped", Next.AGAIN, Next.UNKNOWN),
    (2, "raft: stopped", Next.AGAIN, Next.UNKNOWN),
    (1, "context canceled", Next.AGAIN, Next.UNKNOWN),
    (1, "etcdserver: request canceled", Next.AGAIN, Next.UNKNOWN),
    # The cluster may still agree to it.
    (14, "etcdserver: request timed out", Next.AGAIN, Next.UNKNOWN),
    (2, "etcdserver: request timed out", Next.AGAIN, Next.UNKNOWN),
    (14, "etcdserver: request timed out, possibly due to previous leader failure", Next.AGAIN, Next.UNKNOWN),
    (14, "etcdserver: request timed out, possibly due to connection lost", Next.AGAIN, Next.UNKNOWN),
    (14, "etcdserver: request timed out, waiting for the applied index took too long", Next.AGAIN, Next.UNKNOWN),
    (2, "etcdserver: request timed out, leader transfer took too long", Next.AGAIN, Next.UNKNOWN),
    (14, "etcdserver: leader changed", Next.AGAIN, Next.UNKNOWN),
    (4, "context deadline exceeded", Next.AGAIN, Next.UNKNOWN),
    (2, "context deadline exceeded", Next.AGAIN, Next.UNKNOWN),
    (15, "etcdserver: corrupt cluster", Next.FAIL, Next.UNKNOWN),
    # What nobody knows.
    (14, "something new", Next.AGAIN, Next.UNKNOWN),
    (2, "something new", Next.FAIL, Next.UNKNOWN),
    (13, "something new", Next.FAIL, Next.UNKNOWN),
    (9, "something new", Next.FAIL, Next.FAIL),
]


@pytest.mark.parametrize(("code", "message", "read", "write"), ANSWERS)
def test_what_follows_what_etcd_answered(code: int, message: str, read: Next, write: Next) -> None:
    error = etcd_error(code, message)
    assert after_error(error, repeatable=True) is read
    assert after_error(error, repeatable=False) is write
