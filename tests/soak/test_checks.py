"""The checks of the long test find what they are there to find."""

from __future__ import annotations

import pytest

from tests.soak.history import Broken, Registers
from tests.soak.ledger import Ledger
from tests.soak.linearizability import Read, Write
from tests.soak.report import Report
from tests.soak.resources import Sample, what_grew
from tests.soak.truth import Fact
from tests.soak.watching import Expectation
from twisted_etcd.client.position import WatchBatch
from twisted_etcd.schema.kv import Event, EventType, KeyValue

A, B = Fact("a", "1"), Fact("b", "2")


def batch(*events: tuple[int, Fact]) -> WatchBatch:
    made = tuple(
        Event(
            type=EventType.DELETE if fact.value is None else EventType.PUT,
            kv=KeyValue(key=fact.key.encode(), value=(fact.value or "").encode(), mod_revision=revision),
        )
        for revision, fact in events
    )
    return WatchBatch(made, events[-1][0])


# --- registers ------------------------------------------------------------------------------------------------------


def test_a_read_of_what_was_acknowledged_is_in_order() -> None:
    registers = Registers(("k",))
    write = registers.call("k", Write("1"))
    registers.done(write, Write("1"))
    read = registers.call("k", None)
    registers.done(read, Read("1"))
    assert registers.checked == 2


def test_a_stale_read_is_found() -> None:
    registers = Registers(("k",))
    registers.done(registers.call("k", Write("1")), Write("1"))
    read = registers.call("k", None)
    with pytest.raises(Broken, match="register k is not linearizable"):
        registers.done(read, Read(None))


def test_a_read_of_what_was_certainly_not_applied_is_found() -> None:
    registers = Registers(("k",))
    registers.not_applied(registers.call("k", Write("1")))
    with pytest.raises(Broken, match="not linearizable"):
        registers.done(registers.call("k", None), Read("1"))


@pytest.mark.parametrize("seen", [None, "1"])
def test_what_may_have_been_applied_may_be_seen_or_not(seen: str | None) -> None:
    registers = Registers(("k",))
    registers.unknown(registers.call("k", Write("1")))
    registers.done(registers.call("k", None), Read(seen))
    assert registers.checked == 1


def test_nothing_is_judged_before_what_came_earlier_is_known() -> None:
    registers = Registers(("k",))
    write = registers.call("k", Write("1"))
    registers.done(registers.call("k", None), Read("1"))
    assert registers.checked == 0
    registers.unknown(write)
    assert registers.checked == 1


# --- the ledger -----------------------------------------------------------------------------------------------------


def test_an_acknowledged_write_is_looked_for_whichever_comes_first() -> None:
    ledger = Ledger()
    ledger.acknowledged(5, A)
    assert ledger.missing == 1
    ledger.happened(5, (A,))
    ledger.happened(6, (B,))
    ledger.acknowledged(6, B)
    assert (ledger.missing, ledger.checked) == (0, 2)


def test_an_acknowledged_write_that_is_another_is_found() -> None:
    ledger = Ledger()
    ledger.acknowledged(5, A)
    with pytest.raises(Broken, match="revision 5 was acknowledged as"):
        ledger.happened(5, (B,))


def test_half_of_a_transaction_is_found() -> None:
    ledger = Ledger()
    ledger.happened(5, (A,))
    with pytest.raises(Broken, match="revision 5"):
        ledger.acknowledged(5, A, B)


def test_puts_that_share_a_revision_are_each_found_in_it() -> None:
    ledger = Ledger()
    ledger.acknowledged(5, A, in_company=True)
    ledger.acknowledged(5, B, in_company=True)
    assert ledger.missing == 2
    ledger.happened(5, (A, B))
    ledger.acknowledged(5, A, in_company=True)
    assert (ledger.missing, ledger.checked) == (0, 3)


def test_a_put_that_is_not_in_its_revision_is_told_whoever_shares_that() -> None:
    ledger = Ledger()
    ledger.happened(5, (A,))
    with pytest.raises(Broken):
        ledger.acknowledged(5, B, in_company=True)


def test_a_refused_write_that_was_applied_is_found_whichever_comes_first() -> None:
    first, last = Ledger(), Ledger()
    first.refused("1")
    with pytest.raises(Broken, match="certainly not applied, and etcd has it"):
        first.happened(5, (A,))
    last.happened(5, (A,))
    with pytest.raises(Broken, match="certainly not applied, and etcd has it"):
        last.refused("1")


# --- watches --------------------------------------------------------------------------------------------------------


def test_a_watch_is_compared_whichever_comes_first() -> None:
    expectation = Expectation("w", 5)
    expectation.happened(4, (A,))
    expectation.delivered(batch((5, A)))
    expectation.happened(5, (A,))
    expectation.happened(6, (A, B))
    assert expectation.missing == 1
    expectation.delivered(batch((6, A), (6, B)))
    assert (expectation.missing, expectation.events) == (0, 3)


@pytest.mark.parametrize(
    "delivered",
    [
        [batch((6, B))],
        [batch((5, A)), batch((5, A))],
        [batch((5, B))],
        [batch((5, Fact("a", None)))],
        [batch((5, A), (5, B))],
        [batch((6, B), (5, A))],
    ],
    ids=["missed", "twice", "another", "deleted", "too-much", "out-of-order"],
)
def test_a_watch_that_delivers_something_else_is_found(delivered: list[WatchBatch]) -> None:
    expectation = Expectation("w", 5)
    expectation.happened(5, (A,))
    expectation.happened(6, (B,))
    for each in delivered[:-1]:
        expectation.delivered(each)
    with pytest.raises(Broken, match="w delivered"):
        expectation.delivered(delivered[-1])


def test_half_of_a_revision_is_found() -> None:
    expectation = Expectation("w", 5)
    expectation.happened(5, (A, B))
    with pytest.raises(Broken, match="w delivered"):
        expectation.delivered(batch((5, A)))


def test_what_was_compacted_is_not_waited_for() -> None:
    expectation = Expectation("w", 5)
    expectation.happened(5, (A,))
    expectation.happened(8, (B,))
    expectation.skip_to(7)
    expectation.delivered(batch((8, B)))
    assert (expectation.missing, expectation.events) == (0, 1)


# --- figures --------------------------------------------------------------------------------------------------------


def test_growth_is_found() -> None:
    flat = [Sample(memory=50.0, sockets=30, calls=5)] * 12
    assert what_grew(flat) == []
    assert what_grew(flat[:6] + [Sample(memory=90.0, sockets=130, calls=105)] * 6) == [
        "memory in MiB went from 50 to 90",
        "open files went from 30 to 130",
        "delayed calls went from 5 to 105",
    ]


def test_a_time_without_service_counts_for_the_fault_during_which_it_began() -> None:
    report = Report(0.0)
    report.served("reads", 1.0)
    report.fault_began("kill")
    report.healed()
    report.served("reads", 4.5)
    report.served("reads", 5.0)
    longest = report.as_json()["longest"]
    assert longest == {"(calm): reads": 1.0, "kill: reads": 3.5}
