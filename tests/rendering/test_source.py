"""What templates ask for is followed, and no longer than they ask; with a test in the place of etcd."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from tests.messaging.common import PENDING, peek, result_of
from tests.said import Said
from tests.scripted import Asked, ScriptedClient, batch, delete_event, found, kv, put_event
from twisted_etcd.errors import PermissionDenied, ServiceStopped, Unavailable
from twisted_etcd.rendering.source import EtcdSource
from twisted_etcd.rendering.template import Kind, Want

VALUE, TREE, SHOP = Want(Kind.VALUE, "app/x"), Want(Kind.TREE, "app"), Want(Kind.SERVICE, "shop")
ALL = Want(Kind.TREE, "")


class Followed:
    def __init__(self) -> None:
        self.etcd = ScriptedClient()
        self.clock = Clock()
        self.told: list[Want] = []
        self.source = EtcdSource(
            self.etcd.client,
            self.clock,
            self.told.append,
            config_prefix="/config/",
            service_prefix="/services",
            random=lambda: 1.0,
        )

    def reading(self, key: str, **options: object) -> Asked:
        asked = self.etcd.take("get")
        assert asked.args == (key,)
        assert {name: value for name, value in asked.options.items() if value} == options
        return asked

    def end_watch(self, number: int, error: Exception) -> None:
        self.etcd.watches[number][0].finished(Failure(error))


@pytest.fixture
def followed() -> Followed:
    return Followed()


def test_values_trees_and_services_are_read_and_there_then(followed: Followed) -> None:
    source = followed.source
    source.keep([VALUE, TREE, SHOP, ALL])
    assert source.followed == {VALUE, TREE, SHOP, ALL}
    assert not any(source.has(want) for want in source.followed)
    followed.reading("/config/app/x").answer.callback(found(9, kv("/config/app/x", "1", 3)))
    followed.reading("/config/", prefix=True).answer.callback(found(9, kv("/config/app/x", "1", 3)))
    followed.reading("/config/app/", prefix=True).answer.callback(
        found(9, kv("/config/app/x", "1", 3), kv("/config/app/a/b", "2", 4))
    )
    followed.reading("/services/shop/", prefix=True).answer.callback(found(9, kv("/services/shop/h:1", "h:1", 7)))
    assert followed.told == [VALUE, ALL, TREE, SHOP]
    assert all(source.has(want) for want in source.followed)
    assert source.value("app/x") == b"1"
    assert list(source.tree("app").items()) == [("a/b", b"2"), ("x", b"1")]
    assert list(source.tree("").items()) == [("app/x", b"1")]
    assert [each.endpoint for each in source.instances("shop")] == ["h:1"]
    assert source.revision([VALUE]) == 3
    assert source.revision([VALUE, SHOP]) == 7
    assert source.revision([]) == 0


def test_what_is_not_set_was_loaded_all_the_same(followed: Followed) -> None:
    followed.source.keep([VALUE])
    followed.reading("/config/app/x").answer.callback(found(9))
    assert followed.source.has(VALUE)
    assert followed.source.value("app/x") is None
    assert followed.source.revision([VALUE]) == 0


def test_what_was_not_loaded_cannot_be_asked_for(followed: Followed) -> None:
    followed.source.keep([VALUE])
    with pytest.raises(LookupError, match="the configuration app/x was not loaded yet"):
        followed.source.value("app/x")


def test_each_change_is_told(followed: Followed) -> None:
    followed.source.keep([VALUE, TREE])
    followed.reading("/config/app/x").answer.callback(found(9))
    followed.reading("/config/app/", prefix=True).answer.callback(found(9))
    del followed.told[:]
    for watch, _, _ in followed.etcd.watches:
        watch.deliver(batch(put_event("/config/app/x", "2", 10)))
        watch.deliver(batch(delete_event("/config/app/x", 11)))
    assert followed.told == [VALUE, VALUE, TREE, TREE]
    assert followed.source.value("app/x") is None


def test_what_nobody_wants_any_more_is_followed_no_longer_and_the_rest_goes_on(followed: Followed) -> None:
    followed.source.keep([VALUE, TREE])
    for key in ("/config/app/x", "/config/app/"):
        asked = followed.etcd.take("get")
        assert asked.args == (key,)
        asked.answer.callback(found(9))
    followed.source.keep([TREE])
    assert [feed.stopped for _, _, feed in followed.etcd.watches] == [True, False]
    assert followed.source.followed == {TREE}
    assert not followed.source.has(VALUE)
    followed.etcd.take("stop of a watch").answer.callback(None)
    # Wanted again, it is read again.
    followed.source.keep([TREE, VALUE])
    followed.reading("/config/app/x")


def test_etcd_that_is_away_is_waited_for(followed: Followed) -> None:
    followed.source.keep([VALUE])
    followed.reading("/config/app/x").fails(Unavailable("etcd is away"))
    followed.clock.advance(1)
    followed.reading("/config/app/x").answer.callback(found(9))
    assert followed.source.has(VALUE)


def test_what_can_be_followed_no_longer_stays_as_it_was_and_is_tried_again(followed: Followed, said: Said) -> None:
    followed.source.keep([VALUE])
    followed.reading("/config/app/x").answer.callback(found(9, kv("/config/app/x", "1", 3)))
    del followed.told[:]
    waits = []
    for number in range(12):
        followed.end_watch(number, PermissionDenied(7, "permission denied"))
        followed.etcd.take("stop of a watch").answer.callback(None)
        assert followed.source.value("app/x") == b"1"
        [call] = followed.clock.getDelayedCalls()
        waits.append(round(call.getTime() - followed.clock.seconds(), 6))
        followed.clock.advance(waits[-1])
        followed.reading("/config/app/x").answer.callback(found(9, kv("/config/app/x", "1", 3)))
    # Reading it works each time: that is no reason to go on without a pause.
    assert waits == sorted(waits)
    assert waits[-1] == 5
    assert said.count("'/config/app/x' is read and followed again in 5.0 s: permission denied") >= 1
    followed.etcd.watches[-1][0].deliver(batch(put_event("/config/app/x", "2", 10)))
    assert followed.source.value("app/x") == b"2"
    followed.end_watch(-1, PermissionDenied(7, "permission denied"))
    followed.etcd.take("stop of a watch").answer.callback(None)
    [call] = followed.clock.getDelayedCalls()
    assert call.getTime() - followed.clock.seconds() < 0.1


def test_instances_stay_while_etcd_is_away_and_that_alone_is_no_change(followed: Followed) -> None:
    followed.source.keep([SHOP])
    followed.reading("/services/shop/", prefix=True).answer.callback(found(9, kv("/services/shop/h:1", "h:1", 7)))
    del followed.told[:]
    watch = followed.etcd.watches[-1][0]
    watch.broke()
    assert [each.endpoint for each in followed.source.instances("shop")] == ["h:1"]
    followed.end_watch(0, PermissionDenied(7, "permission denied"))
    followed.etcd.take("stop of a watch").answer.callback(None)
    followed.clock.advance(0.05)
    assert [each.endpoint for each in followed.source.instances("shop")] == ["h:1"]
    assert followed.told == []
    followed.reading("/services/shop/", prefix=True).answer.callback(found(12))
    assert followed.told == [SHOP]
    assert followed.source.instances("shop") == ()


def test_a_service_that_is_wanted_again_while_it_is_ending_is_followed_anew(followed: Followed) -> None:
    followed.source.keep([SHOP])
    followed.reading("/services/shop/", prefix=True).answer.callback(found(9))
    followed.source.keep([])
    followed.source.keep([SHOP])
    ending = followed.etcd.take("stop of a watch")
    assert not followed.source.has(SHOP)
    followed.reading("/services/shop/", prefix=True).answer.callback(found(9))
    assert followed.source.has(SHOP)
    ending.answer.callback(None)
    followed.etcd.watches[-1][0].deliver(batch(put_event("/services/shop/h:1", "h:1", 10)))
    assert [each.endpoint for each in followed.source.instances("shop")] == ["h:1"]


def test_stop_ends_all_and_waits_for_it(followed: Followed) -> None:
    followed.source.keep([VALUE, TREE, SHOP])
    followed.reading("/config/app/x").answer.callback(found(9))
    followed.etcd.take("get").fails(Unavailable("etcd is away"))
    stopping = followed.source.stop()
    assert peek(stopping) is PENDING
    reading = followed.etcd.take("get")
    assert reading.cancelled
    followed.etcd.take("stop of a watch").answer.callback(None)
    assert result_of(stopping) is None
    assert followed.clock.getDelayedCalls() == []
    assert result_of(followed.source.stop()) is None


def test_a_wait_before_it_is_followed_anew_ends_with_it(followed: Followed) -> None:
    followed.source.keep([VALUE])
    followed.reading("/config/app/x").answer.callback(found(9))
    followed.end_watch(0, PermissionDenied(7, "permission denied"))
    followed.etcd.take("stop of a watch").answer.callback(None)
    assert result_of(followed.source.stop()) is None
    assert followed.clock.getDelayedCalls() == []


def test_a_client_that_was_stopped_is_not_asked_again(followed: Followed) -> None:
    followed.source.keep([VALUE])
    followed.reading("/config/app/x").answer.callback(found(9))
    followed.end_watch(0, ServiceStopped("the client was stopped"))
    followed.etcd.take("stop of a watch").answer.callback(None)
    assert followed.clock.getDelayedCalls() == []
    assert result_of(followed.source.stop()) is None
