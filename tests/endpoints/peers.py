"""Servers that say who they are, and clients that listen to it."""

from __future__ import annotations

from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from tests.wire import Peer


class Greeter(Protocol):
    """Says a word to whoever connects."""

    def __init__(self, word: bytes) -> None:
        self._word = word

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(self._word)


class Greeters(Factory):
    noisy = False

    def __init__(self, word: bytes) -> None:
        self._word = word

    def buildProtocol(self, _addr: object) -> Greeter:
        return Greeter(self._word)


class Peers(Factory):
    """Makes peers, and keeps them."""

    noisy = False

    def __init__(self) -> None:
        self.peers: list[Peer] = []

    def buildProtocol(self, _addr: object) -> Peer:
        self.peers.append(Peer())
        return self.peers[-1]


class Counted(Protocol):
    """Counts what becomes of it."""

    made = 0
    lost = 0

    def connectionMade(self) -> None:
        self.made += 1

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost += 1
