"""Data that can be shown: Structs whose ``repr`` keeps their secrets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import msgspec


class Discreet(msgspec.Struct, frozen=True):
    """
    A Struct whose ``repr`` can be logged. Fields at their defaults are left out of it.

    :cvar secret_fields: the names of the fields whose contents it hides: of bytes it tells how many there are, of a
        mapping the names in it, and of anything else that it is there.
    """

    secret_fields: ClassVar[frozenset[str]] = frozenset()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={shown}' for name, shown in self._shown_fields())})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        # msgspec brings one of its own, by which rich's tracebacks and consoles would show what __repr__ hides.
        return list(self._shown_fields())

    def _shown_fields(self) -> Iterator[tuple[str, str]]:
        names = self.__struct_fields__
        defaults = self.__struct_defaults__
        required = len(names) - len(defaults)
        for position, name in enumerate(names):
            value = getattr(self, name)
            if position >= required and value == _default(defaults[position - required]):
                continue
            yield name, _hidden(value) if name in self.secret_fields else repr(value)


def _default(given: object) -> object:
    """The default of a field, made where the class only says how."""
    factory = getattr(given, "factory", None)
    return given if factory is None else factory()


def _hidden(value: object) -> str:
    if value is None:
        return "None"
    if isinstance(value, bytes):
        # How long a value is helps in finding an error; how long a password is helps nobody who should be helped.
        return f"<{len(value)} bytes>"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{name!r}: <hidden>' for name in value)}}}"
    return "<hidden>"
