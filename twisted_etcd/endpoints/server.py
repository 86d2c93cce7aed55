"""Ports that are registered for as long as they listen."""

from __future__ import annotations

import random
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, cast

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    IProtocolFactory,
    IReactorTime,
    IStreamServerEndpoint,
)
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_etcd.backoff import Backoff
from twisted_etcd.endpoints.etcd import Wanted, check, etcd_endpoints, register
from twisted_etcd.endpoints.outward import is_loopback, is_specific, outward_address
from twisted_etcd.errors import InvalidSettings, TwistedEtcdError, Unavailable
from twisted_etcd.gateway.endpoints import Endpoint
from twisted_etcd.moment import Moment
from twisted_etcd.registry.instance import InstanceFormat, join_address, split_address
from twisted_etcd.registry.registration import Registration, RegistrationState
from twisted_etcd.registry.registry import TTL, Registry

#: Seconds: the longest wait before the way to etcd is looked for again.
_LONGEST_BACKOFF = 10.0


class Lender(Protocol):
    """Where ports get the registry from."""

    def borrow(self, ender: Callable[[], Deferred[None]]) -> Registry:
        """
        The registry, until it is given back.

        :param ender: called where the registry must end: fires when all was taken back, and the registry given back.
        """

    def give_back(self, ender: Callable[[], Deferred[None]]) -> Deferred[None]:
        """
        It is used no longer.

        :param ender: as it was given.
        :return: fires when what nobody else uses has ended.
        """


class _Own:
    """A registry of the caller's own."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def borrow(self, ender: Callable[[], Deferred[None]]) -> Registry:  # noqa: ARG002 - it ends with the caller
        return self._registry

    def give_back(self, ender: Callable[[], Deferred[None]]) -> Deferred[None]:  # noqa: ARG002
        return succeed(None)


@implementer(IStreamServerEndpoint)
class EtcdServerEndpoint:
    """
    Listens, and registers the port that it got.

    That it listens does not depend on etcd: while etcd is away the port serves, and is registered as soon as that can
    be done. ``stopListening`` takes the registration back first, then waits ``drain`` seconds, in which the port goes
    on serving, and only then stops listening.

    :param reactor: gives time, and resolves the names of etcd's endpoints.
    :param registry: where it is registered.
    :param endpoint: what listens.
    :param name: of the service.
    :param address: where others reach it, ``HOST`` or ``HOST:PORT``. Unless given: the interface that it listens on,
        where it is a single one; else the address by which this machine speaks with etcd. A loopback address is taken
        by itself only where etcd is on loopback too.
    :param ttl: seconds that it stays registered when nothing is heard of this process any more.
    :param tags: for those who choose.
    :param metadata: whatever else is to be known of it.
    :param weight: its share of the calls.
    :param id: what tells it from the others; ``address:port`` unless given.
    :param form: how it is written in etcd.
    :param drain: seconds.
    :raises InvalidSettings: where one of these cannot be used.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        registry: Registry | Lender,
        endpoint: IStreamServerEndpoint,
        name: str,
        *,
        address: str | None = None,
        ttl: int = TTL,
        tags: Sequence[str] = (),
        metadata: Mapping[str, str] | None = None,
        weight: int = 1,
        id: str = "",  # noqa: A002 - its name everywhere
        form: InstanceFormat = InstanceFormat.JSON,
        drain: float = 0.0,
        random: Callable[[], float] = random.random,
    ) -> None:
        self.wanted = Wanted(
            name=name, ttl=ttl, tags=tuple(tags), metadata=dict(metadata or {}), weight=weight, id=id, form=form
        )
        check(self.wanted)
        self.host: str | None = None
        self.port: int | None = None
        if address is not None:
            self.host, self.port = split_host(address)
        self.reactor = reactor
        self.lender: Lender = _Own(registry) if isinstance(registry, Registry) else registry
        self.drain = drain
        self.random = random
        self.endpoint = endpoint

    def __repr__(self) -> str:
        return f"<EtcdServerEndpoint of {self.wanted.name}>"

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:  # noqa: N803 - as Twisted has it
        """
        Listen, and begin to register.

        :return: fires with the port, a :class:`RegisteredPort`, once it listens; etcd need not have been reached yet.
        :raises InvalidSettings: where it listens on what cannot be registered.
        """
        return Deferred.fromCoroutine(self._listen(protocolFactory))

    async def _listen(self, factory: IProtocolFactory) -> IListeningPort:
        listening = await self.endpoint.listen(factory)
        port = RegisteredPort(self, listening)
        try:
            port.register()
        except BaseException:
            await port.stopListening()
            raise
        return cast("IListeningPort", port)


@implementer(IListeningPort)
class RegisteredPort:
    """
    A port that listens, and is registered.

    :ivar registration: how it is registered; None where its address is not known yet.
    """

    _log = Logger()

    def __init__(self, endpoint: EtcdServerEndpoint, listening: IListeningPort) -> None:
        self.registration: Registration | None = None
        self._endpoint = endpoint
        self._listening = listening
        self._stopping: Moment[None] | None = None
        self._registering: Deferred[None] | None = None
        self._is_borrowing = False
        #: Whether others may have found it.
        self._was_there = False

    def __repr__(self) -> str:
        return f"<RegisteredPort of {self._endpoint.wanted.name}: {self._listening!r}>"

    def getHost(self) -> IAddress:
        """Where it listens."""
        return self._listening.getHost()

    def startListening(self) -> None:
        """Listen, and register, again after it was stopped."""
        self._listening.startListening()
        self._stopping = None
        self._was_there = False
        self.register()

    def stopListening(self) -> Deferred[None]:
        """
        Take the registration back, wait for the drain time, then stop listening.

        :return: fires when it listens no longer, and nothing is under way. Where etcd is away, that takes the request
            timeout of its client, and where nobody else uses the client its stop timeout too; the key ends by its TTL.
        """
        if self._stopping is None:
            self._stopping = Moment()
            Deferred.fromCoroutine(self._stop()).addCallbacks(self._stopping.fire, self._stopping.fail)
        return self._stopping.wait()

    async def _stop(self) -> None:
        try:
            await self._take_back()
        finally:
            await maybeDeferred(cast("Any", self._listening).stopListening)
            if self._is_borrowing:
                self._is_borrowing = False
                await self._endpoint.lender.give_back(self.stopListening)

    async def _take_back(self) -> None:
        registering, self._registering = self._registering, None
        if registering is not None:
            registering.cancel()
        registration, self.registration = self.registration, None
        if registration is None:
            return
        try:
            await registration.take_back()
        except TwistedEtcdError as error:
            self._log.warn("{key} is left to its TTL: {why}", key=registration.path, why=str(error))
        if self._was_there and self._endpoint.drain:
            await deferLater(cast("Any", self._endpoint.reactor), self._endpoint.drain)

    # --- registering ------------------------------------------------------------------------------------------------

    def register(self) -> None:
        """
        Begin to register it.

        :raises InvalidSettings: where it listens on what cannot be registered.
        """
        self._is_borrowing = True
        registry = self._endpoint.lender.borrow(self.stopListening)
        refused: list[Failure] = []
        at_once = True

        def failed(failure: Failure) -> None:
            if at_once:
                refused.append(failure)
            elif not failure.check(CancelledError):
                self._log.error(
                    "{name} listens and is not registered: {why}",
                    name=self._endpoint.wanted.name,
                    why=failure.getErrorMessage(),
                )

        self._registering = Deferred.fromCoroutine(self._register(registry)).addErrback(failed)
        at_once = False
        for failure in refused:
            failure.raiseException()

    async def _register(self, registry: Registry) -> None:
        address = await self._address(registry)
        self.registration = register(registry, self._endpoint.wanted, address, self._told)

    def _told(self, registration: Registration) -> None:
        if registration.state is RegistrationState.ALIVE:
            self._was_there = True
            self._log.info("{name} is registered as {key}", name=self._endpoint.wanted.name, key=registration.path)

    async def _address(self, registry: Registry) -> str:
        """``host:port`` where others reach it."""
        endpoint = self._endpoint
        if endpoint.host is not None and endpoint.port is not None:
            return join_address(endpoint.host, endpoint.port)
        where = self._listening.getHost()
        if not isinstance(where, IPv4Address | IPv6Address) or where.type != "TCP":
            msg = f"service {endpoint.wanted.name!r} listens on {where}, which is no TCP port; give address=HOST:PORT"
            raise InvalidSettings(msg)
        port = endpoint.port or where.port
        if endpoint.host is not None:
            return join_address(endpoint.host, port)
        etcd = etcd_endpoints(registry)
        if is_specific(where.host):
            if is_loopback(where.host) and not any(is_loopback(each.host) for each in etcd):
                msg = (
                    f"service {endpoint.wanted.name!r} listens on {where.host}, where only this machine reaches it, "
                    f"and etcd is elsewhere, at {', '.join(map(str, etcd))}; listen on another interface, or give "
                    "address="
                )
                raise InvalidSettings(msg)
            return join_address(where.host, port)
        six = isinstance(where, IPv6Address)
        families = (int(socket.AF_INET6), int(socket.AF_INET)) if six else (int(socket.AF_INET),)
        backoff = Backoff(endpoint.random, longest=_LONGEST_BACKOFF)
        while (host := await self._outward(etcd, families, backoff)) is None:
            await deferLater(cast("Any", endpoint.reactor), backoff.next())
        return join_address(host, port)

    async def _outward(self, etcd: Sequence[Endpoint], families: tuple[int, ...], backoff: Backoff) -> str | None:
        """The address of this machine; None where it cannot be told yet."""
        try:
            return await outward_address(self._endpoint.reactor, etcd, families)
        except Unavailable as error:
            if not backoff.rounds:
                self._log.warn("{name}: {why}", name=self._endpoint.wanted.name, why=str(error))
            return None


def split_host(address: str) -> tuple[str, int | None]:
    """
    Host and port of ``HOST:PORT``; of ``HOST`` there is no port.

    :raises InvalidSettings: for anything else, and for an address that is none of a single machine.
    """
    bare = address.removeprefix("[").removesuffix("]")
    if address.count(":") == 0 or (address.startswith("[") and address.endswith("]")):
        host, port = split_address(join_address(bare, 1))[0], None
    elif address.count(":") > 1 and not address.startswith("["):
        host, port = split_address(join_address(address, 1))[0], None
    else:
        host, port = split_address(address)
    if _is_all_interfaces(host):
        msg = f"{address!r} is no address that others could reach; name this machine's own, or leave it out"
        raise InvalidSettings(msg)
    return host, port


def _is_all_interfaces(host: str) -> bool:
    try:
        return not is_specific(host)
    except ValueError:
        # A name.
        return False
