"""Messages as etcd's gateway writes them: numbers of 64 bits as strings, zero values left out."""

from __future__ import annotations

from base64 import b64encode
from enum import Enum
from functools import cache
from typing import Any

import msgspec

from twisted_etcd.schema.common import Message

#: The fields of 32 bits, which JSON has as numbers.
_NUMBERS = frozenset({"hash"})


@cache
def _defaults(kind: type[Message]) -> tuple[tuple[str, Any], ...]:
    return tuple((field.name, field.default) for field in msgspec.structs.fields(kind))


def encode(message: Message) -> bytes:
    """The JSON of an answer. Where it has no header, that is left out: within an answer an empty one is written."""
    found = plain(message)
    if found.get("header") == {}:
        del found["header"]
    return msgspec.json.encode(found)


def plain(message: Message) -> dict[str, Any]:
    """The same as a ``dict``. What is a message itself is never left out, so that an empty one is still there."""
    found: dict[str, Any] = {}
    for name, default in _defaults(type(message)):
        value = getattr(message, name)
        if isinstance(value, Message):
            found[name] = plain(value)
        elif value is not None and value != default:
            found[name] = _item(name, value)
    return found


def _item(name: str, value: Any) -> Any:  # noqa: ANN401 - whatever a message holds
    if isinstance(value, Message):
        return plain(value)
    if isinstance(value, tuple):
        return [_item(name, each) for each in value]
    if isinstance(value, bytes):
        return b64encode(value).decode("ascii")
    if isinstance(value, Enum):
        return str(value)
    if isinstance(value, int) and not isinstance(value, bool) and name not in _NUMBERS:
        return str(value)
    return value
