"""What comes by itself: alarms, and leases whose time is over."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import rule

from tests.differential import strategies
from tests.differential.both import Both
from tests.differential.strategies import LEASES, keys, rarely
from twisted_etcd.schema import rpcs
from twisted_etcd.schema.kv import CompactionRequest, PutRequest
from twisted_etcd.schema.lease import LeaseGrantRequest, LeaseRevokeRequest, LeaseTimeToLiveRequest
from twisted_etcd.schema.maintenance import AlarmAction, AlarmRequest, AlarmType
from twisted_etcd.schema.watch import WatchCreateRequest, WatchRequest

#: Ends by itself.
BRIEF = 88
#: Of the watch for what ends with it.
BRIEF_WATCH = 500_000


class Upsets(Both):
    """Raises alarms and lets leases end."""

    def __init__(self) -> None:
        super().__init__()
        self._brief_watch = BRIEF_WATCH

    def _alarm(self, action: AlarmAction, kind: AlarmType) -> None:
        self._did(self.run(self._pair.ask_members(lambda member: AlarmRequest(action, member, kind))))

    @rule(kind=st.sampled_from((AlarmType.NOSPACE, AlarmType.CORRUPT)), data=st.data())
    def alarm(self, kind: AlarmType, data: st.DataObject) -> None:
        self._alarm(AlarmAction.ACTIVATE, kind)
        self._alarm(AlarmAction.GET, AlarmType.NONE)
        self._ask(rpcs.PUT, data.draw(strategies.puts()))
        self._ask(rpcs.RANGE, data.draw(strategies.ranges(self._now)))
        self._ask(rpcs.TXN, data.draw(strategies.transactions(self._now)))
        self._ask(rpcs.DELETE_RANGE, data.draw(strategies.deletions()))
        lease = data.draw(st.sampled_from(LEASES))
        self._ask(rpcs.LEASE_GRANT, LeaseGrantRequest(TTL=600, ID=lease))
        self._ask(rpcs.LEASE_TIME_TO_LIVE, LeaseTimeToLiveRequest(ID=lease))
        self._ask(rpcs.LEASE_REVOKE, LeaseRevokeRequest(ID=lease))
        self._ask(rpcs.COMPACT, CompactionRequest(revision=1))
        self._alarm(AlarmAction.DEACTIVATE, kind)
        self._alarm(AlarmAction.DEACTIVATE, kind)
        self._alarm(AlarmAction.GET, AlarmType.NONE)

    @rule(key=keys, several=st.booleans(), seldom=rarely)
    def let_a_lease_end(self, key: bytes, several: bool, seldom: bool) -> None:  # noqa: FBT001
        if not seldom:
            return
        self._ask(rpcs.LEASE_GRANT, LeaseGrantRequest(TTL=1, ID=BRIEF))
        for each in (key, b"brief") if several else (b"brief",):
            self._ask(rpcs.PUT, PutRequest(key=each, value=b"v", lease=BRIEF))
        self._brief_watch += 1
        watch = WatchCreateRequest(key=b"brief", watch_id=self._brief_watch, start_revision=self._now + 1)
        self.run(self._shared.ask(WatchRequest(create_request=watch)))
        # All that it ends is one revision.
        self.run(self._shared.until_told(self._brief_watch))
        self._now += 1
        self._ask(rpcs.LEASE_TIME_TO_LIVE, LeaseTimeToLiveRequest(ID=BRIEF))
        left: Any = self._ask(rpcs.RANGE, strategies.everything())
        assert left.header.revision == self._now
