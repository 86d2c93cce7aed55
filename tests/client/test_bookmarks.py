"""Progress requests: when, to whom, and who may believe the answer."""

from __future__ import annotations

import pytest

from tests.client.script import Scene, ScriptedStream, events, header
from twisted_etcd.client import bookmarks, vigil
from twisted_etcd.client.bookmarks import Bookmarks, is_progress_of_all, orders_progress
from twisted_etcd.gateway.checkups import Condition
from twisted_etcd.schema.watch import WatchResponse

WELL = Condition(version="3.5.16", member_id=1)


@pytest.mark.parametrize(
    ("version", "ordered"),
    [
        ("3.4.23", False),
        ("3.4.25", True),
        ("3.5.1", False),
        ("3.5.7", False),
        ("3.5.8", True),
        ("3.5.16", True),
        ("3.6.0", True),
        ("3.10.0", True),
        ("4.0.0", True),
        ("3.3.27", False),
        ("3.6.0-rc.1", True),
        ("", False),
        ("unknown", False),
    ],
)
def test_only_an_etcd_that_orders_its_answer_is_believed(version: str, ordered: bool) -> None:  # noqa: FBT001
    assert orders_progress(version) is ordered


def test_a_refused_creation_is_no_progress() -> None:
    assert is_progress_of_all(WatchResponse(watch_id=-1))
    assert not is_progress_of_all(WatchResponse(watch_id=-1, created=True, canceled=True))
    assert not is_progress_of_all(WatchResponse(watch_id=1))


def test_it_is_due_once_in_an_interval_at_the_member_that_answers() -> None:
    marks = Bookmarks()
    marks.member_id = 1
    now = 1000.0
    assert marks.due(WELL, now)
    marks.asked(now, [1])
    assert not marks.due(WELL, now + bookmarks.INTERVAL - 1)
    assert marks.due(WELL, now + bookmarks.INTERVAL)
    # A proxy may have led the question to another member.
    assert not marks.due(Condition(version="3.5.16", member_id=2), now + bookmarks.INTERVAL)
    assert not marks.due(Condition(version="3.5.1", member_id=1), now + bookmarks.INTERVAL)


def test_the_answer_is_for_those_who_were_confirmed_when_it_was_asked_for() -> None:
    marks = Bookmarks()
    marks.asked(0, [1, 2])
    assert list(marks.answered()) == [1, 2]
    # A second one is to nobody's question.
    assert list(marks.answered()) == []


def test_an_answer_may_be_to_an_earlier_question_that_was_not_answered() -> None:
    marks = Bookmarks()
    marks.asked(0, [1, 2, 3])
    marks.asked(60, [2, 3, 4])
    assert list(marks.answered()) == [2, 3]
    marks.asked(120, [3, 4])
    assert list(marks.answered()) == [3, 4]


# --- on a stream ----------------------------------------------------------------------------------------------------


def after_a_question(scene: Scene, version: str = "3.5.16", within: float = vigil.INTERVAL * 1.3) -> None:
    """The vigil has asked, and its member is well."""
    scene.clock.advance(within)
    [(_, answer)] = scene.gateway.checkups
    scene.gateway.checkups.clear()
    answer.callback(Condition(version=version, member_id=1))


def progress_requests(stream: ScriptedStream) -> int:
    return len([request for request in stream.sent if request.progress_request is not None])


@pytest.fixture
def scene() -> Scene:
    scene = Scene(own_streams=0)
    # Long ago nothing was asked.
    scene.clock.advance(bookmarks.INTERVAL)
    return scene


def resumes_at(scene: Scene, stream: ScriptedStream) -> list[int]:
    stream.lose()
    return [request.start_revision for request in scene.open_next().created]


def test_an_idle_watch_goes_on_from_its_bookmark(scene: Scene) -> None:
    scene.watch()
    stream = scene.open_next()
    stream.confirm(1, revision=10)
    after_a_question(scene)
    assert (stream.pings, progress_requests(stream)) == (1, 1)
    stream.arrive(WatchResponse(header=header(500), watch_id=-1))
    # Its consumer did not ask for progress, and is told of none.
    assert resumes_at(scene, stream) == [500]


def test_an_etcd_whose_answer_can_overtake_events_is_not_asked(scene: Scene) -> None:
    scene.watch()
    stream = scene.open_next()
    stream.confirm(1)
    after_a_question(scene, version="3.5.1")
    # The ping keeps the connection open for proxies.
    assert (stream.pings, progress_requests(stream)) == (1, 0)


def test_one_that_is_confirmed_after_the_question_does_not_believe_the_answer(scene: Scene) -> None:
    scene.watch(b"a")
    stream = scene.open_next()
    stream.confirm(1, revision=10)
    # Asked for shortly before the question: its creation must not be late.
    scene.clock.advance(vigil.INTERVAL)
    scene.watch(b"b", start_revision=5)
    after_a_question(scene, within=vigil.INTERVAL * 0.3)
    stream.confirm(2, revision=10)
    # Its events from revision 5 on are still to come.
    stream.arrive(WatchResponse(header=header(500), watch_id=-1))
    assert resumes_at(scene, stream) == [500, 5]


def test_one_that_has_part_of_a_revision_does_not_believe_it_either(scene: Scene) -> None:
    scene.watch(start_revision=5)
    stream = scene.open_next()
    stream.confirm(1, revision=10)
    after_a_question(scene)
    stream.arrive(WatchResponse(header=header(10), watch_id=1, fragment=True, events=events(6)))
    stream.arrive(WatchResponse(header=header(500), watch_id=-1))
    assert resumes_at(scene, stream) == [5]


def test_a_break_makes_the_question_void(scene: Scene) -> None:
    scene.watch()
    stream = scene.open_next()
    stream.confirm(1, revision=10)
    after_a_question(scene)
    stream.lose()
    stream = scene.open_next()
    stream.arrive(WatchResponse(header=header(500), watch_id=-1))
    assert resumes_at(scene, stream) == [10]


def test_a_stream_of_its_own_is_not_asked() -> None:
    scene = Scene(own_streams=1)
    scene.clock.advance(bookmarks.INTERVAL)
    scene.watch()
    stream = scene.open_next()
    stream.confirm()
    after_a_question(scene)
    assert (stream.pings, progress_requests(stream)) == (0, 0)
    # etcd tells by itself, every ten minutes.
    assert stream.created[0].progress_notify
    stream.arrive(WatchResponse(header=header(500)))
    assert resumes_at(scene, stream) == [500]
