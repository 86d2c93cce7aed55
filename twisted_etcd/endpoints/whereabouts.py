"""
Which etcd an endpoint string means: by its arguments, by a settings file, or by the environment.

The environment is that of ``etcdctl``: ``ETCDCTL_ENDPOINTS``, ``ETCDCTL_CACERT``, ``ETCDCTL_CERT``, ``ETCDCTL_KEY``,
``ETCDCTL_USER``, ``ETCDCTL_PASSWORD``. Where a settings file is named, that says it all, and the environment nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from twisted_etcd.endpoints.arguments import Arguments, refuse
from twisted_etcd.errors import InvalidSettings
from twisted_etcd.gateway.endpoints import parse_endpoints
from twisted_etcd.gateway.tls import TLSSettings, TLSTrust
from twisted_etcd.settings.document import Mistakes, read_document
from twisted_etcd.settings.etcd import AuthSettings, EtcdSettings, checked_prefix, etcd_settings
from twisted_etcd.settings.section import Section


def whereabouts(arguments: Arguments, environ: Mapping[str, str]) -> EtcdSettings:
    """
    Take ``endpoints``, ``config`` and ``prefix``.

    :raises InvalidSettings: where one of them, the file, or a variable of the environment cannot be used.
    """
    file = arguments.text("config")
    settings = _of_environment(environ) if file is None else _of_file(file, environ)
    endpoints = arguments.text("endpoints")
    if endpoints is not None:
        settings = _elsewhere(settings, "endpoints", endpoints)
    elif file is None and environ.get("ETCDCTL_ENDPOINTS"):
        settings = _elsewhere(settings, "ETCDCTL_ENDPOINTS", environ["ETCDCTL_ENDPOINTS"])
    prefix = arguments.parsed("prefix", checked_prefix, settings.service_prefix)
    return msgspec.structs.replace(settings, service_prefix=prefix)


def _elsewhere(settings: EtcdSettings, what: str, endpoints: str) -> EtcdSettings:
    scheme = "https" if settings.tls != TLSSettings() else "http"
    try:
        found = parse_endpoints(endpoints, default_scheme=scheme)
    except InvalidSettings as error:
        refuse(f"{what}: {error}", error)
    return msgspec.structs.replace(settings, endpoints=found)


def _of_file(file: str, environ: Mapping[str, str]) -> EtcdSettings:
    """What the section ``etcd`` says; what else is in the file is for the daemon."""
    mistakes = Mistakes(file)
    path = Path(file)
    try:
        root = Section(read_document(path, environ, mistakes), "", mistakes)
        settings = etcd_settings(root.section("etcd"), path.absolute().parent)
        mistakes.raise_if_any()
    except InvalidSettings as error:
        refuse(f"config: {error}", error)
    return settings


def _of_environment(environ: Mapping[str, str]) -> EtcdSettings:
    ca_file, cert_file, key_file = (environ.get(f"ETCDCTL_{name}") or None for name in ("CACERT", "CERT", "KEY"))
    tls = TLSSettings(ca_file=ca_file, cert_file=cert_file, key_file=key_file)
    try:
        TLSTrust(tls)
    except InvalidSettings as error:
        refuse(f"ETCDCTL_CACERT, ETCDCTL_CERT, ETCDCTL_KEY: {error}", error)
    return EtcdSettings(tls=tls, auth=_auth(environ))


def _auth(environ: Mapping[str, str]) -> AuthSettings | None:
    user, separate = environ.get("ETCDCTL_USER", ""), environ.get("ETCDCTL_PASSWORD", "")
    if not user:
        return None
    name, password = (user, separate) if separate else (user.partition(":")[0], user.partition(":")[2])
    if not name or not password:
        refuse("ETCDCTL_USER has no password; set ETCDCTL_PASSWORD, or write NAME:PASSWORD")
    return AuthSettings(name, password)
