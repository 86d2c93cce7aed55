"""The monitor with real sockets, processes and etcds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import pytest_twisted
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.defer import Deferred

from tests.client.conftest import proxy_before
from tests.programs import is_gone
from tests.registry.health.looked_at import Registered
from tests.registry.health.test_http import Server, answer
from tests.said import Said
from tests.wire import Event, soon
from twisted_etcd.client.client import EtcdClient
from twisted_etcd.embedded.process import EmbeddedEtcd
from twisted_etcd.registry.health.command import CommandCheck
from twisted_etcd.registry.health.health import Health
from twisted_etcd.registry.health.http import HTTPCheck
from twisted_etcd.registry.health.monitor import HealthMonitor
from twisted_etcd.registry.health.tcp import TCPCheck
from twisted_etcd.registry.instance import Instance, Status, decode_instance, encode_instance
from twisted_etcd.testing.proxy import FaultProxy

REACTOR = cast("Any", reactor)
PASSING, WARNING, CRITICAL = Status
SECRET = "hunter2"


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    pytest_twisted.blockon(Deferred.fromCoroutine(server.listener.close()))


class Changes:
    """The changes of a monitor, to be waited for."""

    def __init__(self) -> None:
        self.statuses: list[Status | None] = []
        self._event = Event()

    def __call__(self, _monitor: HealthMonitor, _old: Status, new: Status | None, _why: str) -> None:
        self.statuses.append(new)
        self._event.happened()

    async def until(self, *statuses: Status | None) -> None:
        await self._event.until(lambda: tuple(self.statuses[-len(statuses) :]) == statuses)


class EtcdKey:
    """A registration without a lease: the key of an instance."""

    def __init__(self, client: EtcdClient, key: str) -> None:
        self.instance = Instance(address="10.0.0.7", port=80)
        self._client = client
        self._key = key
        self._there = False
        self._puts = 0
        self._event = Event()

    async def _put(self) -> None:
        await self._client.put(self._key, encode_instance(self.instance))
        self._puts += 1
        self._event.happened()

    async def until_put(self) -> None:
        """Until a put was answered, which others may see before."""
        await self._event.until(lambda: self._puts > 0)

    def offer(self) -> Deferred[None]:
        self._there = True
        return Deferred.fromCoroutine(self._put())

    def update(self, *, status: Status) -> Deferred[None]:
        address, port = self.instance.address, self.instance.port
        self.instance = Instance(address=address, port=port, status=status)
        return Deferred.fromCoroutine(self._put() if self._there else _nothing())

    def withhold(self) -> Deferred[Any]:
        self._there = False
        return self._client.delete(self._key)

    take_back = withhold


async def _nothing() -> None:
    """Nothing is there to be changed."""


async def value_of(client: EtcdClient, key: str) -> Instance | None:
    answer = await soon(client.get(key))
    return decode_instance(answer.kvs[0].value) if answer.kvs else None


async def until(client: EtcdClient, key: str, status: Status | None) -> None:
    """Until the key says so, or is gone."""
    async with client.watch(key) as watch:
        await soon(watch.ready)
        while True:
            instance = await value_of(client, key)
            if (None if instance is None else instance.status) == status:
                return
            await soon(watch.next())


@ensureDeferred
async def test_the_key_stands_in_etcd_as_the_service_answers(
    server: Server, etcd_server: EmbeddedEtcd, prefix: str
) -> None:
    key = f"{prefix}shop/10.0.0.7:80"
    changes = Changes()
    async with EtcdClient(REACTOR, etcd_server.endpoint) as client:
        health = Health(
            [HTTPCheck(REACTOR, server.url())], interval=0.05, timeout=0.5, rise=3, fall=3, show_status=True
        )
        monitor = HealthMonitor(REACTOR, EtcdKey(client, key), health, name="shop", changed=changes)
        monitor.start()
        await until(client, key, PASSING)
        server.answer = lambda _: answer("503 Service Unavailable")
        await changes.until(PASSING, WARNING, CRITICAL)
        await until(client, key, None)
        assert monitor.why.endswith("answered 503 Service Unavailable; expected is 200-299")
        server.answer = lambda _: answer()
        await until(client, key, PASSING)
        # hangs
        server.answer = lambda _: None
        await until(client, key, None)
        assert monitor.why.endswith("no result within 0.5 s")
        await soon(monitor.stop())
        await server.all_closed()


@ensureDeferred
async def test_what_changes_while_etcd_is_away_is_told_when_it_is_back(
    server: Server, etcd_server: EmbeddedEtcd, prefix: str, said: Said
) -> None:
    key = f"{prefix}shop/10.0.0.7:80"
    proxy: FaultProxy = proxy_before(etcd_server)
    changes = Changes()
    async with (
        EtcdClient(REACTOR, etcd_server.endpoint) as observer,
        EtcdClient(REACTOR, proxy.endpoint, request_timeout=0.5) as client,
    ):
        # What was before may have been compacted.
        begin = (await observer.get(key)).header.revision + 1
        health = Health([HTTPCheck(REACTOR, server.url())], interval=0.05, fall=2, rise=1)
        registered = EtcdKey(client, key)
        monitor = HealthMonitor(REACTOR, registered, health, name="shop", changed=changes)
        monitor.start()
        await changes.until(PASSING)
        await registered.until_put()
        await soon(proxy.refuse())
        await soon(proxy.reset())
        server.answer = lambda _: answer("503 Service Unavailable")
        await changes.until(CRITICAL)
        await said.until("shop could not withhold it, which is tried again: ")
        assert await value_of(observer, key) is not None
        await soon(proxy.heal())
        async with observer.watch(key, start_revision=begin) as watch:
            while await value_of(observer, key) is not None:
                await soon(watch.next())
        await soon(monitor.stop())
    await soon(proxy.stopService())


@ensureDeferred
async def test_stopped_in_the_middle_of_everything_it_leaves_nothing(server: Server, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = "trap '' TERM; sh -c 'trap \"\" TERM; echo $$ >>pids; while :; do sleep 0.1; done' & echo $$ >>pids; wait"
    server.answer = lambda _: None
    monitor = HealthMonitor(
        REACTOR,
        Registered(),
        [
            Health(
                [
                    HTTPCheck(REACTOR, server.url()),
                    TCPCheck(REACTOR, "localhost", server.listener.port),
                    CommandCheck(REACTOR, ["/bin/sh", "-c", script], cwd=tmp_path, grace=0.2),
                ],
                interval=0.2,
                timeout=10.0,
            )
        ],
        name="shop",
    )
    monitor.start()
    peers = server.listener.peers
    while len(peers) < 4 or not pids.exists() or pids.read_text().count("\n") < 2:
        turn: Deferred[None] = Deferred()
        REACTOR.callLater(0.02, turn.callback, None)
        await soon(turn)
    await soon(monitor.stop())
    assert [pid for pid in map(int, pids.read_text().split()) if not is_gone(pid)] == []
    await server.all_closed()


@ensureDeferred
async def test_neither_a_header_nor_a_query_nor_an_argument_is_shown(server: Server, said: Said) -> None:
    server.answer = lambda _: answer("403 Forbidden", SECRET.encode())
    changes = Changes()
    health = Health(
        [
            HTTPCheck(REACTOR, server.url(f"/?key={SECRET}"), headers={"Authorization": SECRET}, contains=SECRET),
            CommandCheck(REACTOR, ["/bin/false", SECRET], env={"PASSWORD": SECRET}),
        ],
        interval=0.05,
        initial=PASSING,
    )
    monitor = HealthMonitor(REACTOR, Registered(), health, name="shop", changed=changes)
    monitor.start()
    await changes.until(WARNING, CRITICAL)
    await soon(monitor.stop())
    shown = [*said.lines, repr(monitor), monitor.why, *map(repr, health.checks)]
    assert [line for line in shown if SECRET in line] == []
    assert any("<CommandCheck /bin/false>: exit status 1" in line for line in shown)
    # nor is the log filled with what Twisted says of each request
    assert said.count("_HTTP11ClientFactory") == 0
