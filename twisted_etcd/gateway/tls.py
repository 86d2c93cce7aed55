"""TLS towards etcd: which servers are believed, and which certificate is shown to them."""

from __future__ import annotations

import msgspec
from OpenSSL import SSL
from twisted.internet import ssl
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer

from twisted_etcd.errors import InvalidSettings
from twisted_etcd.gateway.certificates import CertificateFiles


class TLSSettings(msgspec.Struct, frozen=True, kw_only=True):
    """
    How to speak TLS with etcd. Without any of it the system's certificate authorities are believed.

    The files may be renewed at any time: each new connection is made with what they hold then, and those that are open
    live on. Until renewed files can be used, all of them together, what they held before serves on, and a warning says
    why.

    :ivar ca_file: PEM file of the authorities to believe instead of the system's.
    :ivar cert_file: PEM file of the client's certificate, with its chain.
    :ivar key_file: PEM file of the client's private key.
    :ivar insecure: believe every server. For tests: anyone on the way can read and change everything.
    """

    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    insecure: bool = False


@implementer(IOpenSSLClientConnectionCreator)
class _UnverifiedConnections:
    """Connections that believe every server, still naming the host that is meant (SNI)."""

    def __init__(self, context: SSL.Context, host: str) -> None:
        self._context = context
        self._server_name = None if isIPAddress(host) or isIPv6Address(host) else host.encode("idna")

    def clientConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:  # noqa: N803
        connection = SSL.Connection(self._context, None)
        connection.set_app_data(tlsProtocol)
        if self._server_name is not None:
            connection.set_tlsext_host_name(self._server_name)
        return connection


@implementer(IOpenSSLClientConnectionCreator)
class _CurrentConnections:
    """Each connection is made with the certificates that the files hold when it is made."""

    def __init__(self, trust: TLSTrust, host: str) -> None:
        self._trust = trust
        self._host = host

    def clientConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:  # noqa: N803
        connection: SSL.Connection = self._trust.current(self._host).clientConnectionForTLS(tlsProtocol)
        return connection


class TLSTrust:
    """
    Makes the TLS side of connections to etcd from :class:`TLSSettings`, and keeps up with their files.

    :raises InvalidSettings: where a file cannot be read or does not hold what it should.
    """

    _log = Logger()

    def __init__(self, settings: TLSSettings) -> None:
        if (settings.cert_file is None) != (settings.key_file is None):
            msg = "cert_file and key_file belong together: give both or neither"
            raise InvalidSettings(msg)
        self._insecure = settings.insecure
        self._files = CertificateFiles(
            ca_file=settings.ca_file, cert_file=settings.cert_file, key_file=settings.key_file
        )
        #: What was in the files at the last look, whether it could be used or not.
        self._contents = self._files.read()
        #: What they held last that could be used.
        self._certificates = self._files.certificates(self._contents)
        #: For each host, made of these certificates.
        self._creators: dict[str, IOpenSSLClientConnectionCreator] = {}

    def connections_to(self, host: str) -> IOpenSSLClientConnectionCreator:
        """
        What makes TLS connections that expect this host to be at the other end.

        Each of them is made with what the files hold when TCP has come about.
        """
        # What is wrong with the host's name must not wait for a connection, which could not fail for it.
        self.current(host)
        return _CurrentConnections(self, host)

    def current(self, host: str) -> IOpenSSLClientConnectionCreator:
        """The same for one connection, made now."""
        self._keep_up()
        creator = self._creators.get(host)
        if creator is None:
            creator = self._creators[host] = self._new_creator(host)
        return creator

    def _new_creator(self, host: str) -> IOpenSSLClientConnectionCreator:
        certificates = self._certificates
        if self._insecure:
            return _UnverifiedConnections(ssl.CertificateOptions(**certificates.options).getContext(), host)
        creator: IOpenSSLClientConnectionCreator = ssl.optionsForClientTLS(
            host, trustRoot=certificates.trust, extraCertificateOptions=dict(certificates.options)
        )
        return creator

    def _keep_up(self) -> None:
        contents = self._files.read()
        if contents == self._contents:
            return
        self._contents = contents
        try:
            self._certificates = self._files.certificates(contents)
        except InvalidSettings as error:
            self._log.warn("The certificates from before stay in use: {why}", why=str(error))
            return
        self._creators.clear()
        self._log.info("The certificate files have changed; new connections are made with what they hold now.")
