"""What nobody learnt of is taken back, with a clock; the server is the test."""

from __future__ import annotations

import enum
import random
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.python.failure import Failure

from tests.client.script import ScriptedGateway, outcome
from twisted_etcd.client.granting import Granted
from twisted_etcd.client.grants import Grants, Left
from twisted_etcd.errors import (
    DeadlineExceeded,
    LeaseExists,
    LeaseNotFound,
    NoSpace,
    OutcomeUnknown,
    PermissionDenied,
    ServiceStopped,
    Unavailable,
)
from twisted_etcd.gateway.unary import Abandoned
from twisted_etcd.schema.common import Message
from twisted_etcd.schema.lease import (
    LeaseGrantRequest,
    LeaseGrantResponse,
    LeaseKeepAliveRequest,
    LeaseKeepAliveResponse,
    LeaseRevokeRequest,
    LeaseRevokeResponse,
)

EXISTS = LeaseExists(9, "etcdserver: lease already exists")
NOT_FOUND = LeaseNotFound(5, "etcdserver: requested lease not found")


class Bench:
    """Grants over a scripted gateway."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.gateway = ScriptedGateway()
        self.gateway.random = random.Random(1).random
        self.grants = Grants(self.gateway, self.clock)  # type: ignore[arg-type]

    def given_up(self, *, ttl: int = 30, sent: bool = True, lease_id: int = 0) -> LeaseGrantRequest:
        """The grant that somebody began, and cancelled."""
        granting = self.grants.grant(ttl, lease_id, None)
        call = self.gateway.take_call()
        [request] = call.requests
        assert isinstance(request, LeaseGrantRequest)
        call.deferred.errback(Abandoned(maybe_sent=sent))
        assert isinstance(outcome(granting), CancelledError)
        return request

    def answer(self, expected: Message, result: Any) -> None:  # noqa: ANN401 - an answer, or an error
        """The one request that is under way is this, and ends so."""
        call = self.gateway.take_call()
        assert call.requests == [expected]
        if isinstance(result, Exception):
            call.deferred.errback(result)
        else:
            call.deferred.callback(result)

    def look_again(self, request: LeaseGrantRequest) -> None:
        """It is looked for again, four times in all, and then no more."""
        for seconds in (1, 2, 4, 8):
            self.clock.advance(seconds - 0.01)
            assert self.gateway.calls == []
            self.clock.advance(0.01)
            self.answer(LeaseRevokeRequest(ID=request.ID), NOT_FOUND)
        assert self.idle

    @property
    def idle(self) -> bool:
        return not self.gateway.calls and not self.clock.getDelayedCalls()


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.mark.parametrize(
    "answer", [LeaseGrantResponse(ID=7, TTL=30), EXISTS, NoSpace(8, "full")], ids=["granted", "exists", "refused"]
)
@pytest.mark.parametrize("revoked", [LeaseRevokeResponse(), NOT_FOUND], ids=["revoked", "not found"])
def test_it_is_made_certain_that_it_is_there_and_then_it_is_revoked(
    bench: Bench, answer: object, revoked: object
) -> None:
    request = bench.given_up()
    bench.answer(request, answer)
    bench.answer(LeaseRevokeRequest(ID=request.ID), revoked)
    bench.look_again(request)


def test_a_short_lease_is_looked_for_as_long_as_it_could_live(bench: Bench) -> None:
    request = bench.given_up(ttl=4)
    bench.answer(request, EXISTS)
    bench.answer(LeaseRevokeRequest(ID=request.ID), LeaseRevokeResponse())
    for seconds in (1, 2):
        bench.clock.advance(seconds)
        bench.answer(LeaseRevokeRequest(ID=request.ID), NOT_FOUND)
    assert bench.idle


def test_the_stop_makes_the_next_look_the_last_one(bench: Bench) -> None:
    request = bench.given_up()
    bench.answer(request, EXISTS)
    bench.answer(LeaseRevokeRequest(ID=request.ID), LeaseRevokeResponse())
    fired: list[object] = []
    bench.grants.stop(5).addCallback(fired.append)
    assert fired == []
    bench.answer(LeaseRevokeRequest(ID=request.ID), NOT_FOUND)
    assert fired == [[]]
    assert bench.idle


def test_what_was_certainly_not_sent_needs_no_taking_back(bench: Bench) -> None:
    bench.given_up(sent=False)
    assert bench.idle


def test_a_deadline_that_passed_is_no_different(bench: Bench) -> None:
    granting = bench.grants.grant(30, 0, 0.5)
    [call] = bench.gateway.calls
    bench.gateway.calls.clear()
    bench.clock.advance(0.5)
    call.deferred.errback(OutcomeUnknown("no answer within 0.5 s"))
    assert isinstance(outcome(granting), OutcomeUnknown)
    [request] = call.requests
    assert isinstance(request, LeaseGrantRequest)
    bench.answer(request, EXISTS)
    bench.answer(LeaseRevokeRequest(ID=request.ID), LeaseRevokeResponse())
    bench.look_again(request)


def test_taking_back_goes_on_while_nobody_answers_until_the_ttl_has_passed(bench: Bench) -> None:
    request = bench.given_up()
    with capturedLogs() as logs:
        for _ in range(1000):
            if bench.idle:
                break
            assert logs == []
            if bench.gateway.calls:
                bench.answer(request, Unavailable("nobody is there"))
            else:
                bench.clock.advance(0.25)
    assert 24 < bench.clock.seconds() <= 30
    [warning] = logs
    assert (warning["lease_ids"], warning["ttl"], warning["why"]) == ([request.ID], 30, "nobody is there")


def test_a_revocation_without_an_answer_is_tried_again_from_the_beginning(bench: Bench) -> None:
    request = bench.given_up()
    bench.answer(request, EXISTS)
    bench.answer(LeaseRevokeRequest(ID=request.ID), DeadlineExceeded("nothing came"))
    bench.clock.advance(1)
    bench.answer(request, LeaseGrantResponse(ID=request.ID, TTL=30))
    bench.answer(LeaseRevokeRequest(ID=request.ID), LeaseRevokeResponse())
    bench.look_again(request)


def test_a_revocation_that_is_refused_is_told_of_at_once(bench: Bench) -> None:
    request = bench.given_up()
    bench.answer(request, EXISTS)
    with capturedLogs() as logs:
        bench.answer(LeaseRevokeRequest(ID=request.ID), PermissionDenied(7, "permission denied"))
    [warning] = logs
    assert warning["lease_ids"] == [request.ID]
    assert "permission denied" in warning["why"]
    assert bench.idle


def test_a_lease_with_an_id_of_the_callers_is_never_revoked_on_suspicion(bench: Bench) -> None:
    with capturedLogs() as logs:
        bench.given_up(lease_id=77)
    assert bench.idle
    [warning] = logs
    assert warning["lease_ids"] == [77]
    # The error says all to a caller who still listens.
    granting = bench.grants.grant(30, 77, None)
    error = OutcomeUnknown("who knows")
    with capturedLogs() as logs:
        bench.answer(LeaseGrantRequest(TTL=30, ID=77), error)
    assert (outcome(granting), logs) == (error, [])
    granting = bench.grants.grant(30, 77, None)
    bench.answer(LeaseGrantRequest(TTL=30, ID=77), EXISTS)
    assert outcome(granting) is EXISTS
    assert bench.idle


# --- the end --------------------------------------------------------------------------------------------------------


def test_stop_waits_for_what_is_being_taken_back(bench: Bench) -> None:
    request = bench.given_up()
    stopping = bench.grants.stop(5)
    fired: list[object] = []
    stopping.addCallback(fired.append)
    bench.answer(request, EXISTS)
    assert fired == []
    bench.answer(LeaseRevokeRequest(ID=request.ID), LeaseRevokeResponse())
    assert fired == [[]]
    assert bench.idle


def test_stop_gives_up_in_time_whatever_it_is_at(bench: Bench) -> None:
    asking = bench.given_up()
    call = bench.gateway.take_call()
    waiting = bench.given_up()
    bench.answer(waiting, Unavailable("nobody is there"))
    fired: list[Any] = []
    bench.grants.stop(0.001).addCallback(fired.append)
    bench.clock.advance(0.001)
    [left] = fired
    assert {(each.lease_id, each.why) for each in left} == {
        (asking.ID, "there was no time left for it"),
        (waiting.ID, "nobody is there"),
    }
    assert isinstance(outcome(call.deferred), CancelledError | type(None))
    assert bench.idle


def test_with_nothing_under_way_stop_is_at_once(bench: Bench) -> None:
    assert outcome(bench.grants.stop(5)) == []
    assert bench.idle


# --- in general -----------------------------------------------------------------------------------------------------


class Fate(enum.Enum):
    """What becomes of a request."""

    ANSWERED = "answered"
    #: etcd acts on it, and its answer is lost.
    ANSWER_LOST = "answer lost"
    #: It may have been sent, and never arrives.
    LOST = "lost"
    NOT_SENT = "not sent"


class Way(NamedTuple):
    """
    How a request goes: how long it takes to etcd, and how long the answer, or the word that there is none, takes.

    :ivar late: how much later one without an answer arrives.
    """

    fate: Fate
    there: float
    back: float
    late: float = 0.0


class Server:
    """
    The leases of an etcd whose network loses, delays and overtakes.

    :ivar late: leases that were granted by what nobody waited for any more.
    """

    def __init__(self, clock: Clock, ways: list[Way]) -> None:
        self.leases: set[int] = set()
        self.late: set[int] = set()
        self.request_timeout = 5.0
        self.random = random.Random(3).random
        self._clock = clock
        self._ways = iter(ways)

    def unary(self, _rpc: object, request: Message, *, timeout: float | None = None) -> Deferred[Any]:
        # When the drawn ones are used up the network is well.
        way = next(self._ways, Way(Fate.ANSWERED, 0.01, 0.01))
        limit = self.request_timeout if timeout is None else timeout
        deferred: Deferred[Any] = Deferred(
            lambda given_up: given_up.errback(Abandoned(maybe_sent=way.fate is not Fate.NOT_SENT))
        )
        answers: list[Any] = []
        took = way.there + way.back

        def arrive() -> None:
            answers.append(self._act(request))
            if deferred.called and isinstance(request, LeaseGrantRequest) and request.ID in self.leases:
                self.late.add(request.ID)

        if way.fate is Fate.ANSWERED:
            self._clock.callLater(way.there, arrive)
        elif way.fate is Fate.ANSWER_LOST:
            self._clock.callLater(way.there + way.late, arrive)

        def end() -> None:
            if deferred.called:
                return
            result = answers[0] if way.fate is Fate.ANSWERED and took < limit else _no_answer(way.fate, request)
            deferred.callback(Failure(result) if isinstance(result, Exception) else result)

        self._clock.callLater(min(took, limit), end)
        return deferred

    def batch(self, rpc: object, requests: list[Message], *, timeout: float | None = None) -> Deferred[Any]:
        return self.unary(rpc, requests[0], timeout=timeout).addCallback(lambda answer: [answer])

    def _act(self, request: Message) -> Any:  # noqa: ANN401 - one of three answers, or an error
        if isinstance(request, LeaseGrantRequest):
            if request.ID in self.leases:
                return EXISTS
            self.leases.add(request.ID)
            return LeaseGrantResponse(ID=request.ID, TTL=request.TTL)
        if isinstance(request, LeaseKeepAliveRequest):
            return LeaseKeepAliveResponse(ID=request.ID, TTL=30 if request.ID in self.leases else 0)
        assert isinstance(request, LeaseRevokeRequest)
        if request.ID not in self.leases:
            return NOT_FOUND
        self.leases.discard(request.ID)
        return LeaseRevokeResponse()


def _no_answer(fate: Fate, request: Message) -> Exception:
    if fate is Fate.NOT_SENT:
        return Unavailable("not sent")
    return (OutcomeUnknown if isinstance(request, LeaseGrantRequest) else DeadlineExceeded)("sent")


times = st.floats(min_value=0.01, max_value=2).map(lambda seconds: round(seconds, 2))
ways = st.lists(
    st.builds(Way, st.sampled_from(list(Fate)), times, times, st.sampled_from([0.0, 0.0, 3.0, 6.0])), max_size=5
)


@settings(max_examples=400, deadline=None)
@given(
    ways=ways,
    timeouts=st.lists(times, min_size=1, max_size=3),
    cancel_after=st.one_of(st.none(), times),
    stop_after=st.one_of(st.none(), times),
)
def test_in_the_end_etcd_has_the_leases_that_somebody_knows_of_and_no_others(  # noqa: C901 - one simulation
    ways: list[Way], timeouts: list[float], cancel_after: float | None, stop_after: float | None
) -> None:
    clock = Clock()
    server = Server(clock, ways)
    grants = Grants(server, clock)  # type: ignore[arg-type]
    known: set[int] = set()
    ends: list[object] = []
    left: set[int] = set()
    stopped: list[float] = []

    def granted(lease: Granted) -> None:
        known.add(lease.lease_id)

    def ended(result: object) -> None:
        ends.append(result)
        if isinstance(result, Failure):
            result.trap(OutcomeUnknown, Unavailable, CancelledError, ServiceStopped, DeadlineExceeded)

    for timeout in timeouts:
        granting = grants.grant(30, 0, timeout).addCallback(granted)
        granting.addBoth(ended)
        if cancel_after is not None:
            clock.callLater(cancel_after, granting.cancel)

    def told(leases: list[Left]) -> None:
        stopped.append(clock.seconds())
        left.update(each.lease_id for each in leases)

    if stop_after is not None:
        clock.callLater(stop_after, lambda: grants.stop(5).addCallback(told))
    with capturedLogs() as logs:
        while clock.getDelayedCalls():
            clock.advance(max(0.0, min(call.getTime() for call in clock.getDelayedCalls()) - clock.seconds()))
            assert clock.seconds() < 120
    for event in logs:
        left.update(event["lease_ids"])
    assert len(ends) == len(timeouts)
    assert known <= server.leases
    if stop_after is None:
        assert server.leases - known <= left
    else:
        # After the stop nobody is there to look for what is late.
        assert server.leases - known <= left | server.late
        assert stop_after <= stopped[0] <= stop_after + 5.001
