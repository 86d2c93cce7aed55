"""
Spoiled answers, many of them.

::

    python -m tests.fuzz --cases 100000

The exit status is 1 where a case did not end as promised; the seed that is printed with it makes it again.
"""

from __future__ import annotations

import argparse
import resource
import secrets
import sys
import time

from twisted.logger import globalLogBeginner

from tests.fuzz.subject import Run, Spoiled, collected

_KIB = 1024


def say(line: str) -> None:
    """Print it at once."""
    print(line, flush=True)  # noqa: T201 - a program


def main() -> int:
    """All cases."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Spoiled answers, many of them.")
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", default=None, help="of the run, or RUN:NUMBER of one case")
    options = parser.parse_args()
    globalLogBeginner.beginLoggingTo([], redirectStandardIO=False, discardBuffer=True)
    seed = options.seed or str(secrets.randbelow(1_000_000))
    names = [seed] if ":" in seed else [f"{seed}:{number}" for number in range(options.cases)]
    say(f"{len(names)} cases with --seed {seed}")
    spoiled = 0
    slowest = (0.0, "")
    began = time.monotonic()
    with Run() as run:
        objects = 0
        for number, name in enumerate(names, 1):
            start = time.monotonic()
            try:
                run.case(name)
            except Spoiled as error:
                spoiled += 1
                say(f"--seed {name}: {error}")
            slowest = max(slowest, (time.monotonic() - start, name))
            if number == min(1000, len(names)):
                objects = collected()
            if number % 10_000 == 0:
                say(f"{number} cases in {time.monotonic() - began:.0f} s")
        grown = collected() - objects
    for (kind, outcome), count in sorted(run.outcomes.items()):
        say(f"{count:8} {kind:10} {outcome}")
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _KIB
    say(f"{grown} objects more than after 1000 cases, {memory:.0f} MiB at most")
    say(f"the slowest took {slowest[0]:.2f} s: --seed {slowest[1]}")
    say(f"{len(names)} cases in {time.monotonic() - began:.0f} s, {spoiled} did not end as promised")
    return 1 if spoiled else 0


if __name__ == "__main__":
    sys.exit(main())
