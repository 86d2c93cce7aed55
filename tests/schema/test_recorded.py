"""What real servers answered is read as what they meant: the same from all of them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tests.schema.recorded import ANSWERS, ERRORS, FRAMES
from twisted_etcd import errors
from twisted_etcd.schema import rpcs
from twisted_etcd.schema.answers import StreamFrame, decode_error
from twisted_etcd.schema.auth import (
    AuthEnableResponse,
    AuthenticateResponse,
    AuthRoleGetResponse,
    AuthRoleListResponse,
    AuthStatusResponse,
    AuthUserGetResponse,
    AuthUserListResponse,
    Permission,
    PermissionType,
)
from twisted_etcd.schema.cluster import Member, MemberAddResponse, MemberListResponse
from twisted_etcd.schema.common import Message, ResponseHeader
from twisted_etcd.schema.election import CampaignResponse, LeaderKey, LeaderResponse
from twisted_etcd.schema.kv import (
    CompactionResponse,
    DeleteRangeResponse,
    Event,
    EventType,
    KeyValue,
    PutResponse,
    RangeResponse,
    ResponseOp,
    TxnResponse,
)
from twisted_etcd.schema.lease import (
    LeaseGrantResponse,
    LeaseKeepAliveResponse,
    LeaseLeasesResponse,
    LeaseRevokeResponse,
    LeaseStatus,
    LeaseTimeToLiveResponse,
)
from twisted_etcd.schema.lock import LockResponse, UnlockResponse
from twisted_etcd.schema.maintenance import (
    AlarmMember,
    AlarmResponse,
    AlarmType,
    DefragmentResponse,
    DowngradeResponse,
    HashKVResponse,
    HashResponse,
    StatusResponse,
)
from twisted_etcd.schema.rpcs import RPC
from twisted_etcd.schema.watch import WatchResponse

VERSIONS = list(ANSWERS)
MEMBER_ID = 4803033076545396168


def head(revision: int = 0) -> ResponseHeader:
    return ResponseHeader(cluster_id=8977748915840124624, member_id=MEMBER_ID, revision=revision, raft_term=2)


def partial(revision: int) -> ResponseHeader:
    return ResponseHeader(revision=revision)


E_AT_3 = KeyValue(key=b"e", create_revision=3, mod_revision=3, version=1)
K_AT_2 = KeyValue(key=b"k", create_revision=2, mod_revision=2, version=1, value=b"v")
K_AT_4 = KeyValue(key=b"k", create_revision=2, mod_revision=4, version=2, value=b"\x00\xff\xfe")
W_AT_9 = KeyValue(key=b"w", create_revision=9, mod_revision=9, version=1)
LEASED = KeyValue(key=b"l", create_revision=7, mod_revision=7, version=1, lease=2**63 - 1)
LEADER = KeyValue(key=b"el/77", create_revision=13, mod_revision=13, version=1, value=b"me", lease=0x77)
CORRUPT = (AlarmMember(2**64 - 1, AlarmType.CORRUPT),)
M1 = Member(ID=MEMBER_ID, name="m1", peerURLs=("http://127.0.0.1:41751",), clientURLs=("http://127.0.0.1:41750",))

EVERYTHING = TxnResponse(
    head(5),
    succeeded=True,
    responses=(
        ResponseOp(response_range=RangeResponse(partial(4), kvs=(K_AT_4,), count=1)),
        ResponseOp(response_put=PutResponse(partial(5))),
        ResponseOp(response_delete_range=DeleteRangeResponse(partial(5), 1, (E_AT_3,))),
        ResponseOp(
            response_txn=TxnResponse(succeeded=True, responses=(ResponseOp(response_range=RangeResponse(partial(5))),))
        ),
    ),
)

#: What was asked, the call, and what all servers meant.
MEANT: dict[str, tuple[RPC[Any, Any], Message]] = {
    "range of nothing": (rpcs.RANGE, RangeResponse(head(1))),
    "first put": (rpcs.PUT, PutResponse(head(2))),
    "put of an empty value": (rpcs.PUT, PutResponse(head(3))),
    "put with prev_kv": (rpcs.PUT, PutResponse(head(4), K_AT_2)),
    "range": (rpcs.RANGE, RangeResponse(head(4), kvs=(E_AT_3, K_AT_4), count=2)),
    "range with a limit": (rpcs.RANGE, RangeResponse(head(4), kvs=(K_AT_4,), more=True, count=2)),
    "count": (rpcs.RANGE, RangeResponse(head(4), count=2)),
    "txn that fails": (rpcs.TXN, TxnResponse(head(4))),
    "txn of everything": (rpcs.TXN, EVERYTHING),
    "delete of nothing": (rpcs.DELETE_RANGE, DeleteRangeResponse(head(5))),
    "delete": (rpcs.DELETE_RANGE, DeleteRangeResponse(head(6), 1)),
    "compaction": (rpcs.COMPACT, CompactionResponse(head(6))),
    "grant": (rpcs.LEASE_GRANT, LeaseGrantResponse(head(6), ID=2**63 - 1, TTL=100)),
    "put with a lease": (rpcs.PUT, PutResponse(head(7))),
    "range of a key with a lease": (rpcs.RANGE, RangeResponse(head(7), kvs=(LEASED,), count=1)),
    "leases": (rpcs.LEASE_LEASES, LeaseLeasesResponse(head(7), (LeaseStatus(2**63 - 1),))),
    "time to live": (
        rpcs.LEASE_TIME_TO_LIVE,
        LeaseTimeToLiveResponse(head(7), ID=2**63 - 1, TTL=99, grantedTTL=100, keys=(b"l",)),
    ),
    "time to live of no lease": (rpcs.LEASE_TIME_TO_LIVE, LeaseTimeToLiveResponse(head(7), ID=-(2**63), TTL=-1)),
    "revoke": (rpcs.LEASE_REVOKE, LeaseRevokeResponse(head(8))),
    "members": (rpcs.MEMBER_LIST, MemberListResponse(head(), (M1,))),
    "alarms": (rpcs.ALARM, AlarmResponse(head(8))),
    "alarm": (rpcs.ALARM, AlarmResponse(head(8), CORRUPT)),
    "defragment": (rpcs.DEFRAGMENT, DefragmentResponse()),
    "downgrade": (rpcs.DOWNGRADE, DowngradeResponse(head(8), "3.5.0")),
    "grant 2": (rpcs.LEASE_GRANT, LeaseGrantResponse(head(10), ID=0x77, TTL=100)),
    "lock": (rpcs.LOCK, LockResponse(head(11), b"lo/77")),
    "unlock": (rpcs.UNLOCK, UnlockResponse(head(12))),
    "campaign": (
        rpcs.CAMPAIGN,
        CampaignResponse(head(13), LeaderKey(name=b"el", key=b"el/77", rev=13, lease=0x77)),
    ),
    "leader": (rpcs.LEADER, LeaderResponse(head(13), LEADER)),
    "role": (
        rpcs.ROLE_GET,
        AuthRoleGetResponse(
            head(13),
            (Permission(PermissionType.READ, b"a"), Permission(PermissionType.READWRITE, b"b", b"c")),
        ),
    ),
    "roles": (rpcs.ROLE_LIST, AuthRoleListResponse(head(13), ("r", "root"))),
    "user": (rpcs.USER_GET, AuthUserGetResponse(head(13), ("root",))),
    "users": (rpcs.USER_LIST, AuthUserListResponse(head(13), ("root",))),
    "authentication turned on": (rpcs.AUTH_ENABLE, AuthEnableResponse(head(13))),
    "auth status": (rpcs.AUTH_STATUS, AuthStatusResponse(head(13), enabled=True, authRevision=7)),
}


def member_add(learner_id: int) -> tuple[RPC[Any, Any], Message]:
    learner = Member(ID=learner_id, peerURLs=("http://127.0.0.1:1",), isLearner=True)
    return rpcs.MEMBER_ADD, MemberAddResponse(head(), learner, tuple(sorted((M1, learner), key=lambda m: m.ID)))


def status(version: str, raft_index: int) -> tuple[RPC[Any, Any], Message]:
    return rpcs.STATUS, StatusResponse(
        head(8),
        version=version,
        dbSize=20480,
        leader=MEMBER_ID,
        raftIndex=raft_index,
        raftTerm=2,
        raftAppliedIndex=raft_index,
        dbSizeInUse=16384,
    )


#: What each server says in its own way.
MEANT_BY: dict[str, dict[str, tuple[RPC[Any, Any], Message]]] = {
    "3.4.23": {
        "member add": member_add(10619822681297884741),
        "status": status("3.4.23", 21),
        "hash": (rpcs.HASH, HashResponse(head(8), 4051076311)),
        "authenticate": (rpcs.AUTHENTICATE, AuthenticateResponse(head(13), "nUmSpvixnaXPPmIZ.40")),
        # 3.4 sends no header here
        "alarms": (rpcs.ALARM, AlarmResponse()),
        "alarm": (rpcs.ALARM, AlarmResponse(alarms=CORRUPT)),
    },
    "3.5.1": {
        "member add": member_add(9062282297689997007),
        "status": status("3.5.1", 20),
        "hash": (rpcs.HASH, HashResponse(head(8), 1458548689)),
        "authenticate": (rpcs.AUTHENTICATE, AuthenticateResponse(head(13), "HNUzVIwAOUJoWwKS.39")),
    },
    "3.5.16": {
        "member add": member_add(5606002918879752540),
        "status": status("3.5.16", 20),
        "hash": (rpcs.HASH, HashResponse(head(8), 3203938259)),
        "hash of the keys": (rpcs.HASH_KV, HashKVResponse(head(8), hash=425821657, compact_revision=3)),
        "authenticate": (rpcs.AUTHENTICATE, AuthenticateResponse(head(13), "MpfBKsqRycvjbYdf.38")),
    },
}

#: Lines of streams; where two do not depend on each other, servers differ in their order.
STREAMED: dict[str, tuple[RPC[Any, Any], list[Message]]] = {
    "keepalive": (
        rpcs.LEASE_KEEP_ALIVE,
        [LeaseKeepAliveResponse(head(7), 2**63 - 1, 100), LeaseKeepAliveResponse(head(7), 5, 0)],
    ),
    "watch": (
        rpcs.WATCH,
        [
            WatchResponse(head(8), created=True),
            WatchResponse(head(9), events=(Event(EventType.PUT, W_AT_9),)),
            WatchResponse(head(10), events=(Event(EventType.DELETE, KeyValue(key=b"w", mod_revision=10), W_AT_9),)),
        ],
    ),
    "watch from a compacted revision": (
        rpcs.WATCH,
        [WatchResponse(head(10), created=True), WatchResponse(head(), canceled=True, compact_revision=3)],
    ),
    "progress and cancel": (
        rpcs.WATCH,
        [
            WatchResponse(head(10), watch_id=7, created=True),
            WatchResponse(head(10), watch_id=-1),
            WatchResponse(head(10), watch_id=7, canceled=True),
        ],
    ),
    "observe": (rpcs.OBSERVE, [LeaderResponse(head(13), LEADER)]),
}

USER_EMPTY = WatchResponse(
    head(13),
    watch_id=-1,
    created=True,
    canceled=True,
    cancel_reason="rpc error: code = InvalidArgument desc = etcdserver: user name is empty",
)
REFUSED = {
    "3.4.23": USER_EMPTY,
    "3.5.1": WatchResponse(
        head(13),
        created=True,
        canceled=True,
        cancel_reason="rpc error: code = PermissionDenied desc = etcdserver: permission denied",
    ),
    "3.5.16": USER_EMPTY,
}

FAILED: dict[str, tuple[type[errors.EtcdError], int, str]] = {
    "promotion of a member that is not in sync": (
        errors.LearnerNotReady,
        9,
        "etcdserver: can only promote a learner member which is in sync with leader",
    ),
    "empty key": (errors.EmptyKey, 3, "etcdserver: key is not provided"),
    "compacted": (errors.Compacted, 11, "etcdserver: mvcc: required revision has been compacted"),
    "lease not found": (errors.LeaseNotFound, 5, "etcdserver: requested lease not found"),
    "bad leader transferee": (errors.BadLeaderTransferee, 9, "etcdserver: bad leader transferee"),
    "wrong password": (
        errors.AuthenticationFailed,
        3,
        "etcdserver: authentication failed, invalid user ID or password",
    ),
    "no token": (errors.UserEmpty, 3, "etcdserver: user name is empty"),
    "token that is unknown": (errors.InvalidAuthToken, 16, "etcdserver: invalid auth token"),
}

#: What a path that the server does not have is answered.
NO_SUCH_PATH = {
    "3.4.23": ["hash of the keys", "downgrade", "unknown path", "auth status"],
    "3.5.1": ["hash of the keys", "unknown path"],
    "3.5.16": ["unknown path"],
}

#: The last line, which 3.4.23 and 3.5.1 leave without its end.
STOPPED = {
    "3.4.23": "transport is closing",
    "3.5.1": "error reading from server: EOF",
    "3.5.16": "error reading from server: EOF",
}

EVERY_VERSION = pytest.mark.parametrize("version", VERSIONS)


@EVERY_VERSION
def test_every_answer_is_read_as_it_was_meant(version: str) -> None:
    meant = MEANT | MEANT_BY[version]
    for asked, body in ANSWERS[version].items():
        rpc, message = meant[asked]
        assert rpc.decode(body) == message, asked
    assert meant.keys() - ANSWERS[version].keys() <= set(NO_SUCH_PATH[version])


@EVERY_VERSION
@pytest.mark.parametrize("asked", STREAMED)
def test_every_line_of_a_stream_is_read_as_it_was_meant(version: str, asked: str) -> None:
    rpc, messages = STREAMED[asked]
    frames = [rpc.decode_frame(line) for line in FRAMES[version][asked]]
    assert all(frame.failure() is None for frame in frames)
    read = [frame.result for frame in frames]
    if asked == "progress and cancel":
        assert set(read) == set(messages)
    else:
        assert read == messages


@EVERY_VERSION
def test_a_refused_watch_says_why(version: str) -> None:
    (line,) = FRAMES[version]["watch without a token"]
    assert rpcs.WATCH.decode_frame(line) == StreamFrame(result=REFUSED[version])


@EVERY_VERSION
@pytest.mark.parametrize("asked", FAILED)
def test_every_error_is_found_by_its_message(version: str, asked: str) -> None:
    cls, code, message = FAILED[asked]
    failure = decode_error(ERRORS[version][asked][1])
    assert type(failure) is cls
    assert (failure.code, failure.message) == (code, message)


@EVERY_VERSION
def test_a_stream_that_is_refused_has_a_streams_error_in_its_body(version: str) -> None:
    status_code, body = ERRORS[version]["stream without a token"]
    failure = decode_error(body)
    assert status_code == 500
    assert (failure.code, failure.message) in {
        # As it arrives, and as it is once the error tree knows the words of etcd's auth store.
        (2, "auth: user name is empty"),
        (3, "auth: user name is empty"),
    }


@EVERY_VERSION
def test_an_election_without_a_leader_is_not_a_cluster_without_one(version: str) -> None:
    failure = decode_error(ERRORS[version]["no leader of an election"][1])
    assert failure.message == "election: no leader"
    assert not isinstance(failure, errors.NoLeader)


@EVERY_VERSION
def test_a_server_that_stops_says_so_in_the_last_line(version: str) -> None:
    first, last = FRAMES[version]["server that is stopped"]
    assert rpcs.WATCH.decode_frame(first).failure() is None
    failure = rpcs.WATCH.decode_frame(last).failure()
    assert isinstance(failure, errors.ServerUnavailable)
    assert failure.message == STOPPED[version]


@EVERY_VERSION
def test_a_path_that_the_server_does_not_have_is_no_answer_of_older_gateways(version: str) -> None:
    for asked in NO_SUCH_PATH[version]:
        status_code, body = ERRORS[version][asked]
        assert status_code == 404
        if version == "3.5.16":
            assert decode_error(body).message == "Not Found"
        else:
            with pytest.raises(msgspec.DecodeError):
                decode_error(body)


@EVERY_VERSION
def test_nothing_recorded_is_left_unread(version: str) -> None:
    assert FRAMES[version].keys() == STREAMED.keys() | {"watch without a token", "server that is stopped"}
    read = FAILED.keys() | {"stream without a token", "no leader of an election"}
    assert ERRORS[version].keys() == read | set(NO_SUCH_PATH[version])
