"""A watch as its user sees it: what has arrived, and how it is handed on."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Protocol

from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_etcd.client.backlog import Backlog
from twisted_etcd.client.position import WatchBatch
from twisted_etcd.errors import ServiceStopped, WatchStopped
from twisted_etcd.listeners import Listeners
from twisted_etcd.moment import Moment

#: What a callback gives back that has not done with its batch yet.
_Waits = Deferred[Any] | Coroutine[Deferred[Any], Any, Any]
WatchCallback = Callable[[WatchBatch], _Waits | None]


class Feed(Protocol):
    """Where a watch's batches come from."""

    def pause(self) -> None:
        """Let nothing more come for now."""

    def resume(self) -> None:
        """Go on where it was paused."""

    def stop(self) -> Deferred[None]:
        """Let nothing more come; fires when etcd has been told so, or cannot be told."""


class Watch:
    """
    Follows a key or a range.

    Take what it delivers in one of three ways: a callback, :meth:`next`, or ``async for``. It goes on through broken
    connections and failing members, with no event lost or repeated, until it is stopped or cannot go on; then
    :meth:`next`, the loop and :attr:`ended` say why.

    :param callback: called with each batch; where it returns a Deferred or a coroutine, the next batch waits for it.
        Where it fails, the watch ends with its error. What ends such a watch, other than its ``stop()`` and the
        client's, is logged, since nobody may be looking at :attr:`ended`.
    :param max_backlog: events that may wait for their consumer. Beyond that, or beyond 64 MiB of keys and values, the
        watch is taken off its stream, and put back, at the revision where it was taken off, when they have been
        consumed.
    :param watches: those of the client, which it leaves when it has ended.
    """

    __slots__ = (
        "__weakref__",
        "_backlog",
        "_callback",
        "_describe",
        "_ended",
        "_feed",
        "_handing_on",
        "_interrupted",
        "_interruptions",
        "_paused",
        "_ready",
        "_reason",
        "_translations",
        "_waiting",
        "_watches",
    )

    _log = Logger()

    def __init__(
        self,
        describe: str,
        callback: WatchCallback | None,
        max_backlog: int,
        watches: set[Watch] | None = None,
    ) -> None:
        self._describe = describe
        self._callback = callback
        self._feed: Feed | None = None
        self._backlog = Backlog(max_backlog)
        self._paused = False
        self._handing_on = False
        #: None where nobody waits.
        self._waiting: list[Deferred[WatchBatch]] | None = None
        self._watches = watches
        self._translations: tuple[Callable[[WatchBatch], WatchBatch], ...] = ()
        self._reason: Failure | None = None
        self._interrupted = False
        #: None where nobody wants to know, as of most watches.
        self._interruptions: Listeners[bool] | None = None
        self._ready: Moment[int] = Moment()
        self._ended: Moment[None] = Moment()

    def __repr__(self) -> str:
        state = "ended" if self._reason else "ready" if self._ready.happened else "not confirmed yet"
        return f"<Watch of {self._describe}, {state}>"

    # --- for its user -----------------------------------------------------------------------------------------------

    @property
    def ready(self) -> Deferred[int]:
        """
        A new Deferred that fires when etcd has confirmed the watch, with the store's revision then; it fails with what
        ended the watch, where that came first.
        """
        return self._ready.wait()

    @property
    def ended(self) -> Deferred[None]:
        """A new Deferred that fires with None after :meth:`stop`, and fails with anything else that ended the watch."""
        return self._ended.wait()

    @property
    def interrupted(self) -> bool:
        """
        Whether nothing is heard from etcd just now: the watch's stream broke, its member was left since it hung or had
        no leader, or a stream could not be opened. It goes on by itself, and has missed nothing then.

        It ends with etcd's confirmation on another stream, which what happened meanwhile follows. A watch that is off
        its stream because its consumer is slow is not interrupted by that: what it misses is the consumer's to take.
        """
        return self._interrupted

    def on_interruption(self, callback: Callable[[bool], object]) -> Callable[[], None]:
        """
        Have :attr:`interrupted` told when it changes; what the callback raises is logged and ends nothing.

        :return: call it to be told no longer.
        """
        if self._interruptions is None:
            self._interruptions = Listeners(f"an interruption of {self._describe}")
        return self._interruptions.add(callback)

    def next(self) -> Deferred[WatchBatch]:
        """
        The next batch, when there is one.

        :raises WatchStopped: after :meth:`stop`.
        :raises Compacted: the wanted revision is no longer kept.
        :raises WatchEnded: etcd cancelled the watch, or another cluster answers.
        :raises ServiceStopped: the client was stopped.
        """
        if self._callback is not None:
            msg = "this watch hands its batches to a callback; give none to use next() or async for"
            raise RuntimeError(msg)
        if self._backlog:
            batch = self._take()
            self._close_if_handed_on()
            return succeed(batch)
        if self._reason is not None:
            return fail(Failure(self._reason.value))
        if self._waiting is None:
            self._waiting = []
        deferred: Deferred[WatchBatch] = Deferred(self._waiting.remove)
        self._waiting.append(deferred)
        return deferred

    def __aiter__(self) -> Watch:
        return self

    async def __anext__(self) -> WatchBatch:
        try:
            return await self.next()
        except WatchStopped:
            raise StopAsyncIteration from None

    async def __aenter__(self) -> Watch:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # A coroutine that is thrown away, as at the end of a program that was interrupted, can wait for nothing.
        if exc_type is not GeneratorExit:
            await self.stop()

    def stop(self) -> Deferred[None]:
        """
        End the watch. What had arrived and was not taken yet is dropped, and nothing is delivered any more.

        :return: fires when etcd was told so as well, or cannot be told.
        """
        return self.end(Failure(WatchStopped("the watch was stopped")))

    # --- for who makes it for others --------------------------------------------------------------------------------

    def translate(self, translation: Callable[[WatchBatch], WatchBatch]) -> None:
        """
        Have each batch changed on its way to the consumer, before anything has arrived.

        :param translation: gives the batch to hand on; where there are several, it gets what the one before gives.
        """
        self._translations = (*self._translations, translation)

    # --- for its feed -----------------------------------------------------------------------------------------------

    def begin(self, feed: Feed) -> None:
        """Take the batches from there."""
        self._feed = feed

    def confirmed(self, revision: int) -> None:
        """etcd has created the watch, on its first stream or on another."""
        self._ready.fire(revision)
        self._interrupt(False)

    def broke(self) -> None:
        """Nothing comes until etcd has created it once more."""
        self._interrupt(True)

    def _interrupt(self, interrupted: bool) -> None:  # noqa: FBT001
        if self._reason is None and self._interrupted is not interrupted:
            self._interrupted = interrupted
            if self._interruptions is not None:
                self._interruptions.tell(interrupted)

    def deliver(self, batch: WatchBatch) -> None:
        """Something arrived."""
        if self._reason is not None:
            return
        for translation in self._translations:
            batch = translation(batch)
        if self._callback is not None and not self._handing_on:
            # Nothing waits before it.
            self._hand_on(self._callback, batch)
            return
        if self._waiting:
            self._waiting.pop(0).callback(batch)
            return
        self._backlog.append(batch)
        if self._backlog.is_too_long and not self._paused and self._feed is not None:
            self._paused = True
            self._feed.pause()

    def finished(self, reason: Failure) -> None:
        """Nothing more will arrive; what has arrived is still handed on, and the reason after it."""
        if self._reason is None:
            self._reason = reason
            if self._callback is not None and not reason.check(ServiceStopped):
                self._log.warn("{watch!r} has ended: {why}", watch=self, why=str(reason.value))
            self._close_if_handed_on()

    def end(self, reason: Failure) -> Deferred[None]:
        """End it now, for this reason, unless it has another already."""
        self._backlog.clear()
        if self._reason is None:
            self._reason = reason
        self._close(self._reason)
        return self._feed.stop() if self._feed is not None else succeed(None)

    # --- handing on -------------------------------------------------------------------------------------------------

    def _take(self) -> WatchBatch:
        batch = self._backlog.take()
        if self._reason is None and self._paused and not self._backlog and self._feed is not None:
            self._paused = False
            self._feed.resume()
        return batch

    def _hand_on(self, callback: WatchCallback, batch: WatchBatch) -> None:
        """Hand on this batch, and what comes meanwhile."""
        self._handing_on = True
        try:
            result = callback(batch)
            while result is None and self._backlog:
                result = callback(self._take())
        except BaseException:  # noqa: BLE001 it ends the watch, as that of a callback that waits does
            self._handing_on = False
            self._callback_failed(Failure())
            return
        if result is None:
            self._handing_on = False
            self._close_if_handed_on()
        else:
            going_on = Deferred.fromCoroutine(self._go_on(callback, result))
            going_on.addErrback(self._callback_failed)

    async def _go_on(self, callback: WatchCallback, result: _Waits | None) -> None:
        """Wait for what the callback waits for, and hand on what has come meanwhile."""
        try:
            while True:
                if result is not None:
                    await result
                if not self._backlog:
                    break
                result = callback(self._take())
        finally:
            self._handing_on = False
        self._close_if_handed_on()

    def _callback_failed(self, failure: Failure) -> None:
        self._log.failure("The callback of {watch!r} failed, which ends the watch.", failure, watch=self)
        self.end(failure)

    def _close_if_handed_on(self) -> None:
        if self._reason is not None and not self._backlog and not self._handing_on:
            self._close(self._reason)

    def _close(self, reason: Failure) -> None:
        if self._watches is not None:
            self._watches.discard(self)
        self._ready.fail(reason)
        if reason.check(WatchStopped):
            self._ended.fire(None)
        else:
            self._ended.fail(reason)
        while self._waiting:
            self._waiting.pop(0).errback(Failure(reason.value))
