"""A watch's machine over a model of etcd, in every order of events that a script of bytes can make."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.client.model import INSIDE, OUTSIDE, RANGE, ModelConsumer, ModelEtcd, ServedWatch
from twisted_etcd.client.machine import (
    Action,
    Carry,
    Confirm,
    Deliver,
    Doubt,
    Finish,
    Leave,
    Read,
    Refused,
    Reopen,
    WatchMachine,
    WatchState,
)
from twisted_etcd.client.position import WatchBatch
from twisted_etcd.errors import (
    ClusterChanged,
    Compacted,
    EtcdError,
    HistoryReplaced,
    PermissionDenied,
    WatchCancelled,
)
from twisted_etcd.schema.kv import KeyValue
from twisted_etcd.schema.watch import FilterType, WatchCreateRequest, WatchResponse

DENIED = PermissionDenied(7, "etcdserver: permission denied")
#: What a member says that cannot serve a watch now.
PASSING = ("etcdserver: no leader", "etcdserver: server stopped", "etcdserver: request timed out")
#: What says that nobody serves it.
LASTING = ("etcdserver: permission denied", "what nobody expected")


class Asked:
    """
    A question beside the stream.

    :ivar answer: what etcd says, once it has looked.
    """

    def __init__(self, action: Read | Doubt) -> None:
        self.action = action
        self.answer: tuple[list[KeyValue], int, int] | EtcdError | None = None


class Run:
    """One watch, from its beginning on."""

    def __init__(self, *, start_revision: int, resync: bool, filters: tuple[FilterType, ...]) -> None:
        self.etcd = ModelEtcd()
        for number in range(4):
            self.etcd.write([INSIDE[number % 2]])
        self._start = start_revision
        self._resync = resync
        self._machine = WatchMachine(
            WatchCreateRequest(
                key=RANGE[0], range_end=RANGE[1], start_revision=start_revision, filters=filters, progress_notify=True
            ),
            resync=resync,
        )
        self.consumer = ModelConsumer(self.etcd, start_revision, filters, resync=resync)
        self._stream: ServedWatch | None = None
        self._wants_stream = False
        self._asked: Asked | None = None
        self._over: Exception | None = None
        self._stopped = False
        self._slow = False
        self._confirmed = False
        self._stops_inside = False
        self._latest_seen = 0
        self._latest_told = 0
        self._restored = False
        #: The clusters that the machine heard of.
        self._clusters: set[int] = set()

    # --- what the machine says --------------------------------------------------------------------------------------

    def do(self, actions: Iterable[Action]) -> None:
        for action in actions:
            assert self._over is None
            self._do(action)
        if self._machine.state is WatchState.OVER:
            assert self._over is not None or self._stopped
            assert (self._stream, self._wants_stream, self._asked) == (None, False, None)
        elif not self._restored:
            # Never ahead of what was delivered.
            asks = self._machine.request(1).start_revision
            assert self.consumer.missing(asks - 1 if asks == self._start else asks) == []

    def _do(self, action: Action) -> None:
        if isinstance(action, Carry):
            assert (self._stream, self._wants_stream) == (None, False)
            self._wants_stream = True
        elif isinstance(action, Leave):
            self._leave()
        elif isinstance(action, Confirm):
            assert self._stream is not None
            if not self._start and not self._confirmed:
                # All that comes after it is delivered.
                assert action.revision == self.consumer.position
            self._confirmed = True
        elif isinstance(action, Deliver):
            self._delivered(action.batch)
        elif isinstance(action, Read | Doubt):
            self._asked = Asked(action)
        elif isinstance(action, Reopen):
            self.break_stream(0)
        elif isinstance(action, Refused):
            self._stream = None
            self.do(self._machine.failed(action.error))
        else:
            self._finished(action)

    def _leave(self) -> None:
        self._stream, self._wants_stream, self._asked = None, False, None

    def _finished(self, action: Finish) -> None:
        assert (self._stream, self._wants_stream, self._asked) == (None, False, None)
        self._over = error = action.error
        if isinstance(error, HistoryReplaced):
            assert self._restored
            assert self._latest_seen >= error.before > error.now
        elif isinstance(error, ClusterChanged):
            assert error.before in self._clusters
            assert error.before != error.now
        elif isinstance(error, Compacted):
            assert not self._resync
            assert error.compact_revision > (self.consumer.position or 0)
        else:
            assert isinstance(error, PermissionDenied | WatchCancelled)

    # --- what its consumer sees -------------------------------------------------------------------------------------

    def _delivered(self, batch: WatchBatch) -> None:
        assert not self._stopped
        self.consumer.took(batch)
        self._latest_told = max(self._latest_told, batch.revision)
        if self._stops_inside:
            self.stop(0)
        elif self._slow:
            self.do(self._machine.fell_behind())

    # --- what happens -----------------------------------------------------------------------------------------------

    def begin(self) -> None:
        self.do(self._machine.begin())

    def nothing(self, _number: int) -> None:
        """What a script is made shorter with."""

    def put(self, number: int) -> None:
        self._write([INSIDE[number % 3]])

    def delete(self, number: int) -> None:
        self._write([], [INSIDE[number % 3]])

    def write_several(self, number: int) -> None:
        self._write(INSIDE[: number % 4], INSIDE[number % 4 :])

    def write_elsewhere(self, number: int) -> None:
        for _ in range(number % 3 + 1):
            self._write([OUTSIDE])

    def _write(self, puts: Iterable[bytes], deletes: Iterable[bytes] = ()) -> None:
        # What is written over what the watch was told before a restore cannot be told from it.
        if self._latest_seen <= self.etcd.head:
            self.etcd.write(puts, deletes)

    def compact(self, number: int) -> None:
        self.etcd.compact(max(1, self.etcd.head - number % 5))

    def compact_to_what_is_next(self, number: int) -> None:
        self.etcd.compact((self.consumer.position or 0) + number % 3)

    def apply(self, number: int) -> None:
        member = self.etcd.members[number % 2]
        member.applied = min(self.etcd.head, member.applied + number // 2 % 4)

    def apply_all(self, number: int) -> None:
        self.etcd.members[number % 2].applied = self.etcd.head

    def restore(self, number: int) -> None:
        self._restored = True
        self.etcd.restore(max(1, self.etcd.compacted, self.etcd.head - number % 6))
        self.break_stream(0)
        if self._asked is not None:
            # Whoever answers it is there no longer.
            self._asked = Asked(self._asked.action)

    def change_id(self, _number: int) -> None:
        self.etcd.cluster_id += 1
        self.break_stream(0)

    def open_stream(self, number: int) -> None:
        if self._wants_stream:
            self._wants_stream = False
            request = self._machine.request(1)
            assert request.progress_notify
            self._stream = ServedWatch(self.etcd, self.etcd.members[number % 2], request, first_revision=self._start)

    def hear(self, number: int) -> None:
        if self._stream is not None:
            self._receive(self._stream.say(number % 4 + 1, number // 4 % 3 + 1))

    def hear_progress(self, _number: int) -> None:
        if self._stream is not None:
            self._receive(self._stream.progress())

    def _receive(self, response: WatchResponse | None) -> None:
        if response is None:
            return
        self._latest_seen = max(self._latest_seen, response.header.revision)
        if response.created:
            self._clusters.add(response.header.cluster_id)
            self._latest_told = max(self._latest_told, response.header.revision)
            self.consumer.begins_after(response.header.revision)
        self.do(self._machine.received(response))

    def refuse(self, reason: str, number: int) -> None:
        if self._stream is not None:
            header = self.etcd.header(self.etcd.head)
            response = WatchResponse(header=header, created=number % 2 == 0, canceled=True, cancel_reason=reason)
            self.do(self._machine.received(response))

    def break_stream(self, _number: int) -> None:
        if self._stream is not None:
            self._machine.broke()
            self._stream, self._wants_stream = None, True

    def look(self, number: int) -> None:
        """Etcd looks at what it was asked; its answer is on its way."""
        asked = self._asked
        if asked is None or asked.answer is not None:
            return
        revision = asked.action.revision if isinstance(asked.action, Read) else 0
        try:
            asked.answer = self.etcd.read(revision), revision or self.etcd.head, self.etcd.cluster_id
        except EtcdError as error:
            asked.answer = error

    def answer(self, _number: int) -> None:
        asked = self._asked
        if asked is None or asked.answer is None:
            return
        self._asked = None
        if isinstance(asked.answer, EtcdError):
            if isinstance(asked.action, Read):
                self.consumer.blind = True
                self.do(self._machine.unreadable(asked.answer))
            return
        found, revision, cluster_id = asked.answer
        self._clusters.add(cluster_id)
        self._latest_seen = max(self._latest_seen, revision)
        if isinstance(asked.action, Doubt):
            self.do(self._machine.cluster_is_at(cluster_id, revision, doubted=asked.action.told))
            return
        self.consumer.begins_after(revision)
        self.do(self._machine.read(found, revision, cluster_id))

    def deny_reading(self, _number: int) -> None:
        if self._asked is not None and isinstance(self._asked.action, Read):
            self._asked = None
            self.do(self._machine.unreadable(DENIED))

    def become_slow(self, _number: int) -> None:
        self._slow = True

    def drain(self, _number: int) -> None:
        self._slow = False
        self.do(self._machine.caught_up())

    def stop(self, _number: int) -> None:
        if self._over is None:
            self._stopped = True
            self._machine.stopped()
            self._leave()

    def stop_inside(self, _number: int) -> None:
        self._stops_inside = True

    def go_on(self, number: int) -> None:
        """What comes by itself, half of the time at once: else most of a script would have nothing to happen to."""
        if number & 128:
            self.open_stream(number)
            self.hear(number // 2)

    # --- the end ----------------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """No more faults: all must come now."""
        self._stops_inside = False
        self.apply_all(0)
        self.apply_all(1)
        self.drain(0)
        for _ in range(20):
            self.look(0)
            self.answer(0)
            self.open_stream(0)
            while self._stream is not None and self._stream.is_behind:
                self.hear(3)
        assert self._asked is None
        if self._over is None and not self._stopped:
            assert self._machine.state is WatchState.CARRIED
            assert self.consumer.missing(self.etcd.head) == []
            # What was told of a history that is replaced does not stand.
            assert self._latest_told <= self.etcd.head
            assert len(self._clusters) <= 1
        else:
            self._nothing_comes_any_more()

    def _nothing_comes_any_more(self) -> None:
        events = WatchResponse(header=self.etcd.header(99), events=tuple(self.etcd.events(0, 99)))
        assert self._machine.received(events) == ()
        assert self._machine.received(WatchResponse(header=self.etcd.header(99), created=True)) == ()
        assert self._machine.failed(DENIED) == ()
        assert self._machine.fell_behind() == ()
        assert self._machine.caught_up() == ()
        assert self._machine.read([], 99, self.etcd.cluster_id) == ()
        assert self._machine.unreadable(DENIED) == ()
        assert self._machine.cluster_is_at(self.etcd.cluster_id, 1, doubted=99) == ()
        self._machine.broke()
        assert self._machine.state is WatchState.OVER


Happening = Callable[[Run, int], None]

#: What happens all the time.
COMMON: tuple[Happening, ...] = (
    Run.nothing,
    Run.put,
    Run.put,
    Run.delete,
    Run.delete,
    Run.write_several,
    Run.write_elsewhere,
    Run.apply,
    Run.apply_all,
    Run.apply_all,
    Run.open_stream,
    Run.open_stream,
    Run.open_stream,
    Run.hear,
    Run.hear,
    Run.hear,
    Run.hear_progress,
    Run.break_stream,
    Run.look,
    Run.look,
    Run.answer,
    Run.answer,
    Run.compact,
    Run.compact_to_what_is_next,
    Run.become_slow,
    Run.drain,
)


def _refusal(reason: str) -> Happening:
    return lambda run, number: run.refuse(reason, number)


#: What happens at times, and what may end a watch.
RARE: tuple[Happening, ...] = (
    *(_refusal(reason) for reason in PASSING),
    *(_refusal(reason) for reason in LASTING),
    Run.deny_reading,
    Run.restore,
    Run.restore,
    Run.change_id,
    Run.stop,
    Run.stop_inside,
)


#: The bytes from here on, up to 255, stand for something rare.
RARELY = 240


def play(run: Run, script: bytes) -> None:
    """Two bytes for each thing that happens."""
    run.begin()
    for what, number in zip(script[::2], script[1::2], strict=False):
        kind = COMMON if what < RARELY else RARE
        kind[what % len(kind)](run, number)
        run.go_on(number)
    run.settle()


#: All of one length, which makes long histories as likely as short ones: a byte of 0 is nothing.
SCRIPTS = st.binary(min_size=200, max_size=200)
STARTS = st.integers(0, 9)
FILTERS = st.sampled_from([(), (), (FilterType.NOPUT,), (FilterType.NODELETE,)])


@settings(max_examples=4000, deadline=None)
@given(script=SCRIPTS, start_revision=STARTS, filters=FILTERS, resync=st.booleans())
def test_whatever_happens_all_comes_in_order_once_and_whole_or_the_reason_is_true(
    script: bytes,
    start_revision: int,
    filters: tuple[FilterType, ...],
    resync: bool,  # noqa: FBT001 - hypothesis names it
) -> None:
    play(Run(start_revision=start_revision, resync=resync, filters=filters), script)


def test_what_is_wanted_from_a_revision_on_is_not_told_of_one_before_where_etcd_was_set_back() -> None:
    machine = WatchMachine(WatchCreateRequest(key=RANGE[0], range_end=RANGE[1], start_revision=9), resync=True)
    assert machine.begin() == (Read(8, keys_only=True),)
    compacted = Compacted(Compacted.grpc_code, Compacted.messages[0], 15)
    assert machine.unreadable(compacted) == (Read(9, keys_only=True),)
    assert machine.unreadable(compacted) == (Read(0, keys_only=False),)
    # Between the two it was restored from a backup.
    assert machine.read([KeyValue(key=INSIDE[0], mod_revision=4)], 5, 1) == (Carry(),)
    assert machine.request(1).start_revision == 9
