"""Messages from other threads."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.task import Clock, deferLater
from twisted.internet.testing import MemoryReactorClock
from twisted.internet.threads import deferToThread
from zope.interface import implementer

from tests.guards import LoggedErrors
from tests.messaging.common import Ask, Echo, Echoed, Echoer, Note, Recorder, Waiter, node_of
from twisted_etcd.errors import ServiceNotFound, ServiceStopped, ServiceUnavailable, SessionTimeout
from twisted_etcd.messaging.messages import Message
from twisted_etcd.messaging.node import Node
from twisted_etcd.messaging.routes import handles
from twisted_etcd.messaging.service import MessageService


class HandlerError(Exception):
    pass


class Failing(MessageService):
    @handles(Ask)
    def on_ask(self, _message: Ask) -> None:
        raise HandlerError


class Counter(MessageService):
    """Fires when it has got so many messages."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count
        self.got: list[Message] = []
        self.threads: set[int] = set()
        self.done: Deferred[None] = Deferred()

    @handles(Note)
    def on_note(self, message: Note) -> None:
        self.got.append(message)
        self.threads.add(threading.get_ident())
        if len(self.got) == self.count:
            self.done.callback(None)


class Arriving(Waiter):
    """Tells when a call has arrived."""

    def __init__(self) -> None:
        super().__init__()
        self.arrived: Deferred[None] = Deferred()

    def on_echo(self, message: Echo) -> Deferred[Echoed]:
        self.arrived.callback(None)
        return super().on_echo(message)


@pytest.fixture
def nodes() -> Iterator[Callable[..., Node]]:
    """Makes nodes on the real reactor, and stops them in the end."""
    made: list[Node] = []

    def make(*services: MessageService) -> Node:
        node = node_of(reactor, *services)
        made.append(node)
        return node

    yield make
    for node in made:
        pytest_twisted.blockon(node.stopService())


Nodes = Callable[..., Node]


@pytest_twisted.ensureDeferred
async def test_a_thread_can_call(nodes: Nodes) -> None:
    node = nodes(Echoer())
    assert await deferToThread(node.from_thread.call, "Echoer", Echo("x")) == Echoed("x")


@pytest_twisted.ensureDeferred
async def test_a_thread_gets_what_the_handler_raises(nodes: Nodes) -> None:
    node = nodes(Failing())
    with pytest.raises(HandlerError):
        await deferToThread(node.from_thread.call, "Failing", Ask())


@pytest_twisted.ensureDeferred
async def test_a_thread_gets_the_nodes_own_errors(nodes: Nodes) -> None:
    waiter = Waiter()
    call = nodes(waiter).from_thread.call
    with pytest.raises(ServiceNotFound):
        await deferToThread(call, "Nobody", Echo())
    with pytest.raises(SessionTimeout):
        await deferToThread(call, "Waiter", Echo(), 0.01)
    assert waiter.cancelled == 1
    with pytest.raises(ValueError, match="more than 0 seconds"):
        await deferToThread(call, "Waiter", Echo(), 0)
    with pytest.raises(TypeError, match="only requests are called"):
        await deferToThread(call, "Waiter", Note())  # type: ignore[arg-type]


@pytest_twisted.ensureDeferred
async def test_what_a_thread_sends_arrives_in_order_in_the_reactors_thread(nodes: Nodes) -> None:
    counter = Counter(500)
    node = nodes(counter)

    def send_all() -> None:
        for number in range(500):
            node.from_thread.send("Counter", Note(number))

    await deferToThread(send_all)
    await counter.done
    assert counter.got == [Note(number) for number in range(500)]
    assert counter.threads == {threading.get_ident()}


@pytest_twisted.ensureDeferred
async def test_several_threads_can_call_at_once(nodes: Nodes) -> None:
    node = nodes(Echoer())

    def call_often(name: str) -> list[Echoed]:
        return [node.from_thread.call("Echoer", Echo(f"{name}{number}")) for number in range(20)]

    calls = [deferToThread(call_often, name) for name in "abc"]
    for name, answers in zip("abc", calls, strict=True):
        assert await answers == [Echoed(f"{name}{number}") for number in range(20)]


@pytest_twisted.ensureDeferred
async def test_what_a_thread_sends_to_nobody_is_logged(nodes: Nodes, logged_errors: LoggedErrors) -> None:
    node = nodes()
    await deferToThread(node.from_thread.send, "Nobody", Note())
    # a turn after the one in which it was to be sent
    await deferLater(reactor, 0)
    assert len(logged_errors.flush(ServiceNotFound)) == 1


def test_the_reactors_own_thread_is_told_what_it_should_use() -> None:
    node = node_of(Clock(), Recorder())
    with pytest.raises(RuntimeError, match=r"in the reactor's thread, which it would block: use node\.call there"):
        node.from_thread.call("Recorder", Ask())
    with pytest.raises(RuntimeError, match=r"use node\.send there"):
        node.from_thread.send("Recorder", Note())
    node.stopService()


@pytest_twisted.ensureDeferred
async def test_a_thread_cannot_reach_a_node_that_is_not_running(nodes: Nodes) -> None:
    node = Node(reactor)
    stopped = nodes(Recorder())
    await stopped.stopService()
    for each in (node, stopped):
        with pytest.raises(ServiceUnavailable, match="the node is not running"):
            await deferToThread(each.from_thread.call, "Recorder", Ask())
        with pytest.raises(ServiceUnavailable, match="the node is not running"):
            await deferToThread(each.from_thread.send, "Recorder", Note())


@pytest_twisted.ensureDeferred
async def test_a_node_that_stops_leaves_no_thread_waiting(nodes: Nodes) -> None:
    waiter = Arriving()
    node = nodes(waiter)
    answer = deferToThread(node.from_thread.call, "Arriving", Echo())
    await waiter.arrived
    await node.stopService()
    with pytest.raises(ServiceUnavailable):
        await answer


@implementer(IReactorFromThreads)
class Threads(MemoryReactorClock):
    """A reactor that keeps what threads ask it to call, and whose shutdown a test can play."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.asked: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []
        self.someone_asked = threading.Event()

    def callFromThread(
        self,
        callable: Callable[..., Any],  # noqa: A002 - as the interface has it
        *args: object,
        **_: object,
    ) -> None:
        self.asked.append((callable, args))
        self.someone_asked.set()


class Caller(threading.Thread):
    """Calls in a thread of its own, and keeps the outcome."""

    def __init__(self, node: Node) -> None:
        super().__init__()
        self.node = node
        self.outcome: object = None

    def run(self) -> None:
        try:
            self.outcome = self.node.from_thread.call("Recorder", Ask())
        except Exception as error:  # noqa: BLE001 - the test looks at it
            self.outcome = error


@pytest.mark.parametrize("end", ["stop", "shutdown"])
def test_a_call_that_the_reactor_has_not_seen_yet_ends_with_the_node_and_with_the_reactor(end: str) -> None:
    threads, recorder = Threads(), Recorder()
    node = node_of(threads, recorder)
    caller = Caller(node)
    caller.start()
    assert threads.someone_asked.wait(10)
    if end == "stop":
        node.stopService()
    else:
        (what, args, kwargs) = threads.triggers["before"]["shutdown"][0]
        what(*args, **kwargs)
    caller.join(10)
    assert isinstance(caller.outcome, ServiceStopped)
    # The reactor's turn comes after all, and nothing is sent any more.
    for what, args in threads.asked:
        what(*args)
    threads.advance(0)
    assert recorder.got == []
    node.stopService()


LEFT_WAITING = """
import sys, threading
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from tests.messaging.common import Echo, Waiter, node_of

class Arriving(Waiter):
    def on_echo(self, message):
        # a thread of the reactor's pool, which the shutdown waits for
        reactor.callLater(0, reactor.stop)
        return super().on_echo(message)

def call():
    try:
        node.from_thread.call("Arriving", Echo())
    except Exception as error:
        print(type(error).__name__)

node = node_of(reactor, Arriving())
reactor.callInThread(call)
reactor.run()
"""


def test_a_reactor_that_shuts_down_without_the_node_leaves_no_thread_waiting() -> None:
    answer = subprocess.run(
        [sys.executable, "-c", LEFT_WAITING], check=True, capture_output=True, text=True, timeout=60
    )
    assert answer.stdout == "ServiceStopped\n"


RUN_ELSEWHERE = """
import threading
from twisted.internet import reactor
from tests.messaging.common import Echo, Echoer, node_of

node = node_of(reactor, Echoer())
running = threading.Event()
reactor.callWhenRunning(running.set)
thread = threading.Thread(target=reactor.run, args=(False,))
thread.start()
running.wait()
print(node.from_thread.call("Echoer", Echo("x")).text)
reactor.callFromThread(reactor.stop)
thread.join()
"""


def test_a_reactor_may_run_in_another_thread_than_the_one_that_started_the_node() -> None:
    answer = subprocess.run(
        [sys.executable, "-c", RUN_ELSEWHERE], check=True, capture_output=True, text=True, timeout=60
    )
    assert answer.stdout == "x\n"
