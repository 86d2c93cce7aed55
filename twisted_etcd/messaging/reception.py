"""Where the messages for one run of a service arrive, and where its handlers are called."""

from __future__ import annotations

import inspect
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, TimeoutError  # noqa: A004 - what addTimeout raises
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_etcd.errors import ServiceUnavailable, UnhandledMessage
from twisted_etcd.messaging.addresses import ServiceHandle
from twisted_etcd.messaging.delivery import Delivery
from twisted_etcd.messaging.lifecycle import State
from twisted_etcd.messaging.mailbox import Mailbox
from twisted_etcd.messaging.messages import Message
from twisted_etcd.messaging.routes import Route, RouteTable
from twisted_etcd.messaging.sessions import SessionTable
from twisted_etcd.moment import Moment

_log = Logger()


class Reception:
    """
    The mailbox of one run of a service, its routes, and its handlers that are under way.

    :ivar handle: the address of this run.
    :ivar state: where the service stands; set by its :class:`~twisted_etcd.messaging.life.Life`.

    :param service: what the handlers get as ``self``.
    """

    def __init__(
        self, reactor: IReactorTime, sessions: SessionTable, name: str, service: object, routes: RouteTable
    ) -> None:
        self.state = State.CREATED
        self._reactor = reactor
        self._sessions = sessions
        self._statistics = sessions.statistics
        self._service = service
        self._routes = routes
        self._stopped: Moment[None] = Moment()
        self.handle = ServiceHandle(name, self._stopped)
        self._mailbox: Mailbox[Delivery] = Mailbox(reactor, self._deliver)
        self.put = self._mailbox.put
        self._under_way: set[Delivery] = set()
        #: What the handler is dealing with that is being called just now.
        self._being_called: Delivery | None = None
        self._idle: Moment[None] | None = None

    def unavailable(self) -> ServiceUnavailable:
        """The error for a message that cannot be taken now."""
        return ServiceUnavailable(f"service {self.handle.name!r} is not running: {self.state.value}")

    def open(self) -> None:
        """Deliver what has been sent since the service was initialised, and what will be."""
        self._mailbox.open()

    def close(self) -> None:
        """Take no more messages, and give back what was not delivered yet."""
        lost = 0
        for delivery in self._mailbox.close():
            if delivery.waiting is not None:
                delivery.give_up(Failure(self.unavailable()))
            elif not delivery.given_up:
                lost += 1
        if lost:
            self._statistics.undelivered += lost
            _log.info(
                "service {service} stopped before {count} sent messages reached it",
                service=self.handle.name,
                count=lost,
            )
        self._stopped.fire(None)

    async def end_handlers(self, grace: float, patience: float) -> None:
        """
        Wait for the handlers that are under way, cancel those that take too long, and fail their callers.

        :param grace: seconds until they are cancelled.
        :param patience: seconds until those are left alone, with an error in the log, that do not end although they
            were cancelled.
        """
        if self._being_called is not None and not self._being_called.ended:
            # One that stops its own service, before it has come to wait for anything.
            self._under_way.add(self._being_called)
        if grace > 0:
            await self._handlers_ended(grace)
        for session in self._sessions.all():
            if isinstance(session, Delivery) and session.target is self.handle and session.waiting is not None:
                session.give_up(Failure(self.unavailable()))
        for delivery in list(self._under_way):
            # Nobody is cancelled twice, which would cancel what a handler does to tidy up.
            if not delivery.given_up:
                delivery.given_up = True
                delivery.withdraw()
        if not await self._handlers_ended(patience):
            _log.error(
                "service {service} leaves handlers alone that go on {seconds} s after they were cancelled: {which}",
                service=self.handle.name,
                seconds=patience,
                which=", ".join(sorted(delivery.describe() for delivery in self._under_way)),
            )

    async def _handlers_ended(self, seconds: float) -> bool:
        if self._under_way:
            self._idle = Moment()
            try:
                await self._idle.wait().addTimeout(seconds, self._reactor)
            except TimeoutError:
                return False
        return True

    # What follows runs for each message: no closures, no needless calls.

    def _deliver(self, delivery: Delivery) -> None:
        if delivery.given_up:
            return
        message_class = type(delivery.message)
        route = self._routes.known.get(message_class) or self._find_route(delivery)
        if route is None:
            return
        self._statistics.delivered += 1
        self._being_called = delivery
        self._call(delivery, route)
        self._being_called = None

    def _call(self, delivery: Delivery, route: Route) -> None:
        try:
            if route.takes_delivery:
                result = route.function(self._service, delivery.message, delivery)
            else:
                result = route.function(self._service, delivery.message)
        except BaseException:  # noqa: BLE001 - it is the caller's, whatever it is
            self._failed(Failure(), delivery, route)
            return
        if result is None or isinstance(result, Message):
            self._answered(result, delivery, route)
        elif isinstance(result, Deferred):
            self._wait_for(result, delivery, route)
        elif inspect.iscoroutine(result):
            self._wait_for(Deferred.fromCoroutine(result), delivery, route)
        elif isinstance(result, Failure):
            self._failed(result, delivery, route)
        else:
            self._answered(result, delivery, route)

    def _wait_for(self, running: Deferred[Any], delivery: Delivery, route: Route) -> None:
        delivery.running = running
        arguments = (delivery, route)
        running.addCallbacks(self._answered, self._failed, callbackArgs=arguments, errbackArgs=arguments)
        if not delivery.ended:
            self._under_way.add(delivery)
            if delivery.given_up:
                # by the handler itself, before there was anything to cancel
                delivery.withdraw()

    def _answered(self, result: object, delivery: Delivery, route: Route) -> None:
        delivery.ended = True
        delivery.running = None
        if delivery.waiting is None:
            if delivery.called and (delivery.given_up or result is not None):
                delivery.late()
        elif result is None or isinstance(result, route.answers):
            if result is not None or not delivery.deferred:
                self._statistics.answered += 1
                delivery.succeed(result)
        else:
            wrong = delivery.what_is_wrong_with(result, route.answers)
            self._statistics.failed += 1
            delivery.fail(Failure(TypeError(f"handler {route.name} answered with a value {wrong}")))
        if self._under_way:
            self._left(delivery)

    def _failed(self, failure: Failure, delivery: Delivery, route: Route) -> None:
        delivery.ended = True
        delivery.running = None
        if delivery.waiting is not None:
            self._statistics.failed += 1
            delivery.fail(failure)
        elif not (delivery.given_up and failure.check(CancelledError)):
            # It failed of itself, and not because it was told to end.
            self._statistics.failed += 1
            _log.failure(
                "in service {service}, handler {handler} failed for a {message} that nobody waits for",
                failure,
                service=self.handle.name,
                handler=route.name,
                message=type(delivery.message).__qualname__,
            )
        if self._under_way:
            self._left(delivery)

    def _left(self, delivery: Delivery) -> None:
        """Note that a handler is not under way any more, after its answer has been handed on."""
        self._under_way.discard(delivery)
        if self._idle is not None and not self._under_way:
            self._idle.fire(None)

    def _find_route(self, delivery: Delivery) -> Route | None:
        """The route that is not known yet; without one the message has been dealt with."""
        message_class = type(delivery.message)
        try:
            route = self._routes.find(message_class)
        except TypeError as error:
            # The request's class names no answer that can be: known only now, since it may name a class further down.
            self._refuse(Failure(error), delivery)
            return None
        if route is None:
            self._statistics.unhandled += 1
            name = message_class.__qualname__
            msg = f"service {self.handle.name!r} has no handler for {name}: give one of its methods @handles({name})"
            self._refuse(Failure(UnhandledMessage(msg)), delivery)
        return route

    def _refuse(self, failure: Failure, delivery: Delivery) -> None:
        if delivery.waiting is not None:
            delivery.fail(failure)
        else:
            _log.warn("a sent message was dropped: {error}", error=failure.getErrorMessage())
