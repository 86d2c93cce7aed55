"""What comes of a snapshot's stream, until it is taken: a bounded amount."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from twisted_etcd.gateway.stream import Stream
from twisted_etcd.schema import rpcs
from twisted_etcd.schema.maintenance import SnapshotResponse

#: Bytes that may wait for the disk before reading stops. etcd sends 32 KiB at a time.
MAX_WAITING = 1024 * 1024


class StreamSilent(Exception):
    """Nothing came for too long."""


class Intake:
    """
    Takes the pieces of a snapshot from a stream, as its :class:`~twisted_etcd.gateway.stream.StreamReceiver`.

    While more waits than it may hold, nothing is read, so that the server waits for the disk, too.

    :param clock: tells how long nothing came.
    :param patience: seconds without a piece after which the stream counts as hung, while somebody waits for one.
    :ivar held: bytes that wait.
    :ivar most_held: the most that have waited at a time.
    """

    def __init__(self, clock: IReactorTime, patience: float) -> None:
        self.held = 0
        self.most_held = 0
        self._clock = clock
        self._patience = patience
        self._pieces: list[SnapshotResponse] = []
        self._stream: Stream | None = None
        self._paused = False
        #: Why no more comes, once that is so.
        self._end: Failure | None = None
        self._waiting: Deferred[list[SnapshotResponse]] | None = None
        self._timer: IDelayedCall | None = None

    def comes_by(self, stream: Stream) -> None:
        """Say which stream it is: the one that is to be paused."""
        self._stream = stream
        self._regulate()

    def next(self) -> Deferred[list[SnapshotResponse]]:
        """
        All that has come since the last time, once there is something; ask again when it was taken care of.

        :return: fails with what ended the stream: its own reason, an error of etcd's, ``msgspec.DecodeError`` or
            :class:`StreamSilent`.
        """
        if self._pieces:
            pieces, self._pieces = self._pieces, []
            self.held = 0
            self._regulate()
            return succeed(pieces)
        if self._end is not None:
            return fail(self._end)
        self._waiting = Deferred(self._cancelled)
        self._timer = self._clock.callLater(self._patience, self._silent)
        return self._waiting

    # --- for the stream ---------------------------------------------------------------------------------------------

    def messages_received(self, messages: Iterable[bytes]) -> None:
        """Take frames."""
        for message in messages:
            if self._end is not None:
                return
            try:
                frame = rpcs.SNAPSHOT.decode_frame(message)
            except msgspec.DecodeError:
                self._ended(Failure())
                return
            error = frame.failure()
            if error is not None:
                self._ended(Failure(error))
            elif frame.result is not None:
                self._pieces.append(frame.result)
                self.held += len(frame.result.blob)
        self.most_held = max(self.most_held, self.held)
        self._regulate()
        if self._pieces:
            self._tell()

    def stream_ended(self, reason: Failure) -> None:
        """No more comes."""
        self._ended(reason)

    # --- how it is done ---------------------------------------------------------------------------------------------

    def _regulate(self) -> None:
        stream = self._stream
        if stream is None or not stream.is_open:
            return
        full = self.held >= MAX_WAITING
        if full and not self._paused:
            self._paused = True
            stream.pause()
        elif self._paused and not full:
            self._paused = False
            stream.resume()

    def _ended(self, reason: Failure) -> None:
        if self._end is None:
            self._end = reason
            self._tell()

    def _tell(self) -> None:
        waiting = self._forget()
        if waiting is not None:
            self.next().chainDeferred(waiting)

    def _silent(self) -> None:
        self._timer = None
        self._ended(Failure(StreamSilent(f"nothing came for {self._patience:g} s")))

    def _cancelled(self, _waiting: Deferred[list[SnapshotResponse]]) -> None:
        self._forget()

    def _forget(self) -> Deferred[list[SnapshotResponse]] | None:
        waiting, self._waiting = self._waiting, None
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        return waiting
