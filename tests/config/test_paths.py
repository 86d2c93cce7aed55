"""Keys, paths and trees."""

from __future__ import annotations

import pytest

from twisted_etcd.config.paths import Paths, flattened, is_below, matches, tree
from twisted_etcd.errors import InvalidSettings


def test_a_path_and_its_key_lead_to_each_other() -> None:
    paths = Paths("/config/app/")
    assert (paths.prefix, paths.below) == ("/config/app", "/config/app/")
    assert paths.etcd_key("/a/b/") == "/config/app/a/b"
    assert paths.path(b"/config/app/a/b") == "a/b"
    assert paths.root("a/") == "/config/app/a/"
    assert paths.root("") == "/config/app/"


@pytest.mark.parametrize("key", [b"/config/app/", b"/config/app/a/", b"/config/app//a", b"/config/app/\xff"])
def test_keys_that_no_path_leads_to_have_none(key: bytes) -> None:
    assert Paths("/config/app").path(key) is None


def test_a_prefix_or_a_path_of_another_type_is_named() -> None:
    with pytest.raises(TypeError, match="the prefix of configuration must be str, not bytes"):
        Paths(b"/config")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="a path of configuration must be str, not NoneType"):
        Paths("/config").root(None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("path", "pattern", "expected"),
    [
        ("pool/a", "pool/*", True),
        ("pool/a/b", "pool/*", False),
        ("pool", "pool/*", False),
        ("pool/a/b", "pool/**", True),
        ("pool", "pool/**", False),
        ("a/limits", "*/limits", True),
        ("a/b-limits", "a/*-limits", True),
        ("anything/at/all", "**", True),
        ("Pool/a", "pool/*", False),
    ],
)
def test_patterns_go_part_by_part(path: str, pattern: str, *, expected: bool) -> None:
    assert matches(path, pattern) is expected


def test_what_is_below_ends_at_a_slash() -> None:
    assert is_below("pool", "pool")
    assert is_below("pool/a", "pool")
    assert not is_below("poolside", "pool")
    assert is_below("anything", "")


def test_a_tree_keeps_a_value_that_has_others_below_it() -> None:
    values = {"a": 1, "a/b": 2, "a/c/d": {"x": 3}, "e": {"y": 4}, "e/f": 5}
    expected = {"a": {"": 1, "b": 2, "c": {"d": {"x": 3}}}, "e": {"": {"y": 4}, "f": 5}}
    assert tree(values.items()) == expected
    assert tree(sorted(values.items(), reverse=True)) == expected
    assert dict(flattened(expected, lambda path: path in {"a/c/d", "e/"})) == {
        "a": 1, "a/b": 2, "a/c/d": {"x": 3}, "e/y": 4, "e/f": 5,
    }  # fmt: skip


def test_a_name_that_is_no_text_is_named_with_its_place() -> None:
    with pytest.raises(InvalidSettings, match="the name 8080 below ports is no text: put it in quotes"):
        dict(flattened({"ports": {8080: "x"}}, lambda _: False))
