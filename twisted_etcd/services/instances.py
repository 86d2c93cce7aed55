"""The part of ``EtcdService`` that registers services."""

from __future__ import annotations

from typing import cast

import msgspec
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_etcd.errors import LeaseNotFound, MessagingError, TwistedEtcdError
from twisted_etcd.messaging.addresses import ServiceHandle
from twisted_etcd.registry.machine import RegistrationState
from twisted_etcd.registry.registration import Registration, checked_drain
from twisted_etcd.registry.registry import Registry, checked_form
from twisted_etcd.services.background import Background
from twisted_etcd.services.messages import (
    EtcdHeartbeatMsg,
    EtcdServiceHeartbeatReq,
    EtcdServiceHeartbeatResp,
    EtcdServiceRegisterReq,
    EtcdServiceRegisterResp,
    EtcdServiceUnregisterReq,
    EtcdServiceUnregisterResp,
)
from twisted_etcd.services.subscriptions import Sender


class _Entry(msgspec.Struct, eq=False):
    registration: Registration
    #: What asked for it.
    message: EtcdServiceRegisterReq
    #: Who is told of it.
    heartbeat_to: ServiceHandle | None
    #: Whether who asked for it has no answer yet.
    is_new: bool = True


class Instances:
    """
    Keeps registrations.

    :param send: sends a message to a service; it fails with a :class:`~twisted_etcd.errors.MessagingError` where that
        is no longer there.
    :ivar registry: where it registers.
    """

    _log = Logger()

    def __init__(self, registry: Registry, background: Background, send: Sender) -> None:
        self.registry = registry
        self._background = background
        self._send = send
        #: By the key in etcd: what is wanted there now, last, and before it what that is to replace and did not yet.
        self._registrations: dict[str, list[_Entry]] = {}

    def __len__(self) -> int:
        return len(self._registrations)

    async def register(
        self, message: EtcdServiceRegisterReq, heartbeat_to: ServiceHandle | None
    ) -> EtcdServiceRegisterResp:
        """Register, in place of an earlier registration of the same address; where it fails, that one stays."""
        registration = self.registry.register(
            message.service_name,
            message.service_address,
            ttl=message.ttl,
            tags=message.tags,
            metadata=message.metadata,
            weight=message.weight,
            id=message.id,
            form=checked_form(message.format),
            own_lease=message.own_lease,
            drain=message.drain,
            patient=message.patient,
            health=message.health,
            status_changed=lambda *_: self._report(entry),
        )
        path = registration.path
        entry = _Entry(registration, message, heartbeat_to)
        entries = self._registrations.setdefault(path, [])
        entries.append(entry)
        registration.on_change(lambda _: self._changed(entry))
        if registration.state is RegistrationState.WITHHELD:
            entry.is_new = False
            return EtcdServiceRegisterResp(success=True, lease_id=0)
        try:
            lease_id = await registration.registered
        except Exception:
            # Also where nobody waits for it any longer.
            if registration.state is not RegistrationState.ENDED:
                self._background.add(registration.take_back(0.0), f"{path} was not registered in time")
            self._withdraw(entry)
            raise
        entry.is_new = False
        return EtcdServiceRegisterResp(success=True, lease_id=lease_id)

    def _withdraw(self, failed: _Entry) -> None:
        """Go back to what was there before."""
        path = failed.registration.path
        was_wanted = self._is_wanted(failed)
        self._forget(failed)
        entries = self._registrations.get(path)
        if entries and was_wanted:
            # The failed one was reported as ended.
            self._background.add(Deferred.fromCoroutine(self._check(entries[-1])), f"{path} could not be checked")

    def _forget(self, ended: _Entry) -> None:
        path = ended.registration.path
        entries = self._registrations.get(path, [])
        if ended in entries:
            entries.remove(ended)
            if not entries:
                del self._registrations[path]

    def _is_wanted(self, entry: _Entry) -> bool:
        return self._registrations.get(entry.registration.path, [])[-1:] == [entry]

    async def unregister(self, message: EtcdServiceUnregisterReq) -> EtcdServiceUnregisterResp:
        """Take a registration back."""
        path = self.registry.path(message.service_name, message.service_address)
        drain = None if message.drain is None else checked_drain(message.drain)
        entries = self._registrations.pop(path, None)
        if entries is None:
            return EtcdServiceUnregisterResp(success=False)
        # In their order: what is to be replaced must not come back because what replaces it goes first.
        taking_back = [entry.registration.take_back(drain) for entry in entries]
        for succeeded, result in await DeferredList(taking_back, consumeErrors=True):
            if not succeeded:
                cast("Failure", result).raiseException()
        return EtcdServiceUnregisterResp(success=True)

    async def heartbeat(self, message: EtcdServiceHeartbeatReq) -> EtcdServiceHeartbeatResp:
        """Confirm a registration now."""
        path = self.registry.path(message.service_name, message.service_address)
        entries = self._registrations.get(path)
        if entries is None:
            return EtcdServiceHeartbeatResp(success=False, ttl=0)
        try:
            ttl = await entries[-1].registration.heartbeat()
        except LeaseNotFound:
            return EtcdServiceHeartbeatResp(success=False, ttl=0)
        return EtcdServiceHeartbeatResp(success=True, ttl=ttl)

    # --- the heartbeat check ----------------------------------------------------------------------------------------

    def check_all(self) -> Deferred[None]:
        """Look after every registration: see that etcd has it, mend it where not, and report. It does not fail."""
        checks = [self._check(entries[-1]) for entries in self._registrations.values()]
        return DeferredList([Deferred.fromCoroutine(check) for check in checks]).addCallback(lambda _: None)

    async def _check(self, entry: _Entry) -> None:
        registration = entry.registration
        try:
            await registration.check()
        except CancelledError:
            # The service ends.
            return
        except TwistedEtcdError as error:
            self._log.warn("{path} could not be checked: {why}", path=registration.path, why=error)
        except Exception:  # noqa: BLE001 - logged; the next check is to come all the same
            self._log.failure("{path} could not be checked.", path=registration.path)
        self._report(entry)

    def _changed(self, entry: _Entry) -> None:
        self._report(entry)
        if entry.registration.state is RegistrationState.ENDED and not entry.is_new:
            self._forget(entry)

    def _report(self, entry: _Entry) -> None:
        if entry.heartbeat_to is None or not self._is_wanted(entry):
            return
        registration = entry.registration
        health = registration.health
        report = EtcdHeartbeatMsg(
            service_name=entry.message.service_name,
            service_address=entry.message.service_address,
            healthy=registration.state is RegistrationState.ALIVE and registration.seconds_left > 0,
            state=registration.state,
            seconds_left=registration.seconds_left,
            status=None if health is None else health.status,
            why="" if health is None else health.why,
        )
        try:
            self._send(entry.heartbeat_to, report)
        except MessagingError:
            # Who was told is gone; the registration is not theirs and stays.
            entry.heartbeat_to = None

    # --- the end ----------------------------------------------------------------------------------------------------

    def take_all_back(self) -> Deferred[None]:
        """Take every registration back; fires when they are gone, and had their time to drain."""
        self.forget_all()
        return self.registry.take_all_back()

    def forget_all(self) -> None:
        """The registry is being stopped: nobody is told of any registration any more."""
        self._registrations.clear()
