"""What only a node has: messages, and services that answer them while etcd is slow."""

from __future__ import annotations

import time
from array import array
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

from twisted.internet.defer import Deferred

from benchmarks.clients.client import Client
from benchmarks.clients.reactor_loop import ReactorLoop
from benchmarks.clients.scenarios import KEYS, Figures, Ready, closed_loop, key_of
from benchmarks.measuring import MICROSECOND, MILLISECOND, percentile
from twisted_etcd import ETCD_SERVICE, EtcdGetReq, Message, MessageService, Node, Request, handles

#: Seconds between two messages while etcd is late.
_EVERY = 0.01
#: How many gets wait for the late etcd at a time.
_WAITING = 4


class Echoed(Message, frozen=True):
    """Answers :class:`Echo`."""

    text: str


class Echo(Request[Echoed], frozen=True):
    """Say it again."""

    text: str


class Echoer(MessageService):
    """Answers at once."""

    @handles(Echo)
    def on_echo(self, message: Echo) -> Echoed:
        """See the message."""
        return Echoed(message.text)


class ClientInReactor(Client, Protocol):
    """A client with a service that answers ``EtcdGetReq``, for a node."""

    @property
    def loop(self) -> ReactorLoop:
        """The reactor."""
        ...

    def service(self) -> MessageService:
        """A service by the name of ``EtcdService``."""
        ...


@asynccontextmanager
async def running_node(loop: ReactorLoop, *services: MessageService) -> AsyncIterator[Node]:
    """A node with these services, while they run."""
    node = Node(loop.reactor)
    for service in services:
        service.setServiceParent(node)
    node.startService()
    await node.when_started()
    try:
        yield node
    finally:
        await node.stopService()


async def messages(client: ClientInReactor, _: Ready, *, callers: int, span: float, warm_up: float) -> Figures:
    """Round trips through a node; ``p50`` and ``p99`` in µs."""
    echo = Echo("hello")
    async with running_node(client.loop, Echoer()) as node:
        figures = await closed_loop(client, lambda _number: node.call("Echoer", echo), callers, span, warm_up)
    for name in ("p50", "p99"):
        figures[name] = (figures[name] or 0.0) * MILLISECOND / MICROSECOND
    return figures


async def service_get(
    client: ClientInReactor, _: Ready, *, prefix: str, callers: int, span: float, warm_up: float
) -> Figures:
    """Gets through ``EtcdService``, and straight from its client in turns with them."""
    names = [key_of(prefix, number) for number in range(KEYS)]
    rates: dict[str, float] = {"rate": 0.0, "direct": 0.0}
    async with running_node(client.loop, client.service()) as node:

        def by_message(number: int) -> Deferred[object]:
            return node.call(ETCD_SERVICE, EtcdGetReq(names[number % KEYS]))  # type: ignore[return-value]

        for name in ("direct", "rate") * 2:
            operation = by_message if name == "rate" else lambda number: client.get(names[number % KEYS])
            figures = await closed_loop(client, operation, callers, span / 2, warm_up)
            rates[name] += (figures["rate"] or 0.0) / 2
    return {**rates, "share": rates["rate"] / rates["direct"]}


async def late(client: ClientInReactor, _: Ready, *, span: float) -> Figures:
    """Messages through a node every 10 ms, from when each was due, while gets wait for an etcd that answers late."""
    delays = array("d")
    end = time.perf_counter() + span
    async with running_node(client.loop, Echoer(), client.service()) as node:

        async def ask_etcd() -> None:
            while time.perf_counter() < end:
                await node.call(ETCD_SERVICE, EtcdGetReq("late"))

        async def ask_echoer() -> None:
            due = time.perf_counter()
            while due < end:
                await client.loop.sleep(max(0.0, due - time.perf_counter()))
                await node.call("Echoer", Echo("hello"))
                delays.append(time.perf_counter() - due)
                due += _EVERY

        await client.loop.gather([ask_echoer(), *(ask_etcd() for _ in range(_WAITING))])
    return {"p50": percentile(delays, 0.5) / MILLISECOND, "p99": percentile(delays, 0.99) / MILLISECOND}


#: By name, beside those of :mod:`benchmarks.clients.scenarios`.
NODE_SCENARIOS = {"messages": messages, "service_get": service_get, "late": late}
