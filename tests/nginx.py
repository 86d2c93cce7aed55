"""A real nginx before an etcd, as people put one there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from tests.wire import LOOPBACK, Event
from twisted_etcd.embedded.ports import free_ports

#: The program that must be used; without it, the one that is installed.
VARIABLE = "TWISTED_ETCD_TEST_NGINX"
#: What nginx needs to hand on both kinds of streams.
STREAMS = """
    proxy_http_version 1.1;
    proxy_set_header Upgrade $http_upgrade;
    proxy_set_header Connection $connection_upgrade;
"""
#: The same, for a proxy that hands on no WebSocket.
NO_UPGRADE = """
    proxy_http_version 1.1;
    proxy_set_header Connection "";
"""
_CONFIGURATION = """
daemon off;
pid {directory}/pid;
error_log stderr info;
events {{}}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    map $http_upgrade $connection_upgrade {{
        default upgrade;
        '' close;
    }}
    server {{
        listen {host}:{port};
        location / {{
            proxy_pass {upstream};
            {location}
        }}
    }}
}}
"""
_STARTED = "start worker process "
_STDERR = 2


def program() -> str | None:
    """The program, where there is one."""
    return os.environ.get(VARIABLE) or shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


class Nginx(ProcessProtocol):
    """
    An nginx that runs.

    :ivar url: where it listens.
    """

    def __init__(self, binary: str, directory: Path, upstream: str, location: str) -> None:
        [port] = free_ports(1)
        self.url = f"http://{LOOPBACK}:{port}"
        self._said = ""
        self._ended = False
        self._event = Event()
        configuration = directory / "nginx.conf"
        text = _CONFIGURATION.format(
            directory=directory, host=LOOPBACK, port=port, upstream=upstream, location=location
        )
        configuration.write_text(text, encoding="utf-8")
        arguments = [binary, "-e", "stderr", "-c", str(configuration)]
        self._process = cast("Any", reactor).spawnProcess(self, binary, arguments, env={}, path=str(directory))

    async def started(self) -> Nginx:
        """Once it listens."""
        await self._event.until(lambda: _STARTED in self._said or self._ended)
        assert _STARTED in self._said, f"nginx did not start: {self._said}"
        return self

    async def timed_out(self, times: int) -> None:
        """Once it has closed so many connections on which nothing came from etcd."""
        await self._event.until(lambda: len(self.time_outs) >= times)

    @property
    def time_outs(self) -> list[str]:
        """What it said about connections that it closed because nothing came from etcd."""
        return [line for line in self._said.splitlines() if "upstream timed out" in line]

    async def stop(self) -> None:
        """Once it is reaped."""
        if not self._ended:
            self._process.signalProcess("TERM")
        await self._event.until(lambda: self._ended)

    def outReceived(self, data: bytes) -> None:
        self.errReceived(data)

    def errReceived(self, data: bytes) -> None:
        self._said += data.decode("utf-8", "replace")
        self._event.happened()

    def processEnded(self, reason: Failure) -> None:
        self._ended = True
        self._event.happened()


StartNginx = Callable[..., Deferred[Nginx]]


@pytest.fixture
def nginx(tmp_path: Path) -> Iterator[StartNginx]:
    """Starts nginx before an upstream: ``proxy = yield nginx(server.endpoint, STREAMS)``."""
    binary = program()
    if binary is None:
        pytest.skip(f"there is no nginx: install one (Debian: nginx-light), or name it in {VARIABLE}")
    running: list[Nginx] = []

    def start(upstream: str, location: str) -> Deferred[Nginx]:
        directory = tmp_path / f"nginx-{len(running)}"
        directory.mkdir()
        running.append(Nginx(binary, directory, upstream, location))
        return Deferred.fromCoroutine(running[-1].started())

    yield start
    pytest_twisted.blockon(gatherResults([Deferred.fromCoroutine(each.stop()) for each in running]))
