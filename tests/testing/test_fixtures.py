"""The fixtures as a user has them: in tests of their own, outside of this project, in a pytest of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.etcds import ONE_VERSION

CONFTEST = """
import pytest

pytest_plugins = ["twisted_etcd.testing.fixtures"]

@pytest.fixture(scope="session")
def etcd_cluster_options():
    return {"binary": %r}
"""
SHARED = """
import tempfile
from pathlib import Path
import pytest_twisted
from twisted.internet import reactor
from twisted_etcd import EtcdClient

seen = []

@pytest_twisted.ensureDeferred
async def test_faults(etcd_cluster):
    seen.append(etcd_cluster)
    async with EtcdClient(reactor, etcd_cluster.endpoints) as client:
        await client.put("a", "1")
    first, second, third = etcd_cluster.members
    await first.kill()
    second.isolate()
    third.proxy.swallow()

@pytest_twisted.ensureDeferred
async def test_healed(etcd_cluster):
    assert etcd_cluster is seen[0]
    for member in etcd_cluster.members:
        async with EtcdClient(reactor, member.endpoint) as client:
            assert (await client.get("a")).kvs[0].value == b"1"
    await etcd_cluster.add_member()

@pytest_twisted.inlineCallbacks
def test_new(etcd_cluster):
    assert etcd_cluster is not seen[0]
    assert len(etcd_cluster.members) == 3
    yield etcd_cluster.leader()

@pytest_twisted.ensureDeferred
async def test_stopped(etcd_cluster):
    await etcd_cluster.stopService()

@pytest_twisted.ensureDeferred
async def test_unhealable(etcd_cluster):
    for member in etcd_cluster.members:
        await member.kill()
    for log in Path(tempfile.gettempdir()).glob("*/*/etcd/member/wal/*.wal"):
        log.write_bytes(b"no such thing")

@pytest_twisted.ensureDeferred
async def test_after_unhealable(etcd_cluster):
    await etcd_cluster.leader()
"""
OWN = """
import pytest_twisted
from twisted.internet import reactor
from twisted_etcd import EtcdClient

@pytest_twisted.ensureDeferred
async def test_own(new_etcd_cluster):
    one = await new_etcd_cluster(size=1)
    other = await new_etcd_cluster(size=1, extra_args=("--max-request-bytes=1000",))
    assert {one.endpoints[0]} != {other.endpoints[0]}
    async with EtcdClient(reactor, one.endpoints) as client:
        await client.put("a", "1")
    one.members[0].pause()
"""


def run_tests(directory: Path, binary: Path, tests: str, *arguments: str) -> str:
    (directory / "conftest.py").write_text(CONFTEST % str(binary), "utf-8")
    (directory / "test_theirs.py").write_text(tests, "utf-8")
    temporary = directory / "temporary"
    temporary.mkdir()
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    finished = subprocess.run(
        [sys.executable, "-m", "pytest", "-W", "error", "-p", "no:cacheprovider", "-v", *arguments, str(directory)],
        cwd=directory,
        env={**environ, "TMPDIR": str(temporary), "PYTHONPATH": str(Path(__file__).parents[2])},
        check=False,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert list(temporary.iterdir()) == [], "data of a cluster were left behind"
    return finished.stdout + finished.stderr


def outcomes(output: str) -> dict[str, set[str]]:
    """What became of each test: PASSED, FAILED, ERROR."""
    found: dict[str, set[str]] = {}
    for line in output.splitlines():
        name, _, outcome = line.partition("::")[2].partition(" ")
        if outcome.split(" ")[0] in {"PASSED", "FAILED", "ERROR"}:
            found.setdefault(name, set()).add(outcome.split(" ")[0])
    return found


@ONE_VERSION
def test_the_shared_cluster_is_healed_between_tests_and_replaced_where_it_cannot_be(
    etcd_binary: Path, tmp_path: Path
) -> None:
    output = run_tests(tmp_path, etcd_binary, SHARED)
    assert outcomes(output) == {
        "test_faults": {"PASSED"},
        "test_healed": {"PASSED"},
        "test_new": {"PASSED"},
        "test_stopped": {"PASSED"},
        # the healing after it is what fails
        "test_unhealable": {"PASSED", "ERROR"},
        "test_after_unhealable": {"PASSED"},
    }, output
    assert "StartFailed: etcd (" in output


@ONE_VERSION
@pytest.mark.parametrize("reactor", ["default", "asyncio"])
def test_a_cluster_of_its_own_ends_with_its_test(etcd_binary: Path, tmp_path: Path, reactor: str) -> None:
    output = run_tests(tmp_path, etcd_binary, OWN, f"--reactor={reactor}")
    assert outcomes(output) == {"test_own": {"PASSED"}}, output
