"""Users, roles and permissions: etcd's Auth service."""

from __future__ import annotations

from typing import Literal

from twisted.internet.defer import Deferred

from twisted_etcd.client.calls import Calls
from twisted_etcd.errors import InvalidSettings
from twisted_etcd.keys import TO_THE_END, KeyRange
from twisted_etcd.schema import rpcs
from twisted_etcd.schema.auth import (
    AuthDisableRequest,
    AuthDisableResponse,
    AuthEnableRequest,
    AuthEnableResponse,
    AuthRoleAddRequest,
    AuthRoleAddResponse,
    AuthRoleDeleteRequest,
    AuthRoleDeleteResponse,
    AuthRoleGetRequest,
    AuthRoleGetResponse,
    AuthRoleGrantPermissionRequest,
    AuthRoleGrantPermissionResponse,
    AuthRoleListRequest,
    AuthRoleListResponse,
    AuthRoleRevokePermissionRequest,
    AuthRoleRevokePermissionResponse,
    AuthStatusRequest,
    AuthStatusResponse,
    AuthUserAddRequest,
    AuthUserAddResponse,
    AuthUserChangePasswordRequest,
    AuthUserChangePasswordResponse,
    AuthUserDeleteRequest,
    AuthUserDeleteResponse,
    AuthUserGetRequest,
    AuthUserGetResponse,
    AuthUserGrantRoleRequest,
    AuthUserGrantRoleResponse,
    AuthUserListRequest,
    AuthUserListResponse,
    AuthUserRevokeRoleRequest,
    AuthUserRevokeRoleResponse,
    Permission,
    PermissionType,
    UserAddOptions,
)

#: What a permission allows, in a word.
Allowed = Literal["read", "write", "readwrite"]


class Auth:
    """
    Users, roles and permissions, as ``client.auth``.

    A role may read or write keys, ranges of keys and what begins with a prefix; a user may do what its roles may.
    While authentication is off all of this can be prepared by anybody, and nobody is held to it.

    Every method takes ``timeout``, the seconds for all of it (``request_timeout`` of the client where it is None), and
    fails as every request of the client does. Names are ``str``; no password is in a log line or an error.
    """

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    # --- authentication as a whole ----------------------------------------------------------------------------------

    def enable(self, *, timeout: float | None = None) -> Deferred[AuthEnableResponse]:
        """
        Switch authentication on (``Auth.AuthEnable``).

        From then on a client without a user is refused with ``UserEmpty``, this one too. One that was made with a
        username and a password fetches its token with its next request, and goes on.

        :raises RootUserMissing: there is no user ``root``.
        :raises RootRoleMissing: there is one, without the role ``root``.
        """
        return self._calls.call(rpcs.AUTH_ENABLE, AuthEnableRequest(), timeout=timeout)

    def disable(self, *, timeout: float | None = None) -> Deferred[AuthDisableResponse]:
        """
        Switch authentication off (``Auth.AuthDisable``); users, roles and permissions stay as they are.

        Clients with a user go on as they are.
        """
        return self._calls.call(rpcs.AUTH_DISABLE, AuthDisableRequest(), timeout=timeout)

    def status(self, *, timeout: float | None = None) -> Deferred[AuthStatusResponse]:
        """
        Whether authentication is on: ``response.enabled`` (``Auth.AuthStatus``).

        :raises Unimplemented: before etcd 3.5.
        """
        return self._calls.call(rpcs.AUTH_STATUS, AuthStatusRequest(), timeout=timeout)

    # --- users ------------------------------------------------------------------------------------------------------

    def user_add(
        self, name: str, password: str | None = None, *, no_password: bool = False, timeout: float | None = None
    ) -> Deferred[AuthUserAddResponse]:
        """
        Make a user, without any role (``Auth.UserAdd``).

        :param no_password: it has none, and is known by the name in a client certificate. etcd's gateway takes no such
            certificates, so that it is a user for clients that speak gRPC.
        :raises UserExists: there is one of that name.
        """
        _text(name, "name")
        if not isinstance(no_password, bool):
            msg = f"no_password must be True or False, not {type(no_password).__name__}"
            raise TypeError(msg)
        if no_password:
            if password is not None:
                msg = f"user {name!r} is to have no password and is given one: give one of password and no_password"
                raise InvalidSettings(msg)
            request = AuthUserAddRequest(name=name, options=UserAddOptions(no_password=True))
        elif password is None:
            msg = f"user {name!r} has no password: give one, or no_password=True"
            raise InvalidSettings(msg)
        else:
            request = AuthUserAddRequest(name=name, password=_password(password, name))
        return self._calls.call(rpcs.USER_ADD, request, timeout=timeout)

    def user_get(self, name: str, *, timeout: float | None = None) -> Deferred[AuthUserGetResponse]:
        """
        The roles of a user: ``response.roles`` (``Auth.UserGet``).

        :raises UserNotFound: there is none of that name.
        """
        return self._calls.call(rpcs.USER_GET, AuthUserGetRequest(_text(name, "name")), timeout=timeout)

    def user_list(self, *, timeout: float | None = None) -> Deferred[AuthUserListResponse]:
        """The names of all users: ``response.users`` (``Auth.UserList``)."""
        return self._calls.call(rpcs.USER_LIST, AuthUserListRequest(), timeout=timeout)

    def user_delete(self, name: str, *, timeout: float | None = None) -> Deferred[AuthUserDeleteResponse]:
        """
        Delete a user, whose tokens serve no longer (``Auth.UserDelete``).

        :raises UserNotFound: there is none of that name.
        :raises InvalidAuthManagement: it is ``root``, and authentication is on.
        """
        return self._calls.call(rpcs.USER_DELETE, AuthUserDeleteRequest(_text(name, "name")), timeout=timeout)

    def user_change_password(
        self, name: str, password: str, *, timeout: float | None = None
    ) -> Deferred[AuthUserChangePasswordResponse]:
        """
        Give a user another password (``Auth.UserChangePassword``).

        Its tokens serve no longer. A client that goes by this user, be it this one, keeps the password that it was
        made with, and fails with ``AuthenticationFailed`` from then on: make a new one.

        :raises UserNotFound: there is none of that name.
        """
        request = AuthUserChangePasswordRequest(name=_text(name, "name"), password=_password(password, name))
        return self._calls.call(rpcs.USER_CHANGE_PASSWORD, request, timeout=timeout)

    def user_grant_role(
        self, name: str, role: str, *, timeout: float | None = None
    ) -> Deferred[AuthUserGrantRoleResponse]:
        """
        Give a user a role (``Auth.UserGrantRole``); once more does nothing.

        The role ``root`` may do all.

        :raises UserNotFound: there is no such user.
        :raises RoleNotFound: there is no such role.
        """
        request = AuthUserGrantRoleRequest(user=_text(name, "name"), role=_text(role, "role"))
        return self._calls.call(rpcs.USER_GRANT_ROLE, request, timeout=timeout)

    def user_revoke_role(
        self, name: str, role: str, *, timeout: float | None = None
    ) -> Deferred[AuthUserRevokeRoleResponse]:
        """
        Take a role from a user (``Auth.UserRevokeRole``).

        :raises UserNotFound: there is no such user.
        :raises RoleNotGranted: it does not have that role.
        :raises InvalidAuthManagement: it is that of ``root``, and authentication is on.
        """
        request = AuthUserRevokeRoleRequest(name=_text(name, "name"), role=_text(role, "role"))
        return self._calls.call(rpcs.USER_REVOKE_ROLE, request, timeout=timeout)

    # --- roles ------------------------------------------------------------------------------------------------------

    def role_add(self, name: str, *, timeout: float | None = None) -> Deferred[AuthRoleAddResponse]:
        """
        Make a role, without any permission (``Auth.RoleAdd``).

        :raises RoleExists: there is one of that name.
        """
        return self._calls.call(rpcs.ROLE_ADD, AuthRoleAddRequest(_text(name, "name")), timeout=timeout)

    def role_get(self, name: str, *, timeout: float | None = None) -> Deferred[AuthRoleGetResponse]:
        """
        The permissions of a role: ``response.perm`` (``Auth.RoleGet``).

        Each says what it is for: ``str(permission)`` in words, ``permission.keys`` as a
        :class:`~twisted_etcd.keys.KeyRange`, whose ``prefix`` is the prefix that was granted.

        :raises RoleNotFound: there is none of that name.
        """
        return self._calls.call(rpcs.ROLE_GET, AuthRoleGetRequest(_text(name, "name")), timeout=timeout)

    def role_list(self, *, timeout: float | None = None) -> Deferred[AuthRoleListResponse]:
        """The names of all roles: ``response.roles`` (``Auth.RoleList``)."""
        return self._calls.call(rpcs.ROLE_LIST, AuthRoleListRequest(), timeout=timeout)

    def role_delete(self, name: str, *, timeout: float | None = None) -> Deferred[AuthRoleDeleteResponse]:
        """
        Delete a role, and take it from all users (``Auth.RoleDelete``).

        :raises RoleNotFound: there is none of that name.
        :raises InvalidAuthManagement: it is ``root``, and authentication is on.
        """
        return self._calls.call(rpcs.ROLE_DELETE, AuthRoleDeleteRequest(_text(name, "name")), timeout=timeout)

    def role_grant_permission(
        self,
        role: str,
        key: str | bytes,
        perm: Allowed | PermissionType = "readwrite",
        *,
        prefix: bool = False,
        range_end: str | bytes | None = None,
        from_key: bool = False,
        timeout: float | None = None,
    ) -> Deferred[AuthRoleGrantPermissionResponse]:
        """
        Let a role read or write keys (``Auth.RoleGrantPermission``).

        For a key, or a range, that the role has a permission for already, this one takes its place.

        :param perm: ``"read"``, ``"write"`` or ``"readwrite"``.
        :param prefix: all keys that begin with ``key``; all keys there are where it is empty.
        :param range_end: ``key`` and all keys before this one.
        :param from_key: ``key`` and all keys after it.
        :raises RoleNotFound: there is no such role.
        """
        keys = _keys(key, prefix=prefix, range_end=range_end, from_key=from_key)
        permission = Permission(permType=_allowed(perm), key=keys.key, range_end=keys.range_end)
        request = AuthRoleGrantPermissionRequest(name=_text(role, "role"), perm=permission)
        return self._calls.call(rpcs.ROLE_GRANT_PERMISSION, request, timeout=timeout)

    def role_revoke_permission(
        self,
        role: str,
        key: str | bytes,
        *,
        prefix: bool = False,
        range_end: str | bytes | None = None,
        from_key: bool = False,
        timeout: float | None = None,
    ) -> Deferred[AuthRoleRevokePermissionResponse]:
        """
        Take a permission from a role, with the same key and range as it was granted (``Auth.RoleRevokePermission``).

        :raises RoleNotFound: there is no such role.
        :raises PermissionNotGranted: it has no permission for just these keys.
        """
        keys = _keys(key, prefix=prefix, range_end=range_end, from_key=from_key)
        request = AuthRoleRevokePermissionRequest(role=_text(role, "role"), key=keys.key, range_end=keys.range_end)
        return self._calls.call(rpcs.ROLE_REVOKE_PERMISSION, request, timeout=timeout)


def _text(value: str, what: str) -> str:
    if not isinstance(value, str):
        msg = f"{what} must be a str, not {type(value).__name__}"
        raise TypeError(msg)
    if not value:
        msg = f"{what} is empty: give one that is not"
        raise InvalidSettings(msg)
    return value


def _password(value: str, user: str) -> str:
    if value == "":
        # etcd would take it, and let everybody in.
        msg = f"the password of user {user!r} is empty: give one that is not"
        raise InvalidSettings(msg)
    return _text(value, "password")


def _allowed(perm: Allowed | PermissionType) -> PermissionType:
    allowed = {member.value.lower(): member for member in PermissionType}
    found = allowed.get(perm.lower()) if isinstance(perm, str) else None
    if found is None:
        msg = f"perm must be one of {', '.join(map(repr, allowed))}, not {perm!r}"
        raise InvalidSettings(msg)
    return found


def _keys(key: str | bytes, *, prefix: bool, range_end: str | bytes | None, from_key: bool) -> KeyRange:
    keys = KeyRange.of(key, prefix=prefix, range_end=range_end, from_key=from_key)
    if not keys.key:
        msg = "key is empty, which no key of etcd's is: give one that is not, or prefix=True for all keys"
        raise InvalidSettings(msg)
    if keys.range_end and keys.range_end != TO_THE_END and keys.range_end <= keys.key:
        # Some servers would take it for a permission that permits nothing.
        msg = f"range_end is {keys.range_end!r}, which does not come after key {keys.key!r}, so that no key is between"
        raise InvalidSettings(msg)
    return keys
