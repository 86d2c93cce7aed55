"""The node: where services find each other, and where the world outside finds them."""

from __future__ import annotations

from typing import Any

import msgspec
from twisted.application.service import IService, MultiService, Service
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_etcd.errors import ServiceNotFound, ServiceStopped, ServiceUnavailable
from twisted_etcd.messaging.addresses import ServiceHandle
from twisted_etcd.messaging.correspondence import Correspondent
from twisted_etcd.messaging.exchange import Exchange
from twisted_etcd.messaging.from_thread import FromThread
from twisted_etcd.messaging.lifecycle import Occasion, State
from twisted_etcd.messaging.service import MessageService
from twisted_etcd.messaging.statistics import Statistics

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
        self._started = Occasion()
        #: There while services are being started, and while the node stops.
        self._start_over: Occasion | None = None
        self._ended: Occasion | None = None

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
        return self._started.when()

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
            service.life.join(self._exchange, service.name)
        if service.name is not None:
            self.namedServices[service.name] = service
        self.services.append(service)
        if self.running:
            if not isinstance(service, MessageService):
                service.privilegedStartService()
            self._start(service)
