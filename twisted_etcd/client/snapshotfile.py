"""
The file that a snapshot is written to: a part until it is whole, and checked before it takes its name.

Its methods wait for the disk: they are for a thread that may wait.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from threading import Lock

from twisted_etcd.errors import InvalidSettings, SnapshotNotWritten

#: How long the SHA-256 is that stands at the end of a snapshot.
HASH_LENGTH = 32
#: A database is a number of whole blocks of so many bytes: etcd's own tools tell by this that the hash is there.
_BLOCK = 512
#: A snapshot has the hashes of all passwords in it.
_FOR_THE_OWNER = 0o600


class SnapshotSpoiled(Exception):
    """What was written is no whole snapshot."""


def snapshot_path(path: str | os.PathLike[str]) -> Path:
    """
    The path that a caller gave.

    :raises TypeError: for anything but a text or a path.
    :raises InvalidSettings: where it is empty.
    """
    if not isinstance(path, str | os.PathLike):
        msg = f"path must be a str or a Path, not {type(path).__name__}"
        raise TypeError(msg)
    text = os.fspath(path)
    if not isinstance(text, str) or not text:
        msg = f"path is {text!r}: give the name of a file"
        raise InvalidSettings(msg)
    return Path(text)


class SnapshotFile:
    """
    A snapshot on its way to the disk.

    The methods may be called from any thread; one waits for the other. All raise
    :class:`~twisted_etcd.errors.SnapshotNotWritten` where the system does not let them, and after :meth:`discard`.

    :ivar path: where the snapshot will be.
    :ivar part: where it is until it is whole.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.part = path.with_name(f"{path.name}.part")
        self._lock = Lock()
        self._descriptor: int | None = None
        self._size = 0
        self._digest = hashlib.sha256()
        #: The last bytes that came: what the snapshot ends with is not part of what it is the hash of.
        self._tail = b""
        self._given_up = False

    def begin(self) -> None:
        """Begin with an empty file, whatever was written before."""
        with self._lock:
            self._do(self._begin)

    def _begin(self) -> None:
        if self._descriptor is None:
            if self.path.is_dir():
                raise IsADirectoryError(None, "it is a directory")
            self._descriptor = self._open()
        os.ftruncate(self._descriptor, 0)
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        self._size = 0
        self._digest = hashlib.sha256()
        self._tail = b""

    def _open(self) -> int:
        while True:
            descriptor = os.open(self.part, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, _FOR_THE_OWNER)
            try:
                if self._takes(descriptor):
                    return descriptor
            except OSError:
                os.close(descriptor)
                raise
            os.close(descriptor)

    def _takes(self, descriptor: int) -> bool:
        """Lock the file that was opened; False where it is the part no longer."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BlockingIOError(None, f"another snapshot is being written to {self.part.name}") from None
        os.fchmod(descriptor, _FOR_THE_OWNER)
        try:
            # Another one may have given it its name, or removed it, before it was locked.
            return os.path.samestat(os.fstat(descriptor), self.part.lstat())
        except FileNotFoundError:
            return False

    def write(self, pieces: Iterable[bytes]) -> int:
        """
        Write what comes next.

        :return: how many bytes have been written in all.
        """
        with self._lock:
            self._do(lambda: self._write(pieces))
            return self._size

    def _write(self, pieces: Iterable[bytes]) -> None:
        for piece in pieces:
            left = memoryview(piece)
            while left:
                left = left[os.write(self._open_descriptor, left) :]
            self._size += len(piece)
            hashed = self._tail + piece
            self._digest.update(hashed[:-HASH_LENGTH])
            self._tail = hashed[-HASH_LENGTH:]

    @property
    def _open_descriptor(self) -> int:
        if self._descriptor is None:
            msg = "it was not begun"
            raise RuntimeError(msg)
        return self._descriptor

    def finish(self) -> str:
        """
        Check the hash, wait until all of it is on the disk, and give the file its name.

        :return: the SHA-256 of the database, in hexadecimal digits.
        :raises SnapshotSpoiled: it is not whole, or not what etcd sent.
        """
        with self._lock:
            if self._size % _BLOCK != HASH_LENGTH:
                msg = f"it was cut short after {self._size} bytes"
                raise SnapshotSpoiled(msg)
            if self._digest.digest() != self._tail:
                msg = (
                    f"its {self._size} bytes do not have the SHA-256 that came with them: they were changed on the way"
                )
                raise SnapshotSpoiled(msg)
            self._do(self._finish)
            return self._digest.hexdigest()

    def _finish(self) -> None:
        os.fsync(self._open_descriptor)
        # It may have taken long.
        self._check()
        self.part.replace(self.path)
        self._close()
        # The new name is only kept for sure once its directory is on the disk too.
        directory = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def _do(self, doing: Callable[[], None]) -> None:
        self._check()
        try:
            doing()
        except OSError as error:
            raise SnapshotNotWritten(self.path, error.strerror or str(error)) from error

    def _check(self) -> None:
        if self._given_up:
            raise SnapshotNotWritten(self.path, "it was given up")

    def give_up(self) -> None:
        """Let nothing more be done to it but :meth:`discard`; waits for nothing."""
        self._given_up = True

    def discard(self) -> None:
        """Close it, and remove the part, where it is still one. May be called again."""
        self.give_up()
        with self._lock:
            if self._descriptor is not None:
                with suppress(OSError):
                    self.part.unlink()
                self._close()

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)
