"""Registrations, with a test in the place of etcd and of time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from tests.guards import LoggedErrors
from tests.messaging.common import PENDING, failure_of, peek, result_of
from tests.scripted import (
    Asked,
    ScriptedClient,
    batch,
    delete_event,
    done,
    kv,
    put_event,
    put_of,
    removed_by,
)
from twisted_etcd.client.lease import Lease
from twisted_etcd.errors import (
    ClusterChanged,
    Compacted,
    DeadlineExceeded,
    EtcdError,
    InvalidSettings,
    LeaseNotFound,
    OutcomeUnknown,
    PermissionDenied,
    RequestFailed,
    ServiceStopped,
    Unavailable,
)
from twisted_etcd.registry.instance import InstanceFormat, Status
from twisted_etcd.registry.machine import RegistrationState
from twisted_etcd.registry.registration import Registration
from twisted_etcd.registry.registry import Registry

AT = "10.0.0.7:80"
PATH = f"/services/shop/{AT}"
AWAY = Unavailable("etcd is away")
UNKNOWN = OutcomeUnknown("it may have been applied")
NO_LEASE = LeaseNotFound(5, "requested lease not found")
DENIED = PermissionDenied(7, "permission denied")
WANTED, ALIVE, LOST, CONTESTED, WITHHELD, ENDED = RegistrationState


class Scene:
    """A registry, and the states that the registration of ``PATH`` told."""

    def __init__(self, **options: Any) -> None:  # noqa: ANN401 - as Registry.register has them
        self.etcd = ScriptedClient()
        self.clock = Clock()
        self.registry = Registry(self.etcd.client, self.clock, random=lambda: 1.0)
        self.states: list[RegistrationState] = []
        self.during_changed: Callable[[], object] = lambda: None
        self.registration = self.register(AT, changed=self._changed, **options)
        self.registered = self.registration.registered

    def register(self, address: str, **options: Any) -> Registration:  # noqa: ANN401 - likewise
        return self.registry.register("shop", address, **{"ttl": 30, **options})

    def _changed(self, registration: Registration) -> None:
        self.states.append(registration.state)
        self.during_changed()

    def turn(self, seconds: float = 0.0) -> None:
        self.clock.advance(seconds)

    def is_granted(self) -> Lease:
        lease = self.etcd.new_lease()
        asked = self.etcd.take("lease")
        assert asked.args == (30,)
        asked.answer.callback(lease)
        return lease

    def is_put(self, lease: Lease, revision: int = 10, *paths: str) -> Asked:
        asked = self.etcd.take("txn")
        assert put_of(asked) == ([*(paths or (PATH,))], {lease.id})
        done(asked, revision)
        self.turn()
        return asked

    def succeeds(self, revision: int = 10) -> Lease:
        lease = self.is_granted()
        self.is_put(lease, revision)
        return lease

    def sees(self, *events: Any) -> None:  # noqa: ANN401 - etcd's
        self.etcd.watches[-1][0].deliver(batch(*events))

    def is_revoked(self, lease: Lease) -> Asked:
        asked = self.etcd.take("revoke")
        assert asked.args == (lease.id,)
        return asked

    def watch_is_stopped(self) -> None:
        self.etcd.take("stop of a watch").answer.callback(None)

    def is_removed(self, lease: Lease, revision: int = 50) -> None:
        asked = self.etcd.take("txn")
        assert removed_by(asked) == ([PATH], {lease.id})
        done(asked, revision)

    def nothing_is_left(self) -> None:
        self.turn()
        assert [asked for asked in self.etcd.asked if not asked.cancelled] == []
        assert self.clock.getDelayedCalls() == []
        assert self.registration.state is ENDED
        assert self.registration.lease_id == 0
        assert self.registry.registrations == ()


@pytest.fixture
def scene() -> Scene:
    return Scene()


# --- registering ----------------------------------------------------------------------------------------------------


def test_it_is_registered_when_the_key_is_there(scene: Scene) -> None:
    lease = scene.is_granted()
    assert peek(scene.registered) is PENDING
    scene.is_put(lease)
    assert result_of(scene.registered) == lease.id == scene.registration.lease_id
    assert scene.states == [ALIVE]
    assert scene.registration.seconds_left == 30
    assert repr(scene.registration) == f"<Registration {PATH}, alive>"
    scene.turn(12)
    assert scene.registration.since == 0
    assert scene.registration.describe() == f"{PATH}: alive for 12 s, lease 1, rests"


def test_a_first_attempt_that_fails_without_a_lease_fails_what_has_no_patience() -> None:
    scene = Scene(patient=False)
    scene.etcd.take("lease").fails(AWAY)
    assert failure_of(scene.registered, Unavailable) is AWAY
    assert scene.states == [ENDED]
    assert result_of(scene.registration.take_back()) is None
    scene.nothing_is_left()


def test_a_put_of_unknown_outcome_is_undone_by_its_lease_before_it_is_told_of() -> None:
    scene = Scene(patient=False)
    lease = scene.is_granted()
    scene.etcd.take("txn").fails(UNKNOWN)
    assert peek(scene.registered) is PENDING
    scene.is_revoked(lease).answer.callback(None)
    failure_of(scene.registered, OutcomeUnknown)
    scene.nothing_is_left()


def test_where_that_cannot_be_undone_either_the_first_error_is_told(caplog: pytest.LogCaptureFixture) -> None:
    scene = Scene(patient=False)
    lease = scene.is_granted()
    scene.etcd.take("txn").fails(UNKNOWN)
    scene.is_revoked(lease).fails(AWAY)
    failure_of(scene.registered, OutcomeUnknown)
    scene.nothing_is_left()
    assert f"left to its TTL: {PATH}: etcd is away" in caplog.text


def test_while_others_live_by_the_lease_it_is_undone_by_a_removal() -> None:
    scene = Scene()
    lease = scene.succeeds()
    impatient = scene.register("10.0.0.8:80", patient=False)
    registered = impatient.registered
    scene.etcd.take("txn").fails(UNKNOWN)
    asked = scene.etcd.take("txn")
    assert removed_by(asked) == ([impatient.path], {lease.id})
    assert peek(registered) is PENDING
    done(asked, 20)
    failure_of(registered, OutcomeUnknown)
    assert scene.registration.state is ALIVE


def test_with_patience_it_goes_on_with_growing_waits_and_says_so_once(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    waits = []
    for _ in range(11):
        scene.etcd.take("lease").fails(AWAY)
        [waiting] = scene.clock.getDelayedCalls()
        waits.append(round(waiting.getTime() - scene.clock.seconds(), 6))
        scene.turn(waits[-1])
    assert waits == [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0, 10.0]
    assert len([record for record in caplog.records if "tried again" in record.getMessage()]) == 1
    assert scene.states == []
    assert scene.registration.describe() == f"{PATH}: wanted for 43 s, no lease, waits for a lease; last error: {AWAY}"
    lease = scene.succeeds()
    assert result_of(scene.registered) == lease.id
    assert scene.registration.last_error is None


# --- the lease ------------------------------------------------------------------------------------------------------


def test_those_with_one_ttl_share_a_lease_and_who_asks_for_one_of_its_own_gets_it(scene: Scene) -> None:
    shared = scene.succeeds()
    same, other = scene.register("10.0.0.8:80"), scene.register("10.0.0.9:80", own_lease=True)
    scene.is_put(shared, 11, same.path)
    own = scene.is_granted()
    scene.is_put(own, 12, other.path)
    assert (same.lease_id, other.lease_id) == (shared.id, own.id)
    longer = scene.register("10.0.0.10:80", ttl=60)
    assert scene.etcd.take("lease").args == (60,)
    assert longer.state is WANTED


def test_a_lost_lease_is_replaced_by_a_new_one_for_ever(scene: Scene) -> None:
    leases = [scene.succeeds()]
    for number in range(3):
        leases[-1].ended("etcd no longer has it")
        assert scene.registration.state is LOST
        assert (scene.registration.lease_id, scene.registration.seconds_left) == (0, 0)
        leases.append(scene.succeeds(20 + number))
    assert scene.states == [ALIVE, LOST, ALIVE, LOST, ALIVE, LOST, ALIVE]
    assert len({lease.id for lease in leases}) == 4


@pytest.mark.parametrize("error", [AWAY, DeadlineExceeded("too late"), EtcdError(7, "permission denied")])
def test_once_registered_no_failure_ends_it(error: RequestFailed | EtcdError) -> None:
    scene = Scene(patient=False)
    scene.succeeds().ended("etcd is away")
    for _ in range(20):
        scene.etcd.take("lease").fails(error)
        scene.turn(10)
    lease = scene.is_granted()
    for _ in range(20):
        scene.etcd.take("txn").fails(error)
        scene.turn(40)
    scene.is_put(lease)
    assert scene.states == [ALIVE, LOST, ALIVE]


def test_the_last_one_to_leave_takes_the_shared_lease_with_it(scene: Scene) -> None:
    lease = scene.succeeds()
    other = scene.register("10.0.0.8:80")
    scene.is_put(lease, 11, other.path)
    first = scene.registration.take_back()
    scene.is_removed(lease)
    assert result_of(first) is None
    last = other.take_back()
    scene.watch_is_stopped()
    scene.is_revoked(lease).answer.callback(None)
    assert result_of(last) is None
    scene.watch_is_stopped()
    scene.nothing_is_left()


def test_where_the_lease_turns_out_to_be_gone_the_client_is_made_to_see_it(scene: Scene) -> None:
    lease = scene.succeeds()
    scene.sees(delete_event(PATH, 11))
    scene.etcd.take("txn").fails(NO_LEASE)
    asked = scene.etcd.take("keepalive_once")
    lease.ended("etcd no longer has it")
    asked.fails(NO_LEASE)
    scene.succeeds(20)
    assert scene.states == [ALIVE, LOST, ALIVE]


def test_a_client_that_stopped_ends_it(scene: Scene) -> None:
    scene.succeeds().ended("the client stopped")
    scene.etcd.take("lease").fails(ServiceStopped("the client was stopped"))
    assert scene.states == [ALIVE, LOST, ENDED]
    scene.watch_is_stopped()
    scene.nothing_is_left()


def test_an_error_that_nobody_expects_ends_it_and_is_logged(scene: Scene, logged_errors: LoggedErrors) -> None:
    scene.succeeds().ended("gone")
    scene.etcd.take("lease").fails(ZeroDivisionError())
    assert scene.states == [ALIVE, LOST, ENDED]
    assert len(logged_errors.flush(ZeroDivisionError)) == 1


# --- the watch on its own key ---------------------------------------------------------------------------------------


def test_its_key_is_watched_from_its_put_on(scene: Scene) -> None:
    scene.succeeds(10)
    [(watch, options, _)] = scene.etcd.watches
    assert PATH in repr(watch)
    assert options == {"start_revision": 10, "prefix": False}
    scene.sees(put_event(PATH, "ours", 10))
    assert scene.states == [ALIVE]
    assert scene.etcd.asked == []


def test_a_key_that_is_deleted_or_overwritten_is_put_back_at_once(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    lease = scene.succeeds(10)
    scene.sees(delete_event(PATH, 11))
    assert scene.states == [ALIVE, LOST]
    scene.is_put(lease, 12)
    scene.turn(100)
    scene.sees(put_event(PATH, "other", 13))
    assert scene.states == [ALIVE, LOST, ALIVE, CONTESTED]
    scene.is_put(lease, 14)
    assert scene.states == [ALIVE, LOST, ALIVE, CONTESTED, ALIVE]
    assert caplog.text.count(f"deleted or taken over by somebody, and put back: {PATH}") == 2


def test_who_takes_it_again_and_again_is_answered_after_waits_and_named_once(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    lease = scene.succeeds(10)
    for number in range(5):
        scene.sees(put_event(PATH, "other", 11 + 2 * number))
        if number:
            assert scene.etcd.asked == []
            assert scene.registration.state is CONTESTED
            assert "waits to try again" in scene.registration.describe()
            scene.turn(3)
        scene.is_put(lease, 12 + 2 * number)
    assert caplog.text.count("taken or deleted again and again by somebody else") == 1


@pytest.mark.parametrize("error", [Compacted(11, "compacted", 40), ClusterChanged(1, 2)])
def test_where_the_history_is_gone_the_key_is_read_and_followed_from_there(scene: Scene, error: Exception) -> None:
    lease = scene.succeeds(10)
    scene.etcd.watches[-1][0].finished(Failure(error))
    asked = scene.etcd.take("txn")
    done(asked, 3)
    assert scene.states == [ALIVE, LOST]
    assert scene.etcd.watches[-1][1]["start_revision"] == 3
    scene.is_put(lease, 4)
    scene.sees(put_event(PATH, "other", 6))
    assert scene.states == [ALIVE, LOST, ALIVE, CONTESTED]


def test_a_watch_that_is_not_allowed_is_complained_of_once_and_tried_again(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    lease = scene.succeeds(10)
    for _ in range(3):
        scene.etcd.watches[-1][0].finished(Failure(DENIED))
        scene.turn(1)
        done(scene.etcd.take("txn"), 20, kv(PATH, "", 10, lease.id))
    assert len(scene.etcd.watches) == 4
    assert scene.states == [ALIVE]
    assert caplog.text.count(f"Others' changes at {PATH} are found by the heartbeat check alone") == 1


# --- the check ------------------------------------------------------------------------------------------------------


def test_a_check_that_finds_the_key_with_our_lease_changes_nothing(scene: Scene) -> None:
    lease = scene.succeeds(10)
    checking = scene.registration.check()
    asked = scene.etcd.take("txn")
    [operation] = asked.options["success"]
    assert (operation.request_range.key, operation.request_range.keys_only) == (PATH.encode(), True)
    done(asked, 20, kv(PATH, "", 10, lease.id))
    assert result_of(checking) is True
    assert scene.states == [ALIVE]
    assert scene.etcd.asked == []


@pytest.mark.parametrize(
    ("there", "state"),
    [((), LOST), ((kv(PATH, "", 18),), CONTESTED), ((kv(PATH, "", 18, 999),), CONTESTED)],
    ids=["gone", "no lease", "other's"],
)
def test_a_key_that_is_gone_or_anothers_is_put_back_before_the_check_is_over(
    scene: Scene, there: tuple[Any, ...], state: RegistrationState
) -> None:
    lease = scene.succeeds()
    checking = scene.registration.check()
    done(scene.etcd.take("txn"), 20, *there)
    assert scene.states == [ALIVE, state]
    assert peek(checking) is PENDING
    scene.is_put(lease, 21)
    assert result_of(checking) is False
    assert scene.states == [ALIVE, state, ALIVE]


def test_a_check_that_does_not_reach_etcd_fails_and_changes_nothing(scene: Scene) -> None:
    scene.succeeds()
    checking = scene.registration.check()
    scene.etcd.take("txn").fails(AWAY)
    failure_of(checking, Unavailable)
    assert scene.states == [ALIVE]


def test_a_check_of_what_is_not_registered_asks_nothing(scene: Scene) -> None:
    assert result_of(scene.registration.check()) is False
    scene.succeeds().ended("gone")
    assert result_of(scene.registration.check()) is False
    assert [asked.what for asked in scene.etcd.asked] == ["lease"]


def test_a_check_during_which_it_is_taken_back_puts_nothing(scene: Scene) -> None:
    lease = scene.succeeds()
    checking = scene.registration.check()
    asked = scene.etcd.take("txn")
    taking_back = scene.registration.take_back()
    scene.is_revoked(lease).answer.callback(None)
    done(asked, 20)
    assert result_of(checking) is False
    assert result_of(taking_back) is None
    scene.watch_is_stopped()
    scene.nothing_is_left()


def test_a_heartbeat_confirms_the_lease_and_then_the_key(scene: Scene) -> None:
    lease = scene.succeeds()
    beating = scene.registration.heartbeat()
    scene.etcd.take("keepalive_once").answer.callback(30)
    done(scene.etcd.take("txn"), 20, kv(PATH, "", 10, lease.id))
    assert result_of(beating) == 30


def test_a_heartbeat_of_what_is_not_registered_says_so(scene: Scene) -> None:
    scene.succeeds().ended("gone")
    error = failure_of(scene.registration.heartbeat(), LeaseNotFound)
    assert PATH in str(error)


# --- what can be asked of it ----------------------------------------------------------------------------------------


def value_of(asked: Asked) -> bytes:
    value: bytes = asked.options["success"][0].request_put.value
    return value


def test_an_update_rewrites_the_value_and_fires_when_etcd_has_it(scene: Scene) -> None:
    lease = scene.succeeds()
    updating = scene.registration.update(tags=("new",), metadata={"v": "7"}, weight=3, status=Status.WARNING)
    assert peek(updating) is PENDING
    asked = scene.is_put(lease, 11)
    assert value_of(asked) == (
        b'{"address":"10.0.0.7","port":80,"tags":["new"],"metadata":{"v":"7"},"weight":3,"id":"10.0.0.7:80",'
        b'"status":"warning"}'
    )
    assert result_of(updating) is True
    assert scene.registration.instance.tags == ("new",)
    assert result_of(scene.registration.update(weight=3)) is True
    assert scene.etcd.asked == []
    assert scene.states == [ALIVE]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tags": "eu"}, "tags and metadata must be texts"),
        ({"metadata": {"a": 1}}, "tags and metadata must be texts"),
        ({"weight": -1}, "the weight of the instance at 10.0.0.7:80 must be a whole number from 0 on, not -1"),
        ({"weight": True}, "must be a whole number from 0 on, not True"),
        ({"status": "ill"}, "must be one of passing, warning, critical, not 'ill'"),
    ],
)
def test_an_update_that_cannot_be_used_is_refused_and_changes_nothing(
    scene: Scene, changes: dict[str, Any], words: str
) -> None:
    scene.succeeds()
    with pytest.raises(InvalidSettings, match=words):
        scene.registration.update(**changes)
    assert scene.etcd.asked == []


def test_withheld_its_key_is_removed_and_comes_back_when_it_is_offered(scene: Scene) -> None:
    lease = scene.succeeds()
    withholding = scene.registration.withhold()
    assert scene.states == [ALIVE, WITHHELD]
    assert peek(withholding) is PENDING
    scene.is_removed(lease, 11)
    assert result_of(withholding) is True
    assert result_of(scene.registration.withhold()) is True
    lease.ended("gone")
    lease = scene.is_granted()
    assert scene.etcd.asked == []
    offering = scene.registration.offer()
    scene.is_put(lease, 12)
    assert result_of(offering) is True
    assert scene.states == [ALIVE, WITHHELD, WANTED, ALIVE]


def test_what_begins_withheld_is_not_there_for_a_moment() -> None:
    scene = Scene(withheld=True)
    lease = scene.is_granted()
    assert scene.registration.state is WITHHELD
    assert scene.etcd.asked == []
    scene.registration.offer()
    scene.is_put(lease)
    assert result_of(scene.registered) == lease.id


def test_what_is_waited_for_at_the_end_is_told_that_it_will_not_be(scene: Scene) -> None:
    lease = scene.is_granted()
    waiting = [scene.registration.update(weight=2), scene.registration.withhold(), scene.registration.offer()]
    cancelled = scene.registration.update(weight=3)
    cancelled.addErrback(lambda _: None)
    cancelled.cancel()
    scene.registration.take_back().addErrback(lambda _: None)
    scene.etcd.take("txn")
    scene.is_revoked(lease)
    failure_of(scene.registered, ServiceStopped)
    assert [result_of(each) for each in waiting] == [False, False, False]
    for again in (scene.registration.update(weight=5), scene.registration.withhold(), scene.registration.offer()):
        assert result_of(again) is False


@pytest.mark.parametrize(
    ("form", "value"),
    [
        (InstanceFormat.GO, b'{"Op":0,"Addr":"10.0.0.7:80","Metadata":null}'),
        (InstanceFormat.ADDRESS, b"10.0.0.7:80"),
    ],
)
def test_it_is_written_in_the_form_that_was_asked_for(form: InstanceFormat, value: bytes) -> None:
    scene = Scene(form=form)
    lease = scene.is_granted()
    assert value_of(scene.is_put(lease)) == value


# --- telling --------------------------------------------------------------------------------------------------------


def test_several_are_told_of_changes_until_they_want_no_more_and_one_that_fails_harms_nobody(
    scene: Scene, logged_errors: LoggedErrors
) -> None:
    told: list[RegistrationState] = []

    def fails(_: Registration) -> None:
        raise ZeroDivisionError

    scene.registration.on_change(fails)
    remove = scene.registration.on_change(lambda registration: told.append(registration.state))
    lease = scene.succeeds()
    remove()
    remove()
    lease.ended("gone")
    assert told == [ALIVE]
    assert scene.states == [ALIVE, LOST]
    assert len(logged_errors.flush(ZeroDivisionError)) == 2
    with pytest.raises(TypeError, match="callback must be a function that takes a Registration, not int"):
        scene.registration.on_change(7)  # type: ignore[arg-type]


# --- taking back, in every phase ------------------------------------------------------------------------------------


def test_taken_back_its_lease_is_revoked(scene: Scene) -> None:
    lease = scene.succeeds()
    taking_back = scene.registration.take_back()
    assert scene.registration.state is ENDED
    assert peek(taking_back) is PENDING
    scene.is_revoked(lease).answer.callback(None)
    assert result_of(taking_back) is None
    assert result_of(scene.registration.take_back()) is None
    assert scene.states == [ALIVE, ENDED]
    scene.watch_is_stopped()
    scene.nothing_is_left()


def test_where_it_cannot_be_taken_back_that_is_told_and_nothing_goes_on(scene: Scene) -> None:
    lease = scene.succeeds()
    taking_back = scene.registration.take_back()
    scene.is_revoked(lease).fails(AWAY)
    failure_of(taking_back, Unavailable)
    scene.watch_is_stopped()
    scene.nothing_is_left()


def test_while_others_live_by_its_lease_the_removal_is_tried_until_it_is_done(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    lease = scene.succeeds()
    other = scene.register("10.0.0.8:80")
    scene.is_put(lease, 11, other.path)
    taking_back = scene.registration.take_back()
    scene.etcd.take("txn").fails(AWAY)
    failure_of(taking_back, Unavailable)
    assert scene.registration in scene.registry.registrations
    scene.turn(1)
    scene.is_removed(lease)
    assert scene.registry.registrations == (other,)
    assert f"{PATH} cannot be removed, which is tried again: etcd is away" in caplog.text


def test_a_put_that_comes_after_the_removal_is_removed_too(scene: Scene) -> None:
    lease = scene.succeeds()
    other = scene.register("10.0.0.8:80")
    scene.is_put(lease, 11, other.path)
    scene.registration.update(weight=2)
    scene.etcd.take("txn").fails(UNKNOWN)
    taking_back = scene.registration.take_back()
    scene.is_removed(lease, 12)
    assert result_of(taking_back) is None
    watch = next(watch for watch, _, _ in scene.etcd.watches if PATH in repr(watch))
    watch.deliver(batch(put_event(PATH, "late", 13)))
    assert scene.etcd.asked == []
    late = put_event(PATH, "late", 14)
    watch.deliver(batch(type(late)(kv=kv(PATH, "late", 14, lease.id))))
    scene.is_removed(lease, 15)
    scene.turn(15)
    scene.watch_is_stopped()
    assert scene.clock.getDelayedCalls() == []


def test_taken_back_while_its_lease_is_granted(scene: Scene) -> None:
    taking_back = scene.registration.take_back()
    assert scene.etcd.take("lease").cancelled
    assert result_of(taking_back) is None
    assert PATH in str(failure_of(scene.registered, ServiceStopped))
    scene.nothing_is_left()


def test_taken_back_while_it_is_put_its_lease_is_revoked(scene: Scene) -> None:
    lease = scene.is_granted()
    putting = scene.etcd.take("txn")
    taking_back = scene.registration.take_back()
    assert peek(taking_back) is PENDING
    scene.is_revoked(lease).answer.callback(None)
    assert result_of(taking_back) is None
    failure_of(scene.registered, ServiceStopped)
    done(putting, 11)
    scene.nothing_is_left()


def test_taken_back_between_two_attempts(scene: Scene) -> None:
    scene.etcd.take("lease").fails(AWAY)
    assert result_of(scene.registration.take_back()) is None
    failure_of(scene.registered, ServiceStopped)
    scene.nothing_is_left()


def test_taken_back_while_lost(scene: Scene) -> None:
    scene.succeeds().ended("gone")
    assert result_of(scene.registration.take_back()) is None
    assert scene.etcd.take("lease").cancelled
    scene.watch_is_stopped()
    scene.nothing_is_left()


def test_taken_back_by_who_waited_for_it(scene: Scene) -> None:
    taken_back: list[Deferred[None]] = []
    scene.registered.addCallback(lambda _: taken_back.append(scene.registration.take_back()))
    lease = scene.succeeds()
    scene.is_revoked(lease).answer.callback(None)
    assert result_of(taken_back[0]) is None
    assert scene.states == [ALIVE, ENDED]
    scene.watch_is_stopped()
    scene.nothing_is_left()


@pytest.mark.parametrize("state", [ALIVE, LOST])
def test_taken_back_by_who_is_told_of_its_state(scene: Scene, state: RegistrationState) -> None:
    def take_back() -> None:
        if scene.registration.state is state:
            scene.registration.take_back()

    scene.during_changed = take_back
    lease = scene.succeeds()
    if state is LOST:
        lease.ended("gone")
        scene.watch_is_stopped()
    else:
        scene.is_revoked(lease).answer.callback(None)
        failure_of(scene.registered, ServiceStopped)
        scene.watch_is_stopped()
    assert scene.states[-1] is ENDED
    scene.nothing_is_left()


def test_the_time_to_drain_begins_when_the_key_is_gone_and_ends_early_where_it_is_cancelled(scene: Scene) -> None:
    lease = scene.succeeds()
    taking_back, waiting = scene.registration.take_back(drain=5), scene.registration.take_back(drain=60)
    scene.turn(6)
    asked = scene.is_revoked(lease)
    assert peek(taking_back) is PENDING
    asked.answer.callback(None)
    scene.turn(4.9)
    assert peek(taking_back) is PENDING
    scene.turn(0.1)
    assert result_of(taking_back) is None
    waiting.addErrback(lambda _: None)
    waiting.cancel()
    scene.watch_is_stopped()
    scene.nothing_is_left()
    with pytest.raises(InvalidSettings, match="drain must be at least 0 seconds, and finite, not -1"):
        scene.registration.take_back(drain=-1)


def test_what_was_never_there_needs_no_time_to_drain() -> None:
    scene = Scene(drain=60.0)
    assert result_of(scene.registration.take_back()) is None
    failure_of(scene.registered, ServiceStopped)
    scene.nothing_is_left()


# --- replaced -------------------------------------------------------------------------------------------------------


def test_registered_once_more_it_is_replaced_when_the_new_one_is_there(scene: Scene) -> None:
    lease = scene.succeeds()
    new = scene.register(AT, tags=("new",))
    assert scene.registration.state is ALIVE
    assert b"new" in value_of(scene.is_put(lease, 11))
    assert (scene.registration.state, new.state) == (ENDED, ALIVE)
    scene.sees(put_event(PATH, "other", 12))
    assert (new.state, scene.states[-1]) == (CONTESTED, ENDED)
    assert scene.registry.registrations == (new,)


def test_where_the_new_one_fails_the_earlier_one_takes_the_key_again(scene: Scene) -> None:
    lease = scene.succeeds()
    new = scene.register(AT, tags=("new",), patient=False)
    registered = new.registered
    asked = scene.etcd.take("txn")
    scene.sees(put_event(PATH, "new", 11))
    asked.fails(UNKNOWN)
    failure_of(registered, OutcomeUnknown)
    assert b"new" not in value_of(scene.is_put(lease, 12))
    assert scene.registration.state is ALIVE
    assert scene.registry.registrations == (scene.registration,)


def test_replaced_by_one_that_is_withheld_its_key_goes(scene: Scene) -> None:
    lease = scene.succeeds()
    new = scene.register(AT, withheld=True)
    scene.is_removed(lease)
    assert scene.registry.registrations == (new,)
    scene.watch_is_stopped()
    new.offer()
    scene.is_put(lease, 60)
