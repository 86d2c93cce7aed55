"""The part of ``EtcdService`` that finds services."""

from __future__ import annotations

from contextlib import suppress

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_etcd.errors import RequestFailed, ServiceStopped
from twisted_etcd.messaging.addresses import ServiceHandle
from twisted_etcd.moment import Moment
from twisted_etcd.registry.filter import InstanceFilter, make_filter
from twisted_etcd.registry.instance import Instance
from twisted_etcd.registry.lens import ServiceChange, ServiceChangeCallback
from twisted_etcd.registry.registry import Registry
from twisted_etcd.registry.view import ServiceView
from twisted_etcd.services.messages import (
    EtcdServiceChangedMsg,
    EtcdServiceDiscoverReq,
    EtcdServiceDiscoverResp,
    EtcdServiceWatchReq,
    EtcdServiceWatchResp,
)
from twisted_etcd.services.subscriptions import Subscriptions

#: Seconds that etcd has for its answer while the view says that it is away.
_WHILE_STALE = 1.0


class _Following:
    """A subscription's share of a view: the view goes on when it ends."""

    def __init__(self, view: ServiceView, where: InstanceFilter, tell: ServiceChangeCallback) -> None:
        self._view = view
        self._where = where
        self._tell = tell
        self._begun: Moment[None] = Moment()
        self._ended: Moment[None] = Moment()
        self._waiting: Deferred[None] = succeed(None)
        self._take_away = lambda: None

    @property
    def ended(self) -> Deferred[None]:
        """See :class:`~twisted_etcd.services.subscriptions.Followed`."""
        return self._ended.wait()

    def start(self, *, patient: bool) -> Deferred[None]:
        """Begin to tell, once the view is loaded; fails as its next reading does, unless patient."""
        self._waiting = self._view.when_loaded() if patient else self._view.next_reading()
        self._waiting.addCallbacks(self._begin, self._begun.fail)
        return self._begun.wait()

    def _begin(self, _: None) -> None:
        if self._ended.happened:
            return
        self._take_away = self._view.on_change(self._tell, self._where)
        self._waiting = self._view.ended
        self._waiting.addCallbacks(self._view_stopped, self._ended.fail)
        self._begun.fire(None)

    def _view_stopped(self, _: None) -> None:
        self._ended.fail(Failure(ServiceStopped("what was followed for this was stopped")))

    def stop(self) -> Deferred[None]:
        """See :class:`~twisted_etcd.services.subscriptions.Followed`."""
        self._take_away()
        self._ended.fire(None)
        self._begun.fail(Failure(ServiceStopped("it was ended before the service's instances were read")))
        self._waiting.cancel()
        return succeed(None)


class Discovery:
    """
    Answers which instances a service has, and turns their changes into messages.

    :ivar registry: where it looks for them.
    """

    _log = Logger()

    def __init__(self, registry: Registry, subscriptions: Subscriptions) -> None:
        self.registry = registry
        self._subscriptions = subscriptions

    async def discover(self, message: EtcdServiceDiscoverReq) -> EtcdServiceDiscoverResp:
        """The instances now: by etcd, or by the view where etcd is away or is not to be asked."""
        where = make_filter(message.tags, message.metadata, message.status)
        name = message.service_name
        if not message.fresh:
            view = await self.registry.views.loaded(name)
            return _found(view.select(where), stale=view.stale)
        known = self.registry.views.known(name)
        try:
            timeout = _WHILE_STALE if known is not None and known.stale else None
            instances = await self.registry.discover(name, timeout=timeout)
        except RequestFailed as error:
            known = self.registry.views.known(name)
            if known is None:
                raise
            self._log.info(
                "What is known of service {name} is answered, since etcd is away: {why}", name=name, why=error
            )
            return _found(known.select(where), stale=True)
        # For when etcd is away.
        with suppress(ServiceStopped):
            self.registry.views.asked(name)
        return _found(where.of(instances), stale=False)

    async def watch(self, message: EtcdServiceWatchReq, subscriber: ServiceHandle) -> EtcdServiceWatchResp:
        """The instances now, and their changes for a subscriber."""
        where = make_filter(message.tags, message.metadata, message.status)
        subscription = self._subscriptions.new(subscriber)
        name = message.service_name

        def tell(change: ServiceChange) -> None:
            subscription.tell(
                EtcdServiceChangedMsg(
                    service_name=name,
                    instances=change.instances,
                    added=change.added,
                    removed=change.removed,
                    updated=change.updated,
                    stale=change.stale,
                    held_back=change.held_back,
                )
            )

        view = self.registry.views.asked(name)
        following = _Following(view, where, tell)
        await self._subscriptions.begin(subscription, following, lambda: following.start(patient=message.patient))
        return EtcdServiceWatchResp(subscription.id, view.select(where), view.stale)


def _found(instances: tuple[Instance, ...], *, stale: bool) -> EtcdServiceDiscoverResp:
    return EtcdServiceDiscoverResp(tuple(instance.endpoint for instance in instances), instances, stale)
