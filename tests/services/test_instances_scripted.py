"""What registrations come to that no real etcd does on demand."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from tests.guards import LoggedErrors
from tests.messaging.common import PENDING, failure_of, peek, result_of
from tests.scripted import ScriptedClient, found, kv
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
        self.sent: list[Message] = []
        self.handle = ServiceHandle("Told", Moment())
        self.background = Background()
        registry = Registry(self.etcd.client, Clock(), random=lambda: 1.0)
        self.instances = Instances(registry, self.background, self._send)

    def _send(self, _target: ServiceHandle, message: Message) -> int:
        self.sent.append(message)
        return len(self.sent)

    def register(self) -> Deferred[EtcdServiceRegisterResp]:
        request = EtcdServiceRegisterReq(service_name="shop", service_address=AT, ttl=30)
        return Deferred.fromCoroutine(self.instances.register(request, self.handle))

    def is_granted(self) -> Lease:
        lease = self.etcd.new_lease()
        self.etcd.take("lease").answer.callback(lease)
        return lease

    def registered(self) -> Lease:
        registering = self.register()
        lease = self.is_granted()
        self.etcd.take("put").answer.callback(None)
        assert result_of(registering).lease_id == lease.id
        return lease

    def reports(self) -> list[bool]:
        return [message.healthy for message in self.sent if isinstance(message, EtcdHeartbeatMsg)]


@pytest.fixture
def kept() -> Kept:
    return Kept()


def test_a_replacement_of_unknown_outcome_leaves_the_earlier_one_and_looks_after_it(kept: Kept) -> None:
    first = kept.registered()
    replacing = kept.register()
    second = kept.is_granted()
    kept.etcd.take("put").fails(OutcomeUnknown("it may have been applied"))
    asked = kept.etcd.take("revoke")
    assert asked.args == (second.id,)
    asked.answer.callback(None)
    failure_of(replacing, OutcomeUnknown)
    # That may have taken the key away.
    kept.etcd.take("get").answer.callback(found(9, kv(PATH, "", 5, first.id)))
    assert kept.etcd.asked == []
    assert len(kept.instances) == 1
    assert kept.reports()[-1] is True


def test_the_earlier_lease_goes_after_the_new_one_has_the_key(kept: Kept) -> None:
    first = kept.registered()
    second = kept.registered()
    asked = kept.etcd.take("revoke")
    assert asked.args == (first.id,)
    asked.answer.callback(None)
    kept.etcd.take("get").answer.callback(found(9, kv(PATH, "", 8, second.id)))
    assert kept.etcd.asked == []


@pytest.mark.parametrize("error", [Unavailable("etcd is away"), ZeroDivisionError()])
def test_a_check_that_fails_is_logged_and_reported_and_the_next_one_comes(
    kept: Kept, error: Exception, logged_errors: LoggedErrors, caplog: pytest.LogCaptureFixture
) -> None:
    lease = kept.registered()
    checking = kept.instances.check_all()
    kept.etcd.take("get").fails(error)
    assert result_of(checking) is None
    assert f"{PATH} could not be checked" in caplog.text
    logged_errors.flush(ZeroDivisionError)
    checking = kept.instances.check_all()
    kept.etcd.take("get").answer.callback(found(9, kv(PATH, "", 5, lease.id)))
    assert result_of(checking) is None
    assert kept.reports() == [True, True, True]


def test_all_are_checked_at_once_and_a_check_that_is_cancelled_reports_nothing(kept: Kept) -> None:
    kept.registered()
    request = EtcdServiceRegisterReq(service_name="shop", service_address="10.0.0.8:80")
    registering = Deferred.fromCoroutine(kept.instances.register(request, None))
    kept.is_granted()
    kept.etcd.take("put").answer.callback(None)
    result_of(registering)
    checking: Deferred[Any] = kept.instances.check_all()
    assert [asked.what for asked in kept.etcd.asked] == ["get", "get"]
    checking.cancel()
    assert [asked.cancelled for asked in kept.etcd.asked] == [True, True]
    assert kept.reports() == [True]


def test_a_heartbeat_between_two_leases_is_no_success(kept: Kept) -> None:
    kept.registered().ended("gone")
    assert kept.reports() == [True, False]
    beating = kept.instances.heartbeat(EtcdServiceHeartbeatReq("shop", AT))
    assert result_of(Deferred.fromCoroutine(beating)) == EtcdServiceHeartbeatResp(success=False, ttl=0)


def test_a_replacement_that_fails_while_it_is_replaced_itself_takes_nothing_away(kept: Kept) -> None:
    first = kept.registered()
    failing, replacing = kept.register(), kept.register()
    kept.etcd.take("lease").fails(AWAY)
    failure_of(failing, Unavailable)
    [asked] = kept.etcd.asked
    assert asked.what == "lease"
    kept.etcd.take("lease").fails(AWAY)
    failure_of(replacing, Unavailable)
    # What is left is the first one.
    kept.etcd.take("get").answer.callback(found(9, kv(PATH, "", 5, first.id)))
    assert kept.etcd.asked == []
    assert len(kept.instances) == 1
    assert kept.reports()[-1] is True


def test_of_two_that_replace_each_other_and_fail_nothing_is_left(kept: Kept) -> None:
    failing, replacing = kept.register(), kept.register()
    for registering in (failing, replacing):
        kept.etcd.take("lease").fails(AWAY)
        failure_of(registering, Unavailable)
    assert kept.etcd.asked == []
    assert len(kept.instances) == 0


def test_a_replacement_that_is_there_first_ends_what_it_replaces(kept: Kept) -> None:
    slow, fast = kept.register(), kept.register()
    slow_asked = kept.etcd.take("lease")
    lease = kept.is_granted()
    kept.etcd.take("put").answer.callback(None)
    assert result_of(fast).lease_id == lease.id
    assert slow_asked.cancelled
    failure_of(slow, ServiceStopped)
    kept.etcd.take("get").answer.callback(found(9, kv(PATH, "", 5, lease.id)))
    assert kept.etcd.asked == []
    assert len(kept.instances) == 1
    assert kept.reports()[-1] is True


def test_what_is_unregistered_while_it_is_replaced_is_gone_when_that_is_answered(kept: Kept) -> None:
    first = kept.registered()
    replacing = kept.register()
    message = EtcdServiceUnregisterReq("shop", AT)
    unregistering = Deferred.fromCoroutine(kept.instances.unregister(message))
    assert kept.etcd.take("lease").cancelled
    failure_of(replacing, ServiceStopped)
    revoking = kept.etcd.take("revoke")
    assert revoking.args == (first.id,)
    assert peek(unregistering) is PENDING
    revoking.answer.callback(None)
    assert result_of(unregistering) == EtcdServiceUnregisterResp(success=True)
    assert kept.etcd.asked == []
    assert len(kept.instances) == 0
