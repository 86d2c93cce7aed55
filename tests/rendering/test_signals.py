"""Signals for real processes, found by a file and by their name."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_twisted import ensureDeferred

from tests.programs import Program, Run
from twisted_etcd.errors import RenderError
from twisted_etcd.rendering.entry import SendSignal
from twisted_etcd.rendering.signals import send_signal

#: Says who it is, has a child of the same name, and says of each SIGHUP which of both got it.
SERVER = """
import os, signal, sys
child = os.fork()
name = "parent" if child else "child"
signal.signal(signal.SIGHUP, lambda *_: os.write(1, f"{name} reloads\\n".encode()))
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
os.write(1, f"{name} is {os.getpid()}\\n".encode())
while True:
    signal.pause()
"""
HUP = signal.SIGHUP


@pytest.fixture
def children() -> Iterator[list[int]]:
    pids: list[int] = []
    yield pids
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


async def serve(program: Program, children: list[int]) -> int:
    children.append(int((await program.until("child is ")).split()[-1]))
    return int((await program.until("parent is ")).split()[-1])


@ensureDeferred
async def test_the_process_in_a_file_gets_it(tmp_path: Path, run: Run, children: list[int]) -> None:
    program = run("-c", SERVER)
    file = tmp_path / "pid"
    file.write_text(f"{await serve(program, children)}\n")
    send_signal(SendSignal(number=HUP, pid_file=file))
    await program.until("parent reloads")


@ensureDeferred
async def test_of_several_of_one_name_those_get_it_whose_parent_is_none_of_them(
    tmp_path: Path, run: Run, children: list[int]
) -> None:
    # A name that nobody else has, longer than the kernel keeps.
    name = f"served-{os.getpid()}-rendering"
    code = f"import ctypes; ctypes.CDLL(None).prctl(15, b'{name}', 0, 0, 0)\n{SERVER}"
    program = run("-c", code)
    await serve(program, children)
    send_signal(SendSignal(number=HUP, process=name))
    await program.until("parent reloads")
    assert not [line for line in program.lines if line == "child reloads"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "pid cannot be read: No such file or directory; is the program running?"),
        (b"", "pid holds no process number"),
        (b"nginx", "pid holds no process number"),
        (b"0", "pid holds no process number"),
        (b"9" * 30, "pid holds no process number"),
        (b"-1", "pid holds no process number"),
        (b"\xff", "pid holds no process number"),
        (b"4194305\n", "process 4194305, which {directory}/pid names, does not run"),
    ],
)
def test_a_file_that_names_no_process_is_said(tmp_path: Path, content: bytes | None, said: str) -> None:
    file = tmp_path / "pid"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(RenderError) as caught:
        send_signal(SendSignal(number=HUP, pid_file=file))
    assert str(caught.value).endswith(said.format(directory=tmp_path))


def test_a_program_that_does_not_run_is_said() -> None:
    with pytest.raises(RenderError, match=r"^no program nobody-runs-me runs$"):
        send_signal(SendSignal(number=HUP, process="nobody-runs-me"))


def test_signals_have_words() -> None:
    assert str(SendSignal(number=HUP, pid_file=Path("/run/x.pid"))) == "SIGHUP to the process of /run/x.pid"
    assert str(SendSignal(number=HUP, process="nginx")) == "SIGHUP to the program nginx"
