"""``EtcdService``: etcd behind messages."""

from __future__ import annotations

from typing import cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_etcd.client.client import EtcdClient
from twisted_etcd.client.kv import is_time
from twisted_etcd.config.configuration import Configuration
from twisted_etcd.config.paths import CONFIG_PREFIX
from twisted_etcd.errors import InvalidSettings, ServiceNotFound
from twisted_etcd.messaging.addresses import ServiceHandle
from twisted_etcd.messaging.delivery import Delivery
from twisted_etcd.messaging.node import Node
from twisted_etcd.messaging.routes import handles
from twisted_etcd.messaging.service import MessageService
from twisted_etcd.registry.protection import Protection
from twisted_etcd.registry.registration import checked_drain
from twisted_etcd.registry.registry import SERVICE_PREFIX, Registry
from twisted_etcd.services import messages as m
from twisted_etcd.services.background import Background
from twisted_etcd.services.configs import Configs
from twisted_etcd.services.discovery import Discovery
from twisted_etcd.services.instances import Instances
from twisted_etcd.services.keyvalues import KeyValues
from twisted_etcd.services.subscriptions import Subscriptions
from twisted_etcd.services.watches import Watches

#: Seconds between two heartbeat checks, unless told otherwise.
HEARTBEAT_CHECK_INTERVAL = 30.0


class EtcdService(MessageService):
    """
    Answers the messages of :mod:`twisted_etcd.services.messages` from etcd, without ever waiting in the reactor.

    Its watches end with their subscribers, its registrations when they are taken back; all of it ends when it stops.

    :param client: the client that it uses. It is not stopped with this service: give it to the same node, before this
        service, and the node stops it afterwards.
    :param reactor: gives the time for the heartbeat check.
    :param heartbeat_check_interval: seconds between two checks of all registrations.
    :param config_prefix: where configuration is kept in etcd.
    :param service_prefix: where services are kept in etcd.
    :param protection: what is held back where many instances of a service vanish at once; nothing unless given.
    :param drain: seconds that its stop waits when the keys of its registrations are gone, at the least; more where a
        registration says so, none where nothing is registered.
    :ivar registry: the services in etcd, as this service finds them: ``registry.view(name)`` is shared with it. After a
        stop, the next start has another one.
    :raises InvalidSettings: where the interval, or the drain, cannot be used.
    :raises TypeError: where the client is none, or the interval or the drain no number.
    """

    _log = Logger()

    def __init__(
        self,
        client: EtcdClient,
        reactor: IReactorTime,
        *,
        heartbeat_check_interval: float = HEARTBEAT_CHECK_INTERVAL,
        config_prefix: str = CONFIG_PREFIX,
        service_prefix: str = SERVICE_PREFIX,
        protection: Protection | None = None,
        drain: float = 0.0,
        name: str = m.ETCD_SERVICE,
    ) -> None:
        super().__init__(name)
        if not hasattr(client, "watch"):
            msg = f"the first argument of EtcdService must be an EtcdClient, not {type(client).__name__}"
            raise TypeError(msg)
        if not is_time(heartbeat_check_interval, "heartbeat_check_interval") or heartbeat_check_interval == 0:
            msg = f"heartbeat_check_interval must be more than 0 seconds, not {heartbeat_check_interval!r}"
            raise InvalidSettings(msg)
        self.client = client
        self._interval = heartbeat_check_interval
        self._background = Background()
        self._subscriptions = Subscriptions(self.send, self._background)
        self._kv = KeyValues(client, self._background)
        self._watches = Watches(client, self._subscriptions)
        self._configs = Configs(Configuration(client, reactor, config_prefix), self._subscriptions)
        self._reactor = reactor
        self._service_prefix = service_prefix
        self._protection = protection
        self._drain = checked_drain(drain)
        self.stop_timeout += self._drain
        self.registry = self._new_registry()
        self._instances = Instances(self.registry, self._background, self.send)
        self._discovery = Discovery(self.registry, self._subscriptions)
        self._checking: Deferred[None] | None = None
        self._heartbeat = LoopingCall(self._check)
        self._heartbeat.clock = reactor

    @property
    def watch_count(self) -> int:
        """How many watches there are, of keys, configuration and services."""
        return len(self._subscriptions)

    @property
    def registration_count(self) -> int:
        """How many services are to be kept registered."""
        return len(self._instances)

    def _new_registry(self) -> Registry:
        return Registry(
            self.client, self._reactor, self._service_prefix, protection=self._protection, drain=self._drain
        )

    def on_init(self) -> None:
        """Be ready to register, also after a stop."""
        if self.registry.stopped:
            self.registry = self._instances.registry = self._discovery.registry = self._new_registry()

    def on_start(self) -> None:
        """Begin the heartbeat check."""
        if self.client in (later := cast("Node", self.parent).services)[later.index(self) :]:
            self._log.warn(
                "{client} comes after {service} in the node, and is stopped before it: set its parent first",
                client=self.client,
                service=self.name,
            )
        checking: Deferred[LoopingCall] = self._heartbeat.start(self._interval, now=False)
        checking.addErrback(self._check_ended)

    def _check_ended(self, failure: Failure) -> None:
        self._log.failure("The heartbeat check has ended, and registrations are no longer looked after.", failure)

    async def on_stop(self) -> None:
        """End all watches, and take all registrations and leases back."""
        if self._heartbeat.running:
            self._heartbeat.stop()
        if self._checking is not None:
            self._checking.cancel()
        self._instances.forget_all()
        self._background.add(self.registry.stopService(), "registrations could not be taken back")
        self._kv.revoke_all()
        self._subscriptions.close_all()
        await self._background.wait()

    def take_all_back(self) -> Deferred[None]:
        """
        Take all registrations back, and register nothing more until the next start: what a program does first when it
        is to stop, while its services still answer those who found them.

        :return: fires when the keys are gone, and all had their time to drain. Cancelling it ends that time.
        """
        return self._instances.take_all_back()

    async def on_exit(self) -> None:
        """Revoke what handlers that were still under way have been granted, and wait for what they left."""
        self._kv.revoke_all()
        await self._background.wait()

    def _check(self) -> Deferred[None]:
        self._checking = self._instances.check_all()
        return self._checking

    def _subscriber(self, named: m.Subscriber, delivery: Delivery) -> ServiceHandle:
        """
        Who is to be told.

        :raises ServiceNotFound: where no service of that name is in the node, or nobody is named by a sender that is
            no service.
        """
        handle = self._named(named) or delivery.sender
        if handle is None:
            msg = f"{delivery.describe()} came from outside the node: name its subscriber, a service of the node"
            raise ServiceNotFound(msg)
        return handle

    def _named(self, named: m.Subscriber) -> ServiceHandle | None:
        if named is None or isinstance(named, ServiceHandle):
            return named
        if not isinstance(named, str):
            msg = f"who is to be told is named by a service's name, or its handle, not by {type(named).__name__}"
            raise TypeError(msg)
        return cast("Node", self.parent).handle(named)

    # --- key-values, transactions, leases ---------------------------------------------------------------------------

    @handles(m.EtcdKeyExistReq)
    def on_key_exist(self, message: m.EtcdKeyExistReq) -> Deferred[m.EtcdKeyExistResp]:
        """See the message."""
        return self._kv.exist(message)

    @handles(m.EtcdGetReq)
    def on_get(self, message: m.EtcdGetReq) -> Deferred[m.EtcdGetResp]:
        """See the message."""
        return self._kv.get(message)

    @handles(m.EtcdSetReq)
    def on_set(self, message: m.EtcdSetReq) -> Deferred[m.EtcdSetResp]:
        """See the message."""
        return self._kv.set(message)

    @handles(m.EtcdDelReq)
    async def on_delete(self, message: m.EtcdDelReq) -> m.EtcdDelResp:
        """See the message."""
        return await self._kv.delete(message)

    @handles(m.EtcdGetAllReq)
    async def on_get_all(self, message: m.EtcdGetAllReq) -> m.EtcdGetAllResp:
        """See the message."""
        return await self._kv.get_all(message)

    @handles(m.EtcdListKeysReq)
    async def on_list_keys(self, message: m.EtcdListKeysReq) -> m.EtcdListKeysResp:
        """See the message."""
        return await self._kv.list_keys(message)

    @handles(m.EtcdBatchGetReq)
    async def on_batch_get(self, message: m.EtcdBatchGetReq) -> m.EtcdBatchGetResp:
        """See the message."""
        return await self._kv.batch_get(message)

    @handles(m.EtcdTxnReq)
    async def on_txn(self, message: m.EtcdTxnReq) -> m.EtcdTxnResp:
        """See the message."""
        return await self._kv.txn(message)

    @handles(m.EtcdLeaseGrantReq)
    async def on_lease_grant(self, message: m.EtcdLeaseGrantReq) -> m.EtcdLeaseGrantResp:
        """See the message."""
        return await self._kv.grant(message)

    @handles(m.EtcdLeaseRevokeReq)
    async def on_lease_revoke(self, message: m.EtcdLeaseRevokeReq) -> m.EtcdLeaseRevokeResp:
        """See the message."""
        return await self._kv.revoke(message)

    # --- watches ----------------------------------------------------------------------------------------------------

    @handles(m.EtcdWatchReq)
    async def on_watch(self, message: m.EtcdWatchReq, delivery: Delivery) -> m.EtcdWatchResp:
        """See the message."""
        return await self._watches.watch(message, self._subscriber(message.subscriber, delivery))

    @handles(m.EtcdUnwatchReq)
    async def on_unwatch(self, message: m.EtcdUnwatchReq) -> m.EtcdUnwatchResp:
        """See the message."""
        return m.EtcdUnwatchResp(await self._subscriptions.close(message.watch_id))

    # --- configuration ----------------------------------------------------------------------------------------------

    @handles(m.EtcdConfigLoadReq)
    async def on_config_load(self, message: m.EtcdConfigLoadReq) -> m.EtcdConfigLoadResp:
        """See the message."""
        return await self._configs.load(message)

    @handles(m.EtcdConfigSetReq)
    async def on_config_set(self, message: m.EtcdConfigSetReq) -> m.EtcdConfigSetResp:
        """See the message."""
        return await self._configs.set(message)

    @handles(m.EtcdConfigHistoryReq)
    async def on_config_history(self, message: m.EtcdConfigHistoryReq) -> m.EtcdConfigHistoryResp:
        """See the message."""
        return await self._configs.history(message)

    @handles(m.EtcdConfigWatchReq)
    async def on_config_watch(self, message: m.EtcdConfigWatchReq, delivery: Delivery) -> m.EtcdConfigWatchResp:
        """See the message."""
        return await self._configs.watch(message, self._subscriber(message.subscriber, delivery))

    # --- services ---------------------------------------------------------------------------------------------------

    @handles(m.EtcdServiceRegisterReq)
    async def on_register(self, message: m.EtcdServiceRegisterReq) -> m.EtcdServiceRegisterResp:
        """See the message."""
        # A stop has to wait for those that drain.
        self.stop_timeout = max(self.stop_timeout, type(self).stop_timeout + checked_drain(message.drain))
        return await self._instances.register(message, self._named(message.heartbeat_to))

    @handles(m.EtcdServiceUnregisterReq)
    async def on_unregister(self, message: m.EtcdServiceUnregisterReq) -> m.EtcdServiceUnregisterResp:
        """See the message."""
        return await self._instances.unregister(message)

    @handles(m.EtcdServiceDiscoverReq)
    async def on_discover(self, message: m.EtcdServiceDiscoverReq) -> m.EtcdServiceDiscoverResp:
        """See the message."""
        return await self._discovery.discover(message)

    @handles(m.EtcdServiceWatchReq)
    async def on_service_watch(self, message: m.EtcdServiceWatchReq, delivery: Delivery) -> m.EtcdServiceWatchResp:
        """See the message."""
        return await self._discovery.watch(message, self._subscriber(message.subscriber, delivery))

    @handles(m.EtcdServiceHeartbeatReq)
    async def on_heartbeat(self, message: m.EtcdServiceHeartbeatReq) -> m.EtcdServiceHeartbeatResp:
        """See the message."""
        return await self._instances.heartbeat(message)
