"""Which method of a service gets which message."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from twisted_etcd.messaging.messages import Message, answer_classes

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])

#: The attribute of a function by which it is known as a handler. ``functools.wraps`` takes it along, so that the order
#: of ``@handles`` and ``@inlineCallbacks`` does not matter.
_MARK = "__twisted_etcd_handles__"


def handles(*message_classes: type[Message]) -> Callable[[FunctionT], FunctionT]:
    """
    Make a method of a :class:`~twisted_etcd.messaging.service.MessageService` the handler of messages.

    ::

        @handles(EtcdGetReq)
        async def on_get(self, message: EtcdGetReq) -> EtcdGetResp: ...


        @handles(EtcdWatchReq)
        @inlineCallbacks
        def on_watch(self, message: EtcdWatchReq, delivery: Delivery): ...

    The method takes the message, and where it has a second parameter the
    :class:`~twisted_etcd.messaging.delivery.Delivery`, which knows the sender and the session. It is a plain function,
    one with ``@inlineCallbacks`` on either side, or ``async def``, and returns the answer or a Deferred of it.

    A message goes to the handler of its own class, else to that of its nearest base class: ``@handles(Message)`` gets
    all that no other handler does. A subclass of the service may override a handler by its name, with or without
    saying ``@handles`` again, or name another method for the same message class.

    :raises TypeError: for anything but message classes.
    """
    for each in message_classes:
        if not (isinstance(each, type) and issubclass(each, Message)):
            msg = f"@handles takes message classes, and {each!r} is none: write @handles(SomeMessage)"
            raise TypeError(msg)
    if not message_classes:
        msg = "@handles names no message class: write @handles(SomeMessage)"
        raise TypeError(msg)

    def mark(function: FunctionT) -> FunctionT:
        if not inspect.isfunction(function):
            msg = f"@handles is for methods, and {function!r} is a {type(function).__name__}"
            raise TypeError(msg)
        function.__dict__[_MARK] = message_classes
        return function

    return mark


class Handler:
    """
    A handler method of a service class.

    :ivar function: the function, which takes the service first.
    :ivar takes_delivery: whether it has the second parameter.
    """

    __slots__ = ("function", "name", "takes_delivery")

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.name = function.__qualname__
        self.takes_delivery = _takes_delivery(function)


class Route:
    """
    The way of one message class into one service class.

    :ivar answers: what an answer must be an instance of.
    """

    __slots__ = ("answers", "function", "name", "takes_delivery")

    def __init__(self, handler: Handler, answers: tuple[type, ...]) -> None:
        self.function = handler.function
        self.name = handler.name
        self.takes_delivery = handler.takes_delivery
        self.answers = answers


class RouteTable:
    """
    The handlers of one service class.

    :param service_class: the class; its handlers are read once, here.
    :raises TypeError: for two handlers of one message class, and for a method that cannot be called as a handler.
    """

    def __init__(self, service_class: type) -> None:
        self._handlers = _handlers_of(service_class)
        #: What was found, by the exact class of a message.
        self.known: dict[type[Message], Route] = {}

    def find(self, message_class: type[Message]) -> Route | None:
        """The route for messages of exactly this class: its own, or that of its nearest base class."""
        for ancestor in message_class.__mro__:
            handler = self._handlers.get(ancestor)
            if handler is not None:
                route = self.known[message_class] = Route(handler, answer_classes(message_class))
                return route
        return None

    @property
    def message_classes(self) -> frozenset[type[Message]]:
        """The classes that handlers were named for."""
        return frozenset(self._handlers)


def _handlers_of(service_class: type) -> Mapping[type, Handler]:
    handlers: dict[type, Handler] = {}
    named_in: dict[type, tuple[type, str]] = {}
    for name, owner, message_classes in _marked(service_class):
        for message_class in message_classes:
            other = named_in.get(message_class)
            if other is not None and not _overrides(owner, other[0]):
                msg = (
                    f"{service_class.__qualname__} has two handlers for {message_class.__qualname__}: "
                    f"{other[0].__qualname__}.{other[1]} and {owner.__qualname__}.{name}; keep one"
                )
                raise TypeError(msg)
            function = getattr(service_class, name)
            if not inspect.isfunction(function):
                msg = f"{service_class.__qualname__}.{name} takes the place of a handler and must be a method"
                raise TypeError(msg)
            named_in[message_class] = owner, name
            handlers[message_class] = Handler(function)
    return handlers


def _marked(service_class: type) -> Iterator[tuple[str, type, tuple[type[Message], ...]]]:
    """
    The names of the handlers, the class that said so last, and what it said; base classes first.

    A method that takes the place of another without ``@handles`` handles what that one did.
    """
    said: dict[str, tuple[type, tuple[type[Message], ...]]] = {}
    for cls in reversed(service_class.__mro__):
        for name, attribute in vars(cls).items():
            message_classes = getattr(attribute, _MARK, None)
            if message_classes is not None:
                said.pop(name, None)
                said[name] = cls, message_classes
    for name, (cls, message_classes) in said.items():
        yield name, cls, message_classes


def _overrides(owner: type, other: type) -> bool:
    return owner is not other and issubclass(owner, other)


def _takes_delivery(function: Callable[..., Any]) -> bool:
    parameters = list(inspect.signature(function).parameters.values())[1:]
    positional = [each for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
    if len(parameters) != len(positional) or len(positional) not in (1, 2):
        msg = (
            f"handler {function.__qualname__}{inspect.signature(function)} cannot be called: "
            "let it take (self, message) or (self, message, delivery)"
        )
        raise TypeError(msg)
    return len(positional) == 2  # noqa: PLR2004 - the message and the delivery
