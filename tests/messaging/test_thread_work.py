"""Blocking code in the reactor's threads."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorFromThreads, IReactorThreads
from twisted.internet.task import deferLater

from tests.guards import LoggedErrors
from tests.messaging.common import Echo, Echoed, Recorder, failure_of, node_of
from twisted_etcd.errors import ServiceStopped, ServiceUnavailable
from twisted_etcd.messaging.node import Node
from twisted_etcd.messaging.routes import handles
from twisted_etcd.messaging.service import MessageService

#: Seconds after which a thread that nobody lets go gives up.
AT_MOST = 30


class WorkError(Exception):
    pass


class Gate:
    """A function that blocks its thread until the test lets it go."""

    def __init__(self, *, failing: bool = False) -> None:
        self.failing = failing
        self.entered = threading.Event()
        self.inside: Deferred[None] = Deferred()
        self.outside: Deferred[None] = Deferred()
        self._go = threading.Event()

    def wait(self) -> str:
        from_threads = IReactorFromThreads(reactor)
        from_threads.callFromThread(self.inside.callback, None)
        self._go.wait(AT_MOST)
        # The result of this function follows in the queue.
        from_threads.callFromThread(reactor.callLater, 0, self.outside.callback, None)
        if self.failing:
            raise WorkError
        return "waited"

    def open(self) -> None:
        self._go.set()


class Worker(MessageService):
    @handles(Echo)
    async def on_echo(self, message: Echo) -> Echoed:
        text: str = await self.execute_async("-".join, [message.text, str(threading.get_ident())])
        return Echoed(text)


@pytest.fixture
def node() -> Iterator[Node]:
    node = node_of(reactor, Worker(), Recorder())
    yield node
    pytest_twisted.blockon(node.stopService())


def worker_of(node: Node) -> Worker:
    worker = node.namedServices["Worker"]
    assert isinstance(worker, Worker)
    return worker


def add(first: int, *, second: int) -> tuple[int, int]:
    return first + second, threading.get_ident()


def fail() -> None:
    raise WorkError


@pytest_twisted.ensureDeferred
async def test_a_function_runs_in_another_thread_and_its_result_comes_back(node: Node) -> None:
    working = worker_of(node).execute_async(add, 1, second=2)
    assert node.statistics.sessions_open == 1
    total, thread = await working
    assert total == 3
    assert thread != threading.get_ident()
    assert node.statistics.sessions_open == 0


@pytest_twisted.ensureDeferred
async def test_a_node_and_a_handler_can_use_threads_too(node: Node) -> None:
    assert (await node.execute_async(add, 1, second=2))[0] == 3
    assert await node.call("Worker", Echo("x")) == Echoed(f"x-{threading.get_ident()}")


@pytest_twisted.ensureDeferred
async def test_what_a_function_raises_fails_the_deferred(node: Node) -> None:
    with pytest.raises(WorkError):
        await worker_of(node).execute_async(fail)


@pytest_twisted.ensureDeferred
async def test_a_service_that_stops_waits_for_no_thread_and_drops_the_result(node: Node) -> None:
    worker, gate = worker_of(node), Gate()
    working = worker.execute_async(gate.wait)
    await gate.inside
    await worker.stopService()
    assert "stopped while it waited for execute_async(Gate.wait)" in str(failure_of(working, ServiceStopped))
    assert node.statistics.sessions_open == 0
    gate.open()
    await gate.outside
    assert node.statistics.late_answers == 1
    with pytest.raises(ServiceUnavailable):
        worker.execute_async(fail)


@pytest_twisted.ensureDeferred
async def test_a_failure_that_nobody_waits_for_any_more_is_logged(node: Node, logged_errors: LoggedErrors) -> None:
    gate = Gate(failing=True)
    working = worker_of(node).execute_async(gate.wait)
    await gate.inside
    working.cancel()
    failure_of(working, CancelledError)
    gate.open()
    await gate.outside
    assert len(logged_errors.flush(WorkError)) == 1
    assert node.statistics.late_answers == 0


@pytest_twisted.ensureDeferred
async def test_a_function_that_has_not_begun_is_not_run_once_it_is_cancelled(node: Node) -> None:
    worker = worker_of(node)
    gates = [Gate() for _ in range(IReactorThreads(reactor).getThreadPool().max)]
    busy = [worker.execute_async(gate.wait) for gate in gates]
    for gate in gates:
        await gate.inside
    run: list[None] = []
    queued = worker.execute_async(run.append, None)
    queued.cancel()
    failure_of(queued, CancelledError)
    for gate, each in zip(gates, busy, strict=True):
        gate.open()
        assert await each == "waited"
        await gate.outside
    await worker.execute_async(fail_never)
    await deferLater(reactor, 0)
    assert run == []
    assert node.statistics.late_answers == 0


def fail_never() -> None:
    """Go through the queue behind the others."""
