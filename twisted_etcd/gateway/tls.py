"""TLS towards etcd: which servers are believed, and which certificate is shown to them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
from OpenSSL import SSL, crypto
from service_identity import VerificationError
from twisted.internet import ssl
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.error import VerifyError
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer

from twisted_etcd.errors import InvalidSettings

#: What goes wrong in TLS itself.
TLS_ERRORS = (SSL.Error, VerificationError)
_PEM_CERTIFICATE = re.compile(
    rb"-----BEGIN (?:TRUSTED |X509 )?CERTIFICATE-----.*?-----END (?:TRUSTED |X509 )?CERTIFICATE-----", re.DOTALL
)


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


def _certificates(path: str, what: str) -> list[ssl.Certificate]:
    pem = _read(path, what)
    blocks = _PEM_CERTIFICATE.findall(pem)
    if not blocks:
        msg = f"{what} {path!r} holds no certificate in PEM form"
        raise InvalidSettings(msg)
    try:
        return [ssl.Certificate.loadPEM(block) for block in blocks]
    except (crypto.Error, ValueError) as error:
        msg = f"{what} {path!r} holds a certificate that cannot be read{_details(error)}"
        raise InvalidSettings(msg) from error


def _key(path: str) -> ssl.KeyPair:
    pem = _read(path, "key_file")
    # OpenSSL would ask for the passphrase at the terminal.
    if b"ENCRYPTED" in pem:
        msg = f"key_file {path!r} is encrypted; give a key without a passphrase, readable by its owner only"
        raise InvalidSettings(msg)
    try:
        return ssl.KeyPair.load(pem, crypto.FILETYPE_PEM)
    except (crypto.Error, ValueError) as error:
        msg = f"key_file {path!r} holds no private key in PEM form that can be read{_details(error)}"
        raise InvalidSettings(msg) from error


def _details(error: Exception) -> str:
    words = tls_words(error)
    return f": {words}" if words else ""


def tls_words(error: Exception) -> str:
    """OpenSSL's own words for an error; empty where it has none."""
    try:
        return "; ".join(str(part[-1]) for part in error.args[0])
    except (IndexError, TypeError):
        return ""


def tls_obstacle(error: Exception) -> str | None:
    """
    Why TLS cannot come about with the certificates or the scheme as they are, and what to do.

    None for errors that may pass, or that come when a request may have been read.
    """
    if isinstance(error, VerificationError):
        return (
            "the server's certificate is for another host; connect by a name that it has, or issue one with this name"
        )
    words = tls_words(error)
    if "certificate verify failed" in words:
        return f"the server's certificate is not trusted ({words}); give the authority that signed it as ca_file"
    # With TLS 1.3 this comes when the handshake has already ended on this side.
    if "alert" in words and any(part in words for part in ("certificate", "unknown ca")):
        return f"the server wants another client certificate ({words}); give or mend cert_file and key_file"
    if any(part in words for part in ("wrong version number", "packet length too long", "http request")):
        return f"the server does not speak TLS ({words}); write the endpoint with http://"
    if any(part in words for part in ("handshake failure", "protocol version", "unsupported protocol")):
        return f"the server and the client have no version or cipher of TLS in common ({words})"
    return None


@implementer(IOpenSSLClientConnectionCreator)
class _UnverifiedConnections:
    """Connections that believe every server, still naming the host that is meant (SNI)."""

    def __init__(self, context: SSL.Context, host: str) -> None:
        self._context = context
        self._host = host

    def clientConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:  # noqa: N803
        connection = SSL.Connection(self._context, None)
        connection.set_app_data(tlsProtocol)
        if not isIPAddress(self._host) and not isIPv6Address(self._host):
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
        self._options = self._client_options(settings)
        self._trust = (
            ssl.platformTrust()
            if settings.ca_file is None
            else ssl.trustRootFromCertificates(_certificates(settings.ca_file, "ca_file"))
        )
        try:
            # A connection for which this fails would neither come about nor fail.
            ssl.CertificateOptions(trustRoot=self._trust, **self._options).getContext()
        except SSL.Error as error:
            msg = f"OpenSSL does not take the certificates or the key of the TLS settings{_details(error)}"
            raise InvalidSettings(msg) from error

    @staticmethod
    def _client_options(settings: TLSSettings) -> dict[str, Any]:
        if settings.cert_file is None or settings.key_file is None:
            return {}
        own, *chain = _certificates(settings.cert_file, "cert_file")
        key = _key(settings.key_file)
        try:
            ssl.PrivateCertificate.fromCertificateAndKeyPair(own, key)
        except VerifyError as error:
            msg = f"key_file {settings.key_file!r} is not the key of the first certificate in {settings.cert_file!r}"
            raise InvalidSettings(msg) from error
        return {
            # As cryptography's objects: pyOpenSSL is giving up its own.
            "certificate": own.original.to_cryptography(),
            "privateKey": key.original.to_cryptography_key(),
            "extraCertChain": [certificate.original.to_cryptography() for certificate in chain],
        }

    def connections_to(self, host: str) -> IOpenSSLClientConnectionCreator:
        """What makes TLS connections that expect this host to be at the other end."""
        if self._insecure:
            return _UnverifiedConnections(ssl.CertificateOptions(**self._options).getContext(), host)
        creator: IOpenSSLClientConnectionCreator = ssl.optionsForClientTLS(
            host, trustRoot=self._trust, extraCertificateOptions=dict(self._options)
        )
        return creator
