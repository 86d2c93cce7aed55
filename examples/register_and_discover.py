"""
Registration and discovery by messages: two workers register, a dispatcher follows them, and one of them leaves.

Run it with an etcd at hand, at http://127.0.0.1:2379 unless you name another::

    python register_and_discover.py [ENDPOINTS]

``ENDPOINTS`` is a URL, or several with commas between them; the environment variable ``ETCD_ENDPOINTS`` does as well.
The workers are registered as ``example-worker`` while it runs.
"""

from __future__ import annotations

import os
import sys

from twisted.internet import task
from twisted.internet.defer import DeferredQueue
from twisted.internet.interfaces import IReactorCore, IReactorTime

from twisted_etcd import (
    ETCD_SERVICE,
    EtcdClient,
    EtcdHeartbeatMsg,
    EtcdService,
    EtcdServiceChangedMsg,
    EtcdServiceDiscoverReq,
    EtcdServiceRegisterReq,
    EtcdServiceUnregisterReq,
    EtcdServiceWatchReq,
    Instance,
    MessageService,
    Node,
    TwistedEtcdError,
    handles,
)

SERVICE = "example-worker"


class Worker(MessageService):
    """Is registered from its start to its stop, and told how the registration is."""

    def __init__(self, address: str, zone: str) -> None:
        super().__init__(f"Worker at {address}")
        self.address = address
        self.zone = zone

    async def on_start(self) -> None:
        """Register: that holds until it is taken back, also when etcd loses it meanwhile."""
        request = EtcdServiceRegisterReq(
            service_name=SERVICE,
            service_address=self.address,
            ttl=10,
            metadata={"zone": self.zone},
            heartbeat_to=self.handle,
        )
        await self.call(ETCD_SERVICE, request)

    async def on_stop(self) -> None:
        """Take it back: others see that at once, and not after the TTL."""
        await self.call(ETCD_SERVICE, EtcdServiceUnregisterReq(SERVICE, self.address))

    @handles(EtcdHeartbeatMsg)
    def on_heartbeat(self, message: EtcdHeartbeatMsg) -> None:
        """Hear that something changed, and what each heartbeat check has found."""
        print(f"{self.name} is {'healthy' if message.healthy else message.state.value}")


class Dispatcher(MessageService):
    """Always knows which workers there are."""

    def __init__(self) -> None:
        super().__init__()
        self.workers: tuple[Instance, ...] = ()
        self.changes: DeferredQueue[EtcdServiceChangedMsg] = DeferredQueue()

    async def on_start(self) -> None:
        """Follow the service: the answer is what there is now, and messages come with the changes."""
        answer = await self.call(ETCD_SERVICE, EtcdServiceWatchReq(SERVICE))
        self.workers = answer.instances

    @handles(EtcdServiceChangedMsg)
    def on_workers_changed(self, message: EtcdServiceChangedMsg) -> None:
        """Take over what there is now."""
        self.workers = message.instances
        for worker in message.added:
            print("dispatcher: there is", worker.endpoint, "in zone", worker.metadata["zone"])
        for worker in message.removed:
            print("dispatcher: gone is", worker.endpoint)
        self.changes.put(message)


async def show_discovery(node: Node) -> None:
    """Two come, one goes."""
    dispatcher = Dispatcher()
    dispatcher.setServiceParent(node)
    await dispatcher.when_started()

    first, second = Worker("127.0.0.1:8001", "west"), Worker("127.0.0.1:8002", "east")
    for worker in (first, second):
        # A node that runs starts whatever joins it.
        worker.setServiceParent(node)
        await worker.when_started()
        await dispatcher.changes.get()

    # Who does not want to follow a service can ask once.
    answer = await node.call(ETCD_SERVICE, EtcdServiceDiscoverReq(SERVICE))
    print("discovered:", ", ".join(answer.service_addresses))

    await first.disownServiceParent()
    await dispatcher.changes.get()
    print("left:", ", ".join(worker.endpoint for worker in dispatcher.workers))

    # A watch ends with the service that it tells.
    await dispatcher.disownServiceParent()


async def main(reactor: IReactorTime, endpoints: str) -> None:
    """Make a node with etcd in it. When it stops, so do its services, and the second worker leaves as well."""
    node = Node(reactor)
    client = EtcdClient(reactor, endpoints)
    client.setServiceParent(node)
    EtcdService(client, reactor).setServiceParent(node)
    node.startService()
    # At the end of main, and on Ctrl-C: the node stops its services in the opposite order, the client last.
    IReactorCore(reactor).addSystemEventTrigger("before", "shutdown", node.stopService)
    try:
        await node.when_started()
        await show_discovery(node)
    except TwistedEtcdError as error:
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    default = os.environ.get("ETCD_ENDPOINTS", "http://127.0.0.1:2379")
    task.react(main, [sys.argv[1] if len(sys.argv) > 1 else default])
