"""How a daemon that cannot do its work lets the process end; ``test_twistd`` shows the status itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from twisted.internet.error import ReactorNotRunning

from twisted_etcd.daemon.exit_status import ExitStatus


class StubReactor:
    """Runs when the test says so, and stops once, as Twisted's do."""

    def __init__(self) -> None:
        self.stops = 0
        self._waiting: list[Callable[[], object]] = []

    def callWhenRunning(self, call: Callable[[], object]) -> None:
        self._waiting.append(call)

    def start(self) -> None:
        for call in self._waiting:
            call()

    def stop(self) -> None:
        if self.stops:
            raise ReactorNotRunning
        self.stops += 1


def exit_status(reactor: StubReactor) -> ExitStatus:
    return ExitStatus(cast("Any", reactor))


def test_the_reactor_is_stopped_once_it_runs() -> None:
    reactor = StubReactor()
    status = exit_status(reactor)
    status.fail()
    status.fail()
    assert reactor.stops == 0
    reactor.start()
    assert reactor.stops == 1


def test_a_signal_that_came_first_is_no_trouble() -> None:
    reactor = StubReactor()
    exit_status(reactor).fail()
    reactor.stop()
    reactor.start()
    assert reactor.stops == 1


def test_a_success_stops_it_too_and_the_process_ends_as_it_would() -> None:
    reactor = StubReactor()
    status = exit_status(reactor)
    status.succeed()
    reactor.start()
    assert reactor.stops == 1
    status.leave()


def test_without_a_failure_the_process_ends_as_it_would() -> None:
    # It would be the end of these tests otherwise.
    exit_status(StubReactor()).leave()
