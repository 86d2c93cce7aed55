"""Futures of other libraries, waited for in a session."""

from __future__ import annotations

import asyncio
import concurrent.futures
import subprocess
import sys
import threading
from collections.abc import Coroutine, Iterator
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, inlineCallbacks
from twisted.internet.task import Clock, deferLater

from tests.guards import LoggedErrors
from tests.messaging.common import PENDING, Recorder, failure_of, node_of, peek, result_of
from twisted_etcd.errors import ServiceStopped, SessionTimeout
from twisted_etcd.messaging.node import Node
from twisted_etcd.messaging.service import MessageService


class WorkError(Exception):
    pass


@pytest.fixture
def node() -> Iterator[Node]:
    node = node_of(reactor, Recorder())
    yield node
    pytest_twisted.blockon(node.stopService())


def service_of(node: Node) -> MessageService:
    service = node.namedServices["Recorder"]
    assert isinstance(service, MessageService)
    return service


class Loop:
    """An asyncio loop in a thread of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()

    def make_future(self) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = self._there(self._new_future())
        return future

    def make_task(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        async def create() -> asyncio.Task[Any]:
            return self.loop.create_task(coroutine)

        task: asyncio.Task[Any] = self._there(create())
        return task

    def sync(self) -> None:
        """Wait until the loop has done what it was asked for before."""
        self._there(asyncio.sleep(0))

    def end(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()

    async def _new_future(self) -> asyncio.Future[Any]:
        return self.loop.create_future()

    def _there(self, coroutine: Coroutine[Any, Any, Any]) -> Any:  # noqa: ANN401 - what the coroutine gives
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(10)


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    if not loop.loop.is_closed():
        loop.end()


# --- concurrent.futures ---


@pytest_twisted.ensureDeferred
async def test_the_result_of_a_concurrent_future_comes_back_into_the_reactors_thread(node: Node) -> None:
    with concurrent.futures.ThreadPoolExecutor() as pool:
        waiting = service_of(node).await_future(pool.submit(threading.get_ident))
        assert node.statistics.sessions_open == 1
        assert await waiting != threading.get_ident()
    assert node.statistics.sessions_open == 0


@pytest_twisted.ensureDeferred
async def test_the_exception_of_a_concurrent_future_fails_the_deferred(node: Node) -> None:
    future: concurrent.futures.Future[None] = concurrent.futures.Future()
    future.set_exception(WorkError())
    with pytest.raises(WorkError):
        await node.await_future(future)


@pytest_twisted.ensureDeferred
async def test_a_concurrent_future_that_somebody_cancels_fails_the_deferred(node: Node) -> None:
    future: concurrent.futures.Future[None] = concurrent.futures.Future()
    waiting = node.await_future(future)
    future.cancel()
    with pytest.raises(CancelledError):
        await waiting


@pytest_twisted.ensureDeferred
async def test_cancelling_the_deferred_cancels_a_concurrent_future(node: Node) -> None:
    future: concurrent.futures.Future[None] = concurrent.futures.Future()
    waiting = node.await_future(future)
    waiting.cancel()
    failure_of(waiting, CancelledError)
    assert future.cancelled()
    await deferLater(reactor, 0)
    assert node.statistics.late_answers == 0


@pytest_twisted.ensureDeferred
async def test_a_future_that_takes_too_long_is_cancelled(node: Node) -> None:
    future: concurrent.futures.Future[None] = concurrent.futures.Future()
    with pytest.raises(
        SessionTimeout, match=r"await_future\(concurrent\.futures\._base\.Future\) was not answered within 0.01 s"
    ):
        await node.await_future(future, 0.01)
    assert future.cancelled()
    assert node.statistics.timeouts == 1


@pytest.mark.parametrize("outcome", ["result", "exception"])
@pytest_twisted.ensureDeferred
async def test_what_comes_of_a_future_too_late_is_not_lost_without_a_trace(
    node: Node, outcome: str, logged_errors: LoggedErrors
) -> None:
    future: concurrent.futures.Future[str] = concurrent.futures.Future()
    # It is under way, and cannot be cancelled any more.
    future.set_running_or_notify_cancel()
    waiting = service_of(node).await_future(future)
    await service_of(node).stopService()
    failure_of(waiting, ServiceStopped)
    if outcome == "result":
        future.set_result("late")
    else:
        future.set_exception(WorkError())
    await deferLater(reactor, 0)
    assert node.statistics.late_answers == (outcome == "result")
    assert len(logged_errors.flush(WorkError)) == (outcome == "exception")


# --- a loop in another thread ---


@pytest_twisted.ensureDeferred
async def test_a_future_of_a_loop_in_another_thread(node: Node, loop: Loop) -> None:
    future = loop.make_future()
    waiting = service_of(node).await_future(future)
    loop.loop.call_soon_threadsafe(future.set_result, "there")
    assert await waiting == "there"


@pytest_twisted.ensureDeferred
async def test_a_task_of_a_loop_in_another_thread_that_fails(node: Node, loop: Loop) -> None:
    async def fail() -> None:
        raise WorkError

    with pytest.raises(WorkError):
        await node.await_future(loop.make_task(fail()))


@pytest.mark.parametrize("end", ["cancel", "timeout", "stop"])
@pytest_twisted.ensureDeferred
async def test_a_future_of_a_loop_in_another_thread_is_cancelled_there(node: Node, loop: Loop, end: str) -> None:
    future = loop.make_future()
    service = service_of(node)
    waiting = service.await_future(future, 0.01 if end == "timeout" else None)
    if end == "cancel":
        waiting.cancel()
        failure_of(waiting, CancelledError)
    elif end == "stop":
        await service.stopService()
        failure_of(waiting, ServiceStopped)
    else:
        with pytest.raises(SessionTimeout):
            await waiting
    loop.sync()
    assert future.cancelled()


@pytest_twisted.ensureDeferred
async def test_a_loop_that_was_closed_gives_no_answer_and_no_trouble(node: Node, loop: Loop) -> None:
    future = loop.make_future()
    waiting = node.await_future(future)
    loop.end()
    waiting.cancel()
    failure_of(waiting, CancelledError)
    with pytest.raises(RuntimeError, match="closed"):
        node.await_future(future)
    assert node.statistics.sessions_open == 0


# --- a loop in the reactor's thread ---


def in_a_loop(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(test)


def test_a_future_of_the_loop_that_the_reactor_runs_on() -> None:
    async def test() -> None:
        node = node_of(Clock(), Recorder())
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        waiting = node.await_future(future)
        assert peek(waiting) is PENDING
        future.set_result("here")
        await asyncio.sleep(0)
        assert result_of(waiting) == "here"

    in_a_loop(test())


def test_a_coroutine_runs_on_the_loop_that_the_reactor_runs_on() -> None:
    async def work(outcome: str) -> str:
        await asyncio.sleep(0)
        if outcome == "fail":
            raise WorkError
        return outcome

    async def test() -> None:
        node = node_of(Clock(), Recorder())
        good, bad = node.await_future(work("good")), node.await_future(work("fail"))
        for _ in range(4):
            await asyncio.sleep(0)
        assert result_of(good) == "good"
        failure_of(bad, WorkError)

    in_a_loop(test())


@pytest.mark.parametrize("end", ["cancel", "timeout", "stop"])
def test_a_coroutine_on_the_reactors_loop_is_cancelled(end: str) -> None:
    seen: list[str] = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    async def test() -> None:
        clock = Clock()
        node = node_of(clock, Recorder())
        waiting = service_of(node).await_future(work(), 5)
        await asyncio.sleep(0)
        if end == "cancel":
            waiting.cancel()
            failure_of(waiting, CancelledError)
        elif end == "stop":
            node.stopService()
            failure_of(waiting, ServiceStopped)
        else:
            clock.advance(5)
            failure_of(waiting, SessionTimeout)
        for _ in range(3):
            await asyncio.sleep(0)
        assert seen == ["cancelled"]

    in_a_loop(test())


ASYNCIO_REACTOR = """
import asyncio
from twisted.internet import asyncioreactor
asyncioreactor.install()
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from tests.messaging.common import Recorder, node_of

async def work():
    await asyncio.sleep(0.001)
    return "worked"

async def test():
    node = node_of(reactor, Recorder())
    # before the loop runs, and after
    print(await node.await_future(work()))
    print(await node.await_future(work()))
    print(await node.await_future(asyncio.ensure_future(work())))
    await node.stopService()
    reactor.stop()

reactor.callWhenRunning(lambda: Deferred.fromCoroutine(test()))
reactor.run()
"""


def test_asyncio_works_under_the_asyncioreactor() -> None:
    answer = subprocess.run(
        [sys.executable, "-c", ASYNCIO_REACTOR], check=True, capture_output=True, text=True, timeout=60
    )
    assert (answer.stdout, answer.stderr) == ("worked\n" * 3, "")


# --- what is none ---


async def never_run() -> None:
    pytest.fail("it ran")


def test_a_coroutine_without_a_loop_fails_and_is_closed() -> None:
    clock = Clock()
    waiting = node_of(clock).await_future(never_run())
    # The reactor may not run yet.
    assert peek(waiting) is PENDING
    clock.advance(0)
    text = str(failure_of(waiting, RuntimeError))
    assert "an asyncio coroutine needs an asyncio loop in the reactor's thread" in text


def test_a_coroutine_that_is_cancelled_before_the_loop_runs_is_closed() -> None:
    clock = Clock()
    waiting = node_of(clock, default_timeout=None).await_future(never_run())
    waiting.cancel()
    failure_of(waiting, CancelledError)
    assert clock.getDelayedCalls() == []


def test_a_coroutine_that_was_given_before_the_loop_ran_runs_on_it() -> None:
    async def work(outcome: str) -> str:
        await asyncio.sleep(0)
        return outcome

    async def test() -> None:
        clock.advance(0)
        for _ in range(4):
            await asyncio.sleep(0)

    clock = Clock()
    node = node_of(clock)
    waiting, late = node.await_future(work("worked")), node.await_future(work("late"))
    in_a_loop(test())
    assert result_of(waiting) == "worked"
    assert result_of(late) == "late"


@pytest.mark.parametrize("given", ["text", Deferred(), inlineCallbacks])
def test_anything_else_is_refused(given: Any) -> None:  # noqa: ANN401 - anything
    with pytest.raises(TypeError, match=r"takes a future of concurrent\.futures or asyncio, or an asyncio coroutine"):
        node_of(Clock()).await_future(given)
