"""
How fast twisted-etcd is, next to aetcd, etcd-client-py and etcd3gw.

::

    python -m benchmarks

starts an etcd of its own, goes through every case with each client that is installed, in turns, and prints a table of
medians and ratios. The exit status is 1 where a client could not be measured.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

from treq.client import HTTPClient
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import react
from twisted.logger import (
    FilteringLogObserver,
    LogLevel,
    LogLevelFilterPredicate,
    globalLogBeginner,
    textFileLogObserver,
)
from twisted.web.client import Agent

from benchmarks.cases import CASES, CLIENTS, OURS, Case
from benchmarks.environment import describe, environment_file, installed_peers, write_environment
from benchmarks.processes import Worker
from benchmarks.rows import Outcome, rows_of, write_rows
from benchmarks.table import markdown, plain
from benchmarks.turns import Settings, Turns
from twisted_etcd import BinaryNotFound, StartFailed
from twisted_etcd.embedded.binary import find_binary
from twisted_etcd.embedded.process import EmbeddedEtcd
from twisted_etcd.testing.proxy import FaultProxy

ROUNDS, QUICK_ROUNDS = 5, 1
#: How late the late etcd answers, in seconds.
LATE = 0.5
#: The exit status of a program that Ctrl-C has ended.
_INTERRUPTED = 130


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="How fast twisted-etcd is.")
    parser.add_argument(
        "--case",
        action="append",
        choices=[case.name for case in CASES],
        metavar="NAME",
        help="only this case; can be given several times",
    )
    parser.add_argument("--clients", type=_clients, default=CLIENTS, help=f"of {','.join(CLIENTS)} (default: all)")
    parser.add_argument("--rounds", type=_count, help=f"rounds of each case (default: {ROUNDS})")
    parser.add_argument("--quick", action="store_true", help="under a minute: one round, shorter, and smaller")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there, and the environment beside it")
    parser.add_argument("--markdown", action="store_true", help="print the table as it stands in the README")
    parser.add_argument("--etcd", type=Path, metavar="FILE", help="the etcd program (default: as the daemon finds it)")
    parser.add_argument("--unsafe-no-fsync", action="store_true", help="let etcd not wait for its disk")
    parser.add_argument("--list", action="store_true", help="name the cases and end")
    return parser.parse_args(given)


def _clients(text: str) -> tuple[str, ...]:
    named = [part.strip() for part in text.split(",")]
    for name in named:
        if name not in CLIENTS:
            msg = f"{name!r} is none of {', '.join(CLIENTS)}"
            raise argparse.ArgumentTypeError(msg)
    return tuple(client for client in CLIENTS if client in named)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        msg = f"it is a number from 1 on, not {text!r}"
        raise argparse.ArgumentTypeError(msg)
    return int(text)


def settings_of(options: argparse.Namespace) -> Settings:
    """What is run, by the command line and by what is installed."""
    installed = (OURS, *installed_peers())
    absent = {client: "left out" for client in CLIENTS if client not in options.clients}
    absent |= {client: "not installed" for client in options.clients if client not in installed}
    return Settings(
        clients=[client for client in options.clients if client in installed],
        absent=absent,
        rounds=options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS),
        quick=options.quick,
    )


def say(line: str) -> None:
    """How it goes, at once, and not where the table goes."""
    print(line, file=sys.stderr, flush=True)


def report(outcomes: Sequence[Outcome], environment: Sequence[str], options: argparse.Namespace) -> int:
    """Write and print what there is; the exit status."""
    rows = [row for outcome in outcomes for row in rows_of(outcome)]
    if options.json is not None:
        write_rows(options.json, rows)
        write_environment(environment_file(options.json), environment)
    sys.stdout.write((markdown if options.markdown else plain)(rows, environment))
    sys.stdout.flush()
    return 1 if any(outcome.failed for outcome in outcomes) else 0


class Bench:
    """
    One run, with the etcd that it needs.

    :param reactor: Twisted's.
    """

    def __init__(self, reactor: Any, options: argparse.Namespace) -> None:  # noqa: ANN401 - any of Twisted's
        self._reactor = reactor
        self._options = options
        self._settings = settings_of(options)
        self._etcd = EmbeddedEtcd(
            reactor,
            HTTPClient(cast("Any", Agent(reactor))),
            binary=find_binary(options.etcd),
            extra_args=("--log-level=error", *(("--unsafe-no-fsync",) if options.unsafe_no_fsync else ())),
            revive=False,
        )

    async def run(self) -> int:
        """All cases; the exit status. All that was started has ended then."""
        self._etcd.startService()
        proxy = turns = None
        try:
            await self._etcd.when_ready()
            at = urlsplit(self._etcd.endpoint)
            proxy = FaultProxy(self._reactor, str(at.hostname), at.port or 0)
            proxy.startService()
            proxy.delay(LATE)
            turns = Turns(self._start, self._etcd.endpoint, proxy.endpoint, self._settings, say)
            outcomes = [await turns.run(case) for case in self._cases()]
        finally:
            if turns is not None:
                await turns.end()
            if proxy is not None:
                await proxy.stopService()
            await self._etcd.stopService()
        return report(outcomes, self._environment(), self._options)

    def _cases(self) -> list[Case]:
        wanted = self._options.case
        return [case for case in CASES if wanted is None or case.name in wanted]

    def _environment(self) -> list[str]:
        return describe(
            self._etcd.version,
            self._cases(),
            rounds=self._settings.rounds,
            quick=self._settings.quick,
            fsync=not self._options.unsafe_no_fsync,
        )

    def _start(self, module: str, kind: str) -> Worker:
        return Worker(self._reactor, [sys.executable, "-m", module, kind])


async def main(reactor: Any, options: argparse.Namespace) -> None:  # noqa: ANN401 - any of Twisted's
    """
    A run that Ctrl-C ends with all that it has started.

    :raises SystemExit: with the exit status.
    """
    running = Deferred.fromCoroutine(Bench(reactor, options).run())
    over: Deferred[None] = Deferred()

    def interrupt() -> Deferred[None] | None:
        if over.called:
            return None
        running.cancel()
        return over

    reactor.addSystemEventTrigger("before", "shutdown", interrupt)
    try:
        status = await running
    except CancelledError:
        say("interrupted")
        status = _INTERRUPTED
    except StartFailed as error:
        say(f"error: {error}")
        status = 1
    finally:
        over.callback(None)
    raise SystemExit(status)


def command() -> None:
    """Run it."""
    options = arguments()
    if options.list:
        for case in CASES:
            print(f"{case.name:16}  {case.what}")
        return
    observer = FilteringLogObserver(textFileLogObserver(sys.stderr), [LogLevelFilterPredicate(LogLevel.error)])
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)
    try:
        find_binary(options.etcd)
    except BinaryNotFound as error:
        sys.exit(f"error: {error}")
    react(lambda reactor: Deferred.fromCoroutine(main(reactor, options)))


if __name__ == "__main__":
    command()
