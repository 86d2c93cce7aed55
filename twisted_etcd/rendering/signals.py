"""Signals for processes that are not ours: found by a file with their number, or by their name."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from twisted_etcd.errors import RenderError
from twisted_etcd.rendering.entry import SendSignal

#: Where the processes of this machine are, on Linux.
PROCESSES = Path("/proc")
#: The kernel keeps so many bytes of a program's name.
_LONGEST_NAME = 15
#: Fields of ``/proc/PID/stat`` behind the name: its state, and its parent.
_STATE, _PARENT = 0, 1
#: No kernel has more; a C int has.
_HIGHEST_PID = 2**31 - 1
_DEAD = ("Z", "X")


def send_signal(to: SendSignal) -> None:
    """
    Send a signal.

    :raises RenderError: where the process is not there, or may not be signalled.
    """
    pids = [_pid_in(to.pid_file)] if to.pid_file is not None else _pids_of(to.process or "")
    for pid in pids:
        _send(pid, to)


def _send(pid: int, to: SendSignal) -> None:
    try:
        os.kill(pid, to.number)
    except ProcessLookupError as error:
        where = "" if to.pid_file is None else f", which {to.pid_file} names,"
        msg = f"process {pid}{where} does not run"
        raise RenderError(msg) from error
    except PermissionError as error:
        msg = f"process {pid} is another user's: run as that user, or as root"
        raise RenderError(msg) from error


def _pid_in(file: Path) -> int:
    try:
        text = file.read_text("ascii").strip()
    except OSError as error:
        msg = f"{file} cannot be read: {error.strerror}; is the program running?"
        raise RenderError(msg) from error
    except UnicodeDecodeError:
        text = ""
    # 0 and what is below it would be groups of processes.
    if not text.isdecimal() or not 0 < int(text) <= _HIGHEST_PID:
        msg = f"{file} holds no process number"
        raise RenderError(msg)
    return int(text)


def _pids_of(name: str) -> list[int]:
    parents = _processes_named(name)
    found = sorted(pid for pid, parent in parents.items() if parent not in parents)
    if not found:
        msg = f"no program {name} runs"
        raise RenderError(msg)
    return found


def _processes_named(name: str) -> Mapping[int, int]:
    """The parents of all processes of that name, by their numbers."""
    found = {}
    for directory in PROCESSES.glob("[0-9]*"):
        try:
            text = (directory / "stat").read_text("utf-8", "replace")
        except OSError:
            # It has ended meanwhile.
            continue
        # The name stands in parentheses, and may have some in it.
        program = text[text.index("(") + 1 : text.rindex(")")]
        fields = text[text.rindex(")") + 1 :].split()
        if program == name[:_LONGEST_NAME] and fields[_STATE] not in _DEAD:
            found[int(directory.name)] = int(fields[_PARENT])
    return found
