"""Those who are told of changes, each at its own pace."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import CoroutineType, TracebackType
from typing import Any

import msgspec
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from twisted_etcd.config.changes import ConfigChange, ConfigChanges
from twisted_etcd.config.paths import checked_key, is_below
from twisted_etcd.config.quiescence import Quiescence, Quiet
from twisted_etcd.errors import InvalidSettings, ServiceStopped
from twisted_etcd.listeners import call_back

#: Told changes; may return a Deferred or be ``async def``.
ChangesCallback = Callable[[ConfigChanges], object]


class Wanted(msgspec.Struct, frozen=True):
    """
    Which keys are wanted.

    :ivar keys: these; None for all that are in or below ``root``.
    :ivar root: a path; empty for everything.
    """

    keys: frozenset[str] | None = None
    root: str = ""

    def __contains__(self, path: str) -> bool:
        return is_below(path, self.root) if self.keys is None else path in self.keys


def wanted_keys(key: str | None, prefix: str | None) -> Wanted:
    """
    One key, what is at and below a path, or everything.

    :raises InvalidSettings: for both of them, or an empty one.
    """
    if key is not None and prefix is not None:
        msg = f"key={key!r} and prefix={prefix!r} contradict each other: give one of them"
        raise InvalidSettings(msg)
    if key is not None:
        return Wanted(frozenset({checked_key(key)}))
    return Wanted(root="" if prefix is None else checked_key(prefix))


class ConfigListener:
    """
    A callback that is told of changes; made by ``config.on_change``.

    While it waits for what the callback returned, changes go on being gathered. What the callback raises is logged.
    """

    def __init__(
        self,
        clock: IReactorTime,
        wanted: Wanted,
        quiet: Quiet,
        callback: ChangesCallback,
        listeners: list[Any],
    ) -> None:
        self._wanted = wanted
        self._callback = callback
        self._quiescence = Quiescence(clock, quiet, self._call)
        self._working: Deferred[Any] | None = None
        self._coroutine: CoroutineType[Any, Any, Any] | None = None
        self._listeners = listeners
        listeners.append(self)

    def stop(self) -> None:
        """Tell it nothing more; what was gathered is dropped, and what the callback is at goes on to its end."""
        self._quiescence.stop()
        if self in self._listeners:
            self._listeners.remove(self)

    # --- for Config -------------------------------------------------------------------------------------------------

    def tell(self, changes: Iterable[ConfigChange]) -> None:
        """These happened."""
        self._quiescence.add(change for change in changes if change.key in self._wanted)

    def end(self) -> None:
        """Tell it nothing more, and cancel what the callback waits for."""
        self.stop()
        # What runs cannot be cancelled: it is this very callback that ends everything.
        if self._working is not None and not (self._coroutine is not None and self._coroutine.cr_running):
            self._working.cancel()

    def _call(self, changes: ConfigChanges) -> None:
        self._quiescence.hold()
        self._working = call_back("changes of configuration", self._called, changes)
        if self._working is None:
            self._done(None)
        else:
            self._working.addBoth(self._done)

    def _called(self, changes: ConfigChanges) -> object:
        result = self._callback(changes)
        self._coroutine = result if isinstance(result, CoroutineType) else None
        return result

    def _done(self, _: object) -> None:
        self._working = self._coroutine = None
        self._quiescence.release()


class ConfigChangeStream:
    """
    Changes to be taken one :class:`ConfigChanges` after the other, with :meth:`next` or ``async for``.

    While nobody takes them they are gathered, so that a slow consumer gets fewer of them, and never an old state.
    """

    def __init__(self, clock: IReactorTime, wanted: Wanted, quiet: Quiet, listeners: list[Any]) -> None:
        self._wanted = wanted
        self._quiescence = Quiescence(clock, quiet, self._hand_over)
        self._quiescence.hold()
        self._waiting: Deferred[ConfigChanges] | None = None
        self._ended: Exception | None = None
        self._listeners = listeners
        listeners.append(self)

    def next(self) -> Deferred[ConfigChanges]:
        """
        The changes since the last ones, when there are some. Ask for one at a time.

        :raises ServiceStopped: the configuration, or this, was stopped.
        :raises RuntimeError: somebody waits for the next ones already.
        """
        if self._ended is not None:
            return fail(self._ended)
        if self._waiting is not None:
            msg = "the next changes of this stream are being waited for already: make another one with config.changes()"
            raise RuntimeError(msg)
        waiting = self._waiting = Deferred(self._wait_no_longer)
        self._quiescence.release()
        return waiting

    def stop(self) -> None:
        """Take nothing more; who waits gets ``ServiceStopped``, and ``async for`` ends."""
        self._end(ServiceStopped("no more changes of configuration are told: the stream was stopped"))

    def __aiter__(self) -> ConfigChangeStream:
        return self

    async def __anext__(self) -> ConfigChanges:
        try:
            return await self.next()
        except ServiceStopped:
            raise StopAsyncIteration from None

    async def __aenter__(self) -> ConfigChangeStream:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    # --- for Config -------------------------------------------------------------------------------------------------

    def tell(self, changes: Iterable[ConfigChange]) -> None:
        """These happened."""
        self._quiescence.add(change for change in changes if change.key in self._wanted)

    def end(self) -> None:
        """Configuration was stopped."""
        self._end(ServiceStopped("no more changes of configuration are told: it was stopped"))

    def _end(self, reason: Exception) -> None:
        if self._ended is not None:
            return
        self._ended = reason
        self._quiescence.stop()
        if self in self._listeners:
            self._listeners.remove(self)
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.errback(Failure(reason))

    def _wait_no_longer(self, _: Deferred[ConfigChanges]) -> None:
        self._waiting = None
        self._quiescence.hold()

    def _hand_over(self, changes: ConfigChanges) -> None:
        waiting, self._waiting = self._waiting, None
        self._quiescence.hold()
        assert waiting is not None  # noqa: S101 - it is on hold otherwise
        waiting.callback(changes)
