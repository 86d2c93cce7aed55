"""What is logged in this process, to be waited for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import pytest
from twisted.internet import defer, reactor
from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent, globalLogPublisher
from zope.interface import implementer

from tests.wire import Event


@implementer(ILogObserver)
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
        except defer.TimeoutError as error:
            raise AssertionError(f"{part!r} was not said {times} times:\n" + "\n".join(self.lines)) from error
        return [line for line in self.lines if part in line][-1]


@pytest.fixture
def said() -> Iterator[Said]:
    """What is logged in the test."""
    observer = Said()
    globalLogPublisher.addObserver(observer)
    yield observer
    globalLogPublisher.removeObserver(observer)
