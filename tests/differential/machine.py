"""The state machine that does the same to both, at random."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

import hypothesis
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import rule, run_state_machine_as_test

from tests.differential import strategies
from tests.differential.both import MOST_STREAMS, Run
from tests.differential.guarded import Guarded
from tests.differential.pair import PROGRESS, until_synced
from tests.differential.queues import Queues
from tests.differential.strategies import KEYS, LEASES, NO_LEASE, keys, leases, rarely
from tests.differential.upsets import Upsets
from twisted_etcd.schema import auth, rpcs
from twisted_etcd.schema.common import Message
from twisted_etcd.schema.kv import CompactionRequest
from twisted_etcd.schema.lease import (
    LeaseGrantRequest,
    LeaseKeepAliveRequest,
    LeaseLeasesRequest,
    LeaseRevokeRequest,
    LeaseTimeToLiveRequest,
)
from twisted_etcd.schema.watch import WatchCancelRequest, WatchRequest

#: Steps of one run of the machine, which begins with nothing.
STEPS = 50
names = st.sampled_from(("alice", "bob", "root", ""))


class Machine(Queues, Upsets):
    """Does the same to both, as somebody who may do everything."""

    def __init__(self) -> None:
        super().__init__()
        self._live: list[int] = []
        self._next_id = 1000

    # --- keys -------------------------------------------------------------------------------------------------------

    @rule(data=st.data())
    def range(self, data: st.DataObject) -> None:
        self._ask(rpcs.RANGE, data.draw(strategies.ranges(self._now)))

    @rule(request=strategies.puts())
    def put(self, request: Message) -> None:
        self._ask(rpcs.PUT, request)

    @rule(request=strategies.puts())
    def put_again(self, request: Message) -> None:
        # There must be more puts than deletions.
        self._ask(rpcs.PUT, request)

    @rule(request=strategies.deletions())
    def delete(self, request: Message) -> None:
        self._ask(rpcs.DELETE_RANGE, request)

    @rule(data=st.data())
    def transaction(self, data: st.DataObject) -> None:
        self._ask(rpcs.TXN, data.draw(strategies.transactions(self._now)))

    @rule(data=st.data(), seldom=rarely)
    def compact(self, data: st.DataObject, seldom: bool) -> None:  # noqa: FBT001
        if not seldom:
            # What is compacted is gone: mostly it is old, or was compacted before.
            request = CompactionRequest(revision=max(self._now - 12, 1), physical=True)
        else:
            request = CompactionRequest(revision=data.draw(strategies.revisions(self._now)), physical=True)
        # A watch that etcd has not got round to would be told that it came too late.
        self.run(until_synced(self.endpoint))
        self.run(self._compare())
        self._ask(rpcs.COMPACT, request)

    # --- leases -----------------------------------------------------------------------------------------------------

    @rule(lease=st.sampled_from(LEASES), ttl=st.sampled_from((600, 601, 9_000_000_001)))
    def grant(self, lease: int, ttl: int) -> None:
        self._ask(rpcs.LEASE_GRANT, LeaseGrantRequest(TTL=ttl, ID=lease))

    @rule(ttl=st.sampled_from((-1, 0, 1, 2)))
    def grant_for_an_instant(self, ttl: int) -> None:
        self._ask(rpcs.LEASE_GRANT, LeaseGrantRequest(TTL=ttl, ID=77))
        self._ask(rpcs.LEASE_REVOKE, LeaseRevokeRequest(ID=77))

    @rule(lease=leases)
    def revoke(self, lease: int) -> None:
        self._ask(rpcs.LEASE_REVOKE, LeaseRevokeRequest(ID=lease))

    @rule(lease=leases, with_keys=st.booleans())
    def time_to_live(self, lease: int, with_keys: bool) -> None:  # noqa: FBT001
        self._ask(rpcs.LEASE_TIME_TO_LIVE, LeaseTimeToLiveRequest(ID=lease, keys=with_keys))

    @rule()
    def all_leases(self) -> None:
        self._ask(rpcs.LEASE_LEASES, LeaseLeasesRequest())

    @rule(asked=st.lists(st.sampled_from((*LEASES, NO_LEASE)), min_size=1, max_size=3))
    def keep_alive(self, asked: list[int]) -> None:
        self._did()
        self.run(self._pair.keep_alive([LeaseKeepAliveRequest(ID=each) for each in asked]))

    # --- watches ----------------------------------------------------------------------------------------------------

    @rule(data=st.data(), own_id=st.booleans(), again=rarely)
    def watch(self, data: st.DataObject, own_id: bool, again: bool) -> None:  # noqa: FBT001
        self._did()
        watch_id = 0
        if again and self._live:
            watch_id = data.draw(st.sampled_from(self._live))
        elif own_id:
            self._next_id += 1
            watch_id = self._next_id
        request = data.draw(strategies.watches(self._now, watch_id))
        self.run(self._shared.ask(WatchRequest(create_request=request)))
        told: Any = self._shared.real.controls[-1]
        if "canceled" not in told:
            self._live.append(told.get("watch_id", 0))

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        self._did()
        self.run(self._compare())
        if self._live:
            chosen = data.draw(st.sampled_from(self._live))
            self._live.remove(chosen)
            self.run(self._shared.ask(WatchRequest(cancel_request=WatchCancelRequest(watch_id=chosen))))
        else:
            # Nothing is answered.
            self.run(self._shared.ask(WatchRequest(cancel_request=WatchCancelRequest(watch_id=99_999)), 0))

    @rule()
    def progress(self) -> None:
        self._did()
        self.run(until_synced(self.endpoint))
        self.run(self._compare())
        # Newer versions answer for watches alone, and not where one of them waits for what is compacted.
        told = self._shared.memory.events
        if self._live and not any("compact_revision" in str(told.get(each, [""])[-1]) for each in self._live):
            self.run(self._shared.ask(PROGRESS))

    @rule(data=st.data())
    def watch_alone(self, data: st.DataObject) -> None:
        self._did()
        if len(self._streams) < MOST_STREAMS:
            request = data.draw(strategies.watches(self._now, 0))
            self._streams.append(self.run(self._pair.post_stream(request)))

    @rule()
    def compare(self) -> None:
        self._did()
        self.run(self._compare())

    # --- users ------------------------------------------------------------------------------------------------------

    @rule(name=names)
    def add_user(self, name: str) -> None:
        self._ask(rpcs.USER_ADD, auth.AuthUserAddRequest(name=name, password="secret"))

    @rule(name=names)
    def add_role(self, name: str) -> None:
        self._ask(rpcs.ROLE_ADD, auth.AuthRoleAddRequest(name=name))

    @rule(user=names, role=names, takes=st.booleans())
    def change_roles(self, user: str, role: str, takes: bool) -> None:  # noqa: FBT001
        if takes:
            self._ask(rpcs.USER_REVOKE_ROLE, auth.AuthUserRevokeRoleRequest(name=user, role=role))
        else:
            self._ask(rpcs.USER_GRANT_ROLE, auth.AuthUserGrantRoleRequest(user=user, role=role))

    @rule(role=names, key=keys, to=st.sampled_from((b"", *KEYS)), kind=st.sampled_from(list(auth.PermissionType)))
    def grant_permission(self, role: str, key: bytes, to: bytes, kind: auth.PermissionType) -> None:
        permission = auth.Permission(kind, key, to)
        if not to or to > key:
            self._ask(rpcs.ROLE_GRANT_PERMISSION, auth.AuthRoleGrantPermissionRequest(name=role, perm=permission))

    @rule(role=names, key=keys, to=st.sampled_from((b"", *KEYS)))
    def revoke_permission(self, role: str, key: bytes, to: bytes) -> None:
        request = auth.AuthRoleRevokePermissionRequest(role=role, key=key, range_end=to)
        self._ask(rpcs.ROLE_REVOKE_PERMISSION, request)

    @rule(name=names)
    def look_at_users(self, name: str) -> None:
        self._ask(rpcs.USER_GET, auth.AuthUserGetRequest(name=name))
        self._ask(rpcs.ROLE_GET, auth.AuthRoleGetRequest(role=name))
        self._ask(rpcs.USER_LIST, auth.AuthUserListRequest())
        self._ask(rpcs.ROLE_LIST, auth.AuthRoleListRequest())

    @rule(name=names, seldom=rarely)
    def delete_user_or_role(self, name: str, seldom: bool) -> None:  # noqa: FBT001
        if seldom:
            self._ask(rpcs.USER_DELETE, auth.AuthUserDeleteRequest(name=name))
            self._ask(rpcs.ROLE_DELETE, auth.AuthRoleDeleteRequest(role=name))


def compare(run: Run, endpoint: str, steps: int, seed: int, *, shrink: bool = False) -> int:
    """
    Do so many steps at random, and some more.

    :param endpoint: of a real etcd that nobody else uses.
    :param shrink: look for the shortest way to a difference, which takes minutes.
    :return: how many it were.
    :raises AssertionError: where the two answer differently.
    """
    failures: list[Exception] = []

    def noting(work: Coroutine[Any, Any, Any]) -> Any:  # noqa: ANN401 - what the work gives
        try:
            return run(work)
        except Exception as error:
            failures.append(error)
            raise

    # Two runs of what everybody may do, and one where not everybody may do everything, in turn.
    machines: list[Any] = [
        type(kind.__name__, (kind,), {"run": staticmethod(noting), "endpoint": endpoint, "steps": 0})
        for kind in (Machine, Machine, Guarded)
    ]
    how = settings(
        max_examples=max(1, min(20, steps // STEPS // len(machines))),
        stateful_step_count=STEPS,
        deadline=None,
        database=None,
        report_multiple_bugs=False,
        phases=[Phase.generate, Phase.shrink] if shrink else [Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    number = 0
    while sum(machine.steps for machine in machines) < steps:
        try:
            machine = machines[number % len(machines)]
            run_state_machine_as_test(hypothesis.seed(seed + number)(machine), settings=how)
        except hypothesis.errors.Flaky as error:
            # It does not always come out like this.
            raise failures[0] from error
        number += 1
    return sum(machine.steps for machine in machines)
