"""What the embedded etcd does as time passes, with a process and a network that are played."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import treq.testing
from treq.client import HTTPClient
from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.internet.error import ProcessDone, ProcessExitedAlready, ProcessTerminated
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.web.client import ResponseNeverReceived
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from twisted.web.resource import Resource
from twisted.web.server import Request
from zope.interface import implementer

from tests.guards import LoggedErrors
from twisted_etcd.embedded.process import EmbeddedEtcd, ProcessReactor
from twisted_etcd.errors import ServiceStopped, StartFailed

BINARY = "/opt/etcd"


class PlayedProcess:
    """A process, as far as its transport shows it."""

    def __init__(self, protocol: ProcessProtocol, args: list[str], env: dict[str, str], pid: int) -> None:
        self.protocol, self.args, self.env, self.pid = protocol, args, env, pid
        self.signals: list[int] = []
        self.ended = False

    def closeStdin(self) -> None:
        self.stdin_closed = True

    def signalProcess(self, number: int) -> None:
        if self.ended:
            raise ProcessExitedAlready
        self.signals.append(number)

    def says(self, line: str) -> None:
        self.protocol.errReceived(line.encode() + b"\n")

    def ends(self, code: int | None = 1, number: int | None = None) -> None:
        self.ended = True
        self.protocol.processEnded(Failure(ProcessTerminated(code, number) if code or number else ProcessDone(0)))

    def flag(self, name: str) -> str:
        return [arg for arg in self.args if arg.startswith(f"--{name}=")][-1].split("=", 1)[1]


class PlayedReactor(Clock):
    """Time that is told, processes that are played."""

    def __init__(self) -> None:
        super().__init__()
        self.processes: list[PlayedProcess] = []
        self.refuses = False

    def spawnProcess(
        self, protocol: ProcessProtocol, executable: str, args: list[str], env: dict[str, str]
    ) -> PlayedProcess:
        if self.refuses:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        process = PlayedProcess(protocol, args, env, pid=1000 + len(self.processes))
        self.processes.append(process)
        protocol.makeConnection(process)
        return process


@implementer(IAgent)
class Network:
    """Refuses connections, swallows requests, or lets them through to an etcd's answers."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.asked: list[float] = []
        self.is_up = False
        self.swallows = False
        self.cancelled = 0
        self.health = b'{"health":"true"}'
        site = Resource()
        site.putChild(b"version", Answers(lambda: b'{"etcdserver":"3.5.1","etcdcluster":"3.5.0"}'))
        site.putChild(b"health", Answers(lambda: self.health))
        self._through = treq.testing.RequestTraversalAgent(site)  # type: ignore[no-untyped-call]

    def request(
        self, method: bytes, uri: bytes, headers: Headers | None = None, bodyProducer: IBodyProducer | None = None
    ) -> Deferred[IResponse]:
        self.asked.append(self.clock.seconds())
        if self.swallows:
            return Deferred(self._cancelled)
        if not self.is_up:
            return fail(Refused())
        answering = self._through.request(method, uri, headers, bodyProducer)  # type: ignore[no-untyped-call]
        return cast("Deferred[IResponse]", answering)

    def _cancelled(self, request: Deferred[object]) -> None:
        self.cancelled += 1
        # as Twisted's own agent says it
        request.errback(ResponseNeverReceived([Failure(CancelledError())]))


class Answers(Resource):
    """One answer of etcd's; an unhealthy one comes with 503."""

    isLeaf = True

    def __init__(self, body: Callable[[], bytes]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._body = body

    def render_GET(self, request: Request) -> bytes:
        if b"false" in self._body():
            request.setResponseCode(503)
        return self._body()


class World:
    """One embedded etcd and all that it sees."""

    def __init__(self, **options: Any) -> None:  # noqa: ANN401 - as EmbeddedEtcd has them
        self.reactor = PlayedReactor()
        self.network = Network(self.reactor)
        self.restarted = 0
        self.etcd = EmbeddedEtcd(
            cast("ProcessReactor", self.reactor),
            HTTPClient(self.network),
            binary=BINARY,
            **{"on_restart": self._on_restart, **options},
        )

    def _on_restart(self) -> None:
        self.restarted += 1

    @property
    def process(self) -> PlayedProcess:
        return self.reactor.processes[-1]

    def runs(self) -> PlayedProcess:
        self.etcd.startService()
        self.network.is_up = True
        self.reactor.advance(0.02)
        assert self.etcd.when_ready().called
        return self.process

    def dies(self) -> None:
        self.network.is_up = False
        self.process.ends(None, signal.SIGKILL)

    def stops(self) -> None:
        stopped = self.etcd.stopService()
        if not self.process.ended:
            self.process.ends(0)
        assert stopped.called
        assert self.reactor.getDelayedCalls() == []


@pytest.fixture
def world() -> Iterator[World]:
    it = World()
    yield it
    it.stops()


def failure_of(deferred: Deferred[Any]) -> BaseException | None:
    heard: list[Failure] = []
    deferred.addErrback(heard.append)
    assert heard, "it has not failed"
    return heard[0].value


# --- the start ------------------------------------------------------------------------------------------------------


def test_it_is_ready_once_it_answers(world: World) -> None:
    ready = world.etcd.when_ready()
    world.etcd.startService()
    world.reactor.pump([0.1] * 10)
    assert not ready.called
    world.network.is_up = True
    world.reactor.advance(0.5)
    assert ready.called
    assert world.etcd.version == "3.5.1"
    assert world.etcd.pid == 1000
    assert world.reactor.getDelayedCalls() == [], "a running etcd needs no timer"


def test_an_etcd_without_a_leader_is_not_ready(world: World) -> None:
    ready = world.etcd.when_ready()
    world.network.is_up, world.network.health = True, b'{"health":"false"}'
    world.etcd.startService()
    world.reactor.pump([0.1] * 10)
    assert not ready.called
    world.network.health = b'{"health":"true"}'
    world.reactor.advance(0.5)
    assert ready.called


def test_a_question_that_is_not_answered_is_asked_again(world: World) -> None:
    ready = world.etcd.when_ready()
    world.network.swallows = True
    world.etcd.startService()
    world.reactor.advance(0.02)
    world.network.swallows, world.network.is_up = False, True
    world.reactor.advance(2)
    assert world.network.cancelled == 1
    world.reactor.advance(0.5)
    assert ready.called


def test_no_question_follows_the_end_of_the_process(world: World) -> None:
    world.network.swallows = True
    ready = world.etcd.when_ready()
    world.etcd.startService()
    world.reactor.advance(0.02)
    world.process.ends(1)
    failure_of(ready)
    assert world.network.cancelled == 1
    assert world.reactor.getDelayedCalls() == []


def test_a_question_to_a_dead_process_does_not_speak_for_the_next(world: World) -> None:
    world.network.swallows = True
    world.etcd.startService()
    world.reactor.advance(0.02)
    world.process.says(TAKEN)
    world.process.ends(1)
    assert world.network.cancelled == 1
    assert len(world.reactor.getDelayedCalls()) == 2, "the next question, and the time that the start may take"


def test_questions_come_seldom_when_it_takes_long(world: World) -> None:
    world.etcd.startService()
    world.reactor.pump([0.01] * 1000)
    asked = world.network.asked
    assert asked[0] == pytest.approx(0.02)
    assert 0.45 < asked[-1] - asked[-2] < 0.55
    assert len(asked) < 35


def test_the_arguments_say_where_to_listen_and_ours_come_last(tmp_path: Path) -> None:
    world = World(name="one", client_port=4001, peer_port=4002, data_dir=tmp_path, extra_args=("--log-level=debug",))
    process = world.runs()
    assert process.args[-1] == "--log-level=debug"
    assert process.args[4:8] == [str(os.getpid()), "", BINARY, "--name=one"]
    assert process.flag("listen-client-urls") == process.flag("advertise-client-urls") == "http://127.0.0.1:4001"
    assert process.flag("listen-peer-urls") == process.flag("initial-advertise-peer-urls") == "http://127.0.0.1:4002"
    assert process.flag("initial-cluster") == "one=http://127.0.0.1:4002"
    assert process.flag("data-dir") == str(tmp_path / "etcd")
    assert world.etcd.endpoint == "http://127.0.0.1:4001"
    world.stops()


def test_with_tls_the_address_says_so() -> None:
    world = World(tls=True, client_port=4001)
    assert world.runs().flag("listen-client-urls") == "https://127.0.0.1:4001"
    assert world.etcd.endpoint == "https://127.0.0.1:4001"
    world.stops()


def test_before_the_start_there_is_no_address() -> None:
    world = World()
    with pytest.raises(RuntimeError, match=r"^the embedded etcd has no address yet: start it, and wait for when_ready"):
        world.etcd.endpoint  # noqa: B018 - it is the property that raises
    assert world.etcd.pid is None


def test_how_to_reach_it_is_told_in_commands_to_type(world: World) -> None:
    world.runs()
    url = world.etcd.endpoint
    assert world.etcd.how_to_reach().splitlines() == [
        f"etcd 3.5.1 answers at {url}",
        f"  etcdctl --endpoints={url} put greeting hello",
        f"  etcdctl --endpoints={url} get --prefix ''",
        f"  curl {url}/version",
        f'  curl {url}/v3/kv/put -d \'{{"key": "Z3JlZXRpbmc=", "value": "aGVsbG8="}}\'',
        f'  curl {url}/v3/kv/range -d \'{{"key": "Z3JlZXRpbmc="}}\'',
    ]


# --- a start that fails ---------------------------------------------------------------------------------------------


def test_a_death_before_the_first_answer_fails_the_start_with_the_last_lines(world: World) -> None:
    ready = world.etcd.when_ready()
    world.etcd.startService()
    directory = Path(world.process.flag("data-dir")).parent
    assert directory.is_dir()
    for n in range(30):
        world.process.says(f"line {n}")
    world.process.ends(2)
    error = failure_of(ready)
    assert isinstance(error, StartFailed)
    assert str(error).splitlines() == [
        f"etcd ({BINARY}) did not come up: it ended with exit code 2, its last lines:",
        *(f"  line {n}" for n in range(10, 30)),
    ]
    assert failure_of(world.etcd.when_ready()) is error, "who asks later hears the same"
    assert not directory.exists()
    assert world.etcd.pid is None
    assert world.reactor.getDelayedCalls() == []


def test_a_start_that_takes_too_long_is_ended_and_fails(world: World) -> None:
    ready = world.etcd.when_ready()
    world.etcd.startService()
    world.reactor.pump([0.5] * 60)
    assert world.process.signals == [signal.SIGKILL]
    assert not ready.called
    world.process.ends(None, signal.SIGKILL)
    assert str(failure_of(ready)) == (
        f"etcd ({BINARY}) did not come up: it did not answer within 30 seconds (the last question ended with "
        "ConnectionRefusedError: Connection was refused by other side.)"
    )


def test_a_start_that_fails_unheard_is_logged(world: World, logged_errors: LoggedErrors) -> None:
    world.etcd.startService()
    world.process.ends(1)
    assert logged_errors.flush_messages() == [f"etcd ({BINARY}) did not come up: it ended with exit code 1"]


def test_a_process_that_cannot_be_spawned_fails_the_start(logged_errors: LoggedErrors) -> None:
    world = World()
    world.reactor.refuses = True
    ready = world.etcd.when_ready()
    world.etcd.startService()
    assert str(failure_of(ready)) == (
        f"etcd ({BINARY}) did not come up: it could not be started: [Errno 11] Resource temporarily unavailable"
    )
    assert world.etcd.stopService().called
    assert logged_errors.left() == []


def test_after_a_failed_start_it_can_be_started_again(world: World) -> None:
    ready = world.etcd.when_ready()
    world.etcd.startService()
    world.process.ends(1)
    failure_of(ready)
    assert world.etcd.stopService().called
    world.runs()


TAKEN = '{"level":"fatal","msg":"discovery failed","error":"listen tcp 127.0.0.1:1: bind: address already in use"}'


def test_a_port_that_somebody_else_took_is_replaced(world: World) -> None:
    ready = world.etcd.when_ready()
    world.etcd.startService()
    before = world.process.flag("listen-client-urls"), world.process.flag("listen-peer-urls")
    world.process.says(TAKEN)
    world.process.ends(1)
    assert len(world.reactor.processes) == 2
    now = world.process.flag("listen-client-urls"), world.process.flag("listen-peer-urls")
    assert now[0] != before[0]
    assert now[1] != before[1]
    assert world.etcd.endpoint == now[0]
    world.network.is_up = True
    world.reactor.advance(0.02)
    assert ready.called
    assert world.etcd.restarts == 0


def test_ports_are_tried_five_times(world: World) -> None:
    ready = world.etcd.when_ready()
    world.etcd.startService()
    for _ in range(5):
        assert not ready.called
        world.process.says(TAKEN)
        world.process.ends(1)
    assert "address already in use" in str(failure_of(ready))
    assert len(world.reactor.processes) == 5


def test_ports_that_were_asked_for_are_not_replaced() -> None:
    world = World(client_port=4001, peer_port=4002)
    ready = world.etcd.when_ready()
    world.etcd.startService()
    world.process.says(TAKEN)
    world.process.ends(1)
    assert isinstance(failure_of(ready), StartFailed)
    world.stops()


# --- deaths ---------------------------------------------------------------------------------------------------------


def test_a_death_leads_to_a_restart_on_the_same_ports_with_the_same_data(world: World) -> None:
    first = world.runs()
    exited = world.etcd.when_exited()
    world.dies()
    assert exited.result == "signal SIGKILL"
    assert world.etcd.pid is None
    again = world.etcd.when_ready()
    world.reactor.advance(0.1)
    assert world.process is not first
    for flag in ("listen-client-urls", "listen-peer-urls", "data-dir"):
        assert world.process.flag(flag) == first.flag(flag)
    assert not again.called
    world.network.is_up = True
    world.reactor.advance(0.02)
    assert again.called
    assert world.etcd.restarts == world.restarted == 1


def test_it_never_gives_up_and_waits_longer_each_time(world: World) -> None:
    world.runs()
    world.dies()
    waits = []
    for _ in range(12):
        count, since = len(world.reactor.processes), world.reactor.seconds()
        while len(world.reactor.processes) == count:
            world.reactor.advance(0.1)
        waits.append(world.reactor.seconds() - since)
        world.process.ends(1)
    assert waits == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30, 30, 30], abs=0.11)
    world.network.is_up = True
    world.reactor.advance(30)
    world.reactor.advance(0.02)
    assert world.etcd.when_ready().called
    assert world.etcd.restarts == 1


def test_after_a_long_quiet_time_a_death_counts_as_the_first(world: World) -> None:
    world.runs()
    for _ in range(5):
        world.dies()
        world.reactor.advance(10)
        world.network.is_up = True
        world.reactor.advance(0.02)
    world.reactor.advance(60)
    count = len(world.reactor.processes)
    world.dies()
    world.reactor.advance(0.1)
    assert len(world.reactor.processes) == count + 1


def test_a_restart_that_does_not_answer_is_ended_and_tried_again(world: World) -> None:
    world.runs()
    world.dies()
    world.reactor.advance(0.1)
    world.reactor.pump([0.5] * 60)
    assert world.process.signals == [signal.SIGKILL]
    world.process.ends(None, signal.SIGKILL)
    count = len(world.reactor.processes)
    world.reactor.advance(0.2)
    assert len(world.reactor.processes) == count + 1


def test_a_port_taken_during_a_restart_is_waited_for(world: World) -> None:
    first = world.runs()
    world.dies()
    world.reactor.advance(0.1)
    world.process.says(TAKEN)
    world.process.ends(1)
    world.reactor.advance(0.2)
    assert world.process.flag("listen-client-urls") == first.flag("listen-client-urls")


def test_an_error_in_the_callback_of_a_restart_is_logged_and_changes_nothing(logged_errors: LoggedErrors) -> None:
    world = World(on_restart=lambda: 1 / 0)
    world.runs()
    world.dies()
    world.reactor.advance(0.1)
    world.network.is_up = True
    world.reactor.advance(0.02)
    assert world.etcd.when_ready().called
    assert len(logged_errors.flush(ZeroDivisionError)) == 1
    world.stops()


# --- left down ------------------------------------------------------------------------------------------------------


def test_one_that_is_not_to_be_revived_stays_dead_until_it_is_started() -> None:
    world = World(revive=False)
    first = world.runs()
    world.dies()
    world.reactor.advance(600)
    assert world.reactor.processes == [first]
    assert world.reactor.getDelayedCalls() == []
    assert not world.etcd.has_process
    ready = world.etcd.when_ready()
    world.runs()
    assert ready.called
    for flag in ("listen-client-urls", "listen-peer-urls", "data-dir"):
        assert world.process.flag(flag) == first.flag(flag)
    assert world.etcd.restarts == world.restarted == 0
    world.stops()


def test_one_that_was_left_down_takes_its_temporary_directory_with_it_when_it_stops() -> None:
    world = World(revive=False)
    directory = Path(world.runs().flag("data-dir")).parent
    world.dies()
    assert directory.is_dir()
    assert world.etcd.stopService().called
    assert not directory.exists()


def test_a_start_of_one_that_was_left_down_fails_as_the_first_one_does() -> None:
    world = World(revive=False)
    world.runs()
    world.dies()
    world.etcd.startService()
    ready = world.etcd.when_ready()
    world.process.ends(2)
    assert str(failure_of(ready)) == f"etcd ({BINARY}) did not come up: it ended with exit code 2"
    assert world.etcd.stopService().called


def test_each_process_is_told_of_with_its_number_and_its_ports() -> None:
    told: list[tuple[int | None, int]] = []
    played: World = World(on_spawn=lambda: told.append((played.etcd.pid, played.etcd.ports.client)))
    played.etcd.startService()
    played.process.says(TAKEN)
    played.process.ends(1)
    assert [pid for pid, _ in told] == [process.pid for process in played.reactor.processes]
    assert [f"http://127.0.0.1:{port}" for _, port in told] == [
        process.flag("listen-client-urls") for process in played.reactor.processes
    ]
    played.stops()


# --- the stop -------------------------------------------------------------------------------------------------------


def test_a_stop_asks_etcd_to_end_and_fires_when_it_has(world: World) -> None:
    process = world.runs()
    directory = Path(process.flag("data-dir")).parent
    stopped, twice = world.etcd.stopService(), world.etcd.stopService()
    assert process.signals[0] == signal.SIGTERM
    assert not stopped.called
    process.ends(0)
    assert stopped.called
    assert twice.called
    assert not directory.exists()


def test_an_etcd_that_does_not_end_is_killed_after_the_grace(world: World) -> None:
    process = world.runs()
    stopped = world.etcd.stopService()
    world.reactor.advance(4.9)
    assert signal.SIGKILL not in process.signals
    world.reactor.advance(0.2)
    assert process.signals[-1] == signal.SIGKILL
    process.ends(None, signal.SIGKILL)
    assert stopped.called


def test_a_stop_during_the_start_ends_the_process_and_the_wait(world: World) -> None:
    ready = world.etcd.when_ready()
    world.etcd.startService()
    stopped = world.etcd.stopService()
    assert world.process.signals[0] == signal.SIGTERM
    world.process.ends(None, signal.SIGTERM)
    assert stopped.called
    assert isinstance(failure_of(ready), ServiceStopped)


def test_who_asks_during_the_stop_learns_of_it_and_who_asks_afterwards_waits_for_the_next_start(world: World) -> None:
    process = world.runs()
    stopped = world.etcd.stopService()
    ready = world.etcd.when_ready()
    assert not ready.called
    process.ends(0)
    assert stopped.called
    assert isinstance(failure_of(ready), ServiceStopped)
    again = world.etcd.when_ready()
    world.runs()
    assert again.called


def test_a_stop_between_a_death_and_the_restart_fires_at_once(world: World) -> None:
    world.runs()
    directory = Path(world.process.flag("data-dir")).parent
    world.dies()
    ready = world.etcd.when_ready()
    assert world.etcd.stopService().called
    assert isinstance(failure_of(ready), ServiceStopped)
    assert not directory.exists()
    world.reactor.advance(60)
    assert len(world.reactor.processes) == 1


def test_a_stop_while_an_overdue_start_is_being_killed_waits_for_it(world: World) -> None:
    ready = world.etcd.when_ready()
    world.etcd.startService()
    world.reactor.pump([0.5] * 60)
    stopped = world.etcd.stopService()
    assert not stopped.called
    world.process.ends(None, signal.SIGKILL)
    assert stopped.called
    assert isinstance(failure_of(ready), ServiceStopped)


def test_a_kill_without_a_process_is_an_error() -> None:
    with pytest.raises(ProcessExitedAlready):
        World().etcd.kill("KILL")


def test_a_waiter_that_gives_up_is_forgotten(world: World) -> None:
    ready = world.etcd.when_ready()
    ready.addErrback(lambda _: None)
    ready.cancel()
    world.runs()


# --- directories ----------------------------------------------------------------------------------------------------


def test_the_ports_of_a_kept_directory_are_used_again(tmp_path: Path) -> None:
    world = World(data_dir=tmp_path / "new" / "data")
    world.runs()
    endpoint = world.etcd.endpoint
    world.stops()
    assert (tmp_path / "new" / "data").is_dir()
    again = World(data_dir=tmp_path / "new" / "data")
    again.runs()
    assert again.etcd.endpoint == endpoint
    again.stops()


def test_remembered_ports_that_are_taken_are_replaced(tmp_path: Path) -> None:
    world = World(data_dir=tmp_path)
    world.runs()
    endpoint = world.etcd.endpoint
    world.stops()
    again = World(data_dir=tmp_path)
    again.etcd.startService()
    again.process.says(TAKEN)
    again.process.ends(1)
    assert again.etcd.endpoint != endpoint
    again.stops()


def test_a_port_that_is_asked_for_counts_more_than_a_remembered_one(tmp_path: Path) -> None:
    world = World(data_dir=tmp_path)
    world.runs()
    world.stops()
    again = World(data_dir=tmp_path, client_port=4001)
    again.runs()
    assert again.etcd.endpoint == "http://127.0.0.1:4001"
    again.stops()


def test_a_broken_memory_of_ports_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "ports.json").write_text("{")
    world = World(data_dir=tmp_path)
    world.runs()
    world.stops()
    assert (tmp_path / "ports.json").read_text().startswith('{"client":')


def test_ports_that_cannot_be_remembered_are_used_all_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "ports.json").symlink_to(tmp_path / "no" / "such")
    world = World(data_dir=tmp_path)
    world.runs()
    assert "ports.json" in caplog.text
    world.stops()


def test_a_directory_that_cannot_be_made_fails_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    world = World(data_dir=tmp_path / "file")
    ready = world.etcd.when_ready()
    world.etcd.startService()
    assert str(failure_of(ready)) == (
        f"etcd ({BINARY}) did not come up: it could not be started: [Errno 17] File exists: '{tmp_path / 'file'}'"
    )
    assert world.etcd.stopService().called


def test_the_data_of_another_etcd_is_not_covered_with_an_empty_one(tmp_path: Path) -> None:
    (tmp_path / "member").mkdir()
    world = World(data_dir=tmp_path)
    ready = world.etcd.when_ready()
    world.etcd.startService()
    assert str(failure_of(ready)) == (
        f"etcd ({BINARY}) did not come up: it could not be started: {tmp_path} is itself the data directory of an "
        f"etcd: move its content to {tmp_path / 'etcd'}"
    )
    assert world.etcd.stopService().called


# --- the environment ------------------------------------------------------------------------------------------------


def test_settings_for_another_etcd_are_kept_from_ours() -> None:
    world = World(environ={"ETCD_NAME": "theirs", "ETCDCTL_API": "3", "HOME": "/root"})
    process = world.runs()
    assert "ETCD_NAME" not in process.env
    assert process.env["HOME"] == "/root"
    assert process.env["ETCDCTL_API"] == "3"
    world.stops()
