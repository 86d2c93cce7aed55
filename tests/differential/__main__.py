"""
A real etcd and the one in memory, compared at random.

::

    python -m tests.differential --steps 10000

The exit status is 1 where they answer differently; the seed that is printed makes it again.
"""

from __future__ import annotations

import argparse
import secrets
import sys
import time
from collections.abc import Coroutine
from pathlib import Path
from threading import Thread
from typing import Any, cast

from twisted.internet import reactor, threads
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


def main() -> int:
    """All steps."""
    parser = argparse.ArgumentParser(prog="python -m tests.differential", description="Two etcds, compared at random.")
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--etcd", type=Path, default=binaries()[0][1], help="the real one")
    parser.add_argument("--shrink", action="store_true", help="look for the shortest way to a difference")
    options = parser.parse_args()
    globalLogBeginner.beginLoggingTo([], redirectStandardIO=False, discardBuffer=True)
    seed = secrets.randbelow(1_000_000) if options.seed is None else options.seed
    say(f"{options.steps} steps with --seed {seed}, against etcd {version(options.etcd)}")
    began = time.monotonic()
    thread = Thread(target=cast("Any", reactor).run, kwargs={"installSignalHandlers": False})
    thread.start()
    server = new_etcd(options.etcd, extra_args=(*QUICK_ELECTIONS, CHEAP))

    async def start() -> None:
        server.startService()
        await server.when_ready()

    async def stop() -> None:
        await server.stopService()

    try:
        run(start())
        done = compare(run, server.endpoint, options.steps, seed, shrink=options.shrink)
    except AssertionError as error:
        say(f"different, with --seed {seed}:\n{error}")
        return 1
    finally:
        run(stop())
        cast("Any", reactor).callFromThread(cast("Any", reactor).stop)
        thread.join()
    say(f"{done} steps in {time.monotonic() - began:.0f} s, no difference")
    return 0


if __name__ == "__main__":
    sys.exit(main())
