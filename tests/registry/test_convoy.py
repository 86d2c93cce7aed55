"""Operations that travel together."""

from __future__ import annotations

from functools import partial

import pytest
from twisted.internet.defer import Deferred

from tests.messaging.common import PENDING, failure_of, peek, result_of
from tests.scripted import Asked, ScriptedClient, done, header, put_of
from twisted_etcd.client import op
from twisted_etcd.errors import (
    AuthenticationFailed,
    LeaseNotFound,
    OutcomeUnknown,
    PermissionDenied,
    RequestTooLarge,
    ServiceStopped,
    Unavailable,
)
from twisted_etcd.registry.convoy import Convoy, Done
from twisted_etcd.schema.kv import TxnResponse

DENIED = PermissionDenied(7, "permission denied")
NO_LEASE = LeaseNotFound(5, "requested lease not found")
LARGE = RequestTooLarge(3, "request is too large")


class Travel:
    def __init__(self) -> None:
        self.etcd = ScriptedClient()
        self.convoy = Convoy(self.etcd.client)

    def put(self, path: str, *, lease: int = 1, size: int = 0) -> Deferred[Done]:
        return self.convoy.do(path, op.put(path, "v", lease=lease), lease=lease, size=size)

    def puts(self, *numbers: int, lease: int = 1) -> list[Deferred[Done]]:
        return [self.put(f"k{number}", lease=lease) for number in numbers]

    def sent(self) -> list[list[str]]:
        """The keys of each transaction that is under way."""
        return [put_of(asked)[0] for asked in self.etcd.asked]

    def take(self) -> Asked:
        return self.etcd.take("txn")

    def fill(self) -> None:
        """Let both lanes be taken."""
        self.put("first")
        self.put("second")


@pytest.fixture
def travel() -> Travel:
    return Travel()


def test_a_thousand_take_a_dozen_transactions_two_at_a_time(travel: Travel) -> None:
    puts = travel.puts(*range(1000))
    sizes = []
    while travel.etcd.asked:
        assert len(travel.etcd.asked) <= 2
        asked = travel.take()
        sizes.append(len(asked.options["success"]))
        done(asked, len(sizes))
    assert sizes == [1, 1, *[100] * 9, 98]
    assert [result_of(put).revision for put in puts][-1] == 12


def test_what_an_answer_leads_to_travels_together(travel: Travel) -> None:
    travel.fill()
    puts = travel.puts(1, 2, 3)

    def put_next(number: int, _: Done) -> None:
        travel.put(f"n{number}")

    done(travel.take(), 1)
    for number, put in enumerate(puts):
        put.addCallback(partial(put_next, number))
    done(travel.take(), 2)
    assert travel.sent() == [["k1", "k2", "k3"]]
    done(travel.take(), 3)
    assert travel.sent() == [["n0", "n1", "n2"]]


def test_operations_on_one_key_are_done_one_after_the_other_in_their_order(travel: Travel) -> None:
    travel.put("k1")
    travel.put("k1")
    travel.put("k2")
    travel.put("k1")
    travel.put("k3")
    assert travel.sent() == [["k1"], ["k2"]]
    done(travel.etcd.asked.pop(1), 1)
    assert travel.sent() == [["k1"], ["k3"]]
    done(travel.take(), 2)
    assert travel.sent() == [["k3"], ["k1"]]
    done(travel.etcd.asked.pop(1), 3)
    assert travel.sent() == [["k3"], ["k1"]]


def test_a_transaction_stays_below_its_size(travel: Travel) -> None:
    travel.fill()
    for number in range(3):
        travel.put(f"k{number}", size=300_000)
    done(travel.take(), 1)
    done(travel.take(), 2)
    assert travel.sent() == [["k0"], ["k1"]]


@pytest.mark.parametrize("error", [DENIED, LARGE])
def test_one_that_is_refused_does_not_keep_the_others_away(travel: Travel, error: Exception) -> None:
    travel.fill()
    puts = travel.puts(*range(100))
    done(travel.take(), 1)
    done(travel.take(), 2)
    requests = 0
    while travel.etcd.asked:
        asked = travel.take()
        requests += 1
        if "k42" in put_of(asked)[0]:
            asked.fails(error)
        else:
            done(asked, 10)
    assert requests == 15
    failure_of(puts.pop(42), type(error))
    assert all(result_of(put).revision == 10 for put in puts)


@pytest.mark.parametrize(
    "error", [Unavailable("away"), OutcomeUnknown("perhaps"), AuthenticationFailed(3, "no"), NO_LEASE]
)
def test_what_concerns_all_is_told_to_all(travel: Travel, error: Exception) -> None:
    travel.fill()
    puts = travel.puts(1, 2, 3)
    done(travel.take(), 1)
    travel.etcd.asked.pop(1).fails(error)
    assert [type(failure_of(put, type(error))) for put in puts] == [type(error)] * 3
    assert len(travel.etcd.asked) == 1


def test_a_lease_that_is_gone_concerns_those_alone_that_have_it(travel: Travel) -> None:
    travel.fill()
    alive, gone = travel.puts(1, 3, 5, lease=1), travel.puts(2, 4, lease=2)
    alive += travel.puts(6, lease=1)
    done(travel.take(), 1)
    done(travel.take(), 2)
    travel.take().fails(NO_LEASE)
    # By leases, in two transactions, however many there are of each.
    assert len(travel.etcd.asked) == 2
    done(travel.take(), 3)
    travel.take().fails(NO_LEASE)
    assert [result_of(put).revision for put in alive] == [3] * 4
    for put in gone:
        failure_of(put, LeaseNotFound)
    assert travel.etcd.asked == []


def test_an_answer_that_is_not_its_own_is_an_unknown_outcome(travel: Travel) -> None:
    put = travel.put("k")
    travel.take().answer.callback(TxnResponse(header=header(3), succeeded=True))
    failure_of(put, OutcomeUnknown)


def test_cancelled_before_it_is_sent_it_is_not_done_and_afterwards_nobody_is_told(travel: Travel) -> None:
    travel.fill()
    waiting, other = travel.puts(1, 2)
    waiting.addErrback(lambda _: None)
    waiting.cancel()
    done(travel.take(), 1)
    assert travel.sent() == [["second"], ["k2"]]
    other.addErrback(lambda _: None)
    other.cancel()
    done(travel.etcd.asked.pop(1), 2)


def test_the_stop_ends_all_of_it(travel: Travel) -> None:
    puts = travel.puts(1, 2, 3, 4)
    travel.take().fails(Unavailable("away"))
    failure_of(puts[0], Unavailable)
    assert peek(puts[2]) is PENDING
    travel.convoy.stop()
    assert all(asked.cancelled for asked in travel.etcd.asked)
    for put in [*puts[1:], travel.put("k9")]:
        failure_of(put, ServiceStopped)
