"""The part of ``EtcdService`` that registers and finds services."""

from __future__ import annotations

from twisted.internet.defer import DeferredList
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_etcd.errors import EtcdError, LeaseNotFound, MessagingError, RequestFailed, TwistedEtcdError
from twisted_etcd.messaging.addresses import ServiceHandle
from twisted_etcd.registry.registration import Registration, RegistrationState
from twisted_etcd.registry.registry import Registry
from twisted_etcd.registry.view import ServiceChange
from twisted_etcd.services.messages import (
    EtcdHeartbeatMsg,
    EtcdServiceChangedMsg,
    EtcdServiceDiscoverReq,
    EtcdServiceDiscoverResp,
    EtcdServiceHeartbeatReq,
    EtcdServiceHeartbeatResp,
    EtcdServiceRegisterReq,
    EtcdServiceRegisterResp,
    EtcdServiceUnregisterReq,
    EtcdServiceUnregisterResp,
    EtcdServiceWatchReq,
    EtcdServiceWatchResp,
)
from twisted_etcd.services.subscriptions import Sender, Subscriptions


class Instances:
    """
    Keeps registrations, and turns the changes of services into messages.

    :param send: sends a message to a service; it fails with a :class:`~twisted_etcd.errors.MessagingError` where that
        is no longer there.
    """

    _log = Logger()

    def __init__(self, registry: Registry, subscriptions: Subscriptions, send: Sender) -> None:
        self._registry = registry
        self._subscriptions = subscriptions
        self._send = send
        #: By the key in etcd: the registration, what asked for it, and who is told of it.
        self._registrations: dict[str, tuple[Registration, EtcdServiceRegisterReq, ServiceHandle | None]] = {}

    async def register(
        self, message: EtcdServiceRegisterReq, heartbeat_to: ServiceHandle | None
    ) -> EtcdServiceRegisterResp:
        """Register, in place of an earlier registration of the same address."""
        registration = self._registry.registration(
            message.service_name,
            message.service_address,
            ttl=message.ttl,
            tags=message.tags,
            metadata=message.metadata,
            changed=self._changed,
        )
        await self._take_back(registration.path)
        self._registrations[registration.path] = (registration, message, heartbeat_to)
        try:
            lease_id = await registration.start()
        except BaseException:
            if self._is_current(registration):
                del self._registrations[registration.path]
            await registration.take_back()
            raise
        return EtcdServiceRegisterResp(success=True, lease_id=lease_id)

    async def unregister(self, message: EtcdServiceUnregisterReq) -> EtcdServiceUnregisterResp:
        """Take a registration back."""
        path = self._registry.path(message.service_name, message.service_address)
        return EtcdServiceUnregisterResp(success=await self._take_back(path))

    async def _take_back(self, path: str) -> bool:
        entry = self._registrations.pop(path, None)
        if entry is None:
            return False
        await entry[0].take_back()
        return True

    async def heartbeat(self, message: EtcdServiceHeartbeatReq) -> EtcdServiceHeartbeatResp:
        """Confirm a registration now."""
        path = self._registry.path(message.service_name, message.service_address)
        entry = self._registrations.get(path)
        if entry is None:
            return EtcdServiceHeartbeatResp(success=False, ttl=0)
        try:
            ttl = await entry[0].heartbeat()
        except LeaseNotFound:
            return EtcdServiceHeartbeatResp(success=False, ttl=0)
        return EtcdServiceHeartbeatResp(success=True, ttl=ttl)

    async def discover(self, message: EtcdServiceDiscoverReq) -> EtcdServiceDiscoverResp:
        """The instances now."""
        instances = await self._registry.discover(message.service_name)
        return EtcdServiceDiscoverResp(tuple(instance.endpoint for instance in instances), instances)

    async def watch(self, message: EtcdServiceWatchReq, subscriber: ServiceHandle) -> EtcdServiceWatchResp:
        """The instances now, and their changes for a subscriber."""
        subscription = self._subscriptions.open(subscriber)
        name = message.service_name

        def tell(change: ServiceChange) -> None:
            subscription.tell(EtcdServiceChangedMsg(name, change.instances, change.added, change.removed))

        view = self._registry.follow(name, tell)
        await self._subscriptions.begin(subscription, view.start, view)
        return EtcdServiceWatchResp(subscription.id, view.instances)

    # --- the heartbeat check ----------------------------------------------------------------------------------------

    async def check_all(self) -> None:
        """Look after every registration: see that etcd has it, mend it where not, and report."""
        for registration, _, _ in tuple(self._registrations.values()):
            if not self._is_current(registration):
                continue
            try:
                await registration.check()
            except (RequestFailed, EtcdError) as error:
                self._log.warn("{path} could not be checked: {why}", path=registration.path, why=error)
            self._changed(registration)

    def _is_current(self, registration: Registration) -> bool:
        entry = self._registrations.get(registration.path)
        return entry is not None and entry[0] is registration

    def _changed(self, registration: Registration) -> None:
        if not self._is_current(registration):
            return
        _, message, heartbeat_to = self._registrations[registration.path]
        if heartbeat_to is None:
            return
        report = EtcdHeartbeatMsg(
            service_name=message.service_name,
            service_address=message.service_address,
            healthy=registration.state is RegistrationState.ALIVE and registration.seconds_left > 0,
            state=registration.state,
            seconds_left=registration.seconds_left,
        )
        try:
            self._send(heartbeat_to, report)
        except MessagingError:
            # Who was told is gone; the registration is not theirs and stays.
            self._registrations[registration.path] = (registration, message, None)

    async def take_all_back(self) -> None:
        """Take every registration back."""
        paths = tuple(self._registrations)
        entries = [self._registrations.pop(path)[0] for path in paths]
        await DeferredList([each.take_back().addErrback(self._left, each) for each in entries])

    def _left(self, failure: Failure, registration: Registration) -> None:
        failure.trap(TwistedEtcdError)
        self._log.warn("{path} was left to its TTL: {why}", path=registration.path, why=str(failure.value))
