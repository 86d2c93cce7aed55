"""A lease that locks, elections and barriers live by."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_etcd.client.client import EtcdClient
from twisted_etcd.client.kv import to_int
from twisted_etcd.client.lease import Lease
from twisted_etcd.errors import (
    InvalidSettings,
    LeaseLost,
    LeaseNotFound,
    OutcomeUnknown,
    TwistedEtcdError,
    Unavailable,
)
from twisted_etcd.moment import Moment
from twisted_etcd.recipes.waiting import Persistence, Work, is_stopping, run_until, run_while_running, stop_of

if TYPE_CHECKING:
    from twisted_etcd.recipes.place import Departure, Place

ResultT = TypeVar("ResultT")

#: Seconds, as in Go's ``concurrency``.
SESSION_TTL = 60
_CLOSED = "its session was closed"


class Session:
    """
    A lease, kept alive, that any number of locks, elections and barriers share.

    What is held by it is held no longer than it lives. It is over for good once ``lost`` has fired; make a new one
    then. A client that stops takes it along.

    Use it as ``async with Session(client) as session``, or with :meth:`open` and :meth:`close`. What is built on it
    opens it where nobody did.

    :param ttl: seconds for which etcd keeps what is held after the last sign of life; etcd may grant more.
    :param random: gives numbers from 0 up to 1; for the waits between attempts.
    :raises TypeError: where one of these is of the wrong type.
    :raises InvalidSettings: for a TTL under 1.
    :ivar client: as it was given.
    :ivar places: for recipes: what this session has, or is about to get, in lines of keys.
    :ivar departures: for recipes: keys that are being taken back.
    """

    _log = Logger()

    def __init__(
        self, client: EtcdClient, ttl: int = SESSION_TTL, *, random: Callable[[], float] = random.random
    ) -> None:
        check_client(client)
        if to_int(ttl, "ttl") < 1:
            msg = f"ttl must be at least 1 second, not {ttl!r}"
            raise InvalidSettings(msg)
        self.client = client
        self.places: dict[bytes, Place] = {}
        self.departures: dict[bytes, Departure] = {}
        self._ttl = ttl
        self._random = random
        self._lease: Lease | None = None
        self._granting: Deferred[Lease] | None = None
        self._opened: Moment[Session] = Moment()
        self._lost: Moment[LeaseLost] = Moment()
        self._reason: LeaseLost | None = None
        self._closing: Moment[None] | None = None
        self._last_number = 0

    def __repr__(self) -> str:
        if self._lease is None:
            return "<Session, not open>"
        return f"<Session of lease {self._lease.id:x}, {'alive' if self.alive else 'over'}>"

    # --- for its user -----------------------------------------------------------------------------------------------

    def open(self) -> Deferred[Session]:
        """
        Grant the lease, once; where that failed, another call tries again.

        :raises LeaseLost: it is over already.
        """
        if self._reason is not None:
            return fail(self._reason)
        if self._lease is None and self._granting is None:
            self._opened = Moment()
            self._granting = self.client.lease(self._ttl)
            self._granting.addCallbacks(self._granted, self._not_granted)
        return self._opened.wait()

    @property
    def lease_id(self) -> int:
        """
        The id of its lease.

        :raises RuntimeError: it has none yet.
        """
        if self._lease is None:
            msg = "the session has no lease before open()"
            raise RuntimeError(msg)
        return self._lease.id

    @property
    def alive(self) -> bool:
        """Whether it is open, and nothing has ended it."""
        return self._lease is not None and self._reason is None

    @property
    def lost(self) -> Deferred[LeaseLost]:
        """
        A new Deferred that fires, with the reason, once nobody can rely on the session any more: its lease is lost,
        :meth:`close` or :meth:`orphan` was called, or the client stops.
        """
        return self._lost.wait()

    def orphan(self) -> None:
        """
        Keep the lease alive no longer, and do not revoke it: what is held by it stays in etcd until its TTL is over.

        ``lost`` fires, since nobody here looks after it any more.
        """
        if self._lease is None:
            self._give_up_opening("its session was left before it had one")
        else:
            self._lose(LeaseLost(self._lease.id, "its session was left to its TTL"))
            self._lease.orphan()

    def close(self) -> Deferred[None]:
        """
        Revoke the lease: what is held by it is gone. ``lost`` fires at once, and the Deferred when etcd has done it.

        Where etcd cannot be told this fails with its error; it is tried again in the background until the TTL is over.
        A session that was lost already is no error. While the client stops, it is the client that revokes the lease, or
        leaves it, where it was told to.
        """
        if self._closing is None:
            closing: Moment[None] = Moment()
            self._closing = closing
            if self._lease is None:
                self._give_up_opening(_CLOSED)
                closing.fire(None)
            elif is_stopping(self.client):
                # It revokes its leases, or leaves them, as it was told to.
                self._lose(LeaseLost(self._lease.id, _CLOSED))
                self._lease.lost.addCallback(lambda _: closing.fire(None))
            else:
                self._lose(LeaseLost(self._lease.id, _CLOSED))
                self._lease.revoke().addCallbacks(closing.fire, self._not_revoked, errbackArgs=(self._lease, closing))
        return self._closing.wait()

    async def __aenter__(self) -> Session:
        return await self.open()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # A coroutine that is thrown away, as at the end of a program that was interrupted, can wait for nothing.
        if exc_type is not GeneratorExit:
            # It is in the log, and ends by its TTL.
            with suppress(TwistedEtcdError):
                await self.close()

    # --- for recipes ------------------------------------------------------------------------------------------------

    def run(self, work: Work[ResultT]) -> Deferred[ResultT]:
        """
        Do some work, and cancel it where the session or the client ends first.

        :raises LeaseLost: the session came to its end.
        :raises ServiceStopped: the client was stopped.
        """
        return run_until(work, stop_of(self.client), self._lost.wait())  # type: ignore[arg-type]

    def persistence(self) -> Persistence:
        """For attempts that fail."""
        return Persistence(self.client, self._random)

    def gone(self) -> LeaseLost:
        """What to raise where etcd says that the lease is not there; the lease learns of it, too."""
        if self._lease is not None and self._lease.alive:
            # It says so of the lease, and so of this session.
            self._lease.keepalive_once().addErrback(lambda failure: failure.trap(TwistedEtcdError) and None)
        return LeaseLost(self.lease_id, "etcd no longer has it")

    def unique_key(self, prefix: bytes) -> bytes:
        """A key that this session has not used yet, and very likely nobody else: the time in nanoseconds."""
        now = int(self.client.reactor.seconds() * 1e9)
        self._last_number = max(now, self._last_number + 1)
        return prefix + b"%d" % self._last_number

    # --- its life ---------------------------------------------------------------------------------------------------

    def _granted(self, lease: Lease) -> None:
        self._granting = None
        self._lease = lease
        lease.lost.addCallback(self._lose)
        self._opened.fire(self)

    def _not_granted(self, failure: Failure) -> None:
        self._granting = None
        closed = self._reason is not None and failure.check(CancelledError)
        self._opened.fail(Failure(self._reason) if closed else failure)

    def _give_up_opening(self, why: str) -> None:
        self._lose(LeaseLost(0, why))
        if self._granting is not None:
            # The client revokes what comes of it.
            self._granting.cancel()

    def _lose(self, reason: LeaseLost) -> None:
        if self._reason is None:
            self._reason = reason
            self._lost.fire(reason)

    def _not_revoked(self, failure: Failure, lease: Lease, closing: Moment[None]) -> None:
        if failure.check(Unavailable, OutcomeUnknown):
            self._log.warn(
                "lease {lease_id:x} could not be revoked, and is tried again for {ttl} s: {why}",
                lease_id=lease.id,
                ttl=lease.ttl,
                why=str(failure.value),
            )
            trying = run_while_running(self.client, self._revoke_later(lease))
            trying.addTimeout(lease.ttl, self.client.reactor)
            # By then it has ended by itself, or the client has no more business with it.
            trying.addErrback(lambda _: None)
        closing.fail(failure)

    async def _revoke_later(self, lease: Lease) -> None:
        persistence = self.persistence()
        await persistence.pause()
        with suppress(LeaseNotFound):
            await persistence.ask(lambda: self.client.lease_revoke(lease.id))


def check_client(client: object) -> None:
    """
    Whether it is a client, or looks like one.

    :raises TypeError: where it is none.
    """
    if not all(callable(getattr(client, method, None)) for method in ("lease", "txn", "watch")):
        msg = f"the first argument must be an EtcdClient, not {type(client).__name__}"
        raise TypeError(msg)
