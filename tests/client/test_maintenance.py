"""Status, alarms, hashes, defragmentation, leaders and downgrades, by the methods of ``client.maintenance``."""

from __future__ import annotations

from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred

from tests.client.conftest import MakeClient
from tests.etcds import ONE_VERSION, FreshEtcd
from tests.wire import soon
from twisted_etcd.client.client import EtcdClient
from twisted_etcd.errors import (
    BadLeaderTransferee,
    Compacted,
    DowngradeUnderWay,
    FutureRevision,
    InvalidDowngradeVersion,
    InvalidSettings,
    NoDowngrade,
    NoSpace,
    OutcomeUnknown,
    ServiceStopped,
    Unavailable,
    Unimplemented,
)
from twisted_etcd.schema import rpcs
from twisted_etcd.schema.kv import RangeRequest
from twisted_etcd.schema.maintenance import AlarmMember, AlarmType, DowngradeAction, StatusRequest
from twisted_etcd.testing.cluster import EtcdCluster
from twisted_etcd.testing.fixtures import NewEtcdCluster
from twisted_etcd.testing.proxy import FaultProxy

#: Servers whose gateway lacks a path.
WITHOUT_HASH_KV, WITHOUT_DOWNGRADE = ("3.4.", "3.5.1"), ("3.4.",)


def lacks(version: str, without: tuple[str, ...]) -> bool:
    return any(version.startswith(each) if each.endswith(".") else version == each for each in without)


# --- one member -----------------------------------------------------------------------------------------------------


@ensureDeferred
async def test_each_member_answers_for_itself(etcd_cluster: EtcdCluster, make_client: MakeClient) -> None:
    # It need not be one of the client's own endpoints.
    client = make_client(endpoints=etcd_cluster.endpoints[:1])
    leader = await etcd_cluster.leader()
    await client.put("hashed", "v")
    revision = (await client.get("hashed")).header.revision
    for member in etcd_cluster.members:
        status = await soon(client.maintenance.status(member.endpoint))
        assert (status.header.member_id, status.leader) == (member.id, leader.id)
        assert status.dbSize >= status.dbSizeInUse > 0
        assert (await soon(client.maintenance.hash(member.endpoint))).header.member_id == member.id
        # Defragmentation has no header: the size is what tells.
        await soon(client.maintenance.defragment(member.endpoint, timeout=20))
        answer = await soon(client.call(rpcs.RANGE, RangeRequest(key=b"hashed"), endpoint=member.endpoint))
        assert answer.header.member_id == member.id
    assert client.endpoints[0].url == etcd_cluster.endpoints[0]
    assert len(client.endpoints) == 1
    if lacks(status.version, WITHOUT_HASH_KV):
        with pytest.raises(Unimplemented, match=r"hashkv .*too old for it"):
            await soon(client.maintenance.hash_kv(leader.endpoint))
        return
    hashes = [await soon(client.maintenance.hash_kv(each, revision)) for each in etcd_cluster.endpoints]
    assert {each.header.member_id for each in hashes} == {member.id for member in etcd_cluster.members}
    assert len({(each.hash, each.compact_revision) for each in hashes}) == 1
    with pytest.raises(FutureRevision):
        await soon(client.maintenance.hash_kv(leader.endpoint, revision + 10**6))
    await client.put("hashed", "v2")
    await etcd_cluster.compact()
    with pytest.raises(Compacted):
        await soon(client.maintenance.hash_kv(leader.endpoint, 1))


@ONE_VERSION
@ensureDeferred
async def test_a_member_that_is_away_is_not_spoken_for_by_another(
    etcd_cluster: EtcdCluster, make_client: MakeClient
) -> None:
    client = make_client(endpoints=etcd_cluster.endpoints)
    away = etcd_cluster.members[0]
    await away.kill()
    await away.proxy.refuse()
    doings: list[Deferred[Any]] = [
        client.maintenance.status(away.endpoint, timeout=0.5),
        client.maintenance.hash(away.endpoint, timeout=0.5),
        client.maintenance.defragment(away.endpoint, timeout=0.5),
        client.cluster.members(endpoint=away.endpoint, timeout=0.5),
        client.call(rpcs.STATUS, StatusRequest(), endpoint=away.endpoint, timeout=0.5),
    ]
    for doing in doings:
        with pytest.raises(Unavailable) as raised:
            await soon(doing)
        assert list(raised.value.tried) == [away.endpoint]
    # Whichever serves.
    assert (await soon(client.maintenance.status())).header.member_id != away.id


@ONE_VERSION
@ensureDeferred
async def test_a_member_that_hangs_leaves_it_unknown_what_it_did(proxy: FaultProxy, make_client: MakeClient) -> None:
    client = make_client(endpoints=proxy.endpoint)
    proxy.swallow("answers")
    with pytest.raises(OutcomeUnknown, match=r"Maintenance\.Defragment got no answer within 0\.5 s"):
        await soon(client.maintenance.defragment(proxy.endpoint, timeout=0.5))
    proxy.reset()


@ensureDeferred
async def test_defragmentation_gives_space_back(fresh_etcd: FreshEtcd, make_client: MakeClient) -> None:
    server = await fresh_etcd()
    client = make_client(endpoints=server.endpoint)
    for number in range(5):
        await client.put("k", bytes([number]) * 1_000_000)
    await client.compact((await client.put("k", "small")).header.revision, physical=True)
    before = (await client.maintenance.status()).dbSize
    await client.maintenance.defragment(server.endpoint, timeout=20)
    assert (await client.maintenance.status()).dbSize < before - 3_000_000


# --- alarms ---------------------------------------------------------------------------------------------------------


@ensureDeferred
async def test_alarms_are_raised_and_taken_back(fresh_etcd: FreshEtcd, make_client: MakeClient) -> None:
    server = await fresh_etcd()
    client = make_client(endpoints=server.endpoint)
    member_id = (await client.maintenance.status()).header.member_id
    assert (await client.maintenance.alarms()).alarms == ()
    raised = (AlarmMember(member_id, AlarmType.NOSPACE),)
    assert (await client.maintenance.alarm_activate(member_id, "NOSPACE")).alarms == raised
    assert (await client.maintenance.alarms()).alarms == raised
    with pytest.raises(OutcomeUnknown) as refused:
        await client.put("k", "v")
    assert isinstance(refused.value.__cause__, NoSpace)
    assert (await client.maintenance.alarm_disarm(member_id, AlarmType.NOSPACE)).alarms == raised
    assert (await client.maintenance.alarm_disarm(member_id, "NOSPACE")).alarms == ()
    assert (await client.maintenance.alarms()).alarms == ()
    await client.put("k", "v")


@ensureDeferred
async def test_the_way_out_of_a_full_database(fresh_etcd: FreshEtcd, make_client: MakeClient) -> None:
    server = await fresh_etcd(extra_args=("--quota-backend-bytes=4194304",))
    client = make_client(endpoints=server.endpoint)
    with pytest.raises(OutcomeUnknown) as full:  # noqa: PT012
        for _ in range(20):
            await client.put("k", b"\0" * 1_000_000)
    assert isinstance(full.value.__cause__, NoSpace)
    (alarm,) = (await client.maintenance.alarms()).alarms
    assert alarm.alarm is AlarmType.NOSPACE
    await client.compact((await client.get("k")).header.revision, physical=True)
    await client.maintenance.defragment(server.endpoint, timeout=20)
    await client.maintenance.alarm_disarm(alarm.memberID, alarm.alarm)
    await client.put("k", "small again")


# --- the leader -----------------------------------------------------------------------------------------------------


@ensureDeferred
async def test_the_leadership_is_moved_whichever_endpoint_comes_first(
    etcd_cluster: EtcdCluster, make_client: MakeClient
) -> None:
    client = make_client(endpoints=etcd_cluster.endpoints)
    for member in etcd_cluster.members:
        await soon(client.maintenance.move_leader(member.id))
        assert (await etcd_cluster.leader()).id == member.id
    with pytest.raises(BadLeaderTransferee):
        await soon(client.maintenance.move_leader(5))


@ensureDeferred
async def test_the_leader_is_found_by_its_own_address_or_given(
    etcd_cluster: EtcdCluster, make_client: MakeClient
) -> None:
    leader = await etcd_cluster.leader()
    followers = [member for member in etcd_cluster.members if member is not leader]
    # A client that does not know the leader.
    client = make_client(endpoints=followers[0].endpoint)
    await soon(client.maintenance.move_leader(followers[0].id))
    assert await etcd_cluster.leader() is followers[0]
    await soon(client.maintenance.move_leader(leader.id, endpoint=followers[0].endpoint))
    assert await etcd_cluster.leader() is leader


# --- downgrades -----------------------------------------------------------------------------------------------------


@ensureDeferred
async def test_a_downgrade_is_checked_begun_and_cancelled_where_the_server_has_it(
    new_etcd_cluster: NewEtcdCluster, make_client: MakeClient
) -> None:
    cluster = await new_etcd_cluster(size=1)
    client = make_client(endpoints=cluster.endpoints)
    version = (await client.maintenance.status()).version
    if lacks(version, WITHOUT_DOWNGRADE):
        with pytest.raises(Unimplemented, match=r"downgrade .*too old for it"):
            await soon(client.maintenance.downgrade("validate", "3.3.0"))
        return
    major, minor = (int(part) for part in version.split(".")[:2])
    below = f"{major}.{minor - 1}.0"
    assert (await soon(client.maintenance.downgrade("validate", below))).version == f"{major}.{minor}.0"
    for wrong in (f"{major}.{minor + 1}.0", "first"):
        with pytest.raises(InvalidDowngradeVersion, match="one minor below"):
            await soon(client.maintenance.downgrade(DowngradeAction.VALIDATE, wrong))
    with pytest.raises(NoDowngrade):
        await soon(client.maintenance.downgrade("cancel"))
    await begins(client, "enable", below)
    with pytest.raises(DowngradeUnderWay, match="cancel it first"):
        await soon(client.maintenance.downgrade("enable", below))
    await begins(client, "cancel", "")
    with pytest.raises(NoDowngrade):
        await soon(client.maintenance.downgrade("cancel"))


async def begins(client: EtcdClient, action: Any, version: str) -> None:  # noqa: ANN401
    """3.5 does it, and does not say so."""
    doing = client.maintenance.downgrade(action, version, timeout=1)
    if (await client.maintenance.status()).version.startswith("3.5."):
        with pytest.raises(OutcomeUnknown):
            await soon(doing)
    else:
        await soon(doing)


# --- bad input, and too late ----------------------------------------------------------------------------------------


@ONE_VERSION
@pytest.mark.parametrize(
    ("method", "arguments", "kind", "text"),
    [
        ("status", (5,), TypeError, "endpoint must be a member's URL such as 'http://10.0.0.1:2379', not int"),
        ("status", ("http://a,http://b",), InvalidSettings, "names several members, and the call is for one"),
        ("hash", ("http://me:secret@host",), InvalidSettings, "has a user in it"),
        ("hash_kv", (None, "5"), TypeError, "revision must be an int, not str"),
        ("defragment", (None,), TypeError, "endpoint must be the URL of the member that is meant, not NoneType"),
        ("alarm_activate", (5, "FULL"), InvalidSettings, "alarm must be one of 'NOSPACE', 'CORRUPT', not 'FULL'"),
        ("alarm_activate", (0, "NOSPACE"), InvalidSettings, "member_id is 0, which is no member"),
        ("alarm_disarm", ("5", "NOSPACE"), TypeError, "member_id must be an int, not str"),
        ("alarm_disarm", (5, AlarmType.NONE), InvalidSettings, "alarm must be one of"),
        ("move_leader", ("5",), TypeError, "target_id must be an int, not str"),
        ("downgrade", ("begin", "3.5.0"), InvalidSettings, "'validate', 'enable', 'cancel', not 'begin'"),
        ("downgrade", ("enable",), InvalidSettings, "version is '' for 'enable': give the one to go down to"),
        ("downgrade", ("cancel", "3.5.0"), InvalidSettings, "version is '3.5.0' for 'cancel': leave it out"),
        ("downgrade", ("enable", 3.5), TypeError, "version must be a str, not float"),
    ],
)
@ensureDeferred
async def test_what_cannot_be_used_is_named_at_once(
    client: EtcdClient, method: str, arguments: tuple[Any, ...], kind: type[Exception], text: str
) -> None:
    with pytest.raises(kind, match=text) as raised:
        getattr(client.maintenance, method)(*arguments)
    assert "secret" not in str(raised.value)


@ONE_VERSION
@ensureDeferred
async def test_after_its_stop_a_client_asks_nothing(client: EtcdClient) -> None:
    await client.stopService()
    for doing in (
        client.maintenance.status(),
        client.maintenance.move_leader(5),
        client.cluster.members(),
        client.auth.user_list(),
    ):
        with pytest.raises(ServiceStopped):
            await doing
