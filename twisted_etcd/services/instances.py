"""The part of ``EtcdService`` that registers services."""

from __future__ import annotations

from typing import cast

import msgspec
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_etcd.errors import LeaseNotFound, MessagingError, TwistedEtcdError
from twisted_etcd.messaging.addresses import ServiceHandle
from twisted_etcd.registry.registration import Registration, RegistrationState
from twisted_etcd.registry.registry import Registry
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


class Instances:
    """
    Keeps registrations.

    :param send: sends a message to a service; it fails with a :class:`~twisted_etcd.errors.MessagingError` where that
        is no longer there.
    """

    _log = Logger()

    def __init__(self, registry: Registry, background: Background, send: Sender) -> None:
        self._registry = registry
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
        entry = _Entry(registration, message, heartbeat_to)
        entries = self._registrations.setdefault(path, [])
        entries.append(entry)
        try:
            lease_id = await registration.start()
        except Exception:
            self._end(registration)
            self._withdraw(entry, entries)
            raise
        place = entries.index(entry)
        replaced, entries[:place] = entries[:place], []
        for earlier in replaced:
            self._background.add(
                self._replaced(earlier.registration, registration), f"what {path} replaces is left to its TTL"
            )
        return EtcdServiceRegisterResp(success=True, lease_id=lease_id)

    def _end(self, registration: Registration) -> None:
        self._background.add(registration.take_back(), f"{registration.path} is left to its TTL")

    def _withdraw(self, failed: _Entry, entries: list[_Entry]) -> None:
        """Go back to what was there before."""
        path = failed.registration.path
        if self._registrations.get(path) is not entries or failed not in entries:
            # Unregistered in the meantime, as was what was there before; or a later one was faster.
            return
        was_wanted = entries[-1] is failed
        entries.remove(failed)
        if not entries:
            del self._registrations[path]
        elif was_wanted:
            # The failed one may have put the key, and taken it away; and it was reported as ended.
            checking = Deferred.fromCoroutine(self._check(entries[-1].registration))
            self._background.add(checking, f"{path} could not be checked")

    @staticmethod
    def _replaced(earlier: Registration, registration: Registration) -> Deferred[bool]:
        # The key lives by the new lease by now and stays when the old one goes; unless the old registration was just
        # being renewed, and took it once more.
        return earlier.take_back().addCallback(lambda _: Deferred.fromCoroutine(registration.check()))

    async def unregister(self, message: EtcdServiceUnregisterReq) -> EtcdServiceUnregisterResp:
        """Take a registration back."""
        path = self._registry.path(message.service_name, message.service_address)
        entries = self._registrations.pop(path, None)
        if entries is None:
            return EtcdServiceUnregisterResp(success=False)
        taking_back = [entry.registration.take_back() for entry in entries]
        for succeeded, result in await DeferredList(taking_back, consumeErrors=True):
            if not succeeded:
                cast("Failure", result).raiseException()
        return EtcdServiceUnregisterResp(success=True)

    async def heartbeat(self, message: EtcdServiceHeartbeatReq) -> EtcdServiceHeartbeatResp:
        """Confirm a registration now."""
        path = self._registry.path(message.service_name, message.service_address)
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
        checks = [self._check(entries[-1].registration) for entries in self._registrations.values()]
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

    def _changed(self, registration: Registration) -> None:
        entries = self._registrations.get(registration.path)
        if entries is None or entries[-1].registration is not registration:
            return
        entry = entries[-1]
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
            entry.heartbeat_to = None

    # --- the end ----------------------------------------------------------------------------------------------------

    def take_all_back(self) -> None:
        """Take every registration back, in the background."""
        wanted, self._registrations = self._registrations, {}
        for entries in wanted.values():
            for entry in entries:
                self._end(entry.registration)
