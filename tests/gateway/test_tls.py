"""TLS as people set it up: right, wrong, and against real etcds that ask for certificates."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest
import pytest_twisted
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from OpenSSL import SSL

from tests.etcds import new_etcd
from tests.gateway.authorities import Papers, probing
from tests.gateway.conftest import MakeGateway, MakeProxy
from tests.gateway.servers import BOTH, credentials, until_closed
from tests.gateway.streams import Recorder, watch_by_post, watch_by_websocket
from twisted_etcd.embedded.process import EmbeddedEtcd
from twisted_etcd.errors import (
    CertificateNamesUser,
    DeadlineExceeded,
    InvalidSettings,
    OutcomeUnknown,
    TLSFailed,
    Unavailable,
)
from twisted_etcd.gateway.gateway import Gateway
from twisted_etcd.gateway.stream import Stream
from twisted_etcd.gateway.tls import TLSSettings, TLSTrust
from twisted_etcd.gateway.tls_errors import tls_obstacle
from twisted_etcd.schema import rpcs
from twisted_etcd.schema.auth import (
    AuthDisableRequest,
    AuthEnableRequest,
    AuthRoleAddRequest,
    AuthUserAddRequest,
    AuthUserGrantRoleRequest,
)
from twisted_etcd.schema.kv import PutRequest, RangeRequest

# --- settings -------------------------------------------------------------------------------------------------------


@pytest.fixture
def papers(tmp_path: Path) -> Papers:
    return Papers(tmp_path)


def test_nothing_set_believes_the_systems_authorities() -> None:
    assert TLSTrust(TLSSettings()).connections_to("localhost")


@pytest.mark.parametrize("given", [{"cert_file": "x"}, {"key_file": "x"}], ids=repr)
def test_a_certificate_and_its_key_belong_together(given: dict[str, str]) -> None:
    settings = msgspec.convert(given, TLSSettings)
    with pytest.raises(InvalidSettings, match="cert_file and key_file belong together: give both or neither"):
        TLSTrust(settings)


@pytest.mark.parametrize("what", ["ca_file", "cert_file", "key_file"])
@pytest.mark.parametrize("insecure", [False, True])
def test_a_file_that_is_missing_is_named(*, papers: Papers, what: str, insecure: bool) -> None:
    settings = papers.settings(papers.pair("client", "client"), insecure=insecure, **{what: "/no/such/file.pem"})
    with pytest.raises(InvalidSettings, match=f"{what} '/no/such/file.pem' cannot be read: No such file"):
        TLSTrust(settings)


@pytest.mark.parametrize(
    ("what", "content", "expected"),
    [
        ("ca_file", b"", "holds no certificate in PEM form"),
        ("ca_file", b"\x30\x82\x01", "holds no certificate in PEM form"),
        ("cert_file", b"hello", "holds no certificate in PEM form"),
        ("key_file", b"", "holds no private key in PEM form that can be read"),
        ("key_file", b"hello", "holds no private key in PEM form that can be read"),
    ]
    + [
        (
            what,
            b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "holds a certificate that cannot be read",
        )
        for what in ("ca_file", "cert_file")
    ]
    + [
        (
            "key_file",
            b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
            "holds no private key in PEM form that can be read",
        )
    ],
)
def test_a_file_that_holds_something_else_is_named(
    papers: Papers, tmp_path: Path, what: str, content: bytes, expected: str
) -> None:
    wrong = tmp_path / "wrong.pem"
    wrong.write_bytes(content)
    settings = papers.settings(papers.pair("client", "client"), **{what: str(wrong)})
    with pytest.raises(InvalidSettings) as caught:
        TLSTrust(settings)
    assert f"{what} {str(wrong)!r} {expected}" in str(caught.value)


def test_the_key_of_another_certificate_is_refused(papers: Papers) -> None:
    one, other = papers.pair("one", "one"), papers.pair("other", "other")
    with pytest.raises(InvalidSettings, match="is not the key of the first certificate in"):
        TLSTrust(papers.settings((one[0], other[1])))


def test_an_encrypted_key_is_refused_and_nobody_is_asked_for_its_passphrase(papers: Papers, tmp_path: Path) -> None:
    cert_file, key_file = papers.pair("client", "client")
    key = load_pem_private_key(Path(key_file).read_bytes(), None)
    locked = tmp_path / "locked.key"
    for form in (PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL):
        locked.write_bytes(key.private_bytes(Encoding.PEM, form, BestAvailableEncryption(b"sesame")))
        with pytest.raises(InvalidSettings, match="is encrypted; give a key without a passphrase"):
            TLSTrust(papers.settings((cert_file, str(locked))))


def test_words_around_the_certificates_and_several_authorities_are_fine(papers: Papers, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle.pem"
    bundle.write_bytes(b"# ours\n" + papers.authority.cert_pem.bytes() + b"# theirs\n" + trustme.CA().cert_pem.bytes())
    assert TLSTrust(TLSSettings(ca_file=str(bundle))).connections_to("localhost")


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ("certificate verify failed", "give the authority that signed it as ca_file"),
        ("tlsv13 alert certificate required", "give or mend cert_file and key_file"),
        ("ssl/tls alert bad certificate", "give or mend cert_file and key_file"),
        ("sslv3 alert certificate expired", "give or mend cert_file and key_file"),
        ("tlsv1 alert unknown ca", "give or mend cert_file and key_file"),
        ("wrong version number", "write the endpoint with http://"),
        ("tlsv1 alert protocol version", "no version or cipher of TLS in common"),
        ("ssl/tls alert handshake failure", "no version or cipher of TLS in common"),
    ],
)
def test_what_no_repetition_mends_is_said_with_what_to_do(words: str, part: str) -> None:
    said = tls_obstacle(SSL.Error([("SSL routines", "", words)]))
    assert said is not None
    assert words in said
    assert part in said


@pytest.mark.parametrize(
    "error",
    [
        SSL.Error([("SSL routines", "", "decryption failed or bad record mac")]),
        SSL.Error([("SSL routines", "", "ssl/tls alert bad record mac")]),
        SSL.Error([("SSL routines", "", "tlsv1 alert internal error")]),
        SSL.Error(),
        SSL.SysCallError(-1, "Unexpected EOF"),
    ],
    ids=repr,
)
def test_tls_that_breaks_in_the_middle_may_have_carried_the_request(error: SSL.Error) -> None:
    assert tls_obstacle(error) is None


# --- real servers ---------------------------------------------------------------------------------------------------


class Secure(NamedTuple):
    """An etcd that asks for client certificates, and the papers of its authority."""

    etcd: EmbeddedEtcd
    papers: Papers
    pair: tuple[str, str]

    @property
    def url(self) -> str:
        return self.etcd.endpoint

    @property
    def port(self) -> str:
        return self.url.rpartition(":")[2]


@pytest.fixture(scope="module")
def secure(etcd_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secure]:
    papers = Papers(tmp_path_factory.mktemp("papers"))
    # The gateway inside etcd dials its own server with this certificate too.
    cert_file, key_file = papers.pair("server", "127.0.0.1")
    pair = papers.pair("client", "client.example")
    etcd = new_etcd(
        etcd_binary,
        tls=True,
        client=probing(papers.settings(pair)),
        extra_args=(
            f"--cert-file={cert_file}",
            f"--key-file={key_file}",
            "--client-cert-auth",
            f"--trusted-ca-file={papers.ca_file}",
        ),
    )
    etcd.startService()
    pytest_twisted.blockon(etcd.when_ready())
    yield Secure(etcd, papers, pair)
    pytest_twisted.blockon(etcd.stopService())


async def put_and_get(gateway: Gateway) -> None:
    await gateway.unary(rpcs.PUT, PutRequest(key=b"a", value=b"b"))
    assert (await gateway.unary(rpcs.RANGE, RangeRequest(key=b"a"))).kvs[0].value == b"b"


async def refused(gateway: Gateway, words: str, cls: type[Exception] = TLSFailed) -> None:
    """Both a read and a write are refused, in words that help, and without a wait where waiting is no help."""
    for rpc, request in BOTH:
        with pytest.raises(cls) as caught:
            await gateway.unary(rpc, request)
        assert type(caught.value) is cls
        assert words in str(caught.value)


@pytest_twisted.ensureDeferred
async def test_mutual_tls_works(secure: Secure, make_gateway: MakeGateway) -> None:
    await put_and_get(make_gateway(secure.url, tls=secure.papers.settings(secure.pair)))


@pytest_twisted.ensureDeferred
async def test_connections_are_kept_between_requests(secure: Secure, make_gateway: MakeGateway) -> None:
    gateway = make_gateway(secure.url, tls=secure.papers.settings(secure.pair))
    for _ in range(3):
        await put_and_get(gateway)
    assert gateway.connection_count == 1


@pytest_twisted.ensureDeferred
async def test_the_whole_chain_of_the_client_is_sent(secure: Secure, make_gateway: MakeGateway) -> None:
    between = secure.papers.authority.create_child_ca()
    pair = secure.papers.pair("chained", "client.example", through=between)
    await put_and_get(make_gateway(secure.url, tls=secure.papers.settings(pair)))
    await put_and_get(make_gateway(secure.url, tls=secure.papers.settings(pair, insecure=True)))


@pytest_twisted.ensureDeferred
async def test_without_the_intermediate_the_client_is_refused(
    secure: Secure, make_gateway: MakeGateway, tmp_path: Path
) -> None:
    between = secure.papers.authority.create_child_ca()
    cert_file, key_file = secure.papers.pair("unchained", "client.example", through=between)
    alone = tmp_path / "alone.pem"
    alone.write_bytes(
        Path(cert_file).read_bytes().partition(b"-----END CERTIFICATE-----\n")[0] + b"-----END CERTIFICATE-----\n"
    )
    gateway = make_gateway(secure.url, tls=secure.papers.settings((str(alone), key_file)))
    await refused(gateway, "the server wants another client certificate")


@pytest_twisted.ensureDeferred
async def test_a_client_without_a_certificate_is_refused(secure: Secure, make_gateway: MakeGateway) -> None:
    await refused(make_gateway(secure.url, tls=secure.papers.settings()), "give or mend cert_file and key_file")


@pytest_twisted.ensureDeferred
async def test_the_name_in_a_client_certificate_is_no_user(secure: Secure, make_gateway: MakeGateway) -> None:
    pair = secure.papers.pair("root", "client.example", common_name="root")
    gateway = make_gateway(secure.url, tls=secure.papers.settings(pair))
    user = credentials()
    await gateway.unary(rpcs.USER_ADD, AuthUserAddRequest(name=user.username, password=user.password))
    await gateway.unary(rpcs.ROLE_ADD, AuthRoleAddRequest(name="root"))
    await gateway.unary(rpcs.USER_GRANT_ROLE, AuthUserGrantRoleRequest(user="root", role="root"))
    await gateway.unary(rpcs.AUTH_ENABLE, AuthEnableRequest())
    try:
        for options in ({}, {"credentials": user}):
            named = make_gateway(secure.url, tls=secure.papers.settings(pair), **options)
            await refused(named, "use a client certificate without a common name", CertificateNamesUser)
    finally:
        nameless = make_gateway(secure.url, tls=secure.papers.settings(secure.pair), credentials=user)
        await put_and_get(nameless)
        await nameless.unary(rpcs.AUTH_DISABLE, AuthDisableRequest())


@pytest_twisted.ensureDeferred
async def test_an_expired_certificate_is_refused(secure: Secure, make_gateway: MakeGateway) -> None:
    pair = secure.papers.pair("expired", "client.example", expired=True)
    await refused(make_gateway(secure.url, tls=secure.papers.settings(pair)), "give or mend cert_file and key_file")


@pytest_twisted.ensureDeferred
async def test_a_certificate_of_another_authority_is_refused(
    secure: Secure, make_gateway: MakeGateway, tmp_path: Path
) -> None:
    pair = Papers(tmp_path).pair("stranger", "client.example")
    await refused(make_gateway(secure.url, tls=secure.papers.settings(pair)), "give or mend cert_file and key_file")


@pytest_twisted.ensureDeferred
async def test_a_server_of_another_authority_is_not_believed(
    secure: Secure, make_gateway: MakeGateway, tmp_path: Path
) -> None:
    settings = secure.papers.settings(secure.pair, ca_file=Papers(tmp_path).ca_file)
    await refused(make_gateway(secure.url, tls=settings), "give the authority that signed it as ca_file")
    await refused(
        make_gateway(secure.url, tls=secure.papers.settings(secure.pair, ca_file=None)),
        "the server's certificate is not trusted",
    )


@pytest_twisted.ensureDeferred
async def test_a_server_by_another_name_is_not_believed(secure: Secure, make_gateway: MakeGateway) -> None:
    gateway = make_gateway(f"https://localhost:{secure.port}", tls=secure.papers.settings(secure.pair))
    await refused(gateway, "the server's certificate is for another host")


@pytest_twisted.ensureDeferred
async def test_insecure_believes_every_server(secure: Secure, make_gateway: MakeGateway) -> None:
    settings = secure.papers.settings(secure.pair, ca_file=None, insecure=True)
    await put_and_get(make_gateway(secure.url, tls=settings))
    await put_and_get(make_gateway(f"https://localhost:{secure.port}", tls=settings))


@pytest_twisted.ensureDeferred
async def test_http_to_a_server_that_speaks_tls_is_explained(secure: Secure, make_gateway: MakeGateway) -> None:
    gateway = make_gateway(f"http://127.0.0.1:{secure.port}", request_timeout=0.1)
    with pytest.raises(DeadlineExceeded, match="if etcd speaks TLS there, write https://"):
        await gateway.unary(rpcs.RANGE, RangeRequest(key=b"a"))
    # Nothing says that it was not sent.
    with pytest.raises(OutcomeUnknown, match="if etcd speaks TLS there, write https://"):
        await gateway.unary(rpcs.PUT, PutRequest(key=b"a"))


@pytest_twisted.ensureDeferred
async def test_https_to_a_server_that_speaks_none_is_explained(
    etcd_server: EmbeddedEtcd, make_gateway: MakeGateway
) -> None:
    url = etcd_server.endpoint.replace("http://", "https://")
    gateway = make_gateway(url, tls=TLSSettings(), request_timeout=0.1)
    await refused(gateway, "if plain HTTP is spoken there, write http://", Unavailable)


# --- streams --------------------------------------------------------------------------------------------------------

OPENINGS = pytest.mark.parametrize("opening", [watch_by_post, watch_by_websocket], ids=["post", "websocket"])
Opening = Callable[[Gateway, Recorder], Awaitable[Stream]]


async def stream_refused(gateway: Gateway, opening: Opening, words: str, cls: type[Exception] = TLSFailed) -> None:
    with pytest.raises(cls) as caught:
        await opening(gateway, Recorder())
    assert type(caught.value) is cls
    assert words in str(caught.value)
    await until_closed(gateway)


@OPENINGS
@pytest_twisted.ensureDeferred
async def test_streams_that_tls_refuses_say_so_in_the_words_of_requests(
    secure: Secure, make_gateway: MakeGateway, tmp_path: Path, opening: Opening
) -> None:
    papers, others = secure.papers, Papers(tmp_path)
    expired = papers.pair("expired", "client.example", expired=True)
    not_yet = papers.pair("not-yet", "client.example", not_yet=True)
    client, server = "give or mend cert_file and key_file", "give the authority that signed it as ca_file"
    for settings, words in (
        (papers.settings(), client),
        (papers.settings(expired), client),
        (papers.settings(not_yet), client),
        (papers.settings(others.pair("stranger", "client.example")), client),
        (papers.settings(secure.pair, ca_file=others.ca_file), server),
    ):
        await stream_refused(make_gateway(secure.url, tls=settings), opening, words)
    by_another_name = make_gateway(f"https://localhost:{secure.port}", tls=papers.settings(secure.pair))
    await stream_refused(by_another_name, opening, "the server's certificate is for another host")


@OPENINGS
@pytest_twisted.ensureDeferred
async def test_streams_explain_a_scheme_that_is_the_wrong_one(
    secure: Secure, etcd_server: EmbeddedEtcd, make_gateway: MakeGateway, opening: Opening
) -> None:
    plain = make_gateway(etcd_server.endpoint.replace("http://", "https://"), tls=TLSSettings())
    await stream_refused(plain, opening, "if plain HTTP is spoken there, write http://", Unavailable)
    tls = make_gateway(f"http://127.0.0.1:{secure.port}")
    await stream_refused(tls, opening, "if etcd speaks TLS there, write https://", Unavailable)


@OPENINGS
@pytest_twisted.ensureDeferred
async def test_streams_tell_of_a_handshake_that_is_cut_off_or_hangs(
    secure: Secure, make_gateway: MakeGateway, make_proxy: MakeProxy, opening: Opening
) -> None:
    proxy = make_proxy(secure.url)
    gateway = make_gateway(proxy.endpoint, tls=secure.papers.settings(secure.pair), connect_timeout=0.2)
    proxy.cut_after(100)
    await stream_refused(gateway, opening, "the connection was closed during the TLS handshake", Unavailable)
    await proxy.heal()
    proxy.swallow()
    await stream_refused(gateway, opening, "within 0.2 s", Unavailable)


@pytest_twisted.ensureDeferred
async def test_a_certificate_that_is_not_valid_yet_is_refused(secure: Secure, make_gateway: MakeGateway) -> None:
    pair = secure.papers.pair("not-yet", "client.example", not_yet=True)
    await refused(make_gateway(secure.url, tls=secure.papers.settings(pair)), "give or mend cert_file and key_file")


# --- faults ---------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_an_endpoint_whose_tls_fails_is_passed_over(
    secure: Secure, etcd_server: EmbeddedEtcd, make_gateway: MakeGateway
) -> None:
    await put_and_get(make_gateway(secure.url, etcd_server.endpoint, tls=secure.papers.settings()))


@pytest_twisted.ensureDeferred
async def test_a_handshake_that_is_cut_off_sends_nothing(
    secure: Secure, make_gateway: MakeGateway, make_proxy: MakeProxy
) -> None:
    for length in (0, 100):
        proxy = make_proxy(secure.url)
        proxy.cut_after(length)
        gateway = make_gateway(proxy.endpoint, tls=secure.papers.settings(secure.pair), request_timeout=0.1)
        await refused(gateway, "the connection was closed during the TLS handshake", Unavailable)


@pytest_twisted.ensureDeferred
async def test_a_server_that_hangs_in_the_handshake_is_left_for_the_next(
    secure: Secure, make_gateway: MakeGateway, make_proxy: MakeProxy
) -> None:
    proxy = make_proxy(secure.url)
    proxy.swallow()
    settings = secure.papers.settings(secure.pair)
    gateway = make_gateway(proxy.endpoint, secure.url, tls=settings, connect_timeout=0.1)
    await put_and_get(gateway)
    alone = make_gateway(proxy.endpoint, tls=settings, connect_timeout=0.05, request_timeout=0.12)
    await refused(alone, "no TLS handshake within 0.05 s", Unavailable)
    await until_closed(alone)


@pytest_twisted.ensureDeferred
async def test_a_body_that_is_too_slow_for_the_deadline_costs_its_connection_at_once(
    secure: Secure, make_gateway: MakeGateway, make_proxy: MakeProxy
) -> None:
    proxy = make_proxy(secure.url)
    gateway = make_gateway(proxy.endpoint, tls=secure.papers.settings(secure.pair))
    await gateway.unary(rpcs.PUT, PutRequest(key=b"large", value=b"x" * 1_000_000))
    proxy.limit(100_000, "answers")
    with pytest.raises(DeadlineExceeded):
        await gateway.unary(rpcs.RANGE, RangeRequest(key=b"large"), timeout=0.15)
    await until_closed(gateway, but=1)


@pytest_twisted.ensureDeferred
async def test_stopping_does_not_wait_for_a_tls_peer_that_hangs(
    secure: Secure, make_gateway: MakeGateway, make_proxy: MakeProxy
) -> None:
    proxy = make_proxy(secure.url)
    gateway = make_gateway(proxy.endpoint, tls=secure.papers.settings(secure.pair), request_timeout=0.1)
    await put_and_get(gateway)
    proxy.swallow()
    assert gateway.connection_count == 1
    with pytest.raises(DeadlineExceeded):
        await gateway.unary(rpcs.RANGE, RangeRequest(key=b"a"))
    await proxy.heal()
    await put_and_get(gateway)
    proxy.swallow()
    await gateway.stop()
    assert gateway.connection_count == 0
