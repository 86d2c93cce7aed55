"""HTTP answers, read without I/O: bytes go in; heads, bodies and their ends come out."""

from __future__ import annotations

from http import HTTPStatus
from typing import NamedTuple, NoReturn

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser
from twisted.web.http import NO_CONTENT, NOT_MODIFIED, OK, SWITCHING
from twisted.web.http_headers import Headers
from twisted.web.iweb import UNKNOWN_LENGTH

#: The longest head of an answer that is taken, in bytes, with all that the server says before it; also how much may
#: come later without any of the body.
MAX_HEAD = 64 * 1024
#: The most headers of an answer that are taken.
MAX_HEADERS = 256

_VERSIONS = {"1.1": (b"HTTP", 1, 1), "1.0": (b"HTTP", 1, 0)}
#: What stands in a head besides the texts: "HTTP/1.1 200 " and the empty line; ": " and the line's end.
_FRAME, _HEADER_FRAME = 17, 4
_BODILESS = frozenset({NO_CONTENT, NOT_MODIFIED})


class NotHTTP(Exception):
    """What came does not begin as an answer does; its text says what is wrong with it."""


class BrokenAnswer(Exception):
    """What began as an answer cannot be read on; its text says why. What was asked for may have been done."""


class Head(NamedTuple):
    """
    How an answer begins.

    :ivar length: of the body, in bytes, or ``UNKNOWN_LENGTH``.
    :ivar open_ended: whether nothing but the end of the connection tells where the body ends.
    """

    version: tuple[bytes, int, int]
    code: int
    phrase: bytes
    headers: Headers
    length: int | str
    open_ended: bool


class AnswerReader:
    """
    Reads the answers that come on one connection, one after the other.

    :ivar head: of the answer, once that has come.
    :ivar whole: whether the answer has come to its end.
    :ivar begun: whether any of the answer has come.
    :ivar lasting: whether a further request may be made on the connection, now that the answer is whole.
    :ivar trouble: why nothing more can be read, once it is so.
    """

    def __init__(self) -> None:
        self.head: Head | None = None
        self.whole = False
        self.begun = False
        self.lasting = False
        self.trouble: NotHTTP | BrokenAnswer | None = None
        self._phrase = b""
        self._fields: list[tuple[bytes, bytes]] = []
        self._body: list[bytes] = []
        self._without_body = 0
        self._parser = HttpResponseParser(self)

    def expect(self) -> None:
        """Another answer is to come."""
        self.head = None
        self.whole = self.begun = self.lasting = False
        self._phrase = b""
        self._fields = []
        self._without_body = 0

    def close(self) -> None:
        """Read nothing more."""
        # Each refers to the other.
        del self._parser

    def read(self, data: bytes) -> bytes:
        """
        Take what came.

        :return: what of it is body. See then what else has come: :attr:`head`, :attr:`whole`, :attr:`trouble`.
        """
        self.begun = True
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            if self.whole:
                # The answer stands; what came behind it was not asked for.
                self.lasting = False
            elif self.trouble is None:
                # None of a head has come without a status, which is left from an answer before where there was one.
                began = self._parser.get_status_code() >= HTTPStatus.CONTINUE
                self.trouble = BrokenAnswer(str(error)) if began else NotHTTP(str(error))
        body = self._body
        if body:
            self._without_body = 0
            self._body = []
            return body[0] if len(body) == 1 else b"".join(body)
        if not self.whole:
            self._count(len(data))
        return b""

    def _count(self, length: int) -> None:
        self._without_body += length
        if self._without_body > MAX_HEAD and self.trouble is None:
            what = _too_long() if self.head is None else f"more than {MAX_HEAD} bytes came without any of the body"
            self.trouble = BrokenAnswer(what)

    def _refuse(self, why: str) -> NoReturn:
        self.trouble = BrokenAnswer(why)
        # For the parser, so that it stops.
        raise self.trouble

    # --- what the parser calls --------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """An answer begins."""
        if self.whole:
            msg = "an answer that nobody asked for"
            # For the parser, so that it stops.
            raise BrokenAnswer(msg)

    def on_status(self, phrase: bytes) -> None:
        """Some of the status line's text."""
        self._phrase += phrase

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; also one that comes behind a body in chunks, which is not handed on."""
        if self.head is None:
            self._fields.append((name, value.rstrip()))

    def on_headers_complete(self) -> None:
        """The head is whole."""
        fields = self._fields
        if len(fields) > MAX_HEADERS:
            self._refuse(f"the answer has more than {MAX_HEADERS} headers")
        size = _FRAME + len(self._phrase) + sum([len(name) + len(value) + _HEADER_FRAME for name, value in fields])
        if size > MAX_HEAD:
            self._refuse(_too_long())
        parser = self._parser
        code = parser.get_status_code()
        if code < OK:
            if code == SWITCHING:
                self._refuse("the server switches to another protocol, for which nobody asked")
            return
        version = _VERSIONS.get(parser.get_http_version())
        if version is None:
            self._refuse(f"the server speaks HTTP/{parser.get_http_version()}")
        headers = Headers()
        for name, value in fields:
            headers.addRawHeader(name, value)
        length, open_ended = _framing(code, headers)
        self.head = Head(version, code, self._phrase, headers, length, open_ended)
        self._without_body = 0

    def on_body(self, data: bytes) -> None:
        """Some of the body."""
        self._body.append(data)

    def on_message_complete(self) -> None:
        """The answer is whole, or what came before it: ``100 Continue`` and its like."""
        if self.head is not None:
            self.whole = True
            # Not before: what comes behind a body in chunks can say that it was the last one.
            self.lasting = self._parser.should_keep_alive()
        else:
            self._phrase = b""
            self._fields = []


def _too_long() -> str:
    return f"the head of the answer is longer than {MAX_HEAD} bytes"


def _framing(code: int, headers: Headers) -> tuple[int | str, bool]:
    """The length of the body, and whether only the end of the connection tells where it ends."""
    if code in _BODILESS:
        return 0, False
    codings = headers.getRawHeaders(b"transfer-encoding")
    if codings:
        return UNKNOWN_LENGTH, codings[-1].rpartition(b",")[2].strip().lower() != b"chunked"
    lengths = headers.getRawHeaders(b"content-length")
    return (int(lengths[0]), False) if lengths else (UNKNOWN_LENGTH, True)
