"""The views of a registry, with a test in the place of etcd."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from tests.messaging.common import PENDING, failure_of, peek, result_of
from tests.scripted import ScriptedClient, batch, found, kv, put_event
from twisted_etcd.errors import (
    DeadlineExceeded,
    InvalidSettings,
    NoLeader,
    PermissionDenied,
    ServiceStopped,
    Unavailable,
    WatchCancelled,
)
from twisted_etcd.registry.instance import Instance
from twisted_etcd.registry.protection import Protection
from twisted_etcd.registry.registry import Registry
from twisted_etcd.registry.view import ServiceView
from twisted_etcd.registry.views import Views

A, B = (Instance(address=f"10.0.0.{number}", port=80, id=f"10.0.0.{number}:80") for number in (1, 2))
AWAY = Unavailable("etcd is away")
DENIED = PermissionDenied(7, "permission denied")


class Asked:
    """A registry that is asked for instances."""

    def __init__(self, **options: Any) -> None:  # noqa: ANN401 - as Registry has them
        self.etcd = ScriptedClient()
        self.clock = Clock()
        self.registry = Registry(self.etcd.client, self.clock, random=lambda: 1.0, **options)

    def loads(self, name: str = "shop", *addresses: str) -> None:
        asked = self.etcd.take("get")
        assert asked.args == (f"/services/{name}/",)
        kvs = [kv(f"/services/{name}/{address}", address, 3) for address in addresses]
        asked.answer.callback(found(7, *kvs))


@pytest.fixture
def asked() -> Asked:
    return Asked()


def test_the_first_one_waits_for_the_loading_and_all_after_it_for_nothing(asked: Asked) -> None:
    first, second = asked.registry.instances("shop"), asked.registry.instances("shop")
    assert peek(first) is PENDING
    asked.loads("shop", "10.0.0.1:80")
    assert result_of(first) == result_of(second) == (A,)
    assert result_of(asked.registry.instances("shop")) == (A,)
    asked.etcd.watches[-1][0].deliver(batch(put_event("/services/shop/b", "10.0.0.2:80", 8)))
    assert result_of(asked.registry.instances("shop")) == (A, B)
    assert asked.etcd.asked == []
    assert asked.clock.getDelayedCalls() == []


def test_one_view_is_shared_by_all_who_ask(asked: Asked) -> None:
    view = asked.registry.view("shop")
    asked.registry.instances("shop")
    assert asked.registry.view("shop") is view is not asked.registry.view("other")
    assert len(asked.etcd.asked) == 2
    assert len(asked.registry.views) == 2


def test_filters_and_choices(asked: Asked) -> None:
    loading = asked.registry.choose("shop")
    asked.loads("shop", "10.0.0.1:80", "10.0.0.2:80")
    assert result_of(loading) == A
    assert result_of(asked.registry.choose("shop")) == B
    assert result_of(asked.registry.choose("shop", "sticky", key="k", tags=("eu",))) is None
    assert result_of(asked.registry.instances("shop", metadata={"zone": "a"})) == ()
    with pytest.raises(InvalidSettings, match="tags must be several texts"):
        asked.registry.instances("shop", tags="eu")
    failure_of(asked.registry.choose("shop", "best"), InvalidSettings)


@pytest.mark.parametrize("name", ["", "a/b", "a b"])
def test_a_bad_name_is_refused_and_leaves_nothing(asked: Asked, name: str) -> None:
    for ask in (asked.registry.view, asked.registry.instances, asked.registry.choose):
        with pytest.raises(InvalidSettings, match="service name"):
            ask(name)
    assert len(asked.registry.views) == 0


@pytest.mark.parametrize("timeout", [-1, float("nan"), float("inf")])
def test_a_bad_timeout_is_refused(asked: Asked, timeout: float) -> None:
    with pytest.raises(InvalidSettings, match=f"timeout must be a number of seconds from 0 on, not {timeout}"):
        asked.registry.instances("shop", timeout=timeout)


# --- where loading fails --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [AWAY, NoLeader(14, "etcdserver: no leader")])
def test_while_etcd_is_away_it_is_waited_for_until_the_time_is_over_and_gone_on_with(
    asked: Asked, error: Exception
) -> None:
    asking = asked.registry.instances("shop", timeout=1.5)
    asked.etcd.take("get").fails(error)
    asked.clock.advance(0.05)
    asked.etcd.take("get").fails(error)
    assert peek(asking) is PENDING
    asked.clock.pump([0.05] * 29)
    assert failure_of(asking, type(error)) is error
    later = asked.registry.instances("shop")
    asked.loads("shop", "10.0.0.1:80")
    assert result_of(later) == (A,)


def test_where_nothing_is_heard_it_says_so(asked: Asked) -> None:
    asking = asked.registry.instances("shop")
    asked.clock.advance(5)
    words = "the instances of service 'shop' could not be read within 5 s, and are tried again"
    assert str(failure_of(asking, DeadlineExceeded)) == words
    later = asked.registry.instances("shop")
    asked.loads()
    assert result_of(later) == ()


def test_a_refusal_is_told_at_once_and_mends_itself(asked: Asked) -> None:
    asking = asked.registry.instances("shop")
    asked.etcd.take("get").fails(DENIED)
    assert failure_of(asking, PermissionDenied) is DENIED
    asked.clock.advance(0.05)
    asked.loads("shop", "10.0.0.1:80")
    assert result_of(asked.registry.instances("shop")) == (A,)


def test_what_etcd_ends_is_followed_again_and_stale_until_then(asked: Asked) -> None:
    view = asked.registry.view("shop")
    asked.loads("shop", "10.0.0.1:80")
    asked.etcd.watches[-1][0].finished(Failure(WatchCancelled("why not")))
    asked.etcd.take("stop of a watch").answer.callback(None)
    assert view.stale
    assert result_of(asked.registry.instances("shop")) == (A,)
    asked.clock.advance(0.05)
    asked.loads("shop", "10.0.0.1:80", "10.0.0.2:80")
    assert not view.stale
    assert result_of(asked.registry.instances("shop")) == (A, B)


def test_one_who_no_longer_waits_leaves_nothing(asked: Asked) -> None:
    asking = asked.registry.instances("shop")
    asking.addErrback(lambda _: None)
    asking.cancel()
    assert asked.clock.getDelayedCalls() == []
    later = asked.registry.instances("shop")
    asked.loads()
    assert result_of(later) == ()


# --- how long they are kept -----------------------------------------------------------------------------------------


def test_a_view_that_was_stopped_is_made_anew_for_the_next_one_who_asks(asked: Asked) -> None:
    view = asked.registry.view("shop")
    asked.loads()
    view.stop()
    asked.etcd.take("stop of a watch").answer.callback(None)
    assert len(asked.registry.views) == 0
    assert asked.registry.view("shop") is not view
    asked.loads()


def test_a_view_that_is_still_ending_is_not_given_to_the_next_one_who_asks(asked: Asked) -> None:
    view = asked.registry.view("shop")
    asked.loads()
    view.stop()
    ending = asked.etcd.take("stop of a watch")
    another = asked.registry.view("shop")
    assert another is not view
    asked.loads()
    stopping = asked.registry.views.stop()
    asked.etcd.take("stop of a watch").answer.callback(None)
    assert peek(stopping) is PENDING
    ending.answer.callback(None)
    assert peek(stopping) is None


def few(etcd: ScriptedClient, most: int) -> Views:
    def make(name: str) -> ServiceView:
        return ServiceView(etcd.client, Clock(), f"{name}/", patient=True)

    return Views(make, Clock(), most)


def test_of_too_many_that_nobody_holds_the_one_not_asked_for_the_longest_goes() -> None:
    etcd = ScriptedClient()
    views = few(etcd, 2)
    held = views.view("held")
    listened = views.asked("listened")
    listened.on_change(lambda _: None)
    first, second = views.asked("a"), views.asked("b")
    assert views.asked("a") is first
    views.asked("c")
    assert len(views) == 4
    assert result_of(second.ended) is None
    assert peek(first.ended) is PENDING
    for name in "defg":
        views.asked(name)
    assert views.view("held") is held
    assert views.asked("listened") is listened
    assert len(views) == 4


def test_stopped_they_all_end_and_none_is_given_any_more(asked: Asked) -> None:
    loaded, loading = asked.registry.view("shop"), asked.registry.instances("other")
    asked.loads()
    stopping = asked.registry.views.stop()
    failure_of(loading, ServiceStopped)
    assert asked.etcd.take("get").cancelled
    assert peek(stopping) is PENDING
    asked.etcd.take("stop of a watch").answer.callback(None)
    assert result_of(stopping) is result_of(loaded.ended) is None
    assert len(asked.registry.views) == 0
    for ask in (asked.registry.view, asked.registry.instances):
        with pytest.raises(ServiceStopped, match="so there is no view of service 'shop'"):
            ask("shop")


def test_a_protection_is_the_registrys_or_the_views_own() -> None:
    half, most = Protection(share=0.5), Protection(share=0.9)
    asked = Asked(protection=half)
    assert asked.registry.view("shop").protection is half
    assert asked.registry.view("shop", protection=most).protection is most
    assert asked.registry.view("shop").protection is most
