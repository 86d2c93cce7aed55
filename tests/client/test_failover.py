"""A cluster whose members fail: each one that does is left, says why, and is used again once it serves."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater

from tests.client.conftest import MakeClient
from tests.gateway.servers import HEADER, Asked, Scripted, http_answer, silent
from tests.wire import PATIENCE, soon
from twisted_etcd.client.client import EtcdClient
from twisted_etcd.errors import OutcomeUnknown, RequestTimedOut, Unavailable
from twisted_etcd.gateway.endpointset import EndpointState, EndpointStatus
from twisted_etcd.testing.cluster import EtcdCluster
from twisted_etcd.testing.member import ClusterMember

FAILING, SERVING, UNTRIED = EndpointState.FAILING, EndpointState.SERVING, EndpointState.UNTRIED


class Fault(NamedTuple):
    """Something that a member does, and what a client says of it."""

    name: str
    begin: Callable[[ClusterMember], Any]
    words: str


async def until(condition: Callable[[], bool]) -> None:
    """Until something is so that a client shows, and nobody is told of."""

    async def looking() -> None:
        while not condition():
            await deferLater(reactor, 0.01)

    await soon(Deferred.fromCoroutine(looking()))


async def cut_off(member: ClusterMember) -> None:
    member.proxy.reset(on_accept=True)


async def refuse(member: ClusterMember) -> None:
    # As a process that has died does it: what was connected ends as well.
    refusing = member.proxy.refuse()
    member.proxy.reset()
    await refusing


async def pause(member: ClusterMember) -> None:
    member.pause()
    # A signal takes its time, in which a request could be answered still.
    stat = Path(f"/proc/{member.pid}/stat")
    await until(lambda: stat.read_text("utf-8").rpartition(")")[2].split()[0] == "T")


async def kill(member: ClusterMember) -> None:
    await member.kill()


async def isolate(member: ClusterMember) -> None:
    await member.isolate()


FAULTS = [
    Fault("refuses", refuse, "refused"),
    Fault("resets", cut_off, "lost"),
    Fault("is-killed", kill, ""),
    Fault("hangs", pause, "did not answer within"),
    Fault("has-no-leader", isolate, "no leader"),
]


def status(client: EtcdClient, member: ClusterMember) -> EndpointStatus:
    [found] = (each for each in client.endpoints if each.url == member.endpoint)
    return found


async def used_again(client: EtcdClient, member: ClusterMember, key: str) -> None:
    """Until the member serves this client again, which finds it out by its use."""

    async def using() -> None:
        while status(client, member).state is not SERVING:
            await client.get(key)

    await soon(Deferred.fromCoroutine(using()))


def first_to(cluster: EtcdCluster, member: ClusterMember) -> list[str]:
    return [member.endpoint, *(each.endpoint for each in cluster.members if each is not member)]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
@pytest.mark.parametrize("leads", [True, False], ids=["leader", "follower"])
@ensureDeferred
async def test_a_member_that_fails_is_left_by_reads_and_then_by_writes_and_used_again_once_it_serves(
    etcd_cluster: EtcdCluster, make_client: MakeClient, prefix: str, fault: Fault, *, leads: bool
) -> None:
    leader = await soon(etcd_cluster.leader())
    victim = next(member for member in etcd_cluster.members if (member is leader) is leads)
    client = make_client(endpoints=first_to(etcd_cluster, victim), request_timeout=PATIENCE / 2, random=lambda: 0.1)
    await soon(client.put(prefix, "before"))
    assert [each.state for each in client.endpoints] == [SERVING, UNTRIED, UNTRIED]
    await soon(Deferred.fromCoroutine(fault.begin(victim)))
    if fault.begin is refuse:
        # Then what comes next is a new connection.
        await until(lambda: client.connection_count == 0)
    assert (await soon(client.get(prefix))).kvs[0].value == b"before"
    # It can have been left before it was known to be in trouble.
    await until(lambda: status(client, victim).state is FAILING)
    left = status(client, victim)
    assert fault.words in left.why
    assert left.failures >= 1
    await soon(etcd_cluster.leader())
    for number in range(3):
        await soon(client.put(prefix, str(number)))
    assert (await soon(client.get(prefix))).kvs[0].version == 4
    assert status(client, victim).state is FAILING
    await soon(etcd_cluster.heal())
    await used_again(client, victim, prefix)
    assert status(client, victim).why == ""


@ensureDeferred
async def test_with_two_hung_members_of_three_a_read_reaches_the_third(
    etcd_cluster: EtcdCluster, make_client: MakeClient, prefix: str
) -> None:
    one, two, three = etcd_cluster.members
    client = make_client(endpoints=etcd_cluster.endpoints)
    for member in (one, two):
        # So that the third one has not lost its quorum.
        member.proxy.swallow()
    await soon(client.get(prefix))
    await until(lambda: all(status(client, member).state is FAILING for member in (one, two)))
    assert status(client, three).state is SERVING
    await soon(client.put(prefix, "v"))


@ensureDeferred
async def test_while_a_write_waits_for_a_hung_member_others_go_elsewhere_and_it_is_answered_when_that_goes_on(
    etcd_cluster: EtcdCluster, make_client: MakeClient, prefix: str
) -> None:
    victim = etcd_cluster.members[0]
    client = make_client(endpoints=etcd_cluster.endpoints, request_timeout=PATIENCE / 2)
    await soon(client.get(prefix))
    victim.pause()
    waiting = client.put(prefix + "waiting", "v", timeout=2 * PATIENCE)
    await until(lambda: status(client, victim).state is FAILING)
    await soon(etcd_cluster.leader())
    await soon(gatherResults([client.put(f"{prefix}{number}", "v") for number in range(20)]))
    assert not waiting.called
    victim.resume()
    try:
        await soon(waiting)
    except OutcomeUnknown as error:
        # It hung for longer than it gives a request, and says so itself.
        assert isinstance(error.__cause__, RequestTimedOut)  # noqa: PT017
    else:
        assert (await soon(client.get(prefix + "waiting"))).kvs[0].version == 1


@ensureDeferred
async def test_a_write_to_a_member_that_goes_on_hanging_is_of_unknown_outcome_and_names_the_member(
    etcd_cluster: EtcdCluster, make_client: MakeClient, prefix: str
) -> None:
    victim = etcd_cluster.members[0]
    client = make_client(endpoints=etcd_cluster.endpoints)
    await soon(client.get(prefix))
    victim.pause()
    with pytest.raises(OutcomeUnknown, match="it may have been applied"):
        await soon(client.put(prefix, "v", timeout=1.0))
    await until(lambda: status(client, victim).state is FAILING)
    await soon(client.put(prefix, "v", timeout=PATIENCE))


@ensureDeferred
async def test_with_all_members_away_requests_are_unavailable_and_those_that_wait_are_served_by_the_first_one_back(
    etcd_cluster: EtcdCluster, make_client: MakeClient, prefix: str
) -> None:
    client = make_client(endpoints=etcd_cluster.endpoints)
    await soon(client.get(prefix))
    await gatherResults([Deferred.fromCoroutine(refuse(member)) for member in etcd_cluster.members])
    with pytest.raises(Unavailable) as raised:
        await soon(client.put(prefix, "never", timeout=0.2))
    assert set(raised.value.tried) == set(etcd_cluster.endpoints)
    assert {each.state for each in client.endpoints} == {FAILING}
    waiting: list[Deferred[Any]] = [client.get(prefix, timeout=PATIENCE), client.put(prefix, "once", timeout=PATIENCE)]
    back = etcd_cluster.members[1]
    await soon(back.proxy.accept())
    await soon(gatherResults(waiting))
    assert status(client, back).state is SERVING
    assert (await soon(client.get(prefix))).kvs[0].version == 1


@ensureDeferred
async def test_the_only_endpoint_is_waited_for_while_it_hangs(
    etcd_cluster: EtcdCluster, make_client: MakeClient, prefix: str
) -> None:
    victim = etcd_cluster.members[0]
    client = make_client(endpoints=victim.endpoint, request_timeout=3.0)
    await soon(client.get(prefix))
    victim.pause()
    waiting: list[Deferred[Any]] = [client.get(prefix, timeout=PATIENCE), client.put(prefix, "v", timeout=PATIENCE)]
    await until(lambda: status(client, victim).state is FAILING)
    assert not any(deferred.called for deferred in waiting)
    victim.resume()
    await soon(gatherResults(waiting))
    assert status(client, victim).state is SERVING


# --- members that come and go ---------------------------------------------------------------------------------------


@ensureDeferred
async def test_a_learner_is_left_and_no_endpoint_until_it_is_a_member(
    new_etcd_cluster: Callable[..., Deferred[EtcdCluster]], make_client: MakeClient, prefix: str
) -> None:
    cluster = await new_etcd_cluster(size=1)
    [member] = cluster.members
    learner = await soon(cluster.add_member(learner=True))
    client = make_client(endpoints=[learner.endpoint, member.endpoint])
    await soon(client.put(prefix, "v"))
    assert (await soon(client.get(prefix))).count == 1
    assert "learner" in status(client, learner).why
    assert [each.url for each in await soon(client.sync())] == [member.endpoint]


@ensureDeferred
async def test_auto_sync_follows_members_that_come_and_go(
    new_etcd_cluster: Callable[..., Deferred[EtcdCluster]], make_client: MakeClient, prefix: str
) -> None:
    cluster = await new_etcd_cluster()
    client = make_client(endpoints=cluster.endpoints[0], auto_sync=0.1)

    def knows_all() -> bool:
        return sorted(each.url for each in client.endpoints) == sorted(cluster.endpoints)

    await until(knows_all)
    # The one that it began with is gone in the end.
    await soon(cluster.add_member())
    await until(knows_all)
    await soon(cluster.remove_member(cluster.members[0]))
    await until(knows_all)
    await soon(client.put(prefix, "v", timeout=PATIENCE))


# --- tokens ---------------------------------------------------------------------------------------------------------


class Authenticating(Scripted):
    """Gives tokens, and what they are for."""

    def __init__(self) -> None:
        super().__init__(self._answers)

    def _answers(self, peer: Asked, _number: int) -> None:
        body = json.loads("{" + HEADER + "}")
        if self.asked_for("/v3/auth/authenticate"):
            body["token"] = "a.1"
        peer.say(http_answer(json.dumps(body).encode()))

    def asked_for(self, path: str) -> int:
        return sum(request.startswith(f"POST {path} ".encode()) for request in self.requests)


@ensureDeferred
async def test_a_token_is_fetched_once_for_all_who_wait_though_the_first_member_hangs(make_client: MakeClient) -> None:
    hung, good = Scripted(silent), Authenticating()
    client = make_client(endpoints=[hung.url, good.url], username="anna", password="sesame", request_timeout=2.0)
    asking: list[Awaitable[Any]] = [client.get("k", batch=False) for _ in range(20)]
    for each in asking:
        await each
    assert sum(b"/v3/auth/authenticate" in request for request in hung.requests) == 1
    assert good.asked_for("/v3/auth/authenticate") == 1
    assert good.asked_for("/v3/kv/range") == 20
    await gatherResults([Deferred.fromCoroutine(server.close()) for server in (hung, good)])
