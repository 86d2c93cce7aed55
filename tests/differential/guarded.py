"""The same with authentication on: several users, and what each of them may."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import rule

from tests.differential import strategies
from tests.differential.both import MOST_STREAMS, Both
from tests.differential.pair import Pair
from tests.differential.strategies import KEYS, LEASES, NO_LEASE, keys, leases, rarely
from twisted_etcd.errors import EtcdError
from twisted_etcd.gateway.gateway import Credentials
from twisted_etcd.schema import auth, rpcs
from twisted_etcd.schema.common import Message
from twisted_etcd.schema.election import LeaderRequest
from twisted_etcd.schema.kv import CompactionRequest
from twisted_etcd.schema.lease import (
    LeaseGrantRequest,
    LeaseKeepAliveRequest,
    LeaseLeasesRequest,
    LeaseRevokeRequest,
    LeaseTimeToLiveRequest,
)
from twisted_etcd.schema.lock import UnlockRequest
from twisted_etcd.schema.maintenance import AlarmRequest, DefragmentRequest, StatusRequest

#: Who there is to begin with, and their passwords. The one without a name brings no token.
USERS = {"root": "r", "alice": "a", "bob": "b", "": ""}
ROLES = ("reader", "writer")
users = st.sampled_from(tuple(USERS))
names = st.sampled_from(("alice", "bob", "carol", "root"))
roles = st.sampled_from((*ROLES, "root", "none"))
spans = st.tuples(keys, st.sampled_from((b"", b"", b"\x00", *KEYS)))


class Guarded(Both):
    """Does the same to both, as one user and another."""

    def __init__(self) -> None:
        super().__init__()
        self._users = self.run(self._guard())

    async def _guard(self) -> dict[str, Pair]:
        ask = self._pair.ask
        for name, password in USERS.items():
            if name:
                await ask(rpcs.USER_ADD, auth.AuthUserAddRequest(name=name, password=password))
        for role in ("root", *ROLES):
            await ask(rpcs.ROLE_ADD, auth.AuthRoleAddRequest(name=role))
        for user, role in (("root", "root"), ("alice", "reader"), ("bob", "writer")):
            await ask(rpcs.USER_GRANT_ROLE, auth.AuthUserGrantRoleRequest(user=user, role=role))
        for role, kind in zip(ROLES, (auth.PermissionType.READ, auth.PermissionType.READWRITE), strict=True):
            permission = auth.Permission(kind, b"a", b"b")
            await ask(rpcs.ROLE_GRANT_PERMISSION, auth.AuthRoleGrantPermissionRequest(name=role, perm=permission))
        await ask(rpcs.AUTH_ENABLE, auth.AuthEnableRequest())
        return {name: self._as(name, password) for name, password in USERS.items()}

    def _as(self, name: str, password: str) -> Pair:
        return Pair(self.endpoint, self._memory, Credentials(name, password) if name else None)

    async def _end(self) -> None:
        try:
            await self._users["root"].ask(rpcs.AUTH_DISABLE, auth.AuthDisableRequest())
        finally:
            await super()._end()
            for each in self._users.values():
                await each.stop()

    def _ask_as(self, name: str, rpc: rpcs.RPC[Any, Any], request: Message) -> Message | EtcdError:
        answer: Message | EtcdError = self.run(self._users[name].ask(rpc, request))
        self._did(answer)
        return answer

    # --- keys -------------------------------------------------------------------------------------------------------

    @rule(user=users, data=st.data())
    def range(self, user: str, data: st.DataObject) -> None:
        self._ask_as(user, rpcs.RANGE, data.draw(strategies.ranges(self._now)))

    @rule(user=users, request=strategies.puts())
    def put(self, user: str, request: Message) -> None:
        self._ask_as(user, rpcs.PUT, request)

    @rule(user=users, request=strategies.deletions())
    def delete(self, user: str, request: Message) -> None:
        self._ask_as(user, rpcs.DELETE_RANGE, request)

    @rule(user=users, data=st.data())
    def transaction(self, user: str, data: st.DataObject) -> None:
        self._ask_as(user, rpcs.TXN, data.draw(strategies.transactions(self._now)))

    @rule(user=users)
    def compact(self, user: str) -> None:
        self._ask_as(user, rpcs.COMPACT, CompactionRequest(revision=max(self._now - 12, 1), physical=True))

    # --- leases -----------------------------------------------------------------------------------------------------

    @rule(user=users, lease=st.sampled_from(LEASES))
    def grant(self, user: str, lease: int) -> None:
        self._ask_as(user, rpcs.LEASE_GRANT, LeaseGrantRequest(TTL=600, ID=lease))

    @rule(user=users, lease=leases)
    def revoke(self, user: str, lease: int) -> None:
        self._ask_as(user, rpcs.LEASE_REVOKE, LeaseRevokeRequest(ID=lease))

    @rule(user=users, lease=leases, with_keys=st.booleans())
    def time_to_live(self, user: str, lease: int, with_keys: bool) -> None:  # noqa: FBT001
        self._ask_as(user, rpcs.LEASE_TIME_TO_LIVE, LeaseTimeToLiveRequest(ID=lease, keys=with_keys))

    @rule(user=users)
    def all_leases(self, user: str) -> None:
        self._ask_as(user, rpcs.LEASE_LEASES, LeaseLeasesRequest())

    @rule(user=users, lease=st.sampled_from((*LEASES, NO_LEASE)))
    def keep_alive(self, user: str, lease: int) -> None:
        self._did()
        self.run(self._users[user].keep_alive([LeaseKeepAliveRequest(ID=lease)]))

    # --- watches ----------------------------------------------------------------------------------------------------

    @rule(user=users, data=st.data())
    def watch_alone(self, user: str, data: st.DataObject) -> None:
        self._did()
        if len(self._streams) < MOST_STREAMS:
            request = data.draw(strategies.watches(self._now, 0))
            self._streams.append(self.run(self._users[user].post_stream(request)))

    @rule()
    def compare(self) -> None:
        self._did()
        self.run(self._compare())

    # --- what else there is -----------------------------------------------------------------------------------------

    @rule(user=users, key=keys)
    def locks_and_elections(self, user: str, key: bytes) -> None:
        self._ask_as(user, rpcs.UNLOCK, UnlockRequest(key=key))
        self._ask_as(user, rpcs.LEADER, LeaderRequest(name=key))

    @rule(user=users)
    def maintain(self, user: str) -> None:
        self._did(self.run(self._users[user].ask_members(lambda _: AlarmRequest())))
        self._ask_as(user, rpcs.STATUS, StatusRequest())
        self._ask_as(user, rpcs.DEFRAGMENT, DefragmentRequest())

    # --- users ------------------------------------------------------------------------------------------------------

    @rule(user=users, role=roles, span=spans, kind=st.sampled_from(list(auth.PermissionType)), takes=rarely)
    def change_permissions(
        self,
        user: str,
        role: str,
        span: tuple[bytes, bytes],
        kind: auth.PermissionType,
        takes: bool,  # noqa: FBT001
    ) -> None:
        key, end = span
        if takes:
            request = auth.AuthRoleRevokePermissionRequest(role=role, key=key, range_end=end)
            self._ask_as(user, rpcs.ROLE_REVOKE_PERMISSION, request)
        elif end in (b"", b"\x00") or end > key:
            permission = auth.Permission(kind, key, end)
            granting = auth.AuthRoleGrantPermissionRequest(name=role, perm=permission)
            self._ask_as(user, rpcs.ROLE_GRANT_PERMISSION, granting)

    @rule(role=roles, span=spans, kind=st.sampled_from(list(auth.PermissionType)))
    def allow(self, role: str, span: tuple[bytes, bytes], kind: auth.PermissionType) -> None:
        self.change_permissions("root", role, span, kind, takes=False)

    @rule(user=users, name=names, role=roles, takes=st.booleans())
    def change_roles(self, user: str, name: str, role: str, takes: bool) -> None:  # noqa: FBT001
        if takes:
            self._ask_as(user, rpcs.USER_REVOKE_ROLE, auth.AuthUserRevokeRoleRequest(name=name, role=role))
        else:
            self._ask_as(user, rpcs.USER_GRANT_ROLE, auth.AuthUserGrantRoleRequest(user=name, role=role))

    @rule(user=users, name=names, role=roles)
    def look_at_users(self, user: str, name: str, role: str) -> None:
        self._ask_as(user, rpcs.USER_GET, auth.AuthUserGetRequest(name=name))
        self._ask_as(user, rpcs.ROLE_GET, auth.AuthRoleGetRequest(role=role))
        self._ask_as(user, rpcs.USER_LIST, auth.AuthUserListRequest())
        self._ask_as(user, rpcs.ROLE_LIST, auth.AuthRoleListRequest())
        self._ask_as(user, rpcs.AUTH_STATUS, auth.AuthStatusRequest())

    @rule(user=users, name=names, role=roles, seldom=rarely)
    def come_and_go(self, user: str, name: str, role: str, seldom: bool) -> None:  # noqa: FBT001
        if seldom:
            self._ask_as(user, rpcs.USER_DELETE, auth.AuthUserDeleteRequest(name=name))
            self._ask_as(user, rpcs.ROLE_DELETE, auth.AuthRoleDeleteRequest(role=role))
        password = USERS.get(name, "c")
        self._ask_as(user, rpcs.USER_ADD, auth.AuthUserAddRequest(name=name, password=password))
        self._ask_as(user, rpcs.ROLE_ADD, auth.AuthRoleAddRequest(name=role))

    @rule(user=users, name=names)
    def change_password(self, user: str, name: str) -> None:
        # To the same: its tokens end all the same.
        request = auth.AuthUserChangePasswordRequest(name=name, password=USERS.get(name, "c"))
        self._ask_as(user, rpcs.USER_CHANGE_PASSWORD, request)

    @rule(name=names, password=st.sampled_from(("r", "a", "b", "")))
    def authenticate(self, name: str, password: str) -> None:
        self._ask(rpcs.AUTHENTICATE, auth.AuthenticateRequest(name=name, password=password))
