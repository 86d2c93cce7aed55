"""A copy of a member's database, on its way from the first endpoint that gives it whole to the disk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorThreads, IReactorTime
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_etcd.backoff import Backoff
from twisted_etcd.client.intake import Intake, StreamSilent
from twisted_etcd.client.snapshotfile import HASH_LENGTH, SnapshotFile, SnapshotSpoiled
from twisted_etcd.errors import DeadlineExceeded, EtcdError, NotEtcd, ServiceStopped, TLSFailed, Unavailable
from twisted_etcd.gateway.endpoints import Endpoint
from twisted_etcd.gateway.gateway import Gateway
from twisted_etcd.gateway.stream import StreamError
from twisted_etcd.gateway.tokens import is_stale_token
from twisted_etcd.moment import Moment
from twisted_etcd.schema import rpcs
from twisted_etcd.schema.maintenance import SnapshotRequest, SnapshotResponse

ResultT = TypeVar("ResultT")

#: A member that sends nothing for so many times the client's ``request_timeout`` hangs.
_PATIENCE = 2
_NAME = rpcs.SNAPSHOT.name


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """
    A snapshot that was saved.

    :ivar path: the file.
    :ivar size: its length in bytes: the database, and the 32 bytes of its SHA-256 behind it.
    :ivar sha256: the SHA-256 of the database, in hexadecimal digits; it was checked.
    :ivar endpoint: the URL of the member that gave it.
    :ivar version: of that member's etcd, where it says so (since 3.6).
    """

    path: str
    size: int
    sha256: str
    endpoint: str
    version: str = ""


class _Broken(Exception):
    """An endpoint did not give a whole snapshot."""


class SnapshotDownload:
    """
    One snapshot under way, for :meth:`twisted_etcd.client.maintenance.Maintenance.snapshot`.

    :param endpoint: the only one to ask; None for all, in turn.
    :param progress: told how much was written, and how much there will be.
    :param timeout: seconds for all of it; None for as long as it takes, each endpoint once.
    :ivar over: when nothing of it is left: no thread, no open file.
    :ivar intake: what has come of the present attempt.
    """

    _log = Logger()

    def __init__(
        self,
        gateway: Gateway,
        reactor: IReactorTime,
        file: SnapshotFile,
        *,
        endpoint: Endpoint | None,
        progress: Callable[[int, int], object] | None,
        timeout: float | None,
    ) -> None:
        self._gateway = gateway
        self._reactor = reactor
        self._file = file
        self._endpoint = endpoint
        self._progress = progress
        self._timeout = timeout
        self._tried: dict[str, str] = {}
        #: Set once it is to end, whatever it is at.
        self._verdict: Exception | None = None
        self._timer: IDelayedCall | None = None
        self._running: Deferred[Snapshot] | None = None
        self.over: Moment[None] = Moment()
        self.intake: Intake | None = None

    def start(self) -> Deferred[Snapshot]:
        """Begin; cancelling the Deferred ends it, and removes what was written."""
        if self._timeout is not None:
            self._timer = self._reactor.callLater(self._timeout, self._expired)
        self._running = Deferred.fromCoroutine(self._run())
        return self._running

    def stop(self) -> Deferred[None]:
        """End it with :class:`~twisted_etcd.errors.ServiceStopped`; fires when nothing of it is left."""
        self._end(ServiceStopped(f"the client was stopped while {_NAME} was under way"))
        return self.over.wait()

    def _expired(self) -> None:
        self._timer = None
        msg = f"{_NAME} was not whole within {self._timeout:g} s"
        self._end(DeadlineExceeded(msg, self._tried))

    def _end(self, verdict: Exception) -> None:
        if self._verdict is None and self._running is not None:
            self._verdict = verdict
            self._file.give_up()
            self._running.cancel()

    # --- attempts ---------------------------------------------------------------------------------------------------

    async def _run(self) -> Snapshot:
        try:
            return await self._attempts()
        except CancelledError:
            if self._verdict is None:
                raise
            raise self._verdict from None
        finally:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            self._file.give_up()
            self._in_thread(self._file.discard).addErrback(self._not_discarded).addCallback(self.over.fire)
            await self.over.wait()

    def _not_discarded(self, failure: Failure) -> None:
        self._log.failure("{part} could not be removed", failure, part=self._file.part)

    async def _attempts(self) -> Snapshot:
        backoff = Backoff(self._gateway.random)
        while True:
            tried: set[Endpoint] = set()
            hopeless: list[Unavailable] = []
            while (endpoint := self._choose(tried)) is not None:
                tried.add(endpoint)
                try:
                    snapshot = await self._attempt(endpoint)
                except (_Broken, Unavailable, EtcdError) as error:
                    self._failed(endpoint, error, hopeless)
                else:
                    self._gateway.served(endpoint)
                    return snapshot
            if len(hopeless) == len(tried):
                # Waiting does not mend a certificate or a wrong address.
                msg = f"no endpoint can serve {_NAME}"
                raise type(hopeless[-1])(msg, self._tried)
            if self._timeout is None:
                msg = "no endpoint gave a whole snapshot"
                raise Unavailable(msg, self._tried)
            await deferLater(self._reactor, backoff.next())

    def _choose(self, tried: set[Endpoint]) -> Endpoint | None:
        if self._endpoint is None:
            return self._gateway.choose_besides(tried)
        return None if tried else self._endpoint

    def _failed(
        self, endpoint: Endpoint, error: _Broken | Unavailable | EtcdError, hopeless: list[Unavailable]
    ) -> None:
        """
        Note what became of an attempt.

        :raises EtcdError: where the others would answer just so.
        """
        if isinstance(error, EtcdError) and not (error.concerns_member or error.may_be_applied):
            raise error
        if isinstance(error, Unavailable):
            why = error.tried.get(str(endpoint), str(error))
            if isinstance(error, NotEtcd | TLSFailed):
                hopeless.append(error)
        else:
            why = str(error)
        self._tried[str(endpoint)] = why
        self._gateway.failed(endpoint, why)
        self._log.warn("no whole snapshot from {endpoint}: {why}", endpoint=str(endpoint), why=why)

    async def _attempt(self, endpoint: Endpoint) -> Snapshot:
        try:
            return await self._once(endpoint)
        except EtcdError as error:
            if not is_stale_token(error) or not self._gateway.renew_token():
                raise
        return await self._once(endpoint)

    async def _once(self, endpoint: Endpoint) -> Snapshot:
        await self._in_thread(self._file.begin)
        self.intake = Intake(self._reactor, self._gateway.request_timeout * _PATIENCE)
        stream = await self._gateway.open_post_stream(
            rpcs.SNAPSHOT,
            rpcs.SNAPSHOT.encode(SnapshotRequest()),
            self.intake,
            endpoint=endpoint,
            # What a member has that lost its leader may be all that is left.
            with_leader=False,
        )
        try:
            self.intake.comes_by(stream)
            return await self._save(self.intake, endpoint)
        except CancelledError:
            # At once: nothing is to take its name while the stream is being closed.
            self._file.give_up()
            raise
        finally:
            await stream.close()

    async def _save(self, intake: Intake, endpoint: Endpoint) -> Snapshot:
        written = remaining = 0
        version = ""
        why = ""
        while not why:
            try:
                pieces = await intake.next()
            except (StreamError, StreamSilent) as error:
                why = str(error)
                break
            except msgspec.DecodeError as error:
                if not written:
                    msg = f"{_NAME} did not reach etcd"
                    what = "what it answered is no snapshot of etcd's v3 gateway"
                    raise NotEtcd(msg, {str(endpoint): what}) from error
                msg = f"after {written} bytes came something that cannot be read: {error}"
                raise _Broken(msg) from error
            written = await self._in_thread(self._file.write, [piece.blob for piece in pieces])
            remaining = pieces[-1].remaining_bytes
            version = version or pieces[-1].version
            await self._tell(written, remaining, pieces)
        if remaining:
            msg = f"it broke off after {written} of {written + remaining + HASH_LENGTH} bytes: {why}"
            raise _Broken(msg)
        try:
            digest = await self._in_thread(self._file.finish)
        except SnapshotSpoiled as spoiled:
            msg = f"{spoiled} ({why})"
            raise _Broken(msg) from spoiled
        return Snapshot(path=str(self._file.path), size=written, sha256=digest, endpoint=str(endpoint), version=version)

    async def _tell(self, written: int, remaining: int, pieces: list[SnapshotResponse]) -> None:
        progress = self._progress
        if progress is None:
            return
        # The hash comes in a piece of its own, and is none of what etcd says remains.
        whole = not remaining and len(pieces[-1].blob) == HASH_LENGTH
        total = written if whole else written + remaining + HASH_LENGTH
        # In a turn of its own, so that the caller can end the snapshot from there.
        told: Deferred[None] = Deferred(lambda _: None if not turn.active() else turn.cancel())

        def tell() -> None:
            failure = None
            try:
                progress(written, total)
            except Exception:  # noqa: BLE001 - it ends the snapshot
                failure = Failure()
            if not told.called:
                told.callback(None) if failure is None else told.errback(failure)

        turn = self._reactor.callLater(0, tell)
        await told

    def _in_thread(self, doing: Callable[..., ResultT], *args: Any) -> Deferred[ResultT]:  # noqa: ANN401 - as doing has them
        reactor: Any = self._reactor
        return deferToThreadPool(reactor, IReactorThreads(reactor).getThreadPool(), doing, *args)
