"""Certificates for tests, made on the spot."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, cast

import msgspec
import trustme
from treq.client import HTTPClient
from twisted.internet import reactor

from twisted_etcd.gateway.agent import PooledAgent
from twisted_etcd.gateway.connections import Connections
from twisted_etcd.gateway.tls import TLSSettings, TLSTrust


class Papers:
    """
    Writes certificates and keys of one authority into files.

    :ivar authority: who signs.
    :ivar ca_file: the authority's own certificate.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.authority = trustme.CA()
        self.ca_file = str(directory / "ca.pem")
        self.publish()
        self._directory = directory

    def publish(self) -> None:
        """Write the authority's certificate into its file."""
        self.authority.cert_pem.write_to_path(self.ca_file)

    def pair(
        self,
        name: str,
        *identities: str,
        common_name: str | None = None,
        expired: bool = False,
        not_yet: bool = False,
        through: trustme.CA | None = None,
    ) -> tuple[str, str]:
        """
        A certificate with its key, for these host names; the files of both, which are written anew if they are there.

        :param expired: it was valid until yesterday.
        :param not_yet: it is valid from tomorrow on.
        :param through: an intermediate authority, which goes into the file behind the certificate.
        """
        now = datetime.now(timezone.utc)
        leaf = (through or self.authority).issue_cert(
            *identities,
            common_name=common_name,
            not_before=now + timedelta(days=1 if not_yet else -9),
            not_after=now + timedelta(days=-1 if expired else 2),
        )
        cert_file, key_file = self._directory / f"{name}.pem", self._directory / f"{name}.key"
        leaf.private_key_pem.write_to_path(key_file)
        cert_file.write_bytes(b"".join(pem.bytes() for pem in leaf.cert_chain_pems))
        return str(cert_file), str(key_file)

    def settings(self, pair: tuple[str, str] | None = None, **options: str | bool | None) -> TLSSettings:
        """What a client says that believes this authority and shows a pair of its own."""
        cert_file, key_file = pair or (None, None)
        given = {"ca_file": self.ca_file, "cert_file": cert_file, "key_file": key_file, **options}
        return msgspec.convert(given, TLSSettings)


def probing(settings: TLSSettings) -> HTTPClient:
    """What an etcd that asks for client certificates is asked with whether it is there."""
    agent = PooledAgent(Connections(cast("Any", reactor), TLSTrust(settings), 5.0).to, cast("Any", reactor), keep=0)
    return HTTPClient(cast("Any", agent))
