"""What every test is held to: a reactor as clean as it was, and no error logged that the test did not expect."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Protocol

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.process import reapProcessHandlers
from twisted.internet.task import deferLater
from twisted.internet.tcp import Port
from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from zope.interface import implementer

#: Seconds between two looks at a reactor that is not clean, and how many looks there are.
LOOK_EVERY, LOOKS = 0.01, 200
#: Words of the etcds under test, which are no errors of ours.
FOREIGN_NAMESPACES = ("etcd",)
#: What tests share and may change: afterwards its processes and its listening sockets can be others.
STANDING: list[Standing] = []
#: What ``Deferred`` logs before each failure that nobody handled.
UNHANDLED = "Unhandled error in Deferred:"


class Standing(Protocol):
    """Something that stays from test to test."""

    @property
    def pids(self) -> frozenset[int]:
        """Its processes."""

    @property
    def ports(self) -> frozenset[int]:
        """The ports that it listens on."""


@implementer(ILogObserver)
class LoggedErrors:
    """The errors and failures that were logged during a test and not yet flushed."""

    def __init__(self) -> None:
        self._events: list[LogEvent] = []

    def __call__(self, event: LogEvent) -> None:
        bad = "log_failure" in event or event["log_level"] in (LogLevel.error, LogLevel.critical)
        # the failure itself follows in an event of its own
        heading = event.get("log_format") == UNHANDLED and "log_failure" not in event
        if bad and not heading and event.get("log_namespace") not in FOREIGN_NAMESPACES:
            self._events.append(event)

    def flush(self, *types: type[Exception]) -> list[Failure]:
        """Take out, and return, the logged failures of these types, of all types where none is given."""
        gc.collect()
        taken = [event for event in self._events if "log_failure" in event and _is_of(event["log_failure"], types)]
        self._events = [event for event in self._events if event not in taken]
        return [event["log_failure"] for event in taken]

    def flush_messages(self, part: str = "") -> list[str]:
        """Take out, and return, the messages without a failure that contain some words."""
        taken = [event for event in self._events if "log_failure" not in event and part in (formatEvent(event) or "")]
        self._events = [event for event in self._events if event not in taken]
        return [formatEvent(event) or "" for event in taken]

    def left(self) -> list[str]:
        """What nobody flushed, in words."""
        return [_in_words(event) for event in self._events]


@pytest.fixture(autouse=True)
def logged_errors() -> Iterator[LoggedErrors]:
    """Fails a test that leaves an error in the log; one that expects errors flushes them."""
    errors = LoggedErrors()
    globalLogPublisher.addObserver(errors)
    try:
        yield errors
        # a Deferred tells of its unhandled failure when it is collected
        gc.collect()
    finally:
        globalLogPublisher.removeObserver(errors)
    left = errors.left()
    if left:
        pytest.fail("errors were logged:\n" + "\n".join(left), pytrace=False)


@pytest.fixture(autouse=True)
def clean_reactor(logged_errors: LoggedErrors) -> Iterator[None]:
    """Fails a test that leaves a delayed call, a socket or a child process in the reactor."""
    pytest_twisted.blockon(deferLater(reactor, 0))
    before = _contents()
    yield
    left = pytest_twisted.blockon(Deferred.fromCoroutine(_settled(before)))
    if left:
        pytest.fail("the reactor is not clean:\n" + "\n".join(left), pytrace=False)


async def _settled(before: dict[int, tuple[object, str]]) -> list[str]:
    """What the test left behind, after the time that closing a socket takes."""
    for _ in range(LOOKS):
        # two turns: what is closed in one is gone in the next
        await deferLater(reactor, 0)
        await deferLater(reactor, 0)
        left = [words for key, (_, words) in _contents().items() if key not in before]
        if not left:
            break
        await deferLater(reactor, LOOK_EVERY)
    return left


def _contents() -> dict[int, tuple[object, str]]:
    """All that is in the reactor, by identity; the object is held so that no other can get its identity."""
    found: list[tuple[object, str]] = [(call, f"delayed call: {call}") for call in reactor.getDelayedCalls()]
    found += [(each, f"reads: {each!r}") for each in reactor.getReaders()]
    found += [(each, f"writes: {each!r}") for each in reactor.getWriters()]
    found += [(each, f"child process: {each!r}") for each in reapProcessHandlers.values()]
    return {id(each): (each, words) for each, words in found if not _stays(each)}


def _stays(each: object) -> bool:
    """Whether it belongs to something that is shared by tests."""
    pid = getattr(getattr(each, "proc", each), "pid", None)
    port = each.getHost().port if isinstance(each, Port) else None
    return any(pid in standing.pids or port in standing.ports for standing in STANDING)


def _is_of(failure: Failure, types: tuple[type[Exception], ...]) -> bool:
    return not types or failure.check(*types) is not None


def _in_words(event: LogEvent) -> str:
    words = formatEvent(event) or UNHANDLED
    failure = event.get("log_failure")
    return words if failure is None else f"{words}\n{failure.getTraceback()}"
