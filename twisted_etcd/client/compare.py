"""
The comparisons of a transaction: ``compare.value("k", "=", "v")``, ``compare.create_revision("k", "=", 0)``.

Each takes the options ``prefix``, ``from_key`` and ``range_end``; with one of them it must hold for every key of the
range. A key that is not there has the version, the revisions and the lease 0, and no comparison of its value holds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from msgspec.structs import replace

from twisted_etcd.client.kv import KeyOptions, to_int
from twisted_etcd.keys import KeyRange, to_bytes
from twisted_etcd.schema.kv import Compare, CompareResult, CompareTarget

if TYPE_CHECKING:
    from typing_extensions import Unpack

#: ``=``, ``!=``, ``<``, ``>``.
Operator = Literal["=", "!=", "<", ">"]

_RESULTS = {
    "=": CompareResult.EQUAL,
    "!=": CompareResult.NOT_EQUAL,
    "<": CompareResult.LESS,
    ">": CompareResult.GREATER,
}


def _result(operator: str) -> CompareResult:
    try:
        return _RESULTS[operator]
    except KeyError:
        msg = f"{operator!r} is no comparison of etcd's; use one of {', '.join(_RESULTS)}"
        raise ValueError(msg) from None


def _compare(key: str | bytes, operator: str, target: CompareTarget, options: KeyOptions) -> Compare:
    keys = KeyRange.of(key, **options)
    return Compare(result=_result(operator), target=target, key=keys.key, range_end=keys.range_end)


def value(key: str | bytes, operator: Operator, operand: str | bytes, **options: Unpack[KeyOptions]) -> Compare:
    """Compares values, byte by byte."""
    return replace(_compare(key, operator, CompareTarget.VALUE, options), value=to_bytes(operand, "operand"))


def version(key: str | bytes, operator: Operator, operand: int, **options: Unpack[KeyOptions]) -> Compare:
    """Compares how often the key was put since it was made; 0: it is not there."""
    return replace(_compare(key, operator, CompareTarget.VERSION, options), version=to_int(operand, "operand"))


def create_revision(key: str | bytes, operator: Operator, operand: int, **options: Unpack[KeyOptions]) -> Compare:
    """Compares the revision at which the key was made; 0: it is not there."""
    return replace(_compare(key, operator, CompareTarget.CREATE, options), create_revision=to_int(operand, "operand"))


def mod_revision(key: str | bytes, operator: Operator, operand: int, **options: Unpack[KeyOptions]) -> Compare:
    """Compares the revision of the key's last change; 0: it is not there."""
    return replace(_compare(key, operator, CompareTarget.MOD, options), mod_revision=to_int(operand, "operand"))


def lease(key: str | bytes, operator: Operator, operand: int, **options: Unpack[KeyOptions]) -> Compare:
    """Compares the id of the key's lease; 0: it has none, or is not there."""
    return replace(_compare(key, operator, CompareTarget.LEASE, options), lease=to_int(operand, "operand"))
