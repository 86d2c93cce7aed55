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
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IProcessTransport, IReactorProcess, IReactorTime
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from twisted_etcd.moment import Moment

#: How many of the last lines are kept, and how many bytes of each.
KEPT_LINES, LONGEST_LINE = 20, 500
#: Seconds between SIGTERM and SIGKILL.
GRACE = 2.0
#: Seconds that are waited for more output after the end of a command which left its output open with somebody else.
LINGER = 0.5
#: The script that a child process runs until it becomes the command.
_LAUNCHER = str(Path(__file__).with_name("own_group.py"))
_NOT_RUN = 126


class CommandReactor(IReactorTime, IReactorProcess):
    """What is used of the reactor: it tells the time and spawns processes."""


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
        return f"exit status {self.status}" if self.status >= 0 else f"signal {signal.Signals(-self.status).name}"


class Command:
    """
    Runs a command once, without a shell and without an input.

    The command leads a process group of its own. Where its time is over, or it is stopped, all of the group gets
    SIGTERM, and SIGKILL once the command has ended or a grace is over. What it leaves running after an end of its own
    is left alone. On Linux it dies with this process.

    :param arguments: the program, a path or a name on ``PATH``, and its arguments.
    :param timeout: seconds that it may take; None for no end.
    :param grace: seconds between SIGTERM and SIGKILL.
    :param environ: its environment, the process's own unless given.
    :param directory: where it runs, the process's own unless given.
    """

    def __init__(
        self,
        reactor: CommandReactor,
        arguments: Sequence[str],
        *,
        timeout: float | None,
        grace: float = GRACE,
        environ: Mapping[str, str] | None = None,
        directory: str | os.PathLike[str] | None = None,
    ) -> None:
        self._reactor = reactor
        self._arguments = tuple(arguments)
        self._timeout = timeout
        self._grace = grace
        self._environ = environ
        self._directory = directory
        self._tail = Tail()
        self._process: IProcessTransport | None = None
        self._pid: int | None = None
        self._timer: IDelayedCall | None = None
        self._timed_out: float | None = None
        self._stopped = False
        self._ended: Moment[Outcome] = Moment()

    @property
    def pid(self) -> int | None:
        """The process, which leads its group; None while it does not run."""
        return self._pid

    def run(self) -> Deferred[Outcome]:
        """Start it, once; fires when it has ended and is reaped. It does not fail."""
        launcher = [sys.executable, "-I", "-S", _LAUNCHER, str(os.getpid()), *self._arguments]
        try:
            self._process = self._reactor.spawnProcess(
                _Running(self),
                sys.executable,
                launcher,
                env=dict(os.environ if self._environ is None else self._environ),
                path=None if self._directory is None else os.fspath(self._directory),
            )
        except OSError as error:
            self._tail.received(f"no process could be started: {error.strerror}".encode())
            self._fire(_NOT_RUN)
        else:
            self._pid = self._process.pid
            if self._pid is None:
                # It has been reaped already, and what is left of its output is waited for.
                return self._ended.wait()
            self._set_timer(self._timeout, self._overdue)
        return self._ended.wait()

    def stop(self) -> Deferred[None]:
        """End it; fires when it is reaped, at once where it is not running."""
        if self._process is None:
            ended: Deferred[None] = Deferred()
            ended.callback(None)
            return ended
        if not self._stopped and self._pid is not None:
            self._stopped = True
            self._end()
        return self._ended.wait().addCallback(lambda _: None)

    def _overdue(self) -> None:
        self._timed_out = self._timeout
        self._end()

    def _end(self) -> None:
        self._signal(signal.SIGTERM)
        # A stopped process cannot end before it goes on.
        self._signal(signal.SIGCONT)
        self._set_timer(self._grace, lambda: self._signal(signal.SIGKILL))

    def _signal(self, number: int) -> None:
        if self._pid is None:
            return
        try:
            os.killpg(self._pid, number)
        except ProcessLookupError:
            # So young that it leads no group yet.
            with suppress(ProcessLookupError):
                os.kill(self._pid, number)

    def _set_timer(self, seconds: float | None, call: object) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None if seconds is None else self._reactor.callLater(seconds, call)  # type: ignore[arg-type]

    # --- what the process tells ---------------------------------------------------------------------------------------

    def received(self, data: bytes) -> None:
        """It wrote something."""
        self._tail.received(data)

    def exited(self) -> None:
        """It has ended; what it started may still have its output open."""
        group, self._pid = self._pid, None
        if group is not None and (self._stopped or self._timed_out is not None):
            with suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
        self._set_timer(LINGER, self._close)

    def _close(self) -> None:
        if self._process is not None:
            self._process.loseConnection()

    def finished(self, status: int) -> None:
        """It is reaped, and nothing more will be read."""
        self._fire(status)

    def _fire(self, status: int) -> None:
        self._set_timer(None, None)
        self._process = None
        self._ended.fire(
            Outcome(status=status, timed_out=self._timed_out, stopped=self._stopped, lines=self._tail.lines())
        )


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


class _Running(ProcessProtocol):
    """Hands on what the process does."""

    def __init__(self, command: Command) -> None:
        self._command = command

    def connectionMade(self) -> None:
        if self.transport is not None:
            self.transport.closeStdin()

    def outReceived(self, data: bytes) -> None:
        self._command.received(data)

    def errReceived(self, data: bytes) -> None:
        self._command.received(data)

    def processExited(self, reason: Failure) -> None:  # noqa: ARG002 - as Twisted has it
        self._command.exited()

    def processEnded(self, reason: Failure) -> None:
        number = getattr(reason.value, "signal", None)
        code = getattr(reason.value, "exitCode", None)
        self._command.finished(-number if number else code or 0)
