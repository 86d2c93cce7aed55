"""Messages from one sender to one target arrive in order, whatever happens in between."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred

from tests.messaging.common import TurningClock, node_of
from twisted_etcd.messaging.delivery import Delivery
from twisted_etcd.messaging.messages import Message, Request
from twisted_etcd.messaging.routes import handles
from twisted_etcd.messaging.service import MessageService

NAMES = ("a", "b", "c")


class Numbered(Request[None], frozen=True):
    number: int
    #: Whether the handler is to wait.
    waits: bool = False


class Relay(Message, frozen=True):
    """Asks a service to send so many numbers to another."""

    target: str
    count: int


class Party(MessageService):
    def __init__(self, name: str, numbers: dict[tuple[str, str], int]) -> None:
        super().__init__(name)
        self.numbers = numbers
        self.got: dict[str, list[int]] = defaultdict(list)
        self.inside = False
        self.waiting: list[Deferred[None]] = []

    @handles(Numbered)
    async def on_numbered(self, message: Numbered, delivery: Delivery) -> None:
        assert not self.inside
        sender = delivery.sender.name if delivery.sender else "outside"
        self.got[sender].append(message.number)
        if message.waits:
            waiting: Deferred[None] = Deferred()
            self.waiting.append(waiting)
            await waiting

    @handles(Relay)
    def on_relay(self, message: Relay) -> None:
        self.inside = True
        for index in range(message.count):
            number = self.numbers[self.name, message.target]
            self.numbers[self.name, message.target] += 1
            if index % 2:
                self.call(message.target, Numbered(number, waits=True))
            else:
                self.send(message.target, Numbered(number))
        self.inside = False


class World:
    """Three services and the outside, each sending numbers to each."""

    def __init__(self) -> None:
        self.clock = TurningClock()
        #: How many numbers were sent, by sender and target.
        self.numbers: dict[tuple[str, str], int] = defaultdict(int)
        self.relays = 0
        self.parties = {name: Party(name, self.numbers) for name in NAMES}
        self.node = node_of(self.clock, *self.parties.values())

    def send(self, target: str) -> None:
        self.node.send(target, Numbered(self._next(target)))

    def call(self, target: str) -> None:
        self.node.call(target, Numbered(self._next(target), waits=True))

    def relay(self, name: str, target: str, count: int) -> None:
        self.relays += 1
        self.node.send(name, Relay(target=target, count=count))

    def turn(self) -> None:
        self.clock.turn()

    def release(self, name: str) -> None:
        """Let the last handler go on that waits."""
        if self.parties[name].waiting:
            self.parties[name].waiting.pop().callback(None)

    def settle(self) -> None:
        """Let everything arrive."""
        while self.node.statistics.delivered < sum(self.numbers.values()) + self.relays:
            self.turn()
        for name, party in self.parties.items():
            while party.waiting:
                self.release(name)

    def _next(self, target: str) -> int:
        number = self.numbers["outside", target]
        self.numbers["outside", target] += 1
        return number


PLACES = st.sampled_from(NAMES)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("send"), PLACES),
        st.tuples(st.just("call"), PLACES),
        st.tuples(st.just("relay"), PLACES, PLACES, st.integers(1, 150)),
        st.tuples(st.just("turn")),
        st.tuples(st.just("release"), PLACES),
    ),
    max_size=30,
)


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_messages_from_one_sender_to_one_target_arrive_in_order(steps: list[tuple[Any, ...]]) -> None:
    world = World()
    for what, *arguments in steps:
        getattr(world, what)(*arguments)
    world.settle()
    for name, party in world.parties.items():
        for sender in (*NAMES, "outside"):
            assert party.got[sender] == list(range(world.numbers[sender, name]))
    assert world.node.statistics.sessions_open == 0
    world.node.stopService()
    assert world.clock.getDelayedCalls() == []
