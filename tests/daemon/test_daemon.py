"""The daemon in this process, with real etcds."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
import pytest_twisted
from treq.client import HTTPClient
from twisted.internet import reactor

from tests.daemon.conftest import MakeClient, RunDaemon, value_at
from tests.daemon.guests import Note
from tests.etcds import FreshEtcd
from tests.gateway.authorities import Papers
from tests.gateway.servers import Scripted, always_and_close, http_answer
from tests.guards import LoggedErrors
from tests.programs import is_gone
from tests.said import Said
from tests.wire import soon
from twisted_etcd.client.client import EtcdClient
from twisted_etcd.daemon.daemon import Daemon
from twisted_etcd.embedded.ports import free_ports
from twisted_etcd.embedded.process import EmbeddedEtcd
from twisted_etcd.errors import ServiceUnavailable
from twisted_etcd.gateway.agent import PooledAgent
from twisted_etcd.gateway.connections import Connections
from twisted_etcd.gateway.tls import TLSTrust
from twisted_etcd.messaging.node import Node
from twisted_etcd.schema import rpcs
from twisted_etcd.schema.auth import (
    AuthEnableRequest,
    AuthRoleAddRequest,
    AuthUserAddRequest,
    AuthUserChangePasswordRequest,
    AuthUserGrantRoleRequest,
)

ROOT_PASSWORD = "open-sesame"
#: etcd's tokens: 16 letters and a number.
TOKEN = re.compile(r"\b[A-Za-z]{16}\.[0-9]+\b")


def node_of(daemon: Daemon) -> Node:
    assert daemon.node is not None
    return daemon.node


def document(endpoint: str, prefix: str, *more: str) -> str:
    """A settings file with keys under a prefix of the test's own."""
    etcd = f"etcd: {{endpoints: '{endpoint}', config_prefix: {prefix}config, service_prefix: {prefix}services}}"
    return "\n".join((etcd, *more))


# --- registering ----------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_services_of_the_file_are_in_etcd_while_the_daemon_runs_and_gone_at_once_after(
    etcd_server: EmbeddedEtcd, prefix: str, run_daemon: RunDaemon, make_client: MakeClient, said: Said
) -> None:
    client = make_client(etcd_server.endpoint)
    first = "  - {name: shop, address: '127.0.0.1:8080', ttl: 30, tags: [a, b], metadata: {zone: west}}"
    second = "  - {name: shop, address: '127.0.0.1:8081'}"
    daemon = run_daemon(document(etcd_server.endpoint, prefix, "register:", first, second))
    await said.until("shop at 127.0.0.1:8080 is registered")
    await said.until("shop at 127.0.0.1:8081 is registered")
    kept = await value_at(client, f"{prefix}services/shop/127.0.0.1:8080")
    assert kept is not None
    assert msgspec.json.decode(kept.value) == {
        "address": "127.0.0.1",
        "port": 8080,
        "tags": ["a", "b"],
        "metadata": {"zone": "west"},
        "weight": 1,
        "id": "127.0.0.1:8080",
    }
    assert (await client.lease_time_to_live(kept.lease)).grantedTTL == 30
    other = await value_at(client, f"{prefix}services/shop/127.0.0.1:8081")
    assert other is not None
    assert other.lease != kept.lease
    await daemon.stopService()
    assert (await client.get(f"{prefix}services/", prefix=True)).kvs == ()
    assert said.lines[-1].endswith("#info stopped")


@pytest_twisted.ensureDeferred
async def test_a_lost_registration_is_told_and_comes_back(
    etcd_server: EmbeddedEtcd, prefix: str, run_daemon: RunDaemon, make_client: MakeClient, said: Said
) -> None:
    client = make_client(etcd_server.endpoint)
    key = f"{prefix}services/shop/127.0.0.1:80"
    entry = "register: [{name: shop, address: '127.0.0.1:80', ttl: 2}]"
    run_daemon(document(etcd_server.endpoint, prefix, entry))
    await said.until("shop at 127.0.0.1:80 is registered")
    before = await value_at(client, key)
    assert before is not None
    await client.lease_revoke(before.lease)
    await said.until("shop at 127.0.0.1:80 is not registered now")
    await said.until("shop at 127.0.0.1:80 is registered", times=2)
    after = await value_at(client, key)
    assert after is not None
    assert after.value == before.value
    assert after.lease != before.lease


@pytest_twisted.ensureDeferred
async def test_a_service_stands_in_etcd_while_its_check_passes(  # noqa: PLR0917 - fixtures
    etcd_server: EmbeddedEtcd, prefix: str, run_daemon: RunDaemon, make_client: MakeClient, said: Said, tmp_path: Path
) -> None:
    client = make_client(etcd_server.endpoint)
    key = f"{prefix}services/shop/127.0.0.1:80"
    flag = tmp_path / "up"
    command = f"[sh, -c, 'test -e {flag} || exit 2']"
    check = f"check: {{command: {command}, interval: 100, rise: 1, fall: 1, show_status: true}}"
    run_daemon(document(etcd_server.endpoint, prefix, f"register: [{{name: shop, address: '127.0.0.1:80', {check}}}]"))
    await said.until("shop at 127.0.0.1:80 is registered once its checks pass")
    assert await value_at(client, key) is None
    flag.touch()
    await said.until("shop at 127.0.0.1:80 is registered", times=2)
    there = await value_at(client, key)
    assert there is not None
    assert b'"status":"passing"' in there.value
    flag.unlink()
    await said.until("shop at 127.0.0.1:80 is not registered now: withheld")
    # That is what is wanted: the key goes with the next answer of etcd.
    async with client.watch(key, start_revision=there.mod_revision) as watch:
        while await value_at(client, key) is not None:
            await soon(watch.next())


# --- following ------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_changes_of_followed_configuration_are_told_without_the_values(
    etcd_server: EmbeddedEtcd, prefix: str, run_daemon: RunDaemon, make_client: MakeClient, said: Said
) -> None:
    client = make_client(etcd_server.endpoint)
    await client.put(f"{prefix}config/app/cache", "a-secret")
    run_daemon(document(etcd_server.endpoint, prefix, "watch: [app/database, app/cache]"))
    assert (await said.until("The configuration app/database is followed")).endswith(": not set")
    assert (await said.until("The configuration app/cache is followed")).endswith(": 8 bytes")
    await client.put(f"{prefix}config/app/database", "db://me:secret@there")
    created = await said.until("The configuration app/database was created at revision ")
    assert created.endswith(": 20 bytes")
    put = await client.put(f"{prefix}config/app/database", "another secret")
    await said.until(f"The configuration app/database was modified at revision {put.header.revision}: 14 bytes")
    await client.delete(f"{prefix}config/app/database")
    assert "bytes" not in await said.until("The configuration app/database was deleted at revision ")
    assert said.count("secret") == 0


# --- hosting --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [True, False])
def test_the_file_says_whether_requests_travel_together(
    etcd_server: EmbeddedEtcd, run_daemon: RunDaemon, *, batch: bool
) -> None:
    daemon = run_daemon(f"etcd: {{endpoints: '{etcd_server.endpoint}', batch: {str(batch).lower()}}}\n")
    [client] = [each for each in node_of(daemon).services if isinstance(each, EtcdClient)]
    assert client.batch is batch


@pytest_twisted.ensureDeferred
async def test_hosted_services_use_etcd_through_messages_and_one_that_refuses_does_not_stop_the_others(
    *,
    etcd_server: EmbeddedEtcd,
    prefix: str,
    run_daemon: RunDaemon,
    make_client: MakeClient,
    said: Said,
    logged_errors: LoggedErrors,
) -> None:
    client = make_client(etcd_server.endpoint)
    daemon = run_daemon(
        document(
            etcd_server.endpoint,
            prefix,
            "services:",
            "  - {class: tests.daemon.guests.Refuser}",
            f"  - {{class: tests.daemon.guests.Notebook, name: diary, settings: {{key: {prefix}note, pages: '7'}}}}",
        ),
    )
    await said.until("node etcdservice runs: EtcdService, Caretaker, diary")
    answer = await node_of(daemon).call("diary", Note("a-secret"))
    assert answer.text == b"a-secret"
    with pytest.raises(ServiceUnavailable):
        await node_of(daemon).call("Refuser", Note("nothing"))
    (line,) = logged_errors.flush_messages("not all of node etcdservice runs")
    assert "'Refuser': RuntimeError: no paper" in line
    assert [failure.getErrorMessage() for failure in logged_errors.flush(RuntimeError)] == ["no paper"]
    await daemon.stopService()
    await said.until("diary: the last note is kept: True")
    kept = await value_at(client, f"{prefix}note")
    assert kept is not None
    assert kept.value == b"the end"
    assert said.count("a-secret") == 0


# --- etcd that is away, or somebody else ----------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_it_starts_without_etcd_says_so_once_and_begins_when_etcd_comes(
    fresh_etcd: FreshEtcd, prefix: str, run_daemon: RunDaemon, make_client: MakeClient, said: Said
) -> None:
    (port,) = free_ports(1)
    endpoint = f"http://127.0.0.1:{port}"
    started = reactor.seconds()
    daemon = run_daemon(
        document(
            endpoint,
            prefix,
            "register: [{name: shop, address: '127.0.0.1:80'}]",
            "watch: [app/database]",
            f"services: [{{class: tests.daemon.guests.Notebook, name: diary, settings: {{key: {prefix}note}}}}]",
        )
    )
    line = await said.until(f"Cannot use etcd at {endpoint} yet, and will go on trying: ")
    assert reactor.seconds() - started < 2
    assert "#warn" in line
    assert "refused" in line
    assert said.count("node etcdservice runs: EtcdService, Caretaker, diary") == 1
    await fresh_etcd(client_port=port)
    await said.until(f"etcd answers at {endpoint}")
    await said.until("shop at 127.0.0.1:80 is registered")
    await said.until("The configuration app/database is followed")
    assert (await node_of(daemon).call("diary", Note("here we are"))).text == b"here we are"
    assert await value_at(make_client(endpoint), f"{prefix}services/shop/127.0.0.1:80") is not None
    assert said.count("Cannot ") == 1
    # before its etcd is
    await daemon.stopService()


@pytest_twisted.ensureDeferred
async def test_the_keys_go_at_once_and_services_still_answer_until_all_has_drained(
    etcd_server: EmbeddedEtcd, prefix: str, run_daemon: RunDaemon, make_client: MakeClient, said: Said
) -> None:
    more = (
        "register: [{name: shop, address: '127.0.0.1:80', drain: 400}]",
        f"services: [{{class: tests.daemon.guests.Notebook, name: diary, settings: {{key: {prefix}note}}}}]",
    )
    daemon = run_daemon(document(etcd_server.endpoint, prefix, *more))
    await said.until("shop at 127.0.0.1:80 is registered")
    client, key = make_client(etcd_server.endpoint), f"{prefix}services/shop/127.0.0.1:80"
    watch = client.watch(key)
    await watch.ready
    started = reactor.seconds()
    stopping = daemon.stopService()
    await watch.next()
    assert await value_at(client, key) is None
    assert (await node_of(daemon).call("diary", Note("still open"))).text == b"still open"
    assert not stopping.called
    await stopping
    assert reactor.seconds() - started >= 0.4
    await watch.stop()


@pytest_twisted.ensureDeferred
async def test_a_stop_while_etcd_is_away_is_quick(prefix: str, run_daemon: RunDaemon, said: Said) -> None:
    (port,) = free_ports(1)
    daemon = run_daemon(document(f"http://127.0.0.1:{port}", prefix, "watch: [app/database]"))
    await said.until("Cannot use etcd")
    started = reactor.seconds()
    await daemon.stopService()
    assert reactor.seconds() - started < 1


@pytest_twisted.ensureDeferred
async def test_a_stop_while_etcd_hangs_ends_within_its_timeouts_and_names_what_is_left(
    fresh_etcd: FreshEtcd, run_daemon: RunDaemon, said: Said
) -> None:
    etcd = await fresh_etcd()
    daemon = run_daemon(
        f"etcd: {{endpoints: '{etcd.endpoint}', request_timeout: 500}}\n"
        "register: [{name: shop, address: '127.0.0.1:80'}]\nwatch: [app/database]"
    )
    await said.until("shop at 127.0.0.1:80 is registered")
    await said.until("The configuration app/database is followed")
    etcd.kill("STOP")
    started = reactor.seconds()
    await daemon.stopService()
    assert reactor.seconds() - started < 3
    assert said.count("left to its TTL") == 1
    etcd.kill("CONT")


@pytest_twisted.ensureDeferred
async def test_an_endpoint_that_is_no_etcd_is_told(
    prefix: str, run_daemon: RunDaemon, said: Said, logged_errors: LoggedErrors
) -> None:
    server = Scripted(always_and_close(http_answer(b"<html>Welcome to nginx!</html>", content_type="text/html")))
    daemon = run_daemon(document(server.url, prefix, "register: [{name: shop, address: '127.0.0.1:80'}]"))
    line = await said.until("Cannot use etcd")
    assert "#error" in line
    assert server.url in line
    assert "text/html" in line
    await daemon.stopService()
    await server.close()
    assert len(logged_errors.flush_messages("Cannot use etcd")) == 1


# --- users and certificates -----------------------------------------------------------------------------------------


async def turn_auth_on(client: EtcdClient, **passwords: str) -> None:
    """Give etcd users, all with the rights of root."""
    await client.call(rpcs.ROLE_ADD, AuthRoleAddRequest(name="root"))
    for name, password in {"root": ROOT_PASSWORD, **passwords}.items():
        await client.call(rpcs.USER_ADD, AuthUserAddRequest(name=name, password=password))
        await client.call(rpcs.USER_GRANT_ROLE, AuthUserGrantRoleRequest(user=name, role="root"))
    await client.call(rpcs.AUTH_ENABLE, AuthEnableRequest())


@pytest_twisted.ensureDeferred
async def test_users_log_in_with_a_password_file_and_a_wrong_password_is_told_until_it_is_right(
    *,
    fresh_etcd: FreshEtcd,
    prefix: str,
    tmp_path: Path,
    run_daemon: RunDaemon,
    make_client: MakeClient,
    said: Said,
    logged_errors: LoggedErrors,
) -> None:
    etcd = await fresh_etcd()
    await turn_auth_on(make_client(etcd.endpoint), shopkeeper="another-secret")
    root = make_client(etcd.endpoint, username="root", password=ROOT_PASSWORD)
    (tmp_path / "password").write_text("my-secret\n")
    daemon = run_daemon(
        f"etcd:\n  endpoints: {etcd.endpoint}\n  auth: {{username: shopkeeper, password_file: password}}\n"
        "register: [{name: shop, address: '127.0.0.1:80'}]\nwatch: [app/database]"
    )
    line = await said.until(f"Cannot use etcd at {etcd.endpoint} yet, and will go on trying: ")
    assert "#error" in line
    assert "authentication failed" in line
    assert await value_at(root, "/services/shop/127.0.0.1:80") is None
    change = AuthUserChangePasswordRequest(name="shopkeeper", password="my-secret")
    await root.call(rpcs.USER_CHANGE_PASSWORD, change)
    await said.until("shop at 127.0.0.1:80 is registered")
    await said.until("The configuration app/database is followed")
    await root.put("/config/app/database", "a-secret")
    await said.until("The configuration app/database was created")
    assert await value_at(root, "/services/shop/127.0.0.1:80") is not None
    await daemon.stopService()
    assert await value_at(root, "/services/shop/127.0.0.1:80") is None
    assert said.count("-secret") == 0
    assert [line for line in said.lines if TOKEN.search(line)] == []
    assert len(logged_errors.flush_messages("Cannot use etcd")) == 1


@pytest_twisted.ensureDeferred
async def test_no_user_where_etcd_asks_for_one_is_told(
    fresh_etcd: FreshEtcd, run_daemon: RunDaemon, make_client: MakeClient, said: Said, logged_errors: LoggedErrors
) -> None:
    etcd = await fresh_etcd()
    await turn_auth_on(make_client(etcd.endpoint))
    daemon = run_daemon(f"etcd: {{endpoints: '{etcd.endpoint}'}}")
    line = await said.until("Cannot use etcd")
    assert "user name is empty" in line
    await daemon.stopService()
    assert len(logged_errors.flush_messages("Cannot use etcd")) == 1


@pytest_twisted.ensureDeferred
async def test_certificates_on_both_sides_come_from_the_file_and_a_wrong_or_missing_one_is_told(
    fresh_etcd: FreshEtcd, tmp_path: Path, run_daemon: RunDaemon, said: Said, logged_errors: LoggedErrors
) -> None:
    papers = Papers(tmp_path / "ours")
    cert_file, key_file = papers.pair("server", "127.0.0.1")
    pair = papers.pair("client", "client.example")
    connections = Connections(cast("Any", reactor), TLSTrust(papers.settings(pair)), 3.0)
    server = (f"--cert-file={cert_file}", f"--key-file={key_file}")
    clients = (f"--trusted-ca-file={papers.ca_file}", "--client-cert-auth")
    probing = HTTPClient(PooledAgent(connections.to, cast("Any", reactor), keep=0))
    etcd = await fresh_etcd(tls=True, client=probing, extra_args=(*server, *clients))

    def text(tls: str) -> str:
        entry = "register: [{name: shop, address: '127.0.0.1:80'}]"
        return f"etcd:\n  endpoints: {etcd.endpoint}\n  tls: {{{tls}}}\n{entry}\nwatch: [app/database]"

    pair_given = "cert_file: ours/client.pem, key_file: ours/client.key"
    daemon = run_daemon(text(f"ca_file: ours/ca.pem, {pair_given}"))
    await said.until("shop at 127.0.0.1:80 is registered")
    await said.until("The configuration app/database is followed")
    await daemon.stopService()

    Papers(tmp_path / "theirs")
    cannot = f"Cannot use etcd at {etcd.endpoint} yet, and will go on trying: "
    for times, tls in enumerate((f"ca_file: theirs/ca.pem, {pair_given}", "ca_file: ours/ca.pem"), 1):
        daemon = run_daemon(text(tls))
        line = await said.until(cannot, times)
        assert "#error" in line
        assert "certificate" in line
        await daemon.stopService()
    assert len(logged_errors.flush_messages("Cannot use etcd")) == 2


# --- an etcd of its own ---------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_its_own_etcd_is_started_first_and_stopped_last(
    etcd_binary: Path, prefix: str, run_daemon: RunDaemon, said: Said, gave_up: list[str]
) -> None:
    daemon = run_daemon(
        f"services: [{{class: tests.daemon.guests.Notebook, name: diary, settings: {{key: {prefix}note}}}}]",
        binary=etcd_binary,
    )
    started = await said.until("etcd is started as process ")
    pid = int(started.split("process ")[1].split(":")[0])
    await said.until("node etcdservice runs: EtcdService, Caretaker, diary")
    await daemon.stopService()
    assert said.count("diary: the last note is kept: True") == 1
    assert said.lines[-1].endswith("#info stopped")
    assert is_gone(pid)
    assert gave_up == []


@pytest_twisted.ensureDeferred
async def test_a_stop_during_the_start_leaves_nothing(
    etcd_binary: Path, run_daemon: RunDaemon, said: Said, gave_up: list[str]
) -> None:
    daemon = run_daemon("watch: [app/database]", binary=etcd_binary)
    started = await said.until("etcd is started as process ")
    await daemon.stopService()
    assert is_gone(int(started.split("process ")[1].split(":")[0]))
    assert daemon.node is None
    assert gave_up == []


@pytest_twisted.ensureDeferred
async def test_an_etcd_that_does_not_come_up_is_told_with_its_last_lines_and_ends_the_daemon(
    tmp_path: Path, run_daemon: RunDaemon, said: Said, gave_up: list[str], logged_errors: LoggedErrors
) -> None:
    binary = tmp_path / "etcd"
    binary.write_text("#!/bin/sh\necho the disk is full\nexit 3\n")
    binary.chmod(0o755)
    daemon = run_daemon("", binary=binary)
    line = await said.until("The daemon cannot start: ")
    assert "#critical" in line
    assert line.endswith("it ended with exit code 3, its last lines:\n  the disk is full")
    assert gave_up == ["settings-0.yaml"]
    await daemon.stopService()
    assert len(logged_errors.flush_messages("The daemon cannot start")) == 1


@pytest_twisted.ensureDeferred
async def test_a_data_directory_that_cannot_be_made_is_told_and_ends_the_daemon(
    etcd_binary: Path, tmp_path: Path, run_daemon: RunDaemon, gave_up: list[str], logged_errors: LoggedErrors
) -> None:
    (tmp_path / "file").write_text("")
    daemon = run_daemon("embedded: {data_dir: file/data}", binary=etcd_binary)
    # At once, and so before a reactor would run.
    assert gave_up == ["settings-0.yaml"]
    (line,) = logged_errors.flush_messages("The daemon cannot start")
    assert "Not a directory" in line
    await daemon.stopService()
