"""Which of several instances is called."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred

from tests.messaging.common import failure_of, result_of
from twisted_etcd.errors import InvalidSettings
from twisted_etcd.registry.choice import (
    CHOICES,
    Choice,
    LeastUsed,
    RandomChoice,
    RoundRobin,
    Sticky,
    Weighted,
    begin_use,
    choice_of,
)
from twisted_etcd.registry.instance import Instance


def instances(*weights: int) -> list[Instance]:
    return [Instance(address="h", port=port, weight=weight) for port, weight in enumerate(weights, 1)]


def ports(choice: Choice, among: Sequence[Instance], times: int) -> list[int]:
    chosen = [choice.choose(among) for _ in range(times)]
    return [each.port for each in chosen if each is not None]


WEIGHTS = st.lists(st.integers(1, 9), min_size=1, max_size=8)


@pytest.mark.parametrize("name", CHOICES)
def test_each_chooses_by_its_name_and_none_of_none(name: str) -> None:
    choice = choice_of(name, random.Random(1).random)
    assert choice.choose([]) is None
    assert choice.choose([], "key") is None
    [only] = instances(3)
    assert choice.choose([only], "key") is choice.choose([only]) is only


def test_another_name_is_told_which_there_are() -> None:
    words = "there is no choice 'best'; give one of 'round-robin', 'random', 'weighted', 'least-used', 'sticky'"
    with pytest.raises(InvalidSettings, match=re.escape(words)):
        choice_of("best")


@pytest.mark.parametrize("name", CHOICES)
@pytest.mark.parametrize("nothing", [0, -1])
def test_a_weight_of_nothing_is_chosen_where_there_is_nothing_else(name: str, nothing: int) -> None:
    choice = choice_of(name, random.Random(1).random)
    among = instances(nothing, 1, nothing, 2)
    assert {chosen.port for key in range(100) if (chosen := choice.choose(among, str(key)))} == {2, 4}
    left = instances(nothing, nothing)
    assert {chosen.port for key in range(100) if (chosen := choice.choose(left, str(key)))} == {1, 2}


def test_round_robin_goes_round() -> None:
    assert ports(RoundRobin(), instances(1, 5, 1), 7) == [1, 2, 3, 1, 2, 3, 1]


def test_random_takes_what_the_numbers_say() -> None:
    numbers = iter([0.0, 0.34, 0.999999, 0.5])
    assert ports(RandomChoice(lambda: next(numbers)), instances(1, 1, 1), 4) == [1, 2, 3, 2]


# --- by weight ------------------------------------------------------------------------------------------------------


def test_weights_are_met_as_evenly_as_nginx_meets_them() -> None:
    assert ports(Weighted(), instances(5, 1, 1), 14) == [1, 1, 2, 1, 3, 1, 1] * 2


@given(WEIGHTS)
def test_over_the_sum_of_the_weights_each_has_its_turns(weights: list[int]) -> None:
    counted = Counter(ports(Weighted(), instances(*weights), sum(weights)))
    assert [counted[port] for port in range(1, len(weights) + 1)] == weights


@given(WEIGHTS, st.integers(1, 60))
def test_at_no_time_is_one_more_than_a_round_ahead_of_its_share(weights: list[int], times: int) -> None:
    counted = Counter(ports(Weighted(), instances(*weights), times))
    for port, weight in enumerate(weights, 1):
        assert abs(counted[port] - times * weight / sum(weights)) < len(weights)


def test_instances_that_come_and_go_leave_nothing_behind() -> None:
    choice = Weighted()
    for number in range(1, 1000):
        choice.choose([Instance(address="h", port=number), Instance(address="other", port=number)])
    assert len(choice._credit) < 50  # noqa: SLF001 - what it keeps is what is looked at


# --- least used -----------------------------------------------------------------------------------------------------


def test_the_least_used_is_the_one_with_the_fewest_uses_under_way() -> None:
    choice = LeastUsed()
    among = instances(1, 1)
    first = choice.choose(among)
    assert first is not None
    with begin_use(choice, first) as use:
        assert use.instance is first
        assert choice.uses(first) == 1
        assert ports(choice, among, 3) == [2, 2, 2]
    assert choice.uses(first) == 0
    assert set(ports(choice, among, 2)) == {1, 2}


def test_a_use_ends_once_and_with_what_it_waits_for() -> None:
    choice = LeastUsed()
    [only] = instances(1)
    uses = [choice.begin(only) for _ in range(3)]
    uses[0].end()
    uses[0].end()
    assert choice.uses(only) == 2
    calling: Deferred[int] = Deferred()
    waiting = uses[1].until(calling)
    calling.callback(7)
    assert result_of(waiting) == 7
    failing: Deferred[int] = Deferred()
    waiting = uses[2].until(failing)
    failing.errback(ZeroDivisionError())
    failure_of(waiting, ZeroDivisionError)
    assert choice.uses(only) == 0


@given(WEIGHTS, st.integers(1, 80))
def test_uses_that_do_not_end_are_shared_by_weight(weights: list[int], times: int) -> None:
    choice = LeastUsed()
    among = instances(*weights)
    for _ in range(times):
        chosen = choice.choose(among)
        assert chosen is not None
        choice.begin(chosen)
    loads = [choice.uses(each) / each.weight for each in among]
    assert max(loads) - min(loads) <= 1


def test_without_uses_it_is_a_round_robin() -> None:
    assert ports(LeastUsed(), instances(1, 1, 1), 6) == [1, 2, 3] * 2


def test_a_choice_that_does_not_count_gives_a_use_all_the_same() -> None:
    [only] = instances(1)
    with begin_use(RoundRobin(), only) as use:
        assert use.instance is only


# --- sticky ---------------------------------------------------------------------------------------------------------

#: Who had the first keys when this was written, of the weights 1, 2 and 3.
WRITTEN_DOWN = [1, 2, 3, 1, 2, 2, 2, 3, 2, 2, 2, 3]
KEYS = [f"user-{number}" for number in range(300)]


def owners(among: Sequence[Instance]) -> dict[str, int]:
    return {key: chosen.port for key in KEYS if (chosen := Sticky().choose(among, key)) is not None}


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 5), min_size=2, max_size=6), st.data())
def test_an_instance_that_goes_moves_its_own_keys_alone(weights: list[int], data: st.DataObject) -> None:
    among = instances(*weights)
    gone = data.draw(st.sampled_from(among))
    before, after = owners(among), owners([each for each in among if each is not gone])
    assert {key for key in KEYS if before[key] != after[key]} == {key for key in KEYS if before[key] == gone.port}


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_neither_the_order_nor_the_choice_that_is_asked_matters(weights: list[int], shuffle: random.Random) -> None:
    among = instances(*weights)
    mixed = list(among)
    shuffle.shuffle(mixed)
    assert owners(among) == owners(mixed)


def test_a_weight_that_grows_takes_keys_and_moves_no_others() -> None:
    before, after = owners(instances(1, 1, 1)), owners(instances(1, 3, 1))
    assert {after[key] for key in KEYS if before[key] != after[key]} == {2}


def test_keys_are_shared_by_weight() -> None:
    among = instances(1, 2, 1)
    counted = Counter(chosen.port for n in range(8000) if (chosen := Sticky().choose(among, f"{n}")) is not None)
    assert [round(counted[port] / 1000) for port in (1, 2, 3)] == [2, 4, 2]


def test_it_is_the_same_one_in_every_process() -> None:
    # By what was written down once: a hash that changes with the process, or a release, moves every key.
    assert [owners(instances(1, 2, 3))[key] for key in KEYS[:12]] == WRITTEN_DOWN
    assert Sticky().choose(instances(1, 1, 1), "user-1") == Sticky().choose(instances(1, 1, 1), b"user-1")


def test_without_a_key_it_goes_round() -> None:
    assert ports(Sticky(), instances(1, 1, 1), 4) == [1, 2, 3, 1]


def test_those_who_share_an_id_share_the_keys() -> None:
    among = [Instance(address="h", port=port, id="shop") for port in (1, 2)]
    assert set(owners(among).values()) == {1, 2}
