"""Services that receive messages."""

from __future__ import annotations

from typing import Any, ClassVar

from twisted.application.service import Service
from twisted.internet.defer import Deferred

from twisted_etcd.messaging.addresses import ServiceHandle
from twisted_etcd.messaging.correspondence import Correspondent
from twisted_etcd.messaging.life import HookResult, Life
from twisted_etcd.messaging.lifecycle import AT_REST, State
from twisted_etcd.messaging.routes import RouteTable


class MessageService(Correspondent, Service):
    """
    A Twisted service that receives messages, with a method for each class of them.

    ::

        class Greeter(MessageService):
            @handles(Greet)
            async def on_greet(self, message: Greet) -> Greeting: ...


        Greeter().setServiceParent(node)

    Handlers run in the reactor's thread; while one waits, others run. What a handler raises fails its caller.

    A run of a service goes this way; every hook may be plain, return a Deferred, or be ``async def``:

    1. ``on_init``. If it fails, the service refuses to start, and nothing more is called.
    2. ``on_start``, once all services that start with it have been initialised and those before it in the node run.
       It may call those. If it fails, the service refuses to start, and ``on_exit`` is called.
       Messages that are sent meanwhile are kept; calls fail with :exc:`~twisted_etcd.errors.ServiceUnavailable`.
    3. Messages.
    4. ``stopService``: no more messages are taken. ``on_stop``, while handlers that are under way go on and calls can
       still be made; then these handlers have :attr:`handler_grace` seconds left, are cancelled, and their callers get
       ``ServiceUnavailable``; then what the service still waits for fails with
       :exc:`~twisted_etcd.errors.ServiceStopped`; then ``on_exit``. A failure of these hooks is logged.

    A start that ``stopService`` interrupts ends with the hook that is under way being cancelled, and with ``on_exit``
    where ``on_init`` had succeeded. A service that has stopped, or refused, can be started again; it has a new handle
    then.

    :param name: the name that messages are sent to; the class's ``name``, else the name of the class, unless given.
    """

    name: str
    #: Seconds that handlers under way have, after ``on_stop``, before they are cancelled.
    handler_grace: float = 0.0
    #: Seconds after which ``on_stop`` and ``on_exit`` are cancelled, and after which handlers are left to themselves
    #: that go on although they were cancelled; each is logged.
    stop_timeout: float = 10.0
    #: The handlers of the class.
    message_routes: ClassVar[RouteTable]

    def __init_subclass__(cls, **kwargs: Any) -> None:  # noqa: ANN401 - the bases' own
        super().__init_subclass__(**kwargs)
        cls.message_routes = RouteTable(cls)

    def __init__(self, name: str | None = None) -> None:
        self.name = name or type(self).name or type(self).__name__
        self.service_life = Life(self, self.message_routes)

    # --- what a service may do at its beginning and end ---

    def on_init(self) -> HookResult:
        """Prepare what needs no other service. To refuse to start, raise."""
        return None

    def on_start(self) -> HookResult:
        """Begin to work; the services that were added to the node before this one can be called."""
        return None

    def on_stop(self) -> HookResult:
        """Finish: no message comes any more, handlers are still under way, other services can still be called."""
        return None

    def on_exit(self) -> HookResult:
        """Take down what ``on_init`` set up; no handler is under way any more."""
        return None

    # --- where it stands ---

    @property
    def state(self) -> State:
        """Where the service stands."""
        return self.service_life.state

    @property
    def handle(self) -> ServiceHandle:
        """
        The address of the present run, or of the next where there is none yet.

        :raises RuntimeError: for a service that belongs to no node.
        """
        if self.own_handle is None:
            msg = f"{self!r} belongs to no node: call its setServiceParent(node) first"
            raise RuntimeError(msg)
        return self.own_handle

    def when_started(self) -> Deferred[None]:
        """
        Fires when the service runs, at once if it does. Each caller gets a Deferred of its own.

        It fails with what ``on_init`` or ``on_start`` raised, and with :exc:`~twisted_etcd.errors.ServiceStopped`
        when the service was stopped.
        """
        return self.service_life.started.wait()

    # --- IService ---

    def setServiceParent(self, parent: Any) -> None:  # noqa: ANN401 - as IService has it
        """
        Join a node.

        :raises TypeError: for anything but a :class:`~twisted_etcd.messaging.node.Node`.
        :raises ValueError: when the node has a service of that name.
        """
        if "service_life" not in vars(self):
            msg = f"{type(self).__qualname__} does not call super().__init__() in its __init__"
            raise TypeError(msg)
        try:
            super().setServiceParent(parent)  # type: ignore[no-untyped-call]
        except BaseException:
            self.parent = None
            raise
        if not self.service_life.has_place:
            super().disownServiceParent()  # type: ignore[no-untyped-call]
            msg = (
                f"{self!r} needs a Node to live in, not {type(parent).__qualname__}: give it to a Node, and that to it"
            )
            raise TypeError(msg)

    def disownServiceParent(self) -> Deferred[None]:
        """
        Leave the node: the name is free at once, and the service is stopped.

        :returns: a Deferred that fires when nothing of the run is left. It never fails.
        """
        ended: Deferred[None] = super().disownServiceParent()  # type: ignore[no-untyped-call]
        return ended

    def startService(self) -> None:
        """
        Start this service alone; a node starts its services by itself. :meth:`when_started` tells how it went.

        :raises RuntimeError: while it is not stopped, and for a service whose node is not running.
        """
        if self.state not in AT_REST:
            msg = f"{self!r} cannot be started: it is {self.state.value}"
            raise RuntimeError(msg)
        if self.parent is None or not self.parent.running:
            msg = f"{self!r} cannot be started: it belongs to no node that is running; add it to one, and start that"
            raise RuntimeError(msg)
        Deferred.fromCoroutine(self._start())

    def stopService(self) -> Deferred[None]:
        """
        Stop the service, or its start.

        :returns: a Deferred that fires when nothing of the run is left. It never fails.
        """
        return self.service_life.stop()

    async def _start(self) -> None:
        await self.service_life.initialise()
        await self.service_life.begin()

    def __repr__(self) -> str:
        return f"<{type(self).__qualname__} {self.name!r}, {self.state.value}>"


MessageService.message_routes = RouteTable(MessageService)
