"""What ``import twisted_etcd`` gives, and what it must not do."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import twisted_etcd
from twisted_etcd.keys import KeyRange

#: One name a line, sorted. A public name is added or taken away here, on purpose and with a news fragment.
PUBLIC_NAMES = Path(__file__).with_name("public_names.txt").read_text("utf-8").split()


def loads_a_reactor(imports: str) -> bool:
    """Whether a fresh interpreter has a reactor after those imports."""
    check = f"import sys\n{imports}\nprint('twisted.internet.reactor' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", check], check=True, capture_output=True, text=True, timeout=60)
    return {"True\n": True, "False\n": False}[answer.stdout]


def test_the_public_names_are_those_of_the_list() -> None:
    assert sorted(twisted_etcd.__all__) == PUBLIC_NAMES


def test_the_list_is_sorted_and_names_nothing_twice() -> None:
    assert sorted(set(PUBLIC_NAMES)) == PUBLIC_NAMES


def test_every_public_name_comes_from_a_documented_module_of_the_package() -> None:
    assert [complaint for name in PUBLIC_NAMES for complaint in wrong_origin(name, getattr(twisted_etcd, name))] == []


def wrong_origin(name: str, public: object) -> Iterator[str]:
    """What is wrong with where a public name comes from, if anything is; a constant does not know its module."""
    origin = getattr(public, "__module__", None)
    if not isinstance(origin, str):
        return
    if not origin.startswith("twisted_etcd."):
        yield f"{name} comes from {origin}"
        return
    module = importlib.import_module(origin)
    if getattr(module, name, None) is not public:
        yield f"{name} is not what {origin} has by that name"
    if not module.__doc__:
        yield f"{name} comes from {origin}, which has no docstring"


def test_a_public_name_from_elsewhere_is_found() -> None:
    assert list(wrong_origin("Path", Path)) == [f"Path comes from {Path.__module__}"]


def test_a_public_name_under_another_name_is_found() -> None:
    assert list(wrong_origin("Range", KeyRange)) == ["Range is not what twisted_etcd.keys has by that name"]


def test_importing_the_package_installs_no_reactor() -> None:
    assert not loads_a_reactor("import twisted_etcd")


def test_no_module_but_the_daemons_tap_installs_a_reactor() -> None:
    modules = [
        module.name
        for module in pkgutil.walk_packages(twisted_etcd.__path__, "twisted_etcd.")
        if module.name != "twisted_etcd.daemon.tap"
    ]
    assert not loads_a_reactor("\n".join(f"import {module}" for module in modules))


def test_an_installed_reactor_would_be_noticed() -> None:
    assert loads_a_reactor("from twisted.internet import reactor")
