"""Users, roles and tokens: the messages of etcd's Auth service."""

from __future__ import annotations

from twisted_etcd.keys import KeyRange
from twisted_etcd.schema.common import Message, OpenProtoEnum, Response

# --- users, roles and permissions -----------------------------------------------------------------------------------


class PermissionType(OpenProtoEnum):
    """What a permission allows."""

    READ = "READ"
    WRITE = "WRITE"
    READWRITE = "READWRITE"


class Permission(Message, frozen=True):
    r"""
    What a role may do with a key or a range of keys.

    :ivar permType: read, write or both.
    :ivar key: the key, or the first of the range.
    :ivar range_end: the first key after the range; empty for one key, ``b"\x00"`` for all from ``key`` on.
    """

    permType: PermissionType = PermissionType.READ
    key: bytes = b""
    range_end: bytes = b""

    @property
    def keys(self) -> KeyRange:
        """The keys that it is for; ``keys.prefix`` is what they begin with, where it is for a prefix."""
        return KeyRange(self.key, self.range_end)

    def __str__(self) -> str:
        return f"{self.permType.value.lower()}: {self.keys}"


class UserAddOptions(Message, frozen=True):
    """
    How a user is made.

    :ivar no_password: the user can be recognised by a client certificate only.
    """

    no_password: bool = False


class User(Message, frozen=True, kw_only=True):
    """
    A user as etcd stores it. No call of the gateway carries it.

    :ivar name: its name.
    :ivar password: the hash of its password.
    :ivar roles: the names of its roles.
    :ivar options: how it was made.
    """

    name: bytes = b""
    password: bytes = b""
    roles: tuple[str, ...] = ()
    options: UserAddOptions | None = None


class Role(Message, frozen=True):
    """
    A role as etcd stores it. No call of the gateway carries it.

    :ivar name: its name.
    :ivar keyPermission: what it may do.
    """

    name: bytes = b""
    keyPermission: tuple[Permission, ...] = ()


# --- authentication as a whole --------------------------------------------------------------------------------------


class AuthEnableRequest(Message, frozen=True):
    """Turn authentication on. The user ``root`` must exist and have the role ``root``."""


class AuthEnableResponse(Response, frozen=True):
    """Authentication is on."""


class AuthDisableRequest(Message, frozen=True):
    """Turn authentication off."""


class AuthDisableResponse(Response, frozen=True):
    """Authentication is off."""


class AuthStatusRequest(Message, frozen=True):
    """Ask whether authentication is on (since 3.5; 3.4 answers 404)."""


class AuthStatusResponse(Response, frozen=True):
    """
    Whether authentication is on.

    :ivar enabled: it is.
    :ivar authRevision: counts the changes of users and roles.
    """

    enabled: bool = False
    authRevision: int = 0


class AuthenticateRequest(Message, frozen=True):
    """
    Ask for a token.

    :ivar name: the user.
    :ivar password: its password.
    """

    name: str = ""
    password: str = ""


class AuthenticateResponse(Response, frozen=True):
    """
    A token for the user.

    :ivar token: goes, bare, into the header ``Authorization`` of later requests.
    """

    token: str = ""


# --- users ----------------------------------------------------------------------------------------------------------


class AuthUserAddRequest(Message, frozen=True, kw_only=True):
    """
    Make a user.

    :ivar name: its name.
    :ivar password: its password.
    :ivar options: whether it has a password at all.
    :ivar hashedPassword: left empty: the server fills it in for its own use.
    """

    name: str = ""
    password: str = ""
    options: UserAddOptions | None = None
    hashedPassword: str = ""


class AuthUserAddResponse(Response, frozen=True):
    """The user was made."""


class AuthUserGetRequest(Message, frozen=True):
    """
    Ask for a user's roles.

    :ivar name: the user.
    """

    name: str = ""


class AuthUserGetResponse(Response, frozen=True):
    """
    A user's roles.

    :ivar roles: their names.
    """

    roles: tuple[str, ...] = ()


class AuthUserListRequest(Message, frozen=True):
    """Ask for all users."""


class AuthUserListResponse(Response, frozen=True):
    """
    All users.

    :ivar users: their names.
    """

    users: tuple[str, ...] = ()


class AuthUserDeleteRequest(Message, frozen=True):
    """
    Delete a user.

    :ivar name: which one.
    """

    name: str = ""


class AuthUserDeleteResponse(Response, frozen=True):
    """The user was deleted."""


class AuthUserChangePasswordRequest(Message, frozen=True):
    """
    Give a user a new password.

    :ivar name: the user.
    :ivar password: the new password.
    :ivar hashedPassword: left empty: the server fills it in for its own use.
    """

    name: str = ""
    password: str = ""
    hashedPassword: str = ""


class AuthUserChangePasswordResponse(Response, frozen=True):
    """The password was changed."""


class AuthUserGrantRoleRequest(Message, frozen=True):
    """
    Give a user a role.

    :ivar user: the user. (The request that takes a role away calls this ``name``: so does etcd.)
    :ivar role: the role.
    """

    user: str = ""
    role: str = ""


class AuthUserGrantRoleResponse(Response, frozen=True):
    """The user has the role."""


class AuthUserRevokeRoleRequest(Message, frozen=True):
    """
    Take a role away from a user.

    :ivar name: the user.
    :ivar role: the role.
    """

    name: str = ""
    role: str = ""


class AuthUserRevokeRoleResponse(Response, frozen=True):
    """The user has the role no longer."""


# --- roles ----------------------------------------------------------------------------------------------------------


class AuthRoleAddRequest(Message, frozen=True):
    """
    Make a role, without any permission.

    :ivar name: its name.
    """

    name: str = ""


class AuthRoleAddResponse(Response, frozen=True):
    """The role was made."""


class AuthRoleGetRequest(Message, frozen=True):
    """
    Ask for a role's permissions.

    :ivar role: the role.
    """

    role: str = ""


class AuthRoleGetResponse(Response, frozen=True):
    """
    A role's permissions.

    :ivar perm: all of them.
    """

    perm: tuple[Permission, ...] = ()


class AuthRoleListRequest(Message, frozen=True):
    """Ask for all roles."""


class AuthRoleListResponse(Response, frozen=True):
    """
    All roles.

    :ivar roles: their names.
    """

    roles: tuple[str, ...] = ()


class AuthRoleDeleteRequest(Message, frozen=True):
    """
    Delete a role, and take it from all users.

    :ivar role: which one.
    """

    role: str = ""


class AuthRoleDeleteResponse(Response, frozen=True):
    """The role was deleted."""


class AuthRoleGrantPermissionRequest(Message, frozen=True):
    """
    Let a role do something.

    :ivar name: the role. (The request that takes a permission away calls this ``role``: so does etcd.)
    :ivar perm: what it may do.
    """

    name: str = ""
    perm: Permission | None = None


class AuthRoleGrantPermissionResponse(Response, frozen=True):
    """The role has the permission."""


class AuthRoleRevokePermissionRequest(Message, frozen=True):
    """
    Take a permission away from a role.

    :ivar role: the role.
    :ivar key: the permission's key, exactly as it was granted.
    :ivar range_end: the permission's range end, exactly as it was granted.
    """

    role: str = ""
    key: bytes = b""
    range_end: bytes = b""


class AuthRoleRevokePermissionResponse(Response, frozen=True):
    """The role has the permission no longer."""
