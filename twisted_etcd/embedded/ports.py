"""Free ports of the loopback interface, and the ones that a data directory was last served on."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from pathlib import Path

import msgspec

LOOPBACK = "127.0.0.1"


class Ports(msgspec.Struct, frozen=True):
    """
    What an etcd listens on.

    :ivar client: for its clients.
    :ivar peer: for other members.
    """

    client: int
    peer: int


def free_ports(count: int) -> list[int]:
    """
    Different TCP ports that were free a moment ago.

    Nothing holds them: whoever uses one must be ready to find it taken.
    """
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind((LOOPBACK, 0))
        return [each.getsockname()[1] for each in sockets]


def remembered_ports(file: Path) -> Ports | None:
    """
    What :func:`remember_ports` wrote; ``None`` where there is no such file.

    :raises ValueError: where the file holds something else.
    """
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        return None
    return msgspec.json.decode(content, type=Ports)


def remember_ports(file: Path, ports: Ports) -> None:
    """Keep the ports, so that clients find the same data at the same address after a restart."""
    file.write_bytes(msgspec.json.encode(ports) + b"\n")
