"""Programs that are run as checks, with all that they leave behind."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from tests.programs import is_gone
from tests.said import Said
from tests.wire import PATIENCE, soon
from twisted_etcd.errors import InvalidSettings
from twisted_etcd.registry.health.command import CommandCheck
from twisted_etcd.registry.health.result import CheckResult
from twisted_etcd.registry.instance import Status

REACTOR = cast("Any", reactor)
PASSING, WARNING, CRITICAL = Status
SECRET = "hunter2"
#: Of prctl(2).
PR_SET_CHILD_SUBREAPER = 36


def shell(script: str, **options: Any) -> CommandCheck:  # noqa: ANN401 - as CommandCheck has them
    return CommandCheck(REACTOR, ["/bin/sh", "-c", script], **options)


def look(script: str, **options: Any) -> Deferred[CheckResult]:  # noqa: ANN401 - as CommandCheck has them
    return soon(shell(script, **options).check())


async def until(condition: Callable[[], bool]) -> None:
    """Until it is so, of what happens in other processes."""
    end = REACTOR.seconds() + PATIENCE
    while not condition():
        assert REACTOR.seconds() < end, "it did not happen"
        await deferLater(REACTOR, 0.01)


@pytest.fixture
def pids(tmp_path: Path) -> Callable[[int], Deferred[list[int]]]:
    """The processes that wrote their number into the file ``pids``, once there are so many."""
    file = tmp_path / "pids"

    def numbers() -> list[int]:
        return [int(line) for line in file.read_text().splitlines()] if file.exists() else []

    async def found(count: int) -> list[int]:
        await until(lambda: len(numbers()) >= count)
        return numbers()

    return lambda count: Deferred.fromCoroutine(found(count))


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("exit 0", CheckResult(PASSING, "exit status 0")),
        ("echo all is well", CheckResult(PASSING, "exit status 0: all is well")),
        ("echo the disk is nearly full; exit 1", CheckResult(WARNING, "exit status 1: the disk is nearly full")),
        ("echo it is full >&2; exit 2", CheckResult(CRITICAL, "exit status 2: it is full")),
        ("echo first; echo last; echo; exit 3", CheckResult(CRITICAL, "exit status 3: last")),
        ("printf 'no end'; exit 255", CheckResult(CRITICAL, "exit status 255: no end")),
        ("kill -SEGV $$", CheckResult(CRITICAL, "ended by SIGSEGV")),
        (r"printf 'a\033[1m\tb\001\n'", CheckResult(PASSING, "exit status 0: a [1m b")),
        (r"printf 'caf\351\n'", CheckResult(PASSING, "exit status 0: caf�")),
    ],
)
@ensureDeferred
async def test_its_end_says_how_it_is(script: str, expected: CheckResult) -> None:
    assert await look(script) == expected


@ensureDeferred
async def test_of_much_output_the_end_is_kept_and_little_of_it_shown() -> None:
    result = await look("head -c 3000000 /dev/zero | tr '\\0' x")
    assert result == CheckResult(PASSING, f"exit status 0: {'x' * 199}…")


@ensureDeferred
async def test_it_has_no_input_a_directory_and_an_environment(tmp_path: Path) -> None:
    assert (await look("cat; pwd", cwd=tmp_path)).why == f"exit status 0: {tmp_path}"
    environ = {"PATH": os.defpath, "GREETING": "hello"}
    assert (await look("echo $GREETING $HOME", env=environ)).why == "exit status 0: hello"
    assert (await look("echo ${#PATH}")).why == f"exit status 0: {len(os.environ['PATH'])}"


@ensureDeferred
async def test_a_program_is_found_on_its_path_and_beside_its_directory(tmp_path: Path) -> None:
    program = tmp_path / "bin" / "check-shop"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho $0 $1\n")
    program.chmod(0o755)
    named = CommandCheck(REACTOR, ["check-shop", "x"], env={"PATH": str(program.parent)})
    assert (await soon(named.check())).why == f"exit status 0: {program} x"
    relative = CommandCheck(REACTOR, ["bin/check-shop", "y"], cwd=tmp_path)
    assert (await soon(relative.check())).why == f"exit status 0: {program} y"


@ensureDeferred
async def test_a_program_that_is_not_there_has_failed(tmp_path: Path) -> None:
    missing = CommandCheck(REACTOR, ["no-such-program", SECRET])
    assert await soon(missing.check()) == CheckResult(
        CRITICAL, "there is no program 'no-such-program' on PATH that can be run"
    )
    (tmp_path / "text").write_text("echo")
    for path in (tmp_path / "text", tmp_path / "none", tmp_path):
        result = await soon(CommandCheck(REACTOR, [str(path), SECRET]).check())
        assert result == CheckResult(CRITICAL, f"there is no program '{path}' that can be run")


@ensureDeferred
async def test_a_program_that_cannot_be_run_has_failed_and_is_no_warning(tmp_path: Path) -> None:
    program = tmp_path / "check"
    program.write_text("#!/no/such/interpreter\n")
    program.chmod(0o755)
    result = await soon(CommandCheck(REACTOR, [str(program)]).check())
    assert result == CheckResult(CRITICAL, f"exit status 126: {program} cannot be run: No such file or directory")
    result = await look("exit 0", cwd=tmp_path / "gone")
    assert result == CheckResult(
        CRITICAL, f"exit status 126: {tmp_path}/gone cannot be entered: No such file or directory"
    )


@ensureDeferred
async def test_broken_pipes_end_programs_as_they_do_in_a_shell() -> None:
    # Python ignores SIGPIPE, and what it starts would ignore it, too.
    result = await look("grep -i '^SigIgn' /proc/self/status")
    ignored = int(result.why.split()[-1], 16)
    assert not ignored & (1 << (signal.SIGPIPE - 1))


@ensureDeferred
async def test_it_has_a_session_and_a_group_of_its_own() -> None:
    result = await look("ps -o pid=,pgid=,sid= -p $$")
    pid, group, session = result.why.removeprefix("exit status 0: ").split()
    assert pid == group == session != str(os.getsid(0))


# --- its group ------------------------------------------------------------------------------------------------------


@ensureDeferred
async def test_cancelled_it_ends_with_all_its_children(
    tmp_path: Path, pids: Callable[[int], Deferred[list[int]]]
) -> None:
    looking = look("(echo $$; sh -c 'echo $$ >>pids; sleep 600' & echo $$ >>pids; sleep 600)", cwd=tmp_path)
    processes = await pids(2)
    looking.cancel()
    await soon(looking.addErrback(lambda _: None))
    assert [pid for pid in processes if not is_gone(pid)] == []


@ensureDeferred
async def test_who_ignores_sigterm_is_killed_after_the_grace(
    tmp_path: Path, pids: Callable[[int], Deferred[list[int]]]
) -> None:
    stubborn = "trap '' TERM; echo $$ >>pids; while true; do sleep 0.05; done"
    looking = look(
        f"trap '' TERM; sh -c \"{stubborn.replace('$', chr(92) + '$')}\" & {stubborn}", cwd=tmp_path, grace=0.2
    )
    processes = await pids(2)
    began = REACTOR.seconds()
    looking.cancel()
    await soon(looking.addErrback(lambda _: None))
    assert REACTOR.seconds() - began >= 0.2
    assert [pid for pid in processes if not is_gone(pid)] == []


@ensureDeferred
async def test_what_it_leaves_behind_at_its_end_is_ended_too(
    tmp_path: Path, pids: Callable[[int], Deferred[list[int]]]
) -> None:
    result = await look(
        "sh -c 'echo $$ >>pids; exec sleep 600' & while ! [ -s pids ]; do :; done; echo up", cwd=tmp_path
    )
    assert result == CheckResult(PASSING, "exit status 0: up")
    assert [pid for pid in await pids(1) if not is_gone(pid)] == []


@pytest.fixture
def heir() -> Iterator[None]:
    """Has this process inherit the orphans, as the first process of a container does."""
    prctl = ctypes.CDLL(None).prctl
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    yield
    prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


@pytest.mark.usefixtures("heir")
@ensureDeferred
async def test_orphans_that_become_ours_are_reaped(
    tmp_path: Path, pids: Callable[[int], Deferred[list[int]]], said: Said
) -> None:
    result = await look("sh -c 'echo $$ >>pids; exec sleep 600' & while ! [ -s pids ]; do :; done", cwd=tmp_path)
    assert result.status is PASSING
    assert [pid for pid in await pids(1) if not is_gone(pid)] == []
    assert said.count("cannot be ended") == 0


@ensureDeferred
async def test_what_has_left_the_group_does_not_hold_it_up(
    tmp_path: Path, pids: Callable[[int], Deferred[list[int]]]
) -> None:
    result = await look(
        "setsid sh -c 'echo $$ >>pids; exec sleep 600' & while ! [ -s pids ]; do :; done; echo up", cwd=tmp_path
    )
    assert result == CheckResult(PASSING, "exit status 0: up")
    (daemon,) = await pids(1)
    os.kill(daemon, signal.SIGKILL)
    await until(lambda: is_gone(daemon))


@ensureDeferred
async def test_cancelled_at_once_it_leaves_nothing() -> None:
    # the session may not be there yet
    looking = shell("sleep 600").check()
    looking.cancel()
    await soon(looking.addErrback(lambda _: None))


@ensureDeferred
async def test_cancelled_twice_it_still_ends_its_group(
    tmp_path: Path, pids: Callable[[int], Deferred[list[int]]]
) -> None:
    looking = look("trap '' TERM; echo $$ >>pids; while true; do sleep 0.05; done", cwd=tmp_path, grace=0.2)
    (pid,) = await pids(1)
    looking.cancel()
    looking.cancel()
    await soon(looking.addErrback(lambda _: None))
    await until(lambda: is_gone(pid))


@ensureDeferred
async def test_a_stopped_program_is_ended(tmp_path: Path, pids: Callable[[int], Deferred[list[int]]]) -> None:
    looking = look("echo $$ >>pids; kill -STOP $$", cwd=tmp_path, grace=0.2)
    (pid,) = await pids(1)
    looking.cancel()
    await soon(looking.addErrback(lambda _: None))
    assert is_gone(pid)


# --- what is no command, and what is shown --------------------------------------------------------------------------


@pytest.mark.parametrize("argv", [[], [""], ["a\0b"], "check --fast", [Path("check")], [b"check"]])
def test_what_is_no_command_is_refused(argv: Any) -> None:  # noqa: ANN401 - wrong on purpose
    with pytest.raises(InvalidSettings, match=r"a command .* such as .'/usr/bin/check', '--fast'"):
        CommandCheck(REACTOR, argv)


@ensureDeferred
async def test_neither_arguments_nor_environment_are_shown(said: Said) -> None:
    check = CommandCheck(REACTOR, ["/bin/true", f"--password={SECRET}"], env={"PASSWORD": SECRET})
    assert repr(check) == "<CommandCheck /bin/true>"
    result = await soon(check.check())
    assert result == CheckResult(PASSING, "exit status 0")
    assert said.count(SECRET) == 0
