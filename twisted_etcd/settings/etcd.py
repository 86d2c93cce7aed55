"""
What a settings file says of etcd: its section ``etcd``.

Times are in milliseconds in the file, as their names or comments say, and in seconds in here. Relative paths begin at
the directory of the file.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import msgspec

from twisted_etcd.client.client import EtcdClient
from twisted_etcd.config.paths import CONFIG_PREFIX
from twisted_etcd.discreet import Discreet
from twisted_etcd.errors import InvalidSettings
from twisted_etcd.gateway.endpoints import Endpoint, parse_endpoints
from twisted_etcd.gateway.gateway import IGatewayReactor
from twisted_etcd.gateway.tls import TLSSettings, TLSTrust
from twisted_etcd.registry.protection import Protection
from twisted_etcd.registry.registry import SERVICE_PREFIX
from twisted_etcd.settings.section import Section

DEFAULT_ENDPOINT = "http://127.0.0.1:2379"
#: A day: a longer time in milliseconds is a time in another unit.
_LONGEST_TIME = 24 * 60 * 60 * 1000


class AuthSettings(Discreet, frozen=True):
    """Who we are to etcd. Its ``repr`` is without the password."""

    secret_fields: ClassVar[frozenset[str]] = frozenset({"password"})

    username: str
    password: str


class EtcdSettings(msgspec.Struct, frozen=True, kw_only=True):
    """
    Where etcd is and how to speak with it.

    :ivar endpoints: at least one.
    :ivar connect_timeout: seconds.
    :ivar request_timeout: seconds.
    :ivar batch: whether gets and puts that come while others are under way travel together.
    :ivar auto_sync_interval: seconds between two looks at etcd's list of members, whose addresses become the endpoints;
        0 for none.
    :ivar heartbeat_check_interval: seconds between two looks at the registrations.
    :ivar config_prefix: what configuration keys are under, without a slash at its end.
    :ivar service_prefix: what registrations are under, likewise.
    :ivar protection: what is held back where many instances of a service vanish at once; nothing where None.
    """

    endpoints: tuple[Endpoint, ...] = parse_endpoints(DEFAULT_ENDPOINT)
    connect_timeout: float = 3.0
    request_timeout: float = 5.0
    batch: bool = True
    auto_sync_interval: float = 0.0
    heartbeat_check_interval: float = 30.0
    auth: AuthSettings | None = None
    tls: TLSSettings = TLSSettings()
    config_prefix: str = CONFIG_PREFIX
    service_prefix: str = SERVICE_PREFIX
    protection: Protection | None = None


def etcd_settings(section: Section, directory: Path) -> EtcdSettings:
    """What the section ``etcd`` says; its mistakes are noted with it."""
    default = EtcdSettings()
    tls_given = section.is_given("tls")
    settings = EtcdSettings(
        endpoints=_endpoints(section, tls_given=tls_given),
        connect_timeout=time_of(section, "connect_timeout", default.connect_timeout),
        request_timeout=time_of(section, "request_timeout", default.request_timeout),
        batch=section.flag("batch", default=default.batch),
        auto_sync_interval=time_of(section, "auto_sync_interval", default.auto_sync_interval, least=0),
        heartbeat_check_interval=time_of(section, "heartbeat_check_interval_ms", default.heartbeat_check_interval),
        auth=_auth(section.section("auth", secret=True), directory),
        tls=_tls(section, section.section("tls"), directory),
        config_prefix=section.parsed("config_prefix", checked_prefix, default.config_prefix),
        service_prefix=section.parsed("service_prefix", checked_prefix, default.service_prefix),
        protection=_protection(section),
    )
    section.end()
    if settings.config_prefix == settings.service_prefix:
        section.mistake("service_prefix", "is the same as config_prefix; their keys would be mixed up")
    return settings


def _protection(etcd: Section) -> Protection | None:
    default = Protection()
    section = etcd.section("protection")
    share = section.whole("share", int(default.share * 100), least=0, most=100, expected="a whole number of percent")
    protection = Protection(
        share=share / 100,
        window=time_of(section, "window", default.window),
        hold=time_of(section, "hold", default.hold),
    )
    section.end()
    return protection if etcd.is_given("protection") else None


def time_of(section: Section, key: str, default: float, *, least: int = 1) -> float:
    """A time in milliseconds, in seconds."""
    expected = "a whole number of milliseconds"
    return section.whole(key, int(default * 1000), least=least, most=_LONGEST_TIME, expected=expected) / 1000


def _endpoints(section: Section, *, tls_given: bool) -> tuple[Endpoint, ...]:
    scheme = "https" if tls_given else "http"
    found: tuple[Endpoint, ...] = ()
    value = section.given("endpoints")
    if value is None:
        return parse_endpoints(DEFAULT_ENDPOINT.rpartition("/")[2], default_scheme=scheme)
    for each in value.items if value.items is not None else [value]:
        if each.broken:
            continue
        if not isinstance(each.content, str):
            section.wrong(each, "an endpoint such as http://127.0.0.1:2379, or a list of them")
            continue
        try:
            found += _parse_endpoints(each.content, scheme)
        except InvalidSettings as error:
            section.mistakes.add(each.line, each.path, str(error))
    if value.items == []:
        section.mistake("endpoints", "the list is empty; write for example http://127.0.0.1:2379")
    if tls_given and found and not any(endpoint.secure for endpoint in found):
        section.mistake("tls", "is given, and no endpoint begins with https://")
    return tuple(dict.fromkeys(found))


def _parse_endpoints(text: str, scheme: str) -> tuple[Endpoint, ...]:
    if "@" in text:
        msg = "an endpoint has a user or password in it; they belong in etcd.auth"
        raise InvalidSettings(msg)
    return parse_endpoints(text, default_scheme=scheme)


def _auth(section: Section, directory: Path) -> AuthSettings | None:
    username = section.text("username", "")
    password = section.text("password", "")
    file = section.file("password_file", directory)
    section.end()
    has_username = section.is_given("username")
    has_password = section.is_given("password") or section.is_given("password_file")
    if section.is_given("password") and section.is_given("password_file"):
        section.mistake("password_file", "is given, and password as well: one of them")
    elif file is not None:
        password = _password(section, file)
    if has_username and not has_password:
        section.mistake("username", "is given without a password; write password or password_file")
    if has_password and not has_username:
        section.mistake("", "a password is given without a username")
    return AuthSettings(username, password) if username and password else None


def _password(section: Section, file: Path) -> str:
    try:
        text = file.read_text("utf-8")
    except OSError as error:
        section.mistake("password_file", f"{str(file)!r} cannot be read: {error.strerror}")
        return ""
    except UnicodeDecodeError:
        section.mistake("password_file", f"{str(file)!r} is not text in UTF-8")
        return ""
    password = text.removesuffix("\n").removesuffix("\r")
    if not password:
        section.mistake("password_file", f"{str(file)!r} is empty")
    return password


def _tls(etcd: Section, section: Section, directory: Path) -> TLSSettings:
    ca_file, cert_file, key_file = (section.file(key, directory) for key in ("ca_file", "cert_file", "key_file"))
    insecure = section.flag("insecure", default=False)
    section.end()
    for given, missing in (("cert_file", "key_file"), ("key_file", "cert_file")):
        if section.is_given(given) and not section.is_given(missing):
            section.mistake(given, f"is given without {missing}; they belong together")
            return TLSSettings()
    settings = TLSSettings(
        ca_file=None if ca_file is None else str(ca_file),
        cert_file=None if cert_file is None else str(cert_file),
        key_file=None if key_file is None else str(key_file),
        insecure=insecure,
    )
    if insecure and ca_file is not None:
        section.mistake("insecure", "is true, and ca_file is given as well: with the one the other has no effect")
    if (cert_file is None) == (key_file is None):
        try:
            TLSTrust(settings)
        except InvalidSettings as error:
            etcd.mistake("tls", str(error))
    return settings


def checked_prefix(text: str) -> str:
    """
    A prefix of keys as it is written, without a slash at its end.

    :raises InvalidSettings: where there is nothing else.
    """
    prefix = text.rstrip("/")
    if not prefix:
        msg = f"expected a prefix such as /config, got {text!r}"
        raise InvalidSettings(msg)
    return prefix


def make_client(
    reactor: IGatewayReactor, settings: EtcdSettings, endpoints: tuple[str, ...] | None = None
) -> EtcdClient:
    """
    The client that the settings describe; as any client, it is to be stopped.

    :param endpoints: where etcd is, in place of what the settings say.
    """
    return EtcdClient(
        reactor,
        endpoints or tuple(str(endpoint) for endpoint in settings.endpoints),
        username=settings.auth.username if settings.auth else None,
        password=settings.auth.password if settings.auth else None,
        tls=settings.tls,
        connect_timeout=settings.connect_timeout,
        request_timeout=settings.request_timeout,
        batch=settings.batch,
        auto_sync=settings.auto_sync_interval,
    )
