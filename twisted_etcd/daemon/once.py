"""All files rendered once, and nothing else."""

from __future__ import annotations

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.logger import Logger

from twisted_etcd.client.client import EtcdClient
from twisted_etcd.daemon.settings import Settings
from twisted_etcd.errors import RenderError, ServiceStopped
from twisted_etcd.rendering.renderer import Renderer, RenderReactor
from twisted_etcd.rendering.target import RenderState

#: Seconds: unless told otherwise, how long it may take.
ONCE_TIMEOUT = 60.0


class RenderOnce(Service):
    """
    Brings all files of the settings up to date.

    :param client: not started; it is started and stopped in here.
    :param timeout: seconds for all of it, the waiting for etcd and the commands among it.
    """

    _log = Logger()

    def __init__(self, client: EtcdClient, reactor: RenderReactor, settings: Settings, timeout: float) -> None:
        self._client = client
        self._reactor = reactor
        self._timeout = timeout
        self._waiting: Deferred[None] | None = None
        self._renderer = Renderer(
            client,
            reactor,
            settings.render,
            config_prefix=settings.etcd.config_prefix,
            service_prefix=settings.etcd.service_prefix,
            once=True,
        )

    async def run(self) -> None:
        """
        Do it.

        :raises RenderError: where one of them could not be brought up to date, or its readers not told, with a line
            for each.
        :raises ServiceStopped: where it was stopped first.
        """
        self._client.startService()
        self._renderer.startService()
        self._waiting = self._renderer.when_rendered().addTimeout(self._timeout, self._reactor)
        try:
            await self._waiting
        except DeferredTimeout:
            raise RenderError("\n".join(self._late())) from None
        except CancelledError:
            msg = "rendering was stopped"
            raise ServiceStopped(msg) from None

    def _late(self) -> list[str]:
        late = [status for status in self._renderer.status if status.state is not RenderState.FOLLOWING]
        lines = []
        for status in late:
            missing = ", ".join(str(want) for want in status.missing)
            why = f"etcd did not give {missing}" if missing else status.last_error or f"it is {status.state.value}"
            lines.append(f"{status.to}: not done within {self._timeout:g} s: {why}")
        return lines

    def stopService(self) -> Deferred[None]:
        """Fires when nothing is left of it."""
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
        if self._renderer.running:
            await self._renderer.stopService()
        if self._client.running:
            await self._client.stopService()
