"""Messages from one sender to one target arrive in order, whatever happens in between."""

from __future__ import annotations

from collections import defaultdict

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


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.sampled_from(NAMES), st.booleans(), st.integers(1, 3)),
        st.tuples(st.just("relay"), st.sampled_from(NAMES), st.sampled_from(NAMES), st.integers(1, 150)),
        st.tuples(st.just("turn"), st.none(), st.none(), st.none()),
        st.tuples(st.just("release"), st.sampled_from(NAMES), st.none(), st.none()),
    ),
    max_size=30,
)


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_messages_from_one_sender_to_one_target_arrive_in_order(steps: list[tuple[str, ...]]) -> None:
    clock = TurningClock()
    numbers: dict[tuple[str, str], int] = defaultdict(int)
    parties = {name: Party(name, numbers) for name in NAMES}
    node = node_of(clock, *parties.values())
    for what, name, argument, count in steps:
        if what == "send":
            for _ in range(int(count)):
                number = numbers["outside", name]
                numbers["outside", name] += 1
                if argument:
                    node.call(name, Numbered(number, waits=True))
                else:
                    node.send(name, Numbered(number))
        elif what == "relay":
            node.send(name, Relay(target=argument, count=int(count)))
        elif what == "turn":
            clock.turn()
        elif parties[name].waiting:
            parties[name].waiting.pop().callback(None)
    while node.statistics.delivered < sum(numbers.values()) + sum(step[0] == "relay" for step in steps):
        clock.turn()
    for name, party in parties.items():
        for sender, got in party.got.items():
            assert got == list(range(numbers[sender, name]))
    for party in parties.values():
        for waiting in party.waiting:
            waiting.callback(None)
    assert node.statistics.sessions_open == 0
    node.stopService()
    assert clock.getDelayedCalls() == []
