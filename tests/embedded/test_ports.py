from __future__ import annotations

import socket
from pathlib import Path

import pytest

from twisted_etcd.embedded.ports import Ports, free_ports, remember_ports, remembered_ports


def test_free_ports_are_different_and_can_be_bound() -> None:
    ports = free_ports(10)
    assert len(set(ports)) == 10
    for port in ports:
        with socket.socket() as one:
            one.bind(("127.0.0.1", port))


def test_ports_are_remembered(tmp_path: Path) -> None:
    remember_ports(tmp_path / "ports.json", Ports(client=1, peer=2))
    assert remembered_ports(tmp_path / "ports.json") == Ports(client=1, peer=2)


def test_no_file_is_no_memory(tmp_path: Path) -> None:
    assert remembered_ports(tmp_path / "ports.json") is None


@pytest.mark.parametrize("content", ["", "{", "[1, 2]", '{"client": "a", "peer": 2}'])
def test_a_file_that_holds_something_else_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "ports.json").write_text(content)
    with pytest.raises(ValueError, match=r"."):
        remembered_ports(tmp_path / "ports.json")
