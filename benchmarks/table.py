"""
The table of a run, as Markdown and for a terminal.

``python -m benchmarks.table FILE`` prints the Markdown of a file that ``--json`` wrote, as it stands in the README.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.cases import CLIENTS, OURS
from benchmarks.environment import environment_file, read_environment
from benchmarks.goals import goal_of, verdict
from benchmarks.rows import read_rows

#: What stands where a client cannot do a case.
DASH = "\N{EN DASH}"
#: Below this, a number is shown with digits after the point.
_WHOLE = 100
_HEADING = ("case", "metric", *CLIENTS, "ratio", "goal")

Row = Mapping[str, Any]


def number(value: float) -> str:
    """Three digits, or all before the point: ``0.523``, ``52.3``, ``52,301``."""
    return f"{value:,.0f}" if abs(value) >= _WHOLE else f"{value:.3g}"


def cell(row: Row, client: str, *, spread: bool = False) -> str:
    """
    What a client has reached: a number, ``failed``, why it was not asked, or a dash where it cannot.

    :param spread: with the least and the greatest of its rounds.
    """
    if client in row["failed"]:
        return "failed"
    value = row[OURS] if client == OURS else row["peers"].get(client)
    if value is None:
        return str(row["absent"].get(client, DASH))
    rounds = row["rounds"].get(client, [])
    if spread and len(rounds) > 1:
        return f"{number(value)} ({number(min(rounds))}..{number(max(rounds))})"
    return number(value)


def _cells(row: Row, *, spread: bool) -> list[str]:
    unit = f" ({row['unit']})" if row["unit"] else ""
    goal = goal_of(row)
    return [
        row["case"],
        f"{row['metric']}{unit}",
        *(cell(row, client, spread=spread) for client in CLIENTS),
        DASH if row["ratio"] is None else number(row["ratio"]),
        "" if goal is None else verdict(goal, row),
    ]


def markdown(rows: Sequence[Row], environment: Sequence[str]) -> str:
    """The table as it stands in the README: what it was measured with, and then the rows."""
    lines = [" ".join(environment), ""] if environment else []
    lines += [f"| {' | '.join(_HEADING)} |", f"|{'---|' * len(_HEADING)}"]
    lines += [f"| {' | '.join(_cells(row, spread=False))} |" for row in rows]
    return "\n".join(lines) + "\n"


def plain(rows: Sequence[Row], environment: Sequence[str]) -> str:
    """The table for a terminal: medians, and in brackets the least and the greatest of the rounds."""
    table = [list(_HEADING), *(_cells(row, spread=True) for row in rows)]
    widths = [max(len(line[column]) for line in table) for column in range(len(_HEADING))]
    lines = ["  ".join(part.ljust(width) for part, width in zip(line, widths, strict=True)).rstrip() for line in table]
    failures = {f"{row['case']}, {client}: {why}": None for row in rows for client, why in row["failed"].items()}
    return "\n".join([*environment, "", *lines, *(["", "Failed:", *failures] if failures else [])]) + "\n"


def main() -> None:
    """Print the table of a file."""
    file = Path(sys.argv[1])
    sys.stdout.write(markdown(read_rows(file), read_environment(environment_file(file))))


if __name__ == "__main__":
    main()
