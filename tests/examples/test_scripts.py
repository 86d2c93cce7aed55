"""The examples that are scripts: each does what it says, and ends by itself."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any, cast

import pytest
import pytest_twisted
from twisted.internet import reactor

from tests.programs import EXAMPLES, Run, trouble_in
from tests.wire import Listener
from twisted_etcd.client.client import EtcdClient
from twisted_etcd.embedded.process import EmbeddedEtcd

KEY_VALUES = """\
colour is green
shape is there: False
fruit: a apple, a pear, a plum
deleted: 2
green becomes blue: True
green becomes blue: False
blue becomes blue: True
present, for 10 s unless it is kept alive
present after the lease: 0
the sum of many: 2016
watched: blue -> red
watched: red -> deleted
EmptyKey: etcdserver: key is not provided
FutureRevision: etcdserver: mvcc: required revision is a future revision
"""
CONFIG_WATCH = """\
loaded: db-1.example:5432
followed from: db-1.example:5432
examples/database was modified: db-1.example:5432 -> db-2.example:5432
examples/database was modified: db-2.example:5432 -> db-3.example:5432
examples/database was deleted: db-3.example:5432 -> (not set)
the watch knows it too: (not set)
"""
TYPED_CONFIG = """\
from the defaults: Database(url='localhost', pool_size=5) Limits(requests=1, burst=10)
set: Database(url='db-1.example', pool_size=20) Limits(requests=100, burst=10)
bad value: limits at requests - Expected `int`, got `str`
still good: Limits(requests=100, burst=10)
conflict: note True
modified: 42
database/pool-size modified b'20' -> b'50'
history: [b'50', b'40'] more
as it was: 20
"""
DISPATCHER = """\
dispatcher: there is 127.0.0.1:8001 in zone west
dispatcher: there is 127.0.0.1:8002 in zone east
discovered: 127.0.0.1:8001, 127.0.0.1:8002
dispatcher: gone is 127.0.0.1:8001
left: 127.0.0.1:8002
"""
WORKERS = """\
Worker at 127.0.0.1:8001 is healthy
Worker at 127.0.0.1:8002 is healthy
"""
ASYNCIO = """\
asyncio put and got: ONE, THREE, TWO
the service awaited asyncio and a thread: f7f53859e1e3d48f
"""
BLOCKING = """\
got: b'hello'
put from four threads: 20
an error arrives as what it is: etcdserver: key is not provided
deleted: 21
"""
CALL_BY_NAME = """\
answers come from apple and pear
apple is killed, and answers come from pear
pear has left: service 'example-web': no instance is registered
"""
TRANSFERS = """\
opened: anna 100, bert 100, chris 100
30 transfers, all at once, of which some ran again: True
closed: anna 100, bert 102, chris 98
whenever somebody looked, there was in all: 300
refused: anna has 100 and cannot give 1000
the copy is the same: True
"""
LEADER = """\
anna leads
anna leads no longer: the client was stopped
bert leads, after the TTL of a lease that nobody kept alive
bert leads no longer: it resigned
chris leads, at once
chris leads no longer: it resigned
nobody leads
"""
SCRIPTS = [
    "key_values",
    "config_watch",
    "typed_config",
    "register_and_discover",
    "asyncio_interoperation",
    "blocking_program",
    "call_by_name",
    "leader",
    "transfers",
]


def assert_said(said: list[str], expected: str) -> None:
    """The lines begin as expected: etcd's errors go on in words that versions may change."""
    lines = expected.splitlines()
    assert [line[: len(begin)] for line, begin in zip(said, lines, strict=False)] == lines, "\n".join(said)
    assert len(said) == len(lines), "\n".join(said)


@pytest.fixture
def client(etcd_server: EmbeddedEtcd) -> Iterator[EtcdClient]:
    client = EtcdClient(cast("Any", reactor), etcd_server.endpoint)
    yield client
    pytest_twisted.blockon(client.stopService())


async def keys(client: EtcdClient) -> set[bytes]:
    """All that are in etcd."""
    return {kv.key for kv in (await client.get("", prefix=True, keys_only=True)).kvs}


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("key_values", KEY_VALUES),
        ("config_watch", CONFIG_WATCH),
        ("typed_config", TYPED_CONFIG),
        ("asyncio_interoperation", ASYNCIO),
        ("blocking_program", BLOCKING),
        ("call_by_name", CALL_BY_NAME),
        ("leader", LEADER),
        ("transfers", TRANSFERS),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_script_does_what_it_says_and_leaves_nothing_behind(
    script: str, expected: str, run: Run, etcd_server: EmbeddedEtcd, client: EtcdClient
) -> None:
    before = await keys(client)
    program = run(str(EXAMPLES / f"{script}.py"), etcd_server.endpoint)
    await program.end_well()
    assert_said(program.lines, expected)
    assert await keys(client) - before == set()


@pytest_twisted.ensureDeferred
async def test_instances_are_registered_and_discovered_and_leave(
    run: Run, etcd_server: EmbeddedEtcd, client: EtcdClient
) -> None:
    before = await keys(client)
    program = run(str(EXAMPLES / "register_and_discover.py"), ETCD_ENDPOINTS=etcd_server.endpoint)
    await program.end_well()
    # The workers and the dispatcher are told independently of each other.
    assert_said([line for line in program.lines if not line.startswith("Worker")], DISPATCHER)
    assert_said([line for line in program.lines if line.startswith("Worker")], WORKERS)
    assert await keys(client) - before == set()


@pytest_twisted.ensureDeferred
async def test_without_etcd_a_script_says_so_and_fails(run: Run) -> None:
    programs = [run(str(EXAMPLES / f"{script}.py"), "http://127.0.0.1:1") for script in SCRIPTS]
    for program in programs:
        assert await program.ended() == 1, program.story("did not fail")
        assert "Unavailable: " in program.errors[-1], program.story("does not say why")


@pytest.mark.parametrize("script", SCRIPTS)
@pytest_twisted.ensureDeferred
async def test_ctrl_c_ends_a_script_that_waits_for_etcd(script: str, run: Run) -> None:
    # It accepts connections, and says nothing.
    silent = Listener()
    try:
        program = run(str(EXAMPLES / f"{script}.py"), f"http://{silent.authority}")
        await silent.peer()
        program.send(signal.SIGINT)
        # A call that it waited for may have failed by that; asyncio's is never told.
        assert await program.ended() in {0, 1}, program.story("failed")
        assert trouble_in(program.text) == [], program.story("did not end well")
    finally:
        await silent.close()
