"""The embedded etcd with real etcds, of each version."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
import treq
import trustme
from treq.client import HTTPClient
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.ssl import Certificate, trustRootFromCertificates
from twisted.python.failure import Failure
from twisted.web.client import Agent, BrowserLikePolicyForHTTPS, HTTPConnectionPool

from tests.etcds import FreshEtcd, http_client, new_etcd, version
from twisted_etcd.commands import LAUNCHER
from twisted_etcd.embedded import place
from twisted_etcd.embedded.binary import distro_binary
from twisted_etcd.embedded.ports import Ports, free_ports
from twisted_etcd.embedded.process import EmbeddedEtcd
from twisted_etcd.errors import StartFailed

KEY, VALUE = "Z3JlZXRpbmc=", "aGVsbG8="
#: 3,000 bytes.
LARGE = "aGVs" * 1000


async def post(etcd: EmbeddedEtcd, path: str, body: dict[str, object]) -> Any:  # noqa: ANN401 - JSON
    return await treq.json_content(await http_client().post(f"{etcd.endpoint}/v3/{path}", json=body))


async def put(etcd: EmbeddedEtcd) -> None:
    assert "header" in await post(etcd, "kv/put", {"key": KEY, "value": VALUE})


async def value(etcd: EmbeddedEtcd) -> object:
    answer = await post(etcd, "kv/range", {"key": KEY})
    return answer["kvs"][0]["value"] if "kvs" in answer else None


def assert_gone(pid: int | None) -> None:
    assert pid is not None
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def data_directory(etcd: EmbeddedEtcd) -> Path:
    """Where the running process has its data, as the process itself was told."""
    arguments = Path(f"/proc/{etcd.pid}/cmdline").read_bytes().split(b"\0")
    return Path(next(each for each in arguments if each.startswith(b"--data-dir=")).decode().split("=", 1)[1])


@pytest_twisted.ensureDeferred
async def test_the_first_request_is_answered(fresh_etcd: FreshEtcd, etcd_binary: Path) -> None:
    # With etcd's own times, in which it listens for a while before it leads.
    etcd = await fresh_etcd(extra_args=("--heartbeat-interval=100", "--election-timeout=1000"))
    await put(etcd)
    assert await value(etcd) == VALUE
    assert etcd.version == version(etcd_binary)


@pytest_twisted.ensureDeferred
async def test_it_listens_on_loopback_alone(fresh_etcd: FreshEtcd) -> None:
    etcd = await fresh_etcd()
    # every address of 127/8 is this machine's, and only the one is listened on
    assert await value(etcd) is None
    port = int(etcd.endpoint.rsplit(":", 1)[1])
    with socket.socket() as other:
        assert other.connect_ex(("127.0.0.2", port)) != 0


@pytest_twisted.ensureDeferred
async def test_after_a_kill_it_comes_back_with_its_data_at_the_same_address(fresh_etcd: FreshEtcd) -> None:
    restarts = []
    etcd = await fresh_etcd(on_restart=lambda: restarts.append(1))
    await put(etcd)
    endpoint, pid, exited = etcd.endpoint, etcd.pid, etcd.when_exited()
    etcd.kill("KILL")
    assert await exited == "signal SIGKILL"
    await etcd.when_ready()
    assert await value(etcd) == VALUE
    assert etcd.endpoint == endpoint
    assert etcd.pid != pid
    assert etcd.restarts == len(restarts) == 1


@pytest_twisted.ensureDeferred
async def test_a_temporary_directory_is_gone_after_the_stop(etcd_binary: Path) -> None:
    etcd = new_etcd(etcd_binary)
    etcd.startService()
    await etcd.when_ready()
    pid, directory = etcd.pid, data_directory(etcd)
    assert directory.is_dir()
    await etcd.stopService()
    assert not directory.parent.exists()
    assert_gone(pid)


@pytest_twisted.ensureDeferred
async def test_a_kept_directory_has_data_and_address_for_the_next_service(
    fresh_etcd: FreshEtcd, tmp_path: Path
) -> None:
    first = await fresh_etcd(data_dir=tmp_path / "data")
    await put(first)
    endpoint = first.endpoint
    await first.stopService()
    second = await fresh_etcd(data_dir=tmp_path / "data")
    assert second.endpoint == endpoint
    assert await value(second) == VALUE


@pytest_twisted.ensureDeferred
async def test_the_same_service_can_be_started_again(fresh_etcd: FreshEtcd) -> None:
    etcd = await fresh_etcd()
    await put(etcd)
    await etcd.stopService()
    etcd.startService()
    await etcd.when_ready()
    assert await value(etcd) is None


@pytest_twisted.ensureDeferred
async def test_a_stop_during_the_start_leaves_nothing(etcd_binary: Path) -> None:
    etcd = new_etcd(etcd_binary)
    etcd.startService()
    pid = etcd.pid
    await etcd.stopService()
    assert_gone(pid)


@pytest_twisted.ensureDeferred
async def test_an_etcd_that_hangs_is_stopped_all_the_same(fresh_etcd: FreshEtcd) -> None:
    etcd = await fresh_etcd()
    etcd.kill("STOP")
    exited = etcd.when_exited()
    await etcd.stopService()
    assert await exited in ("exit code 0", "signal SIGTERM")


@pytest_twisted.ensureDeferred
async def test_ports_that_somebody_else_took_are_replaced(
    fresh_etcd: FreshEtcd, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as theirs, socket.socket() as theirs_too:
        for each in (theirs, theirs_too):
            each.bind(("127.0.0.1", 0))
            each.listen()
        taken = [theirs.getsockname()[1], theirs_too.getsockname()[1]]
        # lost twice: once the client's port, once the peer's
        offers = [[taken[0], free_ports(1)[0]], [free_ports(1)[0], taken[1]]]
        monkeypatch.setattr(place, "free_ports", lambda count: offers.pop(0) if offers else free_ports(count))
        etcd = await fresh_etcd()
    assert offers == []
    assert int(etcd.endpoint.rsplit(":", 1)[1]) not in taken
    assert etcd.restarts == 0


@pytest_twisted.ensureDeferred
async def test_a_wanted_port_that_is_taken_fails_the_start_and_says_so(fresh_etcd: FreshEtcd) -> None:
    with socket.socket() as theirs:
        theirs.bind(("127.0.0.1", 0))
        theirs.listen()
        client, peer = theirs.getsockname()[1], free_ports(1)[0]
        with pytest.raises(StartFailed, match=f"127.0.0.1:{client}: bind: address already in use"):
            await fresh_etcd(client_port=client, peer_port=peer)


@pytest_twisted.ensureDeferred
async def test_an_argument_that_etcd_does_not_know_fails_the_start_and_says_so(fresh_etcd: FreshEtcd) -> None:
    with pytest.raises(StartFailed) as caught:
        await fresh_etcd(extra_args=("--no-such-thing",))
    lines = str(caught.value).splitlines()
    assert lines[0].endswith("did not come up: it ended with exit code 2, its last lines:")
    assert "  flag provided but not defined: -no-such-thing" in lines


@pytest_twisted.ensureDeferred
async def test_a_file_that_is_no_program_fails_the_start_and_says_so(tmp_path: Path) -> None:
    program = tmp_path / "etcd"
    program.write_bytes(b"\x7fELF not quite")
    program.chmod(0o755)
    etcd = new_etcd(program)
    etcd.startService()
    with pytest.raises(StartFailed, match=r"\n  .*/etcd cannot be run: Exec format error$"):
        await etcd.when_ready()
    await etcd.stopService()


@pytest_twisted.ensureDeferred
async def test_extra_arguments_reach_etcd(fresh_etcd: FreshEtcd) -> None:
    etcd = await fresh_etcd(extra_args=("--max-request-bytes=1000",))
    answer = await post(etcd, "kv/put", {"key": KEY, "value": LARGE})
    assert answer["message"] == "etcdserver: request is too large"


@pytest_twisted.ensureDeferred
async def test_settings_of_another_etcd_in_the_environment_do_not_reach_it(fresh_etcd: FreshEtcd) -> None:
    etcd = await fresh_etcd(environ={**os.environ, "ETCD_MAX_REQUEST_BYTES": "1000"})
    assert "header" in await post(etcd, "kv/put", {"key": KEY, "value": LARGE})


@pytest_twisted.ensureDeferred
async def test_it_can_speak_tls(fresh_etcd: FreshEtcd, tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    trust = trustRootFromCertificates([Certificate.loadPEM(authority.cert_pem.bytes())])
    pool = HTTPConnectionPool(reactor, persistent=False)
    client = HTTPClient(Agent(reactor, BrowserLikePolicyForHTTPS(trust), pool=pool))
    etcd = await fresh_etcd(
        client=client,
        tls=True,
        extra_args=(f"--cert-file={tmp_path / 'cert.pem'}", f"--key-file={tmp_path / 'key.pem'}"),
    )
    assert etcd.endpoint.startswith("https://")


@pytest_twisted.ensureDeferred
async def test_three_of_them_form_a_cluster(etcd_binary: Path) -> None:
    ports = free_ports(6)
    pairs = [Ports(client, peer) for client, peer in zip(ports[:3], ports[3:], strict=True)]
    cluster = ",".join(f"m{n}=http://127.0.0.1:{pair.peer}" for n, pair in enumerate(pairs))
    members = [
        new_etcd(
            etcd_binary,
            name=f"m{n}",
            client_port=pair.client,
            peer_port=pair.peer,
            extra_args=(f"--initial-cluster={cluster}",),
        )
        for n, pair in enumerate(pairs)
    ]
    for member in members:
        member.startService()
    try:
        for member in members:
            await member.when_ready()
        await put(members[0])
        assert await value(members[2]) == VALUE
    finally:
        for member in members:
            await member.stopService()


class Script(ProcessProtocol):
    """A Python program; fires with each line that it prints, and at its end."""

    def __init__(self) -> None:
        self.printed: Deferred[bytes] = Deferred()
        self.ended: Deferred[bytes] = Deferred()
        self._output = b""

    @classmethod
    def run(cls, source: str, *arguments: str) -> Script:
        script = cls()
        command = [sys.executable, "-W", "error", "-c", textwrap.dedent(source), *arguments]
        reactor.spawnProcess(script, sys.executable, command, env=os.environ)
        return script

    def outReceived(self, data: bytes) -> None:
        self._output += data
        if b"\n" in self._output and not self.printed.called:
            self.printed.callback(self._output)

    def errReceived(self, data: bytes) -> None:
        self._output += data

    def processEnded(self, reason: Failure) -> None:
        if not self.printed.called:
            self.printed.errback(AssertionError(self._output))
        self.ended.callback(self._output if reason.check(ProcessDone) else repr(reason.value).encode())


#: Runs an etcd and prints its process id and data directory.
PROGRAM = """
    import sys
    from twisted.internet import reactor
    from tests.etcds import new_etcd
    from pathlib import Path
    etcd = new_etcd(Path(sys.argv[1]), data_dir=sys.argv[2])
    etcd.startService()
    etcd.when_ready().addCallback(lambda _: print(etcd.pid, etcd.endpoint, flush=True))
    reactor.addSystemEventTrigger("before", "shutdown", etcd.stopService)
    reactor.run()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
@pytest_twisted.ensureDeferred
async def test_after_a_kill_of_the_program_etcd_is_gone_and_its_data_can_be_used(
    fresh_etcd: FreshEtcd, etcd_binary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent.parent.parent))
    script = Script.run(PROGRAM, str(etcd_binary), str(tmp_path))
    pid, endpoint = (await script.printed).decode().split()
    # the program is a process of the test, etcd is a process of the program
    assert script.transport is not None
    script.transport.signalProcess("KILL")
    await script.ended
    etcd = await fresh_etcd(data_dir=tmp_path)
    assert etcd.endpoint == endpoint
    assert etcd.pid != int(pid)


@pytest_twisted.ensureDeferred
async def test_a_signal_to_the_terminals_processes_is_not_for_etcd(fresh_etcd: FreshEtcd) -> None:
    etcd = await fresh_etcd()
    assert etcd.pid is not None
    assert os.getpgid(etcd.pid) == etcd.pid
    assert os.getpgid(etcd.pid) != os.getpgid(0)


def test_a_launcher_whose_program_has_ended_does_not_start_an_etcd() -> None:
    binary = distro_binary()
    assert binary is not None
    done = subprocess.run(
        [sys.executable, "-I", "-S", LAUNCHER, "1", "", binary, "--version"],
        capture_output=True,
        text=True,
        check=False,
        timeout=20,
    )
    assert done.returncode != 0
    assert done.stderr == f"the program that started {binary} has ended\n"


@pytest_twisted.ensureDeferred
async def test_the_process_is_etcd_itself_under_its_own_number(fresh_etcd: FreshEtcd, etcd_binary: Path) -> None:
    etcd = await fresh_etcd()
    assert Path(f"/proc/{etcd.pid}/exe").resolve() == etcd_binary.resolve()
