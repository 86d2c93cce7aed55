"""What is built and installed is what a user gets: ``twistd`` lists ``etcdservice``, from the installed copy."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest
import twisted

ROOT = Path(__file__).resolve().parents[2]
PLUGINS = ["twisted/plugins/twisted_etcd_endpoints.py", "twisted/plugins/twisted_etcd_plugin.py"]
#: Prints what an endpoint string means.
ENDPOINT = """\
from twisted.internet import reactor
from twisted.internet.endpoints import clientFromString, serverFromString

print(clientFromString(reactor, "etcd:shop"), serverFromString(reactor, "etcd:name=shop:tcp:80"))
"""
#: Enough for a slow machine; each step takes seconds.
TIMEOUT = 120


def run(command: Sequence[str | Path], cwd: Path) -> str:
    """The output of a program that must succeed, with nothing of this environment's Python settings."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "COVERAGE"))}
    finished = subprocess.run(
        command, cwd=cwd, env=environment, check=False, capture_output=True, text=True, timeout=TIMEOUT
    )
    assert finished.returncode == 0, f"{command}\n{finished.stdout}\n{finished.stderr}"
    return finished.stdout


def build(kind: str, source: Path, into: Path) -> Path:
    """The one file that the build backend makes, without an isolated environment and so without a network."""
    run([sys.executable, "-m", "build", f"--{kind}", "--no-isolation", "--outdir", into, source], cwd=into)
    [built] = into.iterdir()
    return built


class Installation:
    """
    A virtual environment of its own, with Twisted in it and the other dependencies at hand.

    Twisted is copied, so that an installed plugin lies beside Twisted's own ones, as it does for a user. The rest is
    reached through a ``.pth`` file, which gives modules but does not follow the ``.pth`` files over there: an editable
    install of the checkout that runs these tests stays out of sight.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.elsewhere = directory / "elsewhere"
        venv.create(directory, with_pip=False, symlinks=True)
        self.elsewhere.mkdir()
        self.python = directory / "bin" / "python"
        [self.site] = (directory / "lib").glob("python*/site-packages")
        shutil.copytree(
            Path(twisted.__file__).parent,
            self.site / "twisted",
            ignore=shutil.ignore_patterns("test", "dropin.cache", *(Path(plugin).name for plugin in PLUGINS)),
        )
        dependencies = [entry for entry in sys.path if Path(entry).name in {"site-packages", "dist-packages"}]
        (self.site / "dependencies.pth").write_text("\n".join(dependencies), "utf-8")

    def pip_install(self, *what: str | Path) -> None:
        """Install without a look at what the dependencies' environment has installed, and without a network."""
        offline = ["--no-index", "--no-deps", "--no-build-isolation", "--ignore-installed", "--no-warn-script-location"]
        self.run_module("pip", "install", "--quiet", "--disable-pip-version-check", *offline, *what)

    def run_module(self, module: str, *arguments: str | Path) -> str:
        return run([self.python, "-I", "-m", module, *arguments], cwd=self.elsewhere)

    def run_code(self, code: str, *arguments: str) -> str:
        return run([self.python, "-I", "-c", code, *arguments], cwd=self.elsewhere)

    def twistd(self, *arguments: str) -> str:
        return self.run_code("from twisted.scripts.twistd import run; run()", *arguments)

    def origin_of(self, module: str) -> Path:
        return Path(self.run_code(f"import {module}; print({module}.__file__)").strip())


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("sdist", ROOT, tmp_path_factory.mktemp("sdist"))


@pytest.fixture
def tree(sdist: Path, tmp_path: Path) -> Path:
    """A copy of the project as it is handed out, with the litter that a used checkout has."""
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    run(["tar", "-xf", sdist], cwd=checkout)
    [copy] = checkout.iterdir()
    (copy / "twisted" / "plugins" / "dropin.cache").write_bytes(b"litter")
    (copy / "twisted" / "plugins" / "__pycache__").mkdir()
    (copy / "twisted" / "plugins" / "__pycache__" / "twisted_etcd_plugin.cpython-310.pyc").write_bytes(b"litter")
    (copy / "twisted_etcd" / "errors.pyc").write_bytes(b"litter")
    return copy


@pytest.fixture
def wheel(tree: Path, tmp_path: Path) -> Path:
    into = tmp_path / "wheel"
    into.mkdir()
    return build("wheel", tree, into)


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    return Installation(tmp_path / "installation")


def check_that_it_works(installation: Installation, home: Path) -> None:
    """The command is listed, its options load, endpoint strings are known, and all is the copy that was installed."""
    assert installation.origin_of("twisted_etcd") == home / "twisted_etcd" / "__init__.py"
    assert installation.origin_of("twisted") == installation.site / "twisted" / "__init__.py"
    assert "etcdservice" in commands_listed_by(installation.twistd("--help"))
    assert "--embedded" in installation.twistd("etcdservice", "--help")
    assert installation.run_code(ENDPOINT).strip() == "<EtcdClientEndpoint of shop> <EtcdServerEndpoint of shop>"


def commands_listed_by(help_text: str) -> list[str]:
    return [line.split()[0] for line in help_text.partition("Commands:")[2].splitlines() if line.startswith("    ")]


def test_the_sdist_carries_tests_and_examples(tree: Path) -> None:
    assert [name for name in ("README.md", "pyproject.toml", "tests", "examples") if not (tree / name).exists()] == []


def test_the_wheel_holds_the_package_and_the_plugins_alone(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert "twisted_etcd/py.typed" in names
    assert sorted(name for name in names if name.startswith("twisted/")) == PLUGINS
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"twisted", "twisted_etcd"}
    assert [name for name in names if "dropin.cache" in name or name.endswith(".pyc")] == []


def test_the_checkout_has_no_init_that_hides_twisteds_own_plugins(tree: Path) -> None:
    assert list(tree.glob("twisted/**/__init__.py")) == []


def test_without_an_installation_there_is_no_command(installation: Installation) -> None:
    assert "etcdservice" not in commands_listed_by(installation.twistd("--help"))


def test_an_installed_wheel_gives_twistd_the_command(installation: Installation, wheel: Path) -> None:
    installation.pip_install(wheel)
    check_that_it_works(installation, installation.site)


def test_pip_install_of_a_checkout_gives_twistd_the_command(installation: Installation, tree: Path) -> None:
    installation.pip_install(tree)
    check_that_it_works(installation, installation.site)


def test_an_editable_install_of_a_checkout_gives_twistd_the_command(installation: Installation, tree: Path) -> None:
    (tree / "twisted" / "plugins" / "dropin.cache").unlink()
    installation.pip_install("--editable", tree)
    check_that_it_works(installation, tree)
