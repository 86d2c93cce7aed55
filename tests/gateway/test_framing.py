"""Lines out of bytes, wherever these were cut."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twisted_etcd.gateway.framing import LineFramer, LineTooLong

LIMIT = 1 << 40

lines = st.binary(min_size=1, max_size=40).filter(lambda line: b"\n" not in line and line == line.strip())
texts = st.lists(st.one_of(lines, st.just(b"")), max_size=12)


@st.composite
def cut_streams(draw: st.DrawFn) -> tuple[list[bytes], bytes | None, list[bytes]]:
    """The lines that should come, the last one if its newline is missing, and the bytes in pieces."""
    whole = draw(texts)
    ending = draw(st.sampled_from([b"\n", b"\r\n"]))
    rest = draw(st.one_of(st.none(), lines))
    data = b"".join(line + ending for line in whole) + (rest or b"")
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=20)))
    pieces = [data[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    return [line for line in whole if line], rest, pieces


@given(cut_streams())
def test_the_lines_are_the_same_wherever_the_bytes_were_cut(
    case: tuple[list[bytes], bytes | None, list[bytes]],
) -> None:
    expected, rest, pieces = case
    framer = LineFramer(LIMIT)
    assert [line for piece in pieces for line in framer.feed(piece)] == expected
    assert framer.finish() == rest
    assert framer.finish() is None


def test_every_single_cut_gives_the_same_lines() -> None:
    data = b'{"result":{"header":{}}}\n\n{"result":{"events":[]}}\r\n{"error":{"code":14}}'
    for first in range(len(data) + 1):
        for second in range(first, len(data) + 1):
            framer = LineFramer(LIMIT)
            pieces = data[:first], data[first:second], data[second:]
            assert [line for piece in pieces for line in framer.feed(piece)] == [
                b'{"result":{"header":{}}}',
                b'{"result":{"events":[]}}',
            ]
            assert framer.finish() == b'{"error":{"code":14}}'


def test_a_line_is_given_as_soon_as_its_newline_is_there() -> None:
    framer = LineFramer(LIMIT)
    assert framer.feed(b'{"a":1}') == []
    assert framer.feed(b"\n") == [b'{"a":1}']


def test_bytes_without_a_line_end_with_nothing() -> None:
    framer = LineFramer(LIMIT)
    assert framer.feed(b"\r\n \n\n") == []
    assert framer.finish() is None


@pytest.mark.parametrize("piece", [1, 2, 3, 100])
def test_an_endless_line_is_refused_however_it_comes(piece: int) -> None:
    framer = LineFramer(10)
    data = b"0123456789\n" + b"x" * 11
    pieces = [data[start : start + piece] for start in range(0, len(data), piece)]
    whole: list[bytes] = []

    def feed() -> None:
        for each in pieces:
            whole.extend(framer.feed(each))

    with pytest.raises(LineTooLong, match="longer than 10 bytes") as caught:
        feed()
    assert whole + caught.value.lines == [b"0123456789"]


def test_a_line_that_is_too_long_is_refused_with_its_newline_as_well() -> None:
    with pytest.raises(LineTooLong):
        LineFramer(10).feed(b"x" * 11 + b"\n")


def test_a_large_line_in_small_pieces_takes_linear_time() -> None:
    def seconds(pieces: int) -> float:
        framer = LineFramer(LIMIT)
        piece = b"x" * 100
        begin = time.process_time()
        for _ in range(pieces):
            framer.feed(piece)
        assert framer.feed(b"\n") == [piece * pieces]
        return time.process_time() - begin

    seconds(20_000)
    # Quadratic time would be 64 times as long.
    assert seconds(160_000) < 32 * seconds(20_000)
