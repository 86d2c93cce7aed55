"""One member of a cluster for tests."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import cast

from treq.client import HTTPClient
from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from twisted.web.client import Agent, HTTPConnectionPool

from twisted_etcd.client.client import EtcdClient
from twisted_etcd.embedded.process import EmbeddedEtcd, ProcessReactor
from twisted_etcd.errors import TwistedEtcdError
from twisted_etcd.schema import rpcs
from twisted_etcd.schema.maintenance import StatusRequest, StatusResponse
from twisted_etcd.testing.patience import Patience
from twisted_etcd.testing.peerlinks import PeerLinks
from twisted_etcd.testing.proxy import FaultProxy, IProxyReactor

_LOOPBACK = "127.0.0.1"
#: Seconds that a member has to answer a read.
_READ_TIMEOUT = 2.0


class ILabReactor(IProxyReactor, ProcessReactor):
    """What a cluster for tests uses of the reactor."""


class ClusterMember:
    """
    A member of an :class:`~twisted_etcd.testing.cluster.EtcdCluster`, which makes it.

    :ivar name: etcd's ``--name`` of it.
    :ivar learner: whether it has no vote, as far as is known.
    :ivar id: etcd's number of it; 0 until it is known.
    :ivar proxy: stands before its client port: what it does to connections, ``endpoint`` does.
    :ivar isolated: whether it is cut off from the other members.
    """

    def __init__(
        self,
        reactor: ILabReactor,
        name: str,
        *,
        binary: Path,
        directory: Path,
        links: PeerLinks,
        patience: Patience,
        learner: bool = False,
    ) -> None:
        self.name = name
        self.learner = learner
        self.id = 0
        self.isolated = False
        self.proxy = FaultProxy(reactor, _LOOPBACK, 0)
        self.proxy.startService()
        self._reactor = reactor
        self._binary = binary
        self._directory = directory
        self._links = links
        self._patience = patience
        self._etcd: EmbeddedEtcd | None = None
        self._paused_pid: int | None = None

    def __repr__(self) -> str:
        how = "paused" if self.paused else "running" if self.running else "dead"
        return f"<ClusterMember {self.name} {how}{' isolated' if self.isolated else ''}>"

    # --- what a caller can ask ---------------------------------------------------------------------------------------

    @property
    def endpoint(self) -> str:
        """The URL for clients, through :attr:`proxy`; the same for as long as the cluster runs."""
        return self.proxy.endpoint

    @property
    def direct_endpoint(self) -> str:
        """The URL for clients without the proxy, for checks that no fault of the proxy's may disturb."""
        return self._server.endpoint

    @property
    def pid(self) -> int | None:
        """Its process; None while there is none."""
        return None if self._etcd is None else self._etcd.pid

    @property
    def running(self) -> bool:
        """Whether there is a process; a paused one counts."""
        return self._etcd is not None and self._etcd.has_process

    @property
    def paused(self) -> bool:
        """Whether its process is stopped by SIGSTOP."""
        return self.pid is not None and self.pid == self._paused_pid

    def client(self) -> EtcdClient:
        """
        A client of this member alone, past its proxy.

        Stop it with ``stopService``, or use it in ``async with``.
        """
        return EtcdClient(cast("IReactorTime", self._reactor), [self.direct_endpoint])

    async def status(self, timeout: float) -> StatusResponse:
        """
        How it is by its own account (``maintenance/status``): ``leader`` is 0 while it sees none.

        :param timeout: seconds for the answer.
        """
        async with self.client() as client:
            return await client.call(rpcs.STATUS, StatusRequest(), timeout=timeout)

    def when_ready(self) -> Deferred[None]:
        """Fires when it serves requests, which needs a majority of the members; fails where its start does."""
        return self._server.when_ready()

    # --- what can be done to it --------------------------------------------------------------------------------------

    def kill(self) -> Deferred[None]:
        """
        End its process with SIGKILL; it stays down until :meth:`restart`.

        :return: fires when it is reaped, at once where there is none.
        """
        return self._end("KILL")

    def terminate(self) -> Deferred[None]:
        """
        End its process with SIGTERM, upon which etcd hands over its leadership and closes its streams.

        A paused one goes on, so that it can end.

        :return: fires when it is reaped, at once where there is none.
        """
        ended = self._end("TERM")
        self.resume()
        return ended

    def restart(self) -> Deferred[None]:
        """
        Start it again with its data, at the same ``endpoint``; one that runs is killed first.

        :return: fires when it serves requests, which needs a majority of the members, within the cluster's ``timeout``.
        """
        return self.kill().addCallback(lambda _: self.start())

    def pause(self) -> None:
        """Stop its process (SIGSTOP), if it has one: it accepts connections and answers nothing."""
        self._signal("STOP")
        self._paused_pid = self.pid

    def resume(self) -> None:
        """Let a paused process go on (SIGCONT)."""
        if self.paused:
            self._paused_pid = None
            self._signal("CONT")

    def isolate(self) -> Deferred[None]:
        """
        Cut it off from the other members, both ways; clients still reach it.

        Within two election timeouts it has no leader, and the others have one if they are a majority.

        :return: fires when it is cut off; that takes no more than a moment.
        """
        self.isolated = True
        return self._links.change(self.name, isolated=True)

    def rejoin(self) -> Deferred[None]:
        """
        End its isolation.

        :return: fires when a linearizable read through it is answered, which needs a majority of the members.
        :raises TimeoutError: where none is within the cluster's ``timeout``.
        """
        return self._patience.run(self._rejoin)

    async def _rejoin(self) -> None:
        await self.reconnect()
        problem = ""

        async def reads() -> bool | None:
            nonlocal problem
            try:
                async with self.client() as client:
                    await client.get("\0", timeout=_READ_TIMEOUT)
            except TwistedEtcdError as error:
                problem = str(error)
                return None
            return True

        await self._patience.until(reads, lambda: f"a read through {self.name}: {problem}")

    # --- for its cluster ---------------------------------------------------------------------------------------------

    def equip(self, arguments: Sequence[str]) -> None:
        """Say with which arguments etcd is run; before the first start."""
        self._etcd = EmbeddedEtcd(
            self._reactor,
            # A pool keeps its connections for a while, and tests look for what was left behind.
            HTTPClient(Agent(self._reactor, pool=HTTPConnectionPool(self._reactor, persistent=False))),
            binary=self._binary,
            data_dir=self._directory,
            name=self.name,
            extra_args=(f"--advertise-client-urls={self.endpoint}", *arguments),
            on_spawn=self._spawned,
            revive=False,
        )

    def start(self) -> Deferred[None]:
        """Start its process; fires when it serves requests."""
        self._server.start_timeout = self._patience.timeout
        self._server.startService()
        return self._server.when_ready()

    def reconnect(self) -> Deferred[None]:
        """End its isolation; fires when others can reach it."""
        self.isolated = False
        return self._links.change(self.name, isolated=False)

    def stop(self) -> Deferred[None]:
        """End all of it; fires when its process is reaped and nothing listens."""
        return gatherResults([self._stop_etcd(), self.proxy.stopService()]).addCallback(lambda _: None)

    def _stop_etcd(self) -> Deferred[None]:
        if self._etcd is None:
            return succeed(None)
        # Its data go: there is nothing that it would have to finish.
        self._signal("KILL")
        return self._etcd.stopService()

    def _end(self, signal: str) -> Deferred[None]:
        if not self.running:
            return succeed(None)
        exited = self._server.when_exited().addCallback(lambda _: None)
        self._signal(signal)
        return exited

    def _signal(self, name: str) -> None:
        if self._etcd is not None:
            with suppress(ProcessExitedAlready):
                self._etcd.kill(name)

    def _spawned(self) -> None:
        ports = self._server.ports
        self._listens_at(ports.client, ports.peer)
        self._server.when_exited().addCallback(self._exited)

    def _exited(self, _how: str) -> None:
        # One whose ports were taken has been started again at others by now.
        if not self.running:
            self._listens_at(0, 0)

    def _listens_at(self, client_port: int, peer_port: int) -> None:
        """Let the proxies lead there; while it is dead, its ports may become somebody else's."""
        self.proxy.target_port = client_port
        told = self._links.change(self.name, port=peer_port, pid=self.pid or 0)
        # Where the links are gone, whoever waits for this member hears that it cannot be reached.
        told.addErrback(_ignore)

    @property
    def _server(self) -> EmbeddedEtcd:
        if self._etcd is None:
            msg = f"member {self.name} has no process yet: start the cluster, and wait for when_ready()"
            raise RuntimeError(msg)
        return self._etcd


def _ignore(_failure: Failure) -> None:
    return None
