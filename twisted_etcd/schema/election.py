"""Elections held by the server for its clients: the messages of etcd's Election service."""

from __future__ import annotations

from twisted_etcd.schema.common import Message, Response
from twisted_etcd.schema.kv import KeyValue


class LeaderKey(Message, frozen=True, kw_only=True):
    """
    What makes a client the leader of an election.

    :ivar name: the election.
    :ivar key: the key that is the leader's for as long as it leads.
    :ivar rev: the key's ``create_revision``.
    :ivar lease: the lease that the key is attached to.
    """

    name: bytes = b""
    key: bytes = b""
    rev: int = 0
    lease: int = 0


class CampaignRequest(Message, frozen=True):
    """
    Stand for election; answered when it is won.

    :ivar name: the election.
    :ivar lease: leads no longer than this lease lives. With 0 the server makes a lease of 60 seconds that nobody
        keeps alive.
    :ivar value: what the leader proclaims from the start.
    """

    name: bytes = b""
    lease: int = 0
    value: bytes = b""


class CampaignResponse(Response, frozen=True):
    """
    The election is won.

    :ivar leader: what proclaiming and resigning need.
    """

    leader: LeaderKey = LeaderKey()


class ProclaimRequest(Message, frozen=True):
    """
    Change what the leader proclaims.

    :ivar leader: as the campaign's answer gave it.
    :ivar value: the new value.
    """

    leader: LeaderKey | None = None
    value: bytes = b""


class ProclaimResponse(Response, frozen=True):
    """The new value stands."""


class LeaderRequest(Message, frozen=True):
    """
    Ask who leads, once or (observe) for as long as the stream lasts.

    :ivar name: the election.
    """

    name: bytes = b""


class LeaderResponse(Response, frozen=True):
    """
    Who leads.

    :ivar kv: the leader's key and what it proclaims.
    """

    kv: KeyValue = KeyValue()


class ResignRequest(Message, frozen=True):
    """
    Step down, or stop standing.

    :ivar leader: as the campaign's answer gave it.
    """

    leader: LeaderKey | None = None


class ResignResponse(Response, frozen=True):
    """The client leads no longer."""
