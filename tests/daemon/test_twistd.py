"""The daemon as a user runs it: ``twistd etcdservice``, from the first line to the exit status."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
from pathlib import Path

import pytest_twisted

from tests.daemon import guests
from tests.daemon.conftest import MakeClient, value_at
from tests.etcds import QUICK_ELECTIONS
from tests.programs import TWISTD, ForeignProcess, Program, Run, is_gone, trouble_in
from tests.wire import soon
from twisted_etcd.embedded.process import EmbeddedEtcd
from twisted_etcd.schema.kv import EventType

SETTINGS = """\
register: [{name: shop, address: "127.0.0.1:80", ttl: 30}]
watch: [app/database]
services: [{class: guests.Notebook, name: diary, settings: {key: /note}}]
"""
RUNS = "node etcdservice runs: EtcdService, Caretaker, diary"


def prepare(directory: Path, text: str = SETTINGS) -> None:
    """A settings file, and the module with the service that it names beside it."""
    (directory / "settings.yaml").write_text(text)
    shutil.copy(str(guests.__file__), directory / "guests.py")


async def etcd_process(twistd: Program, times: int = 1) -> int:
    """The process id of the daemon's own etcd."""
    found = re.search(r"etcd is started as process (\d+)", await twistd.until("etcd is started as process", times))
    assert found is not None
    return int(found[1])


async def endpoint_of(twistd: Program) -> str:
    found = re.search(r"Daemon#info\] etcd \S+ answers at (\S+)", await twistd.until("Daemon#info] etcd "))
    assert found is not None
    return found[1]


def assert_ended_well(twistd: Program, directory: Path, *pids: int) -> None:
    """The node first and etcd last, and nothing left."""
    told = [n for n, line in enumerate(twistd.lines) if "diary: the last note is kept: True" in line]
    stopped = [n for n, line in enumerate(twistd.lines) if line.endswith("daemon.Daemon#info] stopped")]
    assert len(told) == len(stopped) == 1
    assert told < stopped
    assert [pid for pid in pids if not is_gone(pid)] == []
    assert not (directory / "twistd.pid").exists()


@pytest_twisted.ensureDeferred
async def test_an_embedded_etcd_is_announced_revived_stopped_last_and_keeps_data_and_address(
    etcd_binary: Path, tmp_path: Path, run: Run, make_client: MakeClient
) -> None:
    prepare(tmp_path, f"{SETTINGS}embedded: {{extra_args: [{', '.join(QUICK_ELECTIONS)}]}}\n")
    arguments = ("-n", "etcdservice", "--config", "settings.yaml", "--embedded", "--data-dir", "data")
    first = run(*TWISTD, *arguments, "--etcd-binary", str(etcd_binary))
    endpoint = await endpoint_of(first)
    await first.until(f"etcdctl --endpoints={endpoint} put greeting hello")
    await first.until(RUNS)
    await first.until("shop at 127.0.0.1:80 is registered")
    await first.until("The configuration app/database is followed: not set")
    client = make_client(endpoint)
    before = await etcd_process(first)
    os.kill(before, signal.SIGKILL)

    after = await etcd_process(first, times=2)
    await first.until("etcd died: it ended with signal SIGKILL; it is started again in 0.1 s.")
    await first.until(f"etcd answers again at {endpoint} (restart 1)")
    await client.put("/config/app/database", "a-secret")
    await first.until("The configuration app/database was created at revision ")
    assert await value_at(client, "/services/shop/127.0.0.1:80") is not None
    await first.stop_well()
    assert_ended_well(first, tmp_path, before, after)

    second = run(*TWISTD, *arguments, "--etcd-binary", str(etcd_binary))
    assert await endpoint_of(second) == endpoint
    await second.until("The configuration app/database is followed: 8 bytes")
    kept = await value_at(client, "/note")
    assert kept is not None
    assert kept.value == b"the end"
    await second.stop_well(signal.SIGINT)
    assert_ended_well(second, tmp_path, await etcd_process(second))
    assert "a-secret" not in first.text + second.text


@pytest_twisted.ensureDeferred
async def test_it_goes_into_the_background_and_ends_by_its_pid_file(
    etcd_server: EmbeddedEtcd, prefix: str, tmp_path: Path, run: Run, make_client: MakeClient
) -> None:
    client = make_client(etcd_server.endpoint)
    prepare(tmp_path, SETTINGS.replace("/note", f"{prefix}note") + f"etcd: {{service_prefix: {prefix}}}\n")
    watch = client.watch(prefix, prefix=True)
    await soon(watch.ready)
    twistd = run(*TWISTD, "--logfile", "log", "etcdservice", "-c", "settings.yaml", "-e", etcd_server.endpoint)
    assert await twistd.ended() == 0
    assert twistd.text == ""
    registered = (await soon(watch.next())).events[0]
    assert (registered.type, registered.kv.key.decode()) == (EventType.PUT, f"{prefix}shop/127.0.0.1:80")
    pid = int((tmp_path / "twistd.pid").read_text())
    process = ForeignProcess(pid)
    os.kill(pid, signal.SIGTERM)
    await process.until_ended()
    events = [*(await soon(watch.next())).events, *(await soon(watch.next())).events]
    assert [(event.type, event.kv.key.decode()) for event in events] == [
        # Before the services stop, so that they still answer those who found them.
        (EventType.DELETE, f"{prefix}shop/127.0.0.1:80"),
        (EventType.PUT, f"{prefix}note"),
    ]
    log = (tmp_path / "log").read_text()
    assert RUNS in log
    assert trouble_in(log) == []
    assert not (tmp_path / "twistd.pid").exists()
    await watch.stop()


@pytest_twisted.ensureDeferred
async def test_sigterm_while_etcd_is_being_started_ends_both(tmp_path: Path, run: Run) -> None:
    binary = tmp_path / "etcd"
    binary.write_text(f"#!{sys.executable}\nimport signal\nprint('silent', flush=True)\nsignal.pause()\n")
    binary.chmod(0o755)
    twistd = run(*TWISTD, "-n", "etcdservice", "--embedded", "--etcd-binary", "./etcd")
    pid = await etcd_process(twistd)
    await twistd.until("silent")
    await twistd.stop_well()
    assert is_gone(pid)


@pytest_twisted.ensureDeferred
async def test_an_etcd_that_dies_at_its_start_ends_the_daemon_with_status_1(tmp_path: Path, run: Run) -> None:
    binary = tmp_path / "etcd"
    binary.write_text("#!/bin/sh\necho the disk is full\nexit 3\n")
    binary.chmod(0o755)
    twistd = run(*TWISTD, "-n", "etcdservice", "--embedded", "--etcd-binary", "./etcd")
    # So early that no reactor runs yet.
    (tmp_path / "file").write_text("")
    early = run(*TWISTD, "-n", "--pidfile=", "etcdservice", "--embedded", "--data-dir", "file/data")
    assert await twistd.ended() == 1
    assert await early.ended() == 1
    assert "#critical] The daemon cannot start: etcd (" in await twistd.until(
        "did not come up: it ended with exit code 3"
    )
    assert twistd.lines[-1].endswith("Server Shut Down.")
    assert "\tthe disk is full" in [line.replace("  ", "") for line in twistd.lines]
    assert "Not a directory" in await early.until("#critical] The daemon cannot start")
    for each in (twistd, early):
        assert [line for line in each.lines if "Traceback" in line or "Unhandled" in line] == []
    assert not (tmp_path / "twistd.pid").exists()
