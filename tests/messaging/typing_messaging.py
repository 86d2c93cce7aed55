"""What a type checker makes of the messages; only mypy reads this."""

from __future__ import annotations

import asyncio
import concurrent.futures

from twisted.internet.defer import Deferred
from typing_extensions import assert_type

from twisted_etcd.messaging.delivery import Delivery
from twisted_etcd.messaging.messages import Message, Request
from twisted_etcd.messaging.node import Node
from twisted_etcd.messaging.routes import handles
from twisted_etcd.messaging.service import MessageService


class Got(Message, frozen=True):
    value: bytes


class Get(Request[Got], frozen=True):
    key: bytes


class Find(Request["Got | None"], frozen=True):
    key: bytes


class Clear(Request[None], frozen=True):
    pass


class Changed(Message, frozen=True):
    pass


class Store(MessageService):
    async def on_start(self) -> None:
        assert_type(await self.call("other", Get(b"k")), Got)

    def on_stop(self) -> Deferred[None]:
        return Deferred()

    @handles(Get)
    def on_get(self, message: Get) -> Got:
        assert_type(message.key, bytes)
        return Got(message.key)

    @handles(Find)
    async def on_find(self, message: Find, delivery: Delivery) -> Got | None:
        if delivery.sender is not None:
            self.send(delivery.sender, Changed())
        return await self.call("other", message)


assert_type(Store.on_get(Store(), Get(b"k")), Got)


async def use(node: Node, future: concurrent.futures.Future[int], task: asyncio.Task[str]) -> None:
    assert_type(node.call("store", Get(b"k")), Deferred[Got])
    assert_type(node.call(node.handle("store"), Find(b"k"), 5), Deferred[Got | None])
    assert_type(node.call("store", Clear()), Deferred[None])
    assert_type(node.call_or_none("store", Get(b"k")), Deferred[Got | None])
    assert_type(node.send("store", Changed()), int)
    assert_type(node.from_thread.call("store", Get(b"k")), Got)
    assert_type(await node.execute_async(int, "7"), int)
    assert_type(await node.await_future(future), int)
    assert_type(await node.await_future(task), str)
    node.call("store", Changed())  # type: ignore[arg-type]
    node.send("store", b"k")  # type: ignore[arg-type]
    node.execute_async(int, nothing=True)  # type: ignore[arg-type]
    Get(b"k").key = b"l"  # type: ignore[misc]
