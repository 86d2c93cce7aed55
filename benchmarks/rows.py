"""From what each round has shown to the rows of the table."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.cases import OURS, Case, Metric
from benchmarks.measuring import median

#: The figures of one turn, by metric.
Figures = Mapping[str, float | None]


@dataclass
class Outcome:
    """
    What became of a case.

    :ivar turns: the figures of each client's turns, a round after the other.
    :ivar failed: why a client could not be measured to the end.
    :ivar absent: why one that can do the case was not asked to, in a word or two.
    """

    case: Case
    turns: dict[str, list[Figures]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)


def rows_of(outcome: Outcome) -> list[dict[str, Any]]:
    """The rows of a case, one for each metric, as the JSON file has them."""
    return [_row(outcome, metric) for metric in outcome.case.metrics]


def _row(outcome: Outcome, metric: Metric) -> dict[str, Any]:
    rounds: dict[str, list[float]] = {}
    for client, turns in outcome.turns.items():
        values = [value for figures in turns if (value := figures.get(metric.name)) is not None]
        if values and client not in outcome.failed:
            rounds[client] = [_rounded(value) for value in values]
    medians = {client: median(values) for client, values in rounds.items()}
    peers = {client: medians.get(client) for client in outcome.turns if client != OURS}
    return {
        "case": outcome.case.name,
        "metric": metric.name,
        "unit": metric.unit,
        "ours": medians.get(OURS),
        "peers": peers,
        "ratio": ratio(medians.get(OURS), peers.values(), more_is_better=metric.more_is_better),
        "rounds": rounds,
        "failed": outcome.failed,
        "absent": outcome.absent,
    }


def ratio(ours: float | None, peers: Any, *, more_is_better: bool) -> float | None:  # noqa: ANN401 - an Iterable
    """
    Ours to the best peer's.

    :return: None where one of the two is missing or not over 0.
    """
    there = [value for value in peers if value is not None]
    if ours is None or not there:
        return None
    best = max(there) if more_is_better else min(there)
    return _rounded(ours / best) if ours > 0 and best > 0 else None


def _rounded(value: float) -> float:
    """To four digits, which is more than any measurement is good for."""
    return float(f"{value:.4g}")


def write_rows(file: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """A list, with a line for each row."""
    lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    file.write_text(f"[\n{lines}\n]\n", "utf-8")


def read_rows(file: Path) -> list[dict[str, Any]]:
    """What :func:`write_rows` wrote."""
    rows: list[dict[str, Any]] = json.loads(file.read_text("utf-8"))
    return rows
