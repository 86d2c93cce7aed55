"""Which etcd an endpoint string means."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import trustme

from twisted_etcd.endpoints.arguments import Arguments
from twisted_etcd.endpoints.whereabouts import whereabouts
from twisted_etcd.errors import InvalidSettings
from twisted_etcd.settings.etcd import EtcdSettings

CONFIG = """\
node: {name: daemon}
register: [{name: shop, address: "127.0.0.1:80"}]
etcd:
  endpoints: ["http://one:1", "http://two:2"]
  auth: {username: me, password: "${SECRET}"}
  request_timeout: 1500
  service_prefix: /those
"""


def settings(given: Mapping[str, str], environ: Mapping[str, str] | None = None) -> EtcdSettings:
    return whereabouts(Arguments(given), environ or {})


def urls(found: EtcdSettings) -> list[str]:
    return [str(endpoint) for endpoint in found.endpoints]


def test_without_anything_it_is_the_etcd_of_this_machine() -> None:
    assert settings({}) == EtcdSettings()
    assert urls(settings({})) == ["http://127.0.0.1:2379"]


def test_endpoints_and_a_prefix_are_taken() -> None:
    found = settings({"endpoints": "http://one:1,two", "prefix": "/mine/"})
    assert (urls(found), found.service_prefix) == (["http://one:1", "http://two:2379"], "/mine")


def test_a_settings_file_is_the_daemons(tmp_path: Path) -> None:
    (tmp_path / "etcd.yaml").write_text(CONFIG)
    # Where a file is named, the environment of etcdctl says nothing; it only fills in what the file asks for.
    environ = {"SECRET": "abc", "ETCDCTL_ENDPOINTS": "three:3", "ETCDCTL_USER": "you:no"}
    found = settings({"config": str(tmp_path / "etcd.yaml")}, environ)
    assert urls(found) == ["http://one:1", "http://two:2"]
    assert (found.request_timeout, found.service_prefix) == (1.5, "/those")
    assert found.auth is not None
    assert (found.auth.username, found.auth.password) == ("me", "abc")
    assert "abc" not in repr(found)
    over = settings({"config": str(tmp_path / "etcd.yaml"), "endpoints": "four:4", "prefix": "/mine"}, environ)
    assert (urls(over), over.service_prefix, over.auth) == (["http://four:4"], "/mine", found.auth)


def test_what_is_wrong_in_a_settings_file_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "etcd.yaml").write_text("etcd: {endpoint: one}\n")
    with pytest.raises(InvalidSettings) as refused:
        settings({"config": str(tmp_path / "etcd.yaml")})
    assert str(refused.value).startswith(f"etcd endpoint: config: {tmp_path}/etcd.yaml:1: etcd.endpoint: unknown key")


def test_the_environment_of_etcdctl_is_taken(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    environ = {
        "ETCDCTL_ENDPOINTS": "one:1,two:2",
        "ETCDCTL_CACERT": str(tmp_path / "ca.pem"),
        "ETCDCTL_USER": "me:a:b",
    }
    found = settings({}, environ)
    # With certificates, what has no scheme is https.
    assert urls(found) == ["https://one:1", "https://two:2"]
    assert found.tls.ca_file == str(tmp_path / "ca.pem")
    assert found.auth is not None
    assert (found.auth.username, found.auth.password) == ("me", "a:b")
    other = settings({"endpoints": "https://three:3"}, {**environ, "ETCDCTL_USER": "you", "ETCDCTL_PASSWORD": "c"})
    assert (urls(other), other.tls) == (["https://three:3"], found.tls)
    assert other.auth is not None
    assert (other.auth.username, other.auth.password) == ("you", "c")


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"ETCDCTL_ENDPOINTS": "ftp://x"}, "ETCDCTL_ENDPOINTS: endpoint 'ftp://x' has the scheme 'ftp'"),
        ({"ETCDCTL_USER": "me"}, "ETCDCTL_USER has no password; set ETCDCTL_PASSWORD"),
        ({"ETCDCTL_CERT": "/nowhere.pem"}, "ETCDCTL_CACERT, ETCDCTL_CERT, ETCDCTL_KEY: "),
        ({"ETCDCTL_CACERT": "/nowhere.pem"}, "/nowhere.pem"),
    ],
)
def test_a_wrong_variable_is_named(environ: Mapping[str, str], words: str) -> None:
    with pytest.raises(InvalidSettings) as refused:
        settings({}, environ)
    assert str(refused.value).startswith("etcd endpoint: ")
    assert words in str(refused.value)
