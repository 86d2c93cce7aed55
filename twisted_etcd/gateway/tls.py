"""TLS towards etcd: which servers are believed, and which certificate is shown to them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
from OpenSSL import SSL, crypto
from twisted.internet import ssl
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer

from twisted_etcd.errors import InvalidSettings


class TLSSettings(msgspec.Struct, frozen=True, kw_only=True):
    """
    How to speak TLS with etcd. Without any of it the system's certificate authorities are believed.

    :ivar ca_file: PEM file of the authorities to believe instead of the system's.
    :ivar cert_file: PEM file of the client's certificate, with its chain.
    :ivar key_file: PEM file of the client's private key.
    :ivar insecure: believe every server. For tests: anyone on the way can read and change everything.
    """

    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    insecure: bool = False


def _read(path: str, what: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        msg = f"{what} {path!r} cannot be read: {error.strerror or error}"
        raise InvalidSettings(msg) from error


def _authorities(path: str) -> Any:
    pem = _read(path, "ca_file")
    end = b"-----END CERTIFICATE-----"
    blocks = [part + end for part in pem.split(end)[:-1]]
    if not blocks:
        msg = f"ca_file {path!r} holds no certificate in PEM form"
        raise InvalidSettings(msg)
    try:
        certificates = [ssl.Certificate.loadPEM(block) for block in blocks]
    except (SSL.Error, ValueError) as error:
        msg = f"ca_file {path!r} holds a certificate that cannot be read: {error}"
        raise InvalidSettings(msg) from error
    return ssl.trustRootFromCertificates(certificates)


@implementer(IOpenSSLClientConnectionCreator)
class _UnverifiedConnections:
    """Connections that believe every server, still naming the host that is meant (SNI)."""

    def __init__(self, context: SSL.Context, host: str) -> None:
        self._context = context
        self._host = host

    def clientConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:  # noqa: N802, N803
        connection = SSL.Connection(self._context, None)
        connection.set_app_data(tlsProtocol)
        connection.set_tlsext_host_name(self._host.encode("idna"))
        return connection


class TLSTrust:
    """
    Makes the TLS side of connections to etcd from :class:`TLSSettings`.

    :raises InvalidSettings: where a file cannot be read or does not hold what it should.
    """

    def __init__(self, settings: TLSSettings) -> None:
        if (settings.cert_file is None) != (settings.key_file is None):
            msg = "cert_file and key_file belong together: give both or neither"
            raise InvalidSettings(msg)
        self._insecure = settings.insecure
        self._client = self._client_options(settings)
        self._trust = ssl.platformTrust() if settings.ca_file is None else _authorities(settings.ca_file)

    @staticmethod
    def _client_options(settings: TLSSettings) -> ssl.PrivateCertificate | None:
        if settings.cert_file is None or settings.key_file is None:
            return None
        certificate = _read(settings.cert_file, "cert_file")
        key = _read(settings.key_file, "key_file")
        try:
            # The file may go on with the chain; only its first certificate is the client's own.
            pair: ssl.PrivateCertificate = ssl.PrivateCertificate.fromCertificateAndKeyPair(
                ssl.Certificate.loadPEM(certificate), ssl.KeyPair.load(key, crypto.FILETYPE_PEM)
            )
        except (SSL.Error, ValueError) as error:
            msg = f"cert_file {settings.cert_file!r} and key_file {settings.key_file!r} are no usable pair: {error}"
            raise InvalidSettings(msg) from error
        return pair

    def connections_to(self, host: str) -> IOpenSSLClientConnectionCreator:
        """What makes TLS connections that expect this host to be at the other end."""
        if self._insecure:
            options = self._client.options() if self._client else ssl.CertificateOptions()
            return _UnverifiedConnections(options.getContext(), host)
        creator: IOpenSSLClientConnectionCreator = ssl.optionsForClientTLS(
            host, trustRoot=self._trust, clientCertificate=self._client
        )
        return creator
