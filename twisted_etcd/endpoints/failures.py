"""Why a service could not be connected to; to Twisted each of these is a connection that failed."""

from __future__ import annotations

from collections.abc import Mapping

from twisted.internet.error import ConnectError

from twisted_etcd.errors import TwistedEtcdError


class ConnectFailed(TwistedEtcdError, ConnectError):
    """
    No instance of the service could be connected to.

    It is Twisted's ``ConnectError`` too, so that ``ClientService`` and ``Agent`` take it for a failed connection.

    :ivar service: the name of the service.
    :ivar tried: what went wrong at each instance that was tried, by its ``host:port``, in their order.
    """

    def __init__(self, service: str, why: str, tried: Mapping[str, str] | None = None) -> None:
        ConnectError.__init__(self, string=f"service {service!r}: {why}")
        self.service = service
        self.why = why
        self.tried = dict(tried or {})

    def __str__(self) -> str:
        text = f"service {self.service!r}: {self.why}"
        return text + "".join(f"; {address}: {why}" for address, why in self.tried.items())


class NoInstance(ConnectFailed):
    """There was none that could have been tried: none is registered, or etcd could not be asked for them."""
