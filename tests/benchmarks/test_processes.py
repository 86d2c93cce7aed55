from __future__ import annotations

import sys
from typing import Any, cast

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.defer import CancelledError

from benchmarks.cases import CASES, Case
from benchmarks.processes import Worker, WorkerFailed
from benchmarks.rows import Outcome, rows_of
from benchmarks.table import plain
from benchmarks.turns import Settings, Turns
from tests.wire import soon

MESSAGES: Case = next(case for case in CASES if case.name == "message-64")
LATE: Case = next(case for case in CASES if case.name == "late-etcd")
ANSWERS = """
import sys
while sys.stdin.readline():
    print('{"figures": {"p50": 1, "p99": 2, "rate": 3, "cpu": 4}}', flush=True)
"""
DIES = "import sys; sys.stdin.readline(); sys.exit('there is no more')"
HANGS = "import sys, time; sys.stdin.readline(); print('here', file=sys.stderr, flush=True); time.sleep(600)"
SAYS_WHY = 'import sys; sys.stdin.readline(); print(\'{"error": "such is life"}\', flush=True); sys.stdin.readline()'
READY = 'import sys; sys.stdin.readline(); print(\'{"ready": true}\\n{"figures": {}}\', flush=True)'
FOREVER = 30.0


def worker(code: str) -> Worker:
    return Worker(cast("Any", reactor), [sys.executable, "-c", code])


@ensureDeferred
async def test_a_worker_is_asked_again_and_again() -> None:
    process = worker(ANSWERS)
    for _ in range(2):
        assert (await process.ask({}, FOREVER))["rate"] == 3
    assert process.running
    await soon(process.end())
    assert not process.running


@pytest.mark.parametrize(
    ("code", "limit", "why"),
    [
        (DIES, FOREVER, "it ended with exit status 1; it said:\nthere is no more"),
        (SAYS_WHY, FOREVER, "it failed; it said:\nsuch is life"),
        ("pass", FOREVER, "it ended with exit status 0, and said nothing"),
        (HANGS, 2.0, "it was not done in 2 s; it said:\nhere"),
    ],
    ids=["dies", "says why", "ends", "hangs"],
)
@ensureDeferred
async def test_a_worker_that_dies_or_hangs_is_reported_with_what_it_said(code: str, limit: float, why: str) -> None:
    process = worker(code)
    with pytest.raises(WorkerFailed) as failed:
        await process.ask({}, limit)
    assert str(failed.value) == why
    await soon(process.end())


@ensureDeferred
async def test_who_has_ended_cannot_be_asked() -> None:
    process = worker("pass")
    await soon(process.end())
    with pytest.raises(WorkerFailed, match="it had ended"):
        await process.ask({}, FOREVER)


@ensureDeferred
async def test_a_cancelled_question_ends_the_worker() -> None:
    process = worker(HANGS)
    asking = process.ask({}, FOREVER)
    asking.cancel()
    with pytest.raises(CancelledError):
        await asking
    await soon(process.end())


@ensureDeferred
async def test_a_worker_says_when_somebody_else_may_write() -> None:
    told = []
    process = worker(READY)
    await process.ask({}, FOREVER, lambda: told.append("ready"))
    assert told == ["ready"]
    await soon(process.end())


async def outcome_of(case: Case, programs: dict[str, str], rounds: int = 2) -> tuple[Outcome, list[str]]:
    """A case with programs in place of its workers, by their kinds; and what was said of it."""
    said: list[str] = []
    settings = Settings(clients=list(case.clients), absent={}, rounds=rounds, quick=True)
    turns = Turns(lambda _, kind: worker(programs[kind]), "http://etcd", "http://late", settings, said.append)
    try:
        return await turns.run(case), said
    finally:
        await turns.end()


@ensureDeferred
async def test_clients_take_turns() -> None:
    outcome, said = await outcome_of(LATE, {"ours": ANSWERS, "etcd3gw-in-reactor": ANSWERS})
    assert [line.rpartition(": p50")[0] for line in said] == [
        f"late-etcd: round {number} of 2: {client}" for number in (1, 2) for client in ("ours", "etcd3gw")
    ]
    assert [len(turns) for turns in outcome.turns.values()] == [2, 2]


@ensureDeferred
async def test_a_client_whose_worker_dies_has_failed_and_the_others_go_on() -> None:
    outcome, said = await outcome_of(LATE, {"ours": ANSWERS, "etcd3gw-in-reactor": DIES})
    assert "there is no more" in outcome.failed["etcd3gw"]
    assert len(outcome.turns["ours"]) == 2
    assert sum("failed" in line for line in said) == 1
    shown = plain(rows_of(outcome), [])
    assert "failed" in shown.splitlines()[3]
    assert "there is no more" in shown


@ensureDeferred
async def test_a_case_that_cannot_be_prepared_has_failed() -> None:
    filled: Case = next(case for case in CASES if case.name == "service-get-1")
    outcome, _ = await outcome_of(filled, {"ours": DIES})
    assert outcome.failed["ours"].startswith("could not be prepared")
