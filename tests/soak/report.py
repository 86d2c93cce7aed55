"""What a run has seen, counted, and as text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

#: What is served, each with the longest time without it.
SERVICES = ("reads", "writes", "watches")
CALM = "(calm)"


class Report:
    """
    The figures of a run.

    A time without service counts for the last fault that began before its end, unless something was served since that
    was taken back.
    """

    def __init__(self, now: float) -> None:
        self.operations: Counter[str] = Counter()
        self.errors: Counter[tuple[str, str]] = Counter()
        self.faults: Counter[str] = Counter()
        self.figures: dict[str, Any] = {}
        self._fault = CALM
        self._last = dict.fromkeys(SERVICES, now)
        self._during = dict.fromkeys(SERVICES, CALM)
        self._longest: dict[tuple[str, str], float] = {}

    def fault_began(self, kind: str) -> None:
        """Something is being broken."""
        self._fault = kind
        self._during = dict.fromkeys(SERVICES, kind)
        self.faults[kind] += 1

    def healed(self) -> None:
        """It is whole again."""
        self._fault = CALM

    def served(self, service: str, now: float) -> None:
        """A read, a write or a watch gave its user something."""
        gap = (self._during[service], service)
        self._longest[gap] = max(self._longest.get(gap, 0.0), now - self._last[service])
        self._last[service] = now
        self._during[service] = self._fault

    def failed(self, error: Exception) -> None:
        """An operation failed, as far as its caller was told."""
        self.errors[self._fault, type(error).__name__] += 1

    def as_json(self) -> dict[str, Any]:
        """All of it, for a file."""
        return {
            **self.figures,
            "operations": dict(self.operations),
            "errors": {f"{fault}: {name}": count for (fault, name), count in sorted(self.errors.items())},
            "faults": dict(self.faults),
            "longest": {f"{fault}: {service}": seconds for (fault, service), seconds in sorted(self._longest.items())},
        }

    def lines(self) -> Iterator[str]:
        """All of it, for a person."""
        total = sum(self.operations.values())
        yield f"{total} operations: " + ", ".join(f"{count} {kind}" for kind, count in sorted(self.operations.items()))
        by_name: Counter[str] = Counter()
        for (_, name), count in self.errors.items():
            by_name[name] += count
        yield f"{by_name.total()} errors: " + ", ".join(f"{count} {name}" for name, count in by_name.most_common())
        for name, figure in self.figures.items():
            yield f"{name}: {figure}"
        yield ""
        yield f"{'fault':24} {'times':>5}  {'longest time without, seconds':^29}  errors"
        yield f"{'':24} {'':5}  " + " ".join(f"{service:>9}" for service in SERVICES)
        for fault in [CALM, *sorted(self.faults)]:
            gaps = " ".join(f"{self._longest.get((fault, service), 0.0):9.2f}" for service in SERVICES)
            errors = ", ".join(
                f"{count} {name}" for (when, name), count in sorted(self.errors.items()) if when == fault
            )
            yield f"{fault:24} {self.faults[fault]:5}  {gaps}  {errors}"
