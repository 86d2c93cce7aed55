"""What registrations come to that no real etcd does on demand."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from tests.guards import LoggedErrors
from tests.messaging.common import PENDING, failure_of, peek, result_of
from tests.scripted import ScriptedClient, done, kv, put_of
from twisted_etcd.client.lease import Lease
from twisted_etcd.errors import OutcomeUnknown, ServiceStopped, Unavailable
from twisted_etcd.messaging.addresses import ServiceHandle
from twisted_etcd.messaging.messages import Message
from twisted_etcd.moment import Moment
from twisted_etcd.registry.registry import Registry
from twisted_etcd.services.background import Background
from twisted_etcd.services.instances import Instances
from twisted_etcd.services.messages import (
    EtcdHeartbeatMsg,
    EtcdServiceHeartbeatReq,
    EtcdServiceHeartbeatResp,
    EtcdServiceRegisterReq,
    EtcdServiceRegisterResp,
    EtcdServiceUnregisterReq,
    EtcdServiceUnregisterResp,
)

AT = "10.0.0.7:80"
AWAY = Unavailable("etcd is away")
PATH = f"/services/shop/{AT}"


class Kept:
    """Registrations of one service."""

    def __init__(self) -> None:
        self.etcd = ScriptedClient()
        self.clock = Clock()
        self.sent: list[Message] = []
        self.handle = ServiceHandle("Told", Moment())
        self.background = Background()
        registry = Registry(self.etcd.client, self.clock, random=lambda: 1.0)
        self.instances = Instances(registry, self.background, self._send)

    def _send(self, _target: ServiceHandle, message: Message) -> int:
        self.sent.append(message)
        return len(self.sent)

    def register(self, **changed: Any) -> Deferred[EtcdServiceRegisterResp]:  # noqa: ANN401 - as the message has them
        request = EtcdServiceRegisterReq(**{"service_name": "shop", "service_address": AT, "ttl": 30, **changed})
        return Deferred.fromCoroutine(self.instances.register(request, self.handle))

    def is_granted(self) -> Lease:
        lease = self.etcd.new_lease()
        self.etcd.take("lease").answer.callback(lease)
        return lease

    def is_put(self, lease: Lease, revision: int) -> None:
        asked = self.etcd.take("txn")
        assert put_of(asked) == ([PATH], {lease.id})
        done(asked, revision)

    def is_checked(self, lease: Lease, revision: int) -> None:
        done(self.etcd.take("txn"), 30, kv(PATH, "", revision, lease.id))

    def registered(self) -> Lease:
        registering = self.register()
        lease = self.is_granted()
        self.is_put(lease, 10)
        assert result_of(registering).lease_id == lease.id
        return lease

    def reports(self) -> list[bool]:
        return [message.healthy for message in self.sent if isinstance(message, EtcdHeartbeatMsg)]


@pytest.fixture
def kept() -> Kept:
    return Kept()


def test_a_replacement_of_unknown_outcome_leaves_the_earlier_one_which_takes_the_key_again(kept: Kept) -> None:
    lease = kept.registered()
    replacing = kept.register(tags=("new",))
    kept.etcd.take("txn").fails(OutcomeUnknown("it may have been applied"))
    failure_of(replacing, OutcomeUnknown)
    asked = kept.etcd.take("txn")
    assert b"new" not in asked.options["success"][0].request_put.value
    done(asked, 12)
    kept.is_checked(lease, 12)
    assert kept.etcd.asked == []
    assert len(kept.instances) == 1
    assert kept.reports()[-1] is True


def test_a_replacement_has_the_key_by_the_lease_that_both_share(kept: Kept) -> None:
    lease = kept.registered()
    replacing = kept.register(tags=("new",))
    kept.is_put(lease, 11)
    assert result_of(replacing).lease_id == lease.id
    assert kept.etcd.asked == []
    assert len(kept.instances) == 1


def test_an_earlier_lease_goes_after_the_new_one_has_the_key(kept: Kept) -> None:
    first = kept.registered()
    replacing = kept.register(own_lease=True)
    second = kept.is_granted()
    kept.is_put(second, 11)
    assert kept.etcd.take("revoke").args == (first.id,)
    assert result_of(replacing).lease_id == second.id


@pytest.mark.parametrize("error", [Unavailable("etcd is away"), ZeroDivisionError()])
def test_a_check_that_fails_is_logged_and_reported_and_the_next_one_comes(
    kept: Kept, error: Exception, logged_errors: LoggedErrors, caplog: pytest.LogCaptureFixture
) -> None:
    lease = kept.registered()
    checking = kept.instances.check_all()
    kept.etcd.take("txn").fails(error)
    assert result_of(checking) is None
    assert f"{PATH} could not be checked" in caplog.text
    logged_errors.flush(ZeroDivisionError)
    checking = kept.instances.check_all()
    kept.is_checked(lease, 10)
    assert result_of(checking) is None
    assert kept.reports() == [True, True, True]


def test_all_are_checked_together_and_a_check_that_is_cancelled_reports_nothing(kept: Kept) -> None:
    lease = kept.registered()
    for number in range(8, 12):
        request = EtcdServiceRegisterReq(service_name="shop", service_address=f"10.0.0.{number}:80", ttl=30)
        registering = Deferred.fromCoroutine(kept.instances.register(request, None))
        done(kept.etcd.take("txn"), number)
        result_of(registering)
    checking: Deferred[Any] = kept.instances.check_all()
    # One each goes at once; the others share what comes after them.
    assert [len(asked.options["success"]) for asked in kept.etcd.asked] == [1, 1]
    kept.is_checked(lease, 10)
    assert [len(asked.options["success"]) for asked in kept.etcd.asked] == [1, 3]
    checking.cancel()
    assert kept.reports() == [True, True]


def test_a_heartbeat_between_two_leases_is_no_success(kept: Kept) -> None:
    kept.registered().ended("gone")
    assert kept.reports() == [True, False]
    beating = kept.instances.heartbeat(EtcdServiceHeartbeatReq("shop", AT))
    assert result_of(Deferred.fromCoroutine(beating)) == EtcdServiceHeartbeatResp(success=False, ttl=0)


def test_a_replacement_that_fails_while_it_is_replaced_itself_takes_nothing_away(kept: Kept) -> None:
    lease = kept.registered()
    failing, replacing = kept.register(ttl=31), kept.register(ttl=32)
    kept.etcd.take("lease").fails(AWAY)
    failure_of(failing, Unavailable)
    [asked] = kept.etcd.asked
    assert asked.what == "lease"
    kept.etcd.take("lease").fails(AWAY)
    failure_of(replacing, Unavailable)
    # What is left is the first one.
    kept.is_put(lease, 12)
    kept.is_checked(lease, 12)
    assert kept.etcd.asked == []
    assert len(kept.instances) == 1
    assert kept.reports()[-1] is True


def test_of_two_that_replace_each_other_and_fail_nothing_is_left(kept: Kept) -> None:
    failing, replacing = kept.register(), kept.register()
    kept.etcd.take("lease").fails(AWAY)
    for registering in (failing, replacing):
        failure_of(registering, Unavailable)
    assert kept.etcd.asked == []
    assert len(kept.instances) == 0


def test_a_replacement_that_is_there_first_ends_what_it_replaces(kept: Kept) -> None:
    slow, fast = kept.register(ttl=31), kept.register()
    slow_asked = kept.etcd.take("lease")
    lease = kept.is_granted()
    kept.is_put(lease, 10)
    assert result_of(fast).lease_id == lease.id
    assert slow_asked.cancelled
    failure_of(slow, ServiceStopped)
    assert kept.etcd.asked == []
    assert len(kept.instances) == 1
    assert kept.reports()[-1] is True


def test_what_is_unregistered_while_it_is_replaced_is_gone_when_that_is_answered(kept: Kept) -> None:
    first = kept.registered()
    replacing = kept.register(ttl=31)
    message = EtcdServiceUnregisterReq("shop", AT)
    unregistering = Deferred.fromCoroutine(kept.instances.unregister(message))
    lease_asked, revoking = kept.etcd.take("lease"), kept.etcd.take("revoke")
    assert lease_asked.cancelled
    failure_of(replacing, ServiceStopped)
    assert revoking.args == (first.id,)
    assert peek(unregistering) is PENDING
    revoking.answer.callback(None)
    assert result_of(unregistering) == EtcdServiceUnregisterResp(success=True)
    assert kept.etcd.asked == []
    assert len(kept.instances) == 0


def test_unregistering_waits_for_the_drain_and_a_call_that_ends_first_ends_that(kept: Kept) -> None:
    kept.registered()
    calls = []
    for drain in (None, 5.0):
        calls.append(
            Deferred.fromCoroutine(kept.instances.unregister(EtcdServiceUnregisterReq("shop", AT, drain=drain)))
        )
        kept.etcd.take("revoke").answer.callback(None)
        if drain is None:
            assert result_of(calls[0]).success
            kept.registered()
    kept.clock.advance(4)
    assert peek(calls[1]) is PENDING
    calls[1].addErrback(lambda _: None)
    calls[1].cancel()
    assert all(call.getTime() <= kept.clock.seconds() for call in kept.clock.getDelayedCalls())
