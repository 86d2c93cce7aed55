"""A part of etcd's keys, held here and followed: always what was there at one revision."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_etcd.backoff import Backoff
from twisted_etcd.client.client import EtcdClient
from twisted_etcd.client.kv import to_int
from twisted_etcd.client.watch import Watch
from twisted_etcd.errors import EtcdError, RequestFailed, ServiceStopped
from twisted_etcd.keys import KeyRange, to_bytes
from twisted_etcd.listeners import Listeners
from twisted_etcd.moment import Moment
from twisted_etcd.recipes.follower import Change, RangeFollower
from twisted_etcd.recipes.reaching import Reaching
from twisted_etcd.schema.kv import KeyValue, PutResponse, RangeResponse

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from twisted_etcd.client.kv import PutOptions

#: Seconds that ``at_least`` waits, unless told otherwise.
TIMEOUT = 10.0
#: Seconds: the longest wait before etcd is first asked how far the view is behind, and the longest of all.
_ASKING = (0.1, 1.0)


class ViewSnapshot(Mapping[bytes, KeyValue]):
    """
    What a view had at one revision; nothing changes it. Its keys are in order.

    :ivar revision: the store's revision.
    """

    __slots__ = ("_kvs", "revision")

    def __init__(self, kvs: Mapping[bytes, KeyValue], revision: int) -> None:
        self._kvs = kvs
        self.revision = revision

    def __getitem__(self, key: str | bytes) -> KeyValue:
        return self._kvs[to_bytes(key)]

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str | bytes) and to_bytes(key) in self._kvs

    def __iter__(self) -> Iterator[bytes]:
        return iter(sorted(self._kvs))

    def __len__(self) -> int:
        return len(self._kvs)

    def __repr__(self) -> str:
        return f"<ViewSnapshot of {len(self)} keys at revision {self.revision}>"


class _Following(RangeFollower):
    """
    Follows for a view.

    :param reached: called after each step, when what changed was told.
    """

    def __init__(
        self,
        client: EtcdClient,
        prefix: bytes,
        changed: Callable[[tuple[Change, ...]], None],
        *,
        reached: Callable[[], None],
        random: Callable[[], float],
    ) -> None:
        super().__init__(
            client, client.reactor, prefix, changed, patient=True, lasting=True, random=random, prefix=True
        )
        self._after_step = reached

    def _watch(self, revision: int) -> Watch:
        return self._client.watch(self._key, start_revision=revision, progress_notify=True, **self._options)

    def _reached(self) -> None:
        self._after_step()

    def skip_to(self, revision: int) -> None:
        """
        What is known is also what is there at this later revision. Of what the watch has yet to tell up to there,
        all was undone.
        """
        self._revision = revision


class CachedView(Service):
    """
    The key-values below a prefix as a map that is read without asking etcd, and follows what changes there.

    It shows what was there at :attr:`revision`, all of it and nothing else: what one transaction did is seen at once.
    It is behind etcd by the time that a change takes to arrive; :meth:`at_least` waits until it is not. While etcd is
    away, or allows it no longer, it stays as it was, and is :attr:`stale`. Where etcd has compacted what it had not
    seen, it reads the prefix again.

    It begins with ``startService``, its own or its parent's, and is empty-handed until :meth:`when_loaded`: before,
    reading raises :exc:`RuntimeError`. Stop it before its client; it cannot be started again then.

    :param prefix: of the keys; all keys where it is empty.
    :param random: gives numbers from 0 up to 1, for the waits between attempts.
    """

    _log = Logger()

    def __init__(
        self,
        client: EtcdClient,
        prefix: str | bytes,
        *,
        random: Callable[[], float] = random.random,
    ) -> None:
        self.prefix = to_bytes(prefix, "prefix")
        self._keys = KeyRange.of(self.prefix, prefix=True)
        self._client = client
        self._clock = client.reactor
        self._random = random
        self._changes: Listeners[tuple[Change, ...]] = Listeners(f"what changes in the view of {self._keys}")
        self._follower = _Following(client, self.prefix, self._changes.tell, reached=self._step, random=random)
        self._loaded: Moment[None] = Moment()
        self._started = False
        self._stopped = False
        self._waiting = Reaching(client.reactor, self.__repr__, self._ask_no_more)
        self._asking: Deferred[None] | None = None

    def __repr__(self) -> str:
        state = "stopped" if self._stopped else f"at revision {self.revision}" if self.revision else "not read yet"
        return f"<CachedView of {self._keys}, {state}>"

    # --- its life ---------------------------------------------------------------------------------------------------

    def startService(self) -> None:
        """
        Read the prefix, however long etcd is away, and follow it.

        :raises ServiceStopped: it was stopped.
        """
        if self._stopped:
            msg = f"{self!r} cannot be started again: make a new one"
            raise ServiceStopped(msg)
        super().startService()  # type: ignore[no-untyped-call]
        if not self._started:
            self._started = True
            self._follower.start().addCallbacks(self._loaded.fire, self._loaded.fail)
            self._follower.ended.addErrback(self._over)

    def stopService(self) -> Deferred[None]:
        """
        Follow it no longer. What it has can still be read.

        :return: fires when nothing is under way.
        """
        super().stopService()  # type: ignore[no-untyped-call]
        self._stopped = True
        self._over(Failure(ServiceStopped(f"{self!r} was stopped")))
        return self._follower.stop()

    def when_loaded(self) -> Deferred[None]:
        """
        A new Deferred that fires when the prefix was read.

        :raises ServiceStopped: it was stopped before that.
        """
        return self._loaded.wait()

    @property
    def ended(self) -> Deferred[None]:
        """A new Deferred that fires with None after ``stopService``, and fails with anything else that ended it."""
        return self._follower.ended

    # --- reading ----------------------------------------------------------------------------------------------------

    @property
    def revision(self) -> int:
        """It shows what was there at this revision; 0 before it was read."""
        return self._follower.revision

    @property
    def stale(self) -> bool:
        """
        Whether it may be behind what is in etcd by more than a moment: nothing is heard from etcd any more, or a
        permission was taken away, or the prefix has to be read again. Not before it has been read.
        """
        return self._follower.stale

    @property
    def stale_since(self) -> float | None:
        """When it became stale, in the reactor's seconds; None where it is fresh."""
        return self._follower.stale_since

    def on_stale(self, callback: Callable[[bool], object]) -> Callable[[], None]:
        """
        Have :attr:`stale` told when it changes; what the callback raises is logged and ends nothing.

        :return: call it to be told no longer.
        """
        return self._follower.on_stale(callback)

    def snapshot(self) -> ViewSnapshot:
        """All that it has now, to keep. Costs next to nothing, and the next change a copy of the map."""
        self._check_loaded()
        return ViewSnapshot(self._follower.keep(), self.revision)

    def __getitem__(self, key: str | bytes) -> KeyValue:
        self._check_loaded()
        return self._follower.current[to_bytes(key)]

    def get(self, key: str | bytes) -> KeyValue | None:
        """The key-value; None where it is not there."""
        self._check_loaded()
        return self._follower.current.get(to_bytes(key))

    def __contains__(self, key: str | bytes) -> bool:
        self._check_loaded()
        return to_bytes(key) in self._follower.current

    def __iter__(self) -> Iterator[bytes]:
        """The keys in order, of one revision, also where it changes meanwhile."""
        return iter(self.snapshot())

    def __len__(self) -> int:
        self._check_loaded()
        return len(self._follower.current)

    def _check_loaded(self) -> None:
        if not self.revision:
            msg = f"{self!r} has nothing to show: start it, and wait for when_loaded()"
            raise RuntimeError(msg)

    # --- following --------------------------------------------------------------------------------------------------

    def on_change(self, callback: Callable[[tuple[Change, ...]], object]) -> Callable[[], None]:
        """
        Have a function told what changes from now on: the changes that came together, when the view has them all.

        What it raises is logged and ends nothing.

        :return: call it to be told no longer.
        """
        if not callable(callback):
            msg = f"callback must be a function that takes a tuple of Change, not {type(callback).__name__}"
            raise TypeError(msg)
        return self._changes.add(callback)

    def at_least(self, revision: int, *, timeout: float | None = TIMEOUT) -> Deferred[int]:
        """
        Wait until the view is at a revision or behind it: ``yield view.at_least(put.header.revision)`` makes it show
        what was put, wherever that was.

        Where nothing happens below the prefix, it is etcd that is asked how far that holds.

        :param timeout: seconds; None for any time.
        :return: fires with the view's revision.
        :raises DeadlineExceeded: it is not there yet; the view goes on.
        :raises ServiceStopped: it was stopped.
        """
        self._waiting.check_timeout(timeout)
        if to_int(revision, "revision") <= self.revision and self.revision:
            return succeed(self.revision)
        waiting = self._waiting.wait(revision, timeout)
        if self._waiting and self._asking is None:
            self._asking = Deferred.fromCoroutine(self._ask())
            self._asking.addErrback(self._asked_no_more)
        return waiting

    def read(self, key: str | bytes, *, timeout: float | None = TIMEOUT) -> Deferred[KeyValue | None]:
        """
        What is at a key now, asked of etcd. When this fires, the view is at least where the answer was, so that what is
        read from it next is not older.

        :param timeout: seconds for each of the two.
        """
        whole = self._below(key)

        def got(response: RangeResponse) -> Deferred[KeyValue | None]:
            reached = self.at_least(response.header.revision, timeout=timeout)
            return reached.addCallback(lambda _: response.kvs[0] if response.kvs else None)

        return self._client.get(whole, timeout=timeout).addCallback(got)

    def put(
        self, key: str | bytes, value: str | bytes, *, timeout: float | None = TIMEOUT, **options: Unpack[PutOptions]
    ) -> Deferred[PutResponse]:
        """
        Put a key of it, and wait until the view shows that.

        :param timeout: seconds for each of the two; where the second is over, the key was put all the same.
        :param options: as for ``EtcdClient.put``.
        """
        whole = self._below(key)

        def done(response: PutResponse) -> Deferred[PutResponse]:
            return self.at_least(response.header.revision, timeout=timeout).addCallback(lambda _: response)

        return self._client.put(whole, value, timeout=timeout, **options).addCallback(done)

    def _below(self, key: str | bytes) -> bytes:
        whole = to_bytes(key)
        if not whole.startswith(self.prefix):
            msg = f"{whole!r} does not begin with {self.prefix!r}, and so is no key of this view"
            raise ValueError(msg)
        return whole

    # --- steps ------------------------------------------------------------------------------------------------------

    def _step(self) -> None:
        self._waiting.reached(self.revision)

    def _ask_no_more(self) -> None:
        if self._asking is not None:
            self._asking.cancel()

    def _over(self, failure: Failure) -> None:
        self._loaded.fail(failure)
        self._waiting.end(failure)

    async def _ask(self) -> None:
        """Ask etcd how far what is known holds, until nobody waits."""
        backoff = Backoff(self._random, *_ASKING)
        await self._loaded.wait()
        while self._waiting:
            await deferLater(self._clock, backoff.next())
            since = self.revision
            try:
                # What was put since, and how many there are in all. Where nothing was and none is missing, nothing is
                # different.
                response = await self._client.get(
                    self.prefix, prefix=True, min_mod_revision=since + 1, limit=1, keys_only=True
                )
            except (RequestFailed, EtcdError) as error:
                self._log.debug("{view!r} cannot ask how far it is: {why}", view=self, why=str(error))
                continue
            unchanged = not response.kvs and response.count == len(self._follower.current)
            if unchanged and since == self.revision < response.header.revision:
                self._follower.skip_to(response.header.revision)
                # What runs here cannot be cancelled, and goes on only where nobody else has begun to ask.
                asking, self._asking = self._asking, None
                self._step()
                if self._asking is not None:
                    return
                self._asking = asking
        self._asking = None

    def _asked_no_more(self, failure: Failure) -> None:
        self._asking = None
        failure.trap(CancelledError, ServiceStopped)
