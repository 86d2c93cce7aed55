"""Requests for key-values, built from what a caller means. Pure: nothing is sent from here."""

from __future__ import annotations

import math
from typing import TypedDict

from twisted_etcd.keys import KeyRange, to_bytes
from twisted_etcd.schema.kv import (
    DeleteRangeRequest,
    PutRequest,
    RangeRequest,
    SortOrder,
    SortTarget,
)


class KeyOptions(TypedDict, total=False):
    """
    Which keys are meant, beside ``key`` itself; at most one of them.

    * ``prefix``: all keys that begin with it; all keys there are where it is empty.
    * ``from_key``: it and all keys after it.
    * ``range_end``: it and all keys before this one.
    """

    prefix: bool
    from_key: bool
    range_end: str | bytes | None


class RangeOptions(KeyOptions, total=False):
    """
    How a range is read (etcd's ``RangeRequest``).

    * ``limit``: at most so many key-values; 0 for all. ``more`` of the answer says whether there were further ones.
    * ``revision``: as it was at that revision; 0 for now.
    * ``sort_order``, ``sort_target``: etcd sorts by key, version, creation, modification or value.
    * ``serializable``: answered by the member that is asked, from what it has, which may be old.
    * ``keys_only``: without values. ``count_only``: nothing but ``count``.
    * ``min_mod_revision``, ``max_mod_revision``, ``min_create_revision``, ``max_create_revision``: bounds, inclusive;
      0 for none.
    """

    limit: int
    revision: int
    sort_order: SortOrder
    sort_target: SortTarget
    serializable: bool
    keys_only: bool
    count_only: bool
    min_mod_revision: int
    max_mod_revision: int
    min_create_revision: int
    max_create_revision: int


class PutOptions(TypedDict, total=False):
    """
    How a key is put (etcd's ``PutRequest``).

    * ``lease``: the id of the lease that the key lives by; 0 for none.
    * ``prev_kv``: the answer brings what was there before.
    * ``ignore_value``: keep the value, change the lease alone; give ``value=b""``.
    * ``ignore_lease``: keep the lease, change the value alone.
    """

    lease: int
    prev_kv: bool
    ignore_value: bool
    ignore_lease: bool


class DeleteOptions(KeyOptions, total=False):
    """
    How keys are deleted (etcd's ``DeleteRangeRequest``).

    * ``prev_kv``: the answer brings what was there before.
    """

    prev_kv: bool


def to_int(value: int, what: str) -> int:
    """
    A number that a caller gave.

    :param what: the name of the argument, for the error.
    :raises TypeError: for anything but ``int``: etcd would take some of it for another number.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    msg = f"{what} must be an int, not {type(value).__name__}"
    raise TypeError(msg)


def is_time(seconds: float, what: str) -> bool:
    """
    Whether a number of seconds is one that can be waited for: not under 0, and finite.

    :param what: the name of the argument, for the error.
    :raises TypeError: for anything but a number.
    """
    if not isinstance(seconds, int | float) or isinstance(seconds, bool):
        msg = f"{what} must be a number of seconds, not {type(seconds).__name__}"
        raise TypeError(msg)
    return 0 <= seconds < math.inf


def range_request(
    key: str | bytes,
    *,
    prefix: bool = False,
    from_key: bool = False,
    range_end: str | bytes | None = None,
    limit: int = 0,
    revision: int = 0,
    sort_order: SortOrder = SortOrder.NONE,
    sort_target: SortTarget = SortTarget.KEY,
    serializable: bool = False,
    keys_only: bool = False,
    count_only: bool = False,
    min_mod_revision: int = 0,
    max_mod_revision: int = 0,
    min_create_revision: int = 0,
    max_create_revision: int = 0,
) -> RangeRequest:
    """
    The ``RangeRequest`` for a key and :class:`RangeOptions`.

    :raises TypeError: for an option of the wrong type, which it names.
    :raises ValueError: where more than one of ``prefix``, ``from_key`` and ``range_end`` is given, or a sort order or
        target is none of etcd's.
    """
    keys = KeyRange.of(key, prefix=prefix, from_key=from_key, range_end=range_end)
    return RangeRequest(
        key=keys.key,
        range_end=keys.range_end,
        limit=to_int(limit, "limit"),
        revision=to_int(revision, "revision"),
        sort_order=SortOrder(sort_order),
        sort_target=SortTarget(sort_target),
        serializable=serializable,
        keys_only=keys_only,
        count_only=count_only,
        min_mod_revision=to_int(min_mod_revision, "min_mod_revision"),
        max_mod_revision=to_int(max_mod_revision, "max_mod_revision"),
        min_create_revision=to_int(min_create_revision, "min_create_revision"),
        max_create_revision=to_int(max_create_revision, "max_create_revision"),
    )


def put_request(
    key: str | bytes,
    value: str | bytes,
    *,
    lease: int = 0,
    prev_kv: bool = False,
    ignore_value: bool = False,
    ignore_lease: bool = False,
) -> PutRequest:
    """The ``PutRequest`` for a key, a value and :class:`PutOptions`."""
    return PutRequest(
        key=to_bytes(key),
        value=to_bytes(value, "value"),
        lease=to_int(lease, "lease"),
        prev_kv=prev_kv,
        ignore_value=ignore_value,
        ignore_lease=ignore_lease,
    )


def delete_request(
    key: str | bytes,
    *,
    prefix: bool = False,
    from_key: bool = False,
    range_end: str | bytes | None = None,
    prev_kv: bool = False,
) -> DeleteRangeRequest:
    """The ``DeleteRangeRequest`` for a key and :class:`DeleteOptions`."""
    keys = KeyRange.of(key, prefix=prefix, from_key=from_key, range_end=range_end)
    return DeleteRangeRequest(key=keys.key, range_end=keys.range_end, prev_kv=prev_kv)
