"""Members listed, added, updated, promoted and removed, by the methods of ``client.cluster``."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater

from tests.client.conftest import MakeClient
from tests.etcds import ONE_VERSION
from tests.wire import soon
from twisted_etcd.client.client import EtcdClient
from twisted_etcd.errors import (
    DeadlineExceeded,
    EtcdError,
    InvalidSettings,
    LearnerNotReady,
    MemberExists,
    MemberNotFound,
    MemberNotLearner,
    NotEnoughStarted,
    OutcomeUnknown,
    PeerURLExists,
    ServiceStopped,
    TooManyLearners,
    TwistedEtcdError,
    Unavailable,
    UnhealthyCluster,
)
from twisted_etcd.schema.cluster import Member
from twisted_etcd.testing.cluster import EtcdCluster
from twisted_etcd.testing.fixtures import NewEtcdCluster
from twisted_etcd.testing.proxy import FaultProxy

#: Nobody listens there.
NOWHERE, ELSEWHERE = "http://127.0.0.1:1", "http://127.0.0.1:2"
STRICT = ("--strict-reconfig-check=true",)


async def patiently(ask: Callable[[], Deferred[Any]], *passing: type[TwistedEtcdError]) -> Any:  # noqa: ANN401
    """Ask again while it is not so yet."""
    while True:
        with suppress(*passing):
            return await soon(ask())
        await deferLater(cast("Any", reactor), 0.1)


@ensureDeferred
async def test_all_members_are_listed_whichever_is_asked(etcd_cluster: EtcdCluster, make_client: MakeClient) -> None:
    client = make_client(endpoints=etcd_cluster.endpoints)
    ids = {member.id for member in etcd_cluster.members}
    for linearizable in (True, False):
        for endpoint in (None, *etcd_cluster.endpoints):
            answer = await soon(client.cluster.members(linearizable=linearizable, endpoint=endpoint))
            assert {member.ID for member in answer.members} == ids
            if endpoint is not None:
                there = etcd_cluster.members[etcd_cluster.endpoints.index(endpoint)]
                assert answer.header.member_id == there.id
    named = {member.name: member.clientURLs for member in answer.members}
    assert named == {member.name: (member.endpoint,) for member in etcd_cluster.members}


@ensureDeferred
async def test_without_a_quorum_one_member_says_what_it_knows(
    etcd_cluster: EtcdCluster, make_client: MakeClient
) -> None:
    alone, *others = etcd_cluster.members
    client = make_client(endpoints=alone.endpoint)
    for member in others:
        await member.kill()
    answer = await soon(client.cluster.members(linearizable=False))
    assert len(answer.members) == len(etcd_cluster.members)
    version = (await soon(client.maintenance.status())).version
    asking = client.cluster.members(timeout=1)
    if version.startswith("3.4"):
        # It does so in any case.
        assert len((await soon(asking)).members) == len(etcd_cluster.members)
    else:
        with pytest.raises((DeadlineExceeded, EtcdError)):
            await soon(asking)


@ensureDeferred
async def test_a_learner_is_added_and_started_and_promoted_and_removed(
    new_etcd_cluster: NewEtcdCluster, make_client: MakeClient
) -> None:
    cluster = await new_etcd_cluster(size=1)
    client = make_client(endpoints=cluster.endpoints)
    # One that is not started is not ready.
    added = await soon(client.cluster.member_add(NOWHERE, learner=True))
    assert added.member.isLearner
    assert added.member.peerURLs == (NOWHERE,)
    assert len(added.members) == 2
    with pytest.raises(LearnerNotReady):
        await soon(client.cluster.member_promote(added.member.ID))
    with pytest.raises(TooManyLearners):
        await soon(client.cluster.member_add(ELSEWHERE, learner=True))
    # Where a change is under way already, etcd says this of a URL that is taken.
    with pytest.raises((PeerURLExists, MemberExists)):
        await soon(client.cluster.member_add(NOWHERE))
    await soon(client.cluster.member_update(added.member.ID, [ELSEWHERE, NOWHERE]))
    assert urls_of(added.member.ID, (await client.cluster.members()).members) == {ELSEWHERE, NOWHERE}
    left = await soon(client.cluster.member_remove(added.member.ID))
    assert [member.ID for member in left.members] == [cluster.members[0].id]
    # And one that is.
    learner = await cluster.add_member(learner=True)
    assert (await soon(client.maintenance.status(learner.endpoint))).isLearner
    await patiently(lambda: client.cluster.member_promote(learner.id), LearnerNotReady)
    members = (await soon(client.cluster.members())).members
    assert [member.isLearner for member in members] == [False, False]
    with pytest.raises(MemberNotLearner):
        await soon(client.cluster.member_promote(learner.id))
    assert not (await soon(client.maintenance.status(learner.endpoint))).isLearner
    # Of two members, the one that goes may take its answer along.
    with suppress(OutcomeUnknown):
        await patiently(lambda: client.cluster.member_remove(learner.id), UnhealthyCluster)
    await soon(Deferred.fromCoroutine(until_alone(client, cluster.members[0].id)))
    await client.put("still", "here")


async def until_alone(client: EtcdClient, member_id: int) -> None:
    while True:
        if [each.ID for each in (await client.cluster.members(linearizable=False)).members] == [member_id]:
            return
        await deferLater(cast("Any", reactor), 0.1)


def urls_of(member_id: int, members: tuple[Member, ...]) -> set[str]:
    return {url for member in members for url in member.peerURLs if member_id == member.ID}


@ensureDeferred
async def test_what_would_endanger_the_cluster_is_refused(
    new_etcd_cluster: NewEtcdCluster, make_client: MakeClient
) -> None:
    cluster = await new_etcd_cluster(extra_args=STRICT)
    client = make_client(endpoints=cluster.endpoints)
    first, second, third = cluster.members
    await third.kill()
    client = make_client(endpoints=[first.endpoint, second.endpoint])
    # Which the leader has noticed by then.
    await cluster.leader()
    await patiently(lambda: client.put("k", "v", timeout=2), OutcomeUnknown)
    # Of a member that is slow to answer nobody knows; then it is asked again.
    with pytest.raises((UnhealthyCluster, NotEnoughStarted)):
        await patiently(lambda: client.cluster.member_add(NOWHERE), OutcomeUnknown)
    with pytest.raises((UnhealthyCluster, NotEnoughStarted)):
        await patiently(lambda: client.cluster.member_remove(second.id), OutcomeUnknown)
    assert len((await soon(client.cluster.members())).members) == 3
    # The one that is dead may go.
    left = await patiently(lambda: client.cluster.member_remove(third.id), UnhealthyCluster)
    assert {member.ID for member in left.members} == {first.id, second.id}


@ensureDeferred
async def test_the_last_member_stays(new_etcd_cluster: NewEtcdCluster, make_client: MakeClient) -> None:
    cluster = await new_etcd_cluster(size=1, extra_args=STRICT)
    client = make_client(endpoints=cluster.endpoints)
    with pytest.raises((NotEnoughStarted, UnhealthyCluster)):
        await soon(client.cluster.member_remove(cluster.members[0].id))
    await client.put("still", "here")


@ensureDeferred
async def test_a_member_that_is_not_there_is_told_by_name(client: EtcdClient) -> None:
    # All at a time: those of one client wait for each other, since etcd would answer one of them.
    doings: list[Deferred[Any]] = [
        client.cluster.member_remove(5),
        client.cluster.member_promote(2**64 - 1),
        client.cluster.member_update(6, NOWHERE),
        client.cluster.member_remove(7),
    ]
    for doing in doings:
        with pytest.raises(MemberNotFound):
            await soon(doing)


@ONE_VERSION
@ensureDeferred
async def test_a_stop_ends_the_changes_that_wait(client: EtcdClient) -> None:
    first, second, third = (client.cluster.member_remove(5) for _ in range(3))
    with pytest.raises(MemberNotFound):
        await soon(first)
    await soon(client.stopService())
    for doing in (second, third):
        with pytest.raises(ServiceStopped):
            await soon(doing)


@ONE_VERSION
@ensureDeferred
async def test_a_change_that_waits_for_another_has_its_own_time(proxy: FaultProxy, make_client: MakeClient) -> None:
    client = make_client(endpoints=proxy.endpoint)
    proxy.swallow("answers")
    first = client.cluster.member_remove(5, timeout=1)
    second, third = client.cluster.member_remove(6, timeout=0.5), client.cluster.member_remove(7)
    third.cancel()
    with pytest.raises(OutcomeUnknown):
        await soon(first)
    with pytest.raises(Unavailable, match="and was not sent"):
        await soon(second)
    with pytest.raises(CancelledError):
        await third
    proxy.reset()


@ONE_VERSION
@pytest.mark.parametrize(
    ("method", "given", "kind", "text"),
    [
        ("members", ((), {"linearizable": 1}), TypeError, "linearizable must be True or False, not int"),
        ("members", ((), {"endpoint": "ftp://host"}), InvalidSettings, "has the scheme 'ftp'"),
        ("member_add", (([],), {}), InvalidSettings, "peer_urls is empty"),
        ("member_add", ((5,), {}), TypeError, "peer_urls must be URLs such as .*, not int"),
        ("member_add", (([5],), {}), TypeError, "peer_urls must be URLs such as .*, not int"),
        ("member_add", (("http://h:1",), {"learner": "yes"}), TypeError, "learner must be True or False, not str"),
        ("member_update", (("5", "http://h:1"), {}), TypeError, "member_id must be an int, not str"),
        *(
            ("member_update", ((5, url), {}), InvalidSettings, "by which no member is reached")
            for url in (
                "host:2380",
                "foo",
                "http://host",
                "http://h:port",
                "http://h:1/path",
                "ftp://h:1",
                "http://[::1:1",
            )
        ),
        ("member_update", ((5, "http://me:secret@h:1"), {}), InvalidSettings, "one with a user in it"),
        ("member_remove", ((None,), {}), TypeError, "member_id must be an int, not NoneType"),
        ("member_promote", ((True,), {}), TypeError, "member_id must be an int, not bool"),
    ],
)
@ensureDeferred
async def test_what_cannot_be_used_is_named_at_once(
    client: EtcdClient, method: str, given: tuple[tuple[Any, ...], dict[str, Any]], kind: type[Exception], text: str
) -> None:
    arguments, options = given
    with pytest.raises(kind, match=text) as raised:
        getattr(client.cluster, method)(*arguments, **options)
    assert "secret" not in str(raised.value)
