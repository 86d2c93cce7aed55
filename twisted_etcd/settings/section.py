"""A mapping of a settings file, taken key by key."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from twisted_etcd.errors import InvalidSettings
from twisted_etcd.settings.document import Mistakes, Value

_T = TypeVar("_T")

_KINDS = {dict: "a mapping", list: "a list", type(None): "nothing"}
_MOST_SHOWN = 60


class Section:
    """
    The entries of one mapping. A key that is left out, or has nothing behind it, has its default.

    Whatever is wrong goes to ``mistakes``, and a default stands in for it, so that all mistakes are found in one go.

    :param value: the mapping; None for one that was left out.
    :param path: of the section, for mistakes in a file that does not have it.
    :param secret: whether no value of it may be shown.
    """

    def __init__(self, value: Value | None, path: str, mistakes: Mistakes, *, secret: bool = False) -> None:
        self.path = path
        self.line = 1 if value is None else value.line
        self.mistakes = mistakes
        self._secret = secret
        self._known: list[str] = []
        self._entries: dict[str, Value] = {}
        if value is None or value.content is None or value.broken:
            return
        if value.mapping is None:
            self.wrong(value, "a mapping")
        else:
            self._entries = value.mapping

    def mistake(self, key: str, text: str) -> None:
        """Note a mistake about a key, or about the section as a whole where the key is empty."""
        value = self._entries.get(key)
        below = f"{self.path}.{key}" if self.path and key else self.path or key
        self.mistakes.add(value.line if value else self.line, value.path if value else below, text)

    def wrong(self, value: Value, expected: str) -> None:
        """Note that something else was expected."""
        self.mistakes.add(value.line, value.path, f"expected {expected}, got {self._shown(value)}")

    def given(self, key: str) -> Value | None:
        """The value of a key, which is known from now on; None where it is left out or broken."""
        self._known.append(key)
        value = self._entries.get(key)
        return None if value is None or value.content is None or value.broken else value

    def is_given(self, key: str) -> bool:
        """Whether there is something behind the key, were it wrong."""
        value = self._entries.get(key)
        return value is not None and value.content is not None

    def text(self, key: str, default: _T) -> str | _T:
        """Text that is not empty."""
        value = self.given(key)
        return default if value is None else self._text(value) or default

    def parsed(self, key: str, parse: Callable[[str], _T], default: _T) -> _T:
        """Text that is read further; what that says against it with ``InvalidSettings`` is a mistake."""
        value = self.given(key)
        parsed = None if value is None else self._parsed(value, parse)
        return default if parsed is None else parsed

    def flag(self, key: str, *, default: bool) -> bool:
        """``true`` or ``false``."""
        value = self.given(key)
        if value is None:
            return default
        content = value.content
        if value.written is not None:
            content = {"true": True, "false": False}.get(str(content).lower())
        if isinstance(content, bool):
            return content
        self.wrong(value, "true or false")
        return default

    def whole(self, key: str, default: int, *, least: int, most: int, expected: str) -> int:
        """
        A whole number.

        :param expected: what it is, for the mistake: ``a whole number of seconds``.
        """
        value = self.given(key)
        if value is None:
            return default
        number = value.content
        if value.written is not None and str(number).isascii() and str(number).isdecimal():
            number = int(str(number))
        if not isinstance(number, int) or isinstance(number, bool):
            self.wrong(value, expected)
        elif not least <= number <= most:
            self.wrong(value, f"{expected} from {least:,} to {most:,}")
        else:
            return number
        return default

    def file(self, key: str, directory: Path) -> Path | None:
        """A path; a relative one begins at the directory."""
        text = self.text(key, None)
        return None if text is None else directory / text

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of texts."""
        return tuple(text for value in self.listed(key, "texts") if (text := self._text(value)) is not None)

    def parsed_texts(self, key: str, parse: Callable[[str], _T]) -> tuple[_T, ...]:
        """A list of texts that are read further, as by :meth:`parsed`."""
        items = (self._parsed(value, parse) for value in self.listed(key, "texts"))
        return tuple(item for item in items if item is not None)

    def text_map(self, key: str, *, secret: bool = False) -> dict[str, str]:
        """
        A mapping of texts, which may be empty.

        :param secret: whether none of them may be shown.
        """
        section = Section(None, self.path, self.mistakes, secret=True) if secret else self
        value = self.given(key)
        if value is None:
            return {}
        if value.mapping is None:
            self.wrong(value, "a mapping")
            return {}
        found = {}
        for name, each in value.mapping.items():
            if isinstance(each.content, str):
                found[name] = each.content
            elif not each.broken:
                section.wrong(each, "text (put it in quotes)")
        return found

    def listed(self, key: str, what: str) -> list[Value]:
        """
        The items of a list.

        :param what: the list is of, for the mistake.
        """
        value = self.given(key)
        if value is None or value.broken:
            return []
        if value.items is None:
            self.wrong(value, f"a list of {what}")
            return []
        return value.items

    def section(self, key: str, *, secret: bool = False) -> Section:
        """The mapping behind a key."""
        path = f"{self.path}.{key}" if self.path else key
        return Section(self.given(key), path, self.mistakes, secret=secret)

    def sections(self, key: str) -> list[Section]:
        """The mappings of a list."""
        return [Section(value, value.path, self.mistakes) for value in self.listed(key, "mappings")]

    def end(self) -> None:
        """All keys there are have been taken: a further one is a mistake."""
        for key in self._entries:
            if key not in self._known:
                self.mistake(key, unknown(key, self._known))

    def _parsed(self, value: Value, parse: Callable[[str], _T]) -> _T | None:
        text = self._text(value)
        if text is None:
            return None
        try:
            return parse(text)
        except InvalidSettings as error:
            self.mistakes.add(value.line, value.path, str(error))
            return None

    def _text(self, value: Value) -> str | None:
        content = value.content
        if value.broken:
            return None
        if isinstance(content, str):
            if content.strip():
                return content
            self.mistakes.add(value.line, value.path, "expected text, got an empty one")
        elif isinstance(content, dict | list) or content is None:
            self.wrong(value, "text")
        else:
            self.wrong(value, "text (put it in quotes)")
        return None

    def _shown(self, value: Value) -> str:
        content = value.content
        kind = _KINDS.get(type(content)) or f"{_article(type(content).__name__)} {type(content).__name__}"
        if isinstance(content, dict | list) or content is None or self._secret:
            return kind
        if value.written is not None:
            return f"{value.written!r} with the environment filled in"
        shown = repr(content) if isinstance(content, str | bytes) else str(content)
        return f"{shown if len(shown) <= _MOST_SHOWN else shown[:_MOST_SHOWN] + '…'} ({kind})"


def unknown(key: str, known: list[str]) -> str:
    """What to say of a key that is not known: the one that was probably meant, else all that there are."""
    close = difflib.get_close_matches(key, known, n=1)
    meant = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(sorted(known))}"
    return f"unknown key; {meant}"


def _article(noun: str) -> str:
    return "an" if noun[0] in "aeiou" else "a"
