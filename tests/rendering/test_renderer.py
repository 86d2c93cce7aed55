"""Files that follow a real etcd: rendered, checked, written, and their readers told, by real commands."""

from __future__ import annotations

import json
import os
import signal
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.interfaces import IReadDescriptor
from zope.interface import implementer

from tests import nginx
from tests.guards import LoggedErrors
from tests.programs import Run, until_ended
from tests.rendering.conftest import Site
from tests.said import Said
from tests.wire import Event, soon
from twisted_etcd.client import op
from twisted_etcd.embedded.process import EmbeddedEtcd
from twisted_etcd.errors import InvalidSettings, RenderError
from twisted_etcd.rendering.entry import RunCommand, SendSignal
from twisted_etcd.rendering.file import FileAccess
from twisted_etcd.rendering.renderer import Renderer
from twisted_etcd.rendering.target import RenderState, RenderStatus
from twisted_etcd.rendering.template import Kind, Want
from twisted_etcd.testing.proxy import FaultProxy

WAITING, CHECKING, WRITING = RenderState.WAITING, RenderState.CHECKING, RenderState.WRITING
RELOADING, FOLLOWING, FAILED, ENDED = (
    RenderState.RELOADING,
    RenderState.FOLLOWING,
    RenderState.FAILED,
    RenderState.ENDED,
)


@implementer(IReadDescriptor)
class Pipe:
    """
    A named pipe to which commands tell what they do.

    :ivar lines: what came.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: list[str] = []
        self._partial = b""
        self._event = Event()
        os.mkfifo(path)
        # For writing too: it has no end then.
        self._descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        cast("Any", reactor).addReader(self)

    def says(self, text: str) -> tuple[str, ...]:
        """A command that tells something."""
        return ("sh", "-c", f"echo {text} > {self.path}")

    async def until(self, count: int) -> list[str]:
        await self._event.until(lambda: len(self.lines) >= count)
        return self.lines

    def close(self) -> None:
        cast("Any", reactor).removeReader(self)
        os.close(self._descriptor)

    def fileno(self) -> int:
        return self._descriptor

    def logPrefix(self) -> str:
        return "pipe"

    def doRead(self) -> None:  # noqa: N802 - as IReadDescriptor has it
        *lines, self._partial = (self._partial + os.read(self._descriptor, 65536)).split(b"\n")
        self.lines += [line.decode() for line in lines]
        self._event.happened()

    def connectionLost(self, reason: object) -> None:
        """Nothing to note."""


@pytest.fixture
def pipe(tmp_path: Path) -> Iterator[Pipe]:
    made = Pipe(tmp_path / "pipe")
    yield made
    made.close()


def names(site: Site) -> list[str]:
    return sorted(os.listdir(site.folder))  # noqa: PTH208 - names are what is compared


# --- rendering ------------------------------------------------------------------------------------------------------


@ensureDeferred
async def test_a_file_follows_values_trees_and_instances(site: Site) -> None:
    await site.put("app/name", "shop")
    await site.register("shop", "10.0.0.1:80")
    renderer = site.start(
        site.entry(
            '{{ config("app/name") }}:{% for i in instances("shop") %} {{ i.endpoint }}{% endfor %}|'
            '{% for key in config_tree("app") %} {{ key }}{% endfor %}'
        )
    )
    await soon(renderer.when_rendered())
    assert site.text() == "shop: 10.0.0.1:80| name"
    await site.register("shop", "10.0.0.2:80")
    await site.until_text("shop: 10.0.0.1:80 10.0.0.2:80| name")
    await site.put("app/more", "")
    await site.until_text("shop: 10.0.0.1:80 10.0.0.2:80| more name")
    await soon(site.client.delete(f"{site.service_prefix}/shop/10.0.0.1:80"))
    await site.until_text("shop: 10.0.0.2:80| more name")
    answer = await site.put("app/name", "store")
    await site.until_text("store: 10.0.0.2:80| more name")
    [status] = renderer.status
    assert status.revision == answer.header.revision
    assert (status.template, status.to) == (str(site.folder / "out.j2"), str(site.folder / "out"))
    assert (status.last_error, status.missing) == (None, ())
    assert names(site) == ["out", "out.j2"]


@ensureDeferred
async def test_the_first_rendering_goes_through_the_states_and_writes_once(site: Site, pipe: Pipe) -> None:
    await site.put("a", "1")
    reload = RunCommand(pipe.says("reload"))
    renderer = site.start(site.entry('{{ config("a") }}', check=("grep", "1", "{file}"), reload=reload))
    await soon(renderer.when_rendered())
    assert site.states() == [WAITING, CHECKING, WRITING, RELOADING, FOLLOWING]
    assert pipe.lines == ["reload"]


@ensureDeferred
async def test_nothing_is_written_before_everything_is_there(site: Site, etcd_server: EmbeddedEtcd) -> None:
    """etcd is away for a part of it: what one key says is known, what the other says is not."""
    (site.folder / "out").write_text("the last good one")
    proxy = FaultProxy(cast("Any", reactor), "127.0.0.1", int(etcd_server.endpoint.rpartition(":")[2]))
    proxy.startService()
    try:
        client = site.new_client(proxy.endpoint, request_timeout=0.3)
        await soon(proxy.refuse())
        renderer = site.start(site.entry('{{ config("a", "-") }}{{ config("b", "-") }}'), client=client)
        status = await site.until_state(WAITING)
        assert status.missing == (Want(Kind.VALUE, "a"), Want(Kind.VALUE, "b"))
        await site.put("a", "1")
        assert site.text() == "the last good one"
        await soon(proxy.heal())
        await soon(renderer.when_rendered())
        assert site.text() == "1-"
        await soon(renderer.stopService())
        await soon(client.stopService())
    finally:
        await soon(proxy.stopService())


@ensureDeferred
async def test_what_is_the_same_is_not_written_and_tells_nobody(site: Site, pipe: Pipe) -> None:
    await site.put("a", "1")
    (site.folder / "out").write_text("1")
    before = (site.folder / "out").stat()
    entry = site.entry('{{ config("a") | trim }}', check=("false", "{file}"), reload=RunCommand(pipe.says("reload")))
    renderer = site.start(entry)
    await soon(renderer.when_rendered())
    success = renderer.status[0].last_success
    await site.put("a", " 1")
    await site.until(lambda status: status.state is FOLLOWING and status.last_success != success)
    renderer.render_again()
    await site.put("a", "1 ")
    await site.until(lambda status: status.revision == site.seen[-1].revision and status.state is FOLLOWING)
    after = (site.folder / "out").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert pipe.lines == []


@ensureDeferred
async def test_at_the_start_readers_are_told_of_what_is_the_same_where_that_is_asked_for(
    site: Site, pipe: Pipe
) -> None:
    (site.folder / "out").write_text("1")
    renderer = site.start(site.entry("1", reload=RunCommand(pipe.says("reload")), reload_at_start=True))
    await soon(renderer.when_rendered())
    assert pipe.lines == ["reload"]


@ensureDeferred
async def test_a_mode_that_is_asked_for_is_brought_about(site: Site) -> None:
    (site.folder / "out").write_text("1")
    (site.folder / "out").chmod(0o644)
    await soon(site.start(site.entry("1", access=FileAccess(mode=0o600))).when_rendered())
    assert stat.S_IMODE((site.folder / "out").stat().st_mode) == 0o600


@ensureDeferred
async def test_changes_that_come_together_are_rendered_together(site: Site, pipe: Pipe) -> None:
    for name in ("a", "b", "c"):
        await site.put(name, "0")
    text = '{{ config("a") }}{{ config("b") }}{{ config("c") }}'
    entry = site.entry(text, quiet_min=0.3, quiet_max=20.0, reload=RunCommand(pipe.says("reload")))
    await soon(site.start(entry).when_rendered())
    changes = [op.put(f"{site.config_prefix}/{name}", "1") for name in ("a", "b", "c")]
    # They come by three watches.
    await soon(site.client.txn(success=changes))
    await site.until_text("111")
    assert pipe.lines == ["reload", "reload"]
    assert [status.state for status in site.seen].count(WRITING) == 2


@ensureDeferred
async def test_what_a_template_does_not_need_any_more_is_followed_no_longer(site: Site) -> None:
    await site.put("which", "a")
    await site.put("a", "1")
    await site.put("b", "2")
    renderer = site.start(site.entry('{{ config(config("which")) }}'))
    await soon(renderer.when_rendered())
    await site.put("which", "b")
    await site.until_text("2")
    followed = renderer._source.followed  # noqa: SLF001 - nothing else shows it
    assert followed == {Want(Kind.VALUE, "which"), Want(Kind.VALUE, "b")}
    before = len(site.seen)
    await site.put("a", "3")
    await site.put("b", "4")
    await site.until_text("4")
    assert [status.state for status in site.seen[before:]] == [WRITING, FOLLOWING]


# --- what cannot be rendered ----------------------------------------------------------------------------------------


@ensureDeferred
async def test_a_missing_value_leaves_the_last_good_file_and_mends_with_the_value(
    site: Site, logged_errors: LoggedErrors
) -> None:
    await site.put("a", "1")
    renderer = site.start(site.entry('\n{{ config("a") }}'))
    await soon(renderer.when_rendered())
    await site.delete("a")
    status = await site.until_state(FAILED)
    wrong = f"{site.folder}/out.j2:2: the configuration 'a' is not set; set it, or give a default: "
    assert status.last_error == f'{wrong}config("a", default="…")'
    assert site.text() == "\n1"
    assert logged_errors.flush_messages("is not set") == [f"{site.folder}/out: {status.last_error}"]
    await site.put("a", "2")
    await site.until_text("\n2")
    assert renderer.status[0].last_error == status.last_error
    assert renderer.status[0].last_success is not None


@ensureDeferred
async def test_a_file_whose_values_another_one_follows_already_hears_of_them_too(
    site: Site, logged_errors: LoggedErrors
) -> None:
    await site.put("which", "0")
    first = site.entry('{{ config("a", "-") }}', "first")
    second = site.entry('{% if config("which") == "1" %}{{ config("a") }}{% endif %}', "second")
    await soon(site.start(first, second).when_rendered())
    await site.put("which", "1")
    await site.until_state(FAILED, "second")
    await site.put("a", "2")
    await site.until_text("2", "second")
    await site.until_text("2", "first")
    assert logged_errors.flush_messages("'a' is not set")


@ensureDeferred
async def test_templates_are_read_again_when_that_is_asked_for_and_a_broken_one_is_not_used(
    site: Site, logged_errors: LoggedErrors
) -> None:
    await site.put("a", "1")
    entry = site.entry('{{ config("a") }}')
    renderer = site.start(entry)
    await soon(renderer.when_rendered())
    entry.template.write_text('new {{ config("a") }}')
    await site.put("a", "2")
    await site.until_text("2")
    renderer.render_again()
    await site.until_text("new 2")
    entry.template.write_text("{% broken %}")
    renderer.render_again()
    status = await site.until(lambda status: status.last_error is not None and status.state is FOLLOWING)
    assert status.last_error == (
        f"the template is used as it was read before: {entry.template}:1: Encountered unknown tag 'broken'."
    )
    await site.put("a", "3")
    await site.until_text("new 3")
    assert logged_errors.flush_messages("Encountered unknown tag")


def test_a_template_that_is_none_is_refused_at_once(site: Site) -> None:
    with pytest.raises(InvalidSettings, match=r"out\.j2:1: "):
        site.renderer(site.entry("{% if %}"))


# --- checks ---------------------------------------------------------------------------------------------------------


@ensureDeferred
async def test_a_check_that_fails_keeps_the_old_file_and_says_why(
    site: Site, pipe: Pipe, logged_errors: LoggedErrors
) -> None:
    await site.put("a", "good")
    check = ("sh", "-c", 'grep -q good "$1" || { echo "$1: not good"; exit 4; }', "check", "{file}")
    entry = site.entry('{{ config("a") }}', check=check, reload=RunCommand(pipe.says("reload")))
    renderer = site.start(entry)
    await soon(renderer.when_rendered())
    await site.put("a", "bad")
    status = await site.until_state(FAILED)
    assert status.last_error is not None
    assert status.last_error.splitlines() == [
        f"its check failed, exit status 4, and it stays as it was: {' '.join(check)}",
        f"  {site.folder}/out: not good",
    ]
    assert site.text() == "good"
    # It is tried again, and said once.
    tries = site.states().count(CHECKING)
    await site.event.until(lambda: site.states().count(CHECKING) > tries)
    await site.put("a", "good again")
    await site.until_text("good again")
    assert pipe.lines == ["reload", "reload"]
    assert len(logged_errors.flush_messages("its check failed")) == 1
    assert names(site) == ["out", "out.j2"]


@ensureDeferred
async def test_a_check_that_hangs_is_ended_with_all_that_it_started(
    site: Site, pipe: Pipe, logged_errors: LoggedErrors
) -> None:
    check = ("sh", "-c", f"sh -c 'echo $$; exec sleep 1000' > {pipe.path} & wait; : {{file}}")
    site.start(site.entry("1", check=check, check_timeout=2.0), random=lambda: 1.0)
    status = await site.until_state(FAILED)
    assert status.last_error is not None
    assert "it had not ended after 2 s, and was ended" in status.last_error
    [pid] = await pipe.until(1)
    await until_ended(int(pid))
    assert names(site) == ["out.j2"]
    assert logged_errors.flush_messages("its check failed")


@ensureDeferred
async def test_a_folder_that_is_missing_is_said_and_made_good_of(site: Site, logged_errors: LoggedErrors) -> None:
    site.start(msgspec.structs.replace(site.entry("1"), to=site.folder / "deep" / "out"))
    status = await site.until_state(FAILED, "deep/out")
    assert status.last_error == (
        f"{site.folder}/deep/out cannot be written: No such file or directory; make the folder {site.folder}/deep"
    )
    (site.folder / "deep").mkdir()
    await site.until_text("1", "deep/out")
    assert logged_errors.flush_messages("make the folder")


# --- reloads --------------------------------------------------------------------------------------------------------


@ensureDeferred
async def test_files_with_the_same_reload_that_change_together_reload_once(site: Site, pipe: Pipe) -> None:
    await site.put("a", "1")
    reload = RunCommand(pipe.says("together"))
    other = RunCommand(pipe.says("alone"))
    entries = [site.entry('{{ config("a") }}', name, reload=reload) for name in ("x", "y", "z")]
    entries.append(site.entry('{{ config("a") }}', "w", reload=other))
    await soon(site.start(*entries).when_rendered())
    assert sorted(pipe.lines) == ["alone", "together"]
    await site.put("a", "2")
    for name in ("w", "x", "y", "z"):
        await site.until_text("2", name)
    assert sorted(pipe.lines) == ["alone", "alone", "together", "together"]


@ensureDeferred
async def test_a_reload_that_fails_is_repeated_until_it_works(
    site: Site, tmp_path: Path, pipe: Pipe, logged_errors: LoggedErrors
) -> None:
    ready = tmp_path / "ready"
    reload = RunCommand(("sh", "-c", f"echo tried > {pipe.path}; test -e {ready} || {{ echo not ready; exit 1; }}"))
    renderer = site.start(site.entry("1", reload=reload))
    await pipe.until(3)
    status = renderer.status[0]
    assert (status.state, status.last_success) == (FAILED, None)
    assert status.last_error == f"the reload command failed, exit status 1: {reload}\n  not ready"
    assert site.text() == "1"
    # What a crash now would leave owed is written down.
    assert ".twisted-etcd-owed-out" in names(site)
    ready.touch()
    await soon(renderer.when_rendered())
    await soon(renderer.stopService())
    assert names(site) == ["out", "out.j2"]
    assert len(logged_errors.flush_messages("the reload command failed")) == 1


@ensureDeferred
async def test_a_reload_that_waits_to_be_repeated_is_superseded_by_the_next_rendering(
    site: Site, tmp_path: Path, pipe: Pipe, logged_errors: LoggedErrors
) -> None:
    await site.put("a", "1")
    out = site.folder / "out"
    reload = RunCommand(("sh", "-c", f"cat {out} > {pipe.path}; grep -q 2 {out}"))
    # A second attempt would come after all of this.
    renderer = site.start(site.entry('{{ config("a") }}\n', reload=reload), random=lambda: 1000.0)
    await site.until_state(FAILED)
    await site.put("a", "2")
    await site.until_text("2\n")
    assert pipe.lines == ["1", "2"]
    assert renderer.status[0].last_error is not None
    assert logged_errors.flush_messages("the reload command failed")


@ensureDeferred
async def test_a_file_that_is_as_it_was_again_still_owes_its_reload(
    site: Site, tmp_path: Path, pipe: Pipe, logged_errors: LoggedErrors
) -> None:
    await site.put("a", "1")
    ready = tmp_path / "ready"
    reload = RunCommand(("sh", "-c", f"echo tried > {pipe.path}; test -e {ready}"))
    renderer = site.start(site.entry('{{ config("a") | trim }}', reload=reload))
    await pipe.until(1)
    await site.put("a", " 1")
    await pipe.until(len(pipe.lines) + 1)
    assert renderer.status[0].last_success is None
    ready.touch()
    await soon(renderer.when_rendered())
    assert logged_errors.flush_messages("the reload command failed")


@ensureDeferred
async def test_a_reload_that_was_owed_when_the_process_ended_is_made_good_at_the_next_start(
    site: Site, pipe: Pipe, logged_errors: LoggedErrors
) -> None:
    entry = site.entry("1", reload=RunCommand(("false",)))
    first = site.start(entry, random=lambda: 1000.0)
    await site.until_state(FAILED)
    await soon(first.stopService())
    assert logged_errors.flush_messages("the reload command failed")
    second = site.start(site.entry("1", reload=RunCommand(pipe.says("reload"))))
    await soon(second.when_rendered())
    await soon(second.stopService())
    third = site.start(site.entry("1", reload=RunCommand(pipe.says("reload"))))
    await soon(third.when_rendered())
    assert pipe.lines == ["reload"]


@ensureDeferred
async def test_a_reload_can_be_a_signal(site: Site, tmp_path: Path, run: Run) -> None:
    code = "import os, signal\nsignal.signal(signal.SIGHUP, lambda *_: os.write(1, b'reloaded\\n'))\n"
    server = run("-c", f"{code}os.write(1, f'is {{os.getpid()}}\\n'.encode())\nwhile True: signal.pause()")
    pid_file = tmp_path / "pid"
    pid_file.write_text((await server.until("is ")).split()[-1])
    await soon(site.start(site.entry("1", reload=SendSignal(number=signal.SIGHUP, pid_file=pid_file))).when_rendered())
    await server.until("reloaded")


@ensureDeferred
async def test_a_signal_to_nobody_is_said_and_repeated(site: Site, tmp_path: Path, logged_errors: LoggedErrors) -> None:
    pid_file = tmp_path / "pid"
    renderer = site.start(site.entry("1", reload=SendSignal(number=signal.SIGCONT, pid_file=pid_file)))
    status = await site.until_state(FAILED)
    assert status.last_error == (
        f"SIGCONT to the process of {pid_file} could not be sent: {pid_file} cannot be read: "
        "No such file or directory; is the program running?"
    )
    pid_file.write_text(str(os.getpid()))
    await soon(renderer.when_rendered())
    assert logged_errors.flush_messages("could not be sent")


# --- once -----------------------------------------------------------------------------------------------------------


@ensureDeferred
async def test_once_all_that_fails_is_told_when_all_were_tried(site: Site, logged_errors: LoggedErrors) -> None:
    await site.put("a", "1")
    renderer = site.start(
        site.entry('{{ config("a") }}', "good"),
        site.entry('{{ config("b") }}', "missing"),
        site.entry("2", "unchecked", check=("false", "{file}")),
        site.entry("3", "untold", reload=RunCommand(("false",))),
        once=True,
    )
    with pytest.raises(RenderError) as caught:
        await soon(renderer.when_rendered())
    said = str(caught.value).splitlines()
    assert [line.partition(": ")[0].rpartition("/")[2] for line in said] == ["missing", "unchecked", "untold"]
    assert (site.text("good"), site.text("untold")) == ("1", "3")
    assert not (site.folder / "unchecked").exists()
    assert len(logged_errors.flush_messages()) == 3


# --- etcd, away and back --------------------------------------------------------------------------------------------


@ensureDeferred
async def test_while_etcd_is_away_files_stay_and_what_was_missed_is_made_up_for(
    site: Site, etcd_server: EmbeddedEtcd
) -> None:
    await site.put("a", "1")
    await site.register("shop", "10.0.0.1:80")
    proxy = FaultProxy(cast("Any", reactor), "127.0.0.1", int(etcd_server.endpoint.rpartition(":")[2]))
    proxy.startService()
    try:
        client = site.new_client(proxy.endpoint, request_timeout=0.5)
        renderer = site.start(
            site.entry('{{ config("a") }}{% for i in instances("shop") %} {{ i.port }}{% endfor %}'), client=client
        )
        await soon(renderer.when_rendered())
        await soon(proxy.refuse())
        await soon(proxy.reset())
        await site.put("a", "2")
        await site.register("shop", "10.0.0.2:81")
        # SIGHUP, so to say: what was last seen is still there.
        renderer.render_again()
        await site.event.until(lambda: len(site.seen) > 3)
        assert site.text() == "1 80"
        assert renderer.status[0].state is FOLLOWING
        await soon(proxy.heal())
        await site.until_text("2 80 81")
        await soon(renderer.stopService())
        await soon(client.stopService())
    finally:
        await soon(proxy.stopService())


# --- its end --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["check", "reload"])
@ensureDeferred
async def test_stopping_ends_a_command_that_runs_and_all_that_it_started(site: Site, pipe: Pipe, what: str) -> None:
    command = ("sh", "-c", f"sh -c 'echo $$; exec sleep 1000' > {pipe.path} & wait; : {{file}}")
    options: dict[str, Any] = {"check": command} if what == "check" else {"reload": RunCommand(command)}
    renderer = site.start(site.entry("1", **options))
    [pid] = await pipe.until(1)
    await soon(renderer.stopService())
    await until_ended(int(pid))
    assert (site.folder / "out").exists() is (what == "reload")
    assert [name for name in names(site) if name.startswith(".") and "owed" not in name] == []
    assert site.states()[-1] is ENDED


@ensureDeferred
async def test_stopping_right_after_the_start_leaves_nothing(site: Site) -> None:
    for _ in range(3):
        renderer = site.start(site.entry('{{ config("a", 1) }}', reload=RunCommand(("true",))))
        await soon(renderer.stopService())
    assert [name for name in names(site) if name.startswith(".")] == []


@ensureDeferred
async def test_who_is_told_may_fail_and_the_files_do_not_suffer(site: Site, logged_errors: LoggedErrors) -> None:
    def changed(_: RenderStatus) -> None:
        msg = "a mistake"
        raise KeyError(msg)

    renderer = Renderer(site.client, cast("Any", reactor), [site.entry("1")], changed=changed)
    renderer.startService()
    await soon(renderer.when_rendered())
    await soon(renderer.stopService())
    assert site.text() == "1"
    assert logged_errors.flush(KeyError)


@ensureDeferred
async def test_a_reload_is_owed_though_something_failed_right_after_the_file_was_replaced(
    site: Site, pipe: Pipe, logged_errors: LoggedErrors, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing real fails then, and not before: the disk, as it is asked to keep the folder."""
    calls: list[int] = []
    fsync = os.fsync

    def fails(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            calls.append(descriptor)
            # The first one is for what says that a reload is owed.
            if len(calls) == 2:
                raise OSError(5, "Input/output error")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fails)
    renderer = site.start(site.entry("1", reload=RunCommand(pipe.says("reload"))))
    await soon(renderer.when_rendered())
    assert pipe.lines == ["reload"]
    assert logged_errors.flush_messages("out cannot be written: Input/output error")


@ensureDeferred
async def test_one_that_was_not_started_stops_at_once(site: Site) -> None:
    await soon(site.renderer(site.entry("1", reload=RunCommand(("true",)))).stopService())


@ensureDeferred
async def test_no_value_is_in_the_log_nor_in_a_status(site: Site, said: Said, logged_errors: LoggedErrors) -> None:
    secret = "a-very-secret-value"
    await site.put("a", secret)
    renderer = site.start(site.entry('{{ config("a") }}', "x"), site.entry('{{ {}[config("a")] }}', "y"))
    await site.until_text(secret, "x")
    await site.until_state(FAILED, "y")
    await soon(renderer.stopService())
    assert logged_errors.flush_messages("has nothing under the name that a value gives")
    assert [line for line in [*said.lines, repr(site.seen), repr(renderer.status)] if secret in line] == []


# --- nginx ----------------------------------------------------------------------------------------------------------

NGINX = """\
daemon off; pid FOLDER/pid; error_log stderr; events {}
http {
    access_log off; client_body_temp_path FOLDER/1; proxy_temp_path FOLDER/2; fastcgi_temp_path FOLDER/3;
    uwsgi_temp_path FOLDER/4; scgi_temp_path FOLDER/5;
    upstream shop { {% for i in instances("shop") %} server {{ i.endpoint }} weight={{ i.weight }};{% endfor %} }
}
"""


@ensureDeferred
async def test_upstreams_of_nginx_are_checked_by_nginx(site: Site, logged_errors: LoggedErrors) -> None:
    program = nginx.program()
    if program is None:
        pytest.skip(f"there is no nginx: install one (Debian: nginx-light), or name it in {nginx.VARIABLE}")
    check = (program, "-t", "-q", "-e", "stderr", "-c", "{file}")
    entry = site.entry(NGINX.replace("FOLDER", str(site.folder)), check=check)
    renderer = site.start(entry)
    # An upstream of nobody is what nginx refuses.
    status = await site.until_state(FAILED)
    assert status.last_error is not None
    assert f"no servers are inside upstream in {site.folder}/out:" in status.last_error
    assert not (site.folder / "out").exists()
    for number, weight in ((1, 3), (2, 1)):
        value = {"address": f"10.0.0.{number}", "port": 80, "weight": weight}
        await site.register("shop", f"10.0.0.{number}:80", json.dumps(value))
    await site.event.until(lambda: (site.folder / "out").exists() and "10.0.0.2" in site.text())
    assert "upstream shop {  server 10.0.0.1:80 weight=3; server 10.0.0.2:80 weight=1; }" in site.text()
    await site.until(lambda status: status.state is FOLLOWING)
    await site.register("shop", "10.0.0.3:80", json.dumps({"address": "10.0.0.3", "port": 80, "weight": -1}))
    await site.until(lambda status: status.state is FAILED)
    assert "10.0.0.3" not in site.text()
    await soon(renderer.stopService())
    assert logged_errors.flush_messages("its check failed")
