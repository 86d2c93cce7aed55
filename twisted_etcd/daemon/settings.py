"""
The settings of the daemon: what its YAML file says.

Every key may be left out; so may the file. Times are in milliseconds in the file, as their names or comments say, and
in seconds in here. Relative paths begin at the directory of the file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from twisted_etcd.config.configuration import CONFIG_PREFIX, checked_key
from twisted_etcd.daemon.document import Mistakes, read_document
from twisted_etcd.daemon.section import Section
from twisted_etcd.discreet import Discreet
from twisted_etcd.errors import InvalidSettings
from twisted_etcd.gateway.endpoints import Endpoint, parse_endpoints
from twisted_etcd.gateway.tls import TLSSettings, TLSTrust
from twisted_etcd.registry.instance import split_address
from twisted_etcd.registry.registry import SERVICE_PREFIX, checked_name

DEFAULT_ENDPOINT = "http://127.0.0.1:2379"
#: A day: a longer time in milliseconds is a time in another unit.
_LONGEST_TIME = 24 * 60 * 60 * 1000
#: etcd's own limit.
_LONGEST_TTL = 9_000_000_000


class AuthSettings(Discreet, frozen=True):
    """Who the daemon is to etcd. Its ``repr`` is without the password."""

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


class NodeSettings(msgspec.Struct, frozen=True):
    """
    The node whose services answer messages.

    :ivar default_call_timeout: seconds; more than a request to etcd may take, so that a call fails with etcd's reason
        and not with its own time.
    """

    name: str = "etcdservice"
    default_call_timeout: float = 10.0


class RegisterSettings(Discreet, frozen=True, kw_only=True):
    """
    A service to keep registered while the daemon runs. Its ``repr`` names the metadata, and shows none of it.

    :ivar address: ``host:port``.
    :ivar ttl: seconds.
    """

    secret_fields: ClassVar[frozenset[str]] = frozenset({"metadata"})

    name: str
    address: str
    ttl: int = 10
    tags: tuple[str, ...] = ()
    metadata: dict[str, str] = msgspec.field(default_factory=dict)


class HostSettings(Discreet, frozen=True, kw_only=True):
    """
    A service of somebody's own to host. Its ``repr`` is without the values of its settings.

    :ivar path: of its class, ``package.module.Class`` or ``package.module:Class``.
    :ivar name: that it has in the node; its class's own where None.
    :ivar settings: what it is given, as plain values.
    :ivar file: that it stands in.
    :ivar key: of the entry in the file, ``services[0]``.
    :ivar lines: of the values in the file, by their path.
    """

    secret_fields: ClassVar[frozenset[str]] = frozenset({"settings"})

    path: str
    name: str | None = None
    settings: dict[str, Any] = msgspec.field(default_factory=dict)
    file: str = ""
    key: str = ""
    lines: dict[str, int] = msgspec.field(default_factory=dict)


class EmbeddedSettings(msgspec.Struct, frozen=True, kw_only=True):
    """
    The daemon's own etcd.

    :ivar enabled: whether there is one; it is used in place of ``etcd.endpoints``.
    :ivar binary: the etcd program, a path or a name on ``PATH``; found by itself where None.
    :ivar data_dir: kept; a temporary one that goes at the end where None.
    :ivar extra_args: further arguments of etcd.
    """

    enabled: bool = False
    binary: str | None = None
    data_dir: Path | None = None
    extra_args: tuple[str, ...] = ()


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """
    All that the daemon can be told.

    :ivar watch: configuration keys to follow, under ``etcd.config_prefix``.
    """

    etcd: EtcdSettings = EtcdSettings()
    node: NodeSettings = NodeSettings()
    register: tuple[RegisterSettings, ...] = ()
    watch: tuple[str, ...] = ()
    services: tuple[HostSettings, ...] = ()
    embedded: EmbeddedSettings = EmbeddedSettings()

    def with_endpoints(self, endpoints: str) -> Settings:
        """
        These settings with other endpoints: one, or several with commas between them.

        :raises InvalidSettings: where one is wrong.
        """
        scheme = "https" if self.etcd.tls != TLSSettings() else "http"
        etcd = msgspec.structs.replace(self.etcd, endpoints=parse_endpoints(endpoints, default_scheme=scheme))
        return msgspec.structs.replace(self, etcd=etcd)

    def with_embedded(self, *, binary: str | None = None, data_dir: Path | None = None) -> Settings:
        """These settings with an etcd of the daemon's own; what is None stays as it is."""
        embedded = msgspec.structs.replace(
            self.embedded,
            enabled=True,
            binary=binary or self.embedded.binary,
            data_dir=data_dir or self.embedded.data_dir,
        )
        return msgspec.structs.replace(self, embedded=embedded)


def load(path: str | Path | None, environ: Mapping[str, str]) -> Settings:
    """
    Read a settings file.

    :param path: None for the defaults.
    :param environ: fills in ``${NAME}``.
    :raises InvalidSettings: with a line for each mistake: ``FILE:LINE: path.of.key: what is wrong``.
    """
    if path is None:
        return Settings()
    mistakes = Mistakes(str(path))
    root = Section(read_document(Path(path), environ, mistakes), "", mistakes)
    directory = Path(path).absolute().parent
    settings = Settings(
        etcd=_etcd(root.section("etcd"), directory),
        node=_node(root.section("node")),
        register=_register(root),
        watch=_watch(root),
        services=_services(root, mistakes.file),
        embedded=_embedded(root.section("embedded"), directory),
    )
    root.end()
    mistakes.raise_if_any()
    return settings


def _etcd(section: Section, directory: Path) -> EtcdSettings:
    default = EtcdSettings()
    tls_given = section.is_given("tls")
    settings = EtcdSettings(
        endpoints=_endpoints(section, tls_given=tls_given),
        connect_timeout=_time(section, "connect_timeout", default.connect_timeout),
        request_timeout=_time(section, "request_timeout", default.request_timeout),
        batch=section.flag("batch", default=default.batch),
        auto_sync_interval=_time(section, "auto_sync_interval", default.auto_sync_interval, least=0),
        heartbeat_check_interval=_time(section, "heartbeat_check_interval_ms", default.heartbeat_check_interval),
        auth=_auth(section.section("auth", secret=True), directory),
        tls=_tls(section, section.section("tls"), directory),
        config_prefix=section.parsed("config_prefix", _prefix, default.config_prefix),
        service_prefix=section.parsed("service_prefix", _prefix, default.service_prefix),
    )
    section.end()
    if settings.config_prefix == settings.service_prefix:
        section.mistake("service_prefix", "is the same as config_prefix; their keys would be mixed up")
    return settings


def _time(section: Section, key: str, default: float, *, least: int = 1) -> float:
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


def _prefix(text: str) -> str:
    prefix = text.rstrip("/")
    if not prefix:
        msg = f"expected a prefix such as /config, got {text!r}"
        raise InvalidSettings(msg)
    return prefix


def _node(section: Section) -> NodeSettings:
    default = NodeSettings()
    settings = NodeSettings(
        name=section.text("name", default.name),
        default_call_timeout=_time(section, "default_call_timeout", default.default_call_timeout),
    )
    section.end()
    return settings


def _register(root: Section) -> tuple[RegisterSettings, ...]:
    found: list[RegisterSettings] = []
    for section in root.sections("register"):
        entry = RegisterSettings(
            name=_required(section, "name", checked_name),
            address=_required(section, "address", _address),
            ttl=section.whole("ttl", 10, least=1, most=_LONGEST_TTL, expected="a whole number of seconds"),
            tags=section.texts("tags"),
            metadata=section.text_map("metadata"),
        )
        section.end()
        if entry.name and any((entry.name, entry.address) == (each.name, each.address) for each in found):
            section.mistake("", f"{entry.name} at {entry.address} stands twice")
        found.append(entry)
    return tuple(found)


def _required(section: Section, key: str, parse: Callable[[str], str]) -> str:
    if not section.is_given(key):
        section.mistake(key, "is missing")
    return section.parsed(key, parse, "")


def _address(text: str) -> str:
    split_address(text)
    return text


def _config_key(text: str) -> str:
    checked_key(text)
    return text


def _watch(root: Section) -> tuple[str, ...]:
    keys = root.parsed_texts("watch", _config_key)
    for key in sorted({key for key in keys if keys.count(key) > 1}):
        root.mistake("watch", f"{key} stands twice")
    return keys


def _services(root: Section, file: str) -> tuple[HostSettings, ...]:
    found: list[HostSettings] = []
    for section in root.sections("services"):
        path = _required(section, "class", _class_path)
        name = section.text("name", None)
        settings = section.given("settings")
        if settings is not None and settings.mapping is None:
            section.wrong(settings, "a mapping")
            settings = None
        section.end()
        if name is not None and any(name == each.name for each in found):
            section.mistake("name", f"{name} stands twice; services of a node have different names")
        plain: Any = {} if settings is None else settings.plain()
        lines = {section.path: section.line} | ({} if settings is None else settings.lines())
        found.append(HostSettings(path=path, name=name, settings=plain, file=file, key=section.path, lines=lines))
    return tuple(found)


def _class_path(text: str) -> str:
    module, separator, name = text.partition(":") if ":" in text else text.rpartition(".")
    if not separator or not all(part.isidentifier() for part in [*module.split("."), *name.split(".")]):
        msg = f"expected a class such as package.module.Class, got {text!r}"
        raise InvalidSettings(msg)
    return text


def _embedded(section: Section, directory: Path) -> EmbeddedSettings:
    binary = section.text("binary", None)
    settings = EmbeddedSettings(
        enabled=section.flag("enabled", default=False),
        # a name is looked for on PATH, a path begins where the file is
        binary=str(directory / binary) if binary is not None and "/" in binary else binary,
        data_dir=section.file("data_dir", directory),
        extra_args=section.texts("extra_args"),
    )
    section.end()
    return settings
