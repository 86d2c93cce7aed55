"""Sending, calling and answering."""

from __future__ import annotations

import math
import traceback
from collections.abc import Iterable
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.logger import LogEvent, capturedLogs, formatEvent
from twisted.python.failure import Failure

from tests.guards import LoggedErrors
from tests.messaging.common import (
    PENDING,
    Ask,
    Echo,
    Echoed,
    Echoer,
    Note,
    Recorder,
    TurningClock,
    Waiter,
    failure_of,
    node_of,
    peek,
    result_of,
    turn,
)
from twisted_etcd.errors import (
    ServiceNotFound,
    ServiceStopped,
    ServiceUnavailable,
    SessionTimeout,
    UnhandledMessage,
)
from twisted_etcd.messaging.delivery import Delivery
from twisted_etcd.messaging.messages import Message, Request
from twisted_etcd.messaging.node import Node
from twisted_etcd.messaging.routes import handles
from twisted_etcd.messaging.service import MessageService


class HandlerError(Exception):
    pass


class Failing(MessageService):
    @handles(Echo)
    def on_echo(self, _message: Echo) -> Echoed:
        raise HandlerError

    @handles(Ask)
    async def on_ask(self, _message: Ask) -> None:
        await Deferred.fromCoroutine(self._nothing())
        raise HandlerError

    @handles(Note)
    def on_note(self, _message: Note) -> Failure:
        return Failure(HandlerError())

    async def _nothing(self) -> None:
        """Wait for nothing."""


class Sleeper(MessageService):
    """Waits in a coroutine until it is cancelled, and then does what it was made for."""

    def __init__(self, afterwards: str) -> None:
        super().__init__()
        self.afterwards = afterwards
        self.seen: list[str] = []

    @handles(Echo)
    async def on_echo(self, _message: Echo) -> Echoed:
        try:
            await Deferred()
        except CancelledError:
            self.seen.append("cancelled")
            if self.afterwards == "answer":
                return Echoed("late")
            if self.afterwards == "fail":
                raise HandlerError from None
            raise
        return Echoed("never")


class Forwarder(MessageService):
    """Sends on what it gets, as a service."""

    @handles(Note)
    def on_note(self, message: Note) -> None:
        self.send("Recorder", message)

    @handles(Echo)
    async def on_echo(self, message: Echo) -> Echoed:
        return await self.call("Echoer", message)


class Curious(MessageService):
    """Keeps the deliveries."""

    def __init__(self, name: str | None = None, *, defer: bool = False) -> None:
        super().__init__(name)
        self.deliveries: list[Delivery] = []
        self.defer = defer

    @handles(Message)
    def on_message(self, _message: Message, delivery: Delivery) -> None:
        self.deliveries.append(delivery)
        if self.defer:
            delivery.defer()


# --- send ---


def test_a_sent_message_arrives_in_a_later_turn() -> None:
    clock, recorder = Clock(), Recorder()
    node = node_of(clock, recorder)
    node.send("Recorder", Note(1))
    assert recorder.got == []
    turn(clock)
    assert recorder.got == [Note(1)]
    assert node.statistics.delivered == 1


def test_what_a_handler_sends_arrives_in_a_later_turn_too() -> None:
    clock, recorder = TurningClock(), Recorder()
    node = node_of(clock, Forwarder(), recorder)
    node.send("Forwarder", Note(1))
    clock.turn()
    assert recorder.got == []
    clock.turn()
    assert recorder.got == [Note(1)]


def test_each_message_has_a_session_id_of_its_own_which_its_handler_knows() -> None:
    clock, curious = Clock(), Curious()
    node = node_of(clock, curious)
    ids = [node.send("Curious", Note(number)) for number in range(3)]
    node.call("Curious", Ask())
    turn(clock)
    assert ids == [1, 2, 3]
    assert [delivery.session_id for delivery in curious.deliveries] == [1, 2, 3, 4]


def test_a_handler_knows_the_sender() -> None:
    clock, curious, forwarder = Clock(), Curious("Recorder"), Forwarder()
    node = node_of(clock, forwarder, curious)
    node.send("Recorder", Note())
    node.send("Forwarder", Note())
    turn(clock)
    assert [delivery.sender for delivery in curious.deliveries] == [None, forwarder.handle]
    assert curious.deliveries[0].message == Note()
    assert curious.deliveries[0].target is curious.handle


def test_a_message_can_be_sent_to_a_handle() -> None:
    clock, recorder = Clock(), Recorder()
    node = node_of(clock, recorder)
    node.send(recorder.handle, Note(1))
    node.send(node.handle("Recorder"), Note(2))
    turn(clock)
    assert recorder.got == [Note(1), Note(2)]


def test_sending_to_nobody_raises() -> None:
    node = node_of(Clock(), Recorder(), Echoer())
    with pytest.raises(
        ServiceNotFound, match=r"no service is named 'Nobody' in this node; it has 'Echoer', 'Recorder'"
    ):
        node.send("Nobody", Note())


def test_sending_to_a_service_that_has_stopped_raises() -> None:
    recorder = Recorder()
    node = node_of(Clock(), recorder)
    handle = recorder.handle
    recorder.stopService()
    with pytest.raises(ServiceUnavailable, match="service 'Recorder' is not running: stopped"):
        node.send("Recorder", Note())
    with pytest.raises(ServiceUnavailable, match="that run of service 'Recorder' has ended"):
        node.send(handle, Note())


def test_another_nodes_handle_leads_nowhere() -> None:
    recorder = Recorder()
    node_of(Clock(), recorder)
    with pytest.raises(ServiceNotFound, match="the handle of 'Recorder' belongs to another node"):
        node_of(Clock()).send(recorder.handle, Note())


def test_only_messages_are_sent_and_only_requests_are_called() -> None:
    node = node_of(Clock(), Recorder())
    with pytest.raises(TypeError, match="only messages are sent, and dict is no subclass of Message"):
        node.send("Recorder", {})  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="only requests are called, and Note names no answer"):
        node.call("Recorder", Note())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="only messages are sent, and str is no subclass of Message"):
        node.call(Note(), "Recorder")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="Echo is a class, and what is sent is an object"):
        node.call("Recorder", Echo)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="a timeout must be a number of seconds, not str"):
        node.call("Recorder", Echo(), "5")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="a message goes to a service's name, or its handle, not to int"):
        node.send(7, Note())  # type: ignore[arg-type]


def test_a_sender_that_is_not_running_cannot_send() -> None:
    node, service = Node(Clock()), Forwarder()
    service.setServiceParent(node)
    for sender in (node, service):
        with pytest.raises(ServiceUnavailable, match="is not running, so it cannot send"):
            sender.send("Forwarder", Note())
        failure_of(sender.call("Forwarder", Echo()), ServiceUnavailable)
        with pytest.raises(ServiceUnavailable):
            sender.reply(1, None)


@pytest.mark.parametrize("message", [Echo("secret"), Ask()])
def test_a_failure_that_nobody_waits_for_is_logged_without_any_value(
    message: Message, logged_errors: LoggedErrors
) -> None:
    clock = Clock()
    node = node_of(clock, Failing())
    with capturedLogs() as logs:
        node.send("Failing", message)
        turn(clock)
    (event,) = (event for event in logs if "log_failure" in event)
    method = "Failing.on_echo" if isinstance(message, Echo) else "Failing.on_ask"
    name = type(message).__name__
    assert formatEvent(event) == f"in service Failing, handler {method} failed for a {name} that nobody waits for"
    assert "secret" not in repr(event)
    assert len(logged_errors.flush(HandlerError)) == 1
    assert node.statistics.failed == 1


def test_a_sent_message_without_a_handler_is_logged_and_counted() -> None:
    clock = Clock()
    node = node_of(clock, Echoer())
    with capturedLogs() as logs:
        node.send("Echoer", Note())
        turn(clock)
    assert [formatEvent(event) for event in warnings_in(logs)] == [
        "a sent message was dropped: service 'Echoer' has no handler for Note: give one of its methods @handles(Note)"
    ]
    assert node.statistics.unhandled == 1


def test_the_answer_to_a_sent_message_is_dropped() -> None:
    clock = Clock()
    node = node_of(clock, Echoer())
    node.send("Echoer", Echo())
    turn(clock)
    assert (node.statistics.answered, node.statistics.late_answers, node.statistics.sessions_open) == (0, 0, 0)


def warnings_in(logs: Iterable[LogEvent]) -> list[LogEvent]:
    return [event for event in logs if event["log_level"].name == "warn"]


# --- call ---


def test_a_call_is_answered() -> None:
    clock = Clock()
    node = node_of(clock, Echoer(), Forwarder())
    answer, through_another = node.call("Echoer", Echo("x")), node.call("Forwarder", Echo("y"))
    assert peek(answer) is PENDING
    turn(clock)
    assert result_of(answer) == Echoed("x")
    assert result_of(through_another) == Echoed("y")
    assert (node.statistics.answered, node.statistics.sessions_open) == (3, 0)


def test_a_handler_that_returns_nothing_answers_none() -> None:
    clock = Clock()
    node = node_of(clock, Recorder())
    answers = node.call("Recorder", Ask()), node.call("Recorder", Echo())
    turn(clock)
    assert peek(answers[0]) is None
    assert peek(answers[1]) is None


def test_a_handler_that_waits_does_not_hold_back_the_next_message() -> None:
    clock, waiter = Clock(), Waiter()
    node = node_of(clock, waiter)
    first, second = node.call("Waiter", Echo()), node.call("Waiter", Echo())
    turn(clock)
    waiter.answers[1].callback(Echoed("second"))
    assert result_of(second) == Echoed("second")
    assert peek(first) is PENDING
    waiter.answers[0].callback(Echoed("first"))
    assert result_of(first) == Echoed("first")


@pytest.mark.parametrize("message", [Echo(), Ask()])
def test_a_call_fails_with_the_handlers_own_exception_and_traceback(message: Request[Any]) -> None:
    clock = Clock()
    node = node_of(clock, Failing())
    answer = node.call("Failing", message)
    turn(clock)
    error = failure_of(answer, HandlerError)
    method = "on_echo" if isinstance(message, Echo) else "on_ask"
    assert method in [frame.name for frame in traceback.extract_tb(error.__traceback__)]
    assert node.statistics.failed == 1


def test_a_handler_may_return_a_failure() -> None:
    class ReturnsFailure(MessageService):
        @handles(Ask)
        def on_ask(self, _message: Ask) -> Failure:
            return Failure(HandlerError())

    clock = Clock()
    answer = node_of(clock, ReturnsFailure()).call("ReturnsFailure", Ask())
    turn(clock)
    failure_of(answer, HandlerError)


@pytest.mark.parametrize(("wrong", "kind"), [(Note(), "Note"), ("text", "str"), (7, "int")])
def test_an_answer_that_the_request_does_not_name_fails_the_call(wrong: object, kind: str) -> None:
    class WrongAnswer(MessageService):
        @handles(Echo)
        def on_echo(self, _message: Echo) -> Any:  # noqa: ANN401 - wrong on purpose
            return wrong

        @handles(Ask)
        async def on_ask(self, _message: Ask) -> Any:  # noqa: ANN401 - wrong on purpose
            return wrong

    clock = Clock()
    node = node_of(clock, WrongAnswer())
    echo, ask = node.call("WrongAnswer", Echo()), node.call("WrongAnswer", Ask())
    turn(clock)
    assert f"WrongAnswer.on_echo answered with a value of type {kind}, and Echo names Echoed" in str(
        failure_of(echo, TypeError)
    )
    assert f"of type {kind}, and Ask names None" in str(failure_of(ask, TypeError))


def test_a_request_whose_answer_cannot_be_fails_the_call() -> None:
    class Impossible(Request["Nowhere"], frozen=True):  # type: ignore[name-defined]  # wrong on purpose
        pass

    clock = Clock()
    node = node_of(clock, Recorder())
    answer = node.call("Recorder", Impossible())
    turn(clock)
    assert "Impossible names an answer" in str(failure_of(answer, TypeError))


def test_a_message_that_nobody_handles_fails_the_call() -> None:
    clock = Clock()
    node = node_of(clock, Echoer())
    answers = node.call("Echoer", Ask()), node.call_or_none("Echoer", Ask())
    turn(clock)
    for answer in answers:
        assert "service 'Echoer' has no handler for Ask" in str(failure_of(answer, UnhandledMessage))
    assert node.statistics.unhandled == 2


def test_a_call_to_nobody_fails_and_raises_nothing() -> None:
    node = node_of(Clock(), Echoer())
    failure_of(node.call("Nobody", Echo()), ServiceNotFound)
    assert node.statistics.sessions_open == 0


def test_a_call_to_a_service_that_is_not_running_fails() -> None:
    echoer = Echoer()
    node = node_of(Clock(), echoer)
    handle = echoer.handle
    echoer.stopService()
    failure_of(node.call("Echoer", Echo()), ServiceUnavailable)
    failure_of(node.call(handle, Echo()), ServiceUnavailable)


def test_a_call_to_a_service_that_stops_before_it_was_delivered_fails() -> None:
    clock, echoer = Clock(), Echoer()
    node = node_of(clock, echoer)
    answer = node.call("Echoer", Echo())
    echoer.stopService()
    assert "service 'Echoer' is not running: stopping" in str(failure_of(answer, ServiceUnavailable))
    assert node.statistics.sessions_open == 0


def test_a_call_whose_caller_stops_fails_and_its_handler_is_cancelled() -> None:
    clock, waiter, caller = Clock(), Waiter(), Forwarder()
    node = node_of(clock, waiter, caller)
    answer = caller.call("Waiter", Echo())
    turn(clock)
    caller.stopService()
    text = "service 'Forwarder' stopped while it waited for Echo to 'Waiter'"
    assert text in str(failure_of(answer, ServiceStopped))
    assert (waiter.cancelled, node.statistics.sessions_open) == (1, 0)


# --- timeouts and cancelling ---


@pytest.mark.parametrize(("timeout", "seconds"), [(None, 30), (2, 2), (0.5, 0.5)])
def test_a_call_times_out_and_its_handler_is_cancelled(timeout: float | None, seconds: float) -> None:
    clock, waiter = Clock(), Waiter()
    node = node_of(clock, waiter)
    answer = node.call("Waiter", Echo("secret"), timeout)
    turn(clock)
    clock.pump([seconds * 0.99])
    assert peek(answer) is PENDING
    clock.advance(seconds * 0.01)
    text = str(failure_of(answer, SessionTimeout))
    assert f"Echo to 'Waiter' was not answered within {seconds:g} s" in text
    assert "secret" not in text
    assert waiter.cancelled == 1
    assert (node.statistics.timeouts, node.statistics.sessions_open) == (1, 0)


def test_a_call_that_times_out_in_the_mailbox_is_not_delivered() -> None:
    clock, recorder = TurningClock(), Recorder()
    node = node_of(clock, recorder)
    answer = node.call("Recorder", Ask(), clock.TURN / 2)
    clock.turn()
    failure_of(answer, SessionTimeout)
    assert recorder.got == []


@pytest.mark.parametrize(("default", "timeout"), [(None, None), (30, math.inf)])
def test_a_call_may_wait_as_long_as_it_takes(default: float | None, timeout: float | None) -> None:
    clock, waiter = Clock(), Waiter()
    node = node_of(clock, waiter, default_timeout=default)
    answer = node.call("Waiter", Echo(), timeout)
    turn(clock)
    clock.advance(1e9)
    assert peek(answer) is PENDING
    waiter.answers[0].callback(Echoed("x"))
    result_of(answer)


@pytest.mark.parametrize("timeout", [0, -1, math.nan])
def test_a_timeout_is_more_than_nothing(timeout: float) -> None:
    node = node_of(Clock(), Waiter())
    with pytest.raises(ValueError, match="a timeout must be more than 0 seconds, not"):
        node.call("Waiter", Echo(), timeout)
    with pytest.raises(ValueError, match="a timeout must be more than 0 seconds, not"):
        Node(Clock(), default_timeout=timeout)


@pytest.mark.parametrize("afterwards", ["nothing", "answer", "fail"])
def test_a_coroutine_is_cancelled_where_it_waits(afterwards: str, logged_errors: LoggedErrors) -> None:
    clock, sleeper = Clock(), Sleeper(afterwards)
    node = node_of(clock, sleeper)
    answer = node.call("Sleeper", Echo(), 5)
    turn(clock)
    clock.advance(5)
    failure_of(answer, SessionTimeout)
    assert sleeper.seen == ["cancelled"]
    assert node.statistics.late_answers == (afterwards == "answer")
    assert len(logged_errors.flush(HandlerError)) == (afterwards == "fail")


def test_a_late_answer_is_dropped_counted_and_logged_at_debug() -> None:
    clock = Clock()
    late: Deferred[Echoed] = Deferred(lambda _: late.callback(Echoed("late")))

    class Late(MessageService):
        @handles(Echo)
        def on_echo(self, _message: Echo) -> Deferred[Echoed]:
            return late

    node = node_of(clock, Late())
    answer = node.call("Late", Echo(), 1)
    turn(clock)
    with capturedLogs() as logs:
        clock.advance(1)
    failure_of(answer, SessionTimeout)
    assert node.statistics.late_answers == 1
    assert [(event["log_level"].name, formatEvent(event)) for event in logs] == [
        ("debug", "dropped a late answer to Echo to 'Late' (session 1)")
    ]


def test_cancelling_a_call_cancels_its_handler() -> None:
    clock, waiter = Clock(), Waiter()
    node = node_of(clock, waiter)
    answer = node.call("Waiter", Echo())
    turn(clock)
    answer.cancel()
    failure_of(answer, CancelledError)
    assert (waiter.cancelled, node.statistics.sessions_open, node.statistics.late_answers) == (1, 0, 0)


def test_a_call_that_is_cancelled_in_the_mailbox_is_not_delivered() -> None:
    clock, recorder = Clock(), Recorder()
    node = node_of(clock, recorder)
    answer = node.call("Recorder", Ask())
    answer.cancel()
    failure_of(answer, CancelledError)
    turn(clock)
    assert recorder.got == []


def test_a_handler_whose_caller_goes_away_before_it_waits_is_cancelled_as_it_does() -> None:
    clock, waiter = Clock(), Waiter()
    calls: list[Deferred[Echoed]] = []

    class Cutting(Waiter):
        def on_echo(self, message: Echo) -> Deferred[Echoed]:
            calls[0].cancel()
            return super().on_echo(message)

    cutting = Cutting()
    node = node_of(clock, waiter, cutting)
    calls.append(node.call("Cutting", Echo()))
    turn(clock)
    failure_of(calls[0], CancelledError)
    assert cutting.cancelled == 1


# --- call_or_none ---


def test_call_or_none_gives_the_answer_where_there_is_one() -> None:
    clock = Clock()
    answer = node_of(clock, Echoer()).call_or_none("Echoer", Echo("x"))
    turn(clock)
    assert result_of(answer) == Echoed("x")


def test_call_or_none_gives_none_where_nobody_answers() -> None:
    clock, waiter, stopped = Clock(), Waiter(), Echoer()
    node = node_of(clock, waiter, stopped)
    stopped.stopService()
    assert result_of(node.call_or_none("Nobody", Echo())) is None
    assert result_of(node.call_or_none("Echoer", Echo())) is None
    late = node.call_or_none("Waiter", Echo(), 1)
    turn(clock)
    clock.advance(1)
    assert result_of(late) is None
    assert waiter.cancelled == 1
    cut_short = node.call_or_none("Waiter", Echo())
    turn(clock)
    waiter.stopService()
    assert result_of(cut_short) is None


@pytest.mark.parametrize("error", [SessionTimeout, ServiceNotFound, ServiceUnavailable, HandlerError])
def test_call_or_none_fails_with_what_the_handler_raises(error: type[Exception]) -> None:
    inner = error("inner")

    class Raising(MessageService):
        @handles(Ask)
        def on_ask(self, _message: Ask) -> None:
            raise inner

    clock = Clock()
    answer = node_of(clock, Raising()).call_or_none("Raising", Ask())
    turn(clock)
    assert "inner" in str(failure_of(answer, error))


def test_call_or_none_fails_when_its_caller_stops() -> None:
    clock, waiter, caller = Clock(), Waiter(), Forwarder()
    node_of(clock, waiter, caller)
    answer = caller.call_or_none("Waiter", Echo())
    turn(clock)
    caller.stopService()
    failure_of(answer, ServiceStopped)


# --- answers that come later ---


@pytest.mark.parametrize("way", ["delivery", "service", "session id", "another service", "node"])
def test_a_handler_may_defer_its_answer(way: str) -> None:
    clock, curious, other = Clock(), Curious(defer=True), Recorder()
    node = node_of(clock, curious, other)
    answer = node.call("Curious", Echo())
    turn(clock)
    assert peek(answer) is PENDING
    (delivery,) = curious.deliveries
    assert delivery.is_awaited
    replied = {
        "delivery": lambda: delivery.reply(Echoed("x")),
        "service": lambda: curious.reply(delivery, Echoed("x")),
        "session id": lambda: curious.reply(delivery.session_id, Echoed("x")),
        "another service": lambda: other.reply(delivery.session_id, Echoed("x")),
        "node": lambda: node.reply(delivery.session_id, Echoed("x")),
    }[way]()
    assert replied
    assert result_of(answer) == Echoed("x")
    assert not delivery.is_awaited
    assert (node.statistics.answered, node.statistics.sessions_open) == (1, 0)


def test_a_deferred_answer_may_be_none_or_a_failure() -> None:
    clock, curious = Clock(), Curious(defer=True)
    node = node_of(clock, curious)
    answers = [node.call("Curious", Echo()) for _ in range(3)]
    turn(clock)
    assert curious.deliveries[0].reply(None)
    assert curious.deliveries[1].fail_with(HandlerError())
    assert curious.deliveries[2].fail_with(Failure(HandlerError()))
    assert result_of(answers[0]) is None
    failure_of(answers[1], HandlerError)
    failure_of(answers[2], HandlerError)
    assert not curious.deliveries[2].fail_with(HandlerError())


def test_a_deferred_answer_is_awaited_until_the_call_times_out() -> None:
    clock, curious = Clock(), Curious(defer=True)
    node = node_of(clock, curious)
    answer = node.call("Curious", Echo(), 5)
    turn(clock)
    clock.advance(5)
    failure_of(answer, SessionTimeout)
    (delivery,) = curious.deliveries
    assert not delivery.is_awaited
    assert not delivery.reply(Echoed("late"))
    assert not node.reply(delivery.session_id, Echoed("later"))
    assert node.statistics.late_answers == 2


def test_a_deferred_answer_fails_when_the_service_stops() -> None:
    clock, curious = Clock(), Curious(defer=True)
    node = node_of(clock, curious)
    answer = node.call("Curious", Echo())
    turn(clock)
    curious.stopService()
    failure_of(answer, ServiceUnavailable)


def test_a_reply_that_the_request_does_not_name_raises_and_leaves_the_call_open() -> None:
    clock, curious = Clock(), Curious(defer=True)
    node = node_of(clock, curious)
    answer = node.call("Curious", Echo())
    turn(clock)
    with pytest.raises(TypeError, match="the reply to Echo to 'Curious' is of type Note, and Echo names Echoed"):
        curious.deliveries[0].reply(Note())
    curious.deliveries[0].reply(Echoed("x"))
    assert result_of(answer) == Echoed("x")


def test_a_handler_that_replied_has_answered_and_what_it_returns_besides_is_late() -> None:
    class Twice(MessageService):
        @handles(Echo)
        async def on_echo(self, message: Echo, delivery: Delivery) -> Echoed | None:
            delivery.reply(Echoed("first"))
            return Echoed("second") if message.text == "twice" else None

    clock = Clock()
    node = node_of(clock, Twice())
    once, twice = node.call("Twice", Echo("once")), node.call("Twice", Echo("twice"))
    turn(clock)
    assert result_of(once) == result_of(twice) == Echoed("first")
    assert (node.statistics.answered, node.statistics.late_answers) == (2, 1)


def test_a_handler_that_fails_after_its_reply_is_logged(logged_errors: LoggedErrors) -> None:
    class Hasty(MessageService):
        @handles(Echo)
        def on_echo(self, _message: Echo, delivery: Delivery) -> None:
            delivery.reply(Echoed("done"))
            raise HandlerError

    clock = Clock()
    answer = node_of(clock, Hasty()).call("Hasty", Echo())
    turn(clock)
    assert result_of(answer) == Echoed("done")
    assert len(logged_errors.flush(HandlerError)) == 1


def test_replying_to_a_message_that_was_sent_does_nothing() -> None:
    clock, curious = Clock(), Curious()
    node = node_of(clock, curious)
    node.send("Curious", Note())
    turn(clock)
    assert not curious.deliveries[0].reply(Echoed("x"))
    assert node.statistics.late_answers == 0
