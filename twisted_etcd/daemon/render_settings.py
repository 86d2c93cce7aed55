"""What the settings file says of files to render: its section ``render``."""

from __future__ import annotations

import grp
import pwd
import signal
from collections.abc import Callable
from pathlib import Path

from twisted_etcd.errors import InvalidSettings
from twisted_etcd.rendering.entry import FILE, RenderEntry, RunCommand, SendSignal
from twisted_etcd.rendering.file import FileAccess
from twisted_etcd.settings.document import Value
from twisted_etcd.settings.etcd import time_of
from twisted_etcd.settings.section import Section

_DEFAULT = RenderEntry(template=Path(), to=Path())
_PERMISSIONS = 0o7777


def render_settings(root: Section, directory: Path) -> tuple[RenderEntry, ...]:
    """The files of the list ``render``; mistakes are noted with the section."""
    found: list[RenderEntry] = []
    for section in root.sections("render"):
        entry = _entry(section, directory)
        if any(entry.to == each.to for each in found):
            section.mistake("to", f"{entry.to} stands twice; a file has one template")
        found.append(entry)
    return tuple(found)


def _entry(section: Section, directory: Path) -> RenderEntry:
    check = _arguments(section, "check")
    if check and not any(FILE in argument for argument in check):
        section.mistake("check", f'does not say where the new file\'s path belongs: write "{FILE}" there')
    reload = _reload(section, directory)
    entry = RenderEntry(
        template=_path(section, "template", directory),
        to=_path(section, "to", directory),
        access=FileAccess(
            mode=section.parsed("mode", _mode, None),
            owner=section.parsed("owner", _user, None),
            group=section.parsed("group", _group, None),
        ),
        check=check,
        reload=reload,
        reload_at_start=section.flag("reload_at_start", default=_DEFAULT.reload_at_start),
        check_timeout=time_of(section, "check_timeout", _DEFAULT.check_timeout),
        reload_timeout=time_of(section, "reload_timeout", _DEFAULT.reload_timeout),
        quiet_min=time_of(section, "quiet_min", _DEFAULT.quiet_min, least=0),
        quiet_max=time_of(section, "quiet_max", _DEFAULT.quiet_max, least=0),
    )
    section.end()
    _together(section, entry)
    return entry


def _together(section: Section, entry: RenderEntry) -> None:
    """What is right alone, and wrong together."""
    if entry.to == entry.template and section.is_given("to"):
        section.mistake("to", "is the template itself")
    if entry.quiet_min > entry.quiet_max:
        section.mistake("quiet_min" if section.is_given("quiet_min") else "quiet_max", "quiet_min is above quiet_max")
    if section.is_given("check_timeout") and not section.is_given("check"):
        section.mistake("check_timeout", "there is no check")
    if section.is_given("reload_timeout") and not isinstance(entry.reload, RunCommand):
        section.mistake("reload_timeout", "there is no reload command that could take time")
    if entry.reload_at_start and not section.is_given("reload"):
        section.mistake("reload_at_start", "there is no reload")


def _path(section: Section, key: str, directory: Path) -> Path:
    path = section.file(key, directory)
    if path is None:
        if not section.is_given(key):
            section.mistake(key, "is missing")
        return directory
    return path


def _arguments(section: Section, key: str) -> tuple[str, ...] | None:
    """A command, in its parts."""
    if not section.is_given(key):
        section.given(key)
        return None
    arguments = section.texts(key)
    value = section.given(key)
    if value is not None and value.items == []:
        section.mistake(key, "expected a command and its arguments, got an empty list")
    return arguments


def _reload(section: Section, directory: Path) -> RunCommand | SendSignal | None:
    value: Value | None = section.given("reload")
    if value is None:
        return None
    if value.mapping is None:
        if value.items is None:
            section.wrong(value, "a command as a list, or a mapping with a signal")
            return None
        arguments = _arguments(section, "reload")
        return RunCommand(arguments) if arguments else None
    below = section.section("reload")
    if not below.is_given("signal"):
        below.mistake("signal", "is missing")
    number = below.parsed("signal", _signal, signal.SIGHUP)
    pid_file = below.file("pid_file", directory)
    process = below.text("process", None)
    below.end()
    if below.is_given("pid_file") is below.is_given("process"):
        below.mistake("", "give either pid_file or process: who is to get the signal")
    return SendSignal(number=number, pid_file=pid_file, process=process if pid_file is None else None)


def _signal(text: str) -> signal.Signals:
    name = text.upper().removeprefix("SIG")
    try:
        return signal.Signals[f"SIG{name}"]
    except KeyError:
        msg = f"there is no signal {text!r}; expected one such as HUP or USR1"
        raise InvalidSettings(msg) from None


def _mode(text: str) -> int:
    try:
        mode = int(text, 8) if text.isdecimal() else -1
    except ValueError:
        mode = -1
    if not 0 <= mode <= _PERMISSIONS:
        msg = f'expected permissions such as "0644", got {text!r}'
        raise InvalidSettings(msg)
    return mode


def _user(text: str) -> int:
    return _number(text, "user", lambda name: pwd.getpwnam(name).pw_uid)


def _group(text: str) -> int:
    return _number(text, "group", lambda name: grp.getgrnam(name).gr_gid)


def _number(text: str, what: str, look_up: Callable[[str], int]) -> int:
    if text.isascii() and text.isdecimal():
        return int(text)
    try:
        return look_up(text)
    except KeyError:
        msg = f"this system has no {what} {text!r}"
        raise InvalidSettings(msg) from None
