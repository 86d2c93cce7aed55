"""Locks held by the server for a client: the messages of etcd's Lock service."""

from __future__ import annotations

from twisted_etcd.schema.common import Message, Response


class LockRequest(Message, frozen=True):
    """
    Wait for a lock; answered when it is held.

    :ivar name: the lock.
    :ivar lease: the lock is held no longer than this lease lives. With 0 the server makes a lease of 60 seconds that
        nobody keeps alive.
    """

    name: bytes = b""
    lease: int = 0


class LockResponse(Response, frozen=True):
    """
    The lock is held.

    :ivar key: exists for as long as the lock is held; it is what unlocks it, and a condition on it in a transaction
        makes sure that the lock is still held.
    """

    key: bytes = b""


class UnlockRequest(Message, frozen=True):
    """
    Give a lock back, or give up waiting for it.

    :ivar key: the key that the lock's answer named.
    """

    key: bytes = b""


class UnlockResponse(Response, frozen=True):
    """The lock is not held any more."""
