"""Locks that Go's ``concurrency.Mutex``, ``recipe.RWMutex`` and ``etcdctl lock`` queue for in the same line."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any

from twisted.internet.defer import Deferred

from twisted_etcd.client.client import EtcdClient
from twisted_etcd.errors import AlreadyHeld
from twisted_etcd.recipes.place import Place
from twisted_etcd.recipes.session import Session
from twisted_etcd.recipes.tenure import Sessions, Tenure
from twisted_etcd.recipes.waiting import name_of


class LockInLine(Tenure):
    """What all locks can do; see :class:`Lock`."""

    @property
    def locked(self) -> bool:
        """Whether it is held here, by all that is known."""
        return self._held

    def acquire(self, timeout: float | None = None) -> Deferred[int]:
        """
        Wait until it is held here.

        Who gives up, because the Deferred was cancelled, the time was over or something failed, leaves no key behind
        that others would wait for, also where etcd did not say whether it was put.

        :param timeout: seconds; None for as long as it takes. While etcd is away one waits on.
        :return: fires with the fencing token, which is :attr:`token`.
        :raises WaitTimedOut: it was not held within ``timeout`` seconds.
        :raises AlreadyHeld: its session holds it, or waits for it, already: one would wait for oneself.
        :raises LeaseLost: the session's lease was lost meanwhile.
        :raises Unavailable: etcd could not be asked to begin with.
        :raises ServiceStopped: the client was stopped.
        """
        return self._take(timeout).addCallback(lambda _: self.token)

    def try_lock(self) -> Deferred[bool]:
        """
        Take it if nobody has it, or waits for it.

        :return: fires with whether it is held now: False where somebody holds it, its own session included.
        """

        def held_here(error: Any) -> bool:  # noqa: ANN401 - a Failure of an unknown kind
            error.trap(AlreadyHeld)
            return False

        return self._take(None, wait=False).addErrback(held_here)

    def release(self) -> Deferred[None]:
        """
        Give it back; it is held no longer from here on. One that was lost already is no error.

        :return: fires when etcd has let the next one in. Where etcd cannot be told now this fails with its error, and
            goes on trying in the background until the session's end.
        :raises NotHeld: it is not held.
        """
        return self._give_back()

    def run(self, function: Callable[..., Any], *args: Any, timeout: float | None = None) -> Deferred[Any]:  # noqa: ANN401
        """
        Wait for it, do some work, and give it back.

        :param function: called with ``args``; what it waits for, a Deferred or a coroutine, is cancelled when the lock
            is lost.
        :param timeout: seconds to wait for the lock.
        :return: fires with what the function gives.
        :raises LeaseLost: the lock was lost before the work was done.
        """
        taking = self._take(timeout)

        async def work() -> Any:  # noqa: ANN401 - what it gives
            await taking
            return await self._do(function, args)

        return Deferred.fromCoroutine(work())

    async def __aenter__(self) -> int:
        return await self.acquire()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # A coroutine that is thrown away, as at the end of a program that was interrupted, can wait for nothing.
        if exc_type is GeneratorExit:
            return
        reason = await self._end_of_block(self._place)
        if reason is not None and exc_type is None:
            raise reason


class Lock(LockInLine):
    """
    A lock that one session holds at a time, in whatever program; who asked first gets it first.

    ``await lock.acquire()`` and ``await lock.release()``; or ``async with lock:``; or ``lock.run(function)``, which
    also cancels the work when the lock is lost.

    What is guaranteed: etcd lets the next one in when the key of the one before has gone: it was given back, or its
    lease ended. What is not: that the one before knows. A program that was paused, or cut off, for longer than its TTL
    may go on for a moment in the belief that it holds the lock, while the next one has it. ``lost`` fires no later than
    a TTL after etcd's last word, by this machine's clock; where that is not enough, fence: hand ``lock.token`` to what
    you write to, which refuses a smaller one than it has seen, or put ``lock.is_owner`` into every transaction. Nor
    does one learn of it when somebody deletes the key by hand.

    The name of a lock must not be that of another one followed by a slash and more: Go takes its keys for the other
    one's, and so does this.

    :param holder: the session that holds it; or a client, for a session of its own each time that it is acquired,
        whose lease is revoked when it is given back.
    :param name: Go's ``pfx``; ``etcdctl lock NAME``.
    :param ttl: seconds, for a session of its own; 60 where it is None.
    :raises TypeError: where one of these is of the wrong type.
    :raises InvalidSettings: for an empty name, or a TTL that cannot be used.
    """

    def __init__(self, holder: Session | EtcdClient, name: str | bytes, *, ttl: int | None = None) -> None:
        self.name = name_of(name, "a lock")
        super().__init__(Sessions(holder, ttl), f"the lock {self.name!r}")

    def __repr__(self) -> str:
        return f"<Lock {self.name!r}, {'held' if self.locked else 'not held'} here>"

    def _place_in(self, session: Session, value: bytes) -> Place:
        line = self.name + b"/"
        return Place(session, line + b"%x" % session.lease_id, line, value)


class ReadLock(LockInLine):
    """Holds off writers; see :class:`RWLock`."""

    def __init__(self, sessions: Sessions, name: bytes) -> None:
        super().__init__(sessions, f"the lock {name!r}, for reading,")
        self._name = name

    def __repr__(self) -> str:
        return f"<ReadLock {self._name!r}, {'held' if self.locked else 'not held'} here>"

    def _place_in(self, session: Session, value: bytes) -> Place:
        key = session.unique_key(self._name + b"/read/")
        return Place(session, key, self._name + b"/write", value)


class WriteLock(LockInLine):
    """Holds off everybody else; see :class:`RWLock`."""

    def __init__(self, sessions: Sessions, name: bytes) -> None:
        super().__init__(sessions, f"the lock {name!r}, for writing,")
        self._name = name

    def __repr__(self) -> str:
        return f"<WriteLock {self._name!r}, {'held' if self.locked else 'not held'} here>"

    def _place_in(self, session: Session, value: bytes) -> Place:
        key = session.unique_key(self._name + b"/write/")
        return Place(session, key, self._name + b"/", value)


class RWLock:
    """
    A lock that many may hold for reading at a time, or one for writing; Go's ``recipe.RWMutex``.

    ``async with rwlock.read_lock():`` and ``async with rwlock.write_lock():``. Each call gives a lock of its own, which
    can do what :class:`Lock` can, with the same guarantees. A reader waits for the writers that asked before it, a
    writer for everybody who did: nobody is passed over. Who holds it for reading and asks to write waits for itself,
    as in Go: give it back first.

    The parameters are those of :class:`Lock`.
    """

    def __init__(self, holder: Session | EtcdClient, name: str | bytes, *, ttl: int | None = None) -> None:
        self.name = name_of(name, "a lock")
        self._sessions = Sessions(holder, ttl)

    def read_lock(self) -> ReadLock:
        """A new lock for reading."""
        return ReadLock(self._sessions, self.name)

    def write_lock(self) -> WriteLock:
        """A new lock for writing."""
        return WriteLock(self._sessions, self.name)
