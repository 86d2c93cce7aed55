"""Streams that break and come back, by the example of a watch that has one of its own."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.logger import capturedLogs

from tests.client.script import Scene, events, header, outcome, revisions
from tests.guards import LoggedErrors
from twisted_etcd.client.carriers import OwnStream
from twisted_etcd.client.line import LineState
from twisted_etcd.client.vigil import Vigil
from twisted_etcd.errors import (
    AuthenticationFailed,
    Compacted,
    InvalidAuthToken,
    NotEtcd,
    PermissionDenied,
    TLSFailed,
    Unavailable,
    UserEmpty,
    WatchStopped,
)
from twisted_etcd.gateway.poststream import PostStream
from twisted_etcd.schema.watch import WatchCreateRequest, WatchResponse


@pytest.fixture
def scene() -> Scene:
    return Scene(own_streams=9)


# --- breaking and coming back ---------------------------------------------------------------------------------------


def test_a_watch_asks_again_from_where_it_was(scene: Scene) -> None:
    watch = scene.watch()
    stream = scene.open_next()
    [request] = stream.created
    assert (request.key, request.start_revision, request.watch_id) == (b"k", 0, 0)
    stream.confirm(revision=10)
    stream.deliver(11, 12)
    stream.lose()
    stream = scene.open_next()
    # The last revision that it knows: an etcd that has compacted less than that has all of the next one.
    assert stream.created[0].start_revision == 12
    stream.confirm(revision=15)
    stream.deliver(12, 13)
    assert revisions(watch) == [11, 12, 13]
    assert outcome(watch.ready) == 10


def test_the_waits_grow_and_begin_anew_after_a_confirmation(scene: Scene) -> None:
    scene.watch()
    waits = []
    for _ in range(7):
        scene.next_opening().fail()
        waits += scene.waits
    assert waits == pytest.approx([0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0])
    scene.open_next().lose()
    # Open, and nothing came on it: that is no success.
    assert scene.waits == pytest.approx([1.0])
    stream = scene.open_next()
    stream.confirm()
    stream.lose()
    # Nor is one that breaks as soon as it is good.
    assert scene.waits == pytest.approx([1.0])
    stream = scene.open_next()
    stream.confirm()
    scene.clock.advance(1)
    stream.lose()
    assert scene.waits == pytest.approx([0.05])


def test_a_break_is_logged_once_until_it_is_mended(scene: Scene) -> None:
    scene.watch()
    with capturedLogs() as logs:
        for _ in range(3):
            scene.next_opening().fail()
        stream = scene.open_next()
        stream.confirm()
        stream.lose()
    [first, second] = [event for event in logs if "will be opened again" in event["log_format"]]
    assert first["endpoint"] == "http://one:2379"
    assert first["why"] == "no stream: http://one:2379: connection refused"
    assert second["why"] == "the connection was lost"


def test_the_next_attempt_goes_to_the_next_endpoint() -> None:
    scene = Scene("one", "two", own_streams=9)
    scene.watch()
    hosts = []
    for _ in range(3):
        opening = scene.next_opening()
        hosts.append(opening.endpoint.host)
        opening.fail()
    assert hosts == ["one", "two", "one"]


def test_an_old_stream_that_ends_late_does_not_touch_the_new_one(scene: Scene) -> None:
    watch = scene.watch()
    old = scene.open_next()
    old.confirm()
    old.arrive_error(14, "etcdserver: no leader")
    assert old.closed_from_here
    new = scene.open_next()
    new.confirm()
    old.finish_closing()
    new.deliver(11)
    assert revisions(watch) == [11]
    assert scene.waits == []


def test_a_member_that_cannot_serve_it_is_left(scene: Scene) -> None:
    watch = scene.watch()
    for message in ("etcdserver: no leader", "etcdserver: server stopped", "what nobody expected"):
        stream = scene.open_next()
        stream.confirm()
        stream.arrive_error(14, message)
        assert stream.closed_from_here
        stream.finish_closing()
    stream = scene.open_next()
    stream.arrive(WatchResponse(header=header(10), canceled=True, cancel_reason="etcdserver: no leader"))
    stream.finish_closing()
    scene.open_next().confirm()
    assert outcome(watch.ended) == "nothing yet"


def test_a_fragment_that_was_cut_off_comes_again_whole(scene: Scene) -> None:
    watch = scene.watch()
    stream = scene.open_next()
    stream.confirm()
    stream.arrive(WatchResponse(header=header(11), events=events(11), fragment=True))
    stream.lose()
    stream = scene.open_next()
    stream.confirm()
    stream.deliver(11, 11)
    assert revisions(watch) == [11, 11]


# --- what ends it ---------------------------------------------------------------------------------------------------


def test_what_the_next_stream_would_be_told_too_ends_the_watch(scene: Scene) -> None:
    for error in (PermissionDenied(7, "etcdserver: permission denied"), UserEmpty(3, "etcdserver: user name is empty")):
        watch = scene.watch()
        scene.next_opening().fail(error)
        assert outcome(watch.ready) is error
        assert outcome(watch.ended) is error
    watch = scene.watch()
    stream = scene.open_next()
    stream.arrive_error(7, "etcdserver: permission denied")
    assert isinstance(outcome(watch.next()), PermissionDenied)
    assert stream.closed_from_here
    watch = scene.watch(start_revision=1)
    stream = scene.open_next()
    stream.confirm()
    stream.arrive(WatchResponse(header=header(10), canceled=True, compact_revision=5))
    assert isinstance(outcome(watch.next()), Compacted)
    assert scene.waits == []
    assert scene.gateway.openings == []


def test_a_wrong_password_is_told_at_once() -> None:
    scene = Scene(own_streams=9, user=True)
    watch = scene.watch()
    scene.next_opening().fail(AuthenticationFailed(3, "etcdserver: authentication failed, invalid user ID or password"))
    assert isinstance(outcome(watch.ready), AuthenticationFailed)
    assert scene.waits == []


def test_a_token_that_went_stale_is_renewed() -> None:
    scene = Scene(own_streams=9, user=True)
    watch = scene.watch()
    for number in range(1, 10):
        stream = scene.open_next()
        stream.arrive_error(16, "etcdserver: invalid auth token")
        assert scene.gateway.renewals == number
        stream = scene.open_next()
        stream.confirm()
        stream.lose()
    assert outcome(watch.ended) == "nothing yet"


@pytest.mark.parametrize("how", ["refused", "error", "cancelled"])
def test_new_tokens_that_do_not_serve_either_end_the_watch(how: str) -> None:
    scene = Scene(own_streams=9, user=True)
    watch = scene.watch()
    error = InvalidAuthToken(16, "etcdserver: invalid auth token")
    for _ in range(4):
        opening = scene.next_opening()
        if how == "refused":
            opening.fail(InvalidAuthToken(16, error.message))
        elif how == "error":
            opening.succeed().arrive_error(16, error.message)
        else:
            opening.succeed().arrive(
                WatchResponse(header=header(10), created=True, canceled=True, cancel_reason=error.message)
            )
    assert isinstance(outcome(watch.ended), InvalidAuthToken)
    assert scene.waits == []
    # Each attempt but the last was made with a new one.
    assert scene.gateway.renewals == 3


def test_a_denial_may_be_about_the_token_once() -> None:
    scene = Scene(own_streams=9, user=True)
    watch = scene.watch()
    for renewals in (1, 2):
        scene.next_opening().fail(PermissionDenied(7, "etcdserver: permission denied"))
        stream = scene.open_next()
        assert scene.gateway.renewals == renewals
        stream.confirm()
        stream.lose()
    scene.next_opening().fail(PermissionDenied(7, "etcdserver: permission denied"))
    scene.next_opening().fail(PermissionDenied(7, "etcdserver: permission denied"))
    assert isinstance(outcome(watch.ended), PermissionDenied)
    assert scene.waits == []


@pytest.mark.parametrize(
    "garbage", [b"<html>", b"{}", b'{"result":5}', b'{"result":{"events":[{"kv":{"mod_revision":"x"}}]}}', b"\xff\xfe"]
)
def test_what_is_no_answer_of_etcds_is_a_broken_stream(
    scene: Scene, garbage: bytes, logged_errors: LoggedErrors
) -> None:
    watch = scene.watch()
    stream = scene.open_next()
    stream.confirm()
    stream.arrive_bytes(garbage)
    assert stream.closed_from_here
    # It served before: the watch goes on, and there is no traceback in the log.
    scene.open_next().confirm()
    assert outcome(watch.ended) == "nothing yet"
    assert logged_errors.left() == []


def test_a_peer_that_was_never_an_etcd_ends_the_watch(scene: Scene) -> None:
    watch = scene.watch()
    scene.open_next().arrive_bytes(b"<html>")
    error = outcome(watch.ready)
    assert isinstance(error, NotEtcd)
    assert str(error).startswith("a stream is not etcd's: http://one:2379: what it sent cannot be read: ")
    assert "html" not in str(error)


@pytest.mark.parametrize("kind", [NotEtcd, TLSFailed])
def test_one_stranger_among_the_endpoints_does_not(kind: type[NotEtcd | TLSFailed]) -> None:
    scene = Scene("stranger", "etcd", own_streams=9)
    watch = scene.watch()
    scene.next_opening().fail(kind("no stream", {"http://stranger:2379": "it is a printer"}))
    scene.next_opening().fail(Unavailable("no stream"))
    scene.next_opening().fail(kind("no stream", {"http://stranger:2379": "it is a printer"}))
    scene.open_next().confirm(revision=10)
    assert outcome(watch.ready) == 10


def test_nothing_but_strangers_ends_a_watch_that_never_worked() -> None:
    scene = Scene("one", "two", own_streams=9)
    watch = scene.watch()
    scene.next_opening().fail(NotEtcd("no stream"))
    scene.next_opening().fail(TLSFailed("no stream"))
    assert isinstance(outcome(watch.ready), TLSFailed)
    assert scene.waits == []


def test_a_watch_that_worked_outlasts_strangers(scene: Scene) -> None:
    watch = scene.watch()
    stream = scene.open_next()
    stream.confirm()
    stream.lose()
    for _ in range(3):
        scene.next_opening().fail(NotEtcd("no stream"))
    scene.open_next().confirm()
    assert outcome(watch.ended) == "nothing yet"


# --- stopping -------------------------------------------------------------------------------------------------------


def test_stop_gives_up_what_is_being_opened(scene: Scene) -> None:
    watch = scene.watch()
    assert len(scene.gateway.openings) == 1
    assert outcome(watch.stop()) is None
    assert scene.gateway.openings == []
    assert isinstance(outcome(watch.ready), WatchStopped)
    assert scene.waits == []


def test_stop_ends_the_wait_for_the_next_attempt(scene: Scene) -> None:
    watch = scene.watch()
    scene.next_opening().fail()
    assert len(scene.waits) == 1
    assert outcome(watch.stop()) is None
    assert scene.waits == []


def test_stop_fires_when_the_socket_has_gone(scene: Scene) -> None:
    watch = scene.watch()
    stream = scene.open_next()
    stream.confirm()
    results: list[object] = []
    watch.stop().addBoth(results.append)
    stopped: list[object] = []
    scene.carriers.stop().addBoth(stopped.append)
    assert results == []
    stream.finish_closing()
    assert (results, stopped) == ([None], [None])


def test_the_carriers_stop_when_every_stream_that_was_given_up_has_gone(scene: Scene) -> None:
    watch = scene.watch()
    stream = scene.open_next()
    stream.arrive_error(14, "etcdserver: no leader")
    watch.stop()
    stopped: list[object] = []
    scene.carriers.stop().addBoth(stopped.append)
    assert stopped == []
    stream.finish_closing()
    assert stopped == [None]


# --- the machine itself ---------------------------------------------------------------------------------------------


class Careless(OwnStream):
    """A line whose subclass makes a mistake."""

    def _opened(self, stream: PostStream) -> None:
        raise ZeroDivisionError


def test_a_mistake_after_the_opening_is_not_swallowed(scene: Scene, logged_errors: LoggedErrors) -> None:
    feed: Any = StubFeed()
    gateway: Any = scene.gateway
    line = Careless(gateway, scene.clock, Vigil(gateway, scene.clock), scene.carriers, feed)
    line.open()
    scene.gateway.take().succeed()
    assert len(logged_errors.flush(ZeroDivisionError)) == 1
    assert line.state is LineState.OPEN


class StubFeed:
    def request(self, watch_id: int) -> WatchCreateRequest:
        return WatchCreateRequest(key=b"k", watch_id=watch_id)
