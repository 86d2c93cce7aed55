"""
Call a web service by its name: two of its instances are started and found, and one of them is killed.

Run it with an etcd at hand, at http://127.0.0.1:2379 unless you name another::

    python call_by_name.py [ENDPOINTS]

``ENDPOINTS`` is a URL, or several with commas between them; the environment variable ``ETCD_ENDPOINTS`` does as well.
Both instances are ``twist web``, Twisted's own, registered by their endpoint strings as ``example-web``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from treq.client import HTTPClient
from twisted.internet import task
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import quoteStringArgument
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IProcessTransport, IReactorCore, IReactorProcess, IReactorTime
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure
from twisted.web.client import Agent, HTTPConnectionPool

from twisted_etcd import EtcdAgentEndpointFactory, EtcdClient, Registry, ServiceChange, TwistedEtcdError

SERVICE = "example-web"


class IReactor(IReactorCore, IReactorProcess, IReactorTime):
    """What is used of the reactor."""


class WebServer(ProcessProtocol):
    """``twist web``, with a page that says its name."""

    def __init__(self, reactor: IReactor, name: str, directory: str, endpoints: str) -> None:
        self.ended: Deferred[None] = Deferred()
        (Path(directory) / "name").write_text(name)
        etcd = f"endpoints={quoteStringArgument(endpoints)}"
        # The port is the machine's choice; it is what is registered.
        listen = f"etcd:name={SERVICE}:ttl=2:{etcd}:tcp:0:interface=127.0.0.1"
        command = [sys.executable, "-m", "twisted", "web", "--listen", listen, "--path", directory]
        self._process: IProcessTransport = reactor.spawnProcess(self, sys.executable, command, env=os.environ)
        reactor.addSystemEventTrigger("before", "shutdown", self.end, "KILL")

    def processEnded(self, reason: Failure) -> None:  # noqa: ARG002 - ProcessProtocol's
        """The process is gone."""
        self.ended.callback(None)

    def end(self, signal: str) -> Deferred[None]:
        """Send it a signal; fires when it is gone."""
        with suppress(ProcessExitedAlready):
            self._process.signalProcess(signal)
        return self.ended


class Instances:
    """The instances of the service, as they come and go."""

    def __init__(self, registry: Registry) -> None:
        self._waiting: list[tuple[int, Deferred[None]]] = []
        self.view = registry.follow(SERVICE, self._changed)

    def count_is(self, count: int) -> Deferred[None]:
        """Fires when there are so many."""
        waiting: Deferred[None] = Deferred()
        self._waiting.append((count, waiting))
        self._look()
        return waiting

    def _changed(self, _: ServiceChange) -> None:
        self._look()

    def _look(self) -> None:
        due = [each for each in self._waiting if each[0] == len(self.view.instances)]
        self._waiting = [each for each in self._waiting if each not in due]
        for _, waiting in due:
            waiting.callback(None)


@contextmanager
def web_server(reactor: IReactor, name: str, endpoints: str) -> Iterator[WebServer]:
    """A server that does not outlive this."""
    with TemporaryDirectory() as directory:
        server = WebServer(reactor, name, directory, endpoints)
        try:
            yield server
        finally:
            if not server.ended.called:
                server.end("KILL")


async def show(reactor: IReactor, client: EtcdClient, endpoints: str) -> None:
    """Two that answer, one that is killed, and one that leaves."""
    registry = Registry(client, reactor)
    # Without connections that are kept each call makes its own, and so they are called in turn.
    pool = HTTPConnectionPool(reactor, persistent=False)
    web = HTTPClient(Agent.usingEndpointFactory(reactor, EtcdAgentEndpointFactory(reactor, registry), pool))

    async def answers() -> str:
        found = set()
        for _ in range(4):
            response = await web.get(f"http://{SERVICE}.etcd/name")
            found.add(await response.text())
        return " and ".join(sorted(found))

    instances = Instances(registry)
    await instances.view.start()
    await instances.count_is(0)
    with ExitStack() as servers:
        apple = servers.enter_context(web_server(reactor, "apple", endpoints))
        pear = servers.enter_context(web_server(reactor, "pear", endpoints))
        await instances.count_is(2)
        print("answers come from", await answers())

        # Its key stays for as long as its TTL; who calls finds nobody there, and goes to the next one.
        await apple.end("KILL")
        print("apple is killed, and answers come from", await answers())
        await instances.count_is(1)

        # One that is told to end takes its registration back.
        await pear.end("TERM")
        await instances.count_is(0)
    try:
        await answers()
    except TwistedEtcdError as error:
        print(f"pear has left: {error}")
    await instances.view.stop()


async def main(reactor: IReactor, endpoints: str) -> None:
    """Show it, with a client that ends at the end, and on Ctrl-C."""
    client = EtcdClient(reactor, endpoints)
    reactor.addSystemEventTrigger("before", "shutdown", client.stopService)
    try:
        await show(reactor, client, endpoints)
    except TwistedEtcdError as error:
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    default = os.environ.get("ETCD_ENDPOINTS", "http://127.0.0.1:2379")
    task.react(main, [sys.argv[1] if len(sys.argv) > 1 else default])
