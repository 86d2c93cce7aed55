"""What the tests of the daemon share: daemons that are gone when their test has ended."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults

from twisted_etcd.client.client import EtcdClient
from twisted_etcd.daemon.daemon import TAKEN_NAMES, Daemon
from twisted_etcd.daemon.hosting import make_services
from twisted_etcd.daemon.settings import load
from twisted_etcd.schema.kv import KeyValue


class RunDaemon(Protocol):
    """Starts a daemon in this process by the text of a settings file; it is stopped at the end of the test."""

    def __call__(self, text: str, *, binary: Path | None = None, environ: dict[str, str] | None = None) -> Daemon: ...


MakeClient = Callable[..., EtcdClient]


@pytest.fixture
def gave_up() -> list[str]:
    """An entry for each daemon that gave up."""
    return []


@pytest.fixture
def run_daemon(tmp_path: Path, gave_up: list[str]) -> Iterator[RunDaemon]:
    """Daemons of this process."""
    daemons: list[Daemon] = []

    def run(text: str, *, binary: Path | None = None, environ: dict[str, str] | None = None) -> Daemon:
        file = tmp_path / f"settings-{len(daemons)}.yaml"
        file.write_text(text)
        settings = load(file, environ or {})
        hosted = make_services(settings.services, taken=TAKEN_NAMES)
        daemon = Daemon(
            cast("Any", reactor), settings, hosted, binary=binary, give_up=lambda: gave_up.append(file.name)
        )
        daemons.append(daemon)
        daemon.startService()
        return daemon

    yield run
    _wait_for([daemon.stopService() for daemon in daemons if daemon.running])


@pytest.fixture
def make_client() -> Iterator[MakeClient]:
    """Clients that look at what daemons do."""
    clients: list[EtcdClient] = []

    def make(endpoint: str, **options: Any) -> EtcdClient:  # noqa: ANN401 - as EtcdClient has them
        clients.append(EtcdClient(cast("Any", reactor), endpoint, **options))
        return clients[-1]

    yield make
    _wait_for([client.stopService() for client in clients])


def _wait_for(deferreds: Sequence[Deferred[Any]]) -> None:
    pytest_twisted.blockon(gatherResults(deferreds))


async def value_at(client: EtcdClient, key: str) -> KeyValue | None:
    """What is at a key."""
    response = await client.get(key)
    return response.kvs[0] if response.kvs else None
