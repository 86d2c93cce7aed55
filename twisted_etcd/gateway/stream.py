"""
What a stream is, whichever carries it: a POST whose answer does not end, or a WebSocket.

A carrier opens a :class:`Stream` for a :class:`StreamReceiver` and gives it whole JSON texts until the stream ends, all
that came in one read of its socket at once.
Opening fails with one of: Twisted's ``ConnectError`` or ``DNSLookupError`` where there was no connection, the TLS
library's own error where a certificate was refused, :class:`StreamRefused`, :class:`StreamTimeout`,
:class:`StreamLost`, :class:`StreamMalformed`, or ``CancelledError``. These errors stay inside the gateway room, which
turns them into those of :mod:`twisted_etcd.errors`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from OpenSSL import SSL
from service_identity import VerificationError
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import (
    ConnectError,
    ConnectingCancelledError,
    ConnectionAborted,
    ConnectionDone,
    ConnectionLost,
    DNSLookupError,
)
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.client import ResponseFailed

from twisted_etcd.moment import Moment

#: The longest message that is taken unless told otherwise, in bytes: well over the largest answer of an etcd with its
#: default limits, and low enough that an endless message does not end the process.
MAX_MESSAGE = 256 * 1024 * 1024

#: How much of a refusal's body is read, in bytes.
MAX_REFUSAL = 64 * 1024


class StreamError(Exception):
    """Why a stream did not come about, or why it ended."""


class StreamRefused(StreamError):
    """
    The server answered the request for a stream with something else.

    :ivar status: the HTTP status.
    :ivar body: at most :data:`MAX_REFUSAL` bytes of what came with it.
    """

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(f"the server answered HTTP status {status} in place of a stream")
        self.status = status
        self.body = body


class StreamTimeout(StreamError):
    """The stream did not come about in time."""


class StreamLost(StreamError):
    """
    The server or the network ended the connection.

    :ivar code: the code of the server's WebSocket close frame; ``None`` where there was none.
    """

    def __init__(self, why: str, code: int | None = None) -> None:
        super().__init__(why)
        self.code = code


class StreamMalformed(StreamError):
    """What came is not what the carrier's protocol allows, so nothing more can be read."""


class MessageTooLong(StreamMalformed):
    """
    A message is over the bound.

    :ivar limit: the bound, in bytes.
    """

    def __init__(self, limit: int) -> None:
        super().__init__(f"a message is longer than {limit} bytes; ask for less at once, or raise the bound")
        self.limit = limit


class StreamClosed(StreamError):
    """It was closed from this side."""

    def __init__(self) -> None:
        super().__init__("the stream was closed from this side")


class StreamReceiver(Protocol):
    """
    Gets what a stream carries.

    Neither method may raise: an exception is logged, and one of ``messages_received`` closes the stream, which then
    ends with that exception.
    """

    def messages_received(self, messages: Iterable[bytes]) -> None:
        """
        Take whole JSON texts, each of them ``{"result":…}`` or ``{"error":…}``, in the order in which they came.

        The first one comes after the Deferred of opening has fired. None comes after :meth:`Stream.close`: where that
        is called in the midst of them, those that were not taken yet are left out. After :meth:`Stream.pause` those
        that were read from the socket already still come.

        :param messages: to be gone through once, and not kept.
        """

    def stream_ended(self, reason: Failure) -> None:
        """
        No more messages can come; called exactly once for each stream that was opened, after the last message.

        It is never called inside :meth:`Stream.close`, and always before the Deferred of ``close`` fires. The socket
        may live for a moment longer, and is closed in every case.

        :param reason: of :class:`StreamClosed`, :class:`StreamLost`, :class:`StreamMalformed`, or the exception of
            ``messages_received``.
        """


class Stream(ABC):
    """
    An open stream.

    :ivar endpoint: ``host:port`` of the member at its other end.
    """

    _log = Logger()

    def __init__(self, endpoint: str, receiver: StreamReceiver) -> None:
        self.endpoint = endpoint
        self._receiver = receiver
        self._closing = False
        self._ended: BaseException | None = None
        self._gone: Moment[None] = Moment()

    def __repr__(self) -> str:
        state = "gone" if self._gone.happened else "ended" if self._ended else "closing" if self._closing else "open"
        return f"<{type(self).__name__} to {self.endpoint}, {state}>"

    @property
    def is_open(self) -> bool:
        """Whether messages can still come."""
        return self._ended is None and not self._closing

    def close(self) -> Deferred[None]:
        """
        End the stream.

        :return: fires when its socket has gone, whoever ended it. May be called at any time and any number of times.
        """
        if not self._closing and not self._gone.happened:
            self._closing = True
            if self._ended is None:
                self._start_closing()
        return self._gone.wait()

    @abstractmethod
    def pause(self) -> None:
        """Read nothing more from the socket, so that the server has to wait. Its end may go unnoticed meanwhile."""

    @abstractmethod
    def resume(self) -> None:
        """Read on after :meth:`pause`."""

    @abstractmethod
    def _start_closing(self) -> None:
        """Begin to close the socket of a stream that has not ended."""

    @abstractmethod
    def _abort(self) -> None:
        """Close the socket at once."""

    def _deliver(self, messages: Sequence[bytes]) -> None:
        if self._closing or self._ended is not None:
            return
        try:
            self._receiver.messages_received(self._until_closed(messages))
        except Exception:  # noqa: BLE001 it is logged, and handed to the receiver
            failure = Failure()
            self._log.failure("The receiver of {stream!r} raised an error; the stream is closed.", failure, stream=self)
            self._end(failure)
            self._abort()

    def _until_closed(self, messages: Sequence[bytes]) -> Iterator[bytes]:
        for message in messages:
            if self._closing or self._ended is not None:
                return
            yield message

    def _end(self, reason: Failure) -> None:
        if self._ended is not None:
            return
        if self._closing:
            reason = Failure(StreamClosed())
        self._ended = reason.value
        try:
            self._receiver.stream_ended(reason)
        except Exception:  # noqa: BLE001 it is logged: nobody else could be told
            self._log.failure("The receiver of {stream!r} raised an error at its end.", stream=self)

    def _socket_gone(self, reason: Failure) -> None:
        """Tell those who wait; ``reason`` counts where nothing else has ended the stream before."""
        self._end(reason)
        self._gone.fire(None)


_CONNECTION_ENDS = (ConnectionDone, ConnectionLost, ConnectionAborted)


def _roots(failure: Failure) -> Iterator[Failure]:
    """The failures inside Twisted's wrappings."""
    value = failure.value
    if isinstance(value, ResponseFailed) and value.reasons:
        for reason in value.reasons:
            yield from _roots(reason)
    else:
        yield failure


def lost(reason: Failure) -> Failure:
    """Why a stream ended, from what its socket or its HTTP client was told."""
    root = next(_roots(reason))
    if root.check(ConnectionDone):
        return Failure(StreamLost("the server closed the connection"))
    if root.check(SSL.Error, *_CONNECTION_ENDS):
        return Failure(StreamLost(f"the connection was lost: {_words(root)}"))
    return Failure(StreamMalformed(f"what came is not HTTP: {_words(root)}"))


def not_opened(failure: Failure) -> Failure:
    """Why a stream did not come about, as one of the errors that this module promises."""
    roots = list(_roots(failure))
    for root in roots:
        if root.check(CancelledError, ConnectingCancelledError):
            return Failure(CancelledError())
        if root.check(SSL.Error, VerificationError, ConnectError, DNSLookupError, StreamError):
            return root
    if all(root.check(*_CONNECTION_ENDS) for root in roots):
        remedy = "; if etcd speaks TLS there, write https://" if roots[0].check(ConnectionDone) else ""
        return Failure(StreamLost(f"the connection ended before the stream began: {_words(roots[0])}{remedy}"))
    if failure.check(ResponseFailed):
        return Failure(StreamMalformed(f"what came is not HTTP: {_words(roots[0])}"))
    return failure


def _words(failure: Failure) -> str:
    return (failure.getErrorMessage() or type(failure.value).__name__).strip().rstrip(".")
