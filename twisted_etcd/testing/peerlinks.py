"""The wires between the members of a cluster for tests, of which some can be cut."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path

import msgspec
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IDelayedCall, IProcessTransport
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_etcd.embedded.process import ProcessReactor
from twisted_etcd.errors import ServiceStopped
from twisted_etcd.moment import Moment
from twisted_etcd.testing.peerproxy import Link

#: The program, by its module's name.
_PROGRAM = "twisted_etcd.testing.peerproxy"
#: The directory that this package is in: where the program is found, whatever is found first elsewhere.
_HOME = str(Path(__file__).resolve().parents[2])
#: Seconds that the process has to end by itself.
_STOP_GRACE = 5.0


class PeerLinks:
    """
    A process with a proxy before the peer port of each member, see :mod:`twisted_etcd.testing.peerproxy`.

    It ends with this process, however that ends.

    :param reactor: spawns it and tells the time.
    """

    def __init__(self, reactor: ProcessReactor) -> None:
        self._reactor = reactor
        self._links: dict[str, Link] = {}
        self._waiting: deque[Deferred[dict[str, int]]] = deque()
        self._transport: IProcessTransport | None = None
        self._ended: Moment[None] = Moment()
        self._grace: IDelayedCall | None = None
        self._stopping = False

    @property
    def pid(self) -> int | None:
        """The process; None while there is none."""
        return None if self._transport is None else self._transport.pid

    def start(self) -> None:
        """Start the process; what is asked of it meanwhile is done when it runs."""
        self._stopping = False
        self._links = {}
        self._ended = Moment()
        self._transport = self._reactor.spawnProcess(
            _Talk(self._answered, self._gone),
            sys.executable,
            [sys.executable, "-m", _PROGRAM],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            path=_HOME,
        )

    def connect(self, name: str) -> Deferred[int]:
        """
        Link one more member to the others.

        :return: fires with the port at which the others reach it, as soon as that is listened on.
        """
        self._links[name] = Link(name=name)
        return self._tell().addCallback(lambda ports: ports[name])

    def change(self, name: str, **changes: object) -> Deferred[None]:
        """
        Change what is so of a member; of one that is not linked, nothing.

        :param changes: fields of :class:`~twisted_etcd.testing.peerproxy.Link`.
        :return: fires when it is so, or all links are gone.
        """
        if name not in self._links:
            return succeed(None)
        self._links[name] = msgspec.structs.replace(self._links[name], **changes)
        return self._tell().addCallbacks(lambda _: None, lambda failure: failure.trap(ServiceStopped) and None)

    def disconnect(self, name: str) -> Deferred[None]:
        """Take a member's link away, for good."""
        self._links.pop(name, None)
        return self._tell().addCallback(lambda _: None)

    def stop(self) -> Deferred[None]:
        """Fires when the process has ended and is reaped."""
        if self._transport is None:
            return succeed(None)
        if not self._stopping:
            self._stopping = True
            self._transport.closeStdin()
            self._grace = self._reactor.callLater(_STOP_GRACE, self._kill)
        return self._ended.wait()

    def _tell(self) -> Deferred[dict[str, int]]:
        if self._transport is None or self._stopping:
            return fail(self._ending("it was not started"))
        answer: Deferred[dict[str, int]] = Deferred()
        self._waiting.append(answer)
        self._transport.write(msgspec.json.encode(list(self._links.values())) + b"\n")
        return answer

    def _answered(self, line: bytes) -> None:
        answer = self._waiting.popleft()
        # One that nobody waits for any more was cancelled.
        answer.callback(msgspec.json.decode(line, type=dict[str, int]))

    def _gone(self, why: str) -> None:
        self._transport = None
        if self._grace is not None and self._grace.active():
            self._grace.cancel()
        self._grace = None
        waiting, self._waiting = self._waiting, deque()
        for answer in waiting:
            answer.errback(self._ending(why))
        self._ended.fire(None)

    def _ending(self, why: str) -> Exception:
        if self._stopping:
            return ServiceStopped("the cluster was stopped")
        return RuntimeError(f"the process that links the members has ended: {why}")

    def _kill(self) -> None:
        if self._transport is not None:
            try:
                self._transport.signalProcess("KILL")
            except ProcessExitedAlready:
                return


class _Talk(ProcessProtocol):
    """Hands on the lines that the process answers, logs what it complains of, and tells of its end."""

    _log = Logger()

    def __init__(self, answered: Callable[[bytes], None], gone: Callable[[str], None]) -> None:
        self._answered = answered
        self._gone = gone
        self._unfinished = b""
        self._said: deque[str] = deque(maxlen=20)

    def outReceived(self, data: bytes) -> None:
        *lines, self._unfinished = (self._unfinished + data).split(b"\n")
        for line in lines:
            self._answered(line)

    def errReceived(self, data: bytes) -> None:
        for line in data.decode("utf-8", "replace").splitlines():
            self._said.append(line)
            self._log.warn("the links between the members: {line}", line=line)

    def processEnded(self, reason: Failure) -> None:
        self._gone("\n  ".join([reason.getErrorMessage(), *self._said]))
