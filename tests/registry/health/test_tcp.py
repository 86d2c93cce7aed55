"""Connecting, to what listens, refuses and hangs."""

from __future__ import annotations

import socket
from typing import Any, cast

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory

from tests.wire import LOOPBACK, Listener, Peer, soon
from twisted_etcd.errors import InvalidSettings
from twisted_etcd.registry.health.result import CheckResult
from twisted_etcd.registry.health.tcp import TCPCheck
from twisted_etcd.registry.instance import Status

REACTOR = cast("Any", reactor)
GOOD = CheckResult(Status.PASSING, "a connection came about")


@pytest.mark.parametrize("host", [LOOPBACK, "localhost"])
@ensureDeferred
async def test_it_passes_where_somebody_listens_and_closes_the_connection(host: str) -> None:
    listener = Listener()
    check = TCPCheck(REACTOR, host, listener.port)
    assert await soon(check.check()) == GOOD
    peer = await listener.peer()
    await peer.until_lost()
    assert peer.data == b""
    assert await soon(check.check()) == GOOD
    await listener.close()


@ensureDeferred
async def test_it_passes_over_ipv6() -> None:
    port = REACTOR.listenTCP(0, Factory.forProtocol(Peer), interface="::1")
    check = TCPCheck(REACTOR, "::1", port.getHost().port)
    assert repr(check) == f"<TCPCheck [::1]:{port.getHost().port}>"
    assert await soon(check.check()) == GOOD
    await port.stopListening()


@pytest.mark.parametrize("host", [LOOPBACK, "localhost"])
@ensureDeferred
async def test_it_fails_where_nobody_listens(host: str) -> None:
    listener = Listener()
    await listener.close()
    result = await soon(TCPCheck(REACTOR, host, listener.port).check())
    assert result == CheckResult(Status.CRITICAL, "no connection: refused")


@ensureDeferred
async def test_it_fails_for_a_name_that_nobody_has() -> None:
    result = await soon(TCPCheck(REACTOR, "no-such-host.invalid", 80).check())
    assert result.status is Status.CRITICAL
    assert result.why.startswith("no connection: no such host name")


@ensureDeferred
async def test_cancelled_while_nothing_answers_it_leaves_nothing() -> None:
    # a queue of connections that nobody accepts, filled up: further ones get no answer
    full = socket.socket()
    full.bind((LOOPBACK, 0))
    full.listen(0)
    waiting = [socket.socket() for _ in range(3)]
    for each in waiting:
        each.setblocking(False)
        each.connect_ex(full.getsockname())
    looking = TCPCheck(REACTOR, LOOPBACK, full.getsockname()[1]).check()
    turn: Deferred[None] = Deferred()
    REACTOR.callLater(0.05, turn.callback, None)
    await turn
    assert not looking.called
    looking.cancel()
    assert (await soon(looking)).status is Status.CRITICAL
    for each in (full, *waiting):
        each.close()


@pytest.mark.parametrize(("host", "port"), [("", 80), ("h", 0), ("h", 65536), ("a b", 80), ("a/b", 80)])
def test_what_is_no_address_is_refused(host: str, port: int) -> None:
    with pytest.raises(InvalidSettings, match=r"service address .* "):
        TCPCheck(REACTOR, host, port)


@pytest.mark.parametrize(("host", "port"), [("h", "80"), (b"h", 80), ("h", True)])
def test_what_is_no_text_and_no_number_is_refused(host: Any, port: Any) -> None:  # noqa: ANN401 - wrong on purpose
    with pytest.raises(TypeError, match="a host is a text and a port a number"):
        TCPCheck(REACTOR, host, port)
