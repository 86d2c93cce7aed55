"""Something that happens once, for any number of listeners before and after."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure

ValueT = TypeVar("ValueT")


class Moment(Generic[ValueT]):
    """
    Hands each listener a Deferred of its own, so that one of them cannot change what the next one gets, and an error
    that nobody listens for is no unhandled one.
    """

    __slots__ = ("_failure", "_listeners", "_value", "happened")

    def __init__(self) -> None:
        self._value: ValueT | None = None
        self._failure: Failure | None = None
        #: None while nobody listens, as to most of a client's many moments.
        self._listeners: list[Deferred[ValueT]] | None = None
        self.happened = False

    @property
    def is_awaited(self) -> bool:
        """Whether somebody waits for it."""
        return bool(self._listeners)

    def wait(self) -> Deferred[ValueT]:
        """Fires when it happens, at once where it has."""
        if self._failure is not None:
            return fail(Failure(self._failure.value))
        if self.happened:
            return succeed(self._value)  # type: ignore[arg-type]
        deferred: Deferred[ValueT] = Deferred(self._forget)
        if self._listeners is None:
            self._listeners = []
        self._listeners.append(deferred)
        return deferred

    def fire(self, value: ValueT) -> None:
        """It happened; a second time is ignored."""
        if not self.happened:
            self.happened = True
            self._value = value
            self._tell(lambda deferred: deferred.callback(value))

    def fail(self, failure: Failure) -> None:
        """It will not happen, and this is why; ignored after it has happened."""
        if not self.happened:
            self.happened = True
            self._failure = failure
            self._tell(lambda deferred: deferred.errback(Failure(failure.value)))

    def _tell(self, fire: Callable[[Deferred[ValueT]], None]) -> None:
        listeners, self._listeners = self._listeners, None
        for deferred in listeners or ():
            # One that fires can cancel those behind it.
            if not deferred.called:
                fire(deferred)

    def _forget(self, deferred: Deferred[ValueT]) -> None:
        left = [listener for listener in self._listeners or () if listener is not deferred]
        self._listeners = left or None
