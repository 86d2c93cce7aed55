"""What goes together, when, and who gets which answer; the server is the test, with a clock."""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from tests.client.script import outcome
from twisted_etcd.client.batching import PATIENCE, PUTS, READS, WORTHWHILE, Batcher
from twisted_etcd.errors import (
    AuthenticationFailed,
    DeadlineExceeded,
    LeaseNotFound,
    NotEtcd,
    OutcomeUnknown,
    PermissionDenied,
    RequestTooLarge,
    ServiceStopped,
    TooManyOperations,
    Unavailable,
)
from twisted_etcd.gateway.endpointset import EndpointState, EndpointStatus
from twisted_etcd.gateway.unary import Abandoned
from twisted_etcd.schema import rpcs
from twisted_etcd.schema.common import Message, ResponseHeader
from twisted_etcd.schema.kv import (
    KeyValue,
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
    ResponseOp,
    TxnRequest,
    TxnResponse,
)

TIMEOUT = 5.0
REFUSED = PermissionDenied(7, "etcdserver: permission denied")
HEADER = ResponseHeader(cluster_id=1, member_id=2, revision=30, raft_term=4)


class Sent(NamedTuple):
    """A request that is under way."""

    rpc: object
    request: Message
    timeout: float
    deadline: float
    name: str
    deferred: Deferred[Any]

    @property
    def keys(self) -> str:
        """Of all that is in it."""
        if isinstance(self.request, TxnRequest):
            found = [each.request_range or each.request_put for each in self.request.success]
            return b"".join(each.key for each in found if each).decode()
        return cast("RangeRequest", self.request).key.decode()

    def answered(self) -> None:
        """With what shows whose answer it is: each value is its key."""
        if not isinstance(self.request, TxnRequest):
            reading = isinstance(self.request, RangeRequest)
            self.deferred.callback(found(self.keys) if reading else PutResponse(header=HEADER))
            return
        answers = []
        for each in self.request.success:
            if each.request_range:
                within = RangeResponse(
                    header=ResponseHeader(revision=30), kvs=found(each.request_range.key).kvs, count=1
                )
                answers.append(ResponseOp(response_range=within))
            else:
                answers.append(ResponseOp(response_put=PutResponse(header=ResponseHeader(revision=30))))
        self.deferred.callback(TxnResponse(header=HEADER, succeeded=True, responses=tuple(answers)))

    def fails(self, error: Exception) -> None:
        self.deferred.errback(Failure(error))


def found(key: str | bytes) -> RangeResponse:
    key = key.encode() if isinstance(key, str) else key
    return RangeResponse(header=HEADER, kvs=(KeyValue(key=key, value=key),), count=1)


class Gateway:
    def __init__(self) -> None:
        self.sent: list[Sent] = []
        self.statuses: tuple[EndpointStatus, ...] = ()
        self.stopped = False

    @property
    def endpoint_statuses(self) -> tuple[EndpointStatus, ...]:
        return self.statuses

    def unary(
        self, rpc: rpcs.RPC[Any, Any], request: Message, *, timeout: float, deadline: float, name: str = ""
    ) -> Deferred[Any]:
        deferred: Deferred[Any] = Deferred(lambda each: each.errback(Failure(Abandoned(maybe_sent=True))))
        sent = Sent(rpc, request, timeout, deadline, name or rpc.name, deferred)
        if self.stopped:
            sent.fails(ServiceStopped("the client was stopped"))
        else:
            self.sent.append(sent)
        return deferred

    def take(self) -> Sent:
        """The oldest one that is under way."""
        return self.sent.pop(0)

    @property
    def under_way(self) -> list[str]:
        return [sent.keys for sent in self.sent]


class Bench:
    """Two batchers over a scripted gateway."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.gateway = Gateway()
        self.reads = Batcher(cast("Any", self.gateway), self.clock, READS)
        self.puts = Batcher(cast("Any", self.gateway), self.clock, PUTS)

    def get(self, key: str, timeout: float = TIMEOUT) -> Deferred[RangeResponse]:
        return self.reads.request(RangeRequest(key=key.encode()), len(key), timeout)

    def put(self, key: str, timeout: float = TIMEOUT) -> Deferred[PutResponse]:
        return self.puts.request(PutRequest(key=key.encode(), value=b"v"), len(key) + 1, timeout)

    def turn(self) -> None:
        """A turn of the reactor ends."""
        self.clock.advance(0)

    def gets(self, keys: str) -> list[Deferred[RangeResponse]]:
        return [self.get(key) for key in keys]


@pytest.fixture
def bench() -> Bench:
    return Bench()


def letters(count: int) -> str:
    return "".join(chr(ord("a") + number) for number in range(count))


# --- together -------------------------------------------------------------------------------------------------------


def test_what_finds_nothing_under_way_goes_at_once_and_as_it_is(bench: Bench) -> None:
    getting = bench.get("a")
    sent = bench.gateway.take()
    assert (sent.rpc, sent.request) == (rpcs.RANGE, RangeRequest(key=b"a"))
    assert (sent.timeout, sent.deadline, sent.name) == (TIMEOUT, TIMEOUT, "KV.Range")
    sent.answered()
    assert outcome(getting) == found("a")
    assert bench.clock.getDelayedCalls() == []


def test_what_comes_meanwhile_goes_together_with_the_next_answer(bench: Bench) -> None:
    getting = bench.gets("abc")
    assert bench.gateway.under_way == ["a"]
    bench.gateway.take().answered()
    [sent] = bench.gateway.sent
    assert (sent.rpc, sent.keys, sent.name) == (rpcs.TXN, "bc", "KV.Range")
    sent.answered()
    assert [outcome(each) for each in getting] == [found("a"), found("b"), found("c")]


def test_puts_go_together_with_puts_alone(bench: Bench) -> None:
    putting = [bench.put(key) for key in "abc"]
    getting = bench.gets("xyz")
    assert bench.gateway.under_way == ["a", "x"]
    for _ in range(4):
        bench.gateway.take().answered()
    assert [outcome(each) for each in putting] == [PutResponse(header=HEADER)] * 3
    assert [outcome(each) for each in getting] == [found("x"), found("y"), found("z")]


def test_what_those_ask_for_who_were_answered_together_goes_together(bench: Bench) -> None:
    for each in bench.gets("abc"):
        each.addCallback(lambda answer: bench.get(answer.kvs[0].value.decode().upper()))
    bench.gateway.take().answered()
    assert bench.gateway.under_way == ["bcA"]
    bench.gateway.take().answered()
    assert bench.gateway.under_way == ["BC"]


def test_a_second_batch_goes_beside_the_first_where_it_is_worth_it(bench: Bench) -> None:
    keys = letters(WORTHWHILE + 1)
    bench.gets(keys[:-1])
    assert bench.gateway.under_way == ["a"]
    bench.turn()
    assert bench.gateway.under_way == ["a"]
    bench.get(keys[-1])
    bench.get("one more")
    assert bench.gateway.under_way == ["a"]
    bench.turn()
    assert bench.gateway.under_way == ["a", keys[1:] + "one more"]


def test_while_requests_come_many_at_a_time_those_of_one_turn_go_together(bench: Bench) -> None:
    bench.gets("abc")
    bench.gateway.take().answered()
    bench.gateway.take().answered()
    bench.gets("de")
    assert bench.gateway.under_way == []
    bench.turn()
    assert bench.gateway.under_way == ["de"]


def test_one_that_comes_alone_waits_for_the_end_of_a_turn_only_once(bench: Bench) -> None:
    bench.gets("abc")
    bench.gateway.take().answered()
    bench.gateway.take().answered()
    bench.get("d")
    bench.turn()
    bench.gateway.take().answered()
    bench.get("e")
    assert bench.gateway.under_way == ["e"]


def test_a_third_one_waits_and_the_two_become_alike(bench: Bench) -> None:
    bench.gets(letters(4 * WORTHWHILE))
    bench.turn()
    # As many as make the two alike, of all there are.
    assert [len(each) for each in bench.gateway.under_way] == [1, 32]
    bench.gets(letters(20))
    bench.turn()
    assert [len(each) for each in bench.gateway.under_way] == [1, 32]
    bench.gateway.take().answered()
    assert [len(each) for each in bench.gateway.under_way] == [32, 42]
    bench.gateway.take().answered()
    # Too few for a lane of their own.
    assert [len(each) for each in bench.gateway.under_way] == [42]
    bench.gateway.take().answered()
    assert [len(each) for each in bench.gateway.under_way] == [9]


def test_each_has_the_header_of_the_whole(bench: Bench) -> None:
    getting = bench.gets("abc")
    bench.gateway.take().answered()
    bench.gateway.take().answered()
    assert [outcome(each).header for each in getting] == [HEADER] * 3


def test_puts_to_one_key_wait_for_each_other(bench: Bench) -> None:
    first, second, third = bench.put("a"), bench.put("a"), bench.put("b")
    assert bench.gateway.under_way == ["a"]
    bench.gateway.take().answered()
    assert outcome(first) == PutResponse(header=HEADER)
    # Now the key is free: the one that waited for its key is behind the one that did not.
    assert bench.gateway.under_way == ["ba"]
    bench.gateway.take().answered()
    assert [outcome(each) for each in (second, third)] == [PutResponse(header=HEADER)] * 2


# --- a batch that takes long ----------------------------------------------------------------------------------------


def test_a_batch_that_takes_long_holds_up_nothing(bench: Bench) -> None:
    getting = bench.gets("abc")
    bench.clock.advance(PATIENCE)
    assert bench.gateway.under_way == ["a", "bc"]
    late = bench.gateway.take()
    bench.gateway.take().answered()
    assert [outcome(each) for each in getting] == ["nothing yet", found("b"), found("c")]
    late.answered()


def test_however_many_take_long(bench: Bench) -> None:
    for key in "abcdef":
        bench.get(key)
        bench.get(key)
        bench.clock.advance(PATIENCE)
    assert bench.gateway.under_way == ["a", "a", "bb", "cc", "dd", "ee", "ff"]


def test_a_key_waits_for_its_batch_however_long_that_takes(bench: Bench) -> None:
    first, second = bench.put("a"), bench.put("a")
    bench.put("b")
    bench.clock.advance(PATIENCE)
    assert bench.gateway.under_way == ["a", "b"]
    bench.clock.advance(1)
    assert bench.gateway.under_way == ["a", "b"]
    bench.gateway.take().fails(OutcomeUnknown("KV.Put was sent and not confirmed; it may have been applied"))
    assert bench.gateway.under_way == ["b", "a"]
    bench.gateway.sent[1].answered()
    assert isinstance(outcome(first), OutcomeUnknown)
    assert outcome(second) == PutResponse(header=HEADER)


# --- refused as a whole ---------------------------------------------------------------------------------------------


def refuse(bench: Bench, bad: str, error: Exception) -> list[str]:
    """Refuse each batch that has one of these keys in it, and answer the others; all that was sent."""
    said = []
    while bench.gateway.sent:
        sent = bench.gateway.take()
        said.append(sent.keys)
        if any(key in bad for key in sent.keys):
            sent.fails(error)
        else:
            sent.answered()
    return said


def test_of_a_batch_that_is_refused_each_gets_its_own_answer(bench: Bench) -> None:
    bench.get("x")
    getting = bench.gets("abcdefgh")
    assert refuse(bench, "f", REFUSED) == ["x", "abcdefgh", "abcd", "efgh", "ef", "e", "f", "gh"]
    answers = {key: outcome(each) for key, each in zip("abcdefgh", getting, strict=True)}
    assert answers.pop("f") is REFUSED
    assert answers == {key: found(key) for key in answers}


def test_where_all_are_refused_each_hears_it(bench: Bench) -> None:
    bench.put("x")
    putting = [bench.put(key) for key in "abcd"]
    refuse(bench, "abcd", LeaseNotFound(5, "etcdserver: requested lease not found"))
    assert [type(outcome(each)) for each in putting] == [LeaseNotFound] * 4


def test_a_key_keeps_its_order_while_its_batch_is_halved(bench: Bench) -> None:
    bench.put("x")
    for key in "aba":
        bench.put(key)
    bench.gateway.take().answered()
    assert bench.gateway.under_way == ["ab"]
    bench.gateway.take().fails(REFUSED)
    # The halves, and not the second put to "a", which waits until the first has its answer.
    assert bench.gateway.under_way == ["a"]
    bench.gateway.take().answered()
    assert bench.gateway.under_way == ["b"]
    bench.gateway.take().answered()
    assert bench.gateway.under_way == ["a"]


def test_what_a_server_takes_at_most_is_learnt(bench: Bench) -> None:
    bench.get("x")
    bench.gets(letters(15))
    bench.gateway.take().answered()
    error = TooManyOperations(3, "etcdserver: too many operations in txn request")
    while bench.gateway.sent:
        sent = bench.gateway.take()
        if len(sent.keys) > 4:
            sent.fails(error)
        else:
            sent.answered()
    bench.gets(letters(6))
    bench.turn()
    assert bench.gateway.under_way == ["abc"]


def test_answers_that_are_too_large_together_make_batches_smaller(bench: Bench) -> None:
    bench.get("x")
    bench.gets("abcd")
    bench.gateway.take().answered()
    bench.gateway.take().fails(RequestTooLarge(8, "grpc: received message larger than max (4195000 vs. 4194304)"))
    assert bench.gateway.under_way == ["ab"]


def test_a_refusal_that_is_about_the_user_is_told_to_all_who_wait(bench: Bench) -> None:
    putting = [bench.put("a"), bench.put("b"), bench.put("a")]
    error = AuthenticationFailed(3, "etcdserver: authentication failed, invalid user ID or password")
    bench.gateway.take().fails(error)
    assert bench.gateway.sent == []
    told = [outcome(each) for each in putting]
    assert [type(each) for each in told] == [AuthenticationFailed] * 3
    assert len(set(map(id, told))) == 3
    assert str(told[2]) == str(error)
    # It is no verdict for ever.
    bench.put("a")
    assert bench.gateway.under_way == ["a"]


# --- failed as a whole ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        Unavailable("KV.Range was not sent", {"http://one": "refused"}),
        DeadlineExceeded("KV.Range got no answer within 5 s", {"http://one": "silent"}),
        OutcomeUnknown("KV.Put was sent and not confirmed; it may have been applied", {"http://one": "cut"}),
        ServiceStopped("the client was stopped while KV.Put was under way"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_failure_is_everybodys_and_each_has_an_error_of_its_own(bench: Bench, error: Exception) -> None:
    error.__cause__ = cause = ValueError("why")
    bench.put("x")
    putting = [bench.put(key) for key in "abc"]
    bench.gateway.take().answered()
    bench.gateway.take().fails(error)
    told = [outcome(each) for each in putting]
    assert [str(each) for each in told] == [str(error)] * 3
    assert {type(each) for each in told} == {type(error)}
    assert len(set(map(id, told))) == 3
    assert [each.__cause__ for each in told] == [cause] * 3
    assert [getattr(each, "tried", None) for each in told] == [getattr(error, "tried", None)] * 3


@pytest.mark.parametrize(
    "responses",
    [(), (ResponseOp(response_put=PutResponse()),) * 2, (ResponseOp(response_range=RangeResponse()),) * 3],
    ids=["none", "of another kind", "too many"],
)
def test_answers_that_are_not_those_to_the_requests_are_nobodys(
    bench: Bench, responses: tuple[ResponseOp, ...]
) -> None:
    bench.get("x")
    getting = bench.gets("ab")
    bench.gateway.take().answered()
    bench.gateway.take().deferred.callback(TxnResponse(header=HEADER, responses=responses))
    assert [type(outcome(each)) for each in getting] == [NotEtcd] * 2


def test_a_write_with_such_an_answer_may_have_been_applied(bench: Bench) -> None:
    bench.put("x")
    putting = [bench.put(key) for key in "ab"]
    bench.gateway.take().answered()
    bench.gateway.take().deferred.callback(TxnResponse(header=HEADER))
    assert [type(outcome(each)) for each in putting] == [OutcomeUnknown] * 2


def test_after_the_gateway_has_stopped_all_that_waits_fails_at_once(bench: Bench) -> None:
    getting = bench.gets(letters(8))
    bench.gateway.stopped = True
    bench.gateway.take().fails(ServiceStopped("the client was stopped"))
    assert [type(outcome(each)) for each in getting] == [ServiceStopped] * 8
    bench.reads.stop()
    assert bench.clock.getDelayedCalls() == []


# --- cancelled ------------------------------------------------------------------------------------------------------


def test_one_that_waits_is_cancelled_and_does_not_go(bench: Bench) -> None:
    getting = bench.gets("abc")
    getting[1].cancel()
    cancelled = outcome(getting[1])
    assert isinstance(cancelled, Abandoned)
    assert not cancelled.maybe_sent
    bench.gateway.take().answered()
    assert bench.gateway.under_way == ["c"]


def test_one_that_waits_for_its_key_is_cancelled_and_does_not_go(bench: Bench) -> None:
    putting = [bench.put("a"), bench.put("a"), bench.put("a")]
    putting[1].cancel()
    assert isinstance(outcome(putting[1]), CancelledError)
    bench.gateway.take().answered()
    bench.gateway.take().answered()
    assert outcome(putting[2]) == PutResponse(header=HEADER)
    assert bench.gateway.sent == []


def test_one_of_a_batch_is_cancelled_and_the_others_are_answered(bench: Bench) -> None:
    bench.put("x")
    putting = [bench.put(key) for key in "abc"]
    bench.gateway.take().answered()
    putting[1].cancel()
    cancelled = outcome(putting[1])
    assert isinstance(cancelled, Abandoned)
    assert cancelled.maybe_sent
    bench.gateway.take().answered()
    assert [outcome(putting[0]), outcome(putting[2])] == [PutResponse(header=HEADER)] * 2


def test_a_batch_that_nobody_waits_for_is_given_up(bench: Bench) -> None:
    bench.put("x")
    putting = [bench.put(key) for key in "ab"]
    bench.gateway.take().answered()
    sent = bench.gateway.take()
    for each in putting:
        assert not sent.deferred.called
        each.cancel()
    assert sent.deferred.called
    bench.put("a")
    bench.turn()
    assert bench.gateway.under_way == ["a"]
    assert [type(outcome(each)) for each in putting] == [Abandoned] * 2


# --- time -----------------------------------------------------------------------------------------------------------


def test_a_batch_has_the_time_of_the_last_of_its_members(bench: Bench) -> None:
    bench.get("x")
    bench.clock.advance(0.01)
    bench.get("a")
    bench.get("b", timeout=7)
    bench.gateway.take().answered()
    sent = bench.gateway.take()
    assert (sent.timeout, sent.deadline) == (7, 7.01)


def test_one_whose_time_is_over_first_is_told_so_and_the_others_wait_on(bench: Bench) -> None:
    bench.get("x")
    short, long = bench.get("a", timeout=1), bench.get("b")
    bench.gateway.take().answered()
    bench.clock.advance(0.99)
    assert not short.called
    bench.clock.advance(0.01)
    error = outcome(short)
    assert isinstance(error, DeadlineExceeded)
    assert str(error) == "KV.Range got no answer within 1 s"
    bench.gateway.take().answered()
    assert outcome(long) == found("b")


def test_a_put_of_a_batch_whose_time_is_over_may_have_been_applied(bench: Bench) -> None:
    bench.put("x")
    short = bench.put("a", timeout=1)
    bench.put("b")
    bench.gateway.take().answered()
    bench.clock.advance(1)
    assert isinstance(outcome(short), OutcomeUnknown)


def test_a_put_that_waited_for_its_key_until_its_time_was_over_was_not_sent(bench: Bench) -> None:
    bench.put("a")
    second = bench.put("a", timeout=1)
    bench.clock.advance(1)
    error = outcome(second)
    assert isinstance(error, Unavailable)
    assert str(error) == "KV.Put got no answer within 1 s, and was not sent"
    bench.gateway.take().answered()
    assert bench.gateway.sent == []


def test_what_is_known_of_the_endpoints_is_told_with_it(bench: Bench) -> None:
    bench.put("a")
    second = bench.put("a", timeout=1)
    bench.gateway.statuses = (EndpointStatus(url="http://one", state=EndpointState.FAILING, why="it hangs"),)
    bench.clock.advance(1)
    assert outcome(second).tried == {"http://one": "it hangs"}


def test_what_is_out_of_time_when_its_turn_comes_is_not_sent(bench: Bench) -> None:
    bench.put("x")
    first = bench.put("a")
    bench.clock.rightNow = TIMEOUT  # as after a turn that took long
    bench.gateway.take().answered()
    assert bench.gateway.sent == []
    assert isinstance(outcome(first), Unavailable)


def test_no_delayed_call_is_left_of_what_is_over(bench: Bench) -> None:
    bench.gets("abc")
    while bench.gateway.sent:
        bench.gateway.take().answered()
    bench.clock.advance(TIMEOUT)
    assert bench.clock.getDelayedCalls() == []


def test_a_stop_leaves_no_delayed_call(bench: Bench) -> None:
    bench.gets("abc")
    bench.reads.stop()
    assert bench.clock.getDelayedCalls() == []
