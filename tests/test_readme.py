"""What the README shows does what the README says."""

from __future__ import annotations

import inspect
import re
import shutil
import sys
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
import trustme
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString, serverFromString
from twisted.internet.utils import getProcessOutputAndValue

import twisted_etcd
from tests.etcds import ONE_VERSION, FreshEtcd
from tests.wire import Event, Listener, Peer, soon
from twisted_etcd.client.auth import Auth
from twisted_etcd.client.client import EtcdClient
from twisted_etcd.client.cluster import Cluster
from twisted_etcd.client.maintenance import Maintenance
from twisted_etcd.daemon.health_settings import make_healths
from twisted_etcd.daemon.hosting import make_services
from twisted_etcd.daemon.settings import load
from twisted_etcd.embedded.process import EmbeddedEtcd
from twisted_etcd.endpoints.failures import NoInstance
from twisted_etcd.errors import InvalidSettings
from twisted_etcd.messaging.messages import Message
from twisted_etcd.registry.registry import Registry
from twisted_etcd.rendering.entry import RunCommand
from twisted_etcd.rendering.renderer import Renderer
from twisted_etcd.schema import rpcs
from twisted_etcd.schema.election import CampaignRequest
from twisted_etcd.testing.cluster import EtcdCluster

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
HERE = "http://127.0.0.1:2379"
#: A message with its fields.
MESSAGE = re.compile(r"`(Etcd\w+(?:Req|Resp|Msg|Event))\((.*?)\)`")


def block(language: str, part: str) -> str:
    """The one block of code in that language that has these words."""
    found = [code for code in re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL) if part in code]
    assert len(found) == 1, f"{len(found)} blocks have {part!r}"
    return str(found[0])


def run(*code: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    for each in code:
        exec(compile(each, "README.md", "exec"), names)  # noqa: S102 - our own
    return names


def test_every_block_of_python_is_one_that_is_run_here() -> None:
    parts = (
        "react(",
        "rpcs.LEADER",
        "look_after",
        "build_on_the_client",
        "own_revisions",
        "take_turns",
        "client.sync()",
        "addSystemEventTrigger",
        "TLSSettings(",
        "async def serve(",
        "Application(",
        "class Prices",
        "register_shop",
        "class Limits",
        "shop_caller(",
        "etcd_cluster.leader()",
        "call_shop",
        "etcd.go_away()",
    )
    assert sorted(re.findall(r"```python\n(.*?)```", README, re.DOTALL)) == sorted(
        block("python", each) for each in parts
    )


@pytest.mark.parametrize("heading", ["Run it", "Run the tests"])
def test_a_set_up_is_one_line(heading: str) -> None:
    part = README.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    assert len(re.findall(r"```sh\n([^\n]+)\n```", part)) == part.count("```") / 2 == 1


@ensureDeferred
async def test_the_program_of_the_client(etcd_server: EmbeddedEtcd) -> None:
    code = block("python", "react(").replace(f"{HERE},http://127.0.0.1:22379", etcd_server.endpoint)
    running: Deferred[tuple[bytes, bytes, int]]
    running = getProcessOutputAndValue(sys.executable, ["-c", code], env=None, reactor=cast("Any", reactor))
    out, err, code_of_exit = await soon(running)
    assert (err, code_of_exit) == (b"", 0)
    lines = out.decode().splitlines()
    assert lines[0].startswith("b'hello' ")
    assert lines[1:3] == ["True", "b'worker/1'"]
    assert lines[3].startswith("WatchBatch(")
    assert lines[4].endswith("is lost: it was revoked")


@ensureDeferred
async def test_a_call_without_a_method_of_its_own(etcd_server: EmbeddedEtcd, prefix: str) -> None:
    async with EtcdClient(cast("Any", reactor), etcd_server.endpoint) as client:
        lease = await client.lease(60)
        election = prefix.encode()
        await client.call(rpcs.CAMPAIGN, CampaignRequest(name=election, lease=lease.id, value=b"me"))
        assert await run(block("python", "rpcs.LEADER"))["leader_of"](client, election) == b"me"


@ensureDeferred
async def test_users_members_and_a_snapshot(
    fresh_etcd: FreshEtcd, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = await fresh_etcd()
    monkeypatch.chdir(tmp_path)
    async with EtcdClient(cast("Any", reactor), server.endpoint) as client:
        await run(block("python", "look_after"))["look_after"](client)
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["readwrite: all keys that begin with b'app/'", "read: the key b'shared'"]
    assert lines[2].split()[1::2] == [server.version, "True"]
    assert lines[3].split()[0] == str((tmp_path / "backup.db").stat().st_size)


@ensureDeferred
async def test_transactions_views_and_mirrors(etcd_server: EmbeddedEtcd, capsys: pytest.CaptureFixture[str]) -> None:
    async with EtcdClient(cast("Any", reactor), etcd_server.endpoint) as client:
        for prefix in ("bank/", "copy/", "visits"):
            await client.delete(prefix, prefix=True)
        await soon(Deferred.fromCoroutine(run(block("python", "build_on_the_client"))["build_on_the_client"](client)))
        assert (await client.get("copy/bank/carol")).kvs[0].value == b"5"
    assert capsys.readouterr().out.splitlines() == ["70 1", "1", "b'bank/carol'", "105", "0 None"]


def test_every_method_of_the_three_is_in_the_table() -> None:
    chapter = README.split("\n## Users, members and maintenance\n")[1].split("\n## ")[0]
    for name, cls in (("auth", Auth), ("cluster", Cluster), ("maintenance", Maintenance)):
        row = next(line for line in chapter.splitlines() if line.startswith(f"| `client.{name}` |"))
        # stop() is for the client itself.
        public = {method for method in vars(cls) if not method.startswith("_")} - {"stop"}
        assert set(re.findall(r"`(\w+)`", row)) == public


@ensureDeferred
async def test_locks_and_elections(etcd_server: EmbeddedEtcd, capsys: pytest.CaptureFixture[str]) -> None:
    async with EtcdClient(cast("Any", reactor), etcd_server.endpoint) as client:
        await run(block("python", "take_turns"))["take_turns"](client)
        assert capsys.readouterr().out == "True True\npage two\nb'10.0.0.1:8081'\n"
        for name in ("locks/printer", "leader/printer"):
            assert (await client.get(name, prefix=True)).count == 0


def test_every_recipe_is_in_the_table_with_what_it_does() -> None:
    chapter = README.split("\n## Locks and elections\n")[1].split("\n## ")[0]
    rows = {row.split("`")[1]: row.split("|")[2] for row in chapter.splitlines() if row.startswith("| `")}
    for name, does in rows.items():
        for method in re.findall(r"`(\w+)[`(]", does.replace("`Lock`", "")):
            assert hasattr(getattr(twisted_etcd, name), method), f"{name}.{method}"
    assert {"Session", "Lock", "RWLock", "Election", "Barrier", "DoubleBarrier", "Queue", "PriorityQueue"} <= set(rows)


@ensureDeferred
async def test_puts_that_travel_alone(etcd_server: EmbeddedEtcd) -> None:
    async with EtcdClient(cast("Any", reactor), etcd_server.endpoint) as client:
        await run(block("python", "own_revisions"))["own_revisions"](client)


@ensureDeferred
async def test_a_service_is_found_and_chosen_and_followed(etcd_server: EmbeddedEtcd) -> None:
    printed: list[Any] = []
    said = Event()

    def say(*words: object) -> None:
        printed.append(words)
        said.happened()

    names = run(block("python", "call_shop"))
    names["print"] = say
    async with EtcdClient(cast("Any", reactor), etcd_server.endpoint) as client:
        value = '{"address": "10.0.0.7", "port": 80, "tags": ["eu"]}'
        await client.put("/services/shop/10.0.0.7:80", value)
        calling = Deferred.fromCoroutine(names["call_shop"](reactor, client))
        await said.until(lambda: len(printed) > 1)
        await client.put("/services/shop/10.0.0.8:80", "10.0.0.8:80")
        await soon(calling)
        await client.delete("/services/shop/", prefix=True)
    [[first]], chosen, [added, *others] = printed[0], printed[1], printed[2]
    assert first.tags == ("eu",)
    assert chosen == ("10.0.0.7:80", False)
    assert ([each.endpoint for each in added], others) == (["10.0.0.8:80"], [(), (), False])


@ensureDeferred
async def test_the_endpoints_are_those_of_the_cluster(
    etcd_server: EmbeddedEtcd, capsys: pytest.CaptureFixture[str]
) -> None:
    async with EtcdClient(cast("Any", reactor), etcd_server.endpoint) as client:
        await run(block("python", "client.sync()"))["show"](client)
    assert capsys.readouterr().out == f"{etcd_server.endpoint} serves\n"


def test_a_test_with_an_etcd_in_memory() -> None:
    run(block("python", "etcd.go_away()"))["test_my_lease_is_lost"]()


@ONE_VERSION
@ensureDeferred
async def test_a_test_with_a_cluster(etcd_cluster: EtcdCluster) -> None:
    test = run(block("python", "etcd_cluster.leader()"))["test_my_keys_outlive_a_leader"]
    await soon(Deferred.fromCoroutine(test(etcd_cluster)))


@ensureDeferred
async def test_a_program_that_the_reactor_stops(
    etcd_server: EmbeddedEtcd, capsys: pytest.CaptureFixture[str], prefix: str
) -> None:
    code = block("python", "addSystemEventTrigger").replace("(reactor)", f"(twisted, {etcd_server.endpoint!r})", 2)
    code = code.replace(f"follow(twisted, {etcd_server.endpoint!r})", "follow(reactor)").replace(
        '"worker/"', repr(prefix)
    )
    stops: list[Any] = []

    class Reactor:
        def addSystemEventTrigger(self, phase: str, event: str, stop: Any) -> None:  # noqa: ANN401
            assert (phase, event) == ("before", "shutdown")
            stops.append(stop)

    following = Deferred.fromCoroutine(
        run("from twisted.internet import reactor as twisted", code)["follow"](Reactor())
    )
    async with EtcdClient(cast("Any", reactor), etcd_server.endpoint) as client:
        await client.put(prefix + "1", "here")
    await soon(stops[0]())
    assert await soon(following) is None
    assert capsys.readouterr().out.endswith("stopped\n")


@ensureDeferred
async def test_a_service_that_is_registered(etcd_server: EmbeddedEtcd, capsys: pytest.CaptureFixture[str]) -> None:
    code = block("python", "async def serve(").replace("(reactor)", f"(reactor, {etcd_server.endpoint!r})")
    stopped: Deferred[None] = Deferred()
    clock = cast("Any", reactor)
    async with EtcdClient(clock, etcd_server.endpoint) as client:
        now = (await client.get("/services/shop/", prefix=True)).header.revision
        serving = Deferred.fromCoroutine(run(code.replace("drain=5", "drain=0.1"))["serve"](clock, stopped))
        async for batch in client.watch("/services/shop/", prefix=True, start_revision=now + 1):
            if b"warning" in batch.events[-1].kv.value:
                break
        stopped.callback(None)
        await soon(serving)
        assert (await client.get("/services/shop/", prefix=True)).kvs == ()
    states = [line.split()[1] for line in capsys.readouterr().out.splitlines()]
    assert states == ["alive", "withheld", "wanted", "alive", "ended"]


@pytest.fixture
def certificates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    authority = trustme.CA()
    mine = authority.issue_cert("client.example")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    mine.cert_chain_pems[0].write_to_path(tmp_path / "client.pem")
    mine.private_key_pem.write_to_path(tmp_path / "client-key.pem")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("certificates")
@ensureDeferred
async def test_a_client_with_tls_and_a_user() -> None:
    client = run(block("python", "TLSSettings("))["make_client"](reactor, "secret")
    assert tuple(each.url for each in client.endpoints) == (
        "https://etcd-1.example:2379",
        "https://etcd-2.example:2379",
    )
    await client.stopService()


@pytest.mark.parametrize(("kind", "wrong"), [("client", "etcd:a:zzz=b"), ("server", "etcd:name=a:zzz=b:tcp:80")])
def test_the_arguments_of_endpoint_strings_are_all_there_are(kind: str, wrong: str) -> None:
    chapter = README.split("\n## Endpoint strings\n")[1].split("\n## ")[0]
    tables = {table.split(" |")[0]: table for table in re.split(r"\n\| (?=either|client|server)", chapter)[1:]}
    rows = re.findall(r"^\| (`.*?) \|", f"{tables['either']}\n{tables[kind].partition(chr(10) * 2)[0]}", re.MULTILINE)
    shown = {name for row in rows for name in re.findall(r"(\w+)=", row.partition(" or ")[0])} - {"zone", "rack"}
    parse: Any = serverFromString if kind == "server" else clientFromString
    with pytest.raises(InvalidSettings) as refused:
        parse(reactor, wrong)
    known = re.search(r"known are ([\w, ]+)", str(refused.value))
    assert known is not None
    # The name of a client's service may be said either way.
    assert shown == set(known[1].split(", ")) - ({"name"} if kind == "client" else set())


@ensureDeferred
async def test_a_service_is_called_by_its_name(etcd_server: EmbeddedEtcd, prefix: str) -> None:
    async with EtcdClient(cast("Any", reactor), etcd_server.endpoint) as client:
        # Nobody is registered, which only etcd can say.
        call = run(block("python", "shop_caller("))["shop_caller"](reactor, client).get(f"http://{prefix[1:-1]}.etcd/")
        with pytest.raises(NoInstance, match="no instance is registered"):
            await soon(call)


@ensureDeferred
async def test_a_node_and_a_service_that_follows_a_value(etcd_server: EmbeddedEtcd) -> None:
    changed = Event()
    told = "        self.prices = message.new_value\n"
    prices = block("python", "class Prices").replace(told, f"{told}        changed.happened()\n")
    names = run(block("python", "Application(").replace(HERE, etcd_server.endpoint), prices)
    names["changed"] = changed
    node, etcd = names["node"], names["etcd"]
    node.startService()
    await soon(node.when_started())
    service = node.getServiceNamed("Prices")
    assert service.prices is None
    await soon(etcd.set_config("shop/prices", "low"))
    await changed.until(lambda: service.prices == b"low")
    await soon(node.stopService())


class Healthy(Peer):
    """Answers the host that the README asks for."""

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)
        if self.data.endswith(b"\r\n\r\n") and b"\r\nHost: shop.example\r\n" in self.data:
            self.socket.write(b"HTTP/1.1 204 No Content\r\n\r\n")


@ensureDeferred
async def test_a_registration_whose_health_is_looked_after(etcd_server: EmbeddedEtcd, prefix: str) -> None:
    listener = Listener(Healthy)
    code = block("python", "register_shop").replace("127.0.0.1:8080", listener.authority)
    async with (
        EtcdClient(cast("Any", reactor), etcd_server.endpoint) as client,
        Registry(client, cast("Any", reactor), prefix) as registry,
    ):
        shop = run(code)["register_shop"](reactor, registry)
        assert await soon(shop.registered)
    await listener.close()


def test_every_check_has_the_parameters_that_its_row_says() -> None:
    rows = re.findall(r"^\| `(\w+Check)\((.*?)\)` \|", README, re.MULTILINE)
    assert {name for name, _ in rows} == {name for name in twisted_etcd.__all__ if name.endswith("Check")} - {"Check"}
    for name, written in rows:
        names = re.findall(r"(?:^|, )(\w+)(?==|,|$)", re.sub(r"\[.*?\]|\{.*?\}", "", written))
        parameters = list(inspect.signature(getattr(twisted_etcd, name)).parameters)
        if name == "MessageCheck":
            names = ["caller", "target", *names[-2:]]
        assert parameters[: len(names)] == names, name


@pytest.mark.usefixtures("certificates")
def test_the_checks_of_a_settings_file(certificates: Path) -> None:
    file = certificates / "etcdservice.yaml"
    file.write_text(block("yaml", "show_status"))
    checks = load(file, {}).register[0].checks
    assert [(each.interval, each.fall, each.show_status) for each in checks] == [(5.0, 3, True), (10.0, 1, False)]
    assert len(make_healths(cast("Any", reactor), checks)) == 2


@ensureDeferred
async def test_configuration_that_is_followed(
    etcd_server: EmbeddedEtcd, capsys: pytest.CaptureFixture[str], prefix: str, tmp_path: Path
) -> None:
    code = block("python", "class Limits").replace("/config/shop", prefix)
    code = code.replace("shop-config", str(tmp_path / "shop"))
    async with EtcdClient(cast("Any", reactor), etcd_server.endpoint) as client:
        await soon(Deferred.fromCoroutine(run(code)["configured"](client, reactor)))
    lines = capsys.readouterr().out.splitlines()
    # Told when it has been quiet.
    assert [line for line in lines if line not in {"limits created", "limits modified"}] == [
        "localhost None etcd",
        "Limits(requests=100, burst=10)",
        "somebody was quicker: True",
        """['{"requests":101,"burst":10}', '{"requests":100,"burst":10}']""",
    ]
    assert (tmp_path / "shop.cache").stat().st_mode & 0o777 == 0o600


def test_the_settings_file(certificates: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (certificates / "password").write_text("secret\n")
    shutil.copy(ROOT / "examples" / "greeter.py", certificates)
    monkeypatch.syspath_prepend(certificates)
    file = certificates / "etcdservice.yaml"
    file.write_text(block("yaml", "password_file").replace("/run/secrets/etcd", "password"))
    settings = load(file, {})
    assert [each.name for each in make_services(settings.services, taken=())] == ["Greeter"]
    assert (settings.watch, [each.name for each in settings.register]) == (("app/database",), ["user-service"])


@ensureDeferred
async def test_a_file_from_a_template(etcd_server: EmbeddedEtcd, tmp_path: Path, prefix: str) -> None:
    (tmp_path / "nginx.conf.j2").write_text(block("jinja", "upstream shop"))
    text = block("yaml", "nginx.conf.j2").replace("/etc/nginx/", "").replace("nginx, -t, -c", "test, -s")
    (tmp_path / "etcdservice.yaml").write_text(text)
    [entry] = load(tmp_path / "etcdservice.yaml", {}).render
    entry = msgspec.structs.replace(entry, reload=RunCommand(("touch", str(tmp_path / "reloaded"))))
    async with EtcdClient(cast("Any", reactor), etcd_server.endpoint) as client:
        await client.put(f"{prefix}shop/10.0.0.1:80", '{"address": "10.0.0.1", "port": 80, "tags": ["http"]}')
        await client.put(f"{prefix}shop/10.0.0.2:80", "10.0.0.2:80")
        renderer = Renderer(client, cast("Any", reactor), [entry], service_prefix=prefix, config_prefix=f"{prefix}c")
        renderer.startService()
        await soon(renderer.when_rendered())
        await soon(renderer.stopService())
    file = tmp_path / "nginx.conf"
    assert file.read_text() == "upstream shop {\n    server 10.0.0.1:80 weight=1;\n}\n# hello\n"
    assert file.stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "reloaded").exists()


def test_every_message_is_there_with_its_fields() -> None:
    chapter = README.split("\n## The messages\n")[1].split("\n## ")[0]
    written = {name: re.sub(r"=(\(\)|\{\}|[^,]*)", "", fields) for name, fields in MESSAGE.findall(chapter)}
    for name, fields in written.items():
        assert tuple(fields.split(", ")) == getattr(twisted_etcd, name).__struct_fields__, name
    messages = {
        name
        for name in twisted_etcd.__all__
        if isinstance(cls := getattr(twisted_etcd, name), type) and issubclass(cls, Message) and name.startswith("Etcd")
    }
    assert messages == set(written)
