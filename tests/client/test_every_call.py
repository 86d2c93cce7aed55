"""Every call of the table, made to real servers: that none is left out is counted on both sides."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import pytest
import treq
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from tests.client.conftest import MakeClient
from tests.client.users import CHEAP, ROOT
from tests.etcds import http_client
from tests.wire import soon
from twisted_etcd.client import compare, op
from twisted_etcd.client.client import EtcdClient
from twisted_etcd.errors import LearnerNotReady, Unimplemented
from twisted_etcd.gateway.endpoints import parse_endpoint
from twisted_etcd.schema import rpcs
from twisted_etcd.schema.answers import StreamFrame
from twisted_etcd.schema.auth import AuthenticateRequest
from twisted_etcd.schema.common import Message
from twisted_etcd.schema.election import CampaignRequest, LeaderRequest, ProclaimRequest, ResignRequest
from twisted_etcd.schema.lock import LockRequest, UnlockRequest
from twisted_etcd.schema.rpcs import ALL, RPC
from twisted_etcd.testing.cluster import EtcdCluster
from twisted_etcd.testing.fixtures import NewEtcdCluster

#: The calls that a server's gateway does not have, by the beginning of its version; every other one has all.
LACKS: dict[str, set[RPC[Any, Any]]] = {
    "3.4": {rpcs.HASH_KV, rpcs.AUTH_STATUS, rpcs.DOWNGRADE},
    "3.5.1": {rpcs.HASH_KV},
}
#: What the protos call the services in etcd's metrics.
PACKAGES = {"Lock": "v3lockpb", "Election": "v3electionpb"}


def lacking(version: str) -> set[RPC[Any, Any]]:
    return next((lacks for each, lacks in LACKS.items() if f"{version}.".startswith(f"{each}.")), set())


class Answered:
    """The answers that were decoded, by the call that they are answers to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.by_call: dict[RPC[Any, Any], list[Message]] = {}
        decode, decode_frame = RPC.decode, RPC.decode_frame

        def decodes(rpc: RPC[Any, Any], body: bytes) -> Message:
            return self._note(rpc, decode(rpc, body))

        def decodes_frame(rpc: RPC[Any, Any], line: bytes) -> StreamFrame[Message]:
            frame: StreamFrame[Message] = decode_frame(rpc, line)
            if frame.failure() is None and frame.result is not None:
                self._note(rpc, frame.result)
            return frame

        monkeypatch.setattr(RPC, "decode", decodes)
        monkeypatch.setattr(RPC, "decode_frame", decodes_frame)

    def _note(self, rpc: RPC[Any, Any], answer: Message) -> Message:
        assert type(answer) is rpc.response
        self.by_call.setdefault(rpc, []).append(answer)
        return answer


class First:
    """Receives a stream, and waits for its first answer."""

    def __init__(self, rpc: RPC[Any, Any]) -> None:
        self.answer: Deferred[Message] = Deferred()
        self._rpc = rpc

    def messages_received(self, messages: Iterable[bytes]) -> None:
        for message in messages:
            frame = self._rpc.decode_frame(message)
            assert frame.result is not None
            if not self.answer.called:
                self.answer.callback(frame.result)

    def stream_ended(self, reason: Failure) -> None:
        if not self.answer.called:
            self.answer.errback(reason)


async def key_values_and_leases(client: EtcdClient) -> None:
    put = await client.put("walk", "v")
    assert (await client.get("walk")).kvs[0].value == b"v"
    assert (await client.txn([compare.value("walk", "=", "v")], [op.put("walk", "w")])).succeeded
    watch = client.watch("walk", start_revision=put.header.revision)
    assert (await soon(watch.next())).events[0].kv.value == b"v"
    await soon(watch.stop())
    assert (await client.delete("walk")).deleted == 1
    await client.compact(put.header.revision)
    lease = await client.lease(60)
    assert await lease.keepalive_once() == 60
    assert (await client.lease_time_to_live(lease.id)).grantedTTL == 60
    assert lease.id in {each.ID for each in (await client.leases()).leases}
    await lock_and_election(client, lease.id)
    await client.lease_revoke(lease.id)


async def lock_and_election(client: EtcdClient, lease: int) -> None:
    locked = await client.call(rpcs.LOCK, LockRequest(name=b"lock", lease=lease))
    assert locked.key.startswith(b"lock/")
    await client.call(rpcs.UNLOCK, UnlockRequest(key=locked.key))
    won = await client.call(rpcs.CAMPAIGN, CampaignRequest(name=b"election", lease=lease, value=b"me"))
    await client.call(rpcs.PROCLAIM, ProclaimRequest(leader=won.leader, value=b"still me"))
    leads = await client.call(rpcs.LEADER, LeaderRequest(name=b"election"))
    assert leads.kv.value == b"still me"
    first = First(rpcs.OBSERVE)
    gateway = client._gateway  # noqa: SLF001 - the client has no method for this stream
    body = rpcs.OBSERVE.encode(LeaderRequest(name=b"election"))
    endpoint = parse_endpoint(client.endpoints[0].url)
    stream = await soon(gateway.open_post_stream(rpcs.OBSERVE, body, first, endpoint=endpoint))
    assert cast("Any", await soon(first.answer)).kv.value == b"still me"
    await soon(stream.close())
    await client.call(rpcs.RESIGN, ResignRequest(leader=won.leader))


async def maintenance(client: EtcdClient, version: str, path: Path) -> None:
    status = await client.maintenance.status()
    endpoint = client.endpoints[0].url
    await client.maintenance.alarms()
    await client.maintenance.defragment(endpoint)
    assert (await client.maintenance.hash(endpoint)).hash
    assert (await soon(client.maintenance.snapshot(path))).size == path.stat().st_size
    await client.maintenance.move_leader(status.leader)
    await unless_lacking(rpcs.HASH_KV, client.maintenance.hash_kv(endpoint), version)
    below = f"3.{int(version.split('.')[1]) - 1}.0"
    await unless_lacking(rpcs.DOWNGRADE, client.maintenance.downgrade("validate", below), version)


async def unless_lacking(rpc: RPC[Any, Any], asking: Deferred[Any], version: str) -> None:
    if rpc in lacking(version):
        with pytest.raises(Unimplemented, match=f"the server has no {rpc.path}"):
            await soon(asking)
    else:
        await soon(asking)


async def members(client: EtcdClient, cluster: EtcdCluster) -> None:
    added = (await client.cluster.member_add("http://127.0.0.1:1", learner=True)).member
    await client.cluster.member_update(added.ID, "http://127.0.0.1:2")
    await client.cluster.member_remove(added.ID)
    assert len((await client.cluster.members()).members) == 1
    learner = await cluster.add_member(learner=True)
    promoted = False
    while not promoted:
        with suppress(LearnerNotReady):
            await client.cluster.member_promote(learner.id)
            promoted = True
        await deferLater(cast("Any", reactor), 0.1)


async def users(client: EtcdClient, root: EtcdClient, version: str) -> None:
    await unless_lacking(rpcs.AUTH_STATUS, client.auth.status(), version)
    await client.auth.user_add("root", ROOT["password"])
    await client.auth.role_add("root")
    await client.auth.user_grant_role("root", "root")
    await client.auth.enable()
    assert (await root.call(rpcs.AUTHENTICATE, AuthenticateRequest("root", ROOT["password"]))).token
    await root.auth.user_add("user", "a password")
    await root.auth.user_change_password("user", "another password")
    await root.auth.role_add("role")
    await root.auth.role_grant_permission("role", "k", prefix=True)
    await root.auth.user_grant_role("user", "role")
    assert (await root.auth.user_list()).users == ("root", "user")
    assert (await root.auth.user_get("user")).roles == ("role",)
    assert (await root.auth.role_list()).roles == ("role", "root")
    assert [str(each) for each in (await root.auth.role_get("role")).perm] == [
        "readwrite: all keys that begin with b'k'"
    ]
    await root.auth.role_revoke_permission("role", "k", prefix=True)
    await root.auth.user_revoke_role("user", "role")
    await root.auth.role_delete("role")
    await root.auth.user_delete("user")
    await root.auth.disable()


async def sent_by(endpoint: str) -> set[str]:
    """The calls that a server has sent answers to, by its own count."""
    response = await http_client().get(f"{endpoint}/metrics")
    metrics = await treq.text_content(response)
    pattern = r'^grpc_server_msg_sent_total\{grpc_method="(\w+)",grpc_service="([\w.]+)".*\} (\S+)$'
    counts = re.findall(pattern, metrics, re.MULTILINE)
    return {f"{service}.{method}" for method, service, count in counts if float(count) > 0}


@ensureDeferred
async def test_every_call_is_answered_by_a_real_server_and_its_answer_is_read(
    new_etcd_cluster: NewEtcdCluster, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cluster = await new_etcd_cluster(size=1, extra_args=(CHEAP,))
    member = cluster.members[0]
    client = make_client(endpoints=member.direct_endpoint)
    root = make_client(endpoints=member.direct_endpoint, **ROOT)
    version = (await client.maintenance.status()).version
    answered = Answered(monkeypatch)
    await key_values_and_leases(client)
    await maintenance(client, version, tmp_path / "snapshot")
    await members(client, cluster)
    await users(client, root, version)
    expected = set(ALL) - lacking(version)
    assert {rpc.name for rpc in answered.by_call} == {rpc.name for rpc in expected}
    sent = await sent_by(member.direct_endpoint)
    for rpc in expected:
        service, method = rpc.name.split(".")
        assert f"{PACKAGES.get(service, 'etcdserverpb')}.{service}.{method}" in sent, rpc.name
