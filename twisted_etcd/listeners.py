"""Those who want to be told of something, each time that it happens."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Generic, ParamSpec, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

ValueT = TypeVar("ValueT")
_P = ParamSpec("_P")

_log = Logger()


def call_back(what: str, callback: Callable[_P, object], *args: _P.args, **kwargs: _P.kwargs) -> Deferred[Any] | None:
    """
    Call what others gave to be called; what it raises is logged, and ends nothing.

    :param what: what it is told of, for the log: a noun.
    :return: fires, and does not fail, when a callback that returned a Deferred or a coroutine is done; None where it
        is done already.
    """
    try:
        result = callback(*args, **kwargs)
    except Exception:  # noqa: BLE001 - logged: it is not ours, and harms nobody else
        _log.failure("A callback that was told of {what} failed.", what=what)
        return None
    waiting: Deferred[Any]
    if isinstance(result, Deferred):
        waiting = result
    elif isinstance(result, Coroutine):
        waiting = Deferred.fromCoroutine(result)
    else:
        return None
    waiting.addErrback(_failed, what)
    return None if waiting.called and not waiting.paused else waiting


def _failed(failure: Failure, what: str) -> None:
    if not failure.check(CancelledError):
        _log.failure("A callback that was told of {what} failed.", failure, what=what)


class Listeners(Generic[ValueT]):
    """
    Callbacks that are told the same thing. One that fails is logged, and the others are told all the same.

    A callback may return a Deferred or be ``async def``; the next one is not held up by it.

    :param what: what they are told of, for the log: a noun.
    """

    __slots__ = ("_callbacks", "_next", "_what")

    def __init__(self, what: str) -> None:
        self._what = what
        self._callbacks: dict[int, Callable[[ValueT], object]] = {}
        self._next = 0

    def __len__(self) -> int:
        return len(self._callbacks)

    def add(self, callback: Callable[[ValueT], object]) -> Callable[[], None]:
        """
        Tell this one too.

        :return: call it, once or more often, to tell it no longer.
        :raises TypeError: for what cannot be called.
        """
        if not callable(callback):
            msg = f"who is told of {self._what} must be a function, not {type(callback).__name__}"
            raise TypeError(msg)
        number = self._next
        self._next += 1
        self._callbacks[number] = callback

        def take_away() -> None:
            self._callbacks.pop(number, None)

        return take_away

    def tell(self, value: ValueT) -> None:
        """Call them all, but for those that are taken away by one that is called before them."""
        for number in tuple(self._callbacks):
            callback = self._callbacks.get(number)
            if callback is not None:
                call_back(self._what, callback, value)
