"""Configuration on disk, for a start while etcd is away."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IDelayedCall, IReactorThreads, IReactorTime
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_etcd.config.snapshot import Entry

#: What the files say that this version writes and reads.
VERSION = 1
#: Seconds between a change and the writing of the file.
PAUSE = 1.0


class Cached(msgspec.Struct, frozen=True):
    """
    What a cache file holds.

    :ivar cluster_id: of the cluster that it was read from, in hex.
    :ivar revision: the revision of all of it.
    :ivar entries: by path.
    :ivar good: what was there before, where what is there cannot be decoded.
    """

    version: int
    prefix: str
    cluster_id: str
    revision: int
    entries: dict[str, Entry]
    good: dict[str, Entry] = {}

    @property
    def last_good(self) -> dict[str, Entry]:
        """What each key was when it was last known to be good."""
        return {**self.entries, **self.good}

    @property
    def cluster(self) -> int:
        """The same as a number; 0 where it is none."""
        try:
            return int(self.cluster_id, 16)
        except ValueError:
            return 0

    def __repr__(self) -> str:
        return f"<Cached {self.prefix!r} of cluster {self.cluster_id} at revision {self.revision}>"

    def __rich_repr__(self) -> list[Any]:
        return [self.prefix, self.cluster_id, self.revision]


class _Heading(msgspec.Struct):
    """What every version of the file has."""

    version: int


def read_cache(path: Path, prefix: str) -> Cached | str:
    """What is in a cache file, or why that cannot be used. Of what is in it, nothing is said."""
    try:
        content = path.read_bytes()
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    try:
        heading = msgspec.json.decode(content, type=_Heading)
        if heading.version != VERSION:
            return f"it is of version {heading.version}, and this is {VERSION}"
        cached = msgspec.json.decode(content, type=Cached)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return "it is broken, or no cache at all"
    if cached.prefix != prefix:
        return f"it is of the prefix {cached.prefix!r}, and not of {prefix!r}"
    return cached


def write_cache(path: Path, cached: Cached) -> None:
    """
    Put a file in the place of the one that is there, whole or not at all; nobody else may read it.

    :raises OSError: it cannot be written; the old one is there still.
    """
    content = msgspec.json.encode(cached)
    # With mode 0600 from the beginning.
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(temporary).unlink()
        raise
    _sync_directory(path.parent)


def _sync_directory(directory: Path) -> None:
    """So that the new name outlives a loss of power."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class CacheFile:
    """
    Writes the cache some time after each change, one writing at a time, in a thread where the reactor has them.

    :param reactor: gives time, and threads.
    """

    _log = Logger()

    def __init__(self, reactor: IReactorTime, path: Path, prefix: str) -> None:
        self._reactor = reactor
        self._path = path
        self._prefix = prefix
        self._make: Callable[[], Cached] | None = None
        self._timer: IDelayedCall | None = None
        self._is_writing = False
        self._has_complained = False
        self._stopping: Deferred[None] | None = None

    def read(self) -> Cached | None:
        """What is in it; None where there is no file yet, or one that cannot be used, which is said in the log."""
        if not self._path.exists():
            return None
        cached = read_cache(self._path, self._prefix)
        if isinstance(cached, Cached):
            return cached
        self._log.warn("The cache of configuration {path} is not used: {why}", path=str(self._path), why=cached)
        return None

    def keep(self, make: Callable[[], Cached]) -> None:
        """
        Something has changed.

        :param make: asked, when it is written, for what is to be in the file then.
        """
        self._make = make
        if self._timer is None and not self._is_writing:
            self._timer = self._reactor.callLater(PAUSE, self._write)

    def stop(self) -> Deferred[None]:
        """Write what has to be written. Fires when nothing is under way."""
        if self._timer is not None:
            self._timer.cancel()
            self._write()
        stopping: Deferred[None] = Deferred()
        if self._is_writing:
            self._stopping = stopping
        else:
            stopping.callback(None)
        return stopping

    def _write(self) -> None:
        self._timer = None
        make, self._make = self._make, None
        assert make is not None  # noqa: S101 - there is a timer only where there is one
        cached = make()
        self._is_writing = True
        if IReactorThreads.providedBy(self._reactor):
            pool = self._reactor.getThreadPool()
            writing = deferToThreadPool(self._reactor, pool, write_cache, self._path, cached)
        else:
            writing = maybeDeferred(write_cache, self._path, cached)
        writing.addCallbacks(self._written, self._not_written)
        writing.addBoth(self._done)

    def _written(self, _: object) -> None:
        if self._has_complained:
            self._has_complained = False
            self._log.info("The cache of configuration {path} is written again", path=str(self._path))

    def _not_written(self, failure: Failure) -> None:
        error = failure.value
        if not isinstance(error, OSError):
            self._log.failure("The cache of configuration {path} was not written.", failure, path=str(self._path))
        elif not self._has_complained:
            self._has_complained = True
            self._log.warn(
                "The cache of configuration {path} cannot be written, and will be tried with each change: {why}",
                path=str(self._path),
                why=error.strerror,
            )

    def _done(self, result: object) -> object:
        self._is_writing = False
        if self._make is not None and self._stopping is None:
            self._timer = self._reactor.callLater(PAUSE, self._write)
        elif self._make is not None:
            self._write()
        elif self._stopping is not None:
            stopping, self._stopping = self._stopping, None
            stopping.callback(None)
        return result
