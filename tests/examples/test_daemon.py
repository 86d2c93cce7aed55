"""``etcdservice.yaml`` and the services that it hosts, in the daemon, as the README runs it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import pytest_twisted
from twisted.internet import reactor

from tests.programs import EXAMPLES, TWISTD, Run, is_gone
from twisted_etcd.client.client import EtcdClient

SETTINGS = str(EXAMPLES / "etcdservice.yaml")


@pytest.fixture
def clients() -> Iterator[list[EtcdClient]]:
    clients: list[EtcdClient] = []
    yield clients
    for client in clients:
        pytest_twisted.blockon(client.stopService())


def found(pattern: str, line: str) -> str:
    match = re.search(pattern, line)
    assert match is not None, line
    return match[1]


@pytest_twisted.ensureDeferred
async def test_the_daemon_registers_follows_and_hosts(run: Run, tmp_path: Path, clients: list[EtcdClient]) -> None:
    # The README's command, but for twistd.pid, which is the directory's.
    daemon = run(*TWISTD, "--nodaemon", "etcdservice", "--embedded", "--config", SETTINGS)
    pid = int(found(r"as process (\d+)", await daemon.line("etcd is started as process")))
    client = EtcdClient(cast("Any", reactor), found(r"(http://127\.0\.0\.1:\d+)", await daemon.line("answers at")))
    clients.append(client)

    # Which of the two comes first is for etcd to say.
    await daemon.until("The configuration app/database is followed: not set")
    await daemon.until("user-service at 127.0.0.1:8080 is registered")
    await daemon.until("the greeter begins with 'Hello'")
    await daemon.until("the guest was greeted: Hello, World!")
    await daemon.until("node etcdservice runs")
    registered = (await client.get("/services/user-service/127.0.0.1:8080")).kvs[0].value
    assert b'"zone":"west"' in registered

    await client.put("/config/app/database", "postgres://elsewhere")
    await daemon.line("The configuration app/database was created")
    await client.put("/config/app/greeting", "Ahoy")
    await daemon.line("the greeting was created: 'Ahoy'")
    await daemon.line("the guest was greeted: Ahoy, World!")
    await client.delete("/config/app/greeting")
    await daemon.line("the greeting was deleted: 'Hello'")
    await daemon.line("the guest was greeted: Hello, World!")

    await client.stopService()
    await daemon.stop_well()
    assert not (tmp_path / "twistd.pid").exists()
    assert is_gone(pid)


@pytest_twisted.ensureDeferred
async def test_without_etcd_the_daemon_goes_on_trying_and_can_be_stopped_meanwhile(run: Run) -> None:
    daemon = run(*TWISTD, "--nodaemon", "etcdservice", "--config", SETTINGS, ETCD_ENDPOINTS="http://127.0.0.1:1")
    await daemon.line("etcd at http://127.0.0.1:1 yet")
    await daemon.stop_well()


@pytest_twisted.ensureDeferred
async def test_the_settings_can_be_checked(run: Run) -> None:
    check = run(*TWISTD, "--nodaemon", "etcdservice", "--config", SETTINGS, "--check")
    await check.end_well()
    assert "hosts greeter.Greeter" in check.lines
    assert "hosts greeter.Guest as Guest" in check.lines
