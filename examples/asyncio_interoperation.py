"""
Together with asyncio, on one event loop: an asyncio task awaits etcd, and a service awaits asyncio and a thread.

Run it with an etcd at hand, at http://127.0.0.1:2379 unless you name another::

    python asyncio_interoperation.py [ENDPOINTS]

``ENDPOINTS`` is a URL, or several with commas between them; the environment variable ``ETCD_ENDPOINTS`` does as well.
It puts keys under ``/examples/asyncio/`` and deletes them at its end.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys

from twisted.internet import asyncioreactor, task
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorCore, IReactorTime

from twisted_etcd import (
    EtcdApi,
    EtcdClient,
    EtcdService,
    Message,
    MessageService,
    Node,
    Request,
    TwistedEtcdError,
    handles,
)

HERE = "/examples/asyncio/"


async def asyncio_side(etcd: EtcdClient) -> str:
    """Do as any asyncio code does; ``asFuture`` makes of a Deferred what asyncio can await."""
    loop = asyncio.get_running_loop()
    names = ("one", "two", "three")
    await asyncio.gather(*(etcd.put(HERE + name, name.upper()).asFuture(loop) for name in names))
    answer = await asyncio.wait_for(etcd.get(HERE, prefix=True).asFuture(loop), timeout=5)
    return ", ".join(kv.value.decode() for kv in answer.kvs)


async def asyncio_library(word: str) -> str:
    """Stand for a library that is written for asyncio."""
    await asyncio.sleep(0.01)
    return word.lower()


class Digest(Message, frozen=True):
    """Answers :class:`MakeDigest`."""

    hexadecimal: str


class MakeDigest(Request[Digest], frozen=True):
    """Asks for the digest of what a key holds."""

    key: str


class Digester(MessageService):
    """Awaits etcd, asyncio and a thread in one handler, and holds up nobody meanwhile."""

    @handles(MakeDigest)
    async def on_make_digest(self, message: MakeDigest) -> Digest:
        """See the message."""
        value = await EtcdApi(self).get(message.key) or b""
        word = await self.await_future(asyncio_library(value.decode()))
        # Code that blocks, or computes for long, runs in a thread.
        digest = await self.execute_async(hashlib.pbkdf2_hmac, "sha256", word.encode(), b"salt", 1000)
        return Digest(digest.hex()[:16])


async def main(reactor: IReactorTime, endpoints: str) -> None:
    """Twisted's side of it, which could as well be a coroutine of asyncio's."""
    node = Node(reactor)
    client = EtcdClient(reactor, endpoints)
    client.setServiceParent(node)
    EtcdService(client, reactor).setServiceParent(node)
    Digester().setServiceParent(node)
    node.startService()
    # At the end of main, and on Ctrl-C: the node stops its services in the opposite order, the client last.
    IReactorCore(reactor).addSystemEventTrigger("before", "shutdown", node.stopService)
    try:
        await node.when_started()
        # The other way round, ``fromFuture`` makes of a future or a task what Twisted can await.
        values = await Deferred.fromFuture(asyncio.ensure_future(asyncio_side(client)))
        print("asyncio put and got:", values)
        answer = await node.call("Digester", MakeDigest(HERE + "two"))
        print("the service awaited asyncio and a thread:", answer.hexadecimal)
        await client.delete(HERE, prefix=True)
    except TwistedEtcdError as error:
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    # Before anything imports the reactor. Where asyncio's loop runs already, give it: ``install(loop)``.
    asyncioreactor.install()
    default = os.environ.get("ETCD_ENDPOINTS", "http://127.0.0.1:2379")
    task.react(main, [sys.argv[1] if len(sys.argv) > 1 else default])
