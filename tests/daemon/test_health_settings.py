"""What the entry ``check`` of a registration means, and how its mistakes are told."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
import trustme
from pytest_twisted import ensureDeferred
from twisted.internet import reactor

from tests.wire import Listener, soon
from twisted_etcd.daemon.description import describe
from twisted_etcd.daemon.health_settings import (
    CheckSettings,
    CommandSettings,
    HTTPSettings,
    TCPSettings,
    make_healths,
)
from twisted_etcd.daemon.settings import Settings, load
from twisted_etcd.errors import InvalidSettings
from twisted_etcd.gateway.tls import TLSSettings
from twisted_etcd.registry.instance import Status

REACTOR = cast("Any", reactor)
SECRET = "hunter2"
PREFIX = "register:\n- name: web\n  address: 'h:1'\n  check: "


def read(tmp_path: Path, check: str) -> Settings:
    file = tmp_path / "f.yaml"
    file.write_text(PREFIX + check)
    return load(file, {"TIMES": "3"})


def checks(tmp_path: Path, check: str) -> tuple[CheckSettings, ...]:
    return read(tmp_path, check).register[0].checks


@pytest.fixture
def pem(tmp_path: Path) -> Path:
    """A directory with ``ca.pem``."""
    trustme.CA().cert_pem.write_to_path(tmp_path / "ca.pem")
    return tmp_path


def test_without_a_check_there_is_none(tmp_path: Path) -> None:
    assert checks(tmp_path, "") == ()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{tcp: 'h:80'}", TCPSettings("h:80")),
        ("{tcp: '[::1]:80'}", TCPSettings("[::1]:80")),
        ("{http: 'http://h/'}", HTTPSettings(url="http://h/")),
        ("{http: 'http://h/', expect: 200}", HTTPSettings(url="http://h/", expected=(range(200, 201),))),
        (
            "{http: 'http://h/', expect: [200-204, 404, '301']}",
            HTTPSettings(url="http://h/", expected=(range(200, 205), range(404, 405), range(301, 302))),
        ),
        ("{command: [check]}", CommandSettings(program="check")),
    ],
)
def test_a_check_has_the_defaults_of_health(tmp_path: Path, text: str, expected: Any) -> None:  # noqa: ANN401 - of three kinds
    found = checks(tmp_path, text)
    assert found == (
        CheckSettings(
            what=expected,
            interval=10.0,
            timeout=5.0,
            rise=2,
            fall=3,
            deregister_after=None,
            initial=Status.CRITICAL,
            show_status=False,
        ),
    )
    (made,) = make_healths(REACTOR, found)
    default = CheckSettings(what=expected)
    for name in ("interval", "timeout", "rise", "fall", "deregister_after", "initial", "show_status"):
        assert getattr(made, name) == getattr(default, name), name


def test_every_key_is_read(pem: Path) -> None:
    text = f"""
    - tcp: h:80
      interval: 500
      timeout: 250
      rise: 1
      fall: ${{TIMES}}
      deregister_after: 60000
      initial: passing
      show_status: true
    - http: https://h/x?key={SECRET}
      method: HEAD
      expect: 204
      headers: {{Authorization: {SECRET}}}
      contains: ready
      redirects: 2
      ca_file: ca.pem
    - {{http: 'https://h/', insecure: true}}
    - {{command: [bin/check, --password, {SECRET}], cwd: work}}
"""
    found = checks(pem, text)
    assert found[0] == CheckSettings(
        what=TCPSettings("h:80"),
        interval=0.5,
        timeout=0.25,
        rise=1,
        fall=3,
        deregister_after=60.0,
        initial=Status.PASSING,
        show_status=True,
    )
    assert [each.what for each in found[1:]] == [
        HTTPSettings(
            url=f"https://h/x?key={SECRET}",
            method="HEAD",
            expected=(range(204, 205),),
            headers={"Authorization": SECRET},
            contains="ready",
            redirects=2,
            tls=TLSSettings(ca_file=str(pem / "ca.pem")),
        ),
        HTTPSettings(url="https://h/", tls=TLSSettings(insecure=True)),
        CommandSettings(program=str(pem / "bin/check"), arguments=("--password", SECRET), cwd=pem / "work"),
    ]
    shown = repr(found) + "".join(repr(each.what.__rich_repr__()) for each in found[1:])
    assert SECRET not in shown
    assert "url='https://h/x?…'" in shown
    assert "headers={'Authorization': <hidden>}" in shown
    healths = make_healths(REACTOR, found)
    assert [repr(each.checks[0]) for each in healths] == [
        "<TCPCheck h:80>",
        "<HTTPCheck HEAD https://h/x?…>",
        "<HTTPCheck GET https://h/>",
        f"<CommandCheck {pem}/bin/check>",
    ]
    assert (healths[0].interval, healths[0].deregister_after, healths[0].initial) == (0.5, 60.0, Status.PASSING)
    assert healths[0].show_status
    assert describe(read(pem, text)).splitlines()[-12:] == [
        "  checked by connecting to h:80",
        "    every 500 ms, within 250 ms; critical after 3 in a row that failed, passing again after 1 that did not",
        "    registered at once, taken out while critical, for good after 60000 ms; its status is shown",
        (
            "  checked by HEAD https://h/x?…, expected is 204, headers: Authorization, with 'ready' in the body, "
            f"following 2 redirects, servers of the authorities in {pem}/ca.pem"
        ),
        "    every 10000 ms, within 5000 ms; critical after 3 in a row that failed, passing again after 2 that did not",
        "    registered once it has passed, taken out while critical",
        "  checked by GET https://h/, expected is 200-299, EVERY server is believed (insecure)",
        "    every 10000 ms, within 5000 ms; critical after 3 in a row that failed, passing again after 2 that did not",
        "    registered once it has passed, taken out while critical",
        f"  checked by running {pem}/bin/check with 2 arguments in {pem}/work",
        "    every 10000 ms, within 5000 ms; critical after 3 in a row that failed, passing again after 2 that did not",
        "    registered once it has passed, taken out while critical",
    ]


@ensureDeferred
async def test_what_it_makes_works(tmp_path: Path) -> None:
    listener = Listener()
    program = tmp_path / "check"
    program.write_text("#!/bin/sh\necho $1 in $PWD\n")
    program.chmod(0o755)
    text = f"[{{tcp: '{listener.authority}'}}, {{command: [./check, fast], cwd: .}}]"
    by_tcp, by_command = make_healths(REACTOR, checks(tmp_path, text))
    assert (await soon(by_tcp.checks[0].check())).status is Status.PASSING
    assert (await soon(by_command.checks[0].check())).why == f"exit status 0: fast in {tmp_path}"
    await listener.close()


MISTAKES = [
    ("tcp", "f.yaml:4: register[0].check: expected a mapping, got 'tcp' (a str)"),
    ("[tcp]", "f.yaml:4: register[0].check[0]: expected a mapping, got 'tcp' (a str)"),
    ("[~]", "f.yaml:4: register[0].check[0]: expected a mapping, got nothing"),
    ("[]", "f.yaml:4: register[0].check: the list is empty; leave it out where there is nothing to check"),
    ("{}", "f.yaml:4: register[0].check: expected one of tcp, http and command, got none of them"),
    (
        "{tcp: 'h:1', command: [x]}",
        "f.yaml:4: register[0].check: expected one of tcp, http and command, got tcp and command",
    ),
    (
        "{tpc: 'h:1'}",
        ("f.yaml:4: register[0].check: expected one of tcp, http and command, got none of them\n"
         "f.yaml:4: register[0].check.tpc: unknown key; did you mean 'tcp'?"),
    ),
    ("{tcp: h}", "f.yaml:4: register[0].check.tcp: service address 'h' is not HOST:PORT"),
    ("{tcp: 80}", "f.yaml:4: register[0].check.tcp: expected text (put it in quotes), got 80 (an int)"),
    (
        "{tcp: 'h:1', method: GET, cwd: x}",
        ("f.yaml:4: register[0].check.method: is for a check by http, and this is one by tcp\n"
         "f.yaml:4: register[0].check.cwd: is for a check by command, and this is one by tcp"),
    ),
    (
        "{tcp: 'h:1', interval: 10s}",
        "f.yaml:4: register[0].check.interval: expected a whole number of milliseconds, got '10s' (a str)",
    ),
    (
        "{tcp: 'h:1', timeout: 0}",
        ("f.yaml:4: register[0].check.timeout: expected a whole number of milliseconds from 1 to 86,400,000, "
         "got 0 (an int)"),
    ),
    (
        "{tcp: 'h:1', fall: 0}",
        "f.yaml:4: register[0].check.fall: expected a whole number from 1 to 1,000, got 0 (an int)",
    ),
    (
        "{tcp: 'h:1', initial: warning}",
        "f.yaml:4: register[0].check.initial: expected critical or passing, got 'warning'",
    ),
    ("{tcp: 'h:1', show_status: 1}", "f.yaml:4: register[0].check.show_status: expected true or false, got 1 (an int)"),
    (
        "{http: h/x}",
        ("f.yaml:4: register[0].check.http: the URL of a check is 'h/x'; write it as http://HOST:PORT/PATH, "
         "or with https://"),
    ),
    (
        "{http: 'http://u:hunter2@h/'}",
        ("f.yaml:4: register[0].check.http: the URL of a check at h has a user in it; send it as the header "
         "Authorization"),
    ),
    (
        "{http: 'http://h/', method: fetch}",
        "f.yaml:4: register[0].check.method: expected a method such as GET or HEAD, got 'fetch'",
    ),
    (
        "{http: 'http://h/', expect: 2xx}",
        ("f.yaml:4: register[0].check.expect: expected a status such as 200, or a range such as 200-299, "
         "got '2xx' (a str)"),
    ),
    (
        "{http: 'http://h/', expect: [200, 299-200]}",
        ("f.yaml:4: register[0].check.expect[1]: expected a status such as 200, or a range such as 200-299, "
         "got '299-200' (a str)"),
    ),
    (
        "{http: 'http://h/', expect: []}",
        "f.yaml:4: register[0].check.expect: the list is empty; give at least one status, such as 200",
    ),
    (
        "{http: 'http://h/', headers: {Authorization: [hunter2], X-Number: 12345}}",
        ("f.yaml:4: register[0].check.headers.Authorization: expected text (put it in quotes), got a list\n"
         "f.yaml:4: register[0].check.headers.X-Number: expected text (put it in quotes), got an int"),
    ),
    (
        '{http: "http://h/", headers: {Authorization: "hunter2\\nX: y"}}',
        ("f.yaml:4: register[0].check.headers: what the header Authorization says must be a text of printable ASCII "
         "characters, in one line"),
    ),
    (
        "{http: 'http://h/', insecure: true}",
        "f.yaml:4: register[0].check.insecure: is given, and the URL does not begin with https://",
    ),
    (
        "{http: 'https://h/', insecure: true, ca_file: ca.pem}",
        ("f.yaml:4: register[0].check.insecure: is true, and ca_file is given as well: with the one the other has no "
         "effect"),
    ),
    (
        "{http: 'https://h/', ca_file: none.pem}",
        ("f.yaml:4: register[0].check.ca_file: ca_file 'none.pem' cannot be read: No such file or directory"),
    ),
    (
        "{http: 'http://h/', redirects: -1}",
        "f.yaml:4: register[0].check.redirects: expected a whole number from 0 to 20, got -1 (an int)",
    ),
    (
        "{command: check --password hunter2}",
        ("f.yaml:4: register[0].check.command: expected a list, the program and its arguments: "
         "[/usr/bin/check, --fast]"),
    ),
    ("{command: []}", "f.yaml:4: register[0].check.command: expected the program first: [/usr/bin/check, --fast]"),
    (
        "{command: [check, 12345]}",
        "f.yaml:4: register[0].check.command[1]: expected text (put it in quotes)",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), MISTAKES, ids=[text for text, _ in MISTAKES])
def test_a_mistake_is_told_with_its_place_and_what_was_expected(pem: Path, text: str, expected: str) -> None:
    with pytest.raises(InvalidSettings) as caught:
        read(pem, text)
    said = str(caught.value).replace(f"{pem}/", "")
    assert said == expected
    assert SECRET not in said
    assert "12345" not in said
