"""Members are asked how they are for as long as a stream depends on them."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock

from tests.client.script import Scene, ScriptedGateway, outcome
from twisted_etcd.client.vigil import INTERVAL, Vigil
from twisted_etcd.gateway.checkups import Condition

WELL = Condition(version="3.5.16", member_id=1)
HUNG = Condition(trouble="it did not answer within 1.5 s how it is")


class Attached:
    def __init__(self) -> None:
        self.told: list[Condition] = []
        self.then: Any = lambda: None

    def member_is(self, condition: Condition) -> None:
        self.told.append(condition)
        self.then()


class Post:
    """A vigil and its clock."""

    def __init__(self, *hosts: str) -> None:
        self.clock = Clock()
        self.gateway = ScriptedGateway(*hosts)
        gateway: Any = self.gateway
        self.vigil = Vigil(gateway, self.clock)

    def asked(self) -> list[str]:
        """Who is asked next."""
        self.clock.advance(INTERVAL * 1.2)
        return [endpoint.host for endpoint, _ in self.gateway.checkups]

    def answer(self, condition: Condition) -> None:
        answers, self.gateway.checkups = self.gateway.checkups, []
        for _, deferred in answers:
            deferred.callback(condition)


# --- by itself ------------------------------------------------------------------------------------------------------


def test_a_member_is_asked_once_for_all_streams_and_all_hear_it() -> None:
    post = Post("one", "two")
    one, _ = post.gateway.endpoints
    streams = [Attached() for _ in range(1000)]
    for stream in streams:
        post.vigil.attach(stream, one)
    assert post.asked() == ["one"]
    post.answer(HUNG)
    assert [stream.told for stream in streams] == [[HUNG]] * 1000


def test_each_member_with_a_stream_is_asked_again_and_again() -> None:
    post = Post("one", "two", "three")
    for endpoint in post.gateway.endpoints[:2]:
        post.vigil.attach(Attached(), endpoint)
    for _ in range(3):
        assert post.asked() == ["one", "two"]
        post.answer(WELL)


def test_where_nothing_is_attached_nobody_is_asked_and_no_timer_runs() -> None:
    post = Post()
    [one] = post.gateway.endpoints
    assert post.clock.getDelayedCalls() == []
    stream = Attached()
    post.vigil.attach(stream, one)
    post.vigil.detach(stream, one)
    assert post.clock.getDelayedCalls() == []
    # What was never attached can go too.
    post.vigil.detach(stream, one)
    assert post.asked() == []


def test_an_answer_that_comes_late_is_told_to_nobody() -> None:
    post = Post()
    [one] = post.gateway.endpoints
    stream = Attached()
    post.vigil.attach(stream, one)
    assert post.asked() == ["one"]
    post.vigil.detach(stream, one)
    post.answer(HUNG)
    assert stream.told == []


def test_what_one_does_about_it_can_detach_the_others() -> None:
    post = Post()
    [one] = post.gateway.endpoints
    streams = [Attached() for _ in range(3)]

    def detach_all() -> None:
        for each in streams:
            post.vigil.detach(each, one)

    for stream in streams:
        stream.then = detach_all
        post.vigil.attach(stream, one)
    assert post.asked() == ["one"]
    post.answer(HUNG)
    assert sorted(stream.told for stream in streams) == [[], [], [HUNG]]


# --- with streams ---------------------------------------------------------------------------------------------------


def hear(scene: Scene, condition: Condition) -> list[str]:
    """Who was asked; each of them is so."""
    scene.clock.advance(INTERVAL * 1.2)
    checkups, scene.gateway.checkups = scene.gateway.checkups, []
    for _, answer in checkups:
        answer.callback(condition)
    return [endpoint.host for endpoint, _ in checkups]


def is_opened_next(scene: Scene, host: str, own_streams: int) -> bool:
    """Whether a stream is opened there; one that many are to share once that member is known to be well."""
    if not own_streams:
        scene.clock.advance(0.5)
        [(endpoint, answer)] = scene.gateway.checkups
        scene.gateway.checkups.clear()
        assert scene.gateway.openings == []
        assert endpoint.host == host
        answer.callback(WELL)
    return scene.next_opening().endpoint.host == host


def test_a_stream_that_is_open_leaves_a_member_in_trouble() -> None:
    for own_streams in (9, 0):
        scene = Scene("one", "two", own_streams=own_streams)
        scene.watch()
        stream = scene.open_next()
        stream.confirm(0 if own_streams else 1)
        assert hear(scene, WELL) == ["one"]
        assert not stream.closed_from_here
        assert hear(scene, HUNG) == ["one"]
        assert stream.closed_from_here
        assert is_opened_next(scene, "two", own_streams)


def test_so_does_one_that_is_being_opened() -> None:
    for own_streams in (9, 0):
        scene = Scene("one", "two", own_streams=own_streams)
        watch = scene.watch()
        assert hear(scene, HUNG) == ["one"]
        assert is_opened_next(scene, "two", own_streams)
        assert outcome(watch.ended) == "nothing yet"


def test_with_all_members_in_trouble_each_is_tried_no_more_often_than_it_is_asked() -> None:
    for hosts in (["one"], ["one", "two"]):
        scene = Scene(*hosts, own_streams=9)
        scene.watch()
        tried = []
        for _ in range(10):
            opening = scene.next_opening()
            tried.append(opening.endpoint.host)
            opening.succeed()
            assert hear(scene, HUNG) == [tried[-1]]
        assert tried == (hosts * 10)[:10]


def test_nobody_is_asked_when_the_last_watch_has_stopped() -> None:
    for own_streams in (9, 0):
        scene = Scene(own_streams=own_streams)
        watch = scene.watch()
        stream = scene.open_next()
        stream.confirm(0 if own_streams else 1)
        watch.stop()
        if own_streams == 0:
            stream.confirm_end(1)
        # Its socket takes its time, as that of a member that hangs.
        assert stream.closed_from_here
        assert scene.clock.getDelayedCalls() == []
