"""The cache on disk."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, cast

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.task import Clock

from tests.messaging.common import result_of
from tests.said import Said
from tests.wire import soon
from twisted_etcd.config.cache import Cached, CacheFile, read_cache, write_cache
from twisted_etcd.config.snapshot import Entry

SOME = Cached(1, "/config", "cafe", 7, {"a/b": Entry(b"\x00secret", 5), "c": Entry(b"", 7)})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "config.cache"


def test_what_is_written_is_read_again_and_nobody_else_may_read_it(path: Path) -> None:
    write_cache(path, SOME)
    assert read_cache(path, "/config") == SOME
    assert SOME.cluster == 0xCAFE
    assert path.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    content = json.loads(path.read_bytes())
    assert (content["version"], content["prefix"], content["revision"]) == (1, "/config", 7)
    assert "secret" not in path.read_text()
    assert "secret" not in repr(SOME) + repr(SOME.__rich_repr__()) + repr(SOME.entries)


def test_one_that_others_could_read_is_replaced_by_one_that_they_cannot(path: Path) -> None:
    path.write_text("x")
    path.chmod(0o644)
    write_cache(path, SOME)
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "it is broken, or no cache at all"),
        (b"\xff\xfe", "it is broken, or no cache at all"),
        (b'{"version":1,"prefix":"/config"}', "it is broken, or no cache at all"),
        (b'{"version":1,"prefix":"/config","cluster_id":"1","revision":1,"entries":{"a":{"value":"?"}}}',
         "it is broken, or no cache at all"),
        (b"[" * 100_000, "it is broken, or no cache at all"),
        (b'{"version":2,"all":"new"}', "it is of version 2, and this is 1"),
        (b'{"version":1,"prefix":"/other","cluster_id":"1","revision":1,"entries":{}}',
         "it is of the prefix '/other', and not of '/config'"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_used_says_why(path: Path, content: bytes, why: str) -> None:
    path.write_bytes(content)
    assert read_cache(path, "/config") == why


def test_any_part_of_a_file_is_no_file(path: Path) -> None:
    write_cache(path, SOME)
    whole = path.read_bytes()
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        assert read_cache(path, "/config") == "it is broken, or no cache at all"


def test_where_writing_fails_the_old_one_stays_and_nothing_is_left(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cache(path, SOME)

    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        write_cache(path, Cached(1, "/config", "cafe", 8, {}))
    assert read_cache(path, "/config") == SOME
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def at(revision: int) -> Cached:
    return Cached(1, "/config", "1", revision, {})


def revision_in(path: Path) -> int | str:
    cached = read_cache(path, "/config")
    return cached.revision if isinstance(cached, Cached) else cached


def test_changes_are_written_together_after_a_pause(path: Path) -> None:
    clock = Clock()
    file = CacheFile(clock, path, "/config")
    assert file.read() is None
    file.keep(lambda: at(1))
    clock.advance(0.5)
    file.keep(lambda: at(2))
    assert not path.exists()
    clock.advance(0.5)
    assert revision_in(path) == 2
    assert clock.getDelayedCalls() == []


def test_stopped_it_writes_what_has_to_be_written(path: Path) -> None:
    clock = Clock()
    file = CacheFile(clock, path, "/config")
    file.keep(lambda: at(1))
    assert result_of(file.stop()) is None
    assert revision_in(path) == 1
    assert clock.getDelayedCalls() == []
    assert result_of(CacheFile(clock, path, "/config").stop()) is None


def test_a_place_that_cannot_be_written_is_said_once_and_tried_again(tmp_path: Path, said: Said) -> None:
    clock, path = Clock(), tmp_path / "later" / "config.cache"
    file = CacheFile(clock, path, "/config")
    for revision in (1, 2):
        file.keep(lambda revision=revision: at(revision))  # type: ignore[misc]
        clock.advance(1)
    assert said.count("#warn The cache of configuration") == 1
    assert said.count("cannot be written, and will be tried with each change: No such file or directory") == 1
    path.parent.mkdir()
    file.keep(lambda: at(3))
    clock.advance(1)
    assert said.count("is written again") == 1
    assert revision_in(path) == 3


def test_one_that_cannot_be_used_is_said_and_ignored(path: Path, said: Said) -> None:
    path.write_text("not ours")
    assert CacheFile(Clock(), path, "/config").read() is None
    assert said.count("is not used: it is broken, or no cache at all") == 1


@ensureDeferred
async def test_with_a_real_reactor_a_thread_writes_and_the_end_waits_for_the_newest(path: Path) -> None:
    file = CacheFile(cast("Any", reactor), path, "/config")
    file.keep(lambda: at(1))
    stopping = file.stop()
    assert not stopping.called
    file.keep(lambda: at(2))
    await soon(stopping)
    assert revision_in(path) == 2
