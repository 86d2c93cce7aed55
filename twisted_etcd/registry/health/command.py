"""A check that runs a program."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IProcessTransport, IReactorProcess, IReactorTime
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_etcd.errors import InvalidSettings
from twisted_etcd.moment import Moment
from twisted_etcd.registry.health.result import CheckResult, failing, passing, shortened
from twisted_etcd.registry.instance import Status

#: Seconds between SIGTERM and SIGKILL.
GRACE = 2.0
#: Seconds that a group which was killed may take to be gone, for whoever has to reap it.
_REAPING = 2.0
#: Seconds between two looks whether a process group is gone.
_LOOK_EVERY = 0.02
#: How much of the end of a program's output is kept.
_KEPT = 4096
#: The exit status by which a program says that it serves and complains.
_WARNING = 1
#: The script that a child process runs until it becomes the program.
LAUNCHER = str(Path(__file__).with_name("launcher.py"))


class CommandReactor(IReactorTime, IReactorProcess):
    """What is used of the reactor: it tells the time and spawns processes."""


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
    group, as a daemon does, is not found. The reactor must have its signal handlers, as for all processes.

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
        self._cwd = "" if cwd is None else os.fspath(cwd)
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
        running = _Running(self._reactor, self._grace)
        try:
            self._reactor.spawnProcess(
                running,
                sys.executable,
                [sys.executable, "-I", "-S", LAUNCHER, self._cwd, program, *self._argv],
                env=dict(os.environ if self._env is None else self._env),
            )
        except OSError as error:
            return failing(f"{self._argv[0]} could not be started: {error.strerror}")
        try:
            await running.exited.wait()
        finally:
            await running.end()
        return running.result()

    def _found(self) -> str | None:
        program = self._argv[0]
        if "/" in program:
            return shutil.which(Path(self._cwd, program).absolute())
        environ = os.environ if self._env is None else self._env
        found = shutil.which(program, path=environ.get("PATH", os.defpath))
        return None if found is None else str(Path(found).absolute())


class _Running(ProcessProtocol):
    """
    One run of a program.

    :ivar exited: the program itself has ended, whatever it has left behind.
    """

    _log = Logger()

    def __init__(self, clock: IReactorTime, grace: float) -> None:
        self.exited: Moment[None] = Moment()
        self._clock = clock
        self._grace = grace
        self._said = b""
        self._code: int | None = None
        self._signal: int | None = None
        self._closed: Moment[None] = Moment()
        self._pid = 0

    # --- what it says -----------------------------------------------------------------------------------------------

    def connectionMade(self) -> None:
        if self.transport is not None:
            self._pid = self._process.pid
            self.transport.closeStdin()

    @property
    def _process(self) -> IProcessTransport:
        transport = self.transport
        if transport is None:
            msg = "the program was not started"
            raise RuntimeError(msg)
        return transport

    def childDataReceived(self, childFD: int, data: bytes) -> None:  # noqa: ARG002, N803 - as ProcessProtocol has it
        self._said = (self._said + data)[-_KEPT:]

    def processExited(self, reason: Failure) -> None:
        self._code = getattr(reason.value, "exitCode", None)
        self._signal = getattr(reason.value, "signal", None)
        self.exited.fire(None)

    def processEnded(self, reason: Failure) -> None:  # noqa: ARG002 - it was told before
        self._closed.fire(None)

    def result(self) -> CheckResult:
        """What its end means."""
        lines = self._said.decode("utf-8", "replace").splitlines()
        last = next((line for each in reversed(lines) if (line := shortened(each))), "")
        said = f": {last}" if last else ""
        if self._signal:
            return failing(f"ended by {signal.Signals(self._signal).name}{said}")
        if self._code == _WARNING:
            return CheckResult(Status.WARNING, f"exit status {self._code}{said}")
        if self._code:
            return failing(f"exit status {self._code}{said}")
        return passing(f"exit status 0{said}")

    # --- its end ----------------------------------------------------------------------------------------------------

    def end(self) -> Deferred[None]:
        """End all that runs of it, which goes on where nobody waits for it; fires when nothing is left."""
        over: Moment[None] = Moment()
        Deferred.fromCoroutine(self._end()).addErrback(self._not_ended).addCallback(over.fire)
        return over.wait()

    async def _end(self) -> None:
        ended = not self._send(signal.SIGTERM) or await self._is_gone(self._grace)
        if not ended:
            self._send(signal.SIGKILL)
            ended = await self._is_gone(_REAPING)
        if not self._closed.happened:
            # What has left the group can hold the other ends for long.
            self._process.loseConnection()
        if ended:
            await self._closed.wait()
        else:
            self._log.warn("Processes of the group {pid}, of a health check, cannot be ended", pid=self._pid)

    def _not_ended(self, failure: Failure) -> None:
        self._log.failure("The process group of a health check was not ended.", failure)

    async def _is_gone(self, seconds: float) -> bool:
        until = self._clock.seconds() + seconds
        while self._is_there():
            if self._clock.seconds() >= until:
                return False
            await deferLater(self._clock, _LOOK_EVERY)
        return True

    def _is_there(self) -> bool:
        if self.exited.happened:
            # What it has left behind has become ours where this is the first process of a container, say.
            with suppress(ChildProcessError):
                while os.waitpid(-self._pid, os.WNOHANG) != (0, 0):
                    pass
        return self._send(0)

    def _send(self, number: int) -> bool:
        """Send a signal to the group; False where there is nobody in it."""
        try:
            os.killpg(self._pid, number)
        except PermissionError:
            # There is somebody, of another user.
            return True
        except ProcessLookupError:
            # Before it has a group of its own it is alone.
            return not self.exited.happened and self._send_to_program(number)
        return True

    def _send_to_program(self, number: int) -> bool:
        try:
            self._process.signalProcess(number)
        except ProcessExitedAlready:
            return False
        return True
