"""A snapshot's file is whole, or not there."""

from __future__ import annotations

import hashlib
import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from twisted_etcd.client.snapshotfile import SnapshotFile, SnapshotSpoiled, snapshot_path
from twisted_etcd.errors import InvalidSettings, SnapshotNotWritten

DATABASE = bytes(range(256)) * 16
WHOLE = DATABASE + hashlib.sha256(DATABASE).digest()


@pytest.fixture
def file(tmp_path: Path) -> Iterator[SnapshotFile]:
    file = SnapshotFile(tmp_path / "etcd.db")
    yield file
    file.discard()


@pytest.mark.parametrize("length", [1, 31, 32, 33, 1000, len(WHOLE)])
def test_whatever_the_length_of_its_pieces_a_whole_one_takes_its_name(file: SnapshotFile, length: int) -> None:
    file.begin()
    for start in range(0, len(WHOLE), length):
        assert file.write([WHOLE[start : start + length]]) == min(len(WHOLE), start + length)
        assert not file.path.exists()
    assert file.finish() == hashlib.sha256(DATABASE).hexdigest()
    assert file.path.read_bytes() == WHOLE
    assert not file.part.exists()
    assert file.path.stat().st_mode & 0o777 == 0o600
    file.discard()
    assert file.path.read_bytes() == WHOLE


@pytest.mark.parametrize("count", [0, 1, 31, 32, 33, len(DATABASE), len(WHOLE) - 1])
def test_one_that_was_cut_short_does_not(file: SnapshotFile, count: int) -> None:
    file.path.write_text("what was there before")
    file.begin()
    file.write([WHOLE[:count]])
    with pytest.raises(SnapshotSpoiled):
        file.finish()
    file.discard()
    assert file.path.read_text() == "what was there before"
    assert not file.part.exists()


@pytest.mark.parametrize("place", [0, 100, len(DATABASE) - 1, len(DATABASE), len(WHOLE) - 1])
def test_one_with_a_changed_byte_does_not(file: SnapshotFile, place: int) -> None:
    spoiled = bytearray(WHOLE)
    spoiled[place] ^= 1
    file.begin()
    file.write([bytes(spoiled)])
    with pytest.raises(SnapshotSpoiled, match="do not have the SHA-256 that came with them"):
        file.finish()


def test_it_can_begin_again_with_nothing_left_of_what_came_before(file: SnapshotFile) -> None:
    file.begin()
    file.write([b"x" * 10_000])
    file.begin()
    file.write([WHOLE])
    file.finish()
    assert file.path.read_bytes() == WHOLE


def test_what_a_process_that_ended_left_behind_is_taken_over(file: SnapshotFile) -> None:
    file.part.write_text("half a snapshot, longer than the next one" * 1000)
    file.begin()
    file.write([WHOLE])
    file.finish()
    assert file.path.read_bytes() == WHOLE


def test_two_do_not_write_to_one_name(file: SnapshotFile) -> None:
    file.begin()
    another = SnapshotFile(file.path)
    with pytest.raises(SnapshotNotWritten, match=r"another snapshot is being written to etcd\.db\.part"):
        another.begin()
    another.discard()
    file.write([WHOLE])
    file.finish()
    another = SnapshotFile(file.path)
    another.begin()
    another.discard()
    assert file.path.read_bytes() == WHOLE


def test_after_it_was_given_up_nothing_is_done(file: SnapshotFile) -> None:
    file.begin()
    file.write([WHOLE])
    file.give_up()
    for doing in (file.begin, file.finish):
        with pytest.raises(SnapshotNotWritten, match="it was given up"):
            doing()
    file.discard()
    assert not file.part.exists()
    assert not file.path.exists()


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("no-such-directory/etcd.db", "No such file or directory"),
        ("a-file/etcd.db", "Not a directory"),
        ("a-directory", "it is a directory"),
    ],
)
def test_a_path_that_cannot_be_written_is_named(tmp_path: Path, name: str, why: str) -> None:
    (tmp_path / "a-file").touch()
    (tmp_path / "a-directory").mkdir()
    file = SnapshotFile(tmp_path / name)
    with pytest.raises(SnapshotNotWritten) as raised:
        file.begin()
    assert str(raised.value) == f"the snapshot {tmp_path / name} could not be written: {why}"
    assert (raised.value.path, raised.value.why) == (tmp_path / name, why)
    file.discard()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a-directory", "a-file"]


def test_a_directory_that_nobody_may_write_to_is_named() -> None:
    # Not even root.
    with pytest.raises(SnapshotNotWritten, match=r"^the snapshot /sys/etcd\.db could not be written: \w"):
        SnapshotFile(Path("/sys/etcd.db")).begin()


def test_a_link_in_the_place_of_the_part_is_not_followed(file: SnapshotFile, tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("mine")
    file.part.symlink_to(tmp_path / "victim")
    with pytest.raises(SnapshotNotWritten):
        file.begin()
    assert (tmp_path / "victim").read_text() == "mine"


@pytest.fixture
def little_room() -> Iterator[None]:
    """The system takes no more than 3,000 bytes of a file."""
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    signal.signal(signal.SIGXFSZ, ignored)


@pytest.mark.usefixtures("little_room")
def test_where_there_is_no_room_it_says_so_and_takes_none(file: SnapshotFile) -> None:
    file.begin()
    with pytest.raises(SnapshotNotWritten, match=r"etcd\.db could not be written: File too large"):
        file.write([WHOLE])
    file.discard()
    assert not file.part.exists()


@pytest.mark.parametrize(
    ("path", "kind"), [(5, TypeError), (b"x", TypeError), (None, TypeError), ("", InvalidSettings)]
)
def test_what_is_no_path_is_named(path: object, kind: type[Exception]) -> None:
    with pytest.raises(kind, match="path"):
        snapshot_path(path)  # type: ignore[arg-type]
