"""
What a settings file says of the health of a service: the entry ``check`` of a registration.

Times are in milliseconds in the file, and in seconds in here. Relative paths begin at the directory of the file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import ClassVar

import msgspec

from twisted_etcd.commands import CommandReactor
from twisted_etcd.discreet import Discreet
from twisted_etcd.errors import InvalidSettings
from twisted_etcd.gateway.tls import TLSSettings, TLSTrust
from twisted_etcd.registry.health.command import CommandCheck
from twisted_etcd.registry.health.health import Health
from twisted_etcd.registry.health.http import (
    SUCCESS,
    HTTPCheck,
    checked_headers,
    checked_method,
    checked_statuses,
    checked_url,
    shown_statuses,
    shown_url,
)
from twisted_etcd.registry.health.result import Check
from twisted_etcd.registry.health.tcp import NetworkReactor, TCPCheck
from twisted_etcd.registry.instance import Status, split_address
from twisted_etcd.settings.document import Value
from twisted_etcd.settings.etcd import time_of
from twisted_etcd.settings.section import Section

_KINDS = ("tcp", "http", "command")
#: The keys that belong to one kind of check alone.
_OWN_KEYS = {
    "http": ("method", "expect", "headers", "contains", "redirects", "ca_file", "insecure"),
    "command": ("cwd",),
}
_MOST_IN_A_ROW = 1000
_MOST_REDIRECTS = 20
_STATUS_RANGE = re.compile(r"([1-5][0-9]{2})(?:-([1-5][0-9]{2}))?").fullmatch
_INITIAL = {"critical": Status.CRITICAL, "passing": Status.PASSING}


class CheckReactor(NetworkReactor, CommandReactor):
    """What checks use of the reactor."""


class TCPSettings(msgspec.Struct, frozen=True):
    """
    A check that connects.

    :ivar address: ``host:port``.
    """

    address: str

    def __str__(self) -> str:
        return f"connecting to {self.address}"


class HTTPSettings(Discreet, frozen=True, kw_only=True):
    """
    A check that asks by HTTP. Its ``repr`` is without what the headers say, and without the query of the URL.

    :ivar contains: what must be in the body.
    :ivar redirects: how many are followed.
    """

    secret_fields: ClassVar[frozenset[str]] = frozenset({"headers"})

    url: str
    method: str = "GET"
    expected: tuple[range, ...] = SUCCESS
    headers: dict[str, str] = msgspec.field(default_factory=dict)
    contains: str = ""
    redirects: int = 0
    tls: TLSSettings = TLSSettings()

    def _shown_fields(self) -> Iterator[tuple[str, str]]:
        for name, shown in super()._shown_fields():
            yield name, repr(shown_url(self.url)) if name == "url" else shown

    def __str__(self) -> str:
        parts = [f"{self.method} {shown_url(self.url)}", f"expected is {shown_statuses(self.expected)}"]
        if self.headers:
            parts.append(f"headers: {', '.join(self.headers)}")
        if self.contains:
            parts.append(f"with {self.contains!r} in the body")
        if self.redirects:
            parts.append(f"following {self.redirects} redirects")
        if self.tls.insecure:
            parts.append("EVERY server is believed (insecure)")
        if self.tls.ca_file:
            parts.append(f"servers of the authorities in {self.tls.ca_file}")
        return ", ".join(parts)


class CommandSettings(Discreet, frozen=True, kw_only=True):
    """
    A check that runs a program. Its ``repr`` is without the arguments.

    :ivar program: a name that is looked for on ``PATH``, or a path.
    :ivar cwd: the directory that it runs in; the daemon's own where None.
    """

    secret_fields: ClassVar[frozenset[str]] = frozenset({"arguments"})

    program: str
    arguments: tuple[str, ...] = ()
    cwd: Path | None = None

    def __str__(self) -> str:
        arguments = f" with {len(self.arguments)} arguments" if self.arguments else ""
        return f"running {self.program}{arguments}" + (f" in {self.cwd}" if self.cwd else "")


class CheckSettings(msgspec.Struct, frozen=True, kw_only=True):
    """
    One check of a registration, see :class:`~twisted_etcd.registry.health.health.Health`.

    :ivar what: it does.
    :ivar interval: seconds.
    :ivar timeout: seconds.
    :ivar deregister_after: seconds; never where None.
    """

    what: TCPSettings | HTTPSettings | CommandSettings
    interval: float = 10.0
    timeout: float = 5.0
    rise: int = 2
    fall: int = 3
    deregister_after: float | None = None
    initial: Status = Status.CRITICAL
    show_status: bool = False


def check_settings(section: Section, directory: Path) -> tuple[CheckSettings, ...]:
    """
    What the key ``check`` of a registration says, a mapping or a list of them; its mistakes are noted with it.

    :param section: of the registration.
    :param directory: at which relative paths begin.
    """
    value = section.given("check")
    if value is None:
        return ()
    if value.items == []:
        section.mistake("check", "the list is empty; leave it out where there is nothing to check")
    values = [value] if value.items is None else value.items
    found = (_check(each, Section(each, each.path, section.mistakes), directory) for each in values)
    return tuple(each for each in found if each is not None)


def _check(value: Value, section: Section, directory: Path) -> CheckSettings | None:
    if value.broken or value.mapping is None:
        if value.content is None:
            section.wrong(value, "a mapping")
        return None
    given = [kind for kind in _KINDS if section.is_given(kind)]
    for kind, keys in _OWN_KEYS.items():
        for key in keys:
            if section.is_given(key) and given and kind not in given:
                section.mistake(key, f"is for a check by {kind}, and this is one by {given[0]}")
    read = {"tcp": _tcp, "http": _http, "command": _command}
    whats = [what(section, directory) for what in read.values()]
    what = next((each for each in whats if each is not None), None)
    if len(given) != 1:
        section.mistake("", f"expected one of tcp, http and command, got {' and '.join(given) or 'none of them'}")
    settings = _settings(section, what)
    section.end()
    return settings


def _settings(section: Section, what: TCPSettings | HTTPSettings | CommandSettings | None) -> CheckSettings:
    default = CheckSettings(what=what or TCPSettings(""))
    in_a_row = "a whole number"
    return msgspec.structs.replace(
        default,
        interval=time_of(section, "interval", default.interval),
        timeout=time_of(section, "timeout", default.timeout),
        rise=section.whole("rise", default.rise, least=1, most=_MOST_IN_A_ROW, expected=in_a_row),
        fall=section.whole("fall", default.fall, least=1, most=_MOST_IN_A_ROW, expected=in_a_row),
        deregister_after=time_of(section, "deregister_after", 0.0, least=0) or None,
        initial=section.parsed("initial", _initial, default.initial),
        show_status=section.flag("show_status", default=default.show_status),
    )


def _initial(text: str) -> Status:
    if text not in _INITIAL:
        msg = f"expected {' or '.join(_INITIAL)}, got {text!r}"
        raise InvalidSettings(msg)
    return _INITIAL[text]


# --- the kinds of checks --------------------------------------------------------------------------------------------


def _tcp(section: Section, _directory: Path) -> TCPSettings | None:
    return section.parsed("tcp", _address, None)


def _address(text: str) -> TCPSettings:
    split_address(text)
    return TCPSettings(text)


def _http(section: Section, directory: Path) -> HTTPSettings | None:
    url = section.parsed("http", checked_url, None)
    settings = HTTPSettings(
        url=url or "http://localhost/",
        method=section.parsed("method", checked_method, "GET"),
        expected=_expected(section),
        headers=_headers(section),
        contains=section.text("contains", ""),
        redirects=section.whole("redirects", 0, least=0, most=_MOST_REDIRECTS, expected="a whole number"),
        tls=_tls(section, directory, secure=url is None or url.startswith("https:")),
    )
    return None if url is None else settings


def _expected(section: Section) -> tuple[range, ...]:
    value = section.given("expect")
    if value is None:
        return SUCCESS
    found = []
    for each in [value] if value.items is None else value.items:
        status = _STATUS_RANGE(str(each.content)) if isinstance(each.content, str | int) else None
        expected = None if status is None else range(int(status[1]), int(status[2] or status[1]) + 1)
        if expected:
            found.append(expected)
        elif not each.broken:
            section.wrong(each, "a status such as 200, or a range such as 200-299")
    if value.items == []:
        section.mistake("expect", "the list is empty; give at least one status, such as 200")
    return checked_statuses(found) if found else SUCCESS


def _headers(section: Section) -> dict[str, str]:
    headers = section.text_map("headers", secret=True)
    try:
        return checked_headers(headers)
    except InvalidSettings as error:
        section.mistake("headers", str(error))
        return {}


def _tls(section: Section, directory: Path, *, secure: bool) -> TLSSettings:
    ca_file = section.file("ca_file", directory)
    insecure = section.flag("insecure", default=False)
    settings = TLSSettings(ca_file=None if ca_file is None else str(ca_file), insecure=insecure)
    if settings == TLSSettings():
        return settings
    if not secure:
        section.mistake("insecure" if insecure else "ca_file", "is given, and the URL does not begin with https://")
    elif insecure and ca_file is not None:
        section.mistake("insecure", "is true, and ca_file is given as well: with the one the other has no effect")
    try:
        TLSTrust(settings)
    except InvalidSettings as error:
        section.mistake("ca_file", str(error))
    return settings


def _command(section: Section, directory: Path) -> CommandSettings | None:
    value = section.given("command")
    cwd = section.file("cwd", directory)
    if value is None:
        return None
    # What stands there may be secret, and is not shown.
    items = value.items
    if items is None:
        section.mistake("command", "expected a list, the program and its arguments: [/usr/bin/check, --fast]")
        return None
    for each in items:
        if not each.broken and not isinstance(each.content, str):
            section.mistakes.add(each.line, each.path, "expected text (put it in quotes)")
    program, *arguments = [each.content for each in items if isinstance(each.content, str)] or [""]
    if not program:
        section.mistake("command", "expected the program first: [/usr/bin/check, --fast]")
        return None
    return CommandSettings(program=_path(program, directory), arguments=tuple(arguments), cwd=cwd)


def _path(program: str, directory: Path) -> str:
    """A name is looked for on ``PATH``, a path begins where the file is."""
    return str(directory / program) if "/" in program else program


# --- what becomes of them -------------------------------------------------------------------------------------------


def make_healths(reactor: CheckReactor, checks: Iterable[CheckSettings]) -> tuple[Health, ...]:
    """The health of a registration, for its monitor; none where there are no checks."""
    return tuple(
        Health(
            [_make_check(reactor, each.what)],
            interval=each.interval,
            timeout=each.timeout,
            rise=each.rise,
            fall=each.fall,
            deregister_after=each.deregister_after,
            initial=each.initial,
            show_status=each.show_status,
        )
        for each in checks
    )


def _make_check(reactor: CheckReactor, what: TCPSettings | HTTPSettings | CommandSettings) -> Check:
    if isinstance(what, TCPSettings):
        return TCPCheck(reactor, *split_address(what.address))
    if isinstance(what, CommandSettings):
        cwd = None if what.cwd is None else os.fspath(what.cwd)
        return CommandCheck(reactor, [what.program, *what.arguments], cwd=cwd)
    return HTTPCheck(
        reactor,
        what.url,
        method=what.method,
        expected=what.expected,
        headers=what.headers,
        contains=what.contains,
        redirects=what.redirects,
        tls=what.tls,
    )


def describe_checks(checks: Iterable[CheckSettings]) -> Iterator[str]:
    """Plain lines for people, with the defaults filled in and without secrets."""
    for each in checks:
        yield f"checked by {each.what}"
        times = f"every {each.interval * 1000:.0f} ms, within {each.timeout * 1000:.0f} ms"
        counts = f"critical after {each.fall} in a row that failed, passing again after {each.rise} that did not"
        yield f"  {times}; {counts}"
        begins = "registered once it has passed" if each.initial is Status.CRITICAL else "registered at once"
        hope = "" if each.deregister_after is None else f", for good after {each.deregister_after * 1000:.0f} ms"
        shown = "; its status is shown" if each.show_status else ""
        yield f"  {begins}, taken out while critical{hope}{shown}"
