"""Whose socket is at the other end of a connection on loopback, as Linux tells it under ``/proc``."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

_PROC = Path("/proc")


def held_by(port: int, pids: Iterable[int]) -> bool:
    """
    Whether one of these processes has an IPv4 TCP socket with that local port.

    :raises OSError: where there is no ``/proc/net/tcp``.
    """
    wanted = {f"socket:[{inode}]" for inode in _inodes(port)}
    return bool(wanted) and any(not wanted.isdisjoint(_open_files(pid)) for pid in pids)


def _inodes(port: int) -> set[str]:
    """The inodes of the sockets with that local port; one that nobody holds any more has none."""
    end = f":{port:04X}"
    lines = (_PROC / "net" / "tcp").read_text("ascii").splitlines()[1:]
    found = {fields[9] for fields in map(str.split, lines) if fields[1].endswith(end)}
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
