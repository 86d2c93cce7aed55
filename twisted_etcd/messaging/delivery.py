"""A message on its way to a handler, and the way back of its answer."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from twisted_etcd.errors import MessagingError, ServiceNotFound, ServiceUnavailable, SessionTimeout
from twisted_etcd.messaging.addresses import ServiceHandle
from twisted_etcd.messaging.messages import Message, answer_classes
from twisted_etcd.messaging.sessions import Session, SessionTable

#: What makes ``call_or_none`` answer ``None``, where it is the node's word and not the handler's.
NO_ANSWER: tuple[type[MessagingError], ...] = (ServiceNotFound, ServiceUnavailable, SessionTimeout)


class Delivery(Session):
    """
    What a handler can learn about a message, as its second parameter, and do about its answer.

    A handler answers by returning. One that cannot yet says ``delivery.defer()``, returns nothing, and the answer is
    given later, by whoever has the delivery or its session id: ``delivery.reply(answer)``, ``delivery.fail(failure)``,
    or any service's ``reply(session_id, answer)``.

    :ivar message: the message.
    :ivar target: the service that it was sent to.
    :ivar session_id: the number that ``send`` returned.
    :ivar running: what the handler waits for, while it waits.
    :ivar ended: whether the handler has ended.
    """

    __slots__ = ("_or_none", "called", "deferred", "ended", "message", "running", "target")

    def __init__(
        self,
        table: SessionTable,
        owner: ServiceHandle | None,
        target: ServiceHandle,
        message: Message,
        *,
        called: bool = False,
        or_none: bool = False,
    ) -> None:
        super().__init__(table, owner)
        self.target = target
        self.message = message
        self.called = called
        self.deferred = False
        self.ended = False
        self.running: Deferred[Any] | None = None
        self._or_none = or_none

    @property
    def sender(self) -> ServiceHandle | None:
        """The service that sent the message, to answer it with further messages; ``None`` for one from outside."""
        return self.owner

    @property
    def is_awaited(self) -> bool:
        """Whether somebody waits for the answer: called, and neither answered, timed out nor cancelled yet."""
        return self.waiting is not None

    def defer(self) -> None:
        """
        Say that the answer comes later: that the handler returns nothing is then not the answer.

        The session stays open until it is answered, times out, is cancelled, or the service stops.
        """
        self.deferred = True

    def reply(self, answer: Message | None) -> bool:
        """
        Give the answer. The caller goes on inside this call, as with ``Deferred.callback``.

        :returns: whether somebody waited for it. The answer to a call that is over is dropped and counted.
        :raises TypeError: for an answer that the request does not name; the call stays open.
        """
        wrong = self.what_is_wrong_with(answer, answer_classes(type(self.message)))
        if wrong is not None and self.called:
            msg = f"the reply to {self.describe()} is {wrong}"
            raise TypeError(msg)
        if self.waiting is None:
            if self.called:
                self.late()
            return False
        self.table.statistics.answered += 1
        self.succeed(answer)
        return True

    def fail_with(self, error: BaseException | Failure) -> bool:
        """
        Let the call fail.

        :returns: whether somebody waited for it; if not, the error is the caller's of this method to report.
        """
        if self.waiting is None:
            return False
        self.fail(error if isinstance(error, Failure) else Failure(error))
        return True

    def what_is_wrong_with(self, answer: object, expected: tuple[type, ...]) -> str | None:
        """The answer's type and those that were expected, in words; ``None`` for an answer that is one of those."""
        if answer is None or isinstance(answer, expected):
            return None
        names = " or ".join(cls.__qualname__ for cls in expected if cls is not type(None)) or "None"
        return f"of type {type(answer).__qualname__}, and {type(self.message).__qualname__} names {names}"

    def give_up(self, failure: Failure) -> None:
        """Cancel the handler, then fail the caller, or answer it with ``None`` where it asked for that."""
        if self._or_none and failure.check(*NO_ANSWER):
            waiting = self._closed()
            self.given_up = True
            self.withdraw()
            waiting.callback(None)
        else:
            super().give_up(failure)

    def cancel_work(self) -> None:
        """Cancel the handler, if it is under way."""
        if self.running is not None:
            self.running.cancel()

    def describe(self) -> str:
        """The message's class and the service's name."""
        return f"{type(self.message).__qualname__} to {self.target.name!r}"
