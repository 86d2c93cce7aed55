"""What tells the readers of files that these have changed, once for all files that changed together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_etcd.backoff import Backoff
from twisted_etcd.commands import Command, CommandReactor
from twisted_etcd.errors import RenderError
from twisted_etcd.moment import Moment
from twisted_etcd.rendering.bell import Bell
from twisted_etcd.rendering.entry import RunCommand, SendSignal
from twisted_etcd.rendering.signals import send_signal

#: Seconds that a reload waits for files of which nothing is known yet, as at the start.
PATIENCE = 1.0


class Owing(Protocol):
    """Who has changed a file."""

    @property
    def is_busy(self) -> bool:
        """Whether it is about to change a file: the reload is better done after that."""

    @property
    def is_waiting(self) -> bool:
        """Whether it will be about to, once it knows all that it needs: that is worth a moment."""

    def reloaded(self) -> None:
        """The readers were told of all that it had written when it last said that it owed."""

    def not_reloaded(self, error: RenderError) -> None:
        """They could not be told; it is tried again, where it is."""


class Reload:
    """
    Tells readers, by a command or a signal, and goes on trying until it works.

    It does so once all who reload by the same are at rest, and waits a little for those who have not begun.

    :param timeout: seconds that a command may take.
    :param others: all that reload by this.
    :param again: whether it is tried again where it fails.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: CommandReactor,
        how: RunCommand | SendSignal,
        timeout: float,
        others: Callable[[], tuple[Owing, ...]],
        backoff: Backoff,
        *,
        again: bool,
    ) -> None:
        self.how = how
        self._reactor = reactor
        self._timeout = timeout
        self._others = others
        self._backoff = backoff
        self._again = again
        self._owing: list[Owing] = []
        #: When the first of them said so.
        self._since = 0.0
        self._bell = Bell(reactor)
        self._command: Command | None = None
        self._started = False
        self._stopped = False
        self._over: Moment[None] = Moment()

    def start(self) -> None:
        """Begin, once."""
        self._started = True
        Deferred.fromCoroutine(self._run()).addErrback(self._broken).addBoth(lambda _: self._over.fire(None))

    def owe(self, who: Owing) -> None:
        """A file was written: tell its readers, at once where that is tried in vain now and then."""
        if not self._owing:
            self._since = self._reactor.seconds()
        if who not in self._owing:
            self._owing.append(who)
        self._backoff.reset()
        self._bell.ring()

    def look(self) -> None:
        """Somebody has come to rest."""
        if self._owing:
            self._bell.ring()

    def stop(self) -> Deferred[None]:
        """End a command that runs; fires when nothing is under way."""
        if not self._stopped and not self._started:
            self._over.fire(None)
        self._stopped = True
        self._bell.ring()
        if self._command is not None:
            self._command.stop()
        return self._over.wait()

    async def _run(self) -> None:
        while not self._stopped:
            if not self._owing or any(each.is_busy for each in self._others()):
                await self._bell.sleep()
                continue
            left = self._since + PATIENCE - self._reactor.seconds()
            if left > 0 and any(each.is_waiting for each in self._others()):
                await self._bell.sleep(left)
                continue
            owing, self._owing = self._owing, []
            try:
                await self._tell()
            except RenderError as error:
                if self._stopped:
                    return
                await self._failed(owing, error)
            else:
                self._backoff.reset()
                self._log.info("Done: {how}", how=str(self.how))
                for each in owing:
                    if each not in self._owing:
                        each.reloaded()

    async def _failed(self, owing: list[Owing], error: RenderError) -> None:
        for each in owing:
            each.not_reloaded(error)
        if not self._again:
            return
        superseded = bool(self._owing)
        self._owing = [*owing, *(each for each in self._owing if each not in owing)]
        if not superseded:
            await self._bell.sleep(self._backoff.next())

    async def _tell(self) -> None:
        if isinstance(self.how, SendSignal):
            try:
                send_signal(self.how)
            except RenderError as error:
                msg = f"{self.how} could not be sent: {error}"
                raise RenderError(msg) from error
            return
        command = self._command = Command(self._reactor, self.how.arguments, timeout=self._timeout)
        outcome = await command.run()
        self._command = None
        if not outcome.succeeded:
            msg = "\n  ".join([f"the reload command failed, {outcome.how}: {self.how}", *outcome.lines])
            raise RenderError(msg)

    def _broken(self, failure: Failure) -> None:
        self._log.failure("Reloading by {how} ended", failure, how=str(self.how))
