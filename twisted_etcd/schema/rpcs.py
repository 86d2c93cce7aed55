"""
The table of etcd's calls: where each one is, what it takes and gives, and whether it may be sent again.

``KV.RangeStream`` (etcd 3.7) is missing, because the gateway does not have it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import Any, Generic, TypeVar

import msgspec

from twisted_etcd.schema import auth, cluster, election, kv, lease, lock, maintenance, watch
from twisted_etcd.schema.answers import StreamFrame, decode
from twisted_etcd.schema.common import Message

RequestT = TypeVar("RequestT", bound=Message)
ResponseT = TypeVar("ResponseT", bound=Message)


class Stream(Enum):
    """How many messages go each way in one call."""

    #: One request, one answer.
    NONE = "none"
    #: One request, many answers.
    ANSWERS = "answers"
    #: Many of both: over a WebSocket at any time, over a POST stream all requests first.
    BOTH = "both"


@dataclass(frozen=True, eq=False)
class RPC(Generic[RequestT, ResponseT]):
    """
    One of etcd's calls. There is one object for each, so they are compared by identity.

    :ivar name: service and method, as in the proto: ``KV.Range``.
    :ivar path: where the gateway has it; always a POST.
    :ivar request: the type of the request, or of each one in a stream.
    :ivar response: the type of the answer, or of each one in a stream.
    :ivar stream: whether it is a stream, and which way.
    :ivar repeatable: True where any request may be sent again though the server may have got it already. Where that
        depends on the request this is False, and :func:`repeatable` tells.
    """

    name: str
    path: str
    request: type[RequestT]
    response: type[ResponseT]
    stream: Stream = Stream.NONE
    repeatable: bool = False

    def __repr__(self) -> str:
        return f"<RPC {self.name}>"

    @cached_property
    def _decoder(self) -> msgspec.json.Decoder[ResponseT]:
        # Not strict, because 64-bit numbers come as strings.
        return msgspec.json.Decoder(self.response, strict=False)

    @cached_property
    def _frame_decoder(self) -> msgspec.json.Decoder[StreamFrame[ResponseT]]:
        return msgspec.json.Decoder(StreamFrame[self.response], strict=False)  # type: ignore[name-defined]

    def encode(self, request: RequestT) -> bytes:
        """The request as both generations of the gateway read it, in one line without its end."""
        return msgspec.json.encode(request)

    def decode(self, body: bytes) -> ResponseT:
        """
        The answer in the body of a unary call that was answered with status 200.

        :raises msgspec.DecodeError: where it is not this call's answer.
        """
        return decode(self._decoder, body)

    def decode_frame(self, line: bytes) -> StreamFrame[ResponseT]:
        """
        One line of a POST stream, or one message of a WebSocket.

        :raises msgspec.DecodeError: where it is neither this call's answer nor an error.
        """
        return decode(self._frame_decoder, line)


def repeatable(rpc: RPC[RequestT, Any], request: RequestT) -> bool:
    """
    Whether a request may be sent again though the server may have got it already: doing it twice is as good as once.

    It holds for all reads, and for a few calls beside them, as in etcd's Go client.
    """
    if isinstance(request, kv.TxnRequest):
        return _reads_only(request)
    if isinstance(request, maintenance.AlarmRequest):
        # Raising or taking back an alarm twice could undo what somebody did in between.
        return request.action is maintenance.AlarmAction.GET
    if isinstance(request, maintenance.DowngradeRequest):
        return request.action is maintenance.DowngradeAction.VALIDATE
    return rpc.repeatable


def _reads_only(txn: kv.TxnRequest) -> bool:
    # Both branches, since nobody knows beforehand which one is taken. An operation without anything in it is not
    # known to be a read.
    return all(
        operation.request_range is not None
        or (operation.request_txn is not None and _reads_only(operation.request_txn))
        for operation in txn.success + txn.failure
    )


# --- KV -------------------------------------------------------------------------------------------------------------

RANGE = RPC("KV.Range", "/v3/kv/range", kv.RangeRequest, kv.RangeResponse, repeatable=True)
PUT = RPC("KV.Put", "/v3/kv/put", kv.PutRequest, kv.PutResponse)
DELETE_RANGE = RPC("KV.DeleteRange", "/v3/kv/deleterange", kv.DeleteRangeRequest, kv.DeleteRangeResponse)
TXN = RPC("KV.Txn", "/v3/kv/txn", kv.TxnRequest, kv.TxnResponse)
# A second compaction to the same revision is answered "required revision has been compacted".
COMPACT = RPC("KV.Compact", "/v3/kv/compaction", kv.CompactionRequest, kv.CompactionResponse)

# --- Watch ----------------------------------------------------------------------------------------------------------

WATCH = RPC("Watch.Watch", "/v3/watch", watch.WatchRequest, watch.WatchResponse, Stream.BOTH, repeatable=True)

# --- Lease ----------------------------------------------------------------------------------------------------------

# A second one would make a second lease, or be answered "lease already exists" about the first. The client repeats its
# own grants all the same, since it chooses their ids.
LEASE_GRANT = RPC("Lease.LeaseGrant", "/v3/lease/grant", lease.LeaseGrantRequest, lease.LeaseGrantResponse)
# Ids are not used twice by chance, so a second revocation finds nothing to revoke; its answer is then "requested lease
# not found", which a caller may take for success.
LEASE_REVOKE = RPC(
    "Lease.LeaseRevoke", "/v3/lease/revoke", lease.LeaseRevokeRequest, lease.LeaseRevokeResponse, repeatable=True
)
LEASE_KEEP_ALIVE = RPC(
    "Lease.LeaseKeepAlive",
    "/v3/lease/keepalive",
    lease.LeaseKeepAliveRequest,
    lease.LeaseKeepAliveResponse,
    Stream.BOTH,
    repeatable=True,
)
LEASE_TIME_TO_LIVE = RPC(
    "Lease.LeaseTimeToLive",
    "/v3/lease/timetolive",
    lease.LeaseTimeToLiveRequest,
    lease.LeaseTimeToLiveResponse,
    repeatable=True,
)
LEASE_LEASES = RPC(
    "Lease.LeaseLeases", "/v3/lease/leases", lease.LeaseLeasesRequest, lease.LeaseLeasesResponse, repeatable=True
)

# --- Cluster --------------------------------------------------------------------------------------------------------

MEMBER_ADD = RPC("Cluster.MemberAdd", "/v3/cluster/member/add", cluster.MemberAddRequest, cluster.MemberAddResponse)
MEMBER_REMOVE = RPC(
    "Cluster.MemberRemove", "/v3/cluster/member/remove", cluster.MemberRemoveRequest, cluster.MemberRemoveResponse
)
MEMBER_UPDATE = RPC(
    "Cluster.MemberUpdate", "/v3/cluster/member/update", cluster.MemberUpdateRequest, cluster.MemberUpdateResponse
)
MEMBER_LIST = RPC(
    "Cluster.MemberList",
    "/v3/cluster/member/list",
    cluster.MemberListRequest,
    cluster.MemberListResponse,
    repeatable=True,
)
MEMBER_PROMOTE = RPC(
    "Cluster.MemberPromote", "/v3/cluster/member/promote", cluster.MemberPromoteRequest, cluster.MemberPromoteResponse
)

# --- Maintenance ----------------------------------------------------------------------------------------------------

ALARM = RPC("Maintenance.Alarm", "/v3/maintenance/alarm", maintenance.AlarmRequest, maintenance.AlarmResponse)
STATUS = RPC(
    "Maintenance.Status",
    "/v3/maintenance/status",
    maintenance.StatusRequest,
    maintenance.StatusResponse,
    repeatable=True,
)
# It changes no data, but the member stands still meanwhile: doing that twice is not as good as once.
DEFRAGMENT = RPC(
    "Maintenance.Defragment",
    "/v3/maintenance/defragment",
    maintenance.DefragmentRequest,
    maintenance.DefragmentResponse,
)
HASH = RPC(
    "Maintenance.Hash", "/v3/maintenance/hash", maintenance.HashRequest, maintenance.HashResponse, repeatable=True
)
HASH_KV = RPC(
    "Maintenance.HashKV",
    "/v3/maintenance/hashkv",
    maintenance.HashKVRequest,
    maintenance.HashKVResponse,
    repeatable=True,
)
# Repeating it begins a new snapshot: what was received of the first one is worthless then.
SNAPSHOT = RPC(
    "Maintenance.Snapshot",
    "/v3/maintenance/snapshot",
    maintenance.SnapshotRequest,
    maintenance.SnapshotResponse,
    Stream.ANSWERS,
    repeatable=True,
)
# The Go client repeats it; but once it has worked, the member asked is the leader no longer and answers "not leader".
MOVE_LEADER = RPC(
    "Maintenance.MoveLeader",
    "/v3/maintenance/transfer-leadership",
    maintenance.MoveLeaderRequest,
    maintenance.MoveLeaderResponse,
)
DOWNGRADE = RPC(
    "Maintenance.Downgrade", "/v3/maintenance/downgrade", maintenance.DowngradeRequest, maintenance.DowngradeResponse
)

# --- Auth -----------------------------------------------------------------------------------------------------------

AUTH_ENABLE = RPC("Auth.AuthEnable", "/v3/auth/enable", auth.AuthEnableRequest, auth.AuthEnableResponse)
AUTH_DISABLE = RPC("Auth.AuthDisable", "/v3/auth/disable", auth.AuthDisableRequest, auth.AuthDisableResponse)
AUTH_STATUS = RPC(
    "Auth.AuthStatus", "/v3/auth/status", auth.AuthStatusRequest, auth.AuthStatusResponse, repeatable=True
)
# The Go client does not repeat it, but a token that was made for nobody does no harm.
AUTHENTICATE = RPC(
    "Auth.Authenticate", "/v3/auth/authenticate", auth.AuthenticateRequest, auth.AuthenticateResponse, repeatable=True
)
USER_ADD = RPC("Auth.UserAdd", "/v3/auth/user/add", auth.AuthUserAddRequest, auth.AuthUserAddResponse)
USER_GET = RPC("Auth.UserGet", "/v3/auth/user/get", auth.AuthUserGetRequest, auth.AuthUserGetResponse, repeatable=True)
USER_LIST = RPC(
    "Auth.UserList", "/v3/auth/user/list", auth.AuthUserListRequest, auth.AuthUserListResponse, repeatable=True
)
USER_DELETE = RPC("Auth.UserDelete", "/v3/auth/user/delete", auth.AuthUserDeleteRequest, auth.AuthUserDeleteResponse)
USER_CHANGE_PASSWORD = RPC(
    "Auth.UserChangePassword",
    "/v3/auth/user/changepw",
    auth.AuthUserChangePasswordRequest,
    auth.AuthUserChangePasswordResponse,
)
USER_GRANT_ROLE = RPC(
    "Auth.UserGrantRole", "/v3/auth/user/grant", auth.AuthUserGrantRoleRequest, auth.AuthUserGrantRoleResponse
)
USER_REVOKE_ROLE = RPC(
    "Auth.UserRevokeRole", "/v3/auth/user/revoke", auth.AuthUserRevokeRoleRequest, auth.AuthUserRevokeRoleResponse
)
ROLE_ADD = RPC("Auth.RoleAdd", "/v3/auth/role/add", auth.AuthRoleAddRequest, auth.AuthRoleAddResponse)
ROLE_GET = RPC("Auth.RoleGet", "/v3/auth/role/get", auth.AuthRoleGetRequest, auth.AuthRoleGetResponse, repeatable=True)
ROLE_LIST = RPC(
    "Auth.RoleList", "/v3/auth/role/list", auth.AuthRoleListRequest, auth.AuthRoleListResponse, repeatable=True
)
ROLE_DELETE = RPC("Auth.RoleDelete", "/v3/auth/role/delete", auth.AuthRoleDeleteRequest, auth.AuthRoleDeleteResponse)
ROLE_GRANT_PERMISSION = RPC(
    "Auth.RoleGrantPermission",
    "/v3/auth/role/grant",
    auth.AuthRoleGrantPermissionRequest,
    auth.AuthRoleGrantPermissionResponse,
)
ROLE_REVOKE_PERMISSION = RPC(
    "Auth.RoleRevokePermission",
    "/v3/auth/role/revoke",
    auth.AuthRoleRevokePermissionRequest,
    auth.AuthRoleRevokePermissionResponse,
)

# --- Lock and Election ----------------------------------------------------------------------------------------------
# None that changes something is repeatable. Without a lease of the caller's, a second lock or campaign would wait for
# the first one's; with one, a late repeat could take, or give back, what was given back or taken again in between.

LOCK = RPC("Lock.Lock", "/v3/lock/lock", lock.LockRequest, lock.LockResponse)
UNLOCK = RPC("Lock.Unlock", "/v3/lock/unlock", lock.UnlockRequest, lock.UnlockResponse)
CAMPAIGN = RPC("Election.Campaign", "/v3/election/campaign", election.CampaignRequest, election.CampaignResponse)
PROCLAIM = RPC("Election.Proclaim", "/v3/election/proclaim", election.ProclaimRequest, election.ProclaimResponse)
LEADER = RPC("Election.Leader", "/v3/election/leader", election.LeaderRequest, election.LeaderResponse, repeatable=True)
OBSERVE = RPC(
    "Election.Observe",
    "/v3/election/observe",
    election.LeaderRequest,
    election.LeaderResponse,
    Stream.ANSWERS,
    repeatable=True,
)
RESIGN = RPC("Election.Resign", "/v3/election/resign", election.ResignRequest, election.ResignResponse)

#: Every call of etcd's that the gateway has.
ALL: tuple[RPC[Any, Any], ...] = (
    RANGE,
    PUT,
    DELETE_RANGE,
    TXN,
    COMPACT,
    WATCH,
    LEASE_GRANT,
    LEASE_REVOKE,
    LEASE_KEEP_ALIVE,
    LEASE_TIME_TO_LIVE,
    LEASE_LEASES,
    MEMBER_ADD,
    MEMBER_REMOVE,
    MEMBER_UPDATE,
    MEMBER_LIST,
    MEMBER_PROMOTE,
    ALARM,
    STATUS,
    DEFRAGMENT,
    HASH,
    HASH_KV,
    SNAPSHOT,
    MOVE_LEADER,
    DOWNGRADE,
    AUTH_ENABLE,
    AUTH_DISABLE,
    AUTH_STATUS,
    AUTHENTICATE,
    USER_ADD,
    USER_GET,
    USER_LIST,
    USER_DELETE,
    USER_CHANGE_PASSWORD,
    USER_GRANT_ROLE,
    USER_REVOKE_ROLE,
    ROLE_ADD,
    ROLE_GET,
    ROLE_LIST,
    ROLE_DELETE,
    ROLE_GRANT_PERMISSION,
    ROLE_REVOKE_PERMISSION,
    LOCK,
    UNLOCK,
    CAMPAIGN,
    PROCLAIM,
    LEADER,
    OBSERVE,
    RESIGN,
)
