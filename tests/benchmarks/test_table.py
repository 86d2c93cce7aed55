from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.environment import environment_file, write_environment
from benchmarks.rows import read_rows, write_rows
from benchmarks.table import DASH, markdown, number, plain

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results.json"
BEGIN, END = "<!-- python -m benchmarks.table benchmarks/results.json -->\n", "<!-- end -->\n"


def table_of(file: Path) -> str:
    """What ``python -m benchmarks.table`` prints."""
    command = [sys.executable, "-m", "benchmarks.table", str(file)]
    finished = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=60)
    return finished.stdout


@pytest.fixture
def row() -> dict[str, Any]:
    return {
        "case": "get-1",
        "metric": "p50",
        "unit": "ms",
        "ours": 0.5,
        "peers": {"aetcd": 0.4, "etcd3gw": None},
        "ratio": 1.25,
        "rounds": {"ours": [0.4, 0.5, 0.6], "aetcd": [0.4]},
        "failed": {"etcd3gw": "it ended with signal 9"},
        "absent": {"etcd-client-py": "not installed"},
    }


@pytest.mark.parametrize(
    ("value", "text"), [(0.0123, "0.0123"), (1.5, "1.5"), (52.34, "52.3"), (52301.4, "52,301"), (-0.5, "-0.5")]
)
def test_numbers_have_three_digits_or_all_before_the_point(value: float, text: str) -> None:
    assert number(value) == text


def test_a_failure_and_a_client_that_is_not_installed_are_no_dash(row: dict[str, Any]) -> None:
    line = markdown([row], []).splitlines()[-1]
    assert line == "| get-1 | p50 (ms) | 0.5 | 0.4 | not installed | failed | 1.25 | ≤ 1.15 of aetcd: missed (1.25) |"


def test_who_cannot_do_a_case_has_a_dash(row: dict[str, Any]) -> None:
    row |= {"peers": {}, "ratio": None, "failed": {}, "absent": {}, "case": "message-64"}
    assert markdown([row], []).splitlines()[-1] == f"| message-64 | p50 (ms) | 0.5{f' | {DASH}' * 4} |  |"


def test_the_terminal_shows_how_far_the_rounds_lay_apart_and_why_somebody_failed(row: dict[str, Any]) -> None:
    text = plain([row], ["Measured once."])
    assert text.startswith("Measured once.\n")
    assert "0.5 (0.4..0.6)" in text
    assert "get-1, etcd3gw: it ended with signal 9" in text


def test_the_table_begins_with_what_it_was_measured_with(row: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    write_rows(file, [row])
    write_environment(environment_file(file), ["Measured on a day.", "With fsync."])
    assert table_of(file).startswith("Measured on a day. With fsync.\n\n| case | metric |")


def test_the_readmes_table_is_that_of_the_results() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    written = readme.split(BEGIN)[1].split(END)[0]
    assert written == table_of(RESULTS)
    assert "Measured on 20" in written


def test_the_results_are_those_of_a_full_run_in_which_nobody_failed() -> None:
    rows = read_rows(RESULTS)
    assert [row["case"] for row in rows if row["failed"] or row["ours"] is None] == []
    assert {len(row["rounds"]["ours"]) for row in rows if row["case"] != "memory"} == {5}
