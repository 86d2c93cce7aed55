"""What the tests of the examples share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet.defer import gatherResults

from tests.examples.programs import EXAMPLES, Program, Run


@pytest.fixture
def run() -> Iterator[Run]:
    """Runs programs, and sees to it that none is left."""
    programs: list[Program] = []

    def start(*arguments: str, directory: Path = EXAMPLES, **environment: str) -> Program:
        program = Program(arguments, directory, environment)
        programs.append(program)
        return program

    yield start
    pytest_twisted.blockon(gatherResults([program.kill() for program in programs]))
