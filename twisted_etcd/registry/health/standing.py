"""Has a registration stand as its health says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_etcd.backoff import Backoff
from twisted_etcd.errors import ServiceStopped, TwistedEtcdError
from twisted_etcd.moment import Moment
from twisted_etcd.registry.instance import Status

#: Seconds: the longest wait before the registration is told again what it could not be told.
_LONGEST_BACKOFF = 10.0


class Target(Protocol):
    """
    What is registered while it is healthy. Each call fires when it is done; one that fails is made again.

    There is one call at a time.
    """

    def withhold(self) -> Deferred[Any]:
        """Remove the key, and keep the wish for it; nothing where it is removed already."""

    def offer(self) -> Deferred[Any]:
        """Put the key; nothing where it is there."""

    def update(self, *, status: Status) -> Deferred[Any]:
        """Have the value say this; one that is withheld says so when it is put."""

    def take_back(self) -> Deferred[Any]:
        """Remove the key for good."""


class _Call(NamedTuple):
    """
    A call to the target.

    :ivar what: it does, for the log.
    :ivar begun: what is known of the target no longer.
    :ivar done: what is known of it then.
    """

    what: str
    make: Callable[[], Deferred[Any]]
    begun: Callable[[], None]
    done: Callable[[], None]
    last: bool = False


class Standing:
    """
    Tells the target what the last status asks for: one call at a time, and each until it works.

    :param name: what is registered, for the log.
    :param random: gives numbers from 0 up to 1; for the waits between attempts.
    :param show_status: whether the target's value is to say the status.
    """

    _log = Logger()

    def __init__(
        self, clock: IReactorTime, target: Target, name: str, random: Callable[[], float], *, show_status: bool
    ) -> None:
        self._clock = clock
        self._target = target
        self._name = name
        self._backoff = Backoff(random, longest=_LONGEST_BACKOFF)
        self._show_status = show_status
        #: What is wanted; None for nothing any more.
        self._wanted: Status | None = Status.CRITICAL
        #: What holds by now, as far as that is known.
        self._offered: bool | None = None
        self._shown: Status | None = None
        self._news: Moment[None] = Moment()
        self._running: Deferred[bool] | None = None
        self._over: Moment[bool] = Moment()
        #: Whether what runs must not be cancelled: the target is being called, so that nothing is waited for, or it is
        #: being taken back, which is not left half done.
        self._busy = False
        self._stopped = False

    def begin(self, status: Status) -> Deferred[bool]:
        """Begin with this; fires when all is over, with whether that was because the target has ended by itself."""
        self._wanted = status
        over = self._over.wait()
        running = Deferred.fromCoroutine(self._run())
        self._running = running
        running.addErrback(self._failed).addCallback(self._over.fire)
        return over

    def wants(self, status: Status) -> None:
        """The target is to be as this says."""
        self._wanted = status
        self._wake()

    def take_back(self) -> Deferred[bool]:
        """Take it back; fires when that is done."""
        self._wanted = None
        self._wake()
        return self._over.wait()

    def stop(self) -> Deferred[bool]:
        """Leave it as it is, but for a call to take it back that is under way; fires when nothing is."""
        self._stopped = True
        if not self._busy:
            if self._running is None:
                self._over.fire(False)
            else:
                self._running.cancel()
        return self._over.wait()

    def _wake(self) -> None:
        news, self._news = self._news, Moment()
        news.fire(None)

    def _failed(self, failure: Failure) -> bool:
        if not failure.check(CancelledError):
            self._log.failure("The registration of {name} hears of its health no longer", failure, name=self._name)
        return False

    async def _run(self) -> bool:
        while True:
            news = self._news
            call = self._next_call()
            if call is None:
                await news.wait()
                continue
            try:
                await self._make(call)
            except CancelledError:
                raise
            except ServiceStopped:
                return not call.last
            except Exception as error:  # noqa: BLE001 - whatever it is, the status is still to be told
                self._complain(call.what, error)
                if self._stopped:
                    return False
                await self._wait(news)
            else:
                self._backoff.reset()
                if call.last:
                    return False

    async def _make(self, call: _Call) -> None:
        call.begun()
        self._busy = True
        try:
            making: Deferred[Any] = maybeDeferred(call.make)
            if call.last:
                await making
                return
        finally:
            self._busy = False
        if self._stopped:
            # By what the target has called.
            making.addErrback(lambda _: None).cancel()
            raise CancelledError
        await making
        call.done()

    def _next_call(self) -> _Call | None:
        """What is to be done next; None where all is as it should be."""
        target, wanted = self._target, self._wanted
        if wanted is None:
            return _Call("take it back", target.take_back, self._offers, self._offers, last=True)
        if wanted is Status.CRITICAL:
            if self._offered is False:
                return None
            return _Call("withhold it", target.withhold, self._offers, lambda: self._offers(now=False))
        if self._show_status and self._shown is not wanted:
            # First of all, so that it never comes back with what was true before.
            return _Call(
                "show its status", lambda: target.update(status=wanted), self._shows, lambda: self._shows(wanted)
            )
        if self._offered is True:
            return None
        return _Call("offer it", target.offer, self._offers, lambda: self._offers(now=True))

    def _offers(self, *, now: bool | None = None) -> None:
        self._offered = now

    def _shows(self, now: Status | None = None) -> None:
        self._shown = now

    def _complain(self, what: str, error: Exception) -> None:
        """Say it once, until it works."""
        if self._backoff.rounds:
            return
        words = "{name} could not {what}, which is tried again"
        if isinstance(error, TwistedEtcdError):
            self._log.warn(words + ": {why}", name=self._name, what=what, why=str(error))
        else:
            self._log.failure(words, name=self._name, what=what)

    async def _wait(self, news: Moment[None]) -> None:
        """Wait before the next attempt, but no longer than until something else is wanted."""
        waiting: Deferred[None] = deferLater(self._clock, self._backoff.next())
        news.wait().addCallback(lambda _: waiting.cancel())
        try:
            await waiting
        except CancelledError:
            if not news.happened:
                raise
