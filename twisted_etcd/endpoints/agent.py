"""``http://name.etcd/``: services by their names, for Twisted's ``Agent`` and so for treq."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator, IReactorTime, IStreamClientEndpoint
from twisted.web.client import URI, BrowserLikePolicyForHTTPS
from twisted.web.error import SchemeNotSupported
from twisted.web.iweb import IAgentEndpointFactory, IPolicyForHTTPS
from zope.interface import implementer

from twisted_etcd.endpoints.client import TIMEOUT, EtcdClientEndpoint
from twisted_etcd.endpoints.following import IDLE, Source, Views
from twisted_etcd.errors import InvalidSettings
from twisted_etcd.registry.choice import Choice, RoundRobin
from twisted_etcd.registry.instance import Instance
from twisted_etcd.registry.registry import Registry

#: What the hosts of services end with, unless told otherwise.
SUFFIX = ".etcd"


@implementer(IAgentEndpointFactory)
class EtcdAgentEndpointFactory:
    """
    Lets ``Agent.usingEndpointFactory`` connect to services by their names: ``http://user-service.etcd/path``.

    The ``Host`` header stays as the URL has it, and a port in the URL is left unused: each instance is at its own. With
    ``https`` the certificate must be for the host of the URL, whichever instance shows it, since where an instance is
    says etcd, and who it is must be said by something that who writes to etcd cannot change.

    :param reactor: gives connections, name resolution and time.
    :param registry: where the services are registered. They are followed until its client is stopped, at the latest.
    :param fallback: says where all other hosts are; unless given, that is where their names lead.
    :param suffix: what the hosts of services end with.
    :param policy: how TLS is spoken; as ``Agent`` does it unless given.
    :param choice: makes the choice of each service.
    :param tags: an instance must have all of these.
    :param timeout: seconds that connecting may take in all.
    :param wait: seconds to wait for an instance where there is none.
    :param idle: seconds that a service is followed after its last connection has ended.
    :raises InvalidSettings: where the suffix is not of a dot and letters.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        registry: Registry | Source,
        fallback: IAgentEndpointFactory | None = None,
        suffix: str = SUFFIX,
        *,
        policy: IPolicyForHTTPS | None = None,
        choice: Callable[[], Choice] = RoundRobin,
        tags: Sequence[str] = (),
        timeout: float = TIMEOUT,
        wait: float = 0.0,
        idle: float = IDLE,
        random: Callable[[], float] = random.random,
    ) -> None:
        if not suffix.startswith(".") or not suffix.strip(".") or "/" in suffix:
            msg = f"suffix {suffix!r} is not one such as '.etcd'"
            raise InvalidSettings(msg)
        self._reactor = reactor
        self._fallback = fallback
        self._suffix = suffix.lower()
        self._policy = policy or BrowserLikePolicyForHTTPS()
        source: Source = Views(registry, reactor) if isinstance(registry, Registry) else registry
        self._choice = choice
        self._make = partial(
            EtcdClientEndpoint, reactor, source, tags=tags, timeout=timeout, wait=wait, idle=idle, random=random
        )
        #: By scheme and host, so that each service is called in turn and remembers who failed.
        self._endpoints: dict[tuple[bytes, bytes], EtcdClientEndpoint] = {}

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        """
        Where the host of a URL is.

        :raises SchemeNotSupported: for a service, where the scheme is neither ``http`` nor ``https``.
        :raises InvalidSettings: where what stands before the suffix is no name of a service.
        """
        host = uri.host.decode("ascii", "replace")
        if not host.lower().endswith(self._suffix):
            return self._elsewhere(uri, host)
        endpoint = self._endpoints.get((uri.scheme, uri.host))
        if endpoint is None:
            secure = self._secure(uri)
            endpoint = self._make(host[: -len(self._suffix)], choice=self._choice(), secure=secure)
            self._endpoints[uri.scheme, uri.host] = endpoint
        return cast("IStreamClientEndpoint", endpoint)

    def _secure(self, uri: URI) -> Callable[[Instance], IOpenSSLClientConnectionCreator] | None:
        if uri.scheme == b"http":
            return None
        creator = self._creator(uri)
        return lambda _: creator

    def _creator(self, uri: URI) -> IOpenSSLClientConnectionCreator:
        if uri.scheme != b"https":
            msg = f"Unsupported scheme: {uri.scheme!r}"
            raise SchemeNotSupported(msg)
        creator: IOpenSSLClientConnectionCreator = self._policy.creatorForNetloc(uri.host, uri.port)
        return creator

    def _elsewhere(self, uri: URI, host: str) -> IStreamClientEndpoint:
        if self._fallback is not None:
            return cast("IStreamClientEndpoint", self._fallback.endpointForURI(uri))
        endpoint: Any = HostnameEndpoint(cast("Any", self._reactor), host, uri.port)
        if uri.scheme == b"http":
            return cast("IStreamClientEndpoint", endpoint)
        return wrapClientTLS(self._creator(uri), endpoint)
