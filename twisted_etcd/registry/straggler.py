"""What may come after its registration was taken back."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from twisted_etcd.client import compare, op
from twisted_etcd.errors import TwistedEtcdError
from twisted_etcd.registry.convoy import Convoy, Done
from twisted_etcd.registry.machine import Found

#: Seconds after which no put arrives any more: longer than etcd keeps a request that its cluster does not decide.
LINGER = 15.0


def remove_key(convoy: Convoy, path: str, lease: int) -> Deferred[Done]:
    """Delete a key where it lives by this lease."""
    removal = op.txn(compare=[compare.lease(path, "=", lease)], success=[op.delete(path)])
    return convoy.do(path, removal, size=2 * len(path))


class Straggler:
    """
    A put that was sent and never answered, for a key that was removed afterwards, by a lease that others live by: where
    it comes after all, the key is removed once more.

    :param over: called with it when it is waited for no longer.
    """

    def __init__(
        self, clock: IReactorTime, convoy: Convoy, path: str, lease: int, over: Callable[[Straggler], None]
    ) -> None:
        self.path = path
        self.writes = 0
        self._convoy = convoy
        self._lease = lease
        self._over = over
        self._end = clock.callLater(LINGER, over, self)

    def key_seen(self, found: Found) -> None:
        """See :class:`~twisted_etcd.registry.lookout.Watched`."""
        if found.there and found.lease == self._lease:
            remove_key(self._convoy, self.path, self._lease).addErrback(_not_removed)

    def key_read(self, found: Found, writes: int) -> None:  # noqa: ARG002 - it has no writes of its own
        """Likewise."""
        self.key_seen(found)

    def history_gone(self) -> None:
        """Likewise; it is read next."""

    def stop(self) -> None:
        """Wait for it no longer."""
        if self._end.active():
            self._end.cancel()
            self._over(self)


def _not_removed(failure: Failure) -> None:
    # The lookout tells of it again where it begins anew, and the lease ends in the end.
    failure.trap(TwistedEtcdError)
