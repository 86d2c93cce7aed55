"""Etcd away for long under many registrations, watches and discoverers; then one restored from an old snapshot."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.internet.utils import getProcessOutputAndValue

from tests.etcds import http_client, new_etcd
from twisted_etcd.client.client import EtcdClient
from twisted_etcd.client.watch import Watch
from twisted_etcd.config.config import Config
from twisted_etcd.embedded.process import EmbeddedEtcd
from twisted_etcd.errors import ClusterChanged, HistoryReplaced
from twisted_etcd.gateway.endpoints import parse_endpoint
from twisted_etcd.registry.machine import RegistrationState
from twisted_etcd.registry.registration import Registration
from twisted_etcd.registry.registry import Registry
from twisted_etcd.testing.proxy import FaultProxy

#: Seconds that all may take to be as it should be, once etcd is back.
_RECOVERY = 60.0
#: Seconds between two looks whether it is.
_LOOK = 0.1
#: A lease that ends within the outage.
_TTL = 5
#: How often each watched key is written while nobody sees it.
_WRITES = 3


class Scale(NamedTuple):
    """
    How much there is of everything.

    :ivar seconds: that etcd is away.
    """

    seconds: float = 120.0
    registrations: int = 500
    keys: int = 200
    discoverers: int = 50


class Broken(Exception):
    """A promise was not kept."""


class Seen:
    """What one watch was told."""

    def __init__(self, watch: Watch) -> None:
        self.values: list[bytes] = []
        self.ended: Exception | None = None
        self._watch = watch
        Deferred.fromCoroutine(self._read())

    async def _read(self) -> None:
        try:
            while True:
                for event in (await self._watch.next()).events:
                    self.values.append(event.kv.value)
        except Exception as error:  # noqa: BLE001 - looked at in the end
            self.ended = error


class Outage:
    """
    One run.

    :param binary: of etcd; ``etcdutl`` stands beside it.
    :param say: told how it goes, a line at a time.
    :ivar figures: what was measured.
    """

    def __init__(self, reactor: Any, binary: Path, scale: Scale, say: Callable[[str], None]) -> None:  # noqa: ANN401 - any of Twisted's
        self.figures: dict[str, float] = {}
        self._reactor = reactor
        self._scale = scale
        self._say = say
        self._etcdutl = binary.parent / "etcdutl"
        self._place = Path(tempfile.mkdtemp(prefix="outage-"))
        self._data = self._place / "data"
        # What is restored says where its peers are; on its own it needs none.
        self._server: EmbeddedEtcd = new_etcd(
            binary, reactor=reactor, data_dir=self._data, extra_args=("--force-new-cluster",)
        )

    async def run(self) -> None:
        """
        All of it.

        :raises Broken: a promise was not kept.
        """
        try:
            self._server.startService()
            await self._server.when_ready()
            await self._with_server()
        finally:
            await self._server.stopService()
            shutil.rmtree(self._place)

    async def _with_server(self) -> None:
        at = parse_endpoint(self._server.endpoint)
        proxy = FaultProxy(self._reactor, at.host, at.port)
        proxy.startService()
        # Those who look on reach etcd all the time.
        outside = EtcdClient(self._reactor, self._server.endpoint)
        inside = EtcdClient(self._reactor, proxy.endpoint, request_timeout=2.0)
        registry, found = Registry(inside, self._reactor), Registry(inside, self._reactor)
        config = Config(inside, self._reactor, "/config/outage")
        config.startService()
        try:
            await self._scenes(proxy, outside, inside, registry, found, config)
        finally:
            await gatherResults([config.stopService(), registry.stopService(), found.stopService()])
            await inside.stopService()
            await outside.stopService()
            await proxy.stopService()
        if inside.connection_count or outside.connection_count:
            msg = "connections are left after the stop"
            raise Broken(msg)

    async def _scenes(  # noqa: PLR0917 - the cast
        self,
        proxy: FaultProxy,
        outside: EtcdClient,
        inside: EtcdClient,
        registry: Registry,
        found: Registry,
        config: Config,
    ) -> None:
        scale = self._scale
        await config.loaded
        await outside.put("/config/outage/limit", "1")
        registrations = [
            registry.register(
                f"service-{number % scale.discoverers}", f"10.0.{number // 200}.{number % 200}:80", ttl=_TTL
            )
            for number in range(scale.registrations)
        ]
        await self._until("all are registered", lambda: _all_alive(registrations))
        views = [found.view(f"service-{number}") for number in range(scale.discoverers)]
        await gatherResults([view.when_loaded() for view in views])
        watches = [Seen(inside.watch(f"watched/{number}")) for number in range(scale.keys)]
        await self._until("configuration is seen", lambda: config.get("limit") == "1")
        snapshot = self._place / "snapshot.db"
        await outside.maintenance.snapshot(snapshot)
        for _ in range(200):
            await outside.put("filler", "x", batch=False)

        await self._outage(proxy, outside, registrations, config)
        for view in views:
            _check(view.stale, f"{view!r} is not stale, and etcd is away")
        _check(
            sum(len(view.instances) for view in views) == scale.registrations,
            "not all instances are known while etcd is away",
        )
        _check(config["limit"] == "1" and config.stale, "the last configuration is not served, or not as stale")
        waiting = len(self._reactor.getDelayedCalls())
        self.figures["delayed calls at the end of the outage"] = waiting
        _check(waiting < scale.registrations, f"{waiting} delayed calls wait for etcd")

        before = await _requests(outside)
        back = self._reactor.seconds()
        await proxy.heal()
        await self._until("all are registered again", lambda: _all_alive(registrations))
        self.figures["seconds until all were registered again"] = self._reactor.seconds() - back
        await self._until(
            "all are found again",
            lambda: (
                not any(view.stale for view in views)
                and sum(len(view.instances) for view in views) == scale.registrations
            ),
        )
        expected = [str(write).encode() for write in range(_WRITES)]
        await self._until(
            "every watch has told all", lambda: all(len(seen.values) >= len(expected) for seen in watches)
        )
        self.figures["seconds until all was as it should be"] = self._reactor.seconds() - back
        self.figures["requests for it"] = await _requests(outside) - before
        _check(
            self.figures["requests for it"] < scale.registrations + scale.keys + scale.discoverers,
            f"{self.figures['requests for it']:.0f} requests were made at once",
        )
        for number, seen in enumerate(watches):
            _check(seen.values == expected, f"watched/{number} was told {seen.values}")
            _check(seen.ended is None, f"watched/{number} has ended: {seen.ended}")
        await self._until("configuration is seen", lambda: config.get("limit") == "2" and not config.stale)
        keys = await outside.get("/services/", prefix=True, count_only=True)
        _check(keys.count == scale.registrations, f"{keys.count} keys are in etcd")

        await self._restore(snapshot, outside)
        await self._until("all are registered in the restored one", lambda: _all_alive(registrations))
        await self._until_count(outside, scale.registrations)
        await self._until("configuration is that of the snapshot", lambda: config.get("limit") == "1")
        await self._until(
            "all are found in the restored one",
            lambda: (
                not any(view.stale for view in views)
                and sum(len(view.instances) for view in views) == scale.registrations
            ),
        )
        await self._until("every watch has said that", lambda: all(seen.ended is not None for seen in watches))
        for seen in watches:
            _check(isinstance(seen.ended, ClusterChanged | HistoryReplaced), f"a watch ended with {seen.ended!r}")
        await outside.put("/services/service-0/elsewhere", "10.9.9.9:80")
        await self._until(
            "what is new is found", lambda: any(each.address == "10.9.9.9" for each in views[0].instances)
        )
        await outside.delete("/services/service-0/elsewhere")

    async def _outage(
        self, proxy: FaultProxy, outside: EtcdClient, registrations: list[Registration], config: Config
    ) -> None:
        seconds = self._scale.seconds
        self._say(f"etcd is away for {seconds:g} s, and restarts in the middle of it")
        began = self._reactor.seconds()
        await proxy.refuse()
        await proxy.reset()
        for write in range(_WRITES):
            puts = [outside.put(f"watched/{number}", str(write)) for number in range(self._scale.keys)]
            await gatherResults(puts)
        await outside.put("/config/outage/limit", "2")
        await self._until_count(outside, 0)
        await self._until(
            "all know that they are lost",
            lambda: all(each.state is RegistrationState.LOST for each in registrations) and config.stale,
        )
        await self._server.stopService()
        left = seconds - (self._reactor.seconds() - began)
        await deferLater(self._reactor, max(left / 2, 0.0))
        self._server.startService()
        await self._server.when_ready()
        left = seconds - (self._reactor.seconds() - began)
        await deferLater(self._reactor, max(left, 0.0))

    async def _restore(self, snapshot: Path, outside: EtcdClient) -> None:
        high = (await outside.get("filler")).header.revision
        await self._server.stopService()
        shutil.rmtree(self._data)
        # As the embedded etcd calls itself.
        arguments = ["snapshot", "restore", str(snapshot), "--data-dir", str(self._data / "etcd"), "--name=embedded"]
        arguments += ["--initial-cluster=embedded=http://127.0.0.1:1"]
        arguments += ["--initial-advertise-peer-urls=http://127.0.0.1:1"]
        out, err, status = await getProcessOutputAndValue(str(self._etcdutl), arguments, reactor=self._reactor)
        _check(status == 0, f"etcdutl: {out!r} {err!r}")
        self._server.startService()
        await self._server.when_ready()
        low = (await outside.get("filler")).header.revision
        self._say(f"restored from a snapshot: revision {low} after {high}")
        _check(low < high, "the revisions are not lower than before")

    async def _until(self, what: str, holds: Callable[[], bool]) -> None:
        began = self._reactor.seconds()
        while not holds():
            if self._reactor.seconds() - began > _RECOVERY:
                msg = f"after {_RECOVERY:g} s this does not hold: {what}"
                raise Broken(msg)
            await deferLater(self._reactor, _LOOK)
        self._say(f"{what}: {self._reactor.seconds() - began:.1f} s")

    async def _until_count(self, outside: EtcdClient, count: int) -> None:
        while (await outside.get("/services/", prefix=True, count_only=True)).count != count:
            await deferLater(self._reactor, _LOOK)
        self._say(f"etcd has {count} services")


def _all_alive(registrations: list[Registration]) -> bool:
    return all(each.state is RegistrationState.ALIVE for each in registrations)


def _check(holds: bool, otherwise: str) -> None:  # noqa: FBT001 - as assert
    if not holds:
        raise Broken(otherwise)


async def _requests(outside: EtcdClient) -> float:
    """How many requests etcd has begun since it started, by its own count."""
    response = await http_client().get(f"{outside.endpoints[0].url}/metrics")
    lines = [line for line in (await response.text()).splitlines() if line.startswith("grpc_server_started_total{")]
    return sum(float(line.rpartition(" ")[2]) for line in lines)
