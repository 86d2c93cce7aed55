"""``etcdservice.yaml`` and the services that it hosts, in the daemon, as the README runs it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import pytest_twisted
from twisted.internet import reactor

from tests.examples.programs import EXAMPLES, TWISTD, Run
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
    daemon = run(*TWISTD, "etcdservice", "--embedded", "--config", SETTINGS, directory=tmp_path)
    pid = int(found(r"as process (\d+)", await daemon.line("etcd is started as process")))
    client = EtcdClient(cast("Any", reactor), found(r"(http://127\.0\.0\.1:\d+)", await daemon.line("answers at")))
    clients.append(client)

    # Which of the two comes first is for etcd to say.
    await daemon.line("The configuration app/database is followed: not set", anywhere=True)
    await daemon.line("user-service at 127.0.0.1:8080 is registered", anywhere=True)
    await daemon.line("the greeter begins with 'Hello'", anywhere=True)
    await daemon.line("the guest was greeted: Hello, World!", anywhere=True)
    await daemon.line("node etcdservice runs", anywhere=True)
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
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@pytest_twisted.ensureDeferred
async def test_without_etcd_the_daemon_goes_on_trying_and_can_be_stopped_meanwhile(run: Run, tmp_path: Path) -> None:
    daemon = run(*TWISTD, "etcdservice", "--config", SETTINGS, directory=tmp_path, ETCD_ENDPOINTS="http://127.0.0.1:1")
    await daemon.line("etcd at http://127.0.0.1:1 yet")
    await daemon.stop_well()


@pytest_twisted.ensureDeferred
async def test_the_settings_can_be_checked(run: Run, tmp_path: Path) -> None:
    check = run(*TWISTD, "etcdservice", "--config", SETTINGS, "--check", directory=tmp_path)
    await check.end_well()
    assert "hosts greeter.Greeter" in check.lines
    assert "hosts greeter.Guest as Guest" in check.lines
