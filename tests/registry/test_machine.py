"""The machine of a registration: every order of what can happen."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from twisted_etcd.errors import EtcdError, LeaseNotFound, OutcomeUnknown, PermissionDenied, Unavailable
from twisted_etcd.registry.machine import (
    CALM,
    Action,
    Actions,
    Doubt,
    Found,
    GiveUp,
    Join,
    Leave,
    Linger,
    Put,
    RegistrationMachine,
    RegistrationState,
    Remove,
    Say,
    Wait,
    WaitNoLonger,
    Write,
)

WANTED, ALIVE, LOST, CONTESTED, WITHHELD, ENDED = RegistrationState
AWAY = Unavailable("etcd is away")
UNKNOWN = OutcomeUnknown("it may have been applied")
NO_LEASE = LeaseNotFound(5, "requested lease not found")
DENIED = PermissionDenied(7, "permission denied")
OTHERS = 999


def machine(*, patient: bool = True, withheld: bool = False) -> RegistrationMachine:
    made = RegistrationMachine(b"v1", patient=patient, withheld=withheld, random=lambda: 1.0)
    assert made.begin() == (Join(),)
    return made


def alive(now: float = 0.0) -> RegistrationMachine:
    made = machine()
    assert made.granted(1) == (Put(b"v1", 1),)
    assert made.written(10, now) == ()
    assert made.state is ALIVE
    assert made.is_settled
    return made


# --- one order after the other --------------------------------------------------------------------------------------


def test_asked_for_granted_put_alive() -> None:
    made = machine()
    assert (made.state, made.doing) == (WANTED, "waits for a lease")
    made.granted(1)
    assert (made.state, made.doing, made.is_settled) == (WANTED, "is being put", False)
    made.written(10, 0.0)
    assert (made.state, made.doing, made.registered) == (ALIVE, "rests", True)


def test_lost_and_again_with_a_new_lease() -> None:
    made = alive()
    assert made.lost() == ()
    assert made.state is LOST
    assert made.granted(2) == (Put(b"v1", 2),)
    made.written(11, 0.0)
    assert made.state is ALIVE


def test_our_own_put_is_nobody_elses_whenever_it_is_seen() -> None:
    made = machine()
    made.granted(1)
    assert made.seen(Found(revision=10, there=True, lease=1, value=b"v1"), 0.0) == ()
    assert made.written(10, 0.0) == ()
    assert made.seen(Found(revision=10, there=True, lease=1, value=b"v1"), 0.0) == ()
    assert made.is_settled


@pytest.mark.parametrize(
    ("found", "state"),
    [
        (Found(revision=11), LOST),
        (Found(revision=11, there=True, lease=OTHERS, value=b"v1"), CONTESTED),
        (Found(revision=11, there=True, value=b"v1"), CONTESTED),
        (Found(revision=11, there=True, lease=1, value=b"other"), ALIVE),
    ],
)
def test_what_somebody_did_to_the_key_is_undone_at_once(found: Found, state: RegistrationState) -> None:
    made = alive()
    assert made.seen(found, 1.0) == (Say(again=False), Put(b"v1", 1))
    assert made.state is state
    made.written(12, 1.0)
    assert made.state is ALIVE


def test_what_was_done_before_our_put_is_old_news_and_what_came_after_it_counts() -> None:
    made = alive()
    assert made.seen(Found(revision=9), 0.0) == ()
    made.update(b"v2")
    assert made.seen(Found(revision=11, there=True, lease=OTHERS), 0.0) == ()
    assert made.written(12, 0.0) == ()
    made.update(b"v3")
    assert made.seen(Found(revision=14, there=True, lease=OTHERS), 0.0) == ()
    assert made.written(13, 0.0) == (Say(again=False), Put(b"v3", 1))


def test_two_that_claim_one_key_do_not_fight_in_a_tight_loop() -> None:
    made = alive()
    waits = []
    revision = 10
    for number in range(12):
        revision += 1
        actions = made.seen(Found(revision=revision, there=True, lease=OTHERS), 1.0)
        if number:
            assert (Say(again=True) in actions) is (number == 1)
            [wait] = [each.seconds for each in actions if isinstance(each, Wait)]
            waits.append(wait)
            assert made.state is CONTESTED
            actions = made.waited()
        assert actions[-1] == Put(b"v1", 1)
        revision += 1
        made.written(revision, 1.0)
    assert waits == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0, 10.0, 10.0]


def test_after_it_has_been_calm_the_next_one_is_a_new_one() -> None:
    made = alive()
    made.seen(Found(revision=11), 1.0)
    made.written(12, 1.0)
    assert made.seen(Found(revision=13), 1.0 + CALM)[0] == Say(again=True)
    made.waited()
    made.written(14, 50.0)
    assert made.seen(Found(revision=15), 51.0 + CALM) == (Say(again=False), Put(b"v1", 1))


def test_who_took_the_key_and_left_it_is_not_waited_for() -> None:
    made = alive()
    made.seen(Found(revision=11, there=True, lease=OTHERS), 1.0)
    made.written(12, 1.0)
    made.seen(Found(revision=13, there=True, lease=OTHERS), 1.0)
    assert made.seen(Found(revision=14), 1.0) == (WaitNoLonger(), Put(b"v1", 1))


def test_a_lease_that_etcd_does_not_have_is_doubted() -> None:
    made = alive()
    made.update(b"v2")
    assert made.not_written(NO_LEASE) == (Doubt(1), Wait(0.05))
    assert made.lost() == (WaitNoLonger(),)
    assert made.granted(2) == (Put(b"v2", 2),)


def test_a_put_with_a_lease_that_was_lost_meanwhile_is_repeated_with_the_new_one() -> None:
    made = machine()
    made.granted(1)
    made.lost()
    assert made.granted(2) == ()
    assert made.not_written(NO_LEASE) == (Put(b"v1", 2),)
    made = machine()
    made.granted(1)
    made.lost()
    assert made.written(10, 0.0) == ()
    assert made.state is WANTED
    assert made.granted(2) == (Put(b"v1", 2),)


@pytest.mark.parametrize(("error", "longest"), [(AWAY, 10.0), (UNKNOWN, 10.0), (DENIED, 30.0)])
def test_a_write_that_fails_is_repeated_for_ever_after_growing_waits(error: Exception, longest: float) -> None:
    made = alive()
    made.update(b"v2")
    waits = []
    for _ in range(20):
        [wait] = made.not_written(error)
        assert isinstance(wait, Wait)
        waits.append(wait.seconds)
        assert made.last_error is error
        assert made.waited() == (Put(b"v2", 1),)
    assert (waits[0], waits[-1], waits) == (0.05, longest, sorted(waits))
    # The key is there as it was, or as it is to be: it is not gone.
    assert made.state is ALIVE
    made.written(11, 0.0)
    assert made.last_error is None


def test_a_put_whose_answer_was_lost_is_seen_and_not_repeated() -> None:
    made = machine()
    made.granted(1)
    made.not_written(UNKNOWN)
    assert made.read(Found(revision=10, there=True, lease=1, value=b"v1"), 0.0, writes=1) == (WaitNoLonger(),)
    assert (made.state, made.is_settled) == (ALIVE, True)


def test_a_reading_without_the_value_counts_by_its_revision() -> None:
    made = alive()
    assert made.read(Found(revision=10, there=True, lease=1), 0.0, writes=1) == ()
    assert made.is_settled
    assert made.read(Found(revision=12, there=True, lease=1), 0.0, writes=1) == (Say(again=False), Put(b"v1", 1))


def test_a_reading_that_was_asked_for_before_a_write_says_nothing_of_it() -> None:
    made = alive()
    made.update(b"v2")
    assert made.read(Found(revision=10, there=True, lease=1), 0.0, writes=1) == ()
    made.written(11, 0.0)
    assert made.read(Found(revision=10, there=True, lease=1), 0.0, writes=1) == ()
    assert made.is_settled


def test_a_reading_that_is_later_than_the_write_it_did_not_know_of_counts() -> None:
    made = alive()
    made.update(b"v2")
    assert made.read(Found(revision=12, there=True, lease=OTHERS), 0.0, writes=1) == ()
    assert made.written(11, 0.0) == (Say(again=False), Put(b"v2", 1))


def test_what_lives_by_the_lease_before_counts_as_gone() -> None:
    made = alive()
    made.lost()
    made.seen(Found(revision=11, there=True, lease=1, value=b"v1"), 0.0)
    assert made.state is LOST


def test_what_was_unsure_goes_with_its_lease() -> None:
    made = alive()
    made.update(b"v2")
    made.not_written(UNKNOWN)
    made.lost()
    made.withhold()
    assert made.granted(2) == ()
    assert made.is_settled


def test_another_history_with_lower_revisions_is_believed_once_it_is_known() -> None:
    made = alive()
    assert made.seen(Found(revision=3), 0.0) == ()
    made.forget()
    assert made.state is ALIVE
    assert made.seen(Found(revision=3), 0.0) == (Say(again=False), Put(b"v1", 1))


def test_withheld_it_is_removed_and_stays_away_whatever_happens_to_the_lease() -> None:
    made = alive()
    assert made.withhold() == (Remove(1),)
    assert made.state is WITHHELD
    assert made.withhold() == ()
    assert made.written(11, 0.0) == ()
    assert made.is_settled
    assert made.lost() == ()
    assert made.granted(2) == ()
    assert made.state is WITHHELD
    assert made.offer() == (Put(b"v1", 2),)
    assert made.offer() == ()
    assert made.state is WANTED


def test_withheld_from_the_beginning_it_asks_for_a_lease_and_puts_nothing() -> None:
    made = machine(withheld=True)
    assert made.granted(1) == ()
    assert (made.state, made.is_settled) == (WITHHELD, True)
    assert made.offer() == (Put(b"v1", 1),)


def test_withheld_a_late_put_of_ours_is_removed_and_anothers_is_left_alone() -> None:
    made = alive()
    made.update(b"v2")
    made.withhold()
    made.not_written(UNKNOWN)
    assert made.waited() == (Remove(1),)
    made.written(11, 0.0)
    assert made.seen(Found(revision=12, there=True, lease=OTHERS), 0.0) == ()
    assert made.seen(Found(revision=13, there=True, lease=1, value=b"v2"), 0.0) == (Remove(1),)


def test_updates_of_what_is_not_there_come_with_it() -> None:
    made = machine()
    assert made.update(b"v2") == ()
    assert made.granted(1) == (Put(b"v2", 1),)
    assert made.update(b"v3") == ()
    assert made.written(10, 0.0) == (Put(b"v3", 1),)
    made.written(11, 0.0)
    made.withhold()
    made.written(12, 0.0)
    assert made.update(b"v4") == ()
    assert made.offer() == (Put(b"v4", 1),)


def test_an_update_of_what_was_refused_is_tried_at_once() -> None:
    made = machine()
    made.granted(1)
    made.not_written(DENIED)
    assert made.update(b"v2") == (WaitNoLonger(), Put(b"v2", 1))


def test_without_patience_the_first_failure_ends_it_and_a_later_one_does_not() -> None:
    assert machine(patient=False).refused(AWAY) == (GiveUp(AWAY),)
    made = machine(patient=False)
    made.granted(1)
    assert made.not_written(UNKNOWN) == (GiveUp(UNKNOWN),)
    assert made.take_back(remove=True) == (Remove(1),)
    made = machine(patient=False)
    made.granted(1)
    made.written(10, 0.0)
    made.lost()
    assert made.refused(AWAY) == ()


def test_taken_back_it_is_removed_and_then_leaves_its_lease() -> None:
    made = alive()
    assert made.take_back(remove=True) == (Remove(1),)
    assert made.state is ENDED
    assert made.written(11, 0.0) == (Leave(),)
    assert not made.is_over
    made.left(None)
    assert made.is_over
    assert made.failure is None


def test_taken_back_with_its_lease_it_leaves_at_once_also_while_it_is_put() -> None:
    made = machine()
    made.granted(1)
    assert made.take_back(remove=False) == (Leave(),)
    made.left(AWAY)
    assert (made.is_over, made.failure) == (True, AWAY)


def test_a_removal_that_fails_is_told_and_goes_on_until_it_is_done_or_the_lease_is_gone() -> None:
    made = alive()
    made.take_back(remove=True)
    assert made.not_written(AWAY) == (Wait(0.05),)
    assert made.failure is AWAY
    assert made.waited() == (Remove(1),)
    assert made.not_written(AWAY) == (Wait(0.1),)
    assert made.lost() == (WaitNoLonger(), Leave())
    assert made.failure is None


def test_the_stop_of_the_registry_ends_a_removal_that_is_tried() -> None:
    made = alive()
    made.take_back(remove=True)
    made.not_written(AWAY)
    assert made.take_back(remove=False) == (WaitNoLonger(), Leave())
    assert made.take_back(remove=False) == ()


def test_a_put_that_may_come_late_is_looked_out_for_after_the_end() -> None:
    made = alive()
    made.update(b"v2")
    made.not_written(UNKNOWN)
    made.take_back(remove=True)
    assert made.written(12, 0.0) == (Linger(1), Leave())


def test_paused_it_writes_nothing_and_resumed_it_takes_the_key_again() -> None:
    made = alive()
    assert made.pause() == ()
    assert made.state is ALIVE
    assert made.seen(Found(revision=11, there=True, lease=1, value=b"successor"), 0.0) == ()
    assert made.withhold() == ()
    assert made.state is WITHHELD
    assert made.offer() == ()
    assert made.resume() == (Put(b"v1", 1),)


def test_nothing_is_done_once_it_is_over() -> None:
    made = alive()
    made.take_back(remove=False)
    made.left(None)
    events: list[Callable[[], Actions]] = [
        made.lost,
        lambda: made.granted(2),
        lambda: made.seen(Found(revision=99), 0.0),
        lambda: made.read(Found(revision=99), 0.0, writes=made.writes),
        made.offer,
        made.withhold,
        made.pause,
        made.resume,
        lambda: made.update(b"v9"),
        lambda: made.take_back(remove=True),
    ]
    for event in events:
        assert event() == ()
    assert made.stopped() == ()


# --- every order ----------------------------------------------------------------------------------------------------


class Etcd:
    """
    An etcd with one key, and what stands between it and a machine.

    Writes are done when the model says so, before or after they are answered, and others do to the key and to the lease
    what they like.
    """

    def __init__(self, *, patient: bool = True, withheld: bool = False) -> None:
        self.now = 0.0
        self.revision = 1
        self.there: Found = Found(revision=0)
        self.value = b"v1"
        self.machine = RegistrationMachine(self.value, patient=patient, withheld=withheld, random=lambda: 0.5)
        self.leases = 0
        self.lease = 0
        self.write: Write | None = None
        #: Writes without an answer that can still be done.
        self.late: list[Write] = []
        self.events: list[Found] = []
        self.waiting = False
        self.joined = False
        self.has_left = False
        self.lingers = 0
        self.given_up = False
        self.do(self.machine.begin())

    def do(self, actions: Actions) -> None:
        for action in actions:
            match action:
                case Leave():
                    self.leave_lease()
                case Put() | Remove():
                    assert self.write is None, "two writes at once"
                    assert not self.waiting, "a write during a wait"
                    assert not self.has_left
                    assert action.lease == self.lease, "a write with a lease that is gone"
                    self.write = action
                case Wait() | WaitNoLonger():
                    assert self.waiting is isinstance(action, WaitNoLonger)
                    self.waiting = not self.waiting
                case GiveUp():
                    self.given_up = True
                    self.do(self.machine.take_back(remove=True))
                case _:
                    self.note(action)

    def note(self, action: Action) -> None:
        match action:
            case Join():
                assert not self.joined
                self.joined = True
            case Linger():
                assert action.lease == self.lease
                self.lingers = action.lease
            case Doubt():
                assert action.lease
            case Say():
                assert self.machine.state in (LOST, CONTESTED, ALIVE)

    def leave_lease(self) -> None:
        assert not self.has_left, "it left twice"
        self.has_left = True
        # Nobody waits for its answer any longer.
        self.late += [self.write] if self.write is not None else []
        self.write = None

    def apply(self, write: Write) -> None:
        if isinstance(write, Put):
            if write.lease != self.lease:
                return
            self.revision += 1
            self.there = Found(revision=self.revision, there=True, lease=write.lease, value=write.value)
        elif self.there.there and self.there.lease == write.lease:
            self.revision += 1
            self.there = Found(revision=self.revision)
        else:
            return
        self.events.append(self.there)

    # --- what can happen, each where it can ---

    def happenings(self) -> Iterator[tuple[str, Callable[[], None]]]:
        if self.joined and not self.has_left:
            if self.lease:
                yield "lease lost", self.lose_lease
            else:
                yield "granted", self.grant
                yield "refused", lambda: self.do(self.machine.refused(AWAY))
        if self.write is not None:
            yield "written", self.answer
            yield "not written", lambda: self.fail(AWAY)
            yield "written, not answered", lambda: self.fail(UNKNOWN, done=True)
            yield "to be written late", lambda: self.fail(UNKNOWN)
            yield "denied", lambda: self.fail(DENIED)
        if self.waiting:
            yield "waited", self.end_wait
        if self.late:
            yield "late write", lambda: self.apply(self.late.pop(0))
        if self.events:
            yield "event", self.tell
        yield "deleted", lambda: self.others(Found(revision=0))
        yield "taken", lambda: self.others(Found(revision=0, there=True, lease=OTHERS, value=b"x"))
        yield "read", self.read
        yield "update", self.update
        yield "withhold", lambda: self.do(self.machine.withhold())
        yield "offer", lambda: self.do(self.machine.offer())
        yield "pause", lambda: self.do(self.machine.pause())
        yield "resume", lambda: self.do(self.machine.resume())
        yield "take back", lambda: self.do(self.machine.take_back(remove=True))
        yield "leave", self.leave
        if self.has_left and not self.machine.is_over:
            yield "left", lambda: self.do(self.machine.left(None))

    def grant(self) -> None:
        self.leases += 1
        self.lease = self.leases
        self.do(self.machine.granted(self.lease))

    def lose_lease(self) -> None:
        gone, self.lease = self.lease, 0
        if self.there.there and self.there.lease == gone:
            self.revision += 1
            self.there = Found(revision=self.revision)
            self.events.append(self.there)
        self.do(self.machine.lost())

    def answer(self) -> None:
        write, self.write = self.write, None
        assert write is not None
        if isinstance(write, Put) and write.lease != self.lease:
            self.do(self.machine.not_written(NO_LEASE))
            return
        before = self.revision
        self.apply(write)
        self.do(self.machine.written(max(self.revision, before), self.now))

    def fail(self, error: EtcdError | Exception, *, done: bool = False) -> None:
        write, self.write = self.write, None
        assert write is not None
        if done:
            self.apply(write)
        elif error is UNKNOWN:
            self.late.append(write)
        self.do(self.machine.not_written(error))

    def end_wait(self) -> None:
        self.waiting = False
        self.now += 1.0
        self.do(self.machine.waited())

    def tell(self) -> None:
        event = self.events.pop(0)
        if self.lingers and event.there and event.lease == self.lingers:
            self.apply(Remove(self.lingers))
        self.do(self.machine.seen(event, self.now))

    def others(self, found: Found) -> None:
        if found.there or self.there.there:
            self.revision += 1
            self.there = Found(revision=self.revision, there=found.there, lease=found.lease, value=found.value)
            self.events.append(self.there)

    def read(self) -> None:
        there = self.there
        found = Found(revision=there.revision if there.there else self.revision, there=there.there, lease=there.lease)
        self.do(self.machine.read(found, self.now, writes=self.machine.writes))

    def update(self) -> None:
        self.value = b"v2" if self.value == b"v1" else b"v1"
        self.do(self.machine.update(self.value))

    def leave(self) -> None:
        if not self.has_left and not self.machine.is_over:
            self.do(self.machine.take_back(remove=False))

    # --- what must come of it ---

    def settle(self) -> None:
        """From now on all goes well: what is wanted must come about."""
        self.do(self.machine.resume())
        for _ in range(60):
            if self.joined and not self.has_left and not self.lease:
                self.grant()
            elif self.late:
                self.apply(self.late.pop(0))
            elif self.events:
                self.tell()
            elif self.write is not None:
                self.answer()
            elif self.waiting:
                self.end_wait()
            elif self.has_left and not self.machine.is_over:
                self.do(self.machine.left(None))
            else:
                break
        else:
            message = f"it does not come to rest: {self.machine.doing}"
            raise AssertionError(message)
        state = self.machine.state
        ours = self.there.there and self.there.lease == self.lease != 0
        if state is ENDED:
            assert self.machine.is_over
            assert not ours or not self.removes, "its key is still there"
        elif state is WITHHELD:
            assert not ours
            assert self.machine.is_settled
        else:
            assert state is ALIVE
            assert self.machine.is_settled
            assert ours
            assert self.there.value == self.value

    @property
    def removes(self) -> bool:
        """Whether it had to remove its key, and did not leave that to its lease."""
        return self.machine.removes


NAMES = [
    *("granted", "refused", "lease lost", "written", "not written", "written, not answered", "to be written late"),
    *("denied", "waited", "late write", "event", "deleted", "taken", "read", "update", "withhold", "offer", "pause"),
    *("resume", "take back", "leave", "left"),
]


@pytest.mark.parametrize("withheld", [False, True])
def test_every_short_order_of_events_ends_well(*, withheld: bool) -> None:
    """Each sequence of four that can happen, from before the grant and from alive, and then all goes well."""

    def walk(played: tuple[str, ...], depth: int) -> int:
        etcd = Etcd(withheld=withheld)
        for name in played:
            dict(etcd.happenings())[name]()
        possible = [name for name, _ in etcd.happenings()]
        etcd.settle()
        if depth == 0:
            return 1
        return sum(walk((*played, name), depth - 1) for name in possible)

    beginnings: tuple[tuple[str, ...], ...] = ((), ("granted", "written") if not withheld else ("granted",))
    assert sum(walk(beginning, 4) for beginning in beginnings) > 30_000


def test_the_names_are_all_that_can_happen() -> None:
    seen: set[str] = set()
    for first, second, third in itertools.product(NAMES, repeat=3):
        etcd = Etcd()
        for name in ("granted", first, second, third):
            possible = dict(etcd.happenings())
            seen.update(possible)
            if name in possible:
                possible[name]()
    assert seen == set(NAMES)


class Orders(RuleBasedStateMachine):
    """Long orders, at random."""

    @initialize(patient=st.booleans(), withheld=st.booleans())
    def begin(self, *, patient: bool, withheld: bool) -> None:
        self.etcd = Etcd(patient=patient, withheld=withheld)

    @rule(name=st.sampled_from(NAMES))
    def happens(self, name: str) -> None:
        possible = dict(self.etcd.happenings())
        if name in possible:
            possible[name]()

    @rule()
    @precondition(lambda self: self.etcd.machine.state is not ENDED)
    def all_goes_well(self) -> None:
        self.etcd.settle()

    @invariant()
    def it_knows_how_it_is(self) -> None:
        if hasattr(self, "etcd"):
            machine = self.etcd.machine
            assert machine.state is not ALIVE or machine.lease
            assert machine.doing
            assert not self.etcd.given_up or machine.state is ENDED

    def teardown(self) -> None:
        if hasattr(self, "etcd"):
            self.etcd.settle()


TestOrders = Orders.TestCase
TestOrders.settings = settings(
    max_examples=300, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
