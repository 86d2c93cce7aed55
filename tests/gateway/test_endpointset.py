"""Which endpoint comes next."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twisted_etcd.gateway.endpoints import Endpoint
from twisted_etcd.gateway.endpointset import RESTS, EndpointSet, EndpointState

A, B, C = (Endpoint("http", host, 2379) for host in "abc")


class Scene:
    def __init__(self, *endpoints: Endpoint, random: Callable[[], float] = lambda: 1.0) -> None:
        self.now = 0.0
        self.set = EndpointSet(endpoints, lambda: self.now, random)

    @property
    def order(self) -> list[Endpoint]:
        found: list[Endpoint] = []
        while (endpoint := self.set.choose(found)) is not None:
            found.append(endpoint)
        return found


def test_the_endpoint_that_serves_is_kept() -> None:
    scene = Scene(A, B, C)
    scene.set.served(A)
    assert scene.set.all == (A, B, C)
    assert scene.order == [A, B, C]


def test_one_that_fails_is_behind_all_that_do_not_and_says_why() -> None:
    scene = Scene(A, B, C)
    scene.set.failed(A, "refused")
    assert scene.order == [B, C, A]
    status = scene.set.statuses()[0]
    assert (status.state, status.why, status.failures, status.retry_in) == (EndpointState.FAILING, "refused", 1, 1.0)
    assert str(status) == f"http://a:2379 {EndpointState.FAILING.value}: refused"


def test_where_all_fail_each_has_its_turn() -> None:
    scene = Scene(A, B, C)
    chosen = []
    for _ in range(6):
        endpoint = scene.order[0]
        scene.set.failed(endpoint, "refused")
        chosen.append(endpoint)
    assert chosen == [A, B, C, A, B, C]


def test_failures_of_requests_that_were_under_way_together_count_as_one() -> None:
    scene = Scene(A, B)
    for _ in range(100):
        scene.set.failed(A, "reset")
    assert scene.set.statuses()[0].failures == 1


def test_one_that_goes_on_failing_is_left_alone_longer_up_to_a_bound() -> None:
    scene = Scene(A, B)
    rests = []
    for _ in range(8):
        scene.set.failed(A, "refused")
        rests.append(scene.set.statuses()[0].retry_in)
        assert scene.set.due() == ()
        scene.now += rests[-1]
        assert scene.set.due() == (A,)
    assert rests[:3] == [1.0, 2.0, 4.0]
    assert rests[-1] == RESTS[1]


@pytest.mark.parametrize("jitter", [0.0, 0.3, 0.99])
def test_how_long_it_is_left_alone_is_up_to_chance(jitter: float) -> None:
    scene = Scene(A, B, random=lambda: jitter)
    for bound in (1.0, 2.0, 4.0, 8.0, 10.0, 10.0):
        scene.set.failed(A, "refused")
        assert scene.set.statuses()[0].retry_in == pytest.approx(jitter * bound)
        scene.now += jitter * bound


def test_what_went_wrong_last_is_what_it_says() -> None:
    scene = Scene(A, B)
    scene.set.failed(A, "refused")
    scene.set.failed(A, "it has no leader")
    assert scene.set.statuses()[0].why == "it has no leader"


def test_what_is_known_is_told_in_words() -> None:
    scene = Scene(A, B, C)
    scene.set.served(B)
    scene.set.failed(C, "it has no leader")
    assert [str(status) for status in scene.set.statuses()] == [
        "http://a:2379 not tried yet",
        "http://b:2379 serves",
        "http://c:2379 failed, and is used last until it is known to serve again: it has no leader",
    ]


def test_one_that_serves_again_has_failed_never_before() -> None:
    scene = Scene(A, B)
    for _ in range(5):
        scene.set.failed(A, "refused")
        scene.now += 10
    scene.set.served(A)
    status = scene.set.statuses()[0]
    assert (status.why, status.failures, status.retry_in) == ("", 0, 0)
    scene.set.failed(A, "refused")
    assert scene.set.statuses()[0].retry_in == RESTS[0]


def test_one_that_serves_again_is_the_last_of_those_that_do() -> None:
    scene = Scene(A, B, C)
    scene.set.failed(A, "refused")
    scene.set.failed(C, "refused")
    scene.set.served(A)
    assert scene.order == [B, A, C]
    assert scene.set.statuses()[0].state is EndpointState.SERVING


def test_a_single_endpoint_stays() -> None:
    scene = Scene(A)
    scene.set.failed(A, "refused")
    assert scene.order == [A]


def test_a_new_list_keeps_what_is_known() -> None:
    scene = Scene(A, B)
    scene.set.served(B)
    scene.set.failed(A, "refused")
    scene.set.replace((C, A, B))
    assert scene.set.all == (C, A, B)
    assert scene.order == [B, C, A]
    scene.set.replace((C,))
    scene.set.failed(A, "it is no longer there")
    scene.set.served(B)
    assert scene.order == [C]


ACTIONS = st.lists(
    st.tuples(st.sampled_from(["served", "failed", "replace", "wait"]), st.sampled_from([A, B, C])), max_size=40
)


@given(ACTIONS)
def test_each_has_one_place_and_those_that_fail_are_behind(actions: list[tuple[str, Any]]) -> None:
    scene = Scene(A, B)
    for action, endpoint in actions:
        if action == "served":
            scene.set.served(endpoint)
        elif action == "failed":
            scene.set.failed(endpoint, "why")
        elif action == "replace":
            scene.set.replace(tuple(dict.fromkeys((endpoint, A))))
        else:
            scene.now += 0.7
        assert sorted(scene.order, key=str) == sorted(scene.set.all, key=str)
        states = {status.url: status.state for status in scene.set.statuses()}
        fails = [states[str(each)] is EndpointState.FAILING for each in scene.order]
        assert fails == sorted(fails)
        assert set(scene.set.due()) <= {each for each in scene.order if states[str(each)] is EndpointState.FAILING}
        assert all(0 <= status.retry_in <= RESTS[1] for status in scene.set.statuses())


@given(ACTIONS, st.sampled_from([A, B, C]))
def test_one_that_fails_again_and_again_keeps_no_other_from_its_turn(
    actions: list[tuple[str, Any]], good: Endpoint
) -> None:
    scene = Scene(A, B, C)
    for action, endpoint in actions:
        if action == "served":
            scene.set.served(endpoint)
        elif action == "failed":
            scene.set.failed(endpoint, "why")
        else:
            scene.now += 0.7
    tried = 0
    while (endpoint := scene.order[0]) != good:
        scene.set.failed(endpoint, "why")
        tried += 1
    assert tried <= 2
    scene.set.served(good)
    assert scene.order[0] == good
