"""Whether acknowledged writes are in etcd's history, and those that were certainly not applied are not."""

from __future__ import annotations

from collections import deque

from tests.soak.history import Broken
from tests.soak.truth import Fact

#: So many of the last revisions are remembered, for acknowledgements that come after them.
_REMEMBERED = 20_000


class Ledger:
    """
    Compares what writers were told with what happened; either can come first.

    :ivar checked: how many acknowledged writes were found in the history.
    """

    def __init__(self) -> None:
        self.checked = 0
        self._acknowledged: dict[int, tuple[Fact, ...]] = {}
        self._happened: dict[int, tuple[Fact, ...]] = {}
        self._order: deque[int] = deque()
        self._values: set[str] = set()
        self._refused: set[str] = set()

    @property
    def missing(self) -> int:
        """How many acknowledged writes the history has not shown yet."""
        return len(self._acknowledged)

    def acknowledged(self, revision: int, *facts: Fact) -> None:
        """
        A writer was told that this was done at this revision.

        :raises Broken: something else was.
        """
        happened = self._happened.get(revision)
        if happened is None:
            self._acknowledged[revision] = facts
        else:
            self._compare(revision, facts, happened)

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
        acknowledged = self._acknowledged.pop(revision, None)
        if acknowledged is not None:
            self._compare(revision, acknowledged, facts)
        self._happened[revision] = facts
        self._values |= values
        self._order.append(revision)
        if len(self._order) > _REMEMBERED:
            gone = self._happened.pop(self._order.popleft())
            self._values.difference_update(fact.value for fact in gone if fact.value is not None)

    def _compare(self, revision: int, acknowledged: tuple[Fact, ...], happened: tuple[Fact, ...]) -> None:
        if acknowledged != happened:
            message = f"revision {revision} was acknowledged as {acknowledged}, and etcd has {happened}"
            raise Broken(message)
        self.checked += 1


def _applied(value: str) -> str:
    return f"the write of {value!r} was told to be certainly not applied, and etcd has it"
