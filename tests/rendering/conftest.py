"""What the tests of rendering share: a renderer on a real etcd, whose status can be waited for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred

from tests.wire import Event, soon
from twisted_etcd.client.client import EtcdClient
from twisted_etcd.embedded.process import EmbeddedEtcd
from twisted_etcd.rendering.entry import RenderEntry
from twisted_etcd.rendering.renderer import Renderer
from twisted_etcd.rendering.target import RenderState, RenderStatus


class Site:
    """
    A folder with templates and what is rendered from them, and the etcd behind it.

    :ivar client: for the test itself.
    :ivar seen: every status there was, in order.
    """

    def __init__(self, folder: Path, endpoint: str, prefix: str) -> None:
        self.folder = folder
        self.endpoint = endpoint
        self.config_prefix = f"{prefix}config"
        self.service_prefix = f"{prefix}services"
        self.client = self.new_client()
        self.seen: list[RenderStatus] = []
        self.event = Event()
        self._clients = [self.client]
        self._renderers: list[Renderer] = []

    def new_client(self, endpoint: str | None = None, **options: Any) -> EtcdClient:  # noqa: ANN401 - as EtcdClient has them
        return EtcdClient(cast("Any", reactor), endpoint or self.endpoint, **options)

    def put(self, key: str, value: str) -> Deferred[Any]:
        return soon(self.client.put(f"{self.config_prefix}/{key}", value))

    def delete(self, key: str) -> Deferred[Any]:
        return soon(self.client.delete(f"{self.config_prefix}/{key}"))

    def register(self, service: str, address: str, value: str | None = None) -> Deferred[Any]:
        return soon(self.client.put(f"{self.service_prefix}/{service}/{address}", value or address))

    def entry(self, text: str, name: str = "out", **options: Any) -> RenderEntry:  # noqa: ANN401 - as RenderEntry has them
        template = self.folder / f"{name}.j2"
        template.write_text(text)
        quiet = {"quiet_min": 0.02, "quiet_max": 1.0}
        return RenderEntry(template=template, to=self.folder / name, **(quiet | options))

    def renderer(self, *entries: RenderEntry, client: EtcdClient | None = None, **options: Any) -> Renderer:  # noqa: ANN401
        """One that is not started, and stopped at the end."""
        if client is None:
            client = self.new_client()
        self._clients.append(client)
        # Waits between attempts are as short as they can be; a test that wants them longer says so.
        options = {"random": lambda: 0.01} | options
        renderer = Renderer(
            client,
            cast("Any", reactor),
            entries,
            config_prefix=self.config_prefix,
            service_prefix=self.service_prefix,
            changed=self._changed,
            **options,
        )
        self._renderers.append(renderer)
        return renderer

    def start(self, *entries: RenderEntry, **options: Any) -> Renderer:  # noqa: ANN401 - as Renderer has them
        renderer = self.renderer(*entries, **options)
        renderer.startService()
        return renderer

    def _changed(self, status: RenderStatus) -> None:
        self.seen.append(status)
        # In a turn of its own: a test goes on from here.
        cast("Any", reactor).callLater(0, self.event.happened)

    async def until_text(self, expected: str, name: str = "out") -> None:
        """Once a file has this text, and all is done for it."""
        file = self.folder / name
        status = await self.until(
            lambda status: (
                status.to == str(file)
                and status.state is RenderState.FOLLOWING
                and file.exists()
                and file.read_text() == expected
            )
        )
        assert status.last_success is not None

    async def until(self, condition: Any) -> RenderStatus:  # noqa: ANN401 - of a status
        """The last status, once it is so."""
        await self.event.until(lambda: any(condition(status) for status in self.last))
        return next(status for status in self.last if condition(status))

    async def until_state(self, state: RenderState, name: str = "out") -> RenderStatus:
        return await self.until(lambda status: status.to == str(self.folder / name) and status.state is state)

    @property
    def last(self) -> list[RenderStatus]:
        """The last status of each file."""
        return list({status.to: status for status in self.seen}.values())

    def states(self, name: str = "out") -> list[RenderState]:
        return [status.state for status in self.seen if status.to == str(self.folder / name)]

    def text(self, name: str = "out") -> str:
        return (self.folder / name).read_text()

    async def end(self) -> None:
        for renderer in self._renderers:
            if renderer.running:
                await soon(renderer.stopService())
        for client in self._clients:
            await soon(client.stopService())


@pytest.fixture
def site(tmp_path: Path, etcd_server: EmbeddedEtcd, prefix: str) -> Iterator[Site]:
    folder = tmp_path / "site"
    folder.mkdir()
    made = Site(folder, etcd_server.endpoint, prefix)
    yield made
    pytest_twisted.blockon(Deferred.fromCoroutine(made.end()))
