"""What is done for a watch: by itself, and for several at once with a model of etcd behind the scripted gateway."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred

from tests.client.model import INSIDE, OUTSIDE, RANGE, ModelConsumer, ModelEtcd, ModelMember, ServedWatch
from tests.client.script import CLUSTER, Call, Opening, Scene, ScriptedStream, header, outcome, revisions
from tests.guards import LoggedErrors
from twisted_etcd.client import rangereader
from twisted_etcd.client.position import WatchBatch
from twisted_etcd.client.watch import Watch
from twisted_etcd.errors import (
    ClusterChanged,
    Compacted,
    EtcdError,
    HistoryReplaced,
    NotEtcd,
    PermissionDenied,
    TLSFailed,
    Unavailable,
)
from twisted_etcd.gateway.checkups import Condition
from twisted_etcd.schema.common import ResponseHeader
from twisted_etcd.schema.kv import KeyValue, RangeRequest, RangeResponse
from twisted_etcd.schema.watch import WatchResponse

HOSTS = ("one", "two")


AWAY = Unavailable("etcd is away")
DENIED = PermissionDenied(7, "etcdserver: permission denied")


@pytest.fixture
def scene() -> Scene:
    return Scene(own_streams=9)


def found(revision: int, *kvs: KeyValue, cluster_id: int = CLUSTER) -> RangeResponse:
    return RangeResponse(header=ResponseHeader(cluster_id=cluster_id, revision=revision), kvs=kvs)


def asked(scene: Scene) -> list[RangeRequest]:
    """What is being asked beside the streams."""
    requests = [request for call in scene.gateway.calls if not call.deferred.called for request in call.requests]
    assert all(isinstance(request, RangeRequest) for request in requests)
    return cast("list[RangeRequest]", requests)


# --- keys are read --------------------------------------------------------------------------------------------------


def test_a_watch_that_is_to_resync_reads_its_keys_before_all(scene: Scene) -> None:
    watch = scene.watch(resync=True)
    assert scene.gateway.openings == []
    [request] = asked(scene)
    assert (request.key, request.keys_only, request.revision) == (b"k", True, 0)
    scene.gateway.take_call().deferred.callback(found(10))
    stream = scene.open_next()
    # What happened since it was read is wanted, and no revision after the one read is left to chance.
    assert stream.created[0].start_revision == 10
    stream.confirm(revision=12)
    stream.deliver(11)
    assert revisions(watch) == [11]


def test_stopped_while_it_reads_it_reads_no_more(scene: Scene) -> None:
    for error in (None, AWAY):
        watch = scene.watch(resync=True)
        if error is not None:
            scene.gateway.take_call().deferred.errback(error)
        assert outcome(watch.stop()) is None
        assert asked(scene) == []
        assert scene.clock.getDelayedCalls() == []
        scene.gateway.calls.clear()
    assert scene.gateway.openings == []


def test_a_reading_that_is_refused_ends_the_watch(scene: Scene) -> None:
    for error in (DENIED, NotEtcd("no etcd"), TLSFailed("no certificate")):
        watch = scene.watch(resync=True)
        scene.gateway.take_call().deferred.errback(error)
        assert outcome(watch.ready) is error
        assert scene.clock.getDelayedCalls() == []


def resyncing(scene: Scene, **options: Any) -> Watch:  # noqa: ANN401
    """A watch that has to read again what is there."""
    watch = scene.watch(resync=True, **options)
    scene.gateway.take_call().deferred.callback(found(10, KeyValue(key=b"k", mod_revision=3)))
    stream = scene.open_next()
    stream.confirm(revision=10)
    stream.arrive(WatchResponse(header=header(20), canceled=True, compact_revision=15))
    assert stream.closed_from_here
    stream.finish_closing()
    return watch


def test_what_no_longer_serves_as_an_etcd_did_so_once_and_is_waited_for(scene: Scene) -> None:
    watch = resyncing(scene)
    scene.gateway.take_call().deferred.errback(NotEtcd("a proxy without its etcd"))
    scene.clock.advance(1)
    scene.gateway.take_call().deferred.callback(found(20))
    batch = outcome(watch.next())
    assert (batch.resync, [event.kv.key for event in batch.events]) == (True, [b"k"])


def test_a_callback_can_stop_its_watch_at_the_difference(scene: Scene) -> None:
    stopping: list[Deferred[None]] = []

    def stop(_: WatchBatch) -> None:
        stopping.append(watch.stop())

    watch = resyncing(scene, callback=stop)
    scene.gateway.take_call().deferred.callback(found(20))
    assert [outcome(each) for each in stopping] == [None]
    assert (scene.gateway.openings, scene.clock.getDelayedCalls()) == ([], [])


def test_a_difference_that_is_too_much_keeps_the_watch_off_its_stream_until_it_is_taken(scene: Scene) -> None:
    watch = resyncing(scene, max_backlog=1)
    kvs = [KeyValue(key=b"k", mod_revision=revision) for revision in (16, 17)]
    scene.gateway.take_call().deferred.callback(found(20, *kvs))
    assert scene.gateway.openings == []
    assert len(outcome(watch.next()).events) == 2
    assert scene.open_next().created[0].start_revision == 20


def test_another_cluster_that_is_read_ends_the_watch(scene: Scene) -> None:
    watch = resyncing(scene)
    scene.gateway.take_call().deferred.callback(found(20, cluster_id=CLUSTER + 1))
    assert type(outcome(watch.ended)) is ClusterChanged


# --- members that are behind ----------------------------------------------------------------------------------------


def behind(scene: Scene) -> tuple[Watch, ScriptedStream]:
    """A watch that was told of revision 20 and is now on a member that has 15."""
    watch = scene.watch()
    stream = scene.open_next()
    stream.confirm(revision=20)
    assert asked(scene) == []
    stream.lose()
    stream = scene.open_next()
    stream.confirm(revision=15)
    return watch, stream


def test_a_member_that_lags_does_not_end_a_watch(scene: Scene) -> None:
    watch, stream = behind(scene)
    call = scene.gateway.take_call()
    # The cluster was asked before what comes now.
    stream.deliver(21, 22)
    call.deferred.callback(found(20))
    stream.deliver(23)
    assert revisions(watch) == [21, 22, 23]


def test_a_history_that_was_replaced_does(scene: Scene) -> None:
    watch, stream = behind(scene)
    scene.gateway.take_call().deferred.callback(found(15))
    error = outcome(watch.ended)
    assert isinstance(error, HistoryReplaced)
    assert (error.before, error.now) == (20, 15)
    assert stream.closed_from_here


def test_while_the_cluster_cannot_be_asked_the_watch_goes_on(scene: Scene, logged_errors: LoggedErrors) -> None:
    watch, stream = behind(scene)
    for _ in range(3):
        scene.gateway.take_call().deferred.errback(AWAY)
        scene.clock.advance(1)
    scene.gateway.take_call().deferred.errback(DENIED)
    assert asked(scene) == []
    stream.deliver(21)
    assert revisions(watch) == [21]
    assert logged_errors.left() == []


def test_a_reading_takes_the_place_of_a_question(scene: Scene) -> None:
    watch = scene.watch(resync=True)
    scene.gateway.take_call().deferred.callback(found(20))
    stream = scene.open_next()
    stream.confirm(revision=15)
    question = scene.gateway.take_call()
    stream.arrive(WatchResponse(header=header(20), canceled=True, compact_revision=25))
    assert question.deferred.called
    stream.finish_closing()
    scene.gateway.take_call().deferred.callback(found(30))
    assert outcome(watch.next()).resync


def test_a_watch_that_ends_asks_no_longer(scene: Scene) -> None:
    watch, stream = behind(scene)
    scene.gateway.take_call().deferred.errback(AWAY)
    stream.arrive(WatchResponse(header=header(20), canceled=True, compact_revision=25))
    assert isinstance(outcome(watch.ended), Compacted)
    assert scene.clock.getDelayedCalls() == []


# --- whatever happens -----------------------------------------------------------------------------------------------


class ServedStream:
    """The server's end of a stream: requests are read, and answers sent, when the script says so."""

    def __init__(self, etcd: ModelEtcd, member: ModelMember, stream: ScriptedStream) -> None:
        self.stream = stream
        self._etcd = etcd
        self._member = member
        self._read = 0
        self._watches: dict[int, ServedWatch] = {}

    @property
    def has_to_say(self) -> bool:
        unread = self._read < len(self.stream.sent)
        return unread or any(watch.is_behind for watch in self._watches.values())

    def read_requests(self) -> None:
        """Creations are answered in their order."""
        while self.stream.is_open and self._read < len(self.stream.sent):
            request = self.stream.sent[self._read]
            self._read += 1
            if request.create_request is not None:
                created = request.create_request
                # What a user asked for is 0 or 1.
                watch = ServedWatch(self._etcd, self._member, created, first_revision=min(1, created.start_revision))
                self._watches[created.watch_id] = watch
                self._send(watch.say())
            elif request.cancel_request is not None:
                self._cancel(request.cancel_request.watch_id)
            else:
                self._progress()

    def _cancel(self, watch_id: int) -> None:
        if self._watches.pop(watch_id, None) is not None:
            header = self._etcd.header(self._member.applied)
            self._send(WatchResponse(header=header, watch_id=watch_id, canceled=True))

    def _progress(self) -> None:
        if self._watches and not any(watch.is_behind for watch in self._watches.values()):
            self._send(next(iter(self._watches.values())).progress(watch_id=-1))

    def say(self, number: int) -> None:
        """Something of one watch."""
        if self._watches:
            chosen = list(self._watches)[number % len(self._watches)]
            self._send(self._watches[chosen].say(number // 4 % 3 + 1, number // 16 % 3 + 1))
            if self._watches[chosen].ended and not self._watches[chosen].has_more:
                del self._watches[chosen]

    def say_all(self) -> None:
        while self.stream.is_open and self.has_to_say:
            self.read_requests()
            for watch_id, watch in tuple(self._watches.items()):
                self._send(watch.say(9))
                if watch.ended and not watch.has_more:
                    self._watches.pop(watch_id, None)

    def _send(self, response: WatchResponse | None) -> None:
        if response is not None and self.stream.is_open:
            self.stream.arrive(response)


class Follower:
    """A watch and the consumer that pulls from it."""

    def __init__(self, watch: Watch, consumer: ModelConsumer) -> None:
        self.watch = watch
        self.consumer = consumer
        self.ended: list[Any] = []
        watch.ended.addBoth(self.ended.append)
        watch.ready.addCallbacks(consumer.begins_after, lambda _: None)

    def take_all(self) -> None:
        while not self.ended:
            waiting = self.watch.next()
            if not waiting.called:
                waiting.addErrback(lambda _: None)
                waiting.cancel()
                return
            batch = outcome(waiting)
            if isinstance(batch, Exception):
                return
            self.consumer.took(batch)


class World:
    """All of it."""

    def __init__(self, own_streams: int) -> None:
        self.scene = Scene(*HOSTS, own_streams=own_streams)
        self.etcd = ModelEtcd(len(HOSTS))
        self.followers: list[Follower] = []
        self._streams: list[ServedStream] = []
        #: Questions that were looked at, and the answer to each.
        self._looked_at: list[tuple[Deferred[Any], RangeResponse | EtcdError]] = []
        for number in range(4):
            self.begin(number)

    # --- for the clients --------------------------------------------------------------------------------------------

    def begin(self, number: int) -> None:
        if len(self.followers) < 6:
            resync = number % 2 == 1
            # What is there at revision 0 is known: nothing.
            start = 1 if resync else number // 2 % 2
            watch = self.scene.watch(
                RANGE[0], range_end=RANGE[1], start_revision=start, resync=resync, max_backlog=number % 3 + 1
            )
            self.followers.append(Follower(watch, ModelConsumer(self.etcd, start, resync=resync)))

    def take(self, number: int) -> None:
        self.followers[number % len(self.followers)].take_all()

    def stop(self, number: int) -> None:
        if number % 8 == 0:
            self.followers[number // 8 % len(self.followers)].watch.stop()

    # --- for the servers --------------------------------------------------------------------------------------------

    def nothing(self, _number: int) -> None:
        """What a script is made shorter with."""

    def put(self, number: int) -> None:
        self.etcd.write([INSIDE[number % 3]])

    def delete(self, number: int) -> None:
        self.etcd.write([], [INSIDE[number % 3]])

    def write_several(self, number: int) -> None:
        self.etcd.write(INSIDE[: number % 4], INSIDE[number % 4 :])

    def write_elsewhere(self, _number: int) -> None:
        self.etcd.write([OUTSIDE])

    def compact(self, number: int) -> None:
        self.etcd.compact(self.etcd.head - number % 4)

    def apply(self, number: int) -> None:
        member = self.etcd.members[number % 2]
        member.applied = min(self.etcd.head, member.applied + number // 2 % 4)

    def open(self, number: int) -> None:
        openings = self.scene.gateway.openings
        if openings:
            self._open(openings.pop(number % len(openings)))

    def _open(self, opening: Opening) -> None:
        member = self.etcd.members[HOSTS.index(opening.endpoint.host)]
        stream = opening.succeed()
        self._streams.append(ServedStream(self.etcd, member, stream))

    def refuse(self, number: int) -> None:
        openings = self.scene.gateway.openings
        if openings:
            openings.pop(number % len(openings)).fail(Unavailable("no stream"))

    def read_requests(self, number: int) -> None:
        if self._streams:
            self._streams[number % len(self._streams)].read_requests()

    def say(self, number: int) -> None:
        if self._streams:
            self._streams[number % len(self._streams)].say(number // 2)

    def end(self, number: int) -> None:
        if self._streams:
            served = self._streams.pop(number % len(self._streams))
            if served.stream.closed_from_here:
                served.stream.finish_closing()
            elif number // 8 % 2:
                served.stream.lose()
            else:
                served.stream.arrive_error(14, "etcdserver: no leader")
                served.stream.finish_closing()

    def look(self, number: int) -> None:
        calls = self.scene.gateway.calls
        if calls:
            self._look(calls.pop(number % len(calls)))

    def _look(self, call: Call) -> None:
        [request] = call.requests
        assert isinstance(request, RangeRequest)
        if not call.deferred.called:
            self._looked_at.append((call.deferred, self._found(request)))

    def _found(self, request: RangeRequest) -> RangeResponse | EtcdError:
        try:
            found = [kv for kv in self.etcd.read(request.revision) if kv.key >= request.key]
        except EtcdError as error:
            return error
        header = self.etcd.header(self.etcd.head)
        page = tuple(found[: request.limit]) if not request.count_only else ()
        return RangeResponse(header=header, kvs=page, count=len(found), more=len(page) < len(found))

    def answer(self, number: int) -> None:
        if self._looked_at:
            deferred, answer = self._looked_at.pop(number % len(self._looked_at))
            if not deferred.called:
                deferred.errback(answer) if isinstance(answer, EtcdError) else deferred.callback(answer)

    def lose_answer(self, number: int) -> None:
        calls = self.scene.gateway.calls
        if calls and number % 2:
            call = calls.pop()
            if not call.deferred.called:
                call.deferred.errback(Unavailable("etcd is away"))

    def check_up(self, number: int) -> None:
        """What the vigil hears."""
        if self.scene.gateway.checkups:
            endpoint, deferred = self.scene.gateway.checkups.pop()
            trouble = "it has no leader" if number % 4 == 3 else ""
            member_id = HOSTS.index(endpoint.host) + 1
            deferred.callback(Condition(trouble=trouble, version="3.5.16", member_id=member_id))

    def wait(self, number: int) -> None:
        self.scene.clock.advance((0.05, 0.5, 1.0, 3.0, 6.0, 61.0)[number % 6])

    def go_on(self, number: int) -> None:
        """What comes by itself, half of the time at once: else most of a script would have nothing to happen to."""
        if number & 128:
            self.open(number)
            for served in tuple(self._streams):
                served.read_requests()
                served.say(number)

    # --- the end ----------------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """No more faults: all must come now."""
        for _ in range(30):
            self._go_on()
            self.scene.clock.advance(1)
        for follower in self.followers:
            if not follower.ended:
                assert follower.consumer.missing(self.etcd.head) == []
            else:
                [reason] = follower.ended
                if reason is not None:
                    assert isinstance(reason.value, Compacted)
                    assert reason.value.compact_revision > (follower.consumer.position or 0)

    def _go_on(self) -> None:
        gateway = self.scene.gateway
        for member in self.etcd.members:
            member.applied = self.etcd.head
        while gateway.openings:
            self.open(0)
        while gateway.calls or self._looked_at:
            self.look(0)
            self.answer(0)
        while gateway.checkups:
            self.check_up(0)
        for served in tuple(self._streams):
            served.say_all()
            if served.stream.closed_from_here:
                served.stream.finish_closing()
                self._streams.remove(served)
        for follower in self.followers:
            follower.take_all()

    def stop_all(self) -> None:
        """Nothing is left."""
        stopping = [follower.watch.stop() for follower in self.followers]
        asked = [call.deferred for call in self.scene.gateway.calls] + [deferred for deferred, _ in self._looked_at]
        assert all(deferred.called for deferred in asked)
        stopped = self.scene.carriers.stop()
        for _ in range(3):
            self._go_on()
        assert [outcome(each) for each in stopping] == [None] * len(stopping)
        assert outcome(stopped) is None
        assert self.scene.clock.getDelayedCalls() == []
        assert self._streams == []


Happening = Callable[[World, int], None]

HAPPENINGS: tuple[Happening, ...] = (
    World.nothing,
    World.put,
    World.put,
    World.delete,
    World.write_several,
    World.write_elsewhere,
    World.compact,
    World.apply,
    World.apply,
    World.open,
    World.open,
    World.open,
    World.refuse,
    World.read_requests,
    World.read_requests,
    World.read_requests,
    World.say,
    World.say,
    World.say,
    World.say,
    World.end,
    World.look,
    World.look,
    World.answer,
    World.answer,
    World.lose_answer,
    World.check_up,
    World.check_up,
    World.wait,
    World.wait,
    World.take,
    World.take,
    World.begin,
    World.stop,
)


def play(world: World, script: bytes) -> None:
    """Two bytes for each thing that happens."""
    for what, number in zip(script[::2], script[1::2], strict=False):
        HAPPENINGS[what % len(HAPPENINGS)](world, number)
        world.go_on(number)
    world.settle()
    world.stop_all()


#: Each on a stream of its own, all on one, or two of them on streams of their own.
OWN_STREAMS = st.sampled_from([99, 0, 2])


@settings(max_examples=600, deadline=None)
@given(script=st.binary(min_size=240, max_size=240), own_streams=OWN_STREAMS)
def test_whatever_happens_each_watch_gets_all_in_order_or_says_why_not(script: bytes, own_streams: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        # So that few keys are several pages.
        patch.setattr(rangereader, "PAGE", 1)
        play(World(own_streams), script)
