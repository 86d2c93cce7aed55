"""Mailboxes: order, turns, and that nothing is handed over inside put."""

from __future__ import annotations

from twisted.internet.task import Clock

from tests.messaging.common import TurningClock
from twisted_etcd.messaging.mailbox import PER_TURN, Mailbox


def opened(clock: Clock, got: list[int]) -> Mailbox[int]:
    mailbox: Mailbox[int] = Mailbox(clock, got.append)
    mailbox.open()
    return mailbox


def test_nothing_is_handed_over_inside_put() -> None:
    clock = Clock()
    got: list[int] = []
    opened(clock, got).put(1)
    assert got == []
    clock.advance(0)
    assert got == [1]


def test_one_delayed_call_hands_over_all_that_waits() -> None:
    clock: Clock = Clock()
    got: list[int] = []
    mailbox = opened(clock, got)
    for number in range(10):
        mailbox.put(number)
    assert len(clock.getDelayedCalls()) == 1
    clock.advance(0)
    assert got == list(range(10))
    assert clock.getDelayedCalls() == []


def test_a_turn_is_bounded_and_the_rest_follows_in_order() -> None:
    clock = TurningClock()
    got: list[int] = []
    mailbox = opened(clock, got)
    total = 2 * PER_TURN + 5
    for number in range(total):
        mailbox.put(number)
    lengths = []
    for _ in range(3):
        clock.turn()
        lengths.append(len(got))
    assert lengths == [PER_TURN, 2 * PER_TURN, total]
    assert got == list(range(total))
    assert clock.getDelayedCalls() == []


def test_what_is_put_while_handing_over_waits_for_the_next_turn() -> None:
    clock = TurningClock()
    seen: list[int] = []

    def deliver(number: int) -> None:
        seen.append(number)
        if number < 2:
            mailbox.put(number + 2)

    mailbox: Mailbox[int] = Mailbox(clock, deliver)
    mailbox.open()
    mailbox.put(0)
    mailbox.put(1)
    clock.turn()
    assert seen == [0, 1]
    assert len(clock.getDelayedCalls()) == 1
    clock.turn()
    assert seen == [0, 1, 2, 3]


def test_a_mailbox_holds_what_comes_before_it_is_opened() -> None:
    clock = Clock()
    got: list[int] = []
    mailbox: Mailbox[int] = Mailbox(clock, got.append)
    mailbox.put(1)
    assert clock.getDelayedCalls() == []
    mailbox.open()
    assert got == []
    clock.advance(0)
    assert got == [1]


def test_a_closed_mailbox_gives_back_the_rest_and_leaves_no_delayed_call() -> None:
    clock = Clock()
    got: list[int] = []
    mailbox = opened(clock, got)
    mailbox.put(1)
    mailbox.put(2)
    assert mailbox.close() == [1, 2]
    assert clock.getDelayedCalls() == []


def test_closing_while_handing_over_stops_it() -> None:
    clock = Clock()
    got: list[int] = []
    left: list[int] = []

    def deliver(number: int) -> None:
        got.append(number)
        left.extend(mailbox.close())

    mailbox: Mailbox[int] = Mailbox(clock, deliver)
    mailbox.open()
    for number in range(3):
        mailbox.put(number)
    clock.advance(0)
    assert (got, left) == ([0], [1, 2])
    assert clock.getDelayedCalls() == []
