"""Defaults, from a mapping and from a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from twisted_etcd.config.defaults import encode_defaults, load_defaults
from twisted_etcd.config.readings import Readings
from twisted_etcd.config.snapshot import Entry
from twisted_etcd.errors import InvalidSettings


class Limits(msgspec.Struct):
    most: int


def readings(**types: Any) -> Readings:  # noqa: ANN401
    return Readings(types, "text", lambda _: None)


def test_nested_names_are_paths() -> None:
    given = {"database": {"url": "x", "pool": {"size": 3}}, "a/b": True}
    assert load_defaults(given) == {"database/url": "x", "database/pool/size": 3, "a/b": True}
    assert load_defaults(None) == {}


@pytest.mark.parametrize("content", ["database:\n  url: x\nport: 80\n", '{"database": {"url": "x"}, "port": 80}'])
def test_a_file_is_yaml_or_json(tmp_path: Path, content: str) -> None:
    file = tmp_path / "defaults"
    file.write_text(content)
    assert load_defaults(file) == load_defaults(str(file)) == {"database/url": "x", "port": 80}


def test_a_mapping_at_a_key_of_types_is_a_value() -> None:
    some = readings(limits=Limits)
    loaded = load_defaults({"limits": {"most": 3}, "other": {"most": 4}}, lambda path: some.declared(path) is not None)
    assert encode_defaults(loaded, some) == {"limits": Entry(b'{"most":3}'), "other/most": Entry(b"4")}
    assert encode_defaults({"limits": Limits(3)}, some) == {"limits": Entry(b'{"most":3}')}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("a: [", "{file}: line 1, column 5: it is no YAML: expected the node content, but found …"),
        ("- a", "{file}: expected a mapping of defaults, got a list"),
        ("8080: a", "{file}: the name 8080 below the top is no text: put it in quotes"),
        ("a/b: 1\na: {b: 2}", "{file}: the default 'a/b' is there twice"),
    ],
)
def test_a_mistake_in_a_file_is_named_with_it(tmp_path: Path, content: str, said: str) -> None:
    file = tmp_path / "defaults.yaml"
    file.write_text(content)
    with pytest.raises(InvalidSettings) as refused:
        load_defaults(file)
    assert str(refused.value) == said.format(file=file)


def test_a_file_that_is_not_there_and_an_empty_one(tmp_path: Path) -> None:
    with pytest.raises(InvalidSettings, match="the defaults cannot be read: No such file or directory"):
        load_defaults(tmp_path / "none.yaml")
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    assert load_defaults(tmp_path / "empty.yaml") == {}
    with pytest.raises(TypeError, match="defaults must be a mapping, or the path of a file, not list"):
        load_defaults([])  # type: ignore[arg-type]


def test_a_default_that_its_class_refuses_is_named_and_not_shown() -> None:
    with pytest.raises(InvalidSettings) as refused:
        encode_defaults({"limits": {"most": "a secret"}}, readings(limits=Limits))
    assert str(refused.value) == "the default of 'limits' cannot be used at most: Expected `int`, got `str`"
    with pytest.raises(InvalidSettings, match="the default of 'a' cannot be used: it is a object"):
        encode_defaults({"a": object()}, readings())
