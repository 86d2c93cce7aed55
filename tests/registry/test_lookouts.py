"""Watches on our own keys: how many there are, and what they tell whom."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from tests.messaging.common import PENDING, peek, result_of
from tests.scripted import ScriptedClient, batch, delete_event, done, found, kv, put_event
from twisted_etcd.errors import Compacted, PermissionDenied, Unavailable
from twisted_etcd.registry.convoy import Convoy
from twisted_etcd.registry.lookouts import EACH, Lookouts
from twisted_etcd.registry.machine import Found

SERVICE = "/services/shop/"
DENIED = PermissionDenied(7, "permission denied")


class Key:
    """Whose key it is, and what it was told."""

    def __init__(self, number: int = 0, service: str = SERVICE) -> None:
        self.path = f"{service}{number:04}"
        self.writes = 3
        self.told: list[Any] = []

    def key_seen(self, found: Found) -> None:
        self.told.append(found)

    def key_read(self, found: Found, writes: int) -> None:
        self.told.append((found, writes))

    def history_gone(self) -> None:
        self.told.append("gone")


class Scene:
    def __init__(self) -> None:
        self.etcd, self.clock = ScriptedClient(), Clock()
        self.lookouts = Lookouts(self.etcd.client, self.clock, Convoy(self.etcd.client), lambda: 1.0)

    def add(self, *keys: Key, service: str = SERVICE, revision: int = 10) -> None:
        for key in keys:
            self.lookouts.add(service, key, revision)
        self.clock.advance(0)

    @property
    def began(self) -> list[tuple[bool, int]]:
        """Of each watch that ever was, whether it is of a range, and from which revision it is."""
        return [(options["prefix"], options["start_revision"]) for _, options, _ in self.etcd.watches]


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_a_few_keys_have_a_watch_each_and_many_of_a_service_share_one(scene: Scene) -> None:
    scene.add(*[Key(number) for number in range(EACH)])
    assert scene.began == [(False, 10)] * EACH
    scene.add(Key(100), Key(101), revision=11)
    assert scene.began[EACH:] == [(True, 11)]
    scene.add(Key(102), revision=12)
    other = "/services/other/"
    scene.add(Key(0, other), service=other)
    assert len(scene.lookouts) == EACH + 2


def test_a_thousand_of_one_turn_have_one_watch_from_the_first_of_their_revisions(scene: Scene) -> None:
    for number in range(1000):
        scene.lookouts.add(SERVICE, Key(number), 1000 - number)
    scene.clock.advance(0)
    assert scene.began == [(True, 1)]


def test_added_again_it_is_watched_once(scene: Scene) -> None:
    key = Key()
    scene.add(key)
    scene.add(key, revision=20)
    assert scene.began == [(False, 10)]


def test_each_is_told_of_its_own_key_and_of_others_nobody_is(scene: Scene) -> None:
    keys = [Key(number) for number in range(EACH + 1)]
    scene.add(*keys)
    [(watch, _, _)] = scene.etcd.watches
    watch.deliver(batch(put_event(keys[3].path, "v", 11), put_event(SERVICE + "foreign", "v", 12)))
    watch.deliver(batch(delete_event(keys[4].path, 13)))
    assert keys[3].told == [Found(revision=11, there=True, value=b"v")]
    assert keys[4].told == [Found(revision=13)]
    assert [key for key in keys if key.told] == [keys[3], keys[4]]


def test_where_the_history_is_gone_the_range_is_read_once_for_all(scene: Scene) -> None:
    keys = [Key(number) for number in range(EACH + 1)]
    scene.add(*keys)
    scene.etcd.watches[0][0].finished(Failure(Compacted(11, "compacted", 40)))
    asked = scene.etcd.take("get")
    assert (asked.args, asked.options) == ((SERVICE,), {"prefix": True, "keys_only": True})
    keys.append(Key(500))
    scene.add(keys[-1], revision=60)
    asked.answer.callback(found(50, kv(keys[0].path, "", 45, 7)))
    assert keys[0].told == ["gone", (Found(revision=45, there=True, lease=7), 3)]
    assert keys[1].told == ["gone", (Found(revision=50), 3)]
    # It was written after the reading began.
    assert keys[-1].told == []
    assert scene.began == [(True, 10), (True, 50)]


def test_a_reading_that_fails_is_tried_again(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    key = Key()
    scene.add(key)
    scene.etcd.watches[0][0].finished(Failure(Compacted(11, "compacted", 40)))
    for _ in range(3):
        scene.etcd.take("txn").fails(Unavailable("etcd is away"))
        scene.clock.advance(1)
    done(scene.etcd.take("txn"), 50)
    assert key.told[-1] == (Found(revision=50), 3)
    assert caplog.text.count("are found by the heartbeat check alone") == 1


def test_a_range_that_may_not_be_read_is_watched_key_by_key(scene: Scene) -> None:
    keys = [Key(number) for number in range(EACH + 1)]
    scene.add(*keys)
    scene.etcd.watches[0][0].finished(Failure(DENIED))
    while any(asked.what == "txn" for asked in scene.etcd.asked):
        done(scene.etcd.take("txn"), 50, *[kv(key.path, "", 10, 7) for key in keys])
    assert scene.began[1:] == [(False, 50)] * (EACH + 1)
    assert len(scene.lookouts) == EACH + 1
    scene.add(Key(200), revision=60)
    assert scene.began[-1] == (False, 60)


def test_the_last_key_of_a_service_takes_its_watch_with_it(scene: Scene) -> None:
    keys = [Key(number) for number in range(EACH + 1)]
    scene.add(*keys)
    for key in keys:
        assert scene.etcd.asked == []
        scene.lookouts.remove(SERVICE, key)
    scene.etcd.take("stop of a watch").answer.callback(None)
    assert len(scene.lookouts) == 0


def test_who_was_replaced_at_its_key_takes_nothing_away(scene: Scene) -> None:
    earlier, later = Key(), Key()
    scene.add(earlier)
    scene.add(later)
    scene.lookouts.remove(SERVICE, earlier)
    assert len(scene.lookouts) == 1
    scene.etcd.watches[0][0].deliver(batch(delete_event(later.path, 11)))
    assert (earlier.told, later.told) == ([], [Found(revision=11)])


def test_one_that_is_removed_before_its_turn_has_no_watch(scene: Scene) -> None:
    key = Key()
    scene.lookouts.add(SERVICE, key, 10)
    scene.lookouts.remove(SERVICE, key)
    scene.clock.advance(0)
    assert scene.began == []


def test_the_stop_ends_all_and_one_who_stops_it_while_being_told_too(scene: Scene) -> None:
    stopped = []

    class Stopping(Key):
        def key_seen(self, found: Found) -> None:
            super().key_seen(found)
            stopped.append(scene.lookouts.stop())

    key, other = Stopping(), Key(1)
    scene.add(key, other)
    scene.etcd.watches[0][0].deliver(batch(delete_event(key.path, 11), delete_event(key.path, 12)))
    assert peek(stopped[0]) is PENDING
    while scene.etcd.asked:
        scene.etcd.take("stop of a watch").answer.callback(None)
    assert result_of(stopped[0]) is None
    scene.add(Key(2))
    assert len(scene.began) == 2
