"""Many watches on one WebSocket, and what happens where there can be none."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs

from tests.client.script import Scene, ScriptedStream, header, outcome, revisions
from tests.guards import LoggedErrors
from twisted_etcd.client.position import WatchBatch
from twisted_etcd.client.watch import Watch
from twisted_etcd.errors import (
    AuthenticationFailed,
    InvalidAuthToken,
    NotEtcd,
    PermissionDenied,
    TLSFailed,
    Unavailable,
    UserEmpty,
    WatchStopped,
)
from twisted_etcd.schema.watch import WatchResponse

UNKNOWN_USER = [
    PermissionDenied(7, "etcdserver: permission denied"),
    InvalidAuthToken(16, "etcdserver: invalid auth token"),
    UserEmpty(3, "etcdserver: user name is empty"),
]


@pytest.fixture
def scene() -> Scene:
    return Scene(own_streams=0)


def refuse(stream: ScriptedStream, message: str) -> None:
    """As servers answer a watch that they do not take: without its id."""
    stream.arrive(WatchResponse(header=header(10), watch_id=-1, created=True, canceled=True, cancel_reason=message))


def open_with(scene: Scene, count: int) -> tuple[ScriptedStream, list[Watch]]:
    watches = [scene.watch(b"%d" % number) for number in range(count)]
    stream = scene.open_next()
    for request in stream.created:
        stream.confirm(request.watch_id)
    return stream, watches


def settled(deferred: Deferred[Any]) -> list[Any]:
    results: list[Any] = []
    deferred.addBoth(results.append)
    return results


# --- sharing --------------------------------------------------------------------------------------------------------


def test_all_watches_travel_on_one_stream_each_with_an_id_of_its_own(scene: Scene) -> None:
    watches = [scene.watch(b"a"), scene.watch(b"b", start_revision=5)]
    opening = scene.gateway.take()
    assert opening.carrier == "WebSocket"
    stream = opening.succeed()
    watches.append(scene.watch(b"c"))
    assert [(request.key, request.start_revision) for request in stream.created] == [(b"a", 0), (b"b", 5), (b"c", 0)]
    ids = [request.watch_id for request in stream.created]
    assert len(set(ids)) == 3
    assert 0 not in ids
    for watch_id in ids:
        stream.confirm(watch_id)
    stream.deliver(12, watch_id=ids[2])
    stream.deliver(7, watch_id=ids[1])
    stream.deliver(11, watch_id=ids[0])
    assert [revisions(watch) for watch in watches] == [[11], [7], [12]]


def test_the_first_watches_get_streams_of_their_own() -> None:
    scene = Scene(own_streams=2)
    for _ in range(4):
        scene.watch()
    assert [opening.carrier for opening in scene.gateway.openings] == ["POST", "POST", "WebSocket"]


def test_a_place_of_its_own_that_became_free_is_taken_again() -> None:
    scene = Scene(own_streams=1)
    scene.watch().stop()
    scene.watch()
    assert [opening.carrier for opening in scene.gateway.openings] == ["POST"]


def test_one_that_is_refused_ends_alone(scene: Scene) -> None:
    watches = [scene.watch(key) for key in (b"a", b"b", b"c")]
    stream = scene.open_next()
    first, _, third = (request.watch_id for request in stream.created)
    stream.confirm(first)
    refuse(stream, "etcdserver: permission denied")
    stream.confirm(third)
    assert isinstance(outcome(watches[1].ready), PermissionDenied)
    stream.deliver(11, watch_id=third)
    stream.deliver(12, watch_id=first)
    assert [revisions(watch) for watch in watches] == [[12], [], [11]]
    assert not stream.closed_from_here


def test_after_a_break_each_asks_from_where_it_was(scene: Scene) -> None:
    stream, watches = open_with(scene, 3)
    ids = [request.watch_id for request in stream.created]
    stream.deliver(11, watch_id=ids[0])
    stream.deliver(12, 15, watch_id=ids[1])
    stream.lose()
    stream = scene.open_next()
    assert [(request.key, request.start_revision) for request in stream.created] == [(b"0", 11), (b"1", 15), (b"2", 10)]
    assert [revisions(watch) for watch in watches] == [[11], [12, 15], []]


def test_what_interrupts_one_moves_all_to_another_stream(scene: Scene) -> None:
    stream, watches = open_with(scene, 2)
    stream.arrive(
        WatchResponse(
            header=header(10), watch_id=stream.created[0].watch_id, canceled=True, cancel_reason="etcdserver: no leader"
        )
    )
    assert stream.closed_from_here
    again = scene.open_next()
    assert [request.start_revision for request in again.created] == [10, 10]
    for request in again.created:
        again.confirm(request.watch_id)
    # The old one takes its time, and is no longer heard.
    stream.deliver(11, watch_id=1)
    stream.finish_closing()
    again.deliver(11, watch_id=again.created[0].watch_id)
    assert [revisions(watch) for watch in watches] == [[11], []]
    assert not again.closed_from_here
    assert scene.waits == []


@pytest.mark.parametrize("garbage", [b"<html>", b'{"result":5}'])
def test_what_is_no_answer_of_etcds_is_a_broken_stream(
    scene: Scene, garbage: bytes, logged_errors: LoggedErrors
) -> None:
    stream, watches = open_with(scene, 2)
    stream.arrive_bytes(garbage)
    assert stream.closed_from_here
    again = scene.next_opening()
    assert again.carrier == "WebSocket"
    assert [request.start_revision for request in again.succeed().created] == [10, 10]
    assert [outcome(watch.ended) for watch in watches] == ["nothing yet"] * 2
    assert logged_errors.left() == []


def test_an_answer_to_nobody_is_passed_over(scene: Scene) -> None:
    stream, [watch] = open_with(scene, 1)
    stream.deliver(11, watch_id=999)
    stream.arrive(WatchResponse(header=header(12), watch_id=-1))
    stream.confirm_end(999)
    stream.deliver(12, watch_id=1)
    assert revisions(watch) == [12]


# --- creations that are not answered --------------------------------------------------------------------------------


def test_a_member_that_does_not_create_a_watch_in_time_is_left(scene: Scene) -> None:
    scene.watch()
    stream = scene.open_next()
    scene.clock.advance(2.9)
    assert not stream.closed_from_here
    scene.clock.advance(0.2)
    assert stream.closed_from_here
    again = scene.next_opening()
    assert again.carrier == "WebSocket"
    again.succeed().confirm(1)
    assert scene.waits == []


def test_an_answer_to_one_creation_gives_the_next_one_time(scene: Scene) -> None:
    for _ in range(2):
        scene.watch()
    stream = scene.open_next()
    scene.clock.advance(2)
    stream.confirm(1)
    scene.clock.advance(2)
    assert not stream.closed_from_here
    stream.confirm(2)
    assert scene.waits == []


def test_an_etcd_that_waits_for_ever_for_a_token_on_a_websocket_gets_post_streams(logged_errors: LoggedErrors) -> None:
    scene = Scene(own_streams=0, user=True)
    watch = scene.watch()
    stream = scene.open_next()
    scene.clock.advance(3.1)
    assert stream.closed_from_here
    again = scene.next_opening()
    assert again.carrier == "POST"
    own = again.succeed()
    own.confirm(0)
    assert outcome(watch.ready) == 10
    assert logged_errors.left() == []


# --- cancelling -----------------------------------------------------------------------------------------------------


def test_stop_fires_when_etcd_has_confirmed_it(scene: Scene) -> None:
    stream, [first, second] = open_with(scene, 2)
    stopping = settled(first.stop())
    assert stream.cancelled == [1]
    assert stopping == []
    stream.deliver(11, watch_id=1)
    stream.confirm_end(1)
    assert stopping == [None]
    assert scene.waits == []
    stream.deliver(11, watch_id=2)
    assert revisions(second) == [11]
    assert not stream.closed_from_here


def test_the_stream_is_closed_when_the_last_one_was_cancelled(scene: Scene) -> None:
    stream, watches = open_with(scene, 2)
    for watch in watches:
        watch.stop()
    stream.confirm_end(1)
    assert not stream.closed_from_here
    stream.confirm_end(2)
    assert stream.closed_from_here
    stopped = settled(scene.carriers.stop())
    assert stopped == []
    stream.finish_closing()
    assert stopped == [None]
    # The next one gets a new stream.
    scene.watch()
    assert scene.gateway.take().carrier == "WebSocket"


def test_a_watch_can_be_stopped_before_it_is_confirmed(scene: Scene) -> None:
    first, second = scene.watch(b"a"), scene.watch(b"b")
    stream = scene.open_next()
    stopping = settled(first.stop())
    assert stream.cancelled == [1]
    # Its confirmation is not mistaken for that of the next one.
    stream.confirm(1, revision=10)
    assert outcome(second.ready) == "nothing yet"
    stream.confirm(2, revision=20)
    stream.confirm_end(1)
    assert stopping == [None]
    assert outcome(second.ready) == 20


def test_a_watch_that_is_stopped_and_refused_at_once_does_not_wait_for_ever(scene: Scene) -> None:
    first, _ = scene.watch(b"a"), scene.watch(b"b")
    stream = scene.open_next()
    stopping = settled(first.stop())
    # The cancellation of a watch that never was is not answered.
    refuse(stream, "etcdserver: permission denied")
    assert stopping == [None]
    stream.confirm(2)
    assert scene.waits == []


def test_stop_before_the_stream_is_open_has_nothing_to_wait_for(scene: Scene) -> None:
    first, second = scene.watch(b"a"), scene.watch(b"b")
    assert outcome(first.stop()) is None
    assert len(scene.gateway.openings) == 1
    assert outcome(second.stop()) is None
    assert scene.gateway.openings == []
    assert isinstance(outcome(first.ready), WatchStopped)


def test_stop_between_two_streams_has_nothing_to_wait_for(scene: Scene) -> None:
    stream, [first, second] = open_with(scene, 2)
    stopping = settled(first.stop())
    stream.lose()
    assert stopping == [None]
    assert [request.key for request in scene.open_next().created] == [b"1"]
    assert settled(second.stop()) == []


def test_where_a_cancellation_is_not_answered_in_time_the_stream_is_dead(scene: Scene) -> None:
    stream, [first, second] = open_with(scene, 2)
    stopping = settled(first.stop())
    scene.clock.advance(2.9)
    assert (stopping, stream.closed_from_here) == ([], False)
    scene.clock.advance(0.2)
    assert (stopping, stream.closed_from_here) == ([None], True)
    again = scene.open_next()
    assert [request.key for request in again.created] == [b"1"]
    stream.finish_closing()
    again.confirm(2)
    again.deliver(11, watch_id=2)
    assert revisions(second) == [11]


def test_an_answer_to_one_cancellation_gives_the_next_one_time(scene: Scene) -> None:
    stream, watches = open_with(scene, 3)
    stopping = [settled(watch.stop()) for watch in watches[:2]]
    scene.clock.advance(2)
    stream.confirm_end(1)
    scene.clock.advance(2)
    assert (stopping, stream.closed_from_here) == ([[None], []], False)
    stream.confirm_end(2)
    assert (stopping, scene.waits) == ([[None], [None]], [])


def test_the_last_ones_that_are_not_answered_leave_nothing_behind(scene: Scene) -> None:
    stream, watches = open_with(scene, 2)
    stopping = [settled(watch.stop()) for watch in watches]
    scene.clock.advance(3)
    assert stopping == [[None], [None]]
    assert stream.closed_from_here
    assert scene.waits == []
    assert scene.gateway.openings == []


def test_whatever_comes_meanwhile_gives_the_answers_time(scene: Scene) -> None:
    stream, [first, _] = open_with(scene, 2)
    stopping = settled(first.stop())
    scene.watch(b"new")
    for revision in (11, 12, 13):
        # An etcd that has much to send.
        scene.clock.advance(2)
        stream.deliver(revision, watch_id=2)
    assert (stopping, stream.closed_from_here) == ([], False)
    stream.confirm_end(1)
    stream.confirm(3)
    assert (stopping, scene.waits) == ([None], [])


def test_the_carriers_stop_when_a_cancellation_that_nobody_waits_for_is_answered(scene: Scene) -> None:
    stream, [first, _] = open_with(scene, 2)
    first.stop()
    stopped = settled(scene.carriers.stop())
    assert stopped == []
    stream.confirm_end(1)
    assert stopped == [None]


# --- in the middle of things ----------------------------------------------------------------------------------------


def test_a_callback_can_stop_all_watches_of_the_stream(scene: Scene) -> None:
    watches: list[Watch] = []
    stopping: list[list[Any]] = []

    def stop_all(_: WatchBatch) -> None:
        stopping.extend(settled(watch.stop()) for watch in watches)

    watches += [scene.watch(b"a", callback=stop_all), scene.watch(b"b"), scene.watch(b"c")]
    stream = scene.open_next()
    for watch_id in (1, 2, 3):
        stream.confirm(watch_id)
    stream.deliver(11, watch_id=1)
    assert stream.cancelled == [1, 2, 3]
    for watch_id in (1, 2, 3):
        stream.confirm_end(watch_id)
    assert stopping == [[None]] * 3
    assert stream.closed_from_here


def test_a_callback_can_begin_watches(scene: Scene) -> None:
    begun: list[Watch] = []
    scene.watch(b"a", callback=lambda _: begun.append(scene.watch(b"b")))
    stream = scene.open_next()
    stream.confirm(1)
    stream.deliver(11, watch_id=1)
    assert [request.key for request in stream.created] == [b"a", b"b"]
    stream.confirm(2)
    stream.deliver(12, watch_id=2)
    assert revisions(begun[0]) == [12]


def test_who_hears_of_a_cancellation_can_begin_a_watch_while_the_stream_breaks(scene: Scene) -> None:
    stream, [first] = open_with(scene, 1)
    begun: list[Watch] = []
    first.stop().addCallback(lambda _: begun.append(scene.watch(b"new")))
    stream.lose()
    again = scene.open_next()
    assert [request.key for request in again.created] == [b"new"]
    again.confirm(again.created[0].watch_id)
    assert outcome(begun[0].ready) == 10


def test_one_that_hears_of_its_end_can_stop_the_others(scene: Scene) -> None:
    watches = [scene.watch(key) for key in (b"a", b"b", b"c")]
    stopping: list[list[Any]] = []
    watches[0].ended.addErrback(lambda _: stopping.extend(settled(watch.stop()) for watch in watches[1:]))
    scene.next_opening().fail(TLSFailed("no stream"))
    assert stopping == [[None], [None]]
    assert isinstance(outcome(watches[0].ready), TLSFailed)
    assert isinstance(outcome(watches[1].ready), WatchStopped)
    assert (scene.waits, scene.gateway.openings) == ([], [])


# --- a backlog ------------------------------------------------------------------------------------------------------


def test_a_slow_consumer_is_taken_off_and_put_back_where_it_was(scene: Scene) -> None:
    slow = scene.watch(b"slow", max_backlog=2)
    quick = scene.watch(b"quick")
    stream = scene.open_next()
    for watch_id in (1, 2):
        stream.confirm(watch_id)
    stream.deliver(11, 12, 13, watch_id=1)
    assert stream.cancelled == [1]
    # What was under way already is not lost: it comes again.
    stream.deliver(14, watch_id=1)
    stream.confirm_end(1)
    stream.deliver(14, watch_id=2)
    assert revisions(quick) == [14]
    assert outcome(slow.next()).revision == 13
    assert [(request.key, request.start_revision) for request in stream.created][2:] == [(b"slow", 13)]
    stream.confirm(3)
    stream.deliver(14, 15, watch_id=3)
    assert revisions(slow) == [14, 15]


def test_a_slow_consumer_that_is_stopped_stays_off(scene: Scene) -> None:
    slow = scene.watch(b"slow", max_backlog=2)
    stream = scene.open_next()
    stream.confirm(1)
    stream.deliver(11, 12, 13, watch_id=1)
    assert outcome(slow.stop()) is None
    assert outcome(slow.ended) is None
    stream.confirm_end(1)
    assert stream.closed_from_here
    assert scene.gateway.openings == []


# --- where there is no WebSocket ------------------------------------------------------------------------------------


def warnings(logs: Any) -> list[str]:  # noqa: ANN401
    return [event["why"] for event in logs if "WebSocket is refused" in event["log_format"]]


@pytest.mark.parametrize(
    "error",
    [NotEtcd("no stream for Watch.Watch", {"http://one:2379": "answered 405"}), *UNKNOWN_USER],
    ids=lambda error: type(error).__name__,
)
def test_a_refused_websocket_is_left_once_with_a_warning(scene: Scene, error: Exception) -> None:
    watches = [scene.watch(b"%d" % number) for number in range(3)]
    with capturedLogs() as logs:
        scene.next_opening().fail(error)
        assert [opening.carrier for opening in scene.gateway.openings] == ["POST"] * 3
        scene.watch(b"later")
    assert len(scene.gateway.openings) == 4
    assert warnings(logs) == [f"http://one:2379: {error}"]
    for opening in scene.gateway.openings:
        opening.succeed().confirm()
    assert [outcome(watch.ready) for watch in watches] == [10, 10, 10]
    assert scene.waits == []


@pytest.mark.parametrize("error", UNKNOWN_USER, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("user", [True, False])
def test_a_websocket_on_which_no_token_is_read_is_left_too(
    error: InvalidAuthToken,
    user: bool,  # noqa: FBT001
) -> None:
    scene = Scene(own_streams=0, user=user)
    watches = [scene.watch(b"%d" % number) for number in range(3)]
    stream = scene.open_next()
    with capturedLogs() as logs:
        refuse(stream, error.message)
        # The others are refused as well, and not heard any more.
        refuse(stream, error.message)
    assert warnings(logs) == [f"http://one:2379: no token is read from a WebSocket ({error.message})"]
    assert stream.closed_from_here
    assert [opening.carrier for opening in scene.gateway.openings] == ["POST"] * 3
    stream.finish_closing()
    for opening in scene.gateway.openings:
        opening.succeed().confirm()
    assert [outcome(watch.ready) for watch in watches] == [10, 10, 10]


def test_a_websocket_that_served_once_is_not_left(scene: Scene) -> None:
    stream, watches = open_with(scene, 2)
    stream.lose()
    with capturedLogs() as logs:
        for _ in range(3):
            scene.next_opening().fail(NotEtcd("no stream", {"http://one:2379": "answered 502"}))
        assert scene.next_opening().carrier == "WebSocket"
    assert warnings(logs) == []
    assert [outcome(watch.ended) for watch in watches] == ["nothing yet"] * 2


def test_an_outage_is_no_refusal(scene: Scene) -> None:
    scene.watch()
    for _ in range(3):
        scene.next_opening().fail(Unavailable("no stream"))
    assert scene.next_opening().carrier == "WebSocket"


def test_a_wrong_password_ends_all_and_is_no_refusal() -> None:
    scene = Scene(own_streams=0, user=True)
    watches = [scene.watch(), scene.watch()]
    with capturedLogs() as logs:
        scene.next_opening().fail(
            AuthenticationFailed(3, "etcdserver: authentication failed, invalid user ID or password")
        )
    assert warnings(logs) == []
    assert [type(outcome(watch.ready)) for watch in watches] == [AuthenticationFailed] * 2
    assert (scene.waits, scene.gateway.openings) == ([], [])


def test_a_stream_whose_token_went_stale_gets_a_new_one_and_not_for_ever() -> None:
    scene = Scene(own_streams=0, user=True)
    stream, [watch] = open_with(scene, 1)
    for number in range(1, 4):
        stream.arrive_error(16, "etcdserver: invalid auth token")
        stream = scene.open_next()
        assert scene.gateway.renewals == number
    stream.arrive_error(16, "etcdserver: invalid auth token")
    assert isinstance(outcome(watch.ended), InvalidAuthToken)
    assert (scene.waits, scene.gateway.openings) == ([], [])


def test_a_watch_that_is_stopped_while_all_move_is_not_carried_on(scene: Scene) -> None:
    first, second = scene.watch(b"a"), scene.watch(b"b")
    stream = scene.open_next()
    stopping = first.stop()
    others: list[list[Any]] = []
    # Told while the stream breaks, before the others have moved.
    stopping.addCallback(lambda _: others.append(settled(second.stop())))
    stream.arrive_error(12, "etcdserver: unknown method")
    assert others == [[None]]
    assert scene.gateway.openings == []
    assert scene.waits == []
