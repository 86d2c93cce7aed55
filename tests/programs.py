"""Programs that are run as a user would: their output line by line, and their end."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, cast

import pytest
import pytest_twisted
from twisted.internet import defer, reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from tests.wire import Event

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
#: Arguments that run ``twistd`` of the interpreter and the packages of these tests; its own ones follow.
TWISTD = ("-c", "import sys; sys.argv[0] = 'twistd'; from twisted.scripts.twistd import run; run()")
#: Seconds after which a line, or the end of a program, is late, on however slow a machine.
PATIENCE = 40
#: What no program may say, whatever else it does.
TROUBLE = ("Traceback", "Unhandled", "#critical", "#error", "Warning:", "Exception ignored", "never awaited")
STANDARD_ERROR = 2


def trouble_in(text: str) -> list[str]:
    """What of it no program should say."""
    return [trouble for trouble in TROUBLE if trouble in text]


def is_gone(pid: int) -> bool:
    """Whether there is no such process."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


class Program(ProcessProtocol):
    """
    A program of Python's that runs, without the variables of the environment that are for etcd and its clients.

    :ivar lines: what it wrote so far, standard output and error together.
    :ivar errors: those of them that were written to standard error.
    :ivar status: its exit status, or the negative number of the signal that ended it; None while it runs.
    """

    def __init__(self, arguments: tuple[str, ...], directory: Path, environment: Mapping[str, str]) -> None:
        self.arguments = arguments
        self.lines: list[str] = []
        self.errors: list[str] = []
        self.status: int | None = None
        self._partial: dict[int, bytes] = {}
        self._read = 0
        self._event = Event()
        environ = {name: value for name, value in os.environ.items() if not name.startswith("ETCD")}
        # Lines come as they are said, and nothing is left beside the examples.
        environ |= {"PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1", **environment}
        self._process = cast("Any", reactor).spawnProcess(
            self, sys.executable, [sys.executable, *arguments], env=environ, path=str(directory)
        )

    @property
    def text(self) -> str:
        """All that it wrote."""
        return "\n".join(self.lines)

    async def line(self, part: str) -> str:
        """The next line that has these words in it, after the last one that was asked for in this way."""
        await self._until(lambda: self._index(part) is not None or self.status is not None, f"did not say {part!r}")
        index = self._index(part)
        assert index is not None, self.story(f"ended before it said {part!r}")
        self._read = index + 1
        return self.lines[index]

    async def until(self, part: str, times: int = 1) -> str:
        """The last line that has these words, once there are so many, in whatever order with others."""

        def found() -> list[str]:
            return [line for line in self.lines if part in line]

        what = f"say {part!r} {times} times"
        await self._until(lambda: len(found()) >= times or self.status is not None, f"did not {what}")
        assert len(found()) >= times, self.story(f"ended and did not {what}")
        return found()[-1]

    def ended(self) -> Deferred[int]:
        """Its status."""

        async def end() -> int:
            await self._until(lambda: self.status is not None, "did not end")
            assert self.status is not None
            return self.status

        return Deferred.fromCoroutine(end())

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.signalProcess(number.name.removeprefix("SIG"))

    def kill(self) -> Deferred[int]:
        """End it, if it runs."""
        with contextlib.suppress(ProcessExitedAlready):
            self.send(signal.SIGKILL)
        return self.ended()

    async def end_well(self) -> None:
        """Wait for its end, which is a good one, with nothing to complain of on the way."""
        assert await self.ended() == 0, self.story("failed")
        self.check()

    async def stop_well(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Ask ``twistd`` to end, which it does by the signal that it was sent once all is done."""
        self.send(number)
        assert await self.ended() == -number, self.story("failed")
        self.check()

    def check(self) -> None:
        """It has said nothing that it should not."""
        assert self.errors == [], self.story("wrote to standard error")
        assert trouble_in(self.text) == [], self.story(f"said {trouble_in(self.text)}")

    def story(self, what: str) -> str:
        """What went wrong, with all that it said."""
        return "\n".join([f"{' '.join(self.arguments)} {what}:", *self.lines])

    def _index(self, part: str) -> int | None:
        return next((n for n, line in enumerate(self.lines) if n >= self._read and part in line), None)

    async def _until(self, condition: Callable[[], bool], otherwise: str) -> None:
        try:
            await self._event.until(condition, PATIENCE)
        except defer.TimeoutError as error:
            raise AssertionError(self.story(f"{otherwise} in {PATIENCE} s")) from error

    # --- ProcessProtocol --------------------------------------------------------------------------------------------

    def childDataReceived(self, childFD: int, data: bytes) -> None:  # noqa: N803 - as Twisted has it
        *lines, self._partial[childFD] = (self._partial.get(childFD, b"") + data).split(b"\n")
        self._said(childFD, *lines)

    def processEnded(self, reason: Failure) -> None:
        for descriptor, rest in self._partial.items():
            self._said(descriptor, *filter(None, [rest]))
        number = getattr(reason.value, "signal", None)
        self.status = -number if number else getattr(reason.value, "exitCode", 0)
        self._event.happened()

    def _said(self, descriptor: int, *lines: bytes) -> None:
        said = [line.decode() for line in lines]
        self.lines += said
        if descriptor == STANDARD_ERROR:
            self.errors += said
        self._event.happened()


@implementer(IReadDescriptor)
class ForeignProcess:
    """A process that is no child of this one."""

    def __init__(self, pid: int) -> None:
        self._descriptor = os.pidfd_open(pid)
        self._ended = False
        self._event = Event()
        cast("Any", reactor).addReader(self)

    def fileno(self) -> int:
        return self._descriptor

    def logPrefix(self) -> str:
        return "foreign process"

    def doRead(self) -> None:  # noqa: N802 - as IReadDescriptor has it
        """Is called when it has ended."""
        cast("Any", reactor).removeReader(self)
        os.close(self._descriptor)
        self._ended = True
        self._event.happened()

    def connectionLost(self, reason: Failure) -> None:
        """Nothing to note: the descriptor is closed where it was read."""

    async def until_ended(self) -> None:
        await self._event.until(lambda: self._ended)


async def until_ended(pid: int) -> None:
    """Once a process that is no child of this one has ended, were it not reaped yet; it may have already."""
    try:
        process = ForeignProcess(pid)
    except ProcessLookupError:
        return
    await process.until_ended()


class Run(Protocol):
    """Runs a program: ``run("program.py", "argument", NAME="of the environment")``, in the test's own directory."""

    def __call__(self, *arguments: str, directory: Path | None = None, **environment: str) -> Program: ...


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """Runs programs, and sees to it that none is left."""
    programs: list[Program] = []

    def start(*arguments: str, directory: Path | None = None, **environment: str) -> Program:
        program = Program(arguments, directory or tmp_path, environment)
        programs.append(program)
        return program

    yield start
    pytest_twisted.blockon(gatherResults([program.kill() for program in programs]))
