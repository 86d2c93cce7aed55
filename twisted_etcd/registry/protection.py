"""What is done where many instances of a service vanish at once. Pure: the time is given."""

from __future__ import annotations

import math
from collections.abc import Container, Mapping
from numbers import Real
from typing import Generic, TypeVar

import msgspec

from twisted_etcd.errors import InvalidSettings

InstanceT = TypeVar("InstanceT")


class Protection(msgspec.Struct, frozen=True, kw_only=True):
    """
    Holds back a sudden disappearance: where more than a share of a service's instances vanish within a window, those
    that vanished stay in the view.

    It is for leases that expire all together, as after an etcd that was away for longer than their TTL, while the
    instances themselves are well. It does not see the difference to instances that are taken back in such numbers:
    these stay too, for as long as it lasts.

    :ivar share: of all the instances that there were; more than that has to vanish. 0 holds back each one that does,
        1 none.
    :ivar window: seconds within which they vanish.
    :ivar hold: seconds that they stay at most.
    """

    share: float = 0.5
    window: float = 10.0
    hold: float = 60.0

    def __post_init__(self) -> None:
        for what, number in (("share", self.share), ("window", self.window), ("hold", self.hold)):
            if not isinstance(number, Real) or isinstance(number, bool):
                msg = f"{what} of a Protection must be a number, not {type(number).__name__}"
                raise TypeError(msg)
            if not 0 <= number < math.inf:
                msg = f"{what} of a Protection must not be negative or without end, and is {number!r}"
                raise InvalidSettings(msg)
        if self.share > 1:
            msg = f"share of a Protection is from 0 to 1, 0.5 for a half, not {self.share!r}"
            raise InvalidSettings(msg)


class HoldBack(Generic[InstanceT]):
    """
    What is held back of one service, by its keys.

    It ends when all that vanished are there again; or so many that no more than the share is missing, when those that
    are still missing go; or when they have been held for long enough.

    :ivar held: what vanished and stays.
    :ivar until: when that ends at the latest; None where nothing is held back.
    """

    def __init__(self, protection: Protection) -> None:
        self._protection = protection
        self._recent: dict[bytes, tuple[float, InstanceT]] = {}
        self.held: dict[bytes, InstanceT] = {}
        self.until: float | None = None

    def changed(self, now: float, present: Mapping[bytes, InstanceT], gone: Mapping[bytes, InstanceT]) -> None:
        """
        Take what happened.

        :param present: all that are there now.
        :param gone: those that were there before, and are not now.
        """
        if self.until is not None and now >= self.until:
            self.release()
        if self.until is None:
            self._vanish(now, present, gone)
            return
        self.held = _without(self.held, present)
        self.held.update(gone)
        if not self._is_much(len(self.held), len(present)):
            self.release()

    def _vanish(self, now: float, present: Mapping[bytes, InstanceT], gone: Mapping[bytes, InstanceT]) -> None:
        begin = now - self._protection.window
        self._recent = {
            key: (when, instance)
            for key, (when, instance) in self._recent.items()
            if when >= begin and key not in present
        }
        self._recent.update((key, (now, instance)) for key, instance in gone.items())
        if self._is_much(len(self._recent), len(present)):
            self.held = {key: instance for key, (_, instance) in self._recent.items()}
            self.until = now + self._protection.hold
            self._recent = {}

    @property
    def seconds(self) -> float:
        """How long something is held back at most."""
        return self._protection.hold

    def _is_much(self, missing: int, present: int) -> bool:
        return missing > self._protection.share * (missing + present)

    def release(self) -> None:
        """Hold back nothing any more."""
        self.held = {}
        self.until = None
        self._recent = {}


def _without(held: Mapping[bytes, InstanceT], present: Container[bytes]) -> dict[bytes, InstanceT]:
    return {key: instance for key, instance in held.items() if key not in present}
