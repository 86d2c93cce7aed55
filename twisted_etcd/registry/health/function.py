"""A check that calls a function, and one that waits to be called."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IReactorTime

from twisted_etcd.errors import InvalidSettings
from twisted_etcd.registry.health.result import CheckResult, failing, passing, shortened
from twisted_etcd.registry.instance import Status


def judged(answer: object) -> CheckResult:
    """
    What an answer means: ``None`` and ``True`` pass, ``False`` fails; a status and a result say it themselves.

    Anything else fails, too: it was meant to say something.
    """
    if isinstance(answer, CheckResult):
        return answer
    if isinstance(answer, Status):
        return CheckResult(answer, "it said so")
    if answer is None or answer is True:
        return passing()
    if answer is False:
        return failing("it said False")
    return failing(f"it returned a {type(answer).__name__}; return a bool, None, a Status or a CheckResult")


class CallableCheck:
    """
    Calls a function, which may return a Deferred or be ``async def``.

    ``None`` and ``True`` pass; ``False`` and an exception fail; a :class:`~twisted_etcd.registry.instance.Status` and
    a :class:`~twisted_etcd.registry.health.result.CheckResult` say it themselves. The words of an exception, or of a
    result, stand in the log.

    :param name: that it has in the log; the function's own unless given.
    :raises TypeError: for what cannot be called.
    """

    def __init__(self, function: Callable[[], object], *, name: str = "") -> None:
        if not callable(function):
            msg = f"a function is needed that takes no argument, not {type(function).__name__}"
            raise TypeError(msg)
        self._function = function
        self._name = name or getattr(function, "__qualname__", type(function).__qualname__)

    def __repr__(self) -> str:
        return f"<CallableCheck {self._name}>"

    def check(self) -> Deferred[CheckResult]:
        """Look once, see :class:`~twisted_etcd.registry.health.result.Check`."""
        return Deferred.fromCoroutine(self._check())

    async def _check(self) -> CheckResult:
        try:
            calling: Deferred[Any] = maybeDeferred(self._function)
            answer = await calling
        except CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it raises, it does not serve
            return failing(shortened(f"{type(error).__name__}: {error}"))
        return judged(answer)


class TTLCheck:
    """
    Waits to be told: the program itself says that all is well, again and again, and what is not said in time fails.

    :param ttl: seconds after which a word is too old. The monitor looks every ``interval``.
    :raises InvalidSettings: where that is not more than 0.
    """

    def __init__(self, reactor: IReactorTime, ttl: float) -> None:
        if not ttl > 0:
            msg = f"a TTL is a number of seconds greater than 0, not {ttl!r}"
            raise InvalidSettings(msg)
        self._clock = reactor
        self._ttl = ttl
        self._told: CheckResult | None = None
        self._at = 0.0

    def __repr__(self) -> str:
        return f"<TTLCheck {self._ttl:g} s>"

    def tell(self, status: Status = Status.PASSING, why: str = "") -> None:
        """Say how it is. The words stand in the log."""
        self._told = CheckResult(status, shortened(why))
        self._at = self._clock.seconds()

    def check(self) -> Deferred[CheckResult]:
        """Look once, see :class:`~twisted_etcd.registry.health.result.Check`."""
        if self._told is None:
            return succeed(failing("nothing was said yet"))
        silent = self._clock.seconds() - self._at
        if silent > self._ttl:
            return succeed(failing(f"nothing was said for {silent:.0f} seconds"))
        return succeed(self._told)
