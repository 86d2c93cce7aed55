"""What comes faster than the disk takes it waits at the server, not in memory."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from tests.schema.gateways import NEWER
from twisted_etcd.client.intake import MAX_WAITING, Intake, StreamSilent
from twisted_etcd.errors import EtcdError, NoLeader
from twisted_etcd.gateway.stream import Stream, StreamLost
from twisted_etcd.schema.maintenance import SnapshotResponse

PIECE = 32 * 1024


class Told(Stream):
    """A stream that notes what it is told."""

    def __init__(self, receiver: Intake) -> None:
        super().__init__("h:1", receiver)
        self.said: list[str] = []

    def pause(self) -> None:
        self.said.append("pause")

    def resume(self) -> None:
        self.said.append("resume")

    def _start_closing(self) -> None:
        self.said.append("close")

    def _abort(self) -> None:
        self.said.append("abort")


class Bench:
    def __init__(self) -> None:
        self.clock = Clock()
        self.intake = Intake(self.clock, 10)
        self.stream = Told(self.intake)
        self.intake.comes_by(self.stream)

    def come(self, pieces: int = 1, size: int = PIECE) -> None:
        self.intake.messages_received(frames([b"\0" * size] * pieces))

    def lost(self) -> None:
        self.intake.stream_ended(Failure(StreamLost("gone")))


def frames(blobs: Iterable[bytes]) -> list[bytes]:
    return [NEWER.write_frame(SnapshotResponse(blob=blob, remaining_bytes=1)).strip() for blob in blobs]


@pytest.fixture
def bench() -> Bench:
    return Bench()


def result(deferred: Deferred[list[SnapshotResponse]]) -> int | Failure | None:
    """How many bytes came, or why none."""
    got: list[int | Failure] = []
    deferred.addCallback(lambda pieces: sum(len(piece.blob) for piece in pieces)).addBoth(got.append)
    return got[0] if got else None


def test_reading_stops_while_too_much_waits_and_goes_on_when_it_was_taken(bench: Bench) -> None:
    bench.come(MAX_WAITING // PIECE - 1)
    assert bench.stream.said == []
    bench.come()
    assert bench.stream.said == ["pause"]
    # What was read from the socket already.
    bench.come()
    assert bench.intake.held == MAX_WAITING + PIECE
    assert result(bench.intake.next()) == MAX_WAITING + PIECE
    assert bench.stream.said == ["pause", "resume"]
    assert (bench.intake.held, bench.intake.most_held) == (0, MAX_WAITING + PIECE)


def test_what_came_before_the_stream_was_known_counts_too() -> None:
    intake = Intake(Clock(), 10)
    intake.messages_received(frames([b"\0" * MAX_WAITING]))
    stream = Told(intake)
    intake.comes_by(stream)
    assert stream.said == ["pause"]


def test_whoever_waits_gets_the_next_piece_at_once(bench: Bench) -> None:
    waiting = bench.intake.next()
    bench.come(2)
    assert result(waiting) == 2 * PIECE
    assert bench.clock.getDelayedCalls() == []


def test_the_end_comes_after_the_last_piece(bench: Bench) -> None:
    bench.come()
    bench.lost()
    assert result(bench.intake.next()) == PIECE
    ended = result(bench.intake.next())
    assert isinstance(ended, Failure)
    assert isinstance(ended.value, StreamLost)
    # And nothing after the end.
    bench.come()
    assert isinstance(result(bench.intake.next()), Failure)


def test_an_error_of_etcds_in_the_midst_ends_it(bench: Bench) -> None:
    waiting = bench.intake.next()
    error = b'{"error":{"grpc_code":14,"http_code":503,"message":"etcdserver: no leader"}}'
    bench.intake.messages_received([*frames([b"x"]), error, *frames([b"y"])])
    assert result(waiting) == 1
    ended = result(bench.intake.next())
    assert isinstance(ended, Failure)
    assert isinstance(ended.value, NoLeader)
    assert isinstance(ended.value, EtcdError)


def test_what_is_no_piece_ends_it(bench: Bench) -> None:
    waiting = bench.intake.next()
    bench.intake.messages_received([b"{}"])
    ended = result(waiting)
    assert isinstance(ended, Failure)
    assert isinstance(ended.value, msgspec.DecodeError)


def test_silence_counts_only_while_somebody_waits(bench: Bench) -> None:
    bench.come()
    bench.clock.advance(100)
    assert result(bench.intake.next()) == PIECE
    bench.clock.advance(100)
    waiting = bench.intake.next()
    bench.clock.advance(9)
    bench.come()
    assert result(waiting) == PIECE
    waiting = bench.intake.next()
    bench.clock.advance(10)
    ended = result(waiting)
    assert isinstance(ended, Failure)
    assert isinstance(ended.value, StreamSilent)
    assert str(ended.value) == "nothing came for 10 s"


def test_who_gives_up_leaves_nothing_behind(bench: Bench) -> None:
    waiting = bench.intake.next()
    waiting.addErrback(lambda _: None)
    waiting.cancel()
    assert bench.clock.getDelayedCalls() == []
    bench.come()
    assert result(bench.intake.next()) == PIECE
