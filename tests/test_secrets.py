"""No password, no token and no value of a key in anything that is logged, raised, printed or shown."""

from __future__ import annotations

import base64
import logging
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

import msgspec
import pytest
import pytest_twisted
import trustme
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.logger import ILogObserver, globalLogPublisher

from tests.client import users
from tests.client.conftest import proxy_before
from tests.etcds import ONE_VERSION, FreshEtcd
from tests.gateway.authorities import Papers
from tests.gateway.servers import Asked, Scripted, always_and_close, http_answer
from tests.gateway.streams import secure_etcd
from tests.guards import LoggedErrors
from tests.said import Said
from tests.shown import Shown, tokens_in_use
from tests.wire import soon
from twisted_etcd.client import compare, op
from twisted_etcd.client.client import EtcdClient
from twisted_etcd.config.config import Config
from twisted_etcd.config.configuration import Configuration
from twisted_etcd.daemon.daemon import Daemon
from twisted_etcd.daemon.tap import Options, makeService
from twisted_etcd.embedded.process import EmbeddedEtcd
from twisted_etcd.errors import BadValue, InvalidSettings, NotEtcd, Unavailable
from twisted_etcd.gateway.gateway import Credentials
from twisted_etcd.gateway.tls import TLSSettings
from twisted_etcd.messaging.node import Node
from twisted_etcd.registry.registry import Registry
from twisted_etcd.schema import rpcs
from twisted_etcd.schema.auth import AuthenticateRequest, AuthUserAddRequest, AuthUserChangePasswordRequest
from twisted_etcd.services.api import EtcdApi
from twisted_etcd.services.etcd import EtcdService
from twisted_etcd.services.messages import EtcdConfigSetReq, EtcdServiceRegisterReq, EtcdSetReq

VALUE, CONFIGURED, METADATA = "a very secret value", "a secret of the configuration", "secret-of-the-metadata"
WRONG, NEW, ADDED = "a password that is wrong", "the new password", "the password of a new user"
MakeClient = Callable[..., EtcdClient]
AtEnd = list[Callable[[], Deferred[Any]]]
SECRETS = (VALUE, CONFIGURED, METADATA, WRONG, NEW, ADDED, users.ROOT["password"], users.USER["password"])


@pytest.fixture
def shown(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str], recwarn: Any) -> Iterator[Shown]:  # noqa: ANN401 - pytest does not name its type
    """All that the test shows, which is searched for all secrets when it has ended."""
    found = Shown()
    observer = cast("ILogObserver", found.log)
    globalLogPublisher.addObserver(observer)
    with caplog.at_level(logging.DEBUG):
        yield found
    globalLogPublisher.removeObserver(observer)
    found.texts += [record.getMessage() for record in caplog.records]
    found.texts += [str(warning.message) for warning in recwarn]
    found.texts += capfd.readouterr()
    for secret in SECRETS:
        assert found.with_secret(secret)[:1] == [], secret


@pytest.fixture
def at_end() -> Iterator[AtEnd]:
    """What the test adds to it is done at its end, the last first."""
    doing: AtEnd = []
    yield doing
    for do in reversed(doing):
        pytest_twisted.blockon(soon(do()))


@pytest.fixture
def make_client(at_end: AtEnd) -> MakeClient:
    """Clients that are stopped at the end."""

    def make(endpoint: str, **options: Any) -> EtcdClient:  # noqa: ANN401 - as EtcdClient has them
        client = EtcdClient(reactor, endpoint, **options)
        at_end.append(client.stopService)
        return client

    return make


@pytest.mark.parametrize(
    "text",
    [
        VALUE,
        f"b'{VALUE}'",
        base64.b64encode(VALUE.encode()).decode(),
        *(base64.b64encode(b"u" * before + VALUE.encode() + b"!").decode() for before in range(1, 5)),
        f"/v3?value={quote(VALUE)}",
        VALUE.encode().hex(),
    ],
)
def test_a_secret_is_found_in_every_form(text: str) -> None:
    shown = Shown()
    shown.error(ValueError(f"this is {text}"))
    assert shown.with_secret(VALUE)
    assert not shown.with_secret(CONFIGURED)


def no_token_in(shown: Shown, tokens: set[str]) -> None:
    assert tokens, "no token is in use, so that there is nothing to look for"
    for token in tokens:
        assert shown.with_secret(token)[:1] == [], token


async def use(client: EtcdClient, shown: Shown) -> None:
    """Requests, watches and leases that succeed, and requests that fail."""
    watches = [client.watch("/test", prefix=True, prev_kv=True), client.watch("/test/k")]
    await soon(gatherResults([watch.ready for watch in watches]))
    shown.object(await client.put("/test/k", VALUE))
    change = client.txn([compare.value("/test/k", "=", VALUE)], [op.put("/test/k", VALUE)], [op.get("/test/k")])
    shown.object(await change)
    shown.object(await client.put("/test/k", VALUE, prev_kv=True))
    lease = await client.lease(60)
    await client.put("/test/l", VALUE, lease=lease.id)
    for each in (await client.get("/test", prefix=True), client, client.endpoints, lease, *watches):
        shown.object(each)
    for watch in watches:
        shown.object(await watch.next())
    await shown.fails(client.put("/not-allowed", VALUE))
    await shown.fails(client.txn(success=[op.put("/test/k", VALUE), op.put("/not-allowed", VALUE)]))
    await shown.fails(client.put("/test/k", VALUE * 200_000))
    await shown.fails(client.put("/test/k", VALUE, lease=5))
    await shown.fails(client.put("", VALUE))
    await shown.fails(client.watch("/not-allowed").ready)
    with pytest.raises(TypeError) as raised:
        client.put("/test/k", [VALUE])  # type: ignore[arg-type]
    shown.error(raised.value)

    def fails(_batch: object) -> None:
        raise ValueError

    watching = client.watch("/test/k", callback=fails)
    await soon(watching.ready)
    ended = watching.ended
    await client.put("/test/k", VALUE)
    await shown.fails(ended, ValueError)


@pytest.mark.parametrize("own_streams", [16, 0], ids=["own-streams", "shared"])
@ensureDeferred
async def test_a_client_shows_no_secret(
    *,
    fresh_etcd: FreshEtcd,
    shown: Shown,
    make_client: MakeClient,
    at_end: AtEnd,
    logged_errors: LoggedErrors,
    own_streams: int,
) -> None:
    server = await fresh_etcd(extra_args=[users.CHEAP])
    await users.set_up(server)
    proxy = proxy_before(server)
    at_end.append(proxy.stopService)
    client = make_client(proxy.endpoint, own_streams=own_streams, **users.USER)
    root = make_client(server.endpoint, **users.ROOT)
    await use(client, shown)
    assert len(logged_errors.flush(ValueError)) == 1
    tokens = tokens_in_use()
    # Cut in the answer, before it, and not answered at all.
    for offset in (0, 20, 150):
        proxy.cut_after(offset)
        await shown.fails(client.put("/test/k", VALUE))
        await soon(proxy.heal())
    proxy.swallow()
    await shown.fails(client.put("/test/k", VALUE, timeout=0.3))
    await soon(proxy.heal())
    # Users, and a password that changes while a watch and requests need it.
    for wrong in (make_client(server.endpoint, username="user", password=WRONG), make_client(server.endpoint)):
        await shown.fails(wrong.put("/test/k", VALUE))
        await shown.fails(wrong.watch("/test/k").ready)
        shown.object(wrong)
    added = AuthUserAddRequest(name="another", password=ADDED)
    change = AuthUserChangePasswordRequest("user", NEW)
    for each in (added, change, AuthenticateRequest("user", NEW), Credentials("user", NEW)):
        shown.object(each)
    shown.object(await root.call(rpcs.USER_ADD, added))
    await shown.fails(root.call(rpcs.USER_ADD, added))
    shown.object(await root.call(rpcs.USER_CHANGE_PASSWORD, change))
    proxy.reset()
    await shown.fails(client.put("/test/k", VALUE))
    await shown.fails(client.call(rpcs.USER_CHANGE_PASSWORD, AuthUserChangePasswordRequest("root", NEW)))
    shown.object(await root.call(rpcs.AUTHENTICATE, AuthenticateRequest("user", NEW)))
    no_token_in(shown, tokens | tokens_in_use())


@ensureDeferred
async def test_a_node_and_its_messages_show_no_secret(
    fresh_etcd: FreshEtcd, shown: Shown, make_client: MakeClient, at_end: AtEnd
) -> None:
    server = await fresh_etcd(extra_args=[users.CHEAP])
    await users.set_up(server)
    client = make_client(server.endpoint, **users.ROOT)
    node = Node(cast("Any", reactor))
    service = EtcdService(client, cast("Any", reactor))
    service.setServiceParent(node)
    node.startService()
    at_end.append(node.stopService)
    await soon(node.when_started())
    api = EtcdApi(node)
    changed: Deferred[Any] = Deferred()
    await soon(api.set("k", VALUE))
    await soon(api.set_config("app", CONFIGURED))
    await soon(api.watch_config("app", changed.callback))
    await soon(api.set_config("app", CONFIGURED + "!"))
    await soon(api.register_service("shop", "127.0.0.1:80", ttl=10, metadata={"password": METADATA}))
    registry, configuration = Registry(client, cast("Any", reactor)), Configuration(client, cast("Any", reactor))
    instances = await soon(api.discover_service("shop"))
    assert [instance.metadata for instance in instances] == [{"password": METADATA}]
    for each in (
        *(node, service, api, registry, configuration, await soon(changed), instances, *instances),
        EtcdSetReq("k", VALUE),
        EtcdConfigSetReq("app", CONFIGURED),
        EtcdServiceRegisterReq(service_name="shop", service_address="127.0.0.1:80", metadata={"password": METADATA}),
    ):
        shown.object(each)
    await shown.fails(api.set("", VALUE))
    await shown.fails(api.set("k", VALUE, lease_id=5))
    await shown.fails(api.set_config("", CONFIGURED))
    no_token_in(shown, tokens_in_use())
    await soon(node.stopService())
    await shown.fails(api.set("k", VALUE))
    at_end.remove(node.stopService)


class Password(msgspec.Struct):
    password: int


class Refusing(msgspec.Struct):
    password: str = ""

    def __post_init__(self) -> None:
        raise ValueError(self.password)


@ONE_VERSION
@ensureDeferred
async def test_followed_configuration_shows_no_value(
    etcd_server: EmbeddedEtcd, make_client: MakeClient, shown: Shown, tmp_path: Path, prefix: str
) -> None:
    client = make_client(etcd_server.endpoint)
    types = {"typed": Password, "refused": Refusing, "text": (int, "text"), "yaml": (Password, "yaml")}
    bad: list[Any] = []
    config = Config(
        client,
        cast("Any", reactor),
        prefix,
        types=types,
        defaults={"plain": CONFIGURED},
        cache=tmp_path / "cache",
        on_error=bad.append,
    )
    changed: list[Any] = []
    config.on_change(changed.append)
    await client.put(f"{prefix}typed", '{"password": 1}')
    async with config:
        binding = config.bind("typed", Password)
        quoted = f'{{"password": "{CONFIGURED}"}}'
        for key in ("typed", "refused", "text", "yaml", "plain"):
            await client.put(prefix + key, quoted)
        last = await soon(config.set("plain", CONFIGURED + "!"))
        assert {error.key for error in bad} == {"typed", "refused", "text", "yaml"}
        history = await soon(config.history("plain"))
        for each in (config, config.snapshot(), binding, *bad, *changed, history, *history.entries):
            shown.object(each)
        for error in bad:
            shown.error(error)
        await shown.fails(config.set("plain", CONFIGURED, if_revision=1))
        for value in ({"password": CONFIGURED}, quoted):
            with pytest.raises(BadValue) as raised:
                config.set("typed", value)
            shown.error(raised.value)
        with pytest.raises(TypeError) as mistyped:
            config.set("plain", [CONFIGURED])
        shown.error(mistyped.value)
        with pytest.raises(BadValue) as unread:
            _ = config["refused"]
        shown.error(unread.value)
        await shown.fails(config.modify("refused", lambda value: value), BadValue)
        shown.object(await soon(config.at(last)))
    with pytest.raises(InvalidSettings) as refused:
        Config(client, cast("Any", reactor), prefix, types=types, defaults={"typed": {"password": CONFIGURED}})
    shown.error(refused.value)


SETTINGS = """\
etcd:
  endpoints: {endpoint}
  auth: {{username: root, password: "${{ETCD_PASSWORD}}"}}
register:
  - {{name: shop, address: "127.0.0.1:8080", metadata: {{password: {metadata}}}}}
watch: [app]
"""


@ensureDeferred
async def test_the_daemon_shows_no_secret(
    *,
    fresh_etcd: FreshEtcd,
    shown: Shown,
    said: Said,
    make_client: MakeClient,
    at_end: AtEnd,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = await fresh_etcd(extra_args=[users.CHEAP])
    await users.set_up(server)
    client = make_client(server.endpoint, **users.ROOT)
    await client.put("/config/app", CONFIGURED)
    monkeypatch.setenv("ETCD_PASSWORD", users.ROOT["password"])
    file = tmp_path / "settings.yaml"
    file.write_text(SETTINGS.format(endpoint=server.endpoint, metadata=METADATA))
    with pytest.raises(SystemExit):
        Options().parseOptions(["--config", str(file), "--check"])
    options = Options()
    options.parseOptions(["--config", str(file)])
    daemon = cast("Daemon", makeService(options))
    daemon.startService()
    at_end.append(daemon.stopService)
    await said.until("shop at 127.0.0.1:8080 is registered")
    await said.until("The configuration app is followed")
    await client.put("/config/app", CONFIGURED + "!")
    for each in (daemon, daemon.node, options.settings):
        shown.object(each)
    no_token_in(shown, tokens_in_use())
    # Files that cannot be used.
    for text in (f"etcd: {{password: {WRONG}}}", f"etcd: {{auth: {{username: root, password: [{WRONG}]}}}}"):
        file.write_text(text)
        with pytest.raises(SystemExit) as refused:
            Options().parseOptions(["--config", str(file)])
        shown.error(refused.value)


def echoes(peer: Asked, _number: int) -> None:
    """Answer with what came, byte for byte."""
    peer.say(bytes(peer.data))
    peer.finish()


def repeats_in_its_head(peer: Asked, _number: int) -> None:
    """Answer with the headers that came, in good order."""
    peer.say(b"HTTP/1.1 200 OK\r\n" + bytes(peer.data).partition(b"\r\n")[2])
    peer.finish()


def repeats_in_its_body(status: int, content_type: str) -> Callable[[Asked, int], None]:
    """Answer with all that came as the body."""

    def answer(peer: Asked, number: int) -> None:
        always_and_close(http_answer(bytes(peer.data), status=status, content_type=content_type))(peer, number)

    return answer


@pytest.mark.parametrize(
    "answer",
    [
        echoes,
        repeats_in_its_head,
        *(repeats_in_its_body(status, "text/html") for status in (200, 302, 400, 404, 421, 502)),
        *(repeats_in_its_body(status, "application/json") for status in (200, 400, 502)),
    ],
    ids=["bytes", "head", *(f"html-{status}" for status in (200, 302, 400, 404, 421, 502)), "200", "400", "502"],
)
@ensureDeferred
async def test_a_stranger_that_repeats_what_it_is_told_brings_no_secret_into_an_error(
    shown: Shown, make_client: MakeClient, at_end: AtEnd, answer: Callable[[Asked, int], object]
) -> None:
    server = Scripted(answer)
    at_end.append(lambda: Deferred.fromCoroutine(server.close()))
    for own_streams in (16, 0):
        client = make_client(
            server.url,
            username="user",
            password=WRONG,
            request_timeout=0.3,
            connect_timeout=0.3,
            own_streams=own_streams,
        )
        await shown.fails(client.put("k", VALUE))
        await shown.fails(client.call(rpcs.USER_ADD, AuthUserAddRequest(name="another", password=ADDED)))
        bare = make_client(server.url, request_timeout=0.3, connect_timeout=0.3, own_streams=own_streams)
        await shown.fails(bare.put("k", VALUE))
        watch = bare.watch("k")
        with suppress(NotEtcd, Unavailable):
            # Where it may pass, the watch goes on.
            await watch.ready.addTimeout(0.5, cast("Any", reactor), onTimeoutCancel=lambda *_: 0)
        shown.object(watch)


@ONE_VERSION
@ensureDeferred
async def test_a_server_that_is_not_trusted_brings_no_secret_into_an_error(
    fresh_etcd: FreshEtcd, shown: Shown, make_client: MakeClient, tmp_path: Path
) -> None:
    server = await secure_etcd(fresh_etcd, tmp_path, trustme.CA())
    papers = Papers(tmp_path / "others")
    client = make_client(server.endpoint, username="user", password=WRONG, tls=papers.settings())
    await shown.fails(client.put("k", VALUE))
    await shown.fails(client.watch("k").ready)
    bare = make_client(server.endpoint, tls=TLSSettings(ca_file=papers.ca_file))
    await shown.fails(bare.put("k", VALUE))


@ONE_VERSION
@ensureDeferred
async def test_users_are_looked_after_and_no_password_is_shown(
    fresh_etcd: FreshEtcd, shown: Shown, make_client: MakeClient, tmp_path: Path
) -> None:
    server = await fresh_etcd(extra_args=(users.CHEAP,))
    client = make_client(server.endpoint)
    for each in (client.auth, client.cluster, client.maintenance):
        shown.object(each)
    shown.object(await client.auth.user_add("u", ADDED))
    await shown.fails(client.auth.user_add("u", ADDED))
    shown.object(await client.auth.user_change_password("u", NEW))
    await shown.fails(client.auth.user_change_password("nobody", NEW))
    for password in ([ADDED], ADDED.encode()):
        with pytest.raises(TypeError) as raised:
            client.auth.user_add("v", password)  # type: ignore[arg-type]
        shown.error(raised.value)
    with pytest.raises(ValueError, match="give one of") as both:
        client.auth.user_add("v", ADDED, no_password=True)
    shown.error(both.value)
    await client.put("k", VALUE)
    shown.object(await client.maintenance.snapshot(tmp_path / "snapshot"))
    assert VALUE.encode() in (tmp_path / "snapshot").read_bytes()
    await shown.fails(client.maintenance.snapshot(tmp_path))
