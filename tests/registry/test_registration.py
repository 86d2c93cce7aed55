"""A registration, with a test in the place of etcd and of time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from tests.guards import LoggedErrors
from tests.messaging.common import PENDING, failure_of, peek, result_of
from tests.scripted import Asked, ScriptedClient, found, header, kv
from twisted_etcd.client.lease import Lease
from twisted_etcd.errors import (
    DeadlineExceeded,
    EtcdError,
    LeaseNotFound,
    OutcomeUnknown,
    RequestFailed,
    ServiceStopped,
    Unavailable,
)
from twisted_etcd.registry.instance import make_instance
from twisted_etcd.registry.registration import Registration, RegistrationState
from twisted_etcd.schema.kv import CompareTarget, TxnResponse

PATH = "/services/shop/10.0.0.7:80"
AWAY = Unavailable("etcd is away")
UNKNOWN = OutcomeUnknown("it may have been applied")
NO_LEASE = LeaseNotFound(5, "requested lease not found")
WANTED, ALIVE, LOST, ENDED = RegistrationState


class Registered:
    """A registration that was started, and the states that it told."""

    def __init__(self, *, patient: bool = False) -> None:
        self.etcd = ScriptedClient()
        self.clock = Clock()
        self.states: list[RegistrationState] = []
        self.during_changed: Callable[[], object] = lambda: None
        self.registration = Registration(
            self.etcd.client,
            self.clock,
            PATH,
            make_instance("10.0.0.7:80", (), {}),
            ttl=30,
            patient=patient,
            changed=self._changed,
            random=lambda: 1.0,
        )
        self.started = self.registration.start()

    def _changed(self, registration: Registration) -> None:
        self.states.append(registration.state)
        self.during_changed()

    def is_granted(self) -> Lease:
        lease = self.etcd.new_lease()
        asked = self.etcd.take("lease")
        assert asked.args == (30,)
        asked.answer.callback(lease)
        return lease

    def is_put(self, lease: Lease) -> None:
        asked = self.etcd.take("put")
        assert asked.args[0] == PATH
        assert asked.options == {"lease": lease.id}
        asked.answer.callback(None)

    def succeeds(self) -> Lease:
        lease = self.is_granted()
        self.is_put(lease)
        return lease

    def check(self) -> Deferred[bool]:
        return Deferred.fromCoroutine(self.registration.check())

    def is_revoked(self, lease: Lease) -> Asked:
        asked = self.etcd.take("revoke")
        assert asked.args == (lease.id,)
        return asked

    def nothing_is_left(self) -> None:
        assert self.etcd.asked == []
        assert self.clock.getDelayedCalls() == []
        assert self.registration.state is ENDED
        assert self.registration.lease_id == 0


@pytest.fixture
def registered() -> Registered:
    return Registered()


# --- registering ----------------------------------------------------------------------------------------------------


def test_it_is_registered_when_the_key_is_there(registered: Registered) -> None:
    lease = registered.is_granted()
    assert peek(registered.started) is PENDING
    assert registered.registration.lease_id == 0
    registered.is_put(lease)
    assert result_of(registered.started) == lease.id == registered.registration.lease_id
    assert registered.states == [ALIVE]
    assert registered.registration.seconds_left == 30
    assert repr(registered.registration) == f"<Registration {PATH}, alive>"


def test_a_first_attempt_that_fails_without_a_lease_fails_the_start(registered: Registered) -> None:
    registered.etcd.take("lease").fails(AWAY)
    assert failure_of(registered.started, Unavailable) is AWAY
    assert registered.states == [ENDED]
    assert result_of(registered.registration.take_back()) is None
    registered.nothing_is_left()


def test_a_put_of_unknown_outcome_is_undone_by_its_lease_before_the_start_fails(registered: Registered) -> None:
    lease = registered.is_granted()
    registered.etcd.take("put").fails(UNKNOWN)
    assert peek(registered.started) is PENDING
    registered.is_revoked(lease).answer.callback(None)
    assert failure_of(registered.started, OutcomeUnknown) is UNKNOWN
    registered.nothing_is_left()


def test_where_that_cannot_be_undone_either_the_first_error_is_told(
    registered: Registered, caplog: pytest.LogCaptureFixture
) -> None:
    lease = registered.is_granted()
    registered.etcd.take("put").fails(UNKNOWN)
    registered.is_revoked(lease).fails(AWAY)
    assert failure_of(registered.started, OutcomeUnknown) is UNKNOWN
    registered.nothing_is_left()
    assert f"A lease of {PATH} is left to its TTL: etcd is away" in caplog.text


def test_a_patient_one_goes_on_with_growing_waits_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    registered = Registered(patient=True)
    waits = []
    for _ in range(11):
        registered.etcd.take("lease").fails(AWAY)
        [waiting] = registered.clock.getDelayedCalls()
        waits.append(round(waiting.getTime() - registered.clock.seconds(), 6))
        registered.clock.advance(waits[-1])
    assert waits == [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0, 10.0]
    assert len([record for record in caplog.records if "is tried again" in record.getMessage()]) == 1
    assert registered.states == []
    lease = registered.succeeds()
    assert result_of(registered.started) == lease.id


# --- staying registered ---------------------------------------------------------------------------------------------


def test_a_lost_lease_is_replaced_by_a_new_one_for_ever(registered: Registered) -> None:
    leases = [registered.succeeds()]
    for _ in range(3):
        leases[-1].ended("etcd no longer has it")
        assert registered.registration.state is LOST
        assert (registered.registration.lease_id, registered.registration.seconds_left) == (0, 0)
        leases.append(registered.succeeds())
    assert registered.states == [ALIVE, LOST, ALIVE, LOST, ALIVE, LOST, ALIVE]
    assert len({lease.id for lease in leases}) == 4


@pytest.mark.parametrize("error", [AWAY, DeadlineExceeded("too late"), EtcdError(7, "permission denied")])
def test_once_registered_no_failure_ends_it(registered: Registered, error: RequestFailed | EtcdError) -> None:
    registered.succeeds().ended("etcd is away")
    for _ in range(20):
        registered.etcd.take("lease").fails(error)
        registered.clock.advance(10)
    lease = registered.is_granted()
    registered.etcd.take("put").fails(error)
    registered.is_revoked(lease).fails(AWAY)
    registered.clock.advance(10)
    registered.succeeds()
    assert registered.states == [ALIVE, LOST, ALIVE]


def test_after_a_success_the_waits_begin_anew(registered: Registered) -> None:
    registered.succeeds().ended("gone")
    for _ in range(5):
        registered.etcd.take("lease").fails(AWAY)
        registered.clock.advance(10)
    registered.succeeds().ended("gone")
    registered.etcd.take("lease").fails(AWAY)
    registered.clock.advance(0.05)
    registered.succeeds()


def test_a_client_that_stopped_ends_it(registered: Registered) -> None:
    registered.succeeds().ended("the client stopped")
    registered.etcd.take("lease").fails(ServiceStopped("the client was stopped"))
    assert registered.states == [ALIVE, LOST, ENDED]
    registered.nothing_is_left()


def test_an_error_that_nobody_expects_ends_it_and_is_logged(
    registered: Registered, logged_errors: LoggedErrors
) -> None:
    registered.succeeds().ended("gone")
    registered.etcd.take("lease").fails(ZeroDivisionError())
    assert registered.states == [ALIVE, LOST, ENDED]
    assert len(logged_errors.flush(ZeroDivisionError)) == 1


# --- the check ------------------------------------------------------------------------------------------------------


def test_a_check_that_finds_the_key_with_our_lease_changes_nothing(registered: Registered) -> None:
    lease = registered.succeeds()
    checking = registered.check()
    asked = registered.etcd.take("get")
    assert (asked.args, asked.options) == ((PATH,), {"keys_only": True})
    asked.answer.callback(found(9, kv(PATH, "", 5, lease.id)))
    assert result_of(checking) is True
    assert registered.states == [ALIVE]
    assert registered.etcd.asked == []


@pytest.mark.parametrize(
    "there", [(), (kv(PATH, "", 8),), (kv(PATH, "", 8, 999),)], ids=["gone", "no lease", "other's"]
)
def test_a_key_that_is_gone_or_anothers_is_put_back_unless_somebody_was_faster(
    registered: Registered, there: tuple[Any, ...]
) -> None:
    lease = registered.succeeds()
    checking = registered.check()
    registered.etcd.take("get").answer.callback(found(9, *there))
    assert registered.states == [ALIVE, LOST]
    asked = registered.etcd.take("txn")
    [comparison] = asked.options["compare"]
    assert (comparison.target, comparison.mod_revision) == (CompareTarget.MOD, 8 if there else 0)
    [operation] = asked.options["success"]
    assert (operation.request_put.key, operation.request_put.lease) == (PATH.encode(), lease.id)
    asked.answer.callback(TxnResponse(header=header(10), succeeded=True))
    assert result_of(checking) is False
    assert registered.states == [ALIVE, LOST, ALIVE]


def test_where_somebody_was_faster_the_next_check_sees_to_it(registered: Registered) -> None:
    lease = registered.succeeds()
    first = registered.check()
    registered.etcd.take("get").answer.callback(found(9))
    registered.etcd.take("txn").answer.callback(TxnResponse(header=header(10)))
    assert result_of(first) is False
    assert registered.registration.state is LOST
    second = registered.check()
    registered.etcd.take("get").answer.callback(found(11, kv(PATH, "", 10, lease.id)))
    assert result_of(second) is True
    assert registered.states == [ALIVE, LOST, ALIVE]


def test_where_the_lease_is_gone_too_the_client_is_made_to_see_it(registered: Registered) -> None:
    lease = registered.succeeds()
    checking = registered.check()
    registered.etcd.take("get").answer.callback(found(9))
    registered.etcd.take("txn").fails(NO_LEASE)
    asked = registered.etcd.take("keepalive_once")
    lease.ended("etcd no longer has it")
    asked.fails(NO_LEASE)
    assert result_of(checking) is False
    registered.succeeds()
    assert registered.states == [ALIVE, LOST, ALIVE]


def test_a_check_that_does_not_reach_etcd_fails_and_changes_nothing(registered: Registered) -> None:
    registered.succeeds()
    checking = registered.check()
    registered.etcd.take("get").fails(AWAY)
    failure_of(checking, Unavailable)
    assert registered.states == [ALIVE]


def test_a_check_of_what_is_not_registered_asks_nothing(registered: Registered) -> None:
    assert result_of(registered.check()) is False
    registered.succeeds().ended("gone")
    assert result_of(registered.check()) is False
    assert [asked.what for asked in registered.etcd.asked] == ["lease"]


def test_a_check_during_which_it_is_taken_back_puts_nothing(registered: Registered) -> None:
    lease = registered.succeeds()
    checking = registered.check()
    asked = registered.etcd.take("get")
    taking_back = registered.registration.take_back()
    registered.is_revoked(lease).answer.callback(None)
    asked.answer.callback(found(9))
    assert result_of(checking) is False
    assert result_of(taking_back) is None
    registered.nothing_is_left()


def test_a_heartbeat_confirms_the_lease_and_then_the_key(registered: Registered) -> None:
    lease = registered.succeeds()
    beating = registered.registration.heartbeat()
    registered.etcd.take("keepalive_once").answer.callback(30)
    registered.etcd.take("get").answer.callback(found(9, kv(PATH, "", 5, lease.id)))
    assert result_of(beating) == 30


def test_a_heartbeat_of_what_is_not_registered_says_so(registered: Registered) -> None:
    registered.succeeds().ended("gone")
    error = failure_of(registered.registration.heartbeat(), LeaseNotFound)
    assert PATH in str(error)


def test_a_heartbeat_of_what_somebody_else_holds_says_so(registered: Registered) -> None:
    registered.succeeds()
    beating = registered.registration.heartbeat()
    registered.etcd.take("keepalive_once").answer.callback(30)
    registered.etcd.take("get").answer.callback(found(9))
    registered.etcd.take("txn").answer.callback(TxnResponse(header=header(10)))
    failure_of(beating, LeaseNotFound)


def test_a_check_that_makes_somebody_take_it_back_puts_nothing(registered: Registered) -> None:
    lease = registered.succeeds()
    registered.during_changed = registered.registration.take_back
    checking = registered.check()
    registered.etcd.take("get").answer.callback(found(9))
    registered.is_revoked(lease).answer.callback(None)
    assert result_of(checking) is False
    registered.nothing_is_left()


# --- taking back, in every phase ------------------------------------------------------------------------------------


def test_taken_back_its_lease_is_revoked(registered: Registered) -> None:
    lease = registered.succeeds()
    taking_back = registered.registration.take_back()
    assert registered.registration.state is ENDED
    assert peek(taking_back) is PENDING
    registered.is_revoked(lease).answer.callback(None)
    assert result_of(taking_back) is None
    assert result_of(registered.registration.take_back()) is None
    assert registered.states == [ALIVE, ENDED]
    registered.nothing_is_left()


def test_where_it_cannot_be_taken_back_that_is_told_and_nothing_goes_on(registered: Registered) -> None:
    lease = registered.succeeds()
    taking_back = registered.registration.take_back()
    registered.is_revoked(lease).fails(AWAY)
    failure_of(taking_back, Unavailable)
    registered.nothing_is_left()


def test_taken_back_while_its_lease_is_granted(registered: Registered) -> None:
    taking_back = registered.registration.take_back()
    assert registered.etcd.take("lease").cancelled
    assert result_of(taking_back) is None
    assert PATH in str(failure_of(registered.started, ServiceStopped))
    registered.nothing_is_left()


def test_taken_back_while_it_is_put_the_lease_of_the_unfinished_put_is_revoked(registered: Registered) -> None:
    lease = registered.is_granted()
    taking_back = registered.registration.take_back()
    assert registered.etcd.take("put").cancelled
    assert peek(taking_back) is PENDING
    registered.is_revoked(lease).answer.callback(None)
    assert result_of(taking_back) is None
    failure_of(registered.started, ServiceStopped)
    registered.nothing_is_left()


def test_taken_back_while_a_failed_attempt_is_undone_it_waits_for_that(registered: Registered) -> None:
    lease = registered.is_granted()
    registered.etcd.take("put").fails(UNKNOWN)
    asked = registered.is_revoked(lease)
    taking_back = registered.registration.take_back()
    assert not asked.cancelled
    assert peek(taking_back) is PENDING
    asked.fails(AWAY)
    assert result_of(taking_back) is None
    failure_of(registered.started, ServiceStopped)
    registered.nothing_is_left()


def test_taken_back_between_two_attempts() -> None:
    registered = Registered(patient=True)
    registered.etcd.take("lease").fails(AWAY)
    assert result_of(registered.registration.take_back()) is None
    failure_of(registered.started, ServiceStopped)
    registered.nothing_is_left()


def test_taken_back_while_lost(registered: Registered) -> None:
    registered.succeeds().ended("gone")
    assert result_of(registered.registration.take_back()) is None
    assert registered.etcd.take("lease").cancelled
    registered.nothing_is_left()


def test_taken_back_by_who_waited_for_it(registered: Registered) -> None:
    taken_back = []
    registered.started.addCallback(lambda _: taken_back.append(registered.registration.take_back()))
    lease = registered.succeeds()
    registered.is_revoked(lease).answer.callback(None)
    assert result_of(taken_back[0]) is None
    assert registered.states == [ALIVE, ENDED]
    registered.nothing_is_left()


@pytest.mark.parametrize("state", [ALIVE, LOST])
def test_taken_back_by_who_is_told_of_its_state(registered: Registered, state: RegistrationState) -> None:
    def take_back() -> None:
        if registered.registration.state is state:
            registered.registration.take_back()

    registered.during_changed = take_back
    lease = registered.succeeds()
    if state is LOST:
        lease.ended("gone")
    else:
        registered.is_revoked(lease).answer.callback(None)
        failure_of(registered.started, ServiceStopped)
    assert registered.states[-1] is ENDED
    registered.nothing_is_left()


def test_taken_back_before_it_was_started_it_asks_for_nothing() -> None:
    etcd = ScriptedClient()
    registration = Registration(
        etcd.client,
        Clock(),
        PATH,
        make_instance("10.0.0.7:80", (), {}),
        ttl=30,
        patient=True,
        changed=lambda _: None,
        random=lambda: 1.0,
    )
    assert result_of(registration.take_back()) is None
    failure_of(registration.start(), ServiceStopped)
    assert etcd.asked == []
