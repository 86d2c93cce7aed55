"""What locks and elections have in common: to be first in a line, to be told when that is over, to leave."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred, fail, maybeDeferred, succeed

from twisted_etcd.client import compare
from twisted_etcd.client.client import EtcdClient
from twisted_etcd.errors import (
    AlreadyHeld,
    EtcdError,
    InvalidSettings,
    LeaseLost,
    NotHeld,
    RequestFailed,
    ServiceStopped,
    TwistedEtcdError,
)
from twisted_etcd.moment import Moment
from twisted_etcd.recipes.place import Place
from twisted_etcd.recipes.session import SESSION_TTL, Session, check_client
from twisted_etcd.recipes.waiting import check_wait, within
from twisted_etcd.schema.kv import Compare

ResultT = TypeVar("ResultT")


class Sessions:
    """
    Where a recipe's sessions come from: the one that it was given, or one of its own each time that it needs one.

    :param given: a session, or a client.
    :param ttl: seconds of its own ones; None for a session's usual ones.
    :raises TypeError: where it is neither.
    :raises InvalidSettings: for a TTL beside a session, which has its own.
    """

    def __init__(self, given: Session | EtcdClient, ttl: int | None) -> None:
        self._given: Session | None = None
        self._ttl = SESSION_TTL if ttl is None else ttl
        if isinstance(given, Session):
            if ttl is not None:
                msg = f"ttl is {ttl!r}, and the session has its own: give it where that is made"
                raise InvalidSettings(msg)
            self._given = given
            self.client = given.client
        else:
            check_client(given)
            self.client = given
            # It says now what would be wrong with it later.
            Session(given, self._ttl)

    def get(self) -> Session:
        """The one to use from now on."""
        return self._given or Session(self.client, self._ttl)

    def is_own(self, session: Session) -> bool:
        """Whether nobody else uses it."""
        return session is not self._given


class Tenure:
    """
    A place in a line that is wanted once at a time.

    :param what: what it is, for errors: ``the lock b'name'``.
    """

    def __init__(self, sessions: Sessions, what: str) -> None:
        self._sessions = sessions
        self._what = what
        #: From the first step on the way to the place until it is left.
        self._busy = False
        #: The place, once it is at the front.
        self._place: Place | None = None
        self._over: Moment[LeaseLost | None] = Moment()
        self._listening: Deferred[Any] | None = None
        #: Why it was lost.
        self._reason: LeaseLost | None = None

    def _place_in(self, session: Session, value: bytes) -> Place:
        """A new place in its line."""
        raise NotImplementedError

    # --- what is known of it ----------------------------------------------------------------------------------------

    @property
    def _held(self) -> bool:
        return self._place is not None and not self._over.happened

    def _current(self) -> Place:
        if self._place is None:
            msg = f"{self._what} is not held here"
            raise NotHeld(msg)
        return self._place

    @property
    def key(self) -> bytes:
        """
        Its key in etcd.

        :raises NotHeld: it is not held.
        """
        return self._current().key

    @property
    def token(self) -> int:
        """
        The fencing token: the revision at which its key was made. Who holds it later has a greater one.

        :raises NotHeld: it is not held.
        """
        return self._current().revision

    @property
    def is_owner(self) -> Compare:
        """
        A comparison for transactions, which holds as long as it is held.

        :raises NotHeld: it is not held.
        """
        place = self._current()
        return compare.create_revision(place.key, "=", place.revision)

    @property
    def lost(self) -> Deferred[LeaseLost | None]:
        """
        A new Deferred that fires with the reason once it is lost, and with None once it was given back.

        :raises NotHeld: it is not held.
        """
        self._current()
        return self._over.wait()

    # --- taking it and giving it back -------------------------------------------------------------------------------

    def _take(self, timeout: float | None, value: bytes = b"", *, wait: bool = True) -> Deferred[bool]:
        check_wait(timeout)
        if self._reason is not None:
            # It was lost, and nobody came to give it back.
            self._forget()
        if self._busy:
            return fail(AlreadyHeld(self._taken_already()))
        self._busy = True
        doing = Deferred.fromCoroutine(self._take_place(value, wait=wait))
        return within(timeout, self._sessions.client.reactor, doing, f"{self._what} was not to be had")

    def _taken_already(self) -> str:
        state = "is held" if self._place is not None else "is held, or waited for,"
        return f"{self._what} {state} by this session already: give it back first, or wait with another session"

    async def _take_place(self, value: bytes, *, wait: bool) -> bool:
        session = self._sessions.get()
        place: Place | None = None
        try:
            await session.open()
            place = self._free_place(session, value)
            first = await session.run(_come_first(place, wait=wait))
        except Exception:
            self._busy = False
            self._leave_quietly(session, place)
            raise
        if first:
            self._hold(place)
            return True
        self._busy = False
        with suppress(RequestFailed):
            await self._leave(session, place)
        return False

    def _free_place(self, session: Session, value: bytes) -> Place:
        place = self._place_in(session, value)
        if place.is_taken:
            raise AlreadyHeld(self._taken_already())
        return place

    def _hold(self, place: Place) -> None:
        self._place, self._over = place, Moment()
        self._listening = place.session.lost.addCallbacks(
            self._lose, lambda failure: failure.trap(CancelledError) and None
        )

    def _lose(self, reason: LeaseLost) -> None:
        self._reason = reason
        self._over.fire(reason)

    def _forget(self) -> None:
        """It is over here, whatever becomes of the key."""
        self._busy = False
        self._place = self._reason = None
        if self._listening is not None:
            self._listening.cancel()
        self._over.fire(None)

    def _give_back(self) -> Deferred[None]:
        place = self._place
        if place is None:
            return fail(NotHeld(f"{self._what} is not held here"))
        self._forget()
        return self._leave(place.session, place)

    def _leave(self, session: Session, place: Place | None) -> Deferred[None]:
        if self._sessions.is_own(session):
            # The key goes with its lease, and so does one that arrives later.
            return session.close()
        return place.leave() if place is not None else succeed(None)

    def _leave_quietly(self, session: Session, place: Place | None) -> None:
        """For who has an error to tell already; what goes wrong is in the log."""
        self._leave(session, place).addErrback(lambda failure: failure.trap(TwistedEtcdError) and None)

    # --- work that needs it -----------------------------------------------------------------------------------------

    async def _do(self, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:  # noqa: ANN401 - what it gives
        """What ``run`` does while it is held."""
        place = self._place
        if place is None:
            msg = f"{self._what} was given back before the work began"
            raise NotHeld(msg)
        try:
            result = await place.session.run(_call(function, args))
        except Exception:
            await self._end_of_block(place)
            raise
        reason = await self._end_of_block(place)
        if reason is not None:
            raise reason
        return result

    async def _end_of_block(self, place: Place | None) -> LeaseLost | None:
        """
        Give it back, where that was not done, and not fail: it is tried again in the background.

        :return: why it was lost meanwhile.
        """
        if place is None or self._place is not place:
            return None
        reason = self._reason
        with suppress(RequestFailed, EtcdError, ServiceStopped):
            await self._give_back()
        return reason


async def _come_first(place: Place, *, wait: bool) -> bool:
    first = await place.join()
    if wait and not first:
        await place.wait()
    return wait or first


async def _call(function: Callable[..., Any], args: tuple[Any, ...]) -> Any:  # noqa: ANN401 - what it gives
    return await maybeDeferred(function, *args)
