"""A file that is replaced as a whole. All of it blocks: it is for threads."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

import msgspec

from twisted_etcd.errors import RenderError

#: What a file gets that was not there before, unless told otherwise.
DEFAULT_MODE = 0o644
#: How the names of our own files beside a file begin; they end in the name of that file. The dot keeps them out of
#: what programs read by patterns such as ``*.conf``.
_OURS = ".twisted-etcd-"
_OWED = f"{_OURS}owed-"
#: What a rename fails with where a file is a mount.
_MOUNTED = (errno.EBUSY, errno.EXDEV)
#: What a new file beside it fails with where only the file itself can be written.
_CLOSED = (errno.EROFS, errno.EACCES, errno.EPERM)
#: The mounts that this process sees, on Linux; in the fifth field, where.
_MOUNTS = Path("/proc/self/mountinfo")
_MOUNT_POINT = 4


class FileAccess(msgspec.Struct, frozen=True, kw_only=True):
    """
    Who may do what with a file; None for what the file has, or the system gives.

    :ivar mode: its permissions.
    :ivar owner: the number of its user.
    :ivar group: the number of its group.
    """

    mode: int | None = None
    owner: int | None = None
    group: int | None = None


class Staged:
    """
    What is to stand in a file, in a file beside it.

    :ivar path: of that one.
    """

    def __init__(self, path: Path, content: bytes, descriptor: int) -> None:
        self.path = path
        self.content = content
        self._lock: int | None = descriptor

    def lock(self) -> None:
        """Keep others, who clean up, from taking it away."""
        # Some file systems know no locks; there nobody takes it away at all.
        with suppress(OSError):
            if self._lock is not None:
                fcntl.flock(self._lock, fcntl.LOCK_EX)

    def discard(self) -> None:
        """Take it away, where it is still there."""
        if self._lock is not None:
            with suppress(OSError):
                self.path.unlink()
            self.let_go()

    def let_go(self) -> None:
        """It has been moved."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


class TargetFile:
    """
    A file whose content is replaced, so that who reads it sees all of the old or all of the new one, and so does who
    looks after a crash.

    Of a symbolic link, what it leads to is replaced, and the link stays. Mode and owner stay as they are unless others
    are asked for. A file that is a mount of its own, as containers have them, cannot be replaced: it is written as it
    is, and a reader may see a part.

    :param rename: moves one file over another, ``os.replace`` unless given.
    """

    def __init__(
        self,
        path: Path,
        access: FileAccess = FileAccess(),  # noqa: B008 - it is frozen
        rename: Callable[[Path, Path], None] = os.replace,
    ) -> None:
        self.path = path
        self._access = access
        self._rename = rename

    def clean_up(self) -> None:
        """Take away what an earlier process that ended in the middle left beside it; what one still uses is left."""
        target = self._target()
        with suppress(OSError):
            for entry in sorted(os.listdir(target.parent)):  # noqa: PTH208 - names are what is needed
                is_ours = entry.startswith(_OURS) and entry.endswith(f"-{target.name}") and not entry.startswith(_OWED)
                if is_ours:
                    _remove_unless_locked(target.parent / entry)

    def has(self, content: bytes) -> bool:
        """
        Whether it is as it shall be already.

        :raises RenderError: where it cannot be read.
        """
        target = self._target()
        with self._saying("read"):
            status = self._status(target)
            if status is None or status.st_size != len(content) or not self._is_as_asked(status):
                return False
            return target.read_bytes() == content

    def stage(self, content: bytes) -> Staged:
        """
        Write what it shall be to a file beside it, with the mode and owner that it shall have.

        :raises RenderError: where that cannot be done.
        """
        target = self._target()
        with self._saying("written"):
            before = self._status(target)
            is_mount = before is not None and _is_mount(target)
            descriptor, path = self._new_file(target, elsewhere=is_mount)
            with os.fdopen(descriptor, "wb") as file:
                # By a descriptor of its own: a program that is open for writing cannot be run, as a check may do.
                staged = Staged(path, content, os.open(path, os.O_RDONLY | os.O_CLOEXEC))
                try:
                    staged.lock()
                    file.write(content)
                    file.flush()
                    if not is_mount:
                        self._give(descriptor, before)
                    os.fsync(descriptor)
                except BaseException:
                    staged.discard()
                    raise
            return staged

    @staticmethod
    def _new_file(target: Path, *, elsewhere: bool) -> tuple[int, Path]:
        suffix = f"-{target.name}"
        try:
            descriptor, name = tempfile.mkstemp(prefix=_OURS, suffix=suffix, dir=target.parent)
        except OSError as error:
            if not elsewhere or error.errno not in _CLOSED:
                raise
            descriptor, name = tempfile.mkstemp(prefix=_OURS, suffix=suffix)
        return descriptor, Path(name)

    def replace(self, staged: Staged, *, owed: bool) -> bool:
        """
        Put what was staged in its place.

        :param owed: whether who reads the file is to be told then; :meth:`is_owed` says so, also after a crash, until
            :meth:`settle`.
        :return: whether it was replaced as a whole; False where it was written as it is, being a mount.
        :raises RenderError: where neither could be done; it is as it was then, unless it is a mount.
        """
        target = self._target()
        with self._saying("written"):
            if owed:
                self._owe(target)
            if staged.path.parent == target.parent:
                try:
                    self._rename(staged.path, target)
                except OSError as error:
                    if error.errno not in _MOUNTED:
                        raise
                else:
                    staged.let_go()
                    _sync_folder(target.parent)
                    return True
            self._overwrite(target, staged.content)
            staged.discard()
            return False

    def is_owed(self) -> bool:
        """Whether who reads the file was not told yet of what stands in it."""
        return self._marker(self._target()).exists()

    def settle(self) -> None:
        """Who reads it was told."""
        with suppress(OSError):
            self._marker(self._target()).unlink()

    # --- how ----------------------------------------------------------------------------------------------------------

    def _target(self) -> Path:
        return Path(os.path.realpath(self.path))

    @staticmethod
    def _marker(target: Path) -> Path:
        return target.with_name(f"{_OWED}{target.name}")

    def _owe(self, target: Path) -> None:
        # Where nothing can be written beside it, a crash before the reload is not made good.
        with suppress(OSError):
            self._marker(target).touch(mode=0o600)
            _sync_folder(target.parent)

    @staticmethod
    def _status(target: Path) -> os.stat_result | None:
        try:
            status = target.stat()
        except FileNotFoundError:
            return None
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is no regular file")
        return status

    def _is_as_asked(self, status: os.stat_result) -> bool:
        asked, there = self._access, (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid)
        wanted = (asked.mode, asked.owner, asked.group)
        return all(want is None or want == have for want, have in zip(wanted, there, strict=True))

    def _give(self, descriptor: int, before: os.stat_result | None) -> None:
        """Give an open file the mode and the owner that it shall have."""
        asked = self._access
        now = os.fstat(descriptor)
        owner = asked.owner if asked.owner is not None else now.st_uid if before is None else before.st_uid
        group = asked.group if asked.group is not None else now.st_gid if before is None else before.st_gid
        if (owner, group) != (now.st_uid, now.st_gid):
            try:
                os.fchown(descriptor, owner, group)
            except OSError as error:
                msg = (
                    f"{self.path} cannot be owned by user {owner} and group {group}: {error.strerror}; run as root, or "
                    "give the file to the user that this runs as"
                )
                raise RenderError(msg) from error
        mode = asked.mode
        if mode is None:
            mode = DEFAULT_MODE if before is None else stat.S_IMODE(before.st_mode)
        # After the owner, whose change takes bits away.
        os.fchmod(descriptor, mode)

    def _overwrite(self, target: Path, content: bytes) -> None:
        descriptor = os.open(target, os.O_WRONLY | os.O_CLOEXEC)
        with os.fdopen(descriptor, "wb") as file:
            before = os.fstat(descriptor)
            file.write(content)
            file.truncate()
            file.flush()
            if not self._is_as_asked(before):
                self._give(descriptor, before)
            os.fsync(descriptor)

    @contextmanager
    def _saying(self, done: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._fail(done, error)

    def _fail(self, done: str, error: OSError) -> NoReturn:
        remedy = ""
        folder = self._target().parent
        if not folder.is_dir():
            remedy = f"; make the folder {folder}"
        elif error.errno in (errno.EACCES, errno.EPERM):
            remedy = f"; the user that this runs as must be able to read the file and to write in the folder {folder}"
        msg = f"{self.path} cannot be {done}: {error.strerror}{remedy}"
        raise RenderError(msg) from error


def _is_mount(target: Path) -> bool:
    try:
        mounts = _MOUNTS.read_bytes()
    except OSError:
        return False
    # White space and backslashes are written as octal numbers: \\040.
    wanted = re.sub(rb"[ \t\n\\]", lambda found: b"\\%03o" % ord(found[0]), os.fsencode(target))
    return any(line.split(b" ")[_MOUNT_POINT] == wanted for line in mounts.splitlines())


def _remove_unless_locked(path: Path) -> None:
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
        finally:
            os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:
        # It may be written and not be read: then nothing can be done for it.
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some file systems cannot, and have nothing to lose.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)
