"""Messages, and the answers that requests name."""

from __future__ import annotations

from typing import Generic, Optional, TypeVar, Union

import pytest

from tests.messaging.common import Ask, Echo, Echoed, Note
from twisted_etcd.messaging.messages import Message, Request, answer_classes, answer_type

AnswerT = TypeVar("AnswerT", bound=Message | None)
KeyT = TypeVar("KeyT")
NONE = type(None)


class Thawed(Message):  # type: ignore[misc]
    number: int = 0


class Sub(Echo, frozen=True):
    pass


class Either(Request[Echoed | Note], frozen=True):
    pass


class Maybe(Request[Optional[Echoed]], frozen=True):  # noqa: UP045 - the old spelling
    pass


class OldEither(Request[Union[Echoed, Note, None]], frozen=True):  # noqa: UP007 - the old spelling
    pass


class Forward(Request["Later"], frozen=True):
    pass


class ForwardOrNone(Request["Later | None"], frozen=True):
    pass


class Lookup(Request[AnswerT], Generic[KeyT, AnswerT], frozen=True):
    key: KeyT


class NoteLookup(Lookup[str, Note], frozen=True):
    pass


class Page(Message, Generic[KeyT], frozen=True):
    key: KeyT


class PageReq(Request[Page[int]], frozen=True):
    pass


class Bare(Request, frozen=True):  # type: ignore[type-arg]
    pass


class Later(Message, frozen=True):
    pass


class Wrong(Request[int], frozen=True):  # type: ignore[type-var]
    pass


class Nowhere(Request["Nothing"], frozen=True):  # type: ignore[name-defined]  # what the test is about
    pass


@pytest.mark.parametrize(
    ("request_class", "declared", "classes"),
    [
        (Echo, Echoed, (Echoed,)),
        (Sub, Echoed, (Echoed,)),
        (Ask, NONE, (NONE,)),
        (Either, Echoed | Note, (Echoed, Note)),
        (Maybe, Echoed | None, (Echoed, NONE)),
        (OldEither, Echoed | Note | None, (Echoed, Note, NONE)),
        (Forward, Later, (Later,)),
        (ForwardOrNone, Later | None, (Later, NONE)),
        (NoteLookup, Note, (Note,)),
        (PageReq, Page[int], (Page,)),
        (Bare, Message | None, (Message, NONE)),
        (Lookup, Message | None, (Message, NONE)),
    ],
)
def test_the_answer_that_a_request_names_is_known_at_run_time(
    request_class: type[Request[None]], declared: object, classes: tuple[type, ...]
) -> None:
    assert answer_type(request_class) == declared
    assert answer_classes(request_class) == classes


def test_a_message_that_is_no_request_names_no_answer() -> None:
    assert answer_classes(Note) == ()


@pytest.mark.parametrize(("request_class", "words"), [(Wrong, "Wrong names <class 'int'>"), (Nowhere, "Nowhere names")])
def test_an_answer_that_cannot_be_is_an_error_that_names_the_request(
    request_class: type[Request[None]], words: str
) -> None:
    with pytest.raises(TypeError, match=words):
        answer_type(request_class)


@pytest.mark.parametrize("message", [Note(1), Thawed(1)])
def test_a_message_is_frozen_with_or_without_saying_so(message: Note | Thawed) -> None:
    with pytest.raises(AttributeError):
        message.number = 2  # type: ignore[misc]


def test_messages_with_equal_fields_are_equal() -> None:
    assert Note(1) == Note(1)
    assert hash(Note(1)) == hash(Note(1))
    assert Note(1) != Note(2)


class Secretive(Message, frozen=True):
    key: bytes
    password: str
    values: tuple[bytes, ...]
    note: Note
    lease: int = 7
    prefix: bool = True
    nothing: None = None


def test_the_repr_of_a_message_shows_no_text_and_no_bytes() -> None:
    shown = repr(Secretive(key=b"kkk", password="ppp", values=(b"vvv",), note=Note(3)))
    assert shown == (
        "Secretive(key=<bytes>, password=<str>, values=<tuple>, "
        "note=Note(number=3), lease=7, prefix=True, nothing=None)"
    )
