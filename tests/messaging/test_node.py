"""The node: names, the order of starting and stopping, and that nothing is left."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.application.service import Application, IService, Service
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.task import Clock

from tests.guards import LoggedErrors
from tests.messaging.common import (
    PENDING,
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
from tests.messaging.test_service import Hooked, HookError, fail_now, stands
from twisted_etcd.errors import ServiceNotFound, ServiceStopped, ServiceUnavailable
from twisted_etcd.messaging.lifecycle import State
from twisted_etcd.messaging.node import Node


class Other(Service):
    """A Twisted service that is no message service."""

    def __init__(self, story: list[str], failing: str = "") -> None:
        self.story = story
        self.failing = failing

    def privilegedStartService(self) -> None:
        self._tell("privileged")

    def startService(self) -> None:
        super().startService()  # type: ignore[no-untyped-call]
        self._tell("start")

    def stopService(self) -> Deferred[None]:
        super().stopService()  # type: ignore[no-untyped-call]
        self._tell("stop")
        return succeed(None)

    def _tell(self, what: str) -> None:
        self.story.append(f"other {what}")
        if what == self.failing:
            raise HookError


def other(story: list[str], failing: str = "") -> Any:  # noqa: ANN401 - Twisted's services have no types
    return Other(story, failing)


def test_a_name_is_given_once() -> None:
    node = node_of(Clock(), Echoer("one"))
    second = Echoer("one")
    with pytest.raises(ValueError, match="the node has a service named 'one' already"):
        second.setServiceParent(node)
    assert second.parent is None
    assert len(list(node)) == 1


def test_services_are_found_by_their_names() -> None:
    echoer = Echoer()
    node = node_of(Clock(), echoer)
    assert node.namedServices["Echoer"] is echoer
    assert node.handle("Echoer") is echoer.handle
    with pytest.raises(ServiceNotFound, match="no service is named 'x' in this node; it has 'Echoer'"):
        node.handle("x")
    with pytest.raises(ServiceNotFound, match="it has none"):
        node_of(Clock()).handle("x")


def test_a_node_is_a_twisted_service() -> None:
    application = Application("app")
    node = Node(Clock(), name="messages")
    node.setServiceParent(application)
    echoer = Echoer()
    echoer.setServiceParent(node)
    service = IService(application)
    service.privilegedStartService()
    service.startService()
    assert stands(echoer) is State.RUNNING
    service.stopService()
    assert stands(echoer) is State.STOPPED
    assert repr(node) == "<Node 'messages'>"


def test_all_are_initialised_before_any_starts_and_stopped_in_the_opposite_order() -> None:
    story: list[str] = []
    node = node_of(Clock(), Hooked("a", story), Hooked("b", story))
    result_of(node.when_started())
    assert [step.rpartition(" ")[0] for step in story] == ["a on_init", "b on_init", "a on_start", "b on_start"]
    story.clear()
    result_of(node.stopService())
    assert [step.rpartition(" ")[0] for step in story] == ["b on_stop", "b on_exit", "a on_stop", "a on_exit"]


def test_each_waits_for_the_one_before() -> None:
    story: list[str] = []
    waits: list[Deferred[None]] = [Deferred(), Deferred(), Deferred()]
    first = Hooked("a", story, on_init=lambda _: waits[0], on_start=lambda _: waits[1])
    second = Hooked("b", story, on_exit=lambda _: waits[2])
    node = node_of(Clock(), first, second)
    started = node.when_started()
    assert story == ["a on_init INITIALISING"]
    waits[0].callback(None)
    assert story[1:] == ["b on_init INITIALISING", "a on_start STARTING"]
    assert stands(second) is State.STARTING
    waits[1].callback(None)
    result_of(started)
    stopped = node.stopService()
    assert "a on_stop STOPPING" not in story
    assert stands(first) is State.RUNNING
    waits[2].callback(None)
    assert "a on_stop STOPPING" in story
    result_of(stopped)


def test_a_service_can_call_those_before_it_in_on_start_and_in_on_stop() -> None:
    clock = Clock()
    heard: list[Echoed] = []

    async def ask(service: Hooked) -> None:
        heard.append(await service.call("Echoer", Echo("x")))

    node = node_of(clock, Echoer(), Hooked(on_start=ask, on_stop=ask))
    turn(clock)
    result_of(node.when_started())
    stopped = node.stopService()
    turn(clock)
    result_of(stopped)
    assert heard == [Echoed("x"), Echoed("x")]


def test_one_that_refuses_is_reported_and_keeps_no_other_from_running(logged_errors: LoggedErrors) -> None:
    echoer = Echoer()
    node = node_of(Clock(), Hooked("first", on_init=fail_now), Hooked("second", on_start=fail_now), echoer)
    error = failure_of(node.when_started(), ServiceUnavailable)
    assert str(error) == "services refused to start: 'first': HookError: ; 'second': HookError: "
    assert isinstance(error.__cause__, HookError)
    assert stands(echoer) is State.RUNNING
    assert len(logged_errors.flush(HookError)) == 2
    result_of(node.stopService())


def test_a_service_that_joins_a_running_node_is_started() -> None:
    clock, late = Clock(), Recorder()
    node = node_of(clock)
    late.setServiceParent(node)
    result_of(node.when_started())
    node.send("Recorder", Note())
    turn(clock)
    assert late.got == [Note()]


def test_a_service_that_joins_a_node_that_is_starting_waits_for_the_others() -> None:
    story: list[str] = []
    wait: Deferred[None] = Deferred()
    node = node_of(Clock(), Hooked("a", story, on_start=lambda _: wait))
    started = node.when_started()
    Hooked("b", story).setServiceParent(node)
    assert story[-1] == "a on_start STARTING"
    wait.callback(None)
    assert story[-2:] == ["b on_init INITIALISING", "b on_start STARTING"]
    result_of(started)


def test_a_service_that_leaves_before_its_turn_is_not_started() -> None:
    wait: Deferred[None] = Deferred()
    leaving, waiting = Hooked("b"), Hooked("c", on_start=lambda _: wait)
    node = node_of(Clock(), Hooked("a", on_init=lambda _: wait), leaving, waiting)
    result_of(leaving.disownServiceParent())
    wait.callback(None)
    assert leaving.story == []
    result_of(node.when_started())


def test_a_node_can_be_stopped_while_it_starts() -> None:
    story: list[str] = []
    cancelled: list[object] = []
    clock = Clock()
    node = node_of(
        clock,
        Hooked("a", story),
        Hooked("b", story, on_start=lambda _: Deferred(cancelled.append)),
        Hooked("c", story),
    )
    started = node.when_started()
    stopped = node.stopService()
    result_of(stopped)
    failure_of(started, ServiceStopped)
    failure_of(node.when_started(), ServiceStopped)
    assert len(cancelled) == 1
    assert [step.rpartition(" ")[0] for step in story] == [
        *("a on_init", "b on_init", "c on_init", "a on_start", "b on_start"),
        *("c on_exit", "b on_exit", "a on_stop", "a on_exit"),
    ]
    assert clock.getDelayedCalls() == []


def test_one_that_is_starting_is_stopped_before_the_one_it_waits_for() -> None:
    story: list[str] = []
    clock = Clock()
    node = Node(clock)
    late = Hooked("late", story)

    def waits_for_late(_: object) -> Deferred[None]:
        late.setServiceParent(node)
        late.startService()
        return Deferred(lambda _: story.append("cancelled"))

    Hooked("a", story, on_start=waits_for_late).setServiceParent(node)
    node.startService()
    story.clear()
    result_of(node.stopService())
    assert [step.rpartition(" ")[0] if " " in step else step for step in story] == [
        *("cancelled", "a on_exit", "late on_stop", "late on_exit")
    ]


def test_the_start_can_be_waited_for_before_it_begins() -> None:
    node = Node(Clock())
    started = node.when_started()
    assert peek(started) is PENDING
    node.startService()
    result_of(started)
    result_of(node.stopService())


def test_stopping_a_node_twice_is_one_stop_and_stopping_one_at_rest_is_none() -> None:
    wait: Deferred[None] = Deferred()
    node = Node(Clock())
    result_of(node.stopService())
    Hooked(on_stop=lambda _: wait).setServiceParent(node)
    node.startService()
    first, second = node.stopService(), node.stopService()
    first.cancel()
    failure_of(first, CancelledError)
    wait.callback(None)
    result_of(second)
    result_of(node.stopService())


def test_a_node_that_has_stopped_can_be_started_again() -> None:
    clock, recorder = Clock(), Recorder()
    node = node_of(clock, recorder)
    node.stopService()
    with pytest.raises(ServiceUnavailable):
        node.send("Recorder", Note())
    node.startService()
    node.send("Recorder", Note())
    turn(clock)
    assert recorder.got == [Note()]


def test_a_node_that_is_running_or_stopping_cannot_be_started() -> None:
    wait: Deferred[None] = Deferred()
    node = node_of(Clock(), Hooked(on_stop=lambda _: wait))
    with pytest.raises(RuntimeError, match="<Node> cannot be started: it is running"):
        node.startService()
    node.stopService()
    with pytest.raises(RuntimeError, match="<Node> cannot be started: it is still stopping"):
        node.startService()
    wait.callback(None)


def test_stopping_under_load_leaves_nothing() -> None:
    clock, waiter, recorder = Clock(), Waiter(), Recorder()
    background: list[Deferred[Echoed]] = []
    node = node_of(
        clock, recorder, waiter, Hooked(on_start=lambda service: background.append(service.call("Waiter", Echo())))
    )
    calls = [node.call("Waiter", Echo(), seconds) for seconds in range(1, 200)]
    for number in range(200):
        node.send("Recorder", Note(number))
    turn(clock)
    calls += [node.call("Waiter", Echo()) for _ in range(200)]
    stopped = node.stopService()
    result_of(stopped)
    for call in calls:
        failure_of(call, ServiceUnavailable)
    failure_of(background[0], ServiceStopped)
    assert waiter.cancelled == len(waiter.answers)
    assert node.statistics.sessions_open == 0
    assert clock.getDelayedCalls() == []


def test_the_end_of_a_node_waits_for_services_that_have_left_it() -> None:
    wait: Deferred[None] = Deferred()
    service = Hooked(on_stop=lambda _: wait)
    node = node_of(Clock(), service)
    service.disownServiceParent()
    stopped = node.stopService()
    assert peek(stopped) is PENDING
    wait.callback(None)
    result_of(stopped)


def test_other_services_are_started_and_stopped_among_them() -> None:
    story: list[str] = []
    node = Node(Clock())
    Hooked("a", story).setServiceParent(node)
    other(story).setServiceParent(node)
    Hooked("b", story).setServiceParent(node)
    node.privilegedStartService()
    node.startService()
    result_of(node.when_started())
    result_of(node.stopService())
    assert [step.replace(" STARTING", "").replace(" STOPPING", "") for step in story] == [
        *("other privileged", "a on_init INITIALISING", "b on_init INITIALISING"),
        *("a on_start", "other start", "b on_start"),
        *("b on_stop", "b on_exit", "other stop", "a on_stop", "a on_exit"),
    ]


def test_another_service_that_joins_or_leaves_a_running_node_is_started_or_stopped() -> None:
    story: list[str] = []
    node = node_of(Clock())
    one = other(story)
    one.setServiceParent(node)
    result_of(one.disownServiceParent())
    assert story == ["other privileged", "other start", "other stop"]
    idle = other(story)
    idle.setServiceParent(Node(Clock()))
    assert idle.disownServiceParent() is None


def test_another_service_that_fails_to_start_is_reported(logged_errors: LoggedErrors) -> None:
    node, echoer = Node(Clock()), Echoer()
    other([], failing="start").setServiceParent(node)
    echoer.setServiceParent(node)
    node.startService()
    assert "'Other': HookError" in str(failure_of(node.when_started(), ServiceUnavailable))
    assert stands(echoer) is State.RUNNING
    assert len(logged_errors.flush(HookError)) == 1


def test_another_service_that_fails_to_stop_keeps_no_other_running(logged_errors: LoggedErrors) -> None:
    node, echoer = Node(Clock()), Echoer()
    echoer.setServiceParent(node)
    other([], failing="stop").setServiceParent(node)
    node.startService()
    result_of(node.stopService())
    assert stands(echoer) is State.STOPPED
    assert len(logged_errors.flush(HookError)) == 1


def test_statistics_are_a_copy() -> None:
    clock, waiter = Clock(), Waiter()
    node = node_of(clock, waiter)
    before = node.statistics
    node.call("Waiter", Echo())
    turn(clock)
    assert (before.delivered, before.sessions_open) == (0, 0)
    assert (node.statistics.delivered, node.statistics.sessions_open) == (1, 1)
