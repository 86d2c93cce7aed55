"""Programs that are run as a user would: their output line by line, and their end."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn, TypeVar, cast

import pytest
from twisted.internet import reactor
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ProcessExitedAlready, ProcessTerminated
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from tests.etcds import binaries
from twisted_etcd.moment import Moment

ValueT = TypeVar("ValueT")

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
#: Runs ``twistd`` of the interpreter and the packages of these tests.
TWISTD = ("-c", "import sys; sys.argv[0] = 'twistd'; from twisted.scripts.twistd import run; run()", "--nodaemon")
#: For tests that show more of Twisted than of etcd: one version of etcd is enough.
one_etcd = pytest.mark.parametrize(
    "etcd_binary", [binaries()[0][1]], ids=[binaries()[0][0]], indirect=True, scope="session"
)
#: Seconds after which a line, or the end of a program, is late, on however slow a machine.
PATIENCE = 40
#: What no program may say, whatever else it does.
TROUBLE = ("Traceback", "Unhandled", "#critical]", "#error]", "Warning:", "Exception ignored", "never awaited")


class Program(ProcessProtocol):
    """A program that runs."""

    def __init__(self, arguments: tuple[str, ...], directory: Path, environment: Mapping[str, str]) -> None:
        self.arguments = arguments
        self.lines: list[str] = []
        self.errors = ""
        self._partial = b""
        self._read = 0
        self._waiting: tuple[str, Deferred[str]] | None = None
        self._ended: Moment[int | str] = Moment()
        environ = {name: value for name, value in os.environ.items() if not name.startswith("ETCD")}
        # Lines come as they are said, and nothing is left beside the examples.
        environ |= {"PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1", **environment}
        self._process = cast("Any", reactor).spawnProcess(
            self, sys.executable, [sys.executable, *arguments], env=environ, path=str(directory)
        )

    def line(self, part: str, *, anywhere: bool = False) -> Deferred[str]:
        """
        The next line that has these words in it, after the last one that was asked for.

        :param anywhere: or before that, for lines that come in any order.
        """
        assert self._waiting is None, "one line at a time"
        if anywhere:
            for line in self.lines[: self._read]:
                if part in line:
                    return succeed(line)
        found: Deferred[str] = Deferred()
        self._waiting = (part, found)
        self._look()
        return self._in_time(found, f"did not say {part!r}")

    def ended(self) -> Deferred[int | str]:
        """Its exit status, or the name of the signal that it ended by."""
        return self._in_time(self._ended.wait(), "did not end")

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.signalProcess(number.name.removeprefix("SIG"))

    async def end_well(self) -> None:
        """Wait for its end, which is a good one, with nothing to complain of on the way."""
        assert await self.ended() == 0, self.story("failed")
        self.check()

    async def stop_well(self) -> None:
        """Ask ``twistd`` to end, which it does by the signal that it was sent once all is done."""
        self.send(signal.SIGTERM)
        assert await self.ended() in {0, "SIGTERM"}, self.story("failed")
        self.check()

    def check(self) -> None:
        """It has said nothing that it should not."""
        assert self.errors == "", self.story("wrote to standard error")
        assert self.trouble() == [], self.story(f"said {self.trouble()}")

    def trouble(self) -> list[str]:
        """What it has said that no program should say."""
        said = "\n".join([*self.lines, self.errors])
        return [trouble for trouble in TROUBLE if trouble in said]

    def kill(self) -> Deferred[Any]:
        """End it, if it runs."""
        with contextlib.suppress(ProcessExitedAlready):
            self._process.signalProcess("KILL")
        return self._ended.wait()

    def story(self, what: str) -> str:
        """What went wrong, with all that it said."""
        return "\n".join([f"{' '.join(self.arguments)} {what}:", *self.lines, self.errors])

    def _in_time(self, deferred: Deferred[ValueT], what: str) -> Deferred[ValueT]:
        def late(*_: object) -> NoReturn:
            raise AssertionError(self.story(f"{what} in {PATIENCE} s"))

        return deferred.addTimeout(PATIENCE, cast("Any", reactor), late)

    def _look(self) -> None:
        while self._waiting is not None and self._read < len(self.lines):
            part, found = self._waiting
            self._read += 1
            if part in self.lines[self._read - 1]:
                self._waiting = None
                found.callback(self.lines[self._read - 1])
        if self._waiting is not None and self._ended.happened:
            part, found = self._waiting
            self._waiting = None
            found.errback(AssertionError(self.story(f"ended before it said {part!r}")))

    # --- ProcessProtocol --------------------------------------------------------------------------------------------

    def outReceived(self, data: bytes) -> None:
        *lines, self._partial = (self._partial + data).split(b"\n")
        self.lines += [line.decode() for line in lines]
        self._look()

    def errReceived(self, data: bytes) -> None:
        self.errors += data.decode("utf-8", "replace")

    def processEnded(self, reason: Failure) -> None:
        how = cast("ProcessTerminated", reason.value)
        self._ended.fire(cast("int", how.exitCode) if how.signal is None else signal.Signals(how.signal).name)
        self._look()


#: What the fixture ``run`` gives: ``run("program.py", "argument", endpoints=…, NAME="of the environment")``.
Run = Callable[..., Program]
