"""Who may do what: what each call needs where authentication is on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted_etcd.errors import EtcdError, UserEmpty
from twisted_etcd.keys import prefix_end
from twisted_etcd.schema import auth, election, kv, lease, lock, rpcs
from twisted_etcd.schema.auth import PermissionType
from twisted_etcd.schema.common import Message
from twisted_etcd.schema.rpcs import RPC
from twisted_etcd.testing.memory.leases import Leases
from twisted_etcd.testing.memory.refusals import refusal, untranslated
from twisted_etcd.testing.memory.store import Store
from twisted_etcd.testing.memory.users import Users

READ, WRITE = PermissionType.READ, PermissionType.WRITE
#: What only root may do.
_FOR_ROOT = frozenset(
    {
        rpcs.AUTH_ENABLE,
        rpcs.AUTH_DISABLE,
        rpcs.AUTH_STATUS,
        rpcs.USER_ADD,
        rpcs.USER_LIST,
        rpcs.USER_DELETE,
        rpcs.USER_CHANGE_PASSWORD,
        rpcs.USER_GRANT_ROLE,
        rpcs.USER_REVOKE_ROLE,
        rpcs.ROLE_ADD,
        rpcs.ROLE_LIST,
        rpcs.ROLE_DELETE,
        rpcs.ROLE_GRANT_PERMISSION,
        rpcs.ROLE_REVOKE_PERMISSION,
        rpcs.MEMBER_ADD,
        rpcs.MEMBER_REMOVE,
        rpcs.MEMBER_UPDATE,
        rpcs.MEMBER_PROMOTE,
    }
)
#: Likewise; etcd refuses these in other words.
_MAINTENANCE_FOR_ROOT = frozenset(
    {rpcs.DEFRAGMENT, rpcs.HASH, rpcs.HASH_KV, rpcs.SNAPSHOT, rpcs.MOVE_LEADER, rpcs.DOWNGRADE}
)
#: What anybody may do: etcd does not even look at a token that comes with it.
_FOR_ALL = frozenset({rpcs.AUTHENTICATE, rpcs.LEASE_LEASES, rpcs.LEASE_KEEP_ALIVE, rpcs.MEMBER_LIST, rpcs.STATUS})


class Guard:
    """
    Looks at requests before they are served.

    :param users: who there is, and what they may do.
    :param leases: whose keys a call can concern.
    :param store: says whether it is to do as the older versions do.
    """

    def __init__(self, users: Users, leases: Leases, store: Store) -> None:
        self._users = users
        self._leases = leases
        self._store = store

    def check(self, rpc: RPC[Any, Any], request: Message, token: str) -> None:
        """
        See whether somebody may ask for this.

        :param token: what came with it; empty where none came.
        :raises EtcdError: where not.
        """
        if not self._users.enabled or rpc in _FOR_ALL:
            return
        if isinstance(request, lease.LeaseTimeToLiveRequest) and not request.keys:
            return
        name = self._users.user_of(token)
        if rpc in _FOR_ROOT:
            self._users.check_admin(name)
        elif rpc in _MAINTENANCE_FOR_ROOT:
            try:
                self._users.check_admin(name)
            except EtcdError as error:
                raise untranslated(error) from None
        elif isinstance(request, auth.AuthUserGetRequest):
            if not name or name != request.name:
                self._users.check_admin(name)
        elif isinstance(request, auth.AuthRoleGetRequest):
            if not self._users.has_role(name, request.role):
                self._users.check_admin(name)
        else:
            self._check_keys(request, name)

    def _check_keys(self, request: Message, name: str) -> None:
        if isinstance(request, kv.RangeRequest):
            self._users.check(name, READ, request.key, request.range_end)
        elif isinstance(request, kv.PutRequest):
            self._check_put(request, name)
        elif isinstance(request, kv.DeleteRangeRequest):
            self._users.check(name, WRITE, request.key, request.range_end)
            if request.prev_kv:
                self._users.check(name, READ, request.key, request.range_end)
        elif isinstance(request, kv.TxnRequest):
            for compare in request.compare:
                self._users.check(name, READ, compare.key, compare.range_end)
            self._check_operations(request.success + request.failure, name)
        elif isinstance(request, lease.LeaseRevokeRequest):
            self._check_lease(request.ID, WRITE, name)
        elif isinstance(request, lease.LeaseTimeToLiveRequest):
            if not self._store.old and not name:
                raise refusal(UserEmpty)
            self._check_lease(request.ID, READ, name)
        else:
            self._check_queue(request, name)

    def _check_operations(self, operations: Sequence[kv.RequestOp], name: str) -> None:
        for operation in operations:
            for each in (
                operation.request_range,
                operation.request_put,
                operation.request_delete_range,
                operation.request_txn,
            ):
                if each is not None:
                    self._check_keys(each, name)

    def _check_put(self, request: kv.PutRequest, name: str) -> None:
        self._users.check(name, WRITE, request.key)
        self._check_lease(request.lease, WRITE, name)
        if request.prev_kv:
            self._users.check(name, READ, request.key)

    def _check_lease(self, lease_id: int, kind: PermissionType, name: str) -> None:
        """Whoever can end a lease ends its keys."""
        if not self._leases.exists(lease_id):
            return
        for key in sorted(self._leases.get(lease_id).keys):
            self._users.check(name, kind, key)

    def _check_queue(self, request: Message, name: str) -> None:
        """Locks and elections are keys: the server writes and reads them for whoever asks."""
        if isinstance(request, lock.LockRequest | election.CampaignRequest):
            prefix = request.name + b"/"
            self._users.check(name, WRITE, prefix, prefix_end(prefix))
        elif isinstance(request, election.LeaderRequest):
            prefix = request.name + b"/"
            self._users.check(name, READ, prefix, prefix_end(prefix))
        elif isinstance(request, lock.UnlockRequest):
            self._users.check(name, WRITE, request.key)
        elif isinstance(request, election.ProclaimRequest | election.ResignRequest) and request.leader is not None:
            self._users.check(name, WRITE, request.leader.key)
