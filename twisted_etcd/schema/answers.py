"""
What the gateway wraps around messages: frames of streams, and errors.

Both generations of the gateway are read, by the shape of what arrives, whatever the server's version.
"""

from __future__ import annotations

from typing import Annotated, Generic, TypeVar

import msgspec

from twisted_etcd.errors import EtcdError, etcd_error
from twisted_etcd.schema.common import Message

AnswerT = TypeVar("AnswerT")

#: The code of a gRPC error. Another number under that name is no error of etcd's but, say, a proxy's.
Code = Annotated[int, msgspec.Meta(ge=1, le=16)]


class StreamError(Message, frozen=True):
    """
    The error that ends a stream: with ``grpc_code`` from older gateways, with ``code`` from newer ones.

    :ivar message: etcd's words.
    :ivar code: the gRPC status code, from a newer gateway.
    :ivar grpc_code: the gRPC status code, from an older gateway. Its ``http_code`` and ``http_status`` add nothing.
    """

    message: str = ""
    code: Code | None = None
    grpc_code: Code | None = None

    def __post_init__(self) -> None:
        if self.code is None and self.grpc_code is None:
            msg = "an error of the gateway has a code"
            raise ValueError(msg)


class StreamFrame(Message, Generic[AnswerT], frozen=True, kw_only=True):
    """
    One line of a POST stream or one text message of a WebSocket; also the body of any answer whose status is not 200.

    It holds one of three: an answer in ``result``; a stream's error in ``error``; a unary call's error in ``code`` and
    ``message``, which the older gateway repeats as a string in ``error``. The last one occurs on WebSockets too,
    before the first answer, and the second one with a status other than 200. What holds none of them does not decode.

    :ivar result: the answer; None in an error.
    :ivar error: the error of a stream.
    :ivar code: the gRPC status code of a unary call's error.
    :ivar message: etcd's words in a unary call's error.
    """

    result: AnswerT | None = None
    error: StreamError | str | None = None
    code: Code | None = None
    message: str = ""

    def __post_init__(self) -> None:
        if self.result is None and self.code is None and not isinstance(self.error, StreamError):
            msg = "there is neither a result nor an error with a code in it"
            raise ValueError(msg)

    def failure(self) -> EtcdError | None:
        """The error that the frame holds; None where it holds an answer."""
        if isinstance(self.error, StreamError):
            return etcd_error(self.error.code or self.error.grpc_code or 0, self.error.message)
        if self.code is not None:
            return etcd_error(self.code, self.message)
        return None


def decode(decoder: msgspec.json.Decoder[AnswerT], body: bytes) -> AnswerT:
    """
    Decode what a server sent, whatever it is.

    :raises msgspec.DecodeError: for all that does not decode; also where msgspec would raise ``UnicodeDecodeError``
        or ``RecursionError``.
    """
    try:
        return decoder.decode(body)
    except UnicodeDecodeError:
        # Not chained: the error carries the bytes themselves, which can be a value or a token.
        msg = "a string in the answer is not valid UTF-8"
        raise msgspec.DecodeError(msg) from None
    except RecursionError:
        msg = "the answer is nested too deeply"
        raise msgspec.DecodeError(msg) from None


_ERROR_DECODER = msgspec.json.Decoder(StreamFrame[Message], strict=False)


def decode_error(body: bytes) -> EtcdError:
    """
    The error in the body of an answer whose status is not 200, of a unary call or a stream.

    A path that the server does not have is ``NotFound`` with the message ``Not Found`` from newer gateways.

    :raises msgspec.DecodeError: where the body is no error of etcd's gateway: it came from something else, or it is
        the older gateway's plain text for a path that the server does not have.
    """
    failure = decode(_ERROR_DECODER, body).failure()
    if failure is None:
        msg = "there is a result where an error was expected"
        raise msgspec.DecodeError(msg)
    return failure
