"""One grant under way, with a clock; the server is the test."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from tests.client.script import Call, ScriptedGateway, outcome
from twisted_etcd.client.granting import Granted, Granting, new_id
from twisted_etcd.errors import (
    DeadlineExceeded,
    EtcdError,
    LeaseExists,
    LeaseTTLTooLarge,
    NoLeader,
    NotEtcd,
    OutcomeUnknown,
    TLSFailed,
    TwistedEtcdError,
    Unavailable,
    UnknownError,
)
from twisted_etcd.gateway.unary import Abandoned
from twisted_etcd.schema.lease import (
    LeaseGrantRequest,
    LeaseGrantResponse,
    LeaseKeepAliveRequest,
    LeaseKeepAliveResponse,
)

EXISTS = LeaseExists(9, "etcdserver: lease already exists")


class Bench:
    """A grant of 30 seconds over a scripted gateway, which has 8 seconds."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.gateway = ScriptedGateway()
        self.gateway.random = lambda: 0.5
        self.granting = Granting(self.gateway, self.clock, 30)  # type: ignore[arg-type]
        self.result: Deferred[Granted] = Deferred.fromCoroutine(self.granting.run(8))

    def attempt(self) -> Call:
        """The attempt that comes next."""
        if not self.gateway.calls:
            # The wait between two.
            self.clock.advance(1)
        return self.gateway.take_call()

    def fails(self, error: Exception, *, after: float = 0.0) -> Call:
        """The next attempt ends so."""
        call = self.attempt()
        self.clock.advance(after)
        call.deferred.errback(error)
        return call


@pytest.fixture
def bench() -> Bench:
    return Bench()


def answer(call: Call, ttl: int = 30) -> None:
    [request] = call.requests
    assert isinstance(request, LeaseGrantRequest)
    call.deferred.callback(LeaseGrantResponse(ID=request.ID, TTL=ttl))


def unknown(cause: EtcdError | None = None) -> OutcomeUnknown:
    error = OutcomeUnknown("sent and not confirmed", {"http://one:2379": "the connection was lost"})
    error.__cause__ = cause
    return error


def test_it_is_granted_with_an_id_of_our_own(bench: Bench) -> None:
    call = bench.attempt()
    assert call.requests == [LeaseGrantRequest(TTL=30, ID=bench.granting.lease_id)]
    # There is time left for another attempt.
    assert call.timeout == 4
    bench.clock.advance(2)
    answer(call, 31)
    granted = outcome(bench.result)
    assert (granted.lease_id, granted.ttl, granted.asked_at) == (bench.granting.lease_id, 31, 0)
    assert not bench.granting.maybe_there
    assert not bench.clock.getDelayedCalls()


def test_without_an_answer_it_is_granted_again_with_the_same_id(bench: Bench) -> None:
    first = bench.fails(unknown(), after=2)
    second = bench.attempt()
    assert second.requests == first.requests
    answer(second)
    assert outcome(bench.result).asked_at == 3


def test_what_is_there_after_an_attempt_without_an_answer_is_ours(bench: Bench) -> None:
    bench.fails(unknown())
    bench.fails(EXISTS)
    asking = bench.attempt()
    assert asking.requests == [LeaseKeepAliveRequest(ID=bench.granting.lease_id)]
    asking.deferred.callback([LeaseKeepAliveResponse(ID=bench.granting.lease_id, TTL=42)])
    granted = outcome(bench.result)
    assert (granted.lease_id, granted.ttl, granted.asked_at) == (bench.granting.lease_id, 42, 1)


@pytest.mark.parametrize(
    "said", [[], [LeaseKeepAliveResponse()], DeadlineExceeded("no answer")], ids=["nothing", "gone", "no answer"]
)
def test_where_what_was_there_has_gone_it_is_granted_again(bench: Bench, said: Any) -> None:  # noqa: ANN401 - either
    bench.fails(unknown())
    bench.fails(EXISTS)
    asking = bench.attempt()
    if isinstance(said, Exception):
        asking.deferred.errback(said)
    else:
        asking.deferred.callback(said)
    answer(bench.attempt())
    assert outcome(bench.result).lease_id == bench.granting.lease_id


def test_what_is_there_before_us_is_somebody_elses(bench: Bench) -> None:
    [first] = bench.fails(EXISTS).requests
    again = bench.attempt()
    [second] = again.requests
    assert isinstance(first, LeaseGrantRequest)
    assert isinstance(second, LeaseGrantRequest)
    assert first.ID != second.ID
    answer(again)
    assert outcome(bench.result).lease_id == second.ID


@pytest.mark.parametrize(
    "error",
    [
        LeaseTTLTooLarge(11, "too large lease TTL"),
        NotEtcd("no etcd", {}),
        TLSFailed("no trust", {}),
        unknown(UnknownError(2, "who knows")),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_another_attempt_does_not_mend_is_told_at_once(bench: Bench, error: TwistedEtcdError) -> None:
    bench.fails(error)
    assert outcome(bench.result) is error
    assert bench.granting.maybe_there is isinstance(error, OutcomeUnknown)
    assert not bench.clock.getDelayedCalls()


def test_a_member_that_cannot_say_is_asked_again(bench: Bench) -> None:
    bench.fails(unknown(NoLeader(14, "etcdserver: no leader")))
    answer(bench.attempt())
    assert isinstance(outcome(bench.result), Granted)


def test_when_the_time_is_over_the_outcome_is_unknown(bench: Bench) -> None:
    timeouts = []
    for _ in range(3):
        timeouts.append(bench.fails(unknown(), after=2).timeout)
        bench.clock.advance(1)
    error = outcome(bench.result)
    assert type(error) is OutcomeUnknown
    assert str(error) == (
        "Lease.LeaseGrant was not confirmed within 8 s; what it may have granted is revoked: "
        "http://one:2379: the connection was lost"
    )
    # Half of what is left, and a second at least.
    assert timeouts == [4, 2.5, 1]
    assert not bench.clock.getDelayedCalls()


def test_when_the_time_is_over_and_nothing_was_sent_it_is_unavailable(bench: Bench) -> None:
    for _ in range(100):
        if bench.result.called:
            break
        bench.fails(Unavailable("refused"), after=0.5)
    error = outcome(bench.result)
    assert type(error) is Unavailable
    assert str(error) == "Lease.LeaseGrant was not confirmed within 8 s, and was not sent"
    assert not bench.granting.maybe_there


@pytest.mark.parametrize("sent", [True, False])
def test_cancelled_it_says_whether_it_may_be_there(bench: Bench, *, sent: bool) -> None:
    bench.fails(Abandoned(maybe_sent=sent))
    assert isinstance(outcome(bench.result), Abandoned)
    assert bench.granting.maybe_there is sent


def test_cancelled_while_it_waits_it_remembers_what_was_sent(bench: Bench) -> None:
    bench.fails(unknown())
    bench.result.cancel()
    outcome(bench.result)
    assert bench.granting.maybe_there
    assert not bench.clock.getDelayedCalls()


@given(st.lists(st.floats(min_value=0, max_value=1), min_size=2, max_size=2))
def test_an_id_is_one_that_etcd_takes(draws: list[float]) -> None:
    assert 0 < new_id(iter(draws).__next__) < 2**63


def test_ids_have_all_their_bits() -> None:
    assert new_id(lambda: 0.0) == 1
    assert new_id(iter([0.25, 0.75]).__next__) == 0x4000_0000_C000_0000
    assert new_id(iter([0.75, 0.25]).__next__) == 0x4000_0000_4000_0000
    assert new_id(lambda: 1 - 2**-53) == 2**63 - 1
