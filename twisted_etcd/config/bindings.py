"""Objects that are always what the last good value said."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar, cast

import msgspec

from twisted_etcd.config.formats import Codec, Mistake, bad_value, convert
from twisted_etcd.config.paths import is_below, tree
from twisted_etcd.config.snapshot import Entry
from twisted_etcd.errors import BadValue, InvalidSettings
from twisted_etcd.listeners import call_back

BoundT = TypeVar("BoundT")

#: Stands for no value, which None could be.
NOTHING: Any = object()


class ConfigBinding(Generic[BoundT]):
    """
    One object out of configuration; made by ``config.bind``, ``config.bind_tree`` and ``config.value``.

    :ivar key: the key, or the path of the subtree.
    :ivar revision: etcd's revision of what :attr:`value` comes from; 0 for a default.
    :ivar error: what is wrong with the newest value, where something is; :attr:`value` is the one before it then.
    """

    def __init__(
        self,
        key: str,
        read: Callable[[Mapping[str, Entry]], tuple[Any | Mistake, int]],
        *,
        concerns: Callable[[str], bool],
        default: Any,  # noqa: ANN401 - of the class, or nothing
        changed: Callable[[BoundT], object] | None,
        reported: Callable[[BadValue], None],
        bindings: list[Any],
    ) -> None:
        self.key = key
        self.revision = 0
        self.error: BadValue | None = None
        self.concerns = concerns
        self._read = read
        self._default = default
        self._changed = changed
        self._reported = reported
        self._value = default
        self._has_read = False
        self._bindings = bindings

    def __repr__(self) -> str:
        state = "not set" if self._value is NOTHING else f"of revision {self.revision}"
        return f"<Binding of {self.key!r}, {state}{', its newest value is bad' if self.error else ''}>"

    @property
    def value(self) -> BoundT:
        """
        The last good one; where there was none, the default.

        :raises BadValue: there was none, the value cannot be decoded, and there is no default.
        :raises KeyError: there was none, it is not set, and there is no default.
        """
        if self._value is not NOTHING:
            return cast("BoundT", self._value)
        if self.error is not None:
            raise self.error
        raise KeyError(self.key)

    def stop(self) -> None:
        """Keep :attr:`value` as it is now, whatever configuration becomes."""
        if self in self._bindings:
            self._bindings.remove(self)

    # --- for Config -------------------------------------------------------------------------------------------------

    def take(self, entries: Mapping[str, Entry]) -> None:
        """Configuration is this now."""
        found, revision = self._read(entries)
        if isinstance(found, Mistake):
            # The place of a tree's mistake is a path below it, and so part of the key.
            self.error = bad_value(self.key, revision, found)
            self._reported(self.error)
            return
        self.error = None
        if found is NOTHING:
            if self._default is NOTHING:
                # Deleted: the last good one stays.
                return
            found = self._default
        self.revision = revision
        before, self._value = self._value, found
        if self._has_read and self._changed is not None and (before is NOTHING or before != found):
            call_back(f"what {self.key!r} is now", self._changed, found)
        self._has_read = True

    @property
    def is_wanting(self) -> BadValue | None:
        """The error for which there is no value at all."""
        return self.error if self._value is NOTHING else None


def value_reader(key: str, codec: Codec) -> Callable[[Mapping[str, Entry]], tuple[Any | Mistake, int]]:
    """Reads one key."""

    def read(entries: Mapping[str, Entry]) -> tuple[Any | Mistake, int]:
        entry = entries.get(key)
        return (NOTHING, 0) if entry is None else (codec.decode(entry.value), entry.revision)

    return read


def tree_reader(
    root: str,
    kind: Any,  # noqa: ANN401 - any class
    codec: Codec,
) -> Callable[[Mapping[str, Entry]], tuple[Any | Mistake, int]]:
    """
    Reads all below a path into one object: the parts of a path are names of fields, with ``-`` for ``_`` if they like.

    :param codec: reads each value.
    """
    try:
        about = msgspec.inspect.type_info(kind)
    except Exception as error:
        msg = f"nothing can be decoded into {kind!r}: {error}"
        raise InvalidSettings(msg) from error
    if not _fields(about):
        msg = f"a subtree is bound to a class with fields, not to {kind!r}"
        raise InvalidSettings(msg)
    start = len(root) + 1

    def read(entries: Mapping[str, Entry]) -> tuple[Any | Mistake, int]:
        leaves: list[tuple[str, Any]] = []
        revision = 0
        for path, entry in entries.items():
            if path == root or not is_below(path, root):
                continue
            leaf = codec.decode(entry.value)
            revision = max(revision, entry.revision)
            if isinstance(leaf, Mistake):
                place = ".".join(filter(None, (path[start:].replace("/", "."), leaf.place)))
                return Mistake(place, leaf.why), revision
            leaves.append((path[start:], leaf))
        named = _named(tree(leaves), about, "")
        if isinstance(named, Mistake):
            return named, revision
        return convert(named, kind, strict=False), revision

    return read


def _fields(about: Any) -> dict[str, Any]:  # noqa: ANN401 - msgspec's descriptions of types have no common class
    """The types of a class's fields by their names; of a union, those of all classes in it."""
    if isinstance(about, msgspec.inspect.UnionType):
        return {name: field for each in about.types for name, field in _fields(each).items()}
    fields = getattr(about, "fields", None)
    return {field.encode_name: field.type for field in fields} if isinstance(fields, tuple) else {}


def _named(node: Any, about: Any, place: str) -> Any | Mistake:  # noqa: ANN401 - plain data
    """Nested mappings with the names of a class's fields."""
    if not isinstance(node, dict):
        return node
    fields = _fields(about)
    found: dict[str, Any] = {}
    for part, below in node.items():
        name = part if part in fields else part.replace("-", "_")
        name = name if name in fields else part
        where = f"{place}.{name}" if place else name
        if name in found:
            return Mistake(where, "it is there twice, with - and with _ in its name")
        named = _named(below, fields.get(name) or getattr(about, "value_type", None), where)
        if isinstance(named, Mistake):
            return named
        found[name] = named
    return found
