"""
Whether what the callers of one register saw can have happened one after the other: a search over its history.

It is the search of Wing and Gong with remembered states, after Lowe, done in the order of the history: it keeps all
*configurations* that the past allows (what the register holds, which operations under way have happened already), and
at each answer goes on with those in which that operation can have happened by now. Where none is left, the history is
not linearizable. So a history of any length takes no more memory than what is under way at a time.

An operation whose outcome nobody knows may happen at any time after its call, or never.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

import msgspec

#: What a register holds; None where there is no such key.
State = str | None

#: So many of the last events are kept, as evidence.
_KEPT = 60
#: More configurations than these are not looked at: the search gives up, and says so.
MOST_CONFIGURATIONS = 200_000


class Write(msgspec.Struct, frozen=True):
    """The register was set, or deleted."""

    value: State


class Read(msgspec.Struct, frozen=True):
    """The register was found to hold this. A comparison that did not hold, and saw why, is a read too."""

    value: State


class Swap(msgspec.Struct, frozen=True):
    """The register held what was expected, and was set."""

    expected: State
    value: State


Effect = Write | Read | Swap


class NotLinearizable(Exception):
    """
    No order of the operations explains what their callers saw.

    :ivar evidence: the last events of the history, one a line; the last one cannot be explained.
    """

    def __init__(self, message: str, evidence: tuple[str, ...]) -> None:
        super().__init__(message)
        self.evidence = evidence


class SearchTooLarge(Exception):
    """Too many operations were under way at a time to try all their orders."""


class _Configuration(msgspec.Struct, frozen=True):
    """
    One way in which the past can have been.

    :ivar done: operations that have happened and were not answered yet.
    :ivar spent: operations of unknown outcome that have happened.
    """

    state: State
    done: frozenset[int] = frozenset()
    spent: frozenset[int] = frozenset()

    def with_answer(self, number: int) -> _Configuration:
        return _Configuration(self.state, self.done - {number}, self.spent)


def applied(effect: Effect, state: State) -> tuple[bool, State]:
    """Whether an operation can happen in a state, and the state after it."""
    if isinstance(effect, Write):
        return True, effect.value
    if isinstance(effect, Read):
        return state == effect.value, state
    return state == effect.expected, effect.value


class RegisterSearch:
    """
    The history of one register, told in its order.

    :ivar most: the largest number of configurations there was at a time.
    """

    def __init__(self, initial: State = None) -> None:
        self.most = 1
        self._configurations = {_Configuration(initial)}
        #: Called, to be answered, and not answered yet.
        self._pending: dict[int, Effect] = {}
        #: Called, and never to be answered.
        self._doubtful: dict[int, Write | Swap] = {}
        #: The same by the value that they leave, since they matter only where somebody sees that.
        self._leaving: dict[State, list[int]] = {}
        self._events: deque[str] = deque(maxlen=_KEPT)

    def called(self, number: int, effect: Effect) -> None:
        """An operation began that will be answered."""
        self._events.append(f"#{number} called: {effect}")
        self._pending[number] = effect

    def called_in_doubt(self, number: int, effect: Effect) -> None:
        """An operation began whose outcome will never be known."""
        self._events.append(f"#{number} called, outcome never known: {effect}")
        if not isinstance(effect, Read):
            self._doubtful[number] = effect
            self._leaving.setdefault(effect.value, []).append(number)

    def answered(self, number: int) -> None:
        """
        An operation has returned.

        :raises NotLinearizable: it cannot have happened as it was answered.
        :raises SearchTooLarge: nobody can say.
        """
        effect = self._pending[number]
        self._events.append(f"#{number} answered: {effect}")
        before = self._configurations
        found = self._after(number)
        if not found:
            self._events.extend(f"possible before: {each}" for each in sorted(map(str, before))[:8])
            message = f"#{number} {effect} cannot have happened in any order of what was under way"
            raise NotLinearizable(message, tuple(self._events))
        del self._pending[number]
        self._configurations = _without_dominated(found)
        self.most = max(self.most, len(self._configurations))
        self._forget_spent()

    def _after(self, number: int) -> set[_Configuration]:
        """All configurations in which that operation has happened, without it."""
        wanted = self._wanted()
        found: set[_Configuration] = set()
        # A read that can happen now, does: it changes nothing, and nothing is gained by its waiting.
        frontier = {self._reading(each) for each in self._configurations}
        seen = set(frontier)
        while frontier:
            configuration = frontier.pop()
            if number in configuration.done:
                # What else is under way can still happen later.
                found.add(configuration.with_answer(number))
                continue
            for following in self._following(configuration, wanted):
                reading = self._reading(following)
                if reading not in seen:
                    seen.add(reading)
                    frontier.add(reading)
            if len(seen) > MOST_CONFIGURATIONS:
                message = f"{len(self._pending)} operations are under way at #{number}"
                raise SearchTooLarge(message)
        self.most = max(self.most, len(seen))
        return found

    def _wanted(self) -> list[State]:
        """
        The values that some operation under way has seen.

        An operation in doubt that nobody sees may as well not have happened: it is tried only for these.
        """
        wanted = {seen for effect in self._pending.values() for seen in _seen_by(effect)}
        waiting = list(wanted)
        while waiting:
            for number in self._leaving.get(waiting.pop(), ()):
                for seen in _seen_by(self._doubtful[number]):
                    if seen not in wanted:
                        wanted.add(seen)
                        waiting.append(seen)
        return [value for value in wanted if value in self._leaving]

    def _reading(self, configuration: _Configuration) -> _Configuration:
        read = {
            number
            for number, effect in self._pending.items()
            if isinstance(effect, Read) and effect.value == configuration.state and number not in configuration.done
        }
        if not read:
            return configuration
        return _Configuration(configuration.state, configuration.done | read, configuration.spent)

    def _following(self, configuration: _Configuration, wanted: Iterable[State]) -> Iterator[_Configuration]:
        """Every configuration that one more operation leads to."""
        for number, effect in self._pending.items():
            if number not in configuration.done:
                possible, state = applied(effect, configuration.state)
                if possible:
                    yield _Configuration(state, configuration.done | {number}, configuration.spent)
        for value in wanted:
            if value != configuration.state:
                yield from self._in_doubt(configuration, value)

    def _in_doubt(self, configuration: _Configuration, value: State) -> Iterator[_Configuration]:
        written = False
        for number in self._leaving[value]:
            effect = self._doubtful[number]
            possible, state = applied(effect, configuration.state)
            if number in configuration.spent or not possible:
                continue
            if isinstance(effect, Write):
                if written:
                    # As good as the one before it, from now on.
                    continue
                written = True
            yield _Configuration(state, configuration.done, configuration.spent | {number})

    def _forget_spent(self) -> None:
        """What has happened in every configuration needs no further thought."""
        everywhere = frozenset.intersection(*(each.spent for each in self._configurations))
        if not everywhere:
            return
        for number in everywhere:
            value = self._doubtful.pop(number).value
            self._leaving[value].remove(number)
            if not self._leaving[value]:
                del self._leaving[value]
        self._configurations = {
            _Configuration(each.state, each.done, each.spent - everywhere) for each in self._configurations
        }


def _seen_by(effect: Effect) -> tuple[State, ...]:
    if isinstance(effect, Read):
        return (effect.value,)
    return (effect.expected,) if isinstance(effect, Swap) else ()


def _without_dominated(configurations: set[_Configuration]) -> set[_Configuration]:
    """Without those that differ from another one only in having spent more."""
    alike: dict[tuple[State, frozenset[int]], list[frozenset[int]]] = {}
    for each in configurations:
        alike.setdefault((each.state, each.done), []).append(each.spent)
    return {
        _Configuration(state, done, spent)
        for (state, done), spents in alike.items()
        for spent in spents
        if not any(other < spent for other in spents)
    }
