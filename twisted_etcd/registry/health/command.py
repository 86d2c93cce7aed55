"""A check that runs a program."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from twisted.internet.defer import Deferred

from twisted_etcd.commands import GRACE, Command, CommandReactor, Outcome, signal_name
from twisted_etcd.errors import InvalidSettings
from twisted_etcd.registry.health.result import CheckResult, failing, passing, shortened
from twisted_etcd.registry.instance import Status

#: The exit status by which a program says that it serves and complains.
_WARNING = 1


def checked_argv(argv: Sequence[str]) -> tuple[str, ...]:
    """
    A program and its arguments.

    :raises InvalidSettings: where there is no program, or one of them is no text; the error shows no argument.
    """
    if isinstance(argv, str) or not all(isinstance(each, str) and "\0" not in each for each in argv):
        msg = "a command is a list of texts, the program and its arguments, such as ['/usr/bin/check', '--fast']"
        raise InvalidSettings(msg)
    if not argv or not argv[0]:
        msg = "a command needs a program, such as ['/usr/bin/check', '--fast']"
        raise InvalidSettings(msg)
    return tuple(argv)


class CommandCheck:
    """
    Runs a program: exit status 0 is passing, 1 a warning, and all else failing.

    It runs in a session of its own, without input. When it ends, or is cancelled because its time is over, all that
    still runs in its process group is ended: by SIGTERM, and by SIGKILL after ``grace`` seconds. What has left the
    group, as a daemon does, is not found. On Linux it dies with this process. The reactor must have its signal
    handlers, as for all processes.

    The last line that it wrote, to its standard output or error, is shown in the log, up to 200 characters of it; a
    program that is meant for this writes no secret there. Its arguments and its environment are shown nowhere.

    :param argv: the program and its arguments. A name without a slash is looked for on ``PATH``, a relative path begins
        at ``cwd``.
    :param env: the program's environment; that of this process where None.
    :param cwd: the directory that it runs in; that of this process where None.
    :raises InvalidSettings: where ``argv`` is no command.
    """

    def __init__(
        self,
        reactor: CommandReactor,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        grace: float = GRACE,
    ) -> None:
        self._reactor = reactor
        self._argv = checked_argv(argv)
        self._env = env
        self._cwd = os.fspath(cwd or "")
        self._grace = grace

    def __repr__(self) -> str:
        return f"<CommandCheck {self._argv[0]}>"

    def check(self) -> Deferred[CheckResult]:
        """Look once, see :class:`~twisted_etcd.registry.health.result.Check`."""
        return Deferred.fromCoroutine(self._check())

    async def _check(self) -> CheckResult:
        program = self._found()
        if program is None:
            where = "" if "/" in self._argv[0] else " on PATH"
            return failing(f"there is no program {self._argv[0]!r}{where} that can be run")
        command = Command(
            self._reactor,
            [program, *self._argv[1:]],
            timeout=None,
            grace=self._grace,
            environ=self._env,
            directory=self._cwd,
            sweep=True,
        )
        try:
            return _result(await command.run())
        finally:
            await command.stop()

    def _found(self) -> str | None:
        program = self._argv[0]
        if "/" in program:
            return shutil.which(Path(self._cwd, program).absolute())
        environ = os.environ if self._env is None else self._env
        found = shutil.which(program, path=environ.get("PATH", os.defpath))
        return None if found is None else str(Path(found).absolute())


def _result(outcome: Outcome) -> CheckResult:
    """What its end means."""
    lines = "\n".join(outcome.lines).splitlines()
    last = next((line for each in reversed(lines) if (line := shortened(each))), "")
    said = f": {last}" if last else ""
    if outcome.status < 0:
        return failing(f"ended by {signal_name(-outcome.status)}{said}")
    if outcome.status == _WARNING:
        return CheckResult(Status.WARNING, f"exit status {outcome.status}{said}")
    if outcome.status:
        return failing(f"exit status {outcome.status}{said}")
    return passing(f"exit status 0{said}")
