"""The cluster for tests does to its members what it says, with each version of etcd."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from tests.etcds import ONE_VERSION
from tests.wire import LOOPBACK, Peer, connect, soon
from twisted_etcd.client.client import EtcdClient
from twisted_etcd.embedded import place
from twisted_etcd.embedded.ports import free_ports
from twisted_etcd.errors import BinaryNotFound, Compacted, RequestFailed, ServiceStopped, StartFailed
from twisted_etcd.schema import rpcs
from twisted_etcd.schema.cluster import MemberListRequest
from twisted_etcd.schema.lease import LeaseKeepAliveRequest
from twisted_etcd.testing.cluster import EtcdCluster
from twisted_etcd.testing.fixtures import NewEtcdCluster
from twisted_etcd.testing.member import ClusterMember, ILabReactor

REACTOR = cast("ILabReactor", reactor)
#: Seconds for a request that will not be answered.
BRIEFLY = 0.7


def client_of(cluster: EtcdCluster) -> EtcdClient:
    return EtcdClient(cast("Any", reactor), cluster.endpoints)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Ask until it is so, as long as the patience of tests lasts."""

    async def asking() -> None:
        while not await condition():
            await deferLater(reactor, 0.02)

    await soon(Deferred.fromCoroutine(asking()))


async def names_in_etcd(cluster: EtcdCluster) -> set[str]:
    async with (await cluster.leader()).client() as client:
        answer = await client.call(rpcs.MEMBER_LIST, MemberListRequest())
    return {each.name for each in answer.members}


async def sees_no_leader(member: ClusterMember) -> None:
    async def leaderless() -> bool:
        return (await member.status(5.0)).leader == 0

    await until(leaderless)


def state_of(pid: int) -> str:
    """The letter that the kernel has for what a process does; "gone" where there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8").rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return "gone"


async def until_stopped(member: ClusterMember) -> None:
    """The kernel takes a moment to stop all threads of a process."""

    async def stopped() -> bool:
        return member.pid is not None and state_of(member.pid) == "T"

    await until(stopped)


# --- the whole ------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_it_is_ready_with_three_members_that_follow_one_leader(etcd_cluster: EtcdCluster, prefix: str) -> None:
    leader = await etcd_cluster.leader()
    assert [member.name for member in etcd_cluster.members] == ["m0", "m1", "m2"]
    assert etcd_cluster.member(leader.name) is leader
    for member in etcd_cluster.members:
        assert (await member.status(5.0)).leader == leader.id
        async with EtcdClient(cast("Any", reactor), member.endpoint) as client:
            await client.put(f"{prefix}{member.name}", "1")
    async with client_of(etcd_cluster) as client:
        assert (await client.get(prefix, prefix=True)).count == 3


@pytest_twisted.ensureDeferred
async def test_etcd_tells_clients_of_the_addresses_that_faults_are_done_to(etcd_cluster: EtcdCluster) -> None:
    async with client_of(etcd_cluster) as client:
        answer = await client.call(rpcs.MEMBER_LIST, MemberListRequest())
    assert {each.clientURLs for each in answer.members} == {(endpoint,) for endpoint in etcd_cluster.endpoints}


@pytest_twisted.ensureDeferred
async def test_the_proxy_is_before_the_endpoint_and_not_before_the_direct_one(etcd_cluster: EtcdCluster) -> None:
    member = etcd_cluster.members[0]
    member.proxy.swallow()
    async with EtcdClient(cast("Any", reactor), member.endpoint) as client:
        with pytest.raises(RequestFailed):
            await client.get("\0", timeout=BRIEFLY)
    async with EtcdClient(cast("Any", reactor), member.direct_endpoint) as client:
        await client.get("\0")


@pytest_twisted.ensureDeferred
async def test_a_stop_leaves_nothing_of_paused_dead_and_isolated_members(new_etcd_cluster: NewEtcdCluster) -> None:
    cluster = await new_etcd_cluster()
    pids = cluster.pids
    assert len(pids) == 4
    directory = data_directory(cluster.members[0])
    assert directory.is_dir()
    cluster.members[0].pause()
    await cluster.members[1].kill()
    cluster.members[2].isolate()
    await soon(cluster.stopService())
    assert {state_of(pid) for pid in pids} == {"gone"}
    assert not directory.parent.parent.exists()
    assert cluster.members == ()
    assert cluster.pids == frozenset()


def data_directory(member: ClusterMember) -> Path:
    arguments = Path(f"/proc/{member.pid}/cmdline").read_bytes().split(b"\0")
    return Path(next(each for each in arguments if each.startswith(b"--data-dir=")).decode().split("=", 1)[1])


@ONE_VERSION
@pytest_twisted.ensureDeferred
async def test_a_stop_during_the_start_leaves_nothing(etcd_binary: Path) -> None:
    cluster = EtcdCluster(REACTOR, binary=etcd_binary)
    cluster.startService()
    ready = cluster.when_ready()
    await soon(cluster.stopService())
    with pytest.raises(ServiceStopped):
        await ready


@ONE_VERSION
@pytest_twisted.ensureDeferred
async def test_a_stop_ends_what_is_waited_for(new_etcd_cluster: NewEtcdCluster) -> None:
    cluster = await new_etcd_cluster()
    for member in cluster.members[:2]:
        await member.kill()
    member = cluster.members[2]
    member.isolate()
    waiting: list[Deferred[Any]] = [cluster.leader(), cluster.heal(), cluster.add_member(), member.rejoin()]
    await soon(cluster.stopService())
    for each in waiting:
        with pytest.raises(ServiceStopped):
            await each


@ONE_VERSION
@pytest_twisted.ensureDeferred
async def test_after_a_stop_it_can_be_started_anew(new_etcd_cluster: NewEtcdCluster) -> None:
    cluster = await new_etcd_cluster(size=1)
    async with client_of(cluster) as client:
        await client.put("a", "1")
    await cluster.stopService()
    cluster.startService()
    await soon(cluster.when_ready())
    async with client_of(cluster) as client:
        assert (await client.get("a")).kvs == ()


@ONE_VERSION
@pytest_twisted.ensureDeferred
async def test_what_is_asked_of_one_that_does_not_run_is_refused(etcd_binary: Path) -> None:
    cluster = EtcdCluster(REACTOR, binary=etcd_binary)
    with pytest.raises(RuntimeError, match=r"^the cluster is not running: start it, and wait for when_ready\(\)$"):
        cluster.leader()
    with pytest.raises(KeyError, match=r"no member is named 'm0'; there are none"):
        cluster.member("m0")
    await cluster.stopService()


def test_a_size_without_a_member_is_refused(etcd_binary: Path) -> None:
    with pytest.raises(ValueError, match=r"^size is 0, which must be at least 1$"):
        EtcdCluster(REACTOR, binary=etcd_binary, size=0)


def test_a_program_that_is_not_there_is_refused() -> None:
    with pytest.raises(BinaryNotFound):
        EtcdCluster(REACTOR, binary="/no/such/etcd")


@ONE_VERSION
@pytest_twisted.ensureDeferred
async def test_a_member_that_does_not_come_up_fails_the_start_and_says_why(etcd_binary: Path) -> None:
    cluster = EtcdCluster(REACTOR, binary=etcd_binary, extra_args=("--no-such-thing",))
    cluster.startService()
    with pytest.raises(StartFailed, match="flag provided but not defined: -no-such-thing"):
        await soon(cluster.when_ready())
    await cluster.stopService()


@ONE_VERSION
@pytest_twisted.ensureDeferred
async def test_ports_that_somebody_else_took_are_replaced(
    new_etcd_cluster: NewEtcdCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as theirs, socket.socket() as theirs_too:
        for each in (theirs, theirs_too):
            each.bind((LOOPBACK, 0))
            each.listen()
        offers = [[theirs.getsockname()[1], *free_ports(1)], [*free_ports(1), theirs_too.getsockname()[1]]]
        monkeypatch.setattr(place, "free_ports", lambda count: offers.pop(0) if offers else free_ports(count))
        cluster = await new_etcd_cluster()
    assert offers == []
    await cluster.heal()


@ONE_VERSION
@pytest_twisted.ensureDeferred
async def test_a_port_that_somebody_took_while_the_member_was_dead_is_replaced(
    etcd_cluster: EtcdCluster, prefix: str
) -> None:
    member = etcd_cluster.members[0]
    endpoint, direct = member.endpoint, member.direct_endpoint
    await member.kill()
    with socket.socket() as theirs:
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        theirs.bind((LOOPBACK, int(direct.rsplit(":", 1)[1])))
        theirs.listen()
        await soon(member.restart())
    assert member.direct_endpoint != direct
    assert member.endpoint == endpoint
    async with EtcdClient(cast("Any", reactor), endpoint) as client:
        await client.put(prefix, "1")


# --- dead members ---------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_a_killed_member_stays_dead_and_has_its_data_after_the_restart(
    etcd_cluster: EtcdCluster, prefix: str
) -> None:
    member = etcd_cluster.members[0]
    endpoint, pid = member.endpoint, member.pid
    async with member.client() as client:
        await client.put(prefix, "before")
    await member.kill()
    assert not member.running
    assert member.pid is None
    # etcd would be back in less time than the others take to agree, and to be killed again twice is nothing
    await etcd_cluster.leader()
    await member.kill()
    assert not member.running
    await member.restart()
    assert member.endpoint == endpoint
    assert member.pid not in (None, pid)
    async with EtcdClient(cast("Any", reactor), endpoint) as client:
        assert (await client.get(prefix, serializable=True)).kvs[0].value == b"before"


@pytest_twisted.ensureDeferred
async def test_after_a_kill_of_the_leader_another_one_leads(etcd_cluster: EtcdCluster) -> None:
    leader = await etcd_cluster.leader()
    await leader.kill()
    assert await etcd_cluster.leader() is not leader


@pytest_twisted.ensureDeferred
async def test_a_terminated_member_ends_even_while_it_is_paused(etcd_cluster: EtcdCluster) -> None:
    first, second, _ = etcd_cluster.members
    await soon(first.terminate())
    assert not first.running
    await first.restart()
    second.pause()
    await soon(second.terminate())
    assert not second.running
    assert not second.paused


@ONE_VERSION
@pytest_twisted.ensureDeferred
async def test_one_that_dies_by_itself_stays_dead_too(etcd_cluster: EtcdCluster) -> None:
    member = etcd_cluster.members[1]
    assert member.pid is not None
    os.kill(member.pid, signal.SIGKILL)

    async def dead() -> bool:
        return not member.running

    await until(dead)
    await etcd_cluster.leader()
    assert not member.running
    await etcd_cluster.heal()
    assert member.running


@pytest_twisted.ensureDeferred
async def test_a_restart_of_one_that_runs_is_a_kill_and_a_start(etcd_cluster: EtcdCluster) -> None:
    member = etcd_cluster.members[2]
    pid = member.pid
    await member.restart()
    assert member.pid not in (None, pid)


@pytest.fixture
def hurried_cluster(etcd_cluster: EtcdCluster) -> Iterator[EtcdCluster]:
    """Whose timeout may be changed."""
    before = etcd_cluster.timeout
    yield etcd_cluster
    etcd_cluster.timeout = before


@pytest_twisted.ensureDeferred
async def test_without_a_majority_there_is_no_leader_and_the_error_has_what_each_member_said(
    hurried_cluster: EtcdCluster,
) -> None:
    dead, paused, alive = hurried_cluster.members
    await dead.kill()
    paused.pause()
    await sees_no_leader(alive)
    hurried_cluster.timeout = 0.1
    with pytest.raises(TimeoutError) as caught:
        await hurried_cluster.leader()
    assert str(caught.value).splitlines() == [
        "not within 0.1 seconds: 2 members that agree on a leader. What they say:",
        "  m0: it is dead",
        "  m1: it is paused",
        "  m2: it has no leader",
    ]


@ONE_VERSION
@pytest_twisted.ensureDeferred
async def test_a_rejoin_that_finds_no_majority_fails_and_says_what_a_read_met(hurried_cluster: EtcdCluster) -> None:
    first, second, third = hurried_cluster.members
    await first.kill()
    await second.kill()
    await third.isolate()
    hurried_cluster.timeout = 0.1
    with pytest.raises(TimeoutError, match=r"^not within 0.1 seconds: a read through m2: KV.Range "):
        await third.rejoin()


# --- paused members -------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_a_paused_member_accepts_connections_and_answers_nothing(etcd_cluster: EtcdCluster) -> None:
    member = etcd_cluster.members[0]
    member.pause()
    assert member.paused
    assert member.running
    await until_stopped(member)
    peer = Peer()
    await connect(int(member.direct_endpoint.rsplit(":", 1)[1]), peer)
    peer.socket.write(b"GET /version HTTP/1.0\r\n\r\n")
    await etcd_cluster.leader()
    assert peer.lost is None
    assert peer.data == b""
    member.resume()
    assert not member.paused
    await peer.until_received(b"etcdserver")
    await peer.end()


@pytest_twisted.ensureDeferred
async def test_a_paused_leader_leads_nobody(etcd_cluster: EtcdCluster) -> None:
    leader = await etcd_cluster.leader()
    leader.pause()
    assert await etcd_cluster.leader() is not leader
    await etcd_cluster.heal()
    assert not leader.paused


@pytest_twisted.ensureDeferred
async def test_a_paused_member_can_be_killed_and_then_is_not_paused(etcd_cluster: EtcdCluster) -> None:
    member = etcd_cluster.members[0]
    member.pause()
    await soon(member.kill())
    assert not member.paused
    member.pause()
    assert not member.paused


# --- isolated members -----------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_an_isolated_member_has_no_leader_and_the_others_have_one(etcd_cluster: EtcdCluster, prefix: str) -> None:
    before = await etcd_cluster.leader()
    before.isolate()
    assert before.isolated
    leader = await etcd_cluster.leader()
    assert leader is not before
    await sees_no_leader(before)
    async with EtcdClient(cast("Any", reactor), before.endpoint) as client:
        await client.get(prefix, serializable=True)
        with pytest.raises(RequestFailed):
            await client.get(prefix, timeout=BRIEFLY)
    async with leader.client() as client:
        await client.put(prefix, "without it")
    await before.rejoin()
    assert not before.isolated
    async with before.client() as client:
        assert (await client.get(prefix)).kvs[0].value == b"without it"


@pytest_twisted.ensureDeferred
async def test_an_isolated_follower_has_no_leader_and_the_others_go_on(etcd_cluster: EtcdCluster, prefix: str) -> None:
    leader = await etcd_cluster.leader()
    follower = next(member for member in etcd_cluster.members if member is not leader)
    follower.isolate()
    await sees_no_leader(follower)
    async with leader.client() as client:
        await client.put(prefix, "without it")
    async with follower.client() as client:
        assert (await client.get(prefix, serializable=True)).kvs == ()
    await follower.rejoin()
    async with follower.client() as client:
        assert (await client.get(prefix)).kvs[0].value == b"without it"


@ONE_VERSION
@pytest_twisted.ensureDeferred
async def test_keep_alives_do_not_pass_out_of_isolation(etcd_cluster: EtcdCluster) -> None:
    # A follower hands them to the leader in requests that do not say whose they are.
    leader = await etcd_cluster.leader()
    follower = next(member for member in etcd_cluster.members if member is not leader)
    async with leader.client() as client:
        lease = (await client.lease_grant(600)).ID
    url = f"{follower.direct_endpoint}{rpcs.LEASE_KEEP_ALIVE.path}"
    assert b"TTL" in await keep_alive(url, lease)
    await follower.isolate()
    # It takes its old leader for the present one still, for as long as an election takes.
    assert b"TTL" not in await keep_alive(url, lease)


async def keep_alive(url: str, lease: int) -> bytes:
    peer = Peer()
    body = rpcs.LEASE_KEEP_ALIVE.encode(LeaseKeepAliveRequest(ID=lease))
    authority, path = url.removeprefix("http://").split("/", 1)
    await connect(int(authority.rsplit(":", 1)[1]), peer)
    head = f"POST /{path} HTTP/1.0\r\nHost: {authority}\r\nContent-Length: {len(body)}\r\n\r\n"
    peer.socket.write(head.encode() + body)
    await peer.until_lost()
    return bytes(peer.data)


@pytest_twisted.ensureDeferred
async def test_one_that_is_restarted_in_isolation_does_not_serve(hurried_cluster: EtcdCluster) -> None:
    member = hurried_cluster.members[0]
    await member.isolate()
    hurried_cluster.timeout = 2.0
    with pytest.raises(StartFailed, match="it did not answer within 2 seconds"):
        await member.restart()
    assert not member.running
    assert member.isolated


@ONE_VERSION
@pytest_twisted.ensureDeferred
async def test_when_all_are_isolated_nobody_leads(etcd_cluster: EtcdCluster) -> None:
    for member in etcd_cluster.members:
        member.isolate()
    for member in etcd_cluster.members:
        await sees_no_leader(member)


# --- the leader and the members -------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_the_leadership_moves_to_whom_it_is_to(etcd_cluster: EtcdCluster) -> None:
    for member in etcd_cluster.members:
        assert await etcd_cluster.move_leader(member) is member
        assert await etcd_cluster.leader() is member
    assert await etcd_cluster.move_leader() is not etcd_cluster.members[2]


@ONE_VERSION
@pytest_twisted.ensureDeferred
async def test_a_leadership_that_nobody_could_take_is_not_moved(new_etcd_cluster: NewEtcdCluster) -> None:
    cluster = await new_etcd_cluster(size=1)
    with pytest.raises(ValueError, match=r"^no member but m0 could lead: <EtcdCluster of <ClusterMember m0 running>>$"):
        await cluster.move_leader()


@pytest_twisted.ensureDeferred
async def test_a_compaction_drops_the_history_up_to_the_present(etcd_cluster: EtcdCluster, prefix: str) -> None:
    async with client_of(etcd_cluster) as client:
        first = (await client.put(prefix, "1")).header.revision
        last = (await client.put(prefix, "2")).header.revision
        assert await etcd_cluster.compact(first + 1, physical=True) == first + 1
        with pytest.raises(Compacted):
            await client.get(prefix, revision=first)
        assert await etcd_cluster.compact() == last
        assert await etcd_cluster.compact() == last, "there is nothing more to drop"
        with pytest.raises(Compacted):
            await etcd_cluster.compact(first)


@pytest_twisted.ensureDeferred
async def test_members_come_and_go(new_etcd_cluster: NewEtcdCluster) -> None:
    cluster = await new_etcd_cluster()
    async with client_of(cluster) as client:
        await client.put("a", "1")
    added = await cluster.add_member()
    assert cluster.members[3] is added
    assert await names_in_etcd(cluster) == {"m0", "m1", "m2", "m3"}
    async with EtcdClient(cast("Any", reactor), added.endpoint) as client:
        assert (await client.get("a")).kvs[0].value == b"1"
    removed = await cluster.leader()
    pid = removed.pid
    assert pid is not None
    await cluster.remove_member(removed)
    assert state_of(pid) == "gone"
    assert await cluster.leader() is not removed
    assert removed not in cluster.members
    assert await names_in_etcd(cluster) == {member.name for member in cluster.members}
    with pytest.raises(ValueError, match=f"^{removed.name} is no member any more$"):
        await cluster.remove_member(removed)
    await cluster.heal()


@pytest_twisted.ensureDeferred
async def test_a_dead_member_can_be_removed_and_a_new_one_take_its_place(new_etcd_cluster: NewEtcdCluster) -> None:
    cluster = await new_etcd_cluster()
    dead = cluster.members[0]
    await dead.kill()
    await cluster.remove_member(dead)
    added = await cluster.add_member()
    assert await cluster.move_leader(added) is added


@pytest_twisted.ensureDeferred
async def test_a_learner_follows_and_is_never_chosen_to_lead(new_etcd_cluster: NewEtcdCluster) -> None:
    cluster = await new_etcd_cluster(size=1)
    learner = await cluster.add_member(learner=True)
    assert learner.learner
    assert (await learner.status(5.0)).isLearner
    with pytest.raises(ValueError, match="could lead"):
        await cluster.move_leader()
    await cluster.heal()


# --- healing --------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_after_everything_at_once_it_is_healed(etcd_cluster: EtcdCluster, prefix: str) -> None:
    first, second, third = etcd_cluster.members
    async with first.client() as client:
        await client.put(prefix, "1")
    await first.kill()
    first.isolate()
    second.isolate()
    second.pause()
    third.proxy.swallow()
    await second.proxy.refuse()
    await etcd_cluster.heal()
    for member in etcd_cluster.members:
        assert member.running
        assert not member.paused
        assert not member.isolated
        async with EtcdClient(cast("Any", reactor), member.endpoint) as client:
            assert (await client.get(prefix)).kvs[0].value == b"1"
