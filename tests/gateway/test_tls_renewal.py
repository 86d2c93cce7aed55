"""Certificate files that are renewed while clients use them: in halves, by symbolic links, and against real etcds."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import pytest_twisted
import trustme
from pytest_twisted import ensureDeferred
from twisted.internet.defer import gatherResults

from tests.etcds import FreshEtcd
from tests.gateway.authorities import Papers, probing
from tests.gateway.conftest import MakeGateway
from tests.gateway.servers import BOTH
from tests.gateway.streams import Recorder, watch_by_post, watch_by_websocket
from tests.said import Said
from twisted_etcd.embedded.process import EmbeddedEtcd
from twisted_etcd.errors import TLSFailed
from twisted_etcd.gateway.gateway import Gateway
from twisted_etcd.gateway.tls import TLSSettings, TLSTrust
from twisted_etcd.schema import rpcs
from twisted_etcd.schema.kv import PutRequest, RangeRequest

HOST = "etcd.example"
WARNING = "The certificates from before stay in use: "

# --- files ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def papers(tmp_path: Path) -> Papers:
    return Papers(tmp_path)


def test_files_that_stay_as_they_are_serve_all_connections_alike(papers: Papers) -> None:
    trust = TLSTrust(papers.settings(papers.pair("client", "client")))
    assert trust.current(HOST) is trust.current(HOST)
    assert trust.current("other.example") is not trust.current(HOST)


@pytest.mark.parametrize("insecure", [False, True])
def test_renewed_files_make_the_next_connection(*, papers: Papers, said: Said, insecure: bool) -> None:
    trust = TLSTrust(papers.settings(papers.pair("client", "client"), insecure=insecure))
    before = trust.current(HOST)
    papers.pair("client", "client")
    after = trust.current(HOST)
    assert after is not before
    assert trust.current(HOST) is after
    assert said.count("new connections are made with what they hold now") == 1
    assert said.count(WARNING) == 0


def test_a_change_that_shows_neither_in_size_nor_in_time_is_noticed(papers: Papers) -> None:
    path = Path(papers.ca_file)
    path.write_bytes(b"# one\n" + papers.authority.cert_pem.bytes())
    times = path.stat()
    trust = TLSTrust(papers.settings())
    before = trust.current(HOST)
    path.write_bytes(b"# two\n" + papers.authority.cert_pem.bytes())
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert trust.current(HOST) is not before


def test_links_that_are_swapped_as_kubernetes_swaps_them_are_followed(papers: Papers, tmp_path: Path) -> None:
    mounted = tmp_path / "mounted"
    mounted.mkdir()

    def release(name: str) -> None:
        version = Papers(mounted / name)
        version.pair("tls", "client")
        (mounted / "..data_tmp").symlink_to(name)
        (mounted / "..data_tmp").replace(mounted / "..data")

    release("..1")
    for name in ("ca.pem", "tls.pem", "tls.key"):
        (mounted / name).symlink_to(f"..data/{name}")
    trust = TLSTrust(papers.settings((f"{mounted}/tls.pem", f"{mounted}/tls.key"), ca_file=f"{mounted}/ca.pem"))
    before = trust.current(HOST)
    release("..2")
    assert trust.current(HOST) is not before


def _gone(path: Path, _other: bytes) -> None:
    path.unlink()


def _unreadable(path: Path, _other: bytes) -> None:
    path.unlink()
    path.mkdir()


def _garbage(path: Path, _other: bytes) -> None:
    path.write_bytes(b"hello")


def _cut(path: Path, other: bytes) -> None:
    path.write_bytes(other[: len(other) // 2])


def _emptied(path: Path, _other: bytes) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("what", ["ca_file", "cert_file", "key_file"])
@pytest.mark.parametrize(
    ("breaks", "why"),
    [
        (_gone, "cannot be read: No such file"),
        (_unreadable, "cannot be read: Is a directory"),
        (_garbage, "holds no "),
        (_cut, "holds no "),
        (_emptied, "holds no "),
    ],
)
def test_while_a_file_cannot_be_used_the_last_good_ones_are_and_one_warning_names_it(
    papers: Papers, said: Said, what: str, breaks: Callable[[Path, bytes], None], why: str
) -> None:
    settings = papers.settings(papers.pair("client", "client"))
    trust = TLSTrust(settings)
    before = trust.current(HOST)
    path = Path(getattr(settings, what))
    good = path.read_bytes()
    breaks(path, good)
    assert [trust.current(HOST) for _ in range(5)] == [before] * 5
    # A host that comes later gets them too.
    assert trust.current("later.example")
    assert said.count(WARNING) == 1
    (line,) = [line for line in said.lines if WARNING in line]
    assert f"{what} {str(path)!r} {why}" in line
    assert "hello" not in line
    if path.is_dir():
        path.rmdir()
    path.write_bytes(good)
    assert trust.current(HOST) is not before
    assert said.count(WARNING) == 1


def test_a_key_that_comes_before_its_certificate_waits_for_it(papers: Papers, said: Said, tmp_path: Path) -> None:
    settings = papers.settings(papers.pair("client", "client"))
    cert_file, key_file = Papers(tmp_path / "next").pair("client", "client")
    trust = TLSTrust(settings)
    before = trust.current(HOST)
    assert settings.cert_file is not None
    assert settings.key_file is not None
    for _ in range(2):
        Path(settings.key_file).write_bytes(Path(key_file).read_bytes())
        assert [trust.current(HOST) for _ in range(3)] == [before] * 3
    assert said.count("is not the key of the first certificate in") == 1
    assert said.count("PRIVATE KEY") == 0
    Path(settings.cert_file).write_bytes(Path(cert_file).read_bytes())
    assert trust.current(HOST) is not before


def test_each_new_trouble_is_warned_of_once(papers: Papers, said: Said) -> None:
    path = Path(papers.ca_file)
    good = path.read_bytes()
    trust = TLSTrust(papers.settings())
    for breaks in (_garbage, _gone, _garbage):
        breaks(path, good)
        for _ in range(3):
            trust.current(HOST)
    assert said.count(WARNING) == 3
    path.write_bytes(good)
    trust.current(HOST)
    path.unlink()
    for _ in range(3):
        trust.current(HOST)
    assert said.count(WARNING) == 4


# --- real servers ---------------------------------------------------------------------------------------------------


class Renewing(NamedTuple):
    """An etcd that believes the clients of two authorities, and has a certificate of the first."""

    etcd: EmbeddedEtcd
    #: The papers of the first; those of the client are its own copies.
    server: Papers
    client: Papers
    next_authority: trustme.CA

    @property
    def url(self) -> str:
        return self.etcd.endpoint

    def settings(self, **options: Any) -> TLSSettings:  # noqa: ANN401
        return self.client.settings(self.client.pair("client", "client.example"), **options)

    def server_changes_authority(self) -> None:
        self.server.authority = self.next_authority
        self.server.pair("server", "127.0.0.1")

    def client_changes_authority(self) -> None:
        self.client.authority = self.next_authority
        self.client.publish()
        self.client.pair("client", "client.example")


@pytest.fixture
def renewing(fresh_etcd: FreshEtcd, tmp_path: Path) -> Renewing:
    server, client = Papers(tmp_path / "server"), Papers(tmp_path / "client")
    client.authority = server.authority
    client.publish()
    next_authority = trustme.CA()
    # etcd reads this once, and its certificate for each handshake.
    both = tmp_path / "both.pem"
    both.write_bytes(server.authority.cert_pem.bytes() + next_authority.cert_pem.bytes())
    cert_file, key_file = server.pair("server", "127.0.0.1")
    etcd = pytest_twisted.blockon(
        fresh_etcd(
            tls=True,
            client=probing(client.settings(client.pair("probing", "client.example"))),
            extra_args=(
                f"--cert-file={cert_file}",
                f"--key-file={key_file}",
                "--client-cert-auth",
                f"--trusted-ca-file={both}",
            ),
        )
    )
    return Renewing(etcd, server, client, next_authority)


async def serves(gateway: Gateway) -> None:
    await gateway.unary(rpcs.PUT, PutRequest(key=b"a", value=b"b"))
    assert (await gateway.unary(rpcs.RANGE, RangeRequest(key=b"a"))).kvs[0].value == b"b"


async def refused(gateway: Gateway, words: str) -> None:
    """Requests and both kinds of streams are."""
    for rpc, request in BOTH:
        with pytest.raises(TLSFailed, match=words):
            await gateway.unary(rpc, request)
    await streams_refused(gateway, words)


async def streams_refused(gateway: Gateway, words: str) -> None:
    with pytest.raises(TLSFailed, match=words):
        await watch_by_post(gateway, Recorder())
    with pytest.raises(TLSFailed, match=words):
        await watch_by_websocket(gateway, Recorder())


async def all_carriers_serve(gateway: Gateway) -> None:
    """Each on connections of its own."""
    await gatherResults([gateway.unary(rpcs.RANGE, RangeRequest(key=b"a")) for _ in range(5)])
    for opening in (watch_by_post, watch_by_websocket):
        recorder = Recorder()
        stream = await opening(gateway, recorder)
        await recorder.until(1)
        await stream.close()


@pytest.mark.parametrize("insecure", [False, True])
@ensureDeferred
async def test_a_client_whose_certificate_has_expired_is_served_once_it_is_renewed(
    *, renewing: Renewing, make_gateway: MakeGateway, insecure: bool
) -> None:
    gateway = make_gateway(renewing.url, tls=renewing.settings(insecure=insecure))
    renewing.client.pair("client", "client.example", expired=True)
    await refused(gateway, "give or mend cert_file and key_file")
    renewing.client.pair("client", "client.example")
    await serves(gateway)
    await all_carriers_serve(gateway)


@ensureDeferred
async def test_a_change_of_authority_on_both_sides_costs_a_running_client_nothing(
    renewing: Renewing, make_gateway: MakeGateway, tmp_path: Path
) -> None:
    gateway = make_gateway(renewing.url, tls=renewing.settings())
    await serves(gateway)
    recorders = [Recorder(), Recorder()]
    streams = [await watch_by_post(gateway, recorders[0]), await watch_by_websocket(gateway, recorders[1])]
    for recorder in recorders:
        await recorder.until(1)
    old_authority = tmp_path / "old.pem"
    old_authority.write_bytes(Path(renewing.client.ca_file).read_bytes())

    renewing.server_changes_authority()
    open_before = gateway.connection_count
    await serves(gateway)
    assert gateway.connection_count == open_before
    await streams_refused(gateway, "give the authority that signed it as ca_file")

    renewing.client_changes_authority()
    await all_carriers_serve(gateway)
    await refused(
        make_gateway(renewing.url, tls=renewing.settings(ca_file=str(old_authority))),
        "give the authority that signed it as ca_file",
    )
    # Those that were open all the while.
    for recorder in recorders:
        assert (await recorder.until_events(1))[0][1] == b"b"
        assert recorder.ends == []
    for stream in streams:
        await stream.close()


@ensureDeferred
async def test_half_of_a_renewal_costs_nothing_either(
    renewing: Renewing, make_gateway: MakeGateway, said: Said
) -> None:
    settings = renewing.settings()
    gateway = make_gateway(renewing.url, tls=settings)
    assert settings.key_file is not None
    Path(settings.key_file).unlink()
    await serves(gateway)
    await all_carriers_serve(gateway)
    assert said.count(WARNING) == 1
    renewing.client.pair("client", "client.example")
    await all_carriers_serve(gateway)


@pytest.mark.parametrize("wrong", ["expired", "not_yet"])
@ensureDeferred
async def test_a_server_whose_certificate_is_out_of_date_is_refused_until_it_is_renewed(
    renewing: Renewing, make_gateway: MakeGateway, wrong: str
) -> None:
    gateway = make_gateway(renewing.url, tls=renewing.settings())
    out_of_date: dict[str, Any] = {wrong: True}
    renewing.server.pair("server", "127.0.0.1", **out_of_date)
    await refused(gateway, "renew the certificate if it has expired, or set this machine's clock")
    renewing.server.pair("server", "127.0.0.1")
    await serves(gateway)
    await all_carriers_serve(gateway)
