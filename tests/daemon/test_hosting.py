from __future__ import annotations

from pathlib import Path

import pytest

from tests.daemon import hosted
from twisted_etcd.daemon.hosting import load_service_class, make_services
from twisted_etcd.daemon.settings import load
from twisted_etcd.errors import InvalidSettings
from twisted_etcd.messaging.service import MessageService

HOSTED = "tests.daemon.hosted"


def make(tmp_path: Path, text: str, taken: tuple[str, ...] = (), **environ: str) -> list[MessageService]:
    path = tmp_path / "f.yaml"
    path.write_text(text)
    return make_services(load(path, environ).services, taken)


def refusal(tmp_path: Path, text: str, taken: tuple[str, ...] = ()) -> str:
    with pytest.raises(InvalidSettings) as caught:
        make(tmp_path, text, taken)
    return str(caught.value).replace(f"{tmp_path}/", "")


# --- classes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (f"{HOSTED}.Plain", hosted.Plain),
        (f"{HOSTED}:Plain", hosted.Plain),
        (f"{HOSTED}:Outer.Inner", hosted.Outer.Inner),
    ],
)
def test_a_class_is_found_by_its_path(path: str, expected: type) -> None:
    assert load_service_class(path) is expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("nowhere.at.All", "there is no module 'nowhere'; is its directory on PYTHONPATH?"),
        ("tests.nowhere.Thing", "there is no module 'tests.nowhere'; is its directory on PYTHONPATH?"),
        ("tests.daemon.hosted.Outer.Inner", ("there is no module 'tests.daemon.hosted.Outer'; is its directory on "
         "PYTHONPATH?")),
        (f"{HOSTED}.Plian", "the module 'tests.daemon.hosted' has no 'Plian'"),
        (f"{HOSTED}:Outer.Inne", "the module 'tests.daemon.hosted' has no 'Outer.Inne'"),
        (f"{HOSTED}.NotAService", ("tests.daemon.hosted.NotAService is no class of MessageService's kind: derive it "
         "from twisted_etcd.messaging's MessageService")),
        (f"{HOSTED}.NOT_A_CLASS", ("tests.daemon.hosted.NOT_A_CLASS is no class of MessageService's kind: derive it "
         "from twisted_etcd.messaging's MessageService")),
    ],
)  # fmt: skip
def test_what_is_no_service_class_is_refused(path: str, expected: str) -> None:
    with pytest.raises(InvalidSettings) as caught:
        load_service_class(path)
    assert str(caught.value) == expected


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("raise RuntimeError('broken on purpose')", "RuntimeError: broken on purpose"),
        ("import not_there_at_all", "ModuleNotFoundError: No module named 'not_there_at_all'"),
        ("x = (", "SyntaxError: '(' was never closed (broken_module.py, line 1)"),
    ],
)
def test_a_module_that_fails_is_told_with_its_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, why: str
) -> None:
    (tmp_path / "broken_module.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InvalidSettings) as caught:
        load_service_class("broken_module.A")
    assert str(caught.value) == f"the module 'broken_module' cannot be imported: {why}"


# --- services -------------------------------------------------------------------------------------------------------


def test_a_class_without_settings_is_made_with_its_name_alone(tmp_path: Path) -> None:
    text = f"services: [{{class: {HOSTED}.Plain, name: mine}}, {{class: '{HOSTED}:Outer.Inner'}}]"
    mine, unnamed = make(tmp_path, text)
    assert (type(mine), mine.name) == (hosted.Plain, "mine")
    assert unnamed.name == hosted.Outer.Inner().name


def test_a_class_that_takes_anything_is_given_the_mapping(tmp_path: Path) -> None:
    text = f"services: [{{class: {HOSTED}.Free, settings: {{a: [1, {{b: x}}]}}}}, {{class: {HOSTED}.Free, name: two}}]"
    one, two = make(tmp_path, text)
    assert isinstance(one, hosted.Free)
    assert isinstance(two, hosted.Free)
    assert one.settings == {"a": [1, {"b": "x"}]}
    assert two.settings == {}


def test_a_class_that_says_what_it_takes_is_given_that(tmp_path: Path) -> None:
    text = f"""
services:
  - class: {HOSTED}.Typed
    settings:
      width: ${{WIDTH}}
      servers:
        - host: h
          port: 1
"""
    (service,) = make(tmp_path, text, WIDTH="7")
    assert isinstance(service, hosted.Typed)
    assert service.settings == hosted.Typed.Settings(width=7, servers=[hosted.Server("h", 1)])


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        (
            f"class: {HOSTED}.Nothing",
            "f.yaml:2: services[0].class: the module 'tests.daemon.hosted' has no 'Nothing'",
        ),
        (
            f"class: {HOSTED}.Plain\n    settings:\n      a: 1",
            "f.yaml:3: services[0].settings: tests.daemon.hosted.Plain has no parameter settings in its constructor",
        ),
        (
            f"class: {HOSTED}.Typed",
            "f.yaml:2: services[0].settings: Object missing required field `width`",
        ),
        (
            f"class: {HOSTED}.Typed\n    settings:\n      width: wide",
            "f.yaml:4: services[0].settings.width: Expected `int`, got `str`",
        ),
        (
            f"class: {HOSTED}.Typed\n    settings:\n      widht: 1",
            "f.yaml:4: services[0].settings.widht: unknown key; did you mean 'width'?",
        ),
        (
            (
                f"class: {HOSTED}.Typed\n    settings:\n      width: 1\n      servers:\n"
                "        - host: h\n          port: x"
            ),
            "f.yaml:7: services[0].settings.servers[0].port: Expected `int`, got `str`",
        ),
        (
            f"class: {HOSTED}.Typed\n    settings:\n      width: 1\n      servers:\n        - host: h",
            "f.yaml:6: services[0].settings.servers[0]: Object missing required field `port`",
        ),
        (
            f"class: {HOSTED}.Typed\n    settings:\n      width: 1\n      labels:\n        a: x",
            "f.yaml:5: services[0].settings.labels[...]: Expected `int`, got `str`",
        ),
        (
            f"class: {HOSTED}.Mistyped",
            "f.yaml:2: services[0].class: tests.daemon.hosted.Mistyped.Settings is no msgspec Struct",
        ),
        (
            f"class: {HOSTED}.Picky",
            "f.yaml:2: services[0]: tests.daemon.hosted.Picky(name=…) failed with RuntimeError: not today",
        ),
        (
            f"class: {HOSTED}.Nameless",
            (
                "f.yaml:2: services[0]: tests.daemon.hosted.Nameless(name=…) failed with TypeError: "
                "Nameless.__init__() got an unexpected keyword argument 'name'"
            ),
        ),
    ],
)
def test_a_service_that_cannot_be_made_is_told_with_its_place(tmp_path: Path, entry: str, expected: str) -> None:
    assert refusal(tmp_path, f"services:\n  - {entry}\n") == expected


def test_names_that_the_node_has_already_are_refused_and_all_is_told_at_once(tmp_path: Path) -> None:
    text = f"""
services:
  - class: {HOSTED}.Plain
  - class: {HOSTED}.Nothing
  - class: {HOSTED}.Plain
  - class: {HOSTED}.Free
    name: EtcdService
"""
    assert refusal(tmp_path, text, taken=("EtcdService",)).splitlines() == [
        "f.yaml:4: services[1].class: the module 'tests.daemon.hosted' has no 'Nothing'",
        "f.yaml:5: services[2]: the node has another service of the name 'Plain': give this one a name",
        "f.yaml:6: services[3]: the node has another service of the name 'EtcdService': give this one a name",
    ]
