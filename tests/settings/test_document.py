from __future__ import annotations

import string
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from twisted_etcd.errors import InvalidSettings
from twisted_etcd.settings import document
from twisted_etcd.settings.document import Mistakes, Value, read_document


def read(tmp_path: Path, text: str | bytes, **environ: str) -> Value:
    path = tmp_path / "f.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    mistakes = Mistakes("f.yaml")
    value = read_document(path, environ, mistakes)
    mistakes.raise_if_any()
    return value


def refusal(tmp_path: Path, text: str | bytes, **environ: str) -> str:
    with pytest.raises(InvalidSettings) as caught:
        read(tmp_path, text, **environ)
    return str(caught.value)


# --- places ---------------------------------------------------------------------------------------------------------


def test_every_value_knows_its_path_and_its_line(tmp_path: Path) -> None:
    value = read(tmp_path, "a: 1\nb:\n  - x\n  - c: 2\n    d:\n      e: |\n        text\n")
    assert value.lines() == {"": 1, "a": 1, "b": 2, "b[0]": 3, "b[1]": 4, "b[1].c": 4, "b[1].d": 5, "b[1].d.e": 6}
    assert value.plain() == {"a": 1, "b": ["x", {"c": 2, "d": {"e": "text\n"}}]}


def test_an_alias_has_the_path_of_where_it_is_used(tmp_path: Path) -> None:
    value = read(tmp_path, "a: &one [1, 2]\nb: *one\n")
    assert value.plain() == {"a": [1, 2], "b": [1, 2]}
    assert value.lines()["b"] == 2


NAMES = st.text(string.ascii_letters, max_size=10)
# Without variables.
TEXTS = st.text(max_size=20).map(lambda text: text.replace("$", ""))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)
# To learn which characters there are takes Hypothesis a second at the first example.
SLOW_START = (HealthCheck.too_slow, HealthCheck.function_scoped_fixture)


@settings(deadline=None, suppress_health_check=SLOW_START)
@given(st.dictionaries(NAMES, JSON, max_size=4))
def test_the_plain_values_are_those_of_yaml_itself(tmp_path: Path, content: dict[str, object]) -> None:
    assert read(tmp_path, yaml.safe_dump(content, allow_unicode=False)).plain() == content


@pytest.mark.parametrize("text", ["", "\n", "# nothing\n", "---\n"])
def test_an_empty_file_is_an_empty_mapping(tmp_path: Path, text: str) -> None:
    assert read(tmp_path, text).plain() in ({}, None)


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path) -> None:
    assert read(tmp_path, b"\xef\xbb\xbfa: 1\n").plain() == {"a": 1}


# --- the environment ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("${A}", "one"),
        ("'${A}'", "one"),
        ("x-${A}-${B}-y", "x-one-two-y"),
        ("${A:-other}", "one"),
        ("${NONE:-other}", "other"),
        ("${EMPTY:-other}", "other"),
        ("'${NONE:-}'", ""),
        ("${NONE:-http://h:1}", "http://h:1"),
        ("'${EMPTY}'", ""),
        ("$${A}", "${A}"),
        ("$A", "$A"),
        ("$$A $", "$$A $"),
        ("${A}${A}", "oneone"),
        ("${RECURSIVE}", "${A}"),
    ],
)
def test_variables_are_filled_in(tmp_path: Path, text: str, expected: str) -> None:
    value = read(tmp_path, f"k: {text}", A="one", B="two", EMPTY="", RECURSIVE="${A}")
    assert value.plain() == {"k": expected}


def test_what_was_written_is_kept_for_what_is_said_of_it(tmp_path: Path) -> None:
    value = read(tmp_path, "k: ${A}\nl: plain", A="secret").mapping
    assert value is not None
    assert value["k"].written == "${A}"
    assert value["l"].written is None


def test_keys_are_not_filled_in(tmp_path: Path) -> None:
    assert read(tmp_path, "'${A}': 1", A="one").plain() == {"${A}": 1}


def test_all_variables_that_are_not_set_are_named_at_once(tmp_path: Path) -> None:
    assert refusal(tmp_path, "a: ${ONE} ${TWO}\nb:\n  - ${THREE}\n").splitlines() == [
        "f.yaml:1: a: the environment variable ONE is not set",
        "f.yaml:1: a: the environment variable TWO is not set",
        "f.yaml:3: b[0]: the environment variable THREE is not set",
    ]


@pytest.mark.parametrize("text", ["'${'", "'${A'", "${}", "${1A}", "${A-b}", "'${A B}'"])
def test_what_is_nearly_a_variable_is_refused(tmp_path: Path, text: str) -> None:
    assert refusal(tmp_path, f"\nk: {text}") == (
        "f.yaml:2: k: write ${NAME} or ${NAME:-text}, and $${ where a plain ${ is meant"
    )


# --- mistakes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\nb: 2\na: 3\n", "f.yaml:3: a: the key stands twice, first in line 1"),
        ("x:\n  a: 1\n  a: 3\n", "f.yaml:3: x.a: the key stands twice, first in line 2"),
        ("x:\n  - {a: 1, a: 1}\n", "f.yaml:2: x[0].a: the key stands twice, first in line 2"),
        ("x:\n  on: 1\n", "f.yaml:2: x: the key 'on' is not text: put it in quotes"),
        ("1: 1\n", "f.yaml:1: the key '1' is not text: put it in quotes"),
        ("? [a]\n: 1\n", "f.yaml:1: the key a collection is not text: put it in quotes"),
        ("a: &a {b: 1}\nc:\n  <<: *a\n", "f.yaml:3: c: merging with << is not supported: write the keys out"),
        ("a: 1\nb: [1, 2\n", ("f.yaml:3: column 1: no YAML: while parsing a flow sequence, "
          "expected ',' or ']', but got '<stream end>'")),
        ("a: 1\n\tb: 2\n", ("f.yaml:2: column 1: no YAML: while scanning for the next token, "
          "found character '\\t' that cannot start any token")),
        ("a: b: c\n", "f.yaml:1: column 5: no YAML: mapping values are not allowed here"),
        ("a: *nobody\n", ("f.yaml:1: column 4: no YAML: found undefined alias …; "
          "put a text that begins with * in quotes")),
        ("a: 1\n---\nb: 2\n", ("f.yaml:2: column 1: no YAML: expected a single document in the stream, "
          "but found another document")),
        ("a: &a [*a]\n", "f.yaml:1: column 4: no YAML: an alias that contains itself"),
        ("a: !!set {b}\n", ("f.yaml:1: column 4: no YAML: the tag … is not known; "
          "put a text that begins with ! in quotes")),
        ("a: !mine b\n", ("f.yaml:1: column 4: no YAML: could not determine a constructor for the tag …; "
          "put a text that begins with ! in quotes")),
        ("a: 2024-99-99\n", ("f.yaml:1: column 4: no YAML: "
          "the value looks like type timestamp and is none: put it in quotes")),
        ("a: {b: ${C}}\n", ("f.yaml:1: column 9: no YAML: while parsing a flow mapping, expected ',' or '}', but got "
          "'{'; within { } and [ ], put a text with ${NAME} in quotes")),
        ("a: 1\nb: \x07\n", "f.yaml:2: the character U+0007 is not allowed in YAML"),
        (b"a: 1\nb: \xff\n", "f.yaml:2: is not text in UTF-8: byte 0xff"),
        ("[" * 2000, "f.yaml:1: the values are nested too deeply"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_with_its_place(tmp_path: Path, text: str | bytes, expected: str) -> None:
    assert refusal(tmp_path, text) == expected


@pytest.mark.parametrize(
    "password",
    [
        '"hunter2\n  x: 1',
        "*hunter2",
        "!hunter2",
        "!!hunter2",
        "!<hunter2>",
        "!hunter2!x",
        "!hunter2 [x]",
        "!hunter2%",
        "&hunter2 [&hunter2 x]",
    ],
)
def test_a_syntax_error_does_not_show_the_line_with_a_password(tmp_path: Path, password: str) -> None:
    assert "hunter" not in refusal(tmp_path, f"etcd:\n  password: {password}\n")


def test_no_python_is_run(tmp_path: Path) -> None:
    said = refusal(tmp_path, "a: !!python/object/apply:os.system [echo]\n")
    assert said == ("f.yaml:1: column 4: no YAML: the tag … is not known; put a text that begins with ! in quotes")


def test_aliases_of_aliases_cannot_fill_the_memory(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    assert f"more than {document.MOST_VALUES:,} values" in refusal(tmp_path, "\n".join(lines))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidSettings) as caught:
        read_document(tmp_path / "none", {}, Mistakes("conf/none.yaml"))
    assert str(caught.value) == "conf/none.yaml: cannot be read: No such file or directory"


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(InvalidSettings) as caught:
        read_document(tmp_path, {}, Mistakes("conf"))
    assert str(caught.value) == "conf: cannot be read: Is a directory"
