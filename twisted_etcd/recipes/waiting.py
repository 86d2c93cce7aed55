"""Waiting for what may never come: with a time, and with an end where that comes first."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from twisted_etcd.backoff import Backoff
from twisted_etcd.client.calls import check_timeout
from twisted_etcd.client.client import EtcdClient
from twisted_etcd.client.watch import Watch
from twisted_etcd.errors import (
    Compacted,
    EtcdError,
    InvalidSettings,
    RequestFailed,
    ServiceStopped,
    WaitTimedOut,
    WatchEnded,
)
from twisted_etcd.keys import to_bytes
from twisted_etcd.schema.kv import Event, KeyValue, RangeResponse, ResponseOp

ResultT = TypeVar("ResultT")
Work = Coroutine[Deferred[Any], Any, ResultT]


def name_of(name: str | bytes, what: str) -> bytes:
    """
    The name that a caller gave a lock, a queue, ….

    :raises TypeError: where it is no text.
    :raises InvalidSettings: where it is empty.
    """
    given = to_bytes(name, "name")
    if not given:
        msg = f"the name of {what} is empty: its keys would be everybody's; give it one of its own"
        raise InvalidSettings(msg)
    return given


def run_until(work: Work[ResultT], *ends: Deferred[Exception]) -> Deferred[ResultT]:
    """
    Do some work, and cancel it where one of the ends comes first: it fails with what that end fires with then, also
    where the work takes no notice.

    :param ends: Deferreds that nobody else uses.
    """
    reasons: list[Exception] = []
    doing: Deferred[ResultT] | None = None

    def end(reason: Exception) -> None:
        if not reasons:
            reasons.append(reason)
            if doing is not None:
                doing.cancel()

    def done(result: ResultT | Failure) -> ResultT | Failure:
        for each in ends:
            each.cancel()
        if reasons and (not isinstance(result, Failure) or result.check(CancelledError)):
            return Failure(reasons[0])
        return result

    for each in ends:
        each.addCallbacks(end, was_cancelled)
    if reasons:
        # Nothing is begun that would be cut off at once.
        work.close()
        doing = fail(reasons[0])
    else:
        doing = Deferred.fromCoroutine(work)
    if reasons:
        doing.cancel()
    return doing.addBoth(done)


def was_cancelled(failure: Failure) -> None:
    """For a Deferred that was cancelled by who made it."""
    failure.trap(CancelledError)


def run_while_running(client: EtcdClient, work: Work[ResultT]) -> Deferred[ResultT]:
    """
    Do some work while the client is not stopped.

    :raises ServiceStopped: it was.
    """
    return run_until(work, stop_of(client))


def stop_of(client: EtcdClient) -> Deferred[Exception]:
    """Fires when the client is being stopped, with what everything that waits for it fails with."""
    stopping: Deferred[Any] = client.stopping
    return stopping.addCallback(lambda _: ServiceStopped("the client was stopped"))


def is_stopping(client: EtcdClient) -> bool:
    """Whether its ``stopService`` was called."""
    stopping = client.stopping
    called = stopping.called
    stopping.addErrback(was_cancelled)
    stopping.cancel()
    return called


def within(timeout: float | None, clock: IReactorTime, doing: Deferred[ResultT], otherwise: str) -> Deferred[ResultT]:
    """
    Cancel what takes longer, which fails with :class:`~twisted_etcd.errors.WaitTimedOut` then.

    :param timeout: seconds; None for as long as it takes.
    :param otherwise: what did not happen, for the error.
    """
    if timeout is None:
        return doing

    def over(result: ResultT | Failure, seconds: float) -> ResultT | Failure:
        if isinstance(result, Failure) and result.check(CancelledError):
            return Failure(WaitTimedOut(otherwise, seconds))
        return result

    return doing.addTimeout(timeout, clock, over)


def check_wait(timeout: float | None) -> None:
    """
    None is fine, and so are finite seconds over 0.

    :raises ValueError: for other numbers.
    :raises TypeError: for what is no number.
    """
    check_timeout(timeout)


class Persistence:
    """Asks again where etcd did not answer, for as long as it is let."""

    def __init__(self, client: EtcdClient, random: Callable[[], float]) -> None:
        self._client = client
        self._backoff = Backoff(random)

    async def pause(self) -> None:
        """Wait before the next attempt."""
        await deferLater(self._client.reactor, self._backoff.next())

    def reset(self) -> None:
        """Something went well."""
        self._backoff.reset()

    async def ask(self, ask: Callable[[], Awaitable[ResultT]]) -> ResultT:
        """
        What may be asked for any number of times.

        :raises EtcdError: etcd answered so, and would again.
        """
        while True:
            answer = await self._answer(ask)
            if answer is not None:
                self._backoff.reset()
                return answer
            await self.pause()

    @staticmethod
    async def _answer(ask: Callable[[], Awaitable[ResultT]]) -> ResultT | None:
        try:
            return await ask()
        except RequestFailed:
            return None
        except EtcdError as error:
            if error.concerns_member:
                return None
            raise

    async def event(self, watch: Watch, wanted: Callable[[Event], bool]) -> Event | None:
        """
        The first event that is wanted. The watch is stopped then, or where nobody waits any more.

        :return: None where the watch cannot go on, so that one has to read again.
        """
        try:
            while True:
                for event in (await watch.next()).events:
                    if wanted(event):
                        self._backoff.reset()
                        return event
        except (WatchEnded, Compacted):
            await self.pause()
            return None
        finally:
            # Nobody has to wait for etcd's word on that.
            watch.stop()


def kvs_of(response: ResponseOp) -> tuple[KeyValue, ...]:
    """What a get in a transaction has found."""
    return (response.response_range or RangeResponse()).kvs
