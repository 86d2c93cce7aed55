"""Which of several instances is called."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Hashable, Iterable, Sequence
from hashlib import blake2b
from types import TracebackType
from typing import Protocol, TypeVar, runtime_checkable

from twisted.internet.defer import Deferred

from twisted_etcd.errors import InvalidSettings
from twisted_etcd.registry.instance import Instance

ValueT = TypeVar("ValueT")


class Choice(Protocol):
    """
    A way to choose one of several instances.

    Each one of this module leaves out those whose weight is 0 or less, as long as there are others.
    """

    def choose(self, instances: Sequence[Instance], key: str | bytes | None = None) -> Instance | None:
        """
        Choose one; None where there are none.

        :param instances: those that may be chosen, in the order of their keys. What was tried and failed is left out.
        :param key: what is to stay with one instance, for a choice that is sticky.
        """


@runtime_checkable
class CountsUses(Protocol):
    """A choice that wants to know which instances are being used; see :func:`begin_use`."""

    def begin(self, instance: Instance) -> Use:
        """A use of this instance begins; what is given back ends it."""


class Use:
    """
    A use of an instance, from now until :meth:`end`, the end of a ``with`` block, or that of a Deferred.

    :ivar instance: the one that is used.
    """

    def __init__(self, instance: Instance, ended: Callable[[], None] | None = None) -> None:
        self.instance = instance
        self._ended = ended

    def end(self) -> None:
        """It is used no longer; a second time is ignored."""
        ended, self._ended = self._ended, None
        if ended is not None:
            ended()

    def until(self, deferred: Deferred[ValueT]) -> Deferred[ValueT]:
        """End it when that Deferred has fired or failed, whose result stays as it is."""

        def over(result: ValueT) -> ValueT:
            self.end()
            return result

        return deferred.addBoth(over)

    def __enter__(self) -> Use:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.end()


def begin_use(choice: Choice, instance: Instance) -> Use:
    """Tell a choice, where it counts them, that a use of this instance begins."""
    return choice.begin(instance) if isinstance(choice, CountsUses) else Use(instance)


def weighing(instances: Sequence[Instance]) -> Sequence[Instance]:
    """Those with a weight; all of them, where none has one."""
    if all(instance.weight > 0 for instance in instances):
        return instances
    return [instance for instance in instances if instance.weight > 0] or instances


def _weight(instance: Instance) -> int:
    return max(1, instance.weight)


def _same(instance: Instance) -> Hashable:
    """What stays the same of an instance when its tags or its weight change."""
    return instance.id, instance.endpoint


class RoundRobin:
    """One after the other, each as often as the others."""

    def __init__(self) -> None:
        self._turn = 0

    def choose(self, instances: Sequence[Instance], key: str | bytes | None = None) -> Instance | None:  # noqa: ARG002 - Choice's
        """See :class:`Choice`."""
        candidates = weighing(instances)
        if not candidates:
            return None
        chosen = candidates[self._turn % len(candidates)]
        self._turn += 1
        return chosen


class RandomChoice:
    """
    Any of them, each as likely as the others.

    :param random: gives numbers from 0 up to 1.
    """

    def __init__(self, random: Callable[[], float] = random.random) -> None:
        self._random = random

    def choose(self, instances: Sequence[Instance], key: str | bytes | None = None) -> Instance | None:  # noqa: ARG002 - Choice's
        """See :class:`Choice`."""
        candidates = weighing(instances)
        return candidates[int(self._random() * len(candidates))] if candidates else None


class Weighted:
    """
    Each as often as its weight says, and as evenly as that can be: nginx's smooth weighted round robin. Of the weights
    5, 1 and 1 the turns are a a b a c a a.
    """

    def __init__(self) -> None:
        self._credit: dict[Hashable, int] = {}

    def choose(self, instances: Sequence[Instance], key: str | bytes | None = None) -> Instance | None:  # noqa: ARG002 - Choice's
        """See :class:`Choice`."""
        candidates = weighing(instances)
        if not candidates:
            return None
        names = [_same(instance) for instance in candidates]
        if len(self._credit) > 2 * len(names) + 16:
            # Those that are gone; one that was only left out of this choice begins anew.
            self._credit = {name: self._credit[name] for name in names if name in self._credit}
        total = 0
        best = 0
        for number, (name, instance) in enumerate(zip(names, candidates, strict=True)):
            weight = _weight(instance)
            total += weight
            self._credit[name] = self._credit.get(name, 0) + weight
            if self._credit[name] > self._credit[names[best]]:
                best = number
        self._credit[names[best]] -= total
        return candidates[best]


class LeastUsed:
    """
    The one with the fewest uses under way for its weight; of several, one after the other.

    A use counts from :func:`begin_use` (or :meth:`begin`) on; without that this is a round robin.
    """

    def __init__(self) -> None:
        self._uses: dict[Hashable, int] = {}
        self._among = RoundRobin()

    def choose(self, instances: Sequence[Instance], key: str | bytes | None = None) -> Instance | None:  # noqa: ARG002 - Choice's
        """See :class:`Choice`."""
        candidates = weighing(instances)
        if not candidates:
            return None
        loads = [self.uses(instance) / _weight(instance) for instance in candidates]
        least = min(loads)
        return self._among.choose([each for each, load in zip(candidates, loads, strict=True) if load == least])

    def uses(self, instance: Instance) -> int:
        """How many uses of it are under way."""
        return self._uses.get(_same(instance), 0)

    def begin(self, instance: Instance) -> Use:
        """A use of this instance begins; what is given back ends it."""
        name = _same(instance)
        self._uses[name] = self._uses.get(name, 0) + 1

        def ended() -> None:
            left = self._uses[name] - 1
            if left:
                self._uses[name] = left
            else:
                del self._uses[name]

        return Use(instance, ended)


class Sticky:
    """
    The same one for the same key, in every process: rendezvous hashing, by the instances' ids, with their weights.

    An instance that goes moves its own keys, and one that comes takes its share of all; no other key moves. Without a
    key it is a round robin.
    """

    def __init__(self) -> None:
        self._without_key = RoundRobin()

    def choose(self, instances: Sequence[Instance], key: str | bytes | None = None) -> Instance | None:
        """See :class:`Choice`."""
        candidates = weighing(instances)
        if not candidates:
            return None
        if key is None:
            return self._without_key.choose(candidates)
        wanted = key.encode() if isinstance(key, str) else key
        scores = [-_weight(each) / math.log(_fraction(wanted, each.id.encode())) for each in candidates]
        highest = max(scores)
        best = [each for each, score in zip(candidates, scores, strict=True) if score == highest]
        # More than one where they share an id, though it is to tell them apart.
        return best[0] if len(best) == 1 else max(best, key=lambda each: _fraction(wanted, each.endpoint.encode()))


def _fraction(key: bytes, name: bytes) -> float:
    """A number between 0 and 1, and neither, that is always the same for both."""
    digest = blake2b(len(name).to_bytes(4, "big") + name + key, digest_size=8).digest()
    # As many bits as a float has between 0 and 1, less one for the half.
    return ((int.from_bytes(digest, "big") >> 12) + 0.5) / 2.0**52


#: The names of the choices.
ROUND_ROBIN, RANDOM, WEIGHTED, LEAST_USED, STICKY = "round-robin", "random", "weighted", "least-used", "sticky"
CHOICES: tuple[str, ...] = (ROUND_ROBIN, RANDOM, WEIGHTED, LEAST_USED, STICKY)


def choice_of(name: str, random: Callable[[], float] = random.random) -> Choice:
    """
    A new choice, by its name: ``round-robin``, ``random``, ``weighted``, ``least-used`` or ``sticky``.

    :param random: gives numbers from 0 up to 1.
    :raises InvalidSettings: for another name; it says which there are.
    """
    made: dict[str, Callable[[], Choice]] = {
        ROUND_ROBIN: RoundRobin,
        RANDOM: lambda: RandomChoice(random),
        WEIGHTED: Weighted,
        LEAST_USED: LeastUsed,
        STICKY: Sticky,
    }
    if name not in made:
        msg = f"there is no choice {name!r}; give one of {', '.join(_quoted(CHOICES))}"
        raise InvalidSettings(msg)
    return made[name]()


def _quoted(names: Iterable[str]) -> list[str]:
    return [repr(name) for name in names]
