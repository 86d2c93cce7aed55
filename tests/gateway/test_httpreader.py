"""HTTP answers out of bytes, wherever these were cut."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.web.iweb import UNKNOWN_LENGTH

from twisted_etcd.gateway.httpreader import MAX_HEAD, MAX_HEADERS, AnswerReader, BrokenAnswer, NotHTTP

OK = b"HTTP/1.1 200 OK\r\n"
SHORT = OK + b"Content-Length: 2\r\n\r\nhi"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
IN_CHUNKS = CHUNKED + b"1\r\nh\r\n1;of=two\r\ni\r\n0\r\n\r\n"
WITH_TRAILERS = CHUNKED + b"2\r\nhi\r\n0\r\nX-Last: 1\r\nX-Very-Last: 1\r\n\r\n"

#: Answers, and what they come to: status, body, length, whole, open-ended, lasting.
ANSWERS: dict[bytes, tuple[int, bytes, int | str, bool, bool, bool]] = {
    SHORT: (200, b"hi", 2, True, False, True),
    IN_CHUNKS: (200, b"hi", UNKNOWN_LENGTH, True, False, True),
    WITH_TRAILERS: (200, b"hi", UNKNOWN_LENGTH, True, False, True),
    CHUNKED + b"0\r\nConnection: close\r\n\r\n": (200, b"", UNKNOWN_LENGTH, True, False, False),
    OK + b"Transfer-Encoding: gzip, Chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n": (
        200,
        b"hi",
        UNKNOWN_LENGTH,
        True,
        False,
        True,
    ),
    OK + b"\r\nhi": (200, b"hi", UNKNOWN_LENGTH, False, True, False),
    OK + b"Transfer-Encoding: gzip\r\n\r\nhi": (200, b"hi", UNKNOWN_LENGTH, False, True, False),
    OK + b"Content-Length: 0\r\n\r\n": (200, b"", 0, True, False, True),
    OK + b"Content-Length: 3\r\n\r\nhi": (200, b"hi", 3, False, False, False),
    CHUNKED + b"5\r\nhi": (200, b"hi", UNKNOWN_LENGTH, False, False, False),
    OK + b"Connection: close\r\nContent-Length: 2\r\n\r\nhi": (200, b"hi", 2, True, False, False),
    b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi": (200, b"hi", 2, True, False, False),
    b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nhi": (200, b"hi", 2, True, False, True),
    b"HTTP/1.1 204 None\r\n\r\n": (204, b"", 0, True, False, True),
    b"HTTP/1.1 304 Same\r\nContent-Length: 7\r\n\r\n": (304, b"", 0, True, False, True),
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nX-Early: 1\r\n\r\n" + SHORT: (
        200,
        b"hi",
        2,
        True,
        False,
        True,
    ),
    b"HTTP/1.1 503\r\nContent-Length: 2\r\n\r\nhi": (503, b"hi", 2, True, False, True),
}


def come_to(reader: AnswerReader, pieces: list[bytes]) -> tuple[int, bytes, int | str, bool, bool, bool]:
    """What the pieces come to, each read as it comes."""
    body = b"".join([reader.read(piece) for piece in pieces])
    assert reader.trouble is None
    assert reader.head is not None
    head = reader.head
    return head.code, body, head.length, reader.whole, head.open_ended, reader.lasting


def trouble(*pieces: bytes) -> str:
    """What is wrong with an answer."""
    reader = AnswerReader()
    for piece in pieces:
        reader.read(piece)
    assert isinstance(reader.trouble, BrokenAnswer)
    return str(reader.trouble)


@st.composite
def in_pieces(draw: st.DrawFn) -> tuple[bytes, list[bytes]]:
    """An answer, whole and cut anywhere."""
    data = draw(st.sampled_from(sorted(ANSWERS)))
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=20)))
    pieces = [data[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    return data, [piece for piece in pieces if piece]


@given(in_pieces())
def test_an_answer_is_the_same_wherever_it_was_cut(case: tuple[bytes, list[bytes]]) -> None:
    data, pieces = case
    assert come_to(AnswerReader(), pieces) == ANSWERS[data]


@pytest.mark.parametrize("data", ANSWERS, ids=range(len(ANSWERS)))
def test_every_single_cut_gives_the_same_answer(data: bytes) -> None:
    for first in range(1, len(data)):
        assert come_to(AnswerReader(), [data[:first], data[first:]]) == ANSWERS[data]
    assert come_to(AnswerReader(), [data[at : at + 1] for at in range(len(data))]) == ANSWERS[data]


@given(st.lists(st.sampled_from([data for data, (*_, lasting) in ANSWERS.items() if lasting]), max_size=6))
def test_one_answer_leaves_nothing_to_the_next(answers: list[bytes]) -> None:
    reader = AnswerReader()
    for data in answers:
        reader.expect()
        assert (reader.begun, reader.head, reader.whole) == (False, None, False)
        assert come_to(reader, [data]) == ANSWERS[data]
        assert reader.begun


def test_the_head_says_what_came() -> None:
    reader = AnswerReader()
    reader.read(OK + b"content-type: a\r\nX-Two: 1\r\nx-two:  2 \r\nEmpty:\r\nContent-Length: 0\r\n\r\n")
    assert reader.head is not None
    assert (reader.head.version, reader.head.phrase) == ((b"HTTP", 1, 1), b"OK")
    assert dict(reader.head.headers.getAllRawHeaders()) == {
        b"Content-Type": [b"a"],
        b"X-Two": [b"1", b"2"],
        b"Empty": [b""],
        b"Content-Length": [b"0"],
    }


def test_headers_behind_a_body_are_none_of_this_answer_or_the_next() -> None:
    reader = AnswerReader()
    for data in (WITH_TRAILERS, SHORT):
        reader.expect()
        assert come_to(reader, [data]) == ANSWERS[data]
        assert reader.head is not None
        assert not reader.head.headers.hasHeader("X-Last")
        assert not reader.head.headers.hasHeader("X-Very-Last")


def test_headers_before_the_answer_are_none_of_its_own() -> None:
    reader = AnswerReader()
    reader.read(b"HTTP/1.1 103 Early Hints\r\nX-Early: 1\r\n\r\n" + SHORT)
    assert reader.head is not None
    assert (reader.head.phrase, reader.head.headers.hasHeader("X-Early")) == (b"OK", False)


# --- what nobody asked for ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [SHORT, b"H", b"nonsense", b"\x00"])
@pytest.mark.parametrize("answer", [SHORT, IN_CHUNKS, OK + b"Connection: close\r\nContent-Length: 2\r\n\r\nhi"])
def test_what_comes_behind_an_answer_leaves_it_whole_and_is_its_last(answer: bytes, more: bytes) -> None:
    together, apart = AnswerReader(), AnswerReader()
    assert together.read(answer + more) == b"hi"
    assert apart.read(answer) + apart.read(more) == b"hi"
    for reader in (together, apart):
        assert (reader.whole, reader.lasting, reader.trouble) == (True, False, None)


# --- what is no answer ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [b"SSH-2.0-OpenSSH_9.2\r\n", b"220 mail.example ESMTP\r\n", b"\x00\x01", b"HTTP/1.1 what now\r\n\r\n", b"{}"],
)
def test_what_does_not_begin_as_an_answer_is_not_http(data: bytes) -> None:
    for pieces in ([data], [data[at : at + 1] for at in range(len(data))]):
        reader = AnswerReader()
        for piece in pieces:
            reader.read(piece)
        assert isinstance(reader.trouble, NotHTTP)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (OK + b"no colon\r\n\r\n", "Invalid header token"),
        (OK + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n", "can't be present"),
        (OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n", "Content-Length"),
        (OK + b"Content-Length: -1\r\n\r\n", "Content-Length"),
        (CHUNKED + b"no number\r\n", "chunk size"),
        (CHUNKED + b"fffffffffffffffff\r\n", "overflow"),
        (b"HTTP/2.0 200 OK\r\n\r\n", "speaks HTTP/2.0"),
        (b"HTTP/1.1 101 Yes\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", "switches to another protocol"),
        (b"HTTP/1.1 101 Yes\r\n\r\n", "switches to another protocol"),
        (b"HTTP/1.1 100 Continue\r\n\r\nnonsense", "Expected HTTP/"),
    ],
)
def test_an_answer_that_breaks_says_why(data: bytes, why: str) -> None:
    assert why in trouble(data)
    assert why in trouble(*[data[at : at + 1] for at in range(len(data))])


def test_what_came_before_an_answer_broke_is_given() -> None:
    reader = AnswerReader()
    assert reader.read(CHUNKED + b"2\r\nhi\r\nno number\r\n") == b"hi"
    assert isinstance(reader.trouble, BrokenAnswer)
    assert not reader.whole


# --- bounds ---------------------------------------------------------------------------------------------------------


def with_head(size: int) -> bytes:
    """An answer without a body whose head is so long."""
    frame = OK + b"Content-Length: 0\r\nX-Long: " + b"\r\n\r\n"
    return frame[:-4] + b"x" * (size - len(frame)) + b"\r\n\r\n"


def in_reads(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


@pytest.mark.parametrize("size", [100, 1 << 16, 1 << 20])
def test_a_head_up_to_the_bound_is_taken_and_none_over_it(size: int) -> None:
    reader = AnswerReader()
    for piece in in_reads(with_head(MAX_HEAD), size):
        reader.read(piece)
    assert (reader.whole, reader.trouble) == (True, None)
    assert trouble(*in_reads(with_head(MAX_HEAD + 1), size)) == "the head of the answer is longer than 65536 bytes"


def test_a_head_that_never_ends_is_given_up_at_the_bound() -> None:
    reader = AnswerReader()
    reader.read(OK + b"X-Endless: ")
    count = 0
    while reader.trouble is None:
        reader.read(b"x" * 1000)
        count += 1
    assert count == MAX_HEAD // 1000 + 1
    assert str(reader.trouble) == "the head of the answer is longer than 65536 bytes"


def test_so_is_a_server_that_never_comes_to_its_answer() -> None:
    reader = AnswerReader()
    count = 0
    while reader.trouble is None:
        reader.read(b"HTTP/1.1 100 Continue\r\n\r\n")
        count += 1
    assert count == MAX_HEAD // 25 + 1
    assert "longer than 65536 bytes" in str(reader.trouble)


def test_so_many_headers_are_taken_and_not_one_more() -> None:
    headers = b"Content-Length: 0\r\n" + b"A: 1\r\n" * (MAX_HEADERS - 1)
    reader = AnswerReader()
    reader.read(OK + headers + b"\r\n")
    assert (reader.whole, reader.trouble) == (True, None)
    assert trouble(OK + headers + b"A: 1\r\n\r\n") == "the answer has more than 256 headers"


@pytest.mark.parametrize("start", [b"2;", b"2\r\nhi\r\n0\r\nX-Endless: "])
def test_what_comes_without_any_of_the_body_is_bounded_too(start: bytes) -> None:
    reader = AnswerReader()
    reader.read(CHUNKED + start)
    for _ in range(MAX_HEAD // 1000 + 1):
        assert reader.trouble is None
        reader.read(b"x" * 1000)
    assert str(reader.trouble) == "more than 65536 bytes came without any of the body"


def test_a_body_may_go_on_for_ever_in_the_smallest_of_chunks() -> None:
    reader = AnswerReader()
    reader.read(CHUNKED)
    for _ in range(MAX_HEAD):
        assert reader.read(b"1\r\n") == b""
        assert reader.read(b"x\r\n") == b"x"
    assert reader.trouble is None


def test_a_reader_that_was_closed_refers_to_nothing_that_refers_to_it() -> None:
    reader: Any = AnswerReader()
    reader.close()
    assert not hasattr(reader, "_parser")
