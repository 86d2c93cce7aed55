"""A stream that is wanted for as long as it is wanted: opened, and opened again after it broke."""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, Generic, TypeVar

import msgspec
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_etcd.backoff import LONGEST_BACKOFF, Backoff
from twisted_etcd.client.vigil import Vigil
from twisted_etcd.errors import EtcdError, NotEtcd, TLSFailed, Unavailable
from twisted_etcd.gateway.checkups import Condition
from twisted_etcd.gateway.endpoints import Endpoint
from twisted_etcd.gateway.gateway import Gateway
from twisted_etcd.gateway.stream import Stream, StreamReceiver
from twisted_etcd.gateway.tokens import STALE_TOKEN_ERRORS

StreamT = TypeVar("StreamT", bound=Stream)
FrameT = TypeVar("FrameT")

#: How often in a row a new token is fetched because the last one was refused.
_RENEWALS = 3
#: The same, where it is not certain that it was the token.
_DOUBTFUL_RENEWALS = 1


class LineState(enum.Enum):
    """``IDLE`` → ``OPENING`` → ``OPEN`` → ``WAITING`` → ``OPENING`` …, and from each of them to ``CLOSED``."""

    IDLE = "not asked for yet"
    OPENING = "being opened"
    OPEN = "open"
    WAITING = "broken, and waiting to be opened again"
    CLOSED = "closed for good"


class _Reception:
    """Hands on what one stream carries, for as long as that stream is the line's: an old one can end late."""

    def __init__(self, line: Line[Any, Any]) -> None:
        self._line: Line[Any, Any] | None = line

    def end(self) -> None:
        """The stream is the line's no longer."""
        self._line = None

    def messages_received(self, messages: Iterable[bytes]) -> None:
        """For the stream: whole JSON texts."""
        if self._line is not None:
            self._line.messages_received(messages)

    def stream_ended(self, reason: Failure) -> None:
        """For the stream: its end."""
        if self._line is not None:
            self._line.stream_ended(reason)


class Line(ABC, Generic[StreamT, FrameT]):
    """
    Keeps a stream to the cluster open, with growing waits between attempts that failed.

    A subclass says how a stream is opened and what to do with what it carries.
    """

    #: Errors that etcd may answer for a token that is stale, too.
    _doubtful: tuple[type[EtcdError], ...] = ()
    _log = Logger()

    def __init__(self, gateway: Gateway, clock: IReactorTime, vigil: Vigil) -> None:
        self.state = LineState.IDLE
        self._gateway = gateway
        self._clock = clock
        self._vigil = vigil
        self._backoff = Backoff(gateway.random)
        #: When the stream that is open proved good.
        self._good_since: float | None = None
        self._endpoint: Endpoint = gateway.choose()
        self._opening: Deferred[None] | None = None
        self._stream: StreamT | None = None
        self._reception = _Reception(self)
        self._timer: IDelayedCall | None = None
        #: Why the stream that is being opened is given up, once it is.
        self._forsaken: Exception | None = None
        self._complained = False
        self._hopeless: set[Endpoint] = set()
        self._renewals = 0
        self._renewed_for: Exception | None = None
        #: Whether the last member was left since it was in trouble, and none was found well since.
        self._wary = False

    # --- for the subclass -------------------------------------------------------------------------------------------

    @abstractmethod
    def _open_stream(self, endpoint: Endpoint, receiver: StreamReceiver) -> Deferred[StreamT]:
        """Open a stream that hands what it carries to this receiver."""

    @abstractmethod
    def _opened(self, stream: StreamT) -> None:
        """A stream is open; nothing has come on it yet."""

    @abstractmethod
    def _interrupted(self, error: Exception) -> None:
        """The stream broke, or could not be opened. It will be opened again unless the line is closed here."""

    @abstractmethod
    def _received(self, frame: FrameT) -> None:
        """An answer arrived."""

    @abstractmethod
    def _read(self, messages: Iterable[bytes]) -> Iterable[FrameT]:
        """
        What whole JSON texts say; it is gone through once.

        :raises msgspec.DecodeError: where the next one is none of etcd's; the stream is given up then.
        """

    @abstractmethod
    def _dropped(self, closing: Deferred[None]) -> None:
        """A stream was given up; this fires when its socket has gone."""

    @abstractmethod
    def _member_is_well(self, condition: Condition) -> None:
        """The member of the open stream was asked how it is, and there is nothing wrong with it."""

    def _confirmed(self) -> None:
        """The stream has proved good: a later break is the first of its kind again."""
        if self._good_since is None:
            self._good_since = self._clock.seconds()
        self._complained = False
        self._hopeless.clear()
        self._renewals = 0

    @property
    def _is_hopeless(self) -> bool:
        """Whether every endpoint was no etcd, or refused TLS, when it was last tried: waiting mends neither."""
        return self._hopeless.issuperset(self._gateway.endpoints)

    def _renews(self, error: Exception) -> bool:
        """
        Whether an error is about the token, and a new one may do, which is then fetched by the next attempt.

        It is not, when several in a row were refused. Asking twice about one error is asking once.
        """
        if error is self._renewed_for:
            return True
        if isinstance(error, STALE_TOKEN_ERRORS):
            bound = _RENEWALS
        elif isinstance(error, self._doubtful):
            bound = _DOUBTFUL_RENEWALS
        else:
            return False
        if self._renewals >= bound or not self._gateway.renew_token():
            return False
        self._renewals += 1
        self._renewed_for = error
        return True

    def _drop(self, error: Exception) -> None:
        """Give the open stream up, and open another."""
        stream = self._let_go()
        if stream is not None:
            self._dropped(stream.close())
            self._broke(Failure(error))

    def _let_go(self) -> StreamT | None:
        """The open stream, of which nothing more is heard."""
        self._reception.end()
        stream, self._stream = self._stream, None
        return stream

    # --- the machine ------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Open the stream, from now on until it is closed."""
        if self.state is LineState.IDLE:
            self._try()

    def close(self) -> Deferred[None]:
        """Want it no longer; fires when its socket has gone."""
        self.state = LineState.CLOSED
        self._vigil.detach(self, self._endpoint)
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        if self._opening is not None:
            self._opening.cancel()
        stream = self._let_go()
        return stream.close() if stream is not None else succeed(None)

    def _try(self) -> None:
        self.state = LineState.OPENING
        self._timer = None
        self._good_since = None
        self._endpoint = self._gateway.choose()
        self._reception = _Reception(self)
        self._forsaken = None
        self._vigil.attach(self, self._endpoint)
        opening = self._open_stream(self._endpoint, self._reception)
        self._opening = opening.addCallbacks(self._did_open, self._did_not_open)
        self._opening.addBoth(self._opening_over)

    def _opening_over(self, result: object) -> None:
        self._opening = None
        if isinstance(result, Failure):
            self._log.failure(
                "What follows the opening of a stream to {endpoint} failed.", result, endpoint=self._endpoint
            )

    def _did_open(self, stream: StreamT) -> None:
        if self.state is LineState.CLOSED:
            self._dropped(stream.close())
            return
        self.state = LineState.OPEN
        self._wary = False
        self._stream = stream
        self._opened(stream)

    def _did_not_open(self, failure: Failure) -> None:
        if self.state is LineState.CLOSED:
            # Cancelled from here, or failed in the same moment: nobody waits for it any more.
            return
        self._broke(failure if self._forsaken is None else Failure(self._forsaken))

    def member_is(self, condition: Condition) -> None:
        """For the vigil: see :meth:`twisted_etcd.client.vigil.Attached.member_is`."""
        if not condition.trouble:
            if self.state is LineState.OPEN:
                self._member_is_well(condition)
            return
        self._wary = True
        error = Unavailable("a stream is left with its member", {str(self._endpoint): condition.trouble})
        if self._opening is not None:
            self._forsaken = error
            self._opening.cancel()
        else:
            self._drop(error)

    def messages_received(self, messages: Iterable[bytes]) -> None:
        """For the stream: whole JSON texts."""
        stream = self._stream
        try:
            for frame in self._read(messages):
                if self._stream is not stream:
                    # It was given up for what came before.
                    return
                self._received(frame)
        except msgspec.DecodeError as error:
            self._drop(
                NotEtcd("a stream is not etcd's", {str(self._endpoint): f"what it sent cannot be read: {error}"})
            )

    def stream_ended(self, reason: Failure) -> None:
        """For the stream: nothing more comes from it."""
        if self._let_go() is not None:
            self._broke(reason)

    def _broke(self, reason: Failure) -> None:
        error = reason.value
        if not isinstance(error, Exception):
            reason.raiseException()
        self._vigil.detach(self, self._endpoint)
        self._gateway.failed(self._endpoint, str(error))
        if isinstance(error, NotEtcd | TLSFailed):
            self._hopeless.add(self._endpoint)
        else:
            self._hopeless.discard(self._endpoint)
        self.state = LineState.WAITING
        self._interrupted(error)
        if self.state is not LineState.WAITING:
            return
        if not self._complained:
            self._complained = True
            self._log.info(
                "The stream to {endpoint} is broken and will be opened again: {why}",
                endpoint=str(self._endpoint),
                why=str(error),
            )
        # One that is good and breaks at once, over and over, is no reason to hurry.
        if self._good_since is not None and self._clock.seconds() - self._good_since >= LONGEST_BACKOFF:
            self._backoff.reset()
        self._timer = self._clock.callLater(self._backoff.next(), self._try)
