"""
An election of three: one leads; it dies, and the next one leads when its lease has ended; that one resigns.

Run it with an etcd at hand, at http://127.0.0.1:2379 unless you name another::

    python leader.py [ENDPOINTS]

``ENDPOINTS`` is a URL, or several with commas between them; the environment variable ``ETCD_ENDPOINTS`` does as well.
Programs in Go, and ``etcdctl elect examples/leader NAME``, can stand for the same election.
"""

from __future__ import annotations

import os
import sys

from twisted.internet import task
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from twisted_etcd import Election, EtcdClient, LeaseLost, RequestFailed, ServiceStopped

ELECTION = "examples/leader"


class Candidate:
    """One of the programs that could lead; here all three are in one process, with a client each."""

    def __init__(self, reactor: IReactorTime, endpoints: str, name: str) -> None:
        self.name = name
        # A program that dies revokes nothing, and this one is about to.
        self.client = EtcdClient(reactor, endpoints, revoke_leases=False)
        self._election = Election(self.client, ELECTION, ttl=2)
        self._leading: Deferred[None] | None = None

    def stand(self) -> None:
        """Do the leader's work as soon as, and as long as, the election is won."""
        self._leading = self._election.run(self.name, self._lead)
        self._leading.addErrback(self._led)

    async def _lead(self) -> None:
        # What must have one writer writes with this; a leader that does not know yet that it is none is refused.
        await self.client.txn([self._election.is_owner])
        # The work of a leader has no end; it is cancelled when the leadership is lost.
        await Deferred()

    def _led(self, failure: Failure) -> None:
        resigned = failure.trap(CancelledError, LeaseLost, ServiceStopped, RequestFailed) is CancelledError
        print(f"{self.name} leads no longer: {'it resigned' if resigned else failure.value}")

    async def resign(self) -> None:
        """Stop the work, and let the next one lead."""
        if self._leading is not None:
            self._leading.cancel()
            await self._leading

    async def die(self) -> None:
        """Go without a word to etcd."""
        await self.client.stopService()
        if self._leading is not None:
            await self._leading


async def show(reactor: IReactorTime, endpoints: str, candidates: list[Candidate]) -> None:
    """Follow the election, and make things happen."""
    anna, bert, chris = candidates
    async with EtcdClient(reactor, endpoints) as client, Election(client, ELECTION).observe() as leaders:
        await client.get(ELECTION)
        for candidate in candidates:
            candidate.stand()
            # Who stands first leads first.
            async with client.watch(ELECTION + "/", prefix=True) as watch:
                while (await client.get(ELECTION + "/", prefix=True)).count <= candidates.index(candidate):
                    await watch.next()
        print((await leaders.next()).value.decode(), "leads")
        await anna.die()
        print((await leaders.next()).value.decode(), "leads, after the TTL of a lease that nobody kept alive")
        await bert.resign()
        print((await leaders.next()).value.decode(), "leads, at once")
        await chris.resign()
        async with client.watch(ELECTION + "/", prefix=True) as watch:
            while await Election(client, ELECTION).leader() is not None:
                await watch.next()
        print("nobody leads")


async def main(reactor: IReactorTime, endpoints: str) -> None:
    """All of it; whatever happens, the clients are stopped."""
    candidates = [Candidate(reactor, endpoints, name) for name in ("anna", "bert", "chris")]
    try:
        await show(reactor, endpoints, candidates)
    except RequestFailed as error:
        sys.exit(f"{type(error).__name__}: {error}")
    finally:
        for candidate in candidates:
            await candidate.client.stopService()


if __name__ == "__main__":
    default = os.environ.get("ETCD_ENDPOINTS", "http://127.0.0.1:2379")
    task.react(
        lambda reactor, endpoints: Deferred.fromCoroutine(main(reactor, endpoints)),
        [sys.argv[1] if len(sys.argv) > 1 else default],
    )
