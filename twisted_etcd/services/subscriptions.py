"""Who follows what: each subscription has a number, a subscriber, and something that ends it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from twisted.internet.defer import Deferred, DeferredList
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_etcd.errors import MessagingError, TwistedEtcdError
from twisted_etcd.messaging.addresses import ServiceHandle
from twisted_etcd.messaging.messages import Message
from twisted_etcd.services.messages import EtcdWatchEndedMsg


#: Sends a message to a service.
Sender = Callable[[ServiceHandle, Message], object]
ValueT = TypeVar("ValueT")


class Followed(Protocol):
    """What a subscription follows."""

    @property
    def ended(self) -> Deferred[None]:
        """Fires with None once it was stopped, and fails where it ended by itself."""

    def stop(self) -> Deferred[None]:
        """Follow it no longer."""


class Subscription:
    """
    One subscriber of one watch.

    :ivar id: its number, the ``watch_id`` of the messages.
    """

    def __init__(self, number: int, subscriber: ServiceHandle, tell: Callable[[Message], None]) -> None:
        self.id = number
        self.subscriber = subscriber
        self.tell = tell
        self.stop: Callable[[], Deferred[None]] | None = None
        self.waiting: Deferred[Any] | None = None


class Subscriptions:
    """
    The subscriptions of one service.

    :param send: sends a message to a service; it fails with a :class:`~twisted_etcd.errors.MessagingError` where that
        is no longer there.
    """

    _log = Logger()

    def __init__(self, send: Sender) -> None:
        self._send = send
        self._numbers = itertools.count(1)
        self._open: dict[int, Subscription] = {}

    def __len__(self) -> int:
        return len(self._open)

    def open(self, subscriber: ServiceHandle) -> Subscription:
        """A new subscription, which ends with its subscriber."""
        number = next(self._numbers)

        def tell(message: Message) -> None:
            if number not in self._open:
                return
            try:
                self._send(subscriber, message)
            except MessagingError as error:
                self._log.info("Watch {number} ends with its subscriber: {why}", number=number, why=error)
                self._close_in_background(number)

        subscription = self._open[number] = Subscription(number, subscriber, tell)
        subscription.waiting = subscriber.when_stopped()
        subscription.waiting.addCallbacks(lambda _: self._close_in_background(number), lambda _: None)
        return subscription

    async def begin(
        self, subscription: Subscription, start: Callable[[], Deferred[ValueT]], followed: Followed
    ) -> ValueT:
        """
        Tie a subscription to what it follows.

        :param start: begins to follow; where it fails, or nobody waits for it any longer, the subscription is closed,
            since nobody knows its number.
        :return: what ``start`` fired with.
        """
        subscription.stop = followed.stop
        try:
            value = await start()
        except BaseException:
            await self.close(subscription.id)
            raise
        followed.ended.addErrback(self._ended, subscription)
        return value

    def _ended(self, failure: Failure, subscription: Subscription) -> None:
        error = failure.value
        if not isinstance(error, TwistedEtcdError):
            failure.raiseException()
        subscription.tell(EtcdWatchEndedMsg(subscription.id, error))
        self._forget(subscription.id)

    def _forget(self, number: int) -> Subscription | None:
        subscription = self._open.pop(number, None)
        if subscription is not None and subscription.waiting is not None:
            subscription.waiting.cancel()
        return subscription

    def close(self, number: int) -> Deferred[bool]:
        """
        End a subscription: nothing more is sent for it.

        :return: fires with whether there was one, when what it followed has stopped.
        """
        return Deferred.fromCoroutine(self._close(number))

    async def _close(self, number: int) -> bool:
        subscription = self._forget(number)
        if subscription is None:
            return False
        if subscription.stop is not None:
            await subscription.stop()
        return True

    def _close_in_background(self, number: int) -> None:
        self.close(number).addErrback(
            lambda failure: self._log.failure("Watch {number} could not be ended.", failure, number=number)
        )

    def close_all(self) -> Deferred[None]:
        """End them all."""
        return DeferredList([self.close(number) for number in tuple(self._open)]).addCallback(lambda _: None)
