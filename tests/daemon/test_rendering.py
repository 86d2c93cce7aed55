"""Files that the daemon renders, as a user runs it: once, for ever, by SIGHUP, and through a kill -9."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any, cast

import pytest
import pytest_twisted
from twisted.internet import reactor

from tests.daemon.conftest import MakeClient, RunDaemon
from tests.etcds import ONE_VERSION
from tests.guards import LoggedErrors
from tests.namespaces import mount_namespace
from tests.programs import TWISTD, Program, Run, until_ended
from tests.said import Said
from tests.wire import Event
from twisted_etcd.client.client import EtcdClient
from twisted_etcd.daemon.hangup import Hangup
from twisted_etcd.embedded.process import EmbeddedEtcd

ONCE = (*TWISTD, "etcdservice", "--config", "settings.yaml", "--once")
DAEMON = (*TWISTD, "-n", "etcdservice", "--config", "settings.yaml")


class Place:
    """A directory with settings, templates, and what is rendered; and the etcd behind it."""

    def __init__(self, directory: Path, endpoint: str, prefix: str, client: EtcdClient) -> None:
        self.directory = directory
        self.endpoint = endpoint
        self.prefix = prefix
        self.client = client

    def settings(self, *entries: str, text: str = "") -> None:
        etcd = (
            f"etcd: {{endpoints: '{self.endpoint}', config_prefix: {self.prefix}c, service_prefix: {self.prefix}s}}\n"
        )
        render = "".join(f"  - {{quiet_min: 0, {entry}}}\n" for entry in entries)
        (self.directory / "settings.yaml").write_text(f"{etcd}render:\n{render}{text}")

    def template(self, text: str, name: str = "t.j2") -> None:
        (self.directory / name).write_text(text)

    async def put(self, key: str, value: str) -> None:
        await self.client.put(f"{self.prefix}c/{key}", value)

    def text(self, name: str = "out") -> str:
        return (self.directory / name).read_text()

    @property
    def names(self) -> set[str]:
        return {path.name for path in self.directory.iterdir()}


@pytest.fixture
def place(tmp_path: Path, etcd_server: EmbeddedEtcd, prefix: str, make_client: MakeClient) -> Place:
    return Place(tmp_path, etcd_server.endpoint, prefix, make_client(etcd_server.endpoint))


async def fails(program: Program, *said: str) -> None:
    """Ends with the status 1, and these words."""
    assert await program.ended() == 1, program.story("did not fail")
    for words in said:
        assert words in program.text, program.story(f"did not say {words!r}")
    assert "Traceback" not in program.text
    assert "Unhandled" not in program.text


# --- once -----------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_once_renders_all_stays_in_the_foreground_and_leaves_nothing(place: Place, run: Run) -> None:
    await place.put("app/name", "shop")
    place.template('{{ config("app/name") }}\n')
    place.settings(
        'template: t.j2, to: out, check: [grep, shop, "{file}"], reload: [touch, reloaded]',
        "template: t.j2, to: other, mode: '0600'",
        text="register: [{name: shop, address: '127.0.0.1:1'}]\nservices: [{class: os.path.no_such_thing}]\n",
    )
    once = run(*ONCE)
    await once.end_well()
    assert (place.text(), place.text("other")) == ("shop\n", "shop\n")
    assert (place.directory / "other").stat().st_mode & 0o777 == 0o600
    assert place.names == {"settings.yaml", "t.j2", "out", "other", "reloaded"}
    assert "all files are up to date" in once.text
    # It does that, and nothing else.
    assert not (await place.client.get(f"{place.prefix}s", prefix=True)).kvs


@pytest_twisted.ensureDeferred
async def test_once_fails_where_one_file_does_and_says_of_each_why(place: Place, run: Run) -> None:
    await place.put("app/name", "shop")
    place.template('{{ config("app/name") }}\n')
    place.template('\n{{ config("app/none") }}\n', "missing.j2")
    place.settings(
        "template: t.j2, to: out",
        "template: missing.j2, to: missing",
        'template: t.j2, to: unchecked, check: [sh, -c, "echo no good; exit 3", "{file}"]',
        "template: t.j2, to: no/folder",
        "template: t.j2, to: untold, reload: [sh, -c, exit 4]",
        "template: t.j2, to: hung, reload: [sleep, '1000'], reload_timeout: 500",
    )
    once, here = run(*ONCE), place.directory
    await fails(
        once,
        "Not all files are up to date:",
        f"{here}/missing: {here}/missing.j2:2: the configuration 'app/none' is not set; set it, or give",
        f"{here}/unchecked: its check failed, exit status 3, and it stays as it was: sh -c echo no good; exit 3 ",
        "no good",
        f"{here}/no/folder cannot be written: No such file or directory; make the folder {here}/no",
        f"{here}/untold: the reload command failed, exit status 4: sh -c exit 4",
        f"{here}/hung: the reload command failed, it had not ended after 0.5 s, and was ended: sleep 1000",
    )
    assert (place.text(), place.text("untold")) == ("shop\n", "shop\n")
    assert place.names - {"settings.yaml", "t.j2", "missing.j2", "out", "untold", "hung"} == {
        ".twisted-etcd-owed-untold",
        ".twisted-etcd-owed-hung",
    }


@pytest_twisted.ensureDeferred
async def test_once_makes_a_reload_good_that_is_owed(place: Place, run: Run) -> None:
    place.template("x")
    place.settings("template: t.j2, to: out, reload: [test, -e, ready]")
    await fails(run(*ONCE), "the reload command failed, exit status 1: test -e ready")
    (place.directory / "ready").touch()
    again = run(*ONCE)
    await again.end_well()
    assert "Done: test -e ready" in again.text
    third = run(*ONCE)
    await third.end_well()
    assert "Done" not in third.text


@pytest_twisted.ensureDeferred
async def test_once_gives_up_when_etcd_is_away_for_too_long(place: Place, run: Run) -> None:
    place.endpoint = "http://127.0.0.1:1"
    place.template('{{ config("a") }}{{ instances("shop") }}')
    place.settings("template: t.j2, to: out")
    await fails(
        run(*ONCE, "--once-timeout", "1.5"),
        f"{place.directory}/out: not done within 1.5 s: etcd did not give the configuration a, the service shop",
    )
    assert place.names == {"settings.yaml", "t.j2"}


@pytest_twisted.ensureDeferred
async def test_once_that_is_stopped_ends_its_command_and_does_not_succeed(place: Place, run: Run) -> None:
    place.template("x")
    place.settings('template: t.j2, to: out, check: [sh, -c, "echo $$ > pid; exec sleep 1000", "{file}"]')
    os.mkfifo(place.directory / "pid")
    once = run(*ONCE)
    # Opened without waiting, and read when there is something.
    descriptor = os.open(place.directory / "pid", os.O_RDONLY | os.O_NONBLOCK)
    pid = int(await _line_of(descriptor))
    os.close(descriptor)
    once.send(signal.SIGTERM)
    assert await once.ended() == -signal.SIGTERM
    await until_ended(pid)
    assert place.names == {"settings.yaml", "t.j2", "pid"}


async def _line_of(descriptor: int) -> str:
    """What comes first through a pipe that was opened without waiting."""
    event = Event()
    read = b""

    class Reader:
        def fileno(self) -> int:
            return descriptor

        def logPrefix(self) -> str:
            return "pipe"

        def doRead(self) -> None:  # noqa: N802 - as IReadDescriptor has it
            nonlocal read
            read += os.read(descriptor, 1000)
            if read:
                event.happened()

        def connectionLost(self, reason: object) -> None:
            """Nothing to note: who reads is taken out before."""

    reader = cast("Any", Reader())
    cast("Any", reactor).addReader(reader)
    try:
        await event.until(lambda: read.endswith(b"\n"))
    finally:
        cast("Any", reactor).removeReader(reader)
    return read.decode()


@pytest_twisted.ensureDeferred
async def test_options_that_make_no_sense_are_refused(place: Place, run: Run) -> None:
    (place.directory / "settings.yaml").write_text("")
    without = run(*ONCE)
    await fails(without, "--once renders files, and the settings name none: give them a section render")
    alone = run(*TWISTD, "etcdservice", "--once-timeout", "3")
    await fails(alone, "twistd etcdservice: --once-timeout is for --once: give that too")
    place.template("x")
    place.settings("template: t.j2, to: out")
    wrong = run(*ONCE, "--once-timeout", "soon")
    await fails(wrong, "--once-timeout must be a number of seconds above 0, not 'soon'")


@pytest.mark.parametrize("arguments", [ONCE, (*DAEMON, "--check"), DAEMON], ids=["once", "check", "start"])
@pytest_twisted.ensureDeferred
async def test_templates_that_are_none_are_refused_with_file_and_line(
    place: Place, run: Run, arguments: tuple[str, ...]
) -> None:
    place.template("\n{% if %}")
    place.settings("template: t.j2, to: out", "template: gone.j2, to: other")
    refused = run(*arguments)
    await fails(refused)
    assert refused.lines == [
        f"twistd etcdservice: {place.directory}/t.j2:2: Expected an expression, got 'end of statement block'",
        f"twistd etcdservice: {place.directory}/gone.j2: cannot be read: No such file or directory",
    ]


@pytest_twisted.ensureDeferred
async def test_check_says_what_is_rendered(place: Place, run: Run) -> None:
    place.template("x")
    place.settings("template: t.j2, to: out")
    check = run(*DAEMON, "--check")
    await check.end_well()
    assert f"renders {place.directory}/t.j2 to {place.directory}/out" in check.lines
    assert "out" not in place.names


@ONE_VERSION
@pytest_twisted.ensureDeferred
async def test_once_works_with_an_etcd_of_the_daemons_own(place: Place, etcd_binary: Path, run: Run) -> None:
    place.template('{{ config("a", default="-") }}')
    place.settings("template: t.j2, to: out")
    once = run(*ONCE, "--embedded", "--etcd-binary", str(etcd_binary))
    await once.end_well()
    assert place.text() == "-"


@pytest_twisted.ensureDeferred
async def test_a_file_that_a_container_mounts_is_written_as_it_is_and_said_once(place: Place, run: Run) -> None:
    namespace = mount_namespace()
    if namespace is None:
        pytest.skip("this machine lets nobody mount anything; test_file has what the kernel would say")
    mounted = place.directory / "mounted"
    mounted.write_text("old")
    (place.directory / "out").touch()
    await place.put("a", "new")
    place.template('{{ config("a") }}')
    place.settings('template: t.j2, to: out, check: [grep, new, "{file}"], reload: [cp, out, seen]')
    mount = 'mount --bind mounted out && exec "$@"'
    command = (*namespace, "sh", "-c", mount, "sh", sys.executable, *ONCE)
    once = run("-c", f"import os; os.execvp({command[0]!r}, {command!r})")
    await once.end_well()
    assert (mounted.read_text(), place.text("seen"), place.text()) == ("new", "new", "")
    told = [line for line in once.lines if f"{place.directory}/out is a mount, and is written as it is" in line]
    assert len(told) == 1
    assert place.names == {"settings.yaml", "t.j2", "mounted", "out", "seen"}


# --- for ever -------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_the_daemon_follows_and_renders_all_again_on_sighup(place: Place, run: Run) -> None:
    await place.put("a", "1")
    place.template('{{ config("a") }}')
    place.settings("template: t.j2, to: out, reload: [echo, told]")
    daemon = run(*DAEMON)
    await daemon.until("Done: echo told")
    assert place.text() == "1"
    await place.put("a", "2")
    await daemon.until("Done: echo told", times=2)
    assert place.text() == "2"
    place.template('new {{ config("a") }}')
    daemon.send(signal.SIGHUP)
    await daemon.until("Done: echo told", times=3)
    assert place.text() == "new 2"
    # Somebody else wrote it: that is mended at the same time.
    (place.directory / "out").write_text("by hand")
    daemon.send(signal.SIGHUP)
    await daemon.until("Done: echo told", times=4)
    assert place.text() == "new 2"
    daemon.send(signal.SIGHUP)
    await daemon.until("SIGHUP: all files are rendered again", times=3)
    await daemon.until("is up to date at revision")
    await daemon.stop_well()
    assert place.names == {"settings.yaml", "t.j2", "out"}


@pytest_twisted.ensureDeferred
async def test_a_kill_in_the_middle_leaves_whole_files_and_what_was_left_is_taken_away(place: Place, run: Run) -> None:
    """Files of a megabyte, written all the time, by daemons that are killed at any time."""
    place.template('{{ (config("a") + "\n") * 100000 }}')
    place.settings("template: t.j2, to: out", "template: t.j2, to: second")
    await place.put("a", "0000000000")
    for number in range(4):
        daemon = run(*DAEMON)
        await daemon.until("is written at revision" if number == 0 else "node etcdservice runs")
        for step in range(3 + number):
            await place.put("a", f"{number:05d}{step:05d}")
        await daemon.kill()
        for name in ("out", "second"):
            lines = place.text(name).splitlines()
            assert (len(lines), len(set(lines))) == (100_000, 1)
        (place.directory / "twistd.pid").unlink(missing_ok=True)
    # One more, as a crash between the two would leave it.
    (place.directory / ".twisted-etcd-abcdefgh-out").write_text("half")
    once = run(*ONCE)
    await once.end_well()
    assert set(place.text().splitlines()) == {"0000300005"}
    assert place.names == {"settings.yaml", "t.j2", "out", "second"}


@pytest_twisted.ensureDeferred
async def test_a_kill_ends_a_command_that_runs(place: Place, run: Run) -> None:
    place.template("x")
    place.settings('template: t.j2, to: out, check: [sh, -c, "echo $$ > pid; exec sleep 1000", "{file}"]')
    os.mkfifo(place.directory / "pid")
    daemon = run(*DAEMON)
    descriptor = os.open(place.directory / "pid", os.O_RDONLY | os.O_NONBLOCK)
    pid = int(await _line_of(descriptor))
    os.close(descriptor)
    await daemon.kill()
    await until_ended(pid)


@pytest_twisted.ensureDeferred
async def test_sighup_is_caught_while_files_are_rendered_and_no_longer(
    place: Place, run_daemon: RunDaemon, said: Said, logged_errors: LoggedErrors
) -> None:
    before = signal.getsignal(signal.SIGHUP)
    plain = run_daemon(f"etcd: {{endpoints: '{place.endpoint}'}}")
    assert signal.getsignal(signal.SIGHUP) is before
    await plain.stopService()
    place.template("1")
    daemon = run_daemon(f"etcd: {{endpoints: '{place.endpoint}'}}\nrender: [{{template: t.j2, to: out}}]")
    await said.until("is written at revision 0")
    place.template("2")
    os.kill(os.getpid(), signal.SIGHUP)
    await said.until("is written at revision 0", times=2)
    assert place.text() == "2"
    await daemon.stopService()
    assert signal.getsignal(signal.SIGHUP) is before
    assert logged_errors.left() == []


def test_a_hangup_is_called_in_a_turn_of_the_reactor_and_what_was_before_comes_back() -> None:
    installed: list[Any] = [None]
    calls: list[str] = []
    waiting: list[Any] = []

    class Turns:
        def callFromThread(self, call: Any) -> None:  # noqa: ANN401
            waiting.append(call)

    def installer(number: int, call: Any) -> Any:  # noqa: ANN401
        assert number == signal.SIGHUP
        before, installed[0] = installed[0], call
        return before

    hangup = Hangup(cast("Any", Turns()), lambda: calls.append("called"), installer)
    hangup.remove()
    hangup.install()
    installed[0](signal.SIGHUP, None)
    assert calls == []
    waiting.pop()()
    assert calls == ["called"]
    hangup.remove()
    hangup.remove()
    assert installed == [signal.SIG_DFL]
