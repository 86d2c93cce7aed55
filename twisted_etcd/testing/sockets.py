"""Whose socket is at the other end of a connection on loopback, as Linux tells it under ``/proc``."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

_PROC = Path("/proc")


def held_by(ports: tuple[int, int], pids: Iterable[int]) -> bool:
    """
    Whether one of these processes has that end of an IPv4 TCP connection.

    :param ports: of that end and of the other one. The first alone says little: Linux gives it to connections to other
        ports as well.
    :raises OSError: where there is no ``/proc/net/tcp``.
    """
    wanted = {f"socket:[{inode}]" for inode in _inodes(ports)}
    return bool(wanted) and any(not wanted.isdisjoint(_open_files(pid)) for pid in pids)


def _inodes(ports: tuple[int, int]) -> set[str]:
    """The inodes of the sockets with these local and remote ports; one that nobody holds any more has none."""
    lines = (_PROC / "net" / "tcp").read_text("ascii").splitlines()[1:]
    found = {
        fields[9]
        for fields in map(str.split, lines)
        if tuple(int(address.rsplit(":", 1)[1], 16) for address in fields[1:3]) == ports
    }
    return found - {"0"}


def _open_files(pid: int) -> set[str]:
    """What a process has open; nothing where it has ended."""
    found = set()
    try:
        for descriptor in (_PROC / str(pid) / "fd").iterdir():
            try:
                found.add(str(descriptor.readlink()))
            except OSError:  # noqa: PERF203 - one that was closed just now says nothing about the others
                continue
    except OSError:
        return found
    return found
