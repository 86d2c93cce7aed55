from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.soak import linearizability
from tests.soak.linearizability import (
    Effect,
    NotLinearizable,
    Read,
    RegisterSearch,
    SearchTooLarge,
    State,
    Swap,
    Write,
    applied,
)


class Call(msgspec.Struct, frozen=True):
    """An operation of a history; ``answered`` is None where its outcome is never known."""

    called: int
    answered: int | None
    effect: Effect


def search(calls: Sequence[Call]) -> RegisterSearch:
    """Tell a search the history of these calls; raises what it raises."""
    told = RegisterSearch()
    events = [(call.called, "called", number) for number, call in enumerate(calls)]
    events += [(call.answered, "answered", number) for number, call in enumerate(calls) if call.answered is not None]
    for _, what, number in sorted(events):
        call = calls[number]
        if what == "answered":
            told.answered(number)
        elif call.answered is None:
            told.called_in_doubt(number, call.effect)
        else:
            told.called(number, call.effect)
    return told


def is_linearizable(calls: Sequence[Call]) -> bool:
    try:
        search(calls)
    except NotLinearizable:
        return False
    return True


def explained_by_force(left: frozenset[Call], state: State) -> bool:
    """Try every order of the calls, and every choice of those in doubt."""
    if all(call.answered is None for call in left):
        return True
    for call in left:
        possible, after = applied(call.effect, state)
        too_early = any(other.answered is not None and other.answered < call.called for other in left - {call})
        if possible and not too_early and explained_by_force(left - {call}, after):
            return True
    return False


GOOD = {
    "one after the other": [
        Call(0, 1, Read(None)),
        Call(2, 3, Write("a")),
        Call(4, 5, Read("a")),
        Call(6, 7, Swap("a", "b")),
        Call(8, 9, Read("b")),
        Call(10, 11, Write(None)),
        Call(12, 13, Read(None)),
    ],
    "a read beside a write sees the old": [Call(0, 3, Write("a")), Call(1, 2, Read(None))],
    "a read beside a write sees the new": [Call(0, 3, Write("a")), Call(1, 2, Read("a"))],
    "writes beside each other, in the other order": [
        Call(0, 2, Write("a")),
        Call(1, 3, Write("b")),
        Call(4, 5, Read("a")),
    ],
    "a write in doubt that was applied": [Call(0, None, Write("a")), Call(1, 2, Read("a"))],
    "a write in doubt that was not": [Call(0, None, Write("a")), Call(1, 2, Read(None))],
    "a write in doubt that was applied much later": [
        Call(0, None, Write("a")),
        Call(1, 2, Write("b")),
        Call(3, 4, Read("b")),
        Call(5, 6, Read("a")),
    ],
    "two deletions in doubt, each seen": [
        Call(0, None, Write(None)),
        Call(1, None, Write(None)),
        Call(2, 3, Write("a")),
        Call(4, 5, Read(None)),
        Call(6, 7, Write("b")),
        Call(8, 9, Read(None)),
    ],
    "a chain of swaps in doubt, of which only the end is seen": [
        Call(0, None, Swap(None, "a")),
        Call(1, None, Swap("a", "b")),
        Call(2, 3, Read("b")),
    ],
}
BAD = {
    "a lost write": [Call(0, 1, Write("a")), Call(2, 3, Read(None))],
    "a stale read": [Call(0, 1, Write("a")), Call(2, 3, Write("b")), Call(4, 5, Read("a"))],
    "a value from nowhere": [Call(0, 1, Read("a"))],
    "reads that go back": [
        Call(0, 9, Write("a")),
        Call(1, 2, Read("a")),
        Call(3, 4, Read(None)),
    ],
    "a swap that must have failed": [Call(0, 1, Write("a")), Call(2, 3, Swap("b", "c"))],
    "two swaps from one value": [
        Call(0, 1, Write("a")),
        Call(2, 5, Swap("a", "b")),
        Call(3, 4, Swap("a", "c")),
    ],
    "a write in doubt that is seen twice": [
        Call(0, None, Write("a")),
        Call(1, 2, Read("a")),
        Call(3, 4, Write("b")),
        Call(5, 6, Read("a")),
    ],
    "one deletion in doubt, seen twice": [
        Call(0, None, Write(None)),
        Call(2, 3, Write("a")),
        Call(4, 5, Read(None)),
        Call(6, 7, Write("b")),
        Call(8, 9, Read(None)),
    ],
    "a write in doubt that is seen before its call": [Call(0, 1, Read("a")), Call(2, None, Write("a"))],
}


@pytest.mark.parametrize("calls", GOOD.values(), ids=GOOD)
def test_what_can_have_happened_is_linearizable(calls: list[Call]) -> None:
    assert explained_by_force(frozenset(calls), None)
    assert is_linearizable(calls)


@pytest.mark.parametrize("calls", BAD.values(), ids=BAD)
def test_what_cannot_have_happened_is_not(calls: list[Call]) -> None:
    assert not explained_by_force(frozenset(calls), None)
    assert not is_linearizable(calls)


@st.composite
def histories(draw: st.DrawFn) -> list[Call]:
    count = draw(st.integers(1, 6))
    moments = draw(st.permutations(range(2 * count)))
    values = st.sampled_from([None, "a", "b"])
    effects = st.one_of(st.builds(Write, values), st.builds(Read, values), st.builds(Swap, values, values))
    calls = []
    for first, second in zip(moments[::2], moments[1::2], strict=True):
        effect = draw(effects)
        in_doubt = not isinstance(effect, Read) and draw(st.integers(0, 3)) == 0
        calls.append(Call(min(first, second), None if in_doubt else max(first, second), effect))
    return calls


@settings(max_examples=1500, deadline=None)
@given(histories())
def test_the_search_finds_what_trying_every_order_finds(calls: list[Call]) -> None:
    assert is_linearizable(calls) == explained_by_force(frozenset(calls), None)


def test_the_evidence_ends_with_what_cannot_be_explained() -> None:
    with pytest.raises(NotLinearizable, match=r"#2 Read\(value='a'\)") as raised:
        search([Call(0, 1, Write("a")), Call(2, 3, Write("b")), Call(4, 5, Read("a"))])
    assert any("#2 answered" in line for line in raised.value.evidence)
    assert any("possible before" in line and "'b'" in line for line in raised.value.evidence)


def test_operations_in_doubt_that_nobody_saw_cost_nothing() -> None:
    calls = [Call(number, None, Write(f"lost {number}")) for number in range(300)]
    calls += [Call(1000 + 2 * number, 1001 + 2 * number, Write(f"kept {number}")) for number in range(300)]
    assert search(calls).most <= 3


def test_a_search_that_would_take_too_long_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linearizability, "MOST_CONFIGURATIONS", 100)
    with pytest.raises(SearchTooLarge, match="12 operations are under way"):
        search([Call(number, 100 + number, Write(str(number))) for number in range(12)])
