"""Which instance is connected to, and what becomes of those that are not, by a clock and in memory."""

from __future__ import annotations

from typing import Any, cast

import pytest
from twisted.internet import error
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure

from tests.endpoints.known import Known
from tests.endpoints.peers import Peers
from tests.messaging.common import PENDING, failure_of, peek, result_of
from twisted_etcd.endpoints.client import EtcdClientEndpoint
from twisted_etcd.endpoints.failures import ConnectFailed, NoInstance
from twisted_etcd.errors import InvalidSettings, TwistedEtcdError, Unavailable
from twisted_etcd.registry.choice import RoundRobin, Use
from twisted_etcd.registry.instance import Instance, Status

A, B, C = (Instance(address=f"10.0.0.{number}", port=80) for number in (1, 2, 3))


class Calling:
    """An endpoint, and a network that is the test's."""

    def __init__(self, known: Known, **options: Any) -> None:  # noqa: ANN401 - as the endpoint has them
        self.network = MemoryReactorClock()
        self.known = known
        self.peers = Peers()
        self.endpoint = EtcdClientEndpoint(
            cast("Any", self.network), known, "shop", **{"random": lambda: 0.5, **options}
        )
        self._answered = 0

    def connect(self) -> Deferred[Any]:
        return self.endpoint.connect(cast("Any", self.peers))

    @property
    def attempts(self) -> list[str]:
        """Where it was tried, in the order of the attempts."""
        return [host for host, *_ in self.network.tcpClients]

    def _next(self) -> tuple[Any, Any]:
        factory = self.network.tcpClients[self._answered][2]
        connector = self.network.connectors[self._answered]
        self._answered += 1
        return factory, connector

    def refuse(self) -> None:
        """The oldest attempt that was not answered yet."""
        factory, connector = self._next()
        factory.clientConnectionFailed(connector, Failure(error.ConnectionRefusedError()))

    def accept(self) -> Any:  # noqa: ANN401 - what stands at the transport
        factory, _ = self._next()
        line = factory.buildProtocol(None)
        line.makeConnection(StringTransport())
        return line

    def leave(self) -> None:
        """It is not answered at all."""
        self._next()


def test_they_are_connected_to_in_turn() -> None:
    calling = Calling(Known(A, B), idle=7.0)
    for _ in range(3):
        connected = calling.connect()
        calling.accept()
        assert result_of(connected) is calling.peers.peers[-1]
    assert calling.attempts == ["10.0.0.1", "10.0.0.2", "10.0.0.1"]
    assert calling.known.asked == [("shop", 7.0)] * 3


def test_where_a_connection_fails_the_next_one_is_tried() -> None:
    calling = Calling(Known(A, B, C))
    connected = calling.connect()
    calling.refuse()
    calling.refuse()
    assert peek(connected) is PENDING
    calling.accept()
    assert result_of(connected) is calling.peers.peers[0]
    assert sorted(calling.attempts) == ["10.0.0.1", "10.0.0.2", "10.0.0.3"]


def test_where_all_fail_each_is_named_with_why() -> None:
    calling = Calling(Known(A, B))
    connected = calling.connect()
    calling.refuse()
    calling.refuse()
    failed = failure_of(connected, ConnectFailed)
    assert isinstance(failed, error.ConnectError)
    assert isinstance(failed, TwistedEtcdError)
    assert not isinstance(failed, NoInstance)
    assert failed.service == "shop"
    assert list(failed.tried) == ["10.0.0.1:80", "10.0.0.2:80"]
    assert str(failed).startswith("service 'shop': no instance can be connected to; 10.0.0.1:80: Connection was refuse")
    assert "10.0.0.2:80: Connection was refused" in str(failed)
    assert calling.known.held == 0
    assert calling.network.getDelayedCalls() == []


def test_who_failed_is_left_alone_for_a_while_and_then_tried_again() -> None:
    calling = Calling(Known(A, B))
    first = calling.connect()
    calling.refuse()
    calling.accept()
    result_of(first)
    for _ in range(3):
        connected = calling.connect()
        calling.accept()
        result_of(connected)
    assert calling.attempts[1:] == ["10.0.0.2"] * 4
    calling.network.advance(1.1)
    for _ in range(2):
        connected = calling.connect()
        calling.accept()
        result_of(connected)
    assert sorted(calling.attempts[5:]) == ["10.0.0.1", "10.0.0.2"]


def test_where_there_is_no_other_one_who_failed_is_tried_at_once() -> None:
    calling = Calling(Known(A))
    failed = calling.connect()
    calling.refuse()
    failure_of(failed, ConnectFailed)
    connected = calling.connect()
    calling.accept()
    assert result_of(connected) is calling.peers.peers[0]


def test_one_that_does_not_answer_does_not_use_up_the_time_of_the_others() -> None:
    calling = Calling(Known(A, B), timeout=8.0)
    connected = calling.connect()
    calling.leave()
    calling.network.advance(3.9)
    assert len(calling.attempts) == 1
    calling.network.advance(0.2)
    calling.accept()
    assert result_of(connected) is calling.peers.peers[0]
    # With much time it is five seconds.
    calling = Calling(Known(A, B), timeout=100.0)
    calling.connect().addErrback(lambda _: None)
    calling.network.advance(5.1)
    assert len(calling.attempts) == 2


def test_when_the_time_is_over_it_says_what_was_tried() -> None:
    calling = Calling(Known(A, B), timeout=8.0)
    connected = calling.connect()
    calling.network.advance(4.0)
    calling.network.advance(4.0)
    failed = failure_of(connected, ConnectFailed)
    assert str(failed) == (
        "service 'shop': no connection in 8 s; 10.0.0.1:80: no connection in 4 s; 10.0.0.2:80: no connection in 4 s"
    )
    assert calling.network.getDelayedCalls() == []


def test_cancelled_it_gives_the_attempt_up() -> None:
    calling = Calling(Known(A, B))
    connected = calling.connect()
    connected.cancel()
    failure_of(connected, CancelledError)
    assert calling.network.connectors[0].stoppedConnecting
    assert len(calling.attempts) == 1
    assert calling.known.held == 0
    assert calling.network.getDelayedCalls() == []


# --- no instance ----------------------------------------------------------------------------------------------------


def test_without_an_instance_it_fails_at_once_and_says_why() -> None:
    calling = Calling(Known())
    failed = failure_of(calling.connect(), NoInstance)
    assert str(failed) == "service 'shop': no instance is registered"
    assert isinstance(failed, error.ConnectError)
    assert calling.known.held == 0


def test_with_a_wait_it_takes_the_first_one_that_comes() -> None:
    calling = Calling(Known(), wait=3.0)
    connected = calling.connect()
    calling.network.advance(2.0)
    calling.known.becomes()
    assert peek(connected) is PENDING
    calling.known.becomes(B)
    calling.accept()
    assert result_of(connected) is calling.peers.peers[0]
    assert calling.network.getDelayedCalls() == []


def test_with_a_wait_it_also_waits_for_another_one_where_all_failed() -> None:
    calling = Calling(Known(A), wait=3.0)
    connected = calling.connect()
    calling.refuse()
    calling.known.becomes(B)
    calling.accept()
    assert result_of(connected) is calling.peers.peers[0]
    assert calling.attempts == ["10.0.0.1", "10.0.0.2"]


def test_with_a_wait_a_service_that_is_followed_no_longer_is_followed_anew() -> None:
    calling = Calling(Known(), wait=3.0)
    connected = calling.connect()
    calling.known.ends()
    calling.network.advance(0.001)
    # One after the other, with a pause between them, for as long as it ends at once.
    assert len(calling.known.asked) == 1
    calling.network.advance(0.05)
    assert len(calling.known.asked) == 2
    calling.known.over = False
    calling.network.advance(0.2)
    calling.known.becomes(A)
    calling.accept()
    assert result_of(connected) is calling.peers.peers[0]
    assert calling.known.held == 1


def test_the_wait_ends_while_what_is_followed_ends_again_and_again() -> None:
    calling = Calling(Known(), wait=3.0)
    connected = calling.connect()
    calling.known.ends()
    for _ in range(40):
        calling.network.advance(0.1)
    failure_of(connected, NoInstance)
    assert len(calling.known.asked) < 30
    assert calling.known.held == 0


def test_the_wait_ends() -> None:
    calling = Calling(Known(), wait=3.0)
    connected = calling.connect()
    calling.network.advance(2.9)
    assert peek(connected) is PENDING
    calling.network.advance(0.2)
    failure_of(connected, NoInstance)
    calling = Calling(Known(), wait=3.0, timeout=1.0)
    connected = calling.connect()
    calling.network.advance(1.1)
    failure_of(connected, NoInstance)
    assert calling.network.getDelayedCalls() == []


def test_only_those_with_all_the_tags_are_taken() -> None:
    tagged = Instance(address="10.0.0.9", port=80, tags=("v2", "west"))
    half = Instance(address="10.0.0.8", port=80, tags=("v2",))
    calling = Calling(Known(A, half, tagged), tags=["west", "v2"])
    calling.connect().addErrback(lambda _: None)
    assert calling.attempts == ["10.0.0.9"]
    calling = Calling(Known(A, half), tags=["west", "v2"])
    failed = failure_of(calling.connect(), NoInstance)
    assert str(failed) == "service 'shop': none of its 2 instances has the tags v2, west"


def test_none_that_is_critical_is_taken() -> None:
    critical = Instance(address="10.0.0.9", port=80, status=Status.CRITICAL)
    warning = Instance(address="10.0.0.8", port=80, status=Status.WARNING)
    calling = Calling(Known(critical, warning))
    calling.connect().addErrback(lambda _: None)
    assert calling.attempts == ["10.0.0.8"]
    failed = failure_of(Calling(Known(critical)).connect(), NoInstance)
    assert str(failed) == "service 'shop': all instances are critical (1)"


# --- etcd away ------------------------------------------------------------------------------------------------------


def test_where_etcd_was_never_reached_it_says_why() -> None:
    calling = Calling(Known(loaded=False))
    connected = calling.connect()
    calling.known.fails(Unavailable("nobody listens"))
    failed = failure_of(connected, NoInstance)
    assert str(failed) == "service 'shop': its instances are not known: nobody listens"
    assert calling.known.held == 0


def test_an_etcd_that_says_nothing_is_not_waited_for_longer_than_the_time_there_is() -> None:
    calling = Calling(Known(loaded=False), timeout=3.0)
    connected = calling.connect()
    calling.network.advance(3.1)
    failed = failure_of(connected, NoInstance)
    assert str(failed) == "service 'shop': its instances are not known: etcd has not answered yet"
    assert calling.network.getDelayedCalls() == []


def test_with_a_wait_etcd_is_asked_again() -> None:
    calling = Calling(Known(A, loaded=False), wait=3.0)
    connected = calling.connect()
    calling.known.fails(Unavailable("nobody listens"))
    calling.network.advance(0.1)
    assert len(calling.known.asked) == 2
    calling.known.loading.fire(None)
    calling.accept()
    assert result_of(connected) is calling.peers.peers[0]


def test_the_wait_for_etcd_ends_too() -> None:
    calling = Calling(Known(A, loaded=False), wait=1.0)
    connected = calling.connect()
    for _ in range(100):
        if peek(connected) is not PENDING:
            break
        calling.known.fails(Unavailable("nobody listens"))
        calling.network.advance(0.3)
    assert "nobody listens" in str(failure_of(connected, NoInstance))
    assert calling.known.held == 0


@pytest.mark.parametrize("silent", [False, True])
def test_while_etcd_is_away_those_that_were_known_last_are_taken(silent: bool) -> None:  # noqa: FBT001 - pytest's
    calling = Calling(Known(A, B))
    first = calling.connect()
    calling.accept().connectionLost(Failure(error.ConnectionLost()))
    result_of(first)
    assert calling.known.held == 0
    # What was followed has been let go, and etcd cannot be asked any more.
    calling.known.fails(Unavailable("nobody listens"))
    connected = calling.connect()
    if silent:
        calling.network.advance(1.1)
    else:
        calling.known.fails(Unavailable("nobody listens"))
    calling.accept()
    assert result_of(connected) is calling.peers.peers[1]


# --- the use of a view ----------------------------------------------------------------------------------------------


def test_the_service_is_followed_for_as_long_as_there_is_a_connection() -> None:
    calling = Calling(Known(A))
    connected = calling.connect()
    line = calling.accept()
    result_of(connected)
    assert calling.known.held == 1
    line.dataReceived(b"some")
    line.connectionLost(Failure(error.ConnectionLost()))
    assert calling.known.held == 0
    [peer] = calling.peers.peers
    assert (bytes(peer.data), peer.lost is not None) == (b"some", True)


def test_a_choice_that_counts_uses_is_told_of_each_from_the_attempt_to_the_end_of_the_connection() -> None:
    uses: list[str] = []

    class Counting(RoundRobin):
        def begin(self, instance: Instance) -> Use:
            uses.append(instance.address)
            return Use(instance, lambda: uses.remove(instance.address))

    calling = Calling(Known(A, B), choice=Counting())
    connected = calling.connect()
    assert uses == ["10.0.0.1"]
    calling.refuse()
    assert uses == ["10.0.0.2"]
    line = calling.accept()
    result_of(connected)
    cancelled = calling.connect()
    assert len(uses) == 2
    cancelled.cancel()
    failure_of(cancelled, CancelledError)
    assert uses == ["10.0.0.2"]
    line.connectionLost(Failure(error.ConnectionLost()))
    assert uses == []


# --- the factory ----------------------------------------------------------------------------------------------------


def test_a_factory_that_has_no_protocol_is_the_fault_of_no_instance() -> None:
    class Refusing(Factory):
        noisy = False

        def buildProtocol(self, _addr: object) -> None:
            return None

    calling = Calling(Known(A, B))
    connected = calling.endpoint.connect(cast("Any", Refusing()))
    calling._next()[0].buildProtocol(None)  # noqa: SLF001 - a helper of this test's
    failure_of(connected, error.NoProtocol)
    assert calling.attempts == ["10.0.0.1"]
    assert A.endpoint not in calling.endpoint.avoided
    assert calling.known.held == 0


def test_a_name_that_cannot_be_one_is_refused() -> None:
    with pytest.raises(InvalidSettings, match="service name 'a/b' cannot be used"):
        EtcdClientEndpoint(cast("Any", MemoryReactorClock()), Known(), "a/b")
