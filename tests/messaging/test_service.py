"""The life of a service, from its start to its end."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

import pytest
from twisted.application.service import Application, MultiService
from twisted.internet.defer import CancelledError, Deferred, inlineCallbacks
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent

from tests.guards import LoggedErrors
from tests.messaging.common import (
    PENDING,
    Ask,
    Echo,
    Echoed,
    Echoer,
    Note,
    Recorder,
    Waiter,
    failure_of,
    node_of,
    peek,
    result_of,
    turn,
)
from twisted_etcd.errors import ServiceStopped, ServiceUnavailable
from twisted_etcd.messaging.life import HookResult
from twisted_etcd.messaging.lifecycle import State
from twisted_etcd.messaging.messages import Message
from twisted_etcd.messaging.node import Node
from twisted_etcd.messaging.routes import handles
from twisted_etcd.messaging.service import MessageService


class HookError(Exception):
    pass


class Hooked(MessageService):
    """Writes down which hooks are called, in a list that services may share, and does in each what it was told."""

    def __init__(
        self,
        name: str = "hooked",
        story: list[str] | None = None,
        /,
        **hooks: Callable[..., Any],
    ) -> None:
        super().__init__(name)
        self.story = [] if story is None else story
        self.hooks = hooks
        self.got: list[Message] = []

    def on_init(self) -> HookResult:
        return self._hook("on_init")

    def on_start(self) -> HookResult:
        return self._hook("on_start")

    def on_stop(self) -> HookResult:
        return self._hook("on_stop")

    def on_exit(self) -> HookResult:
        return self._hook("on_exit")

    @handles(Message)
    def on_message(self, message: Message) -> None:
        self.got.append(message)

    def _hook(self, name: str) -> HookResult:
        self.story.append(f"{self.name} {name} {self.state.name}")
        hook: Callable[[Hooked], HookResult] | None = self.hooks.get(name)
        return None if hook is None else hook(self)


def stands(service: MessageService) -> State:
    """Where it stands, now and not when a type checker last looked."""
    return service.state


def fail_now(_: Hooked) -> None:
    raise HookError


def tale(*steps: str) -> list[str]:
    return [f"hooked {step}" for step in steps]


RAN = ("on_init INITIALISING", "on_start STARTING")
ENDED = ("on_stop STOPPING", "on_exit STOPPING")


# --- what a service is ---


def test_a_service_has_the_name_that_it_was_given_or_that_of_its_class() -> None:
    class Named(MessageService):
        name = "by its class"

    assert Echoer("given").name == "given"
    assert Echoer().name == "Echoer"
    assert Named().name == "by its class"


def test_a_service_says_where_it_stands() -> None:
    service = Echoer()
    assert repr(service) == "<Echoer 'Echoer', created, and not started yet>"
    node_of(Clock(), service)
    assert repr(service) == "<Echoer 'Echoer', running>"
    assert repr(service.handle) == "<ServiceHandle of 'Echoer'>"


def test_a_service_without_a_node_has_no_handle_and_cannot_start() -> None:
    service = Echoer()
    with pytest.raises(RuntimeError, match="belongs to no node"):
        _ = service.handle
    with pytest.raises(RuntimeError, match="belongs to no node that is running"):
        service.startService()


@pytest.mark.parametrize("parent", [MultiService(), Application("app")])
def test_a_service_lives_in_a_node_alone(parent: object) -> None:
    service = Echoer()
    with pytest.raises(TypeError, match="needs a Node to live in, not"):
        service.setServiceParent(parent)
    assert service.parent is None
    node_of(Clock(), service)


def test_a_service_that_forgets_its_base_class_is_told() -> None:
    class Forgetful(MessageService):
        def __init__(self) -> None:
            pass

    with pytest.raises(TypeError, match=r"Forgetful does not call super\(\).__init__\(\)"):
        Forgetful().setServiceParent(Node(Clock()))


# --- the hooks ---


async def in_a_coroutine() -> None:
    """Do nothing, as a coroutine."""


@inlineCallbacks
def in_a_generator() -> Generator[Deferred[Any], Any, None]:
    yield Deferred.fromCoroutine(in_a_coroutine())


@pytest.mark.parametrize("hook", [lambda _: None, lambda _: in_a_coroutine(), lambda _: in_a_generator()])
def test_the_hooks_are_called_in_order_and_may_be_of_any_kind(hook: Callable[[Hooked], HookResult]) -> None:
    service = Hooked(on_init=hook, on_start=hook, on_stop=hook, on_exit=hook)
    node = node_of(Clock(), service)
    assert service.story == tale(*RAN)
    assert stands(service) is State.RUNNING
    assert service.running
    result_of(service.when_started())
    result_of(service.stopService())
    assert service.story == tale(*RAN, *ENDED)
    assert stands(service) is State.STOPPED
    assert not service.running
    node.stopService()


def test_each_hook_is_waited_for() -> None:
    waits: dict[str, Deferred[None]] = {name: Deferred() for name in ("on_init", "on_start", "on_stop", "on_exit")}
    service = Hooked(
        on_init=lambda _: waits["on_init"],
        on_start=lambda _: waits["on_start"],
        on_stop=lambda _: waits["on_stop"],
        on_exit=lambda _: waits["on_exit"],
    )
    node_of(Clock(), service)
    started = service.when_started()
    assert stands(service) is State.INITIALISING
    waits["on_init"].callback(None)
    assert stands(service) is State.STARTING
    assert peek(started) is PENDING
    waits["on_start"].callback(None)
    result_of(started)
    stopped = service.stopService()
    waits["on_stop"].callback(None)
    assert peek(stopped) is PENDING
    waits["on_exit"].callback(None)
    result_of(stopped)


def test_a_service_refuses_to_start_when_on_init_fails(logged_errors: LoggedErrors) -> None:
    service = Hooked(on_init=fail_now)
    node = node_of(Clock(), service)
    assert stands(service) is State.REFUSED
    assert service.story == tale("on_init INITIALISING")
    failure_of(service.when_started(), HookError)
    assert len(logged_errors.flush(HookError)) == 1
    with pytest.raises(ServiceUnavailable, match="not running, because it refused to start"):
        node.send("hooked", Note())
    failure_of(node.call("hooked", Echo()), ServiceUnavailable)
    assert service.handle.stopped
    result_of(service.stopService())
    assert stands(service) is State.REFUSED


def test_a_service_whose_on_start_fails_refuses_and_takes_down_what_on_init_set_up(
    logged_errors: LoggedErrors,
) -> None:
    async def fail_later() -> None:
        await in_a_coroutine()
        raise HookError

    service = Hooked(on_start=lambda _: fail_later())
    node_of(Clock(), service)
    assert stands(service) is State.REFUSED
    assert service.story == tale(*RAN, "on_exit STOPPING")
    failure_of(service.when_started(), HookError)
    assert len(logged_errors.flush(HookError)) == 1


@pytest.mark.parametrize("hook", ["on_stop", "on_exit"])
def test_a_hook_that_fails_does_not_keep_a_service_from_ending(hook: str, logged_errors: LoggedErrors) -> None:
    service = Hooked(**{hook: fail_now})
    node_of(Clock(), service)
    result_of(service.stopService())
    assert stands(service) is State.STOPPED
    assert service.story == tale(*RAN, *ENDED)
    assert len(logged_errors.flush(HookError)) == 1


@pytest.mark.parametrize("hook", ["on_stop", "on_exit"])
def test_a_hook_that_does_not_end_is_cancelled(hook: str, logged_errors: LoggedErrors) -> None:
    clock = Clock()
    service = Hooked(**{hook: lambda _: Deferred()})
    service.stop_timeout = 3
    node_of(clock, service)
    stopped = service.stopService()
    clock.advance(2.9)
    assert peek(stopped) is PENDING
    clock.advance(0.1)
    result_of(stopped)
    assert len(logged_errors.flush()) == 1
    assert clock.getDelayedCalls() == []


# --- messages before it runs ---


def test_what_is_sent_while_a_service_starts_arrives_when_it_runs() -> None:
    clock = Clock()
    wait: Deferred[None] = Deferred()
    service = Hooked(on_start=lambda _: wait)
    node = node_of(clock, service)
    node.send("hooked", Note(1))
    node.send(service.handle, Note(2))
    turn(clock)
    assert service.got == []
    wait.callback(None)
    assert service.got == []
    node.send("hooked", Note(3))
    turn(clock)
    assert service.got == [Note(1), Note(2), Note(3)]


def test_a_call_to_a_service_that_starts_fails_at_once() -> None:
    service = Hooked(on_start=lambda _: Deferred())
    node = node_of(Clock(), service)
    failure_of(node.call("hooked", Ask()), ServiceUnavailable)


def test_nothing_is_taken_before_on_init_is_done() -> None:
    service = Hooked(on_init=lambda _: Deferred())
    node = node_of(Clock(), service)
    with pytest.raises(ServiceUnavailable, match="service 'hooked' is not running: in on_init"):
        node.send("hooked", Note())


def test_what_was_sent_to_a_service_that_then_refuses_is_counted(logged_errors: LoggedErrors) -> None:
    clock = Clock()
    wait: Deferred[None] = Deferred()
    service = Hooked(on_start=lambda _: wait)
    node = node_of(clock, service)
    node.send("hooked", Note(1))
    with capturedLogs() as logs:
        wait.errback(HookError())
    assert "service hooked stopped before 1 sent messages reached it" in [formatEvent(event) for event in logs]
    assert node.statistics.undelivered == 1
    assert len(logged_errors.flush(HookError)) == 1
    assert clock.getDelayedCalls() == []


# --- the end ---


def test_stopping_a_service_that_was_never_started_does_nothing() -> None:
    service = Hooked()
    service.setServiceParent(Node(Clock()))
    result_of(service.stopService())
    assert (service.story, service.state) == ([], State.CREATED)


@pytest.mark.parametrize(
    ("hook", "state", "story"),
    [
        ("on_init", State.INITIALISING, ("on_init INITIALISING",)),
        ("on_start", State.STARTING, (*RAN, "on_exit STOPPING")),
    ],
)
def test_a_start_can_be_interrupted(hook: str, state: State, story: tuple[str, ...]) -> None:
    cancelled: list[object] = []
    service = Hooked(**{hook: lambda _: Deferred(cancelled.append)})
    node_of(Clock(), service)
    assert stands(service) is state
    started = service.when_started()
    stopped = service.stopService()
    assert len(cancelled) == 1
    result_of(stopped)
    failure_of(started, ServiceStopped)
    assert stands(service) is State.STOPPED
    assert service.story == tale(*story)


def test_an_interrupted_on_init_that_succeeds_all_the_same_is_followed_by_on_exit() -> None:
    async def stubborn() -> None:
        try:
            await Deferred()
        except CancelledError:
            await more

    more: Deferred[None] = Deferred()
    service = Hooked(on_init=lambda _: stubborn())
    node_of(Clock(), service)
    stopped = service.stopService()
    assert peek(stopped) is PENDING
    more.callback(None)
    result_of(stopped)
    assert service.story == tale("on_init INITIALISING", "on_exit STOPPING")


def test_a_hook_may_stop_its_own_service() -> None:
    cancelled: list[object] = []
    stopped: list[Deferred[None]] = []

    def stop_and_wait(service: Hooked) -> Deferred[None]:
        stopped.append(service.stopService())
        return Deferred(cancelled.append)

    service = Hooked(on_start=stop_and_wait)
    node_of(Clock(), service)
    result_of(stopped[0])
    assert len(cancelled) == 1
    assert stands(service) is State.STOPPED
    assert service.story == tale(*RAN, "on_exit STOPPING")


def test_stopping_twice_is_one_stop_and_both_are_told() -> None:
    wait: Deferred[None] = Deferred()
    service = Hooked(on_stop=lambda _: wait)
    node_of(Clock(), service)
    first, second = service.stopService(), service.stopService()
    assert peek(first) is peek(second) is PENDING
    wait.callback(None)
    result_of(first)
    result_of(second)
    assert service.story == tale(*RAN, *ENDED)


def test_who_waits_no_longer_for_the_end_does_not_stop_it() -> None:
    wait: Deferred[None] = Deferred()
    service = Hooked(on_stop=lambda _: wait)
    node_of(Clock(), service)
    first, second = service.stopService(), service.stopService()
    first.cancel()
    failure_of(first, CancelledError)
    wait.callback(None)
    result_of(second)


def test_handlers_go_on_during_on_stop_and_are_then_cancelled() -> None:
    clock = Clock()
    wait: Deferred[None] = Deferred()

    class Slow(Waiter):
        def on_stop(self) -> HookResult:
            return wait

    service = Slow()
    node = node_of(clock, service)
    first, second = node.call("Slow", Echo()), node.call("Slow", Echo())
    node.send("Slow", Echo())
    turn(clock)
    stopped = service.stopService()
    service.answers[0].callback(Echoed("in time"))
    assert result_of(first) == Echoed("in time")
    assert peek(second) is PENDING
    wait.callback(None)
    failure_of(second, ServiceUnavailable)
    assert service.cancelled == 2
    result_of(stopped)
    assert (node.statistics.late_answers, node.statistics.failed) == (0, 0)


def test_handlers_have_their_grace_before_they_are_cancelled() -> None:
    clock, service = Clock(), Waiter()
    service.handler_grace = 2
    node = node_of(clock, service)
    first, second = node.call("Waiter", Echo()), node.call("Waiter", Echo())
    turn(clock)
    stopped = service.stopService()
    clock.advance(1)
    service.answers[0].callback(Echoed("in time"))
    assert result_of(first) == Echoed("in time")
    clock.advance(1)
    failure_of(second, ServiceUnavailable)
    result_of(stopped)


def test_grace_ends_with_the_last_handler() -> None:
    clock, service = Clock(), Waiter()
    service.handler_grace = 2
    node = node_of(clock, service)
    answer = node.call("Waiter", Echo())
    turn(clock)
    stopped = service.stopService()
    service.answers[0].callback(Echoed("x"))
    result_of(answer)
    result_of(stopped)
    node.stopService()
    assert clock.getDelayedCalls() == []


def test_the_end_waits_for_handlers_that_take_their_time_to_be_cancelled() -> None:
    clock = Clock()
    more: Deferred[None] = Deferred()
    story: list[str] = []

    class Careful(Hooked):
        @handles(Ask)
        async def on_ask(self, _message: Ask) -> None:
            try:
                await Deferred()
            finally:
                await more
                self.story.append("handler ended")

    service = Careful("hooked", story)
    node = node_of(clock, service)
    node.send("hooked", Ask())
    turn(clock)
    stopped = service.stopService()
    assert peek(stopped) is PENDING
    more.callback(None)
    result_of(stopped)
    assert story[-2:] == ["handler ended", "hooked on_exit STOPPING"]


@pytest.mark.parametrize("called", [True, False])
@pytest.mark.parametrize("cancelled_before", [True, False])
def test_what_a_cancelled_handler_still_waits_for_is_not_cancelled_as_well(
    *, called: bool, cancelled_before: bool
) -> None:
    clock = Clock()
    tidying: Deferred[None] = Deferred()
    story: list[str] = []

    class Careful(MessageService):
        @handles(Ask)
        async def on_ask(self, _message: Ask) -> None:
            try:
                await Deferred()
            finally:
                await tidying
                story.append("tidied up")

    service = Careful("careful")
    node = node_of(clock, service)
    calling = node.call("careful", Ask()) if called else Deferred[None]()
    if not called:
        node.send("careful", Ask())
    calling.addErrback(lambda _: None)
    turn(clock)
    if cancelled_before:
        calling.cancel()
    stopped = service.stopService()
    assert peek(stopped) is PENDING
    tidying.callback(None)
    result_of(stopped)
    assert story == ["tidied up"]
    result_of(node.stopService())


@pytest.mark.parametrize("called", [True, False])
def test_a_handler_that_stops_its_own_service_is_one_under_way(*, called: bool) -> None:
    clock = Clock()
    story: list[str] = []
    more: Deferred[None] = Deferred()

    class Stopper(Hooked):
        @handles(Ask)
        async def on_ask(self, _message: Ask) -> None:
            self.stopping = self.stopService()
            try:
                await Deferred()
            finally:
                await more
                self.story.append("handler ended")

    service = Stopper("hooked", story)
    node = node_of(clock, service)
    calling = node.call("hooked", Ask()) if called else None
    if not called:
        node.send("hooked", Ask())
    turn(clock)
    if calling is not None:
        failure_of(calling, ServiceUnavailable)
    assert peek(service.stopping) is PENDING
    more.callback(None)
    result_of(service.stopping)
    assert story[-3:] == ["hooked on_stop STOPPING", "handler ended", "hooked on_exit STOPPING"]
    result_of(node.stopService())


def test_handlers_that_ignore_their_cancelling_are_left_alone_and_named(logged_errors: LoggedErrors) -> None:
    clock = Clock()
    more: Deferred[None] = Deferred()

    class Deaf(MessageService):
        stop_timeout = 4.0

        @handles(Ask)
        async def on_ask(self, _message: Ask) -> None:
            try:
                await Deferred()
            except CancelledError:
                await more

    service = Deaf()
    node = node_of(clock, service)
    node.send("Deaf", Ask())
    turn(clock)
    stopped = service.stopService()
    clock.advance(3.9)
    assert peek(stopped) is PENDING
    clock.advance(0.1)
    result_of(stopped)
    (message,) = logged_errors.flush_messages()
    assert message == "service Deaf leaves handlers alone that go on 4.0 s after they were cancelled: Ask to 'Deaf'"
    more.callback(None)


def test_a_handler_that_cannot_be_cancelled_keeps_no_other_from_ending(logged_errors: LoggedErrors) -> None:
    clock = Clock()

    def refuse(_: Deferred[None]) -> None:
        raise HookError

    class Uncancellable(MessageService):
        stop_timeout = 1.0

        @handles(Note)
        def on_note(self, _message: Note) -> Deferred[None]:
            return Deferred(refuse)

    service, waiter = Uncancellable(), Waiter()
    node = node_of(clock, waiter, service)
    node.send("Uncancellable", Note())
    node.send("Waiter", Echo())
    turn(clock)
    stopped = node.stopService()
    clock.advance(1)
    result_of(stopped)
    assert waiter.cancelled == 1
    assert len(logged_errors.flush(HookError)) == 1
    assert len(logged_errors.flush_messages("leaves handlers alone")) == 1


def test_a_handler_may_stop_its_own_service() -> None:
    clock = Clock()

    class Suicidal(MessageService):
        @handles(Ask)
        async def on_ask(self, _message: Ask) -> None:
            await self.stopService()

    service = Suicidal()
    node = node_of(clock, service)
    answer, next_one = node.call("Suicidal", Ask()), node.call("Suicidal", Ask())
    turn(clock)
    failure_of(answer, ServiceUnavailable)
    failure_of(next_one, ServiceUnavailable)
    assert stands(service) is State.STOPPED


def test_a_service_can_still_call_others_in_on_stop_and_on_exit() -> None:
    clock = Clock()
    heard: list[Echoed] = []

    async def ask(service: Hooked) -> None:
        heard.append(await service.call("Echoer", Echo(stands(service).name)))

    service = Hooked(on_stop=ask, on_exit=ask)
    node = node_of(clock, Echoer(), service)
    stopped = service.stopService()
    turn(clock)
    result_of(stopped)
    assert heard == [Echoed("STOPPING"), Echoed("STOPPING")]
    assert node.statistics.sessions_open == 0


def test_what_a_service_waits_for_ends_with_it_even_when_it_began_in_on_exit() -> None:
    clock = Clock()
    calls: list[Deferred[Echoed]] = []

    def call(service: Hooked) -> None:
        calls.append(service.call("Waiter", Echo()))

    service = Hooked(on_init=call, on_start=call, on_stop=call, on_exit=call)
    node = Node(clock)
    waiter = Waiter()
    waiter.setServiceParent(node)
    service.setServiceParent(node)
    node.startService()
    turn(clock)
    result_of(service.stopService())
    failure_of(calls[0], ServiceUnavailable)
    for each in calls[1:]:
        failure_of(each, ServiceStopped)
    assert node.statistics.sessions_open == 0
    failure_of(service.call("Waiter", Echo()), ServiceUnavailable)


# --- handles ---


def test_the_end_of_a_service_can_be_waited_for_by_its_handle() -> None:
    wait: Deferred[None] = Deferred()
    service = Hooked(on_stop=lambda _: wait)
    node_of(Clock(), service)
    told, cancelled = service.handle.when_stopped(), service.handle.when_stopped()
    cancelled.cancel()
    failure_of(cancelled, CancelledError)
    assert peek(told) is PENDING
    service.stopService()
    # as soon as it takes no more messages
    result_of(told)
    result_of(service.handle.when_stopped())
    assert repr(service.handle) == "<ServiceHandle of 'hooked' (stopped)>"
    wait.callback(None)


# --- again ---


def test_a_service_that_has_stopped_can_be_started_again_with_a_new_handle() -> None:
    clock, service = Clock(), Hooked()
    node = node_of(clock, service)
    before = service.handle
    service.stopService()
    failure_of(service.when_started(), ServiceStopped)
    service.startService()
    result_of(service.when_started())
    assert service.story == tale(*RAN, *ENDED, *RAN)
    assert service.handle is not before
    with pytest.raises(ServiceUnavailable, match="its name finds the present one"):
        node.send(before, Note())
    node.send("hooked", Note(1))
    node.send(service.handle, Note(2))
    turn(clock)
    assert service.got == [Note(1), Note(2)]


def test_a_service_that_refused_can_be_started_again(logged_errors: LoggedErrors) -> None:
    service = Hooked(on_init=fail_now)
    node_of(Clock(), service)
    logged_errors.flush(HookError)
    service.hooks.clear()
    service.startService()
    result_of(service.when_started())
    assert stands(service) is State.RUNNING


def test_a_service_that_is_not_at_rest_cannot_be_started() -> None:
    wait: Deferred[None] = Deferred()
    service = Hooked(on_stop=lambda _: wait)
    node_of(Clock(), service)
    with pytest.raises(RuntimeError, match="cannot be started: it is running"):
        service.startService()
    service.stopService()
    with pytest.raises(RuntimeError, match="cannot be started: it is stopping"):
        service.startService()
    wait.callback(None)


# --- leaving ---


def test_a_service_that_leaves_its_node_is_stopped_and_its_name_is_free_at_once() -> None:
    clock = Clock()
    wait: Deferred[None] = Deferred()
    service, heir = Hooked(on_stop=lambda _: wait), Recorder("hooked")
    node = node_of(clock, service)
    gone = service.disownServiceParent()
    heir.setServiceParent(node)
    node.send("hooked", Note())
    turn(clock)
    assert heir.got == [Note()]
    assert peek(gone) is PENDING
    with pytest.raises(RuntimeError, match="wait for its stopService before it joins another node"):
        service.setServiceParent(Node(clock))
    assert service.parent is None
    wait.callback(None)
    result_of(gone)
    other = node_of(clock, service)
    result_of(service.when_started())
    other.send("hooked", Note())
    turn(clock)
    assert service.got == [Note()]


def test_who_waits_for_the_end_of_a_service_is_told_when_it_leaves_without_having_run() -> None:
    service = Hooked()
    service.setServiceParent(Node(Clock()))
    told = service.handle.when_stopped()
    service.disownServiceParent()
    result_of(told)
