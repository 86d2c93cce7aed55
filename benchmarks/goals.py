"""What is to be reached."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.cases import OURS


@dataclass(frozen=True)
class Goal:
    """
    A bound for one metric of one case.

    :ivar peer: whose value ours is divided by; None where the bound is one of our value itself.
    :ivar at_least: whether it must not be less, where it must otherwise not be more.
    """

    case: str
    metric: str
    bound: float
    peer: str | None = None
    at_least: bool = False


GOALS: tuple[Goal, ...] = (
    Goal("get-1", "p50", 1.15, "aetcd"),
    Goal("get-64", "rate", 4, "aetcd", at_least=True),
    Goal("get-64", "cpu", 1 / 3, "aetcd"),
    Goal("get-256", "rate", 5, "aetcd", at_least=True),
    Goal("put-64", "rate", 4, "aetcd", at_least=True),
    Goal("range-10000", "time", 1.3, "aetcd"),
    Goal("watch-delay", "p50", 1.1, "aetcd"),
    Goal("watch-live", "cpu", 0.5, "aetcd"),
    Goal("watch-live-16", "cpu", 0.5, "aetcd"),
    Goal("watch-replay", "cpu", 0.5, "aetcd"),
    Goal("watches-10000", "time", 2),
    Goal("watches-10000", "memory", 2),
    Goal("watches-10000", "connections", 1),
    Goal("keepalive-10000", "cpu", 5),
    Goal("keepalive-10000", "connections", 1),
    Goal("message-1", "p50", 25),
    Goal("service-get-64", "share", 0.75, at_least=True),
    Goal("late-etcd", "p99", 5),
    Goal("import", "beyond", 100),
    # The memory of a process is never quite the same.
    Goal("memory", "growth", 2),
)


def goal_of(row: Mapping[str, Any], goals: Sequence[Goal] = GOALS) -> Goal | None:
    """The goal of a row of the table, where there is one."""
    return next((goal for goal in goals if (goal.case, goal.metric) == (row["case"], row["metric"])), None)


def verdict(goal: Goal, row: Mapping[str, Any]) -> str:
    """
    What the bound is, whether it is reached, and by which figure: ``"≤ 1.15 of aetcd: missed (2.1)"``.

    A figure that is missing is none that is reached.
    """
    sign = "≥" if goal.at_least else "≤"
    text = f"{sign} {goal.bound:.3g} {f'of {goal.peer}' if goal.peer else row['unit']}".rstrip()
    figure = figure_of(goal, row)
    if figure is None:
        return f"{text}: not measured"
    reached = figure >= goal.bound if goal.at_least else figure <= goal.bound
    return f"{text}: {'reached' if reached else 'missed'} ({figure:.3g})"


def figure_of(goal: Goal, row: Mapping[str, Any]) -> float | None:
    """What is held against the bound."""
    ours: float | None = row[OURS]
    if goal.peer is None or ours is None:
        return ours
    theirs: float | None = row["peers"].get(goal.peer)
    return ours / theirs if theirs else None
