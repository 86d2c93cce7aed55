"""Users, roles and permissions, by the methods of ``client.auth``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import pytest_twisted
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.defer import Deferred

from tests.client.conftest import MakeClient
from tests.client.users import CHEAP
from tests.etcds import FreshEtcd, new_etcd
from tests.wire import soon
from twisted_etcd.client.client import EtcdClient
from twisted_etcd.embedded.process import EmbeddedEtcd
from twisted_etcd.errors import (
    AuthenticationFailed,
    EtcdError,
    InvalidAuthManagement,
    InvalidSettings,
    PermissionDenied,
    PermissionNotGranted,
    RoleExists,
    RoleNotFound,
    RoleNotGranted,
    RootRoleMissing,
    RootUserMissing,
    Unimplemented,
    UserEmpty,
    UserExists,
    UserNotFound,
)
from twisted_etcd.schema.auth import PermissionType

#: Servers without ``auth/status``.
NO_STATUS = "3.4"
ROOTS, USERS = "root's own password", "user's own password"


@pytest.fixture(scope="module")
def open_etcd(etcd_binary: Path) -> Iterator[EmbeddedEtcd]:
    """An etcd of each version with authentication off, for users and roles of many tests: each has names of its own."""
    server = new_etcd(etcd_binary, extra_args=(CHEAP,))
    server.startService()
    try:
        pytest_twisted.blockon(server.when_ready())
        yield server
    finally:
        pytest_twisted.blockon(server.stopService())


@pytest.fixture
def client(open_etcd: EmbeddedEtcd, make_client: MakeClient) -> EtcdClient:
    return make_client(endpoints=open_etcd.endpoint)


# --- the walk -------------------------------------------------------------------------------------------------------


@ensureDeferred
async def test_from_no_users_to_users_and_back(fresh_etcd: FreshEtcd, make_client: MakeClient, tmp_path: Path) -> None:
    server = await fresh_etcd(extra_args=(CHEAP,))
    nobody = make_client(endpoints=server.endpoint)
    root = make_client(endpoints=server.endpoint, username="root", password=ROOTS)
    user = make_client(endpoints=server.endpoint, username="user", password=USERS)
    with pytest.raises(RootUserMissing):
        await nobody.auth.enable()
    await nobody.auth.user_add("root", ROOTS)
    with pytest.raises(RootRoleMissing):
        await nobody.auth.enable()
    await nobody.auth.role_add("root")
    await nobody.auth.user_grant_role("root", "root")
    await nobody.auth.user_add("user", USERS)
    await nobody.auth.role_add("app")
    await nobody.auth.role_grant_permission("app", "app/", prefix=True)
    await nobody.auth.role_grant_permission("app", "shared", "read")
    await nobody.auth.user_grant_role("user", "app")
    # Both were used before, when there was no token to be had.
    await root.put("app/1", "by root")
    await user.put("app/2", "by the user")

    await root.auth.enable()
    doings: list[Deferred[Any]] = [nobody.get("app/1"), nobody.put("app/1", "v"), nobody.auth.disable()]
    for doing in (*doings, nobody.auth.user_list()):
        with pytest.raises(UserEmpty):
            await soon(doing)
    # Without a token, and with one that is fetched now.
    assert (await root.get("app/", prefix=True)).count == 2
    await user.put("app/3", "by the user")
    await root.put("shared", "by root")
    assert (await user.get("shared")).kvs[0].value == b"by root"
    forbidden: list[Deferred[Any]] = [
        user.put("shared", "v"),
        user.get("others"),
        user.get("app/", from_key=True),
        user.delete("", prefix=True),
        user.auth.user_add("another", "password"),
        user.auth.role_grant_permission("app", "others"),
        user.auth.user_get("root"),
        user.auth.disable(),
        user.maintenance.defragment(server.endpoint),
        user.cluster.member_remove(5),
    ]
    for each in forbidden:
        with pytest.raises(PermissionDenied):
            await soon(each)
    # What a user may know of itself.
    assert (await user.auth.user_get("user")).roles == ("app",)
    assert (await user.auth.role_get("app")).perm
    aways: list[Deferred[Any]] = [
        root.auth.user_delete("root"),
        root.auth.role_delete("root"),
        root.auth.user_revoke_role("root", "root"),
    ]
    for away in aways:
        with pytest.raises(InvalidAuthManagement, match="switch authentication off first"):
            await soon(away)
    # A permission that is taken away is gone at once.
    await root.auth.role_revoke_permission("app", "app/", prefix=True)
    with pytest.raises(PermissionDenied):
        await user.get("app/1")
    await root.auth.user_change_password("user", "another one")
    with pytest.raises(AuthenticationFailed) as raised:
        await user.get("shared")
    assert USERS not in str(raised.value)
    anew = make_client(endpoints=server.endpoint, username="user", password="another one")
    assert (await anew.get("shared")).count == 1

    await root.auth.disable()
    for each_client in (nobody, root, user, anew):
        await each_client.put("others", "v")
        assert (await each_client.get("app/1")).count == 1


@ensureDeferred
async def test_the_status_says_whether_it_is_on(fresh_etcd: FreshEtcd, make_client: MakeClient) -> None:
    server = await fresh_etcd(extra_args=(CHEAP,))
    client = make_client(endpoints=server.endpoint, username="root", password=ROOTS)
    if server.version.startswith(NO_STATUS):
        with pytest.raises(Unimplemented, match="the server has no /v3/auth/status"):
            await client.auth.status()
        return
    assert not (await client.auth.status()).enabled
    await client.auth.user_add("root", ROOTS)
    await client.auth.role_add("root")
    await client.auth.user_grant_role("root", "root")
    await client.auth.enable()
    status = await client.auth.status()
    assert status.enabled
    assert status.authRevision > 1
    await client.auth.disable()
    assert not (await client.auth.status()).enabled


# --- users ----------------------------------------------------------------------------------------------------------


@ensureDeferred
async def test_users_come_and_go(client: EtcdClient) -> None:
    await client.auth.user_add("ann", "a password")
    await client.auth.user_add("bob", no_password=True)
    assert {"ann", "bob"} <= set((await client.auth.user_list()).users)
    with pytest.raises(UserExists):
        await client.auth.user_add("ann", "another password")
    assert (await client.auth.user_get("ann")).roles == ()
    for role in ("writers", "readers"):
        await client.auth.role_add(role)
        await client.auth.user_grant_role("ann", role)
    # Once more does nothing.
    await client.auth.user_grant_role("ann", "readers")
    assert (await client.auth.user_get("ann")).roles == ("readers", "writers")
    await client.auth.user_revoke_role("ann", "writers")
    assert (await client.auth.user_get("ann")).roles == ("readers",)
    with pytest.raises(RoleNotGranted):
        await client.auth.user_revoke_role("ann", "writers")
    await client.auth.user_delete("ann")
    assert "ann" not in (await client.auth.user_list()).users


@pytest.mark.parametrize(
    ("method", "arguments", "kind"),
    [
        ("user_get", ("nobody",), UserNotFound),
        ("user_delete", ("nobody",), UserNotFound),
        ("user_change_password", ("nobody", "a password"), UserNotFound),
        ("user_grant_role", ("nobody", "nothing"), UserNotFound),
        ("user_revoke_role", ("nobody", "nothing"), UserNotFound),
        ("role_get", ("nothing",), RoleNotFound),
        ("role_delete", ("nothing",), RoleNotFound),
        ("role_grant_permission", ("nothing", "key"), RoleNotFound),
        ("role_revoke_permission", ("nothing", "key"), RoleNotFound),
    ],
)
@ensureDeferred
async def test_what_is_not_there_is_told_by_name(
    client: EtcdClient, method: str, arguments: tuple[str, ...], kind: type[EtcdError]
) -> None:
    with pytest.raises(kind):
        await getattr(client.auth, method)(*arguments)


# --- roles ----------------------------------------------------------------------------------------------------------


@ensureDeferred
async def test_permissions_are_shown_as_they_were_meant(client: EtcdClient) -> None:
    await client.auth.role_add("shown")
    with pytest.raises(RoleExists):
        await client.auth.role_add("shown")
    given: list[tuple[dict[str, Any], str]] = [
        ({"key": "", "perm": "read", "prefix": True}, "read: all keys"),
        ({"key": b"\xff", "perm": PermissionType.WRITE}, r"write: the key b'\xff'"),
        ({"key": "a", "perm": "write"}, "write: the key b'a'"),
        ({"key": "f", "from_key": True}, "readwrite: all keys from b'f' on"),
        ({"key": "p/", "prefix": True}, "readwrite: all keys that begin with b'p/'"),
        ({"key": "x", "perm": "READ", "range_end": "z"}, "read: all keys from b'x' to before b'z'"),
    ]
    for options, _ in given:
        await client.auth.role_grant_permission("shown", **options)
    permissions = (await client.auth.role_get("shown")).perm
    assert {str(each) for each in permissions} == {text for _, text in given}
    assert {each.keys.prefix for each in permissions} == {b"", b"p/", None}
    # The same keys again: in place of what was there.
    await client.auth.role_grant_permission("shown", "a", "readwrite")
    texts = [str(each) for each in (await client.auth.role_get("shown")).perm]
    assert "readwrite: the key b'a'" in texts
    assert len(texts) == len(given)
    with pytest.raises(PermissionNotGranted):
        await client.auth.role_revoke_permission("shown", "p/")
    for options, _ in given:
        await client.auth.role_revoke_permission("shown", **{k: v for k, v in options.items() if k != "perm"})
    assert (await client.auth.role_get("shown")).perm == ()
    assert "shown" in (await client.auth.role_list()).roles
    await client.auth.role_delete("shown")
    assert "shown" not in (await client.auth.role_list()).roles


# --- bad input ------------------------------------------------------------------------------------------------------

SECRET = "never-to-be-seen"


@pytest.mark.parametrize(
    ("method", "arguments", "options", "kind", "text"),
    [
        ("user_add", ("",), {"password": SECRET}, InvalidSettings, "name is empty"),
        ("user_add", (5, SECRET), {}, TypeError, "name must be a str, not int"),
        ("user_add", ("u",), {}, InvalidSettings, "user 'u' has no password: give one, or no_password=True"),
        ("user_add", ("u", ""), {}, InvalidSettings, "the password of user 'u' is empty"),
        ("user_add", ("u", [SECRET]), {}, TypeError, "password must be a str, not list"),
        ("user_add", ("u", SECRET.encode()), {}, TypeError, "password must be a str, not bytes"),
        ("user_add", ("u", SECRET), {"no_password": True}, InvalidSettings, "give one of password and no_password"),
        ("user_add", ("u", SECRET), {"no_password": 1}, TypeError, "no_password must be True or False, not int"),
        ("user_get", (None,), {}, TypeError, "name must be a str, not NoneType"),
        ("user_change_password", ("u", 1234), {}, TypeError, "password must be a str, not int"),
        ("user_change_password", ("u", ""), {}, InvalidSettings, "the password of user 'u' is empty"),
        ("user_grant_role", ("u", 5), {}, TypeError, "role must be a str, not int"),
        ("user_grant_role", ("u", ""), {}, InvalidSettings, "role is empty"),
        ("role_add", ("",), {}, InvalidSettings, "name is empty"),
        ("role_grant_permission", ("r", 5), {}, TypeError, "key must be str or bytes, not int"),
        ("role_grant_permission", ("r", ""), {}, InvalidSettings, "key is empty.*prefix=True for all keys"),
        ("role_grant_permission", ("r", "k", "all"), {}, InvalidSettings, "'read', 'write', 'readwrite', not 'all'"),
        ("role_grant_permission", ("r", "k", 5), {}, InvalidSettings, "perm must be one of .*, not 5"),
        ("role_grant_permission", ("r", "z"), {"range_end": "a"}, InvalidSettings, "no key is between"),
        ("role_grant_permission", ("r", "z"), {"range_end": "z"}, InvalidSettings, "no key is between"),
        ("role_grant_permission", ("r", "z"), {"range_end": ""}, ValueError, "range_end is empty"),
        ("role_grant_permission", ("r", "k"), {"prefix": True, "from_key": True}, ValueError, "not several"),
        ("role_revoke_permission", ("r", ""), {}, InvalidSettings, "key is empty"),
        ("role_list", (), {"timeout": -1}, ValueError, "timeout must be more than 0 seconds"),
    ],
)
def test_what_cannot_be_used_is_named_at_once_and_no_password_is_shown(
    method: str, arguments: tuple[Any, ...], options: dict[str, Any], kind: type[Exception], text: str
) -> None:
    auth = EtcdClient(cast("Any", reactor), "http://127.0.0.1:1").auth
    with pytest.raises(kind, match=text) as raised:
        getattr(auth, method)(*arguments, **options)
    assert SECRET not in str(raised.value)
    assert "1234" not in str(raised.value)
