"""
Every call of the table against a real etcd: none of its answers is taken for another service's.

An answer without a header is how another service is found out, so this tells which calls etcd answers without one.
"""

from __future__ import annotations

from typing import Any, TypeVar

import pytest_twisted

from tests.etcds import FreshEtcd
from tests.gateway.conftest import MakeGateway
from twisted_etcd import errors
from twisted_etcd.embedded.process import EmbeddedEtcd
from twisted_etcd.errors import EtcdError
from twisted_etcd.gateway.gateway import Gateway
from twisted_etcd.schema import auth, cluster, election, kv, lease, lock, maintenance, rpcs
from twisted_etcd.schema.common import Message
from twisted_etcd.schema.rpcs import RPC, Stream

#: Keep-alives are answered line by line, and watches, snapshots and elections are observed without an end.
UNARY = [rpc for rpc in rpcs.ALL if rpc.stream is Stream.NONE]


RequestT = TypeVar("RequestT", bound=Message)
ResponseT = TypeVar("ResponseT", bound=Message)


class Calls:
    """Calls of one server, in the order in which they make sense, and what came of each."""

    def __init__(self, gateway: Gateway) -> None:
        self.made: dict[RPC[Any, Any], Any] = {}
        self._gateway = gateway

    async def __call__(self, rpc: RPC[RequestT, ResponseT], request: RequestT) -> Any:  # noqa: ANN401 an answer or an error
        """Make it; an error that etcd answers is an outcome, too."""
        try:
            self.made[rpc] = await self._gateway.unary(rpc, request)
        except EtcdError as error:
            self.made[rpc] = error
        return self.made[rpc]


async def make_every_call(calls: Calls) -> None:
    await calls(rpcs.PUT, kv.PutRequest(key=b"a", value=b"1"))
    await calls(rpcs.RANGE, kv.RangeRequest(key=b"a"))
    await calls(rpcs.TXN, kv.TxnRequest())
    deleted = await calls(rpcs.DELETE_RANGE, kv.DeleteRangeRequest(key=b"a"))
    await calls(rpcs.COMPACT, kv.CompactionRequest(revision=deleted.header.revision))

    granted = await calls(rpcs.LEASE_GRANT, lease.LeaseGrantRequest(TTL=100))
    await calls(rpcs.LEASE_TIME_TO_LIVE, lease.LeaseTimeToLiveRequest(ID=granted.ID))
    await calls(rpcs.LEASE_LEASES, lease.LeaseLeasesRequest())

    locked = await calls(rpcs.LOCK, lock.LockRequest(name=b"lock", lease=granted.ID))
    await calls(rpcs.UNLOCK, lock.UnlockRequest(key=locked.key))
    elected = await calls(rpcs.CAMPAIGN, election.CampaignRequest(name=b"e", lease=granted.ID, value=b"1"))
    await calls(rpcs.PROCLAIM, election.ProclaimRequest(leader=elected.leader, value=b"2"))
    await calls(rpcs.LEADER, election.LeaderRequest(name=b"e"))
    await calls(rpcs.RESIGN, election.ResignRequest(leader=elected.leader))
    await calls(rpcs.LEASE_REVOKE, lease.LeaseRevokeRequest(ID=granted.ID))

    await calls(rpcs.STATUS, maintenance.StatusRequest())
    await calls(rpcs.ALARM, maintenance.AlarmRequest())
    await calls(rpcs.DEFRAGMENT, maintenance.DefragmentRequest())
    await calls(rpcs.HASH, maintenance.HashRequest())
    await calls(rpcs.HASH_KV, maintenance.HashKVRequest())
    await calls(
        rpcs.DOWNGRADE, maintenance.DowngradeRequest(action=maintenance.DowngradeAction.VALIDATE, version="3.4.0")
    )

    await calls(rpcs.USER_ADD, auth.AuthUserAddRequest(name="anna", password="x"))
    await calls(rpcs.USER_GET, auth.AuthUserGetRequest(name="anna"))
    await calls(rpcs.USER_LIST, auth.AuthUserListRequest())
    await calls(rpcs.USER_CHANGE_PASSWORD, auth.AuthUserChangePasswordRequest(name="anna", password="y"))
    await calls(rpcs.ROLE_ADD, auth.AuthRoleAddRequest(name="hers"))
    permission = auth.Permission(auth.PermissionType.READ, b"a")
    await calls(rpcs.ROLE_GRANT_PERMISSION, auth.AuthRoleGrantPermissionRequest(name="hers", perm=permission))
    await calls(rpcs.ROLE_GET, auth.AuthRoleGetRequest(role="hers"))
    await calls(rpcs.ROLE_LIST, auth.AuthRoleListRequest())
    await calls(rpcs.USER_GRANT_ROLE, auth.AuthUserGrantRoleRequest(user="anna", role="hers"))
    await calls(rpcs.USER_REVOKE_ROLE, auth.AuthUserRevokeRoleRequest(name="anna", role="hers"))
    await calls(rpcs.ROLE_REVOKE_PERMISSION, auth.AuthRoleRevokePermissionRequest(role="hers", key=b"a"))
    await calls(rpcs.ROLE_DELETE, auth.AuthRoleDeleteRequest(role="hers"))
    await calls(rpcs.USER_DELETE, auth.AuthUserDeleteRequest(name="anna"))
    await calls(rpcs.AUTHENTICATE, auth.AuthenticateRequest(name="root", password="x"))
    await calls(rpcs.AUTH_STATUS, auth.AuthStatusRequest())
    await calls(rpcs.AUTH_ENABLE, auth.AuthEnableRequest())
    await calls(rpcs.AUTH_DISABLE, auth.AuthDisableRequest())

    # The next change of the members is lost where raft is not quite done with the one before; after a put it is.
    settled = rpcs.PUT, kv.PutRequest(key=b"settled")
    member = (await calls(rpcs.MEMBER_LIST, cluster.MemberListRequest())).members[0]
    await calls(rpcs.MEMBER_UPDATE, cluster.MemberUpdateRequest(ID=member.ID, peerURLs=member.peerURLs))
    await calls(*settled)
    await calls(rpcs.MOVE_LEADER, maintenance.MoveLeaderRequest(targetID=12345))
    learner = cluster.MemberAddRequest(peerURLs=("http://127.0.0.1:1",), isLearner=True)
    added = (await calls(rpcs.MEMBER_ADD, learner)).member
    await calls(*settled)
    await calls(rpcs.MEMBER_PROMOTE, cluster.MemberPromoteRequest(ID=added.ID))
    await calls(rpcs.MEMBER_REMOVE, cluster.MemberRemoveRequest(ID=added.ID))


#: What a single member that has authentication off answers with an error, and with which.
REFUSED = {
    rpcs.AUTHENTICATE: errors.AuthNotEnabled,
    rpcs.AUTH_ENABLE: errors.RootUserMissing,
    rpcs.MOVE_LEADER: errors.BadLeaderTransferee,
    rpcs.MEMBER_PROMOTE: errors.LearnerNotReady,
}
#: What 3.4 does not have; the last of them is missing on some of 3.5 as well.
NEWER = {rpcs.AUTH_STATUS, rpcs.DOWNGRADE, rpcs.HASH_KV}


@pytest_twisted.ensureDeferred
async def test_every_call_is_answered_by_etcd_and_recognised_as_its_answer(
    fresh_etcd: FreshEtcd, make_gateway: MakeGateway
) -> None:
    etcd: EmbeddedEtcd = await fresh_etcd()
    calls = Calls(make_gateway(etcd.endpoint, request_timeout=10.0))
    await make_every_call(calls)
    assert set(calls.made) == set(UNARY)
    for rpc, outcome in calls.made.items():
        if rpc in NEWER and etcd.version.startswith("3.4."):
            assert type(outcome) is errors.Unimplemented, rpc
        elif rpc is rpcs.HASH_KV:
            assert isinstance(outcome, errors.Unimplemented | rpc.response)
        elif rpc is rpcs.DOWNGRADE:
            # Whether it is possible is up to the version.
            assert isinstance(outcome, EtcdError | rpc.response)
            assert not isinstance(outcome, errors.Unimplemented)
        elif rpc in REFUSED:
            assert type(outcome) is REFUSED[rpc], rpc
        else:
            assert isinstance(outcome, rpc.response), (rpc, outcome)
