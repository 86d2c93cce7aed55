"""What templates ask for, followed in etcd for as long as one of them asks for it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime

from twisted_etcd.client.client import EtcdClient
from twisted_etcd.config.paths import Paths
from twisted_etcd.recipes.follower import RangeFollower
from twisted_etcd.registry.instance import Instance
from twisted_etcd.registry.lens import ServiceChange
from twisted_etcd.registry.protection import Protection
from twisted_etcd.registry.registry import Registry
from twisted_etcd.registry.view import ServiceView
from twisted_etcd.rendering.template import Kind, Want


class EtcdSource:
    """
    A :class:`~twisted_etcd.rendering.template.Source` that follows etcd.

    What is wanted is read, however long etcd is away, and followed from there on. During an outage, and where it can be
    followed no longer (a permission was taken away), it stays as it was last seen, and is tried again.

    :param changed: told each change of something wanted, its first reading among them.
    :param protection: what is held back where many instances of a service vanish at once; nothing unless given.
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
        protection: Protection | None = None,
        random: Callable[[], float] = random.random,
    ) -> None:
        self._client = client
        self._clock = clock
        self._changed = changed
        self._paths = Paths(config_prefix)
        self._registry = Registry(client, clock, service_prefix, random=random, protection=protection)
        self._random = random
        self._followed: dict[Want, RangeFollower] = {}
        #: What nobody wants any more, and is still ending.
        self._ending: list[Deferred[None]] = []

    def keep(self, wants: Iterable[Want]) -> None:
        """Follow these, and nothing else."""
        wanted = frozenset(wants)
        for want in sorted(self._followed.keys() - wanted):
            self._end(self._followed.pop(want))
        for want in sorted(wanted - self._followed.keys()):
            self._followed[want] = self._follow(want)

    @property
    def followed(self) -> frozenset[Want]:
        """What is followed."""
        return frozenset(self._followed)

    def stop(self) -> Deferred[None]:
        """Follow nothing any more; fires when nothing is under way."""
        self.keep(())
        return DeferredList(self._ending).addCallback(lambda _: None)

    def _end(self, followed: RangeFollower) -> None:
        ending = followed.stop()
        self._ending.append(ending)
        ending.addBoth(lambda _: self._ending.remove(ending))

    def _follow(self, want: Want) -> RangeFollower:
        follower: RangeFollower
        if want.kind is Kind.SERVICE:
            follower = view = self._registry.view(want.name)
            view.on_change(partial(self._service_changed, want))
        else:
            below = want.kind is Kind.TREE
            follower = RangeFollower(
                self._client,
                self._clock,
                self._below(want.name) if below else self._paths.etcd_key(want.name),
                partial(self._told, want),
                patient=True,
                lasting=True,
                random=self._random,
                prefix=below,
            )
            follower.start().addErrback(lambda _: None)
        # It fails where it is stopped first.
        follower.when_loaded().addCallbacks(partial(self._told, want), lambda _: None)
        return follower

    def _service_changed(self, want: Want, change: ServiceChange) -> None:
        if change.added or change.removed:
            self._changed(want)

    def _told(self, want: Want, _: object) -> None:
        self._changed(want)

    def _below(self, path: str) -> str:
        return self._paths.root(path)

    # --- as templates see it ------------------------------------------------------------------------------------------

    def has(self, want: Want) -> bool:
        """See :class:`~twisted_etcd.rendering.template.Source`; so are the others."""
        followed = self._followed.get(want)
        return followed is not None and followed.loaded

    def revision(self, wants: Iterable[Want]) -> int:
        """The highest revision in which one of the keys that are there was put; 0 where there are none."""
        keys = (kv for want in wants for kv in self._loaded(want).current.values())
        return max((kv.mod_revision for kv in keys), default=0)

    def value(self, key: str) -> bytes | None:
        """The value of a key; see :class:`~twisted_etcd.rendering.template.Source`."""
        kv = self._loaded(Want(Kind.VALUE, key)).current.get(self._paths.etcd_key(key).encode())
        return None if kv is None else kv.value

    def tree(self, path: str) -> Mapping[str, bytes]:
        """The values below a path; see :class:`~twisted_etcd.rendering.template.Source`."""
        start = len(self._below(path).encode())
        current = self._loaded(Want(Kind.TREE, path)).current
        return {key[start:].decode("utf-8", "replace"): kv.value for key, kv in sorted(current.items())}

    def instances(self, name: str) -> Sequence[Instance]:
        """The instances of a service; see :class:`~twisted_etcd.rendering.template.Source`."""
        view = self._loaded(Want(Kind.SERVICE, name))
        return view.select() if isinstance(view, ServiceView) else ()

    def _loaded(self, want: Want) -> RangeFollower:
        follower = self._followed[want]
        if not follower.loaded:
            msg = f"{want} was not loaded yet"
            raise LookupError(msg)
        return follower
