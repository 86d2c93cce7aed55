"""The view of a service's instances, with a test in the place of etcd."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from tests.messaging.common import PENDING, failure_of, peek, result_of
from tests.scripted import ScriptedClient, batch, delete_event, found, kv, put_event
from twisted_etcd.errors import ServiceStopped
from twisted_etcd.registry.instance import Instance
from twisted_etcd.registry.lens import ServiceChange
from twisted_etcd.registry.view import ServiceView
from twisted_etcd.schema.kv import Event, KeyValue

A, B, C = (Instance(address=f"10.0.0.{number}", port=80, id=f"10.0.0.{number}:80") for number in (1, 2, 3))


class Viewed:
    def __init__(self, *kvs: KeyValue) -> None:
        self.etcd = ScriptedClient()
        self.told: list[ServiceChange] = []
        self.view = ServiceView(self.etcd.client, Clock(), "s/", self.told.append)
        started = self.view.start()
        assert peek(started) is PENDING
        self.etcd.take("get").answer.callback(found(7, *kvs))
        assert result_of(started) is None

    def happens(self, *events: Event) -> None:
        self.etcd.watches[-1][0].deliver(batch(*events))


def test_what_is_there_at_first_is_there_and_not_told() -> None:
    viewed = Viewed(kv("s/b", "10.0.0.2:80", 4), kv("s/a", "10.0.0.1:80", 5))
    assert viewed.view.instances == (A, B)
    assert viewed.told == []


def test_who_comes_and_goes_is_told_with_all_that_there_are() -> None:
    viewed = Viewed(kv("s/b", "10.0.0.2:80", 4))
    viewed.happens(put_event("s/a", "10.0.0.1:80", 8))
    viewed.happens(delete_event("s/b", 9))
    assert viewed.told == [ServiceChange((A, B), (A,), ()), ServiceChange((A,), (), (B,))]


def test_who_changes_is_both_added_and_removed() -> None:
    viewed = Viewed(kv("s/a", "10.0.0.1:80", 4))
    viewed.happens(put_event("s/a", "10.0.0.3:80", 8))
    assert viewed.told == [ServiceChange((C,), (C,), (A,), ((A, C),))]


def test_a_key_put_again_as_it_was_is_no_change() -> None:
    viewed = Viewed(kv("s/a", "10.0.0.1:80", 4))
    viewed.happens(put_event("s/a", "10.0.0.1:80", 8))
    assert viewed.told == []


def test_what_came_together_is_told_as_its_outcome() -> None:
    viewed = Viewed(kv("s/a", "10.0.0.1:80", 4))
    viewed.happens(
        put_event("s/b", "10.0.0.2:80", 8),
        delete_event("s/b", 9),
        delete_event("s/a", 9),
        put_event("s/a", "10.0.0.3:80", 10),
    )
    assert viewed.told == [ServiceChange((C,), (C,), (A,), ((A, C),))]
    viewed.happens(delete_event("s/a", 11), put_event("s/a", "10.0.0.3:80", 12))
    assert len(viewed.told) == 1


def test_what_is_no_instance_is_left_out_and_named_once(caplog: pytest.LogCaptureFixture) -> None:
    viewed = Viewed(kv("s/a", "a secret", 4), kv("s/b", "10.0.0.2:80", 5))
    viewed.happens(put_event("s/c", "10.0.0.3:80", 8))
    assert viewed.view.instances == viewed.view.instances == (B, C)
    viewed.happens(delete_event("s/a", 9))
    assert viewed.told == [ServiceChange((B, C), (C,), ())]
    lines = [record.getMessage() for record in caplog.records if "is left out" in record.getMessage()]
    assert lines == ["s/a is left out: " + lines[0].partition(": ")[2]]
    assert "secret" not in caplog.text


def test_an_instance_that_was_none_before_is_added_and_one_that_is_none_any_more_removed() -> None:
    viewed = Viewed(kv("s/a", "nonsense", 4), kv("s/b", "10.0.0.2:80", 5))
    viewed.happens(put_event("s/a", "10.0.0.1:80", 8))
    viewed.happens(put_event("s/b", "nonsense", 9))
    assert viewed.told == [ServiceChange((A, B), (A,), ()), ServiceChange((A,), (), (B,))]


def test_stopped_it_tells_nothing_more() -> None:
    viewed = Viewed()
    stopping = viewed.view.stop()
    viewed.etcd.take("stop of a watch").answer.callback(None)
    viewed.happens(put_event("s/a", "10.0.0.1:80", 8))
    assert result_of(stopping) is result_of(viewed.view.ended) is None
    assert viewed.told == []


def test_stopped_before_it_was_read_the_start_fails() -> None:
    etcd = ScriptedClient()
    view = ServiceView(etcd.client, Clock(), "s/", lambda _: None)
    started = view.start()
    view.stop()
    failure_of(started, ServiceStopped)
