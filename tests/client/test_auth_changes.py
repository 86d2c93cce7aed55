"""Users, passwords and tokens that change under clients and watches that run, on each version of etcd."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
import pytest_twisted
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred, gatherResults

from tests.client.conftest import MakeClient, proxy_before
from tests.client.users import (
    CHEAP,
    ROOT,
    USER,
    add_users,
    authentications,
    change_password,
    disable,
    enable,
    grant_role,
    revoke_role,
    set_up,
)
from tests.etcds import FreshEtcd
from tests.said import Said
from tests.wire import soon
from twisted_etcd.client import compare, op
from twisted_etcd.client.client import EtcdClient
from twisted_etcd.client.watch import Watch
from twisted_etcd.embedded.process import EmbeddedEtcd
from twisted_etcd.errors import AuthenticationFailed, PermissionDenied, UserEmpty
from twisted_etcd.schema import rpcs
from twisted_etcd.schema.auth import AuthUserDeleteRequest
from twisted_etcd.testing.proxy import FaultProxy

CARRIERS = pytest.mark.parametrize("own_streams", [16, 0], ids=["own-streams", "shared"])
KEY = "/test/k"


class Guarded(NamedTuple):
    """An etcd of this test's own with authentication on, and a proxy for those who are not root."""

    server: EmbeddedEtcd
    proxy: FaultProxy
    as_root: EtcdClient


@pytest.fixture
def open_etcd(fresh_etcd: FreshEtcd) -> EmbeddedEtcd:
    """An etcd of this test's own with authentication off."""
    server: EmbeddedEtcd = pytest_twisted.blockon(fresh_etcd(extra_args=(CHEAP,)))
    return server


@pytest.fixture
def own_proxy(open_etcd: EmbeddedEtcd) -> Iterator[FaultProxy]:
    proxy = proxy_before(open_etcd)
    yield proxy
    pytest_twisted.blockon(proxy.stopService())


@pytest.fixture
def guarded(open_etcd: EmbeddedEtcd, own_proxy: FaultProxy, make_client: MakeClient) -> Guarded:
    pytest_twisted.blockon(Deferred.fromCoroutine(set_up(open_etcd)))
    return Guarded(open_etcd, own_proxy, make_client(endpoints=open_etcd.endpoint, **ROOT))


async def next_value(watch: Watch) -> bytes:
    (event,) = (await soon(watch.next())).events
    return event.kv.value


# --- permission -----------------------------------------------------------------------------------------------------


@ensureDeferred
async def test_what_is_not_allowed_is_refused_whole_and_nothing_of_it_is_done(
    guarded: Guarded, make_client: MakeClient
) -> None:
    user = make_client(endpoints=guarded.server.endpoint, **USER)
    await guarded.as_root.put("/secret", "s")
    before = (await user.put(KEY, "v")).header.revision
    refused: list[Deferred[Any]] = [
        user.get("/secret"),
        user.get("/tes", prefix=True),
        user.get("", prefix=True),
        user.put("/secret", "mine"),
        user.put(KEY, "w", lease=(await lease_with(guarded.as_root, "/secret")).id) if False else user.put("/", "x"),
        user.delete("/secret"),
        user.delete("/tes", prefix=True),
        user.txn(success=[op.put(KEY, "w"), op.put("/secret", "mine")]),
        user.txn(success=[op.put(KEY, "w"), op.get("/secret")]),
        user.txn(success=[op.put(KEY, "w"), op.delete("/secret")]),
        # The branch that is not taken counts as well.
        user.txn(success=[op.put(KEY, "w")], failure=[op.put("/secret", "mine")]),
        user.txn([compare.value("/secret") == "s"], success=[op.put(KEY, "w")]),
    ]
    for asking in refused:
        with pytest.raises(PermissionDenied, match="permission denied"):
            await soon(asking)
    after = await guarded.as_root.get("", prefix=True)
    assert {kv.key: kv.value for kv in after.kvs} == {b"/secret": b"s", KEY.encode(): b"v"}
    assert after.header.revision == before
