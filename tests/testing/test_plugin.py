"""The plugin of pytest and the mixins for trial as a user has them: in a small project of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

#: Nothing but the tests: the fixtures are there by themselves.
UNDER_PYTEST_TWISTED = """
import pytest_twisted
from twisted.internet import reactor
from twisted_etcd import EtcdClient

prefixes, servers = [], []

@pytest_twisted.ensureDeferred
async def test_one_server(etcd_server, etcd_client, etcd_prefix):
    prefixes.append(etcd_prefix)
    servers.append(etcd_server)
    await etcd_client.put(etcd_prefix + "k", "v")
    async with EtcdClient(reactor, etcd_server.endpoint) as client:
        assert (await client.get(etcd_prefix, prefix=True)).count == 1

@pytest_twisted.ensureDeferred
async def test_another_prefix_in_the_same_server(etcd_server, etcd_client, etcd_prefix):
    assert servers == [etcd_server]
    assert etcd_prefix not in prefixes
    assert (await etcd_client.get(prefixes[0], prefix=True)).count == 0

@pytest_twisted.ensureDeferred
async def test_a_server_of_its_own(new_etcd_server, etcd_server):
    server = await new_etcd_server(extra_args=["--max-txn-ops=8"])
    assert server.endpoint != etcd_server.endpoint
    async with EtcdClient(reactor, server.endpoint) as client:
        assert (await client.put("k", "v")).header.revision == 2

@pytest_twisted.ensureDeferred
async def test_in_memory(memory_etcd):
    client = memory_etcd.client()
    watch = client.watch("k")
    await watch.ready
    await client.put("k", "v")
    assert (await watch.next()).events[0].kv.value == b"v"
    async with EtcdClient(memory_etcd.reactor, memory_etcd.endpoint) as other:
        assert (await other.get("k")).count == 1

def test_on_a_clock(clocked_etcd):
    client = clocked_etcd.client()
    lease = clocked_etcd.wait(client.lease(10))
    clocked_etcd.advance(100)
    assert lease.alive

@pytest_twisted.ensureDeferred
async def test_a_cluster(new_etcd_cluster):
    cluster = await new_etcd_cluster(size=1)
    assert len(cluster.members) == 1
"""
TESTS = {
    "test_one_server",
    "test_another_prefix_in_the_same_server",
    "test_a_server_of_its_own",
    "test_in_memory",
    "test_on_a_clock",
    "test_a_cluster",
}
WITHOUT_A_REACTOR = """
import sys

def test_no_reactor_was_installed_before_one_was_asked_for():
    assert "twisted.internet.reactor" not in sys.modules

def test_on_a_clock(clocked_etcd):
    assert clocked_etcd.wait(clocked_etcd.client().put("k", "v")).header.revision == 2
    assert "twisted.internet.reactor" not in sys.modules
"""
UNDER_TRIAL = """
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted_etcd.errors import LeaseLost
from twisted_etcd.testing.trial import EtcdServerMixin, MemoryEtcdMixin

class Real(EtcdServerMixin, TestCase):
    etcd_options = {"extra_args": ("--max-txn-ops=8",)}

    async def test_one(self):
        client = self.etcd_client()
        self.assertEqual((await client.put("k", "v")).header.revision, 2)

class InTheReactor(MemoryEtcdMixin, TestCase):
    async def test_memory(self):
        client = self.etcd_client()
        watch = client.watch("k")
        await watch.ready
        await client.put("k", "v")
        self.assertEqual((await watch.next()).events[0].kv.value, b"v")

class OnAClock(MemoryEtcdMixin, SynchronousTestCase):
    etcd_options = {"min_lease_ttl": 1}

    def test_clock(self):
        client = self.etcd_client()
        lease = self.memory_etcd.wait(client.lease(1))
        self.memory_etcd.lose_lease(lease.id)
        self.assertIsInstance(self.memory_etcd.wait(lease.lost), LeaseLost)

class NoTestCase(MemoryEtcdMixin):
    def __init__(self):
        super().__init__()

class Misused(SynchronousTestCase):
    def test_mixin_without_a_test_case(self):
        from twisted_etcd.testing.trial import _case
        self.assertRaises(TypeError, _case, NoTestCase())
"""


def run(directory: Path, *command: str, **environment: str) -> str:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    finished = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=directory,
        env={**kept, "PYTHONPATH": str(ROOT), **environment},
        check=False,
        capture_output=True,
        text=True,
        timeout=100,
    )
    return finished.stdout + finished.stderr


def passed(output: str) -> set[str]:
    return {
        line.partition("::")[2].split(" ")[0]
        for line in output.splitlines()
        if "::" in line and line.partition("::")[2].partition(" ")[2].startswith("PASSED")
    }


def in_pytest(directory: Path, tests: str, *arguments: str, **environment: str) -> str:
    (directory / "test_theirs.py").write_text(tests, "utf-8")
    return run(directory, "pytest", "-W", "error", "-p", "no:cacheprovider", "-v", *arguments, **environment)


@pytest.mark.parametrize("reactor", ["default", "asyncio"])
def test_the_fixtures_are_there_by_themselves(tmp_path: Path, reactor: str) -> None:
    output = in_pytest(tmp_path, UNDER_PYTEST_TWISTED, f"--reactor={reactor}")
    assert passed(output) == TESTS, output
    assert "6 passed" in output


@pytest.mark.parametrize("autoload", [True, False], ids=["autoload", "no-autoload"])
def test_who_names_the_fixtures_as_well_has_them_once(tmp_path: Path, autoload: bool) -> None:  # noqa: FBT001
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["twisted_etcd.testing.fixtures"]\n', "utf-8")
    others = {} if autoload else {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    arguments = [] if autoload else ["-p", "pytest_twisted"]
    output = in_pytest(tmp_path, UNDER_PYTEST_TWISTED, *arguments, **others)
    assert passed(output) == TESTS, output
    listed = in_pytest(tmp_path, UNDER_PYTEST_TWISTED, *arguments, "--fixtures", **others)
    assert listed.count("\nmemory_etcd --") == 1, listed


def test_the_plugin_leaves_the_choice_of_the_reactor(tmp_path: Path) -> None:
    # Without pytest-twisted, which installs a reactor.
    output = in_pytest(tmp_path, WITHOUT_A_REACTOR, "-p", "no:twisted", "-p", "no:pytest_twisted")
    assert "2 passed" in output, output


def test_the_mixins_serve_trials_test_cases(tmp_path: Path) -> None:
    (tmp_path / "test_theirs.py").write_text(UNDER_TRIAL, "utf-8")
    output = run(tmp_path, "twisted.trial", "test_theirs")
    assert "PASSED (successes=4)" in output, output
