"""Who is told what changes in a view: callbacks, loops, filters, stale marks, and what is held back."""

from __future__ import annotations

import gc

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from tests.guards import LoggedErrors
from tests.messaging.common import PENDING, failure_of, peek, result_of
from tests.scripted import ScriptedClient, batch, delete_event, found, kv, put_event
from twisted_etcd.errors import Compacted, InvalidSettings, PermissionDenied, ServiceStopped, WatchStopped
from twisted_etcd.registry.choice import LeastUsed, RoundRobin
from twisted_etcd.registry.filter import EVERY_INSTANCE, InstanceFilter
from twisted_etcd.registry.instance import Instance, Status, encode_instance
from twisted_etcd.registry.lens import Changes, ServiceChange
from twisted_etcd.registry.protection import Protection
from twisted_etcd.registry.view import ServiceView
from twisted_etcd.schema.kv import Event, KeyValue

COMPACTED = Compacted(11, "mvcc: required revision has been compacted", 20)
EU = InstanceFilter(tags=("eu",))


def at(number: int, *tags: str, status: Status | None = None, weight: int = 1) -> Instance:
    made = Instance(address=f"10.0.0.{number}", port=80, tags=tags, weight=weight)
    return made if status is None else Instance(address=made.address, port=80, tags=tags, status=status)


def there(instance: Instance, revision: int = 3) -> KeyValue:
    return kv(f"s/{instance.endpoint}", encode_instance(instance).decode(), revision)


class Viewed:
    """A view, with a test in the place of etcd."""

    def __init__(self, *instances: Instance, load: bool = True, protection: Protection | None = None) -> None:
        self.etcd = ScriptedClient()
        self.clock = Clock()
        self.view = ServiceView(
            self.etcd.client, self.clock, "s/", patient=True, protection=protection, random=lambda: 1.0
        )
        self.told: list[ServiceChange] = []
        self.started = self.view.start()
        self._revision = 100
        if load:
            self.loads(*instances)
            self.view.on_change(self.told.append)

    def loads(self, *instances: Instance) -> None:
        self.etcd.take("get").answer.callback(found(7, *(there(each) for each in instances)))

    def happens(self, *events: Event) -> None:
        self.etcd.watches[-1][0].deliver(batch(*events))

    def comes(self, *instances: Instance) -> None:
        self._revision += 1
        kvs = [there(each, self._revision) for each in instances]
        self.happens(*(Event(kv=each) for each in kvs))

    def goes(self, *instances: Instance) -> None:
        self._revision += 1
        self.happens(*(delete_event(f"s/{each.endpoint}", self._revision) for each in instances))

    def is_interrupted(self) -> None:
        self.etcd.watches[-1][0].broke()

    def is_heard_of_again(self) -> None:
        self.etcd.watches[-1][0].confirmed(self._revision)

    def stops(self) -> None:
        self.view.stop()
        self.etcd.take("stop of a watch").answer.callback(None)
        assert self.etcd.asked == []
        assert self.clock.getDelayedCalls() == []


# --- callbacks ------------------------------------------------------------------------------------------------------


def test_added_removed_and_updated_are_told_apart() -> None:
    viewed = Viewed(at(1), at(2))
    viewed.happens(
        put_event("s/10.0.0.1:80", encode_instance(at(1, "new")).decode(), 8),
        put_event("s/10.0.0.3:80", "10.0.0.3:80", 8),
        delete_event("s/10.0.0.2:80", 8),
    )
    [change] = viewed.told
    assert change.updated == ((at(1), at(1, "new")),)
    assert change.added == (at(1, "new"), at(3))
    assert change.removed == (at(1), at(2))
    assert change.instances == (at(1, "new"), at(3)) == viewed.view.instances


def test_one_that_fails_is_logged_and_the_view_and_the_others_go_on(logged_errors: LoggedErrors) -> None:
    viewed = Viewed(load=False)

    def fails(_: ServiceChange) -> None:
        raise ZeroDivisionError

    viewed.view.on_change(fails)
    viewed.view.on_change(viewed.told.append)
    viewed.loads()
    viewed.comes(at(1))
    viewed.comes(at(2))
    assert len(viewed.told) == 2
    assert len(logged_errors.flush(ZeroDivisionError)) == 2


def test_taken_away_it_is_told_nothing_more() -> None:
    viewed = Viewed()
    told: list[ServiceChange] = []
    away = viewed.view.on_change(told.append)
    viewed.comes(at(1))
    away()
    away()
    viewed.comes(at(2))
    assert len(told) == 1
    assert len(viewed.told) == 2


def test_what_is_there_when_it_is_loaded_is_nobodys_change() -> None:
    viewed = Viewed(load=False)
    told: list[ServiceChange] = []
    viewed.view.on_change(told.append)
    changes = viewed.view.changes()
    waiting = changes.next()
    viewed.loads(at(1))
    assert told == []
    assert peek(waiting) is PENDING
    viewed.comes(at(2))
    assert told == [ServiceChange((at(1), at(2)), (at(2),))]
    assert result_of(waiting) == told[0]


def test_while_a_callback_waits_what_happens_is_gathered_to_one_change() -> None:
    viewed = Viewed(at(1))
    told: list[ServiceChange] = []
    waits: list[Deferred[None]] = []

    async def slow(change: ServiceChange) -> None:
        told.append(change)
        waits.append(Deferred())
        await waits[-1]

    viewed.view.on_change(slow)
    viewed.comes(at(2))
    viewed.comes(at(3))
    viewed.goes(at(2))
    viewed.comes(at(1, "new"))
    viewed.comes(at(1, "newer"))
    assert len(told) == 1
    waits[0].callback(None)
    assert told[1] == ServiceChange(
        (at(1, "newer"), at(3)), (at(3), at(1, "newer")), (at(2), at(1)), ((at(1), at(1, "newer")),)
    )
    viewed.comes(at(4))
    viewed.goes(at(4))
    waits[1].callback(None)
    assert len(told) == 2


def test_a_callback_that_waits_and_fails_is_logged_and_told_the_next_one(logged_errors: LoggedErrors) -> None:
    viewed = Viewed()
    told: list[ServiceChange] = []

    def fails_later(change: ServiceChange) -> Deferred[None]:
        told.append(change)
        later: Deferred[None] = Deferred()
        viewed.clock.callLater(1, later.errback, Failure(ZeroDivisionError()))
        return later

    viewed.view.on_change(fails_later)
    viewed.comes(at(1))
    viewed.comes(at(2))
    viewed.clock.advance(1)
    assert [change.added for change in told] == [(at(1),), (at(2),)]
    viewed.clock.advance(1)
    assert len(logged_errors.flush(ZeroDivisionError)) == 2


def test_a_callback_can_stop_the_view_and_take_itself_away() -> None:
    viewed = Viewed()
    away = viewed.view.on_change(lambda _: away())
    viewed.view.on_change(lambda _: viewed.view.stop())
    told: list[ServiceChange] = []
    viewed.view.on_change(told.append)
    viewed.comes(at(1))
    viewed.etcd.take("stop of a watch").answer.callback(None)
    assert told == []
    assert result_of(viewed.view.ended) is None


def test_what_cannot_be_called_is_refused() -> None:
    with pytest.raises(TypeError, match="must be a function that takes a change, not int"):
        Viewed().view.on_change(7)  # type: ignore[arg-type]


# --- loops ----------------------------------------------------------------------------------------------------------


async def gathered(changes: Changes, into: list[ServiceChange]) -> None:
    async for change in changes:
        # One by one: they are looked at before the loop has ended.
        into.append(change)  # noqa: PERF401


def test_a_loop_gets_each_change_and_ends_with_the_view() -> None:
    viewed = Viewed(at(1))
    got: list[ServiceChange] = []
    following = Deferred.fromCoroutine(gathered(viewed.view.changes(), got))
    viewed.comes(at(2))
    viewed.goes(at(1))
    assert got == viewed.told
    viewed.stops()
    assert result_of(following) is None


def test_who_takes_them_slowly_gets_the_net_difference_and_each_loop_has_its_own() -> None:
    viewed = Viewed(at(1))
    slow, quick = viewed.view.changes(), viewed.view.changes()
    for _ in range(1000):
        viewed.comes(at(2))
        assert result_of(quick.next()).added == (at(2),)
        viewed.goes(at(2))
        assert result_of(quick.next()).removed == (at(2),)
    viewed.comes(at(3))
    viewed.goes(at(1))
    assert result_of(slow.next()) == ServiceChange((at(3),), (at(3),), (at(1),))
    waiting = slow.next()
    assert peek(waiting) is PENDING
    waiting.cancel()
    failure_of(waiting, CancelledError)


def test_what_was_missed_is_told_before_the_error_that_ended_the_view() -> None:
    viewed = Viewed(at(1))
    changes = viewed.view.changes()
    viewed.comes(at(2))
    denied = PermissionDenied(7, "permission denied")
    viewed.etcd.watches[-1][0].finished(Failure(denied))
    viewed.etcd.take("stop of a watch").answer.callback(None)
    assert result_of(changes.next()).added == (at(2),)
    assert failure_of(changes.next(), PermissionDenied) is denied


def test_a_loop_can_be_stopped_alone_and_one_of_a_view_that_was_stopped_ends_at_once() -> None:
    viewed = Viewed(at(1))
    changes = viewed.view.changes()
    got: list[ServiceChange] = []
    following = Deferred.fromCoroutine(gathered(changes, got))
    changes.stop()
    assert result_of(following) is None
    viewed.comes(at(2))
    assert got == []
    assert len(viewed.told) == 1
    viewed.stops()
    assert "was stopped" in str(failure_of(viewed.view.changes().next(), WatchStopped))


def test_a_loop_that_was_left_is_forgotten() -> None:
    viewed = Viewed(at(1))
    viewed.view.on_change(lambda _: None)()
    only = ServiceView(viewed.etcd.client, viewed.clock, "t/")
    changes = only.changes()
    assert only.is_listened_to
    del changes
    gc.collect()
    assert not only.is_listened_to


# --- filters --------------------------------------------------------------------------------------------------------


def test_changes_of_others_are_none() -> None:
    viewed = Viewed(at(1, "eu"), at(2))
    told: list[ServiceChange] = []
    viewed.view.on_change(told.append, EU)
    viewed.comes(at(3))
    viewed.comes(at(2, "us"))
    viewed.goes(at(3))
    assert told == []
    viewed.comes(at(2, "us", "eu"))
    viewed.comes(at(1, "us"))
    viewed.comes(at(2, "eu"))
    assert told == [
        ServiceChange((at(1, "eu"), at(2, "us", "eu")), (at(2, "us", "eu"),)),
        ServiceChange((at(2, "us", "eu"),), (), (at(1, "eu"),)),
        ServiceChange((at(2, "eu"),), (at(2, "eu"),), (at(2, "us", "eu"),), ((at(2, "us", "eu"), at(2, "eu")),)),
    ]


def test_one_that_becomes_critical_goes_and_comes_back_for_all_who_do_not_ask_for_those() -> None:
    viewed = Viewed(at(1, status=Status.PASSING))
    everything: list[ServiceChange] = []
    viewed.view.on_change(everything.append, EVERY_INSTANCE)
    critical = at(1, status=Status.CRITICAL)
    viewed.comes(critical)
    assert viewed.told == [ServiceChange((), (), (at(1, status=Status.PASSING),))]
    assert everything[0].instances == (critical,) == viewed.view.instances
    assert viewed.view.select() == ()
    assert viewed.view.choose() is None
    assert viewed.view.use() is None
    viewed.comes(at(1, status=Status.WARNING))
    assert viewed.told[1].added == (at(1, status=Status.WARNING),)


# --- choices --------------------------------------------------------------------------------------------------------


def test_a_choice_by_its_name_is_shared_by_all_who_use_the_view() -> None:
    view = Viewed(at(1), at(2, "eu"), at(3)).view
    assert [view.choose() for _ in range(4)] == [at(1), at(2, "eu"), at(3), at(1)]
    assert view.choose(where=EU) == at(2, "eu")
    own = RoundRobin()
    assert [view.choose(own) for _ in range(2)] == [at(1), at(2, "eu")]
    assert view.choose("sticky", key="user-1") == view.choose("sticky", key="user-1")
    with pytest.raises(InvalidSettings, match="there is no choice 'best'"):
        view.choose("best")


def test_uses_are_counted_for_the_least_used() -> None:
    view = Viewed(at(1), at(2)).view
    first = view.use("least-used")
    assert first is not None
    assert first.instance == at(1)
    with view.use("least-used") or pytest.fail("nothing to use") as second:
        assert second.instance == at(2)
        first.end()
        assert view.choose("least-used") == at(1)
    counting = LeastUsed()
    assert view.use(counting) is not None
    assert counting.uses(at(1)) + counting.uses(at(2)) == 1


# --- stale ----------------------------------------------------------------------------------------------------------


def test_stale_and_fresh_are_told_with_nothing_added_or_removed_and_the_instances_stay() -> None:
    viewed = Viewed(at(1))
    changes = viewed.view.changes()
    viewed.is_interrupted()
    assert "stale" in repr(viewed.view)
    assert viewed.view.select() == (at(1),)
    viewed.is_heard_of_again()
    assert viewed.told == [ServiceChange((at(1),), stale=True), ServiceChange((at(1),))]
    # For who did not look, it was as if nothing had been.
    assert peek(changes.next()) is PENDING


def test_what_changed_meanwhile_is_told_as_fresh_when_it_was_read_again() -> None:
    viewed = Viewed(at(1))
    viewed.is_interrupted()
    viewed.etcd.watches[-1][0].finished(Failure(COMPACTED))
    viewed.etcd.take("get").answer.callback(found(30, there(at(2), 25)))
    assert viewed.told[1:] == [ServiceChange((at(2),), (at(2),), (at(1),))]


# --- what vanishes --------------------------------------------------------------------------------------------------


FOUR = tuple(at(number) for number in range(1, 5))
HALF = Protection(share=0.5, window=10, hold=60)


def test_a_sudden_disappearance_is_held_back_marked_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    viewed = Viewed(*FOUR, protection=HALF)
    viewed.goes(*FOUR[:3])
    viewed.goes(FOUR[3])
    assert viewed.view.instances == FOUR
    assert viewed.view.protected
    assert viewed.view.held_back == FOUR
    assert viewed.told == [ServiceChange(FOUR, held_back=FOUR[:3]), ServiceChange(FOUR, held_back=FOUR)]
    said = [record.getMessage() for record in caplog.records if "held back" in record.getMessage()]
    assert said == ["3 of 4 instances at s/ vanished at once, and are held back for at most 60 s"]
    assert viewed.view.choose() == FOUR[0]


def test_held_back_for_long_enough_they_go_all_together() -> None:
    viewed = Viewed(*FOUR, protection=HALF)
    viewed.goes(*FOUR)
    viewed.clock.advance(59)
    assert viewed.view.instances == FOUR
    viewed.clock.advance(1)
    assert viewed.view.instances == ()
    assert not viewed.view.protected
    assert viewed.told[1:] == [ServiceChange((), (), FOUR)]
    assert viewed.clock.getDelayedCalls() == []


def test_who_comes_back_is_there_as_it_is_now_and_when_enough_are_the_others_go() -> None:
    viewed = Viewed(*FOUR, protection=HALF)
    viewed.goes(*FOUR)
    viewed.comes(at(1, "new"))
    assert viewed.told[-1].updated == ((at(1), at(1, "new")),)
    assert viewed.view.held_back == FOUR[1:]
    viewed.comes(at(2))
    assert viewed.view.instances == (at(1, "new"), at(2))
    assert viewed.told[-1] == ServiceChange((at(1, "new"), at(2)), (), FOUR[2:])
    assert viewed.clock.getDelayedCalls() == []


def test_those_that_went_a_moment_before_come_back_with_it() -> None:
    viewed = Viewed(*FOUR, protection=HALF)
    viewed.goes(FOUR[0])
    viewed.goes(FOUR[1])
    assert viewed.view.instances == FOUR[2:]
    viewed.goes(FOUR[2])
    assert viewed.view.instances == FOUR
    assert viewed.told[-1] == ServiceChange(FOUR, FOUR[:2], held_back=FOUR[:3])


def test_what_was_read_again_and_is_empty_is_held_back_too() -> None:
    viewed = Viewed(*FOUR, protection=HALF)
    viewed.etcd.watches[-1][0].finished(Failure(COMPACTED))
    viewed.etcd.take("get").answer.callback(found(30))
    assert viewed.view.instances == FOUR
    assert viewed.view.protected


def test_a_protection_can_be_given_and_taken_back_later() -> None:
    viewed = Viewed(*FOUR)
    viewed.view.protect(HALF)
    viewed.goes(*FOUR)
    viewed.view.protect(HALF)
    assert viewed.view.instances == FOUR
    viewed.view.protect(None)
    assert viewed.view.instances == ()
    assert viewed.told[-1] == ServiceChange((), (), FOUR)
    viewed.stops()


def test_what_is_held_back_is_no_reason_to_stay_when_it_is_stopped() -> None:
    viewed = Viewed(*FOUR, protection=HALF)
    viewed.goes(*FOUR)
    viewed.stops()
    assert len(viewed.told) == 1


def test_without_a_protection_all_go_at_once() -> None:
    viewed = Viewed(*FOUR)
    viewed.goes(*FOUR)
    assert viewed.view.instances == ()
    assert not viewed.view.protected


def test_a_view_that_was_stopped_first_says_so() -> None:
    viewed = Viewed(load=False)
    changes = viewed.view.changes()
    waiting = changes.next()
    viewed.view.stop()
    failure_of(waiting, WatchStopped)
    failure_of(viewed.started, ServiceStopped)
