"""What nodes and services have in common: sending, calling and answering messages, and waiting for work elsewhere."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

from twisted.internet.defer import Deferred, fail, succeed

from twisted_etcd.errors import MessagingError, ServiceUnavailable
from twisted_etcd.messaging.addresses import ServiceHandle, Target
from twisted_etcd.messaging.delivery import Delivery
from twisted_etcd.messaging.exchange import Exchange
from twisted_etcd.messaging.futures import await_future
from twisted_etcd.messaging.lifecycle import State
from twisted_etcd.messaging.messages import AnswerT, Message, Request
from twisted_etcd.messaging.thread_work import execute_async
from twisted_etcd.reactor_thread import check_reactor_thread

ResultT = TypeVar("ResultT")
ParametersT = ParamSpec("ParametersT")

_RUNNING, _STARTING = State.RUNNING, State.STARTING


class Correspondent:
    """
    One that sends messages: a :class:`~twisted_etcd.messaging.node.Node`, for the world outside, or a service.

    All of this is for the reactor's thread; ``node.from_thread`` is for the others, in which ``send`` and the calls
    raise :exc:`RuntimeError`.

    :ivar node_exchange: what it sends through; ``None`` while it is not running, and so may not send.
    :ivar own_handle: the handle of the service's present run; ``None`` for the node.
    """

    node_exchange: Exchange | None = None
    own_handle: ServiceHandle | None = None

    def send(self, target: Target, message: Message) -> int:
        """
        Send a message. It is delivered in a later turn of the reactor, in order with the others from this sender.

        An answer of its handler's is dropped, and a failure of its handler's is logged. A message to a service that
        is about to start is kept until the service runs.

        :returns: the session id, by which the handler and the log know the message.
        :raises ServiceNotFound: when no service has that name.
        :raises ServiceUnavailable: when the service is neither running nor about to start, or this sender is not.
        """
        exchange = self.node_exchange
        check_reactor_thread("send", "node.from_thread.send")
        if exchange is None:
            raise self._not_running()
        if not isinstance(message, Message):
            raise _no_message(message)
        reception = exchange.receptions.get(target) or exchange.not_found(target)
        if reception.state is not _RUNNING and reception.state is not _STARTING:
            raise reception.unavailable()
        delivery = Delivery(exchange.sessions, self.own_handle, reception.handle, message)
        reception.put(delivery)
        return delivery.session_id

    def call(self, target: Target, message: Request[AnswerT], timeout: float | None = None) -> Deferred[AnswerT]:
        """
        Send a request and wait for its answer.

        Cancelling the Deferred cancels the handler.

        :param timeout: seconds for the whole of it; the node's default unless given, ``math.inf`` for no limit.
        :returns: a Deferred of what the handler answers, ``None`` where it returned nothing. It fails with the
            handler's own exception, with :exc:`SessionTimeout`, with :exc:`ServiceNotFound` for a name that no service
            has, with :exc:`ServiceUnavailable` for a service that is not running or stops before it answered, with
            :exc:`UnhandledMessage`, with :exc:`ServiceStopped` when this sender stops, and with :exc:`TypeError` when
            the handler's answer is not what the request names.
        :raises TypeError: for anything but a :class:`~twisted_etcd.messaging.messages.Request`.
        :raises ValueError: for a timeout that is not more than 0.
        """
        return self._call(target, message, timeout, or_none=False)

    def call_or_none(
        self, target: Target, message: Request[AnswerT], timeout: float | None = None
    ) -> Deferred[AnswerT | None]:
        """
        Do as :meth:`call` does, but answer ``None`` where nobody answers: no such service, not running, or too late.

        What the handler raises still fails the Deferred, also when it is one of those errors, from a call of its own.
        So does :exc:`UnhandledMessage`.
        """
        return self._call(target, message, timeout, or_none=True)

    def _call(self, target: Target, message: Request[Any], timeout: float | None, *, or_none: bool) -> Deferred[Any]:
        check_reactor_thread("call", "node.from_thread.call")
        if not isinstance(message, Request):
            raise _no_request(message)
        exchange = self.node_exchange
        if exchange is None:
            return fail(self._not_running())
        seconds = exchange.default_timeout if timeout is None else exchange.seconds(timeout)
        try:
            reception = exchange.receptions.get(target) or exchange.not_found(target)
            if reception.state is not _RUNNING:
                raise reception.unavailable()
        except MessagingError as error:
            return succeed(None) if or_none else fail(error)
        delivery = Delivery(exchange.sessions, self.own_handle, reception.handle, message, called=True, or_none=or_none)
        waiting = delivery.open(seconds)
        reception.put(delivery)
        return waiting

    def reply(self, session: int | Delivery, answer: Message | None) -> bool:
        """
        Answer a call that was taken over with ``delivery.defer()``, in the handler's service or in any other.

        :param session: the delivery, or its ``session_id``.
        :returns: whether somebody waited for it; an answer to a call that is over is dropped and counted.
        :raises TypeError: for an answer that the request does not name; the call stays open.
        """
        if isinstance(session, Delivery):
            return session.reply(answer)
        if self.node_exchange is None:
            raise self._not_running()
        delivery = self.node_exchange.sessions.get(session)
        if isinstance(delivery, Delivery):
            return delivery.reply(answer)
        self.node_exchange.statistics.late_answers += 1
        return False

    def execute_async(
        self, function: Callable[ParametersT, ResultT], /, *args: ParametersT.args, **kwargs: ParametersT.kwargs
    ) -> Deferred[ResultT]:
        """
        Run code that blocks in the reactor's thread pool.

        A thread cannot be cancelled. When the Deferred is, or the service stops (:exc:`ServiceStopped`), the Deferred
        fails at once, a function that has not begun is not run, and the result of one that has is dropped and counted
        as a late answer; its failure is logged.

        :returns: a Deferred of what the function returns; it fails with what the function raises. It has no timeout.
        """
        return execute_async(self._alive(), self.own_handle, function, args, kwargs)

    def await_future(
        self,
        future: concurrent.futures.Future[ResultT] | asyncio.Future[ResultT] | Coroutine[Any, Any, ResultT],
        timeout: float | None = None,
    ) -> Deferred[ResultT]:
        """
        Wait for a future of another library's, without blocking.

        It may complete in any thread, and an asyncio one may belong to a loop that runs in another thread or under the
        ``asyncioreactor``. An asyncio coroutine needs the latter, else it fails with :exc:`RuntimeError`. Cancelling
        the Deferred cancels the future.

        :param timeout: seconds; the node's default unless given, ``math.inf`` for no limit.
        :returns: a Deferred of its result; it fails with its exception, with Twisted's
            :exc:`~twisted.internet.defer.CancelledError` when somebody cancelled it, with :exc:`SessionTimeout`, and
            with :exc:`ServiceStopped` when this service stops; the future is cancelled in these last two cases.
        :raises TypeError: for anything else.
        """
        exchange = self._alive()
        return await_future(exchange, self.own_handle, future, exchange.seconds(timeout))

    def _alive(self) -> Exchange:
        if self.node_exchange is None:
            raise self._not_running()
        return self.node_exchange

    def _not_running(self) -> ServiceUnavailable:
        """The error for a sender that is not running."""
        return ServiceUnavailable(f"{self!r} is not running, so it cannot send: start it first")


def _no_message(message: object) -> TypeError:
    if isinstance(message, type):
        return TypeError(f"{message.__qualname__} is a class, and what is sent is an object: make one, with its fields")
    return TypeError(f"only messages are sent, and {type(message).__qualname__} is no subclass of Message")


def _no_request(message: object) -> TypeError:
    if not isinstance(message, Message):
        return _no_message(message)
    name = type(message).__qualname__
    return TypeError(
        f"only requests are called, and {name} names no answer: derive it from Request[...], "
        "Request[None] for one without an answer"
    )
