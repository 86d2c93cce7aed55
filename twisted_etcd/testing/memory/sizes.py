"""How much a message takes on the wire inside etcd, about."""

from __future__ import annotations

from typing import Any

import msgspec

from twisted_etcd.schema.common import Message

#: Bytes of a field beside its content, and of a number.
_FIELD, _NUMBER = 2, 4


def size_of(message: Message) -> int:
    """About the bytes that the message takes in protobuf; of what is large in it, exactly."""
    return sum(
        _size(value)
        for name, default in ((field.name, field.default) for field in msgspec.structs.fields(message))
        if (value := getattr(message, name)) != default
    )


def _size(value: Any) -> int:  # noqa: ANN401 - whatever a message holds
    if isinstance(value, Message):
        return _FIELD + size_of(value)
    if isinstance(value, tuple):
        return sum(map(_size, value))
    if isinstance(value, str | bytes):
        return _FIELD + len(value)
    return _NUMBER
