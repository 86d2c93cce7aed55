"""The node: where services find each other, and where the world outside finds them."""

from __future__ import annotations

from typing import Any

import msgspec
from twisted.application.service import IService, MultiService, Service
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_etcd.errors import ServiceStopped, ServiceUnavailable
from twisted_etcd.messaging.addresses import ServiceHandle
from twisted_etcd.messaging.correspondence import Correspondent
from twisted_etcd.messaging.exchange import Exchange
from twisted_etcd.messaging.from_thread import FromThread
from twisted_etcd.messaging.lifecycle import State
from twisted_etcd.messaging.service import MessageService
from twisted_etcd.messaging.statistics import Statistics
from twisted_etcd.moment import Moment

_log = Logger()


class Node(Correspondent, MultiService):
    """
    A collection of services that send each other messages.

    :class:`~twisted_etcd.messaging.service.MessageService` objects are added with ``setServiceParent(node)``, each
    under a name of its own; other Twisted services may stand among them. The node starts them in the order in which
    they were added: first all ``on_init``, then each ``on_start``, one after the other. It stops them in the opposite
    order, each when the one before has ended.

    ``node.send`` and ``node.call`` are for code that is no service; the handlers see ``None`` as the sender.

    :param reactor: gives time, turns and, where they are used, threads.
    :param default_timeout: seconds for calls and futures that name none; ``None`` for no limit.
    :ivar from_thread: ``send`` and ``call`` for other threads.
    """

    def __init__(self, reactor: IReactorTime, *, name: str | None = None, default_timeout: float | None = 30.0) -> None:
        MultiService.__init__(self)
        self.name = name
        self.from_thread = FromThread(reactor, self)
        self._exchange = Exchange(reactor, default_timeout)
        self._to_start: list[Any] = []
        #: Services that were removed and may still be stopping.
        self._leaving: list[MessageService] = []
        self._started: Moment[None] = Moment()
        #: There while services are being started, and while the node stops.
        self._start_over: Moment[None] | None = None
        self._ended: Moment[None] | None = None

    # --- what is in it ---

    def handle(self, name: str) -> ServiceHandle:
        """
        The address of the present run of a service, or of its next.

        :raises ServiceNotFound: when no service has that name.
        """
        reception = self._exchange.receptions.get(name)
        return self._exchange.not_found(name) if reception is None else reception.handle

    @property
    def statistics(self) -> Statistics:
        """The node's numbers, as they are now."""
        return msgspec.structs.replace(self._exchange.statistics, sessions_open=len(self._exchange.sessions))

    def when_started(self) -> Deferred[None]:
        """
        Fires when all services have been started. Each caller gets a Deferred of its own.

        It fails with :exc:`~twisted_etcd.errors.ServiceUnavailable`, naming them and their reasons, when some refused
        to start, while the others run; and with :exc:`~twisted_etcd.errors.ServiceStopped` when the node was stopped.
        """
        return self._started.wait()

    # --- IServiceCollection ---

    def addService(self, service: Any) -> None:  # noqa: ANN401, N802 - as IServiceCollection has it
        """
        Take a service in, for ``setServiceParent``. A node that is running starts it.

        :raises ValueError: when there is one of that name.
        """
        if service.name is not None and service.name in self.namedServices:
            msg = f"the node has a service named {service.name!r} already: give this one another name"
            raise ValueError(msg)
        if isinstance(service, MessageService):
            service.service_life.join(self._exchange, service.name)
        if service.name is not None:
            self.namedServices[service.name] = service
        self.services.append(service)
        if self.running:
            if not isinstance(service, MessageService):
                service.privilegedStartService()
            self._start(service)

    def removeService(self, service: Any) -> Deferred[None] | None:  # noqa: ANN401, N802 - as IServiceCollection has it
        """
        Let a service go, for ``disownServiceParent``. Its name is free at once, and it is stopped.

        :returns: a Deferred that fires when nothing of it is left.
        :raises ValueError: for a service that is not here.
        """
        self.services.remove(service)
        if service.name is not None:
            del self.namedServices[service.name]
        if not isinstance(service, MessageService):
            return maybeDeferred(service.stopService) if service.running else None
        ended = service.stopService()
        service.service_life.leave()
        self._leaving = [each for each in self._leaving if each.state is State.STOPPING]
        self._leaving.append(service)
        return ended

    # --- IService ---

    def startService(self) -> None:
        """
        Start the services. :meth:`when_started` tells how it went, and so does the log.

        :raises RuntimeError: for a node that is running, or stopping.
        """
        if self.running or self._ended is not None:
            msg = f"{self!r} cannot be started: it is {'running' if self.running else 'still stopping'}"
            raise RuntimeError(msg)
        Service.startService(self)
        self.node_exchange = self._exchange
        self.from_thread.open()
        if self._started.happened:
            self._started = Moment()
        self._start(*self.services)

    def stopService(self) -> Deferred[None]:
        """
        Stop the services, or their start.

        :returns: a Deferred that fires when nothing is left: no handler, no session, no delayed call, no thread that
            waits. It never fails; what goes wrong is logged.
        """
        if self._ended is not None:
            return self._ended.wait()
        if not self.running:
            return succeed(None)
        Service.stopService(self)
        ended: Moment[None] = Moment()
        self._ended = ended
        # Asked for first: it may all be over at once.
        when_ended = ended.wait()
        Deferred.fromCoroutine(self._stop(ended))
        return when_ended

    def _start(self, *services: IService) -> None:
        self._to_start.extend(services)
        if self._start_over is None:
            if self._started.happened:
                self._started = Moment()
            over: Moment[None] = Moment()
            self._start_over = over
            Deferred.fromCoroutine(self._start_all(over))

    async def _start_all(self, over: Moment[None]) -> None:
        refusals: list[tuple[str, Failure]] = []
        while self._to_start and self.running:
            batch, self._to_start = self._to_start, []
            for service in batch:
                if isinstance(service, MessageService) and self._wants(service):
                    await service.service_life.initialise()
            for service in batch:
                failure = await self._begin(service) if self._wants(service) else None
                if failure is not None:
                    refusals.append((service.name or type(service).__qualname__, failure))
        self._to_start.clear()
        self._start_over = None
        if self.running:
            if refusals:
                self._started.fail(_refused(refusals))
            else:
                self._started.fire(None)
        over.fire(None)

    def _wants(self, service: IService) -> bool:
        """Whether a service is still to be started: it may have left, or all may be stopping."""
        return bool(self.running) and service in self.services

    async def _begin(self, service: Any) -> Failure | None:  # noqa: ANN401 - IService has no types
        if isinstance(service, MessageService):
            await service.service_life.begin()
            return service.service_life.reason
        try:
            await maybeDeferred(service.startService)
        except Exception as error:  # noqa: BLE001 - logged, and told to who waits for the start
            failure = Failure(error)
            _log.failure("{service} in {node} failed to start", failure, service=service, node=self)
            return failure
        return None

    async def _stop(self, ended: Moment[None]) -> None:
        # Those that are still starting come first: what they wait for may be one of the others.
        for service in sorted([*reversed(self.services), *self._leaving], key=_has_started):
            if isinstance(service, MessageService) or service.running:
                try:
                    await maybeDeferred(service.stopService)
                except Exception:  # noqa: BLE001 - logged; the others are stopped all the same
                    _log.failure("{service} in {node} failed to stop", service=service, node=self)
        if self._start_over is not None:
            await self._start_over.wait()
        if self._started.happened:
            self._started = Moment()
        self._started.fail(Failure(ServiceStopped(f"{self!r} was stopped")))
        self._exchange.give_up_sessions_of(None, repr(self))
        self.from_thread.close()
        self.node_exchange = None
        self._exchange.sessions.stop_timer()
        self._ended = None
        ended.fire(None)

    def __repr__(self) -> str:
        return f"<Node {self.name!r}>" if self.name else "<Node>"


def _has_started(service: IService) -> bool:
    return not isinstance(service, MessageService) or service.state not in (State.INITIALISING, State.STARTING)


def _refused(refusals: list[tuple[str, Failure]]) -> Failure:
    """One error for all the services that refused to start; the first of their own is its cause."""
    reasons = "; ".join(
        f"{name!r}: {type(failure.value).__qualname__}: {failure.getErrorMessage()}" for name, failure in refusals
    )
    error = ServiceUnavailable(f"services refused to start: {reasons}")
    error.__cause__ = refusals[0][1].value
    return Failure(error)
