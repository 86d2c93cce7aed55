"""How the instances of a service changed, as one of those sees it who are told of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec
from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure

from twisted_etcd.errors import WatchStopped
from twisted_etcd.listeners import call_back
from twisted_etcd.moment import Moment
from twisted_etcd.registry.filter import InstanceFilter
from twisted_etcd.registry.instance import Instance


class ServiceChange(msgspec.Struct, frozen=True):
    """
    How the instances of a service changed, or what is known of them.

    Where only ``stale`` or ``held_back`` are others than before, nothing is added, removed or updated.

    :ivar instances: all that there are now, in the order of their keys, those that are held back among them.
    :ivar added: those that are new, or changed.
    :ivar removed: those that are gone, or were changed, as they were.
    :ivar updated: those that changed: as they were, and as they are now.
    :ivar stale: etcd is away, and they are as they were when it was last heard of.
    :ivar held_back: those that vanished from etcd and are kept by a protection.
    """

    instances: tuple[Instance, ...]
    added: tuple[Instance, ...] = ()
    removed: tuple[Instance, ...] = ()
    updated: tuple[tuple[Instance, Instance], ...] = ()
    stale: bool = False
    held_back: tuple[Instance, ...] = ()


#: Told a change; may return a Deferred or be ``async def``.
ServiceChangeCallback = Callable[[ServiceChange], object]


class Scene(msgspec.Struct, frozen=True):
    """
    What there is to see of a service.

    :ivar instances: all that there are, by their keys.
    :ivar order: those keys in their order.
    :ivar held_back: the keys of those that are held back.
    """

    instances: Mapping[bytes, Instance]
    order: tuple[bytes, ...]
    stale: bool
    held_back: frozenset[bytes]


class Lens:
    """
    One listener's sight of a service: what it was shown, and what of it is others by now.

    However much happens between two looks, it keeps no more than the keys to which it happened.

    :param scene: what it is shown already.
    """

    def __init__(self, where: InstanceFilter, scene: Scene) -> None:
        self._where = where
        self.begin(scene)

    def begin(self, scene: Scene) -> None:
        """Begin anew: this is shown already."""
        self._shown = {key: each for key, each in scene.instances.items() if self._where.accepts(each)}
        self._marks = self._marks_in(scene)
        self._touched: dict[bytes, None] = {}

    def touch(self, keys: Iterable[bytes]) -> None:
        """Something happened to these."""
        self._touched.update(dict.fromkeys(keys))

    def look(self, scene: Scene) -> ServiceChange | None:
        """What is others than when it looked last; None where nothing that concerns it is."""
        touched, self._touched = self._touched, {}
        added: list[Instance] = []
        removed: list[Instance] = []
        updated: list[tuple[Instance, Instance]] = []
        for key in touched:
            old = self._shown.pop(key, None)
            new = scene.instances.get(key)
            if new is not None and not self._where.accepts(new):
                new = None
            if new is not None:
                self._shown[key] = new
            # A key that is put again as it was is no change of the service.
            if old == new:
                continue
            if old is not None:
                removed.append(old)
            if new is not None:
                added.append(new)
            if old is not None and new is not None:
                updated.append((old, new))
        marks, self._marks = self._marks, self._marks_in(scene)
        if not added and not removed and marks == self._marks:
            return None
        return ServiceChange(
            instances=tuple([self._shown[key] for key in scene.order if key in self._shown]),
            added=tuple(added),
            removed=tuple(removed),
            updated=tuple(updated),
            stale=scene.stale,
            held_back=tuple(self._shown[key] for key in sorted(scene.held_back) if key in self._shown),
        )

    def _marks_in(self, scene: Scene) -> tuple[bool, frozenset[bytes]]:
        return scene.stale, scene.held_back.intersection(self._shown)


class Told:
    """
    A callback with its lens: told each change at once, and, while it waits for something, one change that holds all
    that happens meanwhile.

    :param see: gives what there is to see now.
    """

    def __init__(self, callback: ServiceChangeCallback, lens: Lens, see: Callable[[], Scene], what: str) -> None:
        self._callback = callback
        self._lens = lens
        self._see = see
        self._what = what
        self._waiting: Deferred[Any] | None = None
        self._telling = False
        self._over = False

    def begin(self, scene: Scene) -> None:
        """What there is at first is no change."""
        self._lens.begin(scene)

    def changed(self, keys: Iterable[bytes]) -> None:
        """Something happened to these keys, or to what is known of them."""
        self._lens.touch(keys)
        if not self._telling and self._waiting is None:
            self._tell()

    def _tell(self) -> None:
        # What the callback does can make further changes, which are told when it is done with this one.
        self._telling = True
        try:
            while not self._over and self._waiting is None and (change := self._lens.look(self._see())) is not None:
                self._waiting = call_back(self._what, self._callback, change)
        finally:
            self._telling = False
        if self._waiting is not None:
            self._waiting.addBoth(self._done)

    def _done(self, _: object) -> None:
        self._waiting = None
        self._tell()

    def end(self) -> None:
        """Tell nothing more. What the callback waits for is its own."""
        self._over = True


class Changes:
    """
    The changes of a service's instances, one after the other: ``async for change in view.changes():``, or :meth:`next`.

    Who takes them slowly gets one change in place of several, with the difference between what it was shown last and
    what is there now; what came and went in between is not told. The loop ends when the view is stopped, or this is;
    where the view fails, it raises that error.
    """

    def __init__(self, lens: Lens, see: Callable[[], Scene]) -> None:
        self._lens = lens
        self._see = see
        self._waiting: list[Deferred[ServiceChange]] = []
        self._stopped = False
        self._over: Moment[None] = Moment()

    def next(self) -> Deferred[ServiceChange]:
        """
        The next change, when there is one.

        :raises WatchStopped: there will be none, since the view or this was stopped.
        """
        change = None if self._stopped else self._lens.look(self._see())
        if change is not None:
            return succeed(change)
        if self._over.happened:
            return self._over.wait().addCallback(_no_more)
        deferred: Deferred[ServiceChange] = Deferred(self._waiting.remove)
        self._waiting.append(deferred)
        return deferred

    def __aiter__(self) -> Changes:
        return self

    async def __anext__(self) -> ServiceChange:
        try:
            return await self.next()
        except WatchStopped:
            raise StopAsyncIteration from None

    def stop(self) -> None:
        """There are no more: the loop ends."""
        self.end()

    # --- for the view -----------------------------------------------------------------------------------------------

    def begin(self, scene: Scene) -> None:
        """What there is at first is no change."""
        self._lens.begin(scene)

    def changed(self, keys: Iterable[bytes]) -> None:
        """Something happened to these keys, or to what is known of them."""
        self._lens.touch(keys)
        if self._waiting and (change := self._lens.look(self._see())) is not None:
            self._waiting.pop(0).callback(change)

    def end(self, failure: Failure | None = None) -> None:
        """The view tells nothing more."""
        if failure is None:
            self._stopped = True
            self._over.fire(None)
        else:
            self._over.fail(failure)
        while self._waiting:
            self._over.wait().addCallback(_no_more).chainDeferred(self._waiting.pop(0))


def _no_more(_: None) -> Deferred[ServiceChange]:
    return fail(Failure(WatchStopped("the view was stopped, so nothing of it changes any more")))
