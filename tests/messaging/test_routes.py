"""Which method gets which message."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

import pytest
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.task import Clock

from tests.messaging.common import Ask, Echo, Echoed, Note, node_of, result_of, turn
from twisted_etcd.messaging.delivery import Delivery
from twisted_etcd.messaging.messages import Message
from twisted_etcd.messaging.routes import handles
from twisted_etcd.messaging.service import MessageService


class Sub(Echo, frozen=True):
    pass


def answer_of(service: MessageService, message: Echo) -> Echoed:
    """What a service answers."""
    clock = Clock()
    node = node_of(clock, service)
    answer = node.call(service.name, message)
    turn(clock)
    node.stopService()
    return result_of(answer)


class Plain(MessageService):
    @handles(Echo)
    def on_echo(self, message: Echo) -> Echoed:
        return Echoed("plain " + message.text)


class Inside(MessageService):
    @handles(Echo)
    @inlineCallbacks
    def on_echo(self, message: Echo) -> Generator[Deferred[Any], Any, Echoed]:
        yield Deferred.fromCoroutine(nothing())
        return Echoed("inside " + message.text)


class Outside(MessageService):
    @inlineCallbacks
    @handles(Echo)
    def on_echo(self, message: Echo) -> Generator[Deferred[Any], Any, Echoed]:
        yield Deferred.fromCoroutine(nothing())
        return Echoed("outside " + message.text)


class Coroutine(MessageService):
    @handles(Echo)
    async def on_echo(self, message: Echo) -> Echoed:
        await nothing()
        return Echoed("coroutine " + message.text)


class Informed(MessageService):
    @handles(Echo)
    async def on_echo(self, message: Echo, delivery: Delivery) -> Echoed:
        return Echoed(f"session {delivery.session_id} {message.text}")


class InformedGenerator(MessageService):
    @handles(Echo)
    @inlineCallbacks
    def on_echo(self, message: Echo, delivery: Delivery) -> Generator[Deferred[Any], Any, Echoed]:
        yield Deferred.fromCoroutine(nothing())
        return Echoed(f"session {delivery.session_id} {message.text}")


class Several(MessageService):
    @handles(Ask, Echo)
    def on_either(self, message: Message) -> Echoed | None:
        return Echoed("several") if isinstance(message, Echo) else None


async def nothing() -> None:
    """Wait for nothing."""


@pytest.mark.parametrize(
    ("service_class", "answer"),
    [
        (Plain, "plain x"),
        (Inside, "inside x"),
        (Outside, "outside x"),
        (Coroutine, "coroutine x"),
        (Informed, "session 1 x"),
        (InformedGenerator, "session 1 x"),
        (Several, "several"),
    ],
)
def test_a_handler_is_a_plain_function_a_generator_or_a_coroutine(
    service_class: type[MessageService], answer: str
) -> None:
    assert answer_of(service_class(), Echo("x")) == Echoed(answer)


class Overridden(Plain):
    def on_echo(self, message: Echo) -> Echoed:
        return Echoed("overridden " + super().on_echo(message).text)


class OverriddenAgain(Plain):
    @handles(Echo)
    def on_echo(self, message: Echo) -> Echoed:
        return Echoed("again " + message.text)


class Renamed(Plain):
    @handles(Echo)
    def on_echo_too(self, message: Echo) -> Echoed:
        return Echoed("renamed " + message.text)


class OverriddenWithDelivery(Plain):
    def on_echo(self, message: Echo, delivery: Delivery | None = None) -> Echoed:
        return Echoed(f"{delivery is not None} {message.text}")


class Moved(Plain):
    """The method handles something else now."""

    @handles(Sub)
    def on_echo(self, message: Echo) -> Echoed:
        return Echoed("moved " + message.text)


class Base(MessageService):
    @handles(Echo)
    def on_echo(self, message: Echo) -> Echoed:
        return Echoed("base " + message.text)


class Left(Base):
    @handles(Echo)
    def on_left(self, message: Echo) -> Echoed:
        return Echoed("left " + message.text)


class Right(Base):
    pass


class Diamond(Left, Right):
    pass


@pytest.mark.parametrize(
    ("service_class", "answer"),
    [
        (Overridden, "overridden plain x"),
        (OverriddenAgain, "again x"),
        (Renamed, "renamed x"),
        (OverriddenWithDelivery, "True x"),
        (Diamond, "left x"),
    ],
)
def test_a_subclass_inherits_and_overrides_handlers(service_class: type[MessageService], answer: str) -> None:
    assert answer_of(service_class(), Echo("x")) == Echoed(answer)


def test_a_method_that_handles_something_else_in_a_subclass_handles_that_alone() -> None:
    assert Moved.message_routes.message_classes == {Sub}


def test_the_handler_of_the_exact_class_comes_before_those_of_base_classes() -> None:
    class Both(MessageService):
        @handles(Message)
        def on_any(self, _message: Message) -> Echoed:
            return Echoed("any")

        @handles(Echo)
        def on_echo(self, _message: Echo) -> Echoed:
            return Echoed("echo")

    class Exact(Both):
        @handles(Sub)
        def on_sub(self, _message: Sub) -> Echoed:
            return Echoed("sub")

    assert answer_of(Both(), Echo()) == Echoed("echo")
    assert answer_of(Both(), Sub()) == Echoed("echo")
    assert answer_of(Exact(), Sub()) == Echoed("sub")


def test_a_route_that_was_found_in_one_class_does_not_leak_into_its_subclass() -> None:
    assert answer_of(Base(), Echo("x")) == Echoed("base x")
    assert answer_of(Left(), Echo("x")) == Echoed("left x")
    assert answer_of(Base(), Echo("x")) == Echoed("base x")


def test_two_handlers_for_one_message_class_are_an_error_that_names_both() -> None:
    with pytest.raises(TypeError, match=r"two handlers for Echo: \S*Twice\.on_one and \S*Twice\.on_two"):

        class Twice(MessageService):
            @handles(Echo)
            def on_one(self, message: Echo) -> None: ...

            @handles(Echo)
            def on_two(self, message: Echo) -> None: ...


def test_two_handlers_from_unrelated_bases_are_an_error_that_names_both() -> None:
    with pytest.raises(TypeError, match=r"two handlers for Echo: Elsewhere\.on_echo_there and Plain\.on_echo"):

        class Confused(Plain, Elsewhere):
            pass


class Elsewhere(MessageService):
    @handles(Echo)
    def on_echo_there(self, message: Echo) -> None: ...


def test_mixins_that_are_no_services_bring_their_handlers() -> None:
    class Part:
        @handles(Echo)
        def on_echo(self, _message: Echo) -> Echoed:
            return Echoed("part")

    class Whole(Part, MessageService):
        pass

    assert answer_of(Whole(), Echo()) == Echoed("part")


def test_a_handler_that_a_subclass_makes_no_method_is_an_error() -> None:
    with pytest.raises(TypeError, match=r"Gone\.on_echo takes the place of a handler and must be a method"):

        class Gone(Plain):
            on_echo = None  # type: ignore[assignment]


def none(self: object) -> None: ...
def three(self: object, message: Message, delivery: Delivery, more: int) -> None: ...
def starred(self: object, *messages: Message) -> None: ...
def keyword(self: object, message: Message, *, flag: bool) -> None: ...


@pytest.mark.parametrize("function", [none, three, starred, keyword])
def test_a_handler_with_other_parameters_is_an_error_of_the_class(function: Callable[..., None]) -> None:
    with pytest.raises(TypeError, match=rf"handler {function.__name__}.* cannot be called"):
        type("Odd", (MessageService,), {"on_note": handles(Note)(function)})
    vars(function).clear()


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        ((), "names no message class"),
        ((int,), "<class 'int'> is none"),
        ((Note(),), "is none: write @handles.SomeMessage"),
    ],
)
def test_handles_takes_message_classes_alone(classes: tuple[Any, ...], words: str) -> None:
    with pytest.raises(TypeError, match=words):
        handles(*classes)


def test_handles_is_for_functions() -> None:
    with pytest.raises(TypeError, match="is a staticmethod"):

        class Static(MessageService):
            @handles(Note)
            @staticmethod
            def on_note(message: Note) -> None: ...
