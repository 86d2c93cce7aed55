"""What a message is, and how a request names its answer."""

from __future__ import annotations

import sys
import types
import typing
from collections.abc import Iterator
from typing import Any, Generic, TypeVar, get_args, get_origin

import msgspec

#: The answer that a request names: a message class, ``None``, or a union of them.
AnswerT = TypeVar("AnswerT", bound="Message | None")


class Message(msgspec.Struct, frozen=True):
    """
    What services send each other: a frozen Struct whose fields are the message's data.

    ::

        class CacheCleared(Message, frozen=True):
            region: str

    A subclass is frozen with or without ``frozen=True``; type checkers ask for it.

    Its ``repr`` shows numbers and flags, and of everything else the type alone, since it gets into logs and errors and
    texts and bytes may be secrets.
    """

    def __repr__(self) -> str:
        """The class and its fields, with neither texts nor bytes in it."""
        return f"{type(self).__name__}({', '.join(f'{name}={shown}' for name, shown in self.__rich_repr__())})"

    def __rich_repr__(self) -> list[tuple[str, str]]:
        # msgspec brings one of its own, by which rich's tracebacks and consoles would show what __repr__ hides.
        return [(name, _harmless(getattr(self, name))) for name in self.__struct_fields__]


class Request(Message, Generic[AnswerT], frozen=True):
    """
    A message that can be called, because it names its answer.

    ::

        class EtcdGetReq(Request[EtcdGetResp], frozen=True):
            key: bytes

    ``node.call("EtcdService", EtcdGetReq(b"k"))`` is then a ``Deferred[EtcdGetResp]``. ``Request[None]`` is answered
    with ``None``, ``Request[A | B]`` with one of several; an answer class that is defined further down is named in
    quotes.
    """


def answer_type(request_class: type[Request[Any]]) -> Any:  # noqa: ANN401 - a class or a union: no one type says so
    """
    The answer that a request names: a message class, ``NoneType``, or a union of them.

    :raises TypeError: where that is no message class, or a name in quotes that cannot be resolved.
    """
    declared = _declared(request_class)
    if isinstance(declared, TypeVar):
        return Message | None
    for each in _members(declared):
        if not (isinstance(each, type) and issubclass(each, Message | types.NoneType)):
            msg = f"{request_class.__qualname__} names {each!r} as its answer: name a subclass of Message, or None"
            raise TypeError(msg)
    return declared


def answer_classes(message_class: type[Message]) -> tuple[type, ...]:
    """What an answer must be an instance of, for ``isinstance``: empty for a message that names no answer."""
    if not issubclass(message_class, Request):
        return ()
    return tuple(_members(answer_type(message_class)))


def _members(declared: object) -> Iterator[Any]:
    """The classes of a union, or the one; of a generic class its origin."""
    if get_origin(declared) in (typing.Union, types.UnionType):
        for member in get_args(declared):
            yield from _members(member)
    else:
        yield get_origin(declared) or declared


def _declared(cls: type[Request[Any]]) -> object:
    """What stands in the brackets of ``Request[...]`` for a class: its own, or its bases'."""
    if cls is Request:
        return AnswerT
    for base in cls.__dict__.get("__orig_bases__", cls.__bases__):
        origin = get_origin(base) or base
        if not (isinstance(origin, type) and issubclass(origin, Request)):
            continue
        found = _declared(origin)
        if isinstance(found, TypeVar) and get_args(base):
            parameters: tuple[object, ...] = getattr(origin, "__parameters__", ())
            found = get_args(base)[parameters.index(found)]
        return _resolved(found, cls)
    return AnswerT


def _resolved(declared: object, cls: type) -> object:
    """The same with names in quotes replaced by what they mean in the module of the class."""

    def carrier() -> None:
        """Carries the annotation to where typing resolves it."""

    if isinstance(declared, TypeVar):
        return declared
    carrier.__annotations__ = {"answer": declared}
    try:
        return typing.get_type_hints(carrier, vars(sys.modules[cls.__module__]), dict(vars(cls)))["answer"]
    except NameError as error:
        msg = f"{cls.__qualname__} names an answer that {cls.__module__} does not have: {error}"
        raise TypeError(msg) from error


def _harmless(value: object) -> str:
    if value is None or isinstance(value, bool | int | float | Message):
        return repr(value)
    return f"<{type(value).__name__}>"
