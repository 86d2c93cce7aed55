"""The life of a service: its hooks, in their order, from the start to the end of each run."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeAlias, cast

from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_etcd.errors import ServiceStopped
from twisted_etcd.messaging.addresses import ServiceHandle
from twisted_etcd.messaging.exchange import Exchange
from twisted_etcd.messaging.lifecycle import AT_REST, State, successor
from twisted_etcd.messaging.reception import Reception
from twisted_etcd.messaging.routes import RouteTable
from twisted_etcd.moment import Moment

_log = Logger()

#: What a hook may return.
HookResult: TypeAlias = Deferred[None] | Coroutine[Any, Any, None] | None


class Living(Protocol):
    """What a service has, for its life to be led."""

    node_exchange: Exchange | None
    own_handle: ServiceHandle | None
    handler_grace: float
    stop_timeout: float
    running: int

    def on_init(self) -> HookResult:
        """Is called first."""

    def on_start(self) -> HookResult:
        """Is called once all services of the node have been initialised."""

    def on_stop(self) -> HookResult:
        """Is called when the service takes no more messages."""

    def on_exit(self) -> HookResult:
        """Is called when its handlers have ended."""


class Life:
    """
    Leads one service through its states.

    :ivar state: where the service stands.
    :ivar started: happens when it runs, and fails when it refused to or was stopped before.
    :ivar ended: happens when nothing of the run is left.
    :ivar reason: why it refused to start.
    :ivar has_place: whether it belongs to a node.
    """

    def __init__(self, service: Living, routes: RouteTable) -> None:
        self.state = State.CREATED
        self.started: Moment[None] = Moment()
        self.ended: Moment[None] = Moment()
        self.reason: Failure | None = None
        self.has_place = False
        self._service = service
        self._routes = routes
        #: The node's exchange and the reception of the present run, or of the last.
        self._place: tuple[Exchange, Reception] | None = None
        self._initialised = False
        #: Happens when the hook has been dealt with that the service starts with; there while there is one.
        self._hook_over: Moment[None] | None = None
        self._hook: Deferred[None] | None = None

    def join(self, exchange: Exchange, name: str) -> None:
        """
        Get an address in a node.

        :raises RuntimeError: while something of a run in another node is left.
        """
        if self.state not in AT_REST:
            msg = f"service {name!r} is {self.state.value}: wait for its stopService before it joins another node"
            raise RuntimeError(msg)
        self.has_place = True
        self._new_reception(exchange, name)

    def leave(self) -> None:
        """Give the name back; a run that is ending goes on to its end."""
        exchange, reception = self._where()
        self.has_place = False
        del exchange.receptions[reception.handle.name]
        if self.state in AT_REST:
            exchange.receptions.pop(reception.handle, None)
            reception.close()

    async def initialise(self) -> None:
        """Run ``on_init``. It never fails: the state tells."""
        if self.state not in AT_REST:
            return
        exchange, reception = self._where()
        if reception.handle.stopped:
            self._new_reception(exchange, reception.handle.name)
        if self.started.happened:
            self.started = Moment()
        self.ended = Moment()
        self.reason = None
        self._move(State.INITIALISING)
        self._service.running = 1
        self._service.node_exchange = exchange
        await self._starting_step(State.INITIALISING, State.STARTING, self._service.on_init)

    async def begin(self) -> None:
        """Run ``on_start``, and let messages in. It never fails: the state tells."""
        if self.state is not State.STARTING:
            return
        if await self._starting_step(State.STARTING, State.RUNNING, self._service.on_start):
            _, reception = self._where()
            reception.open()
            self.started.fire(None)

    def stop(self) -> Deferred[None]:
        """End the run, wherever it stands. The Deferred fires when nothing of it is left, and never fails."""
        if self.state in AT_REST:
            return succeed(None)
        ended = self.ended.wait()
        if self.state is not State.STOPPING:
            Deferred.fromCoroutine(self._stop())
        return ended

    async def _starting_step(self, state: State, then: State, hook: Callable[[], HookResult]) -> bool:
        """Run a hook, and go on to the next state if it succeeds: returns whether it did."""
        over = self._hook_over = Moment()
        failures: list[Failure] = []
        self._hook = _called(hook).addErrback(failures.append)
        if self.state is not state:
            # Stopped by the hook itself.
            self._hook.cancel()
        await self._hook
        self._hook = self._hook_over = None
        if not failures and state is State.INITIALISING:
            self._initialised = True
        if self.state is not state:
            # Stopped meanwhile, by one who now waits for this.
            over.fire(None)
        elif failures:
            await self._refuse(failures[0])
        else:
            self._move(then)
            return True
        return False

    async def _refuse(self, failure: Failure) -> None:
        exchange, reception = self._where()
        name = reception.handle.name
        _log.failure("service {service} refuses to start: {state}", failure, service=name, state=self.state.value)
        self.reason = failure
        self._move(State.STOPPING)
        reception.close()
        await self._take_down(exchange, reception)
        self._move(State.REFUSED)
        self.started.fail(failure)
        self.ended.fire(None)

    async def _stop(self) -> None:
        exchange, reception = self._where()
        was_running = self.state is State.RUNNING
        self._move(State.STOPPING)
        reception.close()
        if was_running:
            await self._closing_hook(exchange, self._service.on_stop)
            await reception.end_handlers(self._service.handler_grace, self._service.stop_timeout)
            self.started = Moment()
        elif self._hook_over is not None:
            over = self._hook_over.wait()
            if self._hook is not None:
                self._hook.cancel()
            await over
        await self._take_down(exchange, reception)
        self._move(State.STOPPED)
        self.started.fail(Failure(ServiceStopped(f"service {reception.handle.name!r} was stopped")))
        self.ended.fire(None)

    async def _take_down(self, exchange: Exchange, reception: Reception) -> None:
        """What all ends have in common: nothing is waited for any more, ``on_exit``, no more sending."""
        who = f"service {reception.handle.name!r}"
        exchange.give_up_sessions_of(reception.handle, who)
        if self._initialised:
            self._initialised = False
            await self._closing_hook(exchange, self._service.on_exit)
            exchange.give_up_sessions_of(reception.handle, who)
        exchange.receptions.pop(reception.handle, None)
        self._service.node_exchange = None

    async def _closing_hook(self, exchange: Exchange, hook: Callable[[], HookResult]) -> None:
        """Run a hook that cannot keep the service from ending: cancelled when it takes too long, its failure logged."""
        failures: list[Failure] = []
        await _called(hook).addTimeout(self._service.stop_timeout, exchange.reactor).addErrback(failures.append)
        for failure in failures:
            _log.failure("{hook} failed; the service stops all the same", failure, hook=hook.__qualname__)

    def _move(self, state: State) -> None:
        _, reception = self._where()
        self.state = reception.state = successor(self.state, state)
        if state is State.STOPPING:
            self._service.running = 0

    def _new_reception(self, exchange: Exchange, name: str) -> None:
        reception = Reception(exchange.reactor, exchange.sessions, name, self._service, self._routes)
        reception.state = self.state
        exchange.receptions[name] = exchange.receptions[reception.handle] = reception
        self._place = exchange, reception
        self._service.own_handle = reception.handle

    def _where(self) -> tuple[Exchange, Reception]:
        if self._place is None:
            msg = f"{self._service!r} belongs to no node: call its setServiceParent(node) first"
            raise RuntimeError(msg)
        return self._place


def _called(hook: Callable[[], HookResult]) -> Deferred[None]:
    # What maybeDeferred does with all three kinds, but its types know one kind at a time.
    return maybeDeferred(cast("Callable[[], Deferred[None]]", hook))
