"""What is asked for: a template, where it goes, and what is to happen then."""

from __future__ import annotations

import signal
from pathlib import Path

import msgspec

from twisted_etcd.rendering.file import FileAccess

#: What stands for the new file in the arguments of a check.
FILE = "{file}"


class RunCommand(msgspec.Struct, frozen=True):
    """Run a command, without a shell: the program, a path or a name on ``PATH``, and its arguments."""

    arguments: tuple[str, ...]

    def __str__(self) -> str:
        return " ".join(self.arguments)


class SendSignal(msgspec.Struct, frozen=True, kw_only=True):
    """
    Send a signal to a process.

    :ivar pid_file: has the number of the process; or
    :ivar process: the name of the program. Where several run, those whose parent is none of them get it.
    """

    number: signal.Signals
    pid_file: Path | None = None
    process: str | None = None

    def __str__(self) -> str:
        whom = f"the process of {self.pid_file}" if self.process is None else f"the program {self.process}"
        return f"{self.number.name} to {whom}"


class RenderEntry(msgspec.Struct, frozen=True, kw_only=True):
    """
    A file to render.

    :ivar template: the file with the template.
    :ivar to: the file that is rendered.
    :ivar check: the command that must succeed before the file is replaced, with :data:`FILE` where the path of the new
        one stands; None for none.
    :ivar reload: what tells whoever reads the file; None for nothing.
    :ivar reload_at_start: whether they are told at the start though the file stays as it is.
    :ivar check_timeout: seconds.
    :ivar reload_timeout: seconds, for a command. Of several files with the same one, the longest counts.
    :ivar quiet_min: seconds without a change after which it is rendered.
    :ivar quiet_max: seconds after a first change after which it is rendered though there are still changes.
    """

    template: Path
    to: Path
    access: FileAccess = FileAccess()
    check: tuple[str, ...] | None = None
    reload: RunCommand | SendSignal | None = None
    reload_at_start: bool = False
    check_timeout: float = 30.0
    reload_timeout: float = 30.0
    quiet_min: float = 0.1
    quiet_max: float = 2.0
