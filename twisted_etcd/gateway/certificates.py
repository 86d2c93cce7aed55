"""The files of certificates and keys: what they hold, and what that means."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, ClassVar

import msgspec
from OpenSSL import SSL, crypto
from twisted.internet import ssl
from twisted.internet.error import VerifyError

from twisted_etcd.discreet import Discreet
from twisted_etcd.errors import InvalidSettings
from twisted_etcd.gateway.tls_errors import tls_words

_PEM_CERTIFICATE = re.compile(
    rb"-----BEGIN (?:TRUSTED |X509 )?CERTIFICATE-----.*?-----END (?:TRUSTED |X509 )?CERTIFICATE-----", re.DOTALL
)


class Certificates(msgspec.Struct, frozen=True, kw_only=True):
    """
    What the files hold.

    :ivar trust: the authorities to believe, of a type that Twisted does not name.
    :ivar options: the client's own certificate, as ``CertificateOptions`` of Twisted takes it; empty without one.
    """

    trust: Any
    options: dict[str, Any]


class Contents(Discreet, frozen=True, kw_only=True):
    """
    What was read from the files: for each its bytes, or why it cannot be read, or None where there is none.

    Equal where nothing has changed.
    """

    secret_fields: ClassVar[frozenset[str]] = frozenset({"ca_file", "cert_file", "key_file"})

    ca_file: bytes | str | None
    cert_file: bytes | str | None
    key_file: bytes | str | None


_NO_FILES = Contents(ca_file=None, cert_file=None, key_file=None)


class CertificateFiles(msgspec.Struct, frozen=True, kw_only=True):
    """
    Where certificates and keys are.

    :ivar ca_file: PEM file of the authorities to believe; the system's where it is None.
    :ivar cert_file: PEM file of the client's certificate, with its chain; given together with ``key_file`` or not.
    :ivar key_file: PEM file of the client's private key.
    """

    ca_file: str | None
    cert_file: str | None
    key_file: str | None

    def read(self) -> Contents:
        """What is in them now; costs little beside the handshake that it is read for."""
        return Contents(ca_file=_read(self.ca_file), cert_file=_read(self.cert_file), key_file=_read(self.key_file))

    def certificates(self, contents: Contents) -> Certificates:
        """
        What the contents mean.

        :raises InvalidSettings: where a file could not be read or does not hold what it should, or where they do not
            belong together. The error names it, and shows nothing of what is in it.
        """
        options = self._client_options(contents)
        trust = (
            ssl.platformTrust()
            if contents.ca_file is None
            else ssl.trustRootFromCertificates(_certificates(contents.ca_file, f"ca_file {self.ca_file!r}"))
        )
        certificates = Certificates(trust=trust, options=options)
        if contents == _NO_FILES:
            # There is nothing to check, and to load the system's authorities takes longer than many requests.
            return certificates
        try:
            # A connection for which this fails would neither come about nor fail.
            ssl.CertificateOptions(trustRoot=trust, **options).getContext()
        except SSL.Error as error:
            msg = f"OpenSSL does not take the certificates or the key of the TLS settings{_details(error)}"
            raise InvalidSettings(msg) from error
        return certificates

    def _client_options(self, contents: Contents) -> dict[str, Any]:
        if contents.cert_file is None or contents.key_file is None:
            return {}
        own, *chain = _certificates(contents.cert_file, f"cert_file {self.cert_file!r}")
        key = _key(contents.key_file, f"key_file {self.key_file!r}")
        try:
            ssl.PrivateCertificate.fromCertificateAndKeyPair(own, key)
        except VerifyError as error:
            msg = f"key_file {self.key_file!r} is not the key of the first certificate in {self.cert_file!r}"
            raise InvalidSettings(msg) from error
        return {
            # As cryptography's objects: pyOpenSSL is giving up its own.
            "certificate": own.original.to_cryptography(),
            "privateKey": key.original.to_cryptography_key(),
            "extraCertChain": [certificate.original.to_cryptography() for certificate in chain],
        }


def _read(path: str | None) -> bytes | str | None:
    if path is None:
        return None
    try:
        return Path(path).read_bytes()
    except OSError as error:
        return error.strerror or str(error)


def _readable(content: bytes | str, what: str) -> bytes:
    if isinstance(content, str):
        msg = f"{what} cannot be read: {content}"
        raise InvalidSettings(msg)
    return content


def _certificates(content: bytes | str, what: str) -> list[ssl.Certificate]:
    blocks = _PEM_CERTIFICATE.findall(_readable(content, what))
    if not blocks:
        msg = f"{what} holds no certificate in PEM form"
        raise InvalidSettings(msg)
    try:
        return [ssl.Certificate.loadPEM(block) for block in blocks]
    except (crypto.Error, ValueError) as error:
        msg = f"{what} holds a certificate that cannot be read{_details(error)}"
        raise InvalidSettings(msg) from error


def _key(content: bytes | str, what: str) -> ssl.KeyPair:
    pem = _readable(content, what)
    # OpenSSL would ask for the passphrase at the terminal.
    if b"ENCRYPTED" in pem:
        msg = f"{what} is encrypted; give a key without a passphrase, readable by its owner only"
        raise InvalidSettings(msg)
    try:
        return ssl.KeyPair.load(pem, crypto.FILETYPE_PEM)
    except (crypto.Error, ValueError) as error:
        msg = f"{what} holds no private key in PEM form that can be read{_details(error)}"
        raise InvalidSettings(msg) from error


def _details(error: Exception) -> str:
    words = tls_words(error)
    return f": {words}" if words else ""
