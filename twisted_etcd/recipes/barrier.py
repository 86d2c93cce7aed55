"""Barriers: one that holds everybody up until it is lifted, and one that a number of programs pass together."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress

from twisted.internet.defer import Deferred, fail

from twisted_etcd.client import compare, op
from twisted_etcd.client.client import EtcdClient
from twisted_etcd.client.kv import to_int
from twisted_etcd.errors import AlreadyHeld, BarrierFull, InvalidSettings, NotHeld, RequestFailed, TwistedEtcdError
from twisted_etcd.recipes.place import Place
from twisted_etcd.recipes.session import Session, check_client
from twisted_etcd.recipes.tenure import Sessions
from twisted_etcd.recipes.waiting import Persistence, check_wait, name_of, run_while_running, within
from twisted_etcd.schema.kv import (
    DeleteRangeResponse,
    EventType,
    KeyValue,
    RangeResponse,
    SortOrder,
    SortTarget,
    TxnResponse,
)
from twisted_etcd.schema.watch import FilterType


class Barrier:
    """
    Holds up everybody who waits at it until somebody lifts it; Go's ``recipe.Barrier``.

    It is a key that is there or not. Who waits while it is not held goes on at once; who asked before it was lifted
    goes on, also where it is held again at once.

    :param name: Go's ``key``.
    :param random: gives numbers from 0 up to 1; for the waits between attempts.
    :raises TypeError: where one of these is of the wrong type.
    :raises InvalidSettings: for an empty name.
    """

    def __init__(self, client: EtcdClient, name: str | bytes, *, random: Callable[[], float] = random.random) -> None:
        check_client(client)
        self.name = name_of(name, "a barrier")
        self._client = client
        self._random = random

    def hold(self, *, lease: int = 0) -> Deferred[None]:
        """
        Hold everybody up.

        :param lease: the id of a lease with whose end the barrier is lifted; 0, as in Go, for none: it stays until it
            is lifted, whatever becomes of who held it.
        :raises AlreadyHeld: it is held.
        :raises OutcomeUnknown: it may be held now, by this or by somebody else.
        """
        holding = self._client.txn(
            compare=[compare.version(self.name, "=", 0)],
            success=[op.put(self.name, b"", lease=to_int(lease, "lease"))],
        )

        def held(answer: TxnResponse) -> None:
            if not answer.succeeded:
                msg = f"the barrier {self.name!r} is held already"
                raise AlreadyHeld(msg)

        return holding.addCallback(held)

    def release(self) -> Deferred[bool]:
        """Lift it, whoever held it; fires with whether it was held."""

        def released(answer: DeleteRangeResponse) -> bool:
            return answer.deleted > 0

        return self._client.delete(self.name).addCallback(released)

    def wait(self, timeout: float | None = None) -> Deferred[None]:
        """
        Wait until it is lifted, however often etcd is away meanwhile.

        :param timeout: seconds; None for as long as it takes.
        :raises WaitTimedOut: it was not lifted within ``timeout`` seconds.
        :raises ServiceStopped: the client was stopped.
        """
        check_wait(timeout)
        waiting = run_while_running(self._client, self._wait())
        return within(timeout, self._client.reactor, waiting, f"the barrier {self.name!r} was not lifted")

    async def _wait(self) -> None:
        persistence = Persistence(self._client, self._random)
        held: KeyValue | None = None
        while True:
            answer = await persistence.ask(lambda: self._client.get(self.name))
            if not answer.kvs or (held is not None and answer.kvs[0].create_revision != held.create_revision):
                return
            held = answer.kvs[0]
            watch = self._client.watch(self.name, start_revision=answer.header.revision, filters=(FilterType.NOPUT,))
            if await persistence.event(watch, lambda event: event.type is EventType.DELETE) is not None:
                return


class DoubleBarrier:
    """
    A number of programs begin together, and end together; Go's ``recipe.DoubleBarrier``.

    :meth:`enter` fires for all of them once so many have entered, :meth:`leave` once all have left. Who dies on the way
    leaves with its lease. It can be used again when all have left.

    :param holder: the session that enters; or a client, for a session of its own from :meth:`enter` to :meth:`leave`.
    :param name: Go's ``key``.
    :param count: how many it is for.
    :param ttl: seconds, for a session of its own; 60 where it is None.
    :raises TypeError: where one of these is of the wrong type.
    :raises InvalidSettings: for an empty name, a count under 1, or a TTL that cannot be used.
    """

    def __init__(self, holder: Session | EtcdClient, name: str | bytes, count: int, *, ttl: int | None = None) -> None:
        self.name = name_of(name, "a barrier")
        if to_int(count, "count") < 1:
            msg = f"count must be at least 1, not {count!r}"
            raise InvalidSettings(msg)
        self._sessions = Sessions(holder, ttl)
        self._count = count
        self._waiters = self.name + b"/waiters"
        self._ready = self.name + b"/ready"
        self._busy = False
        self._place: Place | None = None

    @property
    def entered(self) -> bool:
        """Whether this one has entered and not left."""
        return self._place is not None

    def enter(self, timeout: float | None = None) -> Deferred[None]:
        """
        Enter, and wait until so many have. Who gives up leaves no key behind.

        :param timeout: seconds; None for as long as it takes.
        :raises WaitTimedOut: not so many have entered within ``timeout`` seconds.
        :raises BarrierFull: so many have entered already, and this one is too many.
        :raises AlreadyHeld: this one has entered already, or is about to.
        :raises LeaseLost: the session's lease was lost meanwhile.
        :raises ServiceStopped: the client was stopped.
        """
        check_wait(timeout)
        if self._busy:
            return fail(AlreadyHeld(f"the barrier {self.name!r} was entered by this one already: leave it first"))
        self._busy = True
        doing = Deferred.fromCoroutine(self._enter())
        otherwise = f"{self._count} have not entered the barrier {self.name!r}"
        return within(timeout, self._sessions.client.reactor, doing, otherwise)

    def leave(self, timeout: float | None = None) -> Deferred[None]:
        """
        Leave, and wait until all have. Where this one gives up waiting it has left all the same.

        :param timeout: seconds; None for as long as it takes.
        :raises NotHeld: this one has not entered.
        :raises WaitTimedOut: not all have left within ``timeout`` seconds.
        :raises LeaseLost: the session's lease was lost meanwhile, and this one has left by that.
        :raises ServiceStopped: the client was stopped.
        """
        check_wait(timeout)
        place, self._place = self._place, None
        if place is None:
            return fail(NotHeld(f"the barrier {self.name!r} was not entered by this one"))
        doing = Deferred.fromCoroutine(self._leave(place))
        otherwise = f"not all have left the barrier {self.name!r}"
        return within(timeout, self._sessions.client.reactor, doing, otherwise)

    # --- entering ---------------------------------------------------------------------------------------------------

    async def _enter(self) -> None:
        session = self._sessions.get()
        place: Place | None = None
        try:
            await session.open()
            place = Place(session, session.unique_key(self._waiters + b"/"), self._waiters)
            await session.run(self._pass_in(place))
        except Exception:
            self._busy = False
            self._give_back(session, place)
            raise
        self._place = place

    async def _pass_in(self, place: Place) -> None:
        persistence = place.session.persistence()
        if (await self._entered(place.session)).count >= self._count:
            raise self._full()
        await place.join()
        entered = (await self._entered(place.session)).kvs
        if len(entered) >= self._count:
            last = entered[self._count - 1]
            if place.revision > last.create_revision:
                raise self._full()
            if place.revision == last.create_revision:
                await persistence.ask(lambda: place.session.client.put(self._ready, b""))
                return
        while not await self._is_ready(place, persistence):
            pass

    async def _is_ready(self, place: Place, persistence: Persistence) -> bool:
        client = place.session.client
        answer = await persistence.ask(lambda: client.get(self._ready))
        if answer.kvs and answer.kvs[0].mod_revision > place.revision:
            return True
        watch = client.watch(self._ready, start_revision=answer.header.revision, filters=(FilterType.NODELETE,))
        event = await persistence.event(watch, lambda event: event.kv.mod_revision > place.revision)
        return event is not None

    async def _entered(self, session: Session) -> RangeResponse:
        """Who has, in their order."""
        return await session.persistence().ask(
            lambda: session.client.get(
                self._waiters, prefix=True, sort_target=SortTarget.CREATE, sort_order=SortOrder.ASCEND
            )
        )

    def _full(self) -> BarrierFull:
        return BarrierFull(f"the barrier {self.name!r} is for {self._count}, and they have entered already")

    # --- leaving ----------------------------------------------------------------------------------------------------

    async def _leave(self, place: Place) -> None:
        try:
            await place.session.run(self._pass_out(place))
        finally:
            self._busy = False
            self._give_back(place.session, place)

    async def _pass_out(self, place: Place) -> None:
        persistence = place.session.persistence()
        client = place.session.client
        while (entered := await self._entered(place.session)).kvs:
            first, last = entered.kvs[0], entered.kvs[-1]
            if first.key != place.key:
                # It goes on by itself.
                with suppress(RequestFailed):
                    await place.leave()
                await self._until_gone(place.session, first, entered.header.revision)
            elif first is not last:
                await self._until_gone(place.session, last, entered.header.revision)
            else:
                await persistence.ask(
                    lambda: client.txn(
                        compare=[compare.create_revision(place.key, "=", place.revision)],
                        success=[op.delete(self._ready), op.delete(place.key)],
                    )
                )

    @staticmethod
    async def _until_gone(session: Session, other: KeyValue, revision: int) -> None:
        watch = session.client.watch(other.key, start_revision=revision, filters=(FilterType.NOPUT,))
        await session.persistence().event(watch, lambda event: event.type is EventType.DELETE)

    def _give_back(self, session: Session, place: Place | None) -> None:
        """In the background; what goes wrong is in the log."""
        if self._sessions.is_own(session):
            leaving = session.close()
        elif place is not None:
            leaving = place.leave()
        else:
            return
        leaving.addErrback(lambda failure: failure.trap(TwistedEtcdError) and None)
