"""Lines out of bytes that arrive in pieces of any size."""

from __future__ import annotations


class LineTooLong(ValueError):
    """
    A line passed the bound before it ended.

    :ivar lines: the whole lines that came before it in the same data.
    """

    def __init__(self, max_length: int, lines: list[bytes]) -> None:
        super().__init__(f"a line is longer than {max_length} bytes")
        self.lines = lines


class LineFramer:
    r"""
    Cuts a stream of bytes into lines, one JSON text each. The result is the same wherever the bytes were cut.

    Lines end with ``\n``; white space around them is taken off; empty ones are left out. Every byte is copied at most
    twice, however small the pieces of a line are.

    :param max_length: the longest line that is taken, in bytes without its ``\n``.
    """

    __slots__ = ("_length", "_max_length", "_parts")

    def __init__(self, max_length: int) -> None:
        self._max_length = max_length
        self._parts: list[bytes] = []
        self._length = 0

    def feed(self, data: bytes) -> list[bytes]:
        """
        Take the next bytes.

        :return: the lines that are whole now.
        :raises LineTooLong: the framer is of no use any more.
        """
        if self._length + len(data) <= self._max_length:
            return self._split(data)
        *ends, rest = data.split(b"\n")
        lines: list[bytes] = []
        for end in ends:
            self._keep(end, lines)
            line = self._take()
            if line is not None:
                lines.append(line)
        self._keep(rest, lines)
        return lines

    def _split(self, data: bytes) -> list[bytes]:
        """The same, where no line of it can be too long."""
        lines = data.split(b"\n")
        rest = lines.pop()
        if lines and self._parts:
            self._parts.append(lines[0])
            lines[0] = b"".join(self._parts)
            self._parts.clear()
            self._length = 0
        if rest:
            self._parts.append(rest)
            self._length += len(rest)
        return [line for each in lines if (line := each.strip())]

    def finish(self) -> bytes | None:
        """The last line, where the bytes ended without its newline. It may have been cut short."""
        return self._take()

    def _keep(self, part: bytes, lines: list[bytes]) -> None:
        self._length += len(part)
        if self._length > self._max_length:
            self._parts.clear()
            raise LineTooLong(self._max_length, lines)
        if part:
            self._parts.append(part)

    def _take(self) -> bytes | None:
        parts = self._parts
        line = parts[0] if len(parts) == 1 else b"".join(parts)
        parts.clear()
        self._length = 0
        return line.strip() or None
