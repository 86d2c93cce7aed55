"""What is for the reactor's thread says so in another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.threads import deferToThread
from twisted.python import threadable

from tests.messaging.common import Echo, Echoer, Note, node_of
from twisted_etcd.client.client import EtcdClient
from twisted_etcd.messaging.node import Node
from twisted_etcd.reactor_thread import check_reactor_thread


@pytest.mark.parametrize(
    ("use", "words"),
    [
        (lambda client, _: client.get("k"), "EtcdClient, for KV.Range, was used outside the reactor's thread: use "),
        (lambda client, _: client.lease(5), "EtcdClient.lease was used outside .* a node's from_thread"),
        (lambda client, _: client.watch("k"), "EtcdClient.watch was used outside .*blockingCallFromThread"),
        (lambda _, node: node.send("Echoer", Note()), "send was used outside .*: use node.from_thread.send there"),
        (lambda _, node: node.call("Echoer", Echo()), "call was used outside .*: use node.from_thread.call there"),
    ],
    ids=["request", "lease", "watch", "send", "call"],
)
@ensureDeferred
async def test_another_thread_is_told_what_is_for_it(use: Callable[[EtcdClient, Node], object], words: str) -> None:
    client, node = EtcdClient(cast("Any", reactor)), node_of(cast("Any", reactor), Echoer())
    await node.when_started()
    with pytest.raises(RuntimeError, match=words):
        await deferToThread(use, client, node)
    await node.stopService()
    await client.stopService()


@ensureDeferred
async def test_the_reactors_thread_may() -> None:
    check_reactor_thread("this", "that")


@ensureDeferred
async def test_before_a_reactor_runs_every_thread_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threadable, "ioThread", None)
    check_reactor_thread("this", "that")
