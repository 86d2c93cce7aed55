"""One run: the cluster, its clients, the faults, and the checks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, cast

import msgspec
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent, globalLogPublisher
from twisted.python.failure import Failure

from tests.soak.faults import Faults
from tests.soak.history import Broken, Registers
from tests.soak.leasing import Leases, Registrations
from tests.soak.ledger import Ledger
from tests.soak.report import Report
from tests.soak.resources import Sample, growth, sample, what_grew
from tests.soak.truth import Truth
from tests.soak.watching import Watcher
from tests.soak.workers import Worker, Workload
from twisted_etcd.client.client import EtcdClient
from twisted_etcd.errors import RequestFailed
from twisted_etcd.testing.cluster import EtcdCluster

_PREFIX = "soak/"
_REGISTERS = tuple(f"{_PREFIX}register-{number}" for number in range(6))
_PAIR = (f"{_PREFIX}pair-a", f"{_PREFIX}pair-b")
_LEASES = "lease/"
#: How many of each there are.
_WRITERS, _READERS, _LEASE_COUNT, _REGISTRATIONS = 10, 10, 50, 10
#: Watches of the client that shares a WebSocket.
_SHARED_WATCHES = 6
#: Seconds between two lines about how it goes.
_PROGRESS = 10.0
#: Seconds that a fault lasts, and that follow it.
_FAULT_LASTS, _CALM_LASTS = (2.0, 8.0), (2.0, 4.0)
#: How often something that is to come about is looked at, and the seconds between.
_LOOKS, _LOOK_EVERY = 300, 0.1
#: What Twisted keeps open once it has spawned a process.
_PROCESS_PIPES = 4


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """
    What a run is asked for.

    :ivar pause: seconds between two operations of a worker, on average.
    :ivar kinds: the faults that come; all of them where it is empty.
    """

    minutes: float
    seed: int
    binary: Path | None = None
    kinds: tuple[str, ...] = ()
    pause: float = 0.06


class Soak:
    """
    :param say: told how it goes, a line at a time.
    :ivar broken: the promises that were broken.
    """

    def __init__(self, reactor: Any, settings: Settings, say: Callable[[str], None]) -> None:  # noqa: ANN401
        self.broken: list[str] = []
        self._reactor = reactor
        self._settings = settings
        self._say = say
        self._random = Random(settings.seed)
        self._cluster = EtcdCluster(reactor, binary=settings.binary)
        self._report = Report(reactor.seconds())
        self._registers = Registers(_REGISTERS)
        self._ledger = Ledger()
        self._truth = Truth(reactor, self._direct_endpoints, _PREFIX)
        self._workload = Workload(reactor, self._registers, self._ledger, self._report, _PAIR)
        self._watchers: list[Watcher] = []
        self._finished_events = 0
        self._compacted_to = 0
        self._compactions = 0
        self._samples: list[Sample] = []
        self._began = reactor.seconds()
        self._fault = ""

    def _direct_endpoints(self) -> list[str]:
        return [member.direct_endpoint for member in self._cluster.members]

    async def run(self) -> Report:
        """All of it; what was broken is in ``broken``."""
        before = sample(self._reactor)
        observer = cast("ILogObserver", self._logged)
        globalLogPublisher.addObserver(observer)
        progress = LoopingCall(self._tell)
        progress.clock = self._reactor
        try:
            self._cluster.startService()
            await self._cluster.when_ready()
            progress.start(_PROGRESS, now=False)
            await self._attended()
        finally:
            if progress.running:
                progress.stop()
            await self._cluster.stopService()
            globalLogPublisher.removeObserver(observer)
        await self._eventually("the reactor to be empty", lambda: self._left_over(before))
        self._count()
        return self._report

    async def _attended(self) -> None:
        clients = [
            EtcdClient(self._reactor, self._cluster.endpoints, own_streams=own_streams, random=self._random.random)
            for own_streams in (16, 0, 16)
        ]
        try:
            await self._work(*clients)
        finally:
            self._workload.over = True
            await self._truth.stop()
            await gatherResults([client.stopService() for client in clients])
            if any(client.connection_count for client in clients):
                self.broken.append("a client that has stopped has connections")

    async def _work(self, one: EtcdClient, other: EtcdClient, holder: EtcdClient) -> None:
        self._truth.told += [self._ledger.happened, self._tell_watchers]
        self._truth.start((await one.get(_PREFIX)).header.revision)
        leases = Leases(holder, _LEASES, _LEASE_COUNT)
        registrations = Registrations(holder, self._reactor, _REGISTRATIONS)
        await self._start_watchers(one, other)
        await leases.fill_up()
        await registrations.start()
        working = [
            self._guarded(Worker(self._workload, client, self._part(), self._settings.pause).write)
            for client in (one, other)
            for _ in range(_WRITERS // 2)
        ]
        working += [
            self._guarded(Worker(self._workload, client, self._part(), self._settings.pause).read)
            for client in (one, other)
            for _ in range(_READERS // 2)
        ]
        faults = Faults(self._cluster, self._random, self._compact, (one, other, holder))
        await self._rounds(faults, one, leases, registrations)
        self._workload.over = True
        await gatherResults(working)
        await self._check_the_end()
        await registrations.stop()
        for watcher in tuple(self._watchers):
            await self._dismiss(watcher)
        self._report.figures |= {"leases lost with word": leases.lost}

    def _part(self) -> Random:
        return Random(self._random.random())

    # --- the rounds -------------------------------------------------------------------------------------------------

    async def _rounds(self, faults: Faults, client: EtcdClient, leases: Leases, registrations: Registrations) -> None:
        end = self._began + self._settings.minutes * 60
        waiting: list[str] = []
        while self._reactor.seconds() < end and not self.broken:
            if not waiting:
                waiting = list(self._settings.kinds or faults.kinds)
                self._random.shuffle(waiting)
            await self._round(faults, waiting.pop())
            await self._check_calm(client, leases, registrations)

    async def _round(self, faults: Faults, kind: str) -> None:
        self._fault = kind
        self._report.fault_began(kind)
        self._fault = f"{kind} ({await faults.kinds[kind]()})"
        await self._pause(_FAULT_LASTS)
        await faults.heal()
        self._report.healed()
        self._fault = ""

    async def _pause(self, bounds: tuple[float, float]) -> None:
        await deferLater(self._reactor, self._random.uniform(*bounds))

    async def _check_calm(self, client: EtcdClient, leases: Leases, registrations: Registrations) -> None:
        await self._pause(_CALM_LASTS)
        await self._eventually("registrations to be back", registrations.missing)
        await self._eventually("leases to be granted again", lambda: self._filled(leases))
        async with self._cluster.members[0].client() as direct:
            await self._checked(lambda: leases.check(direct))
        for watcher in self._watchers[-1:]:
            await self._dismiss(watcher)
        await self._watch(client, "a newcomer")
        self._samples.append(sample(self._reactor))

    async def _filled(self, leases: Leases) -> str:
        await leases.fill_up()
        return ""

    async def _checked(self, check: Callable[[], Any]) -> None:
        try:
            await check()
        except Broken as error:
            self._break(error)

    async def _compact(self) -> int:
        # Behind what is known to have happened, and not so far behind that no slow watch is caught.
        revision = max(1, self._truth.revision - self._random.randint(0, 30))
        self._compacted_to = max(self._compacted_to, revision)
        self._compactions += 1
        return await self._cluster.compact(revision)

    # --- watches ----------------------------------------------------------------------------------------------------

    async def _start_watchers(self, one: EtcdClient, other: EtcdClient) -> None:
        await self._watch(one, "a watch with a stream of its own")
        await self._watch(one, "a slow watch with a stream of its own", slow=0.03, max_backlog=50)
        await self._watch(other, "a slow watch on the WebSocket", slow=0.03, max_backlog=50)
        for number in range(_SHARED_WATCHES):
            await self._watch(other, f"watch {number} on the WebSocket")
        await self._watch(one, "a newcomer")

    async def _watch(self, client: EtcdClient, name: str, *, slow: float = 0.0, max_backlog: int = 10_000) -> None:
        watcher = Watcher(
            self._reactor,
            client,
            name,
            _PREFIX,
            slow=slow,
            max_backlog=max_backlog,
            compacted_to=lambda: self._compacted_to,
            broken=self._break,
            heard=lambda: self._report.served("watches", self._reactor.seconds()),
        )
        self._watchers.append(watcher)
        await watcher.start(self._truth.revision + 1)

    def _tell_watchers(self, revision: int, facts: Any) -> None:  # noqa: ANN401 - as Truth has them
        for watcher in self._watchers:
            if watcher.expectation is not None:
                watcher.expectation.happened(revision, facts)

    async def _dismiss(self, watcher: Watcher) -> None:
        self._watchers.remove(watcher)
        if watcher.expectation is not None:
            self._finished_events += watcher.expectation.events
        await watcher.stop()

    # --- the end ----------------------------------------------------------------------------------------------------

    async def _check_the_end(self) -> None:
        await self._eventually("acknowledged writes to be in the history", lambda: self._ledger.missing)
        for watcher in self._watchers:
            expectation = watcher.expectation
            if expectation is not None:
                await self._eventually(f"{watcher.name} to deliver all", partial(getattr, expectation, "missing"))

    def _left_over(self, before: Sample) -> str:
        now = sample(self._reactor)
        grown = now.calls > before.calls or now.sockets > before.sockets + _PROCESS_PIPES
        return f"{before}, then {now}" if grown else ""

    async def _eventually(self, what: str, missing: Callable[[], Any]) -> None:
        left: object = None
        for _ in range(_LOOKS):
            try:
                left = missing()
                if hasattr(left, "__await__"):
                    left = await left
            except RequestFailed as error:
                left = error
            if not left:
                return
            await deferLater(self._reactor, _LOOK_EVERY)
        self._break(Broken(f"waited in vain for {what}: {left}"))

    # --- what is said -----------------------------------------------------------------------------------------------

    def _guarded(self, work: Callable[[], Any]) -> Deferred[None]:
        working: Deferred[None] = Deferred.fromCoroutine(work())
        return working.addErrback(self._failed)

    def _failed(self, failure: Failure) -> None:
        self._break(failure.value or Broken("a worker ended, and nobody knows why"))

    def _break(self, error: BaseException) -> None:
        self._workload.over = True
        text = str(error) if isinstance(error, Broken) else f"{type(error).__name__}: {error}"
        self.broken.append(f"{text}\n  during: {self._fault or 'no fault'}")
        self._say(f"BROKEN: {text}")

    def _logged(self, event: LogEvent) -> None:
        bad = event["log_level"] in (LogLevel.error, LogLevel.critical)
        if bad and event.get("log_namespace") != "etcd":
            failure = event.get("log_failure")
            words = formatEvent(event) or ""
            self._break(Broken(f"an error was logged: {words}\n{failure.getTraceback() if failure else ''}"))

    def _events(self) -> int:
        return self._finished_events + sum(
            watcher.expectation.events for watcher in self._watchers if watcher.expectation is not None
        )

    def _tell(self) -> None:
        seconds = self._reactor.seconds() - self._began
        self._say(
            f"{seconds:6.0f} s: {self._report.operations.total()} operations, {self._report.errors.total()} errors, "
            f"{self._registers.checked} in order, {self._events()} events in order, {self._fault or 'calm'}"
        )

    def _count(self) -> None:
        grown = growth(self._samples)
        if grown is not None:
            self.broken += what_grew(self._samples)
        self._report.figures |= {
            "seconds": round(self._reactor.seconds() - self._began),
            "operations in order": self._registers.checked,
            "acknowledged writes in the history": self._ledger.checked,
            "events in order": self._events(),
            "watches that said Compacted": sum(watcher.compacted for watcher in self._watchers),
            "compactions": self._compactions,
            "first and last third": "too short to say" if grown is None else f"{grown[0]} and {grown[1]}",
        }


def verdict(broken: Iterable[str]) -> str:
    """The last line."""
    found = list(broken)
    return f"{len(found)} promises were broken" if found else "every promise was kept"
