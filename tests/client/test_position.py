from __future__ import annotations

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from twisted_etcd.client.position import Created, Delivered, Interrupted, Over, WatchBatch, WatchPosition
from twisted_etcd.errors import (
    ClusterChanged,
    Compacted,
    HistoryReplaced,
    InvalidAuthToken,
    NoLeader,
    PermissionDenied,
    WatchCancelled,
)
from twisted_etcd.schema.common import ResponseHeader
from twisted_etcd.schema.kv import Event, KeyValue
from twisted_etcd.schema.watch import WatchResponse

CLUSTER = 77


def header(revision: int, cluster_id: int = CLUSTER) -> ResponseHeader:
    return ResponseHeader(cluster_id=cluster_id, revision=revision)


def event(revision: int, number: int = 0) -> Event:
    return Event(kv=KeyValue(key=b"%d" % number, mod_revision=revision))


def created(revision: int) -> WatchResponse:
    return WatchResponse(header=header(revision), created=True)


# --- in particular --------------------------------------------------------------------------------------------------


def test_after_the_confirmation_the_next_revision_is_wanted() -> None:
    position = WatchPosition(0)
    assert position.received(created(10)) == Created(10)
    assert position.next_revision == 11


def test_a_start_revision_stays_wanted_until_something_of_it_has_come() -> None:
    position = WatchPosition(5)
    assert position.received(created(10)) == Created(10)
    assert position.next_revision == 5
    assert position.received(WatchResponse(header=header(10), events=(event(7), event(9)))) == Delivered(
        WatchBatch((event(7), event(9)), 9)
    )
    assert position.next_revision == 10


def test_what_came_before_is_not_delivered_again() -> None:
    position = WatchPosition(0)
    position.received(created(10))
    position.received(WatchResponse(header=header(11), events=(event(11),)))
    position.broke()
    position.received(created(12))
    assert position.received(WatchResponse(header=header(12), events=(event(11),))) is None
    step = position.received(WatchResponse(header=header(12), events=(event(11), event(12))))
    assert step == Delivered(WatchBatch((event(12),), 12))


def test_etcd_is_asked_for_the_last_revision_that_is_known_and_not_for_less_than_was_wanted() -> None:
    position = WatchPosition(5)
    assert position.start_revision == 5
    position.received(created(10))
    assert position.start_revision == 5
    position.received(WatchResponse(header=header(10), events=(event(7),)))
    assert position.start_revision == 7
    # Of which nothing is delivered again.
    assert position.received(WatchResponse(header=header(10), events=(event(7), event(7, 1)))) is None
    position.reread(20)
    assert position.start_revision == 20
    assert WatchPosition(0).start_revision == 0


def test_a_member_behind_what_was_told_is_noted_by_whatever_told_of_it() -> None:
    for told in (
        created(20),
        WatchResponse(header=header(20)),
        WatchResponse(header=header(20), events=(event(20),)),
    ):
        position = WatchPosition(0)
        position.received(created(10))
        position.received(told)
        position.broke()
        assert position.received(created(19)) == Created(19, behind=True)
        # It has caught up, and then there is another one.
        position.received(WatchResponse(header=header(20)))
        assert position.received(created(20)) == Created(20)
        assert position.received(created(19)) == Created(19, behind=True)


def test_what_the_cluster_as_a_whole_says_is_compared_with_what_was_told_when_it_was_asked() -> None:
    position = WatchPosition(0)
    position.received(created(10))
    assert position.found(CLUSTER, 10, since=10) is None
    replaced = position.found(CLUSTER, 9, since=10)
    assert isinstance(replaced, HistoryReplaced)
    assert (replaced.before, replaced.now) == (10, 9)
    changed = position.found(78, 99, since=10)
    assert type(changed) is ClusterChanged
    assert (changed.before, changed.now) == (CLUSTER, 78)


def test_a_fragment_waits_for_the_rest_and_is_forgotten_where_the_stream_breaks() -> None:
    position = WatchPosition(0)
    position.received(created(10))
    part = WatchResponse(header=header(11), events=(event(11, 1),), fragment=True)
    assert position.received(part) is None
    assert position.next_revision == 11
    position.broke()
    assert position.received(part) is None
    step = position.received(WatchResponse(header=header(11), events=(event(11, 2),)))
    assert step == Delivered(WatchBatch((event(11, 1), event(11, 2)), 11))


def test_progress_moves_on_and_never_back() -> None:
    position = WatchPosition(0)
    position.received(created(10))
    assert position.received(WatchResponse(header=header(20))) == Delivered(WatchBatch((), 20))
    assert position.next_revision == 21
    # The store is quiet, and the watch still lives: that is what progress is asked for.
    assert position.received(WatchResponse(header=header(20))) == Delivered(WatchBatch((), 20))
    assert position.received(WatchResponse(header=header(19))) is None
    assert position.next_revision == 21


def test_nothing_is_progress_before_the_confirmation_or_before_a_start_in_the_future() -> None:
    position = WatchPosition(0)
    assert position.received(WatchResponse()) is None
    assert position.next_revision == 0
    future = WatchPosition(100)
    assert future.received(created(10)) == Created(10)
    assert future.received(WatchResponse(header=header(10))) is None
    assert future.next_revision == 100


def test_another_cluster_ends_it_whatever_it_says() -> None:
    position = WatchPosition(0)
    position.received(created(10))
    for response in (
        WatchResponse(header=header(10, 78), created=True),
        WatchResponse(header=header(10, 78), events=(event(11),)),
        WatchResponse(header=header(10, 78), canceled=True),
    ):
        step = position.received(response)
        assert isinstance(step, Over)
        assert isinstance(step.error, ClusterChanged)
        assert (step.error.before, step.error.now) == (77, 78)
        assert str(step.error) == "the watch began on cluster 4d and now cluster 4e answers: read again, then watch"


def test_what_a_cancellation_means_depends_on_its_reason() -> None:
    def step_for(reason: str, compact_revision: int = 0) -> Interrupted | Over:
        response = WatchResponse(
            header=header(10), canceled=True, cancel_reason=reason, compact_revision=compact_revision
        )
        step = WatchPosition(1).received(response)
        assert isinstance(step, Interrupted | Over)
        return step

    compacted = step_for("", compact_revision=42)
    assert isinstance(compacted, Over)
    assert isinstance(compacted.error, Compacted)
    assert compacted.error.compact_revision == 42
    assert isinstance(step_for("etcdserver: no leader"), Interrupted)
    assert isinstance(step_for("etcdserver: no leader").error, NoLeader)
    denied = step_for("rpc error: code = PermissionDenied desc = etcdserver: permission denied")
    assert isinstance(denied, Over)
    assert isinstance(denied.error, PermissionDenied)
    assert isinstance(step_for("etcdserver: invalid auth token").error, InvalidAuthToken)
    strange = step_for("what nobody expected")
    assert isinstance(strange, Over)
    assert isinstance(strange.error, WatchCancelled)
    assert str(strange.error) == "etcd cancelled the watch: what nobody expected"
    assert str(step_for("").error) == "etcd cancelled the watch: no reason given"


# --- in general -----------------------------------------------------------------------------------------------------


class Server:
    """A history of revisions, and what a watch of it is sent."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self.first = random.randint(1, 5)
        # A revision without events is one of other keys.
        sizes = [random.randint(0, 3) for _ in range(random.randint(1, 12))]
        self.history = {self.first + n: [event(self.first + n, k) for k in range(size)] for n, size in enumerate(sizes)}
        self.last = self.first + len(sizes) - 1
        self.now = random.randint(self.first - 1, self.last)

    def since(self, revision: int) -> list[Event]:
        return [each for number, events in self.history.items() if number >= revision for each in events]

    def stream(self, start: int) -> list[WatchResponse]:
        """Everything that a watch from there is sent until all has happened, cut as the server likes."""
        responses = [created(self.now)]
        synced_to = (start or self.now + 1) - 1
        while synced_to < self.last:
            self.now = min(self.last, self.now + self._random.randint(0, 1))
            upto = self._random.randint(min(synced_to, self.now), self.now)
            if upto > synced_to:
                events = [each for n in range(max(synced_to + 1, self.first), upto + 1) for each in self.history[n]]
                responses += self._cut(events, upto)
                synced_to = upto
            if synced_to >= self.now and self._random.random() < 0.3:
                responses.append(WatchResponse(header=header(self.now)))
        return responses

    def _cut(self, events: list[Event], upto: int) -> list[WatchResponse]:
        parts = []
        while events:
            count = self._random.randint(1, len(events))
            part, events = events[:count], events[count:]
            parts.append(WatchResponse(header=header(upto), events=tuple(part), fragment=bool(events)))
        return parts


@settings(max_examples=500, deadline=None)
@given(random=st.randoms(use_true_random=True))
def test_breaks_and_splits_never_lose_or_repeat_an_event(random: Random) -> None:
    server = Server(random)
    start = random.choice([0, *range(server.first, server.last + 1)])
    position = WatchPosition(start)
    wanted: list[Event] | None = server.since(start) if start else None
    batches: list[WatchBatch] = []
    for attempt in range(6):
        responses = server.stream(position.next_revision)
        if attempt < 5:
            responses = responses[: random.randint(0, len(responses))]
        for response in responses:
            step = position.received(response)
            if isinstance(step, Delivered):
                batches.append(step.batch)
            elif isinstance(step, Created):
                if wanted is None:
                    wanted = server.since(step.revision + 1)
            else:
                assert step is None
        position.broke()
    assert [each for batch in batches for each in batch.events] == wanted
    # Each revision whole, and in no other batch.
    revisions = [{each.kv.mod_revision for each in batch.events} for batch in batches]
    assert sum(len(part) for part in revisions) == len(set().union(*revisions))
    assert [batch.revision for batch in batches] == sorted(batch.revision for batch in batches)
    assert all(batch.events[-1].kv.mod_revision == batch.revision for batch in batches if batch.events)
