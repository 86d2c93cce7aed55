"""Elections that Go's ``concurrency.Election`` and ``etcdctl elect`` take part in."""

from __future__ import annotations

import random
from collections.abc import Callable
from types import TracebackType
from typing import Any

from twisted.internet.defer import Deferred

from twisted_etcd.client.client import EtcdClient
from twisted_etcd.client.watch import Watch
from twisted_etcd.errors import Compacted, NotElected, WatchEnded, WatchStopped
from twisted_etcd.keys import to_bytes
from twisted_etcd.recipes.place import Place
from twisted_etcd.recipes.session import Session
from twisted_etcd.recipes.tenure import Sessions, Tenure
from twisted_etcd.recipes.waiting import Persistence, name_of, run_while_running
from twisted_etcd.schema.kv import Event, EventType, KeyValue, RangeResponse, SortOrder, SortTarget
from twisted_etcd.schema.watch import FilterType


class Election(Tenure):
    """
    One of many leads at a time, in whatever program; who campaigned first leads first.

    What is guaranteed, and what not, is what stands in :class:`~twisted_etcd.recipes.lock.Lock`: one who was cut off
    may still think that it leads while the next one does. Watch ``lost``, do the work in :meth:`run`, and fence what
    must not go wrong with ``token`` or ``is_owner``.

    :param holder: the session that campaigns; or a client, for a session of its own for each campaign. To look on, with
        :meth:`leader` and :meth:`observe`, none is opened.
    :param name: Go's ``pfx``; ``etcdctl elect NAME``.
    :param ttl: seconds, for a session of its own; 60 where it is None.
    :raises TypeError: where one of these is of the wrong type.
    :raises InvalidSettings: for an empty name, or a TTL that cannot be used.
    """

    def __init__(self, holder: Session | EtcdClient, name: str | bytes, *, ttl: int | None = None) -> None:
        self.name = name_of(name, "an election")
        super().__init__(Sessions(holder, ttl), f"the election {self.name!r}")

    def __repr__(self) -> str:
        return f"<Election {self.name!r}, {'led' if self.leading else 'not led'} by this one>"

    @property
    def leading(self) -> bool:
        """Whether this one leads, by all that is known."""
        return self._held

    def campaign(self, value: str | bytes, timeout: float | None = None) -> Deferred[int]:
        """
        Stand for election, and wait until it is won.

        Who gives up leaves no key behind, as with :meth:`~twisted_etcd.recipes.lock.Lock.acquire`.

        :param value: what others are told of this leader: its address, or whatever it wants to say.
        :param timeout: seconds; None for as long as it takes. While etcd is away one waits on.
        :return: fires with the fencing token, which is :attr:`token`.
        :raises WaitTimedOut: it was not won within ``timeout`` seconds.
        :raises AlreadyHeld: this session leads, or campaigns, already; :meth:`proclaim` changes the value.
        :raises LeaseLost: the session's lease was lost meanwhile.
        :raises Unavailable: etcd could not be asked to begin with.
        :raises ServiceStopped: the client was stopped.
        """
        return self._take(timeout, to_bytes(value, "value")).addCallback(lambda _: self.token)

    def proclaim(self, value: str | bytes) -> Deferred[None]:
        """
        Change the value, as the leader.

        :raises NotElected: it does not lead, or no longer.
        """
        return Deferred.fromCoroutine(self._proclaim(to_bytes(value, "value")))

    async def _proclaim(self, value: bytes) -> None:
        if not self._held or not await self._current().put(value):
            msg = f"{self._what} is not led by this one"
            raise NotElected(msg)

    def resign(self) -> Deferred[None]:
        """
        Lead no longer, so that the next one does. Leadership that was lost already is no error.

        :return: fires when etcd has done it. Where etcd cannot be told now this fails with its error, and goes on
            trying in the background until the session's end.
        :raises NotHeld: it does not lead.
        """
        return self._give_back()

    def run(
        self,
        value: str | bytes,
        function: Callable[..., Any],
        *args: Any,  # noqa: ANN401 - the function's
        timeout: float | None = None,
    ) -> Deferred[Any]:
        """
        Win the election, do some work as the leader, and resign.

        :param function: called with ``args``; what it waits for, a Deferred or a coroutine, is cancelled when the
            leadership is lost.
        :param timeout: seconds to wait for the victory.
        :return: fires with what the function gives.
        :raises LeaseLost: the leadership was lost before the work was done.
        """
        taking = self._take(timeout, to_bytes(value, "value"))

        async def work() -> Any:  # noqa: ANN401 - what it gives
            await taking
            return await self._do(function, args)

        return Deferred.fromCoroutine(work())

    def leader(self) -> Deferred[KeyValue | None]:
        """Who leads now: the key and the value of the leader; None where nobody does."""
        return first_of(self._sessions.client, self.name + b"/").addCallback(_first)

    def observe(self) -> Observation:
        """
        Follow who leads: the leader that there is, and from then on each new one and each new value.

        Use it as ``async with election.observe() as leaders: async for leader in leaders: …``, or with ``next()`` and
        ``stop()``.
        """
        return Observation(self._sessions.client, self.name + b"/")

    def _place_in(self, session: Session, value: bytes) -> Place:
        line = self.name + b"/"
        return Place(session, line + b"%x" % session.lease_id, line, value)


class Observation:
    """
    Who leads an election, again and again: the key-values of the leaders, in order.

    What leads only while etcd cannot be reached can be passed over; the last one is always told. That nobody leads is
    not told. It goes on until it is stopped, or the client.

    :param line: what the keys of those begin with who campaign.
    """

    def __init__(self, client: EtcdClient, line: bytes, *, random: Callable[[], float] = random.random) -> None:
        self._client = client
        self._line = line
        self._persistence = Persistence(client, random)
        #: Of the key of the leader; of all of them while there is none.
        self._watch: Watch | None = None
        self._read_at = 0
        self._waiting: list[Event] = []
        self._last = (b"", 0)
        self._stopped = False

    def next(self) -> Deferred[KeyValue]:
        """
        The next leader, or value of the one that there is; the first time the one that there is.

        :raises WatchStopped: after :meth:`stop`.
        :raises PermissionDenied: the keys of the election may not be read.
        :raises ServiceStopped: the client was stopped.
        """
        return run_while_running(self._client, self._next())

    def stop(self) -> None:
        """Follow it no longer."""
        self._stopped = True
        self._drop_watch()

    def __aiter__(self) -> Observation:
        return self

    async def __anext__(self) -> KeyValue:
        try:
            return await self.next()
        except WatchStopped:
            raise StopAsyncIteration from None

    async def __aenter__(self) -> Observation:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    async def _next(self) -> KeyValue:
        while True:
            if self._stopped:
                msg = "the observation was stopped"
                raise WatchStopped(msg)
            found = await self._read() if self._watch is None else await self._follow(self._watch)
            if found is not None and (found.key, found.mod_revision) != self._last:
                self._last = (found.key, found.mod_revision)
                return found

    async def _read(self) -> KeyValue | None:
        answer = await self._persistence.ask(lambda: first_of(self._client, self._line))
        if self._stopped:
            return None
        self._read_at = answer.header.revision
        leader = _first(answer)
        if leader is None:
            self._watch = self._client.watch(
                self._line, prefix=True, start_revision=self._read_at, filters=(FilterType.NODELETE,)
            )
        else:
            self._watch = self._client.watch(leader.key, start_revision=self._read_at)
        return leader

    async def _follow(self, watch: Watch) -> KeyValue | None:
        """What comes of the watch; None where one has to read again."""
        if not self._waiting:
            try:
                batch = await watch.next()
            except (WatchEnded, Compacted):
                self._drop_watch()
                if not self._stopped:
                    await self._persistence.pause()
                return None
            self._waiting += [event for event in batch.events if event.kv.mod_revision > self._read_at]
            if not self._waiting:
                return None
        event = self._waiting.pop(0)
        if event.type is EventType.DELETE:
            self._drop_watch()
            return None
        if not self._last_is(event.kv.key):
            # Somebody leads: which of them is read.
            self._drop_watch()
            return None
        return event.kv

    def _last_is(self, key: bytes) -> bool:
        return self._last[0] == key

    def _drop_watch(self) -> None:
        self._waiting.clear()
        if self._watch is not None:
            self._watch.stop()
            self._watch = None


def first_of(client: EtcdClient, line: bytes) -> Deferred[RangeResponse]:
    """The first in a line."""
    return client.get(line, prefix=True, limit=1, sort_target=SortTarget.CREATE, sort_order=SortOrder.ASCEND)


def _first(answer: RangeResponse) -> KeyValue | None:
    return answer.kvs[0] if answer.kvs else None
