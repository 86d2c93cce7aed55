"""Fixtures of the whole test-suite: real etcds, and the guards that every test is held to."""

from __future__ import annotations

import gc
import inspect
import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.logger import STDLibLogObserver, globalLogBeginner

from tests.etcds import MEMORY, QUICK_ELECTIONS, FreshEtcd, binaries, new_etcd
from tests.guards import STANDING, clean_reactor, logged_errors
from tests.programs import run
from tests.said import said
from twisted_etcd.embedded.process import EmbeddedEtcd
from twisted_etcd.testing.memory.etcd import MemoryEtcd
from twisted_etcd.testing.shared import SharedCluster

#: ``etcd_cluster`` and ``new_etcd_cluster``, as users have them.
pytest_plugins = ["twisted_etcd.testing.fixtures"]

__all__ = ["clean_reactor", "logged_errors", "run", "said"]

_numbers = itertools.count(1)
_finished = itertools.count(1)


def pytest_sessionstart() -> None:
    """Show the log of a failed test, and keep none of it longer."""
    globalLogBeginner.beginLoggingTo([STDLibLogObserver()], redirectStandardIO=False, discardBuffer=True)


def pytest_collection_finish() -> None:
    """Make the collection after each test quick: what is there now is there to stay."""
    gc.collect()
    gc.freeze()


def pytest_runtest_logfinish() -> None:
    """So are the reports of the tests, which become many."""
    if next(_finished) % 100 == 0:
        gc.collect()
        gc.freeze()


#: What no etcd in memory has: processes to stop, sockets to put a proxy before, a version.
PROCESSES = frozenset({"proxy", "fresh_etcd", "etcd_cluster", "new_etcd_cluster"})


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """
    Contract suites run against the etcd in memory too, but for what is about processes and sockets.

    A module says so itself with ``IN_MEMORY_TOO`` where its name does not, and names fewer real ones with ``SERVERS``.
    """
    name = metafunc.module.__name__.rpartition(".")[2]
    if not name.startswith("test_contract_") and not getattr(metafunc.module, "IN_MEMORY_TOO", False):
        return
    asks = {"etcd_binary"} & set(inspect.signature(metafunc.function).parameters)
    named = [mark.args[0] for mark in metafunc.definition.iter_markers("parametrize")]
    if (
        "etcd_binary" not in metafunc.fixturenames
        or "etcd_binary" in named
        or asks
        or PROCESSES & set(metafunc.fixturenames)
    ):
        return
    servers = [*getattr(metafunc.module, "SERVERS", binaries()), ("memory", MEMORY)]
    # As a mark, which takes the place of the fixture's own parameters.
    everywhere = pytest.mark.parametrize(
        "etcd_binary", [path for _, path in servers], ids=[name for name, _ in servers], indirect=True
    )
    metafunc.definition.add_marker(everywhere)


@pytest.fixture(scope="session", params=[path for _, path in binaries()], ids=[label for label, _ in binaries()])
def etcd_binary(request: pytest.FixtureRequest) -> Path:
    """The program of each etcd version under test."""
    binary: Path = request.param
    return binary


@pytest.fixture(scope="session")
def etcd_server(etcd_binary: Path) -> Iterator[EmbeddedEtcd]:
    """A running etcd of each version, shared by all tests: use keys under ``prefix``, and change no settings of it."""
    if etcd_binary == MEMORY:
        # Only the tests of tests/client/conftest.py get it, whose clients know what to do with it.
        yield cast("EmbeddedEtcd", MemoryEtcd(cast("Any", reactor)))
        return
    server = new_etcd(etcd_binary)
    server.startService()
    try:
        pytest_twisted.blockon(server.when_ready())
        yield server
    finally:
        pytest_twisted.blockon(server.stopService())


@pytest.fixture
def fresh_etcd(etcd_binary: Path) -> Iterator[FreshEtcd]:
    """
    Makes etcds for one test alone, of each version: ``server = yield fresh_etcd(extra_args=(…))``.

    The Deferred fires when the server answers. It takes what ``EmbeddedEtcd`` takes, and stops the server at the end.
    ``QUICK_ELECTIONS`` come before the arguments that are given.
    """
    servers: list[EmbeddedEtcd] = []

    def start(*, extra_args: Sequence[str] = (), **options: Any) -> Deferred[EmbeddedEtcd]:  # noqa: ANN401 - as EmbeddedEtcd
        server = new_etcd(etcd_binary, extra_args=(*QUICK_ELECTIONS, *extra_args), **options)
        servers.append(server)
        server.startService()
        return server.when_ready().addCallback(lambda _: server)

    yield start
    pytest_twisted.blockon(gatherResults([server.stopService() for server in servers]))


@pytest.fixture(scope="session")
def etcd_cluster_options(etcd_binary: Path) -> Mapping[str, Any]:
    """Clusters of each etcd version."""
    return {"binary": etcd_binary}


@pytest.fixture(scope="session")
def shared_etcd_cluster(shared_etcd_cluster: SharedCluster) -> Iterator[SharedCluster]:
    """The same, known to the guards: tests may restart its members."""
    STANDING.append(shared_etcd_cluster)
    yield shared_etcd_cluster
    STANDING.remove(shared_etcd_cluster)


@pytest.fixture
def prefix() -> str:
    """A key prefix that no other test uses."""
    return f"/test-{next(_numbers)}/"
