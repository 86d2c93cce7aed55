"""A node with an EtcdService, and services that call it."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, Protocol, TypeVar, cast

import pytest
from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from tests.wire import Event, soon
from twisted_etcd.client.client import EtcdClient
from twisted_etcd.messaging.messages import AnswerT, Message, Request
from twisted_etcd.messaging.node import Node
from twisted_etcd.messaging.routes import handles
from twisted_etcd.messaging.service import MessageService
from twisted_etcd.services.etcd import EtcdService
from twisted_etcd.services.messages import ETCD_SERVICE

MessageT = TypeVar("MessageT", bound=Message)
ErrorT = TypeVar("ErrorT", bound=BaseException)


class Forwarded(Message, frozen=True):
    answer: Message


class Forward(Request[Forwarded], frozen=True):
    """Asks a caller to call ``EtcdService`` from a handler of its own."""

    request: Request[Any]


class Caller(MessageService):
    """Keeps what it is sent, until the test takes it."""

    def __init__(self, name: str | None = "Caller") -> None:
        super().__init__(name)
        self.got: list[Message] = []
        self._arrived = Event()

    @handles(Message)
    def on_message(self, message: Message) -> None:
        self.got.append(message)
        self._arrived.happened()

    async def next(self, kind: type[MessageT], where: Callable[[MessageT], bool] = lambda _: True) -> MessageT:
        """The next message of that kind for which the condition holds; those of the kind before it are dropped."""
        found: list[MessageT] = []

        def arrived() -> bool:
            for message in [each for each in self.got if isinstance(each, kind)]:
                self.got.remove(message)
                if where(message):
                    found.append(message)
                    return True
            return False

        await self._arrived.until(arrived)
        return found[0]

    async def ask(self, request: Request[AnswerT]) -> AnswerT:
        """Call ``EtcdService``."""
        return await soon(self.call(ETCD_SERVICE, request))


class PlainCaller(Caller):
    @handles(Forward)
    def on_forward(self, message: Forward) -> Deferred[Forwarded]:
        return self.call(ETCD_SERVICE, message.request).addCallback(Forwarded)


class InlineCaller(Caller):
    @handles(Forward)
    @inlineCallbacks
    def on_forward(self, message: Forward) -> Generator[Deferred[Any], Any, Forwarded]:
        answer = yield self.call(ETCD_SERVICE, message.request)
        return Forwarded(answer)


class CoroutineCaller(Caller):
    @handles(Forward)
    async def on_forward(self, message: Forward) -> Forwarded:
        return Forwarded(await self.call(ETCD_SERVICE, message.request))


class World:
    """
    A node that runs.

    :ivar client: what its ``EtcdService`` uses.
    :ivar etcd: that service.
    :ivar caller: a service that calls it.
    """

    def __init__(
        self,
        prefix: str,
        endpoint: str,
        *,
        client: dict[str, Any],
        clock: IReactorTime | None,
        **options: Any,  # noqa: ANN401 - as EtcdService has them
    ) -> None:
        self.prefix = prefix
        self.node = Node(cast("Any", reactor))
        self.client = EtcdClient(cast("Any", reactor), endpoint, **client)
        self.client.setServiceParent(self.node)
        defaults = {"config_prefix": prefix + "config", "service_prefix": prefix + "services"}
        self.etcd = EtcdService(self.client, clock or cast("Any", reactor), **{**defaults, **options})
        self.etcd.setServiceParent(self.node)
        self.caller = self.add(Caller())

    CallerT = TypeVar("CallerT", bound=MessageService)

    def add(self, service: CallerT) -> CallerT:
        service.setServiceParent(self.node)
        return service

    def service_key(self, name: str, address: str) -> str:
        return f"{self.prefix}services/{name}/{address}"

    def config_key(self, path: str) -> str:
        return f"{self.prefix}config/{path}"

    async def started(self) -> World:
        self.node.startService()
        await soon(self.node.when_started())
        return self

    async def ended(self) -> None:
        """Stop it, and see that nothing of it is left."""
        await soon(self.node.stopService())
        assert self.etcd.watch_count == 0
        assert self.etcd.registration_count == 0
        assert self.client.connection_count == 0
        assert self.node.statistics.sessions_open == 0


class MakeWorld(Protocol):
    """
    Starts a node against an etcd; it is stopped at the end of the test.

    ``client`` has options for the client, and ``clock`` is the time of ``EtcdService``, the reactor's unless given; the
    others are its options.
    """

    def __call__(
        self,
        endpoint: str,
        *,
        client: dict[str, Any] | None = None,
        clock: IReactorTime | None = None,
        **options: Any,  # noqa: ANN401 - as EtcdService has them
    ) -> Deferred[World]: ...


def a_turn() -> Deferred[None]:
    """Fires when all that was in the reactor's queue for the next turn has had it."""
    return deferLater(cast("Any", reactor), 0)


async def fails(with_error: type[ErrorT], doing: Deferred[Any]) -> ErrorT:
    """The error, of exactly this type, that something fails with."""
    with pytest.raises(with_error) as failed:
        await soon(doing)
    assert failed.type is with_error
    return failed.value
