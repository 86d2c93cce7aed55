"""What the callers of the registers saw, told to a search as soon as it is known."""

from __future__ import annotations

import enum
from collections import deque

import msgspec

from tests.soak.linearizability import Effect, NotLinearizable, Read, RegisterSearch, SearchTooLarge


class Fate(enum.Enum):
    """What became of an operation, as its caller was told."""

    PENDING = "not known yet"
    DONE = "acknowledged"
    NOT_APPLIED = "certainly not applied"
    UNKNOWN = "may have been applied"


class Operation(msgspec.Struct, eq=False):
    """
    One call on one register.

    :ivar effect: what it did, or would have done; of a read, known once it is answered.
    """

    number: int
    key: str
    effect: Effect | None
    fate: Fate = Fate.PENDING


class Broken(Exception):
    """A promise was broken; the text says which one, and how it shows."""


class RegisterHistory:
    """
    The history of one register, in the order in which its callers saw it.

    What is known is checked and forgotten, so that a long run takes no more memory than a short one.
    """

    def __init__(self, key: str) -> None:
        self._key = key
        self._search = RegisterSearch()
        #: Calls and returns in their order; the second part says which.
        self._events: deque[tuple[Operation, bool]] = deque()
        self.checked = 0

    def called(self, operation: Operation) -> None:
        """It began."""
        self._events.append((operation, False))

    def returned(self, operation: Operation) -> None:
        """It ended, and its fate is set."""
        self._events.append((operation, True))
        self._check()

    def _check(self) -> None:
        """Tell the search all that stands before the first call whose fate is not known."""
        try:
            while self._events and self._events[0][0].fate is not Fate.PENDING:
                operation, returned = self._events.popleft()
                self._tell(operation, returned=returned)
        except NotLinearizable as error:
            evidence = "\n  ".join(error.evidence)
            message = f"register {self._key} is not linearizable: {error}\n  {evidence}"
            raise Broken(message) from error
        except SearchTooLarge as error:
            message = f"register {self._key} cannot be checked: {error}"
            raise Broken(message) from error

    def _tell(self, operation: Operation, *, returned: bool) -> None:
        effect = operation.effect
        if effect is None or operation.fate is Fate.NOT_APPLIED:
            return
        if operation.fate is Fate.UNKNOWN:
            if not returned and not isinstance(effect, Read):
                self._search.called_in_doubt(operation.number, effect)
        elif returned:
            self._search.answered(operation.number)
            self.checked += 1
        else:
            self._search.called(operation.number, effect)


class Registers:
    """All registers."""

    def __init__(self, keys: tuple[str, ...]) -> None:
        self.keys = keys
        self._histories = {key: RegisterHistory(key) for key in keys}
        self._numbers = 0

    @property
    def checked(self) -> int:
        """How many operations were found to be in order."""
        return sum(history.checked for history in self._histories.values())

    def call(self, key: str, effect: Effect | None) -> Operation:
        """An operation begins."""
        self._numbers += 1
        operation = Operation(self._numbers, key, effect)
        self._histories[key].called(operation)
        return operation

    def done(self, operation: Operation, effect: Effect) -> None:
        """
        It was acknowledged, and did this.

        :raises Broken: that cannot be.
        """
        operation.effect = effect
        self._end(operation, Fate.DONE)

    def not_applied(self, operation: Operation) -> None:
        """Its caller was told that it was certainly not applied: nobody may ever see it."""
        self._end(operation, Fate.NOT_APPLIED)

    def unknown(self, operation: Operation) -> None:
        """Its caller was told that it may have been applied, or, of a read, that there is no answer."""
        self._end(operation, Fate.UNKNOWN)

    def _end(self, operation: Operation, fate: Fate) -> None:
        operation.fate = fate
        self._histories[operation.key].returned(operation)
