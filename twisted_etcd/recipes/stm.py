"""Transactions as functions: they read, compute and write, and are run again where somebody else came between."""

from __future__ import annotations

import random
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, ClassVar, Generic, TypeVar, cast, overload

from twisted.internet.defer import CancelledError, Deferred, DeferredLock
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from twisted_etcd.backoff import Backoff
from twisted_etcd.client import op
from twisted_etcd.client.client import EtcdClient
from twisted_etcd.client.kv import to_int
from twisted_etcd.discreet import Discreet
from twisted_etcd.errors import Compacted, DeadlineExceeded, FutureRevision, OutcomeUnknown, TooManyConflicts
from twisted_etcd.keys import to_bytes
from twisted_etcd.recipes.footprint import Footprint, Isolation, Reading, Write, ranges, readings
from twisted_etcd.recipes.reaching import Reaching
from twisted_etcd.schema.kv import TxnResponse

ResultT = TypeVar("ResultT")

#: Seconds for all attempts together, unless told otherwise.
TIMEOUT = 30.0
#: Seconds: the longest wait after the second conflict, and after many.
_WAITS = (0.01, 0.5)
_NOT_CONFIRMED = "the transaction was sent and not confirmed"


class Committed(Discreet, Generic[ResultT], frozen=True):
    """
    A transaction that was applied.

    :ivar result: what its function gave in the attempt that was applied.
    :ivar revision: the store's revision when it was applied: that of all it wrote.
    :ivar attempts: how often the function ran.
    """

    secret_fields: ClassVar[frozenset[str]] = frozenset({"result"})

    result: ResultT
    revision: int
    attempts: int


class Transaction:
    """
    What the function of :func:`stm` reads from and writes to, for one attempt.

    Reads go to etcd, one after the other; a key is read once. Writes wait until the function is done, and are read back
    from here before that.
    """

    def __init__(self, client: EtcdClient, isolation: Isolation, known: dict[bytes, Reading], revision: int) -> None:
        self._client = client
        self._isolation = isolation
        self._known = known
        self._revision = revision
        self._footprint = Footprint(isolation)
        self._reading = DeferredLock()
        self._over = False
        #: Whether the revision that it reads was compacted, so that it must begin anew.
        self._outdated = False

    def get(self, key: str | bytes) -> Deferred[bytes | None]:
        """
        The value of a key; None where it is not there.

        :raises EtcdError: as of ``EtcdClient.get``; let it out of the function, which ends the transaction.
        """
        return self.get_many((key,)).addCallback(lambda found: next(iter(found.values())))

    def get_many(self, keys: Iterable[str | bytes]) -> Deferred[dict[bytes, bytes | None]]:
        """The values of several keys, of which those that are not known yet are read in one request."""
        whole = [to_bytes(key) for key in keys]
        self._check_running()
        return Deferred.fromCoroutine(self._values(whole))

    def rev(self, key: str | bytes) -> Deferred[int]:
        """The revision of a key's last change as it was read, whatever is to be written to it; 0: it is not there."""
        whole = to_bytes(key)
        self._check_running()

        def revision(found: dict[bytes, Reading]) -> int:
            kv = found[whole].kv
            return 0 if kv is None else kv.mod_revision

        return self._read([whole]).addCallback(revision)

    def put(self, key: str | bytes, value: str | bytes, *, lease: int = 0, ignore_lease: bool = False) -> None:
        """
        Put a key when the transaction is applied.

        :param lease: the id of the lease that it lives by.
        :param ignore_lease: keep the lease that it has.
        """
        whole, content = to_bytes(key), to_bytes(value, "value")
        self._check_running()
        operation = op.put(whole, content, lease=lease, ignore_lease=ignore_lease)
        self._footprint.writes[whole] = Write(content, operation)

    def delete(self, key: str | bytes) -> None:
        """Delete a key when the transaction is applied."""
        whole = to_bytes(key)
        self._check_running()
        self._footprint.writes[whole] = Write(None, op.delete(whole))

    # --- reading ----------------------------------------------------------------------------------------------------

    def _check_running(self) -> None:
        if self._over:
            msg = "this attempt of the transaction is over; use its transaction object only inside the function"
            raise RuntimeError(msg)

    async def _values(self, keys: Sequence[bytes]) -> dict[bytes, bytes | None]:
        writes = dict(self._footprint.writes)
        found = await self._read([key for key in keys if key not in writes])
        values: dict[bytes, bytes | None] = {}
        for key in keys:
            kv = None if key in writes else found[key].kv
            values[key] = writes[key].value if key in writes else (None if kv is None else kv.value)
        return values

    def _read(self, keys: Sequence[bytes]) -> Deferred[dict[bytes, Reading]]:
        # In turn: the first one says which revision all see, and none is read twice.
        reading: Deferred[dict[bytes, Reading]] = self._reading.run(
            lambda: Deferred.fromCoroutine(self._read_in_turn(keys))
        )
        return reading

    async def _read_in_turn(self, keys: Sequence[bytes]) -> dict[bytes, Reading]:
        reads = self._footprint.reads
        reads.update({key: self._known.pop(key) for key in keys if key in self._known})
        missing = [key for key in dict.fromkeys(keys) if key not in reads]
        if missing:
            reads.update(await self._fetch(missing))
        return reads

    async def _fetch(self, keys: Sequence[bytes]) -> dict[bytes, Reading]:
        if not self._isolation.is_of_one_revision:
            return await fetch(self._client, keys, serializable=True)
        if self._revision == 0:
            found = await fetch(self._client, keys)
            self._revision = next(iter(found.values())).revision
            return found
        try:
            return await fetch(self._client, keys, revision=self._revision, serializable=True)
        except FutureRevision:
            # The member that was asked is behind the one that answered first.
            return await fetch(self._client, keys, revision=self._revision)
        except Compacted:
            self._outdated = True
            raise

    # --- for stm ----------------------------------------------------------------------------------------------------

    @property
    def outdated(self) -> bool:
        """Whether what it reads can be read no longer: begin anew."""
        return self._outdated

    @property
    def footprint(self) -> Footprint:
        """What it has read, and is to write."""
        return self._footprint

    def end(self) -> None:
        """The function is done."""
        self._over = True


async def fetch(
    client: EtcdClient, keys: Sequence[bytes], *, revision: int = 0, serializable: bool = False
) -> dict[bytes, Reading]:
    """Read keys as they are at one revision, in one request."""
    if len(keys) == 1:
        response = await client.get(keys[0], revision=revision, serializable=serializable)
        return readings(keys, [response], response.header.revision)
    gets = [op.get(key, revision=revision, serializable=serializable) for key in keys]
    done = await client.txn(success=gets)
    return readings(keys, ranges(done.responses), done.header.revision)


class _Anew(Exception):
    """The function went on without what could not be read."""


class _Running(Generic[ResultT]):
    """A transaction, attempt after attempt."""

    def __init__(
        self,
        client: EtcdClient,
        function: Callable[[Transaction], Any],
        *,
        isolation: Isolation,
        prefetch: Sequence[bytes],
        attempts: int | None,
        random: Callable[[], float],
    ) -> None:
        self._client = client
        self._clock = client.reactor
        self._function = function
        self._isolation = isolation
        self._prefetch = prefetch
        self._most_attempts = attempts
        self._backoff = Backoff(random, *_WAITS)
        self._attempts = 0
        self._conflicts = 0
        self._known: dict[bytes, Reading] = {}
        self._revision = 0
        self._expired = False
        #: Whether something was sent that may have been applied.
        self._committing = False

    def run(self, timeout: float | None) -> Deferred[Committed[ResultT]]:
        running = Deferred.fromCoroutine(self._run())
        if timeout is None or running.called:
            return running

        def expire() -> None:
            self._expired = True
            running.cancel()

        timer = self._clock.callLater(timeout, expire)

        def ended(result: Any) -> Any:  # noqa: ANN401 - whatever it is
            if timer.active():
                timer.cancel()
            if self._expired and isinstance(result, Failure) and result.check(CancelledError):
                raise self._out_of_time(timeout)
            return result

        return running.addBoth(ended)

    def _out_of_time(self, timeout: float) -> Exception:
        if self._committing:
            return _unknown(f"the transaction was not confirmed within {timeout:g} s")
        return DeadlineExceeded(
            f"the transaction was not applied within {timeout:g} s, in {_times(self._attempts)}, of which others came "
            f"between {self._conflicts}: give it a longer timeout, or let fewer change the same keys at a time"
        )

    async def _run(self) -> Committed[ResultT]:
        while True:
            self._attempts += 1
            transaction = Transaction(self._client, self._isolation, self._known, self._revision)
            try:
                result = await self._call(transaction)
            except CancelledError:
                raise
            except Exception:
                # What its function made of an error of etcd's is not what was wrong.
                if not transaction.outdated:
                    raise
                self._known, self._revision = {}, 0
            else:
                if self._expired:
                    raise CancelledError
                done = await self._commit(transaction.footprint)
                if done.succeeded:
                    return Committed(result, done.header.revision, self._attempts)
            self._conflicts += 1
            if self._attempts == self._most_attempts:
                raise TooManyConflicts(self._attempts)
            await self._prepare()

    async def _call(self, transaction: Transaction) -> ResultT:
        try:
            if self._prefetch:
                await transaction.get_many(self._prefetch)
            result = self._function(transaction)
            if isinstance(result, Deferred | Coroutine):
                result = await result
        finally:
            transaction.end()
        if transaction.outdated:
            raise _Anew
        return cast("ResultT", result)

    async def _commit(self, footprint: Footprint) -> TxnResponse:
        self._committing = bool(footprint.writes)
        try:
            done = await self._client.txn(
                compare=footprint.conditions(), success=footprint.operations(), failure=footprint.rereads()
            )
        except OutcomeUnknown as error:
            raise _unknown(_NOT_CONFIRMED, error) from error
        self._committing = False
        if not done.succeeded:
            self._revision = done.header.revision if done.responses else 0
            self._known = readings(footprint.reads, ranges(done.responses), self._revision) if done.responses else {}
        return done

    async def _prepare(self) -> None:
        """Wait for the next attempt, but not for the second: what it needs came with the answer."""
        if self._conflicts == 1:
            return
        await deferLater(self._clock, self._backoff.next())
        if self._known:
            # What is known has become old, and would be in conflict once more.
            self._known = await fetch(self._client, tuple(self._known))
            self._revision = next(iter(self._known.values())).revision


def _unknown(what: str, error: OutcomeUnknown | None = None) -> OutcomeUnknown:
    return OutcomeUnknown(
        f"{what}; it may have been applied, or may yet be: read what it writes before you run it again",
        None if error is None else error.tried,
    )


def _times(count: int) -> str:
    return "1 attempt" if count == 1 else f"{count} attempts"


@overload
def stm(
    client: EtcdClient,
    function: Callable[[Transaction], Coroutine[Any, Any, ResultT]],
    *,
    isolation: Isolation = ...,
    prefetch: Iterable[str | bytes] = ...,
    attempts: int | None = ...,
    timeout: float | None = ...,
    random: Callable[[], float] = ...,
) -> Deferred[Committed[ResultT]]: ...


@overload
def stm(
    client: EtcdClient,
    function: Callable[[Transaction], Deferred[ResultT]],
    *,
    isolation: Isolation = ...,
    prefetch: Iterable[str | bytes] = ...,
    attempts: int | None = ...,
    timeout: float | None = ...,
    random: Callable[[], float] = ...,
) -> Deferred[Committed[ResultT]]: ...


@overload
def stm(
    client: EtcdClient,
    function: Callable[[Transaction], ResultT],
    *,
    isolation: Isolation = ...,
    prefetch: Iterable[str | bytes] = ...,
    attempts: int | None = ...,
    timeout: float | None = ...,
    random: Callable[[], float] = ...,
) -> Deferred[Committed[ResultT]]: ...


def stm(
    client: EtcdClient,
    function: Callable[[Transaction], Any],
    *,
    isolation: Isolation = Isolation.SERIALIZABLE_SNAPSHOT,
    prefetch: Iterable[str | bytes] = (),
    attempts: int | None = None,
    timeout: float | None = TIMEOUT,
    random: Callable[[], float] = random.random,
) -> Deferred[Committed[Any]]:
    """
    Run a function as a transaction (software transactional memory, as in the ``concurrency`` package of etcd's Go
    client): what it writes is applied at once, or not at all, and only where what it read is still so. Where it is not,
    the function runs again; so it should do nothing beside its transaction that must not be done twice.

    Where the function raises, that ends it, and nothing is applied.

    :param function: takes the :class:`Transaction`; plain, ``inlineCallbacks`` or ``async``.
    :param isolation: what counts as still so.
    :param prefetch: keys that the function reads in any case: they are read in one request before it is called.
    :param attempts: how often it may run; None for any number.
    :param timeout: seconds for all of it; None for any time.
    :param random: gives numbers from 0 up to 1, for the waits between attempts.
    :return: fires with what the function gave, and the revision.
    :raises TooManyConflicts: others came between each time; it was not applied.
    :raises DeadlineExceeded: the time was over; it was not applied.
    :raises OutcomeUnknown: it was sent and not confirmed. It is never run again then, since it may have been applied.
    :raises TooManyOperations: it has read or written more keys than etcd takes in one transaction.
    """
    if not callable(function):
        msg = f"function must be a function that takes a Transaction, not {type(function).__name__}"
        raise TypeError(msg)
    if not isinstance(isolation, Isolation):
        msg = f"isolation must be one of Isolation, not {type(isolation).__name__}"
        raise TypeError(msg)
    if attempts is not None and to_int(attempts, "attempts") < 1:
        msg = f"attempts must be at least 1, or None for any number, not {attempts!r}"
        raise ValueError(msg)
    Reaching.check_timeout(timeout)
    if isinstance(prefetch, str | bytes):
        msg = f"prefetch must be a list of keys, not {type(prefetch).__name__}"
        raise TypeError(msg)
    keys = [to_bytes(key, "a key of prefetch") for key in prefetch]
    running: _Running[Any] = _Running(
        client, function, isolation=isolation, prefetch=keys, attempts=attempts, random=random
    )
    return running.run(timeout)
