"""Hypothesis strategies for etcd's messages, made from their annotations."""

from __future__ import annotations

from enum import Enum
from functools import cache
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from twisted_etcd.schema.common import Message

#: For every property here: enough examples to meet each field's extremes, few enough for all calls in seconds.
PROFILE = settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])

#: The ends of int64 and uint64, and the numbers around which JSON's floating point becomes inexact.
EXTREMES = (0, 1, -1, 2**53, 2**53 + 1, 2**63 - 1, -(2**63), 2**64 - 1)

PLAIN: dict[object, st.SearchStrategy[Any]] = {
    bool: st.booleans(),
    int: st.sampled_from(EXTREMES) | st.integers(-(2**63), 2**64 - 1),
    str: st.text(max_size=20),
    bytes: st.binary(max_size=20),
}

#: Transactions nest; so deep do the examples.
DEPTH = 3


@cache
def fields(cls: type[Message]) -> dict[str, Any]:
    """The fields of a message in their order, with their annotations resolved."""
    hints = get_type_hints(cls)
    return {name: hints[name] for name in cls.__struct_fields__}


@cache
def messages(cls: type[Message], depth: int = DEPTH) -> st.SearchStrategy[Message]:
    """Any message of a class."""
    return st.builds(cls, **{name: _of(hint, depth) for name, hint in fields(cls).items()})


def _of(hint: object, depth: int) -> st.SearchStrategy[Any]:
    if get_origin(hint) is tuple:
        item = get_args(hint)[0]
        deep_enough = depth == 0 and issubclass(item, Message)
        return st.lists(st.nothing() if deep_enough else _of(item, depth), max_size=3).map(tuple)
    if get_args(hint):
        (present,) = set(get_args(hint)) - {NoneType}
        deep_enough = depth == 0 and issubclass(present, Message)
        return st.none() if deep_enough else st.none() | _of(present, depth)
    assert isinstance(hint, type)
    if issubclass(hint, Message):
        return messages(hint, max(0, depth - 1))
    return st.sampled_from(hint) if issubclass(hint, Enum) else PLAIN[hint]
