"""Users, roles, permissions and tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from twisted_etcd.errors import (
    AuthenticationFailed,
    AuthNotEnabled,
    EtcdError,
    InvalidAuthManagement,
    InvalidAuthToken,
    PermissionDenied,
    PermissionNotGiven,
    PermissionNotGranted,
    RoleEmpty,
    RoleExists,
    RoleNotFound,
    RoleNotGranted,
    RootRoleMissing,
    RootUserMissing,
    UserEmpty,
    UserExists,
    UserNotFound,
)
from twisted_etcd.keys import TO_THE_END
from twisted_etcd.schema.auth import Permission, PermissionType
from twisted_etcd.testing.memory.refusals import refusal

ROOT = "root"
#: Seconds for which a token lives that nobody uses.
TOKEN_TTL = 300.0

#: The end of a span of keys: one that is behind all others where it is None.
_Span = tuple[bytes, "bytes | None"]


class User:
    """
    A user.

    :ivar roles: the names of the roles that it has, in their order.
    """

    def __init__(self, password: str | None) -> None:
        self.roles: list[str] = []
        self.password = password


class Role:
    """
    A role.

    :ivar permissions: what it allows, in the order of their keys.
    """

    def __init__(self) -> None:
        self.permissions: list[Permission] = []

    def grant(self, permission: Permission) -> None:
        """Allow something: etcd looks no further than at the first permission of that key for one to be replaced."""
        first = next((each for each in self.permissions if each.key >= permission.key), None)
        if first is not None and _keys(first) == _keys(permission):
            self.permissions[self.permissions.index(first)] = permission
        else:
            self.permissions.append(permission)
            self.permissions.sort(key=lambda each: each.key)

    def revoke(self, key: bytes, range_end: bytes) -> bool:
        """Allow what was allowed for just these keys no longer; whether anything was."""
        left = [each for each in self.permissions if _keys(each) != (key, range_end)]
        found = len(left) < len(self.permissions)
        self.permissions = left
        return found


class Users:
    """
    All that etcd knows of users.

    :param seconds: the time.
    :param token_ttl: seconds for which a token lives that nobody uses.
    :ivar enabled: whether authentication is on.
    :ivar revision: counts the changes.
    """

    def __init__(self, seconds: Callable[[], float], token_ttl: float) -> None:
        self.enabled = False
        self.revision = 1
        self._seconds = seconds
        self._token_ttl = token_ttl
        self._users: dict[str, User] = {}
        self._roles: dict[str, Role] = {}
        #: Whose each token is, and until when.
        self._tokens: dict[str, tuple[str, float]] = {}
        self._tokens_made = 0

    # --- authentication ---------------------------------------------------------------------------------------------

    def enable(self) -> None:
        """
        Turn authentication on.

        :raises EtcdError: where there is nobody who could turn it off again.
        """
        if self.enabled:
            return
        if ROOT not in self._users:
            raise refusal(RootUserMissing)
        if ROOT not in self._users[ROOT].roles:
            raise refusal(RootRoleMissing)
        self.enabled = True

    def disable(self) -> None:
        """Turn authentication off; all tokens end."""
        if self.enabled:
            self.enabled = False
            self._tokens.clear()
            self.revision += 1

    def authenticate(self, name: str, password: str) -> str:
        """
        A token for a user.

        :raises EtcdError: where there is none to be had.
        """
        if not self.enabled:
            raise refusal(AuthNotEnabled)
        user = self._users.get(name)
        if user is None or user.password is None or user.password != password:
            raise refusal(AuthenticationFailed)
        self._tokens_made += 1
        token = f"{self._tokens_made:016d}.{self.revision}"
        self._tokens[token] = (name, self._seconds() + self._token_ttl)
        return token

    def user_of(self, token: str) -> str:
        """
        Whose token it is; empty where there is none, or authentication is off.

        :raises InvalidAuthToken: where it is nobody's, or no longer.
        """
        if not self.enabled or not token:
            return ""
        name, until = self._tokens.get(token, ("", 0.0))
        if until <= self._seconds():
            self._tokens.pop(token, None)
            raise refusal(InvalidAuthToken)
        self._tokens[token] = (name, self._seconds() + self._token_ttl)
        return name

    def forget_tokens(self, name: str | None = None) -> None:
        """The tokens of a user, or of all, are valid no longer."""
        self._tokens = {token: owned for token, owned in self._tokens.items() if name not in {None, owned[0]}}

    # --- what somebody may do ---------------------------------------------------------------------------------------

    def check_admin(self, name: str) -> None:
        """
        See whether somebody may do everything.

        :raises EtcdError: where not.
        """
        if not self.enabled:
            return
        if not name:
            raise refusal(UserEmpty)
        user = self._users.get(name)
        if user is None or ROOT not in user.roles:
            raise refusal(PermissionDenied)

    def check(self, name: str, kind: PermissionType, key: bytes, range_end: bytes = b"") -> None:
        """
        See whether somebody may read or write some keys.

        :param kind: READ or WRITE.
        :raises EtcdError: where not.
        """
        why = self.forbidden(name, kind, key, range_end)
        if why is not None:
            raise why

    def forbidden(self, name: str, kind: PermissionType, key: bytes, range_end: bytes = b"") -> EtcdError | None:
        """The same, saying why not; None where it is allowed."""
        if not self.enabled:
            return None
        if not name:
            return refusal(UserEmpty)
        user = self._users.get(name)
        if user is None:
            return refusal(PermissionDenied)
        if ROOT in user.roles or _covered(_span(key, range_end), self._spans(user, kind)):
            return None
        return refusal(PermissionDenied)

    def _spans(self, user: User, kind: PermissionType) -> list[_Span]:
        return [
            _span(*_keys(permission))
            for role in user.roles
            if role in self._roles
            for permission in self._roles[role].permissions
            if permission.permType in {kind, PermissionType.READWRITE}
        ]

    def has_role(self, name: str, role: str) -> bool:
        """Whether somebody has a role."""
        return name in self._users and role in self._users[name].roles

    # --- users ------------------------------------------------------------------------------------------------------

    def add_user(self, name: str, password: str | None) -> None:
        """
        Make a user.

        :param password: None for one that cannot be asked for a token.
        :raises EtcdError: where it cannot be.
        """
        if not name:
            raise refusal(UserEmpty)
        if name in self._users:
            raise refusal(UserExists)
        self._users[name] = User(password)
        self.revision += 1

    def user(self, name: str) -> User:
        """
        One user.

        :raises UserNotFound: where there is none of that name.
        """
        if name not in self._users:
            raise refusal(UserNotFound)
        return self._users[name]

    def user_names(self) -> tuple[str, ...]:
        """All users."""
        return tuple(sorted(self._users))

    def delete_user(self, name: str) -> None:
        """
        Take a user away, and its tokens.

        :raises EtcdError: where it cannot be.
        """
        if self.enabled and name == ROOT:
            raise refusal(InvalidAuthManagement)
        self.user(name)
        del self._users[name]
        self.forget_tokens(name)
        self.revision += 1

    def change_password(self, name: str, password: str) -> None:
        """
        Give a user another password; its tokens end.

        :raises UserNotFound: where there is none of that name.
        """
        self.user(name).password = password
        self.forget_tokens(name)
        self.revision += 1

    def grant_role(self, name: str, role: str) -> None:
        """
        Give a user a role.

        :raises EtcdError: where one of the two does not exist.
        """
        user = self.user(name)
        if role != ROOT and role not in self._roles:
            raise refusal(RoleNotFound)
        if role not in user.roles:
            user.roles = sorted([*user.roles, role])
            self.revision += 1

    def revoke_role(self, name: str, role: str) -> None:
        """
        Take a role from a user.

        :raises EtcdError: where it cannot be.
        """
        if self.enabled and name == role == ROOT:
            raise refusal(InvalidAuthManagement)
        user = self.user(name)
        if role not in user.roles:
            raise refusal(RoleNotGranted)
        user.roles.remove(role)
        self.revision += 1

    # --- roles ------------------------------------------------------------------------------------------------------

    def add_role(self, name: str) -> None:
        """
        Make a role.

        :raises EtcdError: where it cannot be.
        """
        if not name:
            raise refusal(RoleEmpty)
        if name in self._roles:
            raise refusal(RoleExists)
        self._roles[name] = Role()
        self.revision += 1

    def role(self, name: str) -> Role:
        """
        One role.

        :raises RoleNotFound: where there is none of that name.
        """
        if name not in self._roles:
            raise refusal(RoleNotFound)
        return self._roles[name]

    def role_names(self) -> tuple[str, ...]:
        """All roles."""
        return tuple(sorted(self._roles))

    def permissions_of(self, name: str) -> tuple[Permission, ...]:
        """
        What a role allows.

        :raises RoleNotFound: where there is none of that name.
        """
        return tuple(self.role(name).permissions)

    def delete_role(self, name: str) -> None:
        """
        Take a role away, from all users too.

        :raises EtcdError: where it cannot be.
        """
        if self.enabled and name == ROOT:
            raise refusal(InvalidAuthManagement)
        self.role(name)
        del self._roles[name]
        for user in self._users.values():
            if name in user.roles:
                user.roles.remove(name)
        self.revision += 1

    def grant_permission(self, name: str, permission: Permission | None) -> None:
        """
        Let a role do something.

        :raises EtcdError: where it cannot be.
        """
        if permission is None:
            raise refusal(PermissionNotGiven)
        self.role(name).grant(permission)
        self.revision += 1

    def revoke_permission(self, name: str, key: bytes, range_end: bytes) -> None:
        """
        Take a permission from a role.

        :raises EtcdError: where it has none for just these keys.
        """
        if not self.role(name).revoke(key, range_end):
            raise refusal(PermissionNotGranted)
        self.revision += 1


def _keys(permission: Permission) -> tuple[bytes, bytes]:
    return permission.key, permission.range_end


def _span(key: bytes, range_end: bytes) -> _Span:
    if range_end == TO_THE_END:
        return key, None
    return key, range_end or key + b"\x00"


def _covered(wanted: _Span, spans: Iterable[_Span]) -> bool:
    """Whether all of it is in the others together."""
    reached, end = wanted
    for start, stop in sorted(spans, key=lambda span: span[0]):
        if start > reached:
            break
        if stop is None:
            return True
        reached = max(reached, stop)
    return end is not None and reached >= end and wanted[0] < reached
