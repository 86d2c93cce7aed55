"""Users of an etcd with authentication on, and what it counts of them."""

from __future__ import annotations

import re

import treq
from twisted.internet import reactor

from tests.etcds import http_client
from twisted_etcd.client.client import EtcdClient
from twisted_etcd.embedded.process import EmbeddedEtcd
from twisted_etcd.keys import prefix_end
from twisted_etcd.schema import rpcs
from twisted_etcd.schema.auth import (
    AuthDisableRequest,
    AuthEnableRequest,
    AuthRoleAddRequest,
    AuthRoleGrantPermissionRequest,
    AuthUserAddRequest,
    AuthUserChangePasswordRequest,
    AuthUserGrantRoleRequest,
    AuthUserRevokeRoleRequest,
    Permission,
    PermissionType,
)

ROOT = {"username": "root", "password": "root's password"}
USER = {"username": "user", "password": "user's password"}
#: bcrypt is slow on purpose.
CHEAP = "--bcrypt-cost=4"


async def add_users(client: EtcdClient) -> None:
    """root, who may do all, and a user, who may read and write what begins with ``/test``."""
    await client.call(rpcs.USER_ADD, AuthUserAddRequest(name="root", password=ROOT["password"]))
    await client.call(rpcs.USER_ADD, AuthUserAddRequest(name="user", password=USER["password"]))
    await client.call(rpcs.ROLE_ADD, AuthRoleAddRequest(name="root"))
    await client.call(rpcs.ROLE_ADD, AuthRoleAddRequest(name="tester"))
    mine = Permission(permType=PermissionType.READWRITE, key=b"/test", range_end=prefix_end(b"/test"))
    await client.call(rpcs.ROLE_GRANT_PERMISSION, AuthRoleGrantPermissionRequest(name="tester", perm=mine))
    await client.call(rpcs.USER_GRANT_ROLE, AuthUserGrantRoleRequest(user="root", role="root"))
    await client.call(rpcs.USER_GRANT_ROLE, AuthUserGrantRoleRequest(user="user", role="tester"))


async def enable(client: EtcdClient) -> None:
    await client.call(rpcs.AUTH_ENABLE, AuthEnableRequest())


async def disable(as_root: EtcdClient) -> None:
    await as_root.call(rpcs.AUTH_DISABLE, AuthDisableRequest())


async def set_up(server: EmbeddedEtcd) -> None:
    """Both users, and authentication on."""
    await server.when_ready()
    async with EtcdClient(reactor, server.endpoint) as client:
        await add_users(client)
        await enable(client)


async def change_password(as_root: EtcdClient, password: str) -> None:
    """Of the user, whose tokens etcd forgets by that."""
    await as_root.call(rpcs.USER_CHANGE_PASSWORD, AuthUserChangePasswordRequest(USER["username"], password))


async def revoke_role(as_root: EtcdClient) -> None:
    """So that the user may do nothing."""
    await as_root.call(rpcs.USER_REVOKE_ROLE, AuthUserRevokeRoleRequest(name="user", role="tester"))


async def grant_role(as_root: EtcdClient) -> None:
    await as_root.call(rpcs.USER_GRANT_ROLE, AuthUserGrantRoleRequest(user="user", role="tester"))


async def authentications(server: EmbeddedEtcd) -> int:
    """How often etcd was asked for a token, whatever it answered."""
    response = await http_client().get(f"{server.endpoint}/metrics")
    metrics = await treq.text_content(response)
    counts = re.findall(r'^grpc_server_handled_total\{.*grpc_method="Authenticate".*\} (\d+)$', metrics, re.MULTILINE)
    return sum(map(int, counts))
