"""What an etcd of our own finds in its environment."""

from __future__ import annotations

import pytest

from twisted_etcd.embedded.environment import etcd_environment


@pytest.mark.parametrize(("machine", "architecture"), [("aarch64", "arm64"), ("armv7l", "arm"), ("riscv64", "riscv64")])
def test_older_versions_are_told_to_run_on_rarer_machines(machine: str, architecture: str) -> None:
    assert etcd_environment({}, machine) == {"ETCD_UNSUPPORTED_ARCH": architecture}


def test_on_x86_nothing_needs_telling() -> None:
    assert etcd_environment({"A": "b"}, "x86_64") == {"A": "b"}
