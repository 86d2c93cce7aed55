"""The daemon as a Twisted service: an etcd of its own where it is asked for, and the node with its services."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

from treq.client import HTTPClient
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads, IReactorProcess, IReactorThreads
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_etcd.client.client import EtcdClient
from twisted_etcd.daemon.caretaker import CARETAKER, Caretaker
from twisted_etcd.daemon.hangup import Hangup, Installer
from twisted_etcd.daemon.once import RenderOnce
from twisted_etcd.daemon.settings import Settings
from twisted_etcd.embedded.process import EmbeddedEtcd, ProcessReactor
from twisted_etcd.errors import RenderError, ServiceStopped, ServiceUnavailable, TwistedEtcdError
from twisted_etcd.gateway.agent import PooledAgent
from twisted_etcd.gateway.connections import Connections
from twisted_etcd.gateway.gateway import IGatewayReactor
from twisted_etcd.gateway.tls import TLSSettings, TLSTrust
from twisted_etcd.messaging.node import Node
from twisted_etcd.messaging.service import MessageService
from twisted_etcd.rendering.renderer import Renderer, RenderReactor
from twisted_etcd.services.etcd import EtcdService
from twisted_etcd.services.messages import ETCD_SERVICE
from twisted_etcd.settings.etcd import make_client


class IDaemonReactor(IGatewayReactor, IReactorProcess, IReactorThreads):
    """What the daemon uses of the reactor."""


#: The names that people's own services cannot have in the daemon's node.
TAKEN_NAMES = (ETCD_SERVICE, CARETAKER)


def make_node(
    reactor: IDaemonReactor, settings: Settings, endpoints: tuple[str, ...], hosted: Sequence[MessageService]
) -> Node:
    """
    The node with everything that the settings ask for, not started.

    :param endpoints: where etcd is.
    :param hosted: people's own services.
    :raises InvalidSettings: where a template of the settings cannot be read, or is none.
    """
    etcd = settings.etcd
    client = make_client(reactor, etcd, endpoints)
    service = EtcdService(
        client,
        reactor,
        heartbeat_check_interval=etcd.heartbeat_check_interval,
        config_prefix=etcd.config_prefix,
        service_prefix=etcd.service_prefix,
        protection=etcd.protection,
    )
    caretaker = Caretaker(client, reactor, settings)
    node = Node(reactor, name=settings.node.name, default_timeout=settings.node.default_call_timeout)
    # In this order, since the node stops its services in the opposite one: the client last.
    for each in (client, service, caretaker, *_renderers(reactor, settings, client), *hosted):
        each.setServiceParent(node)
    return node


def _renderers(reactor: IDaemonReactor, settings: Settings, client: EtcdClient) -> list[Renderer]:
    """The one that renders files, where the settings name some."""
    if not settings.render:
        return []
    etcd = settings.etcd
    return [
        Renderer(
            client,
            cast("RenderReactor", reactor),
            settings.render,
            config_prefix=etcd.config_prefix,
            service_prefix=etcd.service_prefix,
            protection=etcd.protection,
        )
    ]


class Daemon(Service):
    """
    :param hosted: people's own services, not yet in any node.
    :param binary: the etcd program to run; None where etcd is elsewhere.
    :param give_up: called where the daemon cannot do its work at all, after the reason was logged.
    :param once: seconds to render the files in, and to do nothing else: ``give_up`` or ``done`` is called then. None
        for a daemon that stays.
    :param done: called when all files have been rendered once.
    :param hangup_installer: how SIGHUP is caught, where files are rendered: all of them are rendered again then.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: IDaemonReactor,
        settings: Settings,
        hosted: Sequence[MessageService],
        *,
        binary: Path | None,
        give_up: Callable[[], object],
        once: float | None = None,
        done: Callable[[], object] = lambda: None,
        hangup_installer: Installer = signal.signal,
    ) -> None:
        self._reactor = reactor
        self._settings = settings
        self._hosted = hosted
        self._give_up = give_up
        self._etcd = self._make_etcd(binary) if binary is not None else None
        self._node: Node | None = None
        self._starting: Deferred[None] | None = None
        self._once = once
        self._done = done
        self._rendering_once: RenderOnce | None = None
        self._hangup = Hangup(cast("IReactorFromThreads", reactor), self._render_again, hangup_installer)

    def _make_etcd(self, binary: Path) -> EmbeddedEtcd:
        embedded = self._settings.embedded
        connections = Connections(self._reactor, TLSTrust(TLSSettings()), self._settings.etcd.connect_timeout)
        return EmbeddedEtcd(
            cast("ProcessReactor", self._reactor),
            HTTPClient(PooledAgent(connections.to, self._reactor, keep=0)),
            binary=binary,
            data_dir=embedded.data_dir,
            extra_args=embedded.extra_args,
        )

    @property
    def node(self) -> Node | None:
        """The node, once it was started."""
        return self._node

    def startService(self) -> None:
        """Start etcd, where it is ours, and then the node."""
        super().startService()  # type: ignore[no-untyped-call]
        if self._settings.render:
            self._hangup.install()
        self._starting = Deferred.fromCoroutine(self._start())
        self._starting.addErrback(self._failed)

    async def _start(self) -> None:
        endpoints = tuple(str(endpoint) for endpoint in self._settings.etcd.endpoints)
        if self._etcd is not None:
            # Asked for first: a start can fail at once, and then tells who waits.
            ready = self._etcd.when_ready()
            self._etcd.startService()
            await ready
            self._log.info("{how}", how=self._etcd.how_to_reach())
            endpoints = (self._etcd.endpoint,)
        if self._once is not None:
            await self._render_once(endpoints, self._once)
            return
        node = self._node = make_node(self._reactor, self._settings, endpoints, self._hosted)
        node.startService()
        try:
            await node.when_started()
        except ServiceUnavailable as refused:
            self._log.error("not all of node {name} runs: {why}", name=self._settings.node.name, why=str(refused))
        names = (each.name for each in node.services if isinstance(each, MessageService) and each.running)
        self._log.info("node {name} runs: {services}", name=self._settings.node.name, services=", ".join(names))

    async def _render_once(self, endpoints: tuple[str, ...], timeout: float) -> None:
        client = make_client(self._reactor, self._settings.etcd, endpoints)
        rendering = self._rendering_once = RenderOnce(
            client, cast("RenderReactor", self._reactor), self._settings, timeout
        )
        await rendering.run()
        self._log.info("all files are up to date")
        self._done()

    def _render_again(self) -> None:
        renderers = [each for each in self._node or () if isinstance(each, Renderer)]
        if renderers:
            self._log.info("SIGHUP: all files are rendered again")
        for renderer in renderers:
            renderer.render_again()

    def _failed(self, failure: Failure) -> None:
        if failure.check(ServiceStopped):
            return
        if failure.check(RenderError):
            self._log.critical("Not all files are up to date:\n  {why}", why=str(failure.value).replace("\n", "\n  "))
        elif failure.check(TwistedEtcdError):
            self._log.critical("The daemon cannot start: {why}", why=str(failure.value))
        else:
            self._log.failure("The daemon cannot start.", failure)
        self._give_up()

    def stopService(self) -> Deferred[None]:
        """Take the registrations back; when they had their time to drain stop the node, and then etcd if it is ours."""
        super().stopService()  # type: ignore[no-untyped-call]
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        self._hangup.remove()
        if self._rendering_once is not None:
            await self._rendering_once.stopService()
        if self._node is not None:
            # First, while all services still answer those who found them.
            service = self._node.getServiceNamed(ETCD_SERVICE)
            await cast("EtcdService", service).take_all_back()
            await self._node.stopService()
        if self._etcd is not None:
            await self._etcd.stopService()
        self._log.info("stopped")
