"""A worker as its parent sees it: a command goes in, figures come out, in time or not at all."""

from __future__ import annotations

import contextlib
import json
import os
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from twisted_etcd.embedded.process import ProcessReactor

Figures = dict[str, Any]

#: Bytes of its standard error that are kept for the report of a failure.
_KEPT = 4000
_OUTPUT, _ERROR = 1, 2


class WorkerFailed(Exception):
    """A worker could not do what it was asked: it said why, died, or was not done in time."""


class Worker(ProcessProtocol):
    """
    A process that answers commands, as :mod:`benchmarks.worker` says.

    :param reactor: spawns it, and tells the time.
    :param arguments: the program and its arguments.
    """

    def __init__(self, reactor: ProcessReactor, arguments: Sequence[str]) -> None:
        self._reactor = reactor
        self._answer: Deferred[Figures] | None = None
        self._ready: Callable[[], object] | None = None
        self._partial = b""
        self._errors: deque[int] = deque(maxlen=_KEPT)
        self._how: str | None = None
        self._ended: Deferred[None] = Deferred()
        self._process = reactor.spawnProcess(self, arguments[0], list(arguments), env=dict(os.environ))

    @property
    def running(self) -> bool:
        """Whether it can be asked."""
        return self._how is None

    def ask(
        self, command: Mapping[str, Any], limit: float, ready: Callable[[], object] | None = None
    ) -> Deferred[Figures]:
        """
        Let it do something; one thing at a time. It is ended where it is not done in time, or the Deferred cancelled.

        :param limit: seconds.
        :param ready: is called when the worker says that somebody else may write now.
        :return: fires with what was measured, and fails with :class:`WorkerFailed`.
        """
        answer: Deferred[Figures] = Deferred(self._cancelled)
        self._answer, self._ready = answer, ready
        if self._how is not None:
            self._give_up(f"it had ended with {self._how}")
            return answer
        self._process.writeToChild(0, (json.dumps(command) + "\n").encode())
        timer = self._reactor.callLater(limit, self._overdue, limit)

        def stop_timer(result: object) -> object:
            if timer.active():
                timer.cancel()
            return result

        return cast("Deferred[Figures]", answer.addBoth(stop_timer))

    def end(self) -> Deferred[None]:
        """Let it end at once; fires when it is reaped."""
        self._kill()
        return succeed(None) if self._how is not None else self._ended

    def _kill(self) -> None:
        with contextlib.suppress(ProcessExitedAlready):
            self._process.signalProcess("KILL")

    def fail(self, why: str) -> None:
        """End it, and let what it was asked fail with that reason."""
        self._give_up(why)
        self._kill()

    def _cancelled(self, _: Deferred[Figures]) -> None:
        self._answer = None
        self._kill()

    def _overdue(self, limit: float) -> None:
        self.fail(f"it was not done in {limit:g} s")

    def _give_up(self, why: str) -> None:
        answer, self._answer = self._answer, None
        if answer is not None:
            said = bytes(self._errors).decode(errors="replace").strip()
            answer.errback(WorkerFailed(f"{why}; it said:\n{said}" if said else f"{why}, and said nothing"))

    # --- ProcessProtocol ----------------------------------------------------------------------------------------------

    def childDataReceived(self, childFD: int, data: bytes) -> None:  # noqa: N803 - as Twisted has it
        """Answers come on the standard output, all else on the standard error."""
        if childFD == _ERROR:
            self._errors.extend(data)
            return
        *lines, self._partial = (self._partial + data).split(b"\n")
        for line in lines:
            self._said(line)

    def _said(self, line: bytes) -> None:
        try:
            message = json.loads(line)
        except ValueError:
            self._errors.extend(line + b"\n")
            return
        if "ready" in message:
            if self._ready is not None:
                self._ready()
            return
        if "error" in message:
            self._errors.extend(message["error"].encode())
            self._give_up("it failed")
            return
        answer, self._answer = self._answer, None
        if answer is not None:
            answer.callback(message["figures"])

    def processEnded(self, reason: Failure) -> None:
        """It is reaped."""
        number = getattr(reason.value, "signal", None)
        self._how = f"signal {number}" if number else f"exit status {getattr(reason.value, 'exitCode', 0)}"
        self._give_up(f"it ended with {self._how}")
        self._ended.callback(None)
