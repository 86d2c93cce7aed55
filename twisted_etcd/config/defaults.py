"""Defaults of configuration, from a mapping or a local file. Pure but for reading that file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import yaml

from twisted_etcd.config.formats import Codec, ConfigFormat, Mistake
from twisted_etcd.config.paths import checked_key, flattened
from twisted_etcd.config.readings import Readings
from twisted_etcd.config.snapshot import Entry
from twisted_etcd.errors import BadValue, InvalidSettings


def load_defaults(
    given: Mapping[str, Any] | str | Path | None, is_value: Callable[[str], bool] = lambda _: False
) -> dict[str, Any]:
    """
    Defaults by path, as they were given.

    :param given: nested mappings whose names joined with slashes are the paths, or the path of a YAML or JSON file with
        such.
    :param is_value: whether a mapping at a path is a value itself, and no further paths.
    :raises InvalidSettings: where the file cannot be read, or one of its names is no text; the error names it.
    :raises TypeError: for anything else.
    """
    if given is None:
        return {}
    file = ""
    if isinstance(given, str | Path):
        file = f"{given}: "
        given = _file(Path(given))
    if not isinstance(given, Mapping):
        msg = f"defaults must be a mapping, or the path of a file, not {type(given).__name__}"
        raise TypeError(msg)
    try:
        paths = list(flattened(given, is_value))
    except InvalidSettings as error:
        msg = f"{file}{error}"
        raise InvalidSettings(msg) from None
    found = dict(paths)
    if len(found) != len(paths):
        names = [path for path, _ in paths]
        msg = f"{file}the default {next(name for name in names if names.count(name) > 1)!r} is there twice"
        raise InvalidSettings(msg)
    return found


def _file(path: Path) -> Mapping[str, Any]:
    try:
        content = path.read_bytes()
    except OSError as error:
        msg = f"{path}: the defaults cannot be read: {error.strerror}"
        raise InvalidSettings(msg) from error
    # YAML is what JSON is, and more.
    loaded = Codec(format=ConfigFormat.YAML).decode(content)
    if isinstance(loaded, Mistake):
        place = f"{loaded.place}: " if loaded.place else ""
        msg = f"{path}: {place}{loaded.why}"
        raise InvalidSettings(msg)
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        msg = f"{path}: expected a mapping of defaults, got a {type(loaded).__name__}"
        raise InvalidSettings(msg)
    return loaded


def encode_defaults(defaults: Mapping[str, Any], readings: Readings) -> dict[str, Entry]:
    """
    Defaults as they would be written in etcd, each in the format of its key.

    :raises InvalidSettings: for one that cannot be written so, or cannot be read again.
    """
    found = {}
    for path, value in defaults.items():
        entry = Entry(_encoded(checked_key(path), value, readings.codec(path)))
        read = readings.decode(path, entry)
        if isinstance(read, BadValue):
            place = f" at {read.place}" if read.place else ""
            msg = f"the default of {path!r} cannot be used{place}: {read.why}"
            raise InvalidSettings(msg)
        found[path] = entry
    return found


def _encoded(path: str, value: object, codec: Codec) -> bytes:
    try:
        if codec.format is ConfigFormat.TEXT and not isinstance(value, str | bytes):
            # A number or a list of a file: as JSON, so that it can be decoded into what it is.
            return msgspec.json.encode(value)
        return codec.encode(value)
    except (TypeError, yaml.YAMLError) as error:
        msg = f"the default of {path!r} cannot be used: it is a {type(value).__name__}"
        raise InvalidSettings(msg) from error
