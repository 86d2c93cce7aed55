"""The policy of sending again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from twisted_etcd import errors
from twisted_etcd.errors import EtcdError, etcd_error
from twisted_etcd.gateway.exchange import Reach
from twisted_etcd.gateway.repetition import Next, after_break, after_error


def all_errors(root: type[EtcdError] = EtcdError) -> Iterator[type[EtcdError]]:
    for cls in root.__subclasses__():
        yield cls
        yield from all_errors(cls)


#: What another member may answer differently.
OF_THE_MEMBER = {
    errors.ServerDeadlineExceeded,
    errors.NotLeader,
    errors.NotSupportedForLearner,
    errors.ServerUnavailable,
    errors.NoLeader,
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
    errors.Aborted,
    errors.InternalError,
    errors.ServerUnavailable,
    errors.LeaderChanged,
    errors.ServerStopped,
    errors.RequestTimedOut,
    errors.CorruptCluster,
}


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


@pytest.mark.parametrize(
    ("code", "message", "following"),
    [
        (2, "etcdserver: request timed out", Next.UNKNOWN),
        (4, "context deadline exceeded", Next.UNKNOWN),
        (14, "etcdserver: no leader", Next.AGAIN),
        (14, "something new", Next.UNKNOWN),
        (3, "etcdserver: key is not provided", Next.FAIL),
        (2, "something new", Next.UNKNOWN),
        (8, "etcdserver: too many requests", Next.FAIL),
    ],
)
def test_what_follows_a_write_that_etcd_answered_so(code: int, message: str, following: Next) -> None:
    assert after_error(etcd_error(code, message), repeatable=False) is following
