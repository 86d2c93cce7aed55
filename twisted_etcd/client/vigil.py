"""Looks after the members to which streams are open: a member that hangs or has no leader says nothing by itself."""

from __future__ import annotations

from typing import Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from twisted_etcd.gateway.checkups import Condition
from twisted_etcd.gateway.endpoints import Endpoint
from twisted_etcd.gateway.gateway import Gateway

#: Seconds between two questions to a member. With the time that it has for its answer, a member that is no good is
#: left within 10 seconds.
INTERVAL = 5.0
#: How much shorter or longer that can be, so that many clients do not ask at once.
_JITTER = 0.2


class Attached(Protocol):
    """What depends on one member: a stream that is open there, or being opened."""

    def member_is(self, condition: Condition) -> None:
        """What was found out about that member."""


class Vigil:
    """Asks each member to which a stream is attached how it is, again and again, and tells all streams to it."""

    def __init__(self, gateway: Gateway, clock: IReactorTime) -> None:
        self._gateway = gateway
        self._clock = clock
        self._attached: dict[Endpoint, set[Attached]] = {}
        self._timer: IDelayedCall | None = None

    def attach(self, stream: Attached, endpoint: Endpoint) -> None:
        """From now on this stream depends on that member."""
        self._attached.setdefault(endpoint, set()).add(stream)
        if self._timer is None:
            self._wind()

    def detach(self, stream: Attached, endpoint: Endpoint) -> None:
        """It does so no longer."""
        streams = self._attached.get(endpoint, set())
        streams.discard(stream)
        if not streams:
            self._attached.pop(endpoint, None)
        if not self._attached and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wind(self) -> None:
        wait = INTERVAL * (1 + _JITTER * (2 * self._gateway.random() - 1))
        self._timer = self._clock.callLater(wait, self._ask)

    def _ask(self) -> None:
        self._wind()
        for endpoint in tuple(self._attached):
            self._gateway.checkup(endpoint).addCallback(self._tell, endpoint)

    def _tell(self, condition: Condition, endpoint: Endpoint) -> None:
        # What one of them does about it can attach or detach others.
        for stream in tuple(self._attached.get(endpoint, ())):
            if stream in self._attached.get(endpoint, ()):
                stream.member_is(condition)
