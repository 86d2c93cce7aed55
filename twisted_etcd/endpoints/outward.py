"""The address of this machine by which others reach it."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Iterable
from typing import Any, cast

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IHostResolution, IReactorPluggableNameResolver, IResolutionReceiver
from zope.interface import implementer

from twisted_etcd.errors import InvalidSettings, Unavailable
from twisted_etcd.gateway.endpoints import Endpoint


def is_loopback(host: str) -> bool:
    """Whether a host is this machine by its very name or address."""
    if host.lower() == "localhost" or host.lower().endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False


def is_specific(host: str) -> bool:
    """Whether an interface is one, and not all of them."""
    return bool(host) and not ipaddress.ip_address(host.partition("%")[0]).is_unspecified


async def outward_address(
    reactor: object,
    etcd: Iterable[Endpoint],
    families: tuple[int, ...],
    local_towards: Callable[[str, int], str | None] | None = None,
) -> str:
    """
    The address by which this machine speaks with etcd. That sends nothing, and etcd may be away.

    It is a loopback address only where etcd is reached by no other.

    :param reactor: resolves names.
    :param families: ``AF_INET``, ``AF_INET6``, the better one first.
    :param local_towards: the local address of packets to an address and port; the machine is asked unless given.
    :raises InvalidSettings: where there is none of these families.
    :raises Unavailable: where no name is known, or no network is there yet; that may change.
    """
    found: list[str] = []
    known = False
    for endpoint in etcd:
        for address in await _addresses(reactor, endpoint.host):
            known = True
            local = (local_towards or _local_towards)(address, endpoint.port)
            if local is not None:
                found.append(local)
    for family in families:
        fitting = [each for each in found if (":" in each) is (family == socket.AF_INET6)]
        if fitting:
            return next((each for each in fitting if not is_loopback(each)), fitting[0])
    if found:
        msg = (
            f"the address that others reach cannot be told: etcd is reached from {', '.join(found)}, and this listens "
            "with another version of IP; give address="
        )
        raise InvalidSettings(msg)
    why = "there is no way to etcd" if known else "the names of etcd's endpoints are not known"
    msg = f"the address that others reach cannot be told yet, since {why}; address= gives it"
    raise Unavailable(msg)


def _local_towards(address: str, port: int) -> str | None:
    """The local address of packets to that one; None where no network leads there."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as datagrams:
            # Only chooses the way: nothing is sent.
            datagrams.connect((address, port))
            local = str(datagrams.getsockname()[0])
    except OSError:
        return None
    return local if is_specific(local) else None


async def _addresses(reactor: object, host: str) -> list[str]:
    if isIPAddress(host) or isIPv6Address(host):
        return [host]
    receiver = _Receiver()
    resolver = cast("IReactorPluggableNameResolver", reactor).nameResolver
    resolver.resolveHostName(cast("Any", receiver), host, 0, [IPv4Address, IPv6Address], "TCP")
    return await receiver.complete


@implementer(IResolutionReceiver)
class _Receiver:
    """Collects the addresses of a name."""

    def __init__(self) -> None:
        # Who waits for it may give it up; it comes to its end all the same.
        self.complete: Deferred[list[str]] = Deferred()
        self._found: list[str] = []

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:  # noqa: N803 - as Twisted has it
        """Nothing to note: it cannot be cancelled in Twisted's own resolver."""

    def addressResolved(self, address: IAddress) -> None:
        if isinstance(address, IPv4Address | IPv6Address):
            self._found.append(address.host)

    def resolutionComplete(self) -> None:
        if not self.complete.called:
            self.complete.callback(self._found)
