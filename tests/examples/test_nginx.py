"""``nginx/``: a real nginx follows the instances of a service, and nothing is left of what was started."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import pytest_twisted
from twisted.internet import reactor

from tests import nginx
from tests.etcds import ONE_VERSION
from tests.programs import EXAMPLES, Program, Run, trouble_in
from twisted_etcd.client.client import EtcdClient
from twisted_etcd.embedded.process import EmbeddedEtcd

SCRIPT = str(EXAMPLES / "nginx" / "nginx_upstreams.py")
SHOWN = """\
no instance: 503 1
three instances: apple 4, pear 2, plum 2
quince is added: apple 4, pear 2, plum 2, quince 2
pear has left: apple 4, plum 2, quince 2
apple is killed: plum, quince
apple is forgotten: plum 4, quince 4
"""


@pytest.fixture
def binary() -> str:
    program = nginx.program()
    if program is None:
        pytest.skip(f"there is no nginx: install one (Debian: nginx-light), or name it in {nginx.VARIABLE}")
    return program


@pytest.fixture
def client(etcd_server: EmbeddedEtcd) -> Iterator[EtcdClient]:
    client = EtcdClient(cast("Any", reactor), etcd_server.endpoint)
    yield client
    pytest_twisted.blockon(client.stopService())


def processes_of(directory: Path) -> list[str]:
    """Those that were told of it, by their arguments or their environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            told = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
        except OSError:
            # It has ended meanwhile, or is another user's.
            continue
        if str(directory).encode() in told:
            found.append(told.decode(errors="replace"))
    return found


def assert_nothing_is_left(directory: Path) -> None:
    assert processes_of(directory) == []
    assert list(directory.iterdir()) == []


async def assert_shows_it(program: Program, directory: Path) -> None:
    await program.end_well()
    assert program.lines == SHOWN.splitlines(), program.story("said something else")
    assert_nothing_is_left(directory)


@pytest_twisted.ensureDeferred
async def test_nginx_follows_what_comes_leaves_and_is_killed(run: Run, tmp_path: Path, binary: str) -> None:
    await assert_shows_it(run(SCRIPT, NGINX=binary, TMPDIR=str(tmp_path)), tmp_path)


@ONE_VERSION
@pytest_twisted.ensureDeferred
async def test_it_takes_an_etcd_that_is_there(
    run: Run, tmp_path: Path, binary: str, etcd_server: EmbeddedEtcd, client: EtcdClient
) -> None:
    await assert_shows_it(run(SCRIPT, etcd_server.endpoint, NGINX=binary, TMPDIR=str(tmp_path)), tmp_path)
    assert (await client.get("/services/shop/", prefix=True)).count == 0


@pytest_twisted.ensureDeferred
async def test_ctrl_c_ends_all_processes(run: Run, tmp_path: Path, binary: str) -> None:
    program = run(SCRIPT, NGINX=binary, TMPDIR=str(tmp_path))
    await program.line("three instances")
    # The script, the daemon, its etcd, and three web servers; nginx does not always show its environment.
    assert len(processes_of(tmp_path)) >= 6
    program.send(signal.SIGINT)
    assert await program.ended() == 0, program.story("failed")
    assert trouble_in(program.text) == [], program.story("did not end well")
    assert_nothing_is_left(tmp_path)


@pytest_twisted.ensureDeferred
async def test_without_nginx_it_says_what_to_install(run: Run) -> None:
    program = run(SCRIPT, NGINX="/there/is/no/nginx")
    assert await program.ended() == 1
    assert program.lines == [
        "there is no nginx at /there/is/no/nginx: install one (Debian: nginx-light), or name it in NGINX"
    ]
