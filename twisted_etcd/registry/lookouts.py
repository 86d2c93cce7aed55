"""The watches on our own keys."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from twisted_etcd.client import op
from twisted_etcd.client.client import EtcdClient
from twisted_etcd.errors import PermissionDenied
from twisted_etcd.registry.convoy import Convoy, Done
from twisted_etcd.registry.lookout import Lookout, Reading, Watched
from twisted_etcd.schema.kv import RangeResponse

#: Own keys of one service that have a watch each; with more of them, one watch of the service's range does.
EACH = 16


def read_key(convoy: Convoy, path: str) -> Deferred[Reading]:
    """Read a key without its value, together with others."""

    def read(done: Done) -> Reading:
        answer = done.response.response_range
        return Reading(done.revision, {path: answer.kvs[0]} if answer is not None and answer.kvs else {})

    return convoy.do(path, op.get(path, keys_only=True)).addCallback(read)


class Lookouts:
    """
    Sees what others do to our keys.

    A key has a watch of its own, as long as no more than 16 of a service are ours: a range of keys would bring every
    change of every other instance of the service to every process that has one, which for a large service is more than
    all else that happens. A process that has more of them is much of the service by itself, and sees the whole of it by
    a single watch, so that a thousand registrations are no thousand watches; unless its user may not read that range.
    What is begun in one turn of the reactor is counted together.

    :param random: gives numbers from 0 up to 1; for the waits between attempts.
    """

    _log = Logger()

    def __init__(self, client: EtcdClient, clock: IReactorTime, convoy: Convoy, random: Callable[[], float]) -> None:
        self._client = client
        self._clock = clock
        self._convoy = convoy
        self._random = random
        #: By the prefix of the service: by the key, whose it is.
        self._watched: dict[str, dict[str, Watched]] = {}
        #: By the prefix: by the key, the revision of its put. They have no lookout yet.
        self._new: dict[str, dict[str, int]] = {}
        self._of_keys: dict[str, Lookout] = {}
        self._of_services: dict[str, Lookout] = {}
        #: Services whose range may not be read.
        self._narrow: set[str] = set()
        self._turn: IDelayedCall | None = None
        self._ending: set[Deferred[None]] = set()
        #: The kinds of trouble that were told, until there is none.
        self._told: set[type[Exception]] = set()
        self._stopped = False

    def __len__(self) -> int:
        """How many watches there are."""
        return len(self._of_keys) + len(self._of_services)

    def add(self, service: str, watched: Watched, revision: int) -> None:
        """
        See what happens to a key.

        :param service: the prefix of its service.
        :param revision: of what is known of it.
        """
        if self._stopped:
            return
        path = watched.path
        known, new = self._watched.setdefault(service, {}), self._new.setdefault(service, {})
        is_looked_at = path in known and (path in self._of_keys or path in new or service in self._of_services)
        known[path] = watched
        if not is_looked_at:
            new[path] = revision
            if self._turn is None:
                self._turn = self._clock.callLater(0, self._begin)

    def remove(self, service: str, watched: Watched) -> None:
        """See it no longer, unless it is somebody else's by now."""
        known = self._watched.get(service, {})
        path = watched.path
        if known.get(path) is not watched:
            return
        del known[path]
        self._new.get(service, {}).pop(path, None)
        self._end(self._of_keys, path)
        if not known:
            del self._watched[service]
            self._end(self._of_services, service)

    def stop(self) -> Deferred[None]:
        """See nothing any more; fires when nothing is under way."""
        self._stopped = True
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None
        for lookouts in (self._of_keys, self._of_services):
            for name in tuple(lookouts):
                self._end(lookouts, name)
        return DeferredList(tuple(self._ending)).addCallback(lambda _: None)

    # --- lookouts come and go ---------------------------------------------------------------------------------------

    def _begin(self) -> None:
        self._turn = None
        new, self._new = self._new, {}
        for service, revisions in new.items():
            if not revisions or service in self._of_services:
                # Its watch began before, and at an earlier revision.
                continue
            if len(self._watched[service]) > EACH and service not in self._narrow:
                self._look_at_service(service, min(revisions.values()))
            else:
                for path, revision in revisions.items():
                    self._look_at_key(service, path, revision)

    def _look_at_service(self, service: str, revision: int) -> None:
        watched = self._watched[service]

        def read() -> Deferred[Reading]:
            return self._client.get(service, prefix=True, keys_only=True).addCallback(_read_range)

        def trouble(error: Exception | None) -> None:
            if isinstance(error, PermissionDenied):
                self._look_narrowly(service)
            else:
                self._tell(error, service)

        lookout = self._of_services[service] = self._lookout(service, lambda: watched, read, trouble, prefix=True)
        lookout.start(revision)

    def _look_narrowly(self, service: str) -> None:
        self._narrow.add(service)
        self._end(self._of_services, service)
        for path in tuple(self._watched.get(service, ())):
            if path not in self._of_keys:
                self._look_at_key(service, path, 0)

    def _look_at_key(self, service: str, path: str, revision: int) -> None:
        watched = self._watched[service]

        def whose() -> Mapping[str, Watched]:
            return {path: watched[path]} if path in watched else {}

        lookout = self._of_keys[path] = self._lookout(
            path, whose, lambda: read_key(self._convoy, path), lambda error: self._tell(error, path), prefix=False
        )
        lookout.start(revision)

    def _lookout(
        self,
        key: str,
        whose: Callable[[], Mapping[str, Watched]],
        read: Callable[[], Deferred[Reading]],
        trouble: Callable[[Exception | None], None],
        *,
        prefix: bool,
    ) -> Lookout:
        return Lookout(
            self._client,
            self._clock,
            key,
            prefix=prefix,
            whose=whose,
            read=read,
            trouble=trouble,
            random=self._random,
        )

    def _end(self, lookouts: dict[str, Lookout], name: str) -> None:
        lookout = lookouts.pop(name, None)
        if lookout is not None:
            ending = lookout.stop()
            self._ending.add(ending)
            ending.addBoth(lambda _: self._ending.discard(ending))

    def _tell(self, error: Exception | None, key: str) -> None:
        """Say once of each kind of trouble what it is, however many keys have it."""
        if error is None:
            self._told.clear()
        elif type(error) not in self._told:
            self._told.add(type(error))
            text = "Others' changes at {key} are found by the heartbeat check alone, until it can be watched: {why}"
            self._log.warn(text, key=key, why=str(error))


def _read_range(answer: RangeResponse) -> Reading:
    return Reading(answer.header.revision, {kv.key.decode("utf-8", "replace"): kv for kv in answer.kvs})
