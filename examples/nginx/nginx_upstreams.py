"""
An nginx whose upstreams are the registered instances of a service: they come, leave and are killed, and it follows.

Run it, with nginx installed (Debian: nginx-light)::

    python nginx_upstreams.py [ENDPOINTS]

The daemon, ``twistd etcdservice``, renders ``nginx.conf`` from ``nginx.conf.j2`` as ``etcdservice.yaml`` says, with an
etcd of its own, or with that at ``ENDPOINTS`` (a URL, or several with commas between them; the environment variable
``ETCD_ENDPOINTS`` does as well). The instances are ``twist web``, Twisted's own, registered as ``shop`` by their
endpoint strings. The environment variable ``NGINX`` names another program than ``/usr/sbin/nginx``.
"""

from __future__ import annotations

import os
import re
import socket
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NoReturn

from treq.client import HTTPClient
from twisted.internet import task
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import quoteStringArgument
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IProcessTransport, IReactorCore, IReactorProcess, IReactorTime
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure
from twisted.web.client import Agent, HTTPConnectionPool

HERE = Path(__file__).parent
NGINX = os.environ.get("NGINX", "/usr/sbin/nginx")
#: With this nginx begins; the daemon replaces it at once.
FIRST_CONFIGURATION = "daemon off; pid nginx.pid; error_log stderr notice; events {}\n"
TWISTD = "import sys; sys.argv[0] = 'twistd'; from twisted.scripts.twistd import run; run()"
#: Seconds after which what is waited for will not come.
PATIENCE = 30


class IReactor(IReactorCore, IReactorProcess, IReactorTime):
    """What is used of the reactor."""


class Trouble(Exception):
    """It does not go on."""


class Process(ProcessProtocol):
    """
    A process, and what it says.

    :ivar said: all of it.
    :ivar ended: fires when it is gone.
    """

    def __init__(self, reactor: IReactor, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self.said = ""
        self.ended: Deferred[None] = Deferred()
        self._reactor = reactor
        self._name = Path(command[0]).name
        self._waiting: list[Deferred[None]] = []
        self._process: IProcessTransport = reactor.spawnProcess(self, command[0], command, env=environment)

    async def says(self, pattern: str) -> str:
        """What it says in the place of the group of this expression, once it does."""
        while not (match := re.search(pattern, self.said)):
            await self.goes_on()
        return match[1]

    def goes_on(self) -> Deferred[None]:
        """Fires when it says something more."""
        if self.ended.called:
            msg = f"{self._name} has ended:\n{self.said}"
            raise Trouble(msg)
        waiting: Deferred[None] = Deferred()
        self._waiting.append(waiting)
        return waiting.addTimeout(PATIENCE, self._reactor, self._silent)

    def end(self, signal: str) -> Deferred[None]:
        """Send it a signal; fires when it is gone."""
        with suppress(ProcessExitedAlready):
            self._process.signalProcess(signal)
        gone: Deferred[None] = Deferred()
        self.ended.chainDeferred(gone)
        return gone

    def childDataReceived(self, childFD: int, data: bytes) -> None:  # noqa: ARG002, N803 - ProcessProtocol's
        """It says something."""
        self.said += data.decode("utf-8", "replace")
        self._tell()

    def processEnded(self, reason: Failure) -> None:  # noqa: ARG002 - ProcessProtocol's
        """The process is gone."""
        self.ended.callback(None)
        self._tell()

    def _silent(self, *_: object) -> NoReturn:
        msg = f"{self._name} has said nothing more for {PATIENCE} s"
        raise Trouble(msg)

    def _tell(self) -> None:
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(None)


class Shop:
    """
    The processes of this example: nginx, which starts at once, the daemon, and web servers that say their names.

    :param directory: where their files are.
    :param endpoints: where etcd is; the daemon's own unless given.
    :ivar stopped: whether they are to end.
    """

    def __init__(self, reactor: IReactor, directory: Path, endpoints: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        self._url = f"http://127.0.0.1:{port}"
        self._environment = {**os.environ, "NGINX": NGINX, "NGINX_DIRECTORY": str(directory), "NGINX_PORT": str(port)}
        self._reactor = reactor
        self._directory = directory
        self._endpoints = endpoints
        self._daemon: Process | None = None
        self._servers: list[Process] = []
        self.stopped = False
        configuration = directory / "nginx.conf"
        configuration.write_text(FIRST_CONFIGURATION)
        # Its relative paths begin at the directory of -p.
        self._nginx = self._start(NGINX, "-e", "stderr", "-p", f"{directory}/", "-c", str(configuration))
        # A connection that is kept would stay with a worker of nginx that is to end.
        self._web = HTTPClient(Agent(reactor, pool=HTTPConnectionPool(reactor, persistent=False)))

    async def start(self) -> None:
        """Start the daemon, which tells nginx of each file that it renders."""
        await self._nginx.says(r"start worker process (\d+)")
        where = ["--endpoints", self._endpoints] if self._endpoints else []
        options = ["--nodaemon", "--pidfile=", "etcdservice", "--config", str(HERE / "etcdservice.yaml"), *where]
        self._daemon = self._start(sys.executable, "-c", TWISTD, *options)
        if not self._endpoints:
            self._endpoints = await self._daemon.says(r"etcd [\d.]+ answers at (\S+)")

    def serve(self, name: str, weight: int = 1) -> Process:
        """Start an instance."""
        pages = self._directory / name
        pages.mkdir()
        (pages / "name").write_text(name)
        etcd = f"endpoints={quoteStringArgument(self._endpoints)}"
        # The port is the machine's choice; it is what is registered. Whoever is killed stays registered for the TTL.
        listen = f"etcd:name=shop:weight={weight}:ttl=2:{etcd}:tcp:0:interface=127.0.0.1"
        server = self._start(sys.executable, "-m", "twisted", "web", "--listen", listen, "--path", str(pages))
        self._servers.append(server)
        return server

    async def follows(self, count: int) -> None:
        """Fires when nginx knows so many instances, and no worker of it is left that knows others."""
        while True:
            said = self._nginx.said
            if await self._has_settled(count):
                return
            if self._nginx.said == said:
                await self._nginx.goes_on()

    async def answers(self, times: int) -> Counter[str]:
        """Who answers when nginx is asked so many times; or the status, where that is not 200."""
        found: Counter[str] = Counter()
        for _ in range(times):
            response = await self._web.get(f"{self._url}/name")
            found[await response.text() if response.code == HTTPStatus.OK else str(response.code)] += 1
        return found

    @property
    def story(self) -> str:
        """What the daemon and the web servers have said."""
        return "".join(each.said for each in (self._daemon, *self._servers) if each is not None)

    async def stop(self) -> None:
        """End all processes, the daemon and its etcd after those that are registered in it."""
        self.stopped = True
        await gatherResults([server.end("TERM") for server in self._servers])
        await gatherResults([each.end("TERM") for each in (self._nginx, self._daemon) if each is not None])

    async def _has_settled(self, count: int) -> bool:
        said = self._nginx.said
        workers = set(re.findall(r"start worker process (\d+)\n", said))
        workers -= set(re.findall(r"worker process (\d+) exited", said))
        if len(workers) != 1 or "SIGHUP" not in said:
            return False
        response = await self._web.get(f"{self._url}/instances")
        worker, known = (await response.text()).split()
        return workers == {worker} and int(known) == count

    def _start(self, *command: str) -> Process:
        if self.stopped:
            msg = "it was stopped"
            raise Trouble(msg)
        return Process(self._reactor, command, self._environment)


def said(answers: Counter[str]) -> str:
    """Who answered, and how often."""
    return ", ".join(f"{name} {times}" for name, times in sorted(answers.items()))


async def show(shop: Shop) -> None:
    """Instances come, leave and are killed."""
    await shop.start()
    await shop.follows(0)
    print("no instance:", said(await shop.answers(1)))

    apple, pear = shop.serve("apple", weight=2), shop.serve("pear")
    shop.serve("plum")
    await shop.follows(3)
    print("three instances:", said(await shop.answers(8)))

    shop.serve("quince")
    await shop.follows(4)
    print("quince is added:", said(await shop.answers(10)))

    # One that is told to end takes its registration back.
    await pear.end("TERM")
    await shop.follows(3)
    print("pear has left:", said(await shop.answers(8)))

    # One that is killed cannot; until its TTL is over, nginx finds nobody there and asks the next one.
    await apple.end("KILL")
    print("apple is killed:", ", ".join(sorted(await shop.answers(8))))
    await shop.follows(2)
    print("apple is forgotten:", said(await shop.answers(8)))


async def main(reactor: IReactor, directory: str, endpoints: str) -> None:
    """Show it, with processes that end at the end, and on Ctrl-C."""
    shop = Shop(reactor, Path(directory), endpoints)
    reactor.addSystemEventTrigger("before", "shutdown", lambda: Deferred.fromCoroutine(shop.stop()))
    try:
        await show(shop)
    except Exception as error:  # noqa: BLE001 - by Ctrl-C, whatever was under way fails
        if not shop.stopped:
            sys.exit(f"{type(error).__name__}: {error}\n{shop.story}")
    finally:
        await shop.stop()


if __name__ == "__main__":
    if not os.access(NGINX, os.X_OK):
        sys.exit(f"there is no nginx at {NGINX}: install one (Debian: nginx-light), or name it in NGINX")
    given = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("ETCD_ENDPOINTS", "")
    with TemporaryDirectory() as place:
        task.react(main, [place, given])
