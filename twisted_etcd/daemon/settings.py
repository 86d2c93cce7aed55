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

from twisted_etcd.config.paths import checked_key
from twisted_etcd.daemon.health_settings import CheckSettings, check_settings
from twisted_etcd.daemon.render_settings import render_settings
from twisted_etcd.discreet import Discreet
from twisted_etcd.errors import InvalidSettings
from twisted_etcd.gateway.endpoints import parse_endpoints
from twisted_etcd.gateway.tls import TLSSettings
from twisted_etcd.registry.instance import InstanceFormat, split_address
from twisted_etcd.registry.registry import checked_form, checked_name
from twisted_etcd.rendering.entry import RenderEntry
from twisted_etcd.settings.document import Mistakes, read_document
from twisted_etcd.settings.etcd import EtcdSettings, etcd_settings, time_of
from twisted_etcd.settings.section import Section

#: etcd's own limit.
_LONGEST_TTL = 9_000_000_000
#: More than anybody needs, and little enough to be added up.
_HIGHEST_WEIGHT = 1_000_000


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
    :ivar drain: seconds between the removal of its key and the daemon's stop.
    :ivar weight: its share of the calls.
    :ivar id: what tells it from the others; the address where it is empty.
    :ivar format: how it is written in etcd.
    :ivar own_lease: with a lease of its own.
    :ivar checks: what decides whether it is in etcd; without any it always is.
    """

    secret_fields: ClassVar[frozenset[str]] = frozenset({"metadata"})

    name: str
    address: str
    ttl: int = 10
    tags: tuple[str, ...] = ()
    metadata: dict[str, str] = msgspec.field(default_factory=dict)
    drain: float = 0.0
    weight: int = 1
    id: str = ""
    format: InstanceFormat = InstanceFormat.JSON
    own_lease: bool = False
    checks: tuple[CheckSettings, ...] = ()


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
    :ivar render: files to render from templates.
    """

    etcd: EtcdSettings = EtcdSettings()
    node: NodeSettings = NodeSettings()
    register: tuple[RegisterSettings, ...] = ()
    watch: tuple[str, ...] = ()
    services: tuple[HostSettings, ...] = ()
    embedded: EmbeddedSettings = EmbeddedSettings()
    render: tuple[RenderEntry, ...] = ()

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
        etcd=etcd_settings(root.section("etcd"), directory),
        node=_node(root.section("node")),
        register=_register(root, directory),
        watch=_watch(root),
        services=_services(root, mistakes.file),
        embedded=_embedded(root.section("embedded"), directory),
        render=render_settings(root, directory),
    )
    root.end()
    mistakes.raise_if_any()
    return settings


def _node(section: Section) -> NodeSettings:
    default = NodeSettings()
    settings = NodeSettings(
        name=section.text("name", default.name),
        default_call_timeout=time_of(section, "default_call_timeout", default.default_call_timeout),
    )
    section.end()
    return settings


def _register(root: Section, directory: Path) -> tuple[RegisterSettings, ...]:
    found: list[RegisterSettings] = []
    for section in root.sections("register"):
        entry = RegisterSettings(
            name=_required(section, "name", checked_name),
            address=_required(section, "address", _address),
            ttl=section.whole("ttl", 10, least=1, most=_LONGEST_TTL, expected="a whole number of seconds"),
            tags=section.texts("tags"),
            metadata=section.text_map("metadata"),
            drain=time_of(section, "drain", 0.0, least=0),
            weight=section.whole("weight", 1, least=0, most=_HIGHEST_WEIGHT, expected="a whole number"),
            id=section.text("id", ""),
            format=section.parsed("format", checked_form, InstanceFormat.JSON),
            own_lease=section.flag("own_lease", default=False),
            checks=check_settings(section, directory),
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
