from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.wire import LOOPBACK
from twisted_etcd.testing.sockets import held_by


@pytest.fixture
def ports() -> Iterator[tuple[int, int]]:
    """Both ends of a connection that this process has with itself: the one that connected, the one that accepted."""
    with socket.create_server((LOOPBACK, 0)) as listening:
        listened: int = listening.getsockname()[1]
        with socket.create_connection((LOOPBACK, listened)) as connecting:
            accepted, _ = listening.accept()
            with accepted:
                yield connecting.getsockname()[1], listened


def test_a_port_is_held_by_the_process_that_connected_from_it(ports: tuple[int, int]) -> None:
    assert held_by(ports, [os.getpid()])
    assert held_by(ports[::-1], [os.getpid()])


def test_a_port_is_not_held_by_a_process_without_that_socket(ports: tuple[int, int]) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        assert not held_by(ports, [other.pid])
        assert held_by(ports, [other.pid, os.getpid()])
        other.communicate(b"\n")


def test_a_port_that_nobody_holds_is_held_by_nobody() -> None:
    with socket.create_server((LOOPBACK, 0)) as listening:
        port = listening.getsockname()[1]
    assert not held_by((port, port), [os.getpid()])


CONNECTS = f"""
import socket, sys
own, other = map(int, sys.argv[1:])
with socket.socket() as connecting:
    connecting.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    connecting.bind(({LOOPBACK!r}, own))
    connecting.connect(({LOOPBACK!r}, other))
    print(flush=True)
    input()
"""


def test_two_processes_that_connect_from_one_port_are_told_apart() -> None:
    with ExitStack() as stack:
        one, two = (stack.enter_context(socket.create_server((LOOPBACK, 0))).getsockname()[1] for _ in range(2))
        connecting = stack.enter_context(socket.socket())
        connecting.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        connecting.bind((LOOPBACK, 0))
        own = connecting.getsockname()[1]
        connecting.connect((LOOPBACK, one))
        command = [sys.executable, "-c", CONNECTS, str(own), str(two)]
        other = stack.enter_context(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
        assert other.stdout is not None
        assert other.stdout.readline() == b"\n"
        assert held_by((own, one), [os.getpid()])
        assert not held_by((own, one), [other.pid])
        assert held_by((own, two), [other.pid])
        assert not held_by((own, two), [os.getpid()])
        other.communicate(b"\n")


def test_a_process_that_has_ended_holds_nothing(ports: tuple[int, int]) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()
    assert not held_by(ports, [ended.pid])
    assert not held_by(ports, [])
