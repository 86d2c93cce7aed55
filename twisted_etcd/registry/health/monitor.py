"""Looks after the health of a registration, and puts its key into etcd and takes it out."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger, LogLevel

from twisted_etcd.errors import InvalidSettings
from twisted_etcd.listeners import call_back
from twisted_etcd.moment import Moment
from twisted_etcd.registry.health.health import Health
from twisted_etcd.registry.health.result import Check, CheckResult
from twisted_etcd.registry.health.rounds import Rounds
from twisted_etcd.registry.health.standing import Standing, Target
from twisted_etcd.registry.health.thresholds import Thresholds, worst
from twisted_etcd.registry.instance import Status

#: Told with the monitor, the status before and after, and why. It is None after the registration was taken back.
StatusCallback = Callable[["HealthMonitor", Status, "Status | None", str], object]


class HealthMonitor:
    """
    Makes the checks of one registration, and tells it what comes of them.

    While it is ``PASSING`` or ``WARNING`` the registration is offered, while it is ``CRITICAL`` withheld, and after
    ``deregister_after`` seconds of one check that is ``CRITICAL`` it is taken back, and the monitor ends.

    :param target: the registration, which may be withheld or offered; the monitor sees to it as it starts.
    :param health: one, or several; of all their checks the worst counts.
    :param name: what is registered, for the log: ``shop at 10.0.0.7:80``.
    :param changed: called after each change of :attr:`status`: ``changed(monitor, old, new, why)``; with None for
        ``new`` after the registration was taken back.
    :param random: gives numbers from 0 up to 1; for the moments of the looks, and the waits between attempts.
    :ivar status: the worst of its checks'.
    :ivar why: what led to it: the check, and its words.
    :ivar deregistered: whether it was taken back because it was ``CRITICAL`` for too long.
    :raises InvalidSettings: where there is no health to look after.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        target: Target,
        health: Health | Iterable[Health],
        *,
        name: str,
        random: Callable[[], float] = random.random,
        changed: StatusCallback | None = None,
    ) -> None:
        healths = (health,) if isinstance(health, Health) else tuple(health)
        if not healths or not all(isinstance(each, Health) for each in healths):
            msg = f"the health of {name} is needed, such as Health([TCPCheck(reactor, host, port)])"
            raise InvalidSettings(msg)
        self.name = name
        self.deregistered = False
        self.why = "not looked at yet"
        self._clock = clock
        self._changed = changed
        self._watched = [_Watched(self, clock, each, check, random) for each in healths for check in each.checks]
        self.status = worst(each.status for each in self._watched)
        show_status = any(each.show_status for each in healths)
        self._standing = Standing(clock, target, name, random, show_status=show_status)
        self._started = False
        self._stopped: Moment[None] | None = None
        self._ended: Moment[None] = Moment()

    def __repr__(self) -> str:
        return f"<HealthMonitor of {self.name}: {self.status.value}, {self.why}>"

    @property
    def ended(self) -> Deferred[None]:
        """Fires when nothing is looked at any more: it was stopped, the registration taken back, or ended by itself."""
        return self._ended.wait()

    def start(self) -> None:
        """
        Begin to look, once: each check for the first time within a second.

        :raises RuntimeError: where it was started, or stopped, before.
        """
        if self._started:
            msg = f"{self!r} was started or stopped before; make a new one"
            raise RuntimeError(msg)
        self._started = True
        self._standing.begin(self.status).addCallback(self._registration_over)
        for each in self._watched:
            each.start()

    def stop(self) -> Deferred[None]:
        """
        Look no longer; the registration stays as it is.

        :return: fires when nothing is left: no check, and with it no process and no socket, no delayed call and no
            call to the registration. May be called again, and from a callback.
        """
        if self._stopped is None:
            stopped: Moment[None] = Moment()
            self._stopped = stopped
            self._started = True
            self._end(self._standing.stop())
        return self._stopped.wait()

    def _end(self, registration_over: Deferred[bool]) -> None:
        """Stop looking; it has ended when that is over, and the registration told."""
        ending: list[Deferred[Any]] = [each.stop() for each in self._watched]
        DeferredList([*ending, registration_over]).addCallback(self._all_over)

    def _all_over(self, _: object) -> None:
        self._ended.fire(None)
        if self._stopped is not None:
            self._stopped.fire(None)

    # --- what comes of it -------------------------------------------------------------------------------------------

    @property
    def _looking(self) -> bool:
        return self._stopped is None and not self.deregistered

    def found(self, check: Check, why: str) -> None:
        """A check has a result, and by it its status, which can be the one that it had."""
        self._log.debug("{name}: {check}: {why}", name=self.name, check=check, why=why)
        status = worst(each.status for each in self._watched)
        if status is self.status or not self._looking:
            return
        before, self.status, self.why = self.status, status, f"{check!r}: {why}"
        level = LogLevel.info if status is Status.PASSING else LogLevel.warn
        self._log.emit(
            level,
            "{name} is {status}, after {before}: {why}",
            name=self.name,
            status=status.value,
            before=before.value,
            why=self.why,
        )
        self._standing.wants(status)
        self._tell(before, status)

    def critical_too_long(self, check: Check, seconds: float) -> None:
        """A check was ``CRITICAL`` for so long that there is no hope."""
        if not self._looking:
            return
        self.deregistered = True
        self.why = f"{check!r} was critical for {seconds:g} seconds"
        self._log.warn("{name} is deregistered: {why}", name=self.name, why=self.why)
        self._end(self._standing.take_back())
        self._tell(self.status, None)

    def _registration_over(self, by_itself: bool) -> None:  # noqa: FBT001 - as it fires
        if by_itself and self._looking:
            self.why = "its registration has ended"
            self._log.info("{name} is looked at no longer: {why}", name=self.name, why=self.why)
            self.stop()

    def _tell(self, before: Status, status: Status | None) -> None:
        if self._changed is not None and self._stopped is None:
            call_back(f"the status of {self.name}", self._changed, self, before, status, self.why)


class _Watched:
    """One check of a monitor: its rounds, its thresholds, and the time after which there is no hope."""

    def __init__(
        self, monitor: HealthMonitor, clock: IReactorTime, health: Health, check: Check, random: Callable[[], float]
    ) -> None:
        self._monitor = monitor
        self._clock = clock
        self._health = health
        self._check = check
        self._thresholds = self._new_thresholds()
        self._hope: IDelayedCall | None = None
        self._rounds = Rounds(
            clock, check, interval=health.interval, timeout=health.timeout, random=random, found=self._found
        )

    def _new_thresholds(self) -> Thresholds:
        health = self._health
        return Thresholds(rise=health.rise, fall=health.fall, initial=health.initial, since=self._clock.seconds())

    @property
    def status(self) -> Status:
        return self._thresholds.status

    def start(self) -> None:
        # What was critical before the start does not count.
        self._thresholds = self._new_thresholds()
        self._see_to_hope()
        self._rounds.start()

    def stop(self) -> Deferred[None]:
        self._give_no_up()
        return self._rounds.stop()

    def _found(self, result: CheckResult) -> None:
        self._thresholds.told(result.status, self._clock.seconds())
        self._see_to_hope()
        self._monitor.found(self._check, result.why)

    def _see_to_hope(self) -> None:
        since, seconds = self._thresholds.critical_since, self._health.deregister_after
        if since is None or seconds is None:
            self._give_no_up()
        elif self._hope is None:
            self._hope = self._clock.callLater(seconds, self._give_up, seconds)

    def _give_no_up(self) -> None:
        hope, self._hope = self._hope, None
        if hope is not None and hope.active():
            hope.cancel()

    def _give_up(self, seconds: float) -> None:
        self._monitor.critical_too_long(self._check, seconds)
