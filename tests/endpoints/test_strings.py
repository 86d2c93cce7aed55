"""What endpoint strings mean, and what is said of those that mean nothing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytest
import trustme
from twisted.internet import reactor
from twisted.internet.endpoints import (
    SSL4ServerEndpoint,
    TCP4ServerEndpoint,
    TCP6ServerEndpoint,
    UNIXServerEndpoint,
    clientFromString,
    serverFromString,
)
from twisted.internet.interfaces import IStreamClientEndpoint, IStreamServerEndpoint
from zope.interface.verify import verifyObject

from twisted_etcd.endpoints.client import EtcdClientEndpoint
from twisted_etcd.endpoints.server import EtcdServerEndpoint
from twisted_etcd.errors import InvalidSettings
from twisted_etcd.registry.choice import CHOICES, RoundRobin, choice_of
from twisted_etcd.registry.instance import InstanceFormat


def server(string: str) -> EtcdServerEndpoint:
    """By Twisted's own parser and the plugin, as a program has it."""
    return cast("EtcdServerEndpoint", serverFromString(reactor, string))


def client(string: str) -> EtcdClientEndpoint:
    return cast("EtcdClientEndpoint", clientFromString(reactor, string))


def listens(endpoint: EtcdServerEndpoint) -> tuple[type, Mapping[str, Any]]:
    """The endpoint in it, and its own settings."""
    there = vars(endpoint.endpoint)
    return type(endpoint.endpoint), {name.strip("_"): there[name] for name in there if "eactor" not in name}


def refusal_of_server(string: str) -> str:
    with pytest.raises(InvalidSettings) as refused:
        server(string)
    return str(refused.value)


def refusal_of_client(string: str) -> str:
    with pytest.raises(InvalidSettings) as refused:
        client(string)
    return str(refused.value)


# --- servers --------------------------------------------------------------------------------------------------------


def test_a_server_has_what_its_string_says() -> None:
    endpoint = server(
        r"etcd:name=shop:ttl=30:tags=a,b,a:metadata=zone=west,path=a=b\:c,list=1\\,2:weight=5:id=shop-1:address=10.0.0.7"
        r":drain=2.5:tcp:8080"
    )
    verifyObject(IStreamServerEndpoint, endpoint)
    wanted = endpoint.wanted
    assert (wanted.name, wanted.ttl, wanted.tags, wanted.weight, wanted.id) == ("shop", 30, ("a", "b"), 5, "shop-1")
    assert wanted.metadata == {"zone": "west", "path": "a=b:c", "list": "1,2"}
    assert wanted.form is InstanceFormat.JSON
    assert (endpoint.host, endpoint.port, endpoint.drain) == ("10.0.0.7", None, 2.5)
    assert listens(endpoint) == (TCP4ServerEndpoint, {"port": 8080, "backlog": 50, "interface": ""})


def test_a_server_that_says_little_has_the_defaults() -> None:
    endpoint = server("etcd:name=shop:tcp:0")
    assert (endpoint.wanted.ttl, endpoint.wanted.tags, endpoint.wanted.metadata) == (10, (), {})
    assert (endpoint.wanted.weight, endpoint.wanted.id, endpoint.drain, endpoint.host) == (1, "", 0.0, None)


@pytest.mark.parametrize(
    ("string", "kind", "settings"),
    [
        (r"etcd:name=a:tcp:8080", TCP4ServerEndpoint, {"port": 8080, "interface": ""}),
        # What is not ours is the endpoint's, wherever it stands; what is ours is ours, wherever it stands.
        (r"etcd:name=a:tcp:8080:interface=127.0.0.1", TCP4ServerEndpoint, {"port": 8080, "interface": "127.0.0.1"}),
        (r"etcd:interface=127.0.0.1:tcp:8080:name=a", TCP4ServerEndpoint, {"port": 8080, "interface": "127.0.0.1"}),
        (r"etcd:tcp:8080:ttl=5:backlog=7:name=a", TCP4ServerEndpoint, {"port": 8080, "backlog": 7}),
        (r"etcd:name=a:tcp:port=8080", TCP4ServerEndpoint, {"port": 8080}),
        (r"etcd:name=a:tcp6:8080:interface=\:\:1", TCP6ServerEndpoint, {"port": 8080, "interface": "::1"}),
        (r"ETCD:name=a:tcp:8080", TCP4ServerEndpoint, {"port": 8080}),
        # Quoted, it is taken whole.
        (r"etcd:name=a:tcp\:8080", TCP4ServerEndpoint, {"port": 8080, "interface": ""}),
        (r"etcd:tcp\:8080:name=a:ttl=5", TCP4ServerEndpoint, {"port": 8080}),
        # Its first = may be quoted or not: Twisted takes what is before it for a name, and so it has a colon.
        (r"etcd:name=a:tcp\:8080\:interface=127.0.0.1", TCP4ServerEndpoint, {"port": 8080, "interface": "127.0.0.1"}),
        (r"etcd:name=a:tcp\:8080\:interface\=127.0.0.1", TCP4ServerEndpoint, {"port": 8080, "interface": "127.0.0.1"}),
        (
            r"etcd:name=a:tcp\:8080\:interface=127.0.0.1\:backlog=7:ttl=5",
            TCP4ServerEndpoint,
            {"port": 8080, "interface": "127.0.0.1", "backlog": 7},
        ),
        (r"etcd:name=a:tcp6\:8080\:interface=\\\:\\\:1", TCP6ServerEndpoint, {"port": 8080, "interface": "::1"}),
        # What is called as one of ours must be quoted to be the endpoint's.
        (r"etcd:name=a:unix\:address=/run/b:address=h\:1", UNIXServerEndpoint, {"address": "/run/b"}),
        # Colons in a plain one, behind its kind, are its own.
        (r"etcd:name=a:unix:/run/a\:b:mode=600", UNIXServerEndpoint, {"address": "/run/a:b", "mode": 0o600}),
        (r"etcd:name=a:unix:/run/a\=b", UNIXServerEndpoint, {"address": "/run/a=b"}),
        (r"etcd:name=a:unix:/run/a\\b", UNIXServerEndpoint, {"address": "/run/a\\b"}),
        (r"etcd:name=a:unix\:/run/a\\\:b", UNIXServerEndpoint, {"address": "/run/a:b"}),
    ],
)
def test_the_endpoint_in_it_is_the_one_that_is_written(string: str, kind: type, settings: Mapping[str, Any]) -> None:
    endpoint = server(string)
    assert endpoint.wanted.name == "a"
    found_kind, found = listens(endpoint)
    assert found_kind is kind
    assert {name: found[name] for name in settings} == settings


def test_one_of_ours_in_one_of_ours() -> None:
    outer = server(r"etcd:name=a:etcd\:name=b\:tcp\:8080:ttl=5")
    inner = cast("EtcdServerEndpoint", outer.endpoint)
    assert (outer.wanted.name, outer.wanted.ttl, inner.wanted.name, inner.wanted.ttl) == ("a", 5, "b", 10)
    # Written plainly there is one name, the last.
    assert "name= is missing" in refusal_of_server("etcd:name=a:etcd:tcp:80")


def test_twisteds_own_wrappers_go_in_it() -> None:
    assert server("etcd:name=a:haproxy:tcp:8080:interface=127.0.0.1").wanted.name == "a"
    assert server(r"etcd:name=a:haproxy\:tcp\:8080").wanted.name == "a"


@pytest.mark.parametrize("quoted", [False, True])
def test_an_endpoint_with_tls_goes_in_it(tmp_path: Path, quoted: bool) -> None:  # noqa: FBT001 - a parameter of pytest's
    certificate = trustme.CA().issue_cert("web.example")
    (tmp_path / "key.pem").write_bytes(certificate.private_key_and_cert_chain_pem.bytes())
    nested = f"ssl:443:privateKey={tmp_path}/key.pem:certKey={tmp_path}/key.pem"
    endpoint = server(f"etcd:name=a:{nested.replace(':', chr(92) + ':') if quoted else nested}:ttl=5")
    kind, settings = listens(endpoint)
    assert (kind, settings["port"], endpoint.wanted.ttl) == (SSL4ServerEndpoint, 443, 5)


@pytest.mark.parametrize(
    ("string", "words"),
    [
        ("etcd:name=a", "what listens is missing; write etcd:name=SERVICE:tcp:8080"),
        ("etcd:name=a:", "what listens is missing; write etcd:name=SERVICE:tcp:8080"),
        ("etcd:tcp:8080", "name= is missing; write etcd:name=SERVICE:tcp:8080"),
        ("etcd:shop:tcp:8080", "name= is missing; write etcd:name=SERVICE:tcp:8080"),
        ("etcd:nam=shop:tcp:8080", "name= is missing, and nam= is not it; write etcd:name=SERVICE:tcp:8080"),
        ("etcd:", "name= is missing"),
        ("etcd", "name= is missing"),
        ("etcd:name=a/b:tcp:80", "name: service name 'a/b' cannot be used"),
        ("etcd:name=:tcp:80", "name= has no value"),
        ("etcd:name=a:ttl=abc:tcp:80", "ttl='abc' is not a whole number of seconds"),
        ("etcd:name=a:ttl=1.5:tcp:80", "ttl='1.5' is not a whole number of seconds"),
        ("etcd:name=a:ttl=0:tcp:80", "ttl='0' is not a whole number of seconds from 1 to 9,000,000,000"),
        ("etcd:name=a:ttl=:tcp:80", "ttl= has no value"),
        ("etcd:name=a:weight=-1:tcp:80", "weight='-1' is not a whole number"),
        ("etcd:name=a:weight=0:tcp:80", "weight='0' is not a whole number from 1 to"),
        ("etcd:name=a:drain=soon:tcp:80", "drain='soon' is not a number of seconds"),
        ("etcd:name=a:drain=-1:tcp:80", "drain='-1' is not a number of seconds from 0 on"),
        ("etcd:name=a:drain=inf:tcp:80", "drain='inf' is not a number of seconds up to"),
        ("etcd:name=a:drain=nan:tcp:80", "drain='nan' is not a number of seconds up to"),
        ("etcd:name=a:tags=a,,b:tcp:80", "tags='a,,b' has an empty one between its commas"),
        ("etcd:name=a:format=xml:tcp:80", "format='xml' is none of json, go, address"),
        (
            "etcd:name=a:format=address:metadata=b=c:tcp:80",
            "service 'a' has metadata, for which a bare address has no",
        ),
        ("etcd:name=a:address=0.0.0.0:tcp:80", "address: '0.0.0.0' is no address that others could reach"),
        (r"etcd:name=a:address=\:\::tcp:80", "address: '::' is no address that others could reach"),
        (r"etcd:name=a:address=host\:port:tcp:80", "address: service address 'host:port' is not HOST:PORT"),
        ("etcd:name=a:address=a b:tcp:80", "address: service address 'a b:1' has a character"),
        ("etcd:name=a:endpoints=ftp\\://x:tcp:80", "endpoints: endpoint 'ftp://x' has the scheme 'ftp'"),
        ("etcd:name=a:endpoints=http\\://me\\:secret@x:tcp:80", "endpoints: the endpoint of host 'x' has a user in it"),
        ("etcd:name=a:prefix=/:tcp:80", "prefix: expected a prefix such as /config, got '/'"),
        ("etcd:name=a:config=/nowhere.yaml:tcp:80", "config: /nowhere.yaml: cannot be read: No such file"),
        # Unknown ones, and those that the endpoint in it refuses.
        ("etcd:name=a:tag=b:tcp:80", "tag=: unknown parameter; did you mean 'tags'?; or tcp refuses it: "),
        ("etcd:name=a:zzz=b:tcp:80", "zzz=: unknown parameter; known are address, config, drain, endpoints, format, "),
        ("etcd:name=a:tl=5:tcp\\:80", "tl=: unknown parameter; did you mean 'ttl'?; what belongs to 'tcp:80' must be"),
        ("etcd:name=a:interface=b:tcp\\:80", "interface=: unknown parameter; known are"),
        ("etcd:name=a:tcp\\:80:81", "'81' stands beside the quoted endpoint 'tcp:80'; quote all of it, or nothing"),
        ("etcd:name=a:tcp:tcp\\:80", "the endpoint 'tcp:tcp\\\\:80' in it cannot be used"),
        ("etcd:name=a:tcp\\:80:tcp\\:81", "'tcp:81' stands beside the quoted endpoint 'tcp:80'"),
        ("etcd:name=a:tcp\\:1\\:backlog=5:tcp\\:2", "stands beside the quoted endpoint 'tcp:2'"),
        ("etcd:name=a:8080", "the endpoint '8080' in it cannot be used: Unknown endpoint type: '8080'"),
        ("etcd:name=a:tcp:http", "the endpoint 'tcp:http' in it cannot be used: invalid literal"),
        ("etcd:name=a:tcp", "the endpoint 'tcp' in it cannot be used: "),
        ("etcd:name=a:ssl:443:privateKey=/nowhere.pem", "in it cannot be used: [Errno 2]"),
        # Names that would be Python's own arguments.
        ("etcd:name=a:reactor=b:tcp:80", "reactor=: unknown parameter; "),
        ("etcd:name=a:self=b:tcp:80", "self=: unknown parameter; "),
    ],
)
def test_what_is_wrong_with_a_server_is_named(string: str, words: str) -> None:
    refusal = refusal_of_server(string)
    assert refusal.startswith("etcd endpoint: ")
    assert words in refusal


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ("secret", "metadata: entry 1 is not NAME=VALUE"),
        ("a=b,=secret", "metadata: entry 2 is not NAME=VALUE"),
        ("a=b,a=secret", "metadata: 'a' stands twice"),
    ],
)
def test_a_wrong_metadata_is_named_by_its_place_alone(metadata: str, words: str) -> None:
    refusal = refusal_of_server(f"etcd:name=a:metadata={metadata}:tcp:80")
    assert words in refusal
    assert "secret" not in refusal


def test_metadata_are_no_part_of_a_repr() -> None:
    endpoint = server("etcd:name=a:metadata=zone=secret:tcp:80")
    assert "secret" not in repr(endpoint) + repr(endpoint.wanted)


@pytest.mark.parametrize(
    ("address", "host", "port"),
    [
        ("10.0.0.7", "10.0.0.7", None),
        ("web.example", "web.example", None),
        (r"web.example\:80", "web.example", 80),
        (r"\:\:1", "::1", None),
        (r"[\:\:1]", "::1", None),
        (r"[fd00\:\:7]\:80", "fd00::7", 80),
    ],
)
def test_an_address_is_a_host_or_a_host_with_a_port(address: str, host: str, port: int | None) -> None:
    endpoint = server(f"etcd:name=a:address={address}:tcp:8080")
    assert (endpoint.host, endpoint.port) == (host, port)


# --- clients --------------------------------------------------------------------------------------------------------


def test_a_client_has_what_its_string_says() -> None:
    endpoint = client(r"etcd:shop:choice=Round-Robin:key=user-7:tags=a,b:timeout=2.5:wait=3:idle=0")
    verifyObject(IStreamClientEndpoint, endpoint)
    assert (endpoint.service, endpoint.key, set(endpoint.tags)) == ("shop", "user-7", {"a", "b"})
    assert (endpoint.timeout, endpoint.wait, endpoint.idle) == (2.5, 3.0, 0.0)
    assert isinstance(endpoint.choice, RoundRobin)
    assert endpoint.secure is None


@pytest.mark.parametrize("name", CHOICES)
def test_a_client_can_have_every_choice(name: str) -> None:
    assert type(client(f"etcd:shop:choice={name}").choice) is type(choice_of(name))


def test_a_client_may_say_its_service_by_name_too() -> None:
    endpoint = client("etcd:name=shop")
    assert (endpoint.service, endpoint.timeout, endpoint.wait, endpoint.idle) == ("shop", 30.0, 0.0, 60.0)


def test_twisteds_own_tls_goes_around_it() -> None:
    assert IStreamClientEndpoint.providedBy(clientFromString(reactor, r"tls:shop.example:443:endpoint=etcd\:shop"))


@pytest.mark.parametrize(
    ("string", "words"),
    [
        ("etcd:", "no service is named; write etcd:SERVICE"),
        ("etcd", "no service is named; write etcd:SERVICE"),
        ("etcd:a/b", "service name 'a/b' cannot be used"),
        ("etcd:a:80", "unexpected '80' behind 'a'"),
        ("etcd:a:name=b", "'a' stands beside name='b'"),
        ("etcd:a:choice=best", "choice='best' is none of round-robin, random, weighted, least-used, sticky"),
        ("etcd:a:timeout=0", "timeout='0' is not a number of seconds above 0"),
        ("etcd:a:timeout=never", "timeout='never' is not a number of seconds"),
        ("etcd:a:wait=-1", "wait='-1' is not a number of seconds from 0 on"),
        ("etcd:a:wait=", "wait= has no value"),
        ("etcd:a:tls=maybe", "tls='maybe' is none of no, yes, address"),
        ("etcd:a:tlsHostname=b", "tlsHostname= is given, and TLS is not spoken; add tls=yes"),
        ("etcd:a:tls=no:tlsCA=b", "tlsCA= is given, and TLS is not spoken; add tls=yes"),
        ("etcd:a:tls=address:tlsHostname=b", "tlsHostname= is given, and tls=address as well"),
        ("etcd:a:tls=yes:tlsCert=b", "tlsCert and tlsKey belong together"),
        ("etcd:a:tls=yes:tlsCA=/nowhere.pem", "tlsCA"),
        ("etcd:a:tag=b", "tag=: unknown parameter; did you mean 'tags'?"),
        ("etcd:a:ttl=5", "ttl=: unknown parameter; "),
        ("etcd:a:reactor=b", "reactor=: unknown parameter; "),
        (r"etcd:a:tcp\:80", "unexpected 'tcp:80' behind 'a'"),
    ],
)
def test_what_is_wrong_with_a_client_is_named(string: str, words: str) -> None:
    refusal = refusal_of_client(string)
    assert refusal.startswith("etcd endpoint: ")
    assert words in refusal
