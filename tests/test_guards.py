"""The guards of :mod:`tests.guards` do fail a test."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = """
from tests import guards
from tests.guards import clean_reactor, logged_errors
guards.LOOKS = 20
"""
#: Each is run under the guards, in one pytest of its own.
SAMPLES = """
import os
import sys
import pytest_twisted
from tests import guards
from twisted.internet import reactor
from twisted.internet.defer import Deferred, fail
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Factory, ProcessProtocol, Protocol
from twisted.internet.task import deferLater
from twisted.logger import Logger

class Closing(Protocol):
    def connectionMade(self):
        reactor.callLater(0.05, self.transport.loseConnection)

async def connect_to(protocol):
    port = reactor.listenTCP(0, Factory.forProtocol(protocol), interface="127.0.0.1")
    await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port), Protocol())
    await port.stopListening()

@pytest_twisted.ensureDeferred
async def test_clean():
    await deferLater(reactor, 0.01)

def test_delayed_call():
    reactor.callLater(3600, print)

def test_after_delayed_call():
    pass

def test_listening():
    reactor.listenTCP(0, Factory(), interface="127.0.0.1")

@pytest_twisted.ensureDeferred
async def test_open_connection():
    await connect_to(Protocol)

@pytest_twisted.ensureDeferred
async def test_closing_connection():
    await connect_to(Closing)

def test_child(request):
    wait = [sys.executable, "-c", "import time; time.sleep(60)"]
    process = reactor.spawnProcess(ProcessProtocol(), sys.executable, wait, childFDs={})
    request.config.add_cleanup(lambda: os.kill(process.pid, 9))

class Shared:
    def __init__(self):
        self.pids, self.ports = frozenset(), frozenset()

def start_shared(request, shared):
    wait = [sys.executable, "-c", "import time; time.sleep(60)"]
    process = reactor.spawnProcess(ProcessProtocol(), sys.executable, wait)
    port = reactor.listenTCP(0, Factory(), interface="127.0.0.1")
    request.config.add_cleanup(lambda: os.kill(process.pid, 9))
    shared.pids, shared.ports = frozenset({process.pid}), frozenset({port.getHost().port})

def test_shared(request):
    shared = Shared()
    guards.STANDING.append(shared)
    start_shared(request, shared)

def test_shared_no_more():
    guards.STANDING.clear()

def test_not_shared(request):
    start_shared(request, Shared())

def test_unhandled():
    fail(ValueError("nobody heard this"))

def test_unhandled_in_a_cycle():
    d = Deferred()
    d.itself = d
    d.errback(ValueError("nobody heard this either"))

def test_error():
    Logger().error("the {thing} broke", thing="pump")

def test_critical():
    Logger().critical("the {thing} exploded", thing="pump")

def test_warning():
    Logger().warn("it squeaks")

def test_of_the_etcd_itself():
    Logger(namespace="etcd").critical("what a test did to it")

def test_flushed(logged_errors):
    fail(ValueError("expected"))
    Logger().error("the pump broke")
    assert [each.getErrorMessage() for each in logged_errors.flush(ValueError)] == ["expected"]
    assert logged_errors.flush_messages("pump") == ["the pump broke"]

def test_flushed_another(logged_errors):
    fail(ValueError("not expected"))
    assert logged_errors.flush(KeyError) == []
    assert logged_errors.flush_messages("not there") == []
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What pytest said of the samples."""
    directory = tmp_path_factory.mktemp("guards")
    (directory / "conftest.py").write_text(CONFTEST)
    (directory / "test_samples.py").write_text(SAMPLES)
    environ = {name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", f"--rootdir={directory}", directory],
        env=environ | {"PYTHONPATH": str(Path(__file__).parent.parent)},
        cwd=directory,
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout + done.stderr
    return done.stdout


def complaint(said: str, sample: str) -> str | None:
    """What failed the sample at its end; ``None`` where it passed."""
    assert re.search(rf"^test_samples\.py::{sample} PASSED", said, re.MULTILINE), said
    found = re.search(rf"^_+ ERROR at teardown of {sample} _+$\n(.*?)^(?:---|___|===)", said, re.MULTILINE | re.DOTALL)
    return None if found is None else found[1]


@pytest.mark.parametrize(
    "sample",
    [
        "test_clean",
        "test_after_delayed_call",
        "test_closing_connection",
        "test_warning",
        "test_of_the_etcd_itself",
        "test_flushed",
        "test_shared",
    ],
)
def test_passes(said: str, sample: str) -> None:
    assert complaint(said, sample) is None


@pytest.mark.parametrize(
    ("sample", "words"),
    [
        ("test_delayed_call", r"the reactor is not clean:\ndelayed call: <DelayedCall .* called=0 .*print"),
        ("test_listening", r"the reactor is not clean:\nreads: <.*Factory.* on \d+>"),
        ("test_open_connection", r"the reactor is not clean:\nreads: <.*Client"),
        ("test_child", r"the reactor is not clean:\nchild process: "),
        ("test_not_shared", r"the reactor is not clean:\nreads: [^~]*child process: "),
        ("test_unhandled", r"errors were logged:\nUnhandled error in Deferred:\n[^~]*ValueError.*: nobody heard this$"),
        (
            "test_unhandled_in_a_cycle",
            r"errors were logged:\nUnhandled error in Deferred:\n[^~]*nobody heard this either",
        ),
        ("test_error", r"errors were logged:\nthe pump broke"),
        ("test_critical", r"errors were logged:\nthe pump exploded"),
        ("test_flushed_another", r"errors were logged:\nUnhandled error in Deferred:\n[^~]*not expected"),
    ],
)
def test_fails_at_its_end(said: str, sample: str, words: str) -> None:
    words_said = complaint(said, sample)
    assert words_said is not None
    assert re.match(words, words_said, re.MULTILINE), words_said
