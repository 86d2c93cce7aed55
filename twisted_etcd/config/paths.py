"""Where configuration is in etcd: keys as paths below a prefix. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any, TypeVar

from twisted_etcd.errors import InvalidSettings

ValueT = TypeVar("ValueT")

#: Where configuration is kept, unless told otherwise.
CONFIG_PREFIX = "/config"


def checked_key(key: str) -> str:
    """
    A configuration key without the slashes around it, which mean nothing.

    :raises InvalidSettings: where nothing is left.
    :raises TypeError: for anything but ``str``.
    """
    if not isinstance(key, str):
        msg = f"a configuration key must be str, not {type(key).__name__}"
        raise TypeError(msg)
    stripped = key.strip("/")
    if not stripped:
        msg = f"configuration key {key!r} is empty; give a path such as 'app/database'"
        raise InvalidSettings(msg)
    return stripped


class Paths:
    """
    Keys of etcd's and the paths that they are below a prefix.

    :param prefix: ``/config`` and the path ``app/database`` are the key ``/config/app/database``.
    :ivar prefix: without slashes at its end.
    :ivar below: what the keys of all paths begin with.
    :raises TypeError: for a prefix that is no ``str``.
    """

    def __init__(self, prefix: str = CONFIG_PREFIX) -> None:
        if not isinstance(prefix, str):
            msg = f"the prefix of configuration must be str, not {type(prefix).__name__}"
            raise TypeError(msg)
        self.prefix = prefix.rstrip("/")
        self.below = f"{self.prefix}/"
        self._below = self.below.encode()

    def etcd_key(self, key: str) -> str:
        """
        The etcd key of a configuration key.

        :raises InvalidSettings: where it is empty.
        """
        return self.below + checked_key(key)

    def root(self, path: str) -> str:
        """What the keys of all paths below a path begin with; the empty path is above all."""
        if not isinstance(path, str):
            msg = f"a path of configuration must be str, not {type(path).__name__}"
            raise TypeError(msg)
        stripped = path.strip("/")
        return f"{self.below}{stripped}/" if stripped else self.below

    def path(self, etcd_key: bytes) -> str | None:
        """The path of a key below the prefix; None for one that no path leads to: not UTF-8, or slashes around it."""
        try:
            path = etcd_key.removeprefix(self._below).decode()
        except UnicodeDecodeError:
            return None
        return path if path and path == path.strip("/") else None


def is_below(path: str, root: str) -> bool:
    """Whether a path is a root, or below it; everything is below the empty root."""
    return not root or path == root or path.startswith(f"{root}/")


def matches(path: str, pattern: str) -> bool:
    """Whether a path is one of a pattern: ``*`` stands for one part of it, or something in it; ``**`` for the rest."""
    parts, wanted = path.split("/"), pattern.split("/")
    if wanted[-1] == "**":
        wanted.pop()
        if len(parts) <= len(wanted):
            return False
        parts = parts[: len(wanted)]
    return len(parts) == len(wanted) and all(map(fnmatchcase, parts, wanted))


def tree(values: Iterable[tuple[str, ValueT]]) -> dict[str, Any]:
    """
    Paths as nested mappings.

    A value at a path that has others below it stands among them with the empty name.
    """
    root: dict[str, Any] = {}
    for path, value in values:
        node = root
        *parents, name = path.split("/")
        for part in parents:
            below = node.get(part)
            if not isinstance(below, _Node):
                below = node[part] = _Node() if part not in node else _Node({"": below})
            node = below
        below = node.get(name)
        if isinstance(below, _Node):
            below[""] = value
        else:
            node[name] = value
    return root


class _Node(dict[str, Any]):
    """A place with others below it, told apart from a value that is a mapping."""


def flattened(nested: Mapping[Any, Any], is_value: Callable[[str], bool], root: str = "") -> Iterable[tuple[str, Any]]:
    """
    The paths and values of nested mappings, as :func:`tree` makes them.

    :param is_value: whether a mapping at a path is a value itself.
    :raises InvalidSettings: for a name that is no text.
    """
    for name, value in nested.items():
        if not isinstance(name, str):
            msg = f"the name {name!r} below {root or 'the top'} is no text: put it in quotes"
            raise InvalidSettings(msg)
        path = "/".join(filter(None, (root, name.strip("/"))))
        if isinstance(value, Mapping) and not is_value(path):
            yield from flattened(value, is_value, path)
        else:
            yield checked_key(path), value
