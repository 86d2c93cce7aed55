"""The web application with etcd inside, as a ``.tac`` file and as a command of ``twistd``'s."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import pytest_twisted
from twisted.internet import reactor

from tests.etcds import ONE_VERSION, http_client
from tests.programs import EXAMPLES, TWISTD, Program, Run
from tests.wire import Listener
from twisted_etcd.client.client import EtcdClient
from twisted_etcd.embedded.process import EmbeddedEtcd

ANYWHERE = "tcp:0:interface=127.0.0.1"


@pytest.fixture
def webapp(tmp_path: Path) -> Path:
    """A copy of the application, as a user makes one: twistd writes into the directory."""
    return Path(
        shutil.copytree(EXAMPLES / "webapp", tmp_path / "webapp", ignore=shutil.ignore_patterns("*.pyc", "*.cache"))
    )


@pytest.fixture
def client(etcd_server: EmbeddedEtcd) -> Iterator[EtcdClient]:
    client = EtcdClient(cast("Any", reactor), etcd_server.endpoint)
    yield client
    pytest_twisted.blockon(client.delete("/webapp/", prefix=True))
    pytest_twisted.blockon(client.delete("/config/webapp/", prefix=True))
    pytest_twisted.blockon(client.stopService())


async def address_of(program: Program) -> str:
    """Where it says that it listens."""
    found = re.search(r"listens at (127\.0\.0\.1:\d+), and is registered", await program.line("listens at"))
    assert found is not None
    return found[1]


async def fetch(address: str, path: str) -> tuple[int, str]:
    """The status and the body of a page."""
    response = await http_client().get(f"http://{address}{path}")
    return response.code, await response.text()


async def assert_serves(program: Program, client: EtcdClient) -> None:
    """It answers from etcd, follows its configuration, is registered, and leaves when it ends."""
    address = await address_of(program)
    assert await fetch(address, "/") == (200, "(no banner is configured)")
    assert await fetch(address, "/prices/tea") == (404, "there is no such price")

    await client.put("/webapp/prices/tea", "3.20")
    assert await fetch(address, "/prices/tea") == (200, "3.20")

    await client.put("/config/webapp/banner", "Grüß Gott")
    await program.line("the banner was created")
    assert await fetch(address, "/") == (200, "Grüß Gott")
    await client.put("/config/webapp/banner", "Servus")
    await program.line("the banner was modified")
    assert await fetch(address, "/") == (200, "Servus")

    assert (await client.get(f"/services/webapp/{address}")).count == 1
    await program.stop_well()
    assert (await client.get("/services/webapp/", prefix=True)).count == 0


@pytest_twisted.ensureDeferred
async def test_the_tac_file_serves(run: Run, webapp: Path, etcd_server: EmbeddedEtcd, client: EtcdClient) -> None:
    environment = {"PYTHONPATH": ".", "WEBAPP_LISTEN": ANYWHERE, "ETCD_ENDPOINTS": etcd_server.endpoint}
    await assert_serves(run(*TWISTD, "--nodaemon", "--python", "webapp.tac", directory=webapp, **environment), client)


@ONE_VERSION
@pytest_twisted.ensureDeferred
async def test_the_command_serves(run: Run, webapp: Path, etcd_server: EmbeddedEtcd, client: EtcdClient) -> None:
    options = ("--listen", ANYWHERE, "--endpoints", etcd_server.endpoint)
    await assert_serves(run(*TWISTD, "--nodaemon", "webapp", *options, directory=webapp, PYTHONPATH="."), client)


@ONE_VERSION
@pytest_twisted.ensureDeferred
async def test_it_ends_where_it_cannot_listen(run: Run, webapp: Path, etcd_server: EmbeddedEtcd) -> None:
    taken = Listener()
    try:
        options = ("--listen", f"tcp:{taken.port}:interface=127.0.0.1", "--endpoints", etcd_server.endpoint)
        program = run(*TWISTD, "--nodaemon", "webapp", *options, directory=webapp, PYTHONPATH=".")
        await program.line("service WebApp refuses to start")
        await program.line("CannotListenError")
        assert await program.ended() == 0, program.story("failed")
    finally:
        await taken.close()


@pytest_twisted.ensureDeferred
async def test_it_waits_for_an_etcd_that_is_away_and_can_be_stopped_meanwhile(run: Run, webapp: Path) -> None:
    environment = {"PYTHONPATH": ".", "WEBAPP_LISTEN": ANYWHERE, "ETCD_ENDPOINTS": "http://127.0.0.1:1"}
    program = run(*TWISTD, "--nodaemon", "--python", "webapp.tac", directory=webapp, **environment)
    await program.line("'/config/webapp/banner' cannot be read, and is tried again")
    await program.stop_well()
