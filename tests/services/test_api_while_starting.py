"""``EtcdApi`` in a service's ``on_start``, where the node has not started yet."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred

from tests.guards import LoggedErrors
from tests.said import Said
from tests.services.world import fails
from tests.wire import soon
from twisted_etcd.client.client import EtcdClient
from twisted_etcd.embedded.process import EmbeddedEtcd
from twisted_etcd.errors import ServiceStopped, ServiceUnavailable, Unavailable
from twisted_etcd.messaging.node import Node
from twisted_etcd.messaging.service import MessageService
from twisted_etcd.services.api import EtcdApi
from twisted_etcd.services.etcd import EtcdService
from twisted_etcd.services.messages import EtcdConfigChangedMsg
from twisted_etcd.testing.proxy import FaultProxy

MakeNode = Callable[[str, MessageService], Node]


class Follower(MessageService):
    """Follows a value from its start on."""

    def __init__(self, *, patient: bool) -> None:
        super().__init__()
        self.patient = patient
        self.found: bytes | None = None
        self.changed: Deferred[EtcdConfigChangedMsg] = Deferred()

    async def on_start(self) -> None:
        self.found = (await EtcdApi(self).watch_config("a", self.changed.callback, patient=self.patient)).value


@pytest.fixture
def make_node(prefix: str) -> Iterator[MakeNode]:
    nodes: list[Node] = []

    def make(endpoint: str, service: MessageService) -> Node:
        node = Node(cast("Any", reactor))
        client = EtcdClient(cast("Any", reactor), endpoint, request_timeout=0.3)
        client.setServiceParent(node)
        EtcdService(client, cast("Any", reactor), config_prefix=prefix).setServiceParent(node)
        service.setServiceParent(node)
        node.startService()
        nodes.append(node)
        return node

    yield make
    for node in nodes:
        pytest_twisted.blockon(soon(node.stopService()))


@pytest_twisted.ensureDeferred
async def test_a_service_can_wait_in_on_start_until_it_follows_a_value(
    etcd_server: EmbeddedEtcd, make_node: MakeNode
) -> None:
    follower = Follower(patient=False)
    node = make_node(etcd_server.endpoint, follower)
    await soon(node.when_started())
    assert follower.found is None
    await EtcdApi(node).set_config("a", "1")
    assert (await soon(follower.changed)).new_value == b"1"


@pytest_twisted.ensureDeferred
async def test_without_patience_it_refuses_to_start_while_etcd_is_away(
    proxy: FaultProxy, make_node: MakeNode, logged_errors: LoggedErrors
) -> None:
    await proxy.refuse()
    node = make_node(proxy.endpoint, Follower(patient=False))
    await fails(ServiceUnavailable, node.when_started())
    assert len(logged_errors.flush(Unavailable)) == 1


@pytest_twisted.ensureDeferred
async def test_with_patience_it_starts_when_etcd_is_there(proxy: FaultProxy, make_node: MakeNode, said: Said) -> None:
    await proxy.refuse()
    follower = Follower(patient=True)
    node = make_node(proxy.endpoint, follower)
    early = node.when_started()
    await said.until("cannot be read, and is tried again")
    await proxy.accept()
    await soon(early)
    await EtcdApi(node).set_config("a", "1")
    assert (await soon(follower.changed)).new_value == b"1"


@pytest_twisted.ensureDeferred
async def test_a_node_can_be_stopped_while_a_service_has_patience(
    proxy: FaultProxy, make_node: MakeNode, said: Said
) -> None:
    # The guard of all tests sees to it that nothing is logged as an error.
    await proxy.refuse()
    node = make_node(proxy.endpoint, Follower(patient=True))
    started = node.when_started()
    await said.until("cannot be read, and is tried again")
    await soon(node.stopService())
    await fails(ServiceStopped, started)
    assert node.statistics.sessions_open == 0
