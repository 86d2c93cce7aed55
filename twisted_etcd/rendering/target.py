"""One file, kept as its template says: rendered, checked, written, and its readers told."""

from __future__ import annotations

import enum
from collections.abc import Callable
from functools import partial
from typing import Any, ParamSpec, TypeVar, cast

import msgspec
from twisted.internet.defer import Deferred, DeferredLock
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_etcd.backoff import Backoff
from twisted_etcd.commands import Command, CommandReactor
from twisted_etcd.errors import InvalidSettings, RenderError
from twisted_etcd.lull import Lull
from twisted_etcd.moment import Moment
from twisted_etcd.rendering.bell import Bell
from twisted_etcd.rendering.entry import FILE, RenderEntry
from twisted_etcd.rendering.file import Staged, TargetFile
from twisted_etcd.rendering.reload import Reload
from twisted_etcd.rendering.source import EtcdSource
from twisted_etcd.rendering.template import Template, Want

_P = ParamSpec("_P")
_T = TypeVar("_T")
#: Runs what blocks in a thread, and fires with what comes of it.
InThread = Callable[[Callable[[], Any]], Deferred[Any]]


class RenderState(str, enum.Enum):
    """
    ``WAITING`` for what the template asks for → ``CHECKING`` → ``WRITING`` → ``RELOADING`` → ``FOLLOWING``.

    From each of them to ``FAILED``, where the file is as it was, or its readers were not told, and it is tried again;
    and to ``ENDED``.
    """

    WAITING = "waiting"
    CHECKING = "checking"
    WRITING = "writing"
    RELOADING = "reloading"
    FOLLOWING = "following"
    FAILED = "failed"
    ENDED = "ended"


class RenderStatus(msgspec.Struct, frozen=True, kw_only=True):
    """
    How it goes with a file.

    :ivar template: its template.
    :ivar to: the file.
    :ivar revision: the highest revision of what stood in it when it was last brought up to date; 0 before.
    :ivar last_success: when that was, in the reactor's seconds; None before.
    :ivar last_error: what went wrong last, also where it has gone well since.
    :ivar last_error_at: when that was.
    :ivar missing: what is not loaded yet.
    """

    template: str
    to: str
    state: RenderState = RenderState.WAITING
    revision: int = 0
    last_success: float | None = None
    last_error: str | None = None
    last_error_at: float | None = None
    missing: tuple[Want, ...] = ()


class Target:
    """
    Keeps a file as its template says, from :meth:`start` to :meth:`stop`.

    The file is replaced once all that the template asks for was there and its check succeeded; else it stays. What
    failed is tried again with growing waits, where only time can help, and with the next change.

    :param load: reads the template.
    :param template: as it was read first.
    :param source: where the template finds what it asks for.
    :param backoff: the waits after failures.
    :param followed: called where what is to be followed has changed: :attr:`wants`.
    :param changed: called after each change of :attr:`status`.
    :param reload: what tells the readers; None where nobody is to be told.
    :param once: whether a failure is the end of it.
    :ivar settled: it was brought up to date, for the first time; or, where there is one attempt alone, it was not, and
        why.
    """

    _log = Logger()

    def __init__(
        self,
        entry: RenderEntry,
        load: Callable[[], Template],
        *,
        template: Template,
        source: EtcdSource,
        reactor: CommandReactor,
        in_thread: InThread,
        backoff: Backoff,
        followed: Callable[[], None],
        changed: Callable[[RenderStatus], None],
        once: bool,
    ) -> None:
        self.entry = entry
        self.reload: Reload | None = None
        self.status = RenderStatus(template=str(entry.template), to=str(entry.to))
        self.wants: frozenset[Want] = frozenset()
        self.settled: Moment[RenderError | None] = Moment()
        self._load = load
        self._template = template
        self._source = source
        self._reactor = reactor
        self._in_thread = in_thread
        self._backoff = backoff
        self._followed = followed
        self._changed = changed
        self._once = once
        self._file = TargetFile(entry.to, entry.access)
        self._bell = Bell(reactor)
        self._lull = Lull(reactor, entry.quiet_min, entry.quiet_max, self._bell.ring)
        self._command: Command | None = None
        self._started = False
        self._working = False
        self._first = True
        self._read_again = False
        self._revision = 0
        #: The readers were not told yet of what was written.
        self._owes = False
        self._said = ""
        self._warned = False
        #: What blocks is done one by one, in the order in which it is asked for.
        self._disk = DeferredLock()
        self._stopped = False
        self._over: Moment[None] = Moment()

    # --- what it is told ----------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin, once."""
        self._started = self._working = True
        Deferred.fromCoroutine(self._run()).addErrback(self._broken).addBoth(self._last)

    def stop(self) -> Deferred[None]:
        """End it; fires when nothing is under way, no command among them."""
        if not self._stopped and not self._started:
            self._over.fire(None)
        self._stopped = True
        self._lull.cancel()
        self._bell.ring()
        if self._command is not None:
            self._command.stop()
        return self._over.wait()

    def told(self, want: Want) -> None:
        """Something changed, or was read for the first time."""
        if want not in self.wants or self._stopped:
            return
        if self.status.missing:
            # The first time is not a time to wait for more.
            if all(self._source.has(each) for each in self.wants):
                self._bell.ring()
        else:
            self._lull.changed()

    def render_again(self) -> None:
        """Read the template again, and bring the file up to date."""
        self._read_again = True
        self._bell.ring()

    # --- what it does -------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        await self._blocking(self._file.clean_up)
        while not self._stopped:
            self._lull.cancel()
            wait = await self._round()
            self._working = False
            if self.reload is not None:
                self.reload.look()
            if not self._stopped:
                await self._bell.sleep(wait)
            self._working = True

    async def _round(self) -> float | None:
        """Bring it up to date; the seconds after which to try again, None where only a change can help."""
        try:
            content = self._render()
            if content is None:
                return None
        except RenderError as error:
            self._failed(error)
            return None
        try:
            await self._bring(content)
        except RenderError as error:
            if self._stopped:
                return None
            self._failed(error)
            return None if self._once else self._backoff.next()
        self._backoff.reset()
        return None

    def _render(self) -> bytes | None:
        """What it shall be; None where something is not there yet, which is asked for then."""
        if self._read_again:
            self._read_again = False
            try:
                self._template = self._load()
            except InvalidSettings as error:
                msg = f"the template is used as it was read before: {error}"
                self._failed(RenderError(msg))
        rendering = self._template.render(self._source)
        missing = tuple(sorted(want for want in rendering.wants if not self._source.has(want)))
        # While it is not known what it needs, what it needed last is kept.
        self.wants = rendering.wants if rendering.text is not None else self.wants | rendering.wants
        self._followed()
        if rendering.error is not None:
            raise rendering.error
        if rendering.text is None:
            self._now(RenderState.WAITING, missing=missing)
            return None
        self._revision = self._source.revision(self.wants)
        return rendering.text.encode()

    async def _bring(self, content: bytes) -> None:
        if await self._blocking(self._file.has, content):
            # By an earlier process; or by this one, where something went wrong right after the file was replaced.
            owed = not self._owes and await self._blocking(self._file.is_owed)
            owed = owed or (self._first and self.entry.reload_at_start)
            self._log.info("{to} is up to date at revision {revision}", to=str(self.entry.to), revision=self._revision)
        else:
            owed = True
            staged = await self._blocking(self._file.stage, content)
            try:
                await self._check(staged)
                if self._stopped:
                    return
                await self._write(staged)
            finally:
                await self._blocking(staged.discard)
        self._first = False
        if self._stopped:
            return
        if owed and self.reload is not None:
            self._owes = True
            self.reload.owe(self)
        if self._owes:
            self._now(RenderState.RELOADING, missing=())
        else:
            self._succeeded()

    async def _check(self, staged: Staged) -> None:
        if self.entry.check is None or self._stopped:
            return
        self._now(RenderState.CHECKING, missing=())
        arguments = [argument.replace(FILE, str(staged.path)) for argument in self.entry.check]
        command = self._command = Command(self._reactor, arguments, timeout=self.entry.check_timeout)
        outcome = await command.run()
        self._command = None
        if not outcome.succeeded and not self._stopped:
            said = f"its check failed, {outcome.how}, and it stays as it was: {' '.join(self.entry.check)}"
            # Of the file that was checked nobody knows.
            lines = (line.replace(str(staged.path), str(self.entry.to)) for line in outcome.lines)
            raise RenderError("\n  ".join([said, *lines]))

    async def _write(self, staged: Staged) -> None:
        self._now(RenderState.WRITING, missing=())
        whole = await self._blocking(self._file.replace, staged, owed=self.reload is not None)
        if not whole and not self._warned:
            self._warned = True
            self._log.warn("{to} is a mount, and is written as it is: a reader may see a part", to=str(self.entry.to))
        self._log.info("{to} is written at revision {revision}", to=str(self.entry.to), revision=self._revision)

    def _blocking(self, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> Deferred[_T]:
        return cast("Deferred[_T]", self._disk.run(self._in_thread, partial(function, *args, **kwargs)))

    # --- what comes of it ---------------------------------------------------------------------------------------------

    @property
    def is_busy(self) -> bool:
        """See :class:`~twisted_etcd.rendering.reload.Owing`."""
        return self._working

    @property
    def is_waiting(self) -> bool:
        """See :class:`~twisted_etcd.rendering.reload.Owing`."""
        return self.status.state is RenderState.WAITING

    def reloaded(self) -> None:
        """See :class:`~twisted_etcd.rendering.reload.Owing`."""
        self._owes = False
        if self._working:
            # It has gone on, and may have written more: the end of that will tell.
            return
        self._blocking(self._file.settle).addCallbacks(lambda _: self._settled(), self._broken)

    def _settled(self) -> None:
        if not (self._working or self._stopped):
            self._succeeded()

    def not_reloaded(self, error: RenderError) -> None:
        """See :class:`~twisted_etcd.rendering.reload.Owing`."""
        self._failed(error)

    def _succeeded(self) -> None:
        self._said = ""
        self._now(RenderState.FOLLOWING, revision=self._revision, last_success=self._reactor.seconds(), missing=())
        self.settled.fire(None)

    def _failed(self, error: RenderError) -> None:
        text = f"{self.entry.to}: {error}"
        if text != self._said:
            self._said = text
            self._log.error("{text}", text=text)
        self._now(RenderState.FAILED, last_error=str(error), last_error_at=self._reactor.seconds(), missing=())
        if self._once:
            self.settled.fire(error)

    def _now(self, state: RenderState, **changes: Any) -> None:  # noqa: ANN401 - fields of the status
        self.status = msgspec.structs.replace(self.status, state=state, **changes)
        self._changed(self.status)

    def _broken(self, failure: Failure) -> None:
        self._log.failure("Rendering {to} ended.", failure, to=str(self.entry.to))
        self.settled.fire(RenderError(f"rendering ended: {failure.type.__name__ if failure.type else failure}"))

    def _last(self, _: object) -> None:
        self._now(RenderState.ENDED)
        self._disk.acquire().addCallback(lambda _: self._over.fire(None))
