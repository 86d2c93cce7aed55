"""Commands, as real processes: how they end, what they said, and that nothing of them is left."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, cast

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.interfaces import IReactorProcess

from tests.programs import is_gone, until_ended
from tests.wire import soon
from twisted_etcd.commands import KEPT_LINES, LONGEST_LINE, Command, CommandReactor, Outcome, Tail


def command(*arguments: str, timeout: float | None = 20, **options: Any) -> Command:  # noqa: ANN401 - as Command has them
    return Command(cast("CommandReactor", reactor), arguments, timeout=timeout, **options)


async def run(*arguments: str, **options: Any) -> Outcome:  # noqa: ANN401 - as Command has them
    return await soon(command(*arguments, **options).run())


def python(code: str) -> tuple[str, ...]:
    return (sys.executable, "-c", code)


@ensureDeferred
async def test_a_command_that_succeeds() -> None:
    outcome = await run("sh", "-c", "echo one; echo two >&2; exit 0")
    assert outcome.succeeded
    assert (outcome.status, outcome.how, sorted(outcome.lines)) == (0, "exit status 0", ["one", "two"])


@ensureDeferred
async def test_a_status_and_a_signal_are_told_apart() -> None:
    failed = await run("sh", "-c", "echo why; exit 3")
    assert (failed.succeeded, failed.status, failed.how, failed.lines) == (False, 3, "exit status 3", ("why",))
    killed = await run("sh", "-c", "kill -KILL $$")
    assert (killed.succeeded, killed.status, killed.how) == (False, -9, "signal SIGKILL")


@pytest.mark.parametrize(
    ("program", "status", "said"),
    [
        ("no-such-program", 127, "no-such-program cannot be run: No such file or directory"),
        ("/etc/passwd", 126, "/etc/passwd cannot be run: Permission denied"),
    ],
)
@ensureDeferred
async def test_a_program_that_cannot_be_run_is_named(program: str, status: int, said: str) -> None:
    outcome = await run(program, "argument")
    assert (outcome.status, outcome.lines) == (status, (said,))


@ensureDeferred
async def test_where_no_process_can_be_started_that_is_the_outcome() -> None:
    class Full:
        def spawnProcess(self, *args: object, **options: object) -> None:
            raise BlockingIOError(11, "Resource temporarily unavailable")

    outcome = await soon(Command(cast("Any", Full()), ["true"], timeout=1).run())
    assert not outcome.succeeded
    assert outcome.lines == ("no process could be started: Resource temporarily unavailable",)
    assert IReactorProcess.providedBy(reactor)


@ensureDeferred
async def test_it_has_no_input_and_the_environment_and_directory_that_are_given(tmp_path: Path) -> None:
    outcome = await run(
        "sh", "-c", 'cat; echo "$A"; pwd', environ={"A": "b", "PATH": os.environ["PATH"]}, directory=tmp_path
    )
    assert outcome.lines == ("b", str(tmp_path))


@ensureDeferred
async def test_it_leads_a_group_of_its_own() -> None:
    outcome = await run(*python("import os; print(os.getpid() == os.getpgid(0) == os.getsid(0))"))
    assert outcome.lines == ("True",)


@ensureDeferred
async def test_no_signal_is_ignored_in_it() -> None:
    outcome = await run("sh", "-c", "grep SigIgn /proc/self/status || echo SigIgn: 0")
    # The two highest are the C library's own.
    assert int(outcome.lines[0].split()[1], 16) & 0x7FFFFFFF == 0


@ensureDeferred
async def test_when_its_time_is_over_all_of_its_group_is_ended() -> None:
    # The child ignores SIGTERM, and lets go of nothing.
    child = "trap '' TERM; echo $$; while :; do sleep 1000; done"
    outcome = await run("sh", "-c", 'sh -c "$1" & wait', "sh", child, timeout=2.0, grace=0.1)
    assert (outcome.succeeded, outcome.how) == (False, "it had not ended after 2 s, and was ended")
    [pid] = outcome.lines
    await until_ended(int(pid))


@ensureDeferred
async def test_a_command_that_ignores_sigterm_is_killed() -> None:
    outcome = await run(
        *python("import signal; signal.signal(15, signal.SIG_IGN); signal.pause()"), timeout=0.5, grace=0.1
    )
    assert outcome.timed_out == 0.5
    assert outcome.status in {-9, -15}


@ensureDeferred
async def test_a_stopped_process_is_ended_too() -> None:
    outcome = await run("sh", "-c", "kill -STOP $$", timeout=0.5)
    assert (outcome.timed_out, outcome.status) == (0.5, -15)


@ensureDeferred
async def test_stop_ends_it_and_fires_once_it_is_reaped() -> None:
    running = command("sleep", "1000")
    outcome = running.run()
    pid = running.pid
    assert pid is not None
    await soon(running.stop())
    assert is_gone(pid)
    told = await soon(outcome)
    assert (told.stopped, told.succeeded, told.how) == (True, False, "it was stopped")
    await soon(running.stop())
    await soon(command("true").stop())


@ensureDeferred
async def test_what_it_leaves_in_the_background_is_left_alone_and_not_waited_for() -> None:
    outcome = await run("sh", "-c", "sleep 1000 & echo $!")
    assert outcome.succeeded
    pid = int(outcome.lines[0])
    assert not is_gone(pid)
    os.kill(pid, 9)
    await until_ended(pid)


@ensureDeferred
async def test_swept_it_ends_with_all_that_it_leaves_in_the_background() -> None:
    # The one ignores SIGTERM.
    outcome = await run("sh", "-c", "(trap '' TERM; sleep 1000) & sleep 1000 & echo $!", sweep=True, grace=0.1)
    assert (outcome.succeeded, outcome.how) == (True, "exit status 0")
    [pid] = outcome.lines
    assert is_gone(int(pid))


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone can tell a process of its parent's death")
@ensureDeferred
async def test_it_dies_with_the_program_that_started_it() -> None:
    program = """
import os
from twisted.internet import reactor
from twisted_etcd.commands import Command

def kill():
    print(command.pid, flush=True)
    os.kill(os.getpid(), 9)

command = Command(reactor, ["sh", "-c", "echo $$; exec sleep 1000"], timeout=None)
reactor.callWhenRunning(command.run)
reactor.callLater(0.5, kill)
reactor.run()
"""
    outcome = await run(*python(program))
    [pid] = outcome.lines
    await until_ended(int(pid))


@ensureDeferred
async def test_a_directory_that_cannot_be_entered_is_named(tmp_path: Path) -> None:
    outcome = await run("true", directory=tmp_path / "gone")
    assert (outcome.status, outcome.lines) == (126, (f"{tmp_path}/gone cannot be entered: No such file or directory",))


def test_a_signal_without_a_name_is_told_by_its_number() -> None:
    assert Outcome(status=-40).how == "signal 40"


@ensureDeferred
async def test_of_a_long_output_the_last_lines_are_kept() -> None:
    outcome = await run(*python("for n in range(100000): print(n)"))
    assert outcome.lines == tuple(str(n) for n in range(100_000 - KEPT_LINES, 100_000))


def test_lines_are_cut_where_they_are_long_and_joined_where_they_came_in_parts() -> None:
    tail = Tail()
    for part in (b"on", b"e\n\n", b"x" * (LONGEST_LINE + 1), b"x" * 10_000_000, b"\ntw", b"o \xff"):
        tail.received(part)
    assert tail.lines() == ("one", "x" * LONGEST_LINE + "…", "two \ufffd")
