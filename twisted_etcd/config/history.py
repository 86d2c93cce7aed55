"""What a value was before, back to where etcd has forgotten it."""

from __future__ import annotations

import enum
from collections import deque
from typing import ClassVar, NoReturn

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from twisted_etcd.client import op
from twisted_etcd.client.client import EtcdClient
from twisted_etcd.client.kv import is_time, to_int
from twisted_etcd.config.changes import ChangeType
from twisted_etcd.discreet import Discreet
from twisted_etcd.errors import Compacted, DeadlineExceeded, FutureRevision, InvalidSettings
from twisted_etcd.schema.kv import Event, EventType, KeyValue, TxnResponse

#: How many revisions etcd is asked about in one request: as many operations as a transaction may have.
REVISIONS_A_REQUEST = 128
#: How many revisions back a deletion is looked for, unless told otherwise.
SEARCH = 100_000
#: Seconds that a watch may take to tell the next of what was, unless told otherwise.
TIMEOUT = 30.0


class Older(str, enum.Enum):
    """What there is before the oldest entry of a history."""

    #: Nothing: the key was first made then, or never.
    NOTHING = "nothing"
    #: Nobody knows: etcd's history has been compacted.
    COMPACTED = "compacted"
    #: More, which was not asked for.
    MORE = "more"
    #: Nobody has looked further back.
    UNSEARCHED = "unsearched"


class ConfigHistoryEntry(Discreet, frozen=True, kw_only=True):
    """
    One change of one value.

    :ivar revision: etcd's revision of the change.
    :ivar value: what it was from then on; None where it was deleted.
    :ivar version: how many times it had been set since it was created; 0 where it was deleted.
    """

    secret_fields: ClassVar[frozenset[str]] = frozenset({"value"})

    revision: int
    value: bytes | None
    change_type: ChangeType
    version: int


class ConfigHistory(Discreet, frozen=True, kw_only=True):
    """
    What happened to one value.

    :ivar entries: the newest first.
    :ivar older: what there is before them.
    """

    key: str
    entries: tuple[ConfigHistoryEntry, ...]
    older: Older


class Past:
    """
    Reads the history of one key of etcd's.

    While the key is there, its values are read one by one, each at the revision before the last one's. What was before
    it was created is what a watch tells from the earliest revision on that etcd has, up to its creation. The one thing
    that no watch can tell the end of is the deletion of a key that is not there now: it is looked for backwards, 128
    revisions a request.

    :param limit: how many entries are wanted at the most; 0 for all.
    :param search: how many revisions back that deletion is looked for.
    :param timeout: seconds that the watch may take to tell the next of what it has.
    """

    def __init__(
        self,
        client: EtcdClient,
        clock: IReactorTime,
        path: str,
        *,
        limit: int = 0,
        search: int = SEARCH,
        timeout: float = TIMEOUT,
    ) -> None:
        for what, number in (("limit", limit), ("search", search)):
            if to_int(number, what) < 0:
                msg = f"{what} must be at least 0, not {number}"
                raise InvalidSettings(msg)
        if not is_time(timeout, "timeout") or timeout == 0:
            msg = f"timeout must be more than 0 seconds, and finite, not {timeout!r}"
            raise InvalidSettings(msg)
        self._client = client
        self._clock = clock
        self._timeout = timeout
        self._path = path
        self._limit = limit
        self._search = search
        self._entries: list[ConfigHistoryEntry] = []

    async def read(self, key: str, deleted_at: int = 0) -> ConfigHistory:
        """
        Read it.

        :param key: what the history is called.
        :param deleted_at: where the key was seen to be deleted; 0 where nobody has seen it.
        """
        older = await self._read(deleted_at)
        if self._limit and len(self._entries) > self._limit:
            del self._entries[self._limit :]
            older = Older.MORE
        return ConfigHistory(key=key, entries=tuple(self._entries), older=older)

    @property
    def _is_full(self) -> bool:
        # One more tells whether there is more.
        return bool(self._limit) and len(self._entries) > self._limit

    async def _read(self, deleted_at: int) -> Older:
        response = await self._client.get(self._path)
        kv = response.kvs[0] if response.kvs else None
        try:
            if kv is None:
                kv = await self._last_before(deleted_at, response.header.revision)
                if kv is None:
                    return Older.NOTHING
            while True:
                self._entries.append(_put(kv))
                if self._is_full:
                    return Older.MORE
                if kv.version <= 1:
                    return await self._before_creation(kv.create_revision)
                kv = (await self._client.get(self._path, revision=kv.mod_revision - 1)).kvs[0]
        except Compacted:
            return Older.COMPACTED
        except _NotFoundInTime:
            return Older.UNSEARCHED

    async def _last_before(self, deleted_at: int, now: int) -> KeyValue | None:
        """The last value of a key that is not there now, whose deletion is the newest entry; None: it never was."""
        if deleted_at > 1:
            try:
                kvs = (await self._client.get(self._path, revision=deleted_at - 1)).kvs
                there = (await self._client.get(self._path, revision=deleted_at, count_only=True)).count
            except FutureRevision:
                # The cluster was set back.
                kvs, there = (), 0
            if kvs and not there:
                self._entries.append(_deletion(deleted_at))
                return kvs[0]
        lowest = max(1, now - self._search)
        highest = now
        while highest > lowest:
            revisions = range(highest - 1, max(lowest, highest - REVISIONS_A_REQUEST) - 1, -1)
            for revision, kv in zip(revisions, await self._at(revisions), strict=True):
                if kv is not None:
                    self._entries.append(_deletion(revision + 1))
                    return kv
            highest = revisions[-1]
        if lowest > 1:
            raise _NotFoundInTime
        return None

    def _late(self, _: object, seconds: float) -> NoReturn:
        msg = f"the history of {self._path!r} was not told within {seconds} s"
        raise DeadlineExceeded(msg)

    def _at(self, revisions: range) -> Deferred[list[KeyValue | None]]:
        def found(response: TxnResponse) -> list[KeyValue | None]:
            ranges = [each.response_range for each in response.responses]
            return [each.kvs[0] if each is not None and each.kvs else None for each in ranges]

        reads = [op.get(self._path, revision=revision) for revision in revisions]
        return self._client.txn(success=reads).addCallback(found)

    async def _before_creation(self, created: int) -> Older:
        """Everything before a creation, from the earliest revision on that etcd has."""
        start, older = 1, Older.NOTHING
        while True:
            events: deque[Event] = deque(maxlen=self._limit + 2 if self._limit else None)
            watch = self._client.watch(self._path, start_revision=start)
            try:
                while not events or events[-1].kv.mod_revision < created:
                    next_events = watch.next().addTimeout(self._timeout, self._clock, self._late)
                    events.extend((await next_events).events)
            except Compacted as error:
                if not start < error.compact_revision < created:
                    return Older.COMPACTED
                start, older = error.compact_revision, Older.COMPACTED
                continue
            finally:
                await watch.stop()
            before = [event for event in events if event.kv.mod_revision < created]
            self._entries += [_entry(event) for event in reversed(before)]
            return older


class _NotFoundInTime(Exception):
    """The deletion of a key lies too far back."""


def _put(kv: KeyValue) -> ConfigHistoryEntry:
    return ConfigHistoryEntry(
        revision=kv.mod_revision,
        value=kv.value,
        change_type=ChangeType.CREATED if kv.version <= 1 else ChangeType.MODIFIED,
        version=kv.version,
    )


def _deletion(revision: int) -> ConfigHistoryEntry:
    return ConfigHistoryEntry(revision=revision, value=None, change_type=ChangeType.DELETED, version=0)


def _entry(event: Event) -> ConfigHistoryEntry:
    return _deletion(event.kv.mod_revision) if event.type is EventType.DELETE else _put(event.kv)
