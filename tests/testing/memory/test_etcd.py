"""The etcd in memory on a clock of its own: time, and faults that are asked for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import pytest
from twisted.internet import reactor
from twisted.internet.defer import Deferred

from tests.gateway.servers import new_gateway
from tests.gateway.streams import Recorder
from twisted_etcd.client import op
from twisted_etcd.client.client import EtcdClient
from twisted_etcd.errors import (
    Compacted,
    DeadlineExceeded,
    EtcdError,
    LeaderChanged,
    LeaseLost,
    LeaseNotFound,
    NoSpace,
    OutcomeUnknown,
    PermissionDenied,
    RequestTimedOut,
    ServerUnavailable,
    TooManyOperations,
    Unavailable,
    Unimplemented,
)
from twisted_etcd.schema import auth, rpcs
from twisted_etcd.schema.cluster import MemberAddRequest, MemberListRequest, MemberRemoveRequest
from twisted_etcd.schema.election import CampaignRequest, LeaderRequest, ProclaimRequest, ResignRequest
from twisted_etcd.schema.kv import EventType
from twisted_etcd.schema.lock import LockRequest, UnlockRequest
from twisted_etcd.schema.maintenance import AlarmAction, AlarmRequest, AlarmType, StatusRequest
from twisted_etcd.testing.memory import MemoryEtcd

CARRIERS = pytest.mark.parametrize("own_streams", [16, 0], ids=["own-streams", "shared"])


@pytest.fixture
def etcd() -> Iterator[MemoryEtcd]:
    etcd = MemoryEtcd()
    yield etcd
    for client in etcd.clients:
        etcd.wait(client.stopService())
    assert etcd.connection_count == 0
    assert etcd.reactor.getDelayedCalls() == []


@pytest.fixture
def client(etcd: MemoryEtcd) -> EtcdClient:
    return etcd.client(random=lambda: 0.5)


def failure_of(etcd: MemoryEtcd, asking: Deferred[Any]) -> BaseException:
    with pytest.raises(Exception) as raised:  # noqa: PT011 - which one it is, the test says
        etcd.wait(asking)
    return raised.value


def cause_of(etcd: MemoryEtcd, asking: Deferred[Any]) -> BaseException:
    """What etcd answered, where that leaves open whether a write was applied."""
    error = failure_of(etcd, asking)
    assert isinstance(error, OutcomeUnknown)
    assert error.__cause__ is not None
    return error.__cause__


# --- time -----------------------------------------------------------------------------------------------------------


def test_nothing_happens_but_as_time_passes(etcd: MemoryEtcd, client: EtcdClient) -> None:
    putting = client.put("k", "v")
    assert not putting.called
    etcd.advance()
    assert putting.called
    assert etcd.reactor.seconds() == 0
    assert etcd.revision == 2


def test_a_lease_ends_by_the_clock_and_its_keys_with_it_at_that_very_time(etcd: MemoryEtcd, client: EtcdClient) -> None:
    granted = etcd.wait(client.lease_grant(10))
    etcd.wait(client.put("k", "v", lease=granted.ID))
    ended: list[tuple[float, EventType]] = []
    watch = client.watch("k", callback=lambda batch: ended.append((etcd.reactor.seconds(), batch.events[0].type)))
    etcd.wait(watch.ready)
    etcd.advance(9.5)
    assert etcd.wait(client.lease_time_to_live(granted.ID)).TTL == 0
    assert etcd.wait(client.get("k")).count == 1
    etcd.advance(100)
    assert ended == [(10.0, EventType.DELETE)]
    assert etcd.wait(client.lease_time_to_live(granted.ID)).TTL == -1


def test_a_lease_that_ends_while_nobody_is_there_has_ended_when_somebody_comes(etcd: MemoryEtcd) -> None:
    first = etcd.client()
    granted = etcd.wait(first.lease_grant(10))
    etcd.wait(first.put("k", "v", lease=granted.ID))
    etcd.wait(first.stopService())
    assert etcd.reactor.getDelayedCalls() == []
    etcd.advance(11)
    assert etcd.wait(etcd.client().get("k")).count == 0


def test_a_lease_that_is_kept_alive_outlives_its_time(etcd: MemoryEtcd, client: EtcdClient) -> None:
    lease = etcd.wait(client.lease(10))
    etcd.advance(1000)
    assert lease.alive
    assert not lease.lost.called


def test_a_watch_is_told_how_far_it_is_when_nothing_happens(etcd: MemoryEtcd) -> None:
    seen: list[int] = []
    client = etcd.client()
    watch = client.watch("k", progress_notify=True, callback=lambda batch: seen.append(batch.revision))
    etcd.wait(watch.ready)
    etcd.wait(client.put("elsewhere", "v"))
    etcd.advance(599)
    etcd.advance(2)
    etcd.compact()
    etcd.cut_streams()
    etcd.advance(60)
    etcd.wait(client.put("k", "v"))
    # It knew that it was further than what is forgotten, and goes on.
    assert seen[-1] == etcd.revision


def test_waiting_for_what_does_not_come_ends(etcd: MemoryEtcd) -> None:
    never: Deferred[None] = Deferred()
    with pytest.raises(TimeoutError, match=r"nothing within 5 s of the clock"):
        etcd.wait(never, patience=5)


def test_what_repeats_without_a_wait_is_no_test_that_hangs(etcd: MemoryEtcd) -> None:
    def again() -> None:
        etcd.reactor.callLater(0, again)

    again()
    with pytest.raises(RuntimeError, match=r"100000 calls at one time of the clock: what repeats .*again"):
        etcd.advance()
    [call] = etcd.reactor.getDelayedCalls() or [None]
    if call is not None:
        call.cancel()


def test_a_host_name_is_as_good_as_an_address() -> None:
    etcd = MemoryEtcd(endpoint="http://etcd.example:2379")
    client = etcd.client()
    assert etcd.wait(client.put("k", "v")).header.revision == 2
    etcd.wait(client.stopService())
    stranger = EtcdClient(etcd.reactor, "http://elsewhere.example:2379", request_timeout=1)
    stranger.startService()
    assert isinstance(failure_of(etcd, stranger.put("k", "v")), Unavailable)
    etcd.wait(stranger.stopService())


def test_any_other_address_refuses(etcd: MemoryEtcd) -> None:
    client = etcd.client(endpoints="http://192.0.2.77:2379", request_timeout=1)
    assert isinstance(failure_of(etcd, client.put("k", "v")), Unavailable)


# --- calls ----------------------------------------------------------------------------------------------------------


def test_the_next_calls_fail_as_asked_and_are_not_served(etcd: MemoryEtcd, client: EtcdClient) -> None:
    etcd.fail_next(rpcs.PUT, NoSpace, times=2)
    etcd.fail_next("KV.DeleteRange", EtcdError(7, "etcdserver: permission denied"))
    for _ in range(2):
        assert isinstance(cause_of(etcd, client.put("k", "v")), NoSpace)
    assert isinstance(failure_of(etcd, client.delete("k")), PermissionDenied)
    assert etcd.wait(client.put("k", "v")).header.revision == 2


def test_an_answer_that_is_lost_leaves_a_write_unknown_though_it_was_applied(
    etcd: MemoryEtcd, client: EtcdClient
) -> None:
    etcd.lose_next_answer(rpcs.PUT)
    assert isinstance(failure_of(etcd, client.put("k", "v")), OutcomeUnknown)
    assert etcd.wait(client.get("k")).count == 1


def test_calls_can_be_slow(etcd: MemoryEtcd, client: EtcdClient) -> None:
    etcd.delay(rpcs.PUT, 2.0)
    etcd.wait(client.put("k", "v"))
    assert etcd.reactor.seconds() == 2
    assert isinstance(failure_of(etcd, client.put("k", "v", timeout=1)), OutcomeUnknown)
    etcd.delay(rpcs.PUT, 0)
    before = etcd.reactor.seconds()
    etcd.wait(client.put("k", "w"))
    assert etcd.reactor.seconds() == before
    # Whoever had gone was not served.
    assert etcd.wait(client.get("k")).kvs[0].version == 2


@CARRIERS
def test_a_watch_that_is_refused_tries_again(etcd: MemoryEtcd, own_streams: int) -> None:
    client = etcd.client(own_streams=own_streams, random=lambda: 0.5)
    etcd.fail_next(rpcs.WATCH, EtcdError(14, "etcdserver: no leader"))
    watch = client.watch("k")
    etcd.wait(watch.ready)
    etcd.wait(client.put("k", "v"))
    assert etcd.wait(watch.next()).revision == etcd.revision


def test_what_cannot_be_asked_for_is_said(etcd: MemoryEtcd) -> None:
    with pytest.raises(ValueError, match=r"'KV\.Putt' is no call of etcd's; the names are those in"):
        etcd.fail_next("KV.Putt", NoSpace)
    with pytest.raises(ValueError, match="etcd has no words for ServerUnavailable: give an instance"):
        etcd.fail_next(rpcs.PUT, ServerUnavailable)
    with pytest.raises(ValueError, match="speaks no TLS: write http:// in place of https://"):
        MemoryEtcd(endpoint="https://127.0.0.1:2379")
    in_reactor = MemoryEtcd(cast("Any", reactor))
    with pytest.raises(RuntimeError, match="in the real reactor, whose time passes by itself"):
        in_reactor.advance(1)
    with pytest.raises(NotImplementedError, match="a MemoryReactor listens nowhere"):
        etcd.reactor.listenTCP(80, None)


# --- connections ----------------------------------------------------------------------------------------------------


@CARRIERS
def test_a_watch_goes_on_over_streams_that_are_cut(etcd: MemoryEtcd, own_streams: int) -> None:
    client = etcd.client(own_streams=own_streams, random=lambda: 0.5)
    seen: list[bytes] = []
    watch = client.watch("k", callback=lambda batch: seen.extend(event.kv.value for event in batch.events))
    etcd.wait(watch.ready)
    for number in range(5):
        etcd.cut_streams()
        etcd.wait(client.put("k", str(number)))
    etcd.advance(30)
    assert seen == [b"0", b"1", b"2", b"3", b"4"]


def test_a_server_that_went_away_and_came_back_has_all_its_data(etcd: MemoryEtcd) -> None:
    client = etcd.client(request_timeout=1, random=lambda: 0.5)
    etcd.wait(client.put("k", "v"))
    watch = client.watch("k")
    etcd.wait(watch.ready)
    etcd.go_away()
    etcd.advance()
    assert isinstance(failure_of(etcd, client.put("k", "w")), Unavailable)
    assert etcd.connection_count == 0
    etcd.come_back()
    assert etcd.wait(client.get("k")).kvs[0].value == b"v"
    etcd.wait(client.put("k", "w"))
    assert etcd.wait(watch.next()).events[0].kv.value == b"w"


def test_a_server_that_hangs_answers_when_it_comes_back(etcd: MemoryEtcd) -> None:
    client = etcd.client(request_timeout=5)
    etcd.wait(client.get("k"))
    etcd.hang()
    assert isinstance(failure_of(etcd, client.get("k", timeout=1)), DeadlineExceeded)
    putting = client.put("k", "v")
    etcd.advance(1)
    assert not putting.called
    etcd.come_back()
    assert etcd.wait(putting).header.revision == 2


# --- the server -----------------------------------------------------------------------------------------------------


def test_a_watch_that_was_cut_off_over_a_compaction_is_told(etcd: MemoryEtcd, client: EtcdClient) -> None:
    watch = client.watch("k")
    etcd.wait(watch.ready)
    etcd.go_away()
    etcd.advance(1)
    etcd.come_back()
    other = etcd.client()
    for value in "ab":
        etcd.wait(other.put("x", value))
    etcd.compact()
    error = failure_of(etcd, watch.next())
    assert isinstance(error, Compacted)
    assert error.compact_revision == 3


def test_a_lease_that_is_lost_is_told(etcd: MemoryEtcd, client: EtcdClient) -> None:
    lease = etcd.wait(client.lease(60))
    etcd.wait(client.put("k", "v", lease=lease.id))
    etcd.lose_lease(lease.id)
    assert isinstance(etcd.wait(lease.lost), LeaseLost)
    assert etcd.wait(client.get("k")).count == 0
    with pytest.raises(LeaseNotFound):
        etcd.lose_lease(lease.id)


def test_another_leader_fails_what_waits_and_renews_leases(etcd: MemoryEtcd, client: EtcdClient) -> None:
    granted = etcd.wait(client.lease_grant(10))
    term = etcd.wait(client.get("k")).header.raft_term
    etcd.advance(8)
    etcd.delay(rpcs.PUT, 1.0)
    putting = client.put("k", "v")
    etcd.advance(0.5)
    etcd.elect_another_leader()
    assert isinstance(cause_of(etcd, putting), LeaderChanged)
    assert etcd.wait(client.get("k")).header.raft_term == term + 1
    assert etcd.wait(client.lease_time_to_live(granted.ID)).TTL == 10


def test_without_a_leader_requests_wait_and_streams_end(etcd: MemoryEtcd) -> None:
    client = etcd.client(request_timeout=20, random=lambda: 0.5)
    etcd.wait(client.put("k", "v"))
    watch = client.watch("k")
    etcd.wait(watch.ready)
    granted = etcd.wait(client.lease_grant(3))
    etcd.wait(client.put("leased", "", lease=granted.ID))
    etcd.elect_another_leader(after=6)
    status = etcd.wait(client.call(rpcs.STATUS, StatusRequest()))
    assert (status.leader, status.errors) == (0, ("etcdserver: no leader",))
    assert etcd.wait(client.get("leased", serializable=True)).count == 1
    putting = client.put("k", "w")
    etcd.advance(4.5)
    assert not putting.called
    assert etcd.revision == 3
    etcd.wait(putting)
    assert etcd.reactor.seconds() >= 6
    assert etcd.wait(watch.next()).events[0].kv.value == b"w"
    etcd.elect_another_leader(after=100)
    assert isinstance(cause_of(etcd, client.put("k", "x")), RequestTimedOut)


def test_a_database_that_is_full_takes_no_writes(etcd: MemoryEtcd, client: EtcdClient) -> None:
    alarm = AlarmRequest(AlarmAction.ACTIVATE, 1, AlarmType.NOSPACE)
    etcd.wait(client.call(rpcs.ALARM, alarm))
    assert isinstance(cause_of(etcd, client.put("k", "v")), NoSpace)
    etcd.wait(client.delete("k"))
    assert "alarm:NOSPACE" in etcd.wait(client.call(rpcs.STATUS, StatusRequest())).errors[0]
    etcd.wait(client.call(rpcs.ALARM, AlarmRequest(AlarmAction.DEACTIVATE, 1, AlarmType.NOSPACE)))
    etcd.wait(client.put("k", "v"))


def test_its_limits_are_those_that_were_given() -> None:
    etcd = MemoryEtcd(max_txn_ops=8)
    client = etcd.client()
    puts = [client.put(str(number), "v") for number in range(100)]
    for each in puts:
        etcd.wait(each)
    with pytest.raises(TooManyOperations):
        etcd.wait(client.txn(success=[op.get("k")] * 9))
    etcd.wait(client.stopService())


def test_members_are_listed_added_and_removed(etcd: MemoryEtcd, client: EtcdClient) -> None:
    added = etcd.wait(client.call(rpcs.MEMBER_ADD, MemberAddRequest(("http://192.0.2.2:2380",), isLearner=True)))
    members = etcd.wait(client.call(rpcs.MEMBER_LIST, MemberListRequest())).members
    assert [member.name for member in members] == ["memory", ""]
    assert etcd.wait(client.call(rpcs.MEMBER_REMOVE, MemberRemoveRequest(added.member.ID))).members == members[:1]


# --- locks and elections --------------------------------------------------------------------------------------------


def test_locks_are_held_by_one_after_the_other_and_places_given_up(etcd: MemoryEtcd) -> None:
    first, second, third = (etcd.client(request_timeout=60) for _ in range(3))
    lease = etcd.wait(first.lease_grant(60))
    held = etcd.wait(first.call(rpcs.LOCK, LockRequest(b"l", lease.ID)))
    assert held.key == b"l/%x" % lease.ID
    waiting = [client.call(rpcs.LOCK, LockRequest(b"l")) for client in (second, third)]
    etcd.advance(1)
    assert not any(each.called for each in waiting)
    # The second in line goes, and leaves no key.
    failed = waiting[0]
    stopping = second.stopService()
    assert isinstance(failure_of(etcd, failed), Exception)
    etcd.wait(stopping)
    etcd.wait(first.call(rpcs.UNLOCK, UnlockRequest(held.key)))
    assert etcd.wait(waiting[1]).key.startswith(b"l/")
    assert etcd.wait(first.get("l/", prefix=True)).count == 1


def test_an_election_has_one_leader_who_proclaims_and_resigns(etcd: MemoryEtcd, client: EtcdClient) -> None:
    assert "no leader" in str(failure_of(etcd, client.call(rpcs.LEADER, LeaderRequest(b"e"))))
    won = etcd.wait(client.call(rpcs.CAMPAIGN, CampaignRequest(b"e", 0, b"me"))).leader
    etcd.wait(client.call(rpcs.PROCLAIM, ProclaimRequest(won, b"still me")))
    assert etcd.wait(client.call(rpcs.LEADER, LeaderRequest(b"e"))).kv.value == b"still me"
    etcd.wait(client.call(rpcs.RESIGN, ResignRequest(won)))
    assert "not leader" in str(failure_of(etcd, client.call(rpcs.PROCLAIM, ProclaimRequest(won, b"?"))))


def test_there_is_no_database_to_copy(etcd: MemoryEtcd) -> None:
    gateway = new_gateway(etcd.endpoint, reactor=etcd.reactor)
    opening = gateway.open_post_stream(rpcs.SNAPSHOT, b"{}", Recorder(), endpoint=gateway.choose())
    assert isinstance(failure_of(etcd, opening), Unimplemented)
    etcd.wait(gateway.stop())


# --- users ----------------------------------------------------------------------------------------------------------


def with_users(etcd: MemoryEtcd) -> None:
    """root, and a user who may do what begins with ``/mine``."""
    client = etcd.client()
    mine = auth.Permission(auth.PermissionType.READWRITE, b"/mine", b"/minf")
    steps: list[tuple[Any, Any]] = [
        (rpcs.USER_ADD, auth.AuthUserAddRequest(name="root", password="r")),
        (rpcs.ROLE_ADD, auth.AuthRoleAddRequest("root")),
        (rpcs.USER_GRANT_ROLE, auth.AuthUserGrantRoleRequest("root", "root")),
        (rpcs.USER_ADD, auth.AuthUserAddRequest(name="user", password="u")),
        (rpcs.ROLE_ADD, auth.AuthRoleAddRequest("mine")),
        (rpcs.ROLE_GRANT_PERMISSION, auth.AuthRoleGrantPermissionRequest("mine", mine)),
        (rpcs.USER_GRANT_ROLE, auth.AuthUserGrantRoleRequest("user", "mine")),
        (rpcs.AUTH_ENABLE, auth.AuthEnableRequest()),
    ]
    for rpc, request in steps:
        etcd.wait(client.call(rpc, request))


def test_a_user_may_do_what_was_granted_and_a_token_is_renewed(etcd: MemoryEtcd) -> None:
    with_users(etcd)
    user = etcd.client(username="user", password="u")
    etcd.wait(user.put("/mine/k", "v"))
    for asking in (user.put("/other", "v"), user.get("", prefix=True), user.get("/mine", range_end="/n")):
        assert isinstance(failure_of(etcd, asking), PermissionDenied)
    etcd.expire_tokens()
    assert etcd.wait(user.get("/mine", prefix=True)).count == 1
    # Longer than a token lives that nobody uses.
    etcd.advance(1000)
    assert etcd.wait(user.get("/mine", prefix=True)).count == 1
    assert "user name is empty" in str(failure_of(etcd, etcd.client().get("k")))
    assert "invalid user ID or password" in str(
        failure_of(etcd, etcd.client(username="user", password="?").get("/mine"))
    )


@pytest.mark.parametrize("reads_token", [False, True])
@CARRIERS
def test_a_user_watches_on_each_carrier(own_streams: int, reads_token: bool) -> None:  # noqa: FBT001
    etcd = MemoryEtcd(websocket_tokens=reads_token)
    with_users(etcd)
    user = etcd.client(username="user", password="u", own_streams=own_streams, random=lambda: 0.5)
    watch = user.watch("/mine", prefix=True)
    etcd.wait(watch.ready)
    etcd.wait(user.put("/mine/k", "v"))
    assert etcd.wait(watch.next()).events[0].kv.value == b"v"
    forbidden = user.watch("/other")
    assert isinstance(failure_of(etcd, forbidden.ready), PermissionDenied)
    for client in etcd.clients:
        etcd.wait(client.stopService())
