"""The ``NAME=VALUE`` arguments of an endpoint string, taken one by one and checked."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import NoReturn, TypeVar

from twisted_etcd.errors import InvalidSettings
from twisted_etcd.settings.section import unknown

_T = TypeVar("_T")

#: Longer times are times in another unit, and more than a timer takes.
LONGEST_SECONDS = 366 * 24 * 60 * 60


def refuse(text: str, cause: Exception | None = None) -> NoReturn:
    """
    Say what is wrong with an endpoint string.

    :raises InvalidSettings: always.
    """
    msg = f"etcd endpoint: {text}"
    raise InvalidSettings(msg) from cause


class Arguments:
    """
    What an endpoint string says by name. What is left out has its default; what is wrong is refused by its name.

    :param given: the values as Twisted hands them on, its backslashes taken away.
    """

    def __init__(self, given: Mapping[str, str]) -> None:
        self._given = dict(given)
        self._known: list[str] = []

    def given(self, name: str) -> str | None:
        """The value behind a name, which is known from now on; None where it is left out."""
        self._known.append(name)
        return self._given.get(name)

    def text(self, name: str) -> str | None:
        """Text that is not empty."""
        value = self.given(name)
        if value is not None and not value.strip():
            refuse(f"{name}= has no value; give one, or leave it out")
        return value

    def parsed(self, name: str, parse: Callable[[str], _T], default: _T) -> _T:
        """Text that is read further; what that says against it with ``InvalidSettings`` is refused with its name."""
        value = self.text(name)
        if value is None:
            return default
        try:
            return parse(value)
        except InvalidSettings as error:
            refuse(f"{name}: {error}", error)

    def whole(self, name: str, default: int, *, least: int, most: int, unit: str = "") -> int:
        """
        A whole number.

        :param unit: what it counts, for the error: ``of seconds``.
        """
        value = self.text(name)
        if value is None:
            return default
        expected = f"a whole number{unit and ' '}{unit}"
        if not value.isascii() or not value.isdecimal():
            refuse(f"{name}={value!r} is not {expected}")
        number = int(value)
        if not least <= number <= most:
            refuse(f"{name}={value!r} is not {expected} from {least:,} to {most:,}")
        return number

    def seconds(self, name: str, default: float, *, above: float | None = None) -> float:
        """
        A time, which may have a fraction.

        :param above: what it must be more than; unless given it must be at least 0.
        """
        value = self.text(name)
        if value is None:
            return default
        try:
            seconds = float(value)
        except ValueError:
            refuse(f"{name}={value!r} is not a number of seconds")
        if not math.isfinite(seconds) or seconds > LONGEST_SECONDS:
            refuse(f"{name}={value!r} is not a number of seconds up to {LONGEST_SECONDS:,}")
        if above is not None and seconds <= above:
            refuse(f"{name}={value!r} is not a number of seconds above {above:g}")
        if seconds < 0:
            refuse(f"{name}={value!r} is not a number of seconds from 0 on")
        return seconds

    def one_of(self, name: str, allowed: Mapping[str, _T], default: _T) -> _T:
        """One of some words, in whatever case."""
        value = self.text(name)
        if value is None:
            return default
        if value.lower() not in allowed:
            refuse(f"{name}={value!r} is none of {', '.join(allowed)}")
        return allowed[value.lower()]

    def words(self, name: str) -> tuple[str, ...]:
        r"""Texts with commas between them, each once; ``\,`` is a comma within one."""
        value = self.text(name)
        found = [] if value is None else [word.strip() for word in split(value)]
        if not all(found):
            refuse(f"{name}={value!r} has an empty one between its commas")
        return tuple(dict.fromkeys(found))

    def pairs(self, name: str) -> dict[str, str]:
        r"""
        ``a=1,b=2``, or with colons. No value of them is shown.

        What stands before the first ``=`` or ``:`` is the name; a value may have more of them, and ``\,`` for a comma.
        """
        value = self.text(name)
        found: dict[str, str] = {}
        for number, pair in enumerate([] if value is None else split(value), start=1):
            end = min((place for place in (pair.find("="), pair.find(":")) if place >= 0), default=-1)
            key = pair[: max(end, 0)].strip()
            if not key:
                refuse(
                    f"{name}: entry {number} is not NAME=VALUE; write {name}=zone=west,rack=7, and \\\\, for a comma"
                )
            if key in found:
                refuse(f"{name}: {key!r} stands twice")
            found[key] = pair[end + 1 :].strip()
        return found

    def rest(self) -> dict[str, str]:
        """Those that nobody asked for."""
        return {name: value for name, value in self._given.items() if name not in self._known}

    def what_is_unknown(self, name: str) -> str:
        """What to say of a name that nobody asked for."""
        return unknown(name, self._known).replace("key", "parameter", 1)

    def end(self) -> None:
        """All names there are have been taken: a further one is refused."""
        for name in self.rest():
            refuse(f"{name}=: {self.what_is_unknown(name)}")


def split(text: str) -> Iterable[str]:
    """The parts between commas; a backslash takes the next character for what it is."""
    part = ""
    characters = iter(text)
    for character in characters:
        if character == ",":
            yield part
            part = ""
        elif character == "\\":
            part += next(characters, "\\")
        else:
            part += character
    yield part
