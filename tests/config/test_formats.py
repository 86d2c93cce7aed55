"""Values and the objects that they are decoded into."""

from __future__ import annotations

import dataclasses
import enum
from typing import Any

import attrs
import msgspec
import pytest

from twisted_etcd.config.formats import Codec, ConfigFormat, Mistake
from twisted_etcd.errors import InvalidSettings

SECRET = "hunter2-is-secret"
NONE_OF_THEM, NO_INT = "it is none of the values that there are", "Expected `int`, got `str`"
NO_END = "found unexpected end of stream"
NO_TAG = "could not determine a constructor for the tag …"
NO_YAML = "it is no YAML: "


class Mode(enum.Enum):
    FAST = "fast"


class Limits(msgspec.Struct):
    most: int
    mode: Mode = Mode.FAST


@attrs.define
class Pool:
    size: int
    limits: Limits | None = None


@dataclasses.dataclass
class Plain:
    size: int
    names: dict[str, int] = dataclasses.field(default_factory=dict)


class Choosy(msgspec.Struct, forbid_unknown_fields=True):
    password: str = ""

    def __post_init__(self) -> None:
        if self.password:
            raise ValueError(self.password)


@pytest.mark.parametrize(
    ("kind", "form", "value", "decoded"),
    [
        (bytes, None, b"\xff", b"\xff"),
        (str, None, "ü".encode(), "ü"),
        (int, None, b"8080", 8080),
        (bool, "text", b"true", True),
        (int, "text", b"8080", 8080),
        (Any, "json", b'{"a":[1]}', {"a": [1]}),
        (Any, "yaml", b"a: [1, x]", {"a": [1, "x"]}),
        (Limits, None, b'{"most":3}', Limits(3)),
        (Limits, ConfigFormat.YAML, b"most: 3\nmode: fast", Limits(3)),
        (Pool, "yaml", b"size: 3\nlimits: {most: 1}", Pool(3, Limits(1))),
        (Plain, "json", b'{"size":3,"names":{"a":1}}', Plain(3, {"a": 1})),
        (list[Limits], "json", b'[{"most":3}]', [Limits(3)]),
    ],
)
def test_a_value_is_decoded_and_written_back(kind: Any, form: str | None, value: bytes, decoded: object) -> None:  # noqa: ANN401
    codec = Codec(kind, form)
    assert codec.decode(value) == decoded
    assert codec.decode(codec.encode(decoded)) == decoded
    assert codec.encode(b"as it is") == b"as it is"


@pytest.mark.parametrize(
    ("kind", "form", "value", "mistake"),
    [
        (str, None, b"abc\xff", Mistake("", "it is not text in UTF-8, at byte 3")),
        (Limits, "json", b'{"most":"' + SECRET.encode() + b'"}', Mistake("most", "Expected `int`, got `str`")),
        (Pool, "json", b'{"size":1,"limits":{}}', Mistake("limits", "Object missing required field `most`")),
        (Limits, "json", b'{"most":1,"mode":"hunter2-is-secret"}', Mistake("mode", NONE_OF_THEM)),
        (Plain, "json", b'{"size":1,"names":{"hunter2-is-secret":"x"}}', Mistake("names[...]", NO_INT)),
        (Choosy, "json", b'{"password":"hunter2-is-secret"}', Mistake("", "Choosy refuses it")),
        (Choosy, "json", b'{"q":1}', Mistake("", "Object contains unknown field `q`")),
        (Any, "json", b"hunter2-is-secret", Mistake("", "JSON is malformed: invalid character (byte 0)")),
        (Any, "json", b"", Mistake("", "Input data was truncated")),
        (Any, "json", b'"\xff"', Mistake("", "it is not text in UTF-8")),
        (Limits, "yaml", b"most: hunter2-is-secret", Mistake("most", "Expected `int`, got `str`")),
        (Any, "yaml", b"a: 'hunter2-is-secret", Mistake("line 1, column 22", NO_YAML + NO_END)),
        (Any, "yaml", b"a: !hunter2-is-secret x", Mistake("line 1, column 4", NO_YAML + NO_TAG)),
        (Any, "yaml", b"a: *hunter2-is-secret", Mistake("line 1, column 4", NO_YAML + "found undefined alias …")),
        (Any, "yaml", b"a: 2024-99-99", Mistake("", "a date or a number in it is none: put it in quotes")),
        (Any, "yaml", b"a: \x07", Mistake("", "it has characters that YAML does not allow")),
        (Any, "yaml", b"[" * 3000 + b"]" * 3000, Mistake("", "it is nested too deeply")),
        (Any, "json", b"[" * 30000, Mistake("", "it is nested too deeply")),
        (int, "text", b"hunter2-is-secret", Mistake("", "Expected `int`, got `str`")),
    ],
)  # fmt: skip
def test_a_mistake_is_named_by_its_place_and_shows_nothing_of_the_value(
    kind: Any,  # noqa: ANN401
    form: str | None,
    value: bytes,
    mistake: Mistake,
) -> None:
    found = Codec(kind, form).decode(value)
    assert found == mistake
    assert SECRET not in repr(found)


def test_yaml_that_would_take_all_memory_is_refused() -> None:
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 20)
    )
    too_much = Mistake("", "it has more than 100,000 values, with its aliases written out")
    assert Codec(Any, "yaml").decode(bomb.encode()) == too_much
    assert Codec(Any, "yaml").decode(b"&a [*a]") == too_much
    merged = Codec(Any, "yaml").decode(b"base: &b {x: 1}\nother: {<<: *b, y: 2}")
    assert merged == {"base": {"x": 1}, "other": {"x": 1, "y": 2}}


def test_yaml_is_loaded_safely() -> None:
    found = Codec(Any, "yaml").decode(b"!!python/object/apply:os.getcwd []")
    assert isinstance(found, Mistake)


@pytest.mark.parametrize(
    ("kind", "form", "said"),
    [
        (Any, "toml", "'toml' is no format of configuration values; use one of bytes, text, json, yaml"),
        (int, "bytes", "the format 'bytes' gives bytes alone, and no int: give another format"),
        (object(), "json", "nothing can be decoded into <object object"),
    ],
)
def test_a_format_or_a_class_that_cannot_be_used_is_named(kind: Any, form: str, said: str) -> None:  # noqa: ANN401
    with pytest.raises(InvalidSettings) as refused:
        Codec(kind, form)
    assert str(refused.value).startswith(said)


def test_what_cannot_be_written_is_named_by_its_type() -> None:
    with pytest.raises(TypeError, match="in the format 'text' is given as str or bytes, not as dict: name its class"):
        Codec(format="text").encode({"a": SECRET})
    with pytest.raises(TypeError, match="in the format 'bytes' is given as str or bytes, not as int"):
        Codec(format="bytes").encode(1)
    assert Codec(format="text").encode(True) == b"true"
