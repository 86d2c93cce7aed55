"""What values are read as: the last good one of each key."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from twisted_etcd.config.formats import Codec, ConfigFormat, Mistake, bad_value
from twisted_etcd.config.paths import checked_key, matches
from twisted_etcd.config.snapshot import Entry
from twisted_etcd.errors import BadValue, InvalidSettings

#: What ``types`` has for a key: a class, or a class and the format of its values.
Typed = Any


class Readings:
    """
    Decodes values as they come, and keeps the last good one of a key whose value cannot be decoded.

    :param types: classes by keys, or by patterns in which ``*`` stands for one part of a path and ``**`` for all that
        is left of it. An exact key comes before a pattern, and of several patterns the first counts.
    :param format: of all other values.
    :param reported: told each value that cannot be decoded.
    :raises InvalidSettings: for a format, a class or a key that cannot be used.
    """

    def __init__(
        self,
        types: Mapping[str, Typed],
        format: ConfigFormat | str,  # noqa: A002 - as users say it
        reported: Callable[[BadValue], None],
    ) -> None:
        self._plain = Codec(format=format)
        self._exact: dict[str, Codec] = {}
        self._patterns: list[tuple[str, Codec]] = []
        self._reported = reported
        for key, typed in types.items():
            path = checked_key(key)
            codec = _codec(path, typed)
            if "*" in path or "?" in path or "[" in path:
                self._patterns.append((path, codec))
            else:
                self._exact[path] = codec
        self._values: dict[str, Any] = {}
        #: What the values of declared keys come from, and which of them are not the newest.
        self._good: dict[str, Entry] = {}
        self._bad: set[str] = set()

    def declared(self, path: str) -> Codec | None:
        """How the values of a key are written that ``types`` has."""
        found = self._exact.get(path)
        if found is None:
            found = next((codec for pattern, codec in self._patterns if matches(path, pattern)), None)
        return found

    def codec(self, path: str) -> Codec:
        """How the values of a key are written."""
        return self.declared(path) or self._plain

    @property
    def values(self) -> Mapping[str, Any]:
        """What each key is read as; a ``BadValue`` where it never had a good value."""
        return self._values

    def decode(self, path: str, entry: Entry) -> Any | BadValue:  # noqa: ANN401 - of whatever class
        """One value, by itself."""
        decoded = self.codec(path).decode(entry.value)
        return bad_value(path, entry.revision, decoded) if isinstance(decoded, Mistake) else decoded

    @property
    def kept(self) -> dict[str, Entry]:
        """What the declared keys are read from whose newest value is bad."""
        return {path: self._good[path] for path in self._bad if path in self._good}

    def recall(self, path: str, entry: Entry) -> None:
        """A key had this value once: it is the last good one where it is declared and good."""
        decoded = self.decode(path, entry)
        if self.declared(path) is not None and not isinstance(decoded, BadValue):
            self._values[path], self._good[path] = decoded, entry

    def take(self, path: str, entry: Entry | None, fallback: Entry | None) -> None:
        """
        A key has this value now; None where it is not set.

        :param fallback: its default, for where it has no good value.
        """
        self._bad.discard(path)
        if entry is None:
            self._values.pop(path, None)
            self._good.pop(path, None)
            return
        decoded = self.decode(path, entry)
        if isinstance(decoded, BadValue):
            self._bad.add(path)
            self._reported(decoded)
            if not isinstance(self._values.get(path, decoded), BadValue):
                return
            if fallback is not None and fallback is not entry:
                default = self.decode(path, fallback)
                decoded = decoded if isinstance(default, BadValue) else default
        elif self.declared(path) is not None:
            self._good[path] = entry
        self._values[path] = decoded

    def wanting(self, paths: Iterable[str]) -> BadValue | None:
        """The first of the declared keys that has no good value."""
        for path in paths:
            value = self._values.get(path)
            if isinstance(value, BadValue) and self.declared(path) is not None:
                return value
        return None


def _codec(path: str, typed: Typed) -> Codec:
    kind, form = typed if isinstance(typed, tuple) and len(typed) == 2 else (typed, None)  # noqa: PLR2004 - a pair
    try:
        return Codec(kind, form)
    except InvalidSettings as error:
        msg = f"types[{path!r}]: {error}"
        raise InvalidSettings(msg) from error
