"""The frames of a WebSocket that need no engine. That the others get to it whole is shown with the protocol."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wsproto import ConnectionType
from wsproto.connection import Connection
from wsproto.events import Message, TextMessage

from twisted_etcd.gateway.frames import FrameSorter, text_frame

LIMIT = 100_000


def sorted_out(data: bytes, max_message: int = LIMIT) -> list[list[bytes] | bytes]:
    return list(FrameSorter(max_message).feed(data))


def server_frame(text: str, *, fin: bool = True) -> bytes:
    return Connection(ConnectionType.SERVER).send(TextMessage(text, message_finished=fin))


@pytest.mark.parametrize("length", [0, 1, 125, 126, 127, 1023, 1024])
def test_a_short_message_is_framed_as_an_engine_would_and_never_under_the_same_mask(length: int) -> None:
    message = b'{"watch_id":1}'.ljust(length)[:length]
    framed = [text_frame(message) for _ in range(20)]
    assert len(set(framed)) == 20
    reading = Connection(ConnectionType.SERVER)
    reading.receive_data(b"".join(each for each in framed if each is not None))
    told = list(reading.events())
    assert [event.data.encode() for event in told if isinstance(event, Message)] == [message] * 20


@pytest.mark.parametrize("message", [b"x" * 1025, "größer".encode(), b"\xff"], ids=["long", "no ASCII", "no UTF-8"])
def test_what_an_engine_frames_better_is_left_to_it(message: bytes) -> None:
    assert text_frame(message) is None


@pytest.mark.parametrize("length", [0, 1, 125, 126, 0xFFFF, 0x10000, LIMIT])
def test_whole_messages_need_no_engine(length: int) -> None:
    assert sorted_out(server_frame("x" * length) * 2) == [[b"x" * length] * 2]


@given(
    texts=st.lists(st.text(st.characters(max_codepoint=127), max_size=300), max_size=8),
    cuts=st.lists(st.integers(0, 2500), max_size=20),
)
def test_they_are_the_same_wherever_the_bytes_were_cut(texts: list[str], cuts: list[int]) -> None:
    data = b"".join(server_frame(text) for text in texts)
    places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    sorter = FrameSorter(LIMIT)
    found = [part for start, stop in itertools.pairwise(places) for part in sorter.feed(data[start:stop])]
    assert [message for part in found for message in part] == [text.encode() for text in texts]


ODD = {
    "a ping": b"\x89\x01p",
    "a binary message": b"\x82\x01b",
    "no ASCII": "\x81\x02ß".encode("latin-1").replace(b"\xdf", "ß".encode()),
    "reserved bits": b"\xc1\x01x",
    "a length in more bytes than it needs": b"\x81\x7e\x00\x01x",
    "more than the bound": server_frame("x" * (LIMIT + 1)),
}


@pytest.mark.parametrize("frame", ODD.values(), ids=ODD)
def test_any_other_frame_goes_to_the_engine_whole_and_in_its_place(frame: bytes) -> None:
    plain = server_frame("plain")
    found = sorted_out(plain + frame)
    assert found == [[b"plain"], frame]


def test_a_masked_frame_goes_to_the_engine_which_refuses_it() -> None:
    assert sorted_out(b"\x81\x85maskhello")[0][:2] == b"\x81\x85"


def test_a_message_of_several_frames_is_the_engines_until_it_ends() -> None:
    frames = [server_frame("a", fin=False), b"\x89\x00", server_frame("not yet"), b"\x80\x01b"]
    plain = server_frame("plain")
    assert sorted_out(plain + b"".join(frames) + plain) == [[b"plain"], *frames, [b"plain"]]


def test_the_engine_has_all_of_a_frame_that_turns_out_odd_at_its_end() -> None:
    sorter = FrameSorter(LIMIT)
    frame = server_frame("x" * 200 + "ß")
    assert list(sorter.feed(frame[:100])) == []
    assert list(sorter.feed(frame[100:-1])) == [frame[:-1]]
    assert list(sorter.feed(frame[-1:] + server_frame("plain"))) == [frame[-1:], [b"plain"]]


def test_the_engine_has_each_byte_of_an_odd_header_at_once_and_once() -> None:
    sorter = FrameSorter(LIMIT)
    frame = b"\x82\x7e\x00\xc8" + b"b" * 200
    found = [list(sorter.feed(frame[at : at + 1])) for at in range(len(frame))]
    assert found == [[frame[at : at + 1]] for at in range(len(frame))]
