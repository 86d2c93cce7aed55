"""Leases: the messages of etcd's Lease service. All times are in whole seconds."""

from __future__ import annotations

from twisted_etcd.schema.common import Message, Response


class LeaseGrantRequest(Message, frozen=True):
    """
    Make a lease.

    :ivar TTL: the wanted time to live. The server raises one that is too short for its election timeout.
    :ivar ID: the wanted id, not in use; 0 lets the server choose.
    """

    TTL: int = 0
    ID: int = 0


class LeaseGrantResponse(Response, frozen=True, kw_only=True):
    """
    The lease that was made.

    :ivar ID: its id.
    :ivar TTL: the time to live that the server granted: use this one, not the one asked for.
    :ivar error: of old servers; newer ones answer an error in place of this message.
    """

    ID: int = 0
    TTL: int = 0
    error: str = ""


class LeaseRevokeRequest(Message, frozen=True):
    """
    End a lease and delete its keys, all in one revision.

    :ivar ID: the lease.
    """

    ID: int = 0


class LeaseRevokeResponse(Response, frozen=True):
    """The lease has ended."""


class LeaseCheckpoint(Message, frozen=True):
    """
    What members tell each other about a lease. No call of the gateway carries it.

    :ivar ID: the lease.
    :ivar remaining_TTL: how long it has left.
    """

    ID: int = 0
    remaining_TTL: int = 0


class LeaseCheckpointRequest(Message, frozen=True):
    """
    What members tell each other about their leases. No call of the gateway carries it.

    :ivar checkpoints: the leases.
    """

    checkpoints: tuple[LeaseCheckpoint, ...] = ()


class LeaseCheckpointResponse(Response, frozen=True):
    """The answer to checkpoints. No call of the gateway carries it."""


class LeaseKeepAliveRequest(Message, frozen=True):
    """
    Let a lease live for its whole TTL again, from now.

    :ivar ID: the lease.
    """

    ID: int = 0


class LeaseKeepAliveResponse(Response, frozen=True):
    """
    The answer to one keepalive.

    :ivar ID: the lease.
    :ivar TTL: how long it lives from now; 0 says that there is no such lease any more.
    """

    ID: int = 0
    TTL: int = 0


class LeaseTimeToLiveRequest(Message, frozen=True):
    """
    Ask how long a lease has left.

    :ivar ID: the lease.
    :ivar keys: answer with its keys too.
    """

    ID: int = 0
    keys: bool = False


class LeaseTimeToLiveResponse(Response, frozen=True, kw_only=True):
    """
    How long a lease has left.

    :ivar ID: the lease.
    :ivar TTL: what is left; -1 where there is no such lease.
    :ivar grantedTTL: what it was granted, and gets again with every keepalive.
    :ivar keys: the keys attached to it, if asked for.
    """

    ID: int = 0
    TTL: int = 0
    grantedTTL: int = 0
    keys: tuple[bytes, ...] = ()


class LeaseLeasesRequest(Message, frozen=True):
    """Ask for all leases."""


class LeaseStatus(Message, frozen=True):
    """
    One lease of the list.

    :ivar ID: its id.
    """

    ID: int = 0


class LeaseLeasesResponse(Response, frozen=True):
    """
    All leases there are.

    :ivar leases: their ids.
    """

    leases: tuple[LeaseStatus, ...] = ()
