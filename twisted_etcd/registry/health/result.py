"""What a check finds."""

from __future__ import annotations

from typing import Protocol

import msgspec
from twisted.internet.defer import Deferred

from twisted_etcd.registry.instance import Status

#: How many characters of somebody else's words are shown.
MOST_SHOWN = 200


class CheckResult(msgspec.Struct, frozen=True):
    """
    What one look has found.

    :ivar status: ``PASSING``; ``WARNING`` for what serves and complains; ``CRITICAL`` for what failed.
    :ivar why: in words, for the log.
    """

    status: Status
    why: str = ""


class Check(Protocol):
    """
    A way to find out whether an instance serves. Its ``repr`` stands in the log, and so shows no secret.

    A check need not end by itself: the monitor cancels it after its time.
    """

    def check(self) -> Deferred[CheckResult]:
        """
        Look once.

        :return: fires with what was found; a failure counts as ``CRITICAL``. Where it is cancelled it fires as soon as
            nothing of the look is left: no socket, no process, no delayed call.
        """


def passing(why: str = "") -> CheckResult:
    """It serves."""
    return CheckResult(Status.PASSING, why)


def failing(why: str) -> CheckResult:
    """It does not."""
    return CheckResult(Status.CRITICAL, why)


def shortened(text: str) -> str:
    """Somebody else's words, as one line that can stand in another: without control characters, and not too long."""
    line = " ".join("".join(character if character.isprintable() else " " for character in text).split())
    return line if len(line) <= MOST_SHOWN else line[: MOST_SHOWN - 1] + "…"
