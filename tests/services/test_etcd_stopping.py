"""What comes about while ``EtcdService`` stops, with a test in the place of etcd."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from tests.messaging.common import PENDING, failure_of, node_of, peek, result_of, turn
from tests.scripted import ScriptedClient
from twisted_etcd.errors import ServiceUnavailable
from twisted_etcd.services.etcd import EtcdService
from twisted_etcd.services.messages import ETCD_SERVICE, EtcdLeaseGrantReq, EtcdLeaseGrantResp


def test_a_lease_that_is_granted_during_the_stop_is_revoked_too() -> None:
    clock, etcd = Clock(), ScriptedClient()
    service = EtcdService(etcd.client, clock)
    node = node_of(clock, service)
    calls: list[Deferred[EtcdLeaseGrantResp]] = []
    for _ in range(2):
        calls.append(node.call(ETCD_SERVICE, EtcdLeaseGrantReq(30, keep_alive=True)))
        turn(clock)
    first, second = etcd.new_lease(), etcd.new_lease()
    etcd.take("lease").answer.callback(first)
    assert result_of(calls[0]).lease_id == first.id
    stopped = service.stopService()
    granting = etcd.take("lease")
    revoking = etcd.take("revoke")
    assert revoking.args == (first.id,)
    granting.answer.callback(second)
    assert result_of(calls[1]).lease_id == second.id
    revoking.answer.callback(None)
    assert peek(stopped) is PENDING
    revoking = etcd.take("revoke")
    assert revoking.args == (second.id,)
    revoking.answer.callback(None)
    result_of(stopped)
    result_of(node.stopService())
    failure_of(node.call(ETCD_SERVICE, EtcdLeaseGrantReq(30)), ServiceUnavailable)
