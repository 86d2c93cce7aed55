"""Checks and registrations in the hands of a test."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock

from twisted_etcd.registry.health.health import Health
from twisted_etcd.registry.health.monitor import HealthMonitor
from twisted_etcd.registry.health.result import CheckResult
from twisted_etcd.registry.instance import Status

PASSING, WARNING, CRITICAL = Status


class ScriptedCheck:
    """
    A check whose looks wait until the test ends them.

    :ivar looks: those under way and those that have ended.
    :ivar cancelled: how many were cancelled.
    :ivar holds_on: whether a look goes on after it was cancelled, until the test ends it.
    """

    def __init__(self, name: str = "check") -> None:
        self.looks: list[Deferred[CheckResult]] = []
        self.cancelled = 0
        self.holds_on = False
        self.during: Callable[[], object] = lambda: None
        self._name = name

    def __repr__(self) -> str:
        return f"<{self._name}>"

    def check(self) -> Deferred[CheckResult]:
        if not self.holds_on:
            look: Deferred[CheckResult] = Deferred(self._cancel)
            self.looks.append(look)
            self.during()
            return look
        ending: Deferred[CheckResult] = Deferred(self._cancel)
        ending.addErrback(self._held)
        self.looks.append(Deferred())
        return ending

    def _cancel(self, _: object) -> None:
        self.cancelled += 1

    def _held(self, _: object) -> Deferred[CheckResult]:
        return self.looks[-1]

    def ends(self, status: Status = PASSING, why: str = "so it is") -> None:
        """The look that is under way finds this."""
        self.looks[-1].callback(CheckResult(status, why))


class SteadyCheck:
    """A check that finds the same until told otherwise."""

    def __init__(self, status: Status = PASSING, name: str = "steady") -> None:
        self.status = status
        self.looks = 0
        self._name = name

    def __repr__(self) -> str:
        return f"<{self._name}>"

    def check(self) -> Deferred[CheckResult]:
        self.looks += 1
        return succeed(CheckResult(self.status, f"look {self.looks}"))


class Registered:
    """
    A registration that keeps what it was told.

    :ivar told: the calls, in their order.
    :ivar answers: what the next calls come to: an error, or a Deferred; after them, all goes well.
    """

    def __init__(self) -> None:
        self.told: list[str] = []
        self.answers: list[Exception | Deferred[None]] = []
        self.during: Callable[[], object] = lambda: None

    def _called(self, call: str) -> Deferred[None]:
        self.told.append(call)
        self.during()
        answer = self.answers.pop(0) if self.answers else succeed(None)
        return answer if isinstance(answer, Deferred) else fail(answer)

    def withhold(self) -> Deferred[None]:
        return self._called("withhold")

    def offer(self) -> Deferred[None]:
        return self._called("offer")

    def update(self, *, status: Status) -> Deferred[None]:
        return self._called(f"update {status.value}")

    def take_back(self) -> Deferred[None]:
        return self._called("take back")


class Monitored:
    """
    A monitor with a clock, whose looks come exactly every ``interval``, the first after half a second.

    :ivar changes: what the callback was told.
    """

    def __init__(self, *checks: Any, healths: Iterable[Health] = (), **options: Any) -> None:  # noqa: ANN401 - as Health
        self.clock = Clock()
        self.registered = Registered()
        self.changes: list[tuple[Status, Status | None, str]] = []
        self.during_changed: Callable[[], object] = lambda: None
        given = {"interval": 10.0, "timeout": 4.0, **options}
        self.monitor = HealthMonitor(
            self.clock,
            self.registered,
            tuple(healths) or Health(checks, **given),
            name="shop at 10.0.0.7:80",
            random=lambda: 0.5,
            changed=self._changed,
        )

    def _changed(self, monitor: HealthMonitor, old: Status, new: Status | None, why: str) -> None:
        assert monitor is self.monitor
        self.changes.append((old, new, why))
        self.during_changed()

    def start(self) -> None:
        """Start it, and let the first looks begin."""
        self.monitor.start()
        self.clock.advance(0.5)

    def pass_by(self, seconds: float, step: float = 0.5) -> None:
        """Let time pass, a step at a time."""
        until = self.clock.seconds() + seconds
        while self.clock.seconds() < until:
            self.clock.advance(min(step, until - self.clock.seconds()))
