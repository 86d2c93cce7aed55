"""A registry against a real etcd."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred

from tests.client.conftest import client, make_client, proxy, reactor_of
from tests.wire import Event, soon
from twisted_etcd.client.client import EtcdClient
from twisted_etcd.embedded.process import EmbeddedEtcd
from twisted_etcd.registry.machine import RegistrationState
from twisted_etcd.registry.registration import Registration
from twisted_etcd.registry.registry import Registry
from twisted_etcd.schema.kv import KeyValue

__all__ = ["client", "make_client", "proxy", "reactor_of"]


class Town:
    """
    A registry with a client of its own.

    :ivar told: each registration's states, in the order in which they were told.
    """

    def __init__(
        self,
        used: Any,  # noqa: ANN401 - no interface of Twisted's names a reactor whole
        endpoint: str,
        prefix: str,
        client: dict[str, Any],
        registry: dict[str, Any],
    ) -> None:
        self.client = EtcdClient(used, endpoint, **client)
        self.registry = Registry(self.client, used, prefix + "services", **registry)
        self.told: list[tuple[str, RegistrationState]] = []
        self._event = Event()

    def register(self, address: str, name: str = "shop", **options: Any) -> Registration:  # noqa: ANN401 - as Registry
        return self.registry.register(name, address, **{"ttl": 60, "changed": self._changed, **options})

    def _changed(self, registration: Registration) -> None:
        self.told.append((registration.path, registration.state))
        self._event.happened()

    def states(self, registration: Registration) -> list[RegistrationState]:
        return [state for path, state in self.told if path == registration.path]

    async def until(self, registration: Registration, *states: RegistrationState) -> None:
        """Until it has told these states, one after the other, whatever else besides; and forget them."""

        def told() -> bool:
            left = list(states)
            for state in self.states(registration):
                if left and state is left[0]:
                    left.pop(0)
            return not left

        await self._event.until(told)
        self.told.clear()

    async def until_all(self, state: RegistrationState, registrations: list[Registration]) -> None:
        await self._event.until(lambda: all(each.state is state for each in registrations), patience=40)

    async def at(self, registration: Registration) -> KeyValue | None:
        kvs = (await self.client.get(registration.path)).kvs
        return kvs[0] if kvs else None

    async def end(self) -> None:
        await soon(self.registry.stopService())
        assert self.registry.registrations == ()
        await soon(self.client.stopService())
        assert self.client.connection_count == 0


class MakeTown(Protocol):
    """Makes a town; it ends with the test."""

    def __call__(
        self,
        endpoint: str | None = None,
        *,
        client: dict[str, Any] | None = None,
        **registry: Any,  # noqa: ANN401 - as Registry has them
    ) -> Town: ...


@pytest.fixture
def make_town(etcd_server: EmbeddedEtcd, prefix: str) -> Iterator[MakeTown]:
    towns: list[Town] = []
    used = reactor_of(etcd_server)

    def make(
        endpoint: str | None = None,
        *,
        client: dict[str, Any] | None = None,
        **registry: Any,  # noqa: ANN401 - as Registry has them
    ) -> Town:
        towns.append(Town(used, endpoint or etcd_server.endpoint, prefix, client or {}, registry))
        return towns[-1]

    yield make
    for town in towns:
        pytest_twisted.blockon(Deferred.fromCoroutine(town.end()))


@pytest.fixture
def town(make_town: MakeTown) -> Town:
    return make_town()
