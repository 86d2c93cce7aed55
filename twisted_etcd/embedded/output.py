"""What etcd says on its standard output and error, line by line, into ``twisted.logger``."""

from __future__ import annotations

from collections import deque

import msgspec
from twisted.logger import Logger, LogLevel

#: A line that grows past this many bytes is cut into several.
LONGEST_LINE = 64 * 1024
#: How many lines are kept for the report of a death.
KEPT_LINES = 20

_LEVELS = {
    "debug": LogLevel.debug,
    "info": LogLevel.info,
    "warn": LogLevel.warn,
    "error": LogLevel.error,
    "dpanic": LogLevel.critical,
    "panic": LogLevel.critical,
    "fatal": LogLevel.critical,
}
#: Fields of etcd's JSON lines that a Twisted log has by itself or that fill many lines.
_LEFT_OUT = frozenset({"level", "ts", "caller", "msg", "stacktrace", "logger"})
#: Fields in which etcd writes secrets out: a token that it refuses, which may be good elsewhere.
_SECRET = frozenset({"token"})


class EtcdOutput:
    """
    Cuts etcd's output into lines, logs each at etcd's own level, and keeps the last ones.

    etcd's JSON lines are logged as their message and fields, without the tokens in them; any other line (a Go panic, a
    complaint about a flag) as it is, as a warning.

    :param log: gets the lines.
    """

    def __init__(self, log: Logger) -> None:
        self._log = log
        self._partial: dict[int, bytes] = {}
        self._last: deque[str] = deque(maxlen=KEPT_LINES)

    def last_lines(self) -> list[str]:
        """The last lines, oldest first, at most :data:`KEPT_LINES`."""
        return list(self._last)

    def received(self, descriptor: int, data: bytes) -> None:
        """
        More bytes came, cut anywhere.

        :param descriptor: 1 or 2; lines of the two are kept apart.
        """
        *lines, rest = (self._partial.get(descriptor, b"") + data).split(b"\n")
        while len(rest) > LONGEST_LINE:
            lines.append(rest[:LONGEST_LINE])
            rest = rest[LONGEST_LINE:]
        self._partial[descriptor] = rest
        for line in lines:
            self._line(line)

    def ended(self) -> None:
        """Nothing more comes: what stands without its newline is a line, too."""
        for rest in self._partial.values():
            self._line(rest)
        self._partial.clear()

    def _line(self, line: bytes) -> None:
        text = line.decode("utf-8", "replace").strip()
        if not text:
            return
        level, message = _read_line(text)
        self._last.append(message)
        self._log.emit(level, "{message}", message=message)


def _read_line(text: str) -> tuple[LogLevel, str]:
    """The level and the words of a line."""
    try:
        fields = msgspec.json.decode(text, type=dict[str, object])
    except msgspec.DecodeError:
        return LogLevel.warn, text
    name, message = fields.get("level"), fields.get("msg")
    if not isinstance(name, str) or not isinstance(message, str):
        return LogLevel.warn, text
    details = [
        f"{key}={'<hidden>' if key in _SECRET else value}" for key, value in fields.items() if key not in _LEFT_OUT
    ]
    words = f"{message} ({', '.join(details)})" if details else message
    return _LEVELS.get(name, LogLevel.warn), words
