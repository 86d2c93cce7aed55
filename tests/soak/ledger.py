"""Whether acknowledged writes are in etcd's history, and those that were certainly not applied are not."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from tests.soak.history import Broken
from tests.soak.truth import Fact

#: So many of the last revisions are remembered, for acknowledgements that come after them.
_REMEMBERED = 20_000


class _Told(NamedTuple):
    """What a writer was told, and whether there may be more at that revision."""

    facts: tuple[Fact, ...]
    in_company: bool


class Ledger:
    """
    Compares what writers were told with what happened; either can come first.

    :ivar checked: how many acknowledged writes were found in the history.
    """

    def __init__(self) -> None:
        self.checked = 0
        self._acknowledged: dict[int, list[_Told]] = {}
        self._happened: dict[int, tuple[Fact, ...]] = {}
        self._order: deque[int] = deque()
        self._values: set[str] = set()
        self._refused: set[str] = set()

    @property
    def missing(self) -> int:
        """How many acknowledged writes the history has not shown yet."""
        return sum(map(len, self._acknowledged.values()))

    def acknowledged(self, revision: int, *facts: Fact, in_company: bool = False) -> None:
        """
        A writer was told that this was done at this revision.

        :param in_company: whether other writes may have been done at the same one, as with puts that travel together.
        :raises Broken: something else was.
        """
        told = _Told(facts, in_company)
        happened = self._happened.get(revision)
        if happened is None:
            self._acknowledged.setdefault(revision, []).append(told)
        else:
            self._compare(revision, told, happened)

    def refused(self, value: str) -> None:
        """
        A writer was told that its write of this value was certainly not applied.

        :raises Broken: it was.
        """
        self._refused.add(value)
        if value in self._values:
            raise Broken(_applied(value))

    def happened(self, revision: int, facts: tuple[Fact, ...]) -> None:
        """
        By etcd's own history.

        :raises Broken: it is not what a writer was told.
        """
        values = {fact.value for fact in facts if fact.value is not None}
        for value in values & self._refused:
            raise Broken(_applied(value))
        for told in self._acknowledged.pop(revision, ()):
            self._compare(revision, told, facts)
        self._happened[revision] = facts
        self._values |= values
        self._order.append(revision)
        if len(self._order) > _REMEMBERED:
            gone = self._happened.pop(self._order.popleft())
            self._values.difference_update(fact.value for fact in gone if fact.value is not None)

    def _compare(self, revision: int, told: _Told, happened: tuple[Fact, ...]) -> None:
        same = set(told.facts) <= set(happened) if told.in_company else told.facts == happened
        if not same:
            message = f"revision {revision} was acknowledged as {told.facts}, and etcd has {happened}"
            raise Broken(message)
        self.checked += 1


def _applied(value: str) -> str:
    return f"the write of {value!r} was told to be certainly not applied, and etcd has it"
