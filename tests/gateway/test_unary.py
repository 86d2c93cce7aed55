"""One call over several attempts, with the time in the test's hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, DeferredSemaphore, succeed
from twisted.internet.task import Clock

from tests.gateway.servers import EMPTY_ANSWER, JSON
from twisted_etcd import errors
from twisted_etcd.errors import (
    DeadlineExceeded,
    NotEtcd,
    OutcomeUnknown,
    ServiceStopped,
    TLSFailed,
    Unavailable,
)
from twisted_etcd.gateway.answers import read_reply
from twisted_etcd.gateway.checkups import Condition
from twisted_etcd.gateway.endpoints import Endpoint, parse_endpoints
from twisted_etcd.gateway.endpointset import EndpointSet, EndpointState
from twisted_etcd.gateway.exchange import ExchangeFailed, Obstacle, Reach, Reply
from twisted_etcd.gateway.tokens import Tokens
from twisted_etcd.gateway.unary import Abandoned, Route, UnaryCall
from twisted_etcd.schema import rpcs

ErrorT = TypeVar("ErrorT", bound=Exception)
A, B = "http://a:2379", "http://b:2379"
TIMEOUT = 5.0


def good() -> Reply:
    return Reply(status=200, content_type=JSON, server="", body=EMPTY_ANSWER, whole=True)


def refusal(code: int, message: str) -> Reply:
    body = b'{"code":%d,"message":"%s"}' % (code, message.encode())
    return Reply(status=500, content_type=JSON, server="", body=body, whole=True)


def stranger() -> Reply:
    return Reply(status=200, content_type=JSON, server="", body=b'{"status":"ok"}', whole=True)


class Attempt:
    """One POST under way, which the test ends."""

    def __init__(self, url: str, token: str) -> None:
        self.url = url
        self.token = token
        self.cancelled = False
        #: How far it has got when it is cancelled.
        self.reach = Reach.MAYBE_SENT
        self.done: Deferred[Reply] = Deferred(self._cancelled)

    def answers(self, reply: Reply) -> None:
        self.done.callback(reply)

    def breaks(self, reach: Reach, why: str = "it broke", obstacle: Obstacle | None = None) -> None:
        self.done.errback(ExchangeFailed(why, reach, obstacle))

    def _cancelled(self, done: Deferred[Reply]) -> None:
        self.cancelled = True
        done.errback(ExchangeFailed("cancelled", self.reach))


class Scene:
    """A call with its clock, its endpoints and its attempts."""

    def __init__(
        self,
        *urls: str,
        repeatable: bool,
        authenticate: Callable[[], Deferred[str]] | None = None,
        taken: str = "",
        timeout: float = TIMEOUT,
    ) -> None:
        self.clock = Clock()
        self.attempts: list[Attempt] = []
        self.endpoints = EndpointSet(parse_endpoints(urls or (A,)), self.clock.seconds, lambda: 1.0)
        #: Who was asked how it is, and where its answer goes.
        self.checkups: list[tuple[str, Deferred[Condition]]] = []
        #: What is found out at once of members that are asked, and answered at once from then on.
        self.found_at_once: Condition | None = None
        self.answered_at_once: Reply | None = None
        #: One at a time at each endpoint.
        self.turns: dict[str, DeferredSemaphore] = {}
        if taken:
            self.turns[taken] = DeferredSemaphore(1)
            self.turns[taken].acquire()
        self.rpc: Any = rpcs.RANGE if repeatable else rpcs.PUT
        self.outcome: list[Any] = []
        self.call = UnaryCall(
            Route(
                clock=cast("Any", self.clock),
                endpoints=self.endpoints,
                turns=self._turns,
                post=self._post,
                checkup=self._checkup,
                longest_patience=3.0,
                tokens=None if authenticate is None else Tokens(authenticate),
                random=lambda: 1.0,
            ),
            self.rpc,
            b"{}",
            lambda reply, url: read_reply(self.rpc, reply, url),
            repeatable=repeatable,
            timeout=timeout,
            name=self.rpc.name,
        )
        self.deferred = self.call.start()
        self.deferred.addBoth(self.outcome.append)

    def _turns(self, endpoint: Endpoint) -> DeferredSemaphore:
        return self.turns.setdefault(str(endpoint), DeferredSemaphore(1))

    def _post(self, endpoint: Endpoint, path: str, token: str, body: bytes) -> Deferred[Reply]:
        assert (path, body) == (self.rpc.path, b"{}")
        self.attempts.append(Attempt(str(endpoint), token))
        if self.answered_at_once is not None:
            self.attempts[-1].answers(self.answered_at_once)
        return self.attempts[-1].done

    def _checkup(self, endpoint: Endpoint) -> Deferred[Condition]:
        if self.found_at_once is not None:
            return succeed(self.found_at_once)
        self.checkups.append((str(endpoint), Deferred()))
        return self.checkups[-1][1]

    def finds(self, trouble: str = "") -> None:
        """How the member is that was asked last; noted, as checkups do."""
        url, asked = self.checkups[-1]
        [endpoint] = (each for each in self.endpoints.all if str(each) == url)
        if trouble:
            self.endpoints.failed(endpoint, trouble)
        else:
            self.endpoints.served(endpoint)
        asked.callback(Condition(trouble=trouble))

    @property
    def states(self) -> list[EndpointState]:
        return [status.state for status in self.endpoints.statuses()]

    @property
    def now(self) -> Attempt:
        """The attempt under way."""
        assert not self.attempts[-1].done.called, "no attempt is under way"
        return self.attempts[-1]

    @property
    def urls(self) -> list[str]:
        return [attempt.url for attempt in self.attempts]

    def until_over(self, respond: Callable[[Attempt], None]) -> None:
        """Let time pass until the call ends; each attempt is responded to at once."""
        while not self.outcome:
            if self.attempts[-1].done.called:
                self.clock.advance(0.01)
            else:
                respond(self.attempts[-1])

    def fails_with(self, cls: type[ErrorT]) -> ErrorT:
        """The error, once nothing is left to do or to wait for."""
        (failure,) = self.outcome
        error = failure.value
        assert type(error) is cls, failure
        self.is_over()
        return error

    def succeeds(self) -> None:
        (response,) = self.outcome
        assert response.header.revision == 3
        self.is_over()

    def is_over(self) -> None:
        assert self.clock.getDelayedCalls() == []
        assert all(attempt.done.called for attempt in self.attempts)
        assert all(turns.tokens == 1 for turns in self.turns.values())


BOTH = pytest.mark.parametrize("repeatable", [True, False], ids=["read", "write"])


@BOTH
def test_an_answer_ends_the_call_and_its_timer(*, repeatable: bool) -> None:
    scene = Scene(repeatable=repeatable)
    scene.now.answers(good())
    scene.succeeds()


# --- attempts that break --------------------------------------------------------------------------------------------


@BOTH
def test_what_was_not_sent_goes_to_the_next_endpoint_at_once(*, repeatable: bool) -> None:
    scene = Scene(A, B, repeatable=repeatable)
    scene.now.breaks(Reach.NOT_SENT)
    scene.now.answers(good())
    scene.succeeds()
    assert scene.urls == [A, B]
    assert str(scene.endpoints.choose()) == B


def test_a_read_that_may_have_been_sent_goes_to_the_next_endpoint() -> None:
    scene = Scene(A, B, repeatable=True)
    scene.now.breaks(Reach.MAYBE_SENT)
    scene.now.answers(good())
    scene.succeeds()


def test_a_write_that_may_have_been_sent_is_not_sent_again() -> None:
    scene = Scene(A, B, repeatable=False)
    scene.now.breaks(Reach.MAYBE_SENT, "connection lost")
    error = scene.fails_with(OutcomeUnknown)
    assert str(error) == f"KV.Put was sent and not confirmed; it may have been applied: {A}: connection lost"
    assert scene.urls == [A]


def test_a_write_is_not_sent_again_after_a_second_attempt_that_may_have_arrived() -> None:
    scene = Scene(A, B, repeatable=False)
    scene.now.breaks(Reach.NOT_SENT, "refused")
    scene.now.breaks(Reach.MAYBE_SENT, "connection lost")
    assert scene.fails_with(OutcomeUnknown).tried == {A: "refused", B: "connection lost"}


def test_after_each_round_there_is_a_wait_that_doubles() -> None:
    scene = Scene(A, B, repeatable=True)
    for count, wait in ((2, 0.05), (4, 0.1), (6, 0.2)):
        while len(scene.attempts) < count:
            scene.now.breaks(Reach.NOT_SENT)
        scene.now.breaks(Reach.NOT_SENT)
        scene.clock.advance(wait - 0.001)
        assert len(scene.attempts) == count
        scene.clock.advance(0.002)
        assert len(scene.attempts) == count + 1
    scene.now.answers(good())
    scene.succeeds()


def test_each_round_tries_each_endpoint_once_whatever_other_calls_find_meanwhile() -> None:
    scene = Scene(A, B, repeatable=True)
    a, b = scene.endpoints.all
    scene.endpoints.failed(a, "it broke")
    scene.endpoints.failed(b, "it broke")
    scene.now.breaks(Reach.NOT_SENT)
    # Another call has been unlucky with b.
    scene.endpoints.failed(b, "it broke")
    assert scene.urls == [A, B]
    scene.now.answers(good())
    scene.succeeds()


# --- what etcd answers ----------------------------------------------------------------------------------------------


@BOTH
def test_an_error_of_the_request_is_the_answer(*, repeatable: bool) -> None:
    scene = Scene(A, B, repeatable=repeatable)
    scene.now.answers(refusal(3, "etcdserver: key is not provided"))
    scene.fails_with(errors.EmptyKey)
    assert scene.urls == [A]


@BOTH
def test_a_member_without_a_leader_is_passed_over(*, repeatable: bool) -> None:
    scene = Scene(A, B, repeatable=repeatable)
    scene.now.answers(refusal(14, "etcdserver: no leader"))
    scene.now.answers(good())
    scene.succeeds()


def test_a_read_that_timed_out_in_the_cluster_goes_on_elsewhere() -> None:
    scene = Scene(A, B, repeatable=True)
    scene.now.answers(refusal(2, "etcdserver: request timed out"))
    scene.now.answers(good())
    scene.succeeds()


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (2, "etcdserver: request timed out"),
        (4, "context deadline exceeded"),
        (14, "etcdserver: leader changed"),
        (2, "something new"),
    ],
)
def test_a_write_that_etcd_may_still_apply_is_of_unknown_outcome(code: int, message: str) -> None:
    scene = Scene(A, B, repeatable=False)
    scene.now.answers(refusal(code, message))
    error = scene.fails_with(OutcomeUnknown)
    assert message in str(error)
    assert isinstance(error.__cause__, errors.EtcdError)
    assert scene.urls == [A]


# --- what is not etcd -----------------------------------------------------------------------------------------------


@BOTH
def test_a_stranger_among_the_endpoints_is_passed_over(*, repeatable: bool) -> None:
    scene = Scene(A, B, repeatable=repeatable)
    scene.now.answers(stranger())
    scene.now.answers(good())
    scene.succeeds()


@BOTH
def test_where_all_are_strangers_no_time_is_lost(*, repeatable: bool) -> None:
    scene = Scene(A, B, repeatable=repeatable)
    scene.now.answers(stranger())
    scene.now.breaks(Reach.NOT_SENT, "what came is not HTTP", NotEtcd)
    error = scene.fails_with(NotEtcd)
    assert list(error.tried) == [A, B]
    assert "which is not etcd's v3 gateway" in error.tried[A]


@BOTH
def test_where_tls_fails_with_all_no_time_is_lost(*, repeatable: bool) -> None:
    scene = Scene(A, B, repeatable=repeatable)
    scene.now.breaks(Reach.NOT_SENT, "TLS: bad", TLSFailed)
    scene.now.breaks(Reach.NOT_SENT, "TLS: worse", TLSFailed)
    error = scene.fails_with(TLSFailed)
    assert str(error) == f"no endpoint can serve {scene.rpc.name}: {A}: TLS: bad; {B}: TLS: worse"


def test_a_stranger_beside_a_member_that_is_away_waits_for_the_member() -> None:
    scene = Scene(A, B, repeatable=True)
    scene.now.answers(stranger())
    scene.now.breaks(Reach.NOT_SENT, "refused")
    assert scene.outcome == []
    scene.clock.advance(0.1)
    scene.now.answers(stranger())
    scene.now.answers(good())
    scene.succeeds()


# --- the deadline ---------------------------------------------------------------------------------------------------


def test_a_read_that_hangs_exceeds_its_deadline() -> None:
    scene = Scene(A, B, repeatable=True)
    scene.clock.advance(TIMEOUT - 0.01)
    assert scene.outcome == []
    scene.clock.advance(0.02)
    assert str(scene.fails_with(DeadlineExceeded)) == "KV.Range got no answer within 5 s"
    assert scene.attempts[0].cancelled


def test_a_write_that_hangs_is_of_unknown_outcome() -> None:
    scene = Scene(repeatable=False)
    scene.clock.advance(TIMEOUT)
    assert str(scene.fails_with(OutcomeUnknown)) == "KV.Put got no answer within 5 s; it may have been applied"
    assert scene.attempts[0].cancelled


def test_a_write_that_never_got_a_connection_is_certainly_not_applied() -> None:
    scene = Scene(repeatable=False)
    scene.now.reach = Reach.NOT_SENT
    scene.clock.advance(TIMEOUT)
    scene.fails_with(Unavailable)


@BOTH
def test_an_endpoint_that_refuses_until_the_deadline_is_unavailable(*, repeatable: bool) -> None:
    scene = Scene(repeatable=repeatable)
    scene.until_over(lambda attempt: attempt.breaks(Reach.NOT_SENT, "refused"))
    error = scene.fails_with(Unavailable)
    assert str(error) == f"{scene.rpc.name} got no answer within 5 s, and was not sent: {A}: refused"


def test_what_may_be_repeated_and_may_have_arrived_once_is_never_called_unsent() -> None:
    scene = Scene(repeatable=True)
    scene.now.breaks(Reach.MAYBE_SENT, "connection lost")
    scene.clock.advance(0.1)
    scene.until_over(lambda attempt: attempt.breaks(Reach.NOT_SENT, "refused"))
    scene.fails_with(DeadlineExceeded)


@BOTH
def test_what_etcd_answered_last_is_the_answer_when_time_is_up(*, repeatable: bool) -> None:
    scene = Scene(repeatable=repeatable)
    scene.until_over(lambda attempt: attempt.answers(refusal(14, "etcdserver: no leader")))
    scene.fails_with(errors.NoLeader)


def test_an_answer_from_before_a_break_is_not_the_last_word() -> None:
    scene = Scene(repeatable=False)
    scene.now.answers(refusal(14, "etcdserver: no leader"))
    scene.clock.advance(0.1)
    scene.until_over(lambda attempt: attempt.breaks(Reach.NOT_SENT, "refused"))
    assert scene.fails_with(Unavailable).tried == {A: "refused"}


# --- a member that says nothing -------------------------------------------------------------------------------------

C = "http://c:2379"
HUNG = "it did not answer within 1.5 s how it is"


@BOTH
@pytest.mark.parametrize(("urls", "patience"), [((A,), 1.25), ((A, B), 1.25), ((A, B, C), 5 / 6)])
def test_a_member_that_says_nothing_for_half_of_its_share_is_asked_how_it_is(
    *, repeatable: bool, urls: tuple[str, ...], patience: float
) -> None:
    scene = Scene(*urls, repeatable=repeatable)
    scene.clock.advance(patience - 0.01)
    assert scene.checkups == []
    scene.clock.advance(0.02)
    assert [url for url, _ in scene.checkups] == [A]
    scene.now.answers(good())
    scene.succeeds()


def test_a_read_leaves_a_member_that_is_in_trouble() -> None:
    scene = Scene(A, B, repeatable=True)
    scene.clock.advance(1.3)
    scene.finds("it has no leader")
    assert scene.urls == [A, B]
    assert scene.attempts[0].cancelled
    scene.now.answers(good())
    scene.succeeds()
    first, second = scene.endpoints.statuses()
    assert (first.why, second.why) == ("it has no leader", "")
    assert str(scene.endpoints.choose()) == B


def test_a_read_waits_for_a_member_that_is_slow_and_well() -> None:
    scene = Scene(A, B, repeatable=True)
    for count in (1, 2, 3):
        scene.clock.advance(1.25)
        assert len(scene.checkups) == count
        scene.finds()
    scene.now.answers(good())
    scene.succeeds()
    assert scene.urls == [A]


def test_a_read_leaves_a_member_that_does_not_even_say_how_it_is_after_its_share() -> None:
    scene = Scene(A, B, C, repeatable=True)
    scene.clock.pump([0.05] * 33)
    assert scene.urls == [A]
    scene.clock.pump([0.05] * 2)
    assert scene.urls == [A, B]
    assert scene.attempts[0].cancelled
    scene.now.answers(good())
    scene.succeeds()
    # Whether it is to be avoided is for the answer to say, for which there is time.
    assert scene.states == [EndpointState.UNTRIED, EndpointState.SERVING, EndpointState.UNTRIED]


def test_with_two_hung_members_of_three_a_read_reaches_the_third_with_a_share_of_its_time_left() -> None:
    scene = Scene(A, B, C, repeatable=True)
    scene.clock.pump([0.05] * 70)
    assert scene.urls == [A, B, C]
    assert scene.clock.seconds() < TIMEOUT - 1.25
    assert [url for url, _ in scene.checkups] == [A, B]
    scene.now.answers(good())
    scene.succeeds()


def test_where_all_are_slow_a_read_does_not_go_in_circles() -> None:
    scene = Scene(A, B, C, repeatable=True)
    scene.clock.pump([0.05] * 99)
    assert scene.urls == [A, B, C]
    scene.clock.advance(0.1)
    assert set(scene.fails_with(DeadlineExceeded).tried) == {A, B}


@BOTH
def test_a_call_with_one_endpoint_waits_for_it_in_any_case(*, repeatable: bool) -> None:
    scene = Scene(repeatable=repeatable)
    scene.clock.advance(1.3)
    scene.finds(HUNG)
    scene.clock.pump([0.05] * 60)
    # It goes on.
    scene.now.answers(good())
    scene.succeeds()
    assert scene.urls == [A]
    assert scene.states == [EndpointState.SERVING]


def test_a_write_that_may_have_been_sent_waits_for_its_deadline_and_the_next_call_begins_elsewhere() -> None:
    scene = Scene(A, B, repeatable=False)
    scene.clock.advance(1.3)
    scene.finds(HUNG)
    assert (scene.urls, str(scene.endpoints.choose())) == ([A], B)
    scene.clock.pump([0.05] * 80)
    assert "it may have been applied" in str(scene.fails_with(OutcomeUnknown))
    assert scene.urls == [A]


def test_a_write_gets_its_answer_from_a_member_that_goes_on() -> None:
    scene = Scene(A, B, repeatable=False)
    scene.clock.advance(1.3)
    scene.finds(HUNG)
    scene.clock.pump([0.05] * 40)
    scene.now.answers(good())
    scene.succeeds()
    assert scene.states == [EndpointState.SERVING, EndpointState.UNTRIED]


@BOTH
@pytest.mark.parametrize("trouble", ["", HUNG])
def test_what_waits_for_its_turn_at_a_member_goes_elsewhere_unsent(*, repeatable: bool, trouble: str) -> None:
    scene = Scene(A, B, repeatable=repeatable, taken=A)
    scene.clock.advance(1.26)
    if trouble:
        scene.finds(trouble)
    scene.clock.advance(1.26)
    assert scene.urls == [B]
    scene.turns[A].release()
    scene.now.answers(good())
    scene.succeeds()


def test_a_write_that_never_got_a_turn_is_certainly_not_applied() -> None:
    scene = Scene(repeatable=False, taken=A)
    scene.clock.pump([0.05] * 101)
    scene.turns[A].release()
    scene.fails_with(Unavailable)
    assert scene.attempts == []


def test_an_answer_about_a_member_that_comes_too_late_changes_nothing() -> None:
    scene = Scene(A, B, repeatable=True)
    scene.clock.advance(1.3)
    scene.now.answers(good())
    scene.succeeds()
    scene.finds("it did not answer")
    assert scene.urls == [A]
    assert scene.clock.getDelayedCalls() == []


def test_an_answer_about_a_member_that_was_left_does_not_disturb_the_next_attempt() -> None:
    scene = Scene(A, B, repeatable=True)
    scene.clock.advance(1.3)
    scene.now.breaks(Reach.MAYBE_SENT)
    scene.finds(HUNG)
    assert scene.urls == [A, B]
    scene.now.answers(good())
    scene.succeeds()


def test_an_answer_that_comes_at_once_and_ends_the_call_leaves_no_timer() -> None:
    scene = Scene(A, B, repeatable=True)
    scene.found_at_once = Condition(trouble="it has no leader")
    scene.answered_at_once = good()
    scene.clock.advance(1.3)
    scene.succeeds()
    assert scene.urls == [A, B]


@pytest.mark.parametrize("urls", [(A,), (A, B), (A, B, C)])
@BOTH
def test_a_short_time_marks_no_member_as_failing(*, repeatable: bool, urls: tuple[str, ...]) -> None:
    scene = Scene(*urls, repeatable=repeatable, timeout=0.01)
    scene.clock.pump([0.001] * 10)
    scene.fails_with(DeadlineExceeded if repeatable else OutcomeUnknown)
    assert EndpointState.FAILING not in scene.states


def test_with_every_member_in_trouble_the_deadline_says_why() -> None:
    scene = Scene(A, B, repeatable=True)
    while not scene.outcome:
        scene.clock.advance(0.05)
        if scene.checkups:
            scene.finds("it has no leader")
            scene.checkups.pop()
    assert scene.fails_with(DeadlineExceeded).tried == {A: "it has no leader", B: "it has no leader"}


@given(
    urls=st.sampled_from([(A,), (A, B), (A, B, C)]),
    repeatable=st.booleans(),
    steps=st.lists(
        st.one_of(
            st.floats(0, 0.7).map(lambda seconds: ("time", seconds)),
            st.sampled_from([("well", 0), ("trouble", 0), ("not sent", 0), ("maybe sent", 0), ("no leader", 0)]),
        ),
        max_size=30,
    ),
)
def test_whatever_happens_a_call_ends_by_its_deadline_and_a_write_that_may_be_applied_is_sent_once(
    *, urls: tuple[str, ...], repeatable: bool, steps: list[tuple[str, float]]
) -> None:
    scene = Scene(*urls, repeatable=repeatable)
    left = TIMEOUT
    dangerous = 0
    for what, seconds in steps:
        open_ = bool(scene.attempts) and not scene.attempts[-1].done.called
        if what == "time" and seconds < left:
            left -= seconds
            scene.clock.advance(seconds)
        elif what in ("well", "trouble") and scene.checkups and not scene.checkups[-1][1].called:
            scene.finds(HUNG if what == "trouble" else "")
        elif what == "not sent" and open_:
            scene.now.breaks(Reach.NOT_SENT)
        elif what == "maybe sent" and open_:
            dangerous += 1
            scene.now.breaks(Reach.MAYBE_SENT)
        elif what == "no leader" and open_:
            scene.now.answers(refusal(14, "etcdserver: no leader"))
    scene.clock.advance(left + 0.01)
    assert len(scene.outcome) == 1
    scene.is_over()
    if not repeatable:
        # Those that were cancelled by the deadline may have been sent as well.
        assert dangerous + sum(attempt.cancelled for attempt in scene.attempts) <= 1
        error = scene.outcome[0].value
        assert isinstance(error, OutcomeUnknown) or not dangerous


# --- ended from outside ---------------------------------------------------------------------------------------------


@BOTH
def test_cancelling_ends_the_attempt_and_the_timer(*, repeatable: bool) -> None:
    scene = Scene(A, B, repeatable=repeatable)
    scene.deferred.cancel()
    scene.fails_with(Abandoned)
    assert scene.attempts[0].cancelled
    assert str(scene.endpoints.choose()) == A


@BOTH
def test_cancelling_between_two_attempts_ends_the_wait(*, repeatable: bool) -> None:
    scene = Scene(repeatable=repeatable)
    scene.now.breaks(Reach.NOT_SENT)
    scene.deferred.cancel()
    scene.fails_with(Abandoned)


@BOTH
def test_stopping_ends_it_with_its_own_error(*, repeatable: bool) -> None:
    scene = Scene(repeatable=repeatable)
    scene.call.stop()
    error = scene.fails_with(ServiceStopped)
    assert str(error) == f"the client was stopped while {scene.rpc.name} was under way"
    assert scene.attempts[0].cancelled


def test_what_ended_it_first_counts() -> None:
    scene = Scene(repeatable=True)
    scene.call.stop()
    scene.call.stop()
    scene.deferred.cancel()
    scene.fails_with(ServiceStopped)


# --- tokens ---------------------------------------------------------------------------------------------------------


class Authentication:
    def __init__(self) -> None:
        self.requests: list[Deferred[str]] = []

    def __call__(self) -> Deferred[str]:
        self.requests.append(Deferred())
        return self.requests[-1]


INVALID = (16, "etcdserver: invalid auth token")


def test_the_token_goes_with_the_request() -> None:
    authentication = Authentication()
    scene = Scene(repeatable=False, authenticate=authentication)
    assert scene.attempts == []
    authentication.requests[0].callback("one")
    assert scene.now.token == "one"
    scene.now.answers(good())
    scene.succeeds()


@BOTH
def test_a_refused_token_is_renewed_once_and_the_request_repeated_at_the_same_endpoint(*, repeatable: bool) -> None:
    authentication = Authentication()
    scene = Scene(A, B, repeatable=repeatable, authenticate=authentication)
    authentication.requests[0].callback("one")
    scene.now.answers(refusal(*INVALID))
    authentication.requests[1].callback("two")
    scene.now.answers(good())
    scene.succeeds()
    assert [(attempt.url, attempt.token) for attempt in scene.attempts] == [(A, "one"), (A, "two")]


def test_a_token_that_is_refused_twice_is_the_answer() -> None:
    authentication = Authentication()
    scene = Scene(repeatable=True, authenticate=authentication)
    for token in ("one", "two"):
        authentication.requests[-1].callback(token)
        scene.now.answers(refusal(*INVALID))
    scene.fails_with(errors.InvalidAuthToken)


@BOTH
def test_a_wrong_password_is_the_answer(*, repeatable: bool) -> None:
    authentication = Authentication()
    scene = Scene(A, B, repeatable=repeatable, authenticate=authentication)
    authentication.requests[0].errback(errors.AuthenticationFailed(3, "authentication failed"))
    scene.fails_with(errors.AuthenticationFailed)
    assert (scene.attempts, len(authentication.requests)) == ([], 1)


@pytest.mark.parametrize(
    ("problem", "cls"),
    [
        (DeadlineExceeded("no answer", {A: "silence"}), Unavailable),
        (OutcomeUnknown("no answer", {A: "silence"}), Unavailable),
        (Unavailable("no answer", {A: "refused"}), Unavailable),
        (NotEtcd("no etcd", {A: "a web site"}), NotEtcd),
        (TLSFailed("no TLS", {A: "expired"}), TLSFailed),
        (errors.UnknownError(2, "as it happens"), Unavailable),
        (errors.InternalError(13, "as it happens"), Unavailable),
        (errors.NoLeader(14, "no leader"), Unavailable),
        (errors.UserNotFound(9, "user name not found"), errors.UserNotFound),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
@BOTH
def test_without_a_token_nothing_was_sent_whatever_the_reason(
    *, repeatable: bool, problem: Exception, cls: type[Exception]
) -> None:
    authentication = Authentication()
    scene = Scene(A, B, repeatable=repeatable, authenticate=authentication)
    authentication.requests[0].errback(problem)
    error = scene.fails_with(cls)
    assert scene.attempts == []
    tried = getattr(error, "tried", {})
    assert error is problem or (f"{scene.rpc.name} needs a token and got none" in str(error) and tried)


def test_the_deadline_covers_the_wait_for_a_token() -> None:
    authentication = Authentication()
    scene = Scene(repeatable=False, authenticate=authentication)
    scene.clock.advance(TIMEOUT)
    scene.fails_with(Unavailable)
    # It goes on for those to come.
    authentication.requests[0].callback("one")


def test_stopping_ends_the_wait_for_a_token() -> None:
    authentication = Authentication()
    scene = Scene(repeatable=True, authenticate=authentication)
    scene.call.stop()
    scene.fails_with(ServiceStopped)
