"""Changes gathered until it is quiet, at a clock of the test's."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock

from twisted_etcd.config.changes import ChangeType, ConfigChange, ConfigChanges, config_change
from twisted_etcd.config.quiescence import Quiescence, Quiet, checked_quiet
from twisted_etcd.errors import InvalidSettings


class Gathering:
    """A store of values whose changes are gathered."""

    def __init__(self, shortest: float, longest: float) -> None:
        self.clock = Clock()
        self.told: list[tuple[float, ConfigChanges]] = []
        self.quiescence = Quiescence(self.clock, Quiet(shortest, longest), self._tell)
        self.values: dict[str, bytes] = {}
        self.revision = 0
        self.held = False

    def _tell(self, changes: ConfigChanges) -> None:
        assert not self.held
        self.told.append((self.clock.seconds(), changes))

    def set(self, key: str, value: bytes | None) -> None:
        self.revision += 1
        old = self.values.get(key)
        if value is None:
            self.values.pop(key, None)
        else:
            self.values[key] = value
        self.quiescence.add([config_change(key, old, value, self.revision)])

    def wait(self, quarters: int) -> None:
        """So many quarters of a second pass, one by one."""
        self.clock.pump([0.25] * quarters)

    def shown(self) -> list[tuple[float, list[tuple[str, bytes | None, bytes | None]]]]:
        return [(at, [(c.key, c.old_value, c.new_value) for c in changes]) for at, changes in self.told]


def test_without_a_time_each_change_is_told_at_once() -> None:
    gathering = Gathering(0, 0)
    gathering.set("a", b"1")
    gathering.set("a", b"2")
    assert gathering.shown() == [(0, [("a", None, b"1")]), (0, [("a", b"1", b"2")])]
    assert gathering.clock.getDelayedCalls() == []


def test_what_comes_in_a_rush_is_told_once_it_is_quiet_as_the_net_of_it() -> None:
    gathering = Gathering(1, 10)
    gathering.set("a", b"1")
    gathering.wait(3)
    gathering.set("a", b"2")
    gathering.set("b", b"x")
    gathering.wait(3)
    assert gathering.told == []
    gathering.wait(1)
    assert gathering.shown() == [(1.75, [("a", None, b"2"), ("b", None, b"x")])]
    [(_, changes)] = gathering.told
    assert (changes.first_revision, changes.revision) == (1, 3)
    assert changes["a"].change_type is ChangeType.CREATED
    assert changes["a"].revision == 2


def test_what_never_is_quiet_is_told_at_the_longest_after_the_first() -> None:
    gathering = Gathering(1, 3)
    for number in range(8):
        gathering.set("a", str(number).encode())
        gathering.wait(2)
    assert gathering.shown() == [(3, [("a", None, b"5")])]
    gathering.wait(4)
    assert gathering.shown()[1:] == [(4.5, [("a", b"5", b"7")])]


def test_what_ended_as_it_began_is_left_out() -> None:
    gathering = Gathering(1, 3)
    gathering.values["a"] = b"1"
    gathering.set("a", b"2")
    gathering.set("b", b"x")
    gathering.set("a", b"1")
    gathering.clock.advance(1)
    assert gathering.shown() == [(1, [("b", None, b"x")])]
    gathering.set("c", b"")
    gathering.set("c", None)
    gathering.clock.advance(5)
    assert len(gathering.told) == 1
    assert gathering.clock.getDelayedCalls() == []


@pytest.mark.parametrize(
    ("steps", "change_type"),
    [
        ((None, b"1"), ChangeType.CREATED),
        ((b"1", b"2"), ChangeType.MODIFIED),
        ((b"1", None), ChangeType.DELETED),
        ((b"1", None, b"2"), ChangeType.MODIFIED),
        ((None, b"1", None, b"2"), ChangeType.CREATED),
        ((b"1", None, b"2", None), ChangeType.DELETED),
    ],
)
def test_the_kind_of_the_net_change_is_that_of_its_ends(
    steps: tuple[bytes | None, ...], change_type: ChangeType
) -> None:
    gathering = Gathering(1, 3)
    if steps[0] is not None:
        gathering.values["a"] = steps[0]
    for value in steps[1:]:
        gathering.set("a", value)
    gathering.clock.advance(1)
    assert gathering.told[0][1]["a"].change_type is change_type


def test_on_hold_it_goes_on_gathering_and_tells_what_is_due_when_it_is_released() -> None:
    gathering = Gathering(1, 3)
    gathering.held = True
    gathering.quiescence.hold()
    gathering.set("a", b"1")
    gathering.clock.advance(1)
    gathering.set("a", b"2")
    gathering.clock.advance(5)
    gathering.held = False
    gathering.quiescence.release()
    assert gathering.shown() == [(6, [("a", None, b"2")])]


def test_released_before_it_is_quiet_it_waits_for_that() -> None:
    gathering = Gathering(1, 5)
    gathering.held = True
    gathering.quiescence.hold()
    gathering.set("a", b"1")
    gathering.clock.advance(2)
    gathering.set("a", b"2")
    gathering.held = False
    gathering.quiescence.release()
    assert gathering.told == []
    gathering.clock.advance(1)
    assert gathering.shown() == [(3, [("a", None, b"2")])]


def test_stopped_it_tells_nothing_and_leaves_no_timer() -> None:
    gathering = Gathering(1, 3)
    gathering.set("a", b"1")
    gathering.quiescence.stop()
    gathering.set("a", b"2")
    gathering.quiescence.release()
    gathering.clock.advance(10)
    assert gathering.told == []
    assert gathering.clock.getDelayedCalls() == []


def test_the_longest_is_four_times_the_shortest_unless_given() -> None:
    assert checked_quiet(2, None) == Quiet(2, 8)
    assert checked_quiet(0, None) == Quiet(0, 0)
    assert checked_quiet(2, 2) == Quiet(2, 2)


@pytest.mark.parametrize(
    ("quiet_min", "quiet_max", "said"),
    [
        (-1, None, "quiet_min must be at least 0 seconds, and finite, not -1"),
        (float("inf"), None, "quiet_min must be at least 0 seconds, and finite, not inf"),
        (2, 1, "quiet_max must be finite, and at least quiet_min, which is 2, not 1"),
    ],
)
def test_times_that_cannot_be_are_named(quiet_min: float, quiet_max: float | None, said: str) -> None:
    with pytest.raises(InvalidSettings) as refused:
        checked_quiet(quiet_min, quiet_max)
    assert str(refused.value) == said
    with pytest.raises(TypeError, match="quiet_min must be a number of seconds, not str"):
        checked_quiet("1", None)  # type: ignore[arg-type]


_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("set"), st.sampled_from("abc"), st.sampled_from([None, b"0", b"1"])),
        st.tuples(st.just("pass"), st.sampled_from([0.0, 0.25, 0.5, 1.0, 2.0])),
        st.just(("hold",)),
        st.just(("release",)),
    ),
    max_size=40,
)


@given(
    steps=_STEPS,
    quiet=st.sampled_from([(0.0, 0.0), (0.5, 0.5), (0.5, 2.0), (1.0, 4.0)]),
    start=st.dictionaries(st.sampled_from("abc"), st.sampled_from([b"0", b"1"])),
)
@settings(max_examples=300, deadline=None)
def test_nothing_is_lost_and_nothing_told_twice(
    steps: list[tuple[Any, ...]], quiet: tuple[float, float], start: dict[str, bytes]
) -> None:
    shortest, longest = quiet
    gathering = Gathering(shortest, longest)
    gathering.values = dict(start)
    set_at: list[float] = []
    for step in steps:
        match step:
            case ("set", key, value):
                set_at.append(gathering.clock.seconds())
                gathering.set(key, value)
            case ("pass", seconds):
                gathering.clock.advance(seconds)
            case ("hold",):
                gathering.held = True
                gathering.quiescence.hold()
            case ("release",):
                gathering.held = False
                gathering.quiescence.release()
    told_before_the_end = len(gathering.told)
    gathering.held = False
    gathering.quiescence.release()
    gathering.clock.advance(longest)
    # Who applies what is told is where the store is.
    seen = dict(start)
    for _, changes in gathering.told:
        assert changes.changes
        assert [change.key for change in changes] == sorted({change.key for change in changes})
        for change in changes:
            assert change.old_value == seen.get(change.key) != change.new_value
            if change.new_value is None:
                del seen[change.key]
            else:
                seen[change.key] = change.new_value
        assert 0 < changes.first_revision <= changes.revision <= gathering.revision
    assert seen == gathering.values
    spans = [(changes.first_revision, changes.revision) for _, changes in gathering.told]
    assert all(before[1] < after[0] for before, after in itertools.pairwise(spans))
    # Nothing waits for longer than it may, unless on hold, and what is told has been quiet, or has waited for long.
    for at, changes in gathering.told[:told_before_the_end]:
        first, last = set_at[changes.first_revision - 1], set_at[changes.revision - 1]
        assert at - last >= shortest or at - first >= longest
    assert gathering.clock.getDelayedCalls() == []


def test_changes_show_no_value() -> None:
    change = ConfigChange(key="a", new_value=b"a secret", old_value=None, change_type=ChangeType.CREATED, revision=1)
    changes = ConfigChanges(changes=(change,), first_revision=1, revision=1)
    assert "secret" not in repr(changes) + repr(changes.__rich_repr__())
    assert "a" in changes
    assert "b" not in changes
    with pytest.raises(KeyError):
        changes["b"]
