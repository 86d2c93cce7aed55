"""Messages and helpers for the tests of this room."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from twisted_etcd.messaging.messages import Message, Request
from twisted_etcd.messaging.node import Node
from twisted_etcd.messaging.routes import handles
from twisted_etcd.messaging.service import MessageService

T = TypeVar("T")
ErrorT = TypeVar("ErrorT", bound=BaseException)

PENDING = object()


class TurningClock(Clock):
    """A clock that, as a reactor, runs in one turn what was asked for before it; a turn takes a microsecond."""

    TURN = 1e-6

    def callLater(
        self,
        delay: float,
        callable: Callable[..., object],  # noqa: A002 - as Clock has it
        *args: object,
        **kw: object,
    ) -> IDelayedCall:
        return super().callLater(max(delay, self.TURN), callable, *args, **kw)

    def turn(self) -> None:
        """Let one turn pass."""
        self.advance(self.TURN)


class Echoed(Message, frozen=True):
    text: str


class Echo(Request[Echoed], frozen=True):
    text: str = ""


class Note(Message, frozen=True):
    number: int = 0


class Ask(Request[None], frozen=True):
    pass


class Echoer(MessageService):
    """Answers at once."""

    @handles(Echo)
    def on_echo(self, message: Echo) -> Echoed:
        return Echoed(message.text)


class Waiter(MessageService):
    """Answers when the test says so."""

    def __init__(self, name: str | None = None) -> None:
        super().__init__(name)
        self.answers: list[Deferred[Echoed]] = []
        self.cancelled = 0

    @handles(Echo)
    def on_echo(self, _message: Echo) -> Deferred[Echoed]:
        answer: Deferred[Echoed] = Deferred(self._count)
        self.answers.append(answer)
        return answer

    def _count(self, _: Deferred[Echoed]) -> None:
        self.cancelled += 1


class Recorder(MessageService):
    """Keeps what it gets."""

    def __init__(self, name: str | None = None) -> None:
        super().__init__(name)
        self.got: list[Message] = []

    @handles(Message)
    def on_message(self, message: Message) -> None:
        self.got.append(message)


def node_of(reactor: IReactorTime, *services: MessageService, default_timeout: float | None = 30.0) -> Node:
    """A node with these services, started."""
    node = Node(reactor, default_timeout=default_timeout)
    for service in services:
        service.setServiceParent(node)
    node.startService()
    return node


def peek(deferred: Deferred[T]) -> object:
    """What it has fired with, or PENDING; it keeps its result."""
    seen: list[object] = [PENDING]

    def look(result: T | Failure) -> T | Failure:
        seen.append(result)
        return result

    deferred.addBoth(look)
    return seen[-1]


def result_of(deferred: Deferred[T]) -> T:
    """What it has fired with."""
    seen: list[T | Failure] = []
    deferred.addBoth(seen.append)
    assert seen, "it has not fired"
    if isinstance(seen[0], Failure):
        seen[0].raiseException()
    return seen[0]


def failure_of(deferred: Deferred[T], error: type[ErrorT]) -> ErrorT:
    """The error of that class that it has failed with."""
    seen: list[T | Failure] = []
    deferred.addBoth(seen.append)
    assert seen, "it has not fired"
    assert isinstance(seen[0], Failure), f"it has fired with {seen[0]!r}"
    value = seen[0].value
    assert type(value) is error, seen[0].getTraceback()
    return value


def turn(clock: Clock) -> None:
    """Let turns of the reactor pass, and no time, until none is asked for any more."""
    clock.advance(0)
