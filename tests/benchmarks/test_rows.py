from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.cases import CASES, Case
from benchmarks.rows import Figures, Outcome, ratio, read_rows, rows_of, write_rows

GET: Case = next(case for case in CASES if case.name == "get-64")


def figures(rate: float) -> dict[str, float | None]:
    return {"p50": 1.0, "p99": 2.0, "rate": rate, "cpu": 10.0}


def test_a_row_has_the_medians_and_the_ratio_to_the_best_peer() -> None:
    turns: dict[str, list[Figures]] = {
        "ours": [figures(400.0), figures(500.0), figures(300.0)],
        "aetcd": [figures(100.0), figures(200.0), figures(300.0)],
        "etcd-client-py": [figures(50.0)] * 3,
    }
    rows = {row["metric"]: row for row in rows_of(Outcome(GET, turns=turns))}
    assert list(rows) == ["p50", "p99", "rate", "cpu"]
    row = rows["rate"]
    assert {name: row[name] for name in ("case", "metric", "unit", "ours", "peers", "ratio")} == {
        "case": "get-64",
        "metric": "rate",
        "unit": "/s",
        "ours": 400.0,
        "peers": {"aetcd": 200.0, "etcd-client-py": 50.0},
        "ratio": 2.0,
    }
    assert row["rounds"]["ours"] == [400.0, 500.0, 300.0]


def test_the_best_peer_is_the_greatest_rate_and_the_least_of_all_else() -> None:
    assert ratio(10.0, [5.0, 20.0], more_is_better=True) == 0.5
    assert ratio(10.0, [5.0, 20.0], more_is_better=False) == 2.0


@pytest.mark.parametrize(("ours", "peers"), [(None, [1.0]), (1.0, []), (1.0, [None]), (1.0, [-0.5]), (0.0, [1.0])])
def test_there_is_no_ratio_without_two_figures_over_zero(ours: float | None, peers: list[float | None]) -> None:
    assert ratio(ours, peers, more_is_better=False) is None


def test_a_client_that_failed_has_no_value_whatever_its_earlier_rounds_showed() -> None:
    outcome = Outcome(GET, turns={"ours": [figures(1.0)], "aetcd": [figures(2.0)]}, failed={"aetcd": "it died"})
    [row] = [row for row in rows_of(outcome) if row["metric"] == "rate"]
    assert (row["peers"], row["ratio"], row["failed"]) == ({"aetcd": None}, None, {"aetcd": "it died"})


def test_what_the_system_does_not_tell_is_missing() -> None:
    outcome = Outcome(GET, turns={"ours": [{"rate": None}]})
    assert {row["ours"] for row in rows_of(outcome)} == {None}


def test_rows_are_read_as_they_were_written(tmp_path: Path) -> None:
    rows = rows_of(Outcome(GET, turns={"ours": [figures(1.0)]}))
    write_rows(tmp_path / "rows.json", rows)
    assert read_rows(tmp_path / "rows.json") == rows
