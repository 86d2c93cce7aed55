"""The process that links the members of a cluster, without members."""

from __future__ import annotations

import os
import signal
from typing import cast

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import gatherResults
from twisted.internet.error import ConnectionRefusedError as Refused

from tests.wire import Listener, Peer, connect, soon
from twisted_etcd.embedded.process import ProcessReactor
from twisted_etcd.errors import ServiceStopped
from twisted_etcd.testing.peerlinks import PeerLinks


def new_links() -> PeerLinks:
    return PeerLinks(cast("ProcessReactor", reactor))


@pytest_twisted.ensureDeferred
async def test_what_connects_to_a_members_port_reaches_it_where_it_is() -> None:
    links, listener, peer = new_links(), Listener(), Peer()
    links.start()
    port = await soon(links.connect("a"))
    await soon(links.change("a", port=listener.port, pid=os.getpid()))
    await connect(port, peer)
    peer.socket.write(b"hello")
    await (await listener.peer()).until_received(b"hello")
    await peer.end()
    await listener.close()
    await soon(links.stop())


@pytest_twisted.ensureDeferred
async def test_a_member_that_is_isolated_loses_what_it_opened_and_what_was_opened_to_it() -> None:
    links, listener = new_links(), Listener()
    links.start()
    # This process plays the part of a, and nobody that of b.
    a, b = await soon(gatherResults([links.connect("a"), links.connect("b")]))
    await links.change("a", port=listener.port, pid=os.getpid())
    await links.change("b", port=listener.port)
    from_a, to_a = Peer(), Peer()
    await connect(b, from_a)
    await connect(a, to_a)
    await listener.peer(1)
    await soon(links.change("a", isolated=True))
    await from_a.until_lost()
    await to_a.until_lost()
    again = Peer()
    await connect(b, again)
    again.socket.write(b"hello")
    await soon(links.change("b", port=listener.port))
    # What changes is judged anew, and has it tried again.
    await again.until_lost()
    assert len(listener.peers) == 2
    await soon(links.change("a", isolated=False))
    back = Peer()
    await connect(b, back)
    await listener.peer(2)
    await back.end()
    await listener.close()
    await soon(links.stop())


@pytest_twisted.ensureDeferred
async def test_while_one_is_isolated_the_others_pass() -> None:
    links, listener = new_links(), Listener()
    links.start()
    port, *_ = await soon(gatherResults([links.connect("a"), links.connect("b"), links.connect("c")]))
    await links.change("a", port=listener.port)
    await links.change("b", pid=os.getpid())
    await soon(links.change("c", isolated=True))
    peer = Peer()
    await connect(port, peer)
    await listener.peer()
    assert peer.lost is None
    await peer.end()
    await listener.close()
    await soon(links.stop())


@pytest_twisted.ensureDeferred
async def test_a_link_that_was_taken_away_is_refused() -> None:
    links = new_links()
    links.start()
    port = await soon(links.connect("a"))
    await soon(links.disconnect("a"))
    await links.change("a", port=port)
    with pytest.raises(Refused):
        await connect(port, Peer())
    await soon(links.stop())


@pytest_twisted.ensureDeferred
async def test_a_process_that_ends_by_itself_fails_what_is_asked_of_it() -> None:
    links = new_links()
    links.start()
    await soon(links.connect("a"))
    assert links.pid is not None
    os.kill(links.pid, signal.SIGKILL)
    with pytest.raises(RuntimeError, match=r"^the process that links the members has ended: "):
        await soon(links.connect("b"))
    await links.stop()


@pytest_twisted.ensureDeferred
async def test_a_stop_ends_what_is_asked_for() -> None:
    links = new_links()
    links.start()
    asked, changed = links.connect("a"), links.change("a", isolated=True)
    stopped = links.stop()
    with pytest.raises(ServiceStopped):
        await links.connect("b")
    await soon(stopped)
    await changed
    # It may have been done before.
    asked.addErrback(lambda failure: failure.trap(ServiceStopped))
    assert links.pid is None
    await links.stop()
