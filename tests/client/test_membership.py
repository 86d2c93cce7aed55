"""Endpoints from etcd's own list of members."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import pytest_twisted
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from tests.client.conftest import MakeClient
from tests.gateway.servers import Asked, Scripted, always, http_answer
from tests.said import Said
from tests.wire import ClockedReactor, Listener, soon
from twisted_etcd.client.client import EtcdClient
from twisted_etcd.client.membership import client_urls
from twisted_etcd.errors import ServiceStopped, Unavailable
from twisted_etcd.gateway.endpointset import EndpointState
from twisted_etcd.schema.cluster import Member
from twisted_etcd.testing.cluster import EtcdCluster


def test_members_that_serve_nobody_are_left_out() -> None:
    members = [
        Member(name="a", clientURLs=("http://a:1", "http://a:2")),
        Member(name="", clientURLs=()),
        Member(name="learner", clientURLs=("http://l:1",), isLearner=True),
        Member(name="b", clientURLs=("http://b:1", "http://a:1")),
    ]
    assert client_urls(members) == ("http://a:1", "http://a:2", "http://b:1")


@ensureDeferred
async def test_sync_finds_all_members_by_one(etcd_cluster: EtcdCluster, make_client: MakeClient) -> None:
    client = make_client(endpoints=etcd_cluster.endpoints[1])
    found = await soon(client.sync())
    assert sorted(each.url for each in found) == sorted(etcd_cluster.endpoints)
    assert found == client.endpoints
    [used] = [each for each in found if each.url == etcd_cluster.endpoints[1]]
    assert used.state is EndpointState.SERVING


@ensureDeferred
async def test_sync_follows_members_that_come_and_go(
    new_etcd_cluster: Callable[..., Deferred[EtcdCluster]], make_client: MakeClient, prefix: str
) -> None:
    cluster = await new_etcd_cluster()
    client = make_client(endpoints=cluster.endpoints)
    await soon(client.put(prefix, "v", timeout=15))
    gone = cluster.members[0]
    await soon(cluster.remove_member(gone))
    await soon(cluster.add_member())
    found = await soon(client.sync(timeout=15))
    assert sorted(each.url for each in found) == sorted(cluster.endpoints)
    assert gone.endpoint not in [each.url for each in found]
    assert (await soon(client.get(prefix, timeout=15))).count == 1


@ensureDeferred
async def test_auto_sync_does_so_by_itself(etcd_cluster: EtcdCluster, make_client: MakeClient) -> None:
    client = make_client(endpoints=etcd_cluster.endpoints[0], auto_sync=0.05)
    while len(client.endpoints) < len(etcd_cluster.members):
        await soon(client.get("k"))
    assert sorted(each.url for each in client.endpoints) == sorted(etcd_cluster.endpoints)


# --- addresses that are no use --------------------------------------------------------------------------------------


class OnlyMember(Scripted):
    """
    Says that it is the one member, and which client URLs it has.

    :ivar urls: these.
    :ivar silent: the paths that it does not answer.
    """

    def __init__(self, member_id: int = 1) -> None:
        super().__init__(self._answers)
        self.urls = [self.url]
        self.silent: set[bytes] = set()
        self._header = {"cluster_id": "1", "member_id": str(member_id), "revision": "3", "raft_term": "4"}

    def _answers(self, peer: Asked, _number: int) -> None:
        path = self.requests[-1].split(b" ", 2)[1]
        if path in self.silent:
            return
        answer: dict[str, Any] = {"header": self._header}
        if path == LIST:
            answer["members"] = [{"ID": "1", "name": "m1", "clientURLs": self.urls}]
        else:
            answer |= {"version": "3.5.1", "leader": "1"}
        peer.say(http_answer(json.dumps(answer).encode()))

    @property
    def lists(self) -> int:
        """How often it was asked for the members."""
        return sum(request.startswith(b"POST " + LIST) for request in self.requests)


LIST, STATUS = b"/v3/cluster/member/list", b"/v3/maintenance/status"


@pytest.fixture
def member() -> Iterator[OnlyMember]:
    member = OnlyMember()
    yield member
    pytest_twisted.blockon(Deferred.fromCoroutine(member.close()))


async def nobody() -> str:
    """Where nobody listens."""
    listener = Listener()
    await listener.close()
    return f"http://{listener.authority}"


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://0.0.0.0:2379", "it is where the member listens, and no address; set etcd's --advertise-client-urls"),
        ("http://[::]:2379", "it is where the member listens, and no address"),
        ("unix:///run/etcd.sock", "etcd is reached by http:// or https://"),
    ],
)
@ensureDeferred
async def test_an_address_that_leads_nowhere_is_left_out_and_named(
    member: OnlyMember, make_client: MakeClient, said: Said, url: str, why: str
) -> None:
    member.urls.insert(0, url)
    client = make_client(endpoints=member.url)
    assert [each.url for each in await soon(client.sync())] == [member.url]
    assert said.count(f"the address {url} of a member is not used: ") == 1
    assert said.count(why) == 1


@ensureDeferred
async def test_an_address_where_something_else_answers_is_left_out_and_named(
    member: OnlyMember, make_client: MakeClient, said: Said
) -> None:
    web, other = Scripted(always(http_answer(b'{"status":"ok"}'))), OnlyMember(member_id=0xBAD)
    member.urls += [web.url, other.url]
    client = make_client(endpoints=member.url)
    assert [each.url for each in await soon(client.sync())] == [member.url]
    assert "which is not etcd's v3 gateway" in await said.until(f"the address {web.url} of a member is not used")
    line = await said.until(f"the address {other.url} of a member is not used")
    assert "member bad answers there, which is none of this cluster's" in line
    for each in (web, other):
        await each.close()


@ensureDeferred
async def test_a_member_that_is_away_is_taken_and_stands_behind(member: OnlyMember, make_client: MakeClient) -> None:
    away = await nobody()
    member.urls.insert(0, away)
    client = make_client(endpoints=member.url)
    first, second = await soon(client.sync())
    assert (first.url, first.state, "refused" in first.why) == (away, EndpointState.FAILING, True)
    assert (second.url, second.state) == (member.url, EndpointState.SERVING)


@ensureDeferred
async def test_an_address_that_stands_there_twice_is_one(member: OnlyMember, make_client: MakeClient) -> None:
    member.urls += [member.url + "/", member.url.upper().replace("HTTP", "http")]
    client = make_client(endpoints=member.url)
    assert [each.url for each in await soon(client.sync())] == [member.url]


@ensureDeferred
async def test_where_no_address_can_be_used_the_endpoints_stay_and_each_says_why(
    member: OnlyMember, make_client: MakeClient
) -> None:
    # As inside a network of their own.
    away = await nobody()
    client = make_client(endpoints=member.url)
    for urls in ([away], ["http://0.0.0.0:2379"], []):
        member.urls = urls
        with pytest.raises(Unavailable, match="no member has an address that can be used") as raised:
            await soon(client.sync())
        assert list(raised.value.tried) == urls
        assert [each.url for each in client.endpoints] == [member.url]
    await soon(client.get("k"))


# --- by itself ------------------------------------------------------------------------------------------------------


@ensureDeferred
async def test_auto_sync_looks_at_each_interval_and_goes_on_after_a_failure(member: OnlyMember, said: Said) -> None:
    clock = ClockedReactor()
    client = EtcdClient(clock, member.url, auto_sync=60)
    clock.advance(59.9)
    assert member.lists == 0
    member.urls = []
    clock.advance(0.2)
    await said.until("the list of members cannot be had, and is asked for again: no member has an address")
    member.urls = [member.url, await nobody()]
    await clock.until_waiting()
    clock.advance(60)
    await member.until_requested(2)
    while len(client.endpoints) == 1:
        await deferLater(reactor, 0)
    assert [each.url for each in client.endpoints] == member.urls
    assert member.lists == 2
    await soon(client.stopService())
    assert clock.getDelayedCalls() == []


@ensureDeferred
async def test_without_auto_sync_nobody_looks(member: OnlyMember) -> None:
    clock = ClockedReactor()
    client = EtcdClient(clock, member.url)
    assert clock.getDelayedCalls() == []
    await soon(client.stopService())


@pytest.mark.parametrize("path", [LIST, STATUS])
@ensureDeferred
async def test_a_stop_ends_a_sync_at_once_whatever_it_waits_for(member: OnlyMember, path: bytes) -> None:
    # It knows nothing of this one yet, and so asks how it is.
    new = OnlyMember()
    new.silent = {path}
    member.silent = {path}
    member.urls.append(new.url)
    clock = ClockedReactor()
    client = EtcdClient(clock, member.url, auto_sync=60)
    clock.advance(60)
    syncing = client.sync()
    await (member if path == LIST else new).until_requested()
    await soon(client.stopService())
    for each in (syncing, client.sync()):
        with pytest.raises(ServiceStopped):
            await each
    assert clock.getDelayedCalls() == []
    assert client.connection_count == 0
    await new.close()
