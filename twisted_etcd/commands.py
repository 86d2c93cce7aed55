"""A command that is run once, in a process group of its own, within a time, with a look at what it said."""

from __future__ import annotations

import os
import signal
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IProcessTransport, IReactorProcess, IReactorTime
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_etcd.moment import Moment

#: How many of the last lines are kept, and how many bytes of each.
KEPT_LINES, LONGEST_LINE = 20, 500
#: Seconds between SIGTERM and SIGKILL.
GRACE = 2.0
#: Seconds that are waited for more output after the end of a command which left its output open with somebody else.
LINGER = 0.5
#: Seconds that a group which was killed may take to be gone, for whoever has to reap it.
_REAPING = 2.0
#: Seconds between two looks whether a process group is gone.
_LOOK_EVERY = 0.02
#: The script that a child process runs until it becomes the command: see there for its arguments.
LAUNCHER = str(Path(__file__).with_name("own_group.py"))
_NOT_RUN = 126


class CommandReactor(IReactorTime, IReactorProcess):
    """What is used of the reactor: it tells the time and spawns processes."""


def signal_name(number: int) -> str:
    """``SIGTERM`` of 15; the number of one that has no name, as most real-time signals have none."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """
    How a command ended.

    :ivar status: its exit status; the negative number of the signal where one ended it.
    :ivar timed_out: seconds that it had, where it was ended because they were over; None else.
    :ivar stopped: whether it was ended because it was not wanted any more.
    :ivar lines: the last lines that it wrote, standard output and error together, the oldest first.
    """

    status: int
    timed_out: float | None = None
    stopped: bool = False
    lines: tuple[str, ...] = ()

    @property
    def succeeded(self) -> bool:
        """Whether it ended by itself, with the status 0."""
        return self.status == 0 and self.timed_out is None and not self.stopped

    @property
    def how(self) -> str:
        """How it ended, in words: ``exit status 1``."""
        if self.timed_out is not None:
            return f"it had not ended after {self.timed_out:g} s, and was ended"
        if self.stopped:
            return "it was stopped"
        return f"exit status {self.status}" if self.status >= 0 else f"signal {signal_name(-self.status)}"


class Command:
    """
    Runs a command once, without a shell and without an input.

    The command leads a session and a process group of its own. Where its time is over, or it is stopped, all of the
    group is ended: by SIGTERM, and by SIGKILL after ``grace`` seconds. What it leaves running after an end of its own
    is left alone, or, with ``sweep``, ended likewise. What has left the group, as a daemon does, is not found. On Linux
    it dies with this process. The reactor must have its signal handlers, as for all processes.

    :param arguments: the program, a path or a name on ``PATH``, and its arguments.
    :param timeout: seconds that it may take; None for no end.
    :param grace: seconds between SIGTERM and SIGKILL.
    :param environ: its environment, the process's own unless given.
    :param directory: where it runs, the process's own unless given.
    :param sweep: end what it leaves running, too.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: CommandReactor,
        arguments: Sequence[str],
        *,
        timeout: float | None,
        grace: float = GRACE,
        environ: Mapping[str, str] | None = None,
        directory: str | os.PathLike[str] | None = None,
        sweep: bool = False,
    ) -> None:
        self._reactor = reactor
        self._arguments = tuple(arguments)
        self._timeout = timeout
        self._grace = grace
        self._environ = environ
        self._directory = "" if directory is None else os.fspath(directory)
        self._sweep = sweep
        self._running = _Running()
        self._timed_out: float | None = None
        self._stopped = False
        #: It has ended, or is to be ended.
        self._over: Moment[None] = Moment()
        self._ended: Moment[Outcome] = Moment()

    @property
    def pid(self) -> int | None:
        """The process, which leads its group; None while it does not run."""
        return self._running.pid if self._runs else None

    def run(self) -> Deferred[Outcome]:
        """Start it, once; fires when it has ended and is reaped. It does not fail."""
        Deferred.fromCoroutine(self._run()).addCallbacks(self._ended.fire, self._ended.fail)
        return self._ended.wait()

    def stop(self) -> Deferred[None]:
        """End it; fires when all that is to be ended is reaped, at once where it is not running."""
        if not self._running.pid:
            return succeed(None)
        if self._runs:
            self._stopped = True
            self._over.fire(None)
        return self._ended.wait().addCallback(lambda _: None)

    @property
    def _runs(self) -> bool:
        return bool(self._running.pid) and not self._running.exited.happened

    async def _run(self) -> Outcome:
        launcher = [sys.executable, "-I", "-S", LAUNCHER, str(os.getpid()), self._directory, *self._arguments]
        environ = dict(os.environ if self._environ is None else self._environ)
        try:
            self._reactor.spawnProcess(self._running, sys.executable, launcher, env=environ)
        except OSError as error:
            return Outcome(status=_NOT_RUN, lines=(f"no process could be started: {error.strerror}",))
        timer = None if self._timeout is None else self._reactor.callLater(self._timeout, self._overdue)
        self._running.exited.wait().addCallback(self._over.fire)
        await self._over.wait()
        if timer is not None and timer.active():
            timer.cancel()
        if self._runs or self._sweep:
            await self._end()
        # What has left the group can hold the other ends for long.
        timer = self._reactor.callLater(LINGER, self._running.close)
        if self._running.exited.happened:
            await self._running.closed.wait()
        if timer.active():
            timer.cancel()
            self._running.close()
        return Outcome(
            status=self._running.status,
            timed_out=self._timed_out,
            stopped=self._stopped,
            lines=self._running.tail.lines(),
        )

    def _overdue(self) -> None:
        if self._runs:
            self._timed_out = self._timeout
            self._over.fire(None)

    # --- its group ----------------------------------------------------------------------------------------------------

    async def _end(self) -> None:
        """End all that runs of it."""
        gone = not self._running.send(signal.SIGTERM)
        if not gone:
            # A stopped process cannot end before it goes on.
            self._running.send(signal.SIGCONT)
            gone = await self._is_gone(self._grace)
        if not gone:
            self._running.send(signal.SIGKILL)
            gone = await self._is_gone(_REAPING)
        if not gone:
            self._log.warn(
                "Processes of the group {pid}, of {program}, cannot be ended",
                pid=self._running.pid,
                program=self._arguments[0],
            )

    async def _is_gone(self, seconds: float) -> bool:
        until = self._reactor.seconds() + seconds
        while self._running.is_there():
            if self._reactor.seconds() >= until:
                return False
            await deferLater(self._reactor, _LOOK_EVERY)
        return True


class _Running(ProcessProtocol):
    """
    A command's process, and the group that it leads.

    :ivar pid: its number, which is the group's; 0 before it is started.
    :ivar status: as in :class:`Outcome`; what a process has that cannot be ended, before it has ended.
    :ivar exited: the process itself is reaped, whatever it has left behind.
    :ivar closed: nothing more will be read of it, either.
    """

    def __init__(self) -> None:
        self.pid = 0
        self.status = -int(signal.SIGKILL)
        self.tail = Tail()
        self.exited: Moment[None] = Moment()
        self.closed: Moment[None] = Moment()

    @property
    def _process(self) -> IProcessTransport:
        assert self.transport is not None  # noqa: S101 - nothing is asked of it before it is started
        return self.transport

    def connectionMade(self) -> None:
        self.pid = self._process.pid
        self._process.closeStdin()

    def childDataReceived(self, childFD: int, data: bytes) -> None:  # noqa: ARG002, N803 - as ProcessProtocol has it
        self.tail.received(data)

    def processExited(self, reason: Failure) -> None:
        number = getattr(reason.value, "signal", None)
        code = getattr(reason.value, "exitCode", None)
        self.status = -number if number else code or 0
        self.exited.fire(None)

    def processEnded(self, reason: Failure) -> None:  # noqa: ARG002 - it was told before
        self.closed.fire(None)

    def close(self) -> None:
        """Read no more of what it says."""
        self._process.loseConnection()

    def is_there(self) -> bool:
        """Whether there is anybody in the group."""
        if self.exited.happened:
            # What it has left behind has become ours where this is the first process of a container, say.
            with suppress(ChildProcessError):
                while os.waitpid(-self.pid, os.WNOHANG) != (0, 0):
                    pass
        return self.send(0)

    def send(self, number: int) -> bool:
        """Send a signal to the group; False where there is nobody in it."""
        try:
            os.killpg(self.pid, number)
        except PermissionError:
            # There is somebody, of another user.
            return True
        except ProcessLookupError:
            # Before it has a group of its own it is alone.
            return not self.exited.happened and self._send_to_process(number)
        return True

    def _send_to_process(self, number: int) -> bool:
        try:
            self._process.signalProcess(number)
        except ProcessExitedAlready:
            return False
        return True


class Tail:
    """The last lines of an output, however long it is and however its bytes are cut."""

    def __init__(self) -> None:
        self._lines: deque[bytes] = deque(maxlen=KEPT_LINES)
        self._partial = b""

    def received(self, data: bytes) -> None:
        """More of it."""
        *lines, rest = (self._partial + data).split(b"\n")
        self._partial = rest[: LONGEST_LINE + 1]
        self._lines.extend(line for line in lines if line.strip())

    def lines(self) -> tuple[str, ...]:
        """The last lines, the oldest first."""
        last = [*self._lines, self._partial] if self._partial.strip() else list(self._lines)
        return tuple(_shortened(line) for line in last[-KEPT_LINES:])


def _shortened(line: bytes) -> str:
    text = line[:LONGEST_LINE].decode("utf-8", "replace").rstrip()
    return f"{text}…" if len(line) > LONGEST_LINE else text
