"""How many results make a status: the core of health checks, without time of its own and without I/O."""

from __future__ import annotations

from collections.abc import Iterable

from twisted_etcd.registry.instance import Status

_SEVERITY = {Status.PASSING: 0, Status.WARNING: 1, Status.CRITICAL: 2}


def worst(statuses: Iterable[Status]) -> Status:
    """The status of something that is looked at in several ways; ``PASSING`` where there are none."""
    return max(statuses, key=_SEVERITY.__getitem__, default=Status.PASSING)


class Thresholds:
    """
    The status of one check, by the results that came so far.

    It is ``CRITICAL`` after ``fall`` failures in a row, and ``WARNING`` from the first of them on. After that it takes
    ``rise`` successes in a row until it is ``PASSING`` again. A warning is neither: it ends a row of failures, and with
    ``rise`` looks in a row that did not fail, one that was ``CRITICAL`` is ``WARNING``. Before the first failure a
    single look that does not fail is enough.

    :param initial: the status before the first result.
    :param since: when that began.
    :ivar status: by now.
    :ivar critical_since: since when it is ``CRITICAL`` in one go; None where it is not.
    """

    def __init__(self, *, rise: int, fall: int, initial: Status, since: float) -> None:
        self._rise = rise
        self._fall = fall
        #: Of results, up to the last: failures in a row, looks without one, and successes.
        self._failed = self._unfailed = self._passed = 0
        self._fresh = True
        self.status = initial
        self.critical_since = since if initial is Status.CRITICAL else None

    def passed(self, at: float) -> Status:
        """A look found that all is well."""
        self._failed = 0
        self._unfailed += 1
        self._passed += 1
        if self._passed >= self._needed:
            return self._become(Status.PASSING, at)
        return self._served(at)

    def warned(self, at: float) -> Status:
        """A look found that it serves, and complains."""
        self._failed = self._passed = 0
        self._unfailed += 1
        if self.status is Status.PASSING:
            return self._become(Status.WARNING, at)
        return self._served(at)

    def failed(self, at: float) -> Status:
        """A look found that it does not serve."""
        self._failed += 1
        self._unfailed = self._passed = 0
        self._fresh = False
        if self._failed >= self._fall:
            return self._become(Status.CRITICAL, at)
        if self.status is Status.PASSING:
            return self._become(Status.WARNING, at)
        return self.status

    def told(self, status: Status, at: float) -> Status:
        """A look found this."""
        tell = {Status.PASSING: self.passed, Status.WARNING: self.warned, Status.CRITICAL: self.failed}
        return tell[status](at)

    @property
    def _needed(self) -> int:
        return 1 if self._fresh else self._rise

    def _served(self, at: float) -> Status:
        if self.status is Status.CRITICAL and self._unfailed >= self._needed:
            return self._become(Status.WARNING, at)
        return self.status

    def _become(self, status: Status, at: float) -> Status:
        if status is not Status.CRITICAL:
            self.critical_since = None
        elif self.critical_since is None:
            self.critical_since = at
        self.status = status
        return status
