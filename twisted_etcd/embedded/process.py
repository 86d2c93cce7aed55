"""An etcd of our own as a Twisted service."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from treq.client import HTTPClient
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IDelayedCall, IProcessTransport, IReactorProcess, IReactorTime
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_etcd.backoff import Backoff
from twisted_etcd.commands import LAUNCHER
from twisted_etcd.embedded.environment import etcd_environment
from twisted_etcd.embedded.output import EtcdOutput
from twisted_etcd.embedded.place import Place
from twisted_etcd.embedded.ports import LOOPBACK, Ports
from twisted_etcd.embedded.probe import serving_version
from twisted_etcd.embedded.supervision import Action, Event, State, after
from twisted_etcd.errors import ServiceStopped, StartFailed
from twisted_etcd.moment import Moment

#: How often a start whose ports were taken is tried with other ones.
PORT_TRIES = 5
#: Seconds between two questions whether etcd answers: the first, and the longest.
PROBE_DELAYS = (0.02, 0.5)
#: Seconds before the first restart, and the longest.
RESTART_DELAYS = (0.1, 30.0)
#: After so many seconds of answering, a death counts as the first one again.
STEADY_AFTER = 60.0

_ADDRESS_IN_USE = "address already in use"


class ProcessReactor(IReactorTime, IReactorProcess):
    """What is used of the reactor: it tells the time and spawns processes."""


class EmbeddedEtcd(Service):
    """
    One etcd member that runs while this service runs, and listens on loopback alone.

    It is started again, on the same ports and with the same data, whenever it dies, for ever, with a delay that grows
    from 0.1 to 30 seconds. A death before it has answered for the first time is not repaired but reported by
    :meth:`when_ready`, as :class:`~twisted_etcd.errors.StartFailed` with etcd's last lines; only a port that somebody
    else took first is replaced by another. What etcd writes goes to ``twisted.logger`` under the namespace ``etcd``.

    On Linux, etcd dies with this process, however that ends; elsewhere a ``kill -9`` of this process leaves it behind.
    A temporary directory stays behind in both cases.

    :param reactor: spawns the process and tells the time.
    :param client: asks it whether it answers; it must trust its certificate where ``tls`` is set.
    :param binary: the program, see :func:`~twisted_etcd.embedded.binary.find_binary`.
    :param data_dir: a directory of its own, made if missing and kept: etcd's data is in its ``etcd``, the ports that
        it was served on are in its ``ports.json`` and are used again. Without one the data is in a temporary directory
        that goes when the service stops.
    :param name: etcd's ``--name``.
    :param client_port: the port for clients; 0 for the one used before with this ``data_dir``, else a free one.
    :param peer_port: the port for other members, likewise.
    :param tls: whether ``extra_args`` make it speak TLS to its clients.
    :param extra_args: further arguments for etcd; the last of two that say the same counts, so these win.
    :param environ: the environment of etcd, the process's own unless given; ``ETCD_*`` variables are taken out of it.
    :param start_timeout: seconds within which it must answer.
    :param stop_grace: seconds between SIGTERM and SIGKILL when the service stops.
    :param on_restart: is called each time that it answers again after a death.
    :param on_spawn: is called each time that a process has been started: its ``pid`` and its ports are known then.
    :param revive: whether it is started again after a death; where not, that is for ``startService`` to do.
    :ivar start_timeout: as given; may be changed, for the starts to come.
    :ivar restarts: how often it answered again after a death.
    :ivar version: etcd's version, once it has answered; "" before.
    """

    log = Logger()

    def __init__(
        self,
        reactor: ProcessReactor,
        client: HTTPClient,
        *,
        binary: str | os.PathLike[str],
        data_dir: str | os.PathLike[str] | None = None,
        name: str = "embedded",
        client_port: int = 0,
        peer_port: int = 0,
        tls: bool = False,
        extra_args: Sequence[str] = (),
        environ: Mapping[str, str] | None = None,
        start_timeout: float = 30.0,
        stop_grace: float = 5.0,
        on_restart: Callable[[], object] | None = None,
        on_spawn: Callable[[], object] | None = None,
        revive: bool = True,
    ) -> None:
        self.start_timeout = start_timeout
        self.restarts = 0
        self.version = ""
        self._reactor = reactor
        self._client = client
        self._binary = os.fspath(binary)
        kept = Path(data_dir).absolute() if data_dir is not None else None
        self._place = Place(kept, Ports(client_port, peer_port))
        self._member_name = name
        self._scheme = "https" if tls else "http"
        self._extra_args = tuple(extra_args)
        self._environ = environ
        self._stop_grace = stop_grace
        self._on_restart = on_restart
        self._on_spawn = on_spawn
        self._revive = revive

        self._state = State.IDLE
        self._process: IProcessTransport | None = None
        self._output = EtcdOutput(Logger(namespace="etcd"))
        self._timer: IDelayedCall | None = None
        self._probing: Deferred[None] | None = None
        self._problem = ""
        self._why = ""
        self._port_tries = 0
        # All of each wait: nobody else wants this etcd at the same time.
        self._backoff = Backoff(lambda: 1.0, *RESTART_DELAYS)
        self._restart_delay = 0.0
        self._answered_at = 0.0
        self._ready: Moment[None] = Moment()
        self._exit: Moment[str] = Moment()
        self._stopped: Moment[None] = Moment()

    # --- what a caller can ask ---------------------------------------------------------------------------------------

    @property
    def endpoint(self) -> str:
        """
        Its URL, the same for as long as the service runs.

        :raises RuntimeError: before it was started.
        """
        return f"{self._scheme}://{LOOPBACK}:{self.ports.client}"

    @property
    def ports(self) -> Ports:
        """
        What it listens on, the same for as long as the service runs.

        :raises RuntimeError: before it was started.
        """
        if self._place.ports is None:
            msg = "the embedded etcd has no address yet: start it, and wait for when_ready()"
            raise RuntimeError(msg)
        return self._place.ports

    @property
    def pid(self) -> int | None:
        """The process id; ``None`` while no process runs."""
        return None if self._process is None else self._process.pid

    @property
    def has_process(self) -> bool:
        """Whether there is a process that runs or is still to be reaped: :meth:`when_exited` tells its end."""
        return self._process is not None

    def when_ready(self) -> Deferred[None]:
        """
        Fires as soon as etcd serves requests: at once where it does, else at the end of the start or restart.

        Fails with :class:`~twisted_etcd.errors.StartFailed`, or with :class:`~twisted_etcd.errors.ServiceStopped`
        where the service is stopped first.
        """
        return self._ready.wait()

    def when_exited(self) -> Deferred[str]:
        """Fires when the process that runs now, or the next one, has ended and is reaped: with how it ended."""
        return self._exit.wait()

    def kill(self, name: str) -> None:
        """
        Send a signal to the process, for tests of faults: ``"KILL"``, ``"STOP"``, ``"CONT"``, ….

        :raises ProcessExitedAlready: where no process runs.
        """
        if self._process is None:
            raise ProcessExitedAlready
        self._process.signalProcess(int(getattr(signal, f"SIG{name}")))

    def how_to_reach(self) -> str:
        """Its address, and what to type to try it, in several lines."""
        url = self.endpoint
        return "\n".join(
            (
                f"etcd {self.version} answers at {url}".replace("  ", " "),
                f"  etcdctl --endpoints={url} put greeting hello",
                f"  etcdctl --endpoints={url} get --prefix ''",
                f"  curl {url}/version",
                f'  curl {url}/v3/kv/put -d \'{{"key": "Z3JlZXRpbmc=", "value": "aGVsbG8="}}\'',
                f'  curl {url}/v3/kv/range -d \'{{"key": "Z3JlZXRpbmc="}}\'',
            )
        )

    # --- as a service ------------------------------------------------------------------------------------------------

    def startService(self) -> None:
        """Start etcd; :meth:`when_ready` tells how that ends."""
        super().startService()  # type: ignore[no-untyped-call]
        self._not_ready()
        self._port_tries = 1
        self._backoff.reset()
        self._handle(Event.START)

    def stopService(self) -> Deferred[None]:
        """Fires when the process is reaped and its temporary directory is gone."""
        super().stopService()  # type: ignore[no-untyped-call]
        self._not_ready()
        stopped = self._stopped.wait()
        self._handle(Event.STOP)
        return stopped

    # --- the machine -------------------------------------------------------------------------------------------------

    def _handle(self, event: Event) -> None:
        self._state, actions = after(self._state, event)
        # whatever was waited for, this ends the wait
        self._stop_probing()
        self._stop_timer()
        for action in actions:
            self._carry_out(action)

    def _carry_out(self, action: Action) -> None:
        {
            Action.SPAWN: self._spawn,
            Action.CHOOSE_PORTS: self._choose_ports,
            Action.TELL_READY: self._tell_ready,
            Action.TELL_BACK: self._tell_back,
            Action.TELL_FAILED: self._tell_failed,
            Action.TELL_DEATH: self._tell_death,
            Action.TELL_DOWN: self._tell_down,
            Action.WAIT: self._wait,
            Action.TERMINATE: self._terminate,
            Action.KILL: self._kill,
            Action.CLEAN_UP: self._place.leave,
            Action.TELL_STOPPED: self._tell_stopped,
        }[action]()

    def _stop_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()

    def _stop_probing(self) -> None:
        probing, self._probing = self._probing, None
        if probing is not None:
            probing.cancel()

    def _spawn(self) -> None:
        """Always the last action of its row: where it fails at once, that is an exit like any other."""
        self._problem = self._why = ""
        self._output = EtcdOutput(Logger(namespace="etcd"))
        try:
            arguments = self._arguments()
            self._process = self._reactor.spawnProcess(
                _EtcdProcess(self._output, self._exited),
                sys.executable,
                [sys.executable, "-I", "-S", LAUNCHER, str(os.getpid()), "", self._binary, *arguments],
                env=etcd_environment(os.environ if self._environ is None else self._environ),
            )
        except OSError as error:
            self._why = f"it could not be started: {error}"
            self._handle(Event.EXITED)
            return
        self.log.info("etcd is started as process {pid}: {endpoint}", pid=self._process.pid, endpoint=self.endpoint)
        self._timer = self._reactor.callLater(self.start_timeout, self._overdue)
        self._probing = Deferred.fromCoroutine(self._until_it_answers(self._process))
        self._probing.addErrback(self._probing_failed)
        if self._on_spawn is not None:
            self._on_spawn()

    async def _until_it_answers(self, process: IProcessTransport) -> None:
        delay, longest = PROBE_DELAYS
        while True:
            await deferLater(self._reactor, delay)
            try:
                self.version = await serving_version(self._reactor, self._client, self.endpoint)
            except Exception as error:
                # a cancelled request fails with whatever its HTTP client makes of it
                if self._process is not process or self._probing is None:
                    raise CancelledError from error
                self._problem = f"{type(error).__name__}: {error}"
                delay = min(delay * 1.5, longest)
            else:
                break
        self._probing = None
        self._handle(Event.ANSWERED)

    def _probing_failed(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            self.log.failure("what follows the start of etcd failed", failure)

    def _overdue(self) -> None:
        self._why = f"it did not answer within {self.start_timeout:g} seconds"
        if self._problem:
            self._why += f" (the last question ended with {self._problem})"
        self._handle(Event.OVERDUE)

    def _exited(self, how: str) -> None:
        self._process = None
        self._why = self._why or f"it ended with {how}"
        exit_, self._exit = self._exit, Moment()
        self._handle(self._kind_of_exit())
        exit_.fire(how)

    def _kind_of_exit(self) -> Event:
        if self._can_try_other_ports():
            return Event.PORTS_TAKEN
        if self._state is State.RUNNING and not self._revive:
            return Event.EXITED_FOR_GOOD
        return Event.EXITED

    def _can_try_other_ports(self) -> bool:
        return (
            self._state is State.STARTING
            and self._port_tries < PORT_TRIES
            and self._place.can_move
            and any(_ADDRESS_IN_USE in line for line in self._output.last_lines())
        )

    def _choose_ports(self) -> None:
        self._port_tries += 1
        self.log.info("somebody else has a port of {endpoint}: others are tried", endpoint=self.endpoint)
        self._place.move()

    def _tell_ready(self) -> None:
        self._answered_at = self._reactor.seconds()
        self._place.remember()
        self.log.info("etcd {version} answers at {endpoint}", version=self.version, endpoint=self.endpoint)
        self._ready.fire(None)

    def _tell_back(self) -> None:
        self.restarts += 1
        self._answered_at = self._reactor.seconds()
        self.log.warn("etcd answers again at {endpoint} (restart {n})", endpoint=self.endpoint, n=self.restarts)
        self._ready.fire(None)
        if self._on_restart is not None:
            self._on_restart()

    def _tell_failed(self) -> None:
        lines = self._output.last_lines()
        text = f"etcd ({self._binary}) did not come up: {self._why}"
        failed = StartFailed("\n  ".join([text + (", its last lines:" if lines else ""), *lines]))
        if not self._ready.is_awaited:
            self.log.error("{problem}", problem=failed)
        self._ready.fail(Failure(failed))

    def _not_ready(self) -> None:
        """Let those who ask from now on wait for what comes next."""
        if self._ready.happened:
            self._ready = Moment()

    def _tell_death(self) -> None:
        self._not_ready()
        if self._answered_at and self._reactor.seconds() - self._answered_at >= STEADY_AFTER:
            self._backoff.reset()
        self._answered_at = 0.0
        self._restart_delay = self._backoff.next()
        self.log.warn(
            "etcd died: {why}; it is started again in {delay:g} s. {lines}",
            why=self._why,
            delay=self._restart_delay,
            lines="\n  ".join(["Its last lines:", *self._output.last_lines()]),
        )

    def _tell_down(self) -> None:
        self._not_ready()
        self.log.info("etcd at {endpoint} is down: {why}", endpoint=self.endpoint, why=self._why)

    def _wait(self) -> None:
        self._timer = self._reactor.callLater(self._restart_delay, self._handle, Event.WAITED)

    def _terminate(self) -> None:
        self._signal(signal.SIGTERM)
        # a stopped process (SIGSTOP) cannot end before it goes on
        self._signal(signal.SIGCONT)
        self._timer = self._reactor.callLater(self._stop_grace, self._handle, Event.GRACE_OVER)

    def _kill(self) -> None:
        self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        if self._process is None:
            return
        try:
            self._process.signalProcess(number)
        except ProcessExitedAlready:
            self.log.debug("etcd had ended before signal {number}", number=number)

    def _tell_stopped(self) -> None:
        ready, self._ready = self._ready, Moment()
        stopped, self._stopped = self._stopped, Moment()
        ready.fail(Failure(ServiceStopped("the embedded etcd was stopped")))
        stopped.fire(None)

    # --- how it is run -----------------------------------------------------------------------------------------------

    def _arguments(self) -> list[str]:
        data_dir, ports = self._place.prepare()
        peer = f"http://{LOOPBACK}:{ports.peer}"
        arguments = {
            "name": self._member_name,
            "data-dir": str(data_dir),
            "listen-client-urls": self.endpoint,
            "advertise-client-urls": self.endpoint,
            "listen-peer-urls": peer,
            "initial-advertise-peer-urls": peer,
            "initial-cluster": f"{self._member_name}={peer}",
            # 3.4 has another default
            "logger": "zap",
            "log-level": "warn",
        }
        return [f"--{flag}={value}" for flag, value in arguments.items()] + list(self._extra_args)


class _EtcdProcess(ProcessProtocol):
    """Hands on what the process writes, and how it ended once it is reaped."""

    def __init__(self, output: EtcdOutput, exited: Callable[[str], None]) -> None:
        self._output = output
        self._exited = exited

    def connectionMade(self) -> None:
        if self.transport is not None:
            self.transport.closeStdin()

    def outReceived(self, data: bytes) -> None:
        self._output.received(1, data)

    def errReceived(self, data: bytes) -> None:
        self._output.received(2, data)

    def processEnded(self, reason: Failure) -> None:
        self._output.ended()
        number = getattr(reason.value, "signal", None)
        code = getattr(reason.value, "exitCode", None)
        self._exited(f"signal {signal.Signals(number).name}" if number else f"exit code {code}")
