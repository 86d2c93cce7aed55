"""
The process that is measured: ``python -m benchmarks.worker CLIENT``.

It takes commands as lines of JSON on its standard input, one at a time::

    {"do": "get", "endpoint": "http://127.0.0.1:2379", "with": {"callers": 64, …}}

and answers each with one line, ``{"figures": {…}}`` or ``{"error": "…"}``; before that, a scenario that needs somebody
else to write says ``{"ready": true}``. It ends with its input.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import traceback
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, cast

from benchmarks.clients.client import Connect
from benchmarks.clients.loops import run_blocking
from benchmarks.clients.scenarios import SCENARIOS, Scenario, perform

ReadLine = Callable[[], Awaitable[str]]


class Conversation:
    """
    The side of the worker.

    :param output: a file descriptor for the answers.
    """

    def __init__(self, output: int) -> None:
        self._output = output

    def say(self, **message: Any) -> None:  # noqa: ANN401 - whatever JSON can carry
        """Write one line."""
        os.write(self._output, (json.dumps(message) + "\n").encode())

    async def serve(self, connect: Connect, read_line: ReadLine, scenarios: Mapping[str, Scenario] = SCENARIOS) -> None:
        """Answer until there is no more input."""
        while line := await read_line():
            command = json.loads(line)
            ready = partial(self.say, ready=True)
            try:
                scenario = scenarios[command["do"]]
                figures = await perform(connect, scenario, ready, command["endpoint"], command["with"])
            except Exception:  # noqa: BLE001 - told to who asked
                self.say(error=traceback.format_exc())
            else:
                self.say(figures=figures)


def run_in_asyncio(conversation: Conversation, connect: Connect) -> None:
    """For clients of asyncio."""

    async def read_line() -> str:
        return await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)

    asyncio.run(conversation.serve(connect, read_line))


def run_blocked(conversation: Conversation, connect: Connect) -> None:
    """For clients that block."""

    async def read_line() -> str:
        return sys.stdin.readline()

    run_blocking(conversation.serve(connect, read_line))


def run_in_reactor(conversation: Conversation, make: Callable[[Any, str], Any]) -> None:
    """
    For clients of Twisted.

    :param make: takes the reactor and the endpoint.
    """
    from twisted.internet import reactor  # noqa: PLC0415 - the others do without it
    from twisted.internet.stdio import StandardIO  # noqa: PLC0415
    from twisted.internet.task import react  # noqa: PLC0415
    from twisted.logger import (  # noqa: PLC0415
        FilteringLogObserver,
        LogLevel,
        LogLevelFilterPredicate,
        globalLogBeginner,
        textFileLogObserver,
    )

    from benchmarks.clients.lines import Lines  # noqa: PLC0415
    from benchmarks.clients.node import NODE_SCENARIOS  # noqa: PLC0415
    from benchmarks.clients.ours import WRITER_SCENARIOS  # noqa: PLC0415

    warnings = LogLevelFilterPredicate(LogLevel.warn)
    observer = FilteringLogObserver(textFileLogObserver(sys.stderr), [warnings])
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)
    lines = Lines()
    StandardIO(lines)

    async def connect(endpoint: str) -> Any:  # noqa: ANN401 - a client
        return make(reactor, endpoint)

    def main(_reactor: object) -> Any:  # noqa: ANN401 - a Deferred
        from twisted.internet.defer import Deferred  # noqa: PLC0415

        scenarios = {**SCENARIOS, **NODE_SCENARIOS, **WRITER_SCENARIOS}
        return Deferred.fromCoroutine(conversation.serve(connect, lines.next, cast("Any", scenarios)))

    react(main)


def _ours(conversation: Conversation) -> None:
    from benchmarks.clients.ours import Ours  # noqa: PLC0415 - each worker imports its client alone

    run_in_reactor(conversation, Ours)


def _ours_on_one_websocket(conversation: Conversation) -> None:
    from benchmarks.clients.ours import OursOnOneWebSocket  # noqa: PLC0415

    run_in_reactor(conversation, OursOnOneWebSocket)


def _aetcd(conversation: Conversation) -> None:
    from benchmarks.clients.aetcd_client import connect  # noqa: PLC0415

    run_in_asyncio(conversation, connect)


def _etcd_client_py(conversation: Conversation) -> None:
    from benchmarks.clients.etcd_client_py import connect  # noqa: PLC0415

    run_in_asyncio(conversation, connect)


def _etcd3gw(conversation: Conversation) -> None:
    from benchmarks.clients.etcd3gw_client import connect  # noqa: PLC0415

    run_blocked(conversation, connect)


def _etcd3gw_in_reactor(conversation: Conversation) -> None:
    from benchmarks.clients.etcd3gw_in_reactor import Etcd3gwInReactor  # noqa: PLC0415

    run_in_reactor(conversation, Etcd3gwInReactor)


KINDS: Mapping[str, Callable[[Conversation], None]] = {
    "ours": _ours,
    "ours-on-one-websocket": _ours_on_one_websocket,
    "aetcd": _aetcd,
    "etcd-client-py": _etcd_client_py,
    "etcd3gw": _etcd3gw,
    "etcd3gw-in-reactor": _etcd3gw_in_reactor,
}


def main() -> None:
    """Serve, whatever others print."""
    # Ctrl-C is for the parent, which ends this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    output = os.dup(1)
    os.dup2(2, 1)
    KINDS[sys.argv[1]](Conversation(output))


if __name__ == "__main__":
    main()
