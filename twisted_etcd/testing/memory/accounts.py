"""etcd's Auth service: which request does what with the users."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from twisted_etcd.schema import auth, rpcs
from twisted_etcd.schema.common import Message
from twisted_etcd.schema.rpcs import RPC
from twisted_etcd.testing.memory.users import Users


def answers(users: Users) -> Mapping[RPC[Any, Any], Callable[[Any], Message]]:
    """The calls that are answered with something."""
    return {
        rpcs.AUTH_STATUS: lambda _: auth.AuthStatusResponse(enabled=users.enabled, authRevision=users.revision),
        rpcs.AUTHENTICATE: lambda asked: auth.AuthenticateResponse(
            token=users.authenticate(asked.name, asked.password)
        ),
        rpcs.USER_GET: lambda asked: auth.AuthUserGetResponse(roles=tuple(users.user(asked.name).roles)),
        rpcs.USER_LIST: lambda _: auth.AuthUserListResponse(users=users.user_names()),
        rpcs.ROLE_GET: lambda asked: auth.AuthRoleGetResponse(perm=users.permissions_of(asked.role)),
        rpcs.ROLE_LIST: lambda _: auth.AuthRoleListResponse(roles=users.role_names()),
    }


def changes(users: Users) -> Mapping[RPC[Any, Any], Callable[[Any], None]]:
    """The calls that change something, and are answered with nothing but a header."""

    def add_user(asked: auth.AuthUserAddRequest) -> None:
        without = asked.options is not None and asked.options.no_password
        users.add_user(asked.name, None if without else asked.password)

    return {
        rpcs.AUTH_ENABLE: lambda _: users.enable(),
        rpcs.AUTH_DISABLE: lambda _: users.disable(),
        rpcs.USER_ADD: add_user,
        rpcs.USER_DELETE: lambda asked: users.delete_user(asked.name),
        rpcs.USER_CHANGE_PASSWORD: lambda asked: users.change_password(asked.name, asked.password),
        rpcs.USER_GRANT_ROLE: lambda asked: users.grant_role(asked.user, asked.role),
        rpcs.USER_REVOKE_ROLE: lambda asked: users.revoke_role(asked.name, asked.role),
        rpcs.ROLE_ADD: lambda asked: users.add_role(asked.name),
        rpcs.ROLE_DELETE: lambda asked: users.delete_role(asked.role),
        rpcs.ROLE_GRANT_PERMISSION: lambda asked: users.grant_permission(asked.name, asked.perm),
        rpcs.ROLE_REVOKE_PERMISSION: lambda asked: users.revoke_permission(asked.role, asked.key, asked.range_end),
    }
