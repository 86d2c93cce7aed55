"""The instances of one service, followed."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterable, Mapping
from types import MappingProxyType
from weakref import WeakSet

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_etcd.client.client import EtcdClient
from twisted_etcd.errors import InvalidSettings
from twisted_etcd.recipes.follower import Change, RangeFollower
from twisted_etcd.registry.choice import ROUND_ROBIN, Choice, Use, begin_use, choice_of
from twisted_etcd.registry.filter import EVERY_INSTANCE, InstanceFilter
from twisted_etcd.registry.instance import Instance, decode_instance
from twisted_etcd.registry.lens import Changes, Lens, Scene, ServiceChangeCallback, Told
from twisted_etcd.registry.protection import HoldBack, Protection
from twisted_etcd.schema.kv import KeyValue

_log = Logger()
#: Those that can be called.
_CALLABLE = InstanceFilter()


def instances_of(kvs: Iterable[KeyValue]) -> tuple[Instance, ...]:
    """The instances in what was read; a value that is none is left out, and named in the log."""
    return tuple(instance for kv in kvs if (instance := _instance(kv)) is not None)


def _instance(kv: KeyValue) -> Instance | None:
    try:
        return decode_instance(kv.value)
    except InvalidSettings as error:
        _log.warn("{key} is left out: {why}", key=kv.key.decode("utf-8", "replace"), why=error)
        return None


class ServiceView(RangeFollower):
    """
    The instances of one service, by their keys below a prefix.

    While etcd is away they stay as they were, and :attr:`stale` says so. Of those who are told what changes, one that
    fails is logged, and ends nothing.

    :param prefix: the prefix of the service's keys.
    :param changed: told each change, once the view is started, of all instances, the critical ones too.
    :param protection: what is held back where much vanishes at once.
    :param random: gives numbers from 0 up to 1.
    :ivar protection: likewise; :meth:`protect` changes it.
    """

    def __init__(
        self,
        client: EtcdClient,
        clock: IReactorTime,
        prefix: str,
        changed: ServiceChangeCallback | None = None,
        *,
        patient: bool = False,
        lasting: bool = False,
        protection: Protection | None = None,
        random: Callable[[], float] = random.random,
    ) -> None:
        super().__init__(
            client, clock, prefix, self._keys_changed, patient=patient, lasting=lasting, random=random, prefix=True
        )
        self._name = prefix
        self._random = random
        #: What is in etcd.
        self._present: dict[bytes, Instance] = {}
        #: The same with what is held back, and in the order of the keys; None where that is to be made anew.
        self._seen: dict[bytes, Instance] = {}
        self._order: tuple[bytes, ...] | None = None
        self._in_order: tuple[Instance, ...] | None = None
        #: Those that :meth:`select` gives without a filter; likewise.
        self._callable: tuple[Instance, ...] | None = None
        self.protection: Protection | None = None
        self._hold_back: HoldBack[Instance] | None = None
        self._release: IDelayedCall | None = None
        self._choices: dict[str, Choice] = {}
        #: In the order in which they came.
        self._audience: dict[Told, None] = {}
        self._iterators: WeakSet[Changes] = WeakSet()
        if protection is not None:
            self.protect(protection)
        if changed is not None:
            self.on_change(changed, EVERY_INSTANCE)
        self.on_stale(lambda _: self._announce(()))

    def __repr__(self) -> str:
        state = "ended" if self._over.happened else "stale" if self.stale else "fresh" if self.loaded else "loading"
        return f"<ServiceView of {self._name}, {len(self._seen)} instances, {state}>"

    # --- what is there ----------------------------------------------------------------------------------------------

    @property
    def instances(self) -> tuple[Instance, ...]:
        """
        All that there are, critical ones too, by what was read and followed so far, in the order of their keys. Those
        that are held back are among them.
        """
        if self._in_order is None:
            self._in_order = tuple([self._seen[key] for key in self._keys_in_order()])
        return self._in_order

    def _keys_in_order(self) -> tuple[bytes, ...]:
        if self._order is None:
            self._order = tuple(sorted(self._seen))
        return self._order

    def select(self, where: InstanceFilter = _CALLABLE) -> tuple[Instance, ...]:
        """Those that a filter picks; without one, those that can be called: all but the critical ones."""
        if where is not _CALLABLE:
            return where.of(self.instances)
        if self._callable is None:
            self._callable = where.of(self.instances)
        return self._callable

    def choose(
        self, choice: Choice | str = ROUND_ROBIN, *, key: str | bytes | None = None, where: InstanceFilter = _CALLABLE
    ) -> Instance | None:
        """
        One of them; None where there is none.

        :param choice: a way to choose, or the name of one: ``round-robin``, ``random``, ``weighted``, ``least-used``,
            ``sticky``. By a name, all who use this view share one.
        :param key: what is to stay with one instance, for a choice that is sticky.
        :raises InvalidSettings: where there is no choice of that name.
        """
        return self._choice(choice).choose(self.select(where), key)

    def use(
        self, choice: Choice | str = ROUND_ROBIN, *, key: str | bytes | None = None, where: InstanceFilter = _CALLABLE
    ) -> Use | None:
        """As :meth:`choose`, and counted as used until what is given back ends: what ``least-used`` goes by."""
        chosen = self.choose(choice, key=key, where=where)
        return begin_use(self._choice(choice), chosen) if chosen is not None else None

    def _choice(self, choice: Choice | str) -> Choice:
        if not isinstance(choice, str):
            return choice
        if choice not in self._choices:
            self._choices[choice] = choice_of(choice, self._random)
        return self._choices[choice]

    # --- who is told ------------------------------------------------------------------------------------------------

    @property
    def is_listened_to(self) -> bool:
        """Whether somebody is told what changes."""
        return bool(self._audience or self._iterators)

    def on_change(self, callback: ServiceChangeCallback, where: InstanceFilter = _CALLABLE) -> Callable[[], None]:
        """
        Have each change told from now on; what is there when it is loaded is not.

        :param callback: may return a Deferred or be ``async def``. While it waits, what happens is gathered to one
            change, which it is told next. What it raises is logged, and ends nothing.
        :param where: which instances it is told of; changes of others are none.
        :return: call it to be told no longer.
        :raises TypeError: for what cannot be called.
        """
        if not callable(callback):
            msg = f"who is told what changes must be a function that takes a change, not {type(callback).__name__}"
            raise TypeError(msg)
        told = Told(callback, Lens(where, self._see()), self._see, f"a change of {self._name}")
        self._audience[told] = None

        def take_away() -> None:
            self._audience.pop(told, None)
            told.end()

        return take_away

    def changes(self, where: InstanceFilter = _CALLABLE) -> Changes:
        """The changes from now on, for ``async for``; see :class:`~twisted_etcd.registry.lens.Changes`."""
        changes = Changes(Lens(where, self._see()), self._see)
        if self._over.happened or self._stopped:
            changes.end()
        else:
            self._iterators.add(changes)
        return changes

    def _see(self) -> Scene:
        return Scene(self._seen, self._keys_in_order(), self.stale, frozenset(self.held))

    def _announce(self, touched: Collection[bytes]) -> None:
        # One that is taken away by another tells nothing more.
        for told in tuple(self._audience):
            told.changed(touched)
        for changes in tuple(self._iterators):
            changes.changed(touched)

    # --- what vanishes ----------------------------------------------------------------------------------------------

    @property
    def protected(self) -> bool:
        """Whether something is held back."""
        return bool(self.held)

    @property
    def held(self) -> Mapping[bytes, Instance]:
        """What vanished from etcd and stays here, by its keys."""
        return MappingProxyType(self._hold_back.held if self._hold_back is not None else {})

    @property
    def held_back(self) -> tuple[Instance, ...]:
        """What vanished from etcd and stays here, in the order of its keys."""
        return tuple(each for _, each in sorted(self.held.items(), key=lambda item: item[0]))

    def protect(self, protection: Protection | None) -> None:
        """Hold back what vanishes from now on as this says, or nothing where it is None."""
        if protection == self.protection:
            return
        held = tuple(self.held)
        self.protection = protection
        self._hold_back = HoldBack(protection) if protection is not None else None
        self._wind()
        self._update(held)

    def _update(self, keys: Iterable[bytes]) -> None:
        """These may be others now, in etcd or by being held back."""
        touched = tuple(keys)
        held = self.held
        for key in touched:
            instance = self._present.get(key) or held.get(key)
            if instance is not None:
                self._seen[key] = instance
            else:
                self._seen.pop(key, None)
        self._order = self._in_order = self._callable = None
        if touched:
            self._announce(touched)

    def _vanish(self, gone: Mapping[bytes, Instance]) -> set[bytes]:
        """Whether to hold back what is gone; the keys that are held, or were."""
        if self._hold_back is None:
            return set()
        before = set(self._hold_back.held)
        self._hold_back.changed(self._clock.seconds(), self._present, gone)
        held = set(self._hold_back.held)
        if held and not before:
            _log.warn(
                "{count} of {all} instances at {name} vanished at once, and are held back for at most {seconds} s",
                count=len(held),
                all=len(held) + len(self._present),
                name=self._name,
                seconds=self._hold_back.seconds,
            )
        elif before and not held:
            _log.info("Nothing at {name} is held back any longer", name=self._name)
        self._wind()
        return before | held

    def _wind(self) -> None:
        """See to it that what is held back is let go in time."""
        until = self._hold_back.until if self._hold_back is not None else None
        if self._release is not None:
            self._release.cancel()
            self._release = None
        if until is not None and not self._stopped:
            self._release = self._clock.callLater(max(0.0, until - self._clock.seconds()), self._let_go)

    def _let_go(self) -> None:
        self._release = None
        held = tuple(self.held)
        if self._hold_back is not None:
            self._hold_back.release()
        _log.warn(
            "{count} instances at {name} were held back for long enough, and go", count=len(held), name=self._name
        )
        self._update(held)

    # --- following --------------------------------------------------------------------------------------------------

    def _loaded_first(self, found: Mapping[bytes, KeyValue]) -> None:
        """What is there at first is nobody's change."""
        self._present = {key: each for key, kv in found.items() if (each := _instance(kv)) is not None}
        self._seen = dict(self._present)
        self._order = self._in_order = self._callable = None
        scene = self._see()
        for told in self._audience:
            told.begin(scene)
        for changes in self._iterators:
            changes.begin(scene)

    def _keys_changed(self, changes: tuple[Change, ...]) -> None:
        before: dict[bytes, Instance | None] = {}
        for change in changes:
            # Of several changes to one key what stood before the first of them counts, and what is there now.
            old = self._present.pop(change.key, None)
            before.setdefault(change.key, old)
            new = _instance(change.new) if change.new is not None else None
            if new is not None:
                self._present[change.key] = new
        gone = {key: old for key, old in before.items() if old is not None and key not in self._present}
        touched = dict.fromkeys(before)
        touched.update(dict.fromkeys(sorted(self._vanish(gone))))
        self._update(touched)

    def stop(self) -> Deferred[None]:
        """Follow it no longer: nothing more is told, and every loop over its changes ends."""
        stopping = super().stop()
        self._tell_no_more(None)
        return stopping

    def _finished(self, failure: Failure) -> None:
        super()._finished(failure)
        self._tell_no_more(None if self._stopped else failure)

    def _tell_no_more(self, failure: Failure | None) -> None:
        if self._release is not None:
            self._release.cancel()
            self._release = None
        told, self._audience = self._audience, {}
        for each in told:
            each.end()
        for changes in tuple(self._iterators):
            changes.end(failure)
        self._iterators.clear()
