"""What templates ask for, followed in etcd for as long as one of them asks for it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_etcd.backoff import Backoff
from twisted_etcd.client.client import EtcdClient
from twisted_etcd.config.configuration import Configuration
from twisted_etcd.errors import ServiceStopped
from twisted_etcd.recipes.follower import RangeFollower
from twisted_etcd.registry.instance import Instance
from twisted_etcd.registry.registry import Registry
from twisted_etcd.registry.view import ServiceView
from twisted_etcd.rendering.template import Kind, Want

#: Seconds: the longest wait before something whose following ended is followed anew.
_LONGEST_BACKOFF = 30.0


class EtcdSource:
    """
    A :class:`~twisted_etcd.rendering.template.Source` that follows etcd.

    What is wanted is read, however long etcd is away, and followed from there on. During an outage, and where it can be
    followed no longer (a permission was taken away), it stays as it was last seen, and is tried again.

    :param changed: told each change of something wanted, its first reading among them.
    :param random: gives numbers from 0 up to 1; for the waits between attempts.
    """

    def __init__(
        self,
        client: EtcdClient,
        clock: IReactorTime,
        changed: Callable[[Want], None],
        *,
        config_prefix: str,
        service_prefix: str,
        random: Callable[[], float] = random.random,
    ) -> None:
        self._client = client
        self._clock = clock
        self._changed = changed
        self._config_prefix = config_prefix.rstrip("/")
        self._configuration = Configuration(client, clock, config_prefix)
        self._registry = Registry(client, clock, service_prefix)
        self._random = random
        self._followed: dict[Want, _Followed] = {}
        #: What nobody wants any more, and is still ending.
        self._ending: list[Deferred[None]] = []

    def keep(self, wants: Iterable[Want]) -> None:
        """Follow these, and nothing else."""
        wanted = frozenset(wants)
        for want in sorted(self._followed.keys() - wanted):
            self._end(self._followed.pop(want))
        for want in sorted(wanted - self._followed.keys()):
            followed = self._followed[want] = _Followed(
                want, self._clock, self._follower, self._changed, Backoff(self._random, longest=_LONGEST_BACKOFF)
            )
            followed.start()

    @property
    def followed(self) -> frozenset[Want]:
        """What is followed."""
        return frozenset(self._followed)

    def stop(self) -> Deferred[None]:
        """Follow nothing any more; fires when nothing is under way."""
        self.keep(())
        return DeferredList(self._ending).addCallback(lambda _: None)

    def _end(self, followed: _Followed) -> None:
        ending = followed.stop()
        self._ending.append(ending)
        ending.addBoth(lambda _: self._ending.remove(ending))

    def _follower(self, want: Want, changed: Callable[[object], None]) -> RangeFollower:
        """What follows it, not started."""
        match want.kind:
            case Kind.VALUE:
                return self._configuration.follow(want.name, changed, patient=True)
            case Kind.SERVICE:
                return self._registry.follow(want.name, changed, patient=True)
            case Kind.TREE:
                return RangeFollower(
                    self._client, self._clock, self._below(want.name), changed, patient=True, prefix=True
                )

    def _below(self, path: str) -> str:
        return f"{self._config_prefix}/{path}/" if path else f"{self._config_prefix}/"

    # --- as templates see it ------------------------------------------------------------------------------------------

    def has(self, want: Want) -> bool:
        """See :class:`~twisted_etcd.rendering.template.Source`; so are the others."""
        followed = self._followed.get(want)
        return followed is not None and followed.loaded is not None

    def revision(self, wants: Iterable[Want]) -> int:
        """The highest revision in which one of the keys that are there was put; 0 where there are none."""
        keys = (kv for want in wants for kv in self._loaded(want).current.values())
        return max((kv.mod_revision for kv in keys), default=0)

    def value(self, key: str) -> bytes | None:
        """The value of a key; see :class:`~twisted_etcd.rendering.template.Source`."""
        kv = self._loaded(Want(Kind.VALUE, key)).current.get(self._configuration.path(key).encode())
        return None if kv is None else kv.value

    def tree(self, path: str) -> Mapping[str, bytes]:
        """The values below a path; see :class:`~twisted_etcd.rendering.template.Source`."""
        start = len(self._below(path).encode())
        current = self._loaded(Want(Kind.TREE, path)).current
        return {key[start:].decode("utf-8", "replace"): kv.value for key, kv in sorted(current.items())}

    def instances(self, name: str) -> Sequence[Instance]:
        """The instances of a service; see :class:`~twisted_etcd.rendering.template.Source`."""
        view = self._loaded(Want(Kind.SERVICE, name))
        return view.instances if isinstance(view, ServiceView) else ()

    def _loaded(self, want: Want) -> RangeFollower:
        follower = self._followed[want].loaded
        if follower is None:
            msg = f"{want} was not loaded yet"
            raise LookupError(msg)
        return follower


class _Followed:
    """
    Something that is followed until it is stopped.

    :ivar loaded: what has been read; None before.
    """

    _log = Logger()

    def __init__(
        self,
        want: Want,
        clock: IReactorTime,
        make: Callable[[Want, Callable[[object], None]], RangeFollower],
        changed: Callable[[Want], None],
        backoff: Backoff,
    ) -> None:
        self.loaded: RangeFollower | None = None
        self._want = want
        self._clock = clock
        self._make = make
        self._changed = changed
        self._backoff = backoff
        self._follower: RangeFollower | None = None
        self._timer: IDelayedCall | None = None
        self._stopped = False

    def start(self) -> None:
        self._timer = None
        follower = self._follower = self._make(self._want, lambda _: self._told())
        follower.start().addCallbacks(lambda _: self._read(follower), lambda _: None)
        # What ends it before it was read ends it here, too.
        follower.ended.addErrback(self._again)

    def stop(self) -> Deferred[None]:
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
        assert self._follower is not None  # noqa: S101 - it is started where it is made
        return self._follower.stop()

    def _read(self, follower: RangeFollower) -> None:
        self.loaded = follower
        self._tell()

    def _told(self) -> None:
        # Not when it is read: what may be read and not watched would be read without a pause.
        self._backoff.reset()
        self._tell()

    def _tell(self) -> None:
        if not self._stopped:
            self._changed(self._want)

    def _again(self, failure: Failure) -> None:
        if self._stopped or failure.check(ServiceStopped):
            return
        delay = self._backoff.next()
        self._log.warn(
            "{want} is followed anew in {delay:.1f} s: {why}", want=str(self._want), delay=delay, why=str(failure.value)
        )
        self._timer = self._clock.callLater(delay, self.start)
