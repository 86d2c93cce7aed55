"""A service of a node, asked how it is."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred

from tests.messaging.common import PENDING, TurningClock, failure_of, node_of, peek, result_of
from twisted_etcd.messaging.messages import Message, Request
from twisted_etcd.messaging.routes import handles
from twisted_etcd.messaging.service import MessageService
from twisted_etcd.registry.health.result import CheckResult
from twisted_etcd.registry.instance import Status
from twisted_etcd.services.checks import MessageCheck

PASSING, WARNING, CRITICAL = Status


class Stock(Message, frozen=True):
    pieces: int


class CountStock(Request[Stock], frozen=True):
    """Count."""


class Store(MessageService):
    def __init__(self) -> None:
        super().__init__("Store")
        self.answer: Stock | Deferred[Stock] | Exception = Stock(3)

    @handles(CountStock)
    def on_count(self, _: CountStock) -> Stock | Deferred[Stock]:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class World:
    def __init__(self) -> None:
        self.clock = TurningClock()
        self.store = Store()
        self.node = node_of(self.clock, self.store)
        self.settle()

    def settle(self) -> None:
        for _ in range(5):
            self.clock.turn()

    def look(self, check: MessageCheck[Stock]) -> CheckResult:
        looking = check.check()
        self.settle()
        return result_of(looking)


def enough(stock: Stock) -> Status:
    return PASSING if stock.pieces > 1 else WARNING


def test_every_answer_passes_unless_it_is_judged() -> None:
    world = World()
    assert world.look(MessageCheck(world.node, "Store", CountStock())) == CheckResult(PASSING)
    judging = MessageCheck(world.node, "Store", CountStock(), enough)
    assert world.look(judging).status is PASSING
    world.store.answer = Stock(1)
    assert world.look(judging).status is WARNING
    assert result_of(world.node.stopService()) is None


def test_a_service_that_fails_or_is_not_there_has_failed() -> None:
    world = World()
    world.store.answer = ValueError("it burns")
    result = world.look(MessageCheck(world.node, "Store", CountStock()))
    assert result == CheckResult(CRITICAL, "ValueError: it burns")
    result = world.look(MessageCheck(world.node, "Shop", CountStock()))
    assert result.status is CRITICAL
    assert result.why.startswith("ServiceNotFound: no service is named 'Shop'")
    assert result_of(world.node.stopService()) is None
    result = world.look(MessageCheck(world.node, "Store", CountStock()))
    assert result.status is CRITICAL
    assert result.why.startswith("ServiceUnavailable: ")


def test_cancelling_it_cancels_the_handler() -> None:
    world = World()
    waiting: Deferred[Stock] = Deferred()
    world.store.answer = waiting
    looking = MessageCheck(world.node, "Store", CountStock()).check()
    world.settle()
    assert peek(looking) is PENDING
    looking.cancel()
    failure_of(looking, CancelledError)
    world.settle()
    assert waiting.called
    assert result_of(world.node.stopService()) is None


def test_its_repr_names_the_service_and_the_message() -> None:
    world = World()
    assert repr(MessageCheck(world.node, "Store", CountStock())) == "<MessageCheck Store: CountStock>"
    by_handle = MessageCheck(world.node, world.node.handle("Store"), CountStock())
    assert repr(by_handle) == "<MessageCheck Store: CountStock>"
    assert result_of(world.node.stopService()) is None
