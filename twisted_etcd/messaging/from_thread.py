"""The way into a node from other threads than the reactor's."""

from __future__ import annotations

import concurrent.futures
import threading
from typing import Any

from twisted.internet.defer import maybeDeferred
from twisted.internet.interfaces import IReactorCore, IReactorFromThreads, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_etcd.errors import ServiceStopped, ServiceUnavailable
from twisted_etcd.messaging.addresses import Target
from twisted_etcd.messaging.correspondence import Correspondent
from twisted_etcd.messaging.messages import AnswerT, Message, Request

_log = Logger()


class FromThread:
    """
    ``send`` and ``call`` for other threads, as ``node.from_thread``.

    They work from the node's start to its end; a node that stops, and a reactor that shuts down, leave no thread
    waiting.

    :param node: who sends.
    """

    def __init__(self, reactor: IReactorTime, node: Correspondent) -> None:
        self._reactor = reactor
        self._node = node
        self._lock = threading.Lock()
        self._is_open = False
        self._pending: set[concurrent.futures.Future[Any]] = set()
        self._reactor_thread = 0
        self._trigger: object = None

    def send(self, target: Target, message: Message) -> None:
        """
        Send a message, without waiting for anything. Messages from one thread arrive in order.

        When there is no such service, or it is not running, that is logged.

        :raises ServiceUnavailable: when the node is not running.
        :raises RuntimeError: in the reactor's thread, where ``node.send`` is the way.
        """
        self._check_thread("send")
        with self._lock:
            self._check_open()
        IReactorFromThreads(self._reactor).callFromThread(self._send, target, message)

    def call(self, target: Target, message: Request[AnswerT], timeout: float | None = None) -> AnswerT:
        """
        Send a request and block this thread until it is answered.

        :param timeout: seconds; the node's default unless given.
        :returns: the answer.
        :raises ServiceUnavailable: when the node is not running, and as ``node.call`` does.
        :raises ServiceStopped: when the node stops, or the reactor shuts down, before it is answered.
        :raises RuntimeError: in the reactor's thread, which would wait for itself; ``node.call`` is the way there.

        It raises everything else that ``node.call`` fails with or raises.
        """
        self._check_thread("call")
        future: concurrent.futures.Future[AnswerT] = concurrent.futures.Future()
        with self._lock:
            self._check_open()
            self._pending.add(future)
        try:
            IReactorFromThreads(self._reactor).callFromThread(self._call, future, target, message, timeout)
            return future.result()
        finally:
            with self._lock:
                self._pending.discard(future)

    def open(self) -> None:
        """Let threads in; for the node, which starts."""
        self._note_thread()
        if IReactorCore.providedBy(self._reactor):
            core = IReactorCore(self._reactor)
            # It may be started in one thread and run in another.
            core.callWhenRunning(self._note_thread)
            # Before the thread pool is stopped, which waits for its threads, and so for those that wait here.
            self._trigger = core.addSystemEventTrigger("before", "shutdown", self._shut_down)
        with self._lock:
            self._is_open = True

    def close(self) -> None:
        """Let no more threads in, and wake those that wait; for the node, which has stopped."""
        trigger, self._trigger = self._trigger, None
        if trigger is not None:
            IReactorCore(self._reactor).removeSystemEventTrigger(trigger)
        with self._lock:
            self._is_open = False
            pending, self._pending = self._pending, set()
        for future in pending:
            if not future.done():
                future.set_exception(ServiceStopped("the node stopped before the call from a thread was answered"))

    def _shut_down(self) -> None:
        # The trigger that fires now cannot be removed any more.
        self._trigger = None
        self.close()

    def _send(self, target: Target, message: Message) -> None:
        try:
            self._node.send(target, message)
        except Exception:  # noqa: BLE001 - the thread that sent it has gone on, so the log is told
            name = type(message).__qualname__
            _log.failure("a {message} that a thread sent to {target} was not sent", message=name, target=target)

    def _call(
        self,
        future: concurrent.futures.Future[Any],
        target: Target,
        message: Request[Any],
        timeout: float | None,
    ) -> None:
        if future.done():
            return

        def answered(answer: object) -> None:
            if not future.done():
                future.set_result(answer)

        def failed(failure: Failure) -> None:
            if not future.done():
                future.set_exception(failure.value)

        maybeDeferred(self._node.call, target, message, timeout).addCallbacks(answered, failed)

    def _check_open(self) -> None:
        if not self._is_open:
            msg = "the node is not running, so threads cannot reach it: start it first"
            raise ServiceUnavailable(msg)

    def _check_thread(self, method: str) -> None:
        if threading.get_ident() == self._reactor_thread:
            msg = (
                f"node.from_thread.{method} was used in the reactor's thread, which it would block: "
                f"use node.{method} there"
            )
            raise RuntimeError(msg)

    def _note_thread(self) -> None:
        self._reactor_thread = threading.get_ident()
