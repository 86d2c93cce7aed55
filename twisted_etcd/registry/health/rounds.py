"""One check, looked at again and again."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from twisted_etcd.moment import Moment
from twisted_etcd.registry.health.result import Check, CheckResult, failing, shortened

#: Seconds: the first look of each check comes at a random moment of these.
FIRST_WITHIN = 1.0
#: How much of the interval is random, to both sides.
_SPREAD = 0.1


class Rounds:
    """
    Looks every ``interval`` seconds, one look at a time, each of them within ``timeout`` seconds.

    A look that does not end after it was cancelled counts as a failure every ``interval``.

    :param random: gives numbers from 0 up to 1.
    :param found: called with each result.
    """

    def __init__(
        self,
        clock: IReactorTime,
        check: Check,
        *,
        interval: float,
        timeout: float,
        random: Callable[[], float],
        found: Callable[[CheckResult], None],
    ) -> None:
        self._clock = clock
        self._check = check
        self._interval = interval
        self._timeout = timeout
        self._random = random
        self._found = found
        #: The look that is under way, until it is cancelled.
        self._looking: Deferred[None] | None = None
        self._under_way = False
        #: Whether its result counts.
        self._awaited = False
        self._next: IDelayedCall | None = None
        self._over_time: IDelayedCall | None = None
        self._due = 0.0
        self._stopped: Moment[None] | None = None

    def start(self) -> None:
        """Begin, once, with a look at a random moment of the first second."""
        self._next = self._clock.callLater(self._random() * min(FIRST_WITHIN, self._interval), self._look)

    def stop(self) -> Deferred[None]:
        """Cancel the look that is under way; fires when nothing of it is left. May be called again."""
        if self._stopped is None:
            stopped: Moment[None] = Moment()
            self._stopped = stopped
            self._cancel_calls()
            self._awaited = False
            if self._under_way:
                self._cancel()
            else:
                stopped.fire(None)
        return self._stopped.wait()

    def _cancel_calls(self) -> None:
        for call in (self._next, self._over_time):
            if call is not None and call.active():
                call.cancel()
        self._next = self._over_time = None

    def _cancel(self) -> None:
        looking, self._looking = self._looking, None
        if looking is not None:
            looking.cancel()

    def _look(self) -> None:
        self._next = None
        self._due = self._clock.seconds() + self._wait()
        self._under_way = self._awaited = True
        self._over_time = self._clock.callLater(self._timeout, self._late)
        looking: Deferred[CheckResult] = maybeDeferred(self._check.check)
        looked = looking.addBoth(self._looked)
        if self._under_way:
            self._looking = looked
            if self._stopped is not None:
                # By the check itself.
                self._cancel()

    def _wait(self) -> float:
        return self._interval * (1 + _SPREAD * (2 * self._random() - 1))

    def _late(self) -> None:
        self._awaited = False
        self._over_time = self._clock.callLater(self._interval, self._stuck)
        self._cancel()
        self._found(failing(f"no result within {self._timeout:g} s"))

    def _stuck(self) -> None:
        self._over_time = self._clock.callLater(self._interval, self._stuck)
        self._found(failing("the last look was cancelled and has not ended"))

    def _looked(self, result: CheckResult | Failure) -> None:
        awaited = self._awaited
        self._under_way = self._awaited = False
        self._looking = None
        self._cancel_calls()
        if self._stopped is not None:
            self._stopped.fire(None)
            return
        self._next = self._clock.callLater(max(0.0, self._due - self._clock.seconds()), self._look)
        if awaited:
            self._found(_result(result))


def _result(found: object) -> CheckResult:
    if isinstance(found, Failure):
        return failing(shortened(f"{found.value.__class__.__name__}: {found.getErrorMessage()}"))
    if isinstance(found, CheckResult):
        return found
    return failing(f"the check gave a {type(found).__name__} in place of a CheckResult")
