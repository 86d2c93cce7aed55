"""Which instances are meant."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twisted_etcd.errors import InvalidSettings
from twisted_etcd.registry.filter import EVERY_INSTANCE, InstanceFilter, make_filter
from twisted_etcd.registry.instance import Instance, Status


def instance(port: int, **fields: Any) -> Instance:  # noqa: ANN401
    return Instance(address="h", port=port, **fields)


PLAIN = instance(1)
GOOD = instance(2, tags=("eu", "new"), metadata={"zone": "a", "v": "1"}, status=Status.PASSING)
WARNED = instance(3, tags=("eu",), metadata={"zone": "b"}, status=Status.WARNING)
CRITICAL = instance(4, tags=("eu", "new"), metadata={"zone": "a"}, status=Status.CRITICAL)
ALL = (PLAIN, GOOD, WARNED, CRITICAL)


@pytest.mark.parametrize(
    ("given_", "picked"),
    [
        ({}, (PLAIN, GOOD, WARNED)),
        ({"tags": ("eu",)}, (GOOD, WARNED)),
        ({"tags": ["new", "eu"]}, (GOOD,)),
        ({"tags": ("eu", "old")}, ()),
        ({"metadata": {"zone": "a"}}, (GOOD,)),
        ({"metadata": {"zone": "a", "v": "2"}}, ()),
        ({"tags": ("eu",), "metadata": {"zone": "b"}}, (WARNED,)),
        ({"status": ("passing",)}, (PLAIN, GOOD)),
        ({"status": [Status.CRITICAL]}, (CRITICAL,)),
        ({"status": ()}, ()),
        ({"status": tuple(Status), "tags": ("new",)}, (GOOD, CRITICAL)),
    ],
)
def test_all_that_is_asked_for_holds_and_critical_ones_are_asked_for(given_: Any, picked: Any) -> None:  # noqa: ANN401
    assert make_filter(**given_).of(ALL) == picked


def test_every_instance_is_every_instance() -> None:
    assert EVERY_INSTANCE.of(ALL) == ALL


@pytest.mark.parametrize(
    ("given_", "words"),
    [
        ({"tags": "eu"}, r"tags must be several texts, as in tags=\('eu',\), not the text 'eu'"),
        ({"status": "passing"}, "status must be several texts"),
        ({"tags": (1,)}, "Expected `str`, got `int`"),
        ({"metadata": {"a": 1}}, "Expected `str`, got `int`"),
        ({"metadata": 7}, "the filter cannot be used"),
        ({"tags": 7}, "the filter cannot be used"),
        ({"status": ("fine",)}, "a status is one of passing, warning, critical: Invalid enum value 'fine'"),
    ],
)
def test_a_filter_that_cannot_be_used_is_refused_in_words(given_: Any, words: str) -> None:  # noqa: ANN401
    with pytest.raises(InvalidSettings, match=words):
        make_filter(**given_)


def test_its_repr_shows_no_metadata() -> None:
    assert "a-secret" not in repr(make_filter(metadata={"password": "a-secret"}))


@given(st.lists(st.sampled_from("abc")), st.lists(st.sampled_from("abc")))
def test_more_is_asked_for_and_fewer_are_found(first: list[str], second: list[str]) -> None:
    instances = [instance(port, tags=tags) for port, tags in enumerate(((), ("a",), ("a", "b"), ("a", "b", "c")), 1)]
    both = InstanceFilter(tags=(*first, *second)).of(instances)
    assert set(map(id, both)) == {
        id(each)
        for each in instances
        if InstanceFilter(tags=tuple(first)).accepts(each) and InstanceFilter(tags=tuple(second)).accepts(each)
    }
