"""Waiting until what was written is there to be read in this process."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

#: Seconds that a write waits at the most, where the watch is cut off just then.
PATIENCE = 5.0


class Settling:
    """
    Those who wait until they see what they have written.

    etcd answers a write, and tells of it by the watch, in either order.
    """

    _log = Logger()

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._waiting: list[tuple[Callable[[], bool], Deferred[None]]] = []
        self._stopped = False

    async def until(self, is_so: Callable[[], bool], key: str) -> None:
        """Wait until that is so, or for some seconds: the write is done in any case, and seen later."""
        if self._stopped or is_so():
            return
        deferred: Deferred[None] = Deferred(self._leave)
        self._waiting.append((is_so, deferred))
        timer = self._clock.callLater(PATIENCE, self._late, deferred, key)
        try:
            await deferred
        finally:
            if timer.active():
                timer.cancel()

    def look(self) -> None:
        """Something has changed."""
        for is_so, deferred in tuple(self._waiting):
            if is_so():
                self._fire(deferred)

    def stop(self) -> None:
        """Nothing will be seen any more, so that nobody waits."""
        self._stopped = True
        for _, deferred in tuple(self._waiting):
            self._fire(deferred)

    def _late(self, deferred: Deferred[None], key: str) -> None:
        self._log.warn("{key!r} was written, and etcd has not told of it yet: it will be seen later", key=key)
        self._fire(deferred)

    def _fire(self, deferred: Deferred[None]) -> None:
        self._leave(deferred)
        if not deferred.called:
            deferred.callback(None)

    def _leave(self, deferred: Deferred[None]) -> None:
        self._waiting = [waiting for waiting in self._waiting if waiting[1] is not deferred]
