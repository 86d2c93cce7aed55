"""A client can be stopped at any time: all that it was asked for ends, and nothing is left."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.testing import MemoryReactorClock

from tests.client.conftest import MakeClient
from tests.etcds import ONE_VERSION, FreshEtcd
from tests.wire import Listener, soon
from twisted_etcd.client.client import EtcdClient
from twisted_etcd.errors import ServiceStopped
from twisted_etcd.gateway.tls import TLSSettings
from twisted_etcd.testing.cluster import EtcdCluster

#: Seconds: short, since what is stopped here cannot be told to etcd.
_STOP_TIMEOUT = 0.5
_CONNECTIONS = pytest.mark.parametrize("own_streams", [16, 0], ids=["own-streams", "shared"])


def ask_for_everything(client: EtcdClient, times: int = 1) -> list[Deferred[Any]]:
    """One of each thing that a client can be asked for; what they end with is nobody's concern."""
    asked: list[Deferred[Any]] = []
    for number in range(times):
        key = f"/stop/{number}"
        watches = [client.watch(key), client.watch(key, on_compacted="resync")]
        asked += [client.get(key), client.put(key, "v"), client.lease(30), client.lease_grant(30), client.sync()]
        asked += [each for watch in watches for each in (watch.ready, watch.ended, watch.next())]
    for deferred in asked:
        deferred.addErrback(lambda _: None)
    return asked


async def stops(client: EtcdClient, asked: list[Deferred[Any]]) -> None:
    await soon(client.stopService())
    assert client.connection_count == 0
    assert [deferred for deferred in asked if not deferred.called] == []
    with pytest.raises(ServiceStopped):
        await client.get("k")


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_before_its_first_connection_comes_about(scheme: str) -> None:
    clock = MemoryReactorClock()
    client = EtcdClient(
        clock, f"{scheme}://127.0.0.1:1", tls=TLSSettings(insecure=True), stop_timeout=_STOP_TIMEOUT, own_streams=1
    )
    asked = ask_for_everything(client, 3)
    assert len(clock.tcpClients) > 10
    stopped: list[object] = []
    client.stopService().addBoth(stopped.append)
    clock.advance(_STOP_TIMEOUT)
    assert stopped == [None]
    assert [deferred for deferred in asked if not deferred.called] == []
    assert all(connector.stoppedConnecting for connector in clock.connectors)
    assert clock.getDelayedCalls() == []


@_CONNECTIONS
@pytest.mark.parametrize(
    "options",
    [{}, {"tls": TLSSettings(insecure=True)}, {"username": "user", "password": "some words"}],
    ids=["request", "handshake", "token"],
)
@ensureDeferred
async def test_while_a_member_says_nothing(options: dict[str, Any], own_streams: int) -> None:
    listener = Listener()
    client = EtcdClient(
        reactor, listener.authority, stop_timeout=_STOP_TIMEOUT, own_streams=own_streams, auto_sync=60, **options
    )
    asked = ask_for_everything(client, 3)
    await listener.peer()
    await stops(client, asked)
    await listener.close()


@ensureDeferred
async def test_while_a_member_is_asked_how_it_is() -> None:
    listener = Listener()
    client = EtcdClient(reactor, listener.authority, request_timeout=1.0, stop_timeout=_STOP_TIMEOUT)
    asked: list[Deferred[Any]] = [client.get("k"), client.put("k", "v")]
    for deferred in asked:
        deferred.addErrback(lambda _: None)
    # The first two are the requests'.
    third = await listener.peer(2)
    await third.until_received(b"/v3/maintenance/status")
    await stops(client, asked)
    await listener.close()


@_CONNECTIONS
@pytest.mark.parametrize("signal", ["KILL", "STOP"], ids=["dead", "hung"])
@ensureDeferred
async def test_under_load_as_etcd_goes_away(
    fresh_etcd: FreshEtcd, make_client: MakeClient, signal: str, own_streams: int
) -> None:
    server = await fresh_etcd()
    client = make_client(endpoints=server.endpoint, own_streams=own_streams, stop_timeout=_STOP_TIMEOUT)
    await soon(client.put("k", "v"))
    watch = client.watch("k")
    await soon(watch.ready)
    asked = ask_for_everything(client, 30)
    server.kill(signal)
    await stops(client, [*asked, watch.ended.addErrback(lambda _: None)])
    if signal == "STOP":
        server.kill("CONT")


@ONE_VERSION
@_CONNECTIONS
@pytest.mark.parametrize("fault", ["pause", "isolate", "kill"])
@ensureDeferred
async def test_in_the_middle_of_a_failover(
    etcd_cluster: EtcdCluster, make_client: MakeClient, fault: str, own_streams: int
) -> None:
    client = make_client(endpoints=etcd_cluster.endpoints, own_streams=own_streams, stop_timeout=_STOP_TIMEOUT)
    await soon(client.put("k", "v", timeout=15))
    leader = await soon(etcd_cluster.leader())
    asked = ask_for_everything(client, 10)
    make: Callable[[], Any] = getattr(leader, fault)
    broken = make()
    if isinstance(broken, Deferred):
        await soon(broken)
    asked += ask_for_everything(client, 10)
    await stops(client, asked)
