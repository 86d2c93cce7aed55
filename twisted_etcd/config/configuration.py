"""Configuration in etcd, one request at a time: read, written, compared and set."""

from __future__ import annotations

import inspect
import random
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from twisted_etcd.backoff import Backoff
from twisted_etcd.client import compare, op
from twisted_etcd.client.client import EtcdClient
from twisted_etcd.client.kv import to_int
from twisted_etcd.config.changes import ConfigChange
from twisted_etcd.config.follower import ConfigFollower
from twisted_etcd.config.history import SEARCH, TIMEOUT, ConfigHistory, Past
from twisted_etcd.config.paths import CONFIG_PREFIX, Paths, checked_key
from twisted_etcd.config.quiescence import checked_quiet
from twisted_etcd.config.snapshot import Entry, entry_of
from twisted_etcd.errors import Conflict, InvalidSettings
from twisted_etcd.schema.kv import KeyValue, ResponseOp, TxnResponse

#: How often a value is read and written again because others were quicker, unless told otherwise.
ATTEMPTS = 30
#: Seconds: the waits between those attempts.
_FIRST_WAIT, _LONGEST_WAIT = 0.005, 0.5


class Configuration:
    """
    The configuration below a prefix, read from etcd and written there with each call. What follows it, and has it at
    hand, is :class:`~twisted_etcd.config.config.Config`.

    :param prefix: where it is kept; ``/config`` and the path ``app/database`` are the key ``/config/app/database``.
    :param random: gives numbers from 0 up to 1; for the waits between attempts.
    :ivar paths: where it is kept.
    """

    def __init__(
        self,
        client: EtcdClient,
        clock: IReactorTime,
        prefix: str = CONFIG_PREFIX,
        *,
        random: Callable[[], float] = random.random,
    ) -> None:
        self.client = client
        self.clock = clock
        self.paths = Paths(prefix)
        self._random = random

    def path(self, key: str) -> str:
        """
        The etcd key of a configuration key.

        :raises InvalidSettings: where it is empty.
        """
        return self.paths.etcd_key(key)

    def load(self, key: str) -> Deferred[bytes | None]:
        """The value now; None where it is not set."""
        return self.read(key).addCallback(lambda entry: None if entry is None else entry.value)

    def read(self, key: str, *, revision: int = 0) -> Deferred[Entry | None]:
        """
        The value and the revision of its last change, now or at a revision; None where it is not set.

        :param revision: 0 for now.
        :raises Compacted: that revision is no longer kept.
        """
        reading = self.client.get(self.path(key), revision=revision) if revision else self.client.get(self.path(key))
        return reading.addCallback(lambda response: entry_of(response.kvs[0]) if response.kvs else None)

    def follow(
        self,
        key: str,
        changed: Callable[[ConfigChange], Any],
        *,
        prefix: bool = False,
        quiet_min: float = 0.0,
        quiet_max: float | None = None,
        patient: bool = False,
    ) -> ConfigFollower:
        """
        Follow a value, once the follower is started.

        :param changed: told every change, with the old and the new value.
        :param prefix: follow all that is below a path, which may be empty.
        :param quiet_min: seconds without a further change after which changes are told, each key's as one; 0 to tell
            each at once.
        :param quiet_max: seconds after the first change after which they are told in any case; four times as long where
            it is None.
        :param patient: go on trying where the first reading fails.
        """
        quiet = checked_quiet(quiet_min, quiet_max)
        return ConfigFollower(
            self.client, self.clock, self.paths, key, changed, prefix=prefix, quiet=quiet, patient=patient
        )

    def set(
        self, key: str, value: str | bytes, *, if_revision: int | None = None, if_absent: bool = False
    ) -> Deferred[int]:
        """
        Set it; fires with etcd's revision of the change.

        :param if_revision: only where its last change has this revision; 0: where it is not set.
        :param if_absent: only where it is not set.
        :raises Conflict: it was not set, because of one of these.
        """
        if if_absent:
            if if_revision:
                msg = f"if_absent and if_revision={if_revision} contradict each other: give one of them"
                raise InvalidSettings(msg)
            if_revision = 0
        if if_revision is not None:
            return self.update({key: value}, {key: if_revision})
        return self.client.put(self.path(key), value).addCallback(lambda response: response.header.revision)

    def update(
        self, values: Mapping[str, str | bytes | None], if_revision: Mapping[str, int] | None = None
    ) -> Deferred[int]:
        """
        Set several values in one transaction, and delete those that are None; fires with etcd's revision.

        :param if_revision: revisions by keys: only where the last change of each of them has that revision; 0: where it
            is not set. They may be keys that are not written.
        :raises Conflict: nothing was written, because of one of these.
        :raises InvalidSettings: where nothing is to be written, or one key stands twice.
        """
        written = _by_path(values, "values")
        wanted = _by_path(if_revision or {}, "if_revision")
        if not written:
            msg = "update was given no values to write"
            raise InvalidSettings(msg)
        for path, revision in wanted.items():
            if to_int(revision, f"if_revision of {path!r}") < 0:
                msg = f"if_revision of {path!r} must be at least 0, not {revision}"
                raise InvalidSettings(msg)
        writing = self.client.txn(
            compare=[compare.mod_revision(self.path(path), "=", revision) for path, revision in wanted.items()],
            success=[
                op.delete(self.path(path)) if value is None else op.put(self.path(path), value)
                for path, value in written.items()
            ],
            failure=[op.get(self.path(path), keys_only=True) for path in wanted],
        )

        def done(response: TxnResponse) -> int:
            if response.succeeded:
                return response.header.revision
            raise _conflict(wanted, response.responses)

        return writing.addCallback(done)

    def delete(self, key: str, *, if_revision: int | None = None) -> Deferred[tuple[bool, int]]:
        """
        Delete it; fires with whether it was there, and etcd's revision.

        :param if_revision: only where its last change has this revision.
        :raises Conflict: it was not deleted, because of that.
        """
        if if_revision is not None:
            return self.update({key: None}, {key: if_revision}).addCallback(
                lambda revision: (bool(if_revision), revision)
            )
        deleting = self.client.delete(self.path(key))
        return deleting.addCallback(lambda response: (bool(response.deleted), response.header.revision))

    async def modify(
        self,
        key: str,
        function: Callable[[Entry | None], bytes | Awaitable[bytes | None] | None],
        attempts: int = ATTEMPTS,
    ) -> tuple[bytes | None, int]:
        """
        Read a value, and write what a function makes of it where nobody has written it meanwhile; else again.

        :param function: called with what is there, or None, once for each attempt; gives the new value, None to delete
            it. Where that is what was there, nothing is written.
        :return: the new value, and the revision from which on it is there.
        :raises Conflict: others were quicker each time.
        """
        if to_int(attempts, "attempts") < 1:
            msg = f"attempts must be at least 1, not {attempts}"
            raise InvalidSettings(msg)
        backoff = Backoff(self._random, _FIRST_WAIT, _LONGEST_WAIT)
        while True:
            entry = await self.read(key)
            new = function(entry)
            if inspect.isawaitable(new):
                new = await new
            before, revision = (None, 0) if entry is None else (entry.value, entry.revision)
            if new == before:
                return new, revision
            try:
                return new, await self.update({key: new}, {key: revision})
            except Conflict:
                if backoff.rounds + 1 >= attempts:
                    raise
            await deferLater(self.clock, backoff.next())

    async def at(self, revision: int) -> dict[str, Entry]:
        """
        All values as they were at a revision, by path.

        :raises Compacted: it is no longer kept.
        :raises FutureRevision: there is no such revision yet.
        """
        if to_int(revision, "revision") < 1:
            msg = f"revision must be at least 1, not {revision}"
            raise InvalidSettings(msg)
        return self.entries(
            {kv.key: kv async for kv in self.client.scan(self.paths.below, prefix=True, revision=revision)}
        )

    def entries(self, found: Mapping[bytes, KeyValue]) -> dict[str, Entry]:
        """Key-values of etcd's by path, those that no path leads to left out."""
        return {path: entry_of(kv) for key, kv in found.items() if (path := self.paths.path(key)) is not None}

    async def history(
        self, key: str, *, limit: int = 0, search: int = SEARCH, timeout: float = TIMEOUT, deleted_at: int = 0
    ) -> ConfigHistory:
        """
        What happened to a value, the newest first, back to where etcd's history has been compacted.

        See :meth:`Config.history <twisted_etcd.config.config.Config.history>`.

        :param deleted_at: where the key was seen to be deleted; 0 where nobody has seen it.
        """
        past = Past(self.client, self.clock, self.path(key), limit=limit, search=search, timeout=timeout)
        return await past.read(checked_key(key), deleted_at)

    async def rollback(self, key: str, revision: int) -> tuple[bytes | None, int]:
        """
        Write the value that was there at a revision, or delete it where none was.

        :return: that value, and the revision from which on it is there again.
        :raises Compacted: that revision is no longer kept.
        :raises Conflict: somebody wrote it meanwhile.
        """
        if to_int(revision, "revision") < 1:
            msg = f"revision must be at least 1, not {revision}"
            raise InvalidSettings(msg)
        now = await self.read(key)
        then = await self.read(key, revision=revision)
        value = None if then is None else then.value
        if value == (None if now is None else now.value):
            return value, 0 if now is None else now.revision
        return value, await self.update({key: value}, {key: 0 if now is None else now.revision})


def _by_path(given: Mapping[str, Any], what: str) -> dict[str, Any]:
    if not isinstance(given, Mapping):
        msg = f"{what} must be a mapping of configuration keys, not {type(given).__name__}"
        raise TypeError(msg)
    found = {checked_key(key): value for key, value in given.items()}
    if len(found) != len(given):
        twice = next(key for key in given if list(map(checked_key, given)).count(checked_key(key)) > 1)
        msg = f"{what} has the key {checked_key(twice)!r} twice"
        raise InvalidSettings(msg)
    return found


def _conflict(wanted: Mapping[str, int], responses: tuple[ResponseOp, ...]) -> Conflict:
    """The first of the conditions that did not hold."""
    for (path, revision), response in zip(wanted.items(), responses, strict=True):
        kvs = response.response_range.kvs if response.response_range is not None else ()
        is_there = kvs[0].mod_revision if kvs else 0
        if is_there != revision:
            return Conflict(path, revision, is_there)
    msg = "etcd refused a transaction and says that its conditions hold"
    raise AssertionError(msg)
