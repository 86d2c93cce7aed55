"""The part of ``EtcdService`` that answers for configuration."""

from __future__ import annotations

from twisted_etcd.config.configuration import ConfigChange, Configuration
from twisted_etcd.messaging.addresses import ServiceHandle
from twisted_etcd.services.messages import (
    EtcdConfigChangedMsg,
    EtcdConfigLoadReq,
    EtcdConfigLoadResp,
    EtcdConfigSetReq,
    EtcdConfigSetResp,
    EtcdConfigWatchReq,
    EtcdConfigWatchResp,
)
from twisted_etcd.services.subscriptions import Subscriptions


class Configs:
    """Turns configuration and its changes into messages."""

    def __init__(self, configuration: Configuration, subscriptions: Subscriptions) -> None:
        self._configuration = configuration
        self._subscriptions = subscriptions

    async def load(self, message: EtcdConfigLoadReq) -> EtcdConfigLoadResp:
        """The value now."""
        return EtcdConfigLoadResp(await self._configuration.load(message.config_key))

    async def set(self, message: EtcdConfigSetReq) -> EtcdConfigSetResp:
        """Set the value."""
        revision = await self._configuration.set(message.config_key, message.config_value)
        return EtcdConfigSetResp(success=True, revision=revision)

    async def watch(self, message: EtcdConfigWatchReq, subscriber: ServiceHandle) -> EtcdConfigWatchResp:
        """The value now, and its changes for a subscriber."""
        subscription = self._subscriptions.new(subscriber)

        def tell(change: ConfigChange) -> None:
            subscription.tell(
                EtcdConfigChangedMsg(
                    key=change.key,
                    new_value=change.new_value,
                    old_value=change.old_value,
                    change_type=change.change_type,
                    revision=change.revision,
                )
            )

        follower = self._configuration.follow(message.config_key, tell, patient=message.patient)
        await self._subscriptions.begin(subscription, follower, follower.start)
        return EtcdConfigWatchResp(subscription.id, follower.value)
