"""Objects that are what the last good value said."""

from __future__ import annotations

from typing import Any

import attrs
import msgspec
import pytest

from tests.guards import LoggedErrors
from twisted_etcd.config.bindings import NOTHING, ConfigBinding, tree_reader, value_reader
from twisted_etcd.config.formats import Codec
from twisted_etcd.config.snapshot import Entry
from twisted_etcd.errors import BadValue, InvalidSettings


class Pool(msgspec.Struct):
    size: int
    max_idle: float = 1.5


@attrs.define
class Database:
    url: str
    pool_size: int = 3
    pool: Pool | None = None
    pools: dict[str, Pool] = attrs.field(factory=dict)
    debug: bool = False


class Bound:
    """A binding, and what it reported and told."""

    def __init__(self, reader: Any, default: Any = NOTHING, changed: Any = None) -> None:  # noqa: ANN401
        self.reported: list[BadValue] = []
        self.told: list[Any] = []
        self.binding: ConfigBinding[Any] = ConfigBinding(
            "key",
            reader,
            concerns=lambda path: path == "key",
            default=default,
            changed=changed or self.told.append,
            reported=self.reported.append,
            bindings=[],
        )

    def take(self, **values: str) -> None:
        entries = {
            path.replace("__", "/"): Entry(value.encode(), number)
            for number, (path, value) in enumerate(values.items(), 5)
        }
        self.binding.take(entries)

    @property
    def value(self) -> Any:  # noqa: ANN401
        return self.binding.value


def test_a_bad_value_is_reported_and_the_last_good_one_stays() -> None:
    bound = Bound(value_reader("key", Codec(Pool)))
    bound.take(key='{"size": 1}')
    assert bound.value == Pool(1)
    bound.take(key='{"size": "a secret"}')
    assert bound.value == Pool(1)
    [error] = bound.reported
    assert bound.binding.error is error
    assert (error.key, error.revision, error.place) == ("key", 5, "size")
    assert str(error) == "configuration 'key', of revision 5, cannot be used at size: Expected `int`, got `str`"
    bound.take(key='{"size": 2}')
    assert (bound.value, bound.told) == (Pool(2), [Pool(2)])
    assert repr(bound.binding) == "<Binding of 'key', of revision 5>"


def test_without_a_good_one_reading_it_says_why() -> None:
    bound = Bound(value_reader("key", Codec(Pool)))
    with pytest.raises(KeyError):
        _ = bound.value
    bound.take(key="{}")
    with pytest.raises(BadValue, match="missing required field `size`"):
        _ = bound.value
    assert bound.binding.is_wanting is bound.binding.error


def test_a_default_stands_in_until_there_is_a_good_one_and_when_it_is_deleted() -> None:
    bound = Bound(value_reader("key", Codec(Pool)), default=Pool(9))
    bound.take(key="{}")
    assert (bound.value, bound.binding.is_wanting) == (Pool(9), None)
    bound.take(key='{"size": 1}')
    bound.take()
    assert (bound.value, bound.binding.revision) == (Pool(9), 0)


def test_what_is_deleted_and_has_no_default_stays() -> None:
    bound = Bound(value_reader("key", Codec(Pool)))
    bound.take(key='{"size": 1}')
    bound.take()
    assert bound.value == Pool(1)


def test_who_is_told_and_fails_harms_nobody(logged_errors: LoggedErrors) -> None:
    def fail(_: object) -> None:
        raise ZeroDivisionError

    bound = Bound(value_reader("key", Codec(int)), changed=fail)
    bound.take(key="1")
    bound.take(key="2")
    assert bound.value == 2
    assert len(logged_errors.flush(ZeroDivisionError)) == 1


def test_it_is_told_only_where_it_is_another_one() -> None:
    bound = Bound(value_reader("key", Codec(Pool)))
    bound.take(key='{"size": 1}')
    bound.take(key='{ "size": 1 }')
    assert bound.told == []
    bound.take(key='{"size": 2}')
    assert bound.told == [Pool(2)]


def test_a_subtree_becomes_one_object() -> None:
    bound = Bound(tree_reader("db", Database, Codec(format="text")))
    values = {
        "db__url": "x",
        "db__pool-size": "7",
        "db__pool__size": "1",
        "db__pool__max-idle": "2.5",
        "db__debug": "true",
    }
    bound.take(**values, db__pools__a__size="4", dbx="other", db="itself")
    assert bound.value == Database("x", 7, Pool(1, 2.5), {"a": Pool(4)}, debug=True)
    assert bound.binding.revision == 10


def test_of_a_subtree_each_value_can_be_yaml() -> None:
    bound = Bound(tree_reader("db", Database, Codec(format="yaml")))
    bound.take(db__url="x", db__pool="{size: 1}")
    assert bound.value == Database("x", pool=Pool(1))


@pytest.mark.parametrize(
    ("values", "place", "why"),
    [
        ({"db__pool__size": "a secret", "db__url": "x"}, "pool.size", "Expected `int`, got `str`"),
        ({}, "", "Object missing required field `url`"),
        (
            {"db__url": "x", "db__pool-size": "1", "db__pool_size": "2"},
            "pool_size",
            "it is there twice, with - and with _",
        ),
    ],
)
def test_a_mistake_in_a_subtree_is_named_by_its_path(values: dict[str, str], place: str, why: str) -> None:
    bound = Bound(tree_reader("db", Database, Codec(format="text")))
    bound.take(**values)
    [error] = bound.reported
    assert error.place == place
    assert error.why.startswith(why)


def test_a_value_of_a_subtree_that_is_no_yaml_is_named() -> None:
    bound = Bound(tree_reader("db", Database, Codec(format="yaml")))
    bound.take(db__pool__size="[")
    assert bound.reported[0].place.startswith("pool.size.line 1")


@pytest.mark.parametrize("kind", [int, dict[str, int], object()])
def test_a_subtree_is_bound_to_a_class_with_fields(kind: Any) -> None:  # noqa: ANN401
    with pytest.raises(InvalidSettings):
        tree_reader("db", kind, Codec(format="text"))


def test_a_binding_shows_no_value() -> None:
    bound = Bound(value_reader("key", Codec(str)))
    assert repr(bound.binding) == "<Binding of 'key', not set>"
    bound.take(key="a secret")
    assert repr(bound.binding) == "<Binding of 'key', of revision 5>"
