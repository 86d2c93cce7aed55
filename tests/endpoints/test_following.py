"""Views that are shared, and let go when nobody has used them for a while."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.python.failure import Failure

from tests.messaging.common import PENDING, failure_of, peek, result_of
from tests.scripted import ScriptedClient, batch, found, kv, put_event
from twisted_etcd.endpoints.following import Views
from twisted_etcd.errors import LeaseNotFound, ServiceStopped, Unavailable, WatchCancelled
from twisted_etcd.registry.instance import Instance
from twisted_etcd.registry.registry import Registry

A, B = (Instance(address=f"10.0.0.{number}", port=80, id=f"10.0.0.{number}:80") for number in (1, 2))


class Scene:
    def __init__(self) -> None:
        self.etcd = ScriptedClient()
        self.clock = Clock()
        self.emptied = 0
        self.views = Views(Registry(self.etcd.client, self.clock, "s"), self.clock, self._empty)

    def _empty(self) -> None:
        self.emptied += 1

    def answer(self, *addresses: str) -> None:
        kvs = [kv(f"s/shop/{address}", address, 5) for address in addresses]
        self.etcd.take("get").answer.callback(found(7, *kvs))

    def let_go(self) -> Any:  # noqa: ANN401 - the request
        return self.etcd.take("stop of a watch").answer.callback(None)


def test_two_who_hold_a_service_share_what_follows_it() -> None:
    scene = Scene()
    first, second = (scene.views.hold("shop", 5.0) for _ in range(2))
    loaded = second.loaded()
    assert peek(loaded) is PENDING
    scene.answer("10.0.0.1:80")
    assert result_of(loaded) is None
    assert list(first.instances) == list(second.instances) == [A]
    assert scene.etcd.asked == []
    change = first.changed()
    scene.etcd.watches[0][0].deliver(batch(put_event("s/shop/10.0.0.2:80", "10.0.0.2:80", 8)))
    assert result_of(change) is None
    assert list(second.instances) == [A, B]


def test_it_is_let_go_some_time_after_its_last_use() -> None:
    scene = Scene()
    first, second = scene.views.hold("shop", 5.0), scene.views.hold("shop", 3.0)
    scene.answer()
    first.release()
    first.release()
    scene.clock.advance(100)
    second.release()
    scene.clock.advance(4.9)
    assert scene.etcd.asked == []
    scene.clock.advance(0.2)
    scene.let_go()
    assert (scene.emptied, len(scene.views)) == (1, 0)
    # The next one reads anew.
    scene.views.hold("shop", 0.0)
    scene.answer()


def test_used_again_in_time_it_stays() -> None:
    scene = Scene()
    first = scene.views.hold("shop", 5.0)
    scene.answer()
    first.release()
    scene.clock.advance(4.9)
    again = scene.views.hold("shop", 5.0)
    scene.clock.advance(100)
    assert result_of(again.loaded()) is None
    assert scene.etcd.asked == []
    again.release()
    scene.clock.advance(5.1)
    scene.let_go()


def test_without_idle_time_it_is_let_go_at_once() -> None:
    scene = Scene()
    scene.views.hold("shop", 0.0).release()
    assert scene.etcd.take("get").cancelled
    assert (scene.emptied, scene.clock.getDelayedCalls()) == (1, [])


def test_what_cannot_be_read_fails_with_why_and_is_read_anew_by_the_next_one() -> None:
    scene = Scene()
    first = scene.views.hold("shop", 5.0)
    loaded = first.loaded()
    scene.etcd.take("get").fails(Unavailable("nobody listens"))
    failure_of(loaded, Unavailable)
    assert (scene.emptied, len(scene.views)) == (1, 0)
    second = scene.views.hold("shop", 5.0)
    scene.answer("10.0.0.1:80")
    assert second.instances == (A,)
    first.release()
    assert scene.clock.getDelayedCalls() == []


def test_what_ends_by_itself_is_followed_anew_by_the_next_one_and_what_was_known_stays() -> None:
    scene = Scene()
    first = scene.views.hold("shop", 5.0)
    scene.answer("10.0.0.1:80")
    change = first.changed()
    scene.etcd.watches[0][0].finished(Failure(WatchCancelled("no more")))
    scene.let_go()
    assert result_of(change) is None
    assert first.instances == (A,)
    assert len(scene.views) == 0
    first.release()
    assert scene.clock.getDelayedCalls() == []
    second = scene.views.hold("shop", 5.0)
    scene.etcd.take("get").fails(LeaseNotFound(5, "anything"))
    failure_of(second.loaded(), LeaseNotFound)


def test_stopped_nothing_is_under_way() -> None:
    scene = Scene()
    scene.views.hold("shop", 5.0)
    scene.answer()
    waiting = scene.views.hold("till", 5.0).loaded()
    idle = scene.views.hold("shop", 5.0)
    idle.release()
    stopping = scene.views.stop()
    failure_of(waiting, ServiceStopped)
    assert peek(stopping) is PENDING
    assert scene.etcd.take("get").cancelled
    scene.let_go()
    assert result_of(stopping) is None
    assert scene.clock.getDelayedCalls() == []
    assert len(scene.views) == 0
