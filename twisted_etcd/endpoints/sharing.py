"""One client of etcd for all endpoint strings of a reactor that mean the same etcd."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from twisted.internet.defer import Deferred, DeferredList, succeed
from twisted.internet.interfaces import IReactorCore, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_etcd.endpoints.following import Hold, Views
from twisted_etcd.gateway.gateway import IGatewayReactor
from twisted_etcd.moment import Moment
from twisted_etcd.registry.registry import Registry
from twisted_etcd.settings.etcd import EtcdSettings, make_client


class Sharing:
    """The clients that are in use. Each is made when it is first needed, and stopped when nobody needs it any more."""

    def __init__(self) -> None:
        self._shared: dict[tuple[int, EtcdSettings], _SharedEtcd] = {}

    def __len__(self) -> int:
        return len(self._shared)

    def stop(self) -> Deferred[None]:
        """End all of them now, as at the end of the reactor; what is used again is made again."""
        ends = [shared.end() for shared in list(self._shared.values())]
        return DeferredList(ends, consumeErrors=True).addCallback(lambda _: None)

    def access(self, reactor: IReactorTime, settings: EtcdSettings) -> SharedAccess:
        """What an endpoint is given; nothing is made yet."""
        return SharedAccess(self, reactor, settings)

    def etcd(self, reactor: IReactorTime, settings: EtcdSettings) -> _SharedEtcd:
        """The one that is in use; made, where there is none."""
        # The reactor is held by what is behind it, so that no other one has its identity.
        key = id(reactor), settings
        shared = self._shared.get(key)
        if shared is None:
            shared = self._shared[key] = _SharedEtcd(reactor, settings, lambda: self._shared.pop(key, None))
        return shared


class SharedAccess:
    """
    The way of one endpoint to the client that it shares: what follows services for those who connect, and lends the
    registry to those who listen.
    """

    def __init__(self, sharing: Sharing, reactor: IReactorTime, settings: EtcdSettings) -> None:
        self._sharing = sharing
        self._reactor = reactor
        self._settings = settings
        self._lent: dict[Callable[[], Deferred[None]], _SharedEtcd] = {}

    def hold(self, name: str, idle: float) -> Hold:
        """See ``Source``."""
        return self._sharing.etcd(self._reactor, self._settings).views.hold(name, idle)

    def borrow(self, ender: Callable[[], Deferred[None]]) -> Registry:
        """See ``Lender``."""
        shared = self._lent[ender] = self._sharing.etcd(self._reactor, self._settings)
        return shared.borrow(ender)

    def give_back(self, ender: Callable[[], Deferred[None]]) -> Deferred[None]:
        """See ``Lender``."""
        return self._lent.pop(ender).give_back(ender)


class _SharedEtcd:
    """
    A client with its registry.

    It ends with the last of those who use it, and when the reactor ends: then all are asked to end first, since a
    registration must be taken back while there is a client.

    :param retired: called when nobody is to get it any more.
    """

    _log = Logger()

    def __init__(self, reactor: IReactorTime, settings: EtcdSettings, retired: Callable[[], object]) -> None:
        self._retired = retired
        self._client = make_client(cast("IGatewayReactor", reactor), settings)
        self._registry = Registry(self._client, reactor, settings.service_prefix)
        self.views = Views(self._registry, reactor, lambda: cast("None", self._less()))
        self._borrowers: list[Callable[[], Deferred[None]]] = []
        self._over: Moment[None] | None = None
        self._core: IReactorCore | None = IReactorCore(reactor, None)
        self._client.startService()
        self._trigger: Any = None
        if self._core is not None:
            self._trigger = self._core.addSystemEventTrigger("before", "shutdown", self._reactor_ends)

    def borrow(self, ender: Callable[[], Deferred[None]]) -> Registry:
        self._borrowers.append(ender)
        return self._registry

    def give_back(self, ender: Callable[[], Deferred[None]]) -> Deferred[None]:
        self._borrowers.remove(ender)
        return self._less()

    def _less(self) -> Deferred[None]:
        """One less uses it."""
        if self._borrowers or len(self.views):
            return succeed(None)
        if self._over is None:
            self._over = Moment()
            self._retired()
            if self._core is not None:
                self._core.removeSystemEventTrigger(self._trigger)
            ending = self._registry.stopService().addErrback(self._complain)
            ending.addCallback(lambda _: self._client.stopService()).addErrback(self._complain)
            ending.addCallback(self._over.fire)
        return self._over.wait()

    def _reactor_ends(self) -> Deferred[None]:
        # What is being called now cannot be removed.
        self._core = None
        return self.end()

    def end(self) -> Deferred[None]:
        """End it, and first all that uses it."""
        self._retired()
        ends = [ender() for ender in list(self._borrowers)] + [self.views.stop()]
        return DeferredList(ends, consumeErrors=True).addCallback(lambda _: self._less())

    def _complain(self, failure: Failure) -> None:
        self._log.failure("The client of the endpoint strings did not stop well.", failure)
