"""
When a request is sent again, and when it is not: the policy, apart from all I/O.

A request that certainly did not reach etcd is sent again, whatever it is. One that may have reached it is sent again
only where doing it twice is the same as doing it once.
"""

from __future__ import annotations

import enum

from twisted_etcd.errors import EtcdError
from twisted_etcd.gateway.exchange import Reach


class Next(enum.Enum):
    """What follows a failed attempt."""

    #: Try again, elsewhere where there is an elsewhere.
    AGAIN = "again"
    #: The answer stands: give it to the caller.
    FAIL = "fail"
    #: Nobody can say whether the write was applied: tell the caller so.
    UNKNOWN = "unknown"


def after_break(reach: Reach, *, repeatable: bool) -> Next:
    """What follows an attempt that got no answer."""
    if reach is Reach.NOT_SENT or repeatable:
        return Next.AGAIN
    return Next.UNKNOWN


def after_error(error: EtcdError, *, repeatable: bool) -> Next:
    """What follows an attempt that etcd answered with an error."""
    if error.may_be_applied and not repeatable:
        return Next.UNKNOWN
    return Next.AGAIN if error.concerns_member else Next.FAIL
