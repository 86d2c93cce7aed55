"""Keeping leases alive, with a clock; the server is the test."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent

from tests.client.script import Call, ScriptedGateway, outcome
from twisted_etcd.client.lease import Lease, LeaseKeeper
from twisted_etcd.errors import LeaseExists, LeaseLost, LeaseNotFound, OutcomeUnknown, ServiceStopped, Unavailable
from twisted_etcd.schema.lease import (
    LeaseGrantRequest,
    LeaseGrantResponse,
    LeaseKeepAliveRequest,
    LeaseKeepAliveResponse,
    LeaseRevokeRequest,
    LeaseRevokeResponse,
)


class Bench:
    """A keeper over a scripted gateway."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.gateway = ScriptedGateway()
        self.keeper = LeaseKeeper(self.gateway, self.clock)  # type: ignore[arg-type]

    def lease(self, ttl: int = 30, lease_id: int = 1) -> Lease:
        granting = self.keeper.grant(ttl)
        self.gateway.take_call().deferred.callback(LeaseGrantResponse(ID=lease_id, TTL=ttl))
        lease = outcome(granting)
        assert isinstance(lease, Lease)
        return lease

    def asked(self, *, after: float) -> Call:
        """The one keepalive that is sent when so much time has passed, and not before."""
        self.clock.advance(after - 0.01)
        assert self.gateway.calls == []
        self.clock.advance(0.01)
        return self.gateway.take_call()

    @property
    def idle(self) -> bool:
        return not self.gateway.calls and not self.clock.getDelayedCalls()


def confirm(call: Call, ttl: int = 30) -> None:
    call.deferred.callback(
        [LeaseKeepAliveResponse(ID=request.ID, TTL=ttl) for request in call.requests if hasattr(request, "ID")]
    )


def refuse(call: Call, error: Exception | None = None) -> None:
    call.deferred.errback(error or Unavailable("no answer"))


def reason(lease: Lease) -> str:
    lost = outcome(lease.lost)
    assert isinstance(lost, LeaseLost)
    assert not lease.alive
    return str(lost).partition(": ")[2]


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_lease_is_kept_alive_at_a_third_of_its_ttl(bench: Bench) -> None:
    lease = bench.lease()
    for _ in range(5):
        call = bench.asked(after=10)
        assert call.requests == [LeaseKeepAliveRequest(ID=1)]
        confirm(call)
        assert lease.seconds_left == pytest.approx(30)
    assert lease.alive


def test_what_counts_is_when_it_was_asked_for(bench: Bench) -> None:
    granting = bench.keeper.grant(30)
    bench.clock.advance(4)
    bench.gateway.take_call().deferred.callback(LeaseGrantResponse(ID=1, TTL=30))
    lease = outcome(granting)
    assert lease.seconds_left == 26
    call = bench.asked(after=6)
    bench.clock.advance(3)
    confirm(call)
    assert lease.seconds_left == 27


def test_an_answer_that_does_not_come_is_given_up_in_time_to_ask_again(bench: Bench) -> None:
    lease = bench.lease(6)
    call = bench.asked(after=2)
    # Half of what is left, and never longer than a request may take.
    assert call.timeout == 2
    with capturedLogs() as logs:
        bench.clock.advance(2)
        refuse(call)
    assert "1 leases could not be kept alive" in logs[0]["log_format"].format(count=logs[0]["count"], why="")
    again = bench.asked(after=0.5)
    assert again.timeout == 0.75
    confirm(again, 6)
    assert lease.alive


def test_a_long_lease_waits_no_longer_than_a_request_may_take(bench: Bench) -> None:
    bench.lease(3600)
    assert bench.asked(after=1200).timeout == 5


def test_without_any_answer_it_is_lost_when_its_ttl_has_passed(bench: Bench) -> None:
    lease = bench.lease()
    lost: list[object] = []
    lease.lost.addCallback(lost.append)
    call = bench.asked(after=10)
    bench.clock.advance(19.9)
    assert (lost, lease.alive) == ([], True)
    bench.clock.advance(0.2)
    assert len(lost) == 1
    assert reason(lease) == "etcd did not confirm it for as long as its TTL"
    # An answer that comes now does not bring it back.
    confirm(call)
    assert not lease.alive
    assert bench.idle


def test_it_is_lost_as_soon_as_etcd_says_so(bench: Bench) -> None:
    lease = bench.lease()
    confirm(bench.asked(after=10), 0)
    assert reason(lease) == "etcd no longer has it"
    assert bench.idle


def test_leases_that_are_due_share_requests_of_a_bounded_size(bench: Bench) -> None:
    leases = [bench.lease(30, number) for number in range(1, 451)]
    bench.clock.advance(10)
    calls = []
    while bench.gateway.calls:
        # One at a time.
        calls.append(bench.gateway.take_call())
        confirm(calls[-1])
    assert [len(call.requests) for call in calls] == [200, 200, 50]
    assert all(lease.seconds_left == 30 for lease in leases)
    assert len(bench.clock.getDelayedCalls()) == 1


def test_a_request_that_is_not_answered_holds_the_others_up_for_a_short_time_only(bench: Bench) -> None:
    leases = [bench.lease(30, number) for number in range(1, 451)]
    bench.clock.advance(10)
    hanging = bench.gateway.take_call()
    # The last of them would be sent within an eighth of the 20 seconds that are left.
    bench.clock.advance(1.1)
    assert bench.gateway.calls == []
    bench.clock.advance(0.05)
    confirm(bench.gateway.take_call())
    confirm(bench.gateway.take_call())
    assert [lease.seconds_left for lease in leases] == [pytest.approx(18.85)] * 200 + [pytest.approx(30)] * 250
    refuse(hanging)
    assert len(bench.asked(after=1).requests) == 200
    assert all(lease.alive for lease in leases)


def test_where_none_is_answered_each_is_asked_for_in_time(bench: Bench) -> None:
    for number in range(1, 2001):
        bench.lease(30, number)
    bench.clock.advance(10)
    bench.clock.pump([0.1] * 24)
    assert sum(len(call.requests) for call in bench.gateway.calls) == 2000
    # And there is time for another attempt.
    assert all(call.timeout == 5 for call in bench.gateway.calls)


def test_a_short_lease_does_not_wait_for_long_ones_that_get_no_answer(bench: Bench) -> None:
    for number in range(1, 1001):
        bench.lease(3600, number)
    bench.clock.advance(1199.5)
    short = bench.lease(3, 1001)
    bench.clock.advance(0.5)
    assert len(bench.gateway.take_call().requests) == 200
    bench.clock.pump([0.05] * 7)
    [asking] = [call for call in bench.gateway.calls if LeaseKeepAliveRequest(ID=1001) in call.requests]
    confirm(asking, 3)
    assert 2.6 < short.seconds_left <= 3


def test_what_was_given_up_while_it_waited_is_not_asked_for(bench: Bench) -> None:
    leases = [bench.lease(30, number) for number in range(1, 402)]
    bench.clock.advance(10)
    first = bench.gateway.take_call()
    for lease in leases[200:300] + leases[400:]:
        lease.revoke()
        bench.gateway.take_call().deferred.callback(LeaseRevokeResponse())
    confirm(first)
    second = bench.gateway.take_call()
    assert second.requests == [LeaseKeepAliveRequest(ID=number) for number in range(301, 401)]
    confirm(second)
    assert bench.gateway.calls == []


def test_a_stop_ends_the_keepalives_that_wait_too(bench: Bench) -> None:
    for number in range(1, 451):
        bench.lease(30, number)
    bench.clock.advance(10)
    first = bench.gateway.take_call()
    bench.keeper.stop(revoke=False, timeout=3)
    confirm(first)
    assert bench.idle


def test_one_that_was_left_out_of_the_answer_is_asked_for_again(bench: Bench) -> None:
    leases = [bench.lease(12, number) for number in (1, 2)]
    bench.asked(after=4).deferred.callback([LeaseKeepAliveResponse(ID=1, TTL=12)])
    assert bench.asked(after=1).requests == [LeaseKeepAliveRequest(ID=2)]
    assert all(lease.alive for lease in leases)


def test_keepalive_once_asks_beside_the_schedule_and_counts(bench: Bench) -> None:
    lease = bench.lease()
    bench.clock.advance(9)
    asking = lease.keepalive_once()
    confirm(bench.gateway.take_call())
    assert outcome(asking) == 30
    confirm(bench.asked(after=10))


def test_keepalive_once_without_an_answer_of_etcds_is_an_error(bench: Bench) -> None:
    lease = bench.lease()
    asking = lease.keepalive_once()
    bench.gateway.take_call().deferred.callback([])
    error = outcome(asking)
    assert isinstance(error, Unavailable)
    assert str(error) == "etcd said nothing to the keepalive of lease 1; ask again"
    assert lease.alive


def test_what_could_not_be_revoked_is_left_to_its_ttl(bench: Bench) -> None:
    lease = bench.lease()
    keepalive = bench.asked(after=10)
    revoking = lease.revoke(timeout=2)
    call = bench.gateway.take_call()
    assert (call.requests, call.timeout) == ([LeaseRevokeRequest(ID=1)], 2)
    # What was under way when it was given up does not take it up again.
    confirm(keepalive)
    error = OutcomeUnknown("who knows")
    refuse(call, error)
    assert outcome(revoking) is error
    assert reason(lease) == "it could not be revoked, and is left to its TTL"
    assert bench.idle


def test_a_revocation_of_what_is_gone_is_one(bench: Bench) -> None:
    lease = bench.lease()
    revoking = lease.revoke()
    refuse(bench.gateway.take_call(), LeaseNotFound(5, "etcdserver: requested lease not found"))
    assert outcome(revoking) is None
    # Who revoked it is not known.
    assert reason(lease) == "etcd no longer has it"


# --- the end --------------------------------------------------------------------------------------------------------


def test_stop_revokes_all_that_is_left_within_its_time(bench: Bench) -> None:
    leases = [bench.lease(30 + number, number) for number in (1, 2, 3)]
    results: list[Any] = []
    bench.keeper.stop(revoke=True, timeout=3).addBoth(results.append)
    calls, bench.gateway.calls = bench.gateway.calls, []
    assert [(list(call.requests), call.timeout) for call in calls] == [
        ([LeaseRevokeRequest(ID=number)], 3) for number in (1, 2, 3)
    ]
    # Nothing is kept alive meanwhile.
    assert bench.idle
    calls[0].deferred.callback(LeaseRevokeResponse())
    with capturedLogs() as logs:
        refuse(calls[1])
        assert results == []
        refuse(calls[2])
    assert results == [None]
    assert [reason(lease) for lease in leases] == [
        "it was revoked",
        "it could not be revoked, and is left to its TTL",
        "it could not be revoked, and is left to its TTL",
    ]
    # One line for all of them.
    [warning] = logs
    assert formatEvent(warning) == (
        "leases that could not be revoked, and end by their TTL of at most 33 s: 2, namely 2, 3: no answer"
    )
    assert warning["lease_ids"] == [2, 3]


def test_a_thousand_that_could_not_be_revoked_make_one_line_that_can_be_read(bench: Bench) -> None:
    for number in range(1, 1001):
        bench.lease(30, number)
    stopping = bench.keeper.stop(revoke=True, timeout=3)
    with capturedLogs() as logs:
        for call in bench.gateway.calls:
            refuse(call)
    assert outcome(stopping) is None
    [warning] = logs
    assert len(formatEvent(warning)) < 300
    assert warning["lease_ids"] == list(range(1, 1001))


def test_many_are_revoked_a_few_at_a_time(bench: Bench) -> None:
    leases = [bench.lease(30, number) for number in range(1, 101)]
    stopping = bench.keeper.stop(revoke=True, timeout=3)
    revoked: list[LeaseRevokeRequest] = []
    while bench.gateway.calls:
        assert len(bench.gateway.calls) <= 32
        call = bench.gateway.calls.pop(0)
        revoked += [request for request in call.requests if isinstance(request, LeaseRevokeRequest)]
        call.deferred.callback(LeaseRevokeResponse())
    assert revoked == [LeaseRevokeRequest(ID=number) for number in range(1, 101)]
    assert outcome(stopping) is None
    assert not any(lease.alive for lease in leases)


def test_those_whose_turn_does_not_come_in_time_are_left_and_named(bench: Bench) -> None:
    leases = [bench.lease(30, number) for number in range(1, 101)]
    stopping = bench.keeper.stop(revoke=True, timeout=3)
    bench.clock.advance(2)
    bench.gateway.calls.pop(0).deferred.callback(LeaseRevokeResponse())
    # What began later has less time.
    assert [call.timeout for call in bench.gateway.calls] == [3] * 31 + [1]
    bench.clock.advance(1)
    with capturedLogs() as logs:
        for call in tuple(bench.gateway.calls):
            refuse(call)
    assert outcome(stopping) is None
    [warning] = logs
    assert sorted(warning["lease_ids"]) == list(range(2, 101))
    assert not any(lease.alive for lease in leases)


def test_stop_can_leave_them_to_their_ttl(bench: Bench) -> None:
    lease = bench.lease()
    assert outcome(bench.keeper.stop(revoke=False, timeout=3)) is None
    assert reason(lease) == "the client stopped and left it to its TTL"
    assert bench.idle


def test_a_keepalive_under_way_at_the_stop_says_nothing_more(bench: Bench) -> None:
    bench.lease()
    call = bench.asked(after=10)
    bench.keeper.stop(revoke=False, timeout=3)
    with capturedLogs() as logs:
        refuse(call, ServiceStopped("the client was stopped"))
    assert logs == []
    assert bench.idle


def test_a_lease_that_is_granted_during_the_stop_is_taken_back(bench: Bench) -> None:
    granting: Deferred[Lease] = bench.keeper.grant(30)
    [grant] = bench.gateway.take_call().requests
    stopping = bench.keeper.stop(revoke=False, timeout=3)
    error = outcome(granting)
    assert isinstance(error, ServiceStopped)
    assert str(error) == "the client was stopped while Lease.LeaseGrant was under way"
    again = bench.gateway.take_call()
    assert again.requests == [grant]
    refuse(again, LeaseExists(9, "etcdserver: lease already exists"))
    revocation = bench.gateway.take_call()
    assert isinstance(grant, LeaseGrantRequest)
    assert revocation.requests == [LeaseRevokeRequest(ID=grant.ID)]
    assert outcome(stopping) == "nothing yet"
    revocation.deferred.callback(LeaseRevokeResponse())
    assert bench.idle


def test_what_cannot_be_taken_back_at_the_stop_is_in_the_same_line(bench: Bench) -> None:
    bench.lease(30, 0xAB)
    bench.keeper.grant(60).addErrback(lambda failure: failure.trap(ServiceStopped))
    [grant] = bench.gateway.take_call().requests
    assert isinstance(grant, LeaseGrantRequest)
    stopping: list[object] = []
    bench.keeper.stop(revoke=True, timeout=3).addCallback(stopping.append)
    again, revocation = bench.gateway.calls
    bench.gateway.calls.clear()
    assert (again.requests, revocation.requests) == ([grant], [LeaseRevokeRequest(ID=0xAB)])
    refuse(revocation)
    with capturedLogs() as logs:
        bench.clock.advance(2.99)
        assert stopping == []
        bench.clock.advance(0.01)
    assert stopping == [None]
    [warning] = logs
    assert sorted(warning["lease_ids"]) == sorted([0xAB, grant.ID])
    assert "at most 60 s" in formatEvent(warning)
    assert bench.idle


# --- how late a lease can be known to be lost -----------------------------------------------------------------------


def lost_at(bench: Bench, lease: Lease) -> list[float]:
    """When ``lost`` fired, once it has."""
    times: list[float] = []
    lease.lost.addCallback(lambda _: times.append(bench.clock.seconds()))
    return times


def test_a_keepalive_that_is_under_way_at_the_deadline_does_not_put_it_off(bench: Bench) -> None:
    times = lost_at(bench, bench.lease(6))
    for _ in range(60):
        # Nothing is ever answered, and nothing given up.
        bench.clock.advance(0.125)
    assert times == [6]


def test_of_leases_with_different_ttls_in_one_request_each_has_its_own_deadline(bench: Bench) -> None:
    times = [lost_at(bench, bench.lease(ttl, lease_id)) for lease_id, ttl in enumerate((6, 7, 30), 1)]
    bench.clock.pump([0.25] * 124)
    assert times == [[6], [7], [30]]


def test_a_lease_that_is_always_left_out_of_the_answer_is_lost_in_time(bench: Bench) -> None:
    answered, left_out = bench.lease(6, 1), bench.lease(6, 2)
    times = lost_at(bench, left_out)
    for _ in range(100):
        bench.clock.advance(0.125)
        calls, bench.gateway.calls = bench.gateway.calls, []
        for call in calls:
            asked = [request.ID for request in call.requests if isinstance(request, LeaseKeepAliveRequest)]
            call.deferred.callback([LeaseKeepAliveResponse(ID=each, TTL=6) for each in asked if each == 1])
    assert times == [6]
    assert answered.alive


def test_failures_right_up_to_the_deadline_do_not_put_it_off(bench: Bench) -> None:
    times = lost_at(bench, bench.lease(6))
    for _ in range(70):
        bench.clock.advance(0.125)
        calls, bench.gateway.calls = bench.gateway.calls, []
        for call in calls:
            refuse(call)
    assert times == [6]
    assert bench.idle


def test_an_answer_that_was_long_under_way_counts_from_when_it_was_asked_for(bench: Bench) -> None:
    times = lost_at(bench, bench.lease(6))
    call = bench.asked(after=2)
    bench.clock.advance(3.5)
    confirm(call, 6)
    # It was due again long ago.
    bench.clock.advance(0)
    bench.gateway.take_call()
    bench.clock.advance(2.25)
    assert times == []
    bench.clock.advance(0.25)
    assert times == [8]


def test_time_that_jumps_ahead_loses_it_at_once(bench: Bench) -> None:
    times = lost_at(bench, bench.lease(6))
    bench.clock.advance(3600)
    assert times == [3600]
    assert bench.idle


def test_a_lease_whose_grant_took_longer_than_its_ttl_is_lost(bench: Bench) -> None:
    granting = bench.keeper.grant(2)
    bench.clock.advance(2.4)
    bench.gateway.take_call().deferred.callback(LeaseGrantResponse(ID=1, TTL=2))
    lease = outcome(granting)
    bench.clock.advance(0)
    assert reason(lease) == "etcd did not confirm it for as long as its TTL"
    assert bench.idle
