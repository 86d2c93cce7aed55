from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.cases import CASES, CLIENTS, OURS, Case
from benchmarks.clients.node import NODE_SCENARIOS
from benchmarks.clients.scenarios import SCENARIOS
from benchmarks.goals import GOALS, Goal, figure_of, goal_of, verdict
from benchmarks.importing import IMPORTS

ROOT = Path(__file__).resolve().parents[2]
BY_NAME = {case.name: case for case in CASES}
AFTERWARDS = {"prefix", "start_revision"}
IDS = [case.name for case in CASES]


def row(ours: float | None, peers: dict[str, float | None], metric: str = "rate") -> dict[str, Any]:
    return {"case": "get-64", "metric": metric, "unit": "/s", "ours": ours, "peers": peers}


def test_names_are_unique() -> None:
    assert len(BY_NAME) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_a_case_gives_its_scenario_what_that_takes(case: Case) -> None:
    if case.do == "import":
        assert set(case.clients) <= set(IMPORTS)
        return
    scenario: Any = {**SCENARIOS, **NODE_SCENARIOS}[case.do]
    taken = {name for name, kind in inspect.signature(scenario).parameters.items() if kind.kind is kind.KEYWORD_ONLY}
    for quick in (False, True):
        given = set(case.parameters(quick=quick))
        assert given <= taken
        assert taken - given <= AFTERWARDS


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_we_do_every_case_and_who_else_does_is_a_client(case: Case) -> None:
    assert OURS in case.clients
    assert set(case.clients) <= set(CLIENTS)


@pytest.mark.parametrize("case", [case for case in CASES if case.fed], ids=lambda case: case.name)
def test_as_many_events_are_written_as_are_waited_for(case: Case) -> None:
    for quick in (False, True):
        feed = case.feed(quick=quick)
        assert feed["events"] == case.parameters(quick=quick)["events"]
        assert feed["events"] % feed.get("size", 1) == 0


def test_a_quick_run_says_what_it_does_less_of() -> None:
    assert BY_NAME["memory"].smaller() == "operations 2,000"
    assert BY_NAME["get-1"].smaller() == ""


@pytest.mark.parametrize("goal", GOALS, ids=lambda goal: f"{goal.case} {goal.metric}")
def test_every_goal_is_of_a_metric_that_is_measured(goal: Goal) -> None:
    case = BY_NAME[goal.case]
    assert goal.metric in [metric.name for metric in case.metrics]
    assert goal.peer is None or goal.peer in case.clients


def test_a_goal_tells_its_bound_and_the_figure_that_reached_or_missed_it() -> None:
    goal = Goal("get-64", "rate", 4, "aetcd", at_least=True)
    assert verdict(goal, row(500.0, {"aetcd": 100.0})) == "≥ 4 of aetcd: reached (5)"
    assert verdict(goal, row(300.0, {"aetcd": 100.0})) == "≥ 4 of aetcd: missed (3)"
    assert verdict(goal, row(300.0, {})) == "≥ 4 of aetcd: not measured"
    assert verdict(Goal("late-etcd", "p99", 5), row(5.5, {})) == "≤ 5 /s: missed (5.5)"


def test_a_bound_of_our_own_needs_no_peer() -> None:
    assert figure_of(Goal("get-64", "rate", 1), row(7.0, {})) == 7.0


def test_a_row_without_a_goal_has_none() -> None:
    assert goal_of(row(1.0, {})) is not None
    assert goal_of(row(1.0, {}, metric="p99")) is None


@pytest.mark.parametrize("module", ["loops", "scenarios"])
def test_what_all_workers_import_is_without_twisted(module: str) -> None:
    code = f"import sys, benchmarks.worker, benchmarks.clients.{module}; print('twisted' in sys.modules)"
    finished = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, timeout=60)
    assert finished.stdout == b"False\n"
