"""
The long test.

::

    python -m tests.soak --minutes 30

runs writers, readers, watches, leases and registrations against a cluster of three while faults come at random, and
checks what all of them saw. The exit status is 1 where a promise was broken.
"""

from __future__ import annotations

import argparse
import json
import secrets
import sys
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import react
from twisted.logger import (
    FilteringLogObserver,
    LogLevel,
    LogLevelFilterPredicate,
    globalLogBeginner,
    textFileLogObserver,
)

from tests.soak.soak import Settings, Soak, verdict


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description="The long test.")
    parser.add_argument("--minutes", type=float, default=2.0, help="how long faults come (default: 2)")
    parser.add_argument("--seed", type=int, default=None, help="repeats the faults of a run; it is printed")
    parser.add_argument("--etcd", type=Path, default=None, help="the etcd program (default: as the daemon finds it)")
    parser.add_argument("--faults", default="", help="only these kinds, with commas between them")
    parser.add_argument("--json", type=Path, default=None, help="a file for the figures")
    parser.add_argument("--log", type=Path, default=None, help="a file for what is logged, from warnings on")
    return parser.parse_args()


def say(line: str) -> None:
    """Print it at once."""
    print(line, flush=True)  # noqa: T201 - a program


async def main(reactor: Any, options: argparse.Namespace) -> None:  # noqa: ANN401 - any of Twisted's
    """One run."""
    seed = secrets.randbelow(1_000_000) if options.seed is None else options.seed
    kinds = tuple(part.strip() for part in options.faults.split(",") if part.strip())
    say(f"{options.minutes:g} minutes with --seed {seed}")
    soak = Soak(reactor, Settings(minutes=options.minutes, seed=seed, binary=options.etcd, kinds=kinds), say)
    report = await soak.run()
    for line in (*report.lines(), "", *soak.broken, f"--seed {seed}: {verdict(soak.broken)}"):
        say(line)
    if options.json is not None:
        options.json.write_text(json.dumps(report.as_json(), indent=2, default=str) + "\n", encoding="utf-8")
    if soak.broken:
        sys.exit(1)


def begin() -> None:
    """Run it, and be the program that it is."""
    options = arguments()
    observers: list[Any] = []
    if options.log is not None:
        file = textFileLogObserver(options.log.open("w", encoding="utf-8"))
        observers.append(FilteringLogObserver(file, [LogLevelFilterPredicate(defaultLogLevel=LogLevel.warn)]))
    globalLogBeginner.beginLoggingTo(observers, redirectStandardIO=False, discardBuffer=True)
    react(lambda reactor: Deferred.fromCoroutine(main(reactor, options)))


if __name__ == "__main__":
    begin()
