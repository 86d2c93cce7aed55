"""Configuration below a prefix, followed for as long as the program runs."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from twisted_etcd.client.client import EtcdClient
from twisted_etcd.client.kv import is_time
from twisted_etcd.config.bindings import NOTHING, ConfigBinding, tree_reader, value_reader
from twisted_etcd.config.cache import CacheFile
from twisted_etcd.config.changes import ConfigChange
from twisted_etcd.config.configuration import ATTEMPTS, Configuration
from twisted_etcd.config.defaults import encode_defaults, load_defaults
from twisted_etcd.config.following import Following
from twisted_etcd.config.formats import Codec, ConfigFormat, Mistake, bad_value
from twisted_etcd.config.history import SEARCH, TIMEOUT, ConfigHistory
from twisted_etcd.config.listeners import ChangesCallback, ConfigChangeStream, ConfigListener, wanted_keys
from twisted_etcd.config.paths import CONFIG_PREFIX, checked_key, is_below
from twisted_etcd.config.quiescence import Quiet, checked_quiet
from twisted_etcd.config.readings import Readings
from twisted_etcd.config.settling import Settling
from twisted_etcd.config.snapshot import ConfigSnapshot, ConfigSource, Entry
from twisted_etcd.config.view import View
from twisted_etcd.errors import BadValue, InvalidSettings, ServiceStopped
from twisted_etcd.listeners import call_back
from twisted_etcd.moment import Moment
from twisted_etcd.reactor_thread import check_reactor_thread

BoundT = TypeVar("BoundT")

#: Seconds that etcd has to answer before a cache or defaults stand in, unless told otherwise.
CACHE_AFTER = 2.0


class Config(Service):
    """
    The configuration below a prefix: read once, followed from there on, and there to be read at any time.

    It begins with ``startService``: give it a parent service, which stops it before the client, or use it as ``async
    with Config(…) as config``, which waits until it is loaded. While etcd is away it serves what was last read, and
    goes on by itself.

    ``config["database/url"]``, ``get``, ``in``, ``len`` and iteration are those of a mapping of the paths below the
    prefix. Code that needs several values together takes a :meth:`snapshot`. A value that cannot be decoded is
    reported, and the last good one stays; where there was none, its default stands in, and where it has none either,
    reading it raises :exc:`~twisted_etcd.errors.BadValue`; :attr:`loaded` does so, too, where it is of ``types`` or
    bound.

    :param reactor: gives time, and threads, in which the cache is written.
    :param prefix: where it is kept in etcd.
    :param format: of values of which ``types`` says nothing: ``"text"``, ``"bytes"``, ``"json"`` or ``"yaml"``.
    :param types: what values are decoded into, by keys, or by patterns in which ``*`` stands for one part of a path and
        a last ``**`` for the rest: a class (msgspec Struct, attrs, dataclass, or any type that msgspec knows), which
        stands for JSON, or a pair of the class and the format.
    :param defaults: values for keys that etcd does not have: nested mappings, or a YAML or JSON file with such.
    :param cache: a file that is written after changes, and read where etcd does not answer at the start, and for the
        last good values of ``types``, which outlive a restart thereby. Nobody else may read it.
    :param cache_after: seconds that etcd has to answer before the cache, or the defaults where there is none, stand in.
    :param quiet_min: seconds without a further change after which changes are told.
    :param quiet_max: seconds after the first change after which they are told in any case; four times as long where it
        is None.
    :param patient: go on trying where the first reading fails; without it, and without a cache or defaults, ``loaded``
        fails with its error.
    :param on_error: told of each value that cannot be decoded.
    :param random: gives numbers from 0 up to 1; for the waits between attempts.
    :raises InvalidSettings: where one of these cannot be used; the error names it.
    :raises TypeError: where one is of the wrong type; the error names it.
    """

    _log = Logger()

    def __init__(
        self,
        client: EtcdClient,
        reactor: IReactorTime,
        prefix: str = CONFIG_PREFIX,
        *,
        format: ConfigFormat | str = ConfigFormat.TEXT,  # noqa: A002 - as users say it
        types: Mapping[str, Any] | None = None,
        defaults: Mapping[str, Any] | str | Path | None = None,
        cache: str | Path | None = None,
        cache_after: float = CACHE_AFTER,
        quiet_min: float = 0.0,
        quiet_max: float | None = None,
        patient: bool = True,
        on_error: Callable[[BadValue], object] | None = None,
        random: Callable[[], float] = random.random,
    ) -> None:
        if not hasattr(client, "watch"):
            msg = f"the first argument of Config must be an EtcdClient, not {type(client).__name__}"
            raise TypeError(msg)
        if not IReactorTime.providedBy(reactor):
            msg = f"the second argument of Config must be the reactor, not {type(reactor).__name__}"
            raise TypeError(msg)
        if not is_time(cache_after, "cache_after"):
            msg = f"cache_after must be at least 0 seconds, and finite, not {cache_after!r}"
            raise InvalidSettings(msg)
        if on_error is not None and not callable(on_error):
            msg = f"on_error must be a function that takes a BadValue, not {type(on_error).__name__}"
            raise TypeError(msg)
        self._reactor = reactor
        self._quiet = checked_quiet(quiet_min, quiet_max)
        self._on_error = on_error
        self._configuration = Configuration(client, reactor, prefix, random=random)
        readings = Readings(types or {}, format, self._report)
        given = load_defaults(defaults, lambda path: readings.declared(path) is not None)
        self._view = View(readings, encode_defaults(given, readings))
        self._settling = Settling(reactor)
        self._following = Following(
            self._configuration,
            self._view,
            self._told,
            cache=None if cache is None else CacheFile(reactor, Path(cache), self.prefix),
            has_defaults=defaults is not None,
            fallback_after=cache_after,
            patient=patient,
            random=random,
        )
        self._listeners: list[ConfigListener | ConfigChangeStream] = []
        self._values: dict[tuple[str, Any, Any], ConfigBinding[Any]] = {}
        self._stopping: Moment[None] | None = None

    def __repr__(self) -> str:
        state = f"{len(self)} values of revision {self.revision}, from {self.source.value}"
        return f"<Config of {self.prefix!r}, {state if self._following.loaded.happened else 'not loaded'}>"

    # --- what it is now ---------------------------------------------------------------------------------------------

    @property
    def loaded(self) -> Deferred[None]:
        """
        A new Deferred that fires when there is something to be read, from wherever.

        :raises BadValue: a value of ``types``, or one that is bound, cannot be decoded, and has no default. It is
            followed all the same.
        :raises ServiceStopped: it was stopped first.
        :raises TwistedEtcdError: the first reading failed, and nothing was to stand in.
        """
        return self._following.loaded.wait()

    @property
    def prefix(self) -> str:
        """Where it is kept in etcd."""
        return self._configuration.paths.prefix

    @property
    def source(self) -> ConfigSource:
        """Where it comes from: ``"etcd"``, once that has been reached, ``"cache"``, or ``"defaults"``."""
        return self._following.source

    @property
    def stale(self) -> bool:
        """Whether it may be older than what etcd has, since etcd was not reached yet, or cannot be followed now."""
        return self._following.stale

    def on_stale(self, callback: Callable[[bool], object]) -> Callable[[], None]:
        """
        Have :attr:`stale` told when it changes; what the callback raises is logged and ends nothing.

        :return: call it to be told no longer.
        :raises TypeError: for what cannot be called.
        """
        return self._following.staleness.add(callback)

    @property
    def revision(self) -> int:
        """Etcd's revision that it is of; 0 where neither etcd nor a cache has been read."""
        return self._following.revision

    def __getitem__(self, key: str) -> Any:  # noqa: ANN401 - what the value is decoded into
        value = self._view.readings.values[checked_key(key)]
        if isinstance(value, BadValue):
            raise value
        return value

    def get(self, key: str, default: Any = None) -> Any:  # noqa: ANN401 - what the value is decoded into
        """
        A value, or ``default`` where it is not set.

        :raises BadValue: it cannot be decoded, and never could.
        """
        try:
            return self[key]
        except KeyError:
            return default

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and key.strip("/") in self._view.entries

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._view.entries))

    def __len__(self) -> int:
        return len(self._view.entries)

    def keys(self) -> list[str]:
        """All paths, in their order."""
        return list(self)

    def revision_of(self, key: str) -> int:
        """Etcd's revision of the last change of a value, for ``if_revision``; 0 where etcd does not have it."""
        entry = self._view.remote.get(checked_key(key))
        return 0 if entry is None else entry.revision

    def tree(self, root: str = "") -> dict[str, Any]:
        """See :meth:`~twisted_etcd.config.snapshot.ConfigSnapshot.tree`."""
        return self.snapshot().tree(root)

    def snapshot(self) -> ConfigSnapshot:
        """All of it, of one revision; it does not change any more."""
        return self._view.snapshot(self.revision, self.source)

    # --- objects out of it ------------------------------------------------------------------------------------------

    def value(self, key: str, kind: type[BoundT], format: ConfigFormat | str | None = None) -> BoundT:  # noqa: A002
        """
        The last good value of a key as an object of a class.

        :param format: JSON unless given; bytes and text are what they are.
        :raises KeyError: it is not set.
        :raises BadValue: it cannot be decoded, and could not since it was first asked for.
        """
        path = checked_key(key)
        binding = self._values.get((path, kind, format))
        if binding is None:
            codec = Codec(kind, format)
            binding = self._binding(path, value_reader(path, codec), lambda changed: changed == path)
            self._values[path, kind, format] = binding
        return binding.value  # type: ignore[no-any-return]

    def bind(
        self,
        key: str,
        kind: type[BoundT],
        *,
        format: ConfigFormat | str | None = None,  # noqa: A002 - as users say it
        default: Any = NOTHING,  # noqa: ANN401 - of the class
        changed: Callable[[BoundT], object] | None = None,
    ) -> ConfigBinding[BoundT]:
        """
        An object whose ``value`` is always what the last good value of a key said.

        :param format: JSON unless given; bytes and text are what they are.
        :param default: for where the key is not set, or has had no good value yet.
        :param changed: called at once with each new value; what it raises is logged.
        :raises BadValue: the value cannot be decoded, and there is no default. Before it is loaded, :attr:`loaded`
            fails with that.
        """
        path = checked_key(key)
        codec = Codec(kind, format)
        binding = self._binding(path, value_reader(path, codec), lambda touched: touched == path, default, changed)
        return self._wanted(binding)

    def bind_tree(
        self,
        root: str,
        kind: type[BoundT],
        *,
        format: ConfigFormat | str = ConfigFormat.TEXT,  # noqa: A002 - as users say it
        default: Any = NOTHING,  # noqa: ANN401 - of the class
        changed: Callable[[BoundT], object] | None = None,
    ) -> ConfigBinding[BoundT]:
        """
        An object out of all values below a path, whose ``value`` is always what they said when they last went together.

        ``database/pool-size`` or ``database/pool_size`` is the field ``pool_size`` of what is bound to ``database``,
        and ``database/pool/size`` the field ``size`` of its field ``pool``, a class itself.

        :param format: of each value. Text is taken for numbers and flags where the class has those.
        :param default: for where they have not gone together yet.
        :param changed: called at once with each new object; what it raises is logged.
        :raises BadValue: they do not go together, and there is no default. Before it is loaded, :attr:`loaded` fails
            with that.
        """
        path = checked_key(root)
        reader = tree_reader(path, kind, Codec(format=format))
        return self._wanted(self._binding(path, reader, lambda touched: is_below(touched, path), default, changed))

    def _binding(
        self,
        path: str,
        reader: Callable[[Mapping[str, Entry]], tuple[Any | Mistake, int]],
        concerns: Callable[[str], bool],
        default: Any = NOTHING,  # noqa: ANN401 - of the class
        changed: Callable[[Any], object] | None = None,
    ) -> ConfigBinding[Any]:
        if changed is not None and not callable(changed):
            msg = f"changed must be a function that takes the new value, not {type(changed).__name__}"
            raise TypeError(msg)
        binding: ConfigBinding[Any] = ConfigBinding(
            path,
            reader,
            concerns=concerns,
            default=default,
            changed=changed,
            reported=self._report,
            bindings=self._view.bindings,
        )
        self._view.bind(binding)
        return binding

    def _wanted(self, binding: ConfigBinding[BoundT]) -> ConfigBinding[BoundT]:
        wanting = binding.is_wanting
        if wanting is not None:
            binding.stop()
            raise wanting
        return binding

    def _report(self, error: BadValue) -> None:
        self._log.warn("{why}", why=str(error))
        if self._on_error is not None:
            call_back("a bad value of configuration", self._on_error, error)

    # --- changes ----------------------------------------------------------------------------------------------------

    def on_change(
        self,
        callback: ChangesCallback,
        *,
        key: str | None = None,
        prefix: str | None = None,
        quiet_min: float | None = None,
        quiet_max: float | None = None,
    ) -> ConfigListener:
        """
        Tell a callback of what changes from now on, as :class:`~twisted_etcd.config.changes.ConfigChanges`.

        While it waits, as it may return a Deferred or be ``async def``, changes are gathered. What it raises is logged.

        :param key: of this key alone.
        :param prefix: of what is at this path and below it alone.
        :param quiet_min: in place of what the configuration was made with, as is ``quiet_max``.
        :return: ``stop()`` ends it.
        :raises ServiceStopped: configuration was stopped.
        """
        if not callable(callback):
            msg = f"callback must be a function that takes ConfigChanges, not {type(callback).__name__}"
            raise TypeError(msg)
        self._check_running()
        quiet = self._quiet_for(quiet_min, quiet_max)
        return ConfigListener(self._reactor, wanted_keys(key, prefix), quiet, callback, self._listeners)

    def changes(
        self,
        *,
        key: str | None = None,
        prefix: str | None = None,
        quiet_min: float | None = None,
        quiet_max: float | None = None,
    ) -> ConfigChangeStream:
        """
        What changes from now on, for ``async for``; it takes what :meth:`on_change` takes.

        :raises ServiceStopped: configuration was stopped.
        """
        self._check_running()
        quiet = self._quiet_for(quiet_min, quiet_max)
        return ConfigChangeStream(self._reactor, wanted_keys(key, prefix), quiet, self._listeners)

    def _quiet_for(self, quiet_min: float | None, quiet_max: float | None) -> Quiet:
        if quiet_min is None and quiet_max is None:
            return self._quiet
        return checked_quiet(self._quiet.shortest if quiet_min is None else quiet_min, quiet_max)

    # --- writing ----------------------------------------------------------------------------------------------------

    def set(
        self,
        key: str,
        value: Any,  # noqa: ANN401 - bytes, text, or an object of the key's class
        *,
        if_revision: int | None = None,
        if_absent: bool = False,
        format: ConfigFormat | str | None = None,  # noqa: A002 - as users say it
    ) -> Deferred[int]:
        """
        Set a value. Fires with etcd's revision of the change, once ``config[key]`` shows it, or a newer one; where the
        watch is cut off just then, after five seconds at the most.

        :param value: bytes, which are written as they are, or text or an object, which is written in the key's format.
        :param if_revision: only where its last change has this revision (:meth:`revision_of`); 0: where it is not set.
        :param if_absent: only where it is not set.
        :param format: to write it in, in place of the key's.
        :raises Conflict: it was not set, because of one of these.
        :raises BadValue: it could not be read again as what ``types`` says, and was not sent.
        :raises OutcomeUnknown: it may have been set.
        """
        path = checked_key(key)
        encoded = self._encoded(path, value, format)
        setting = self._configuration.set(path, encoded, if_revision=if_revision, if_absent=if_absent)
        return Deferred.fromCoroutine(self._settled(setting, {path: encoded}))

    def update(self, values: Mapping[str, Any], *, if_revision: Mapping[str, int] | None = None) -> Deferred[int]:
        """
        Set several values in one transaction, and delete those that are None; else as :meth:`set`.

        :param if_revision: revisions by keys, also of keys that are not written: only where the last change of each has
            that revision; 0: where it is not set.
        """
        encoded = {
            key: None if value is None else self._encoded(checked_key(key), value, None)
            for key, value in values.items()
        }
        updating = self._configuration.update(encoded, if_revision)
        return Deferred.fromCoroutine(self._settled(updating, {checked_key(key): encoded[key] for key in encoded}))

    def delete(self, key: str, *, if_revision: int | None = None) -> Deferred[bool]:
        """
        Delete a value. Fires with whether it was there, when it is gone here as well; else as :meth:`set`.

        :param if_revision: only where its last change has this revision.
        :raises Conflict: it was not deleted, because of that.
        """
        path = checked_key(key)
        deleting = self._configuration.delete(path, if_revision=if_revision)

        async def deleted() -> bool:
            there, revision = await deleting
            await self._seen({path: None}, revision)
            return there

        return Deferred.fromCoroutine(deleted())

    def modify(
        self,
        key: str,
        function: Callable[[Any], Any],
        *,
        default: Any = None,  # noqa: ANN401 - what the value is decoded into
        attempts: int = ATTEMPTS,
    ) -> Deferred[Any]:
        """
        Read a value, and write what a function makes of it, where nobody has written it meanwhile; else again, after a
        short random wait. Fires with the new value, once it is seen here.

        :param function: called once for each attempt, with the value as it is decoded, or ``default`` where etcd does
            not have it. It gives the new one, None to delete it, and may be ``async def``.
        :param attempts: how many there are at the most.
        :raises Conflict: others were quicker each time.
        :raises BadValue: what is there cannot be decoded, or what the function gave.
        :raises OutcomeUnknown: it may have been written; it is not tried again.
        """
        path = checked_key(key)
        last: list[Any] = []

        async def changed(entry: Entry | None) -> bytes | None:
            before = default if entry is None else self._view.readings.decode(path, entry)
            if isinstance(before, BadValue):
                raise before
            new = function(before)
            last[:] = [await new if isinstance(new, Awaitable) else new]
            return None if last[0] is None else self._encoded(path, last[0], None)

        async def modified() -> Any:  # noqa: ANN401 - what the value is decoded into
            written, revision = await self._configuration.modify(path, changed, attempts)
            await self._seen({path: written}, revision)
            return last[0]

        return Deferred.fromCoroutine(modified())

    def _encoded(self, path: str, value: Any, format: ConfigFormat | str | None) -> bytes:  # noqa: A002, ANN401
        codec = self._view.readings.codec(path) if format is None else Codec(format=format)
        encoded = codec.encode(value)
        declared = self._view.readings.declared(path)
        read = None if declared is None else declared.decode(encoded)
        if isinstance(read, Mistake):
            raise bad_value(path, self.revision_of(path), read)
        return encoded

    async def _settled(self, writing: Deferred[int], written: Mapping[str, bytes | None]) -> int:
        # A put that is sent now comes after all that is known, unless the cluster was set back meanwhile.
        before = self.revision if any(value is not None for value in written.values()) else 0
        revision = await writing
        await self._seen(written, revision, before)
        return revision

    async def _seen(self, written: Mapping[str, bytes | None], revision: int, before: int = 0) -> None:
        def is_seen() -> bool:
            if before > 0 and revision <= before <= self.revision:
                return False
            reached = self.source is ConfigSource.ETCD and self.revision >= revision
            return reached or self._view.has_seen(written, revision)

        if self.running and self._following.goes_on:
            await self._settling.until(is_seen, next(iter(written)))

    # --- the past ---------------------------------------------------------------------------------------------------

    def history(
        self, key: str, *, limit: int = 0, search: int = SEARCH, timeout: float = TIMEOUT
    ) -> Deferred[ConfigHistory]:
        """
        What happened to a value, the newest first, back to where etcd's history has been compacted.

        It takes one request for each value of the last life of the key, and a watch for what was before; for a key that
        is not there, and whose deletion was not seen here, one for 128 revisions back to its deletion.

        :param limit: how many entries are wanted at the most; 0 for all.
        :param search: how many revisions back that deletion is looked for.
        :param timeout: seconds that the watch may take to tell the next of what it has.
        """
        path = checked_key(key)
        seen = self._following.deleted_at(path)
        reading = self._configuration.history(path, limit=limit, search=search, timeout=timeout, deleted_at=seen)
        return Deferred.fromCoroutine(reading)

    def at(self, revision: int) -> Deferred[ConfigSnapshot]:
        """
        All of it as it was at a revision, over the same defaults.

        :raises Compacted: it is no longer kept.
        :raises FutureRevision: there is no such revision yet.
        """

        async def read() -> ConfigSnapshot:
            return self._view.past(await self._configuration.at(revision), revision)

        return Deferred.fromCoroutine(read())

    def rollback(self, key: str, revision: int) -> Deferred[int]:
        """
        Set a value to what it was at a revision, or delete it where it was not set; fires with etcd's revision.

        :raises Compacted: that revision is no longer kept.
        :raises Conflict: somebody wrote it meanwhile.
        """
        path = checked_key(key)

        async def rolled_back() -> int:
            value, now = await self._configuration.rollback(path, revision)
            await self._seen({path: value}, now)
            return now

        return Deferred.fromCoroutine(rolled_back())

    # --- the beginning and the end ----------------------------------------------------------------------------------

    def startService(self) -> None:
        """
        Begin to follow it.

        :raises ServiceStopped: it was stopped, and cannot be used again.
        """
        check_reactor_thread("Config", "a node's from_thread")
        self._check_running()
        super().startService()  # type: ignore[no-untyped-call]
        self._following.start()

    def stopService(self) -> Deferred[None]:
        """
        Follow it no longer, tell nobody anything more, and write the cache. What was read stays there to be read.

        :return: fires when nothing is under way; callbacks that wait are cancelled.
        """
        super().stopService()  # type: ignore[no-untyped-call]
        if self._stopping is None:
            self._stopping = Moment()
            Deferred.fromCoroutine(self._stop()).addCallbacks(self._stopping.fire, self._stopping.fail)
        return self._stopping.wait()

    async def _stop(self) -> None:
        for listener in tuple(self._listeners):
            listener.end()
        self._settling.stop()
        await self._following.stop()

    def _told(self, changes: list[ConfigChange]) -> None:
        for listener in tuple(self._listeners):
            listener.tell(changes)
        self._settling.look()

    async def __aenter__(self) -> Config:
        self.startService()
        try:
            await self.loaded
        except BaseException:
            await self.stopService()
            raise
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # A coroutine that is thrown away, as at the end of a program that was interrupted, can wait for nothing.
        if exc_type is not GeneratorExit:
            await self.stopService()

    def _check_running(self) -> None:
        if self._stopping is not None:
            msg = f"{self!r} was stopped and cannot be used again: make a new one"
            raise ServiceStopped(msg)
