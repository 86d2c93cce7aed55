"""When readers are told: once, when all are at rest, and again where it failed. The reader is this process."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from twisted.internet.task import Clock

from tests.messaging.common import result_of
from twisted_etcd.backoff import Backoff
from twisted_etcd.errors import RenderError
from twisted_etcd.rendering.entry import SendSignal
from twisted_etcd.rendering.reload import PATIENCE, Reload


class File:
    """Somebody who writes a file, and tells what it hears."""

    def __init__(self) -> None:
        self.is_busy = False
        self.is_waiting = False
        self.heard: list[str] = []

    def reloaded(self) -> None:
        self.heard.append("reloaded")

    def not_reloaded(self, error: RenderError) -> None:
        self.heard.append("failed")


class Reader:
    """Is told by signals."""

    def __init__(self, folder: Path, *, again: bool = True) -> None:
        self.clock = Clock()
        self.pid_file = folder / "pid"
        self.signals = 0
        self.first, self.second = File(), File()
        self.reload = Reload(
            cast("Any", self.clock),
            SendSignal(number=signal.SIGUSR2, pid_file=self.pid_file),
            1.0,
            lambda: (self.first, self.second),
            Backoff(lambda: 1.0, 1.0, 60.0),
            again=again,
        )

    def runs(self) -> None:
        self.pid_file.write_text(str(os.getpid()))

    def got(self, _number: int, _frame: object) -> None:
        self.signals += 1


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    made = Reader(tmp_path)
    before = signal.signal(signal.SIGUSR2, made.got)
    made.reload.start()
    yield made
    assert result_of(made.reload.stop()) is None
    assert made.clock.getDelayedCalls() == []
    signal.signal(signal.SIGUSR2, before)


def test_several_who_owe_are_served_by_one_reload_once_all_are_at_rest(reader: Reader) -> None:
    reader.runs()
    reader.first.is_busy = reader.second.is_busy = True
    reader.reload.owe(reader.first)
    reader.first.is_busy = False
    reader.reload.look()
    assert reader.signals == 0
    reader.reload.owe(reader.second)
    reader.reload.owe(reader.second)
    reader.second.is_busy = False
    reader.reload.look()
    assert reader.signals == 1
    assert reader.first.heard == reader.second.heard == ["reloaded"]
    reader.reload.look()
    assert reader.signals == 1


def test_those_who_have_not_begun_are_waited_for_a_little(reader: Reader) -> None:
    reader.runs()
    reader.second.is_waiting = True
    reader.reload.owe(reader.first)
    reader.clock.advance(PATIENCE * 0.9)
    assert reader.signals == 0
    reader.clock.advance(PATIENCE * 0.1)
    assert reader.signals == 1
    reader.reload.owe(reader.first)
    reader.second.is_waiting = False
    reader.reload.look()
    assert reader.signals == 2


def test_what_fails_is_repeated_with_growing_waits(reader: Reader) -> None:
    reader.reload.owe(reader.first)
    for seconds in (1, 2, 4, 8, 16, 32, 60, 60):
        heard = len(reader.first.heard)
        reader.clock.advance(seconds * 0.99)
        assert len(reader.first.heard) == heard
        reader.clock.advance(seconds * 0.01)
        assert len(reader.first.heard) == heard + 1
    reader.runs()
    reader.clock.advance(60)
    assert reader.signals == 1
    assert reader.first.heard[-1] == "reloaded"


def test_the_next_who_owes_supersedes_what_waits_to_be_repeated(reader: Reader) -> None:
    reader.reload.owe(reader.first)
    assert reader.first.heard == ["failed"]
    reader.runs()
    reader.reload.owe(reader.second)
    assert reader.signals == 1
    assert (reader.first.heard, reader.second.heard) == (["failed", "reloaded"], ["reloaded"])
    assert reader.clock.getDelayedCalls() == []


def test_where_there_is_one_attempt_a_failure_is_the_end_of_it(tmp_path: Path) -> None:
    reader = Reader(tmp_path, again=False)
    reader.reload.start()
    reader.reload.owe(reader.first)
    assert reader.first.heard == ["failed"]
    assert reader.clock.getDelayedCalls() == []
    assert result_of(reader.reload.stop()) is None
