"""When each lease of a client is due for a keepalive, and when it counts as lost. Pure: time comes in as a number."""

from __future__ import annotations

import heapq

import msgspec

#: A lease is kept alive after this share of its TTL.
_RENEWAL_SHARE = 1 / 3
#: After a keepalive without an answer the next one comes after this share of the TTL, or :data:`_LONGEST_RETRY`.
_RETRY_SHARE = 1 / 12
#: Seconds.
_LONGEST_RETRY = 1.0
#: Leases that fall due within this share of the TTL after the one that is due go with it, in the same request.
_COMPANY_SHARE = 1 / 12


class _Entry(msgspec.Struct):
    ttl: float
    #: When etcd will have let the lease go, if it never hears of us again.
    deadline: float
    #: When something is to be done about it next.
    due: float
    asked: bool = False


class KeepaliveSchedule:
    """
    The leases that are to be kept alive.

    All times are seconds of one clock. What etcd confirmed counts from when it was asked, since it can have answered
    late.
    """

    def __init__(self) -> None:
        self._entries: dict[int, _Entry] = {}
        self._heap: list[tuple[float, int]] = []

    def __contains__(self, lease_id: int) -> bool:
        return lease_id in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, lease_id: int, ttl: float, asked_at: float) -> None:
        """A lease was granted for ``ttl`` seconds, by a request sent at ``asked_at``."""
        self._entries[lease_id] = _Entry(ttl, asked_at + ttl, 0.0)
        self._confirm(lease_id, ttl, asked_at)

    def confirmed(self, lease_id: int, ttl: float, asked_at: float) -> None:
        """etcd keeps the lease for another ``ttl`` seconds, on a keepalive sent at ``asked_at``."""
        if lease_id in self._entries:
            self._confirm(lease_id, ttl, asked_at)

    def _confirm(self, lease_id: int, ttl: float, asked_at: float) -> None:
        entry = self._entries[lease_id]
        entry.ttl = ttl
        entry.deadline = max(entry.deadline, asked_at + ttl)
        entry.asked = False
        self._schedule(lease_id, asked_at + ttl * _RENEWAL_SHARE)

    def unanswered(self, lease_id: int, now: float) -> None:
        """A keepalive got no answer: it is sent again soon."""
        entry = self._entries.get(lease_id)
        if entry is not None:
            entry.asked = False
            self._schedule(lease_id, min(now + min(entry.ttl * _RETRY_SHARE, _LONGEST_RETRY), entry.deadline))

    def remove(self, lease_id: int) -> None:
        """The lease is no longer our concern."""
        self._entries.pop(lease_id, None)

    def seconds_left(self, lease_id: int, now: float) -> float:
        """How long etcd keeps the lease at least, by what it last confirmed; 0 for a lease that is not here."""
        entry = self._entries.get(lease_id)
        return max(0.0, entry.deadline - now) if entry else 0.0

    def _schedule(self, lease_id: int, due: float) -> None:
        self._entries[lease_id].due = due
        heapq.heappush(self._heap, (due, lease_id))

    def next_due(self) -> float | None:
        """When :meth:`take_due` has something to hand out; None while there is no lease."""
        while self._heap:
            due, lease_id = self._heap[0]
            entry = self._entries.get(lease_id)
            if entry is not None and entry.due == due:
                return due
            # It was removed, or put off.
            heapq.heappop(self._heap)
        return None

    def take_due(self, now: float) -> tuple[list[int], list[int]]:
        """
        What is to be done now: the leases to ask for, and those that are lost because etcd never confirmed them.

        A lease that was handed out to be asked for is watched until its deadline; it is lost if by then neither
        :meth:`confirmed` nor :meth:`unanswered` was told of it.
        """
        ask: list[int] = []
        lost: list[int] = []
        horizon = now
        while (due := self.next_due()) is not None and due <= horizon:
            _, lease_id = heapq.heappop(self._heap)
            entry = self._entries[lease_id]
            if now >= entry.deadline:
                del self._entries[lease_id]
                lost.append(lease_id)
                continue
            if entry.asked:
                # Nothing but its deadline is waited for, and that is not yet here.
                self._schedule(lease_id, entry.deadline)
                break
            if not ask:
                horizon = now + entry.ttl * _COMPANY_SHARE
            ask.append(lease_id)
            entry.asked = True
            self._schedule(lease_id, entry.deadline)
        return ask, lost
