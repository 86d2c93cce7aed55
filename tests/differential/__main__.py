"""
A real etcd and the one in memory, compared at random.

::

    python -m tests.differential --steps 10000

The exit status is 1 where they answer differently; the seed that is printed makes it again.
"""

from __future__ import annotations

import argparse
import secrets
import time
import traceback
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, cast

from twisted.internet import reactor, task, threads
from twisted.internet.defer import Deferred
from twisted.logger import globalLogBeginner

from tests.client.users import CHEAP
from tests.differential.machine import compare
from tests.etcds import QUICK_ELECTIONS, binaries, new_etcd, version


def say(line: str) -> None:
    """Print it at once."""
    print(line, flush=True)  # noqa: T201 - a program


def run(work: Coroutine[Any, Any, Any]) -> Any:  # noqa: ANN401 - what the work gives
    """In the reactor's thread, while this one waits."""
    return threads.blockingCallFromThread(cast("Any", reactor), lambda: Deferred.fromCoroutine(work))


async def compared(options: argparse.Namespace, seed: int) -> int:
    """All steps, in a thread of their own: the reactor must be in the main one, to see an etcd that dies."""
    server = new_etcd(options.etcd, extra_args=(*QUICK_ELECTIONS, CHEAP))
    server.startService()
    try:
        await server.when_ready()
        steps: int = await threads.deferToThread(
            compare, run, server.endpoint, options.steps, seed, shrink=options.shrink
        )
    finally:
        await server.stopService()
    return steps


def main() -> None:
    """All steps, and what came of them."""
    parser = argparse.ArgumentParser(prog="python -m tests.differential", description="Two etcds, compared at random.")
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--etcd", type=Path, default=binaries()[0][1], help="the real one")
    parser.add_argument("--shrink", action="store_true", help="look for the shortest way to a difference")
    options = parser.parse_args()
    globalLogBeginner.beginLoggingTo([], redirectStandardIO=False, discardBuffer=True)
    seed = secrets.randbelow(1_000_000) if options.seed is None else options.seed
    say(f"{options.steps} steps with --seed {seed}, against etcd {version(options.etcd)}")

    async def all_of_it(_reactor: object) -> None:
        began = time.monotonic()
        try:
            steps = await compared(options, seed)
        except AssertionError as error:
            notes = "\n".join(getattr(error, "__notes__", ()))
            say(f"different, with --seed {seed}:\n{error}\n{notes}")
            raise SystemExit(1) from None
        except Exception:
            # Nobody reads the log.
            say(traceback.format_exc())
            raise
        say(f"{steps} steps in {time.monotonic() - began:.0f} s, no difference")

    task.react(all_of_it)


if __name__ == "__main__":
    main()
