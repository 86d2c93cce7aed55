"""How the health of an instance is looked after."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NoReturn

import msgspec

from twisted_etcd.errors import InvalidSettings
from twisted_etcd.registry.health.result import Check
from twisted_etcd.registry.health.thresholds import worst
from twisted_etcd.registry.instance import Status


class Health(msgspec.Struct, frozen=True):
    """
    Checks, and what is made of them. Where checks need times of their own, give several of these.

    An instance whose checks are all ``PASSING``, or ``WARNING``, stands in etcd; with one that is ``CRITICAL`` it does
    not. A check is ``WARNING`` from its first failure on, and ``CRITICAL`` from the ``fall``-th in a row.

    :ivar checks: one, or several, of which the worst counts.
    :ivar interval: seconds from one look to the next, more or less a tenth, so that many do not go together.
    :ivar timeout: seconds that a look may take; then it is cancelled and counts as a failure.
    :ivar rise: how many looks in a row must pass after a failure, until the check is ``PASSING`` again.
    :ivar fall: how many looks in a row must fail until it is ``CRITICAL``.
    :ivar deregister_after: seconds of ``CRITICAL`` in one go, from the start on, after which the registration is taken
        back for good; never where None.
    :ivar initial: before the first look: ``CRITICAL``, so that nothing is registered before it passed once, or
        ``PASSING``.
    :ivar show_status: whether the instance's status, ``passing`` or ``warning``, is written into its value in etcd.
    :raises InvalidSettings: where one of them cannot be used.
    """

    checks: Sequence[Check]
    interval: float = 10.0
    timeout: float = 5.0
    rise: int = 2
    fall: int = 3
    deregister_after: float | None = None
    initial: Status = Status.CRITICAL
    show_status: bool = False

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "checks", _checked(self.checks))
        for name in ("interval", "timeout", "deregister_after"):
            seconds = getattr(self, name)
            if not ((_is_number(seconds) and seconds > 0) or (seconds is None and name == "deregister_after")):
                _refuse(name, "a number of seconds greater than 0", seconds)
        for name in ("rise", "fall"):
            count = getattr(self, name)
            if not isinstance(count, int) or isinstance(count, bool) or count < 1:
                _refuse(name, "a whole number from 1 on", count)
        if self.initial not in (Status.CRITICAL, Status.PASSING):
            _refuse("initial", "Status.CRITICAL or Status.PASSING", self.initial)
        msgspec.structs.force_setattr(self, "initial", Status(self.initial))


def initial_status(healths: Iterable[Health]) -> Status:
    """The status before the first look: whether an instance may be registered at once."""
    return worst(health.initial for health in healths)


def _checked(checks: object) -> tuple[Check, ...]:
    if not isinstance(checks, Iterable):
        msg = f"checks must be a list of them, such as [TCPCheck(reactor, host, port)], not {type(checks).__name__}"
        raise InvalidSettings(msg)
    found = tuple(checks)
    for check in found:
        if not callable(getattr(check, "check", None)):
            msg = f"a check is needed, such as TCPCheck(reactor, host, port), not {type(check).__name__}"
            raise InvalidSettings(msg)
    if not found:
        msg = "no check is given; give at least one, such as TCPCheck(reactor, host, port)"
        raise InvalidSettings(msg)
    return found


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _refuse(name: str, expected: str, value: object) -> NoReturn:
    msg = f"{name} of a health check must be {expected}, not {value!r}"
    raise InvalidSettings(msg)
