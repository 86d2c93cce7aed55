"""A run: every case, its rounds, and the clients in turns."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from twisted.internet.defer import Deferred, gatherResults

from benchmarks.cases import Case
from benchmarks.measuring import delay_figures
from benchmarks.processes import Figures, Worker, WorkerFailed
from benchmarks.rows import Outcome

#: Starts a worker: which module, of which kind.
Start = Callable[[str, str], Worker]

WORKER = "benchmarks.worker"
IMPORTING = "benchmarks.importing"
#: The client that writes what others watch; a process of its own.
WRITER = "ours"
#: Seconds for what is written before a case.
_PREPARATION = 120.0


@dataclass(frozen=True)
class Settings:
    """
    What is run.

    :ivar absent: clients that are not asked, and why.
    """

    clients: Sequence[str]
    absent: Mapping[str, str]
    rounds: int
    quick: bool


class Turns:
    """
    Goes through cases.

    :param start: starts workers.
    :param endpoint: etcd's URL.
    :param late_endpoint: a URL where the same etcd answers late.
    :param say: is told how it goes, a line each time.
    """

    def __init__(
        self, start: Start, endpoint: str, late_endpoint: str, settings: Settings, say: Callable[[str], object]
    ) -> None:
        self._start = start
        self._endpoint = endpoint
        self._late_endpoint = late_endpoint
        self._settings = settings
        self._say = say
        self._workers: dict[str, Worker] = {}
        self._writer: Worker | None = None
        self._fresh: Worker | None = None
        self._numbers = itertools.count(1)
        self._past_revision = 0

    async def run(self, case: Case) -> Outcome:
        """Every client in every round; one that fails is not asked again in this case."""
        settings = self._settings
        clients = [client for client in settings.clients if client in case.clients]
        outcome = Outcome(case, turns={client: [] for client in clients})
        outcome.absent.update({client: why for client, why in settings.absent.items() if client in case.clients})
        prefix = f"{case.name}/"
        try:
            await self._prepare(case, prefix)
        except WorkerFailed as error:
            self._say(f"{case.name}: could not be prepared: {error}")
            outcome.failed.update(dict.fromkeys(clients, f"could not be prepared: {error}"))
            return outcome
        rounds = min(settings.rounds, case.rounds or settings.rounds)
        for number, client in itertools.product(range(1, rounds + 1), clients):
            if client in outcome.failed:
                continue
            what = f"{case.name}: round {number} of {rounds}: {client}"
            try:
                figures = await self._turn(case, client, prefix)
            except WorkerFailed as error:
                self._say(f"{what} failed: {error}")
                outcome.failed[client] = str(error)
            else:
                told = (f"{metric.name} {_shown(figures.get(metric.name))} {metric.unit}" for metric in case.metrics)
                self._say(f"{what}: {', '.join(told)}")
                outcome.turns[client].append(figures)
        return outcome

    async def end(self) -> None:
        """End all workers."""
        workers = [*self._workers.values(), *(each for each in (self._writer, self._fresh) if each is not None)]
        await gatherResults([worker.end() for worker in workers])

    async def _prepare(self, case: Case, prefix: str) -> None:
        parameters = case.parameters(quick=self._settings.quick)
        if case.filled:
            await self._write("fill", {"prefix": prefix, "keys": parameters.get("keys", case.filled)})
        self._past_revision = 0
        if case.past:
            before = await self._write("revision", {})
            self._past_revision = int(before["revision"] or 0) + 1
            await self._write(case.feeder, {"prefix": prefix, **case.feed(quick=self._settings.quick)})

    def _write(self, do: str, parameters: Mapping[str, object]) -> Deferred[Figures]:
        if self._writer is None or not self._writer.running:
            self._writer = self._start(WORKER, WRITER)
        return self._writer.ask({"do": do, "endpoint": self._endpoint, "with": parameters}, _PREPARATION)

    async def _turn(self, case: Case, client: str, prefix: str) -> Figures:
        endpoint = self._late_endpoint if case.late else self._endpoint
        parameters = case.parameters(quick=self._settings.quick)
        if case.do not in _WITHOUT_KEYS:
            # What one round has written is nothing that another one watches.
            own = f"{prefix}{next(self._numbers)}/" if case.fed and not case.past else prefix
            parameters["prefix"] = own
        if case.past:
            parameters["start_revision"] = self._past_revision
        command = {"do": case.do, "endpoint": endpoint, "with": parameters}
        worker = self._worker(case, client)
        writing: list[Deferred[Figures | None]] = []

        def ready() -> None:
            feeding = self._write(
                case.feeder, {"prefix": parameters["prefix"], **case.feed(quick=self._settings.quick)}
            )
            writing.append(
                feeding.addErrback(lambda failure: worker.fail(f"who writes for it failed: {failure.value}"))
            )

        try:
            figures = await worker.ask(command, case.limit, ready)
        finally:
            # The one who writes is asked for one thing at a time.
            written = [await each for each in writing]
            if case.fresh:
                await worker.end()
        sent = [each["sent"] for each in written if each and "sent" in each]
        return delay_figures(sent[0], figures["arrived"]) if sent else figures

    def _worker(self, case: Case, client: str) -> Worker:
        kind = case.kinds.get(client, client)
        if case.fresh:
            self._fresh = self._start(IMPORTING if case.do == "import" else WORKER, kind)
            return self._fresh
        worker = self._workers.get(client)
        if worker is None or not worker.running:
            worker = self._workers[client] = self._start(WORKER, kind)
        return worker


#: Scenarios that touch no keys.
_WITHOUT_KEYS = frozenset({"messages", "late", "import", "keepalive"})


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
