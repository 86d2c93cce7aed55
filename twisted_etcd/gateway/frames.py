"""
The frames of a WebSocket that need no engine: whole text messages, which is nearly all that etcd and its clients send.

A WebSocket engine in Python costs more for each frame than all the rest of the way to a watch. So frames are told apart
here, and the plain ones taken: a message in one frame, unmasked, of ASCII and within the bound. All bytes of all others
go to the engine as they come, so that it alone judges what is valid, and what is to be answered.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

#: The first byte of a text message in one frame (RFC 6455, 5.2), and what is in it.
_WHOLE_TEXT = 0x81
_FINAL = 0x80
_OPCODE = 0x0F
_FIRST_CONTROL = 8
#: What is in the second byte.
_MASKED = 0x80
_LENGTH = 0x7F
#: Lengths from here on stand in further bytes.
_IN_TWO_BYTES = 126
_IN_EIGHT_BYTES = 127
_LONGEST_IN_TWO_BYTES = 0xFFFF
_MASK_LENGTH = 4
#: The longest message that is sent without the engine, which is quicker with large ones.
_LONGEST_SENT = 1024


def text_frame(message: bytes) -> bytes | None:
    """
    A text message as a client sends it, under a mask that nobody can foresee (RFC 6455, 5.3).

    :return: None where it is the engine's to make: it is long, or not of ASCII.
    """
    length = len(message)
    if length > _LONGEST_SENT or not message.isascii():
        return None
    if length < _IN_TWO_BYTES:
        header = bytes((_WHOLE_TEXT, _MASKED | length))
    else:
        header = bytes((_WHOLE_TEXT, _MASKED | _IN_TWO_BYTES)) + length.to_bytes(2, "big")
    mask = os.urandom(_MASK_LENGTH)
    repeated = (mask * (length // _MASK_LENGTH + 1))[:length]
    masked = int.from_bytes(message, "little") ^ int.from_bytes(repeated, "little")
    return b"".join((header, mask, masked.to_bytes(length, "little")))


def _payload(data: bytes, at: int) -> tuple[int, int] | None:
    """Where the payload begins of the frame that begins here, and its length; None where not all of that is there."""
    if len(data) < at + 2:
        return None
    begin = at + 2
    length = data[at + 1] & _LENGTH
    if length < _IN_TWO_BYTES:
        return begin, length
    begin += 2 if length == _IN_TWO_BYTES else 8
    return (begin, int.from_bytes(data[at + 2 : begin], "big")) if len(data) >= begin else None


class FrameSorter:
    """
    Sorts what a server sends after the opening handshake, wherever the bytes are cut.

    What becomes of an odd frame is for the engine to say. Where that refuses one, nothing more may be fed here.

    :param max_message: the longest message that is taken as plain, in bytes.
    """

    __slots__ = ("_begun", "_in_message", "_left", "_max_message", "_parts", "_plain", "_told")

    def __init__(self, max_message: int) -> None:
        self._max_message = max_message
        #: The beginning of a frame whose header has not come whole.
        self._begun = b""
        #: How much of that the engine has.
        self._told = 0
        #: How much is to come of the payload of the frame that has begun.
        self._left = 0
        #: Whether that frame is plain, as far as it has come.
        self._plain = False
        #: A plain frame as far as it has come: its header, and its payload in pieces.
        self._parts: list[bytes] = []
        #: Whether a message of several frames has begun, and not ended.
        self._in_message = False

    def feed(self, data: bytes) -> Iterator[list[bytes] | bytes]:
        """
        Take the next bytes.

        :return: lists of messages, and bytes for the engine, in the order in which they came. To be gone through to
            the end, unless nothing more is fed.
        """
        messages: list[bytes] = []
        at = 0
        if self._left:
            at = min(self._left, len(data))
            odd = self._continue(data[:at], messages)
            if odd:
                yield odd
        elif self._begun:
            data, self._begun = self._begun + data, b""
        while at < len(data):
            stop = self._take(data, at, messages)
            if stop == at:
                # An odd frame, or the beginning of one.
                if messages:
                    yield messages
                    messages = []
                stop = self._pass_on(data, at)
                odd = data[at + self._told : stop]
                self._told = len(self._begun)
                if odd:
                    yield odd
            at = stop
        if messages:
            yield messages

    def _continue(self, piece: bytes, messages: list[bytes]) -> bytes:
        """Take what has come of a payload; what is given back is for the engine."""
        self._left -= len(piece)
        if not self._plain:
            return piece
        self._parts.append(piece)
        if not piece.isascii():
            self._plain = False
            odd = b"".join(self._parts)
            self._parts.clear()
            return odd
        if not self._left:
            self._parts[0] = b""
            messages.append(b"".join(self._parts))
            self._parts.clear()
        return b""

    def _take(self, data: bytes, at: int, messages: list[bytes]) -> int:
        """Take plain frames, from here on; where what comes next begins, which is here if that is none."""
        end = len(data)
        while at < end and data[at] == _WHOLE_TEXT and not self._in_message:
            found = _payload(data, at)
            if found is None:
                if at + 1 < end and data[at + 1] & _MASKED:
                    break
                self._begun = data[at:]
                return end
            begin, length = found
            if not self._is_plain(data[at + 1], length):
                break
            stop = begin + length
            payload = data[begin:stop]
            if not payload.isascii():
                break
            if stop > end:
                self._plain = True
                self._left = stop - end
                self._parts += (data[at:begin], payload)
                return end
            messages.append(payload)
            at = stop
        return at

    def _is_plain(self, second: int, length: int) -> bool:
        """Whether a frame with this second byte and a payload of this length is."""
        if second < _IN_TWO_BYTES:
            return length <= self._max_message
        # The engine takes no length that would have fitted into fewer bytes.
        least = {_IN_TWO_BYTES: _IN_TWO_BYTES, _IN_EIGHT_BYTES: _LONGEST_IN_TWO_BYTES + 1}.get(second)
        return least is not None and least <= length <= self._max_message

    def _pass_on(self, data: bytes, at: int) -> int:
        """Where ends what the engine is to have of the odd frame that begins here."""
        found = _payload(data, at)
        if found is None:
            self._begun = data[at:]
            return len(data)
        if data[at] & _OPCODE < _FIRST_CONTROL:
            self._in_message = not data[at] & _FINAL
        begin, length = found
        stop = min(begin + length, len(data))
        self._plain = False
        self._left = begin + length - stop
        return stop
