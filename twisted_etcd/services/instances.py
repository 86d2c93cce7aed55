"""The part of ``EtcdService`` that registers and finds services."""

from __future__ import annotations

from typing import NamedTuple

from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.logger import Logger

from twisted_etcd.errors import LeaseNotFound, MessagingError, TwistedEtcdError
from twisted_etcd.messaging.addresses import ServiceHandle
from twisted_etcd.registry.registration import Registration, RegistrationState
from twisted_etcd.registry.registry import Registry
from twisted_etcd.registry.view import ServiceChange
from twisted_etcd.services.background import Background
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


class _Entry(NamedTuple):
    registration: Registration
    #: What asked for it.
    message: EtcdServiceRegisterReq
    #: Who is told of it.
    heartbeat_to: ServiceHandle | None


class Instances:
    """
    Keeps registrations, and turns the changes of services into messages.

    :param send: sends a message to a service; it fails with a :class:`~twisted_etcd.errors.MessagingError` where that
        is no longer there.
    """

    _log = Logger()

    def __init__(self, registry: Registry, subscriptions: Subscriptions, background: Background, send: Sender) -> None:
        self._registry = registry
        self._subscriptions = subscriptions
        self._background = background
        self._send = send
        #: By the key in etcd.
        self._registrations: dict[str, _Entry] = {}

    def __len__(self) -> int:
        return len(self._registrations)

    async def register(
        self, message: EtcdServiceRegisterReq, heartbeat_to: ServiceHandle | None
    ) -> EtcdServiceRegisterResp:
        """Register, in place of an earlier registration of the same address; where it fails, that one stays."""
        registration = self._registry.registration(
            message.service_name,
            message.service_address,
            ttl=message.ttl,
            tags=message.tags,
            metadata=message.metadata,
            patient=message.patient,
            changed=self._changed,
        )
        path = registration.path
        earlier = self._registrations.get(path)
        self._registrations[path] = _Entry(registration, message, heartbeat_to)
        try:
            lease_id = await registration.start()
        except Exception:
            self._end(registration)
            self._restore(registration, earlier)
            raise
        if earlier is not None:
            self._background.add(
                self._replaced(earlier.registration, registration), f"what {path} replaces is left to its TTL"
            )
        return EtcdServiceRegisterResp(success=True, lease_id=lease_id)

    def _end(self, registration: Registration) -> None:
        self._background.add(registration.take_back(), f"{registration.path} is left to its TTL")

    def _restore(self, failed: Registration, earlier: _Entry | None) -> None:
        """Go back to what was there before."""
        if not self._is_current(failed):
            # Unregistered, or replaced once more, in the meantime.
            if earlier is not None:
                self._end(earlier.registration)
        elif earlier is None:
            del self._registrations[failed.path]
        else:
            self._registrations[failed.path] = earlier
            # The failed one may have put the key, and taken it away; and it was reported as ended.
            checking = Deferred.fromCoroutine(self._check(earlier.registration))
            self._background.add(checking, f"{failed.path} could not be checked")

    @staticmethod
    def _replaced(earlier: Registration, registration: Registration) -> Deferred[bool]:
        # The key lives by the new lease by now and stays when the old one goes; unless the old registration was just
        # being renewed, and took it once more.
        return earlier.take_back().addCallback(lambda _: Deferred.fromCoroutine(registration.check()))

    async def unregister(self, message: EtcdServiceUnregisterReq) -> EtcdServiceUnregisterResp:
        """Take a registration back."""
        path = self._registry.path(message.service_name, message.service_address)
        entry = self._registrations.pop(path, None)
        if entry is None:
            return EtcdServiceUnregisterResp(success=False)
        await entry.registration.take_back()
        return EtcdServiceUnregisterResp(success=True)

    async def heartbeat(self, message: EtcdServiceHeartbeatReq) -> EtcdServiceHeartbeatResp:
        """Confirm a registration now."""
        path = self._registry.path(message.service_name, message.service_address)
        entry = self._registrations.get(path)
        if entry is None:
            return EtcdServiceHeartbeatResp(success=False, ttl=0)
        try:
            ttl = await entry.registration.heartbeat()
        except LeaseNotFound:
            return EtcdServiceHeartbeatResp(success=False, ttl=0)
        return EtcdServiceHeartbeatResp(success=True, ttl=ttl)

    async def discover(self, message: EtcdServiceDiscoverReq) -> EtcdServiceDiscoverResp:
        """The instances now."""
        instances = await self._registry.discover(message.service_name)
        return EtcdServiceDiscoverResp(tuple(instance.endpoint for instance in instances), instances)

    async def watch(self, message: EtcdServiceWatchReq, subscriber: ServiceHandle) -> EtcdServiceWatchResp:
        """The instances now, and their changes for a subscriber."""
        subscription = self._subscriptions.new(subscriber)
        name = message.service_name

        def tell(change: ServiceChange) -> None:
            subscription.tell(EtcdServiceChangedMsg(name, change.instances, change.added, change.removed))

        view = self._registry.follow(name, tell, patient=message.patient)
        await self._subscriptions.begin(subscription, view, view.start)
        return EtcdServiceWatchResp(subscription.id, view.instances)

    # --- the heartbeat check ----------------------------------------------------------------------------------------

    def check_all(self) -> Deferred[None]:
        """Look after every registration: see that etcd has it, mend it where not, and report. It does not fail."""
        checks = [self._check(entry.registration) for entry in self._registrations.values()]
        return DeferredList([Deferred.fromCoroutine(check) for check in checks]).addCallback(lambda _: None)

    async def _check(self, registration: Registration) -> None:
        try:
            await registration.check()
        except CancelledError:
            # The service ends.
            return
        except TwistedEtcdError as error:
            self._log.warn("{path} could not be checked: {why}", path=registration.path, why=error)
        except Exception:  # noqa: BLE001 - logged; the next check is to come all the same
            self._log.failure("{path} could not be checked.", path=registration.path)
        self._changed(registration)

    def _is_current(self, registration: Registration) -> bool:
        entry = self._registrations.get(registration.path)
        return entry is not None and entry.registration is registration

    def _changed(self, registration: Registration) -> None:
        if not self._is_current(registration):
            return
        entry = self._registrations[registration.path]
        if entry.heartbeat_to is None:
            return
        report = EtcdHeartbeatMsg(
            service_name=entry.message.service_name,
            service_address=entry.message.service_address,
            healthy=registration.state is RegistrationState.ALIVE and registration.seconds_left > 0,
            state=registration.state,
            seconds_left=registration.seconds_left,
        )
        try:
            self._send(entry.heartbeat_to, report)
        except MessagingError:
            # Who was told is gone; the registration is not theirs and stays.
            self._registrations[registration.path] = entry._replace(heartbeat_to=None)

    # --- the end ----------------------------------------------------------------------------------------------------

    def take_all_back(self) -> None:
        """Take every registration back, in the background."""
        entries, self._registrations = self._registrations, {}
        for entry in entries.values():
            self._end(entry.registration)
