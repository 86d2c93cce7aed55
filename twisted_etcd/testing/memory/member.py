"""One etcd member without any I/O: requests in, answers out."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import msgspec

from twisted_etcd.errors import BadLeaderTransferee, CorruptCluster, EtcdError, NoSpace, RequestTooLarge
from twisted_etcd.schema import cluster, kv, lease, lock, maintenance, rpcs
from twisted_etcd.schema import election as elections
from twisted_etcd.schema.auth import PermissionType
from twisted_etcd.schema.common import Message, Response, ResponseHeader
from twisted_etcd.schema.maintenance import AlarmType
from twisted_etcd.schema.rpcs import RPC
from twisted_etcd.schema.watch import WatchResponse
from twisted_etcd.testing.memory import accounts, jsonform, transactions
from twisted_etcd.testing.memory.concurrency import Elections, Place
from twisted_etcd.testing.memory.guard import Guard
from twisted_etcd.testing.memory.leases import SHORTEST, Leases
from twisted_etcd.testing.memory.membership import CLUSTER_VERSION, VERSION, Alarms, Downgrade, Membership
from twisted_etcd.testing.memory.ranges import check_range, read_range
from twisted_etcd.testing.memory.refusals import refusal, unknown
from twisted_etcd.testing.memory.sizes import size_of
from twisted_etcd.testing.memory.store import Store
from twisted_etcd.testing.memory.users import TOKEN_TTL, Users
from twisted_etcd.testing.memory.watches import WatchStream

#: By how much a request may be larger than etcd takes before what is in front of it refuses it, in bytes.
OVERHEAD = 512 * 1024
#: Calls that are proposed to the cluster, and so are bounded in size.
_PROPOSED = frozenset({rpcs.PUT, rpcs.DELETE_RANGE, rpcs.TXN, rpcs.LEASE_GRANT})
#: Calls that a member with a corrupt database refuses.
_NOT_WHERE_CORRUPT = frozenset(
    {rpcs.PUT, rpcs.DELETE_RANGE, rpcs.TXN, rpcs.COMPACT, rpcs.LEASE_GRANT, rpcs.LEASE_REVOKE}
)

#: etcd's words.
_EXPIRED = "mutex: session is expired"

#: Takes the answer to one request.
Reply = Callable[["Message | EtcdError"], None]


@dataclass(frozen=True)
class Limits:
    """
    What etcd is told on its command line.

    :ivar max_txn_ops: how many operations a transaction may have.
    :ivar max_request_bytes: how large a request may be.
    :ivar token_ttl: seconds for which a token lives that nobody uses.
    :ivar min_lease_ttl: the shortest time to live of a lease, in seconds.
    """

    max_txn_ops: int = 128
    max_request_bytes: int = 1536 * 1024
    token_ttl: float = TOKEN_TTL
    min_lease_ttl: int = SHORTEST


class Member:
    """
    The only member of a cluster.

    :param seconds: the time.
    :param client_url: where it is reached.
    :ivar raft_term: counts the elections of a leader.
    :ivar leads: whether there is a leader.
    """

    def __init__(self, seconds: Callable[[], float], client_url: str, limits: Limits) -> None:
        self.leases = Leases(seconds, limits.min_lease_ttl)
        self.store = Store(self.leases)
        self.users = Users(seconds, limits.token_ttl)
        self.membership = Membership(client_url)
        self.raft_term = 2
        self.leads = True
        self.alarms = Alarms()
        self._limits = limits
        self._downgrade = Downgrade()
        self._elections = Elections(self.store)
        self._guard = Guard(self.users, self.leases, self.store)
        self._applied = 4

    # --- requests ---------------------------------------------------------------------------------------------------

    def serve(self, rpc: RPC[Any, Any], request: Message, token: str, reply: Reply) -> Callable[[], None] | None:
        """
        Answer a request that has one answer.

        :param reply: called with the answer or the error, within this call where etcd does not wait for anybody.
        :return: what is to be called where whoever asked has gone before there is an answer.
        """
        try:
            self._check(rpc, request)
            self._guard.check(rpc, request, token)
            if rpc in self._queues:
                return self._queues[rpc](request, reply)
            reply(self._complete(rpc, self._done(rpc, request)))
        except EtcdError as error:
            reply(error)
        return None

    def _done(self, rpc: RPC[Any, Any], request: Message) -> Message:
        change = self._changes.get(rpc)
        if change is None:
            return self._answers[rpc](request)
        change(request)
        answer: Message = rpc.response()
        return answer

    def _check(self, rpc: RPC[Any, Any], request: Message) -> None:
        """What can be wrong with a request before anybody looks at who asks."""
        size = size_of(request)
        most = self._limits.max_request_bytes + OVERHEAD
        if size > most:
            words = f"grpc: received message larger than max ({size} vs. {most})"
            # The code of what is in front of etcd.
            raise RequestTooLarge(8, words)
        if isinstance(request, kv.RangeRequest):
            check_range(request)
        elif isinstance(request, kv.PutRequest):
            transactions.check_put(request)
        elif isinstance(request, kv.DeleteRangeRequest):
            transactions.check_delete(request)
        elif isinstance(request, kv.TxnRequest):
            transactions.check_txn(request, self._limits.max_txn_ops)
        if rpc in _PROPOSED and not rpcs.repeatable(rpc, request):
            if size > self._limits.max_request_bytes:
                raise refusal(RequestTooLarge)
            self._applied += 1

    def _complete(self, rpc: RPC[Any, Any], response: Message) -> Message:
        """With the header that all answers have."""
        if not isinstance(response, Response) or rpc in {rpcs.DEFRAGMENT, rpcs.MOVE_LEADER}:
            return response
        revision = response.header.revision or (0 if rpc.name.startswith("Cluster.") else self.store.revision)
        return msgspec.structs.replace(response, header=self.header(revision))

    def header(self, revision: int) -> ResponseHeader:
        """The header of an answer."""
        return ResponseHeader(
            cluster_id=self.membership.cluster_id,
            member_id=self.membership.member_id,
            revision=revision,
            raft_term=self.raft_term,
        )

    @cached_property
    def _answers(self) -> Mapping[RPC[Any, Any], Callable[[Any], Message]]:
        return {
            rpcs.RANGE: lambda request: read_range(self.store, request, self.store.revision),
            rpcs.PUT: self._put,
            rpcs.DELETE_RANGE: self._delete,
            rpcs.TXN: self._txn,
            rpcs.LEASE_GRANT: self._grant,
            rpcs.LEASE_KEEP_ALIVE: self._keep_alive,
            rpcs.LEASE_TIME_TO_LIVE: self._time_to_live,
            rpcs.LEASE_LEASES: lambda _: lease.LeaseLeasesResponse(leases=tuple(map(_status, self.leases.ids()))),
            rpcs.MEMBER_LIST: lambda _: cluster.MemberListResponse(members=self.membership.all()),
            rpcs.MEMBER_ADD: self._member_add,
            rpcs.MEMBER_REMOVE: self._member_remove,
            rpcs.MEMBER_UPDATE: self._member_update,
            rpcs.MEMBER_PROMOTE: self._member_promote,
            rpcs.ALARM: lambda request: maintenance.AlarmResponse(alarms=self.alarms.change(request)),
            rpcs.STATUS: self._status,
            rpcs.HASH: lambda _: maintenance.HashResponse(hash=self._hash(self.store.revision)),
            rpcs.HASH_KV: self._hash_kv,
            rpcs.DOWNGRADE: self._change_downgrade,
            **accounts.answers(self.users),
            rpcs.LEADER: lambda request: elections.LeaderResponse(kv=self._elections.leader(request.name)),
        }

    @cached_property
    def _changes(self) -> Mapping[RPC[Any, Any], Callable[[Any], None]]:
        """What is answered with nothing but a header."""
        return {
            rpcs.COMPACT: self._compact,
            rpcs.LEASE_REVOKE: self._revoke,
            rpcs.MOVE_LEADER: self._move_leader,
            rpcs.DEFRAGMENT: _nothing,
            **accounts.changes(self.users),
            rpcs.UNLOCK: self._unlock,
            rpcs.PROCLAIM: lambda request: self._elections.proclaim(request.leader, request.value),
            rpcs.RESIGN: lambda request: self._elections.resign(request.leader),
        }

    @cached_property
    def _queues(self) -> Mapping[RPC[Any, Any], Callable[[Any, Reply], Callable[[], None]]]:
        return {rpcs.LOCK: self._lock, rpcs.CAMPAIGN: self._campaign}

    # --- keys -------------------------------------------------------------------------------------------------------

    def _put(self, request: kv.PutRequest) -> kv.PutResponse:
        self._check_alarms(rpcs.PUT)
        with self.store.write() as write:
            return transactions.put(self.store, write, request, self.leases.exists)

    def _delete(self, request: kv.DeleteRangeRequest) -> kv.DeleteRangeResponse:
        self._check_alarms(rpcs.DELETE_RANGE)
        with self.store.write() as write:
            return transactions.delete(write, request)

    def _txn(self, request: kv.TxnRequest) -> kv.TxnResponse:
        # etcd does not look into transactions in transactions.
        operations = request.success + request.failure
        if any(operation.request_range is None for operation in operations):
            self._check_alarms(rpcs.TXN)
        if any(operation.request_put is not None for operation in operations):
            self._check_alarms(rpcs.PUT)
        return transactions.Transaction(self.store, request, self.leases.exists).run()

    def _compact(self, request: kv.CompactionRequest) -> None:
        self._check_alarms(rpcs.COMPACT)
        self.store.compact(request.revision)

    def _check_alarms(self, rpc: RPC[Any, Any]) -> None:
        if AlarmType.CORRUPT in self.alarms and rpc in _NOT_WHERE_CORRUPT:
            raise refusal(CorruptCluster)
        if AlarmType.NOSPACE in self.alarms and rpc in {rpcs.PUT, rpcs.LEASE_GRANT}:
            raise refusal(NoSpace)

    # --- leases -----------------------------------------------------------------------------------------------------

    def _grant(self, request: lease.LeaseGrantRequest) -> lease.LeaseGrantResponse:
        self._check_alarms(rpcs.LEASE_GRANT)
        granted = self.leases.grant(request.TTL, request.ID)
        return lease.LeaseGrantResponse(ID=granted.id, TTL=granted.ttl)

    def _revoke(self, request: lease.LeaseRevokeRequest) -> None:
        self._check_alarms(rpcs.LEASE_REVOKE)
        self.end_lease(request.ID)

    def _keep_alive(self, request: lease.LeaseKeepAliveRequest) -> lease.LeaseKeepAliveResponse:
        return lease.LeaseKeepAliveResponse(ID=request.ID, TTL=self.leases.renew(request.ID))

    def _time_to_live(self, request: lease.LeaseTimeToLiveRequest) -> lease.LeaseTimeToLiveResponse:
        if not self.leases.exists(request.ID):
            return lease.LeaseTimeToLiveResponse(ID=request.ID, TTL=-1)
        found = self.leases.get(request.ID)
        return lease.LeaseTimeToLiveResponse(
            ID=found.id,
            TTL=self.leases.seconds_left(found),
            grantedTTL=found.ttl,
            keys=tuple(sorted(found.keys)) if request.keys else (),
        )

    def end_lease(self, lease_id: int) -> None:
        """
        A lease ends, and its keys with it, all in one revision.

        :raises LeaseNotFound: where there is none of that id.
        """
        keys = self.leases.take(lease_id)
        with self.store.write() as write:
            for key in keys:
                write.delete(key)

    def end_leases(self) -> None:
        """Those end whose time is over, the first that ended first."""
        while (lease_id := self.leases.overdue()) is not None:
            self.end_lease(lease_id)

    # --- streams ----------------------------------------------------------------------------------------------------

    def watch(self, token: str, send: Callable[[WatchResponse], None]) -> WatchStream:
        """A stream of watches for whoever has that token."""

        def permit(key: bytes, range_end: bytes) -> EtcdError | None:
            try:
                name = self.users.user_of(token)
            except EtcdError as error:
                return error
            return self.users.forbidden(name, PermissionType.READ, key, range_end)

        return WatchStream(self.store, permit, self.header, send, self._limits.max_request_bytes + OVERHEAD)

    def observe(
        self, request: elections.LeaderRequest, token: str, send: Callable[[Message], None]
    ) -> Callable[[], None]:
        """
        Tell of the leaders of an election; what is returned ends it.

        :raises EtcdError: where that is not allowed.
        """
        self._guard.check(rpcs.OBSERVE, request, token)

        def tell(leader: kv.KeyValue) -> None:
            send(elections.LeaderResponse(header=self.header(self.store.revision), kv=leader))

        return self._elections.observe(request.name, tell)

    # --- cluster and maintenance ------------------------------------------------------------------------------------

    def _member_add(self, request: cluster.MemberAddRequest) -> cluster.MemberAddResponse:
        member = self.membership.add(request.peerURLs, learner=request.isLearner)
        return cluster.MemberAddResponse(member=member, members=self.membership.all())

    def _member_remove(self, request: cluster.MemberRemoveRequest) -> cluster.MemberRemoveResponse:
        self.membership.remove(request.ID)
        return cluster.MemberRemoveResponse(members=self.membership.all())

    def _member_update(self, request: cluster.MemberUpdateRequest) -> cluster.MemberUpdateResponse:
        self.membership.update(request.ID, request.peerURLs)
        return cluster.MemberUpdateResponse(members=self.membership.all())

    def _member_promote(self, request: cluster.MemberPromoteRequest) -> cluster.MemberPromoteResponse:
        self.membership.promote(request.ID)
        return cluster.MemberPromoteResponse(members=self.membership.all())

    def _status(self, _request: maintenance.StatusRequest) -> maintenance.StatusResponse:
        used = sum(size_of(each) for each in self.store.read(b"\x00", b"\x00", self.store.revision))
        alarms = self.alarms.change(maintenance.AlarmRequest())
        errors = [f"memberID:{each.memberID} alarm:{each.alarm} " for each in alarms]
        return maintenance.StatusResponse(
            version=VERSION,
            dbSize=20480 + used,
            dbSizeInUse=16384 + used,
            leader=self.membership.member_id if self.leads else 0,
            raftIndex=self._applied,
            raftAppliedIndex=self._applied,
            raftTerm=self.raft_term,
            errors=tuple(errors if self.leads else ["etcdserver: no leader", *errors]),
        )

    def _hash(self, revision: int) -> int:
        found = self.store.read(b"\x00", b"\x00", revision)
        return zlib.crc32(b"".join(map(jsonform.encode, found)))

    def _hash_kv(self, request: maintenance.HashKVRequest) -> maintenance.HashKVResponse:
        revision = self.store.revision_to_read(request.revision, self.store.revision)
        return maintenance.HashKVResponse(
            hash=self._hash(revision), compact_revision=self.store.compacted, hash_revision=revision
        )

    def _move_leader(self, request: maintenance.MoveLeaderRequest) -> None:
        if request.targetID != self.membership.member_id:
            raise refusal(BadLeaderTransferee)

    def _change_downgrade(self, request: maintenance.DowngradeRequest) -> maintenance.DowngradeResponse:
        self._downgrade.change(request.action, request.version)
        return maintenance.DowngradeResponse(version=CLUSTER_VERSION)

    # --- locks and elections ----------------------------------------------------------------------------------------

    def _lock(self, request: lock.LockRequest, reply: Reply) -> Callable[[], None]:
        def done() -> None:
            held = self._complete(rpcs.LOCK, lock.LockResponse(key=place.key))
            reply(held if place.is_there else unknown(_EXPIRED))

        place = Place(self.store, self.leases, request.name, request.lease, done)
        place.take(b"", keep_value=True)
        return place.leave

    def _unlock(self, request: lock.UnlockRequest) -> None:
        transactions.check_delete(kv.DeleteRangeRequest(key=request.key))
        with self.store.write() as write:
            write.delete(request.key)

    def _campaign(self, request: elections.CampaignRequest, reply: Reply) -> Callable[[], None]:
        def done() -> None:
            # etcd does not look whether the key is still there, as it does for locks, nor where the store is now.
            leader = elections.LeaderKey(name=request.name, key=place.key, rev=place.revision, lease=place.lease)
            header = self.header(place.taken_at)
            reply(elections.CampaignResponse(header=header, leader=leader))

        place = Place(self.store, self.leases, request.name, request.lease, done)
        place.take(request.value, keep_value=False)
        return place.leave


def _nothing(_request: Message) -> None:
    """There is no database that could have free space."""


def _status(lease_id: int) -> lease.LeaseStatus:
    return lease.LeaseStatus(ID=lease_id)
