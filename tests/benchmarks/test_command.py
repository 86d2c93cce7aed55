"""The benchmark as a user runs it."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from pytest_twisted import ensureDeferred

from benchmarks.__main__ import QUICK_ROUNDS, arguments, settings_of
from benchmarks.cases import CASES
from benchmarks.environment import environment_file, installed_peers, read_environment
from benchmarks.rows import read_rows
from tests.etcds import ONE_VERSION
from tests.programs import Program, Run

ROOT = Path(__file__).resolve().parents[2]
COMMAND = ("-m", "benchmarks")


#: All but one that takes long.
EACH = [case.name for case in CASES if case.name != "scan-100000"]


def bench(run: Run, *given: str) -> Program:
    return run(*COMMAND, *given, directory=ROOT)


@ONE_VERSION
@ensureDeferred
async def test_a_quick_case_leaves_its_rows_in_a_file(run: Run, etcd_binary: Path, tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    program = bench(run, "--quick", "--case", "get-1", "--json", str(file), "--etcd", str(etcd_binary))
    assert await program.ended() == 0, program.story("failed")
    assert sum("get-1: round 1 of 1: ours" in line for line in program.errors) == QUICK_ROUNDS
    rows = read_rows(file)
    assert [(row["case"], row["metric"], row["unit"]) for row in rows] == [
        ("get-1", "p50", "ms"),
        ("get-1", "p99", "ms"),
        ("get-1", "rate", "/s"),
        ("get-1", "cpu", "µs"),
    ]
    for row in rows:
        assert row["ours"] > 0
        assert list(row["peers"]) == installed_peers()
        assert (row["ratio"] is None) == (not installed_peers())
    assert read_environment(environment_file(file))[0] in program.text


@pytest.mark.parametrize(
    "names", [EACH[first : first + 5] for first in range(0, len(EACH), 5)], ids=lambda names: names[0]
)
@ONE_VERSION
@ensureDeferred
async def test_every_case_can_be_done_by_us(names: list[str], run: Run, etcd_binary: Path, tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    only = [part for name in names for part in ("--case", name)]
    program = bench(run, "--quick", "--clients", "ours", "--json", str(file), "--etcd", str(etcd_binary), *only)
    assert await program.ended() == 0, program.story("failed")
    rows = read_rows(file)
    assert list(dict.fromkeys(row["case"] for row in rows)) == names
    assert [row for row in rows if row["ours"] is None] == []


@ONE_VERSION
@ensureDeferred
async def test_ctrl_c_ends_it_and_all_that_it_has_started(run: Run, etcd_binary: Path) -> None:
    program = bench(run, "--case", "get-1", "--clients", "ours", "--rounds", "1000", "--etcd", str(etcd_binary))
    await program.line("round 1 of 1000")
    program.send(signal.SIGINT)
    assert await program.ended() == 130, program.story("was not interrupted")
    assert program.lines[-1] == "interrupted"


@ensureDeferred
async def test_a_case_that_there_is_not_is_named_beside_those_that_there_are(run: Run) -> None:
    program = bench(run, "--case", "get-2")
    assert await program.ended() == 2
    assert "invalid choice: 'get-2'" in program.text
    assert "get-16" in program.text


@ensureDeferred
async def test_cases_are_listed_with_a_line_each(run: Run) -> None:
    program = bench(run, "--list")
    await program.end_well()
    assert [line.split()[0] for line in program.lines] == [case.name for case in CASES]


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (["--clients", "ours,etcd3"], "'etcd3' is none of ours, aetcd, etcd-client-py, etcd3gw"),
        (["--rounds", "0"], "it is a number from 1 on, not '0'"),
    ],
)
def test_a_bad_argument_is_told(given: list[str], why: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        arguments(given)
    assert why in capsys.readouterr().err


@ensureDeferred
async def test_an_etcd_that_is_not_there_is_told_in_a_line(run: Run) -> None:
    program = bench(run, "--etcd", "/nowhere/etcd")
    assert await program.ended() == 1
    assert program.lines[0].startswith("error: the etcd program /nowhere/etcd cannot be run")


def test_a_peer_that_is_not_installed_is_absent_and_one_that_was_not_named_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("benchmarks.__main__.installed_peers", lambda: ["aetcd"])
    settings = settings_of(arguments(["--clients", "ours,aetcd,etcd3gw"]))
    assert settings.clients == ["ours", "aetcd"]
    assert settings.absent == {"etcd-client-py": "left out", "etcd3gw": "not installed"}
