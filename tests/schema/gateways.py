"""
The gateway's side, written a second time for the tests: how each of its generations puts a message into JSON.

It uses neither msgspec's encoder nor the messages' own defaults.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from enum import Enum
from random import Random
from types import NoneType
from typing import get_args

from tests.schema.strategies import fields
from twisted_etcd.schema.common import Message

#: Numbers of 32 bits, the only ones that both generations write as JSON numbers.
NARROW = {"hash"}


def is_zero(value: object) -> bool:
    """Whether protobuf leaves the value out; of messages and enums that is the empty one and the first name."""
    if isinstance(value, Enum):
        return value is next(iter(type(value)))
    if isinstance(value, Message):
        return all(is_zero(getattr(value, name)) for name in fields(type(value)))
    return not value


def as_json(message: Message, *, numbers_as_text: bool = True, zeros: bool = False) -> dict[str, object]:
    """The message as an object of plain JSON."""
    written: dict[str, object] = {}
    for name, hint in fields(type(message)).items():
        value = getattr(message, name)
        # A field of a oneof, optional here, is written where it is set, also to zero.
        left_out = value is None if NoneType in get_args(hint) else is_zero(value)
        if left_out and not zeros:
            continue
        as_text = numbers_as_text and name not in NARROW
        if isinstance(value, tuple):
            written[name] = [_plain(item, as_text=as_text, zeros=zeros) for item in value]
        else:
            written[name] = _plain(value, as_text=as_text, zeros=zeros)
    return written


def _plain(value: object, *, as_text: bool, zeros: bool) -> object:
    if isinstance(value, Message):
        return as_json(value, numbers_as_text=as_text, zeros=zeros)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, int) and not isinstance(value, bool) and as_text:
        return str(value)
    return value


@dataclass(frozen=True)
class Generation:
    """
    One way of writing JSON.

    :ivar after_comma: what follows a comma.
    :ivar escapes_html: write ``<``, ``>`` and ``&`` as Go's own encoder does.
    :ivar liberal: what no gateway was seen to do and a later one could: zeros written, null for what is not set, fields
        in any order, fields that are not known here, numbers as numbers, white space everywhere.
    """

    name: str
    after_comma: str = ""
    escapes_html: bool = False
    liberal: bool = False

    def write(self, message: Message) -> bytes:
        """The body in which a unary answer carries the message."""
        return self._text(as_json(message, numbers_as_text=not self.liberal, zeros=self.liberal))

    def write_frame(self, message: Message) -> bytes:
        """The line in which a stream carries the message."""
        plain = as_json(message, numbers_as_text=not self.liberal, zeros=self.liberal)
        return self._text({"result": plain}) + b"\n"

    def _text(self, plain: dict[str, object]) -> bytes:
        if self.liberal:
            return json.dumps(_disturbed(plain, Random(len(str(plain)))), indent=2).encode()
        text = json.dumps(plain, ensure_ascii=False, separators=("," + self.after_comma, ":"))
        if self.escapes_html:
            for character in "<>&":
                text = text.replace(character, f"\\u{ord(character):04x}")
        return text.encode()


def _disturbed(plain: object, order: Random) -> object:
    if isinstance(plain, list):
        return [_disturbed(item, order) for item in plain]
    if not isinstance(plain, dict):
        return plain
    items = [(name, _disturbed(value, order)) for name, value in plain.items()]
    items.append(("a_field_of_the_future", {"of": ["any", 1, None, True, {"shape": 0.5}]}))
    order.shuffle(items)
    return dict(items)


OLDER = Generation("older", escapes_html=True)
NEWER = Generation("newer", after_comma=" ")
LIBERAL = Generation("liberal", liberal=True)
GENERATIONS = (OLDER, NEWER, LIBERAL)
