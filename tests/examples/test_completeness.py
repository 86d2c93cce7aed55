"""No example without a test."""

from __future__ import annotations

from pathlib import Path

from tests.examples.test_scripts import SCRIPTS
from tests.programs import EXAMPLES

#: Which test runs a file that is no script.
OTHERS = {
    "etcdservice.yaml": "test_daemon.py",
    "greeter.py": "test_daemon.py",
    "nginx/etcdservice.yaml": "test_nginx.py",
    "nginx/nginx.conf.j2": "test_nginx.py",
    "nginx/nginx_upstreams.py": "test_nginx.py",
    "webapp/webapp.py": "test_webapp.py",
    "webapp/webapp.tac": "test_webapp.py",
    "webapp/webapp_tap.py": "test_webapp.py",
    "webapp/twisted/plugins/webapp_plugin.py": "test_webapp.py",
}


def test_every_example_is_run_by_a_test() -> None:
    left_by_python = {".pyc", ".cache"}
    files = [file for file in EXAMPLES.rglob("*") if file.is_file() and file.suffix not in left_by_python]
    tested = {f"{script}.py" for script in SCRIPTS} | set(OTHERS)
    assert {file.relative_to(EXAMPLES).as_posix() for file in files} == tested


def test_the_tests_that_are_named_are_there() -> None:
    here = Path(__file__).parent
    assert [test for test in OTHERS.values() if not (here / test).is_file()] == []
    assert [script for script in SCRIPTS if f'"{script}' not in (here / "test_scripts.py").read_text()] == []
