"""Whether anything is heard from etcd, for each watch on whatever carries it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.client.script import Scene, events, header, outcome
from tests.guards import LoggedErrors
from twisted_etcd.client.watch import Watch
from twisted_etcd.gateway.checkups import Condition
from twisted_etcd.schema.common import ResponseHeader
from twisted_etcd.schema.kv import RangeResponse
from twisted_etcd.schema.watch import WatchResponse

CARRIERS = pytest.mark.parametrize("own_streams", [1, 0], ids=["own-stream", "shared"])


def told_by(watch: Watch) -> list[bool]:
    told: list[bool] = []
    watch.on_interruption(told.append)
    return told


def watch_id(own_streams: int, number: int = 1) -> int:
    return 0 if own_streams else number


@CARRIERS
def test_a_watch_that_is_being_begun_is_not_interrupted(own_streams: int) -> None:
    scene = Scene(own_streams=own_streams)
    watch = scene.watch()
    told = told_by(watch)
    assert not watch.interrupted
    scene.open_next().confirm(watch_id(own_streams))
    assert not watch.interrupted
    assert told == []


@CARRIERS
def test_from_the_break_of_its_stream_until_it_is_confirmed_on_another_it_is(own_streams: int) -> None:
    scene = Scene(own_streams=own_streams)
    watch = scene.watch()
    told = told_by(watch)
    stream = scene.open_next()
    stream.confirm(watch_id(own_streams))
    stream.lose()
    assert watch.interrupted
    scene.next_opening().fail()
    assert told == [True]
    stream = scene.open_next()
    assert watch.interrupted
    stream.confirm(watch_id(own_streams))
    assert not watch.interrupted
    assert told == [True, False]


@CARRIERS
def test_one_that_never_came_about_is_too(own_streams: int) -> None:
    scene = Scene(own_streams=own_streams)
    watch = scene.watch()
    scene.next_opening().fail()
    assert watch.interrupted
    scene.open_next().confirm(watch_id(own_streams))
    assert not watch.interrupted


@CARRIERS
def test_a_member_that_hangs_interrupts_it(own_streams: int) -> None:
    scene = Scene(own_streams=own_streams)
    watch = scene.watch()
    stream = scene.open_next()
    stream.confirm(watch_id(own_streams))
    scene.clock.advance(6)
    [(_, answer)] = scene.gateway.checkups
    assert not watch.interrupted
    answer.callback(Condition(trouble="it does not answer"))
    assert watch.interrupted
    stream.finish_closing()


@CARRIERS
def test_one_that_is_off_its_stream_since_its_consumer_is_slow_is_not(own_streams: int) -> None:
    scene = Scene(own_streams=own_streams)
    watch = scene.watch(max_backlog=2)
    told = told_by(watch)
    stream = scene.open_next()
    stream.confirm(watch_id(own_streams))
    stream.arrive(WatchResponse(header=header(13), watch_id=watch_id(own_streams), events=events(11, 12, 13)))
    if not own_streams:
        stream.confirm_end(1)
    assert stream.closed_from_here
    stream.finish_closing()
    assert not watch.interrupted
    # Consumed, it is to be carried on, and etcd is away by now.
    outcome(watch.next())
    assert not watch.interrupted
    scene.next_opening().fail()
    assert watch.interrupted
    scene.open_next().confirm(watch_id(own_streams))
    assert told == [True, False]


@CARRIERS
def test_one_that_reads_its_keys_again_is(own_streams: int) -> None:
    scene = Scene(own_streams=own_streams)
    watch = scene.watch(resync=True)
    told = told_by(watch)
    read = RangeResponse(header=ResponseHeader(cluster_id=header(1).cluster_id, revision=10))
    scene.gateway.take_call().deferred.callback(read)
    assert told == []
    stream = scene.open_next()
    stream.confirm(watch_id(own_streams))
    compacted = WatchResponse(header=header(20), watch_id=watch_id(own_streams), canceled=True, compact_revision=15)
    stream.arrive(compacted)
    stream.finish_closing()
    assert told == [True]
    scene.gateway.take_call().deferred.callback(read)
    assert told == [True]
    scene.open_next().confirm(watch_id(own_streams))
    assert told == [True, False]


@CARRIERS
def test_one_that_has_ended_tells_nothing_more(own_streams: int) -> None:
    scene = Scene(own_streams=own_streams)
    watch = scene.watch()
    told = told_by(watch)
    stream = scene.open_next()
    stream.confirm(watch_id(own_streams))
    watch.stop()
    stream.lose()
    assert told == []


def test_one_that_shares_a_stream_is_interrupted_until_a_member_is_well() -> None:
    scene = Scene(own_streams=0)
    watch = scene.watch()
    told = told_by(watch)
    stream = scene.open_next()
    stream.confirm(1)
    scene.clock.advance(6)
    for _ in range(3):
        # It would confirm watches without a leader, too.
        (_, answer) = scene.gateway.checkups.pop()
        answer.callback(Condition(trouble="it has no leader"))
        scene.clock.advance(1)
        assert scene.gateway.openings == []
    assert told == [True]
    stream.finish_closing()
    (_, answer) = scene.gateway.checkups.pop()
    answer.callback(Condition())
    scene.gateway.take().succeed().confirm(1)
    assert told == [True, False]
    # Well once, the next break is one of connections again.
    watch.stop()


def test_of_several_on_one_stream_one_that_hears_of_it_can_stop_them_all() -> None:
    scene = Scene(own_streams=0)
    watches = [scene.watch(b"%d" % number) for number in range(3)]
    stream = scene.open_next()
    for number in (1, 2, 3):
        stream.confirm(number)
    stopped: list[Any] = []
    told = told_by(watches[2])

    def stop_all(_: bool) -> None:  # noqa: FBT001
        stopped.extend(watch.stop() for watch in watches)

    watches[0].on_interruption(stop_all)
    stream.lose()
    assert [outcome(each) for each in stopped] == [None] * 3
    assert told == []
    assert scene.waits == []
    assert scene.clock.getDelayedCalls() == []


def test_one_on_a_stream_of_its_own_can_be_stopped_by_who_hears_of_it() -> None:
    scene = Scene(own_streams=1)
    watch = scene.watch()
    stream = scene.open_next()
    stream.confirm()
    watch.on_interruption(lambda _: watch.stop())
    stream.lose()
    assert scene.gateway.openings == []
    assert scene.clock.getDelayedCalls() == []
    assert outcome(watch.ended) is None


def test_one_that_hears_of_it_can_begin_another() -> None:
    scene = Scene(own_streams=0)
    watch = scene.watch()
    stream = scene.open_next()
    stream.confirm(1)
    begun: list[Watch] = []
    away = watch.on_interruption(lambda _: begun.append(scene.watch(b"other")))
    stream.lose()
    away()
    stream = scene.open_next()
    assert {request.watch_id for request in stream.created} == {1, 2}


def test_what_is_told_and_fails_is_logged_and_ends_nothing(logged_errors: LoggedErrors) -> None:
    scene = Scene(own_streams=0)
    watch = scene.watch()
    stream = scene.open_next()
    stream.confirm(1)

    def fail(_: bool) -> None:  # noqa: FBT001
        raise ZeroDivisionError

    watch.on_interruption(fail)
    stream.lose()
    assert len(logged_errors.flush(ZeroDivisionError)) == 1
    scene.open_next().confirm(1)
    logged_errors.flush(ZeroDivisionError)
    assert not watch.interrupted
