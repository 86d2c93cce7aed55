"""What templates can say, and what is said where they cannot; over a source that a test fills."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from twisted_etcd.errors import InvalidSettings
from twisted_etcd.registry.instance import Instance, Status
from twisted_etcd.rendering.loading import check_templates, load_template
from twisted_etcd.rendering.template import Kind, Rendering, Want

SECRET = "a-very-secret-value"
ENVIRON = {"REGION": "west"}


class Filled:
    """
    A source.

    :param loaded: what was loaded; all that is asked for where None.
    """

    def __init__(
        self,
        values: Mapping[str, str | bytes] | None = None,
        instances: Mapping[str, Sequence[Instance]] | None = None,
        loaded: set[Want] | None = None,
    ) -> None:
        given = values or {}
        self.values = {key: value.encode() if isinstance(value, str) else value for key, value in given.items()}
        self.services = instances or {}
        self.loaded = loaded

    def has(self, want: Want) -> bool:
        return self.loaded is None or want in self.loaded

    def value(self, key: str) -> bytes | None:
        return self.values.get(key)

    def tree(self, path: str) -> Mapping[str, bytes]:
        start = f"{path}/" if path else ""
        return {key[len(start) :]: value for key, value in sorted(self.values.items()) if key.startswith(start)}

    def instances(self, name: str) -> Sequence[Instance]:
        return self.services.get(name, ())


class Folder:
    """Where templates are."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, text: str | bytes, name: str = "t.j2") -> Path:
        file = self.path / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return file

    def render(self, text: str, source: Filled | None = None) -> Rendering:
        return load_template(self.write(text), ENVIRON).render(source or Filled())

    def text(self, text: str, source: Filled | None = None) -> str:
        rendering = self.render(text, source)
        assert rendering.error is None, rendering.error
        assert rendering.text is not None
        return rendering.text

    def error(self, text: str, source: Filled | None = None) -> str:
        rendering = self.render(text, source)
        assert rendering.text is None
        assert rendering.error is not None
        said = str(rendering.error)
        assert SECRET not in said + repr(rendering)
        return said.replace(f"{self.path}/", "")

    def refusal(self, text: str) -> str:
        with pytest.raises(InvalidSettings) as caught:
            load_template(self.write(text), ENVIRON)
        return str(caught.value).replace(f"{self.path}/", "")


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


# --- what they say --------------------------------------------------------------------------------------------------


def test_a_value_is_text_as_it_is(folder: Folder) -> None:
    source = Filled({"app/name": "a <b> & 'c' ü"})
    assert folder.text('name = {{ config("app/name") }}\n', source) == "name = a <b> & 'c' ü\n"
    assert folder.text('{{ config("/app/name/") }}', source) == "a <b> & 'c' ü"


@pytest.mark.parametrize(("end", "expected"), [("", "x"), ("\n", "x\n"), ("\n\n", "x\n\n")])
def test_the_end_of_the_file_stays_as_it_is(folder: Folder, end: str, expected: str) -> None:
    assert folder.text(f"x{end}") == expected


def test_lines_that_only_say_what_to_do_leave_no_trace(folder: Folder) -> None:
    assert folder.text("a\n  {% for n in [1, 2] %}\n  {{ n }}\n  {% endfor %}\nb\n") == "a\n  1\n  2\nb\n"


def test_a_default_stands_for_a_value_that_is_not_set_and_for_no_other(folder: Folder) -> None:
    text = '{{ config("x", default="d") }}|{{ config("y", default=7) }}|{{ config_json("z", default=[]) }}'
    assert folder.text(text, Filled({"x": ""})) == "|7|[]"


def test_json_and_yaml_are_read_and_written(folder: Folder) -> None:
    source = Filled({"j": '{"ports": [80, 81], "on": true}', "y": "ports: [80]\nname: x\n"})
    assert folder.text('{{ config_json("j").ports[1] }} {{ (config("j") | from_json).on }}', source) == "81 True"
    assert folder.text('{{ (config("y") | from_yaml).name }}', source) == "x"
    assert folder.text('{{ config_json("j") | to_json }}', source) == '{"ports":[80,81],"on":true}'
    assert folder.text('{{ config("y") | from_yaml | to_yaml }}', source) == "ports:\n- 80\nname: x\n"
    assert folder.text('{{ "a<b" | to_json }}') == '"a<b"'


def test_a_tree_is_a_mapping_of_the_paths_below_in_order(folder: Folder) -> None:
    source = Filled({"app/db/host": "h", "app/db/port": "1", "app/z": "2", "apple": "3"})
    loop = "{% for path, value in config_tree(X).items() %}{{ path }}={{ value }};{% endfor %}"
    assert folder.text(loop.replace("X", '"app"'), source) == "db/host=h;db/port=1;z=2;"
    assert folder.text(loop.replace("X", '"nothing"'), source) == ""
    assert folder.text(loop.replace("X", ""), source) == "app/db/host=h;app/db/port=1;app/z=2;apple=3;"


def test_instances_come_in_a_stable_order_with_all_that_they_have(folder: Folder) -> None:
    first = Instance(
        address="10.0.0.1", port=80, tags=("http", "v1"), metadata={"zone": "west"}, weight=3, status=Status.PASSING
    )
    second = Instance(address="10.0.0.1", port=443, tags=("https",), id="b")
    source = Filled(instances={"shop": [second, first]})
    text = '{% for i in instances("shop") %}{{ i.endpoint }} {{ i.weight }} {{ i.id }};{% endfor %}'
    assert folder.text(text, source) == "10.0.0.1:80 3 10.0.0.1:80;10.0.0.1:443 1 b;"
    text = '{% for i in instances("shop", tags=["http"]) %}{{ i.address }} {{ i.port }} {{ i.tags[1] }} '
    text += "{{ i.metadata.zone }} {{ i.status.value }}{% endfor %}"
    assert folder.text(text, source) == "10.0.0.1 80 v1 west passing"
    assert folder.text('{{ instances("shop", tags=["http", "none"]) | length }}', source) == "0"
    assert folder.text('{{ instances("nobody") | length }}', source) == "0"


def test_the_environment_can_be_looked_into(folder: Folder) -> None:
    assert folder.text('{{ env("REGION") }} {{ env("NOTHING", default="-") }}') == "west -"
    said = folder.error('\n{{ env("NOTHING") }}')
    assert said == (
        't.j2:2: the environment variable NOTHING is not set; set it, or give a default: env("NOTHING", default="…")'
    )


def test_includes_imports_and_extensions_are_found_beside_the_template_and_below(folder: Folder) -> None:
    folder.write('{{ config("x") }}{% include "deep/b" %}', "a")
    folder.write("b", "deep/b")
    folder.write('{% macro twice(x) %}{{ x }}{{ x }}{% endmacro %}{% set y = config("y") %}', "macros")
    folder.write("<{% block body %}{% endblock %}>", "base")
    body = '{% include "a" %}{% import "macros" as m %}{{ m.twice(m.y) }}'
    text = f'{{% extends "base" %}}{{% block body %}}{body}{{% endblock %}}'
    template = load_template(folder.write(text), ENVIRON)
    assert template.render(Filled({"x": "1", "y": "2"})).text == "<1b22>"
    # Nothing of the last time is left, and the files were read when the template was.
    folder.write("changed", "deep/b")
    assert template.render(Filled({"x": "3", "y": "4"})).text == "<3b44>"


# --- what they ask for ----------------------------------------------------------------------------------------------

X, Y = Want(Kind.VALUE, "x"), Want(Kind.VALUE, "y")
TREE, SHOP = Want(Kind.TREE, "t"), Want(Kind.SERVICE, "shop")


def test_what_is_not_loaded_makes_it_incomplete_and_all_that_it_may_need_is_named(folder: Folder) -> None:
    text = """{% for i in instances("shop") %}{{ i.port }}{% endfor %}{{ config("x") | int + 1 }}
    {{ config_tree("t").a }}{{ config_json("y").a.b[0] }}"""
    rendering = folder.render(text, Filled(loaded=set()))
    assert (rendering.text, rendering.error) == (None, None)
    assert rendering.wants == {X, Y, TREE, SHOP}


def test_nothing_is_an_error_before_all_is_there(folder: Folder) -> None:
    text = '{{ config("x") }}{{ config("y") + 1 }}{{ 1 // 0 }}'
    rendering = folder.render(text, Filled({"x": "1"}, loaded={X}))
    assert (rendering.text, rendering.error) == (None, None)
    assert rendering.wants == {X, Y}
    assert "TypeError" in str(folder.render(text, Filled({"x": "1", "y": "2"})).error)


def test_what_it_asks_for_follows_from_what_is_there(folder: Folder) -> None:
    text = '{% if config("x") == "1" %}{{ config("y") }}{% else %}{{ instances("shop") | length }}{% endif %}'
    assert folder.render(text, Filled({"x": "1", "y": "2"})).wants == {X, Y}
    assert folder.render(text, Filled({"x": "2"})).wants == {X, SHOP}


def test_an_error_has_what_was_asked_for_too(folder: Folder) -> None:
    assert folder.render('{{ config("x") }}').wants == {X}


def test_wants_have_an_order_and_words() -> None:
    assert sorted([SHOP, Y, X, TREE]) == [X, Y, TREE, SHOP]
    assert [str(each) for each in (X, TREE, SHOP, Want(Kind.TREE, ""))] == [
        "the configuration x",
        "the configuration below t",
        "the service shop",
        "the configuration below /",
    ]


# --- what is wrong --------------------------------------------------------------------------------------------------

NAMES = "cannot be asked for this name: it is empty, or has characters that names do not have"
BAD: dict[str, bytes] = {"s": SECRET.encode(), "bytes": b"\xff", "json": f'{{"a": {SECRET}}}'.encode()}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            '{{ config("app/x") }}',
            'the configuration \'app/x\' is not set; set it, or give a default: config("app/x", default="…")',
        ),
        (
            '{{ config_json("app/x") }}',
            'the configuration \'app/x\' is not set; set it, or give a default: config("app/x", default="…")',
        ),
        ("{{ nobody }}", "'nobody' is not defined: {{ nobody }}"),
        ("{{ nobody.name }}", "'nobody' is not defined: {{ nobody.name }}"),
        ('{{ config("s").host }}', "str has no 'host': {{ config(\"s\").host }}"),
        ('{{ {}["k"] | to_json }}', "dict has no 'k': {{ {}[\"k\"] | to_json }}"),
        ('{{ {}[config("s")] }}', 'dict has nothing under the name that a value gives: {{ {}[config("s")] }}'),
        ("{{ [] | first }}", "No first item, sequence was empty.: {{ [] | first }}"),
        ('{{ config("s") + 1 }}', 'TypeError in: {{ config("s") + 1 }}'),
        ('{{ {}.pop(config("s")) }}', 'KeyError in: {{ {}.pop(config("s")) }}'),
        ("{{ 1 // 0 }}", "ZeroDivisionError in: {{ 1 // 0 }}"),
        ('{{ config("bytes") }}', "the configuration 'bytes' is not text in UTF-8"),
        ('{{ config_tree().get("s") }}', "the configuration 'bytes' is not text in UTF-8"),
        ('{{ config_json("s") }}', "the configuration 's' is no JSON: JSON is malformed: invalid character (byte 0)"),
        (
            '{{ config("json") | from_json }}',
            "what from_json is given is no JSON: JSON is malformed: invalid character (byte 6)",
        ),
        ("{{ 1 | from_json }}", "what from_json is given is no JSON: it is no text, or nested too deeply"),
        ('{{ "{" ~ config("s") | from_yaml }}', "ok"),
        ('{{ ("[" ~ config("s")) | from_yaml }}', "what from_yaml is given is no YAML at line 1, column 21"),
        ("{{ config | to_json }}", "to_json is given what JSON cannot say: method"),
        ("{{ config | to_yaml }}", "to_yaml is given what YAML cannot say: method"),
        ('{{ config("/") }}', f"config() {NAMES}"),
        ("{{ config(7) }}", "config() takes a text, not int"),
        ("{{ config(nobody) }}", "config() takes a text, not something that is not there"),
        ('{{ instances("a/b") }}', f"instances() {NAMES}"),
        (
            '{{ instances("a", tags="b") }}',
            'the tags of instances() are a list of texts: instances("shop", tags=["http"])',
        ),
        ("{{ env(7) }}", "env() takes the name of a variable, not int"),
        ('{% include config("s") %}', 'the template that a value names is not there: {% include config("s") %}'),
        ('{% include "a" ~ 1 %}', 'the template that a value names is not there: {% include "a" ~ 1 %}'),
        ('{{ "' + "x" * 200 + '" + 1 }}', 'TypeError in: {{ "' + "x" * 96 + "…"),
    ],
)
def test_a_mistake_is_told_with_file_and_line_and_no_value(folder: Folder, line: str, expected: str) -> None:
    source = Filled(BAD)
    if expected == "ok":
        assert folder.text(line, source)
        return
    assert folder.error(f"first\n{line}\nlast", source) == f"t.j2:2: {expected}"


def test_a_mistake_in_an_included_file_is_told_with_its_own_line(folder: Folder) -> None:
    folder.write("\n\n{{ nobody }}", "inner")
    assert folder.error('{% include "inner" %}') == "inner:3: 'nobody' is not defined: {{ nobody }}"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("{% if %}", "t.j2:2: Expected an expression, got 'end of statement block'"),
        ("{% for x in y %}", "t.j2:2: Unexpected end of template."),
        ("{{ x | sparkle }}", "t.j2:2: No filter named 'sparkle'."),
        ('{% include "nothing" %}', "t.j2:2: nothing: cannot be read: No such file or directory"),
        ('{% include "../t.j2" %}', "t.j2:2: '../t.j2' is not below the folder of the template"),
        ('{% import "/etc/passwd" as x %}', "t.j2:2: '/etc/passwd' is not below the folder of the template"),
        ('{% include "broken" %}', "broken:1: Encountered unknown tag 'nonsense'."),
    ],
)
def test_what_is_no_template_is_refused_with_file_and_line(folder: Folder, line: str, expected: str) -> None:
    folder.write("{% nonsense %}", "broken")
    assert folder.refusal(f"first\n{line}\n").startswith(expected)


def test_an_include_may_be_missing_where_it_says_so(folder: Folder) -> None:
    assert folder.text('a{% include "nothing" ignore missing %}b') == "ab"


def test_files_that_cannot_be_read_are_refused(folder: Folder) -> None:
    missing, no_text = folder.path / "missing", folder.write(b"a\xff", "no-text")
    with pytest.raises(InvalidSettings) as caught:
        check_templates([missing, folder.write("{{ 1 }}"), no_text], {})
    assert str(caught.value).splitlines() == [
        f"{missing}: cannot be read: No such file or directory",
        f"{no_text}: is not text in UTF-8: byte 2",
    ]
    check_templates([folder.write("{{ 1 }}")], {})


def test_without_jinja2_the_extra_to_install_is_named(folder: Folder) -> None:
    code = f"""
import sys
sys.modules["jinja2"] = None
import twisted_etcd.daemon.tap
from pathlib import Path
from twisted_etcd.errors import InvalidSettings
from twisted_etcd.rendering.loading import load_template
try:
    load_template(Path({str(folder.write("x"))!r}), {{}})
except InvalidSettings as error:
    print(error)
"""
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)
    assert said.stdout == (
        f"{folder.path}/t.j2: templates need Jinja2, which is not installed: pip install 'twisted-etcd[render]'\n"
    )


def test_a_rendering_shows_no_text() -> None:
    rendering: Any = Rendering(text=SECRET, wants=frozenset())
    assert SECRET not in repr(rendering)
