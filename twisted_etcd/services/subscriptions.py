"""Who follows what: each subscription has a number, a subscriber, and something that ends it."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_etcd.errors import MessagingError, ServiceStopped, ServiceUnavailable
from twisted_etcd.messaging.addresses import ServiceHandle
from twisted_etcd.messaging.messages import Message
from twisted_etcd.services.background import Background
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

    What is told before the subscriber can know its number waits until it can.

    :ivar id: its number, the ``watch_id`` of the messages.
    """

    def __init__(self, number: int, subscriber: ServiceHandle, send: Callable[[Message], None]) -> None:
        self.id = number
        self.subscriber = subscriber
        self._send = send
        self._early: list[Message] | None = []
        self._followed: Followed | None = None
        self._subscriber_stopped: Deferred[None] | None = None

    @property
    def is_open(self) -> bool:
        """Whether its subscriber is told anything."""
        return self._followed is not None

    def tell(self, message: Message) -> None:
        """Send a message to the subscriber, unless the subscription was closed."""
        if self._early is not None:
            self._early.append(message)
        elif self.is_open:
            self._send(message)

    # --- for Subscriptions ------------------------------------------------------------------------------------------

    def open(self, followed: Followed, subscriber_stopped: Deferred[None]) -> None:
        """It follows something from now on."""
        self._followed = followed
        self._subscriber_stopped = subscriber_stopped

    def answered(self) -> None:
        """The subscriber is being told of its number."""
        early, self._early = self._early or (), None
        for message in early:
            self.tell(message)

    async def close(self) -> None:
        """Tell nothing more, and stop what it follows."""
        followed, self._followed = self._followed, None
        if self._subscriber_stopped is not None:
            self._subscriber_stopped.cancel()
        if followed is not None:
            await followed.stop()


class Subscriptions:
    """
    The subscriptions of one service.

    :param send: sends a message to a service; it fails with a :class:`~twisted_etcd.errors.MessagingError` where that
        is no longer there.
    """

    _log = Logger()

    def __init__(self, send: Sender, background: Background) -> None:
        self._send = send
        self._background = background
        self._numbers = itertools.count(1)
        self._open: dict[int, Subscription] = {}

    def __len__(self) -> int:
        return len(self._open)

    def new(self, subscriber: ServiceHandle) -> Subscription:
        """
        Make a subscription that is to begin.

        :raises ServiceUnavailable: the subscriber has stopped.
        """
        if subscriber.stopped:
            raise _stopped(subscriber)
        number = next(self._numbers)
        return Subscription(number, subscriber, lambda message: self._tell(number, subscriber, message))

    def _tell(self, number: int, subscriber: ServiceHandle, message: Message) -> None:
        try:
            self._send(subscriber, message)
        except MessagingError as error:
            self._log.info("Watch {number} ends with its subscriber: {why}", number=number, why=error)
            self._close_in_background(number)

    async def begin(
        self, subscription: Subscription, followed: Followed, start: Callable[[], Awaitable[ValueT]]
    ) -> ValueT:
        """
        Begin a subscription, which ends with its subscriber.

        :param followed: what it follows.
        :param start: begins to follow. Where it fails, or nobody waits for it any longer, the subscription is closed,
            since nobody knows its number.
        :return: what ``start`` gave. The caller tells the subscriber its number at once.
        :raises ServiceUnavailable: the subscriber stopped first.
        :raises ServiceStopped: it was closed first.
        """
        number = subscription.id
        self._open[number] = subscription
        subscriber_stopped = subscription.subscriber.when_stopped()
        subscription.open(followed, subscriber_stopped)
        subscriber_stopped.addCallbacks(lambda _: self._close_in_background(number), lambda _: None)
        try:
            value = await start()
        except Exception as error:
            ended = not subscription.is_open
            await self.close(number)
            if ended and not isinstance(error, CancelledError):
                raise _ended_early(subscription) from error
            raise
        if not subscription.is_open:
            raise _ended_early(subscription)
        subscription.answered()
        followed.ended.addErrback(self._ended, subscription)
        return value

    def _ended(self, failure: Failure, subscription: Subscription) -> None:
        error = failure.value
        if not isinstance(error, Exception):
            failure.raiseException()
        subscription.tell(EtcdWatchEndedMsg(subscription.id, error))
        self._close_in_background(subscription.id)

    def close(self, number: int) -> Deferred[bool]:
        """
        End a subscription: nothing more is sent for it.

        :return: fires with whether there was one, when what it followed has stopped.
        """
        return Deferred.fromCoroutine(self._close(number))

    async def _close(self, number: int) -> bool:
        subscription = self._open.pop(number, None)
        if subscription is None:
            return False
        await subscription.close()
        return True

    def _close_in_background(self, number: int) -> None:
        self._background.add(self.close(number), f"watch {number} could not be ended")

    def close_all(self) -> None:
        """End them all, in the background."""
        for number in tuple(self._open):
            self._close_in_background(number)


def _stopped(subscriber: ServiceHandle) -> ServiceUnavailable:
    return ServiceUnavailable(f"service {subscriber.name!r}, which was to be told, has stopped")


def _ended_early(subscription: Subscription) -> ServiceUnavailable | ServiceStopped:
    if subscription.subscriber.stopped:
        return _stopped(subscription.subscriber)
    return ServiceStopped(f"watch {subscription.id} was ended before it began")
