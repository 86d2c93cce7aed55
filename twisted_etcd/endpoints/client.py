"""Connections to whichever instance of a service can be connected to."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, cast

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as TooLate
from twisted.internet.endpoints import HostnameEndpoint, TCP4ClientEndpoint, TCP6ClientEndpoint, wrapClientTLS
from twisted.internet.interfaces import (
    IOpenSSLClientConnectionCreator,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    IStreamClientEndpoint,
)
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_etcd.backoff import Backoff
from twisted_etcd.endpoints.avoidance import Avoided
from twisted_etcd.endpoints.connection import Connecting
from twisted_etcd.endpoints.failures import ConnectFailed, NoInstance
from twisted_etcd.endpoints.following import IDLE, Hold, Source, Views
from twisted_etcd.errors import TwistedEtcdError
from twisted_etcd.gateway.tls_errors import TLS_ERRORS, tls_words
from twisted_etcd.registry.choice import Choice, RoundRobin, begin_use
from twisted_etcd.registry.instance import Instance, Status
from twisted_etcd.registry.registry import Registry, checked_name

#: Seconds that connecting may take in all, unless told otherwise: that of Twisted's own endpoints.
TIMEOUT = 30.0
#: Seconds that one instance may take while there is another one to try.
_ATTEMPT_TIMEOUT = 5.0
#: Seconds that etcd may take to tell of instances of which the last ones are known.
_PATIENCE = 1.0

#: Makes the TLS side of a connection to an instance.
Secure = Callable[[Instance], IOpenSSLClientConnectionCreator]


@implementer(IStreamClientEndpoint)
class EtcdClientEndpoint:
    """
    A service, to be connected to by its name.

    Each ``connect`` takes an instance that is registered then, of those that are not critical, and the next one where
    the connection does not come about. One that failed is left alone for a second, and for longer the more often it
    fails, up to half a minute, unless there is no other. The instances are read once and followed, so that a
    connection costs no request to etcd; while etcd is away, those that were known last are taken.

    Two endpoints know nothing of each other: make one for a service, and use it for all connections.

    :param reactor: gives connections, name resolution and time.
    :param registry: where the service is registered. Services are followed until its client is stopped, at the latest.
    :param service: the name of the service.
    :param choice: which instance; one after the other unless given.
    :param key: what is to stay with one instance, for a choice that is sticky.
    :param tags: an instance must have all of these.
    :param timeout: seconds that connecting may take in all.
    :param wait: seconds to wait for an instance that can be tried, where there is none; then, or with 0 at once, it
        fails.
    :param idle: seconds that the service is followed after its last connection has ended.
    :param secure: makes the TLS side of a connection to an instance; without it the connections are plain.
    :raises InvalidSettings: where the name cannot be used.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        registry: Registry | Source,
        service: str,
        *,
        choice: Choice | None = None,
        key: str | bytes | None = None,
        tags: Sequence[str] = (),
        timeout: float = TIMEOUT,
        wait: float = 0.0,
        idle: float = IDLE,
        secure: Secure | None = None,
        random: Callable[[], float] = random.random,
    ) -> None:
        self.service = checked_name(service)
        self.reactor = reactor
        self.source: Source = Views(registry, reactor) if isinstance(registry, Registry) else registry
        self.choice = RoundRobin() if choice is None else choice
        self.key = key
        self.tags = frozenset(tags)
        self.timeout = timeout
        self.wait = wait
        self.idle = idle
        self.secure = secure
        self.avoided = Avoided(reactor)
        self.random = random
        #: What was there when it was last known.
        self.last: Sequence[Instance] = ()

    def __repr__(self) -> str:
        return f"<EtcdClientEndpoint of {self.service}>"

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:  # noqa: N803 - as Twisted has it
        """
        Connect to an instance.

        With TLS the connection has come about when the handshake is over.

        :return: fires with the factory's protocol.
        :raises NoInstance: there is none that could be tried; it says why.
        :raises ConnectFailed: none could be connected to; it names each that was tried, and what went wrong there.
            Where the factory itself fails, it is with the factory's error.
        """
        return Deferred.fromCoroutine(_Call(self, protocolFactory).connect())

    def endpoint_of(self, instance: Instance, timeout: float) -> IStreamClientEndpoint:
        """
        Where an instance is.

        :param timeout: seconds that TCP may take.
        """
        reactor: Any = self.reactor
        host = instance.address
        endpoint: Any
        if isIPAddress(host):
            endpoint = TCP4ClientEndpoint(reactor, host, instance.port, timeout=cast("Any", timeout))
        elif isIPv6Address(host):
            endpoint = TCP6ClientEndpoint(reactor, host, instance.port, timeout=cast("Any", timeout))
        else:
            endpoint = HostnameEndpoint(reactor, host, instance.port, timeout=timeout)
        if self.secure is None:
            return cast("IStreamClientEndpoint", endpoint)
        return wrapClientTLS(self.secure(instance), endpoint)


class _Call:
    """One ``connect``."""

    def __init__(self, endpoint: EtcdClientEndpoint, factory: IProtocolFactory) -> None:
        self._endpoint = endpoint
        self._clock = endpoint.reactor
        self._factory = factory
        self._began = self._clock.seconds()
        self._tried: dict[str, str] = {}
        self._hold: Hold | None = None
        #: Why etcd could not be asked.
        self._not_asked = ""

    async def connect(self) -> IProtocol:
        established = False
        backoff = Backoff(self._endpoint.random)
        try:
            await self._find_out(backoff)
            while True:
                candidates = self._candidates()
                instance = self._chosen(candidates)
                if instance is not None and self._left > 0:
                    protocol = await self._attempt(instance, len(candidates))
                    if protocol is not None:
                        established = True
                        return protocol
                elif not await self._more(backoff):
                    raise self._failure()
        finally:
            if not established:
                self._release()

    # --- time -------------------------------------------------------------------------------------------------------

    @property
    def _left(self) -> float:
        """Seconds until it is too late for a connection."""
        return self._began + self._endpoint.timeout - self._clock.seconds()

    @property
    def _wait_left(self) -> float:
        """Seconds that may yet be waited for an instance."""
        return min(self._left, self._began + self._endpoint.wait - self._clock.seconds())

    # --- what there is ----------------------------------------------------------------------------------------------

    async def _find_out(self, backoff: Backoff) -> None:
        """Follow the service; where it cannot be read in time, go on with what was known last."""
        while True:
            hold = self._hold = self._endpoint.source.hold(self._endpoint.service, self._endpoint.idle)
            limit = min(self._left, _PATIENCE) if self._endpoint.last else self._left
            try:
                await hold.loaded().addTimeout(max(limit, 0.0), cast("Any", self._clock))
            except (TwistedEtcdError, TooLate) as error:
                slow = isinstance(error, TooLate)
                self._not_asked = "etcd has not answered yet" if slow else str(error)
                if self._endpoint.last:
                    return
                self._release()
                if self._wait_left <= 0:
                    raise self._failure() from error
                await self._pause(backoff)
                continue
            self._not_asked = ""
            return

    def _release(self) -> None:
        hold, self._hold = self._hold, None
        if hold is not None:
            hold.release()

    def _known(self) -> Sequence[Instance]:
        if self._hold is not None and (not self._not_asked or self._hold.instances):
            self._not_asked = ""
            self._endpoint.last = self._hold.instances
        return self._endpoint.last

    def _fitting(self) -> list[Instance]:
        return [each for each in self._known() if self._endpoint.tags <= set(each.tags)]

    def _candidates(self) -> list[Instance]:
        """Those that can be tried, and have not been."""
        return [
            each for each in self._fitting() if each.status is not Status.CRITICAL and each.endpoint not in self._tried
        ]

    def _chosen(self, candidates: Sequence[Instance]) -> Instance | None:
        endpoint = self._endpoint
        good = [each for each in candidates if each.endpoint not in endpoint.avoided]
        return endpoint.choice.choose(good or candidates, endpoint.key)

    async def _pause(self, backoff: Backoff) -> None:
        await deferLater(cast("Any", self._clock), max(0.0, min(backoff.next(), self._wait_left)))

    async def _more(self, backoff: Backoff) -> bool:
        """Whether something changes before the wait is over."""
        if self._wait_left <= 0 or self._hold is None:
            return False
        if self._hold.is_over:
            self._release()
            await self._pause(backoff)
            await self._find_out(backoff)
            return True
        try:
            await self._hold.changed().addTimeout(self._wait_left, cast("Any", self._clock))
        except TooLate:
            return False
        return True

    # --- the attempt ------------------------------------------------------------------------------------------------

    async def _attempt(self, instance: Instance, candidates: int) -> IProtocol | None:
        """The protocol; None where the instance cannot be connected to, which is noted."""
        endpoint = self._endpoint
        address = instance.endpoint
        limit = self._left if candidates == 1 else min(_ATTEMPT_TIMEOUT, self._left / candidates)
        use = begin_use(endpoint.choice, instance)

        def lost() -> None:
            use.end()
            self._release()

        connecting = Connecting(self._factory, secure=endpoint.secure is not None, lost=lost)
        established = False
        try:
            connected = connecting.connect(endpoint.endpoint_of(instance, limit))
            protocol = await connected.addTimeout(limit, cast("Any", self._clock))
        except CancelledError:
            raise
        except TooLate:
            self._tried[address] = f"no connection in {limit:.3g} s"
        except Exception as error:
            if connecting.factory_fails:
                # It would with each instance, and none of them is to blame.
                raise
            self._tried[address] = in_words(error)
        else:
            established = True
            endpoint.avoided.succeeded(address)
            return protocol
        finally:
            if not established:
                use.end()
        endpoint.avoided.failed(address)
        return None

    def _failure(self) -> ConnectFailed:
        service, tried = self._endpoint.service, self._tried
        if tried and self._left <= 0:
            return ConnectFailed(service, f"no connection in {self._endpoint.timeout:g} s", tried)
        if tried:
            return ConnectFailed(service, "no instance can be connected to", tried)
        if self._not_asked:
            return NoInstance(service, f"its instances are not known: {self._not_asked}")
        known, fitting = len(self._known()), len(self._fitting())
        if fitting:
            return NoInstance(service, f"all instances are critical ({fitting})")
        if known:
            tags = ", ".join(sorted(self._endpoint.tags))
            return NoInstance(service, f"none of its {known} instances has the tags {tags}")
        return NoInstance(service, "no instance is registered")


def in_words(error: Exception) -> str:
    """What went wrong with a connection."""
    if isinstance(error, TLS_ERRORS):
        return f"TLS: {tls_words(error) or type(error).__name__}"
    return Failure(error).getErrorMessage() or type(error).__name__
