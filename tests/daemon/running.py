"""Daemons under test: in this process, with what they log, and as ``twistd``, with what it writes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProcessTransport, IReadDescriptor
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import LogEvent, LogLevel, formatEvent
from twisted.python.failure import Failure
from zope.interface import implementer

from tests.wire import Event
from twisted_etcd.client.client import EtcdClient
from twisted_etcd.schema.kv import KeyValue

ValueT = TypeVar("ValueT")

#: Runs ``twistd`` of the interpreter and the packages of these tests.
TWISTD = [sys.executable, "-c", "import sys; sys.argv[0] = 'twistd'; from twisted.scripts.twistd import run; run()"]
#: What no daemon writes while all goes as it should.
ALARMS = ("Unhandled", "Traceback", "#critical", "#error")


class Said:
    """All that is logged in this process, as it would be read: one text for each event."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._event = Event()

    def __call__(self, event: LogEvent) -> None:
        text = formatEvent(event)
        failure = event.get("log_failure")
        if failure is not None:
            text += f"\n{failure.getTraceback()}"
        level: LogLevel = event["log_level"]
        self.lines.append(f"{event.get('log_namespace')}#{level.name} {text}")
        # In a turn of its own: a test goes on from here.
        cast("Any", reactor).callLater(0, self._event.happened)

    def count(self, part: str) -> int:
        return sum(part in line for line in self.lines)

    async def until(self, part: str, times: int = 1) -> str:
        """The last line that has these words, once there are so many."""
        try:
            await self._event.until(lambda: self.count(part) >= times)
        except TimeoutError as error:
            raise AssertionError(f"{part!r} was not said {times} times:\n" + "\n".join(self.lines)) from error
        return [line for line in self.lines if part in line][-1]


class Twistd(ProcessProtocol):
    """
    A ``twistd`` that runs.

    :ivar lines: what it wrote so far, standard output and error together.
    :ivar status: its exit status, or the negative number of the signal that ended it; None while it runs.
    """

    def __init__(self, directory: Path, *arguments: str, environ: Mapping[str, str] | None = None) -> None:
        self.lines: list[str] = []
        self.status: int | None = None
        self._rest = b""
        self._event = Event()
        self._process = cast(
            "IProcessTransport",
            cast("Any", reactor).spawnProcess(
                self,
                sys.executable,
                [*TWISTD, *arguments],
                env={**os.environ, **(environ or {})},
                path=str(directory),
            ),
        )

    def outReceived(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        self.lines += [line.decode() for line in lines]
        self._event.happened()

    def errReceived(self, data: bytes) -> None:
        self.outReceived(data)

    def processEnded(self, reason: Failure) -> None:
        number = getattr(reason.value, "signal", None)
        self.status = -number if number else getattr(reason.value, "exitCode", 0)
        self._event.happened()

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    async def until(self, part: str, times: int = 1) -> str:
        """The last line that has these words, once there are so many."""
        await self._until(lambda: self.status is not None or self._count(part) >= times, part)
        assert self._count(part) >= times, f"{part!r} was not said {times} times:\n{self.text}"
        return [line for line in self.lines if part in line][-1]

    def _count(self, part: str) -> int:
        return sum(part in line for line in self.lines)

    async def until_ended(self) -> int:
        """Its exit status."""
        await self._until(lambda: self.status is not None, "the end")
        assert self.status is not None
        return self.status

    async def _until(self, condition: Callable[[], bool], what: str) -> None:
        try:
            await self._event.until(condition)
        except TimeoutError as error:
            msg = f"{what!r} did not come:\n{self.text}"
            raise AssertionError(msg) from error

    def kill(self, name: str) -> None:
        if self.status is None:
            self._process.signalProcess(name)

    def assert_quiet(self) -> None:
        """Nothing in its output alarms anybody."""
        assert [line for line in self.lines if any(alarm in line for alarm in ALARMS)] == []


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


async def value_at(client: EtcdClient, key: str) -> KeyValue | None:
    """What is at a key."""
    response = await client.get(key)
    return response.kvs[0] if response.kvs else None


def is_gone(pid: int) -> bool:
    """Whether there is no such process."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def deferred(work: Coroutine[Deferred[Any], Any, ValueT]) -> Deferred[ValueT]:
    """Work under way, to be waited for with other work."""
    return Deferred.fromCoroutine(work)
